//! The broker's time, as far as this process can know it (rule T6).

use crate::shard::Timestamp;

/// The monotonic clock, set by the stamps that the broker puts on our records.
#[derive(Clone, Copy, Debug, Default)]
pub struct BrokerTime {
    offset_ms: Option<i64>,
    reported_ms: i64,
}

impl BrokerTime {
    /// The broker stamped a record with `stamp`, and said so at `received_ms` on
    /// the monotonic clock. The stamp is older than the report, so the time
    /// made of it is late rather than early: late, the clock only waits.
    pub fn report(&mut self, stamp: Timestamp, received_ms: i64) {
        self.offset_ms = Some(stamp.0 - received_ms);
        self.reported_ms = received_ms;
    }

    /// The broker's time now; `None` before the first report.
    #[must_use]
    pub fn now(&self, monotonic_ms: i64) -> Option<Timestamp> {
        self.offset_ms.map(|offset| Timestamp(monotonic_ms + offset))
    }

    /// How long ago the last report came, in milliseconds.
    #[must_use]
    pub fn age_ms(&self, monotonic_ms: i64) -> i64 {
        monotonic_ms - self.reported_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_hosts_clock_does_not_move_it() {
        let mut time = BrokerTime::default();
        assert_eq!(time.now(5_000), None);
        time.report(Timestamp(1_000_000), 5_000);
        assert_eq!(time.now(6_000), Some(Timestamp(1_001_000)));
        time.report(Timestamp(1_060_000), 65_010);
        assert_eq!(time.now(65_010), Some(Timestamp(1_060_000)));
    }
}
