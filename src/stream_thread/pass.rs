//! The progress of the view's sweep (rule V6), for a shard and for a thread.

use super::ports::FoundKey;
use crate::shard::{Shard, SweepCursor};

/// How many lists of found keys may wait to be checked. One step of the keyspace
/// scan brings a list for each partition.
const FOUND_MAX: usize = 4_096;

/// The progress of one shard's sweep.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass {
    started_ms: i64,
    pub cursor: SweepCursor,
}

impl Pass {
    /// The first pass begins now.
    pub fn new(now_ms: i64) -> Pass {
        Pass { started_ms: now_ms, cursor: SweepCursor::default() }
    }

    /// When the next page is due.
    pub fn due_ms(&self, shard: &Shard, interval_ms: i64) -> i64 {
        let (done, total) = shard.sweep_progress(self.cursor);
        self.started_ms + share(interval_ms, done, total)
    }

    /// Starts the next pass at the end of this one, once its interval is over.
    pub fn turn_over(&mut self, shard: &Shard, interval_ms: i64, now_ms: i64) {
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

/// The sweep of all shards of a thread.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    pub next_page_ms: i64,
    pub found: Vec<(i32, Vec<FoundKey>)>,
}

impl Sweep {
    /// Keeps found keys until no transaction is in flight.
    pub fn found(&mut self, partition: i32, keys: Vec<FoundKey>) {
        if self.found.len() < FOUND_MAX {
            self.found.push((partition, keys));
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
    fn passes_start_an_interval_apart_and_missed_ones_are_skipped() {
        // An empty shard still has one fleet, that of devices without a fleet.
        let mut shard = Shard::new(3, Rules::default());
        let mut pass = Pass::new(100);
        let mut turn = |pass: &mut Pass, now_ms| {
            assert!(pass.due_ms(&shard, 1_000) <= now_ms);
            shard.sweep_page(&mut pass.cursor, 250);
            pass.turn_over(&shard, 1_000, now_ms);
            (pass.due_ms(&shard, 1_000), pass.progress(&shard))
        };
        assert_eq!(turn(&mut pass, 150), (1_100, 0.0));
        assert_eq!(turn(&mut pass, 2_050), (2_100, 0.0));
        assert_eq!(turn(&mut pass, 9_000), (9_000, 0.0));
    }
}
