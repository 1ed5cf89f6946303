//! A row and its scopes seen as of an instant: what the ladder is asked, and
//! when each fact or deadline came in.

use super::device::{Cold, Membership, Session};
use super::register::{Flag, FrozenRegisters, is_frozen};
use super::scope::{Scopes, cause_of_frozen};
use super::status::{Cause, Connectivity, HeartbeatState, Ladder, Status, heartbeat_state};
use crate::shard::event::{Settings, Timestamp};
use crate::shard::hot::{Hot, flag};
use crate::shard::rules::Rules;

/// Which facts are seen.
#[derive(Clone, Copy, Debug)]
pub(in crate::shard) enum View {
    /// All that are known, whatever their time: what a row is judged by.
    Now,
    /// Those that had happened by `at`: how the row came to be what it is, for
    /// `since` (rule J9).
    AsOf {
        /// The instant.
        at: Timestamp,
        /// The row is judged here. What is later still takes effect from here
        /// on, so it is seen at all instants alike.
        judged: Timestamp,
        /// The links that stand are known to have stood from here on. Their
        /// registers hold the last contact only; that of a device that kept
        /// polling would hide all the earlier ones.
        links_since: Option<Timestamp>,
    },
    /// All but what a scope was told at this time: whether that made the
    /// difference.
    Without {
        /// When.
        at: Timestamp,
        /// Of a fleet's settings nobody knows what they were before: this is
        /// one possibility.
        settings: Settings,
    },
    /// All but what a scope was told after this time.
    ScopesUntil(Timestamp),
}

impl View {
    fn sees(self, fact: Timestamp) -> bool {
        match self {
            View::Now | View::Without { .. } | View::ScopesUntil(_) => true,
            View::AsOf { at, judged, .. } => fact <= at || fact > judged,
        }
    }

    fn sees_scope(self, fact: Timestamp) -> bool {
        match self {
            View::Without { at, .. } => fact != at,
            View::ScopesUntil(at) => fact <= at,
            _ => self.sees(fact),
        }
    }

    fn sees_contact(self, contact: Timestamp) -> bool {
        match self {
            View::AsOf { at, links_since: Some(since), .. } if since <= at => true,
            _ => self.sees(contact),
        }
    }
}

/// Whose interval a heartbeat is judged by (rule J3).
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

/// All that the status of a row depends on.
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
    /// The interval by which the last heartbeat is judged (rule J3).
    pub fn interval_ms(&self, view: View) -> i64 {
        self.interval(view).0
    }

    /// The same, and whose it is.
    pub fn interval(&self, view: View) -> (i64, IntervalOf) {
        match self.hot.carried_s() {
            Some(carried_s) => (i64::from(carried_s) * 1_000, IntervalOf::Heartbeat),
            None => self.inherited_interval(view),
        }
    }

    /// The interval of a heartbeat that carries none (rule J3).
    pub fn inherited_interval_ms(&self, view: View) -> i64 {
        self.inherited_interval(view).0
    }

    fn inherited_interval(&self, view: View) -> (i64, IntervalOf) {
        self.settings(view)
            .find_map(|(whose, settings)| {
                Some((i64::from(settings.poll_interval_s?) * 1_000, whose))
            })
            .unwrap_or((self.rules.default_poll_interval_ms, IntervalOf::Default))
    }

    fn vpn_disabled(&self, view: View) -> bool {
        let set = self.settings(view).find_map(|(_, settings)| settings.vpn_enabled);
        !set.unwrap_or(self.rules.vpn_enabled_by_default)
    }

    /// Where the device belongs. Where it did before is not remembered.
    fn belongs_to(&self, view: View) -> Membership {
        let membership = self.cold.facts.membership.as_ref().filter(|held| view.sees(held.at));
        membership.map_or_else(Membership::default, |held| held.value)
    }

    /// The device's settings, then those it inherits.
    fn settings(&self, view: View) -> impl Iterator<Item = (IntervalOf, Settings)> + use<> {
        let fleet = self.scopes.fleet(self.belongs_to(view).fleet, self.before);
        let own = self.cold.facts.settings.filter(|settings| view.sees(settings.at));
        let fleets = fleet.settings.map(|settings| match view {
            _ if view.sees_scope(settings.at) => settings.value,
            View::Without { settings, .. } => settings,
            _ => Settings::default(),
        });
        own.map(|settings| (IntervalOf::Device, settings.value))
            .into_iter()
            .chain(fleets.map(|settings| (IntervalOf::Fleet, settings)))
    }

    /// When the last heartbeat times out, and when it expires. Never, if the device
    /// went down with it.
    pub fn deadlines(&self, view: View) -> Option<(Timestamp, Timestamp)> {
        let heard =
            matches!(self.hot.shown(), Some((_, Connectivity::Full | Connectivity::HeartbeatOnly)));
        let sees = |at: &Timestamp| if heard { view.sees_contact(*at) } else { view.sees(*at) };
        let heartbeat = self.hot.heartbeat.get().filter(sees)?;
        if self.went_away(view) {
            return None;
        }
        Some(self.rules.deadlines(heartbeat, self.interval_ms(view)))
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
        let settings = View::AsOf { at, judged, links_since: None };
        if self.went_away(settings) {
            return HeartbeatState::Offline;
        }
        let heartbeat = self.hot.heartbeat.get();
        let deadlines = heartbeat.map(|at| self.rules.deadlines(at, self.interval_ms(settings)));
        heartbeat_state(deadlines, at)
    }

    /// Whether any session counts (rule J4).
    pub fn vpn_connected(&self, view: View) -> bool {
        let sessions = self.cold.facts.sessions.iter().chain(&self.cold.closed);
        sessions.into_iter().any(|session| self.session_counts(session, view))
    }

    /// Whether one session counts.
    pub fn session_counts(&self, session: &Session, view: View) -> bool {
        let up = matches!(self.hot.shown(), Some((_, Connectivity::Full | Connectivity::VpnOnly)));
        let (Some(opened_at), Some(began_at)) = (session.opened_at(), session.began_at()) else {
            return false;
        };
        let seen = if up { view.sees_contact(began_at) } else { view.sees(began_at) };
        let over = |end: Timestamp| match view {
            View::AsOf { at, .. } => end <= at && end <= self.leases_at,
            _ => end <= self.leases_at,
        };
        seen && !session.ended_at().is_some_and(|at| view.sees(at))
            && !session.lease_end().is_some_and(over)
            && self.instance_holds(session.instance, opened_at, view)
    }

    fn instance_holds(&self, instance: u32, opened_at: Timestamp, view: View) -> bool {
        let instance = self.scopes.instance(instance, self.before);
        let facts = &instance.facts;
        if facts.lost.is_some_and(|lost| opened_at <= lost && view.sees_scope(lost))
            || facts.started.is_some_and(|started| opened_at < started && view.sees_scope(started))
        {
            return false;
        }
        let shown_down =
            matches!(self.hot.shown(), Some((_, Connectivity::HeartbeatOnly | Connectivity::None)));
        let Some(end) = instance.lease_end() else { return true };
        match view {
            // A row that was settled when the lease ended, in a chunk before a
            // crash, is not taken back although the restored clock stands
            // before the end (rules C2, T5). At other times only the clock ends
            // a lease, however far ahead of it the row is.
            View::Now => {
                !(instance.lapsed || instance.ending && shown_down && end <= self.hot.floor())
            }
            View::Without { at, .. } if instance.lapsed => end == at,
            View::AsOf { at, .. } | View::ScopesUntil(at) if instance.lapsed => end > at,
            // A lease in force is taken to have been so all along: the
            // announcement that brought sessions back dates them itself.
            View::AsOf { .. } => true,
            // The announcement in force brought the sessions back, if they were
            // gone.
            View::Without { .. } | View::ScopesUntil(_) => {
                !shown_down || instance.alive().is_none_or(|alive| view.sees_scope(alive.at))
            }
        }
    }

    /// The last heartbeat or opening of a VPN session.
    pub fn last_contact(&self, view: View) -> Option<Timestamp> {
        [self.hot.heartbeat.get(), self.cold.facts.last_vpn_opening]
            .into_iter()
            .flatten()
            .filter(|at| view.sees_contact(*at))
            .max()
    }

    /// The ladder's answers. `at` is where the heartbeat's deadlines are looked
    /// at.
    pub fn ladder(&self, at: Timestamp, view: View) -> Ladder {
        let known = &self.cold.facts;
        let seen = |time: Option<Timestamp>| time.filter(|time| view.sees(*time));
        let contact = self.last_contact(view);
        let activated = known.active.and_then(|active| seen(active.last(true)));
        let deactivated = known.active.filter(|active| !active.value);
        let registered = seen(known.registered);
        let provisioned = seen(known.provisioned);
        let deleted = seen(known.deleted);

        let preregistered =
            known.preregistered.is_some_and(|fact| fact.value && view.sees(fact.at))
                && contact.is_none()
                && activated.is_none();
        let deactivated = seen(deactivated.map(|fact| fact.at));
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

    /// What the row shows, judged at an instant.
    pub fn shown(&self, at: Timestamp) -> Option<(Status, Connectivity)> {
        self.ladder(at, View::Now).shown()
    }

    /// Percent of what is in progress, where that is what the device shows (rule
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

    /// The VPN instance of which something came in then.
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
            Cause::VpnOpened => [session.began_at(), session.opened_at()].contains(&Some(at)),
            Cause::VpnClosed => session.ended_at() == Some(at),
            Cause::VpnLeaseExpired => session.lease_end() == Some(at),
            _ => false,
        };
        let mut sessions = self.cold.facts.sessions.iter().chain(&self.cold.closed);
        let made_it = sessions.find(|session| own(session) || of(session.instance));
        made_it.or(self.cold.facts.sessions.last()).map(|session| session.instance)
    }

    fn frozen_scopes(&self, view: View) -> [&FrozenRegisters; 2] {
        let membership = self.belongs_to(view);
        [
            &self.scopes.fleet(membership.fleet, self.before).frozen,
            &self.scopes.organization(membership.organization, self.before).frozen,
        ]
    }

    fn frozen(&self, view: View) -> bool {
        let scopes = self.frozen_scopes(view);
        if matches!(view, View::Now) {
            return is_frozen(&self.cold.facts.frozen) || scopes.into_iter().any(is_frozen);
        }
        // Of a device that was frozen, what was lifted later held till then.
        let was = matches!(self.hot.shown(), Some((Status::Frozen, _)));
        let held = |register: &Flag, seen: bool| {
            if seen { register.value } else { was && !register.value }
        };
        self.cold.facts.frozen.iter().flatten().any(|fact| held(fact, view.sees(fact.at)))
            || scopes
                .into_iter()
                .flatten()
                .flatten()
                .any(|fact| held(fact, view.sees_scope(fact.at)))
    }

    /// The times of all facts and passed deadlines after `after` and not later
    /// than `until`, in order; ties by the order of causes (rule J9).
    pub fn moments(&self, after: Timestamp, until: Timestamp) -> Vec<(Timestamp, Cause)> {
        let mut moments = self.all_scope_moments(Timestamp::MIN);
        let mut add = |at: Option<Timestamp>, cause: Cause| {
            moments.extend(at.map(|at| (at, cause)));
        };
        let known = &self.cold.facts;
        let going_away = self.hot.has(flag::GOING_AWAY);
        let heard = if going_away { Cause::HeartbeatEnded } else { Cause::Heartbeat };
        add(self.hot.heartbeat.get(), heard);
        if let Some(heartbeat) = self.hot.heartbeat.get() {
            // And those that it had before the settings came.
            let inherited = self.settings(View::Now).map(|(_, settings)| settings.poll_interval_s);
            let inherited = inherited.flatten().map(|seconds| i64::from(seconds) * 1_000);
            let inherited = inherited.chain([self.rules.default_poll_interval_ms]);
            let carried = self.hot.carried_s().map(|seconds| i64::from(seconds) * 1_000);
            let inherited = inherited.filter(|_| carried.is_none());
            for interval_ms in carried.into_iter().chain(inherited) {
                let (timeout, expiry) = self.rules.deadlines(heartbeat, interval_ms);
                add(Some(timeout), Cause::HeartbeatTimedOut);
                add(Some(expiry), Cause::HeartbeatExpired);
            }
        }
        add(known.last_vpn_opening, Cause::VpnOpened);
        for session in known.sessions.iter().chain(&self.cold.closed) {
            add(session.began_at(), Cause::VpnOpened);
            add(session.opened_at(), Cause::VpnOpened);
            add(session.ended_at(), Cause::VpnClosed);
            let ended = session.lease_end().filter(|end| *end <= self.leases_at);
            add(ended, Cause::VpnLeaseExpired);
        }
        for register in known.frozen.iter().flatten() {
            add(Some(register.at), cause_of_frozen(register.value));
        }
        if let Some(active) = known.active {
            add(active.last(true), Cause::Activated);
            add(active.last(false), Cause::Deactivated);
        }
        add(known.preregistered.map(|fact| fact.at), Cause::Registered);
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

    /// The same for what the row's scopes were told: what can change a row
    /// behind its back. Of scopes that were written when the clock stood at
    /// `written_from` or later.
    pub fn scope_moments(
        &self,
        until: Timestamp,
        written_from: Timestamp,
    ) -> Vec<(Timestamp, Cause)> {
        let mut moments = self.all_scope_moments(written_from);
        moments.retain(|(at, _)| *at <= until);
        moments.sort_unstable();
        moments
    }

    fn all_scope_moments(&self, written_from: Timestamp) -> Vec<(Timestamp, Cause)> {
        let mut moments = Vec::new();
        let mut add = |at: Option<Timestamp>, cause: Cause| {
            moments.extend(at.map(|at| (at, cause)));
        };
        let Membership { fleet, organization } = self.cold.belongs_to();
        let fleet = self.scopes.fleet(fleet, self.before);
        let organization = self.scopes.organization(organization, self.before);
        let frozen = [(&fleet.frozen, fleet.clock), (&organization.frozen, organization.clock)];
        for (registers, _) in frozen.into_iter().filter(|(_, clock)| *clock >= written_from) {
            for register in registers.iter().flatten() {
                add(Some(register.at), cause_of_frozen(register.value));
            }
        }
        if fleet.clock >= written_from {
            add(fleet.settings.map(|fact| fact.at), Cause::SettingsChanged);
        }
        for session in &self.cold.facts.sessions {
            let instance = self.scopes.instance(session.instance, self.before);
            if instance.facts.clock < written_from {
                continue;
            }
            add(instance.facts.lost, Cause::VpnInstanceLost);
            add(instance.facts.started, Cause::VpnInstanceLost);
            add(instance.alive().map(|fact| fact.at), Cause::VpnInstanceAlive);
            if instance.lapsed {
                add(instance.lease_end(), Cause::VpnLeaseExpired);
            }
        }
        moments
    }
}

/// Whether a register of two values is set, by what is seen. What was set before
/// its other value is not known.
fn is_set(register: Option<Flag>, view: View) -> bool {
    register.is_some_and(|flag| {
        if view.sees(flag.at) {
            flag.value
        } else {
            !flag.value && flag.other.is_some_and(|other| view.sees(other))
        }
    })
}
