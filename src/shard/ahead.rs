//! Looking up the rows of the next heartbeats together.
//!
//! In a table of millions of rows, a heartbeat's row is in no cache, and waiting
//! for memory would be a third of a heartbeat's cost. So the rows of a few dozen
//! heartbeats are looked up together, and the processor waits for many of them at
//! once. The result is a guess: rows come and go before the heartbeat's turn.

use std::collections::VecDeque;

use super::event::{Content, DeviceId, EventBody, Queued};
use super::table::Table;

/// How many rows are looked up together: more than a processor can wait for at
/// once, and few enough that they are still in its cache at their turn.
const TOGETHER: usize = 32;

/// The probable places of the next heartbeats' rows, in their order.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    rows: VecDeque<Option<u32>>,
}

impl Ahead {
    /// Looks up the next rows, if all earlier ones have been taken: first all
    /// places in the index, then all rows. If each step needed the one before it,
    /// the processor would wait for each.
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

    /// The guess for the heartbeat that is taken now.
    pub fn take(&mut self) -> Option<u32> {
        self.rows.pop_front().flatten()
    }

    /// Drops the guesses: they will not be taken.
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
