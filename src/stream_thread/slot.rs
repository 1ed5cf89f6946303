//! A shard as a stream thread holds it: created → restoring → running, and gone
//! when its partitions are.

use super::gaps::Gap;
use super::ports::{CommittedOffset, Marker};
use super::report::{ShardReport, StageName};
use super::restore::Restore;
use super::sweep::Pass;
use crate::shard::{Input, Shard, Timestamp};
use crate::wire::metadata::ShardMetadata;

/// Where an assigned input is read from.
#[derive(Clone, Debug)]
pub(super) struct InputStart {
    /// The first offset to read.
    pub offset: i64,
    /// What the group had committed, if anything.
    pub committed: Option<CommittedOffset>,
    /// The committed offset was no longer there, or was forgotten (rule R5).
    pub gone: bool,
    /// One past the log's end, as it was told.
    pub log_end: i64,
}

/// One partition number across the three inputs.
pub(super) struct Slot {
    pub partition: i32,
    /// The inputs assigned to us; the shard needs all three (rule R6).
    pub inputs: [Option<InputStart>; Input::ALL.len()],
    /// When the first of them was assigned, on the monotonic clock.
    pub created_ms: i64,
    /// Whether a minute without the others was complained of.
    pub complained: bool,
    pub stage: Stage,
    pub shard: Shard,
    pub epoch: u64,
    /// Counts the batches of this epoch (rule C2).
    pub batch: u64,
    /// When the last commit of the shard began, on the monotonic clock.
    pub batched_ms: i64,
    /// What the last successful commit said, offsets and metadata.
    pub committed: Option<([i64; 3], String)>,
    pub marker: MarkerAnswer,
    /// One past our last record in the changelog.
    pub changelog_end: i64,
    /// The next offset expected of each input.
    pub expected: [i64; Input::ALL.len()],
    /// The same as it was when the ends were last asked for; `None`: not in this
    /// life of the slot (rule T1).
    pub expected_when_asked: Option<[i64; Input::ALL.len()]>,
    /// Its inputs are read from now on, once broker time is known (rule T6).
    pub reads: bool,
    /// What reading passed over and was not judged yet (rule R5).
    pub gaps: Vec<Gap>,
    pub paused: [bool; Input::ALL.len()],
    /// Inputs of which the log says that the others go on without them.
    pub passed_over: [bool; Input::ALL.len()],
    /// How many answers in a row said that an input ends before what had been
    /// read when they were asked for.
    pub ended_before: [u32; Input::ALL.len()],
    pub high_watermarks: [Option<i64>; Input::ALL.len()],
    pub restored: u64,
    pub to_restore: u64,
    pub pass: Pass,
}

/// The view's marker, which decides what a takeover rewrites (rule V5).
#[derive(Clone, Copy, Debug)]
pub(super) enum MarkerAnswer {
    /// Asked for at this time.
    Awaited { since_ms: i64 },
    /// As the last owner left it; `None`: there is none.
    Known(Option<Marker>),
}

pub(super) enum Stage {
    Created,
    Restoring(Restore),
    Running,
    Failed,
}

impl Slot {
    pub fn new(partition: i32, shard: Shard, now_ms: i64) -> Slot {
        Slot {
            partition,
            inputs: [const { None }; 3],
            created_ms: now_ms,
            complained: false,
            stage: Stage::Created,
            shard,
            epoch: 0,
            batch: 0,
            batched_ms: now_ms,
            committed: None,
            marker: MarkerAnswer::Awaited { since_ms: now_ms },
            changelog_end: 0,
            expected: [0; 3],
            expected_when_asked: None,
            reads: false,
            gaps: Vec::new(),
            paused: [false; 3],
            passed_over: [false; 3],
            ended_before: [0; 3],
            high_watermarks: [None; 3],
            restored: 0,
            to_restore: 0,
            pass: Pass::new(now_ms),
        }
    }

    pub fn is_running(&self) -> bool {
        matches!(self.stage, Stage::Running)
    }

    /// The metadata that counts: the greatest (epoch, batch) of the three (C2).
    pub fn metadata(&self) -> Option<ShardMetadata> {
        self.inputs
            .iter()
            .flatten()
            .filter_map(|start| ShardMetadata::decode(&start.committed.as_ref()?.metadata))
            .max_by_key(|metadata| (metadata.epoch, metadata.batch))
    }

    /// Marks the inputs of which nothing is committed, though something is of
    /// the others, and tells them: each commit is of all three (rule R5).
    pub fn mark_forgotten(&mut self) -> Vec<Input> {
        let mut forgotten = Vec::new();
        if self.metadata().is_some() {
            for (input, start) in Input::ALL.into_iter().zip(self.inputs.iter_mut().flatten()) {
                if start.committed.is_none() {
                    start.gone = true;
                    forgotten.push(input);
                }
            }
        }
        forgotten
    }

    /// The offsets to commit now.
    pub fn positions(&self) -> [i64; 3] {
        Input::ALL.map(|input| self.shard.position(input))
    }

    pub fn report(&self) -> ShardReport {
        ShardReport {
            partition: self.partition,
            stage: match self.stage {
                Stage::Created => StageName::Created,
                Stage::Restoring(_) => StageName::Restoring,
                Stage::Running => StageName::Running,
                Stage::Failed => StageName::Failed,
            },
            rows: self.shard.rows(),
            statuses: self.shard.status_counts(),
            clock: self.shard.clock(),
            lag: Input::ALL.map(|input| {
                let end = self.high_watermarks[input.index()]?;
                self.is_running().then(|| (end - self.shard.position(input)).max(0))
            }),
            restored: self.restored,
            to_restore: self.to_restore,
            swept: self.pass.progress(&self.shard),
        }
    }
}

/// A revoked shard that is kept in case it comes back (rule R7).
pub(super) struct Suspended {
    pub shard: Shard,
    pub epoch: u64,
    pub batch: u64,
    pub committed: ([i64; 3], String),
    pub changelog_end: i64,
}

impl Suspended {
    /// Whether nobody has committed since we did.
    pub fn is_current(&self, inputs: &[Option<InputStart>; 3]) -> bool {
        let (offsets, metadata) = &self.committed;
        inputs.iter().zip(offsets).all(|(start, offset)| {
            start.as_ref().and_then(|start| start.committed.as_ref()).is_some_and(|committed| {
                committed.offset == *offset && committed.metadata == *metadata
            })
        })
    }
}

/// The greater of the wall clock and one past the last epoch (rule C7).
pub(super) fn next_epoch(last: Option<u64>, wall: Timestamp) -> u64 {
    let wall = u64::try_from(wall.0).unwrap_or_default();
    wall.max(last.map_or(0, |last| last.saturating_add(1)))
}
