//! Every metric there is.
//!
//! Names begin with `device_status_`, units are base units and come last,
//! counters end in `_total`. [`METRICS`] is the one table; emit with the names
//! here and the `metrics` macros:
//! `counter!(RECORDS, "input" => "heartbeats", "result" => "applied").increment(1)`.

use metrics::Unit;

/// Records read, by what became of them.
pub const RECORDS: &str = "device_status_records_total";
/// Dead letters, by reason.
pub const DEAD_LETTERS: &str = "device_status_dead_letters_total";
/// Status changes emitted.
pub const STATUS_CHANGES: &str = "device_status_changes_total";
/// Deadlines that passed and were acted upon.
pub const DEADLINES: &str = "device_status_deadlines_total";
/// Devices by status.
pub const DEVICES: &str = "device_status_devices";
/// Records not yet read.
pub const LAG: &str = "device_status_input_lag_records";
/// How far a partition's clock is behind.
pub const CLOCK_LAG: &str = "device_status_clock_lag_seconds";
/// Duration of transactions.
pub const TRANSACTION_DURATION: &str = "device_status_transaction_duration_seconds";
/// How late changes are told.
pub const CHANGE_DELAY: &str = "device_status_change_delay_seconds";
/// Batches by what became of them.
pub const COMMITS: &str = "device_status_commits_total";
/// Records read by restores.
pub const RESTORED: &str = "device_status_restored_records_total";
/// When records were first and last worked on.
pub const WORKED_AT: &str = "device_status_worked_at_seconds";
/// Records a restore has still to read.
pub const RESTORE_REMAINING: &str = "device_status_restore_remaining_records";
/// Shards by state.
pub const SHARDS: &str = "device_status_shards";
/// Partitions that the group shares.
pub const PARTITIONS: &str = "device_status_partitions";
/// Partitions of the group that no member has.
pub const WITHOUT_OWNER: &str = "device_status_partitions_without_owner";
/// Whether `/ready` says so.
pub const READY: &str = "device_status_ready";
/// Rebalances.
pub const REBALANCES: &str = "device_status_rebalances_total";
/// Starts without the committed offsets (rule R5).
pub const OFFSETS_LOST: &str = "device_status_offsets_lost_total";
/// Closed sessions forgotten early (rule J4).
pub const SESSIONS_FORGOTTEN: &str = "device_status_sessions_forgotten_total";
/// Open sessions forgotten (rule J4).
pub const OPEN_SESSIONS_FORGOTTEN: &str = "device_status_open_sessions_forgotten_total";
/// Whether Redis answers.
pub const REDIS_UP: &str = "device_status_redis_up";
/// Whether the keys in Redis belong to another group (rule V4).
pub const REDIS_OTHER_GROUP: &str = "device_status_redis_other_group";
/// Writes that wait for Redis.
pub const REDIS_BACKLOG: &str = "device_status_redis_backlog_writes";
/// Writes to Redis by result.
pub const REDIS_WRITES: &str = "device_status_redis_writes_total";
/// Rewrites of a whole partition in Redis.
pub const REDIS_REWRITES: &str = "device_status_redis_rewrites_total";
/// Hashes compared by the sweep (rule V6), by result.
pub const REDIS_SWEEP: &str = "device_status_redis_sweep_hashes_total";
/// How much of the sweep's pass is done.
pub const REDIS_SWEEP_PROGRESS: &str = "device_status_redis_sweep_progress_ratio";
/// Whole looks at all keys.
pub const REDIS_SCANS: &str = "device_status_redis_scans_total";
/// What is running.
pub const BUILD_INFO: &str = "device_status_build_info";

/// What became of a record: the label `result` of [`RECORDS`].
pub mod record_result {
    /// It was taken into its row.
    pub const APPLIED: &str = "applied";
    /// The row knew something later.
    pub const STALE: &str = "stale";
    /// It could not be used.
    pub const DEAD_LETTER: &str = "dead_letter";
    /// All of them.
    pub const ALL: [&str; 3] = [APPLIED, STALE, DEAD_LETTER];
}

/// What became of a batch: the label `result` of [`COMMITS`].
pub mod commit_result {
    /// It is committed.
    pub const COMMITTED: &str = "committed";
    /// It was refused, and is sent again.
    pub const REFUSED: &str = "refused";
    /// Nobody told us; the committed offsets tell.
    pub const UNKNOWN: &str = "unknown";
    /// All of them.
    pub const ALL: [&str; 3] = [COMMITTED, REFUSED, UNKNOWN];
}

/// What a rebalance did: the label `kind` of [`REBALANCES`].
pub mod rebalance_kind {
    /// Partitions were given.
    pub const ASSIGNED: &str = "assigned";
    /// Partitions were asked back.
    pub const REVOKED: &str = "revoked";
    /// Partitions were lost.
    pub const LOST: &str = "lost";
    /// All of them.
    pub const ALL: [&str; 3] = [ASSIGNED, REVOKED, LOST];
}

/// What became of a write to Redis: the label `result` of [`REDIS_WRITES`].
pub mod redis_result {
    /// It was made.
    pub const WRITTEN: &str = "written";
    /// Something later was there (rule V2).
    pub const REFUSED: &str = "refused";
    /// Redis did not take it; it waits.
    pub const FAILED: &str = "failed";
    /// All of them.
    pub const ALL: [&str; 3] = [WRITTEN, REFUSED, FAILED];
}

/// What the sweep made of a hash: the label `result` of [`REDIS_SWEEP`].
pub mod sweep_result {
    /// It was as it should be.
    pub const SAME: &str = "same";
    /// Its heartbeat alone was brought up to date.
    pub const REFRESHED: &str = "refreshed";
    /// It was missing or wrong, and was written again.
    pub const REPAIRED: &str = "repaired";
    /// No row has it, and it was removed.
    pub const REMOVED: &str = "removed";
    /// It was left alone: something newer waits, or came meanwhile.
    pub const SKIPPED: &str = "skipped";
    /// Redis did not let us.
    pub const FAILED: &str = "failed";
    /// All of them.
    pub const ALL: [&str; 6] = [SAME, REFRESHED, REPAIRED, REMOVED, SKIPPED, FAILED];
}

/// What a metric is to Prometheus.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution, with these upper bounds.
    Histogram(&'static [f64]),
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

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, help }
}

const fn histogram(name: &'static str, bounds: &'static [f64], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram(bounds), labels: &[], help }
}

/// Bounds for transactions: they take some milliseconds, or something is wrong.
const TRANSACTION_BOUNDS: &[f64] =
    &[0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Bounds for the delay of changes: from the usual to an outage of a day.
const CHANGE_DELAY_BOUNDS: &[f64] = &[
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 7_200.0, 43_200.0,
    86_400.0,
];

/// Every metric of ours; `process_…` beside them come from `metrics-process`.
pub const METRICS: &[Metric] = &[
    counter(
        RECORDS,
        &["input", "result"],
        "Records read from the inputs, by what became of them: applied, stale (the row knew \
         something later), dead_letter.",
    ),
    counter(DEAD_LETTERS, &["input", "reason"], "Records that could not be used, by reason."),
    counter(
        STATUS_CHANGES,
        &["from", "to"],
        "Status changes emitted; none where there is no status before or after. A change of \
         connectivity alone has the same from and to.",
    ),
    histogram(
        CHANGE_DELAY,
        CHANGE_DELAY_BOUNDS,
        "From the instant that made a change true (since, or connectivity_since) to its commit.",
    ),
    counter(DEADLINES, &[], "Deadlines of devices that passed and were acted upon."),
    gauge(
        DEVICES,
        &["partition", "status"],
        "Devices by status, of the partitions that this process owns.",
    ),
    gauge(
        LAG,
        &["input", "partition"],
        "Records of an input's partition that are not processed yet.",
    ),
    gauge(
        CLOCK_LAG,
        &["partition"],
        "How far a partition's clock, by which devices expire, is behind the time of day.",
    ),
    histogram(
        TRANSACTION_DURATION,
        TRANSACTION_BOUNDS,
        "Duration of transactions, from the first record to the commit's answer.",
    ),
    counter(
        COMMITS,
        &["result"],
        "Batches by what became of them: committed, refused (sent again), unknown (resolved by \
         the committed offsets).",
    ),
    counter(
        RESTORED,
        &["source"],
        "Records read by restores, from the changelog or from the heartbeats.",
    ),
    gauge(
        WORKED_AT,
        &["thread", "work", "edge"],
        "When records were first and last (edge) applied or restored (work), in seconds of the \
         process's monotonic clock: for rates, by differences only.",
    ),
    gauge(
        RESTORE_REMAINING,
        &["partition"],
        "Records that the restore of a partition has still to read.",
    ),
    gauge(
        SHARDS,
        &["thread", "state"],
        "Shards by state: waiting (for all three inputs), restoring, running, failed (the log says \
         why).",
    ),
    gauge(PARTITIONS, &[], "Partitions that the whole group shares."),
    gauge(
        WITHOUT_OWNER,
        &[],
        "Partitions that no member of the group has, as the group said last; the same in each \
         process.",
    ),
    gauge(READY, &[], "1 while /ready answers 200, else 0."),
    counter(
        REBALANCES,
        &["kind"],
        "Rebalances that touched this process: assigned, revoked, lost.",
    ),
    counter(
        OFFSETS_LOST,
        &["input"],
        "Starts of a partition whose committed offset was gone, so that records may have been \
         missed.",
    ),
    counter(
        SESSIONS_FORGOTTEN,
        &[],
        "Closed VPN sessions forgotten before their time, because their device had too many.",
    ),
    counter(
        OPEN_SESSIONS_FORGOTTEN,
        &[],
        "Open VPN sessions forgotten, because their device had too many.",
    ),
    gauge(REDIS_UP, &[], "1 while Redis answers, else 0."),
    gauge(
        REDIS_OTHER_GROUP,
        &[],
        "1 while the keys under redis.prefix belong to another group, so that nothing is written \
         to Redis, else 0.",
    ),
    gauge(REDIS_BACKLOG, &[], "Writes that wait for Redis."),
    counter(
        REDIS_WRITES,
        &["result"],
        "Writes to Redis by result: written, refused (something later was there), failed \
         (tried again).",
    ),
    counter(
        REDIS_REWRITES,
        &[],
        "Times that a whole partition was written to Redis again, because it was lost there.",
    ),
    counter(
        REDIS_SWEEP,
        &["result"],
        "Hashes that the sweep compared with memory, by result: same, refreshed (only the \
         heartbeat was older), repaired (missing or wrong), removed (of no device), skipped \
         (something newer came first), failed.",
    ),
    gauge(
        REDIS_SWEEP_PROGRESS,
        &["partition"],
        "How much of its pass the sweep has done, from 0 to 1.",
    ),
    counter(REDIS_SCANS, &[], "Whole looks at all keys for those of no device."),
    gauge(BUILD_INFO, &["version"], "Always 1; the label says what is running."),
];
