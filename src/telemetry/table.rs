//! The table of all metrics.
//!
//! Names begin with `device_status_`. Units are base units and come last. Counters
//! end in `_total`. To emit a metric, use the constant with its name:
//! `counter!(RECORDS, "input" => "heartbeats", "result" => "applied").increment(1)`.

use Kind::{Counted, Counter, Gauge, Histogram};
use metrics::Unit;

/// The type of a metric in Prometheus.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A histogram with these upper bounds.
    Histogram(&'static [f64]),
    /// A histogram that is counted by us, not by the exporter (`ages.rs`).
    Counted,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its full name.
    pub name: &'static str,
    /// Its type in Prometheus.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it counts or measures.
    pub help: &'static str,
}

impl Metric {
    /// Its unit, by the end of its name.
    #[must_use]
    pub fn unit(&self) -> Unit {
        if self.name.ends_with("_seconds") { Unit::Seconds } else { Unit::Count }
    }
}

/// Buckets for transactions. A healthy one takes some milliseconds.
const TRANSACTION_BOUNDS: &[f64] =
    &[0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Buckets for the delay of changes: from the usual delay to an outage of a day.
const CHANGE_DELAY_BOUNDS: &[f64] = &[
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 7_200.0, 43_200.0,
    86_400.0,
];

/// Makes a constant for each name, documented by its help, and [`METRICS`].
macro_rules! metrics {
    ($($constant:ident: $kind:expr, $name:literal, $labels:expr, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: &str = $name;
        )*

        /// All metrics of this crate. `metrics-process` adds `process_…`.
        pub const METRICS: &[Metric] =
            &[$(Metric { name: $constant, kind: $kind, labels: &$labels, help: $help }),*];
    };
}

metrics! {
    RECORDS: Counter, "device_status_records_total", ["input", "result"],
        "Records read from the inputs, by result: applied, stale (the row had a later event), \
         dead_letter.";
    EVENT_AGE: Counted, "device_status_event_age_seconds", ["input"],
        "Age of events (record timestamp less occurred_at); below 0 for events from the future. \
         Events without occurred_at are not counted.";
    OVER_ON_ARRIVAL: Counter, "device_status_over_on_arrival_total", ["what"],
        "Leases that had ended, and heartbeats that had expired, by the time of their own record \
         (what: lease, heartbeat).";
    DEAD_LETTERS: Counter, "device_status_dead_letters_total", ["input", "reason"],
        "Records that could not be used, by reason.";
    LETTER_SHARE: Gauge, "device_status_dead_letter_share_ratio", ["input", "partition"],
        "The share of a partition's records of the last minute, of at least 100, that became dead \
         letters; where reading has stopped, the share at that time.";
    LETTER_SHARE_MAX: Gauge, "device_status_dead_letter_share_max_ratio", [],
        "dead_letters.max_share: reading stops if the share is larger; 1 for off.";
    STOPPED: Gauge, "device_status_input_stopped", ["input", "partition"],
        "1 while the service does not read an input's partition because dead_letters.max_share was \
         exceeded, else 0.";
    STATUS_CHANGES: Counter, "device_status_changes_total", ["from", "to"],
        "Status changes emitted. none: no status before or after. A change of connectivity alone \
         has the same from and to.";
    CHANGE_DELAY: Histogram(CHANGE_DELAY_BOUNDS), "device_status_change_delay_seconds", [],
        "From the instant that made a change true (since, or connectivity_since) to its commit.";
    DEADLINES: Counter, "device_status_deadlines_total", [],
        "Deadlines that changed a device: heartbeats timed out or expired.";
    DEVICES: Gauge, "device_status_devices", ["partition", "status"],
        "Devices by status, in the partitions that this process owns.";
    NAMES: Gauge, "device_status_names", ["partition", "kind"],
        "Known names by kind: fleet, organization, instance. Each partition knows all names from \
         broadcasts, and those of its own devices.";
    LAG: Gauge, "device_status_input_lag_records", ["input", "partition"],
        "Records of an input's partition that are not processed yet.";
    CLOCK_LAG: Gauge, "device_status_clock_lag_seconds", ["partition"],
        "How far the clock of a partition, by which its devices expire, is behind the time of day.";
    OPEN_TRANSACTION: Gauge, "device_status_open_transaction_seconds", ["input", "partition"],
        "How long, at least, a producer's transaction has been open on a partition of an input. \
         Records behind it cannot be read. 0: none is open.";
    TRANSACTION_DURATION: Histogram(TRANSACTION_BOUNDS), "device_status_transaction_duration_seconds", [],
        "Duration of transactions, from the first record to the commit's answer.";
    COMMITS: Counter, "device_status_commits_total", ["result"],
        "Batches by result: committed, refused (aborted and sent again), unknown (no answer; \
         resolved by the committed offsets).";
    RESTORED: Counter, "device_status_restored_records_total", ["source"],
        "Records read by restores, from the changelog, the VPN sessions or the heartbeats.";
    WORKED_AT: Gauge, "device_status_worked_at_seconds", ["thread", "work", "edge"],
        "When records were first and last (edge) applied or restored (work), in seconds of the \
         process's monotonic clock. Use only differences, for rates.";
    RESTORE_REMAINING: Gauge, "device_status_restore_remaining_records", ["partition"],
        "Records that the restore of a partition still has to read.";
    SHARDS: Gauge, "device_status_shards", ["thread", "state"],
        "Shards by state: waiting (for all three inputs), restoring, running, failed (the log \
         says why).";
    PARTITIONS: Gauge, "device_status_partitions", [],
        "Partitions that the whole group shares.";
    WITHOUT_OWNER: Gauge, "device_status_partitions_without_owner", [],
        "Partitions that no member of the group owns, by the coordinator's last answer; the same \
         in each process.";
    READY: Gauge, "device_status_ready", [],
        "1 while /ready answers 200, else 0.";
    REBALANCES: Counter, "device_status_rebalances_total", ["kind"],
        "Rebalances that touched this process: assigned, revoked, lost.";
    OFFSETS_LOST: Counter, "device_status_offsets_lost_total", ["input"],
        "How often an offset of a partition was out of range (no longer in the log): records were \
         missed.";
    SESSIONS_FORGOTTEN: Counter, "device_status_sessions_forgotten_total", [],
        "Closed VPN sessions that were forgotten early, because their device had too many.";
    OPEN_SESSIONS_FORGOTTEN: Counter, "device_status_open_sessions_forgotten_total", [],
        "Open VPN sessions that were forgotten, because their device had too many.";
    REDIS_UP: Gauge, "device_status_redis_up", [],
        "1 while Redis answers, else 0.";
    REDIS_OTHER_GROUP: Gauge, "device_status_redis_other_group", [],
        "1 while the keys under redis.prefix belong to another group, and this process writes \
         nothing to Redis; else 0.";
    REDIS_REFUSING: Gauge, "device_status_redis_refusing", [],
        "1 while Redis answers and refuses writes (OOM, READONLY, NOPERM, MISCONF), else 0.";
    REDIS_EVICTS: Gauge, "device_status_redis_evicts", [],
        "1 while maxmemory-policy lets Redis evict keys when its memory is full, else 0.";
    REDIS_BACKLOG: Gauge, "device_status_redis_backlog_writes", [],
        "Writes that wait to be sent to Redis, or for its answer.";
    REDIS_WRITES: Counter, "device_status_redis_writes_total", ["result"],
        "Writes to Redis by result: written, refused (fenced by a later write), failed (tried \
         again).";
    REDIS_REWRITES: Counter, "device_status_redis_rewrites_total", [],
        "How often a whole partition was written to Redis again, because Redis had lost data.";
    REDIS_SWEEP: Counter, "device_status_redis_sweep_hashes_total", ["result"],
        "Hashes that the sweep compared with memory, by result: same, refreshed (only the \
         heartbeat was older), repaired (missing or wrong), removed (orphaned), skipped (a newer \
         write came first), failed.";
    TWO_PARTITIONS: Counter, "device_status_redis_two_partitions_total", [],
        "How often the sweep found a device whose hash in Redis the owner of another partition \
         wrote: its events are on two partitions.";
    REDIS_SWEEP_PROGRESS: Gauge, "device_status_redis_sweep_progress_ratio", ["partition"],
        "Progress of the sweep's current pass, from 0 to 1.";
    REDIS_SCANS: Counter, "device_status_redis_scans_total", [],
        "Completed keyspace scans for orphaned keys.";
    BUILD_INFO: Gauge, "device_status_build_info", ["version"],
        "Always 1; the label says what is running.";
}
