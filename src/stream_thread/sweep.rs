//! The loop's part of the view's sweep (rule V6). It hands over pages of committed
//! rows, one pass an interval, and finds the orphaned keys among those that the
//! keyspace scan has found.

use super::ports::{FoundKey, FoundSubject, Log, View};
use super::slot::Slot;
use super::thread::StreamThread;
use crate::clock::Clock;

/// Rows and fleets of one page.
const PAGE: u32 = 250;
/// The least time between two pages of a thread: with [`PAGE`] it bounds the
/// rate, to 12,500 rows a second.
const PAGE_GAP_MS: i64 = 20;

impl<L: Log, V: View, C: Clock> StreamThread<L, V, C> {
    /// Continues the sweep. It runs only while no transaction is in flight: then
    /// all rows that are not marked as unwritten are committed.
    pub(super) fn sweep(&mut self) {
        let interval_ms = self.settings.refresh_interval_ms;
        if interval_ms <= 0 || self.in_flight.is_some() {
            return;
        }
        for (partition, keys) in std::mem::take(&mut self.sweep.found) {
            let running = self.slots.get(&partition).and_then(Slot::running);
            let Some(running) = running else { continue };
            let orphaned = |key: &FoundKey| match &key.subject {
                FoundSubject::Device(device) => running.shard.shows_no_device(device),
                FoundSubject::Fleet(fleet) => running.shard.counts_no_device(fleet),
            };
            let orphans: Vec<FoundKey> = keys.into_iter().filter(orphaned).collect();
            if !orphans.is_empty() {
                self.view.remove(partition, orphans);
            }
        }
        let now_ms = self.clock.monotonic_ms();
        if now_ms < self.sweep.next_page_ms || !self.view.may_sweep() {
            return;
        }
        self.sweep.next_page_ms = now_ms + PAGE_GAP_MS;
        let due = self
            .slots
            .values_mut()
            .filter_map(Slot::running_mut)
            .filter(|running| running.committed.is_some() && running.shard.may_sweep())
            .map(|running| (running.pass.due_ms(&running.shard, interval_ms), running))
            .filter(|(due_ms, _)| *due_ms <= now_ms)
            .min_by_key(|(due_ms, _)| *due_ms);
        let Some((_, running)) = due else { return };
        let page = running.shard.sweep_page(&mut running.pass.cursor, PAGE);
        running.pass.turn_over(&running.shard, interval_ms, now_ms);
        if !page.is_empty() {
            self.view.sweep(running.shard.partition(), page);
        }
    }
}
