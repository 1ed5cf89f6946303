//! The settings that statuses depend on, from the configuration.

use super::event::Timestamp;
use super::facts::interval::HeartbeatInterval;
use super::fnv::fnv1a;

/// How far ahead of the clock an event may let its row be judged (rule T5), in
/// milliseconds. Because of this limit, another input's events expire no device
/// while an input cannot be read.
pub(in crate::shard) const JUDGED_AHEAD_MS: i64 = 10_000;

/// The settings that statuses and the clock depend on (docs/statuses.md,
/// docs/rules.md).
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// How many poll intervals a heartbeat counts for, at least 1.
    pub tolerance: f64,
    /// The shortest poll interval that is used, in milliseconds.
    pub minimum_ms: i64,
    /// The grace: how long after a missed poll the device is Offline, in
    /// milliseconds.
    pub grace_ms: i64,
    /// The poll interval of devices without a known one, in milliseconds.
    pub default_poll_interval_ms: i64,
    /// Whether devices are meant to use the VPN if no setting says so (rule J2).
    pub vpn_enabled_by_default: bool,
    /// By how much a lease may be late and still run from its record, in
    /// milliseconds; 0: always from its event's own time (rule J4).
    pub max_lease_delay_ms: i64,
    /// The allowed lateness: how much later than its event a record may be, in
    /// milliseconds (rule T2).
    pub slack_ms: i64,
    /// The replay window, in milliseconds: a restore replays younger heartbeats,
    /// so they need not be written (rule R2).
    pub replay_window_ms: i64,
    /// How far ahead the timestamp of a record may jump if its sender set it, in
    /// milliseconds (rule T3).
    pub max_clock_jump_ms: i64,
    /// How long closed sessions and deletions are remembered, in milliseconds.
    pub tombstone_retention_ms: i64,
    /// How long an input that is a barrier may be silent before it counts as
    /// unreadable, in milliseconds (rule T4).
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
        // A saturating cast: absurd configuration values must not panic here.
        (span as i64).max(interval_ms)
    }

    /// When a heartbeat at `at` times out, and when it expires.
    #[must_use]
    pub fn deadlines(&self, at: Timestamp, interval: HeartbeatInterval) -> (Timestamp, Timestamp) {
        let interval_ms = interval.ms(self.default_poll_interval_ms);
        let timeout = at.plus_ms(self.online_ms(interval_ms));
        (timeout, timeout.plus_ms(self.grace_ms.max(0)))
    }

    /// The counted time of a lease, from which it runs: of an event at `at` whose
    /// sender was alive at `sent`. A lease is a promise about the future (rule
    /// J4).
    #[must_use]
    pub fn counted_at(&self, at: Timestamp, sent: Option<Timestamp>) -> Timestamp {
        let lived_at = sent.map_or(at, |sent| sent.plus_ms(-self.slack_ms));
        let late_by_ms = lived_at.0.saturating_sub(at.0);
        if (0..=self.max_lease_delay_ms).contains(&late_by_ms) { lived_at } else { at }
    }

    /// How long a deletion is remembered that must outlive polls at this
    /// interval, in milliseconds (rule J5).
    #[must_use]
    pub fn deletion_span_ms(&self, interval_s: Option<u32>) -> i64 {
        let interval_ms = interval_s.map_or(0, |seconds| i64::from(seconds) * 1_000);
        let longest_ms = interval_ms.max(self.default_poll_interval_ms);
        let span = (2.0 * self.tolerance * longest_ms as f64).ceil();
        (span as i64).max(self.tombstone_retention_ms).max(0)
    }

    /// A stable hash of the settings that statuses depend on. It is committed
    /// beside the offsets, so that a start with other settings is noticed (rule
    /// C2).
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
