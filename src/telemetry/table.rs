//! Every metric there is.
//!
//! Names begin with `device_status_`, units are base units and come last,
//! counters end in `_total`. The table at the end is the one; emit with the names
//! there and the `metrics` macros:
//! `counter!(RECORDS, "input" => "heartbeats", "result" => "applied").increment(1)`.

use Kind::{Counted, Counter, Gauge, Histogram};
use metrics::Unit;

/// What a metric is to Prometheus.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution, with these upper bounds.
    Histogram(&'static [f64]),
    /// A distribution that is counted before it is published (`ages.rs`).
    Counted,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its full name.
    pub name: &'static str,
    /// What it is to Prometheus.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it counts or measures.
    pub help: &'static str,
}

impl Metric {
    /// Its unit, which its name ends in.
    #[must_use]
    pub fn unit(&self) -> Unit {
        if self.name.ends_with("_seconds") { Unit::Seconds } else { Unit::Count }
    }
}

/// Bounds for transactions: they take some milliseconds, or something is wrong.
const TRANSACTION_BOUNDS: &[f64] =
    &[0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Bounds for the delay of changes: from the usual to an outage of a day.
const CHANGE_DELAY_BOUNDS: &[f64] = &[
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 7_200.0, 43_200.0,
    86_400.0,
];

/// Makes the constants with the names, documented by the help, and [`METRICS`].
macro_rules! metrics {
    ($($constant:ident: $kind:expr, $name:literal, $labels:expr, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: &str = $name;
        )*

        /// Every metric of ours; `process_…` beside them come from `metrics-process`.
        pub const METRICS: &[Metric] =
            &[$(Metric { name: $constant, kind: $kind, labels: &$labels, help: $help }),*];
    };
}

metrics! {
    RECORDS: Counter, "device_status_records_total", ["input", "result"],
        "Records read from the inputs, by what became of them: applied, stale (the row knew \
         something later), dead_letter.";
    EVENT_AGE: Counted, "device_status_event_age_seconds", ["input"],
        "How old events were by their occurred_at when their records were written; below 0 for \
         those of the future. Events without occurred_at are left out.";
    OVER_ON_ARRIVAL: Counter, "device_status_over_on_arrival_total", ["what"],
        "Leases that were over when they came, and heartbeats that had expired, by their \
         occurred_at (what: lease, heartbeat).";
    DEAD_LETTERS: Counter, "device_status_dead_letters_total", ["input", "reason"],
        "Records that could not be used, by reason.";
    LETTER_SHARE: Gauge, "device_status_dead_letter_share_ratio", ["input", "partition"],
        "The share of a partition's records of the last minute that became dead letters, of at \
         least 100; where reading has stopped, as it was then.";
    LETTER_SHARE_MAX: Gauge, "device_status_dead_letter_share_max_ratio", [],
        "dead_letters.max_share: where the share is greater, reading stops; 1 for off.";
    STOPPED: Gauge, "device_status_input_stopped", ["input", "partition"],
        "1 while an input's partition is read no further, because dead_letters.max_share was \
         passed, else 0.";
    STATUS_CHANGES: Counter, "device_status_changes_total", ["from", "to"],
        "Status changes emitted; none where there is no status before or after. A change of \
         connectivity alone has the same from and to.";
    CHANGE_DELAY: Histogram(CHANGE_DELAY_BOUNDS), "device_status_change_delay_seconds", [],
        "From the instant that made a change true (since, or connectivity_since) to its commit.";
    DEADLINES: Counter, "device_status_deadlines_total", [],
        "Deadlines of devices that passed and were acted upon.";
    DEVICES: Gauge, "device_status_devices", ["partition", "status"],
        "Devices by status, of the partitions that this process owns.";
    NAMES: Gauge, "device_status_names", ["partition", "kind"],
        "Names that are known by kind: fleet, organization, instance. Each partition knows all \
         that were told of in broadcasts, and those of its own devices.";
    LAG: Gauge, "device_status_input_lag_records", ["input", "partition"],
        "Records of an input's partition that are not processed yet.";
    CLOCK_LAG: Gauge, "device_status_clock_lag_seconds", ["partition"],
        "How far a partition's clock, by which devices expire, is behind the time of day.";
    OPEN_TRANSACTION: Gauge, "device_status_open_transaction_seconds", ["input", "partition"],
        "For how long, at least, a producer's transaction has been open on a partition of an \
         input, so that what is behind it cannot be read; 0 while none is.";
    TRANSACTION_DURATION: Histogram(TRANSACTION_BOUNDS), "device_status_transaction_duration_seconds", [],
        "Duration of transactions, from the first record to the commit's answer.";
    COMMITS: Counter, "device_status_commits_total", ["result"],
        "Batches by what became of them: committed, refused (sent again), unknown (resolved by \
         the committed offsets).";
    RESTORED: Counter, "device_status_restored_records_total", ["source"],
        "Records read by restores, from the changelog, the VPN sessions or the heartbeats.";
    WORKED_AT: Gauge, "device_status_worked_at_seconds", ["thread", "work", "edge"],
        "When records were first and last (edge) applied or restored (work), in seconds of the \
         process's monotonic clock: for rates, by differences only.";
    RESTORE_REMAINING: Gauge, "device_status_restore_remaining_records", ["partition"],
        "Records that the restore of a partition has still to read.";
    SHARDS: Gauge, "device_status_shards", ["thread", "state"],
        "Shards by state: waiting (for all three inputs), restoring, running, failed (the log \
         says why).";
    PARTITIONS: Gauge, "device_status_partitions", [],
        "Partitions that the whole group shares.";
    WITHOUT_OWNER: Gauge, "device_status_partitions_without_owner", [],
        "Partitions that no member of the group has, as the group said last; the same in each \
         process.";
    READY: Gauge, "device_status_ready", [],
        "1 while /ready answers 200, else 0.";
    REBALANCES: Counter, "device_status_rebalances_total", ["kind"],
        "Rebalances that touched this process: assigned, revoked, lost.";
    OFFSETS_LOST: Counter, "device_status_offsets_lost_total", ["input"],
        "Starts of a partition whose committed offset was gone, so that records may have been \
         missed.";
    SESSIONS_FORGOTTEN: Counter, "device_status_sessions_forgotten_total", [],
        "Closed VPN sessions forgotten before their time, because their device had too many.";
    OPEN_SESSIONS_FORGOTTEN: Counter, "device_status_open_sessions_forgotten_total", [],
        "Open VPN sessions forgotten, because their device had too many.";
    REDIS_UP: Gauge, "device_status_redis_up", [],
        "1 while Redis answers, else 0.";
    REDIS_OTHER_GROUP: Gauge, "device_status_redis_other_group", [],
        "1 while the keys under redis.prefix belong to another group, so that nothing is written \
         to Redis, else 0.";
    REDIS_REFUSING: Gauge, "device_status_redis_refusing", [],
        "1 while Redis answers and refuses what is written (OOM, READONLY, NOPERM, MISCONF), else \
         0.";
    REDIS_EVICTS: Gauge, "device_status_redis_evicts", [],
        "1 while maxmemory-policy lets Redis throw keys away when it is full, else 0.";
    REDIS_BACKLOG: Gauge, "device_status_redis_backlog_writes", [],
        "Writes that wait for Redis.";
    REDIS_WRITES: Counter, "device_status_redis_writes_total", ["result"],
        "Writes to Redis by result: written, refused (something later was there), failed (tried \
         again).";
    REDIS_REWRITES: Counter, "device_status_redis_rewrites_total", [],
        "Times that a whole partition was written to Redis again, because it was lost there.";
    REDIS_SWEEP: Counter, "device_status_redis_sweep_hashes_total", ["result"],
        "Hashes that the sweep compared with memory, by result: same, refreshed (only the \
         heartbeat was older), repaired (missing or wrong), removed (of no device), skipped \
         (something newer came first), failed.";
    REDIS_SWEEP_PROGRESS: Gauge, "device_status_redis_sweep_progress_ratio", ["partition"],
        "How much of its pass the sweep has done, from 0 to 1.";
    REDIS_SCANS: Counter, "device_status_redis_scans_total", [],
        "Whole looks at all keys for those of no device.";
    BUILD_INFO: Gauge, "device_status_build_info", ["version"],
        "Always 1; the label says what is running.";
}
