//! A row and its scopes seen as of an instant: what the ladder is asked, and
//! when each fact or deadline came in.

use super::device::Cold;
use super::event::{FrozenReason, Timestamp};
use super::rules::Rules;
use super::scope::{Scopes, is_frozen};
use super::snapshot::{ProgressFacts, Register};
use super::status::{Cause, Connectivity, HeartbeatState, Ladder, Status, heartbeat_state};
use super::table::Hot;

/// Which facts are seen.
#[derive(Clone, Copy, Debug)]
pub(super) enum View {
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
        /// The links are known to have stood as they do from here on. Their
        /// registers hold the last contact only; that of a device that kept
        /// polling would hide all the earlier ones.
        links_since: Option<Timestamp>,
    },
}

impl View {
    fn sees(self, fact: Timestamp) -> bool {
        match self {
            View::Now => true,
            View::AsOf { at, judged, .. } => fact <= at || fact > judged,
        }
    }

    fn sees_contact(self, contact: Timestamp) -> bool {
        match self {
            View::AsOf { at, links_since: Some(since), .. } if since <= at => true,
            _ => self.sees(contact),
        }
    }
}

/// All that the status of a row depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    pub hot: &'a Hot,
    pub cold: &'a Cold,
    pub scopes: &'a Scopes,
    pub rules: &'a Rules,
    /// Take the scope that holds the shard as it was before (rule J7).
    pub before: bool,
}

impl Facts<'_> {
    /// The interval by which the last heartbeat is judged (rule J3).
    pub fn interval_ms(&self, view: View) -> i64 {
        if let Some(carried_ms) = self.hot.carried_ms() {
            return i64::from(carried_ms);
        }
        self.inherited_interval_ms(view)
    }

    /// The interval of a heartbeat that carries none (rule J3).
    pub fn inherited_interval_ms(&self, view: View) -> i64 {
        let fleet = self.scopes.fleet(self.cold.belongs_to().fleet, self.before);
        [self.cold.settings, fleet.settings]
            .into_iter()
            .flatten()
            .filter(|settings| view.sees(settings.at))
            .find_map(|settings| settings.value.poll_interval_ms)
            .map_or(self.rules.default_poll_interval_ms, i64::from)
    }

    fn vpn_disabled(&self, view: View) -> bool {
        let fleet = self.scopes.fleet(self.cold.belongs_to().fleet, self.before);
        [self.cold.settings, fleet.settings]
            .into_iter()
            .flatten()
            .filter(|settings| view.sees(settings.at))
            .find_map(|settings| settings.value.vpn_enabled)
            == Some(false)
    }

    /// When the last heartbeat times out, and when it expires.
    pub fn deadlines(&self, view: View) -> Option<(Timestamp, Timestamp)> {
        let heartbeat = self.hot.heartbeat.get().filter(|at| view.sees_contact(*at))?;
        Some(self.rules.deadlines(heartbeat, self.interval_ms(view)))
    }

    /// How the last heartbeat stands at an instant.
    pub fn heartbeat_state(&self, at: Timestamp) -> HeartbeatState {
        heartbeat_state(self.deadlines(View::Now), at)
    }

    /// Whether any session counts (rule J4).
    pub fn vpn_connected(&self, view: View) -> bool {
        self.cold.sessions.iter().any(|session| {
            view.sees_contact(session.opened_at)
                && !self.cold.closed.iter().any(|closed| {
                    closed.fingerprint == session.fingerprint && view.sees(closed.closed_at)
                })
                && self.instance_holds(session.instance, session.opened_at, view)
        })
    }

    fn instance_holds(&self, instance: u32, opened_at: Timestamp, view: View) -> bool {
        let instance = self.scopes.instance(instance, self.before);
        let facts = &instance.facts;
        if facts.lost.is_some_and(|lost| opened_at <= lost && view.sees(lost))
            || facts.started.is_some_and(|started| opened_at < started && view.sees(started))
        {
            return false;
        }
        let shown_down =
            matches!(self.hot.shown(), Some((_, Connectivity::HeartbeatOnly | Connectivity::None)));
        let Some(end) = instance.lease_end() else { return true };
        match view {
            // A row that was settled when the lease ended, in a chunk before a
            // crash, is not taken back although the restored clock stands
            // before the end (rules C2, T5).
            View::Now => !(instance.lapsed || shown_down && end <= self.hot.floor()),
            View::AsOf { at, .. } if instance.lapsed => end > at,
            // The announcement in force brought the sessions back, if they were
            // gone.
            View::AsOf { .. } => {
                !shown_down || instance.alive().is_none_or(|alive| view.sees(alive.at))
            }
        }
    }

    fn last_contact(&self, view: View) -> Option<Timestamp> {
        [self.hot.heartbeat.get(), self.cold.last_vpn_opening]
            .into_iter()
            .flatten()
            .filter(|at| view.sees_contact(*at))
            .max()
    }

    /// The ladder's answers. `at` is where the heartbeat's deadlines are looked
    /// at.
    pub fn ladder(&self, at: Timestamp, view: View) -> Ladder {
        let cold = self.cold;
        let seen = |time: Option<Timestamp>| time.filter(|time| view.sees(*time));
        let contact = self.last_contact(view);
        let activated = seen(cold.activated);
        let registered = seen(cold.registered);
        let provisioned = seen(cold.provisioned);
        let deleted = seen(cold.deleted);

        let active_since = |time: Timestamp| contact >= Some(time) || activated >= Some(time);
        let preregistered =
            cold.preregistered.filter(|fact| fact.value && view.sees(fact.at)).map(|fact| fact.at);
        let inactive = [preregistered, seen(cold.deactivated)]
            .into_iter()
            .flatten()
            .any(|time| !active_since(time));

        Ladder {
            exists: (deleted.is_none() || registered > deleted)
                && (contact.is_some() || registered.is_some() || provisioned.is_some()),
            frozen: self.frozen(view),
            inactive,
            unseen_since_provisioning: provisioned.is_some_and(|time| contact < Some(time)),
            contacted: contact.is_some(),
            heartbeat: heartbeat_state(self.deadlines(view), at),
            vpn_connected: self.vpn_connected(view),
            vpn_disabled: self.vpn_disabled(view),
            configuring: in_progress(&cold.configuration, view),
            updating: in_progress(&cold.update, view),
        }
    }

    /// What the row shows, judged at an instant.
    pub fn shown(&self, at: Timestamp) -> Option<(Status, Connectivity)> {
        self.ladder(at, View::Now).shown()
    }

    /// Percent of what is in progress.
    pub fn progress(&self) -> Option<u8> {
        let cold = self.cold;
        let facts = [&cold.configuration, &cold.update]
            .into_iter()
            .find(|facts| in_progress(facts, View::Now))?;
        let started = facts.started.as_ref()?.at;
        facts.percent.filter(|percent| percent.at >= started).map(|percent| percent.value)
    }

    fn all_frozen(&self) -> [&[Option<Register<bool>>; FrozenReason::ALL.len()]; 3] {
        let membership = self.cold.belongs_to();
        [
            &self.cold.frozen,
            &self.scopes.fleet(membership.fleet, self.before).frozen,
            &self.scopes.organization(membership.organization, self.before).frozen,
        ]
    }

    fn frozen(&self, view: View) -> bool {
        let registers = self.all_frozen();
        match view {
            View::Now => registers.into_iter().any(is_frozen),
            View::AsOf { .. } => {
                // Of a device that was frozen, what was lifted later held till
                // then.
                let was = matches!(self.hot.shown(), Some((Status::Frozen, _)));
                registers.into_iter().flatten().flatten().any(|register| {
                    if view.sees(register.at) { register.value } else { was && !register.value }
                })
            }
        }
    }

    /// The times of all facts and passed deadlines after `after` and not later
    /// than `until`, in order; ties by the order of causes (rule J9).
    pub fn moments(&self, after: Timestamp, until: Timestamp) -> Vec<(Timestamp, Cause)> {
        let mut moments = Vec::new();
        let mut add = |at: Option<Timestamp>, cause: Cause| {
            moments.extend(at.filter(|at| after < *at && *at <= until).map(|at| (at, cause)));
        };
        let cold = self.cold;
        add(self.hot.heartbeat.get(), Cause::Heartbeat);
        if let Some((timeout, expiry)) = self.deadlines(View::Now) {
            add(Some(timeout), Cause::HeartbeatTimedOut);
            add(Some(expiry), Cause::HeartbeatExpired);
        }
        add(cold.last_vpn_opening, Cause::VpnOpened);
        for closed in &cold.closed {
            add(Some(closed.closed_at), Cause::VpnClosed);
        }
        for register in self.all_frozen().into_iter().flatten().flatten() {
            let cause = if register.value { Cause::Frozen } else { Cause::Unfrozen };
            add(Some(register.at), cause);
        }
        add(cold.deactivated, Cause::Deactivated);
        add(cold.activated, Cause::Activated);
        add(cold.preregistered.map(|fact| fact.at), Cause::Registered);
        add(cold.provisioned, Cause::Provisioned);
        add(cold.registered, Cause::Registered);
        add(cold.membership.as_ref().map(|fact| fact.at), Cause::Moved);
        add(cold.settings.map(|fact| fact.at), Cause::SettingsChanged);
        let fleet = self.scopes.fleet(cold.belongs_to().fleet, self.before);
        add(fleet.settings.map(|fact| fact.at), Cause::SettingsChanged);
        for (facts, started, finished) in [
            (&cold.configuration, Cause::ConfigurationStarted, Cause::ConfigurationFinished),
            (&cold.update, Cause::UpdateStarted, Cause::UpdateFinished),
        ] {
            add(facts.started.as_ref().map(|fact| fact.at), started);
            add(facts.finished, finished);
        }
        for session in &cold.sessions {
            let instance = self.scopes.instance(session.instance, self.before);
            add(Some(session.opened_at), Cause::VpnOpened);
            add(instance.facts.lost, Cause::VpnInstanceLost);
            add(instance.facts.started, Cause::VpnInstanceLost);
            add(instance.alive().map(|fact| fact.at), Cause::VpnInstanceAlive);
            if instance.lapsed {
                add(instance.lease_end(), Cause::VpnLeaseExpired);
            }
        }
        moments.sort_unstable();
        moments.dedup();
        moments
    }
}

/// In progress while started is later than finished (rule J2).
fn in_progress(facts: &ProgressFacts, view: View) -> bool {
    let started = facts.started.as_ref().map(|fact| fact.at).filter(|at| view.sees(*at));
    let finished = facts.finished.filter(|at| view.sees(*at));
    started > finished
}
