//! Restoring a shard, in steps within the loop (rules R1, R2, R4).
//!
//! ```text
//! marker → bounds → stable → changelog → replay bounds → replay → running
//! ```

use tracing::{error, info, warn};

use super::Settings;
use super::ports::{Delivery, FoundOffset, Log, OffsetAt, QuestionId, RecordRef, Source};
use super::replay::Replay;
use super::slot::{MarkerAnswer, Slot, Stage, next_epoch};
use crate::error::{Error, Fatal};
use crate::shard::{Input, Rules, Shard, Start, Timestamp};
use crate::wire::changelog;
use crate::wire::metadata::ShardMetadata;

/// How long a restore waits for the view's marker: without it the whole shard
/// is rewritten, which is right and only costs Redis some work.
const MARKER_PATIENCE_MS: i64 = 2_000;
/// How long to wait before a question is put again.
const ASK_AGAIN_MS: i64 = 100;
/// How often a restore tells how it gets on.
const LOGGED_EVERY_MS: i64 = 5_000;

/// How far a restore has come.
pub(super) struct Restore {
    step: Step,
    /// What the group had committed for the shard.
    metadata: Option<ShardMetadata>,
    started_ms: i64,
    logged_ms: i64,
}

enum Step {
    /// Waiting for the view's marker, before the changelog is read.
    Marker,
    /// Asked where the changelog begins and ends.
    Bounds(QuestionId),
    /// To be asked again after a failure.
    BoundsAgain { at_ms: i64 },
    /// The end is known; a transaction may still be open before it.
    Stable { question: Option<QuestionId>, again_ms: i64, bounds: Bounds },
    /// Reading the changelog.
    Changelog { bounds: Bounds },
    /// Asked where the heartbeats of the replay window lie; to be asked from
    /// the given time on.
    ReplayBounds { question: Option<QuestionId>, again_ms: i64 },
    /// Reading heartbeats that the clock has seen, up to an offset.
    Replay { until: i64, which: Replay },
    /// Everything is read.
    Done,
}

#[derive(Clone, Copy)]
struct Bounds {
    changelog_start: i64,
    changelog_end: i64,
}

/// What the loop must know to restore any shard.
pub(super) struct RestoreContext<'a> {
    pub now_ms: i64,
    pub wall: Timestamp,
    pub rules_fingerprint: u64,
    pub rules: &'a Rules,
    /// The greatest epoch that any shard of this thread was given.
    pub last_epoch: Option<u64>,
    pub log: &'a mut dyn Log,
}

impl Restore {
    pub fn new(slot_metadata: Option<ShardMetadata>, now_ms: i64) -> Restore {
        Restore {
            step: Step::Marker,
            metadata: slot_metadata,
            started_ms: now_ms,
            logged_ms: now_ms,
        }
    }

    /// What the log reads for this restore now.
    pub fn reading(&self) -> Option<Source> {
        match self.step {
            Step::Changelog { .. } => Some(Source::Changelog),
            Step::Replay { .. } => Some(Source::Input(Input::Heartbeats)),
            _ => None,
        }
    }
}

/// Moves a restore on, as far as it goes without waiting. Answers whether the
/// shard may run.
///
/// # Errors
/// [`Error::Retriable`] to try again; anything else ends this restore.
pub(super) fn advance(slot: &mut Slot, context: &mut RestoreContext<'_>) -> Result<bool, Error> {
    loop {
        let partition = slot.partition;
        let replay = replayed(slot, context.rules);
        let Stage::Restoring(restore) = &mut slot.stage else { return Ok(false) };
        match &mut restore.step {
            Step::Marker => {
                if let MarkerAnswer::Awaited { since_ms } = slot.marker {
                    if context.now_ms - since_ms < MARKER_PATIENCE_MS {
                        return Ok(false);
                    }
                    slot.marker = MarkerAnswer::Known(None);
                }
                restore.step = Step::BoundsAgain { at_ms: context.now_ms };
            }
            Step::BoundsAgain { at_ms } => {
                if context.now_ms < *at_ms {
                    return Ok(false);
                }
                let of = [
                    (Source::Changelog, partition, OffsetAt::Start),
                    (Source::Changelog, partition, OffsetAt::HighWatermark),
                ];
                restore.step = Step::Bounds(context.log.ask_offsets(&of));
            }
            Step::Bounds(_) => return Ok(false),
            Step::Stable { question: Some(_), .. } => return Ok(false),
            Step::Stable { question, again_ms, .. } => {
                if context.now_ms < *again_ms {
                    return Ok(false);
                }
                let of = [(Source::Changelog, partition, OffsetAt::LastStable)];
                *question = Some(context.log.ask_offsets(&of));
            }
            Step::Changelog { .. } | Step::Replay { .. } => {
                if context.now_ms - restore.logged_ms >= LOGGED_EVERY_MS {
                    restore.logged_ms = context.now_ms;
                    info!(
                        partition,
                        records = slot.restored,
                        to_go = slot.to_restore,
                        rows = slot.shard.rows(),
                        "restoring"
                    );
                }
                return Ok(false);
            }
            Step::ReplayBounds { question: Some(_), .. } => return Ok(false),
            Step::ReplayBounds { question, again_ms } => {
                let Some(Replay { from, .. }) = replay else {
                    restore.step = Step::Done;
                    continue;
                };
                if context.now_ms < *again_ms {
                    return Ok(false);
                }
                let heartbeats = Source::Input(Input::Heartbeats);
                let of = [from, OffsetAt::LastStable].map(|at| (heartbeats, partition, at));
                *question = Some(context.log.ask_offsets(&of));
            }
            Step::Done => {
                start(slot, context);
                return Ok(true);
            }
        }
    }
}

/// Takes the answer to a question of this restore, if it is one.
pub(super) fn answered(
    slot: &mut Slot,
    id: QuestionId,
    answer: &Result<Vec<FoundOffset>, String>,
    context: &mut RestoreContext<'_>,
) -> Result<(), Error> {
    let partition = slot.partition;
    let replay = replayed(slot, context.rules);
    let Stage::Restoring(restore) = &mut slot.stage else { return Ok(()) };
    let is_ours = match &restore.step {
        Step::Bounds(question) => *question == id,
        Step::Stable { question, .. } | Step::ReplayBounds { question, .. } => {
            *question == Some(id)
        }
        _ => false,
    };
    // The first ones fail where a leader is being elected.
    if let Err(error) = answer
        && is_ours
        && context.now_ms - restore.logged_ms >= LOGGED_EVERY_MS
    {
        restore.logged_ms = context.now_ms;
        warn!(
            partition,
            %error,
            "a shard cannot be restored yet: nobody says where its past begins and ends. Others go \
             on; look at the brokers that lead the partition"
        );
    }
    let again_ms = context.now_ms + ASK_AGAIN_MS;
    let find = |found: &[FoundOffset], source: Source, is: fn(OffsetAt) -> bool| {
        found
            .iter()
            .find(|(s, p, at, _)| *s == source && *p == partition && is(*at))
            .map(|(.., offset)| *offset)
    };
    match &mut restore.step {
        Step::Bounds(question) if *question == id => {
            let Ok(found) = answer else {
                restore.step = Step::BoundsAgain { at_ms: again_ms };
                return Ok(());
            };
            let changelog = |is| find(found, Source::Changelog, is).unwrap_or_default();
            let bounds = Bounds {
                changelog_start: changelog(|at| at == OffsetAt::Start),
                changelog_end: changelog(|at| at == OffsetAt::HighWatermark),
            };
            slot.changelog_end = bounds.changelog_end;
            restore.step = Step::Stable { question: None, again_ms: context.now_ms, bounds };
        }
        Step::Stable { question, again_ms: again, bounds } if *question == Some(id) => {
            *question = None;
            *again = again_ms;
            let bounds = *bounds;
            let stable = answer
                .as_ref()
                .ok()
                .and_then(|found| find(found, Source::Changelog, |at| at == OffsetAt::LastStable));
            // A transaction of the last owner may still be open, or its marker on
            // its way: the end of what may be read now is not the end (rule R1).
            if stable.is_some_and(|stable| stable >= bounds.changelog_end) {
                slot.to_restore =
                    u64::try_from(bounds.changelog_end - bounds.changelog_start).unwrap_or(0);
                if bounds.changelog_start < bounds.changelog_end {
                    restore.step = Step::Changelog { bounds };
                    context.log.start_restore(
                        Source::Changelog,
                        slot.partition,
                        bounds.changelog_start,
                    )?;
                } else {
                    restore.step = Step::ReplayBounds { question: None, again_ms: context.now_ms };
                }
            }
        }
        Step::ReplayBounds { question, again_ms: again } if *question == Some(id) => {
            let Ok(found) = answer else {
                *question = None;
                *again = again_ms;
                return Ok(());
            };
            let Some(which) = replay else { return Ok(()) };
            let at = |wanted| {
                found.iter().find(|(_, p, at, _)| *p == partition && *at == wanted).map(|f| f.3)
            };
            let end = at(OffsetAt::LastStable).unwrap_or_default();
            let until = which.until(end);
            match at(which.from).filter(|from| (0..until).contains(from)) {
                Some(from) => {
                    slot.to_restore = u64::try_from(until - from).unwrap_or_default();
                    restore.step = Step::Replay { until, which };
                    let heartbeats = Source::Input(Input::Heartbeats);
                    context.log.start_restore(heartbeats, partition, from)?;
                }
                None => restore.step = Step::Done,
            }
        }
        _ => {}
    }
    Ok(())
}

/// Takes a record of the restore.
///
/// # Errors
/// [`Error::Corrupted`] if the shard cannot be restored; [`Error::Fatal`] if it
/// must not be.
pub(super) fn record(
    slot: &mut Slot,
    delivery: Delivery,
    record: &RecordRef<'_>,
    settings: &Settings,
) -> Result<(), Error> {
    let Stage::Restoring(restore) = &mut slot.stage else { return Ok(()) };
    match (&restore.step, delivery) {
        (Step::Changelog { .. }, Delivery::Restore(Source::Changelog)) => {
            slot.restored += 1;
            belongs_here(record, settings)?;
            let entry = changelog::decode(record.key, record.value).map_err(|error| {
                Error::Corrupted(format!("changelog offset {}: {error}", record.offset))
            })?;
            let applied = match slot.marker {
                MarkerAnswer::Known(Some(marker)) => marker.applied,
                _ => 0,
            };
            if let Some(entry) = entry {
                slot.shard.restore_entry(entry, record.offset >= applied);
            }
        }
        (Step::Replay { until, which }, Delivery::Restore(Source::Input(Input::Heartbeats)))
            if record.offset < *until =>
        {
            if !which.has_seen(record) {
                if record.stamped_by_broker {
                    // Nor have any that follow been seen.
                    slot.to_restore = 0;
                    return Ok(());
                }
                return reached(slot, delivery, record.offset + 1);
            }
            slot.restored += 1;
            let format = settings.formats[Input::Heartbeats.index()];
            which.replay(&mut slot.shard, record, format);
        }
        _ => {}
    }
    reached(slot, delivery, record.offset + 1)
}

/// Refuses a row that was written when there was another number of partitions:
/// its device's events go to another shard now (rule R6).
fn belongs_here(record: &RecordRef<'_>, settings: &Settings) -> Result<(), Fatal> {
    let (Some(device), Some(_)) = (record.key.and_then(changelog::row_of), record.value) else {
        return Ok(());
    };
    let Some(belongs) = settings.belongs_elsewhere(device, record.partition) else {
        return Ok(());
    };
    Err(Fatal::unavailable(format!(
        "the changelog has device {:?} on partition {}, and of {} partitions it belongs on \
         {belongs}: partitions were added to the topics, and events now go to other shards than \
         those that know their devices. Kafka cannot take partitions away again: see \"scaling \
         partitions\" in docs/operations.md. If producers choose partitions by another rule than \
         murmur2, set topics.partitioner to \"any\"",
        String::from_utf8_lossy(device),
        record.partition,
        settings.partitions
    )))
}

/// The restore's reading has come to `offset`.
pub(super) fn reached(slot: &mut Slot, delivery: Delivery, offset: i64) -> Result<(), Error> {
    let Stage::Restoring(restore) = &mut slot.stage else { return Ok(()) };
    match (&restore.step, delivery) {
        (Step::Changelog { bounds }, Delivery::Restore(Source::Changelog)) => {
            slot.to_restore =
                u64::try_from((bounds.changelog_end - offset).max(0)).unwrap_or_default();
        }
        (Step::Replay { until, .. }, Delivery::Restore(Source::Input(Input::Heartbeats))) => {
            slot.to_restore = u64::try_from((until - offset).max(0)).unwrap_or_default();
        }
        _ => return Ok(()),
    }
    Ok(())
}

/// Ends a step whose reading is through; called outside of the log's own poll.
pub(super) fn finish_step(slot: &mut Slot, context: &mut RestoreContext<'_>) -> Result<(), Error> {
    if slot.to_restore > 0 {
        return Ok(());
    }
    let Stage::Restoring(restore) = &mut slot.stage else { return Ok(()) };
    match restore.step {
        Step::Changelog { .. } => {
            restore.step = Step::ReplayBounds { question: None, again_ms: context.now_ms };
            context.log.stop_restore(Source::Changelog, slot.partition)
        }
        Step::Replay { .. } => {
            restore.step = Step::Done;
            context.log.stop_restore(Source::Input(Input::Heartbeats), slot.partition)
        }
        _ => Ok(()),
    }
}

/// Drops what a restore has read so far, and reads it again.
pub(super) fn begin_anew(slot: &mut Slot, context: &mut RestoreContext<'_>) {
    let Stage::Restoring(restore) = &slot.stage else { return };
    if let Some(source) = restore.reading() {
        let _ = context.log.stop_restore(source, slot.partition);
    }
    let mut anew = Restore::new(restore.metadata.clone(), context.now_ms);
    anew.step = Step::BoundsAgain { at_ms: context.now_ms + ASK_AGAIN_MS };
    slot.shard = Shard::new(slot.partition, context.rules.clone());
    slot.restored = 0;
    slot.to_restore = 0;
    slot.stage = Stage::Restoring(anew);
}

/// The clock the shard had come to: as committed or, without what was committed
/// beside the offsets, as its rows tell (rule R5).
fn restored_clock(slot: &Slot, metadata: Option<&ShardMetadata>) -> Option<Timestamp> {
    metadata.map(|metadata| metadata.clock).or(slot.shard.greatest_clock())
}

/// `None`: there is no past.
fn replayed(slot: &Slot, rules: &Rules) -> Option<Replay> {
    let Stage::Restoring(restore) = &slot.stage else { return None };
    let metadata = restore.metadata.as_ref();
    let clock = restored_clock(slot, metadata)?;
    let heartbeats = slot.inputs[Input::Heartbeats.index()].as_ref();
    let committed =
        heartbeats.filter(|start| !start.gone).and_then(|start| start.committed.as_ref());
    Some(Replay::new(clock, metadata, committed, rules.slack_ms))
}

fn start(slot: &mut Slot, context: &RestoreContext<'_>) {
    let Stage::Restoring(restore) = &slot.stage else { return };
    let positions = [0, 1, 2].map(|i| slot.inputs[i].as_ref().map_or(0, |start| start.offset));
    let gone = slot.inputs.iter().flatten().any(|start| start.gone);
    let last_epoch = slot.shard.last_epoch().max(restore.metadata.as_ref().map(|m| m.epoch));
    slot.epoch = next_epoch(last_epoch.max(context.last_epoch), context.wall);
    slot.batch = 0;
    slot.expected = positions;
    let clock = restored_clock(slot, restore.metadata.as_ref());
    if gone || (restore.metadata.is_none() && slot.shard.rows() > 0) {
        error!(
            partition = slot.partition,
            ?positions,
            "committed offsets, or what was committed beside them, are gone: going on from \
             these positions. Unless an operator reset them, raise offsets.retention.minutes \
             and the retention of the inputs"
        );
    }
    if restore.metadata.is_some() && slot.shard.last_epoch().is_none() {
        // Every owner's first transaction writes an epoch.
        error!(
            partition = slot.partition,
            "the changelog was emptied: what is known of the devices is lost but for what comes \
             anew. See \"restoring from nothing\" in docs/operations.md"
        );
    }
    let replay_from = restore.metadata.as_ref().map(|m| m.replay_from);
    let rules_changed =
        restore.metadata.as_ref().is_some_and(|m| m.rules_fingerprint != context.rules_fingerprint);
    let rewrite_view = !matches!(slot.marker, MarkerAnswer::Known(Some(_)));
    slot.shard.start(Start {
        epoch: slot.epoch,
        clock,
        watermarks: restore.metadata.as_ref().map_or([None; 3], |m| m.watermarks),
        replay_from: replay_from
            .or(clock.map(|clock| clock.plus_ms(-context.rules.replay_window_ms))),
        rules_changed,
        rewrite_view,
        positions,
    });
    info!(
        partition = slot.partition,
        epoch = slot.epoch,
        rows = slot.shard.rows(),
        records = slot.restored,
        took_ms = context.now_ms - restore.started_ms,
        "shard running"
    );
    slot.to_restore = 0;
    slot.stage = Stage::Running;
}
