//! A row and its scopes as of an instant: the ladder's questions, and the time of
//! each fact and deadline.

use super::device::{Cold, Membership, Session};
use super::register::{Flag, FrozenRegisters, Register, is_frozen};
use super::scope::{Instance, Scopes, cause_of_frozen};
use super::status::{Cause, Connectivity, HeartbeatState, Ladder, Status, heartbeat_state};
use crate::shard::event::{FrozenReason, Settings, Timestamp};
use crate::shard::hot::{Hot, flag};
use crate::shard::rules::Rules;
use crate::shard::snapshot::{FleetFacts, OrganizationFacts};

/// Which facts are visible.
#[derive(Clone, Copy, Debug)]
pub(in crate::shard) enum View {
    /// All known facts, whatever their time. A row is judged by these.
    Now,
    /// Facts that had happened by `at`, to date a change (rule J9).
    AsOf {
        /// The instant.
        at: Timestamp,
        /// The instant of judging. Facts later than this take effect here, so
        /// they are visible at all instants.
        judged: Timestamp,
    },
}

impl View {
    pub fn sees(self, fact: Timestamp) -> bool {
        match self {
            View::Now => true,
            View::AsOf { at, judged } => fact <= at || fact > judged,
        }
    }
}

/// The origin of a heartbeat's interval (rule J3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntervalOf {
    /// The one that the heartbeat carried.
    Heartbeat,
    /// The device's setting.
    Device,
    /// Its fleet's setting.
    Fleet,
    /// The default.
    Default,
}

/// Everything that the status of a row depends on.
#[derive(Clone, Copy, Debug)]
pub(in crate::shard) struct Facts<'a> {
    pub hot: &'a Hot,
    pub cold: &'a Cold,
    pub scopes: &'a Scopes,
    pub rules: &'a Rules,
    /// Take the scope that holds the shard as it was before (rule J7).
    pub before: bool,
    /// Leases of sessions that end by then are over: they are judged by the clock
    /// alone (rule T5).
    pub leases_at: Timestamp,
}

impl Facts<'_> {
    fn vpn_disabled(&self, view: View) -> bool {
        let set = self.settings(view).find_map(|settings| settings.vpn_enabled);
        !set.unwrap_or(self.rules.vpn_enabled_by_default)
    }

    /// The fleet and organization of the device. Earlier ones are not remembered
    /// here.
    fn belongs_to(&self, view: View) -> Membership {
        let membership = self.cold.facts.membership.as_ref().filter(|held| view.sees(held.at));
        membership.map_or_else(Membership::default, |held| held.value)
    }

    /// The device's settings, else the inherited ones.
    fn settings(&self, view: View) -> impl Iterator<Item = Settings> + use<> {
        let fleet = self.belongs_to(view).fleet;
        let seen = |settings: &Register<Settings>| view.sees(settings.at);
        let own = self.cold.facts.settings.filter(seen);
        let fleets = self.fleets(fleet).find_map(|facts| facts.settings.filter(seen));
        own.into_iter().chain(fleets).map(|settings| settings.value)
    }

    /// The facts of a fleet, and those before the event that holds the shard,
    /// which may know more of the past.
    fn fleets(&self, fleet: u32) -> impl Iterator<Item = &FleetFacts> {
        let before = self.scopes.fleet(fleet, true);
        [(!self.before).then(|| self.scopes.fleet(fleet, false)), Some(before)]
            .into_iter()
            .flatten()
    }

    /// The same for an organization.
    fn organizations(&self, organization: u32) -> impl Iterator<Item = &OrganizationFacts> {
        let before = self.scopes.organization(organization, true);
        let now = (!self.before).then(|| self.scopes.organization(organization, false));
        [now, Some(before)].into_iter().flatten()
    }

    /// The same for a VPN instance.
    fn instances(&self, instance: u32) -> impl Iterator<Item = &Instance> {
        let before = self.scopes.instance(instance, true);
        let now = (!self.before).then(|| self.scopes.instance(instance, false));
        [now, Some(before)].into_iter().flatten()
    }

    /// Whether the last emitted status shows a link, and already did so at that
    /// instant. The last heartbeat and the last opening hide earlier ones (rule
    /// J9).
    fn was_shown(&self, link: impl Fn(Connectivity) -> bool, view: View) -> bool {
        let View::AsOf { at, .. } = view else { return false };
        let since = self.cold.connectivity_since(self.hot).filter(|since| *since <= at);
        self.hot.shown().is_some_and(|(_, shown)| link(shown))
            && since.is_some_and(|since| self.outlives_deletion(since, view))
    }

    /// Whether the status emitted since `since` proves a contact that the
    /// deletion did not remove. A late deletion removes contact that had been
    /// emitted.
    fn outlives_deletion(&self, since: Timestamp, view: View) -> bool {
        let known = &self.cold.facts;
        let is_in_contact = self.hot.heartbeat.get().is_some() || known.last_vpn_opening.is_some();
        let deleted = known.deleted.filter(|at| view.sees(*at));
        deleted.is_none_or(|deleted| is_in_contact && deleted < since)
    }

    /// When the last heartbeat times out, and when it expires. Never, if the device
    /// went down with it.
    pub fn deadlines(&self, view: View) -> Option<(Timestamp, Timestamp)> {
        let heard = |link| matches!(link, Connectivity::Full | Connectivity::HeartbeatOnly);
        let sees = |at: &Timestamp| view.sees(*at) || self.was_shown(heard, view);
        let heartbeat = self.hot.heartbeat.get().filter(sees)?;
        if self.went_away(view) {
            return None;
        }
        Some(self.rules.deadlines(heartbeat, self.heartbeat_interval(view)))
    }

    /// Whether the last heartbeat said that its device goes down (rule J11).
    fn went_away(&self, view: View) -> bool {
        self.hot.has(flag::GOING_AWAY) && self.hot.heartbeat.get().is_some_and(|at| view.sees(at))
    }

    /// How the last heartbeat stands at an instant.
    pub fn heartbeat_state(&self, at: Timestamp) -> HeartbeatState {
        self.heartbeat_state_in(View::Now, at)
    }

    fn heartbeat_state_in(&self, view: View, at: Timestamp) -> HeartbeatState {
        match self.went_away(view) {
            true => HeartbeatState::Offline,
            false => heartbeat_state(self.deadlines(view), at),
        }
    }

    /// The same by the settings of that instant: a change whose deadline they
    /// made must not say otherwise.
    pub fn heartbeat_state_as_of(&self, at: Timestamp, judged: Timestamp) -> HeartbeatState {
        let settings = View::AsOf { at, judged };
        if self.went_away(settings) {
            return HeartbeatState::Offline;
        }
        let heartbeat = self.hot.heartbeat.get();
        let interval = self.heartbeat_interval(settings);
        let deadlines = heartbeat.map(|at| self.rules.deadlines(at, interval));
        heartbeat_state(deadlines, at)
    }

    /// Whether any session counts (rule J4).
    pub fn vpn_connected(&self, view: View) -> bool {
        let sessions = self.cold.facts.sessions.iter().chain(&self.cold.closed);
        sessions.into_iter().any(|session| self.session_counts(session, view))
    }

    /// Whether one session counts.
    pub fn session_counts(&self, session: &Session, view: View) -> bool {
        let View::AsOf { at, .. } = view else {
            let instance = self.scopes.instance(session.instance, self.before);
            return instance.counts(session, self.leases_at);
        };
        // Without VPN, a heartbeat alone is full connectivity.
        let up = |link| match link {
            Connectivity::VpnOnly => true,
            Connectivity::Full => !self.vpn_disabled(view),
            Connectivity::HeartbeatOnly | Connectivity::None => false,
        };
        let (Some(opened_at), Some(began_at)) = (session.opened_at(), self.began_at(session))
        else {
            return false;
        };
        let over = |end: Timestamp| end <= at && end <= self.leases_at;
        (view.sees(began_at) || self.was_shown(up, view))
            && !session.ended_at().is_some_and(|at| view.sees(at))
            && !session.lease_end().is_some_and(over)
            && self.instance_held(session.instance, opened_at, at, view)
    }

    /// Since when a session was open when it was last; not since before a deletion
    /// that its opening is later than (rule J4).
    fn began_at(&self, session: &Session) -> Option<Timestamp> {
        let began_at = session.began_at()?;
        Some(self.cold.facts.deleted.map_or(began_at, |deleted| began_at.max(deleted.plus_ms(1))))
    }

    /// Whether an instance had not ended its sessions by `at`, as a view shows it.
    fn instance_held(
        &self,
        instance: u32,
        opened_at: Timestamp,
        at: Timestamp,
        view: View,
    ) -> bool {
        let ended = |known: &Instance| {
            let facts = &known.facts;
            facts.lost.is_some_and(|lost| opened_at <= lost && view.sees(lost))
                || facts.started.is_some_and(|started| opened_at < started && view.sees(started))
        };
        // The lease in force is taken to have been so all along, but where one was
        // before: the announcement that brought sessions back dates them itself.
        let in_force = |known: &&Instance| known.alive().is_some_and(|alive| view.sees(alive.at));
        let lapsed =
            |known: &Instance| known.facts.lapsed && known.lease_end().is_some_and(|end| end <= at);
        let lease = self.instances(instance).find(in_force);
        let lease = lease.or(self.instances(instance).last());
        !self.instances(instance).any(ended) && !lease.is_some_and(lapsed)
    }

    /// The last heartbeat or opening of a VPN session. In the past: if one is
    /// known, or if the emitted status proves one.
    pub fn last_contact(&self, view: View) -> Option<Timestamp> {
        let contacts = [self.hot.heartbeat.get(), self.cold.facts.last_vpn_opening];
        let seen = contacts.into_iter().flatten().filter(|at| view.sees(*at)).max();
        let View::AsOf { at, .. } = view else { return seen };
        let Some((status, connectivity)) = self.hot.shown() else { return seen };
        // With these statuses the contact was before they began, whatever moved
        // the link since.
        let unseen = matches!(status, Status::PostProvisioning | Status::Inactive)
            .then(|| self.cold.since(self.hot))
            .flatten();
        let by_link = (connectivity != Connectivity::None)
            .then(|| self.cold.connectivity_since(self.hot))
            .flatten()
            .map(|since| unseen.map_or(since, |unseen| since.min(unseen.plus_ms(-1))));
        // A device that was never in contact shows none of these.
        let by_status = matches!(status, Status::Online | Status::Updating | Status::Offline)
            .then(|| self.cold.since(self.hot))
            .flatten();
        let shown = [by_link, by_status].into_iter().flatten();
        let shown = shown.filter(|since| *since <= at && self.outlives_deletion(*since, view));
        seen.max(shown.max())
    }

    /// The ladder's answers. The heartbeat's deadlines are judged at `at`.
    pub fn ladder(&self, at: Timestamp, view: View) -> Ladder {
        let known = &self.cold.facts;
        let seen = |time: Option<Timestamp>| time.filter(|time| view.sees(*time));
        let contact = self.last_contact(view);
        let activated = known.active.and_then(|active| seen(active.last(true)));
        let deactivated = known.active.and_then(|active| last_set(active, view));
        let deactivated = deactivated.filter(|(active, _)| !active).map(|(_, at)| at);
        let registered = seen(known.registered);
        let provisioned = seen(known.provisioned);
        let deleted = seen(known.deleted);

        let preregistered =
            is_set(known.preregistered, view) && contact.is_none() && activated.is_none();
        let inactive = preregistered || deactivated.is_some_and(|time| contact < Some(time));

        Ladder {
            exists: (deleted.is_none()
                || registered > deleted
                || registered == deleted && known.is_registered_anew())
                && (contact.is_some() || registered.is_some() || provisioned.is_some()),
            frozen: self.frozen(view),
            inactive,
            unseen_since_provisioning: provisioned.is_some_and(|time| contact < Some(time)),
            contacted: contact.is_some(),
            heartbeat: self.heartbeat_state_in(view, at),
            vpn_connected: self.vpn_connected(view),
            vpn_disabled: self.vpn_disabled(view),
            configuring: is_set(known.configuration.started, view),
            updating: known.update.in_progress(|at| view.sees(at)),
        }
    }

    /// The status and connectivity, judged at an instant.
    pub fn shown(&self, at: Timestamp) -> Option<(Status, Connectivity)> {
        self.ladder(at, View::Now).shown()
    }

    /// The percentage of the configuration or update that the status shows (rule
    /// J12).
    pub fn progress(&self, status: Status) -> Option<u8> {
        let known = &self.cold.facts;
        match status {
            Status::Configuring => {
                let started = known.configuration.started.filter(|fact| fact.value)?.at;
                let percent = known.configuration.percent;
                percent.filter(|percent| percent.at >= started).map(|percent| percent.value)
            }
            Status::Updating => {
                known.update.percent().filter(|_| known.update.in_progress(|_| true))
            }
            Status::Online
            | Status::Offline
            | Status::PostProvisioning
            | Status::Inactive
            | Status::Frozen => None,
        }
    }

    /// The VPN instance with a fact or deadline at that time.
    pub fn vpn_instance_at(&self, at: Timestamp, cause: Cause) -> Option<u32> {
        let of = |instance: u32| {
            let held = self.scopes.instance(instance, self.before);
            match cause {
                Cause::VpnInstanceAlive => held.alive().map(|alive| alive.at) == Some(at),
                Cause::VpnInstanceLost => {
                    held.facts.lost == Some(at) || held.facts.started == Some(at)
                }
                Cause::VpnLeaseExpired => held.lease_end() == Some(at),
                _ => false,
            }
        };
        let own = |session: &Session| match cause {
            Cause::VpnOpened => [self.began_at(session), session.opened_at()].contains(&Some(at)),
            Cause::VpnClosed => session.ended_at() == Some(at),
            Cause::VpnLeaseExpired => session.lease_end() == Some(at),
            _ => false,
        };
        let mut sessions = self.cold.facts.sessions.iter().chain(&self.cold.closed);
        let made_it = sessions.find(|session| own(session) || of(session.instance));
        made_it.or(self.cold.facts.sessions.last()).map(|session| session.instance)
    }

    fn frozen(&self, view: View) -> bool {
        let Membership { fleet, organization } = self.belongs_to(view);
        if matches!(view, View::Now) {
            return is_frozen(&self.cold.facts.frozen)
                || is_frozen(&self.scopes.fleet(fleet, self.before).frozen)
                || is_frozen(&self.scopes.organization(organization, self.before).frozen);
        }
        let held = |registers: &[&FrozenRegisters]| {
            (0..FrozenReason::ALL.len()).any(|reason| {
                // The present facts about that time, else the facts before the
                // event.
                let mut registers = registers.iter().map(|registers| registers[reason]);
                let now = registers.next().flatten();
                let before = registers.next().flatten();
                let tells = |flag: &Flag| view.sees(flag.at);
                is_set(now.filter(tells).or(before.filter(tells)).or(now), view)
            })
        };
        held(&[&self.cold.facts.frozen])
            || held(&self.fleets(fleet).map(|facts| &facts.frozen).collect::<Vec<_>>())
            || held(
                &self.organizations(organization).map(|facts| &facts.frozen).collect::<Vec<_>>(),
            )
    }

    /// The times of all facts and passed deadlines after `after` and not later
    /// than `until`, in order; ties by the order of causes (rule J9).
    pub fn moments(&self, after: Timestamp, until: Timestamp) -> Vec<(Timestamp, Cause)> {
        let mut moments = self.scope_moments();
        let mut add = |at: Option<Timestamp>, cause: Cause| {
            moments.extend(at.map(|at| (at, cause)));
        };
        let known = &self.cold.facts;
        let going_away = self.hot.has(flag::GOING_AWAY);
        let heard = if going_away { Cause::HeartbeatEnded } else { Cause::Heartbeat };
        add(self.hot.heartbeat.get(), heard);
        if let Some(heartbeat) = self.hot.heartbeat.get() {
            for interval in self.heartbeat_intervals() {
                let (timeout, expiry) = self.rules.deadlines(heartbeat, interval);
                add(Some(timeout), Cause::HeartbeatTimedOut);
                add(Some(expiry), Cause::HeartbeatExpired);
            }
        }
        add(known.last_vpn_opening, Cause::VpnOpened);
        for session in known.sessions.iter().chain(&self.cold.closed) {
            add(self.began_at(session), Cause::VpnOpened);
            add(session.opened_at(), Cause::VpnOpened);
            add(session.ended_at(), Cause::VpnClosed);
            let ended = session.lease_end().filter(|end| *end <= self.leases_at);
            add(ended, Cause::VpnLeaseExpired);
        }
        for register in known.frozen.iter().flatten() {
            for frozen in [true, false] {
                add(register.last(frozen), cause_of_frozen(frozen));
            }
        }
        if let Some(active) = known.active {
            add(active.last(true), Cause::Activated);
            add(active.last(false), Cause::Deactivated);
        }
        for preregistered in [true, false] {
            let fact = known.preregistered.and_then(|fact| fact.last(preregistered));
            add(fact, Cause::Registered);
        }
        add(known.provisioned, Cause::Provisioned);
        add(known.registered, Cause::Registered);
        add(known.membership.as_ref().map(|fact| fact.at), Cause::Moved);
        add(known.settings.map(|fact| fact.at), Cause::SettingsChanged);
        if let Some(configuration) = known.configuration.started {
            add(configuration.last(true), Cause::ConfigurationStarted);
            add(configuration.last(false), Cause::ConfigurationFinished);
        }
        add(known.update.started.as_ref().map(|fact| fact.at), Cause::UpdateStarted);
        for release in &known.update.releases {
            add(release.finished.map(|fact| fact.at), Cause::UpdateFinished);
        }
        moments.retain(|(at, _)| after < *at && *at <= until);
        moments.sort_unstable();
        moments.dedup();
        moments
    }

    fn scope_moments(&self) -> Vec<(Timestamp, Cause)> {
        let mut moments = Vec::new();
        let mut add = |at: Option<Timestamp>, cause: Cause| {
            moments.extend(at.map(|at| (at, cause)));
        };
        let Membership { fleet, organization } = self.cold.belongs_to();
        let fleets = self.fleets(fleet).map(|facts| &facts.frozen);
        let frozen = fleets.chain(self.organizations(organization).map(|facts| &facts.frozen));
        for register in frozen.flatten().flatten() {
            for frozen in [true, false] {
                add(register.last(frozen), cause_of_frozen(frozen));
            }
        }
        for facts in self.fleets(fleet) {
            add(facts.settings.map(|fact| fact.at), Cause::SettingsChanged);
        }
        for session in &self.cold.facts.sessions {
            for instance in self.instances(session.instance) {
                add(instance.facts.lost, Cause::VpnInstanceLost);
                add(instance.facts.started, Cause::VpnInstanceLost);
                add(instance.alive().map(|fact| fact.at), Cause::VpnInstanceAlive);
                if instance.facts.lapsed {
                    add(instance.lease_end(), Cause::VpnLeaseExpired);
                }
            }
        }
        moments
    }
}

/// Whether a register of two values is set, by the visible facts.
fn is_set(register: Option<Flag>, view: View) -> bool {
    register.and_then(|flag| last_set(flag, view)).is_some_and(|(value, _)| value)
}

/// The value of a register of two values by the visible facts, and since when.
/// The value before its other value is not known (rule J9).
fn last_set(flag: Flag, view: View) -> Option<(bool, Timestamp)> {
    if view.sees(flag.at) {
        return Some((flag.value, flag.at));
    }
    Some((!flag.value, flag.other.filter(|other| view.sees(*other))?))
}
