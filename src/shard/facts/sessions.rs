//! The sessions of a device, open and closed (rule J4): which ones are kept, and
//! for how long.

use std::sync::Arc;

use super::device::{ClosedChanges, Cold, Joined, Session};
use super::scope::Interned;
use super::session::{Began, Opening, SessionFingerprint};
use crate::shard::event::Timestamp;

/// The most closed sessions remembered for a device (rule J4).
pub(in crate::shard) const CLOSED_SESSIONS_MAX: usize = 16;

/// The most open sessions kept for a device (rule J4). If all closes of a device
/// are lost, its row must still fit into a record.
pub(in crate::shard) const OPEN_SESSIONS_MAX: usize = 64;

impl Cold {
    /// The session with that name, open or closed.
    pub fn session(&self, instance: Interned, name: &str) -> Option<&Session> {
        let mut sessions = self.facts.sessions.iter().chain(&self.closed);
        sessions.find(|held| held.instance == instance && *held.session == *name)
    }

    /// Joins an opening, at its own time, which is later than any deletion.
    pub fn open_session(
        &mut self,
        instance: Interned,
        name: &Arc<str>,
        opening: Opening,
        began: Began,
        changes: &mut ClosedChanges,
    ) -> Joined {
        let contact = self
            .facts
            .deleted
            .map_or(opening.connected_at, |deleted| opening.connected_at.max(deleted.plus_ms(1)));
        let told = self.facts.told_of_opening(opening.at, contact);
        let held = self.session(instance, name).filter(|held| held.is_open());
        let renews = held.is_some_and(|held| held.is_renewed_by(&opening));
        let joined = self.join_session(instance, name, changes, |held| held.open(opening, began));
        match joined || told {
            true if renews => Joined::Renewed,
            changed => Joined::from(changed),
        }
    }

    /// An open session counts again since `began_at`.
    pub fn begin_session(&mut self, instance: Interned, name: &str, began_at: Timestamp) {
        let mut sessions = self.facts.sessions.iter_mut();
        let held = sessions.find(|held| held.instance == instance && *held.session == *name);
        if let Some(held) = held {
            held.began_at = Some(began_at).filter(|at| Some(*at) != held.opened_at());
        }
    }

    /// Joins a close, which may name the opening that it ends.
    pub fn close_session(
        &mut self,
        instance: Interned,
        name: &Arc<str>,
        at: Timestamp,
        opened_at: Option<Timestamp>,
        changes: &mut ClosedChanges,
    ) -> Joined {
        self.join_session(instance, name, changes, |held| held.close(at, opened_at)).into()
    }

    fn join_session(
        &mut self,
        instance: Interned,
        name: &Arc<str>,
        changes: &mut ClosedChanges,
        join: impl FnOnce(&mut Session) -> bool,
    ) -> bool {
        let named = |held: &Session| held.instance == instance && held.session == *name;
        let held = self.session(instance, name).cloned();
        let mut session = held.unwrap_or_else(|| Session::new(instance, name.clone()));
        if !join(&mut session) {
            return false;
        }
        let was_closed = self.closed.iter().any(named);
        self.facts.sessions.retain(|held| !named(held));
        self.closed.retain(|held| !named(held));
        self.put_session(session, was_closed, changes);
        true
    }

    /// A session that was opened again is no longer a closed one.
    pub fn put_session(&mut self, session: Session, was_closed: bool, changes: &mut ClosedChanges) {
        if session.is_open() {
            if was_closed {
                changes.push((session.clone(), false));
            }
            self.facts.sessions.push(session);
            self.sort_sessions();
            return;
        }
        changes.push((session.clone(), true));
        self.closed.push(session);
        self.sort_closed();
        while self.closed.len() > CLOSED_SESSIONS_MAX {
            self.forget_oldest_closed(changes);
        }
    }

    /// Ordered by the latest opening. Of one instant by name, because interned
    /// numbers depend on the order of arrival.
    pub fn sort_sessions(&mut self) {
        self.facts.sessions.sort_by(|one, other| {
            (one.opened_at(), &one.session).cmp(&(other.opened_at(), &other.session))
        });
    }

    fn sort_closed(&mut self) {
        self.closed.sort_by(|one, other| {
            (one.ended_at(), &one.session).cmp(&(other.ended_at(), &other.session))
        });
    }

    /// Drops open sessions if there are too many: first those that do not count,
    /// then the oldest (rule J4). Returns how many. A device with a session that
    /// counts keeps one.
    pub fn limit_open_sessions(&mut self, counts: impl Fn(&Session) -> bool) -> usize {
        let too_many = self.facts.sessions.len().saturating_sub(OPEN_SESSIONS_MAX);
        for _ in 0..too_many {
            let idle = self.facts.sessions.iter().position(|session| !counts(session));
            self.facts.sessions.remove(idle.unwrap_or(0));
        }
        too_many
    }

    /// Forgets the oldest closed session.
    pub fn forget_oldest_closed(&mut self, changes: &mut ClosedChanges) {
        if !self.closed.is_empty() {
            changes.push((self.closed.remove(0), false));
        }
    }

    /// When the next closed session is forgotten.
    pub fn closed_forgotten_at(&self, retention_ms: i64) -> Option<Timestamp> {
        Some(self.closed.first()?.ended_at()?.plus_ms(retention_ms.max(0)))
    }

    /// Takes a closed session over from the changelog.
    pub fn restore_closed(
        &mut self,
        fingerprint: SessionFingerprint,
        session: Option<Session>,
        fingerprint_of: impl Fn(&Session) -> SessionFingerprint,
    ) {
        self.closed.retain(|held| fingerprint_of(held) != fingerprint);
        if let Some(session) = session {
            self.closed.push(session);
            self.sort_closed();
        }
    }

    /// Forgets the sessions that a deletion removes (rule J5).
    pub fn delete_sessions(&mut self, deleted: Timestamp, changes: &mut ClosedChanges) {
        let open = std::mem::take(&mut self.facts.sessions);
        let closed = std::mem::take(&mut self.closed);
        for mut session in open {
            if session.delete(deleted) {
                self.put_session(session, false, changes);
            }
        }
        for held in closed {
            let mut session = held.clone();
            if !session.delete(deleted) {
                changes.push((held, false));
            } else if session == held {
                self.closed.push(session);
            } else {
                self.put_session(session, true, changes);
            }
        }
        self.sort_closed();
    }

    /// The next end of an own lease after `after`.
    pub fn next_lease_end(&self, after: Timestamp) -> Option<Timestamp> {
        self.facts.sessions.iter().filter_map(Session::lease_end).filter(|end| *end > after).min()
    }

    /// When the next session is dropped because its own lease ended long ago.
    pub fn lapsed_dropped_at(&self, retention_ms: i64) -> Option<Timestamp> {
        let ends = self.facts.sessions.iter().filter_map(Session::lease_end);
        Some(ends.min()?.plus_ms(retention_ms.max(0)))
    }

    /// When the first unwritten opening leaves the replay window (rule R2). A
    /// restore needs the latest opening of each session.
    pub fn opening_leaves_window_at(&self, window_ms: i64) -> Option<Timestamp> {
        let since = self.unwritten_openings?;
        let openings = self.facts.sessions.iter().filter_map(Session::opened_at);
        Some(openings.filter(|at| *at >= since).min()?.plus_ms(window_ms.max(0)))
    }

    /// Whether these facts have deadlines, besides those of the heartbeat.
    pub fn has_deadlines(&self) -> bool {
        self.facts.deleted.is_some()
            || !self.closed.is_empty()
            || self.unwritten_openings.is_some()
            || self.facts.sessions.iter().any(|session| session.lease_end().is_some())
    }

    /// Whether a session, open or closed, names this VPN instance.
    pub fn names_instance(&self, instance: Interned) -> bool {
        self.facts.sessions.iter().chain(&self.closed).any(|held| held.instance == instance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::snapshot::DeviceFacts;

    fn opening(at: i64) -> Opening {
        let at = Timestamp(at);
        Opening { at, connected_at: at, counted_at: at, lease_ms: None }
    }

    fn open(cold: &mut Cold, name: &str, at: i64, changes: &mut ClosedChanges) -> Joined {
        let began = Began::At(Timestamp(at));
        cold.open_session(1, &name.into(), opening(at), began, changes)
    }

    fn close(cold: &mut Cold, name: &str, at: i64, changes: &mut ClosedChanges) -> Joined {
        cold.close_session(1, &name.into(), Timestamp(at), None, changes)
    }

    #[test]
    fn a_close_touches_no_other_session() {
        let (mut cold, mut changes) = (Cold::default(), Vec::new());
        open(&mut cold, "a", 10, &mut changes);
        open(&mut cold, "b", 20, &mut changes);
        close(&mut cold, "a", 30, &mut changes);
        assert_eq!(cold.facts.sessions.len(), 1);
        assert_eq!(&*cold.facts.sessions[0].session, "b");
        assert_eq!(cold.facts.last_vpn_opening, Some(Timestamp(20)));
    }

    #[test]
    fn reopened_session_is_no_longer_among_the_closed() {
        let (mut cold, mut changes) = (Cold::default(), Vec::new());
        open(&mut cold, "a", 10, &mut changes);
        close(&mut cold, "a", 20, &mut changes);
        assert!(cold.facts.sessions.is_empty());
        changes.clear();
        open(&mut cold, "a", 30, &mut changes);
        assert!(cold.closed.is_empty());
        assert!(matches!(&changes[..], [(_, false)]), "its changelog entry goes");
        assert_eq!(cold.closed_forgotten_at(1), None);
    }

    #[test]
    fn renewal_is_distinguished_from_an_opening() {
        let (mut cold, mut changes) = (Cold::default(), Vec::new());
        assert_eq!(open(&mut cold, "", 10, &mut changes), Joined::Changed);
        assert_eq!(open(&mut cold, "", 20, &mut changes), Joined::Renewed);
        assert_eq!(open(&mut cold, "", 20, &mut changes), Joined::Stale);
        close(&mut cold, "", 30, &mut changes);
        assert_eq!(open(&mut cold, "", 25, &mut changes), Joined::Changed);
        assert_eq!(open(&mut cold, "", 40, &mut changes), Joined::Changed);
        // An opening of an earlier connection may contain less than the one that
        // it hides.
        let earlier = Opening { connected_at: Timestamp(5), ..opening(50) };
        let began = Began::At(Timestamp(50));
        let joined = cold.open_session(1, &"".into(), earlier, began, &mut changes);
        assert_eq!(joined, Joined::Changed);
    }

    #[test]
    fn the_oldest_closed_sessions_fall_out() {
        let (mut cold, mut changes) = (Cold::default(), Vec::new());
        for n in (0..20).rev() {
            close(&mut cold, &format!("session {n}"), n, &mut changes);
        }
        assert_eq!(cold.closed.len(), CLOSED_SESSIONS_MAX);
        assert_eq!(cold.closed[0].ended_at(), Some(Timestamp(4)));
    }

    #[test]
    fn repeated_opening_from_before_a_deletion_is_contact_just_after_it() {
        let mut changes = Vec::new();
        let told = Opening { connected_at: Timestamp(5), ..opening(30) };
        for deleted_first in [true, false] {
            let facts = DeviceFacts {
                deleted: deleted_first.then_some(Timestamp(20)),
                ..DeviceFacts::default()
            };
            let mut cold = Cold { facts, ..Cold::default() };
            let began = Began::At(Timestamp(30));
            cold.open_session(1, &"a".into(), told, began, &mut changes);
            if !deleted_first {
                cold.facts.deleted = Some(Timestamp(20));
                cold.facts.delete(Timestamp(20));
                cold.delete_sessions(Timestamp(20), &mut changes);
            }
            assert_eq!(cold.facts.last_vpn_opening, Some(Timestamp(21)));
            assert_eq!(cold.facts.sessions.len(), 1);
        }
    }

    #[test]
    fn a_deletion_between_a_close_and_an_open_undoes_the_close_in_every_order() {
        let mut ends = Vec::new();
        for deleted_at in 0..=3 {
            let (mut cold, mut changes) = (Cold::default(), Vec::new());
            for step in 0..=3 {
                if step == deleted_at {
                    cold.facts.deleted = Some(Timestamp(20));
                    cold.facts.delete(Timestamp(20));
                    cold.delete_sessions(Timestamp(20), &mut changes);
                }
                let outlives = |at: i64| cold.facts.deleted.is_none_or(|deleted| at > deleted.0);
                match step {
                    0 if outlives(5) => drop(open(&mut cold, "a", 5, &mut changes)),
                    1 if outlives(10) => drop(close(&mut cold, "a", 10, &mut changes)),
                    2 => drop(open(&mut cold, "a", 30, &mut changes)),
                    _ => {}
                }
            }
            ends.push(cold);
        }
        assert!(ends.iter().all(|end| *end == ends[0]), "{ends:?}");
        assert_eq!(ends[0].facts.sessions.len(), 1);
        assert!(ends[0].closed.is_empty());
    }
}
