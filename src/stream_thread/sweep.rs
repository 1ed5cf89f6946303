//! The sweep of the view, as far as the loop has a part in it (rule V6): it
//! hands over pages of committed rows at the pace of one pass an interval, and
//! tells which of the hashes that the view has found have no row.

use super::StreamThread;
use super::ports::{FoundKey, FoundSubject, Log, View};
use crate::clock::Clock;
use crate::shard::{Shard, SweepCursor};

/// Rows and fleets of one page.
const PAGE: u32 = 250;
/// The least time between two pages of a thread: with [`PAGE`] it bounds the
/// rate, to 12,500 rows a second.
const PAGE_GAP_MS: i64 = 20;
/// How many lists of found hashes may wait for their answer: a step of the scan
/// brings one for each partition.
const FOUND_MAX: usize = 4_096;

/// Where the sweep of one shard stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass {
    started_ms: i64,
    cursor: SweepCursor,
}

impl Pass {
    /// The first pass begins now.
    pub fn new(now_ms: i64) -> Pass {
        Pass { started_ms: now_ms, cursor: SweepCursor::default() }
    }

    /// When the next page is due.
    fn due_ms(&self, shard: &Shard, interval_ms: i64) -> i64 {
        let (done, total) = shard.sweep_progress(self.cursor);
        self.started_ms + share(interval_ms, done, total)
    }

    /// The end of a pass is the beginning of the next, once its interval is over.
    fn turn_over(&mut self, shard: &Shard, interval_ms: i64, now_ms: i64) {
        let (done, total) = shard.sweep_progress(self.cursor);
        if done >= total {
            let on_time = self.started_ms + interval_ms;
            *self = Pass::new(if now_ms < on_time + interval_ms { on_time } else { now_ms });
        }
    }

    /// How much of the pass is done, from 0 to 1.
    pub fn progress(&self, shard: &Shard) -> f64 {
        let (done, total) = shard.sweep_progress(self.cursor);
        f64::from(done) / f64::from(total.max(1))
    }
}

fn share(interval_ms: i64, done: u32, total: u32) -> i64 {
    // A week in milliseconds times 2^32 is less than 2^63.
    interval_ms * i64::from(done) / i64::from(total.max(1))
}

/// What the loop knows of the sweep, of all its shards.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    next_page_ms: i64,
    found: Vec<(i32, Vec<FoundKey>)>,
}

impl Sweep {
    /// Keeps what was found until nothing is under way.
    pub fn found(&mut self, partition: i32, keys: Vec<FoundKey>) {
        if self.found.len() < FOUND_MAX {
            self.found.push((partition, keys));
        }
    }
}

impl<L: Log, V: View, C: Clock> StreamThread<L, V, C> {
    /// Goes on with the sweep. It stands between the answer to one transaction
    /// and the beginning of the next, when what is not marked as unwritten is
    /// committed.
    pub(super) fn sweep(&mut self) {
        let interval_ms = self.settings.refresh_interval_ms;
        if interval_ms <= 0 || self.in_flight.is_some() {
            return;
        }
        for (partition, keys) in std::mem::take(&mut self.sweep.found) {
            let Some(slot) = self.slots.get(&partition).filter(|slot| slot.is_running()) else {
                continue;
            };
            let orphaned = |key: &FoundKey| match &key.subject {
                FoundSubject::Device(device) => slot.shard.shows_no_device(device),
                FoundSubject::Fleet(fleet) => slot.shard.counts_no_device(fleet),
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
            .filter(|slot| slot.is_running() && slot.committed.is_some() && slot.shard.may_sweep())
            .map(|slot| (slot.pass.due_ms(&slot.shard, interval_ms), slot))
            .filter(|(due_ms, _)| *due_ms <= now_ms)
            .min_by_key(|(due_ms, _)| *due_ms);
        let Some((_, slot)) = due else { return };
        let page = slot.shard.sweep_page(&mut slot.pass.cursor, PAGE);
        slot.pass.turn_over(&slot.shard, interval_ms, now_ms);
        if !page.is_empty() {
            self.view.sweep(slot.partition, page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::Rules;

    #[test]
    fn a_share_of_the_longest_interval_does_not_overflow() {
        let week_ms = 7 * 24 * 3_600_000;
        assert_eq!(share(week_ms, u32::MAX, u32::MAX), week_ms);
        assert_eq!(share(week_ms, 0, 0), 0);
        assert_eq!(share(1_000, 1, 3), 333);
    }

    #[test]
    fn passes_begin_an_interval_apart_and_lost_ones_are_not_made_up_for() {
        // An empty shard still has the fleet of those that have none.
        let mut shard = Shard::new(3, Rules::default());
        let mut pass = Pass::new(100);
        let mut turn = |pass: &mut Pass, now_ms| {
            assert!(pass.due_ms(&shard, 1_000) <= now_ms);
            shard.sweep_page(&mut pass.cursor, PAGE);
            pass.turn_over(&shard, 1_000, now_ms);
            (pass.due_ms(&shard, 1_000), pass.progress(&shard))
        };
        assert_eq!(turn(&mut pass, 150), (1_100, 0.0));
        assert_eq!(turn(&mut pass, 2_050), (2_100, 0.0));
        assert_eq!(turn(&mut pass, 9_000), (9_000, 0.0));
    }
}
