//! From outboxes to a transaction, and what to do about its outcome
//! (rules C1, C2, C3, C6).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::DeadLetterSettings;
use super::ports::{
    Batch, FoundCommit, OutputRecord, OutputTopic, QuestionId, Receipt, ShardBatch,
};
use super::report::Counts;
use super::slot::Slot;
use crate::shard::{Outbox, ViewWrite};
use crate::wire::metadata::ShardMetadata;
use crate::wire::{changelog, dead_letter, status_changed};

/// A batch whose fate is not known yet.
pub(super) struct InFlight {
    pub batch: Arc<Batch>,
    pub parts: BTreeMap<i32, Part>,
    pub submitted_ms: i64,
    pub attempts: u32,
    pub state: InFlightState,
}

pub(super) enum InFlightState {
    /// The log has it.
    Submitted,
    /// To be sent again, as it is.
    Waiting { until_ms: i64 },
    /// Committed offsets were asked for, to learn what happened.
    Resolving(QuestionId),
    /// They are to be asked for.
    Unresolved { ask_ms: i64 },
}

/// What follows the commit of one shard's part.
pub(super) struct Part {
    pub epoch: u64,
    pub batch: u64,
    pub view: Vec<ViewWrite>,
    /// Some rows of a rewrite of the view are still to come.
    pub rewriting: bool,
    pub counts: Counts,
}

/// Turns what a shard has to say into its part of a batch.
pub(super) fn pack(
    slot: &mut Slot,
    outbox: Outbox,
    rules_fingerprint: u64,
    dead_letters: &DeadLetterSettings,
) -> (ShardBatch, Part) {
    let mut records = Vec::with_capacity(outbox.changelog.len() + outbox.changes.len());
    let mut counts = Counts::default();
    for entry in &outbox.changelog {
        let (key, value) = changelog::encode(entry);
        records.push(OutputRecord {
            topic: OutputTopic::Changelog,
            partition: Some(slot.partition),
            key: Some(key),
            value,
            headers: Vec::new(),
        });
    }
    for change in &outbox.changes {
        let (key, value) = status_changed::encode(change);
        *counts.changes.entry((change.previous, change.current)).or_default() += 1;
        records.push(OutputRecord {
            topic: OutputTopic::StatusChanges,
            partition: None,
            key: Some(key),
            value: Some(value),
            headers: Vec::new(),
        });
    }
    for letter in &outbox.dead_letters {
        *counts.dead_letters.entry((letter.input, letter.reason)).or_default() += 1;
        let topic = &dead_letters.topics[letter.input.index()];
        let encoded = dead_letter::encode(letter, topic, dead_letters.max_bytes);
        records.push(OutputRecord {
            topic: OutputTopic::DeadLetters,
            partition: None,
            key: encoded.key,
            value: encoded.value,
            headers: encoded.headers,
        });
    }
    let progress = slot.shard.progress();
    slot.batch += 1;
    let metadata = ShardMetadata {
        clock: progress.clock,
        watermarks: progress.watermarks,
        epoch: slot.epoch,
        batch: slot.batch,
        replay_from: progress.replay_from,
        rules_fingerprint,
    };
    let shard = ShardBatch {
        partition: slot.partition,
        records,
        offsets: slot.positions(),
        metadata: metadata.encode(),
    };
    let part = Part {
        epoch: slot.epoch,
        batch: slot.batch,
        view: outbox.view,
        rewriting: slot.shard.rewriting_view(),
        counts,
    };
    (shard, part)
}

/// What the committed offsets say of a batch whose fate nobody told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is committed.
    Happened,
    /// It is not.
    DidNot,
    /// A later owner has committed: what we hold is of the past.
    Superseded,
}

/// Compares (epoch, batch) of a shard's part with what is committed (rule C6).
pub(super) fn verdict(partition: i32, part: &Part, committed: &[FoundCommit]) -> Verdict {
    let latest = committed
        .iter()
        .filter(|(_, p, _)| *p == partition)
        .filter_map(|(.., committed)| ShardMetadata::decode(&committed.as_ref()?.metadata))
        .map(|metadata| (metadata.epoch, metadata.batch))
        .max();
    match latest {
        Some((epoch, _)) if epoch > part.epoch => Verdict::Superseded,
        Some(latest) if latest >= (part.epoch, part.batch) => Verdict::Happened,
        _ => Verdict::DidNot,
    }
}

/// How long to wait before the `attempt`th time, in milliseconds.
pub(super) fn backoff_ms(attempt: u32) -> i64 {
    (50_i64 << attempt.min(6)).min(2_000)
}

/// One past the last changelog record of a partition, if the batch had any.
pub(super) fn changelog_end(receipt: &Receipt, partition: i32) -> Option<i64> {
    receipt.changelog_end.iter().find(|(p, _)| *p == partition).map(|(_, end)| *end)
}

impl Counts {
    /// Adds what became true with a commit.
    pub(super) fn add(&mut self, committed: &Counts) {
        for (key, count) in &committed.changes {
            *self.changes.entry(*key).or_default() += count;
        }
        for (key, count) in &committed.dead_letters {
            *self.dead_letters.entry(*key).or_default() += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::{Input, Timestamp};
    use crate::stream_thread::ports::CommittedOffset;

    fn part(epoch: u64, batch: u64) -> Part {
        Part { epoch, batch, view: Vec::new(), rewriting: false, counts: Counts::default() }
    }

    fn committed(epoch: u64, batch: u64) -> Vec<FoundCommit> {
        let metadata = ShardMetadata {
            clock: Timestamp(1),
            watermarks: [None; 3],
            epoch,
            batch,
            replay_from: Timestamp(0),
            rules_fingerprint: 7,
        };
        let committed = CommittedOffset { offset: 5, metadata: metadata.encode() };
        vec![(Input::Lifecycle, 3, Some(committed))]
    }

    #[test]
    fn a_batch_of_unknown_fate_is_judged_by_its_number() {
        assert_eq!(verdict(3, &part(8, 2), &committed(8, 2)), Verdict::Happened);
        assert_eq!(verdict(3, &part(8, 2), &committed(8, 1)), Verdict::DidNot);
        assert_eq!(verdict(3, &part(8, 2), &committed(7, 9)), Verdict::DidNot);
        assert_eq!(verdict(3, &part(8, 2), &committed(9, 1)), Verdict::Superseded);
        assert_eq!(verdict(3, &part(8, 2), &[]), Verdict::DidNot);
    }
}
