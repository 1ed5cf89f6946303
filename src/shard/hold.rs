//! The hold of a shard in the changelog: from the first chunk to the last (rule
//! J7). A hold that begins and ends between two outboxes is not written.

use super::event::Timestamp;
use super::scope::ScopeRef;
use super::scope::{Before, Scopes};
use super::settling::ScopeChange;
use super::snapshot::{Entry, FleetFacts, HeldScope, Hold, OrganizationFacts};

/// The hold, and whether the changelog has it.
#[derive(Debug, Default)]
pub(super) struct Held {
    hold: Option<Box<Hold>>,
    /// It began after the last outbox.
    is_new: bool,
    /// The changelog has a hold.
    is_written: bool,
}

impl Held {
    pub fn begin(&mut self, hold: Hold) {
        self.hold = Some(Box::new(hold));
        self.is_new = true;
    }

    pub fn end(&mut self) {
        self.hold = None;
        self.is_new = false;
    }

    /// Takes over the hold of the changelog.
    pub fn restore(&mut self, hold: Option<Box<Hold>>) {
        self.is_written = hold.is_some();
        self.hold = hold;
    }

    pub fn get(&self) -> Option<&Hold> {
        self.hold.as_deref()
    }

    pub fn has_output(&self) -> bool {
        self.is_new || self.is_written && self.hold.is_none()
    }

    /// The entry to be written.
    pub fn take_entry(&mut self) -> Option<Entry> {
        if !self.has_output() {
            return None;
        }
        self.is_new = false;
        self.is_written = self.hold.is_some();
        Some(Entry::Hold(self.hold.clone()))
    }
}

/// The hold as the changelog stores it. The change has been applied to its scope.
pub(super) fn hold_of(
    change: &ScopeChange,
    before: &Before,
    scopes: &Scopes,
    clock: Timestamp,
) -> Hold {
    let scope = match before {
        Before::Instance(index, before) => {
            let after = &scopes.instances.get(*index).facts;
            let facts = [&before.facts, after].map(Clone::clone);
            HeldScope::Instance(scopes.instances.name(*index).clone(), facts)
        }
        Before::Fleet(index, before) => {
            let after = &scopes.fleets.get(*index).facts;
            HeldScope::Fleet(scopes.fleets.name(*index).clone(), [before, after].map(Clone::clone))
        }
        Before::Organization(index, before) => {
            let facts = [before, scopes.organizations.get(*index)].map(Clone::clone);
            HeldScope::Organization(scopes.organizations.name(*index).clone(), facts)
        }
    };
    let ScopeChange { at, judged, cause, .. } = *change;
    Hold { scope, at, judged, cause, clock }
}

/// The hold with which a restore continues. `None` if the scope has other facts
/// than this change left: then another owner has continued already, and the rows
/// alone show its work (rule C9).
pub(super) fn change_of(hold: &Hold, scopes: &mut Scopes) -> Option<(ScopeChange, Before)> {
    let (scope, before, is_known) = match &hold.scope {
        HeldScope::Instance(name, [before, after]) => {
            let index = scopes.instances.intern(name);
            let mut instance = scopes.instances.get(index).clone();
            instance.facts.clock = after.clock;
            let is_known = instance.facts == *after;
            instance.facts = before.clone();
            (ScopeRef::Instance(index), Before::Instance(index, instance), is_known)
        }
        HeldScope::Fleet(name, [before, after]) => {
            let index = scopes.fleets.intern(name);
            let facts = scopes.fleets.get(index).facts.clone();
            let is_known = FleetFacts { clock: after.clock, ..facts } == *after;
            (ScopeRef::Fleet(index), Before::Fleet(index, before.clone()), is_known)
        }
        HeldScope::Organization(name, [before, after]) => {
            let index = scopes.organizations.intern(name);
            let facts = scopes.organizations.get(index).clone();
            let is_known = OrganizationFacts { clock: after.clock, ..facts } == *after;
            let before = Before::Organization(index, before.clone());
            (ScopeRef::Organization(index), before, is_known)
        }
    };
    let Hold { at, judged, cause, .. } = *hold;
    is_known.then_some((ScopeChange { scope, judged, at, cause }, before))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::event::{FrozenReason, ScopeEvent};
    use crate::shard::scope::Applied;
    use crate::shard::status::Cause;

    fn frozen() -> (Scopes, Hold) {
        let mut scopes = Scopes::default();
        let event = ScopeEvent::FleetFrozen { fleet: "f".into(), reason: FrozenReason::Allowance };
        let at = Timestamp(5);
        let Applied::Settle { scope, before, at, cause } = scopes.apply(at, at, at, at, &event)
        else {
            panic!("a first freeze settles");
        };
        let change = ScopeChange { scope, judged: at, at, cause };
        let hold = hold_of(&change, &before, &scopes, Timestamp(3));
        (scopes, hold)
    }

    #[test]
    fn hold_between_two_outboxes_is_not_written() {
        let (_, hold) = frozen();
        let mut held = Held::default();
        held.begin(hold.clone());
        held.end();
        assert_eq!(held.take_entry(), None);
        held.begin(hold.clone());
        assert_eq!(held.take_entry(), Some(Entry::Hold(Some(Box::new(hold.clone())))));
        assert_eq!(held.take_entry(), None, "once");
        // A second hold follows within one outbox.
        held.end();
        held.begin(hold.clone());
        assert_eq!(held.take_entry(), Some(Entry::Hold(Some(Box::new(hold.clone())))));
        held.end();
        assert_eq!(held.take_entry(), Some(Entry::Hold(None)));
        // A hold that the changelog had.
        held.restore(Some(Box::new(hold)));
        assert!(!held.has_output());
        held.end();
        assert_eq!(held.take_entry(), Some(Entry::Hold(None)));
    }

    #[test]
    fn hold_continues_unless_its_scope_has_changed() {
        let (mut scopes, hold) = frozen();
        let (change, before) = change_of(&hold, &mut scopes).expect("it is as it was");
        assert_eq!((change.at, change.cause), (Timestamp(5), Cause::Frozen));
        assert!(matches!(before, Before::Fleet(_, facts) if facts == Default::default()));
        let event = ScopeEvent::FleetUnfrozen { fleet: "f".into(), reason: None };
        let at = Timestamp(6);
        scopes.apply(at, at, at, at, &event);
        assert!(change_of(&hold, &mut scopes).is_none());
    }
}
