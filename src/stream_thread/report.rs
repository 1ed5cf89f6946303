//! The loop's report of itself. The caller publishes it.

use std::collections::BTreeMap;

use super::open_transaction::OpenTransaction;
use crate::shard::{Ages, Connectivity, DeadLetterReason, Input, Skew, Status, Timestamp};

/// What happened since the last report, and how things stand.
#[derive(Debug, Default)]
pub struct Report {
    /// Counted since the last report.
    pub counts: Counts,
    /// The shards as they are.
    pub shards: Vec<ShardReport>,
    /// The broker's time, once known (rule T6).
    pub broker_time: Option<Timestamp>,
    /// How long the batch in flight has been in flight, in milliseconds.
    pub commit_pending_ms: Option<i64>,
    /// Assigned partitions whose start offsets are not known yet. They are not
    /// among the shards.
    pub resolving_starts: usize,
    /// When records were applied, since the thread began.
    pub applied: Span,
    /// When records were read by restores, since the thread began.
    pub restored: Span,
}

/// The time from the first to the last of something, in milliseconds of the
/// monotonic clock. It makes rates exact, however seldom they are published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span(Option<(i64, i64)>);

impl Span {
    /// Extends the span by work between these times.
    pub fn extend(&mut self, from_ms: i64, to_ms: i64) {
        let first_ms = self.0.map_or(from_ms, |(first_ms, _)| first_ms);
        self.0 = Some((first_ms, to_ms));
    }

    /// The first and the last instant, if there was anything.
    #[must_use]
    pub fn ends(self) -> Option<(i64, i64)> {
        self.0
    }
}

/// What happened.
#[derive(Debug, Default)]
pub struct Counts {
    /// Records applied, by input.
    pub applied: [u64; Input::ALL.len()],
    /// Records that changed nothing, by input.
    pub stale: [u64; Input::ALL.len()],
    /// Records that became dead letters.
    pub dead_letters: BTreeMap<(Input, DeadLetterReason), u64>,
    /// Status changes committed, from and to.
    pub changes: BTreeMap<(Option<Shown>, Option<Shown>), u64>,
    /// The instants that made these changes true.
    pub change_instants: Vec<Timestamp>,
    /// How long after its instant each of these changes was committed, in seconds.
    pub change_delay_seconds: Vec<f64>,
    /// How long each committed transaction took, in seconds.
    pub transaction_seconds: Vec<f64>,
    /// Transactions committed.
    pub commits: u64,
    /// Transactions that were not committed and are sent again.
    pub commits_refused: u64,
    /// Transactions whose outcome had to be looked up.
    pub commits_unknown: u64,
    /// Rebalances by kind: assigned, revoked, lost.
    pub rebalances: [u64; 3],
    /// Partitions whose committed offset was out of range or lost, and records that
    /// were deleted before they were read (rule R5), by input.
    pub offsets_gone: [u64; Input::ALL.len()],
    /// Rows that a deadline has changed.
    pub expired: u64,
    /// Closed sessions forgotten because the device had too many (rule J4).
    pub sessions_forgotten: u64,
    /// The same of open ones.
    pub open_sessions_forgotten: u64,
    /// Ages of the events that have an `occurred_at`, by input.
    pub ages: [Ages; Input::ALL.len()],
    /// Leases that were over when they arrived.
    pub leases_over: u64,
    /// Heartbeats that had expired when they arrived.
    pub heartbeats_over: u64,
    /// Records read by restores: of the changelog, of VPN sessions, of heartbeats.
    pub restored: [u64; 3],
    /// Views that were lost and are written again.
    pub view_rewrites: u64,
    /// The last error of reading from Kafka.
    pub kafka_error: Option<String>,
}

impl Counts {
    /// Adds the skew of the senders' clocks.
    pub(super) fn compare(&mut self, skew: &Skew) {
        for (sum, ages) in self.ages.iter_mut().zip(&skew.ages) {
            sum.add(ages);
        }
        self.leases_over += u64::from(skew.leases_over);
        self.heartbeats_over += u64::from(skew.heartbeats_over);
    }

    /// Adds the counts of a batch that was committed at `now`.
    pub(super) fn add(&mut self, committed: &Counts, now: Timestamp) {
        for (key, count) in &committed.changes {
            *self.changes.entry(*key).or_default() += count;
        }
        for (key, count) in &committed.dead_letters {
            *self.dead_letters.entry(*key).or_default() += count;
        }
        let delay_ms = |instant: &Timestamp| now.0.saturating_sub(instant.0).max(0);
        let seconds = committed.change_instants.iter().map(|at| delay_ms(at) as f64 / 1_000.0);
        self.change_delay_seconds.extend(seconds);
    }
}

/// A status and a connectivity.
pub type Shown = (Status, Connectivity);

/// The state of one shard.
#[derive(Clone, Debug)]
pub struct ShardReport {
    /// Its partition.
    pub partition: i32,
    /// Its stage.
    pub stage: StageName,
    /// Devices known.
    pub rows: usize,
    /// Devices by status, in the order of [`Status::ALL`].
    pub statuses: [u64; Status::ALL.len()],
    /// Names of fleets, organizations and VPN instances that are known.
    pub names: [usize; 3],
    /// The shard's clock.
    pub clock: Timestamp,
    /// Records not yet processed, by input, where the end is known.
    pub lag: [Option<i64>; Input::ALL.len()],
    /// The transaction of a producer that is open, by input.
    pub open: [Option<OpenTransaction>; Input::ALL.len()],
    /// The share of the last minute's records that became dead letters, by input.
    pub letter_share: [f64; Input::ALL.len()],
    /// The offset before which reading has stopped, because that share was too
    /// great, by input.
    pub stopped: [Option<i64>; Input::ALL.len()],
    /// Records read by the restore, and those to go.
    pub restored: u64,
    /// See `restored`.
    pub to_restore: u64,
    /// How much of the sweep's pass is done, from 0 to 1 (rule V6).
    pub swept: f64,
}

/// The stage of a shard: created, restoring, running or failed (rules R).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageName {
    /// Not all of its inputs are assigned yet (rule R6).
    Created,
    /// Its past is being read.
    Restoring,
    /// It applies, expires and commits.
    Running,
    /// Its past cannot be read; the log says why.
    Failed,
}

impl StageName {
    /// The name in logs and in `/ready`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            StageName::Created => "created",
            StageName::Restoring => "restoring",
            StageName::Running => "running",
            StageName::Failed => "failed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_reaches_from_the_first_beginning_to_the_last_end() {
        let mut span = Span::default();
        assert_eq!(span.ends(), None);
        for (from_ms, to_ms) in [(10, 14), (20, 21), (500, 730)] {
            span.extend(from_ms, to_ms);
        }
        assert_eq!(span.ends(), Some((10, 730)));
    }
}
