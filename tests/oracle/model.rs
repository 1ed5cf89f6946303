//! The oracle: what a device's status is, by the words of docs/statuses.md and of the
//! rules, recomputed from the whole history each time it is asked.
//!
//! It shares nothing with `src/shard` but the names of events and statuses. It
//! holds no row: it keeps every event, and a question is answered by looking at
//! all of them again. So it is slow, and has no order of arrival to go wrong by.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use device_status::shard::{
    Cause, Connectivity, DeviceEvent, DeviceId, EventBody, FrozenReason, HeartbeatState, Rules,
    ScopeEvent, Settings, Status, UpdateOutcome, UpdatePhase,
};

pub type Shown = Option<(Status, Connectivity)>;

/// Fleet and organization; the empty name is none.
pub type Membership = (Arc<str>, Arc<str>);

/// An event as it was read.
#[derive(Clone, Debug)]
pub struct Fact {
    /// Its event time (J1).
    pub at: i64,
    /// The time of its record.
    pub believed: i64,
    /// When it was sent, for leases: the time of its record, or of its source's;
    /// not of one that was a dead letter (J4).
    pub sent: Option<i64>,
    pub body: EventBody,
}

/// What is known, and by which numbers it is judged.
#[derive(Clone, Debug)]
pub struct Oracle {
    pub rules: Rules,
    pub facts: Vec<Fact>,
}

/// A session that is open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpenSession {
    pub instance: Arc<str>,
    pub session: Arc<str>,
    /// Its latest opening.
    pub opened_at: i64,
    /// Neither a loss nor a restart of its instance has ended it.
    pub may_count: bool,
    /// The end of its own lease.
    pub own_lease_end: Option<i64>,
    /// The first that ends, of its own lease and its instance's.
    pub lease_end: Option<i64>,
}

/// What was said of a session (J4), each in the order of the log.
#[derive(Clone, Debug, Default)]
struct Said {
    /// Opened or closed, by openings and by closes that name none.
    state: Option<Two>,
    /// The latest opening: its own time, and since when the connection is.
    opening: Option<(i64, i64)>,
    /// The greatest opening that a close names, and the time of such a close.
    ended: Option<(i64, i64)>,
    /// The opening that counts latest: when, its own time, its lease.
    lease: Option<(i64, (i64, Option<u32>))>,
}

impl Said {
    /// When it was closed, if it is.
    fn closed(&self) -> Option<i64> {
        let plain = self.state.filter(|state| !state.value).map(|state| state.at);
        let named = self
            .ended
            .filter(|(until, _)| self.opening.is_none_or(|(_, connected)| connected <= *until));
        plain.max(named.map(|(_, at)| at))
    }

    fn lease_end(&self) -> Option<i64> {
        let (counted, (_, lease_ms)) = self.lease?;
        lease_ms.map(|lease_ms| counted + i64::from(lease_ms))
    }
}

/// Of announcements and openings, the one that counts latest; one that says what
/// is held is a duplicate (J4).
fn counts<T: PartialEq>(held: &mut Option<(i64, T)>, counted: i64, said: T) {
    if held.as_ref().is_none_or(|(_, held)| *held != said) {
        latest(held, counted, said);
    }
}

/// What a device was told of intervals, in the order of the log: its settings, and
/// the fleets that it was in.
#[derive(Default)]
struct Told {
    settings: Vec<(i64, Settings)>,
    fleets: Vec<(i64, Arc<str>)>,
}

/// Something that is started, goes on, and is finished (J2, J12): what was said of
/// it, each in the order of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The last start, with its release.
    pub started: Option<(i64, Arc<str>)>,
    /// Starts, `true`, and finishes, with the releases that they name.
    ends: Vec<(i64, Arc<str>, bool)>,
    outcomes: Vec<(i64, Arc<str>, Option<UpdateOutcome>)>,
    percents: Vec<(i64, Arc<str>, u8)>,
    phases: Vec<(i64, Arc<str>, UpdatePhase)>,
}

impl Progress {
    fn start(&mut self, at: i64, release: Arc<str>) {
        latest(&mut self.started, at, release.clone());
        self.ends.push((at, release, true));
    }

    fn finish(&mut self, at: i64, release: Arc<str>, outcome: Option<UpdateOutcome>) {
        self.ends.push((at, release.clone(), false));
        self.outcomes.push((at, release, outcome));
    }

    /// Whether what names a release, or none, is about what was started last.
    fn concerns(&self, release: &str) -> bool {
        let started = self.started.as_ref();
        started.is_some_and(|(_, started)| release.is_empty() || *release == **started)
    }

    /// Started or finished; a start says so of its own release only.
    fn state(&self) -> Option<Two> {
        let (_, started) = self.started.as_ref()?;
        let mut state = None;
        for (at, release, value) in &self.ends {
            if if *value { release == started } else { self.concerns(release) } {
                see(&mut state, *at, *value);
            }
        }
        state
    }

    pub fn in_progress(&self) -> bool {
        self.state().is_some_and(|state| state.value)
    }

    /// The latest that is not older than the start.
    fn last<T: Clone>(&self, said: &[(i64, Arc<str>, T)]) -> Option<(i64, T)> {
        let (started, _) = self.started.as_ref()?;
        let mut held = None;
        for (at, release, value) in said {
            if at >= started && self.concerns(release) {
                latest(&mut held, *at, value.clone());
            }
        }
        held
    }

    fn shown(&self) -> Option<u8> {
        self.last(&self.percents).map(|(_, percent)| percent)
    }

    /// The phase, while it is in progress.
    pub fn phase(&self) -> Option<UpdatePhase> {
        self.last(&self.phases).filter(|_| self.in_progress()).map(|(_, phase)| phase)
    }

    /// How it ended, once it did, and since when it is as it is.
    pub fn outcome(&self) -> Option<(Option<UpdateOutcome>, i64)> {
        let (started, _) = self.started.as_ref()?;
        if self.in_progress() {
            return Some((None, *started));
        }
        self.last(&self.outcomes).map(|(at, outcome)| (outcome, at))
    }
}

/// All that there is to know of a device, at some instant.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub deleted: Option<i64>,
    pub registered: Option<i64>,
    pub provisioned: Option<i64>,
    /// Activated or deactivated.
    pub active: Option<Two>,
    pub activated: Option<i64>,
    pub preregistered: Option<Two>,
    pub membership: Option<(i64, Membership)>,
    pub settings: Option<(i64, Settings)>,
    pub fleet_settings: Option<(i64, Settings)>,
    /// The interval it carried, and whether it said that its device goes down.
    pub heartbeat: Option<(i64, (Option<u32>, bool))>,
    pub last_opening: Option<i64>,
    pub sessions: Vec<OpenSession>,
    pub closed: BTreeMap<(Arc<str>, Arc<str>), i64>,
    pub frozen: BTreeMap<FrozenReason, Option<Two>>,
    pub scope_frozen: bool,
    pub configuration: Progress,
    pub update: Progress,
    pub interval_ms: i64,
    pub vpn_disabled: bool,
}

/// A register of two values (J2): of one instant, a value that was not yet seen
/// wins. What it is told must be told in the order of its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Two {
    pub at: i64,
    pub value: bool,
    both_seen: bool,
}

fn see(register: &mut Option<Two>, at: i64, value: bool) {
    match register {
        Some(held) if at < held.at => {}
        Some(held) if at == held.at => {
            if held.value != value && !held.both_seen {
                (held.value, held.both_seen) = (value, true);
            }
        }
        _ => *register = Some(Two { at, value, both_seen: false }),
    }
}

/// Whether an event says where its device belongs.
fn names_where(body: &EventBody) -> bool {
    use DeviceEvent::{Moved, Registered};
    matches!(body, EventBody::Device { event: Registered { .. } | Moved { .. }, .. })
}

/// Poll intervals are in whole seconds (J3).
fn in_ms(seconds: u32) -> i64 {
    i64::from(seconds) * 1_000
}

fn later(register: &mut Option<i64>, at: i64) {
    *register = (*register).max(Some(at));
}

/// Names, settings, percentages, heartbeats: of one instant, the later in the log
/// wins (J2).
fn latest<T>(register: &mut Option<(i64, T)>, at: i64, value: T) {
    if register.as_ref().is_none_or(|(held, _)| *held <= at) {
        *register = Some((at, value));
    }
}

fn later_frozen(
    registers: &mut BTreeMap<FrozenReason, Option<Two>>,
    at: i64,
    reason: Option<FrozenReason>,
    frozen: bool,
) {
    for each in FrozenReason::ALL {
        if reason.is_none_or(|reason| reason == each) {
            see(registers.entry(each).or_default(), at, frozen);
        }
    }
}

fn any_frozen(registers: &BTreeMap<FrozenReason, Option<Two>>) -> bool {
    registers.values().flatten().any(|held| held.value)
}

impl Oracle {
    pub fn new(rules: &Rules) -> Oracle {
        Oracle { rules: rules.clone(), facts: Vec::new() }
    }

    /// How long a heartbeat counts as online.
    pub fn online_ms(&self, interval_ms: i64) -> i64 {
        let exact = self.rules.tolerance * interval_ms.max(self.rules.minimum_ms) as f64;
        let whole = exact as i64;
        if (whole as f64) < exact { whole + 1 } else { whole }
    }

    /// The row by all that is known.
    pub fn row(&self, device: &DeviceId) -> Row {
        self.row_as_of(device, i64::MAX)
    }

    /// The row by what had happened by `until`, whenever it was heard of.
    pub fn row_as_of(&self, device: &DeviceId, until: i64) -> Row {
        let mine = |fact: &&Fact| match &fact.body {
            EventBody::Heartbeat { device: whose, .. }
            | EventBody::Device { device: whose, .. } => {
                whose == device && (fact.at <= until || self.dated(fact) <= until)
            }
            EventBody::Scope(_) => false,
        };
        // J5: the greatest deletion is the floor; registered and deleted are one
        // register.
        let mut existence = None;
        let mut deleted: Option<(i64, usize)> = None;
        // Where what registrations tell was deleted last.
        let mut names_deleted = 0;
        for (place, fact) in self.facts.iter().enumerate().filter(|(_, fact)| mine(fact)) {
            match &fact.body {
                EventBody::Device { event: DeviceEvent::Deleted, .. } => {
                    let again = deleted.is_some_and(|(at, _)| at == fact.at);
                    let is_registered =
                        existence.is_some_and(|held: Two| held.value && held.at == fact.at);
                    let is_earlier = deleted.is_some_and(|(at, _)| fact.at < at);
                    if !(is_earlier || again && is_registered) {
                        names_deleted = place;
                    }
                    see(&mut existence, fact.at, false);
                    latest(&mut deleted, fact.at, place);
                }
                EventBody::Device { event: DeviceEvent::Registered { .. }, .. } => {
                    see(&mut existence, fact.at, true);
                }
                _ => {}
            }
        }
        let mut row = Row { deleted: deleted.map(|(at, _)| at), ..Row::default() };
        row.registered = existence.filter(|held| held.value).map(|held| held.at);
        let mut told = Told::default();
        let mut sessions: BTreeMap<(Arc<str>, Arc<str>), Said> = BTreeMap::new();
        // What is not later than the deletion does not exist, but what the lifecycle
        // says later in its log.
        let exists = |(place, fact): &(usize, &Fact)| {
            deleted.is_none_or(|(at, last)| {
                let last = if names_where(&fact.body) { names_deleted } else { last };
                fact.at > at || fact.at == at && is_lifecycle(&fact.body) && *place > last
            })
        };
        let mine = self.facts.iter().enumerate().filter(|(_, fact)| mine(fact));
        for (_, fact) in mine.filter(exists) {
            let at = fact.at;
            match &fact.body {
                EventBody::Heartbeat { poll_interval_s, going_away, .. } => {
                    latest(&mut row.heartbeat, at, (*poll_interval_s, *going_away));
                }
                EventBody::Device { event, .. } => match event {
                    DeviceEvent::SessionOpened { instance, session, opened_at, lease_ms } => {
                        let connected = opened_at.map_or(at, |opened_at| opened_at.0.min(at));
                        // One from before the deletion is contact right after it.
                        let contact = deleted.map_or(connected, |(d, _)| connected.max(d + 1));
                        later(&mut row.last_opening, contact);
                        let said = sessions.entry((instance.clone(), session.clone())).or_default();
                        see(&mut said.state, at, true);
                        latest(&mut said.opening, at, connected);
                        let counted = lease_ms.map_or(at, |_| self.counted(fact));
                        counts(&mut said.lease, counted, (at, *lease_ms));
                    }
                    DeviceEvent::SessionClosed { instance, session, opened_at } => {
                        let said = sessions.entry((instance.clone(), session.clone())).or_default();
                        match opened_at {
                            None => see(&mut said.state, at, false),
                            Some(opened_at) => {
                                said.ended = said.ended.max(Some((opened_at.0.min(at), at)));
                            }
                        }
                    }
                    DeviceEvent::Registered { fleet, organization, preregistered } => {
                        see(&mut row.preregistered, at, *preregistered);
                        latest(&mut row.membership, at, (fleet.clone(), organization.clone()));
                        told.fleets.push((at, fleet.clone()));
                    }
                    DeviceEvent::Moved { fleet, organization } => {
                        latest(&mut row.membership, at, (fleet.clone(), organization.clone()));
                        told.fleets.push((at, fleet.clone()));
                    }
                    DeviceEvent::Provisioned => later(&mut row.provisioned, at),
                    DeviceEvent::Activated => {
                        later(&mut row.activated, at);
                        see(&mut row.active, at, true);
                    }
                    DeviceEvent::Deactivated => see(&mut row.active, at, false),
                    DeviceEvent::Frozen { reason } => {
                        later_frozen(&mut row.frozen, at, Some(*reason), true);
                    }
                    DeviceEvent::Unfrozen { reason } => {
                        later_frozen(&mut row.frozen, at, *reason, false);
                    }
                    DeviceEvent::ConfigurationStarted => {
                        row.configuration.start(at, "".into());
                    }
                    DeviceEvent::ConfigurationProgressed { percent } => {
                        row.configuration.percents.push((at, "".into(), *percent));
                    }
                    DeviceEvent::ConfigurationFinished { outcome } => {
                        row.configuration.finish(at, "".into(), *outcome);
                    }
                    DeviceEvent::UpdateStarted { release } => {
                        row.update.start(at, release.clone());
                    }
                    DeviceEvent::UpdateProgressed { percent, phase, release } => {
                        row.update.percents.push((at, release.clone(), *percent));
                        let phase = phase.map(|phase| (at, release.clone(), phase));
                        row.update.phases.extend(phase);
                    }
                    DeviceEvent::UpdateFinished { release, outcome } => {
                        row.update.finish(at, release.clone(), *outcome);
                    }
                    DeviceEvent::SettingsChanged(settings) => {
                        latest(&mut row.settings, at, *settings);
                        told.settings.push((at, *settings));
                    }
                    DeviceEvent::Deleted => {}
                },
                EventBody::Scope(_) => {}
            }
        }
        let closed =
            sessions.iter().filter_map(|(name, said)| Some((name.clone(), said.closed()?)));
        row.closed = closed.collect();
        // Where it belonged before nobody remembers, so that nothing was the
        // doing of a scope that the device only came to later (J9).
        // Nor when a session was closed, where it was closed again.
        if until < i64::MAX {
            let now = self.row(device);
            row.closed.retain(|name, _| now.closed.get(name).is_none_or(|at| *at <= until));
            row.membership = now.membership.filter(|(at, _)| *at <= until);
        }
        let (fleet, organization) =
            row.membership.as_ref().map(|(_, names)| names.clone()).unwrap_or_default();
        row.fleet_settings = self.fleet_settings(&fleet, until);
        row.scope_frozen = self.scope_is_frozen(&fleet, &organization, until);
        let settings = [row.settings, row.fleet_settings];
        if let Some((at, (carried, _))) = row.heartbeat {
            row.interval_ms = carried.map_or_else(|| self.told_interval(&told, at, until), in_ms);
        }
        let vpn_enabled = settings.iter().flatten().find_map(|(_, value)| value.vpn_enabled);
        row.vpn_disabled = !vpn_enabled.unwrap_or(self.rules.vpn_enabled_by_default);
        for ((instance, session), said) in sessions {
            let Some((opened_at, _)) = said.opening else { continue };
            if row.closed.contains_key(&(instance.clone(), session.clone())) {
                continue;
            }
            let (lost, started, lease_end) = self.instance(&instance, until);
            let may_count = lost.is_none_or(|lost| opened_at > lost)
                && started.is_none_or(|started| opened_at >= started);
            let own_lease_end = said.lease_end();
            let lease_end = [lease_end, own_lease_end].into_iter().flatten().min();
            row.sessions.push(OpenSession {
                instance,
                session,
                opened_at,
                may_count,
                own_lease_end,
                lease_end,
            });
        }
        row
    }

    /// The interval that a device had been told when it polled at `at` (J3), by what
    /// had happened by `until`.
    fn told_interval(&self, told: &Told, at: i64, until: i64) -> i64 {
        let default_ms = self.rules.default_poll_interval_ms;
        let slack_ms = self.rules.slack_ms;
        let mut moments: BTreeSet<i64> = told
            .settings
            .iter()
            .map(|(at, _)| *at)
            .chain(told.fleets.iter().map(|f| f.0))
            .collect();
        moments.extend(self.scope_facts(until).filter_map(|(at, _, event)| {
            matches!(event, ScopeEvent::FleetSettingsChanged { .. }).then_some(at)
        }));
        // The longest that held at any moment within the slack of it.
        let near = |moment: &i64| at - slack_ms < *moment && *moment <= at + slack_ms;
        let within = moments.iter().copied().filter(near);
        let held: Vec<Option<i64>> = std::iter::once(at - slack_ms)
            .chain(within)
            .map(|moment| self.set_at(told, moment))
            .collect();
        if held.iter().any(Option::is_some) {
            let longest = held.iter().map(|set| set.unwrap_or(default_ms)).max();
            return longest.unwrap_or(default_ms);
        }
        // Enrolled just now: what was set first, if it was before it expired.
        let expiry = at + self.online_ms(default_ms) + self.rules.grace_ms;
        let later = moments.range(at + slack_ms + 1..).take_while(|moment| **moment < expiry);
        later
            .filter_map(|moment| self.set_at(told, *moment))
            .next()
            .map_or(default_ms, |set| set.max(default_ms))
    }

    /// The interval that was set at a moment: the device's, else that of the fleet
    /// that it was in.
    fn set_at(&self, told: &Told, moment: i64) -> Option<i64> {
        let mut settings = None;
        for (at, value) in told.settings.iter().filter(|(at, _)| *at <= moment) {
            latest(&mut settings, *at, *value);
        }
        let mut fleet = None;
        for (at, name) in told.fleets.iter().filter(|(at, _)| *at <= moment) {
            latest(&mut fleet, *at, name.clone());
        }
        let of_fleet = fleet.and_then(|(_, name)| self.fleet_settings(&name, moment));
        let set = [settings, of_fleet];
        set.iter().flatten().find_map(|(_, value)| value.poll_interval_s).map(in_ms)
    }

    /// By what time an event dates a change. That of an opening is since when its
    /// connection is, where nothing that is known of the session is later (J4).
    pub fn dated(&self, fact: &Fact) -> i64 {
        let EventBody::Device { device, event } = &fact.body else { return fact.at };
        let DeviceEvent::SessionOpened { instance, session, opened_at: Some(opened_at), .. } =
            event
        else {
            return fact.at;
        };
        let known = self.known_before(fact);
        let connected = opened_at.0.max(known.after_deletion(device, fact.at));
        if connected >= fact.at {
            return fact.at;
        }
        let since = |at: i64| connected < at && at <= fact.at;
        let (lost, started, lease_end) = known.instance(instance, fact.at);
        // What was said of the session, and its lease: that of the opening that counts
        // latest.
        let (mut said, mut own_lease) = (Vec::new(), None);
        for other in &known.facts {
            match &other.body {
                EventBody::Device { device: whose, event } if whose == device => match event {
                    DeviceEvent::SessionOpened {
                        instance: of, session: name, lease_ms, ..
                    } if (of, name) == (instance, session) => {
                        said.push(other.at);
                        let counted = lease_ms.map_or(other.at, |_| self.counted(other));
                        counts(&mut own_lease, counted, (other.at, *lease_ms));
                    }
                    DeviceEvent::SessionClosed { instance: of, session: name, .. }
                        if (of, name) == (instance, session) =>
                    {
                        said.push(other.at);
                    }
                    _ => {}
                },
                _ => {}
            }
        }
        // Not of one that its instance had ended.
        let may_count = |at: i64| lost.is_none_or(|lost| at > lost) && started <= Some(at);
        let own_lease = own_lease.filter(|(_, (opened_at, _))| may_count(*opened_at));
        let own_end =
            own_lease.and_then(|(counted, (_, lease_ms))| Some(counted + i64::from(lease_ms?)));
        let ends = [lost, started, lease_end, own_end];
        let mut later = ends.into_iter().flatten().chain(said);
        if later.any(since) { fact.at } else { connected }
    }

    /// The first millisecond after the last deletion of a device that is before `at`.
    fn after_deletion(&self, device: &DeviceId, at: i64) -> i64 {
        let deletions = self.facts.iter().filter(|fact| match &fact.body {
            EventBody::Device { device: whose, event: DeviceEvent::Deleted } => whose == device,
            _ => false,
        });
        let earlier = deletions.map(|fact| fact.at + 1).filter(|after| *after <= at);
        earlier.max().unwrap_or(i64::MIN)
    }

    /// What was known when a fact came in. What comes later dates no change that was
    /// told.
    fn known_before(&self, fact: &Fact) -> Oracle {
        let before = self.facts.iter().take_while(|other| !std::ptr::eq(*other, fact));
        Oracle { rules: self.rules.clone(), facts: before.cloned().collect() }
    }

    fn scope_facts(&self, until: i64) -> impl Iterator<Item = (i64, &Fact, &ScopeEvent)> {
        self.facts.iter().filter(move |fact| fact.at <= until).filter_map(|fact| match &fact.body {
            EventBody::Scope(event) => Some((fact.at, fact, event)),
            _ => None,
        })
    }

    pub fn fleet_settings(&self, name: &str, until: i64) -> Option<(i64, Settings)> {
        let mut held = None;
        for (at, _, event) in self.scope_facts(until) {
            match event {
                ScopeEvent::FleetSettingsChanged { fleet, settings }
                    if **fleet == *name && !name.is_empty() =>
                {
                    latest(&mut held, at, *settings);
                }
                _ => {}
            }
        }
        held
    }

    fn scope_is_frozen(&self, of_fleet: &str, of_organization: &str, until: i64) -> bool {
        let mut fleets = BTreeMap::new();
        let mut organizations = BTreeMap::new();
        for (at, _, event) in self.scope_facts(until) {
            match event {
                ScopeEvent::FleetFrozen { fleet, reason } if **fleet == *of_fleet => {
                    later_frozen(&mut fleets, at, Some(*reason), true);
                }
                ScopeEvent::FleetUnfrozen { fleet, reason } if **fleet == *of_fleet => {
                    later_frozen(&mut fleets, at, *reason, false);
                }
                ScopeEvent::OrganizationFrozen { organization, reason }
                    if **organization == *of_organization =>
                {
                    later_frozen(&mut organizations, at, Some(*reason), true);
                }
                ScopeEvent::OrganizationUnfrozen { organization, reason }
                    if **organization == *of_organization =>
                {
                    later_frozen(&mut organizations, at, *reason, false);
                }
                _ => {}
            }
        }
        !of_fleet.is_empty() && any_frozen(&fleets)
            || !of_organization.is_empty() && any_frozen(&organizations)
    }

    /// When an instance was lost, when it started, when its lease ends (J4). A
    /// start ends sessions when it was, not when it was announced; which lease
    /// is in force is a fact of the announcement.
    pub fn instance(&self, name: &str, until: i64) -> (Option<i64>, Option<i64>, Option<i64>) {
        let mut lost = None;
        let mut start = None;
        let mut announced = None;
        for fact in &self.facts {
            match &fact.body {
                EventBody::Scope(ScopeEvent::InstanceLost { instance })
                    if **instance == *name && fact.at <= until =>
                {
                    later(&mut lost, fact.at);
                }
                EventBody::Scope(ScopeEvent::InstanceAlive {
                    instance,
                    started_at: Some(started_at),
                    ..
                }) if **instance == *name && started_at.0 <= fact.believed => {
                    if started_at.0 <= until {
                        later(&mut start, started_at.0);
                    }
                    if fact.at <= until {
                        later(&mut announced, started_at.0);
                    }
                }
                _ => {}
            }
        }
        // With a start and without: what is held of each, and where it was read.
        let mut leases = [None, None];
        for (place, (at, fact, event)) in self.scope_facts(until).enumerate() {
            match event {
                ScopeEvent::InstanceAlive { instance, started_at, lease_ms }
                    if **instance == *name =>
                {
                    let of_start = started_at.is_none_or(|started_at| {
                        Some(started_at.0) == announced && started_at.0 <= fact.believed
                    });
                    let held = &mut leases[usize::from(started_at.is_none())];
                    let (said, counted) = ((at, *lease_ms), self.counted(fact));
                    if of_start
                        && held.is_none_or(|(held, _, what)| what != said && held <= counted)
                    {
                        *held = Some((counted, place, said));
                    }
                }
                _ => {}
            }
        }
        // Of two that say the same the first counts.
        let lease = match leases {
            [Some(one), Some(other)] if one.2 == other.2 => Some(one.min(other)),
            [one, other] => one.max(other),
        };
        (lost, start, lease.map(|(counted, _, (_, lease_ms))| counted + i64::from(lease_ms)))
    }

    /// From when on a lease runs that this event tells of (J4).
    fn counted(&self, fact: &Fact) -> i64 {
        let sent = fact.sent.map_or(fact.at, |sent| sent - self.rules.slack_ms);
        let late = fact.at < sent && sent <= fact.at + self.rules.max_lease_delay_ms;
        if late { sent } else { fact.at }
    }

    /// When the row's last heartbeat times out, and when it expires.
    pub fn deadlines(&self, row: &Row) -> Option<(i64, i64)> {
        let (at, (_, going_away)) = row.heartbeat?;
        if going_away {
            return None;
        }
        let timeout = at + self.online_ms(row.interval_ms);
        Some((timeout, timeout + self.rules.grace_ms))
    }

    pub fn heartbeat_state(&self, row: &Row, at: i64) -> HeartbeatState {
        match self.deadlines(row) {
            None if row.heartbeat.is_some() => HeartbeatState::Offline,
            None => HeartbeatState::Unknown,
            Some((timeout, _)) if at < timeout => HeartbeatState::Online,
            Some((_, expiry)) if at < expiry => HeartbeatState::Timeout,
            Some(_) => HeartbeatState::Offline,
        }
    }

    pub fn vpn_up(row: &Row, leases_at: i64) -> bool {
        row.sessions
            .iter()
            .any(|session| session.may_count && session.lease_end.is_none_or(|end| leases_at < end))
    }

    /// The ladder of docs/statuses.md. Heartbeats are judged at one instant and
    /// leases at another, as the second are fired by the clock only (J7).
    pub fn shown(&self, row: &Row, at: i64, leases_at: i64) -> Shown {
        let contact = row.heartbeat.map(|(at, _)| at).max(row.last_opening);
        let heard_of = contact.is_some() || row.registered.is_some() || row.provisioned.is_some();
        let deleted = row.deleted.is_some() && row.registered.is_none();
        if !heard_of || deleted {
            return None;
        }
        let vpn = Oracle::vpn_up(row, leases_at);
        let state = self.heartbeat_state(row, at);
        let connectivity = match (vpn, state) {
            (true, HeartbeatState::Online) => Connectivity::Full,
            (true, _) => Connectivity::VpnOnly,
            (false, HeartbeatState::Unknown | HeartbeatState::Offline) => Connectivity::None,
            (false, _) if row.vpn_disabled => Connectivity::Full,
            (false, _) => Connectivity::HeartbeatOnly,
        };
        let silent = |since: i64| contact.is_none_or(|contact| contact < since);
        // J10. What is at or before the deletion is not in the row.
        let deactivated = row.active.filter(|held| !held.value).map(|held| held.at);
        let preregistered = row.preregistered.is_some_and(|held| held.value)
            && contact.is_none()
            && row.activated.is_none();
        let polls = matches!(state, HeartbeatState::Online | HeartbeatState::Timeout);
        let status = if row.scope_frozen || any_frozen(&row.frozen) {
            Status::Frozen
        } else if preregistered || deactivated.is_some_and(silent) {
            Status::Inactive
        } else if row.provisioned.is_some_and(silent) {
            Status::PostProvisioning
        } else if contact.is_none() {
            Status::Configuring
        } else if !vpn && !polls {
            Status::Offline
        } else if row.configuration.in_progress() {
            Status::Configuring
        } else if row.update.in_progress() && polls {
            Status::Updating
        } else {
            Status::Online
        };
        Some((status, connectivity))
    }

    /// Percent of what is in progress, if it is what the device shows (J12).
    pub fn progress(row: &Row, shown: Shown) -> Option<u8> {
        let current = match shown?.0 {
            Status::Configuring => &row.configuration,
            Status::Updating => &row.update,
            _ => return None,
        };
        current.shown().filter(|_| current.in_progress())
    }

    /// The deadlines of a device by all that is known, with their causes.
    pub fn deadlines_of(&self, device: &DeviceId) -> Vec<(i64, Cause)> {
        let row = self.row(device);
        let mut deadlines = Vec::new();
        if let Some((timeout, expiry)) = self.deadlines(&row) {
            deadlines.push((timeout, Cause::HeartbeatTimedOut));
            deadlines.push((expiry, Cause::HeartbeatExpired));
        }
        let leases: BTreeSet<i64> = row
            .sessions
            .iter()
            .filter(|session| session.may_count)
            .filter_map(|session| session.lease_end)
            .collect();
        deadlines.extend(leases.into_iter().map(|end| (end, Cause::VpnLeaseExpired)));
        deadlines.sort_unstable();
        deadlines
    }

    /// Whether some register of a device, or of any scope, held something before
    /// that it no longer knows, heartbeats apart but where one hides another that
    /// nothing shows; or may have let go of a session that is over. A register of two values
    /// knows both (J9).
    pub fn has_superseded(&self, device: &DeviceId) -> bool {
        let mut registers: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
        let mut of_two: BTreeMap<String, BTreeSet<(i64, bool)>> = BTreeMap::new();
        for fact in &self.facts {
            for (key, value) in two_values(fact, device) {
                of_two.entry(key).or_default().insert((fact.at, value));
            }
        }
        let forgets = |seen: &BTreeSet<(i64, bool)>| {
            seen.iter().filter(|(_, value)| *value).count() > 1
                || seen.iter().filter(|(_, value)| !*value).count() > 1
        };
        let heartbeats = self.facts.iter().filter_map(|fact| match &fact.body {
            EventBody::Heartbeat { device: whose, going_away, .. } => {
                (whose == device).then_some(*going_away)
            }
            _ => None,
        });
        let (going, staying): (Vec<bool>, Vec<bool>) = heartbeats.partition(|going| *going);
        // Of a device that was deleted nothing was shown that tells of a heartbeat.
        let is_deleted = self.after_deletion(device, i64::MAX) > i64::MIN;
        let hides = !going.is_empty() && !staying.is_empty() || is_deleted && staying.len() > 1;
        if of_two.values().any(forgets) || hides {
            return true;
        }
        for fact in &self.facts {
            let keys = match &fact.body {
                EventBody::Device { device: whose, event } if whose == device => match event {
                    DeviceEvent::SessionOpened { .. }
                    | DeviceEvent::SessionClosed { .. }
                    | DeviceEvent::Frozen { .. }
                    | DeviceEvent::Unfrozen { .. }
                    | DeviceEvent::Activated
                    | DeviceEvent::Deactivated
                    | DeviceEvent::ConfigurationStarted
                    | DeviceEvent::ConfigurationFinished { .. } => continue,
                    DeviceEvent::Registered { .. } => {
                        vec!["registered".to_owned(), "membership".to_owned()]
                    }
                    DeviceEvent::Moved { .. } => vec!["membership".to_owned()],
                    other => vec![format!("{:?}", cause_of(other))],
                },
                EventBody::Heartbeat { .. } | EventBody::Device { .. } => continue,
                EventBody::Scope(event) => match event {
                    ScopeEvent::InstanceLost { .. }
                    | ScopeEvent::InstanceAlive { started_at: Some(_), .. } => return true,
                    ScopeEvent::InstanceAlive { instance, .. } => vec![format!("alive {instance}")],
                    ScopeEvent::FleetSettingsChanged { fleet, .. } => {
                        vec![format!("settings {fleet}")]
                    }
                    ScopeEvent::FleetFrozen { .. }
                    | ScopeEvent::FleetUnfrozen { .. }
                    | ScopeEvent::OrganizationFrozen { .. }
                    | ScopeEvent::OrganizationUnfrozen { .. } => continue,
                },
            };
            for key in keys {
                registers.entry(key).or_default().insert(fact.at);
            }
        }
        registers.values().any(|times| times.len() > 1)
    }

    /// Every instant at which a device can have come to be something else: the
    /// times of all its facts and of its scopes', and every deadline that any
    /// heartbeat or lease ever had.
    pub fn instants(&self, device: &DeviceId) -> BTreeSet<(i64, Cause)> {
        let mut instants = BTreeSet::new();
        let mut intervals: BTreeSet<i64> = [self.rules.default_poll_interval_ms].into();
        for fact in &self.facts {
            let settings = match &fact.body {
                EventBody::Device { event: DeviceEvent::SettingsChanged(settings), .. }
                | EventBody::Scope(ScopeEvent::FleetSettingsChanged { settings, .. }) => settings,
                _ => continue,
            };
            intervals.extend(settings.poll_interval_s.map(in_ms));
        }
        for fact in &self.facts {
            let at = fact.at;
            match &fact.body {
                EventBody::Heartbeat { device: whose, going_away: true, .. } if whose == device => {
                    instants.insert((at, Cause::HeartbeatEnded));
                }
                EventBody::Heartbeat { device: whose, poll_interval_s, .. } if whose == device => {
                    instants.insert((at, Cause::Heartbeat));
                    let carried: BTreeSet<i64> = poll_interval_s.map(in_ms).into_iter().collect();
                    let each = if carried.is_empty() { &intervals } else { &carried };
                    for interval_ms in each {
                        let timeout = at + self.online_ms(*interval_ms);
                        instants.insert((timeout, Cause::HeartbeatTimedOut));
                        instants.insert((timeout + self.rules.grace_ms, Cause::HeartbeatExpired));
                    }
                }
                EventBody::Device { device: whose, event } if whose == device => {
                    instants.insert((at, cause_of(event)));
                    if let DeviceEvent::SessionOpened { opened_at, lease_ms, .. } = event {
                        if let Some(opened_at) = opened_at {
                            let connected = opened_at.0.min(at);
                            let after = connected.max(self.after_deletion(device, at));
                            instants.extend([connected, after].map(|at| (at, Cause::VpnOpened)));
                        }
                        let end = lease_ms.map(|ms| self.counted(fact) + i64::from(ms));
                        instants.extend(end.map(|end| (end, Cause::VpnLeaseExpired)));
                    }
                }
                EventBody::Heartbeat { .. } | EventBody::Device { .. } => {}
                EventBody::Scope(event) => match event {
                    ScopeEvent::InstanceAlive { started_at, lease_ms, .. } => {
                        instants.insert((at, Cause::VpnInstanceAlive));
                        let end = self.counted(fact) + i64::from(*lease_ms);
                        instants.insert((end, Cause::VpnLeaseExpired));
                        instants.extend(started_at.map(|start| (start.0, Cause::VpnInstanceLost)));
                    }
                    ScopeEvent::InstanceLost { .. } => {
                        instants.insert((at, Cause::VpnInstanceLost));
                    }
                    ScopeEvent::FleetSettingsChanged { .. } => {
                        instants.insert((at, Cause::SettingsChanged));
                    }
                    ScopeEvent::FleetFrozen { .. } | ScopeEvent::OrganizationFrozen { .. } => {
                        instants.insert((at, Cause::Frozen));
                    }
                    ScopeEvent::FleetUnfrozen { .. } | ScopeEvent::OrganizationUnfrozen { .. } => {
                        instants.insert((at, Cause::Unfrozen));
                    }
                },
            }
        }
        instants
    }
}

/// What an event says to registers of two values: which, and what.
fn two_values(fact: &Fact, device: &DeviceId) -> Vec<(String, bool)> {
    let reasons = |scope: String, reason: Option<FrozenReason>, value: bool| {
        let held = FrozenReason::ALL.into_iter();
        held.filter(|each| reason.is_none_or(|reason| reason == *each))
            .map(|each| (format!("{scope} {each:?}"), value))
            .collect()
    };
    let one = |key: String, value: bool| vec![(key, value)];
    match &fact.body {
        EventBody::Device { device: whose, event } if whose == device => match event {
            DeviceEvent::SessionOpened { instance, session, .. } => {
                one(format!("session {instance} {session}"), true)
            }
            DeviceEvent::SessionClosed { instance, session, .. } => {
                one(format!("session {instance} {session}"), false)
            }
            DeviceEvent::Frozen { reason } => reasons("frozen".into(), Some(*reason), true),
            DeviceEvent::Unfrozen { reason } => reasons("frozen".into(), *reason, false),
            DeviceEvent::Activated => one("active".into(), true),
            DeviceEvent::Deactivated => one("active".into(), false),
            DeviceEvent::ConfigurationStarted => one("configuration".into(), true),
            DeviceEvent::ConfigurationFinished { .. } => one("configuration".into(), false),
            _ => Vec::new(),
        },
        EventBody::Heartbeat { .. } | EventBody::Device { .. } => Vec::new(),
        EventBody::Scope(event) => match event {
            ScopeEvent::FleetFrozen { fleet, reason } => {
                reasons(format!("fleet {fleet}"), Some(*reason), true)
            }
            ScopeEvent::FleetUnfrozen { fleet, reason } => {
                reasons(format!("fleet {fleet}"), *reason, false)
            }
            ScopeEvent::OrganizationFrozen { organization, reason } => {
                reasons(format!("organization {organization}"), Some(*reason), true)
            }
            ScopeEvent::OrganizationUnfrozen { organization, reason } => {
                reasons(format!("organization {organization}"), *reason, false)
            }
            _ => Vec::new(),
        },
    }
}

/// Whether an event of a device comes from the lifecycle input.
fn is_lifecycle(body: &EventBody) -> bool {
    match body {
        EventBody::Heartbeat { .. } | EventBody::Scope(_) => false,
        EventBody::Device { event, .. } => {
            !matches!(event, DeviceEvent::SessionOpened { .. } | DeviceEvent::SessionClosed { .. })
        }
    }
}

/// The cause that an event of one device gives to a change.
pub fn cause_of(event: &DeviceEvent) -> Cause {
    match event {
        DeviceEvent::SessionOpened { .. } => Cause::VpnOpened,
        DeviceEvent::SessionClosed { .. } => Cause::VpnClosed,
        DeviceEvent::Registered { .. } => Cause::Registered,
        DeviceEvent::Provisioned => Cause::Provisioned,
        DeviceEvent::Activated => Cause::Activated,
        DeviceEvent::Deactivated => Cause::Deactivated,
        DeviceEvent::Frozen { .. } => Cause::Frozen,
        DeviceEvent::Unfrozen { .. } => Cause::Unfrozen,
        DeviceEvent::ConfigurationStarted | DeviceEvent::ConfigurationProgressed { .. } => {
            Cause::ConfigurationStarted
        }
        DeviceEvent::ConfigurationFinished { .. } => Cause::ConfigurationFinished,
        DeviceEvent::UpdateStarted { .. } | DeviceEvent::UpdateProgressed { .. } => {
            Cause::UpdateStarted
        }
        DeviceEvent::UpdateFinished { .. } => Cause::UpdateFinished,
        DeviceEvent::SettingsChanged(_) => Cause::SettingsChanged,
        DeviceEvent::Moved { .. } => Cause::Moved,
        DeviceEvent::Deleted => Cause::Deleted,
    }
}
