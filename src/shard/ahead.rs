//! Looking up the rows of the next heartbeats together.
//!
//! In a table of millions the row of a heartbeat is in no cache, and waiting
//! for the memory would be a third of what a heartbeat costs. The rows of a few
//! dozen heartbeats are therefore found in one go, where the processor waits
//! for many of them at once. What was found is a guess: rows come and go before
//! the heartbeat's turn.

use std::collections::VecDeque;

use super::event::{Content, DeviceId, EventBody, Queued};
use super::table::Table;

/// How many are looked up together: more than a processor can wait for at once,
/// few enough that the rows are still in its cache when their turn comes.
const TOGETHER: usize = 32;

/// Where the rows of the next heartbeats probably are, in their order.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    rows: VecDeque<Option<u32>>,
}

impl Ahead {
    /// Looks the next ones up, if those looked up before have all been taken:
    /// first all places in the index, then all rows. A step that needed the one
    /// before it would have the processor wait.
    pub fn look_up<'a>(&mut self, next: impl Iterator<Item = &'a Queued> + Clone, table: &Table) {
        if !self.rows.is_empty() {
            return;
        }
        let devices = next.take(TOGETHER).map(device_of);
        self.rows.extend(devices.clone().map(|device| table.guess(device?)));
        for (row, device) in self.rows.iter_mut().zip(devices) {
            let is_right = |row: &u32| device.is_some_and(|device| table.is_at(*row, device));
            *row = row.filter(is_right);
        }
    }

    /// The guess for the heartbeat that was taken.
    pub fn take(&mut self) -> Option<u32> {
        self.rows.pop_front().flatten()
    }

    /// What was looked up will not be taken.
    pub fn clear(&mut self) {
        self.rows.clear();
    }
}

fn device_of(record: &Queued) -> Option<&DeviceId> {
    match &record.content {
        Content::Event(event) => match &event.body {
            EventBody::Heartbeat { device, .. } => Some(device),
            EventBody::Device { .. } | EventBody::Scope(_) => None,
        },
        Content::Bad(_) => None,
    }
}
