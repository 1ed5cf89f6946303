//! The loop of one stream thread: poll, apply, expire, commit.
//!
//! It owns the shards assigned to it and knows Kafka, Redis and time only as
//! [`ports`]. One [`StreamThread::step`] is one turn of the loop; whoever runs
//! it calls it again and again.
//!
//! Architecture invariant: rebalances and answers arrive as values and are
//! acted on here, never inside a callback (rule C5).
//!
//! ```text
//! Assigned → adoption (where to start) → restore → running ─┐
//!                                                           ├→ commit → released
//! Revoked ──────────────────────────────────────────────────┘
//! Lost ───────────────────────────────────────────────────────────────→ dropped
//! ```

mod adoption;
mod broker_time;
mod commit;
pub mod ports;
mod rebalance;
pub mod report;
mod restore;
mod slot;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, error, info, warn};

use self::adoption::Adoption;
use self::broker_time::BrokerTime;
use self::commit::{InFlight, InFlightState, Verdict};
use self::ports::{
    Batch, Clock, Delivery, Log, LogEvent, OffsetAt, Outcome, QuestionId, Receipt, RecordRef,
    Source, View, ViewEvent,
};
use self::rebalance::Release;
use self::report::{Counts, Report};
use self::slot::{MarkerAnswer, Slot, Stage, Suspended};
use crate::error::{Error, Fatal};
use crate::shard::{
    Content, DeadLetter, DeadLetterReason, EventBody, Input, Now, Queued, Rules, Timestamp,
};
use crate::wire::decode::{Format, Refusal, decode};
use crate::wire::murmur2::partition_of;

/// Records taken from the log in one turn of the loop, at most.
const RECORDS_PER_POLL: usize = 10_000;
/// Units of work of one shard in one turn of the loop.
const WORK_PER_TURN: usize = 20_000;
/// Records of one input that wait in a shard before its partition is paused,
/// and until it goes on: far apart, since a pause throws away what was
/// prefetched (rule T4).
const READ_AHEAD_HIGH: usize = 50_000;
const READ_AHEAD_LOW: usize = 2_000;
/// Output of all shards that waits for a commit before nothing more is applied:
/// memory stays bounded while the broker is away.
const OUTPUT_HIGH: usize = 200_000;
/// How often the ends of the partitions are asked for (rule T1).
const ENDS_INTERVAL_MS: i64 = 1_000;
/// How often progress alone is committed (rule C3).
const PROGRESS_INTERVAL_MS: i64 = 5_000;
/// The broker's time is taken anew at least this often (rule T6).
const BROKER_TIME_INTERVAL_MS: i64 = 55_000;
/// Rows of a rewrite of the view that go with one commit, and the backlog at
/// which no more are added.
const REWRITE_PER_COMMIT: usize = 2_000;
const VIEW_BACKLOG_HIGH: usize = 10_000;
/// How long a shard may wait for the rest of its inputs (rule R6).
const CREATED_LIMIT_MS: i64 = 60_000;
/// How long partitions the group wants back are kept for a last commit.
const RELEASE_LIMIT_MS: i64 = 30_000;

/// What the loop is told of the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The numbers that statuses depend on.
    pub rules: Rules,
    /// The formats of the inputs, in the order of [`Input::ALL`].
    pub formats: [Format; 3],
    /// How many partitions each input has.
    pub partitions: i32,
    /// Whether a record on another partition than its key's is refused (rule R8).
    pub check_partitioner: bool,
    /// The least time between two commits, in milliseconds.
    pub commit_interval_ms: i64,
    /// Whether revoked shards are kept in case they come back (rule R7).
    pub suspend: bool,
    /// What dead letters are made of.
    pub dead_letters: DeadLetterSettings,
}

/// What dead letters are made of, besides the record.
#[derive(Clone, Debug)]
pub struct DeadLetterSettings {
    /// The names of the inputs, in the order of [`Input::ALL`].
    pub topics: [String; 3],
    /// The largest record that the broker takes, in bytes (rule C8).
    pub max_bytes: usize,
}

/// One stream thread: its shards and the loop that drives them.
pub struct StreamThread<L, V, C> {
    settings: Settings,
    rules_fingerprint: u64,
    log: L,
    view: V,
    clock: C,
    slots: BTreeMap<i32, Slot>,
    /// Revoked shards that may come back (rule R7).
    suspended: BTreeMap<i32, Suspended>,
    adoptions: Vec<Adoption>,
    release: Option<Release>,
    in_flight: Option<InFlight>,
    broker_time: BrokerTime,
    last_commit_ms: i64,
    last_progress_ms: i64,
    /// The question about the ends of the partitions that is under way, and
    /// the broker's time when it was put.
    ends: Option<(QuestionId, Option<Timestamp>)>,
    ends_asked_ms: i64,
    counts: Counts,
    events: Vec<LogEvent>,
    view_events: Vec<ViewEvent>,
    /// There was work left at the end of the last turn.
    busy: bool,
    stopping: bool,
    stopped: bool,
}

impl<L: Log, V: View, C: Clock> StreamThread<L, V, C> {
    /// A thread that holds nothing yet.
    pub fn new(settings: Settings, log: L, view: V, clock: C) -> StreamThread<L, V, C> {
        let now_ms = clock.monotonic_ms();
        StreamThread {
            rules_fingerprint: settings.rules.fingerprint(),
            settings,
            log,
            view,
            clock,
            slots: BTreeMap::new(),
            suspended: BTreeMap::new(),
            adoptions: Vec::new(),
            release: None,
            in_flight: None,
            broker_time: BrokerTime::default(),
            last_commit_ms: now_ms,
            last_progress_ms: now_ms,
            ends: None,
            ends_asked_ms: now_ms - ENDS_INTERVAL_MS,
            counts: Counts::default(),
            events: Vec::new(),
            view_events: Vec::new(),
            busy: false,
            stopping: false,
            stopped: false,
        }
    }

    /// One turn of the loop.
    ///
    /// # Errors
    /// When the process must stop.
    pub fn step(&mut self) -> Result<(), Fatal> {
        self.poll()?;
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            self.on_event(event)?;
        }
        self.events = events;
        self.poll_view();
        self.adopt();
        self.restore();
        self.turn();
        self.ask_ends();
        self.balance_read_ahead();
        self.commit();
        self.finish_release();
        self.complain();
        Ok(())
    }

    /// Begins to stop: a last commit, then the group is left.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Whether the stop is complete.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// The view, for whoever must close it at the end.
    pub fn into_view(self) -> V {
        self.view
    }

    /// What happened since the last report.
    pub fn report(&mut self) -> Report {
        let now_ms = self.clock.monotonic_ms();
        Report {
            counts: std::mem::take(&mut self.counts),
            shards: self.slots.values().map(Slot::report).collect(),
            broker_time: self.broker_time.now(now_ms),
            commit_pending_ms: self.in_flight.as_ref().map(|flight| now_ms - flight.submitted_ms),
        }
    }

    fn now(&self) -> Now {
        let monotonic_ms = self.clock.monotonic_ms();
        Now { monotonic_ms, broker: self.broker_time.now(monotonic_ms) }
    }

    /// Broker time where it is known, else the host's idea of it.
    fn wall(&self) -> Timestamp {
        self.now().broker.unwrap_or_else(|| self.clock.wall())
    }

    fn poll(&mut self) -> Result<(), Fatal> {
        let waiting = self.in_flight.is_some()
            || !self.adoptions.is_empty()
            || self.slots.values().any(|slot| !slot.is_running() || slot.shard.has_output());
        let timeout = match (self.busy, waiting) {
            (true, _) => Duration::ZERO,
            (false, true) => Duration::from_millis(1),
            (false, false) => Duration::from_millis(10),
        };
        let now = self.now();
        let Self { log, slots, settings, counts, events, .. } = self;
        let mut failed: Vec<(i32, Error)> = Vec::new();
        let mut received = 0;
        let mut on_record = |delivery: Delivery, record: RecordRef<'_>| {
            received += 1;
            let Some(slot) = slots.get_mut(&record.partition) else { return };
            match delivery {
                Delivery::Group(input) => offer(slot, input, &record, settings, now),
                Delivery::Restore(source) => {
                    counts.restored[usize::from(source != Source::Changelog)] += 1;
                    let format = settings.formats[Input::Heartbeats.index()];
                    if let Err(error) = restore::record(slot, delivery, &record, format) {
                        failed.push((record.partition, error));
                    }
                }
            }
        };
        let polled = log.poll(timeout, RECORDS_PER_POLL, &mut on_record, events);
        self.busy = received > 0;
        for (partition, error) in failed {
            self.fail_shard(partition, &error);
        }
        match polled {
            Ok(()) => Ok(()),
            Err(Error::Fatal(fatal)) => Err(fatal),
            Err(error) => {
                warn!(%error, "reading from Kafka; it is tried again");
                self.counts.kafka_error = Some(error.to_string());
                Ok(())
            }
        }
    }

    /// A shard whose past cannot be read stops; the others go on.
    fn fail_shard(&mut self, partition: i32, error: &Error) {
        let Some(slot) = self.slots.get_mut(&partition) else { return };
        let Stage::Restoring(restore) = &slot.stage else { return };
        error!(
            partition,
            %error,
            "the shard cannot be restored and stays stopped; its devices are not judged. \
             Mend or remove the record, then restart"
        );
        if let Some(source) = restore.reading() {
            let _ = self.log.stop_restore(source, partition);
        }
        slot.stage = Stage::Failed;
    }

    fn on_event(&mut self, event: LogEvent) -> Result<(), Fatal> {
        let now_ms = self.clock.monotonic_ms();
        match event {
            LogEvent::Assigned(partitions) => self.on_assigned(partitions),
            LogEvent::Revoked(partitions) => self.on_revoked(partitions),
            LogEvent::Lost(partitions) => self.on_lost(&partitions),
            LogEvent::EndOfPartition { input, partition, offset } => {
                if let Some(slot) = self.slots.get_mut(&partition)
                    && slot.is_running()
                {
                    slot.shard.end_of_partition(input, offset);
                }
            }
            LogEvent::RestoreEnd { source, partition, offset } => {
                if let Some(slot) = self.slots.get_mut(&partition) {
                    let reached = restore::reached(slot, Delivery::Restore(source), offset);
                    if let Err(error) = reached {
                        self.fail_shard(partition, &error);
                    }
                }
            }
            LogEvent::Offsets(id, answer) => {
                if let Some((question, asked_at)) = self.ends
                    && question == id
                {
                    self.ends = None;
                    self.learn_ends(asked_at, answer);
                    return Ok(());
                }
                self.restore_answered(id, &answer);
                let mut answer = Some(answer);
                for adoption in &mut self.adoptions {
                    adoption.log_starts(id, &mut answer, now_ms);
                }
            }
            LogEvent::Committed(id, answer) => {
                if let Some(flight) = &mut self.in_flight
                    && matches!(flight.state, InFlightState::Resolving(question) if question == id)
                {
                    match answer {
                        Ok(committed) => self.resolve(&committed),
                        Err(message) => {
                            debug!(%message, "the fate of a batch is not known yet");
                            flight.state = InFlightState::Unresolved { ask_ms: now_ms + 200 };
                        }
                    }
                    return Ok(());
                }
                let mut answer = Some(answer);
                for adoption in &mut self.adoptions {
                    adoption.committed(id, &mut answer, now_ms);
                }
            }
            LogEvent::Submitted(outcome) => return self.on_outcome(outcome),
        }
        Ok(())
    }

    fn poll_view(&mut self) {
        let mut events = std::mem::take(&mut self.view_events);
        self.view.poll(&mut events);
        for event in events.drain(..) {
            match event {
                ViewEvent::Marker(partition, marker) => {
                    if let Some(slot) = self.slots.get_mut(&partition)
                        && matches!(slot.marker, MarkerAnswer::Awaited { .. })
                    {
                        slot.marker = MarkerAnswer::Known(marker);
                    }
                }
                ViewEvent::Acknowledged { partition, sequence } => {
                    if let Some(slot) = self.slots.get_mut(&partition) {
                        slot.shard.view_acknowledged(sequence);
                    }
                }
                ViewEvent::RewriteNeeded(partition) => {
                    if let Some(slot) = self.slots.get_mut(&partition)
                        && slot.is_running()
                    {
                        warn!(partition, "the view was lost or set back; writing it again");
                        self.counts.view_rewrites += 1;
                        slot.shard.rewrite_view();
                    }
                }
                ViewEvent::Superseded(partition) => {
                    warn!(partition, "a later owner writes the view; our writes to it end");
                }
            }
        }
        self.view_events = events;
    }

    fn restore_answered(
        &mut self,
        id: QuestionId,
        answer: &Result<Vec<ports::FoundOffset>, String>,
    ) {
        self.with_restores(|slot, context| restore::answered(slot, id, answer, context));
    }

    /// Moves restores on; what has become complete begins to run.
    fn restore(&mut self) {
        let mut running = Vec::new();
        self.with_restores(|slot, context| {
            restore::finish_step(slot, context)?;
            if restore::advance(slot, context)? {
                running.push(slot.partition);
            }
            Ok(())
        });
        for partition in running {
            self.run_shard(partition);
        }
    }

    fn with_restores(
        &mut self,
        mut each: impl FnMut(&mut Slot, &mut restore::RestoreContext<'_>) -> Result<(), Error>,
    ) {
        let mut failed = Vec::new();
        let mut context = restore::RestoreContext {
            now_ms: self.clock.monotonic_ms(),
            wall: self.clock.wall(),
            broker: self.broker_time.now(self.clock.monotonic_ms()),
            rules_fingerprint: self.rules_fingerprint,
            replay_window_ms: self.settings.rules.replay_window_ms,
            log: &mut self.log,
        };
        for slot in self.slots.values_mut() {
            if !matches!(slot.stage, Stage::Restoring(_)) {
                continue;
            }
            if let Err(error) = each(slot, &mut context) {
                failed.push((slot.partition, error));
            }
        }
        for (partition, error) in failed {
            self.fail_shard(partition, &error);
        }
    }

    fn run_shard(&mut self, partition: i32) {
        if let Err(error) = self.log.resume(&all_inputs(partition)) {
            warn!(partition, %error, "the shard cannot be read from yet");
        }
    }

    fn turn(&mut self) {
        let now = self.now();
        let waiting: usize = self.slots.values().map(|slot| slot.shard.output_len()).sum();
        if waiting > OUTPUT_HIGH {
            return;
        }
        let Self { slots, counts, busy, release, .. } = self;
        for slot in slots.values_mut() {
            let leaving = release.as_ref().is_some_and(|release| release.holds(slot.partition));
            if !slot.is_running() || leaving {
                continue;
            }
            let turn = slot.shard.turn(now, WORK_PER_TURN);
            for input in Input::ALL {
                counts.applied[input.index()] += u64::from(turn.applied[input.index()]);
                counts.stale[input.index()] += u64::from(turn.stale[input.index()]);
            }
            counts.expired += u64::from(turn.expired);
            counts.sessions_forgotten += u64::from(turn.sessions_fallen_out);
            *busy |= turn.more;
        }
    }

    /// Asks how far the partitions go, once a second for all of them (rule T1).
    fn ask_ends(&mut self) {
        let now = self.now();
        if self.ends.is_some() || now.monotonic_ms - self.ends_asked_ms < ENDS_INTERVAL_MS {
            return;
        }
        let mut of = Vec::new();
        for slot in self.slots.values().filter(|slot| slot.is_running()) {
            for input in Input::ALL {
                let source = Source::Input(input);
                of.push((source, slot.partition, OffsetAt::HighWatermark));
                of.push((source, slot.partition, OffsetAt::LastStable));
            }
        }
        if of.is_empty() {
            return;
        }
        self.ends_asked_ms = now.monotonic_ms;
        self.ends = Some((self.log.ask_offsets(&of), now.broker));
    }

    fn learn_ends(
        &mut self,
        asked_at: Option<Timestamp>,
        answer: Result<Vec<ports::FoundOffset>, String>,
    ) {
        let found = match answer {
            Ok(found) => found,
            Err(message) => {
                // No evidence: the clocks stand still until there is some.
                warn!(%message, "the ends of the inputs are not known; nobody is expired meanwhile");
                self.counts.kafka_error = Some(message);
                return;
            }
        };
        for slot in self.slots.values_mut().filter(|slot| slot.is_running()) {
            for input in Input::ALL {
                let find = |wanted| {
                    found
                        .iter()
                        .find(|(source, partition, at, _)| {
                            *source == Source::Input(input)
                                && *partition == slot.partition
                                && *at == wanted
                        })
                        .map(|(.., offset)| *offset)
                };
                if let (Some(high), Some(stable)) =
                    (find(OffsetAt::HighWatermark), find(OffsetAt::LastStable))
                {
                    slot.high_watermarks[input.index()] = Some(high);
                    slot.shard.learn_end(input, asked_at, high, stable);
                }
            }
        }
    }

    /// Pauses inputs that run too far ahead of the others (rule T4).
    fn balance_read_ahead(&mut self) {
        let (mut pause, mut resume) = (Vec::new(), Vec::new());
        for slot in self.slots.values_mut().filter(|slot| slot.is_running()) {
            for input in Input::ALL {
                let buffered = slot.shard.buffered(input);
                let paused = &mut slot.paused[input.index()];
                if !*paused && buffered > READ_AHEAD_HIGH {
                    *paused = true;
                    pause.push((input, slot.partition));
                    slot.shard.forget_evidence(input);
                } else if *paused && buffered < READ_AHEAD_LOW {
                    *paused = false;
                    resume.push((input, slot.partition));
                }
            }
        }
        for (partitions, result) in
            [(&pause, self.log_pause(&pause)), (&resume, self.log_resume(&resume))]
        {
            if let Err(error) = result {
                warn!(?partitions, %error, "pausing or resuming; it is tried again");
            }
        }
    }

    fn log_pause(&mut self, partitions: &[(Input, i32)]) -> Result<(), Error> {
        if partitions.is_empty() { Ok(()) } else { self.log.pause(partitions) }
    }

    fn log_resume(&mut self, partitions: &[(Input, i32)]) -> Result<(), Error> {
        if partitions.is_empty() { Ok(()) } else { self.log.resume(partitions) }
    }

    /// Commits what is due, or goes on with what is under way (rules C3, C6).
    fn commit(&mut self) {
        let now_ms = self.clock.monotonic_ms();
        if self.in_flight.is_some() {
            self.retry(now_ms);
            return;
        }
        let leaving = self.stopping || self.release.is_some();
        let since_commit = now_ms - self.last_commit_ms;
        if since_commit < self.settings.commit_interval_ms && !leaving {
            return;
        }
        let progress_due = leaving || now_ms - self.last_progress_ms >= PROGRESS_INTERVAL_MS;
        if self.broker_time.age_ms(now_ms) >= BROKER_TIME_INTERVAL_MS
            && progress_due
            && let Some(slot) = self.slots.values_mut().find(|slot| slot.is_running())
        {
            slot.shard.write_epoch();
        }
        let rewrite = if self.view.backlog() < VIEW_BACKLOG_HIGH { REWRITE_PER_COMMIT } else { 0 };
        let mut batch = Batch::default();
        let mut parts = BTreeMap::new();
        for slot in self.slots.values_mut().filter(|slot| slot.is_running()) {
            let output = slot.shard.has_output() || (rewrite > 0 && slot.shard.rewriting_view());
            let moved =
                slot.committed.as_ref().is_none_or(|(offsets, _)| *offsets != slot.positions());
            // The clock of an idle shard moves too, and is worth keeping: a
            // restart then judges from where it had come.
            if output || progress_due && (moved || !leaving) {
                let outbox = slot.shard.take_outbox(rewrite);
                let (shard, part) =
                    commit::pack(slot, outbox, self.rules_fingerprint, &self.settings.dead_letters);
                parts.insert(slot.partition, part);
                batch.shards.push(shard);
            }
        }
        if progress_due {
            self.last_progress_ms = now_ms;
        }
        if batch.shards.is_empty() {
            return;
        }
        let batch = Arc::new(batch);
        self.log.submit(batch.clone());
        self.last_commit_ms = now_ms;
        self.in_flight = Some(InFlight {
            batch,
            parts,
            submitted_ms: now_ms,
            attempts: 0,
            state: InFlightState::Submitted,
        });
    }

    /// Sends a refused batch again, for the shards that are still held.
    fn retry(&mut self, now_ms: i64) {
        let Some(flight) = &mut self.in_flight else { return };
        match flight.state {
            InFlightState::Submitted | InFlightState::Resolving(_) => {}
            InFlightState::Unresolved { ask_ms } if now_ms < ask_ms => {}
            InFlightState::Unresolved { .. } => {
                let of: Vec<_> = flight.parts.keys().flat_map(|p| all_inputs(*p)).collect();
                flight.state = InFlightState::Resolving(self.log.ask_committed(&of));
            }
            InFlightState::Waiting { until_ms } if now_ms < until_ms => {}
            InFlightState::Waiting { .. } => {
                let slots = &self.slots;
                flight.parts.retain(|partition, part| {
                    slots.get(partition).is_some_and(|slot| slot.epoch == part.epoch)
                });
                if flight.parts.len() < flight.batch.shards.len() {
                    let held =
                        |shard: &&ports::ShardBatch| flight.parts.contains_key(&shard.partition);
                    let shards = flight.batch.shards.iter().filter(held).cloned().collect();
                    flight.batch = Arc::new(Batch { shards });
                }
                if flight.batch.shards.is_empty() {
                    self.in_flight = None;
                    return;
                }
                flight.state = InFlightState::Submitted;
                self.log.submit(flight.batch.clone());
            }
        }
    }

    fn on_outcome(&mut self, outcome: Outcome) -> Result<(), Fatal> {
        let now_ms = self.clock.monotonic_ms();
        match outcome {
            Outcome::Committed(receipt) => self.on_committed(&receipt),
            Outcome::Refused { stale_member, message } => {
                self.counts.commits_refused += 1;
                let leaving = self.release.is_some();
                warn!(%message, stale_member, "a transaction was refused; it is sent again");
                if let Some(flight) = &mut self.in_flight {
                    flight.attempts += 1;
                    let until_ms = now_ms + commit::backoff_ms(flight.attempts);
                    flight.state = InFlightState::Waiting { until_ms };
                }
                if stale_member && leaving {
                    // The group no longer waits for what we still had to say.
                    self.abandon_release();
                }
            }
            Outcome::Unknown { message } => {
                self.counts.commits_unknown += 1;
                warn!(%message, "the fate of a transaction is unknown; asking for the offsets");
                if let Some(flight) = &mut self.in_flight {
                    flight.attempts += 1;
                    flight.state = InFlightState::Unresolved { ask_ms: now_ms };
                }
            }
            Outcome::Fatal(fatal) => return Err(fatal),
        }
        Ok(())
    }

    fn on_committed(&mut self, receipt: &Receipt) {
        let now_ms = self.clock.monotonic_ms();
        if let Some((stamp, received_ms)) = receipt.broker_time {
            self.broker_time.report(stamp, received_ms);
        }
        let Some(mut flight) = self.in_flight.take() else { return };
        self.counts.transaction_seconds.push(receipt.duration.as_secs_f64());
        self.last_progress_ms = now_ms;
        let now = self.wall();
        for shard in &flight.batch.shards {
            let Some(part) = flight.parts.remove(&shard.partition) else { continue };
            self.counts.add(&part.counts);
            let Some(slot) = self.slots.get_mut(&shard.partition) else { continue };
            if slot.epoch != part.epoch {
                continue;
            }
            slot.committed = Some((shard.offsets, shard.metadata.clone()));
            if let Some(end) = commit::changelog_end(receipt, shard.partition) {
                slot.changelog_end = slot.changelog_end.max(end);
            }
            if !slot.view_taken {
                // Not before the epoch is in the changelog (rule C7): it may be
                // that of a host whose clock is ahead, and no later owner would
                // know to exceed it.
                slot.view_taken = true;
                let applied = match slot.marker {
                    MarkerAnswer::Known(Some(marker)) => marker.applied,
                    _ => 0,
                };
                self.view.take(shard.partition, slot.epoch, applied);
            }
            // A rewrite may have become due since the batch was made.
            let rewriting = part.rewriting || slot.shard.rewriting_view();
            let applied = (!rewriting).then_some(slot.changelog_end);
            if !part.view.is_empty() || applied.is_some() {
                self.view.write(shard.partition, part.view, applied, now);
            }
        }
    }

    /// Tells from the committed offsets what became of the batch (rule C6).
    fn resolve(&mut self, committed: &[ports::FoundCommit]) {
        let Some(flight) = &mut self.in_flight else { return };
        let mut happened = false;
        for (partition, part) in &flight.parts {
            match commit::verdict(*partition, part, committed) {
                Verdict::Happened => happened = true,
                Verdict::DidNot => {}
                Verdict::Superseded => {
                    // It may be ours again, in a life that the batch is not of.
                    if let Some(slot) = self.slots.get_mut(partition)
                        && slot.epoch == part.epoch
                    {
                        warn!(partition, "another owner has committed since; dropping the shard");
                        slot.stage = Stage::Failed;
                        slot.epoch = 0;
                        self.view.release(*partition);
                    }
                }
            }
        }
        info!(happened, "the fate of the transaction is known");
        if happened {
            // A transaction happens as a whole.
            self.on_committed(&Receipt::default());
        } else {
            flight.state = InFlightState::Waiting { until_ms: self.clock.monotonic_ms() };
        }
    }

    /// Says what waits for too long (rule R6).
    fn complain(&mut self) {
        let now_ms = self.clock.monotonic_ms();
        for slot in self.slots.values_mut() {
            let waits = matches!(slot.stage, Stage::Created);
            if waits && !slot.complained && now_ms - slot.created_ms > CREATED_LIMIT_MS {
                slot.complained = true;
                let missing: Vec<_> = Input::ALL
                    .into_iter()
                    .filter(|input| slot.inputs[input.index()].is_none())
                    .map(Input::name)
                    .collect();
                error!(
                    partition = slot.partition,
                    ?missing,
                    "a shard waits for inputs that are not assigned to this thread; \
                     are all members of the group on the same topics and assignor?"
                );
            }
        }
    }
}

fn all_inputs(partition: i32) -> [(Input, i32); 3] {
    Input::ALL.map(|input| (input, partition))
}

/// Decodes a record and puts it in line.
fn offer(slot: &mut Slot, input: Input, record: &RecordRef<'_>, settings: &Settings, now: Now) {
    let expected = &mut slot.expected[input.index()];
    if !matches!(slot.stage, Stage::Running) || record.offset < *expected {
        return;
    }
    *expected = record.offset + 1;
    let content = match check(input, record, settings) {
        Ok(event) => Content::Event(event),
        Err(refusal) => Content::Bad(Box::new(DeadLetter {
            input,
            partition: record.partition,
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key.map(Into::into),
            value: record.value.map(Into::into),
            headers: record.headers.to_vec(),
            reason: refusal.reason,
            detail: refusal.detail.into(),
        })),
    };
    let queued = Queued {
        offset: record.offset,
        timestamp: record.timestamp,
        stamped_by_broker: record.stamped_by_broker,
        content,
    };
    slot.shard.offer(input, queued, now);
}

fn check(
    input: Input,
    record: &RecordRef<'_>,
    settings: &Settings,
) -> Result<crate::shard::Event, Refusal> {
    let format = settings.formats[input.index()];
    let event = decode(input, format, record.key, record.value)?;
    if settings.check_partitioner
        && !matches!(event.body, EventBody::Scope(_))
        && let Some(key) = record.key
    {
        let belongs = partition_of(key, settings.partitions);
        if belongs != record.partition {
            return Err(Refusal {
                reason: DeadLetterReason::WrongPartition,
                detail: format!(
                    "the key belongs on partition {belongs} (murmur2 of {} partitions)",
                    settings.partitions
                ),
            });
        }
    }
    Ok(event)
}
