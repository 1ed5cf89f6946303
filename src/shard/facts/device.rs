//! A device's facts, and how each event joins them (rules J1 to J6).
//!
//! Every fact is a register (`register.rs`). The facts that a heartbeat changes
//! are in the hot row (`hot.rs`); all others are here.

use std::cmp::Ordering;

use super::earlier;
use super::register::{Tie, join, join_flag, join_frozen, join_time};
use super::scope::{Interned, Scopes};
use super::status::Cause;
use crate::shard::event::{DeviceEvent, Timestamp, UpdateOutcome};
use crate::shard::hot::{Hot, Instant48};
use crate::shard::rules::Rules;
use crate::shard::snapshot::{self, DeviceFacts};

pub(in crate::shard) type Session = snapshot::Session<Interned>;
pub(in crate::shard) type Membership = snapshot::Membership<Interned>;

/// Closed sessions that were added or changed (`true`), or removed: each is a
/// changelog entry of its own.
pub(in crate::shard) type ClosedChanges = Vec<(Session, bool)>;

/// The earlier of `since` and `connectivity_since`, and which of the two it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Earlier {
    Status(Timestamp),
    Connectivity(Timestamp),
}

/// All facts of a device but its heartbeat.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::shard) struct Cold {
    pub facts: DeviceFacts<Interned>,
    /// Not a fact: the hot row has no room for it. For a device with heartbeats
    /// only, the two instants are the same.
    pub earlier: Option<Earlier>,
    /// Since when the device has the emitted fleet and organization, if it is not
    /// the instant that [`Cold::membership_since`] derives.
    pub membership_since: Option<Timestamp>,
    /// Closed sessions, oldest first.
    pub closed: Vec<Session>,
    /// Openings from this time on may be newer than the changelog's (rule R2).
    pub unwritten_openings: Option<Timestamp>,
    /// The clock at the last suppressed event, as the changelog has it. It is
    /// written only when it has moved by more than an hour (rule J5).
    pub deletion_touched_written: Option<Timestamp>,
}

/// The result of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Joined {
    /// A later fact is known, or the same one.
    Stale,
    /// The row has changed.
    Changed,
    /// An opening renewed an open session. If nothing of it is emitted, it need
    /// not be written (rule R2).
    Renewed,
}

impl From<bool> for Joined {
    fn from(changed: bool) -> Joined {
        if changed { Joined::Changed } else { Joined::Stale }
    }
}

impl Cold {
    /// The time and cause of the status, as last emitted (rule J8).
    pub fn since(&self, hot: &Hot) -> Option<Timestamp> {
        match self.earlier {
            Some(Earlier::Status(at)) => Some(at),
            _ => hot.changed_at.get(),
        }
    }

    /// The time and cause of the connectivity, as last emitted.
    pub fn connectivity_since(&self, hot: &Hot) -> Option<Timestamp> {
        match self.earlier {
            Some(Earlier::Connectivity(at)) => Some(at),
            _ => hot.changed_at.get(),
        }
    }

    /// Stores the two instants, which must fit into a row.
    pub fn set_since(&mut self, hot: &mut Hot, status: Timestamp, connectivity: Timestamp) {
        let [status, connectivity] = [status, connectivity].map(|at| Instant48::some(at).or_min());
        hot.changed_at = Instant48::some(status.max(connectivity));
        self.earlier = match status.cmp(&connectivity) {
            Ordering::Less => Some(Earlier::Status(status)),
            Ordering::Equal => None,
            Ordering::Greater => Some(Earlier::Connectivity(connectivity)),
        };
    }

    /// Since when the device has the emitted fleet and organization (rule J8):
    /// usually since the event that set them, or since the emitted status.
    pub fn membership_since(&self, hot: &Hot) -> Timestamp {
        self.membership_since.unwrap_or_else(|| self.usual_membership_since(hot))
    }

    pub fn set_membership_since(&mut self, hot: &Hot, since: Timestamp) {
        let since = Instant48::some(since).or_min();
        self.membership_since = Some(since).filter(|at| *at != self.usual_membership_since(hot));
    }

    fn usual_membership_since(&self, hot: &Hot) -> Timestamp {
        let set_at = self.facts.membership.as_ref().map(|membership| membership.at);
        set_at.or_else(|| self.since(hot)).unwrap_or(Timestamp::MIN)
    }

    /// The fleet and organization, whether or not the device exists.
    pub fn belongs_to(&self) -> Membership {
        self.facts.membership.as_ref().map_or_else(Membership::default, |register| register.value)
    }

    /// When the deletion is forgotten. Never if a registration of the same
    /// millisecond overrides it: if the deletion were read again after that, it
    /// would count as the later of the two (rule J5).
    pub fn deletion_forgotten_at(&self, rules: &Rules) -> Option<Timestamp> {
        let deleted = self.facts.deleted.filter(|_| !self.facts.is_registered_anew())?;
        let touched = self.facts.deletion_touched.map_or(deleted, |touched| touched.max(deleted));
        Some(touched.plus_ms(rules.deletion_span_ms(self.facts.deletion_interval_s)))
    }

    /// Joins an event other than a deletion, at its event time.
    pub fn join(&mut self, at: Timestamp, event: &DeviceEvent, scopes: &mut Scopes) -> Joined {
        let changed = match event {
            DeviceEvent::Registered { fleet, organization, preregistered } => {
                let registered = self.join_registered(at);
                let preregistered = join_flag(&mut self.facts.preregistered, at, *preregistered);
                self.join_membership(at, fleet, organization, scopes) | registered | preregistered
            }
            DeviceEvent::Moved { fleet, organization } => {
                self.join_membership(at, fleet, organization, scopes)
            }
            DeviceEvent::Provisioned => join_time(&mut self.facts.provisioned, at),
            DeviceEvent::Activated => join_flag(&mut self.facts.active, at, true),
            DeviceEvent::Deactivated => join_flag(&mut self.facts.active, at, false),
            DeviceEvent::Frozen { reason } => {
                join_frozen(&mut self.facts.frozen, at, Some(*reason), true)
            }
            DeviceEvent::Unfrozen { reason } => {
                join_frozen(&mut self.facts.frozen, at, *reason, false)
            }
            DeviceEvent::ConfigurationStarted => {
                join_flag(&mut self.facts.configuration.started, at, true)
            }
            DeviceEvent::ConfigurationProgressed { percent } => {
                join(&mut self.facts.configuration.percent, at, *percent)
            }
            DeviceEvent::ConfigurationFinished { outcome } => {
                self.finish_configuration(at, *outcome)
            }
            DeviceEvent::UpdateStarted { release } => self.facts.update.start(at, release),
            DeviceEvent::UpdateProgressed { percent, phase, release } => {
                self.facts.update.progress(at, release, *percent, *phase)
            }
            DeviceEvent::UpdateFinished { release, outcome } => {
                self.facts.update.finish(at, release, *outcome)
            }
            DeviceEvent::SettingsChanged(settings) => {
                let DeviceFacts { settings: held, earlier_settings, .. } = &mut self.facts;
                earlier::join(held, earlier_settings, at, *settings, |held| held.poll_interval_s)
            }
            // `delete` joins these (the heartbeat in the hot row needs it too),
            // and `open_session` and `close_session`.
            DeviceEvent::Deleted
            | DeviceEvent::SessionOpened { .. }
            | DeviceEvent::SessionClosed { .. } => false,
        };
        Joined::from(changed)
    }

    fn finish_configuration(&mut self, at: Timestamp, outcome: Option<UpdateOutcome>) -> bool {
        let configuration = &mut self.facts.configuration;
        let says_more = configuration.finished() <= Some(at) && configuration.outcome != outcome;
        if says_more {
            configuration.outcome = outcome;
        }
        join_flag(&mut configuration.started, at, false) | says_more
    }

    /// Registered and deleted are one register. In the millisecond of the
    /// deletion, the value that was not yet seen wins (rules J2, J5).
    fn join_registered(&mut self, at: Timestamp) -> bool {
        let facts = &mut self.facts;
        if facts.deleted != Some(at) {
            return join_time(&mut facts.registered, at);
        }
        let news = facts.deletion_tie == Tie::None;
        if news {
            facts.deletion_tie = Tie::Began;
            join_time(&mut facts.registered, at);
        }
        news
    }

    fn join_membership(
        &mut self,
        at: Timestamp,
        fleet: &std::sync::Arc<str>,
        organization: &std::sync::Arc<str>,
        scopes: &mut Scopes,
    ) -> bool {
        let value = Membership {
            fleet: scopes.fleets.intern(fleet),
            organization: scopes.organizations.intern(organization),
        };
        let DeviceFacts { membership, earlier_fleets, .. } = &mut self.facts;
        earlier::join(membership, earlier_fleets, at, value, |held| held.fleet)
    }

    /// Forgets settings and fleets that applied only before `from`, if no late
    /// heartbeat may need them (rule J3).
    pub fn forget_told(&mut self, from: Timestamp) {
        let facts = &mut self.facts;
        let most = earlier::EARLIER_OF_DEVICE_MAX;
        earlier::forget(facts.membership.as_ref(), &mut facts.earlier_fleets, from, most);
        earlier::forget(facts.settings.as_ref(), &mut facts.earlier_settings, from, most);
    }

    /// Joins a deletion: facts at or before it do not exist (rule J5). The caller
    /// handles the heartbeat in the hot row. `interval_s`: the longest known poll
    /// interval.
    pub fn delete(
        &mut self,
        at: Timestamp,
        interval_s: Option<u32>,
        changes: &mut ClosedChanges,
    ) -> Joined {
        let facts = &mut self.facts;
        if Some(at) < facts.deleted {
            return Joined::Stale;
        }
        if Some(at) == facts.deleted {
            // Read again, it decides nothing anew. It removes the facts of its
            // own millisecond again, except those of a registration that
            // overrides it.
            let held = facts.clone();
            facts.delete(at);
            facts.registered = held.registered;
            if held.is_registered_anew() {
                facts.preregistered = held.preregistered;
                facts.membership.clone_from(&held.membership);
                facts.earlier_fleets.clone_from(&held.earlier_fleets);
            }
            return Joined::from(self.facts != held);
        }
        let registered_then = facts.registered == Some(at);
        facts.deleted = Some(at);
        facts.deletion_tie = if registered_then { Tie::Ended } else { Tie::None };
        facts.deletion_interval_s = facts.deletion_interval_s.max(interval_s);
        facts.delete(at);
        self.delete_sessions(at, changes);
        Joined::Changed
    }

    /// Forgets the deletion of a device that was registered after it.
    pub fn forget_deletion(&mut self) {
        let facts = &mut self.facts;
        facts.deleted = None;
        facts.deletion_tie = Tie::None;
        facts.deletion_interval_s = None;
        facts.deletion_touched = None;
        self.deletion_touched_written = None;
    }

    /// Stores that the deletion suppressed an event with this poll interval.
    /// Returns whether that must be written (rule J5: only when it moved by more
    /// than an hour, or the interval is longer than all before).
    pub fn touch_deletion(&mut self, clock: Timestamp, interval_s: Option<u32>) -> bool {
        const WRITTEN_EVERY_MS: i64 = 3_600_000;
        let Some(deleted) = self.facts.deleted else { return false };
        let longer = interval_s > self.facts.deletion_interval_s;
        if longer {
            self.facts.deletion_interval_s = interval_s;
        }
        if clock <= self.facts.deletion_touched.unwrap_or(deleted).max(deleted) {
            return longer;
        }
        self.facts.deletion_touched = Some(clock);
        let written = self.deletion_touched_written.unwrap_or(deleted).max(deleted);
        longer || clock > written.plus_ms(WRITTEN_EVERY_MS)
    }
}

/// The cause of a change that this event makes.
pub(in crate::shard) fn cause_of(event: &DeviceEvent) -> Cause {
    match event {
        DeviceEvent::SessionOpened { .. } => Cause::VpnOpened,
        DeviceEvent::SessionClosed { .. } => Cause::VpnClosed,
        DeviceEvent::Registered { .. } => Cause::Registered,
        DeviceEvent::Provisioned => Cause::Provisioned,
        DeviceEvent::Activated => Cause::Activated,
        DeviceEvent::Deactivated => Cause::Deactivated,
        DeviceEvent::Frozen { .. } => Cause::Frozen,
        DeviceEvent::Unfrozen { .. } => Cause::Unfrozen,
        // A percentage never starts anything, so it never is a cause.
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::shard::event::FrozenReason;

    fn joined(events: &[(i64, DeviceEvent)]) -> Cold {
        let mut scopes = Scopes::default();
        let mut cold = Cold::default();
        let mut changes = ClosedChanges::new();
        for (at, event) in events {
            let at = Timestamp(*at);
            if *event == DeviceEvent::Deleted {
                cold.delete(at, None, &mut changes);
            } else if cold.facts.deleted.is_none_or(|deleted| deleted <= at) {
                cold.join(at, event, &mut scopes);
            }
        }
        cold
    }

    #[test]
    fn in_a_tie_the_later_event_in_the_log_wins() {
        let frozen = DeviceEvent::Frozen { reason: FrozenReason::Other };
        let unfrozen = DeviceEvent::Unfrozen { reason: None };
        let register = |events: &[(i64, DeviceEvent)]| {
            joined(events).facts.frozen[FrozenReason::Other.index()].unwrap().value
        };
        assert!(!register(&[(5, frozen.clone()), (5, unfrozen.clone())]));
        assert!(register(&[(5, unfrozen), (5, frozen)]));
        let moved = |fleet: &str| DeviceEvent::Moved {
            fleet: Arc::from(fleet),
            organization: Arc::from("o"),
        };
        let mut scopes = Scopes::default();
        for order in [["a", "b"], ["b", "a"]] {
            let mut cold = Cold::default();
            for fleet in order {
                cold.join(Timestamp(1), &moved(fleet), &mut scopes);
            }
            assert_eq!(&**scopes.fleets.name(cold.belongs_to().fleet), order[1]);
        }
    }

    #[test]
    fn registered_and_deleted_in_one_millisecond_are_one_register() {
        let registered = DeviceEvent::Registered {
            fleet: "f".into(),
            organization: "".into(),
            preregistered: false,
        };
        let deleted = DeviceEvent::Deleted;
        let is_deleted = |events: &[&DeviceEvent]| {
            let events: Vec<_> = events.iter().map(|event| (5, (*event).clone())).collect();
            joined(&events).facts.is_deleted()
        };
        assert!(is_deleted(&[&registered, &deleted]));
        assert!(is_deleted(&[&registered, &deleted, &registered, &deleted]));
        assert!(!is_deleted(&[&deleted, &registered]));
        assert!(!is_deleted(&[&deleted, &registered, &deleted, &registered]));
    }

    #[test]
    fn a_deletion_is_not_forgotten_while_a_registration_of_its_millisecond_goes_before_it() {
        let registered = |fleet: &str| DeviceEvent::Registered {
            fleet: fleet.into(),
            organization: "".into(),
            preregistered: false,
        };
        let is_forgotten = |events: &[(i64, DeviceEvent)]| {
            joined(events).deletion_forgotten_at(&Rules::default()).is_some()
        };
        let [first, anew] = [(5, DeviceEvent::Deleted), (5, registered("f"))];
        assert!(!is_forgotten(&[first.clone(), anew.clone()]));
        assert!(is_forgotten(&[anew.clone(), first.clone()]));
        assert!(is_forgotten(&[first, anew, (6, registered("f"))]));
    }

    #[test]
    fn a_deletion_is_written_again_only_an_hour_later() {
        let mut cold = Cold::default();
        cold.facts.deleted = Some(Timestamp(0));
        assert!(!cold.touch_deletion(Timestamp(3_600_000), None));
        assert!(cold.touch_deletion(Timestamp(3_600_001), None));
        let rules = Rules { tombstone_retention_ms: 10, tolerance: 1.0, ..Rules::default() };
        // Twice the default poll interval, which is longer.
        let span_ms = 30 * 60_000;
        assert_eq!(cold.deletion_forgotten_at(&rules), Some(Timestamp(3_600_001 + span_ms)));
        assert!(cold.touch_deletion(Timestamp(3_600_001), Some(3_600)));
        let span_ms = 2 * 3_600_000;
        assert_eq!(cold.deletion_forgotten_at(&rules), Some(Timestamp(3_600_001 + span_ms)));
    }
}
