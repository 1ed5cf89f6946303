//! A running shard: it applies, expires and commits.

use super::letter_share::LetterShare;
use super::open_transaction::OpenTransaction;
use super::pass::Pass;
use super::past::InputStart;
use super::ports::CommittedOffset;
use crate::shard::{Input, Shard};

/// A shard that runs, or is suspended (rule R7).
pub(super) struct Running {
    pub shard: Shard,
    pub epoch: u64,
    /// Counts the batches of this epoch (rule C2).
    pub batch: u64,
    /// When the last commit of the shard began, on the monotonic clock.
    pub batched_ms: i64,
    /// Offsets and metadata of the last successful commit; `None`: the epoch is not
    /// in the changelog yet (rule C7).
    pub committed: Option<([i64; Input::ALL.len()], String)>,
    /// One past our last record in the changelog.
    pub changelog_end: i64,
    /// Whether its inputs are read, which begins once broker time is known (rule
    /// T6).
    pub reads: bool,
    pub inputs: [Reading; Input::ALL.len()],
    /// Skipped offsets that were not checked yet (rule R5).
    pub gaps: Vec<Gap>,
    /// How many records the restore has read.
    pub restored: u64,
    pub pass: Pass,
}

/// The state of reading an input.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reading {
    /// The next offset expected.
    pub expected: i64,
    /// `expected` when the ends were last asked for; `None`: not since the shard
    /// runs (rule T1).
    pub expected_when_asked: Option<i64>,
    pub paused: bool,
    /// Whether it was logged that the others continue without it.
    pub passed_over: bool,
    /// How many answers in a row reported an end before the offset already read.
    pub ended_before: u32,
    /// One past the last record, by the last answer.
    pub end: Option<i64>,
    /// The open transaction on it, if there is one.
    pub open: Option<OpenTransaction>,
    /// How many of its records become dead letters.
    pub letters: LetterShare,
}

/// Skipped offsets of an input: from the expected one up to the one that came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gap {
    pub input: Input,
    pub from: i64,
    pub to: i64,
}

impl Running {
    /// A shard whose inputs are read from its positions.
    pub fn new(shard: Shard, epoch: u64, changelog_end: i64, now_ms: i64) -> Running {
        let inputs = Input::ALL
            .map(|input| Reading { expected: shard.position(input), ..Reading::default() });
        Running {
            shard,
            epoch,
            batch: 0,
            batched_ms: now_ms,
            committed: None,
            changelog_end,
            reads: false,
            inputs,
            gaps: Vec::new(),
            restored: 0,
            pass: Pass::new(now_ms),
        }
    }

    /// Resumes a suspended shard: it is read from its committed offsets.
    pub fn resume(self, now_ms: i64) -> Running {
        let mut running = Running {
            batch: self.batch,
            committed: self.committed,
            pass: self.pass,
            ..Running::new(self.shard, self.epoch, self.changelog_end, now_ms)
        };
        for (input, before) in running.inputs.iter_mut().zip(self.inputs) {
            input.letters = before.letters;
        }
        running
    }

    /// The inputs that are read: all but those that have stopped.
    pub fn read_inputs(&self) -> Vec<(Input, i32)> {
        let stopped = |input: Input| self.inputs[input.index()].letters.has_stopped();
        let read = Input::ALL.into_iter().filter(|input| !stopped(*input));
        read.map(|input| (input, self.shard.partition())).collect()
    }

    /// The offsets to commit now.
    pub fn positions(&self) -> [i64; Input::ALL.len()] {
        Input::ALL.map(|input| self.shard.position(input))
    }

    /// Whether it has processed more than it has committed.
    pub fn has_moved(&self) -> bool {
        self.committed.as_ref().is_none_or(|(offsets, _)| *offsets != self.positions())
    }

    /// Whether our commit is still the last one.
    pub fn is_current(&self, starts: &[InputStart; Input::ALL.len()]) -> bool {
        let Some((offsets, metadata)) = &self.committed else { return false };
        let ours =
            |at: &CommittedOffset, offset: i64| at.offset == offset && at.metadata == *metadata;
        let committed = starts.iter().map(|start| start.committed.as_ref());
        committed.zip(offsets).all(|(at, offset)| at.is_some_and(|at| ours(at, *offset)))
    }

    /// Reading has reached `offset`: nothing before it is left to read.
    pub fn passed_to(&mut self, input: Input, offset: i64) {
        let expected = &mut self.inputs[input.index()].expected;
        if offset > *expected {
            self.gaps.push(Gap { input, from: *expected, to: offset });
            *expected = offset;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::Rules;

    #[test]
    fn a_shard_that_is_back_goes_on_with_its_sweep() {
        let mut running = Running::new(Shard::new(3, Rules::default()), 1, 0, 100);
        running.shard.sweep_page(&mut running.pass.cursor, 250);
        let due_ms = running.pass.due_ms(&running.shard, 1_000);
        let running = running.resume(900);
        assert_eq!(running.pass.due_ms(&running.shard, 1_000), due_ms);
    }
}
