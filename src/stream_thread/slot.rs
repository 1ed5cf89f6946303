//! A shard in a stream thread: created → restoring → running, until its partitions
//! are given back.

use super::past::InputStart;
use super::ports::Marker;
use super::report::{ShardReport, StageName};
use super::restore::Restore;
use super::running::Running;
use crate::shard::{Input, Shard, Status, Timestamp};

/// One partition number across the three inputs.
pub(super) struct Slot {
    pub partition: i32,
    pub marker: MarkerAnswer,
    pub stage: Stage,
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
    Created(Created),
    Restoring(Box<Restore>),
    Running(Box<Running>),
    /// Its changelog cannot be read, or another owner has it by now; the log says
    /// which. It stays so until its partitions are given back.
    Failed,
}

/// Not all inputs are assigned yet; the shard needs all three (rule R6).
pub(super) struct Created {
    pub inputs: [Option<InputStart>; Input::ALL.len()],
    /// When the first of them was assigned, on the monotonic clock.
    pub since_ms: i64,
    /// Whether it was logged that the others are missing for a minute.
    pub complained: bool,
}

impl MarkerAnswer {
    /// The changelog offset up to which the view has every write.
    pub fn applied(self) -> i64 {
        match self {
            MarkerAnswer::Known(Some(marker)) => marker.applied,
            _ => 0,
        }
    }
}

impl Slot {
    pub fn new(partition: i32, now_ms: i64) -> Slot {
        let inputs = [const { None }; Input::ALL.len()];
        Slot {
            partition,
            marker: MarkerAnswer::Awaited { since_ms: now_ms },
            stage: Stage::Created(Created { inputs, since_ms: now_ms, complained: false }),
        }
    }

    pub fn running(&self) -> Option<&Running> {
        if let Stage::Running(running) = &self.stage { Some(running) } else { None }
    }

    pub fn running_mut(&mut self) -> Option<&mut Running> {
        if let Stage::Running(running) = &mut self.stage { Some(running) } else { None }
    }

    /// Whether an input is assigned: all are, once the shard is complete.
    pub fn has(&self, input: Input) -> bool {
        match &self.stage {
            Stage::Created(created) => created.inputs[input.index()].is_some(),
            Stage::Restoring(_) | Stage::Running(_) | Stage::Failed => true,
        }
    }

    fn shard(&self) -> Option<&Shard> {
        match &self.stage {
            Stage::Created(_) | Stage::Failed => None,
            Stage::Restoring(restore) => Some(&restore.past.shard),
            Stage::Running(running) => Some(&running.shard),
        }
    }

    pub fn report(&self, now_ms: i64) -> ShardReport {
        let (shard, running) = (self.shard(), self.running());
        let (stage, restored, to_restore) = match &self.stage {
            Stage::Created(_) => (StageName::Created, 0, 0),
            Stage::Restoring(restore) => (StageName::Restoring, restore.read, restore.to_read),
            Stage::Running(running) => (StageName::Running, running.restored, 0),
            Stage::Failed => (StageName::Failed, 0, 0),
        };
        ShardReport {
            partition: self.partition,
            stage,
            rows: shard.map_or(0, Shard::rows),
            statuses: shard.map_or([0; Status::ALL.len()], Shard::status_counts),
            names: shard.map_or([0; 3], Shard::names),
            clock: shard.map_or(Timestamp::MIN, Shard::clock),
            lag: Input::ALL.map(|input| {
                let running = running?;
                let end = running.inputs[input.index()].end?;
                Some((end - running.shard.position(input)).max(0))
            }),
            open: Input::ALL.map(|input| running?.inputs[input.index()].open),
            letter_share: Input::ALL.map(|input| {
                running.map_or(0.0, |running| running.inputs[input.index()].letters.now(now_ms))
            }),
            stopped: Input::ALL.map(|input| {
                let reading = running?.inputs[input.index()];
                reading.letters.has_stopped().then_some(reading.expected)
            }),
            restored,
            to_restore,
            swept: running.map_or(0.0, |running| running.pass.progress(&running.shard)),
        }
    }
}

/// What a shard reads.
pub(super) fn all_inputs(partition: i32) -> [(Input, i32); Input::ALL.len()] {
    Input::ALL.map(|input| (input, partition))
}
