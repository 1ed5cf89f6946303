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
mod gaps;
pub mod ports;
mod reading;
mod rebalance;
pub mod replay;
pub mod report;
mod restore;
mod slot;
mod sweep;

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::time::Duration;

use tracing::{debug, error, warn};

use self::adoption::Adoption;
use self::broker_time::BrokerTime;
use self::commit::{InFlight, InFlightState};
use self::ports::{Delivery, Log, LogEvent, QuestionId, RecordRef, Source, View, ViewEvent};
use self::rebalance::Release;
use self::report::{Counts, Report, Span};
use self::slot::{MarkerAnswer, Slot, Stage, Suspended};
use self::sweep::Sweep;
use crate::clock::Clock;
use crate::error::{Error, Fatal};
use crate::shard::{Input, Now, Rules, Shard, Timestamp};
use crate::wire::decode::Format;
use crate::wire::murmur2::partition_of;

/// Records taken from the log in one turn of the loop, at most.
const RECORDS_PER_POLL: usize = 2_000;
/// Units of work of one shard in one turn of the loop.
pub const WORK_PER_TURN: usize = 20_000;
/// About how much output of all shards may wait for a commit, in bytes, before
/// nothing more is applied (rule C10). Of a broker that takes 0.5 MB a second a
/// transaction of this size is through before its ten seconds are over (rule
/// C4); and five thousand new devices fit in one.
pub const OUTPUT_MAX_BYTES: usize = 4 << 20;
/// About how much memory the records take that wait in all shards, in bytes,
/// before less is read ahead (rule T4).
pub const READ_AHEAD_MAX_BYTES: usize = 32 << 20;
/// How long a shard may wait for the rest of its inputs (rule R6).
const CREATED_LIMIT_MS: i64 = 60_000;
/// How long partitions the group wants back are kept for a last commit.
const RELEASE_LIMIT_MS: i64 = 30_000;
/// The same from the beginning of a stop, also for what was asked back before
/// it: with the time it takes to leave the group and to tell
/// Redis the rest, less than the 30 s that Kubernetes gives by default.
const STOP_LIMIT_MS: i64 = 15_000;

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
    /// Units of work of one shard in one turn of the loop, [`WORK_PER_TURN`] but
    /// where a simulation wants it small.
    pub work_per_turn: usize,
    /// About how much a transaction holds at most, in bytes (rule C10),
    /// [`OUTPUT_MAX_BYTES`] but where a simulation wants it small.
    pub output_max_bytes: usize,
    /// About how much memory the records take that wait in all shards, in bytes,
    /// before less is read ahead (rule T4), [`READ_AHEAD_MAX_BYTES`] but where a
    /// simulation wants it small.
    pub read_ahead_max_bytes: usize,
    /// How long a pass of the sweep takes (rule V6), in milliseconds; 0: none.
    pub refresh_interval_ms: i64,
    /// Whether revoked shards are kept in case they come back (rule R7).
    pub suspend: bool,
    /// What dead letters are made of.
    pub dead_letters: DeadLetterSettings,
    /// The source of the changes as CloudEvents; absent: they are none.
    pub cloud_events_source: Option<String>,
}

impl Settings {
    /// The partition on which a key belongs, where that is checked and is not
    /// this one (rules R6, R8).
    fn belongs_elsewhere(&self, key: &[u8], partition: i32) -> Option<i32> {
        let elsewhere = |belongs: &i32| *belongs != partition;
        self.check_partitioner.then(|| partition_of(key, self.partitions)).filter(elsewhere)
    }
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
    /// The greatest epoch given to a shard here: a shard that was lost before
    /// its epoch was committed, and is back, is given another (rule C7). By it
    /// its batches are told from those of its former life.
    last_epoch: Option<u64>,
    applied: Span,
    restored: Span,
    sweep: Sweep,
    broker_time: BrokerTime,
    last_commit_ms: i64,
    /// The question about the ends of the partitions that is under way, and
    /// the broker's time when it was put.
    ends: Option<(QuestionId, Option<Timestamp>)>,
    ends_asked_ms: i64,
    counts: Counts,
    events: Vec<LogEvent>,
    view_events: Vec<ViewEvent>,
    /// There was work left at the end of the last turn.
    busy: bool,
    /// The partition whose turn it was when nothing more was to be applied: it
    /// is the first of the next turn.
    turn_from: i32,
    stopping_since_ms: Option<i64>,
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
            last_epoch: None,
            applied: Span::default(),
            restored: Span::default(),
            sweep: Sweep::default(),
            broker_time: BrokerTime::default(),
            last_commit_ms: now_ms,
            ends: None,
            ends_asked_ms: i64::MIN / 2,
            counts: Counts::default(),
            events: Vec::new(),
            view_events: Vec::new(),
            busy: false,
            turn_from: 0,
            stopping_since_ms: None,
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
        self.judge_gaps();
        self.poll_view();
        self.adopt();
        self.restore();
        self.begin_reading();
        self.turn();
        self.tell_silence();
        self.ask_ends();
        self.balance_read_ahead();
        self.sweep();
        self.commit();
        self.finish_release();
        self.complain();
        Ok(())
    }

    /// Begins to stop: a last commit, then the group is left.
    pub fn stop(&mut self) {
        self.stopping_since_ms.get_or_insert(self.clock.monotonic_ms());
    }

    fn stopping(&self) -> bool {
        self.stopping_since_ms.is_some()
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
        let adopted = self.adoptions.iter().flat_map(|adoption| &adoption.partitions);
        let mut adopting: Vec<i32> = adopted
            .map(|(_, partition)| *partition)
            .filter(|partition| !self.slots.contains_key(partition))
            .collect();
        adopting.sort_unstable();
        adopting.dedup();
        Report {
            counts: std::mem::take(&mut self.counts),
            adopting: adopting.len(),
            shards: self.slots.values().map(Slot::report).collect(),
            broker_time: self.broker_time.now(now_ms),
            commit_pending_ms: self.in_flight.as_ref().map(|flight| now_ms - flight.submitted_ms),
            applied: self.applied,
            restored: self.restored,
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
        let mut restored = false;
        let (mut latest, mut latest_of_senders) = (None, None);
        let mut on_record = |delivery: Delivery, record: RecordRef<'_>| {
            received += 1;
            let Some(slot) = slots.get_mut(&record.partition) else { return };
            match delivery {
                Delivery::Group(input) => {
                    let by_broker = record.stamped_by_broker;
                    let latest = if by_broker { &mut latest } else { &mut latest_of_senders };
                    *latest = (*latest).max(Some(record.timestamp));
                    reading::offer(slot, input, &record, settings);
                }
                Delivery::Restore(source) => {
                    counts.restored[usize::from(source != Source::Changelog)] += 1;
                    restored = true;
                    if let Err(error) = restore::record(slot, delivery, &record, settings) {
                        failed.push((record.partition, error));
                    }
                }
            }
        };
        let polled = log.poll(timeout, RECORDS_PER_POLL, &mut on_record, events);
        self.busy = received > 0;
        if restored {
            self.restored.extend(now.monotonic_ms, self.clock.monotonic_ms());
        }
        if let Some(latest) = latest {
            self.broker_time.doubt(latest, now.monotonic_ms);
        }
        if let Some(latest) = latest_of_senders {
            self.broker_time.doubt_by_sender(latest, now.monotonic_ms);
        }
        for (partition, error) in failed {
            if let Error::Fatal(fatal) = error {
                return Err(fatal);
            }
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
                    slot.passed_to(input, offset);
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
                    return self.learn_ends(asked_at, answer);
                }
                if let Err(error) = &answer {
                    self.counts.kafka_error = Some(error.clone());
                }
                self.restore_answered(id, &answer);
                let mut answer = Some(answer);
                for adoption in &mut self.adoptions {
                    adoption.log_bounds(id, &mut answer, now_ms);
                }
            }
            LogEvent::NoAnswer { partition, error } => {
                warn!(
                    partition,
                    %error,
                    "nobody says where a partition begins and ends: its shard waits, or its clock \
                     stands, and the others go on. Look at the brokers that lead it"
                );
                self.counts.kafka_error = Some(error);
            }
            LogEvent::Committed(id, answer) => {
                if let Some(flight) = &mut self.in_flight
                    && matches!(flight.state, InFlightState::Resolving(question) if question == id)
                {
                    match answer {
                        Ok(committed) => self.resolve(&committed),
                        Err(message) => {
                            debug!(error = %message, "the fate of a batch is not known yet");
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
                    if let Some(shard) = self.shown(partition) {
                        shard.view_acknowledged(sequence);
                    }
                }
                ViewEvent::RewriteNeeded(partition) => {
                    if let Some(shard) = self.shown(partition) {
                        warn!(partition, "the view was lost or set back; writing it again");
                        shard.rewrite_view();
                        self.counts.view_rewrites += 1;
                    }
                }
                ViewEvent::Superseded(partition) => {
                    warn!(partition, "a later owner writes the view; our writes to it end");
                }
                ViewEvent::Found(partition, keys) => self.sweep.found(partition, keys),
            }
        }
        self.view_events = events;
    }

    /// The shard that the view was taken for: it runs and has committed (rule
    /// C7), or is suspended (rule R7). The view tells others nothing: what it has
    /// left of an earlier life bears that life's numbers.
    fn shown(&mut self, partition: i32) -> Option<&mut Shard> {
        let slot = self.slots.get_mut(&partition);
        match slot.filter(|slot| slot.is_running() && slot.committed.is_some()) {
            Some(slot) => Some(&mut slot.shard),
            None => self.suspended.get_mut(&partition).map(|kept| &mut kept.shard),
        }
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
            rules_fingerprint: self.rules_fingerprint,
            rules: &self.settings.rules,
            last_epoch: self.last_epoch,
            log: &mut self.log,
        };
        for slot in self.slots.values_mut() {
            if !matches!(slot.stage, Stage::Restoring(_)) {
                continue;
            }
            match each(slot, &mut context) {
                Ok(()) => {}
                Err(error @ Error::Retriable(_)) => {
                    warn!(partition = slot.partition, %error, "the restore begins anew");
                    restore::begin_anew(slot, &mut context);
                }
                Err(error) => failed.push((slot.partition, error)),
            }
        }
        for (partition, error) in failed {
            self.fail_shard(partition, &error);
        }
    }

    fn run_shard(&mut self, partition: i32) {
        let slot = self.slots.get(&partition);
        self.last_epoch = self.last_epoch.max(slot.map(|slot| slot.epoch));
        // What was committed was no later than the broker's time: ours is of
        // before the machine slept (rule T6).
        let restored = slot.map(|slot| slot.shard.clock());
        if self.now().broker.is_some_and(|broker| Some(broker) < restored) {
            self.broker_time.forget();
        }
        self.ask_ends_at_once();
    }

    fn turn(&mut self) {
        let now = self.now();
        let mut waiting = self.output_bytes();
        let from = self.turn_from;
        let Self { slots, counts, busy, release, settings, turn_from, .. } = self;
        // Each shard in its turn, so that none fills every transaction alone.
        let (first, rest) = ((Included(from), Unbounded), (Unbounded, Excluded(from)));
        let partitions = slots.range(first).chain(slots.range(rest)).map(|(p, _)| *p);
        let partitions: Vec<i32> = partitions.collect();
        let mut applied = false;
        for partition in partitions {
            let Some(slot) = slots.get_mut(&partition) else { continue };
            let leaving = release.as_ref().is_some_and(|release| release.holds(slot.partition));
            if !slot.is_running() || leaving {
                continue;
            }
            if waiting >= settings.output_max_bytes {
                *turn_from = partition;
                return;
            }
            let held = slot.shard.output_bytes();
            let most = held + settings.output_max_bytes - waiting;
            let turn = slot.shard.turn_until_full(now, settings.work_per_turn, most);
            waiting += slot.shard.output_bytes() - held;
            for input in Input::ALL {
                counts.applied[input.index()] += u64::from(turn.applied[input.index()]);
                counts.stale[input.index()] += u64::from(turn.stale[input.index()]);
                applied |= turn.applied[input.index()] > 0;
            }
            counts.expired += u64::from(turn.expired);
            counts.sessions_forgotten += u64::from(turn.sessions_fallen_out);
            counts.open_sessions_forgotten += u64::from(turn.open_sessions_fallen_out);
            if let Some(device) = turn.most_sessions {
                warn!(
                    partition,
                    %device,
                    "a device has more open VPN sessions than are kept, and some are forgotten. \
                     Look whether the VPN servers send a close for each session, and announce \
                     themselves when they start"
                );
            }
            *busy |= turn.more;
        }
        if applied {
            self.applied.extend(now.monotonic_ms, self.clock.monotonic_ms());
        }
    }

    /// About how much of a transaction waits for the next one, in bytes.
    fn output_bytes(&self) -> usize {
        self.slots.values().map(|slot| slot.shard.output_bytes()).sum()
    }

    /// Says what waits for too long (rule R6).
    fn complain(&mut self) {
        let now_ms = self.clock.monotonic_ms();
        let adoptions = &self.adoptions;
        // Its leader does not say where it begins, and the log tells that.
        let is_assigned = |at| adoptions.iter().any(|adoption| adoption.partitions.contains(&at));
        for slot in self.slots.values_mut() {
            let waits = matches!(slot.stage, Stage::Created);
            if waits && !slot.complained && now_ms - slot.created_ms > CREATED_LIMIT_MS {
                let missing: Vec<_> = Input::ALL
                    .into_iter()
                    .filter(|input| slot.inputs[input.index()].is_none())
                    .filter(|input| !is_assigned((*input, slot.partition)))
                    .map(Input::name)
                    .collect();
                slot.complained = !missing.is_empty();
                if missing.is_empty() {
                    continue;
                }
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
