//! The broker's time, as far as this process can know it (rule T6).

use crate::shard::Timestamp;

/// How far ahead of the time that is known a record is stamped that shows it to
/// be stale, and how old that must be: more than brokers' clocks differ by.
const STALE_MS: i64 = 5_000;

/// The monotonic clock, set by the stamps that the broker puts on our records.
#[derive(Clone, Copy, Debug, Default)]
pub struct BrokerTime {
    offset_ms: Option<i64>,
    reported_ms: i64,
    /// A sender's stamp says that it is stale, which only a report can tell.
    in_doubt: bool,
}

impl BrokerTime {
    /// The broker stamped a record with `stamp`, and said so at `received_ms` on
    /// the monotonic clock. The stamp is older than the report, so the time
    /// made of it is late rather than early: late, the clock only waits.
    ///
    /// Answers whether this is news: nothing was known, or the time of before a
    /// pause of the whole machine, which no record has cast doubt on yet.
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

    /// A record stamped so late shows that what is known is of before a pause of
    /// the whole machine, which the monotonic clock slept through. Rather than
    /// to take another broker's word for the time, it is forgotten until the
    /// next report.
    pub fn doubt(&mut self, stamp: Timestamp, monotonic_ms: i64) {
        if self.is_behind(stamp, monotonic_ms) && self.age_ms(monotonic_ms) > STALE_MS {
            self.forget();
        }
    }

    /// The same of a stamp that a sender has put on its record. Its clock may be
    /// wrong, so that what is known stays known; but it is asked for anew, once
    /// the last report is as old.
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

    /// The time is not known until the next report.
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
    fn a_machine_that_slept_forgets_the_time_until_the_next_report() {
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
    fn a_senders_stamp_asks_for_the_time_and_forgets_nothing() {
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
    fn a_report_is_news_where_nothing_was_known_or_what_was_known_is_stale() {
        let mut time = BrokerTime::default();
        assert!(time.report(Timestamp(1_000_000), 5_000));
        assert!(!time.report(Timestamp(1_060_000), 65_010));
        // The machine slept for a minute, and its first commit tells.
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
