//! Broker time, as far as this process knows it (rule T6).

use crate::shard::Timestamp;

/// A record that is stamped this far ahead of the known broker time shows that the
/// known time is stale, if its last report is at least as old. It is more than the
/// clocks of brokers differ.
const STALE_MS: i64 = 5_000;

/// The monotonic clock plus an offset, learned from the broker's timestamps on our
/// records.
#[derive(Clone, Copy, Debug, Default)]
pub struct BrokerTime {
    offset_ms: Option<i64>,
    reported_ms: i64,
    /// A producer's timestamp suggests that the time is stale. Only a report can
    /// confirm that.
    in_doubt: bool,
}

impl BrokerTime {
    /// Takes a delivery report: the broker stamped a record with `stamp`, and the
    /// report came at `received_ms` of the monotonic clock. The stamp is older than
    /// the report, so the resulting time is late rather than early. With a late
    /// time, the shards' clocks only wait.
    ///
    /// Returns whether the time was unknown, or stale as after a pause of the whole
    /// machine that no record has shown yet.
    pub fn report(&mut self, stamp: Timestamp, received_ms: i64) -> bool {
        let known = self.now(received_ms);
        self.offset_ms = Some(stamp.0 - received_ms);
        self.reported_ms = received_ms;
        self.in_doubt = false;
        known.is_none_or(|known| stamp > known.plus_ms(STALE_MS))
    }

    /// The broker's time now; `None` before the first report.
    #[must_use]
    pub fn now(&self, monotonic_ms: i64) -> Option<Timestamp> {
        self.offset_ms.map(|offset| Timestamp(monotonic_ms + offset))
    }

    /// Takes the broker's timestamp of a record. If it is far ahead, the known time
    /// is from before a pause of the whole machine, during which the monotonic
    /// clock stood still. The time is then forgotten until the next report, because
    /// this timestamp may be another broker's.
    pub fn doubt(&mut self, stamp: Timestamp, monotonic_ms: i64) {
        if self.is_behind(stamp, monotonic_ms) && self.age_ms(monotonic_ms) > STALE_MS {
            self.forget();
        }
    }

    /// Takes a producer's timestamp of a record. The producer's clock may be wrong,
    /// so the known time stays; but a new report is wanted once the last one is old
    /// enough.
    pub fn doubt_by_sender(&mut self, stamp: Timestamp, monotonic_ms: i64) {
        self.in_doubt |= self.is_behind(stamp, monotonic_ms);
    }

    fn is_behind(&self, stamp: Timestamp, monotonic_ms: i64) -> bool {
        self.now(monotonic_ms).is_some_and(|now| stamp > now.plus_ms(STALE_MS))
    }

    /// Whether a report is needed: nothing is known, it is in doubt, or the last
    /// report is `interval_ms` old.
    #[must_use]
    pub fn wants_report(&self, monotonic_ms: i64, interval_ms: i64) -> bool {
        let age_ms = self.age_ms(monotonic_ms);
        self.offset_ms.is_none() || self.in_doubt && age_ms > STALE_MS || age_ms >= interval_ms
    }

    /// Forgets the time until the next report.
    pub fn forget(&mut self) {
        self.offset_ms = None;
    }

    /// How long ago the last report came, in milliseconds.
    fn age_ms(&self, monotonic_ms: i64) -> i64 {
        monotonic_ms - self.reported_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_forgotten_after_the_machine_slept() {
        let mut time = BrokerTime::default();
        time.doubt(Timestamp(9_000_000), 5_000);
        time.report(Timestamp(1_000_000), 5_000);
        time.doubt(Timestamp(9_000_000), 6_000);
        assert_eq!(time.now(6_000), Some(Timestamp(1_001_000)), "just reported");
        time.doubt(Timestamp(1_006_001), 15_000);
        assert_eq!(time.now(15_000), Some(Timestamp(1_010_000)), "not stamped that much later");
        time.doubt(Timestamp(9_000_000), 15_000);
        assert_eq!(time.now(15_000), None);
        time.doubt(Timestamp(9_000_000), 15_000);
        assert_eq!(time.now(15_000), None);
    }

    #[test]
    fn producer_timestamp_wants_a_report_and_keeps_the_time() {
        let mut time = BrokerTime::default();
        assert!(time.wants_report(5_000, 55_000), "nothing is known");
        time.report(Timestamp(1_000_000), 5_000);
        time.doubt_by_sender(Timestamp(1_010_000), 15_000);
        assert!(!time.wants_report(15_000, 55_000), "not stamped that much later");
        time.doubt_by_sender(Timestamp(9_000_000), 6_000);
        assert!(!time.wants_report(6_000, 55_000), "just reported");
        assert!(time.wants_report(15_000, 55_000), "still in doubt");
        assert_eq!(time.now(15_000), Some(Timestamp(1_010_000)));
        time.report(Timestamp(1_010_000), 15_010);
        assert!(!time.wants_report(15_010, 55_000), "the sender's clock was wrong");
        assert!(time.wants_report(70_010, 55_000), "it is old");
    }

    #[test]
    fn report_is_news_if_the_time_was_unknown_or_stale() {
        let mut time = BrokerTime::default();
        assert!(time.report(Timestamp(1_000_000), 5_000));
        assert!(!time.report(Timestamp(1_060_000), 65_010));
        // The machine slept for a minute; its first commit shows that.
        assert!(time.report(Timestamp(1_121_000), 66_010));
        assert!(!time.report(Timestamp(1_122_000), 67_010));
    }

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
