//! Restoring a shard, in steps within the loop (rules R1, R2, R4).
//!
//! ```text
//! marker → bounds → changelog → replay bounds → replay → … → running
//! ```
//!
//! Two inputs are replayed, one after the other: openings of VPN sessions, by whose
//! leases it is told whether a heartbeat that nobody is sure of had been seen, then
//! heartbeats.

use tracing::{error, info, warn};

use super::past::{InputStart, Past};
use super::ports::{Bounds, Log, LogBounds, OffsetAt, QuestionId, RecordRef, Source};
use super::replay::Replay;
use super::running::Running;
use super::settings::Settings;
use crate::error::{Error, Fatal};
use crate::shard::{Input, Timestamp};
use crate::wire::changelog;

/// How long a restore waits for the view's marker. Without it the whole shard is
/// rewritten, which is correct and only costs Redis some work.
pub(super) const MARKER_PATIENCE_MS: i64 = 2_000;
/// Pause before a query is repeated.
const ASK_AGAIN_MS: i64 = 100;
/// How often a restore logs its progress.
const LOGGED_EVERY_MS: i64 = 5_000;

/// How far a restore has come.
pub(super) struct Restore {
    pub past: Past,
    /// How many records were read.
    pub read: u64,
    /// How many offsets of the current step are still to be read.
    pub to_read: u64,
    step: Step,
    /// The end of the changelog, once it is known.
    changelog_end: Option<i64>,
    started_ms: i64,
    logged_ms: i64,
}

enum Step {
    /// Waiting for the view's marker, before the changelog is read.
    Marker,
    /// Asking for the bounds of the changelog, until no transaction is open before
    /// the end that was answered first.
    Bounds(Question),
    /// Reading the changelog, up to an offset.
    Changelog { end: i64 },
    /// Asking where the records of the replay window lie.
    ReplayBounds { of: Input, question: Question },
    /// Reading records that the clock has seen, up to an offset.
    Replay { until: i64, which: Replay },
    /// Everything is read.
    Done,
}

enum Question {
    Unasked { at_ms: i64 },
    Asked(QuestionId),
}

/// What every restore needs from the loop.
pub(super) struct RestoreContext<'a> {
    pub now_ms: i64,
    pub settings: &'a Settings,
    pub log: &'a mut dyn Log,
}

impl Restore {
    /// A restore of a shard whose inputs are read from `starts`.
    pub fn new(
        partition: i32,
        starts: [InputStart; Input::ALL.len()],
        settings: &Settings,
        now_ms: i64,
    ) -> Restore {
        Restore {
            past: Past::new(partition, &settings.rules, starts),
            read: 0,
            to_read: 0,
            step: Step::Marker,
            changelog_end: None,
            started_ms: now_ms,
            logged_ms: now_ms,
        }
    }

    /// What the restore consumer reads for this restore now.
    pub fn reading(&self) -> Option<Source> {
        match self.step {
            Step::Changelog { .. } => Some(Source::Changelog),
            Step::Replay { which, .. } => Some(Source::Input(which.input)),
            _ => None,
        }
    }

    fn partition(&self) -> i32 {
        self.past.shard.partition()
    }

    /// Advances as far as possible without waiting. `has_marker`: the view's marker
    /// is known, or no longer waited for. Returns whether the shard may run.
    ///
    /// # Errors
    /// [`Error::Retriable`] to try again; anything else ends this restore.
    pub fn advance(
        &mut self,
        has_marker: bool,
        context: &mut RestoreContext<'_>,
    ) -> Result<bool, Error> {
        let (now_ms, partition) = (context.now_ms, self.partition());
        loop {
            match &mut self.step {
                Step::Marker if has_marker => {
                    self.step = Step::Bounds(Question::Unasked { at_ms: now_ms });
                }
                Step::Bounds(question @ Question::Unasked { .. }) if question.is_due(now_ms) => {
                    let of = [(Source::Changelog, partition)];
                    *question = Question::Asked(context.log.ask_bounds(&of, OffsetAt::Start));
                }
                Step::Changelog { .. } | Step::Replay { .. } if self.to_read == 0 => {
                    let source = self.reading();
                    self.step = self.replay_next(now_ms);
                    if let Some(source) = source {
                        context.log.stop_restore(source, partition)?;
                    }
                }
                Step::Changelog { .. } | Step::Replay { .. } => {
                    if now_ms - self.logged_ms >= LOGGED_EVERY_MS {
                        self.logged_ms = now_ms;
                        info!(
                            partition,
                            records = self.read,
                            to_go = self.to_read,
                            rows = self.past.shard.rows(),
                            "restoring"
                        );
                    }
                    return Ok(false);
                }
                Step::ReplayBounds { of, question } if question.is_due(now_ms) => {
                    match self.past.replay(*of, &context.settings.rules) {
                        Some(Replay { from, .. }) => {
                            let of = [(Source::Input(*of), partition)];
                            *question = Question::Asked(context.log.ask_bounds(&of, from));
                        }
                        None => self.step = Step::Done,
                    }
                }
                Step::Marker | Step::Bounds(_) | Step::ReplayBounds { .. } => return Ok(false),
                Step::Done => return Ok(true),
            }
        }
    }

    /// Takes the answer to a question of this restore, if it is one.
    ///
    /// # Errors
    /// [`Error::Retriable`] to begin anew.
    pub fn answered(
        &mut self,
        id: QuestionId,
        answer: &Result<Bounds, String>,
        context: &mut RestoreContext<'_>,
    ) -> Result<(), Error> {
        let partition = self.partition();
        let (Step::Bounds(question) | Step::ReplayBounds { question, .. }) = &mut self.step else {
            return Ok(());
        };
        if !matches!(question, Question::Asked(asked) if *asked == id) {
            return Ok(());
        }
        *question = Question::Unasked { at_ms: context.now_ms + ASK_AGAIN_MS };
        let bounds = match answer {
            Ok(found) => found,
            Err(error) => {
                // The first queries fail while a leader is being elected.
                if context.now_ms - self.logged_ms >= LOGGED_EVERY_MS {
                    self.logged_ms = context.now_ms;
                    warn!(
                        partition,
                        %error,
                        "a shard cannot be restored yet: cannot read the log start and end of its \
                         topics. Other shards continue; check the brokers that lead the \
                         partition"
                    );
                }
                return Ok(());
            }
        };
        if let Step::ReplayBounds { of, .. } = self.step {
            let Some(bounds) = bounds.get(&(Source::Input(of), partition)) else { return Ok(()) };
            self.learn_replayed(of, *bounds, context)
        } else {
            let Some(bounds) = bounds.get(&(Source::Changelog, partition)) else { return Ok(()) };
            self.learn_changelog(*bounds, context)
        }
    }

    fn learn_changelog(
        &mut self,
        bounds: LogBounds,
        context: &mut RestoreContext<'_>,
    ) -> Result<(), Error> {
        let end = *self.changelog_end.get_or_insert(bounds.end);
        // A transaction of the last owner may still be open, or its commit marker
        // not written yet: the last stable offset is not the end (rule R1).
        if bounds.stable < end {
            return Ok(());
        }
        self.to_read = between(bounds.start, end);
        if self.to_read == 0 {
            self.step = self.replay_next(context.now_ms);
            return Ok(());
        }
        self.step = Step::Changelog { end };
        context.log.start_restore(Source::Changelog, self.partition(), bounds.start)
    }

    /// What comes after this step: what is replayed next, or nothing.
    fn replay_next(&self, now_ms: i64) -> Step {
        let of = match &self.step {
            Step::ReplayBounds { of: Input::VpnSessions, .. } => Input::Heartbeats,
            Step::Replay { which: Replay { input: Input::VpnSessions, .. }, .. } => {
                Input::Heartbeats
            }
            Step::ReplayBounds { .. } | Step::Replay { .. } | Step::Done => return Step::Done,
            Step::Marker | Step::Bounds(_) | Step::Changelog { .. } => Input::VpnSessions,
        };
        Step::ReplayBounds { of, question: Question::Unasked { at_ms: now_ms } }
    }

    fn learn_replayed(
        &mut self,
        of: Input,
        bounds: LogBounds,
        context: &mut RestoreContext<'_>,
    ) -> Result<(), Error> {
        let Some(which) = self.past.replay(of, &context.settings.rules) else { return Ok(()) };
        let until = which.until(bounds.stable);
        self.to_read = between(bounds.start, until);
        if self.to_read == 0 {
            self.step = self.replay_next(context.now_ms);
            return Ok(());
        }
        self.step = Step::Replay { until, which };
        context.log.start_restore(Source::Input(of), self.partition(), bounds.start)
    }

    /// Takes a record. The view has all records of the changelog before `applied`.
    ///
    /// # Errors
    /// [`Error::Corrupted`] if the shard cannot be restored; [`Error::Fatal`] if it
    /// must not be.
    pub fn record(
        &mut self,
        source: Source,
        record: &RecordRef<'_>,
        applied: i64,
        settings: &Settings,
    ) -> Result<(), Error> {
        match &self.step {
            Step::Changelog { .. } if source == Source::Changelog => {
                self.read += 1;
                belongs_here(record, settings)?;
                let unwritten = record.offset >= applied;
                self.past.take_changelog(record.key, record.value, record.offset, unwritten)?;
            }
            Step::Replay { until, which }
                if source == Source::Input(which.input) && record.offset < *until =>
            {
                if which.has_seen(record) {
                    self.read += 1;
                    let format = settings.formats[which.input.index()];
                    which.replay(&mut self.past.shard, record, format);
                } else if record.stamped_by_broker {
                    // No later record has been seen, either.
                    self.to_read = 0;
                    return Ok(());
                }
            }
            _ => {}
        }
        self.reached(source, record.offset + 1);
        Ok(())
    }

    /// Reading has reached `offset`.
    pub fn reached(&mut self, source: Source, offset: i64) {
        match self.step {
            Step::Changelog { end } if source == Source::Changelog => {
                self.to_read = between(offset, end);
            }
            Step::Replay { until, which } if source == Source::Input(which.input) => {
                self.to_read = between(offset, until);
            }
            _ => {}
        }
    }

    /// Drops what has been read so far, to read it again.
    pub fn begin_anew(&mut self, context: &mut RestoreContext<'_>) {
        if let Some(source) = self.reading() {
            let _ = context.log.stop_restore(source, self.partition());
        }
        let starts = std::mem::take(&mut self.past.starts);
        *self = Restore::new(self.partition(), starts, context.settings, context.now_ms);
        self.step = Step::Bounds(Question::Unasked { at_ms: context.now_ms + ASK_AGAIN_MS });
    }

    /// Completes the restore: the shard runs with an epoch greater than all known
    /// ones. `has_marker`: the view has a marker, so it need not be rewritten.
    pub fn run(
        self: Box<Self>,
        last_epoch: Option<u64>,
        wall: Timestamp,
        has_marker: bool,
        settings: &Settings,
        now_ms: i64,
    ) -> Running {
        let Restore { mut past, read, changelog_end, started_ms, .. } = *self;
        let (partition, metadata) = (past.shard.partition(), past.metadata());
        let known = past.shard.last_epoch().max(metadata.as_ref().map(|m| m.epoch));
        let epoch = next_epoch(known.max(last_epoch), wall);
        let gone = past.starts.iter().any(|start| start.gone);
        if gone || (metadata.is_none() && past.shard.rows() > 0) {
            error!(
                partition,
                positions = ?past.positions(),
                "committed offsets or their metadata are gone (offset out of range, or deleted): \
                 continuing from these positions. Unless an operator reset them, raise \
                 offsets.retention.minutes and the retention of the inputs"
            );
        }
        if metadata.is_some() && past.shard.last_epoch().is_none() {
            // Every owner's first transaction writes an epoch.
            error!(
                partition,
                "the changelog was emptied: the state of all devices is lost until new events \
                 arrive. See \"restoring from nothing\" in docs/operations.md"
            );
        }
        let mut start = past.start(epoch, &settings.rules);
        start.rules_changed = past.has_other_rules(settings.rules.fingerprint());
        start.rewrite_view = !has_marker;
        past.shard.start(start);
        info!(
            partition,
            epoch,
            rows = past.shard.rows(),
            records = read,
            took_ms = now_ms - started_ms,
            "shard running"
        );
        let changelog_end = changelog_end.unwrap_or_default();
        let mut running = Running::new(past.shard, epoch, changelog_end, now_ms);
        running.restored = read;
        running
    }
}

impl Question {
    fn is_due(&self, now_ms: i64) -> bool {
        matches!(self, Question::Unasked { at_ms } if *at_ms <= now_ms)
    }
}

/// The number of offsets from `from` to `to`; 0 if `to` lies before `from`.
fn between(from: i64, to: i64) -> u64 {
    u64::try_from(to - from).unwrap_or_default()
}

/// The greater of the wall clock and one past the last epoch (rule C7).
fn next_epoch(last: Option<u64>, wall: Timestamp) -> u64 {
    let wall = u64::try_from(wall.0).unwrap_or_default();
    wall.max(last.map_or(0, |last| last.saturating_add(1)))
}

/// Refuses a row that was written under another number of partitions: the events of
/// its device now go to another shard (rule R6).
fn belongs_here(record: &RecordRef<'_>, settings: &Settings) -> Result<(), Fatal> {
    let (Some(device), Some(_)) = (record.key.and_then(changelog::row_of), record.value) else {
        return Ok(());
    };
    let Some(belongs) = settings.belongs_elsewhere(device, record.partition) else {
        return Ok(());
    };
    Err(Fatal::unavailable(format!(
        "the changelog has device {:?} on partition {}, but with {} partitions it belongs on \
         {belongs}: partitions were added to the topics, so events now go to shards that do not \
         know their devices. Kafka cannot remove partitions: see \"scaling partitions\" in \
         docs/operations.md. If producers choose partitions by another rule than murmur2, set \
         topics.partitioner to \"any\"",
        String::from_utf8_lossy(device),
        record.partition,
        settings.partitions
    )))
}
