//! The numbers that statuses depend on, from the configuration.

use super::event::Timestamp;
use super::facts::interval::HeartbeatInterval;
use super::fnv::fnv1a;

/// How far an event may carry the judging of its row past the clock (rule T5),
/// in milliseconds: the limit keeps an input that cannot be read from expiring
/// anybody through another input's events.
pub(in crate::shard) const JUDGED_AHEAD_MS: i64 = 10_000;

/// The numbers that statuses and the clock depend on (docs/statuses.md,
/// docs/rules.md).
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// How many poll intervals a heartbeat counts for, at least 1.
    pub tolerance: f64,
    /// The shortest poll interval that is believed, in milliseconds.
    pub minimum_ms: i64,
    /// How long after a missed poll the device is Offline, in milliseconds.
    pub grace_ms: i64,
    /// The poll interval of devices of which none is known, in milliseconds.
    pub default_poll_interval_ms: i64,
    /// Whether the VPN is meant to be up where no setting says so (rule J2).
    pub vpn_enabled_by_default: bool,
    /// By how much a lease may come late, and run from its record, in
    /// milliseconds; 0: from its event's own time always (rule J4).
    pub max_lease_delay_ms: i64,
    /// How much later than its event a record may be, in milliseconds (rule T2).
    pub slack_ms: i64,
    /// Heartbeats younger than this are replayed by a restore and need not be
    /// written, in milliseconds (rule R2).
    pub replay_window_ms: i64,
    /// How far a record stamped by its sender may jump ahead, in milliseconds
    /// (rule T3).
    pub max_clock_jump_ms: i64,
    /// How long closed sessions and deletions are remembered, in milliseconds.
    pub tombstone_retention_ms: i64,
    /// How long an input that others wait for may be silent before it counts as
    /// one that cannot be read, in milliseconds (rule T4).
    pub max_input_idle_ms: i64,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            tolerance: 1.5,
            minimum_ms: 10 * 60_000,
            grace_ms: 15_000,
            default_poll_interval_ms: 15 * 60_000,
            vpn_enabled_by_default: true,
            max_lease_delay_ms: 15 * 60_000,
            slack_ms: 2_000,
            replay_window_ms: 30 * 60_000,
            max_clock_jump_ms: 5 * 60_000,
            tombstone_retention_ms: 24 * 3_600_000,
            max_input_idle_ms: 10_000,
        }
    }
}

/// The longest poll interval, in seconds (rule J3).
pub const INTERVAL_MAX_S: u32 = 366 * 86_400;

impl Rules {
    /// How long a heartbeat counts as online, in milliseconds, rounded up
    /// (rule J3).
    #[must_use]
    pub fn online_ms(&self, interval_ms: i64) -> i64 {
        let interval_ms = interval_ms.max(self.minimum_ms).max(0);
        let span = (self.tolerance * interval_ms as f64).ceil();
        // A saturating cast: nonsense in the configuration is no panic here.
        (span as i64).max(interval_ms)
    }

    /// When a heartbeat at `at` times out, and when it expires.
    #[must_use]
    pub fn deadlines(&self, at: Timestamp, interval: HeartbeatInterval) -> (Timestamp, Timestamp) {
        let interval_ms = interval.ms(self.default_poll_interval_ms);
        let timeout = at.plus_ms(self.online_ms(interval_ms));
        (timeout, timeout.plus_ms(self.grace_ms.max(0)))
    }

    /// The time from which a lease runs that an event of `at` tells of, and whose
    /// sender lived at `sent`: a lease is a promise about the time to come (rule
    /// J4).
    #[must_use]
    pub fn counted_at(&self, at: Timestamp, sent: Option<Timestamp>) -> Timestamp {
        let lived_at = sent.map_or(at, |sent| sent.plus_ms(-self.slack_ms));
        let late_by_ms = lived_at.0.saturating_sub(at.0);
        if (0..=self.max_lease_delay_ms).contains(&late_by_ms) { lived_at } else { at }
    }

    /// For how long a deletion is remembered that has to outlive polls at this
    /// interval, in milliseconds (rule J5).
    #[must_use]
    pub fn deletion_span_ms(&self, interval_s: Option<u32>) -> i64 {
        let interval_ms = interval_s.map_or(0, |seconds| i64::from(seconds) * 1_000);
        let longest_ms = interval_ms.max(self.default_poll_interval_ms);
        let span = (2.0 * self.tolerance * longest_ms as f64).ceil();
        (span as i64).max(self.tombstone_retention_ms).max(0)
    }

    /// A stable hash of what statuses depend on: kept beside the committed
    /// offsets, so that a start with other rules is known for one (rule C2).
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let numbers = [
            self.tolerance.to_bits(),
            self.minimum_ms.cast_unsigned(),
            self.grace_ms.cast_unsigned(),
            self.default_poll_interval_ms.cast_unsigned(),
            u64::from(self.vpn_enabled_by_default),
        ];
        fnv1a(numbers.into_iter().flat_map(u64::to_le_bytes))
    }
}
