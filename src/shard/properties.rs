//! Properties of whole histories: the promises of docs/guarantees.md about rows
//! and changes.

use crate::shard::rules::JUDGED_AHEAD_MS;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::snapshot::RowSnapshot;
use super::*;

const BASE_MS: i64 = 1_700_000_000_000;
const DEVICES: u8 = 3;

/// A generated event: its kind, its device, its time, and the lateness of its
/// record.
#[derive(Clone, Copy, Debug)]
struct Made {
    kind: u8,
    device: u8,
    detail: u8,
    at_s: i64,
    late_s: i64,
    /// An offset that keeps the times of all events different.
    apart_ms: i64,
}

fn made() -> impl Strategy<Value = Made> {
    // Few instants, so that there are ties.
    (0..32_u8, 0..DEVICES, 0..4_u8, 0..240_i64, prop_oneof![Just(0_i64), 0..4_000_i64]).prop_map(
        |(kind, device, detail, at, late_s)| Made {
            kind,
            device,
            detail,
            at_s: at * 60,
            late_s,
            apart_ms: 0,
        },
    )
}

fn device(number: u8) -> DeviceId {
    match number {
        0 => DeviceId::Text("text".into()),
        _ => DeviceId::Hex([number; 16]),
    }
}

impl Made {
    fn event(self) -> (Input, Event) {
        let device = device(self.device);
        let at = Timestamp(BASE_MS + self.at_s * 1_000 + self.apart_ms);
        let reason = FrozenReason::ALL[usize::from(self.detail)];
        let lifted = (self.detail > 0).then_some(reason);
        let name = |of: &str| -> Arc<str> { format!("{of}{}", self.detail % 2).into() };
        let instance = name("v");
        let session: Arc<str> = format!("s{}", self.detail / 2).into();
        let settings = Settings {
            poll_interval_s: [None, Some(600), Some(1_800), None][usize::from(self.detail)],
            vpn_enabled: [None, Some(false), Some(true), None][usize::from(self.detail)],
        };
        let scope = |event| EventBody::Scope(event);
        let one = |event| EventBody::Device { device: device.clone(), event };
        let heartbeat = |poll_interval_s| EventBody::Heartbeat {
            device: device.clone(),
            poll_interval_s,
            going_away: false,
        };
        let (input, body) = match self.kind {
            0..=5 => (Input::Heartbeats, heartbeat(settings.poll_interval_s)),
            6 => (Input::Heartbeats, heartbeat(Some(86_400))),
            7..=9 => {
                // Repeated openings, with leases and without.
                let opened_at = (self.kind == 9).then_some(at.plus_ms(-300_000));
                let lease_ms = [None, Some(600_000), Some(3_600_000)][usize::from(self.kind - 7)];
                let opened = DeviceEvent::SessionOpened { instance, session, opened_at, lease_ms };
                (Input::VpnSessions, one(opened))
            }
            10..=11 => {
                let opened_at = (self.kind == 11).then_some(at.plus_ms(-600_000));
                let closed = DeviceEvent::SessionClosed { instance, session, opened_at };
                (Input::VpnSessions, one(closed))
            }
            12 => (
                Input::VpnSessions,
                scope(ScopeEvent::InstanceAlive {
                    instance,
                    started_at: (self.detail > 1).then_some(at.plus_ms(-60_000)),
                    lease_ms: 900_000,
                }),
            ),
            13 => (Input::VpnSessions, scope(ScopeEvent::InstanceLost { instance })),
            14..=16 => (
                Input::Lifecycle,
                one(DeviceEvent::Registered {
                    fleet: name("f"),
                    organization: name("o"),
                    preregistered: self.detail == 3,
                }),
            ),
            17 => (Input::Lifecycle, one(DeviceEvent::Provisioned)),
            18 => (Input::Lifecycle, one(DeviceEvent::Activated)),
            19 => (Input::Lifecycle, one(DeviceEvent::Deactivated)),
            20 => (Input::Lifecycle, one(DeviceEvent::Frozen { reason })),
            21 => (Input::Lifecycle, one(DeviceEvent::Unfrozen { reason: lifted })),
            22 => (Input::Lifecycle, one(DeviceEvent::ConfigurationStarted)),
            23 => (Input::Lifecycle, one(DeviceEvent::ConfigurationFinished { outcome: None })),
            24 => (Input::Lifecycle, one(DeviceEvent::UpdateStarted { release: name("r") })),
            25 => (
                Input::Lifecycle,
                one(DeviceEvent::UpdateProgressed {
                    percent: self.detail,
                    phase: None,
                    release: "".into(),
                }),
            ),
            26 => (
                Input::Lifecycle,
                one(DeviceEvent::UpdateFinished { release: "".into(), outcome: None }),
            ),
            27 => (Input::Lifecycle, one(DeviceEvent::SettingsChanged(settings))),
            28 => (
                Input::Lifecycle,
                one(DeviceEvent::Moved { fleet: name("f"), organization: "".into() }),
            ),
            29 => (Input::Lifecycle, one(DeviceEvent::Deleted)),
            30 => (
                Input::Lifecycle,
                scope(ScopeEvent::FleetSettingsChanged { fleet: name("f"), settings }),
            ),
            _ if self.device == 0 => (
                Input::Lifecycle,
                scope(ScopeEvent::OrganizationUnfrozen { organization: name("o"), reason: lifted }),
            ),
            _ if self.device == 1 => (
                Input::Lifecycle,
                scope(ScopeEvent::FleetUnfrozen { fleet: name("f"), reason: lifted }),
            ),
            _ => (Input::Lifecycle, scope(ScopeEvent::FleetFrozen { fleet: name("f"), reason })),
        };
        (input, Event { occurred_at: Some(at), body })
    }
}

/// The state that survives a crash.
#[derive(Clone, Default)]
struct Committed {
    changelog: BTreeMap<String, Entry>,
    changes: Vec<StatusChange>,
    progress: Option<Progress>,
    positions: [i64; 3],
    turns: usize,
}

impl Committed {
    fn commit(&mut self, shard: &mut Shard) {
        let outbox = shard.take_outbox(2);
        for entry in outbox.changelog {
            let key = match &entry {
                Entry::Device(device, _) => format!("device {device}"),
                Entry::ClosedSession(device, session, _) => format!("closed {device} {session:?}"),
                Entry::Instance(name, _) => format!("instance {name}"),
                Entry::Fleet(name, _) => format!("fleet {name}"),
                Entry::Organization(name, _) => format!("organization {name}"),
                Entry::Epoch(_) => "epoch".to_string(),
                Entry::Hold(_) => "hold".to_string(),
            };
            self.changelog.insert(key, entry);
        }
        self.changes.extend(outbox.changes);
        self.progress = Some(shard.progress());
        self.positions = Input::ALL.map(|input| shard.position(input));
        self.turns += 1;
    }
}

/// A log of the three inputs, in the order in which it was written.
struct Log {
    records: Vec<(Input, Queued)>,
}

impl Log {
    fn new(mut made: Vec<(i64, Made)>) -> Log {
        made.sort_by_key(|(written_ms, _)| *written_ms);
        let mut offsets = [0; 3];
        let records = made.into_iter().map(|(written_ms, made)| {
            let (input, event) = made.event();
            let offset = &mut offsets[input.index()];
            *offset += 1;
            let record = Queued {
                offset: *offset - 1,
                timestamp: Timestamp(written_ms),
                stamped_by_broker: true,
                relay: Relay::default(),
                content: Content::Event(event),
            };
            (input, record)
        });
        Log { records: records.collect() }
    }

    /// Feeds the log from record `from` on, a commit a turn. Stops after
    /// `crash_after` turns and says at which record that was.
    fn feed(
        &self,
        shard: &mut Shard,
        from: usize,
        budget: usize,
        crash_after: usize,
        committed: &mut Committed,
    ) -> Option<usize> {
        let mut ends = committed.positions;
        for (at, (input, record)) in self.records.iter().enumerate() {
            if at >= from || record.offset >= committed.positions[input.index()] {
                shard.offer(*input, record.clone());
                ends[input.index()] = record.offset + 1;
                // All records from before the crash were there when the restart
                // began.
                if at < from {
                    continue;
                }
            }
            if at < from {
                continue;
            }
            if self.turns(shard, record.timestamp, ends, budget, crash_after, committed) {
                return Some(at);
            }
        }
        let last = self.records.last().map_or(BASE_MS, |(_, record)| record.timestamp.0);
        let end = Timestamp(last + 3_600_000);
        self.turns(shard, end, ends, budget, crash_after, committed).then_some(self.records.len())
    }

    fn turns(
        &self,
        shard: &mut Shard,
        at: Timestamp,
        ends: [i64; 3],
        budget: usize,
        crash_after: usize,
        committed: &mut Committed,
    ) -> bool {
        let now = Now { monotonic_ms: at.0, broker: Some(at) };
        for input in Input::ALL {
            let end = ends[input.index()];
            shard.learn_end(input, Some(at), end, end);
        }
        loop {
            let turn = shard.turn(now, budget);
            for change in shard.pending.changes.iter() {
                let by_deadline = matches!(
                    change.cause,
                    Cause::HeartbeatTimedOut | Cause::HeartbeatExpired | Cause::VpnLeaseExpired
                );
                assert!(
                    !by_deadline || change.since <= shard.clock().plus_ms(JUDGED_AHEAD_MS),
                    "a timer fired early: {change:?}"
                );
            }
            committed.commit(shard);
            if committed.turns >= crash_after {
                return true;
            }
            if !turn.more {
                return false;
            }
        }
    }

    fn restore(&self, committed: &Committed) -> Shard {
        let mut shard = Shard::new(0, rules());
        let progress = committed.progress.expect("something was committed");
        // Any order is allowed: closed sessions come first here.
        for entry in committed.changelog.values() {
            shard.restore_entry(entry.clone(), false);
        }
        for (input, record) in &self.records {
            if record.offset < committed.positions[input.index()]
                && record.timestamp >= progress.replay_from
                && let Content::Event(event) = &record.content
                && let EventBody::Heartbeat { device, poll_interval_s, .. } = &event.body
            {
                let at = event.occurred_at.unwrap_or(record.timestamp).min(record.timestamp);
                shard.replay_heartbeat(device, at, *poll_interval_s, false);
            }
        }
        for (input, record) in &self.records {
            if record.offset < committed.positions[input.index()]
                && record.timestamp >= progress.replay_from
                && let Content::Event(event) = &record.content
                && let EventBody::Device { device, event: opening } = &event.body
            {
                let at = event.occurred_at.unwrap_or(record.timestamp).min(record.timestamp);
                shard.replay_opening(device, at, record.relay.sent_at(record.timestamp), opening);
            }
        }
        shard.start(Start {
            epoch: 2,
            clock: Some(progress.clock),
            watermarks: progress.watermarks,
            replay_from: Some(progress.replay_from),
            positions: committed.positions,
            ..Start::default()
        });
        shard
    }
}

fn rules() -> Rules {
    Rules { slack_ms: 0, ..Rules::default() }
}

fn fresh() -> Shard {
    let mut shard = Shard::new(0, rules());
    shard.start(Start { epoch: 1, ..Start::default() });
    shard
}

/// A row without the values that depend on the instant of judging.
fn facts(shard: &Shard, number: u8, emitted: bool) -> Option<(RowSnapshot, Vec<String>)> {
    let device = device(number);
    let mut row = shard.snapshot(&device)?;
    row.clock = Timestamp::MIN;
    row.facts.deletion_touched = None;
    // The facts when the deletion arrived.
    row.facts.deletion_interval_s = None;
    if !emitted {
        row.emitted = None;
        // The date of a session depends on the facts at its arrival (rule J4).
        row.facts.sessions.iter_mut().for_each(|held| held.began_at = None);
    }
    let mut closed = shard.closed_sessions(&device);
    if !emitted {
        // A close that keeps out no session that could count is dropped too, with
        // a session that was opened later: all openings that it ends were lost
        // with their instance.
        closed.retain(|closed| {
            let ended_at = closed.ended_at();
            let instance = shard.instance(&closed.instance).unwrap_or_default().0;
            ended_at > instance.lost && ended_at >= instance.started
        });
        // A session that can never count again is dropped, with its openings.
        closed.iter_mut().for_each(|closed| {
            (closed.opening, closed.leased, closed.began_at) = (None, None, None);
            closed.reopened = false;
        });
    }
    Some((row, closed.iter().map(|closed| format!("{closed:?}")).collect()))
}

fn in_order(made: &[Made]) -> Log {
    let written = made.iter().enumerate().map(|(place, made)| {
        let ms = BASE_MS + (made.at_s + made.late_s) * 1_000 + i64::try_from(place).unwrap_or(0);
        (ms, *made)
    });
    Log::new(written.collect())
}

fn check_continuity(changes: &[StatusChange]) {
    let mut last: BTreeMap<DeviceId, &StatusChange> = BTreeMap::new();
    for change in changes {
        match last.insert(change.device.clone(), change) {
            None => {
                assert_eq!(change.version, 1);
                assert_eq!(change.previous, None);
            }
            Some(before) => {
                assert_eq!(change.version, before.version + 1, "{before:?}\n{change:?}");
                assert_eq!(change.previous, before.current, "{before:?}\n{change:?}");
                assert!(change.since >= before.since, "{before:?}\n{change:?}");
                assert!(
                    change.connectivity_since >= before.connectivity_since,
                    "{before:?}\n{change:?}"
                );
            }
        }
        let was = (&change.previous_fleet, &change.previous_organization);
        let moved = was != (&change.fleet, &change.organization);
        assert!(change.previous != change.current || moved, "{change:?}");
    }
}

/// The counts, computed by a scan of the table.
fn check_counts(shard: &Shard) {
    let mut totals = [0; 7];
    let view = |row| {
        let hot = shard.table.get(row)?;
        shard.device_view(row, hot, &shard.table.load_cold(hot), None, false)
    };
    let views: Vec<DeviceView> = (0..shard.table.end()).filter_map(view).collect();
    for view in &views {
        totals[view.status.index()] += 1;
    }
    assert_eq!(shard.status_counts(), totals);
    for fleet in ["", "f0", "f1"] {
        let mut counts = [0; 7];
        for view in views.iter().filter(|view| view.fleet.as_deref().unwrap_or("") == fleet) {
            counts[view.status.index()] += 1;
        }
        let held = shard.scopes.fleets.find(fleet).map(|index| shard.scopes.fleets.get(index));
        assert_eq!(held.map(|held| held.counts).unwrap_or_default(), counts);
    }
}

fn whole(log: &Log, budget: usize) -> (Shard, Committed) {
    whole_by(&rules(), log, budget)
}

fn whole_by(rules: &Rules, log: &Log, budget: usize) -> (Shard, Committed) {
    let mut shard = Shard::new(0, rules.clone());
    shard.start(Start { epoch: 1, ..Start::default() });
    let mut committed = Committed::default();
    log.feed(&mut shard, 0, budget, usize::MAX, &mut committed);
    (shard, committed)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Rule J2: events of different times, in any interleaving, with any
    /// duplicates and any reordering, end in the same row.
    #[test]
    fn any_order_with_any_duplicates_ends_in_the_same_rows(
        made in prop::collection::vec(made(), 1..40),
        orders in prop::collection::vec((0..1_000_i64, 0..1_000_i64, prop::option::of(0..1_000_i64)), 40),
    ) {
        // The order in the log decides between events of one time.
        let mut times = BTreeSet::new();
        let made: Vec<_> = made.into_iter().filter(|made| times.insert(made.at_s)).collect();
        // All records are written after everything has happened.
        let after_ms = BASE_MS + 240 * 60_000;
        let mut one = Vec::new();
        let mut other = Vec::new();
        for (apart_ms, (made, (first, second, again))) in (0..).zip(made.iter().zip(&orders)) {
            let made = Made { apart_ms, ..*made };
            one.push((after_ms + first, made));
            other.push((after_ms + second, made));
            other.extend(again.map(|again| (after_ms + again, made)));
        }
        // The ends of leases that come late depend on their records (rule J4).
        let rules = Rules { max_lease_delay_ms: 0, ..rules() };
        let (one, _) = whole_by(&rules, &Log::new(one), 100);
        let (other, _) = whole_by(&rules, &Log::new(other), 100);
        for number in 0..DEVICES {
            prop_assert_eq!(facts(&one, number, false), facts(&other, number, false));
        }
        for name in ["v0", "v1"] {
            let facts = |shard: &Shard| shard.instance(name).map(|(facts, _)| facts);
            prop_assert_eq!(facts(&one).unwrap_or_default(), facts(&other).unwrap_or_default());
        }
        for name in ["f0", "f1"] {
            prop_assert_eq!(
                one.fleet(name).unwrap_or_default(),
                other.fleet(name).unwrap_or_default()
            );
        }
    }

    #[test]
    fn versions_have_no_gaps_and_nothing_goes_back(
        made in prop::collection::vec(made(), 1..60),
        budget in prop_oneof![Just(1_usize), Just(100)],
    ) {
        let (shard, committed) = whole(&in_order(&made), budget);
        check_continuity(&committed.changes);
        check_counts(&shard);
    }

    /// Crashes at any commit, also between the chunks of a scope event.
    #[test]
    fn a_restored_shard_goes_on_as_if_nothing_had_happened(
        made in prop::collection::vec(made(), 1..60),
        crash_after in 1..150_usize,
    ) {
        let log = in_order(&made);
        let (live, uninterrupted) = whole(&log, 1);

        let mut shard = fresh();
        let mut committed = Committed::default();
        let crashed = log.feed(&mut shard, 0, 1, crash_after, &mut committed);
        let mut restored = log.restore(&committed);
        // The committed state equals the live shard's, to the last heartbeat,
        // unless an event had settled only some of its rows.
        let stands = committed.progress.map(|progress| progress.clock);
        while restored.turn(Now { monotonic_ms: 0, broker: stands }, 1_000).more {}
        if matches!(shard.phase, Phase::Running) {
            prop_assert_eq!(&restored.pending.changes, &Vec::new());
            for number in 0..DEVICES {
                prop_assert_eq!(facts(&shard, number, true), facts(&restored, number, true));
            }
        }
        let from = crashed.map_or(log.records.len(), |at| at + 1);
        log.feed(&mut restored, from, 1, usize::MAX, &mut committed);
        check_continuity(&committed.changes);
        check_counts(&restored);
        for number in 0..DEVICES {
            prop_assert_eq!(facts(&live, number, true), facts(&restored, number, true));
        }
        let told = |committed: &Committed, number: u8| -> Vec<_> {
            let of_device = committed.changes.iter().filter(|change| change.device == device(number));
            of_device.map(|change| (change.version, change.current, change.since)).collect()
        };
        for number in 0..DEVICES {
            prop_assert_eq!(told(&uninterrupted, number), told(&committed, number));
        }
    }
}
