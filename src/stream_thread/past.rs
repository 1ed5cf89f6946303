//! What a shard is restored from (rules R1, R2, R5): what is committed of its
//! inputs, its changelog, and heartbeats. The loop reads it in steps, and
//! `explain` at once.

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
    /// The committed offset was no longer there, or was forgotten (rule R5).
    pub gone: bool,
    /// One past the log's end, as it was told.
    pub log_end: i64,
}

impl InputStart {
    /// Where to go on from what is committed, in a log that goes so far.
    #[must_use]
    pub fn new(committed: Option<CommittedOffset>, log: LogBounds) -> InputStart {
        // Past the end: the log was cut off, or the offset set.
        let gone = committed.as_ref().is_some_and(|c| !(log.start..=log.end).contains(&c.offset));
        let offset = committed.as_ref().filter(|_| !gone).map_or(log.start, |c| c.offset);
        InputStart { offset, committed, gone, log_end: log.end }
    }
}

/// A shard, as far as its past has been read.
pub struct Past {
    /// What the changelog and the heartbeats tell.
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

    /// Marks the inputs of which nothing is committed, though something is of
    /// the others, and tells them: each commit is of all three (rule R5).
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

    /// Takes a record of the changelog. `unwritten`: the view may not have seen
    /// what it says.
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

    /// The clock the shard had come to: as committed or, without what was
    /// committed beside the offsets, as its rows tell (rule R5).
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

    /// Whether the last owner judged by other rules than these (rule J9).
    #[must_use]
    pub fn has_other_rules(&self, fingerprint: u64) -> bool {
        self.metadata().is_some_and(|metadata| metadata.rules_fingerprint != fingerprint)
    }

    /// The offsets at which the inputs are read on.
    #[must_use]
    pub fn positions(&self) -> [i64; Input::ALL.len()] {
        Input::ALL.map(|input| self.starts[input.index()].offset)
    }

    /// With what the shard goes on, for an owner of this epoch.
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
