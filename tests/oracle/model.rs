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
    ScopeEvent, Settings, Status,
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
    pub body: EventBody,
}

/// What is known, and by which numbers it is judged.
#[derive(Clone, Debug)]
pub struct Oracle {
    pub rules: Rules,
    pub facts: Vec<Fact>,
}

/// A session that was opened and never closed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpenSession {
    pub instance: Arc<str>,
    pub session: Arc<str>,
    pub opened_at: i64,
    /// Neither a loss nor a restart of its instance has ended it.
    pub may_count: bool,
    pub lease_end: Option<i64>,
}

/// What was started, how far it is, and when it was finished (J2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub started: Option<(i64, Arc<str>)>,
    pub finished: Option<i64>,
    pub percent: Option<(i64, u8)>,
}

impl Progress {
    fn in_progress(&self) -> bool {
        match (&self.started, self.finished) {
            (Some((started, _)), Some(finished)) => *started > finished,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    fn shown(&self) -> Option<u8> {
        let (started, _) = self.started.as_ref()?;
        self.percent.filter(|(at, _)| at >= started).map(|(_, percent)| percent)
    }
}

/// What a device was told of intervals, in the order of the log: its settings, and
/// the fleets that it was in.
#[derive(Default)]
struct Told {
    settings: Vec<(i64, Settings)>,
    fleets: Vec<(i64, Arc<str>)>,
}

/// All that there is to know of a device, at some instant.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub deleted: Option<i64>,
    pub registered: Option<i64>,
    pub provisioned: Option<i64>,
    pub activated: Option<i64>,
    pub deactivated: Option<i64>,
    pub preregistered: Option<(i64, bool)>,
    pub membership: Option<(i64, Membership)>,
    pub settings: Option<(i64, Settings)>,
    pub fleet_settings: Option<(i64, Settings)>,
    pub heartbeat: Option<(i64, Option<u32>)>,
    pub last_opening: Option<i64>,
    pub sessions: Vec<OpenSession>,
    pub closed: BTreeMap<(Arc<str>, Arc<str>), i64>,
    pub frozen: BTreeMap<FrozenReason, (i64, bool)>,
    pub scope_frozen: bool,
    pub configuration: Progress,
    pub update: Progress,
    pub interval_ms: i64,
    pub vpn_disabled: bool,
}

fn latest<T>(register: &mut Option<(i64, T)>, at: i64, value: T) {
    if register.as_ref().is_none_or(|(held, _)| *held <= at) {
        *register = Some((at, value));
    }
}

fn later<T: Ord>(register: &mut Option<T>, value: T) {
    if register.as_ref().is_none_or(|held| *held < value) {
        *register = Some(value);
    }
}

fn later_frozen(
    registers: &mut BTreeMap<FrozenReason, (i64, bool)>,
    at: i64,
    reason: Option<FrozenReason>,
    frozen: bool,
) {
    for each in FrozenReason::ALL {
        if reason.is_none_or(|reason| reason == each) {
            let held = registers.entry(each).or_insert((at, frozen));
            *held = (*held).max((at, frozen));
        }
    }
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
            | EventBody::Device { device: whose, .. } => whose == device && fact.at <= until,
            EventBody::Scope(_) => false,
        };
        let deleted = self
            .facts
            .iter()
            .filter(mine)
            .filter(|fact| {
                matches!(&fact.body, EventBody::Device { event: DeviceEvent::Deleted, .. })
            })
            .map(|fact| fact.at)
            .max();
        let mut row = Row { deleted, ..Row::default() };
        let mut told = Told::default();
        let mut opened: BTreeMap<(Arc<str>, Arc<str>), i64> = BTreeMap::new();
        // J5: what is not later than the deletion does not exist.
        let exists = |fact: &&Fact| deleted.is_none_or(|deleted| fact.at > deleted);
        for fact in self.facts.iter().filter(mine).filter(exists) {
            let at = fact.at;
            match &fact.body {
                EventBody::Heartbeat { poll_interval_ms, .. } => {
                    later(&mut row.heartbeat, (at, *poll_interval_ms));
                }
                EventBody::Device { event, .. } => match event {
                    DeviceEvent::SessionOpened { instance, session } => {
                        later(&mut row.last_opening, at);
                        let held = opened.entry((instance.clone(), session.clone())).or_insert(at);
                        *held = (*held).max(at);
                    }
                    DeviceEvent::SessionClosed { instance, session } => {
                        let held =
                            row.closed.entry((instance.clone(), session.clone())).or_insert(at);
                        *held = (*held).max(at);
                    }
                    DeviceEvent::Registered { fleet, organization, preregistered } => {
                        told.fleets.push((at, fleet.clone()));
                        later(&mut row.registered, at);
                        later(&mut row.preregistered, (at, *preregistered));
                        later(&mut row.membership, (at, (fleet.clone(), organization.clone())));
                    }
                    DeviceEvent::Moved { fleet, organization } => {
                        told.fleets.push((at, fleet.clone()));
                        later(&mut row.membership, (at, (fleet.clone(), organization.clone())));
                    }
                    DeviceEvent::Provisioned => later(&mut row.provisioned, at),
                    DeviceEvent::Activated => later(&mut row.activated, at),
                    DeviceEvent::Deactivated => later(&mut row.deactivated, at),
                    DeviceEvent::Frozen { reason } => {
                        later_frozen(&mut row.frozen, at, Some(*reason), true);
                    }
                    DeviceEvent::Unfrozen { reason } => {
                        later_frozen(&mut row.frozen, at, *reason, false);
                    }
                    DeviceEvent::ConfigurationStarted => {
                        later(&mut row.configuration.started, (at, "".into()));
                    }
                    DeviceEvent::ConfigurationProgressed { percent } => {
                        later(&mut row.configuration.percent, (at, *percent));
                    }
                    DeviceEvent::ConfigurationFinished => {
                        later(&mut row.configuration.finished, at);
                    }
                    DeviceEvent::UpdateStarted { release } => {
                        later(&mut row.update.started, (at, release.clone()));
                    }
                    DeviceEvent::UpdateProgressed { percent } => {
                        later(&mut row.update.percent, (at, *percent));
                    }
                    DeviceEvent::UpdateFinished => later(&mut row.update.finished, at),
                    DeviceEvent::SettingsChanged(settings) => {
                        latest(&mut row.settings, at, *settings);
                        told.settings.push((at, *settings));
                    }
                    DeviceEvent::Deleted => {}
                },
                EventBody::Scope(_) => {}
            }
        }
        // Where it belonged before nobody remembers, so that nothing was the
        // doing of a scope that the device only came to later (J9).
        // Nor when a session was closed, where it was closed again.
        if until < i64::MAX {
            row.closed = self.row(device).closed;
            row.closed.retain(|_, at| *at <= until);
            row.membership = self.row(device).membership.filter(|(at, _)| *at <= until);
        }
        let (fleet, organization) =
            row.membership.as_ref().map(|(_, names)| names.clone()).unwrap_or_default();
        row.fleet_settings = self.fleet_settings(&fleet, until);
        row.scope_frozen = self.scope_is_frozen(&fleet, &organization, until);
        let settings = [row.settings, row.fleet_settings];
        if let Some((at, carried)) = row.heartbeat {
            row.interval_ms =
                carried.map_or_else(|| self.told_interval(&told, at, until), i64::from);
        }
        row.vpn_disabled =
            settings.iter().flatten().find_map(|(_, value)| value.vpn_enabled) == Some(false);
        for ((instance, session), opened_at) in opened {
            if row.closed.contains_key(&(instance.clone(), session.clone())) {
                continue;
            }
            let (lost, started, lease_end) = self.instance(&instance, until);
            let may_count = lost.is_none_or(|lost| opened_at > lost)
                && started.is_none_or(|started| opened_at >= started);
            row.sessions.push(OpenSession { instance, session, opened_at, may_count, lease_end });
        }
        row
    }

    fn scope_facts(&self, until: i64) -> impl Iterator<Item = (i64, &Fact, &ScopeEvent)> {
        self.facts.iter().filter(move |fact| fact.at <= until).filter_map(|fact| match &fact.body {
            EventBody::Scope(event) => Some((fact.at, fact, event)),
            _ => None,
        })
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
        set.iter().flatten().find_map(|(_, value)| value.poll_interval_ms).map(i64::from)
    }

    pub fn fleet_settings(&self, name: &str, until: i64) -> Option<(i64, Settings)> {
        self.scope_facts(until)
            .filter_map(|(at, _, event)| match event {
                ScopeEvent::FleetSettingsChanged { fleet, settings }
                    if **fleet == *name && !name.is_empty() =>
                {
                    Some((at, *settings))
                }
                _ => None,
            })
            .max()
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
        let any = |registers: &BTreeMap<FrozenReason, (i64, bool)>| {
            registers.values().any(|(_, frozen)| *frozen)
        };
        !of_fleet.is_empty() && any(&fleets) || !of_organization.is_empty() && any(&organizations)
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
        let lease = self
            .scope_facts(until)
            .filter_map(|(at, fact, event)| match event {
                ScopeEvent::InstanceAlive { instance, started_at, lease_ms }
                    if **instance == *name =>
                {
                    let of_start = started_at.is_none_or(|started_at| {
                        Some(started_at.0) == announced && started_at.0 <= fact.believed
                    });
                    of_start.then_some((at, *lease_ms))
                }
                _ => None,
            })
            .max();
        (lost, start, lease.map(|(at, lease_ms)| at + i64::from(lease_ms)))
    }

    /// When the row's last heartbeat times out, and when it expires.
    pub fn deadlines(&self, row: &Row) -> Option<(i64, i64)> {
        let (at, _) = row.heartbeat?;
        let timeout = at + self.online_ms(row.interval_ms);
        Some((timeout, timeout + self.rules.grace_ms))
    }

    pub fn heartbeat_state(&self, row: &Row, at: i64) -> HeartbeatState {
        match self.deadlines(row) {
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
        let dormant =
            |since: i64| silent(since) && row.activated.is_none_or(|activated| activated < since);
        let preregistered = row.preregistered.filter(|(_, value)| *value).map(|(at, _)| at);
        let polls = matches!(state, HeartbeatState::Online | HeartbeatState::Timeout);
        let status = if row.scope_frozen || row.frozen.values().any(|(_, frozen)| *frozen) {
            Status::Frozen
        } else if preregistered.is_some_and(dormant) || row.deactivated.is_some_and(dormant) {
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

    /// Percent of what is in progress.
    pub fn progress(row: &Row) -> Option<u8> {
        let current = [&row.configuration, &row.update].into_iter().find(|p| p.in_progress())?;
        current.shown()
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

    /// Whether some register of a device, or of any scope, held something else
    /// before what it holds now, heartbeats apart; or may have let go of a
    /// session that is over.
    pub fn has_superseded(&self, device: &DeviceId) -> bool {
        let mut registers: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
        for fact in &self.facts {
            let keys = match &fact.body {
                EventBody::Device { device: whose, event } if whose == device => match event {
                    DeviceEvent::SessionOpened { instance, session } => {
                        vec![format!("opened {instance} {session}")]
                    }
                    DeviceEvent::SessionClosed { .. } => return true,
                    DeviceEvent::Registered { .. } => {
                        vec!["registered".to_owned(), "membership".to_owned()]
                    }
                    DeviceEvent::Moved { .. } => vec!["membership".to_owned()],
                    DeviceEvent::Frozen { .. } | DeviceEvent::Unfrozen { .. } => {
                        vec!["frozen".to_owned()]
                    }
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
                    ScopeEvent::FleetFrozen { fleet, .. }
                    | ScopeEvent::FleetUnfrozen { fleet, .. } => vec![format!("fleet {fleet}")],
                    ScopeEvent::OrganizationFrozen { organization, .. }
                    | ScopeEvent::OrganizationUnfrozen { organization, .. } => {
                        vec![format!("organization {organization}")]
                    }
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
            intervals.extend(settings.poll_interval_ms.map(i64::from));
        }
        for fact in &self.facts {
            let at = fact.at;
            match &fact.body {
                EventBody::Heartbeat { device: whose, poll_interval_ms } if whose == device => {
                    instants.insert((at, Cause::Heartbeat));
                    let carried: BTreeSet<i64> =
                        poll_interval_ms.map(i64::from).into_iter().collect();
                    let each = if carried.is_empty() { &intervals } else { &carried };
                    for interval_ms in each {
                        let timeout = at + self.online_ms(*interval_ms);
                        instants.insert((timeout, Cause::HeartbeatTimedOut));
                        instants.insert((timeout + self.rules.grace_ms, Cause::HeartbeatExpired));
                    }
                }
                EventBody::Device { device: whose, event } if whose == device => {
                    instants.insert((at, cause_of(event)));
                }
                EventBody::Heartbeat { .. } | EventBody::Device { .. } => {}
                EventBody::Scope(event) => match event {
                    ScopeEvent::InstanceAlive { started_at, lease_ms, .. } => {
                        instants.insert((at, Cause::VpnInstanceAlive));
                        instants.insert((at + i64::from(*lease_ms), Cause::VpnLeaseExpired));
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
        DeviceEvent::ConfigurationFinished => Cause::ConfigurationFinished,
        DeviceEvent::UpdateStarted { .. } | DeviceEvent::UpdateProgressed { .. } => {
            Cause::UpdateStarted
        }
        DeviceEvent::UpdateFinished => Cause::UpdateFinished,
        DeviceEvent::SettingsChanged(_) => Cause::SettingsChanged,
        DeviceEvent::Moved { .. } => Cause::Moved,
        DeviceEvent::Deleted => Cause::Deleted,
    }
}
