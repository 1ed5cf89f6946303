//! Drives a shard through a history: deliveries in pieces, evidence, turns,
//! commits, crashes and restores.

use std::collections::BTreeMap;
use std::sync::Arc;

use device_status::shard::{
    Cause, DeviceEvent, DeviceId, EventBody, HeartbeatState, Input, Now, Progress, Shard, Start,
    Status, StatusChange, Timestamp, ViewBody,
};
use device_status::wire::changelog;
use proptest::prelude::*;

use super::history::{History, devices};
use super::model::{Oracle, Shown};

/// How the records reach the shard.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// All that was ever written is there from the beginning.
    pub backlog: bool,
    /// Of which input, and how many records, are offered between turns.
    pub pieces: Vec<(u8, u8)>,
    /// By how much evidence is behind, in live reading.
    pub jitter_ms: Vec<u16>,
    /// Evidence is asked for this often between two records.
    pub ticks: u8,
    pub budget: usize,
    /// Monotonic time passes, so that an input with unread records is not
    /// waited for (T4).
    pub stalls: bool,
    /// After how many commits each process dies.
    pub crashes: Vec<u16>,
}

pub fn delivery(stalls: bool) -> impl Strategy<Value = Delivery> {
    (
        any::<bool>(),
        prop::collection::vec((0..3_u8, 1..8_u8), 1..8),
        prop::collection::vec(prop_oneof![Just(0_u16), 0..7_900_u16], 1..4),
        0..3_u8,
        prop_oneof![2 => Just(1_usize), 1 => Just(2_usize), 2 => Just(1_000_usize)],
        if stalls { any::<bool>().boxed() } else { Just(false).boxed() },
    )
        .prop_map(|(backlog, pieces, jitter_ms, ticks, budget, stalls)| Delivery {
            backlog,
            pieces,
            jitter_ms,
            ticks,
            budget,
            stalls,
            crashes: Vec::new(),
        })
}

/// What survives a crash: the compacted changelog, what was emitted, and the
/// metadata of the offsets.
#[derive(Clone, Default)]
pub struct Committed {
    pub changelog: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    pub changes: Vec<StatusChange>,
    pub fleet_counts: BTreeMap<String, [u64; Status::ALL.len()]>,
    pub progress: Option<Progress>,
    pub positions: [i64; 3],
    pub commits: u16,
}

pub struct Driver<'a> {
    pub history: &'a History,
    delivery: Delivery,
    pub shard: Shard,
    pub committed: Committed,
    /// Of each input, how many records were offered.
    offered: [usize; 3],
    by_input: [Vec<usize>; 3],
    piece: usize,
    evidence: usize,
    monotonic_ms: i64,
    epoch: u64,
    crashes: std::collections::VecDeque<u16>,
    pub restores: usize,
    /// Below these offsets, a scope event may be known that is not committed
    /// yet, as its rows were not all settled before a crash (J7).
    unsure: [i64; 3],
}

impl<'a> Driver<'a> {
    pub fn new(history: &'a History, delivery: &Delivery) -> Driver<'a> {
        let mut by_input = [Vec::new(), Vec::new(), Vec::new()];
        for (place, record) in history.records.iter().enumerate() {
            by_input[record.input.index()].push(place);
        }
        let mut shard = Shard::new(0, history.rules.clone());
        shard.start(Start { epoch: 1, ..Start::default() });
        Driver {
            history,
            delivery: delivery.clone(),
            shard,
            committed: Committed::default(),
            offered: [0; 3],
            by_input,
            piece: 0,
            evidence: 0,
            monotonic_ms: 0,
            epoch: 1,
            crashes: delivery.crashes.iter().copied().collect(),
            restores: 0,
            unsure: [0; 3],
        }
    }

    /// Reads the whole history, to its end.
    pub fn run(mut self) -> Driver<'a> {
        let mut instants = Vec::new();
        if !self.delivery.backlog {
            let mut last = None;
            for record in &self.history.records {
                let from = last.unwrap_or(record.written);
                let ticks = i64::from(self.delivery.ticks);
                for tick in 1..=ticks {
                    instants.push(from + (record.written - from) * tick / (ticks + 1));
                }
                instants.push(record.written);
                last = Some(record.written);
            }
            instants.dedup();
        }
        for at in instants {
            self.read_until(at, true);
        }
        self.read_until(self.history.end, false);
        self
    }

    /// All that was written by `at` is offered, in pieces, and worked off.
    fn read_until(&mut self, at: i64, jitter: bool) {
        loop {
            let done = self.offer_piece(at);
            let crashed = self.work(at, jitter);
            if done && !crashed {
                return;
            }
        }
    }

    fn available(&self, input: usize, at: i64) -> usize {
        self.by_input[input].partition_point(|place| self.history.records[*place].written <= at)
    }

    /// Says whether nothing is left to offer.
    fn offer_piece(&mut self, at: i64) -> bool {
        for _ in 0..3 {
            let (input, count) = self.delivery.pieces[self.piece % self.delivery.pieces.len()];
            self.piece += 1;
            let mut left = usize::from(count);
            let mut input = usize::from(input);
            for _ in 0..3 {
                while left > 0 && self.offered[input] < self.available(input, at) {
                    let record = &self.history.records[self.by_input[input][self.offered[input]]];
                    self.shard.offer(record.input, record.queued());
                    self.offered[input] += 1;
                    left -= 1;
                }
                input = (input + 1) % 3;
            }
            if left < usize::from(count) {
                break;
            }
        }
        (0..3).all(|input| self.offered[input] == self.available(input, at))
    }

    fn now(&self, at: i64) -> Now {
        Now { monotonic_ms: self.monotonic_ms, broker: Some(Timestamp(at)) }
    }

    /// Turns, each with a commit, until there is nothing more to do. Says
    /// whether the process died.
    fn work(&mut self, at: i64, jitter: bool) -> bool {
        let jitters = &self.delivery.jitter_ms;
        let late_ms = if jitter { jitters[self.evidence % jitters.len()] } else { 0 };
        self.evidence += 1;
        for input in Input::ALL {
            let end = i64::try_from(self.available(input.index(), at)).unwrap();
            let asked_at = Timestamp(at - i64::from(late_ms));
            self.shard.learn_end(input, Some(asked_at), end, end);
        }
        for _ in 0..100_000 {
            if self.delivery.stalls {
                self.monotonic_ms += 200;
            }
            let before = self.positions();
            let turn = self.shard.turn(self.now(at), self.delivery.budget);
            let emitted = self.commit();
            let caught_up =
                self.positions().iter().zip(&self.unsure).all(|(next, until)| next >= until);
            if caught_up {
                self.check_timers(&emitted, before, turn.applied == [0; 3]);
            }
            if caught_up && !turn.more {
                self.check_rows();
            }
            if self.crashes.front().is_some_and(|after| self.committed.commits >= *after) {
                self.crashes.pop_front();
                self.committed.commits = 0;
                self.restore();
                return true;
            }
            if !turn.more {
                return false;
            }
        }
        panic!("the shard never comes to rest");
    }

    fn positions(&self) -> [i64; 3] {
        Input::ALL.map(|input| self.shard.position(input))
    }

    /// Takes the outbox and commits it. Returns where its changes begin.
    fn commit(&mut self) -> std::ops::Range<usize> {
        let outbox = self.shard.take_outbox(3);
        self.committed.progress = Some(self.shard.progress());
        self.committed.positions = self.positions();
        self.committed.commits += 1;
        for entry in &outbox.changelog {
            let (key, value) = changelog::encode(entry);
            self.committed.changelog.insert(key, value);
        }
        if let Some(last) = outbox.view.last() {
            self.shard.view_acknowledged(last.sequence);
        }
        for write in outbox.view {
            if let ViewBody::FleetCounts { fleet, counts } = write.body {
                self.committed.fleet_counts.insert(fleet.to_string(), counts);
            }
        }
        let from = self.committed.changes.len();
        self.committed.changes.extend(outbox.changes);
        from..self.committed.changes.len()
    }

    /// The process is gone; another goes on from what was committed.
    fn restore(&mut self) {
        self.restores += 1;
        let rows: Vec<_> = devices().map(|device| self.look(&device)).collect();
        let progress = self.committed.progress.unwrap();
        let mut shard = Shard::new(0, self.history.rules.clone());
        for (key, value) in &self.committed.changelog {
            let entry = changelog::decode(Some(key), value.as_deref()).unwrap();
            shard.restore_entry(entry.expect("an entry that this version wrote"), false);
        }
        let watermark = progress.watermarks[Input::Heartbeats.index()];
        for record in &self.history.records {
            let EventBody::Heartbeat { device, poll_interval_s, going_away } = &record.event.body
            else {
                continue;
            };
            if record.offset < self.committed.positions[Input::Heartbeats.index()]
                && record.written >= progress.replay_from.0
            {
                let at = record.fact().at.min(watermark.map_or(i64::MAX, |at| at.0));
                shard.replay_heartbeat(device, Timestamp(at), *poll_interval_s, *going_away);
            }
        }
        let watermark = progress.watermarks[Input::VpnSessions.index()];
        for record in &self.history.records {
            let EventBody::Device { device, event: opening @ DeviceEvent::SessionOpened { .. } } =
                &record.event.body
            else {
                continue;
            };
            if record.offset < self.committed.positions[Input::VpnSessions.index()]
                && record.written >= progress.replay_from.0
            {
                let mark = watermark.map_or(i64::MAX, |at| at.0);
                let (at, sent) = (record.fact().at.min(mark), record.written.min(mark));
                shard.replay_opening(device, Timestamp(at), Some(Timestamp(sent)), opening);
            }
        }
        self.epoch += 1;
        assert!(shard.last_epoch().is_some_and(|last| last < self.epoch));
        shard.start(Start {
            epoch: self.epoch,
            clock: Some(progress.clock),
            watermarks: progress.watermarks,
            replay_from: Some(progress.replay_from),
            positions: self.committed.positions,
            ..Start::default()
        });
        self.shard = shard;
        // Also what an owner before this one may have begun with.
        for (until, count) in self.unsure.iter_mut().zip(self.offered) {
            *until = (*until).max(i64::try_from(count).unwrap());
        }
        self.offered = self.committed.positions.map(|next| usize::try_from(next).unwrap());
        let restored: Vec<_> = devices().map(|device| self.look(&device)).collect();
        assert_eq!(rows, restored, "the restored rows are not the live ones");
    }

    /// A row as it is known, with what it last emitted: without what depends on
    /// when it was written.
    fn look(&self, device: &DeviceId) -> Option<(String, Vec<String>)> {
        let mut row = self.shard.snapshot(device)?;
        row.clock = Timestamp::MIN;
        row.facts.deletion_touched = None;
        let closed = self.shard.closed_sessions(device);
        // Which of two that were closed at once comes first tells nothing.
        let mut closed: Vec<_> = closed.iter().map(|each| format!("{each:?}")).collect();
        closed.sort();
        Some((format!("{row:?}"), closed))
    }

    /// All that was applied.
    pub fn known(&self) -> Oracle {
        self.known_before(self.positions())
    }

    fn known_before(&self, positions: [i64; 3]) -> Oracle {
        let mut oracle = Oracle::new(&self.history.rules);
        let applied = self
            .history
            .records
            .iter()
            .filter(|record| record.offset < positions[record.input.index()]);
        oracle.facts.extend(applied.map(|record| record.fact()));
        oracle
    }

    /// No heartbeat is missed before all that could prevent it has been read:
    /// by what was applied, and by all that was written by then, the deadline
    /// has passed.
    fn check_timers(&self, emitted: &std::ops::Range<usize>, before: [i64; 3], quiet: bool) {
        for place in emitted.clone() {
            let change = &self.committed.changes[place];
            let state = match change.cause {
                Cause::HeartbeatTimedOut => HeartbeatState::Timeout,
                Cause::HeartbeatExpired => HeartbeatState::Offline,
                _ => continue,
            };
            let clock = self.shard.clock();
            // The deadline itself, unless it was floored to what is ahead.
            let earlier = self.committed.changes[..place].iter().rev();
            let mut earlier = earlier.filter(|earlier| earlier.device == change.device);
            let floor = earlier.next().map(|earlier| (earlier.since, earlier.connectivity_since));
            let (since_held, connectivity_since_held) = floor.unwrap_or_default();
            let moved =
                [(change.since, since_held), (change.connectivity_since, connectivity_since_held)];
            let deadline =
                moved.into_iter().filter(|(now, held)| now != held).map(|(now, _)| now).max();
            let Some(deadline) = deadline else { continue };
            assert!(deadline <= clock.plus_ms(10_000), "{clock} {change:?}");
            // A turn of more than one record has seen settings come and go.
            if self.delivery.budget > 1 {
                continue;
            }
            // Fired by the clock: nothing written until the slack after it is
            // missing. By an event ahead of the clock, which comes in its turn
            // unless an input was given up waiting for.
            let since = deadline.0;
            let floor = since_held.max(connectivity_since_held).0;
            let by_the_clock = since <= self.shard.progress().clock.0 && floor <= since;
            let read_until = if by_the_clock && (quiet || !self.delivery.stalls) {
                since + self.history.rules.slack_ms
            } else if self.delivery.stalls {
                i64::MIN
            } else {
                since
            };
            // The deadlines of a record fire before it is applied.
            // A scope event counts while its rows are settled, before its offset does (J7).
            let states = [(before, false), (self.positions(), false), (self.positions(), true)];
            let states = states.map(|(positions, held)| {
                let mut oracle = self.known_before(positions);
                let holding = self.history.records.iter().filter(|record| {
                    held && record.offset == positions[record.input.index()]
                        && matches!(&record.event.body, EventBody::Scope(_))
                });
                oracle.facts.extend(holding.map(|record| record.fact()));
                for record in &self.history.records {
                    if record.offset >= positions[record.input.index()]
                        && record.written < read_until
                        && record.fact().at < since
                        && matches!(&record.event.body, EventBody::Heartbeat { .. })
                    {
                        oracle.facts.push(record.fact());
                    }
                }
                // Noticed late, by the settings of its time or by those of now.
                let rows = [oracle.row(&change.device), oracle.row_as_of(&change.device, since)];
                rows.map(|row| oracle.heartbeat_state(&row, since))
            });
            let states = states.concat();
            assert!(
                change.heartbeat_state >= state || change.since != deadline,
                "the state of the heartbeat is not that of its cause: {change:?}"
            );
            assert!(
                states.iter().any(|held| *held >= state),
                "too early, as it was {states:?} by then (clock {clock}, {deadline}, {:?}): {change:?}",
                self.shard.progress()
            );
        }
    }

    /// At rest, every row shows what the oracle says of all that was applied.
    fn check_rows(&self) {
        let oracle = self.known();
        for device in devices() {
            let row = oracle.row(&device);
            let view = self.shard.view(&device);
            let shown = view.as_ref().map(|view| (view.status, view.connectivity));
            let clock = self.shard.clock().0;
            let mut judged = clock;
            if let Some(emitted) = self.shard.snapshot(&device).and_then(|row| row.emitted) {
                let floor = emitted.since.max(emitted.connectivity_since).0;
                judged = clock.max(floor.min(clock + 10_000));
            }
            // Nobody looks at a row again before its next event or deadline: of
            // what lies at most 10 s ahead of the clock, it may have seen some.
            let mut instants = vec![clock, judged];
            let deadlines = oracle.deadlines_of(&device).into_iter().map(|(at, _)| at);
            instants.extend(deadlines.filter(|at| clock < *at && *at <= clock + 10_000));
            let told: Vec<Shown> = instants
                .iter()
                .flat_map(|at| [clock, judged].map(|leases_at| oracle.shown(&row, *at, leases_at)))
                .collect();
            assert!(
                told.contains(&shown),
                "{device} shows {shown:?}, but is {told:?} at {judged} (clock {clock}): {row:?}"
            );
            if let Some(view) = view {
                let (fleet, _) =
                    row.membership.as_ref().map(|held| held.1.clone()).unwrap_or_default();
                assert_eq!(view.fleet.as_deref().unwrap_or_default(), &*fleet);
                assert_eq!(view.last_heartbeat.map(|at| at.0), row.heartbeat.map(|held| held.0));
                assert_eq!(view.heartbeat, oracle.heartbeat_state(&row, judged));
                assert_eq!(view.progress, Oracle::progress(&row, shown));
                let update = &row.update;
                assert_eq!(
                    view.release.as_deref().unwrap_or_default(),
                    update.started.as_ref().map_or("", |(_, release)| &**release)
                );
                assert_eq!(view.update_phase, update.phase());
                assert_eq!(view.update_outcome, update.outcome().and_then(|(outcome, _)| outcome));
                assert_eq!(
                    view.update_since.map(|at| at.0),
                    update.outcome().map(|(_, since)| since)
                );
                let vpn = [clock, judged].map(|at| Oracle::vpn_up(&row, at));
                assert!(vpn.contains(&view.vpn_connected), "{view:?}");
            }
        }
    }

    /// The changes of a device, as committed.
    pub fn changes_of(&self, device: &DeviceId) -> Vec<&StatusChange> {
        self.committed.changes.iter().filter(|change| change.device == *device).collect()
    }

    /// The counts of each fleet by the oracle.
    pub fn counted(&self) -> BTreeMap<String, [u64; Status::ALL.len()]> {
        let oracle = self.known();
        let mut counts: BTreeMap<String, [u64; Status::ALL.len()]> = BTreeMap::new();
        for device in devices() {
            let row = oracle.row(&device);
            let Some(view) = self.shard.view(&device) else { continue };
            let (fleet, _): (Arc<str>, Arc<str>) =
                row.membership.map(|held| held.1).unwrap_or_default();
            counts.entry(fleet.to_string()).or_default()[view.status.index()] += 1;
        }
        counts
    }
}
