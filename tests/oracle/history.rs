//! Generated histories: what happens, when, and when its record is written.

use std::fmt;
use std::sync::Arc;

use device_status::shard::{
    Content, DeviceEvent, DeviceId, Event, EventBody, FrozenReason, Input, Queued, Relay, Rules,
    ScopeEvent, Settings, Timestamp, UpdateOutcome, UpdatePhase,
};
use proptest::prelude::*;

use super::model::{Fact, Oracle};

pub const BASE_MS: i64 = 1_700_000_000_000;
pub const DEVICES: u8 = 4;
const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

/// Never, for what is remembered.
pub const FOREVER_MS: i64 = 20 * 365 * 24 * HOUR_MS;

/// Beyond this the order of two records is not a matter of taste (T8): 10 s, and
/// the slack.
pub const APART_MS: i64 = 10_000;

pub fn device(number: u8) -> DeviceId {
    match number {
        0 => DeviceId::Text("a/device".into()),
        _ => DeviceId::Hex([number; 16]),
    }
}

pub fn devices() -> impl Iterator<Item = DeviceId> {
    (0..DEVICES).map(device)
}

/// What happens, before it is known when.
#[derive(Clone, Debug)]
pub enum What {
    Heartbeat(Option<u32>),
    GoingAway,
    Device(DeviceEvent),
    /// The connection is since `opened_ms` before or after the event.
    Opened {
        instance: Arc<str>,
        session: Arc<str>,
        opened_ms: Option<i64>,
        lease_ms: Option<u32>,
    },
    /// It names an opening at `opened_ms` before or after the event.
    Closed {
        instance: Arc<str>,
        session: Arc<str>,
        opened_ms: Option<i64>,
    },
    /// `started_ms` before or after the event.
    Alive {
        instance: Arc<str>,
        started_ms: Option<i64>,
        lease_ms: u32,
    },
    Scope(ScopeEvent),
}

/// How long after the event before it.
#[derive(Clone, Copy, Debug)]
pub enum Gap {
    Ms(i64),
    /// At some deadline that is still to come, and a little off.
    Deadline {
        which: u8,
        off_ms: i64,
    },
}

/// How its record comes.
#[derive(Clone, Copy, Debug)]
pub enum Sent {
    /// Its record is stamped so much later.
    Late(i64),
    /// Its sender's clock is ahead of the record by so much.
    Ahead(i64),
    /// It does not say when it happened.
    Unsaid,
}

#[derive(Clone)]
pub struct Step {
    pub gap: Gap,
    pub device: u8,
    pub what: What,
    pub sent: Sent,
    /// The same event once more, so much later.
    pub again: Option<i64>,
}

/// A line, so that a failing history can be read.
impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Step { gap, device, what, sent, again } = self;
        write!(f, "{gap:?} d{device} {what:?} {sent:?}")?;
        again.map_or(Ok(()), |again| write!(f, " again {again}"))
    }
}

/// A record in the log.
#[derive(Clone, Debug)]
pub struct Record {
    pub input: Input,
    pub offset: i64,
    /// Its timestamp, by the broker.
    pub written: i64,
    pub event: Event,
}

impl Record {
    pub fn queued(&self) -> Queued {
        Queued {
            offset: self.offset,
            timestamp: Timestamp(self.written),
            stamped_by_broker: true,
            relay: Relay::default(),
            content: Content::Event(self.event.clone()),
        }
    }

    /// J1.
    pub fn fact(&self) -> Fact {
        let at = self.event.occurred_at.map_or(self.written, |at| at.0.min(self.written));
        let (believed, sent) = (self.written, Some(self.written));
        Fact { at, believed, sent, body: self.event.body.clone() }
    }
}

/// The log of the three inputs, in the order in which it was written.
#[derive(Clone, Debug)]
pub struct History {
    pub rules: Rules,
    pub records: Vec<Record>,
    /// Until when it is looked at.
    pub end: i64,
}

fn name(of: &'static str, count: u8) -> impl Strategy<Value = Arc<str>> {
    (0..count).prop_map(move |number| format!("{of}{number}").into())
}

/// The empty name is none.
fn scope_name(of: &'static str) -> impl Strategy<Value = Arc<str>> {
    prop_oneof![6 => name(of, 2), 1 => Just(Arc::from(""))]
}

/// Odd ones too, so that deadlines must be rounded.
fn interval() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![
        3 => Just(None),
        1 => Just(Some(1)),
        3 => Just(Some(900)),
        2 => Just(Some(907)),
        1 => Just(Some(3_601)),
        1 => Just(Some(86_400)),
    ]
}

fn settings() -> impl Strategy<Value = Settings> {
    (interval(), any::<Option<bool>>())
        .prop_map(|(poll_interval_s, vpn_enabled)| Settings { poll_interval_s, vpn_enabled })
}

fn reason() -> impl Strategy<Value = FrozenReason> {
    (0..2_usize).prop_map(|index| FrozenReason::ALL[index * 2])
}

fn opened() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![
        3 => Just(None),
        1 => Just(Some(0)),
        1 => (-40 * MINUTE_MS..MINUTE_MS).prop_map(Some),
    ]
}

fn session_lease() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![
        3 => Just(None),
        1 => Just(Some(60_000)),
        1 => Just(Some(900_001)),
        1 => Just(Some(7_200_000)),
    ]
}

fn outcome() -> impl Strategy<Value = Option<UpdateOutcome>> {
    prop::option::of(prop_oneof![
        Just(UpdateOutcome::Succeeded),
        Just(UpdateOutcome::Failed),
        Just(UpdateOutcome::Aborted),
        Just(UpdateOutcome::Rejected),
    ])
}

fn phase() -> impl Strategy<Value = Option<UpdatePhase>> {
    prop::option::of(prop_oneof![
        Just(UpdatePhase::Downloading),
        Just(UpdatePhase::Downloaded),
        Just(UpdatePhase::Applying),
    ])
}

/// The empty name is none; there are as many as are remembered.
fn release() -> impl Strategy<Value = Arc<str>> {
    prop_oneof![1 => name("r", 2), 1 => Just(Arc::from(""))]
}

fn what() -> impl Strategy<Value = What> {
    let session = || (name("v", 2), prop_oneof![4 => name("s", 3), 1 => Just(Arc::from(""))]);
    let one = |event| What::Device(event);
    let started = prop_oneof![
        2 => Just(None),
        4 => (0..3_i64).prop_map(|number| Some(-number * 20 * MINUTE_MS)),
        1 => Just(Some(1)),
    ];
    let lease = prop_oneof![Just(60_000_u32), Just(600_000), Just(900_001), Just(3_600_000)];
    let device_frozen = prop_oneof![
        3 => reason().prop_map(|reason| DeviceEvent::Frozen { reason }),
        4 => prop::option::of(reason()).prop_map(|reason| DeviceEvent::Unfrozen { reason }),
    ];
    let registered = (scope_name("f"), scope_name("o"), prop::bool::weighted(0.3)).prop_map(
        |(fleet, organization, preregistered)| DeviceEvent::Registered {
            fleet,
            organization,
            preregistered,
        },
    );
    let moved = (scope_name("f"), scope_name("o"))
        .prop_map(|(fleet, organization)| DeviceEvent::Moved { fleet, organization });
    let percent = || 0..=100_u8;
    prop_oneof![
        24 => interval().prop_map(What::Heartbeat),
        2 => Just(What::GoingAway),
        16 => (session(), opened(), session_lease()).prop_map(|((instance, session), opened_ms, lease_ms)| {
            What::Opened { instance, session, opened_ms, lease_ms }
        }),
        8 => (session(), opened())
            .prop_map(|((instance, session), opened_ms)| What::Closed { instance, session, opened_ms }),
        6 => (name("v", 2), started, lease)
            .prop_map(|(instance, started_ms, lease_ms)| What::Alive { instance, started_ms, lease_ms }),
        2 => name("v", 2).prop_map(|instance| What::Scope(ScopeEvent::InstanceLost { instance })),
        8 => registered.prop_map(one),
        4 => moved.prop_map(one),
        3 => Just(one(DeviceEvent::Provisioned)),
        2 => Just(one(DeviceEvent::Activated)),
        3 => Just(one(DeviceEvent::Deactivated)),
        6 => device_frozen.prop_map(one),
        3 => Just(one(DeviceEvent::ConfigurationStarted)),
        1 => percent().prop_map(move |percent| one(DeviceEvent::ConfigurationProgressed { percent })),
        2 => outcome().prop_map(move |outcome| one(DeviceEvent::ConfigurationFinished { outcome })),
        3 => name("r", 2).prop_map(move |release| one(DeviceEvent::UpdateStarted { release })),
        1 => (percent(), phase(), release()).prop_map(move |(percent, phase, release)| {
            one(DeviceEvent::UpdateProgressed { percent, phase, release })
        }),
        2 => (release(), outcome())
            .prop_map(move |(release, outcome)| one(DeviceEvent::UpdateFinished { release, outcome })),
        4 => settings().prop_map(move |settings| one(DeviceEvent::SettingsChanged(settings))),
        5 => Just(one(DeviceEvent::Deleted)),
        3 => (scope_name("f"), settings())
            .prop_map(|(fleet, settings)| What::Scope(ScopeEvent::FleetSettingsChanged { fleet, settings })),
        3 => (scope_name("f"), reason())
            .prop_map(|(fleet, reason)| What::Scope(ScopeEvent::FleetFrozen { fleet, reason })),
        4 => (scope_name("f"), prop::option::of(reason()))
            .prop_map(|(fleet, reason)| What::Scope(ScopeEvent::FleetUnfrozen { fleet, reason })),
        2 => (scope_name("o"), reason())
            .prop_map(|(organization, reason)| What::Scope(ScopeEvent::OrganizationFrozen { organization, reason })),
        3 => (scope_name("o"), prop::option::of(reason())).prop_map(
            |(organization, reason)| What::Scope(ScopeEvent::OrganizationUnfrozen { organization, reason })
        ),
    ]
}

/// Gaps that come close to one another and to deadlines.
fn close_gap() -> impl Strategy<Value = Gap> {
    let off = prop_oneof![
        6 => -1..=1_i64,
        1 => Just(10_000),
        1 => Just(-10_000),
        1 => -12_500..12_500_i64,
    ];
    prop_oneof![
        3 => Just(Gap::Ms(0)),
        2 => Just(Gap::Ms(1)),
        3 => (1..15_000_i64).prop_map(Gap::Ms),
        4 => (1..30 * MINUTE_MS).prop_map(Gap::Ms),
        1 => (1..20 * HOUR_MS).prop_map(Gap::Ms),
        6 => (any::<u8>(), off).prop_map(|(which, off_ms)| Gap::Deadline { which, off_ms }),
    ]
}

fn wide_gap() -> impl Strategy<Value = Gap> {
    prop_oneof![
        6 => (1..8 * MINUTE_MS).prop_map(Gap::Ms),
        4 => (1..30 * MINUTE_MS).prop_map(Gap::Ms),
        1 => (1..20 * HOUR_MS).prop_map(Gap::Ms),
        4 => (any::<u8>(), Just(0)).prop_map(|(which, off_ms)| Gap::Deadline { which, off_ms }),
    ]
}

fn sent() -> impl Strategy<Value = Sent> {
    prop_oneof![
        12 => Just(Sent::Late(0)),
        3 => (0..2_000_i64).prop_map(Sent::Late),
        2 => (0..3 * HOUR_MS).prop_map(Sent::Late),
        1 => (0..3 * HOUR_MS).prop_map(Sent::Ahead),
        1 => Just(Sent::Unsaid),
    ]
}

fn step(gap: impl Strategy<Value = Gap>) -> impl Strategy<Value = Step> {
    let again = prop_oneof![6 => Just(None), 1 => (0..2 * HOUR_MS).prop_map(Some)];
    (gap, 0..DEVICES, what(), sent(), again).prop_map(|(gap, device, what, sent, again)| Step {
        gap,
        device,
        what,
        sent,
        again,
    })
}

pub fn close_steps(count: usize) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(close_gap()), 1..count)
}

pub fn wide_steps(count: usize) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(wide_gap()), 1..count)
}

/// Tolerances are such that the product with an interval is exact.
pub fn rules() -> impl Strategy<Value = Rules> {
    (
        prop_oneof![3 => Just(1.5), 1 => Just(1.0), 1 => Just(2.25)],
        prop_oneof![2 => Just(600_000), 1 => Just(60_000), 1 => Just(601_001)],
        prop_oneof![3 => Just(15_000), 1 => Just(0), 1 => Just(1), 1 => Just(40_000)],
        prop_oneof![2 => Just(900_000), 1 => Just(700_001)],
        prop_oneof![2 => Just(2_000), 2 => Just(0), 1 => Just(500)],
        prop_oneof![3 => Just(30 * MINUTE_MS), 1 => Just(5 * MINUTE_MS)],
        prop::bool::weighted(0.8),
        prop_oneof![3 => Just(15 * MINUTE_MS), 1 => Just(0)],
    )
        .prop_map(
            |(tolerance, minimum_ms, grace_ms, default, slack_ms, replay_window_ms, vpn, delay)| {
                Rules {
                    vpn_enabled_by_default: vpn,
                    max_lease_delay_ms: delay,
                    tolerance,
                    minimum_ms,
                    grace_ms,
                    default_poll_interval_ms: default,
                    slack_ms,
                    replay_window_ms,
                    tombstone_retention_ms: FOREVER_MS,
                    // Where time passes, an input is soon given up.
                    max_input_idle_ms: 500,
                    ..Rules::default()
                }
            },
        )
}

fn event(step: &Step, at: i64) -> (Input, EventBody) {
    let device = device(step.device);
    match &step.what {
        What::Heartbeat(poll_interval_s) => {
            let poll_interval_s = *poll_interval_s;
            let going_away = false;
            (Input::Heartbeats, EventBody::Heartbeat { device, poll_interval_s, going_away })
        }
        What::GoingAway => {
            let body = EventBody::Heartbeat { device, poll_interval_s: None, going_away: true };
            (Input::Heartbeats, body)
        }
        What::Device(event) => {
            let input = match event {
                DeviceEvent::SessionOpened { .. } | DeviceEvent::SessionClosed { .. } => {
                    Input::VpnSessions
                }
                _ => Input::Lifecycle,
            };
            (input, EventBody::Device { device, event: event.clone() })
        }
        What::Opened { instance, session, opened_ms, lease_ms } => {
            let event = DeviceEvent::SessionOpened {
                instance: instance.clone(),
                session: session.clone(),
                opened_at: opened_ms.map(|opened_ms| Timestamp(at + opened_ms)),
                lease_ms: *lease_ms,
            };
            (Input::VpnSessions, EventBody::Device { device, event })
        }
        What::Closed { instance, session, opened_ms } => {
            let event = DeviceEvent::SessionClosed {
                instance: instance.clone(),
                session: session.clone(),
                opened_at: opened_ms.map(|opened_ms| Timestamp(at + opened_ms)),
            };
            (Input::VpnSessions, EventBody::Device { device, event })
        }
        What::Alive { instance, started_ms, lease_ms } => {
            let event = ScopeEvent::InstanceAlive {
                instance: instance.clone(),
                started_at: started_ms.map(|started_ms| Timestamp(at + started_ms)),
                lease_ms: *lease_ms,
            };
            (Input::VpnSessions, EventBody::Scope(event))
        }
        What::Scope(event) => {
            let input = match event {
                ScopeEvent::InstanceLost { .. } => Input::VpnSessions,
                _ => Input::Lifecycle,
            };
            (input, EventBody::Scope(event.clone()))
        }
    }
}

/// All deadlines of all devices, and all ends of leases.
fn all_deadlines(oracle: &Oracle) -> Vec<i64> {
    let mut deadlines: Vec<i64> =
        devices().flat_map(|device| oracle.deadlines_of(&device)).map(|(at, _)| at).collect();
    deadlines.extend(["v0", "v1"].iter().filter_map(|name| oracle.instance(name, i64::MAX).2));
    deadlines.sort_unstable();
    deadlines.dedup();
    deadlines
}

fn after(gap: Gap, now: i64, oracle: &Oracle) -> i64 {
    match gap {
        Gap::Ms(ms) => now + ms,
        Gap::Deadline { which, off_ms } => {
            let mut deadlines = all_deadlines(oracle);
            deadlines.retain(|deadline| deadline + off_ms >= now);
            let chosen = deadlines.get(usize::from(which) % deadlines.len().max(1));
            chosen.map_or(now + 1, |deadline| deadline + off_ms)
        }
    }
}

/// An event, its time and that of its record.
type Written = (i64, Input, Event);

fn in_log_order(mut written: Vec<Written>, rules: &Rules, tail: Gap) -> History {
    written.sort_by_key(|(at, ..)| *at);
    let mut offsets = [0; 3];
    let records: Vec<Record> = written
        .into_iter()
        .map(|(written, input, event)| {
            let offset = offsets[input.index()];
            offsets[input.index()] += 1;
            Record { input, offset, written, event }
        })
        .collect();
    let mut oracle = Oracle::new(rules);
    oracle.facts.extend(records.iter().map(Record::fact));
    let last = records.last().map_or(BASE_MS, |record| record.written);
    let end = after(tail, last, &oracle).max(last);
    History { rules: rules.clone(), records, end }
}

impl History {
    /// A history as it comes, deadlines and ties and all.
    pub fn close(steps: &[Step], rules: &Rules, tail: Gap) -> History {
        let mut oracle = Oracle::new(rules);
        let mut now = BASE_MS;
        let mut written: Vec<Written> = Vec::new();
        for step in steps {
            now = after(step.gap, now, &oracle);
            let (input, body) = event(step, now);
            let (occurred_at, at) = match step.sent {
                Sent::Late(late_ms) => (Some(now), now + late_ms),
                Sent::Ahead(ahead_ms) => (Some(now + ahead_ms), now),
                Sent::Unsaid => (None, now),
            };
            let event = Event { occurred_at: occurred_at.map(Timestamp), body };
            let body = event.body.clone();
            oracle.facts.push(Fact { at: now, believed: at, sent: Some(at), body });
            written.push((at, input, event.clone()));
            written.extend(step.again.map(|again_ms| (at + again_ms, input, event)));
        }
        in_log_order(written, rules, tail)
    }

    /// All events happen, and only then are their records written, in an order
    /// that has nothing to do with it.
    pub fn shuffled(steps: &[Step], rules: &Rules, order: &[(u16, Option<u16>)]) -> History {
        let straight = History::close(steps, rules, Gap::Ms(0));
        let after_all = straight.end + 1;
        let mut written = Vec::new();
        // The event time must not depend on the record's.
        for (record, (place, again)) in straight.records.iter().zip(order.iter().cycle()) {
            let fact = record.fact();
            let event =
                Event { occurred_at: Some(Timestamp(fact.at)), body: record.event.body.clone() };
            let at = |place: u16| after_all + i64::from(place);
            written.push((at(*place), record.input, event.clone()));
            written.extend(again.map(|again| (at(again), record.input, event)));
        }
        in_log_order(written, rules, Gap::Ms(200_000))
    }

    /// A history in which no record comes within 10 s and the slack of another,
    /// or of a deadline, so that only one sequence of changes is right (T8).
    /// Events may be late, by any time.
    pub fn wide(steps: &[Step], rules: &Rules, tail: Gap) -> History {
        let apart_ms = APART_MS + rules.slack_ms + 1;
        let mut oracle = Oracle::new(rules);
        let mut now = BASE_MS;
        let mut written: Vec<Written> = Vec::new();
        for step in steps {
            // A duplicate has the time of the first, which is then late.
            let mut first = None;
            for again_ms in [Some(0), step.again] {
                let Some(again_ms) = again_ms else { continue };
                let mut at = after(step.gap, now, &oracle).max(now + apart_ms) + again_ms;
                for deadline in all_deadlines(&oracle) {
                    if (at - deadline).abs() < apart_ms {
                        at = deadline + apart_ms;
                    }
                }
                let happened = first.unwrap_or_else(|| match step.sent {
                    Sent::Late(late_ms) => at - late_ms,
                    Sent::Ahead(ahead_ms) => at + ahead_ms,
                    Sent::Unsaid => at,
                });
                let (input, body) = event(step, happened.min(at));
                let said = !matches!(step.sent, Sent::Unsaid);
                let event = Event { occurred_at: said.then_some(Timestamp(happened)), body };
                let held = oracle.facts.len();
                oracle.facts.push(Fact {
                    at: if said { happened.min(at) } else { at },
                    believed: at,
                    sent: Some(at),
                    body: event.body.clone(),
                });
                let close = all_deadlines(&oracle)
                    .into_iter()
                    .any(|deadline| (at - deadline).abs() < apart_ms);
                let ties = devices().any(|device| {
                    let deadlines = oracle.deadlines_of(&device);
                    deadlines.windows(2).any(|pair| pair[0].0 == pair[1].0)
                });
                if close || ties {
                    oracle.facts.truncate(held);
                    continue;
                }
                first = Some(happened);
                now = at;
                written.push((at, input, event));
            }
        }
        let mut history = in_log_order(written, rules, tail);
        for deadline in all_deadlines(&oracle) {
            if (history.end - deadline).abs() < apart_ms {
                history.end = deadline + apart_ms;
            }
        }
        history
    }
}
