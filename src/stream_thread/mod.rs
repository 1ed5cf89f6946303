//! The loop of one stream thread: poll, apply, expire, commit.
//!
//! It owns the shards assigned to it and knows Kafka, Redis and time only as
//! [`ports`]. One [`StreamThread::step`] is one turn of the loop; the caller
//! repeats it.
//!
//! Architecture invariant: rebalances and answers arrive as values and are
//! acted on here, never inside a callback (rule C5).
//!
//! ```text
//! Assigned → start offsets → restore → running ─┐
//!                                               ├→ commit → released
//! Revoked ──────────────────────────────────────┘
//! Lost ─────────────────────────────────────────────────────→ dropped
//! ```

mod broker_time;
mod clocks;
mod commit;
mod gaps;
mod in_flight;
mod letter_share;
mod open_transaction;
mod pass;
pub mod past;
pub mod ports;
mod reading;
mod rebalance;
pub mod replay;
pub mod report;
mod restore;
mod running;
mod settings;
mod slot;
mod start_offsets;
mod sweep;
mod thread;

use std::ops::Bound::{Excluded, Included, Unbounded};
use std::time::Duration;

use tracing::{debug, error, warn};

use self::in_flight::InFlightState;
pub use self::open_transaction::OpenTransaction;
use self::ports::{Delivery, Log, LogEvent, RecordRef, Source, View, ViewEvent};
use self::report::Report;
use self::restore::{MARKER_PATIENCE_MS, Restore, RestoreContext};
pub use self::settings::{
    DeadLetterSettings, OUTPUT_MAX_BYTES, READ_AHEAD_MAX_BYTES, Settings, WORK_PER_TURN,
};
use self::slot::{MarkerAnswer, Slot, Stage};
pub use self::thread::StreamThread;
use crate::clock::Clock;
use crate::error::{Error, Fatal};
use crate::shard::{Input, Shard};

/// Records taken from the log in one turn of the loop, at most.
const RECORDS_PER_POLL: usize = 2_000;
/// How long a shard may wait for the rest of its inputs (rule R6).
const CREATED_LIMIT_MS: i64 = 60_000;

impl<L: Log, V: View, C: Clock> StreamThread<L, V, C> {
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
        self.check_gaps();
        self.poll_view();
        self.resolve_starts();
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

    /// Begins to stop: a last commit, then leaving the group.
    pub fn stop(&mut self) {
        self.stopping_since_ms.get_or_insert(self.clock.monotonic_ms());
    }

    /// Whether the stop is complete.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Returns the view, so that the caller can close it.
    pub fn into_view(self) -> V {
        self.view
    }

    /// What happened since the last report.
    pub fn report(&mut self) -> Report {
        let now_ms = self.clock.monotonic_ms();
        let assigned = self.resolving_starts.iter().flat_map(|resolving| &resolving.partitions);
        let mut resolving: Vec<i32> = assigned
            .map(|(_, partition)| *partition)
            .filter(|partition| !self.slots.contains_key(partition))
            .collect();
        resolving.sort_unstable();
        resolving.dedup();
        Report {
            counts: std::mem::take(&mut self.counts),
            resolving_starts: resolving.len(),
            shards: self.slots.values().map(|slot| slot.report(now_ms)).collect(),
            broker_time: self.broker_time.now(now_ms),
            commit_pending_ms: self.in_flight.as_ref().map(|flight| now_ms - flight.submitted_ms),
            applied: self.applied,
            restored: self.restored,
        }
    }

    fn poll(&mut self) -> Result<(), Fatal> {
        let waiting = self.in_flight.is_some()
            || !self.resolving_starts.is_empty()
            || self
                .slots
                .values()
                .any(|slot| slot.running().is_none_or(|at| at.shard.has_output()));
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
            let applied = slot.marker.applied();
            match delivery {
                Delivery::Group(input) => {
                    let by_broker = record.stamped_by_broker;
                    let latest = if by_broker { &mut latest } else { &mut latest_of_senders };
                    *latest = (*latest).max(Some(record.timestamp));
                    if let Some(running) = slot.running_mut() {
                        reading::offer(running, input, &record, settings, now.monotonic_ms);
                    }
                }
                Delivery::Restore(source) => {
                    counts.restored[match source {
                        Source::Changelog => 0,
                        Source::Input(Input::VpnSessions) => 1,
                        Source::Input(_) => 2,
                    }] += 1;
                    restored = true;
                    if let Stage::Restoring(restore) = &mut slot.stage
                        && let Err(error) = restore.record(source, &record, applied, settings)
                    {
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
                warn!(%error, "reading from Kafka failed; retrying");
                self.counts.kafka_error = Some(error.to_string());
                Ok(())
            }
        }
    }

    /// Stops a shard whose changelog cannot be read. The others continue.
    fn fail_shard(&mut self, partition: i32, error: &Error) {
        let Some(slot) = self.slots.get_mut(&partition) else { return };
        let Stage::Restoring(restore) = &slot.stage else { return };
        error!(
            partition,
            %error,
            "the shard cannot be restored and stays stopped; its devices are not re-evaluated. \
             Repair or remove the record, then restart"
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
                let slot = self.slots.get_mut(&partition);
                if let Some(running) = slot.and_then(Slot::running_mut)
                    && !running.inputs[input.index()].letters.has_stopped()
                {
                    running.passed_to(input, offset);
                    running.shard.end_of_partition(input, offset);
                }
            }
            LogEvent::RestoreEnd { source, partition, offset } => {
                if let Some(slot) = self.slots.get_mut(&partition)
                    && let Stage::Restoring(restore) = &mut slot.stage
                {
                    restore.reached(source, offset);
                }
            }
            LogEvent::Bounds(id, answer) => {
                if let Some((question, asked_at)) = self.ends
                    && question == id
                {
                    self.ends = None;
                    return self.learn_ends(asked_at, answer);
                }
                if let Err(error) = &answer {
                    self.counts.kafka_error = Some(error.clone());
                }
                self.with_restores(|restore, _, context| restore.answered(id, &answer, context));
                let mut answer = Some(answer);
                for resolving in &mut self.resolving_starts {
                    resolving.log_bounds.take(id, &mut answer, now_ms, &mut resolving.warn_ms);
                }
            }
            LogEvent::NoAnswer { partition, error } => {
                warn!(
                    partition,
                    %error,
                    "cannot read the log start and end of a partition: its shard waits, or its \
                     clock stands still, and the others continue. Check the broker that leads it"
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
                            debug!(error = %message, "the outcome of a batch is not known yet");
                            flight.state = InFlightState::Unresolved { ask_ms: now_ms + 200 };
                        }
                    }
                    return Ok(());
                }
                let mut answer = Some(answer);
                for resolving in &mut self.resolving_starts {
                    resolving.committed.take(id, &mut answer, now_ms, &mut resolving.warn_ms);
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
                    warn!(
                        partition,
                        "fenced: a later owner writes to the view in Redis; this process no \
                         longer writes the partition"
                    );
                }
                ViewEvent::Found(partition, keys) => self.sweep.found(partition, keys),
            }
        }
        self.view_events = events;
    }

    /// The shard for which this thread writes the view: it runs and has committed
    /// (rule C7), or is suspended (rule R7). Events of the view for other shards
    /// are ignored: they stem from an earlier ownership, with its sequence numbers.
    fn shown(&mut self, partition: i32) -> Option<&mut Shard> {
        let running = self.slots.get_mut(&partition).and_then(Slot::running_mut);
        match running.filter(|running| running.committed.is_some()) {
            Some(running) => Some(&mut running.shard),
            None => self.suspended.get_mut(&partition).map(|kept| &mut kept.shard),
        }
    }

    /// Advances the restores. A complete one becomes a running shard.
    fn restore(&mut self) {
        let mut complete = Vec::new();
        self.with_restores(|restore, marker, context| {
            if let MarkerAnswer::Awaited { since_ms } = *marker
                && context.now_ms - since_ms >= MARKER_PATIENCE_MS
            {
                *marker = MarkerAnswer::Known(None);
            }
            let has_answer = matches!(marker, MarkerAnswer::Known(_));
            if restore.advance(has_answer, context)? {
                complete.push(restore.past.shard.partition());
            }
            Ok(())
        });
        let last_epoch = self.last_epoch;
        for partition in complete {
            self.run_shard(partition, last_epoch);
        }
    }

    fn with_restores(
        &mut self,
        mut each: impl FnMut(
            &mut Restore,
            &mut MarkerAnswer,
            &mut RestoreContext<'_>,
        ) -> Result<(), Error>,
    ) {
        let mut failed = Vec::new();
        let mut context = RestoreContext {
            now_ms: self.clock.monotonic_ms(),
            settings: &self.settings,
            log: &mut self.log,
        };
        for slot in self.slots.values_mut() {
            let Stage::Restoring(restore) = &mut slot.stage else { continue };
            match each(restore, &mut slot.marker, &mut context) {
                Ok(()) => {}
                Err(error @ Error::Retriable(_)) => {
                    warn!(
                        partition = slot.partition,
                        %error,
                        "the restore failed and starts again"
                    );
                    restore.begin_anew(&mut context);
                }
                Err(error) => failed.push((slot.partition, error)),
            }
        }
        for (partition, error) in failed {
            self.fail_shard(partition, &error);
        }
    }

    fn run_shard(&mut self, partition: i32, last_epoch: Option<u64>) {
        let (now, wall) = (self.now(), self.clock.wall());
        let Some(slot) = self.slots.get_mut(&partition) else { return };
        let Stage::Restoring(restore) = std::mem::replace(&mut slot.stage, Stage::Failed) else {
            return;
        };
        let has_marker = matches!(slot.marker, MarkerAnswer::Known(Some(_)));
        let settings = &self.settings;
        let running = restore.run(last_epoch, wall, has_marker, settings, now.monotonic_ms);
        self.last_epoch = self.last_epoch.max(Some(running.epoch));
        // A committed clock is never later than broker time, so our broker time is
        // from before the machine slept (rule T6).
        if now.broker.is_some_and(|broker| broker < running.shard.clock()) {
            self.broker_time.forget();
        }
        slot.stage = Stage::Running(Box::new(running));
        self.ask_ends_at_once();
    }

    fn turn(&mut self) {
        let now = self.now();
        let mut waiting = self.output_bytes();
        let from = self.turn_from;
        let Self { slots, counts, clocks, busy, release, settings, turn_from, .. } = self;
        // Round robin, so that no shard fills every transaction alone.
        let (first, rest) = ((Included(from), Unbounded), (Unbounded, Excluded(from)));
        let partitions = slots.range(first).chain(slots.range(rest)).map(|(p, _)| *p);
        let partitions: Vec<i32> = partitions.collect();
        let mut applied = false;
        for partition in partitions {
            let Some(slot) = slots.get_mut(&partition) else { continue };
            let leaving = release.as_ref().is_some_and(|release| release.holds(slot.partition));
            let Some(running) = slot.running_mut().filter(|_| !leaving) else { continue };
            if waiting >= settings.output_max_bytes {
                *turn_from = partition;
                return;
            }
            let held = running.shard.output_bytes();
            let most = held + settings.output_max_bytes - waiting;
            let turn = running.shard.turn_until_full(now, settings.work_per_turn, most);
            waiting += running.shard.output_bytes() - held;
            for input in Input::ALL {
                counts.applied[input.index()] += u64::from(turn.applied[input.index()]);
                counts.stale[input.index()] += u64::from(turn.stale[input.index()]);
            }
            if turn.applied != [0; Input::ALL.len()] {
                applied = true;
                counts.compare(&turn.skew);
                clocks.tell(partition, &turn.skew, now.monotonic_ms);
            }
            counts.expired += u64::from(turn.expired);
            counts.sessions_forgotten += u64::from(turn.sessions_fallen_out);
            counts.open_sessions_forgotten += u64::from(turn.open_sessions_fallen_out);
            if let Some(device) = turn.most_sessions {
                warn!(
                    partition,
                    %device,
                    "a device has more open VPN sessions than are kept, and some are dropped. \
                     Check that the VPN servers send a close for each session, and announce \
                     themselves when they start"
                );
            }
            *busy |= turn.more;
        }
        if applied {
            self.applied.extend(now.monotonic_ms, self.clock.monotonic_ms());
        }
    }

    /// Logs shards that wait too long for their inputs (rule R6).
    fn complain(&mut self) {
        let now_ms = self.clock.monotonic_ms();
        let resolving_starts = &self.resolving_starts;
        // Unresolved start offsets are logged elsewhere.
        let is_assigned =
            |at| resolving_starts.iter().any(|resolving| resolving.partitions.contains(&at));
        for slot in self.slots.values_mut() {
            let Stage::Created(created) = &mut slot.stage else { continue };
            if !created.complained && now_ms - created.since_ms > CREATED_LIMIT_MS {
                let missing: Vec<_> = Input::ALL
                    .into_iter()
                    .filter(|input| created.inputs[input.index()].is_none())
                    .filter(|input| !is_assigned((*input, slot.partition)))
                    .map(Input::name)
                    .collect();
                created.complained = !missing.is_empty();
                if missing.is_empty() {
                    continue;
                }
                error!(
                    partition = slot.partition,
                    ?missing,
                    "a shard waits for inputs that are not assigned to this thread; check that \
                     all members of the group have the same topics and assignor"
                );
            }
        }
    }
}
