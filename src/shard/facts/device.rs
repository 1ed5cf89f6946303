//! A device's facts, and how each event joins them (rules J1 to J6).
//!
//! Every fact is a register (`register.rs`). What a heartbeat touches is in the
//! hot row (`hot.rs`); all else is here.

use std::cmp::Ordering;

use super::register::{join, join_frozen, join_time, outlives, takes_over};
use super::scope::{Interned, Scopes};
use super::status::Cause;
use crate::shard::event::{DeviceEvent, Timestamp};
use crate::shard::hot::{Hot, Instant48};
use crate::shard::snapshot::{self, DeviceFacts, Register};

pub(in crate::shard) type Session = snapshot::Session<Interned>;
pub(in crate::shard) type Membership = snapshot::Membership<Interned>;

/// Closed sessions that came or changed (`true`), or went: each is a changelog
/// entry of its own.
pub(in crate::shard) type ClosedChanges = Vec<(Session, bool)>;

/// The earlier of the instants that made status and connectivity true, and
/// which of the two it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Earlier {
    Status(Timestamp),
    Connectivity(Timestamp),
}

/// All that is known of a device but its heartbeat.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::shard) struct Cold {
    pub facts: DeviceFacts<Interned>,
    /// No fact, but what the hot row has no room for: of a device that is known
    /// by heartbeats alone, the two instants are the same.
    pub earlier: Option<Earlier>,
    /// Sessions that are closed, oldest first.
    pub closed: Vec<Session>,
    /// Openings from this time on may be newer than what the changelog holds (rule
    /// R2).
    pub unwritten_openings: Option<Timestamp>,
    /// When the deletion was touched, as the changelog has it: it is written only
    /// when it has moved by more than an hour (rule J5).
    pub deletion_touched_written: Option<Timestamp>,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Joined {
    /// Something later is known, or the same.
    Stale,
    /// The row has changed.
    Changed,
    /// An opening renewed a session that was open. What is not emitted of it need
    /// not be written (rule R2).
    Renewed,
}

impl From<bool> for Joined {
    fn from(changed: bool) -> Joined {
        if changed { Joined::Changed } else { Joined::Stale }
    }
}

impl Cold {
    /// What made the status true, as last emitted (rule J8).
    pub fn since(&self, hot: &Hot) -> Option<Timestamp> {
        match self.earlier {
            Some(Earlier::Status(at)) => Some(at),
            _ => hot.changed_at.get(),
        }
    }

    /// What made the connectivity true, as last emitted.
    pub fn connectivity_since(&self, hot: &Hot) -> Option<Timestamp> {
        match self.earlier {
            Some(Earlier::Connectivity(at)) => Some(at),
            _ => hot.changed_at.get(),
        }
    }

    /// Notes the two instants, which a row can hold.
    pub fn set_since(&mut self, hot: &mut Hot, status: Timestamp, connectivity: Timestamp) {
        let [status, connectivity] = [status, connectivity].map(|at| Instant48::some(at).or_min());
        hot.changed_at = Instant48::some(status.max(connectivity));
        self.earlier = match status.cmp(&connectivity) {
            Ordering::Less => Some(Earlier::Status(status)),
            Ordering::Equal => None,
            Ordering::Greater => Some(Earlier::Connectivity(connectivity)),
        };
    }

    /// The fleet and organization, whether or not the device exists.
    pub fn belongs_to(&self) -> Membership {
        self.facts.membership.as_ref().map_or_else(Membership::default, |register| register.value)
    }

    /// Whether the device is deleted, and no later registration brought it back
    /// (rule J5).
    pub fn is_deleted(&self) -> bool {
        self.facts.deleted.is_some_and(|deleted| {
            self.facts.registered.is_none_or(|registered| !outlives(registered, deleted))
        })
    }

    /// When the deletion is forgotten, given the retention.
    pub fn deletion_forgotten_at(&self, retention_ms: i64) -> Option<Timestamp> {
        let deleted = self.facts.deleted?;
        let touched = self.facts.deletion_touched.map_or(deleted, |touched| touched.max(deleted));
        Some(touched.plus_ms(retention_ms.max(0)))
    }

    /// Joins an event other than a deletion, at its event time.
    pub fn join(&mut self, at: Timestamp, event: &DeviceEvent, scopes: &mut Scopes) -> Joined {
        let changed = match event {
            DeviceEvent::Registered { fleet, organization, preregistered } => {
                let registered = join_time(&mut self.facts.registered, at);
                let preregistered = join(&mut self.facts.preregistered, at, *preregistered);
                self.join_membership(at, fleet, organization, scopes) | registered | preregistered
            }
            DeviceEvent::Moved { fleet, organization } => {
                self.join_membership(at, fleet, organization, scopes)
            }
            DeviceEvent::Provisioned => join_time(&mut self.facts.provisioned, at),
            DeviceEvent::Activated => join_time(&mut self.facts.activated, at),
            DeviceEvent::Deactivated => join_time(&mut self.facts.deactivated, at),
            DeviceEvent::Frozen { reason } => {
                join_frozen(&mut self.facts.frozen, at, Some(*reason), true)
            }
            DeviceEvent::Unfrozen { reason } => {
                join_frozen(&mut self.facts.frozen, at, *reason, false)
            }
            DeviceEvent::ConfigurationStarted => {
                join(&mut self.facts.configuration.started, at, "".into())
            }
            DeviceEvent::ConfigurationProgressed { percent } => {
                join(&mut self.facts.configuration.percent, at, *percent)
            }
            DeviceEvent::ConfigurationFinished { .. } => {
                join_time(&mut self.facts.configuration.finished, at)
            }
            DeviceEvent::UpdateStarted { release } => {
                join(&mut self.facts.update.started, at, release.clone())
            }
            DeviceEvent::UpdateProgressed { percent, .. } => {
                join(&mut self.facts.update.percent, at, *percent)
            }
            DeviceEvent::UpdateFinished { .. } => join_time(&mut self.facts.update.finished, at),
            DeviceEvent::SettingsChanged(settings) => join(&mut self.facts.settings, at, *settings),
            // Joined by `delete`, which the heartbeat in the hot row needs too, and by
            // `open_session` and `close_session`.
            DeviceEvent::Deleted
            | DeviceEvent::SessionOpened { .. }
            | DeviceEvent::SessionClosed { .. } => false,
        };
        Joined::from(changed)
    }

    /// Ties are decided by name, as interned numbers depend on the order of
    /// arrival (rule J2).
    fn join_membership(
        &mut self,
        at: Timestamp,
        fleet: &std::sync::Arc<str>,
        organization: &std::sync::Arc<str>,
        scopes: &mut Scopes,
    ) -> bool {
        let held = self.facts.membership.map(|held| {
            let fleet = &**scopes.fleets.name(held.value.fleet);
            (held.at, (fleet, &**scopes.organizations.name(held.value.organization)))
        });
        let wins = takes_over((at, (&**fleet, &**organization)), held);
        if wins {
            let value = Membership {
                fleet: scopes.fleets.intern(fleet),
                organization: scopes.organizations.intern(organization),
            };
            self.facts.membership = Some(Register { at, value });
        }
        wins
    }

    /// Joins a deletion: facts at or before it do not exist (rule J5). The
    /// heartbeat, in the hot row, is the caller's.
    pub fn delete(&mut self, at: Timestamp, changes: &mut ClosedChanges) -> Joined {
        if !join_time(&mut self.facts.deleted, at) {
            return Joined::Stale;
        }
        self.facts.delete(at);
        self.delete_sessions(at, changes);
        Joined::Changed
    }

    /// Notes that the deletion suppressed an event; says whether that must be
    /// written (rule J5: only when it moved by more than an hour).
    pub fn touch_deletion(&mut self, clock: Timestamp) -> bool {
        const WRITTEN_EVERY_MS: i64 = 3_600_000;
        let Some(deleted) = self.facts.deleted else { return false };
        if clock <= self.facts.deletion_touched.unwrap_or(deleted).max(deleted) {
            return false;
        }
        self.facts.deletion_touched = Some(clock);
        let written = self.deletion_touched_written.unwrap_or(deleted).max(deleted);
        clock > written.plus_ms(WRITTEN_EVERY_MS)
    }
}

/// The cause that a change made by this event has.
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
                cold.delete(at, &mut changes);
            } else if cold.facts.deleted.is_none_or(|deleted| deleted < at) {
                cold.join(at, event, &mut scopes);
            }
        }
        cold
    }

    #[test]
    fn of_two_events_of_the_same_instant_the_greater_wins() {
        let frozen = DeviceEvent::Frozen { reason: FrozenReason::Other };
        let unfrozen = DeviceEvent::Unfrozen { reason: None };
        let one = joined(&[(5, frozen.clone()), (5, unfrozen.clone())]);
        let other = joined(&[(5, unfrozen), (5, frozen)]);
        assert_eq!(one, other);
        let register = one.facts.frozen[FrozenReason::Other.index()].unwrap();
        assert!(register.value);
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
            assert_eq!(&**scopes.fleets.name(cold.belongs_to().fleet), "b");
        }
    }

    #[test]
    fn a_deletion_is_written_again_only_an_hour_later() {
        let mut cold = Cold::default();
        cold.facts.deleted = Some(Timestamp(0));
        assert!(!cold.touch_deletion(Timestamp(3_600_000)));
        assert!(cold.touch_deletion(Timestamp(3_600_001)));
        assert_eq!(cold.deletion_forgotten_at(10), Some(Timestamp(3_600_011)));
    }
}
