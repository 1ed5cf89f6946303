//! The one right sequence of changes of a history whose events and deadlines
//! are far enough apart (T8).

use std::collections::{BTreeMap, BTreeSet};

use device_status::shard::{Cause, DeviceId, EventBody, ScopeEvent, StatusChange};

use super::history::{History, devices};
use super::model::{Fact, Membership, Oracle, Row, Shown, cause_of};

/// What a change must say.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    pub version: u64,
    pub previous: Shown,
    pub current: Shown,
    pub since: i64,
    pub connectivity_since: i64,
    /// What came in at that instant: one of these is the cause.
    pub causes: BTreeSet<Cause>,
    pub fleet: String,
    pub organization: String,
    /// Where it was by the change before.
    pub previous_membership: (String, String),
    pub membership_since: i64,
    pub last_heartbeat: Option<i64>,
    pub vpn_connected: bool,
    pub progress: Option<u8>,
}

impl Expected {
    /// Whether this is how a change may be told.
    pub fn allows(&self, told: &Expected) -> bool {
        let causes = self.causes.clone();
        told.causes.is_subset(&causes) && Expected { causes, ..told.clone() } == *self
    }

    pub fn of(change: &StatusChange) -> Expected {
        Expected {
            version: change.version,
            previous: change.previous,
            current: change.current,
            since: change.since.0,
            connectivity_since: change.connectivity_since.0,
            causes: [change.cause].into(),
            fleet: change.fleet.as_deref().unwrap_or_default().to_owned(),
            organization: change.organization.as_deref().unwrap_or_default().to_owned(),
            previous_membership: (
                change.previous_fleet.as_deref().unwrap_or_default().to_owned(),
                change.previous_organization.as_deref().unwrap_or_default().to_owned(),
            ),
            membership_since: change.membership_since.0,
            last_heartbeat: change.last_heartbeat.map(|at| at.0),
            vpn_connected: change.vpn_connected,
            progress: change.progress,
        }
    }
}

struct Told {
    shown: Shown,
    /// Fleet and organization, as last told.
    membership: Membership,
    membership_since: i64,
    since: i64,
    connectivity_since: i64,
    changes: Vec<Expected>,
    emitted: Vec<Expected>,
    /// The earliest fact that came in since the last change of the status.
    news: i64,
    /// The same since the last change of the connectivity.
    connectivity_news: i64,
    /// What is looked at came late.
    late: bool,
    /// What is looked at came in just now: it is the last of the facts.
    came: bool,
    /// Deadlines up to here have passed.
    passed: i64,
}

/// Every device's changes, told from the whole history.
///
/// Of an event that came late, a row no longer knows all that was before it:
/// registers hold the latest only. There `emitted` may say a later `since`, if
/// the status held then too, and something came in at that instant; and, where
/// some register did hold something else before, also an earlier one. Of a session
/// that was opened late, nobody knows whether the lease of its time had run out.
pub fn sequences(
    history: &History,
    emitted: &dyn Fn(&DeviceId) -> Vec<Expected>,
) -> BTreeMap<DeviceId, Vec<Expected>> {
    let mut oracle = Oracle::new(&history.rules);
    let new = |device| Told {
        shown: None,
        membership: nowhere(),
        membership_since: 0,
        since: 0,
        connectivity_since: 0,
        changes: Vec::new(),
        emitted: emitted(&device),
        news: i64::MAX,
        connectivity_news: i64::MAX,
        late: false,
        came: false,
        passed: 0,
    };
    let mut told: BTreeMap<DeviceId, Told> =
        devices().map(|device| (device.clone(), new(device))).collect();
    // What the clock comes to, when it has read everything.
    let clock = history.end - history.rules.slack_ms;
    for record in &history.records {
        for device in devices() {
            pass_deadlines(
                &oracle,
                &device,
                told.get_mut(&device).expect("all devices are told of"),
                record.written,
            );
        }
        let fact = record.fact();
        let dated = oracle.dated(&fact);
        let late = dated < record.written;
        let trigger = match &fact.body {
            EventBody::Heartbeat { going_away: true, .. } => (fact.at, Cause::HeartbeatEnded),
            EventBody::Heartbeat { .. } => (fact.at, Cause::Heartbeat),
            EventBody::Device { event, .. } => (dated, cause_of(event)),
            EventBody::Scope(event) => match event {
                // A restart ends sessions when it was, not when it was told.
                ScopeEvent::InstanceAlive { instance, started_at, .. } => {
                    let (_, held, _) = oracle.instance(instance, i64::MAX);
                    match started_at {
                        Some(start) if start.0 <= fact.believed && Some(start.0) > held => {
                            (start.0, Cause::VpnInstanceLost)
                        }
                        _ => (fact.at, Cause::VpnInstanceAlive),
                    }
                }
                ScopeEvent::InstanceLost { .. } => (fact.at, Cause::VpnInstanceLost),
                ScopeEvent::FleetSettingsChanged { .. } => (fact.at, Cause::SettingsChanged),
                ScopeEvent::FleetFrozen { .. } | ScopeEvent::OrganizationFrozen { .. } => {
                    (fact.at, Cause::Frozen)
                }
                ScopeEvent::FleetUnfrozen { .. } | ScopeEvent::OrganizationUnfrozen { .. } => {
                    (fact.at, Cause::Unfrozen)
                }
            },
        };
        let whose = match &fact.body {
            EventBody::Heartbeat { device, .. } | EventBody::Device { device, .. } => {
                Some(device.clone())
            }
            EventBody::Scope(_) => None,
        };
        oracle.facts.push(fact);
        for device in devices() {
            let told = told.get_mut(&device).expect("all devices are told of");
            if whose.as_ref().is_none_or(|whose| *whose == device) {
                told.news = told.news.min(trigger.0);
                told.connectivity_news = told.connectivity_news.min(trigger.0);
            }
            (told.late, told.came) = (late, true);
            look(&oracle, &device, told, record.written, trigger);
            (told.late, told.came) = (false, false);
        }
    }
    for device in devices() {
        let told = told.get_mut(&device).expect("all devices are told of");
        pass_deadlines(&oracle, &device, told, clock + 1);
    }
    told.into_iter().map(|(device, told)| (device, told.changes)).collect()
}

fn nowhere() -> Membership {
    ("".into(), "".into())
}

/// The deadlines before `until`, each at its own instant. Those that passed
/// long ago change nothing any more.
fn pass_deadlines(oracle: &Oracle, device: &DeviceId, told: &mut Told, until: i64) {
    for (at, cause) in oracle.deadlines_of(device) {
        if at < until && at > told.passed {
            look(oracle, device, told, at, (at, cause));
        }
    }
    told.passed = until;
}

/// Tells a change, if there is one at this instant.
fn look(oracle: &Oracle, device: &DeviceId, told: &mut Told, now: i64, trigger: (i64, Cause)) {
    let row = oracle.row(device);
    let current = oracle.shown(&row, now, now);
    // J8: a deletion names what it ends.
    let membership = match (current, &row.membership) {
        (Some(_), Some((_, names))) => names.clone(),
        (Some(_), None) => nowhere(),
        (None, _) => told.membership.clone(),
    };
    let moved = told.shown.is_some() && membership != told.membership;
    if current == told.shown && !moved {
        return;
    }
    let before = if told.shown.is_some() { told.membership.clone() } else { nowhere() };
    told.membership = membership;
    let previous = told.shown;
    // What a restart ended, it ended before anybody was told.
    let told_late = trigger.1 == Cause::VpnInstanceLost && trigger.0 < now;
    let late = told.late || told_late && !Oracle::vpn_up(&row, now);
    let status = |shown: Shown| shown.map(|(status, _)| status);
    let connectivity = |shown: Shown| shown.map(|(_, connectivity)| connectivity);
    let mut causes = BTreeSet::from([if current == previous { Cause::Moved } else { trigger.1 }]);
    if connectivity(current) != connectivity(previous) || current.is_none() {
        let holds = |shown: Shown| connectivity(shown) == connectivity(current);
        let floor = told.connectivity_since;
        let emitted = told
            .emitted
            .get(told.changes.len())
            .filter(|_| late)
            .map(|change| change.connectivity_since);
        let news = (told.connectivity_news, told.came);
        (told.connectivity_since, causes) =
            date(oracle, device, floor, now, trigger, news, emitted, &holds);
        told.connectivity_news = i64::MAX;
    }
    if status(current) != status(previous) || current.is_none() {
        let holds = |shown: Shown| status(shown) == status(current);
        let emitted =
            told.emitted.get(told.changes.len()).filter(|_| late).map(|change| change.since);
        (told.since, causes) =
            date(oracle, device, told.since, now, trigger, (told.news, told.came), emitted, &holds);
        told.news = i64::MAX;
    }
    // J8: in the first change of a life, since that; else since the event, never back.
    if previous.is_none() {
        told.membership_since = told.membership_since.max(told.since);
    } else if moved && let Some((at, _)) = &row.membership {
        told.membership_since = told.membership_since.max((*at).min(now));
    }
    told.shown = current;
    told.changes.push(expected(told, previous, before, causes, &row, now));
}

fn expected(
    told: &Told,
    previous: Shown,
    before: Membership,
    causes: BTreeSet<Cause>,
    row: &Row,
    now: i64,
) -> Expected {
    let current = told.shown;
    let (fleet, organization) = told.membership.clone();
    Expected {
        version: told.changes.len() as u64 + 1,
        previous,
        current,
        since: told.since,
        connectivity_since: told.connectivity_since,
        causes,
        fleet: fleet.to_string(),
        organization: organization.to_string(),
        previous_membership: (before.0.to_string(), before.1.to_string()),
        membership_since: told.membership_since,
        last_heartbeat: row.heartbeat.map(|(at, _)| at),
        vpn_connected: Oracle::vpn_up(row, now),
        progress: Oracle::progress(row, current),
    }
}

/// Since when what holds now has held, had everything been known in time, but
/// not before `floor`; and what came in then (J9). `news`: the earliest fact that
/// came in since `floor` was told.
#[allow(clippy::too_many_arguments, reason = "each is a part of the rule")]
fn date(
    oracle: &Oracle,
    device: &DeviceId,
    floor: i64,
    now: i64,
    trigger: (i64, Cause),
    (news, came): (i64, bool),
    emitted: Option<i64>,
    holds: &dyn Fn(Shown) -> bool,
) -> (i64, BTreeSet<Cause>) {
    let instants = oracle.instants(device);
    // Until the earliest fact that was not known then, what was told stands.
    let news = trigger.0.min(news);
    let start = news.max(floor);
    // Floored, it may be the doing of anything that came in between.
    let between = instants.iter().filter(|(at, _)| news <= *at && *at <= start);
    // What an announcement takes away, the end of its lease does, which was over then.
    let announced =
        |fact: &Fact| matches!(fact.body, EventBody::Scope(ScopeEvent::InstanceAlive { .. }));
    let over =
        (came && oracle.facts.last().is_some_and(announced)).then_some(Cause::VpnLeaseExpired);
    let causes = between.map(|(_, cause)| *cause).chain([trigger.1]).chain(over);
    let mut found = (start, causes.collect::<BTreeSet<_>>());
    // Until what came in just now, by what was known before it.
    let before = came.then(|| {
        let mut before = oracle.clone();
        before.facts.pop();
        before
    });
    let holds_at = |at: i64| {
        let oracle = before.as_ref().filter(|_| at < trigger.0).unwrap_or(oracle);
        let row = oracle.row_as_of(device, at);
        holds(oracle.shown(&row, at, at))
    };
    let mut held = holds_at(start);
    for (at, _) in instants.range((start + 1, Cause::Deleted)..) {
        if *at > now {
            break;
        }
        let holds_then = holds_at(*at);
        if holds_then && !held {
            let causes = instants.iter().filter(|(then, _)| then == at);
            found = (*at, causes.map(|(_, cause)| *cause).collect());
        }
        held = holds_then;
    }
    if let Some(emitted) = emitted
        && start <= emitted
        && (found.0 < emitted || trigger.1 == Cause::VpnOpened || oracle.has_superseded(device))
        && emitted <= now
        && (emitted == start || instants.iter().any(|(at, _)| *at == emitted))
    {
        let causes = instants.iter().filter(|(at, _)| *at == emitted);
        let causes = causes.map(|(_, cause)| *cause).chain(found.1).chain([trigger.1]).chain(over);
        return (emitted, causes.collect());
    }
    found
}
