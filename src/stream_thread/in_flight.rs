//! A batch in flight: its contents, and what follows from its outcome (rules C1,
//! C2, C6).

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::warn;

use super::ports::{Batch, Commits, OutputRecord, OutputTopic, QuestionId, ShardBatch};
use super::report::Counts;
use super::running::Running;
use super::settings::Settings;
use crate::shard::{Input, Outbox, ViewWrite};
use crate::wire::metadata::ShardMetadata;
use crate::wire::{changelog, dead_letter, status_changed};

/// A batch whose outcome is not known yet.
pub(super) struct InFlight {
    pub batch: Arc<Batch>,
    pub parts: BTreeMap<i32, Part>,
    pub submitted_ms: i64,
    pub attempts: u32,
    pub state: InFlightState,
}

pub(super) enum InFlightState {
    /// It was passed to the log.
    Submitted,
    /// To be sent again unchanged.
    Waiting { until_ms: i64 },
    /// Committed offsets were asked for, to learn what happened.
    Resolving(QuestionId),
    /// Committed offsets are to be asked for.
    Unresolved { ask_ms: i64 },
}

/// What to do after the commit of one shard's part.
pub(super) struct Part {
    pub epoch: u64,
    pub batch: u64,
    pub view: Vec<ViewWrite>,
    /// Some rows of a rewrite of the view are still to come.
    pub rewriting: bool,
    pub counts: Counts,
}

/// Turns a shard's outbox into its part of a batch.
pub(super) fn pack(
    running: &mut Running,
    outbox: Outbox,
    rules_fingerprint: u64,
    settings: &Settings,
) -> (ShardBatch, Part) {
    let dead_letters = &settings.dead_letters;
    let format = settings.change_format;
    let source = settings.cloud_events_source.as_deref();
    let mut records = Vec::with_capacity(outbox.changelog.len() + outbox.changes.len());
    let mut counts = Counts::default();
    for entry in &outbox.changelog {
        let (key, value) = changelog::encode(entry);
        records.push(OutputRecord {
            topic: OutputTopic::Changelog,
            partition: Some(running.shard.partition()),
            key: Some(key),
            value,
            headers: Vec::new(),
        });
    }
    for change in &outbox.changes {
        let (key, value) = status_changed::encode(change, format);
        *counts.changes.entry((change.previous, change.current)).or_default() += 1;
        counts.change_instants.push(change.since.max(change.connectivity_since));
        records.push(OutputRecord {
            topic: OutputTopic::StatusChanges,
            partition: None,
            key: Some(key),
            value: Some(value),
            headers: status_changed::headers(change, format, source),
        });
    }
    if let Some(first) = outbox.dead_letters.first() {
        warn!(
            input = first.input.name(),
            partition = first.partition,
            offset = first.offset,
            reason = first.reason.code(),
            detail = ?first.detail,
            and_more = outbox.dead_letters.len() - 1,
            "a record cannot be used and becomes a dead letter; run device-status dead-letters \
             list to see which ones, and why"
        );
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
    let progress = running.shard.progress();
    running.batch += 1;
    let metadata = ShardMetadata {
        clock: progress.clock,
        watermarks: progress.watermarks,
        epoch: running.epoch,
        batch: running.batch,
        replay_from: progress.replay_from,
        rules_fingerprint,
    };
    let shard = ShardBatch {
        partition: running.shard.partition(),
        records,
        offsets: running.positions(),
        metadata: metadata.encode(),
    };
    let part = Part {
        epoch: running.epoch,
        batch: running.batch,
        view: outbox.view,
        rewriting: running.shard.rewriting_view(),
        counts,
    };
    (shard, part)
}

/// The outcome of a batch by the committed offsets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is committed.
    Committed,
    /// It is not.
    NotCommitted,
    /// A later owner has committed, so our state is outdated.
    Superseded,
}

/// Compares (epoch, batch) of a shard's part with what is committed (rule C6).
pub(super) fn fate(partition: i32, part: &Part, committed: &Commits) -> Fate {
    let latest = Input::ALL
        .iter()
        .filter_map(|input| committed.get(&(*input, partition))?.as_ref())
        .filter_map(|committed| ShardMetadata::decode(&committed.metadata))
        .map(|metadata| (metadata.epoch, metadata.batch))
        .max();
    match latest {
        Some((epoch, _)) if epoch > part.epoch => Fate::Superseded,
        Some(latest) if latest >= (part.epoch, part.batch) => Fate::Committed,
        _ => Fate::NotCommitted,
    }
}

/// The pause before an attempt, in milliseconds.
pub(super) fn backoff_ms(attempt: u32) -> i64 {
    (50_i64 << attempt.min(6)).min(2_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::Timestamp;
    use crate::stream_thread::ports::CommittedOffset;

    fn part(epoch: u64, batch: u64) -> Part {
        Part { epoch, batch, view: Vec::new(), rewriting: false, counts: Counts::default() }
    }

    fn committed(epoch: u64, batch: u64) -> Commits {
        let metadata = ShardMetadata {
            clock: Timestamp(1),
            watermarks: [None; 3],
            epoch,
            batch,
            replay_from: Timestamp(0),
            rules_fingerprint: 7,
        };
        let committed = CommittedOffset { offset: 5, metadata: metadata.encode() };
        Commits::from([((Input::Lifecycle, 3), Some(committed))])
    }

    #[test]
    fn batch_number_decides_an_unknown_outcome() {
        assert_eq!(fate(3, &part(8, 2), &committed(8, 2)), Fate::Committed);
        assert_eq!(fate(3, &part(8, 2), &committed(8, 1)), Fate::NotCommitted);
        assert_eq!(fate(3, &part(8, 2), &committed(7, 9)), Fate::NotCommitted);
        assert_eq!(fate(3, &part(8, 2), &committed(9, 1)), Fate::Superseded);
        assert_eq!(fate(3, &part(8, 2), &Commits::new()), Fate::NotCommitted);
    }
}
