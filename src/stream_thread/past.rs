//! The past of a shard, from which it is restored (rules R1, R2, R5): committed
//! offsets, changelog and heartbeats. The loop reads it in steps, `explain` at
//! once.

use super::ports::{CommittedOffset, LogBounds};
use super::replay::Replay;
use crate::error::Error;
use crate::shard::{Input, Rules, Shard, Start, Timestamp};
use crate::wire::changelog;
use crate::wire::metadata::ShardMetadata;

/// Where an input is read from.
#[derive(Clone, Debug, Default)]
pub struct InputStart {
    /// The first offset to read.
    pub offset: i64,
    /// What the group had committed, if anything.
    pub committed: Option<CommittedOffset>,
    /// The committed offset was out of range, or lost (rule R5).
    pub gone: bool,
    /// The end of the log when it was asked for.
    pub log_end: i64,
}

impl InputStart {
    /// The start offset by the committed offset and the bounds of the log.
    #[must_use]
    pub fn new(committed: Option<CommittedOffset>, log: LogBounds) -> InputStart {
        // Past the end: the log was truncated, or the offset was set by hand.
        let gone = committed.as_ref().is_some_and(|c| !(log.start..=log.end).contains(&c.offset));
        let offset = committed.as_ref().filter(|_| !gone).map_or(log.start, |c| c.offset);
        InputStart { offset, committed, gone, log_end: log.end }
    }
}

/// A shard, as far as its past has been read.
pub struct Past {
    /// The state by the changelog and the replayed records.
    pub shard: Shard,
    /// Where its inputs are read from.
    pub starts: [InputStart; Input::ALL.len()],
}

impl Past {
    /// Nothing has been read yet.
    #[must_use]
    pub fn new(partition: i32, rules: &Rules, starts: [InputStart; Input::ALL.len()]) -> Past {
        Past { shard: Shard::new(partition, rules.clone()), starts }
    }

    /// The metadata that counts: the greatest (epoch, batch) of the three (C2).
    #[must_use]
    pub fn metadata(&self) -> Option<ShardMetadata> {
        self.starts
            .iter()
            .filter_map(|start| ShardMetadata::decode(&start.committed.as_ref()?.metadata))
            .max_by_key(|metadata| (metadata.epoch, metadata.batch))
    }

    /// Marks the inputs without a committed offset, if other inputs have one, and
    /// returns them: each commit covers all three (rule R5).
    pub fn mark_forgotten(&mut self) -> Vec<Input> {
        if self.metadata().is_none() {
            return Vec::new();
        }
        let starts = Input::ALL.into_iter().zip(&mut self.starts);
        let forgotten = starts.filter(|(_, start)| start.committed.is_none());
        forgotten
            .map(|(input, start)| {
                start.gone = true;
                input
            })
            .collect()
    }

    /// Applies a record of the changelog. `unwritten`: the view may not have it
    /// yet.
    ///
    /// # Errors
    /// [`Error::Corrupted`] if it cannot be read.
    pub fn take_changelog(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        offset: i64,
        unwritten: bool,
    ) -> Result<(), Error> {
        let entry = changelog::decode(key, value).map_err(|error| match error {
            Error::Corrupted(what) => {
                Error::Corrupted(format!("changelog offset {offset}: {what}"))
            }
            other => other,
        })?;
        if let Some(entry) = entry {
            self.shard.restore_entry(entry, unwritten);
        }
        Ok(())
    }

    /// The clock of the shard: the committed one or, without committed metadata,
    /// the greatest of its rows (rule R5).
    #[must_use]
    pub fn clock(&self) -> Option<Timestamp> {
        self.metadata().map(|metadata| metadata.clock).or(self.shard.greatest_clock())
    }

    /// Which records of an input are replayed, once the changelog is read. `None`:
    /// there is no past.
    #[must_use]
    pub fn replay(&self, input: Input, rules: &Rules) -> Option<Replay> {
        let start = &self.starts[input.index()];
        let committed = start.committed.as_ref().filter(|_| !start.gone);
        let metadata = self.metadata();
        Some(Replay::new(input, self.clock()?, metadata.as_ref(), committed, rules.slack_ms))
    }

    /// Whether the last owner had other rules than these (rule J9).
    #[must_use]
    pub fn has_other_rules(&self, fingerprint: u64) -> bool {
        self.metadata().is_some_and(|metadata| metadata.rules_fingerprint != fingerprint)
    }

    /// The offsets from which the inputs are read.
    #[must_use]
    pub fn positions(&self) -> [i64; Input::ALL.len()] {
        Input::ALL.map(|input| self.starts[input.index()].offset)
    }

    /// The state with which the shard starts, for an owner of this epoch.
    #[must_use]
    pub fn start(&self, epoch: u64, rules: &Rules) -> Start {
        let metadata = self.metadata();
        let clock = self.clock();
        let replay_from = metadata.as_ref().map(|metadata| metadata.replay_from);
        Start {
            epoch,
            clock,
            watermarks: metadata.as_ref().map_or([None; 3], |metadata| metadata.watermarks),
            replay_from: replay_from.or(clock.map(|clock| clock.plus_ms(-rules.replay_window_ms))),
            positions: self.positions(),
            ..Start::default()
        }
    }
}
