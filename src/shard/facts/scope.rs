//! What concerns many devices at once: VPN instances and their leases, fleets,
//! organizations (rules J4, J7). Their names are interned, so that a row holds
//! four bytes for each.

use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::earlier;
use super::register::{Register, is_frozen, join, join_frozen, join_time};
use super::status::{Cause, Status};
use crate::shard::event::{FrozenReason, ScopeEvent, Timestamp};
use crate::shard::snapshot::{FleetFacts, InstanceFacts, NameOf, OrganizationFacts};

/// A name, interned; 0 is none.
pub(in crate::shard) type Interned = u32;

/// Things with names, by number. Number 0 is the empty name: none.
#[derive(Debug)]
pub(in crate::shard) struct Named<T> {
    names: Vec<Arc<str>>,
    values: Vec<T>,
    index: HashTable<u32>,
}

impl<T: Default> Default for Named<T> {
    fn default() -> Named<T> {
        let mut named = Named { names: Vec::new(), values: Vec::new(), index: HashTable::new() };
        named.intern(&Arc::from(""));
        named
    }
}

impl<T: Default> Named<T> {
    pub fn find(&self, name: &str) -> Option<u32> {
        let found = self.index.find(hash_of(name), |&at| &*self.names[at as usize] == name);
        found.copied()
    }

    pub fn intern(&mut self, name: &Arc<str>) -> u32 {
        if let Some(at) = self.find(name) {
            return at;
        }
        let at = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.names.push(name.clone());
        self.values.push(T::default());
        let Named { names, index, .. } = self;
        index.insert_unique(hash_of(name), at, |&other| hash_of(&names[other as usize]));
        at
    }

    pub fn name(&self, at: u32) -> &Arc<str> {
        &self.names[at as usize]
    }

    /// The name, unless it is the empty one.
    pub fn name_if_any(&self, at: u32) -> Option<Arc<str>> {
        (at != 0).then(|| self.name(at).clone())
    }

    pub fn get(&self, at: u32) -> &T {
        &self.values[at as usize]
    }

    pub fn get_mut(&mut self, at: u32) -> &mut T {
        &mut self.values[at as usize]
    }

    pub fn values(&self) -> &[T] {
        &self.values
    }

    pub fn indices(&self) -> std::ops::Range<u32> {
        0..u32::try_from(self.values.len()).unwrap_or(u32::MAX)
    }
}

fn hash_of(name: &str) -> u64 {
    FixedState::with_seed(1).hash_one(name)
}

/// A VPN instance.
#[derive(Clone, Debug, Default)]
pub(in crate::shard) struct Instance {
    pub facts: InstanceFacts,
}

impl Instance {
    /// The end of the lease in force, if there is one.
    pub fn lease_end(&self) -> Option<Timestamp> {
        let alive = self.alive()?;
        Some(alive.at.plus_ms(i64::from(alive.value)))
    }

    /// The announcement that the lease rests on.
    pub fn alive(&self) -> Option<Register<u32>> {
        self.facts.alive.max(self.facts.alive_without_start)
    }

    /// Whether a session opened at this time is not ruled out for good, by a
    /// loss or a restart of its instance (rule J4).
    pub fn may_count(&self, opened_at: Timestamp) -> bool {
        self.facts.lost.is_none_or(|lost| opened_at > lost)
            && self.facts.started.is_none_or(|started| opened_at >= started)
    }

    /// The same, and that the lease, if there is one, has not ended.
    pub fn counts(&self, opened_at: Timestamp) -> bool {
        !self.facts.lapsed && self.may_count(opened_at)
    }
}

/// A fleet.
#[derive(Debug, Default)]
pub(in crate::shard) struct Fleet {
    pub facts: FleetFacts,
    /// Its devices by status.
    pub counts: [u64; Status::ALL.len()],
    /// The counts differ from what the view was last told.
    pub counts_changed: bool,
}

/// Which scope an event concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::shard) enum ScopeRef {
    Instance(u32),
    Fleet(u32),
    Organization(u32),
}

/// A scope's facts as they were before the event that holds the shard: the
/// deadlines of a row that come before that event are judged by them (rule T5),
/// in whichever chunk the row's turn comes.
#[derive(Debug)]
pub(in crate::shard) enum Before {
    Instance(u32, Instance),
    Fleet(u32, FleetFacts),
    Organization(u32, OrganizationFacts),
}

/// What became of a scope event.
#[derive(Debug)]
pub(in crate::shard) enum Applied {
    /// Something later is known, or the same.
    Stale,
    /// The fact is new, and changes no row.
    Quiet,
    /// Rows must be settled, for this reason.
    Settle { scope: ScopeRef, before: Before, at: Timestamp, cause: Cause },
}

/// All scopes of a shard.
#[derive(Debug, Default)]
pub(in crate::shard) struct Scopes {
    pub instances: Named<Instance>,
    pub fleets: Named<Fleet>,
    pub organizations: Named<OrganizationFacts>,
    /// Ends of leases that have not been fired, with their instances.
    pub leases: BTreeSet<(Timestamp, u32)>,
    /// Facts that wait for the next outbox.
    pub dirty: BTreeSet<ScopeRef>,
    /// Fleets whose counts changed.
    pub changed_counts: Vec<u32>,
    /// While an event holds the shard: what its scope was before.
    pub before: Option<Before>,
}

impl Scopes {
    pub fn name(&self, of: NameOf, at: Interned) -> &Arc<str> {
        match of {
            NameOf::Instance => self.instances.name(at),
            NameOf::Fleet => self.fleets.name(at),
            NameOf::Organization => self.organizations.name(at),
        }
    }

    pub fn intern(&mut self, of: NameOf, name: &Arc<str>) -> Interned {
        match of {
            NameOf::Instance => self.instances.intern(name),
            NameOf::Fleet => self.fleets.intern(name),
            NameOf::Organization => self.organizations.intern(name),
        }
    }

    /// A fleet's facts, as they are or as they were before the event that
    /// holds the shard.
    pub fn fleet(&self, at: u32, before: bool) -> &FleetFacts {
        match &self.before {
            Some(Before::Fleet(held, facts)) if before && *held == at => facts,
            _ => &self.fleets.get(at).facts,
        }
    }

    /// The same for an organization.
    pub fn organization(&self, at: u32, before: bool) -> &OrganizationFacts {
        match &self.before {
            Some(Before::Organization(held, facts)) if before && *held == at => facts,
            _ => self.organizations.get(at),
        }
    }

    /// The same for a VPN instance.
    pub fn instance(&self, at: u32, before: bool) -> &Instance {
        match &self.before {
            Some(Before::Instance(held, instance)) if before && *held == at => instance,
            _ => self.instances.get(at),
        }
    }

    /// Forgets what a fleet was told before `from` only, as far as no late heartbeat
    /// may need it (rule J3).
    pub fn forget_told(&mut self, fleet: &str, from: Timestamp) {
        let Some(index) = self.fleets.find(fleet) else { return };
        let FleetFacts { settings, earlier_settings, .. } = &mut self.fleets.get_mut(index).facts;
        earlier::forget(settings.as_ref(), earlier_settings, from, earlier::EARLIER_OF_FLEET_MAX);
    }

    /// Moves a device in the counts.
    pub fn count(&mut self, fleet: u32, status: Status, add: bool) {
        let held = self.fleets.get_mut(fleet);
        let count = &mut held.counts[status.index()];
        *count = if add { count.saturating_add(1) } else { count.saturating_sub(1) };
        if !held.counts_changed {
            held.counts_changed = true;
            self.changed_counts.push(fleet);
        }
    }

    /// Has the counts of all fleets that are known written: also those that have
    /// no devices, of which the view may show some.
    pub fn tell_all_counts(&mut self) {
        for fleet in self.fleets.indices() {
            let held = self.fleets.get_mut(fleet);
            if !held.counts_changed {
                held.counts_changed = true;
                self.changed_counts.push(fleet);
            }
        }
    }

    /// Takes an event in. `believed` is its record's time (rule J4: a start
    /// later than that is not believed), `clock` tells which leases are over.
    pub fn apply(
        &mut self,
        at: Timestamp,
        believed: Timestamp,
        clock: Timestamp,
        event: &ScopeEvent,
    ) -> Applied {
        // The empty name stands for no scope at all, and concerns nobody.
        if scope_name(event).is_empty() {
            return Applied::Stale;
        }
        match event {
            ScopeEvent::InstanceAlive { instance, started_at, lease_ms } => {
                // A lease of a start that is not believed is nobody's lease.
                if started_at.is_some_and(|started_at| started_at > believed) {
                    return Applied::Stale;
                }
                let instance = self.instances.intern(instance);
                self.alive(instance, at, *started_at, *lease_ms, clock)
            }
            ScopeEvent::InstanceLost { instance } => {
                let index = self.instances.intern(instance);
                let instance = self.instances.get_mut(index);
                let before = instance.clone();
                if !join_time(&mut instance.facts.lost, at) {
                    return Applied::Stale;
                }
                self.changed(Before::Instance(index, before), at, Cause::VpnInstanceLost, true)
            }
            ScopeEvent::FleetSettingsChanged { fleet, settings } => {
                let index = self.fleets.intern(fleet);
                let facts = &mut self.fleets.get_mut(index).facts;
                let before = facts.clone();
                let FleetFacts { settings: held, earlier_settings, .. } = facts;
                if !earlier::join(held, earlier_settings, at, *settings, |settings| {
                    settings.poll_interval_s
                }) {
                    return Applied::Stale;
                }
                // `vpn_enabled` counts as it is known now, an interval from then on.
                let enabled =
                    |facts: &FleetFacts| facts.settings.and_then(|held| held.value.vpn_enabled);
                let settle = earlier::interval_at(&before, at, |_| true)
                    != settings.poll_interval_s
                    || enabled(&before) != enabled(facts);
                self.changed(Before::Fleet(index, before), at, Cause::SettingsChanged, settle)
            }
            ScopeEvent::FleetFrozen { fleet, reason } => {
                self.fleet_frozen(fleet, at, Some(*reason), true)
            }
            ScopeEvent::FleetUnfrozen { fleet, reason } => {
                self.fleet_frozen(fleet, at, *reason, false)
            }
            ScopeEvent::OrganizationFrozen { organization, reason } => {
                self.organization_frozen(organization, at, Some(*reason), true)
            }
            ScopeEvent::OrganizationUnfrozen { organization, reason } => {
                self.organization_frozen(organization, at, *reason, false)
            }
        }
    }

    fn changed(&mut self, before: Before, at: Timestamp, cause: Cause, settle: bool) -> Applied {
        let scope = match &before {
            Before::Instance(index, _) => ScopeRef::Instance(*index),
            Before::Fleet(index, _) => ScopeRef::Fleet(*index),
            Before::Organization(index, _) => ScopeRef::Organization(*index),
        };
        self.dirty.insert(scope);
        if settle { Applied::Settle { scope, before, at, cause } } else { Applied::Quiet }
    }

    fn fleet_frozen(
        &mut self,
        fleet: &Arc<str>,
        at: Timestamp,
        reason: Option<FrozenReason>,
        frozen: bool,
    ) -> Applied {
        let index = self.fleets.intern(fleet);
        let facts = &mut self.fleets.get_mut(index).facts;
        let before = facts.clone();
        if !join_frozen(&mut facts.frozen, at, reason, frozen) {
            return Applied::Stale;
        }
        let settle = is_frozen(&before.frozen) != is_frozen(&facts.frozen);
        self.changed(Before::Fleet(index, before), at, cause_of_frozen(frozen), settle)
    }

    fn organization_frozen(
        &mut self,
        organization: &Arc<str>,
        at: Timestamp,
        reason: Option<FrozenReason>,
        frozen: bool,
    ) -> Applied {
        let index = self.organizations.intern(organization);
        let facts = self.organizations.get_mut(index);
        let before = facts.clone();
        if !join_frozen(&mut facts.frozen, at, reason, frozen) {
            return Applied::Stale;
        }
        let settle = is_frozen(&before.frozen) != is_frozen(&facts.frozen);
        self.changed(Before::Organization(index, before), at, cause_of_frozen(frozen), settle)
    }

    fn alive(
        &mut self,
        index: u32,
        at: Timestamp,
        started_at: Option<Timestamp>,
        lease_ms: u32,
        clock: Timestamp,
    ) -> Applied {
        let instance = self.instances.get_mut(index);
        let before = instance.clone();
        let facts = &mut instance.facts;
        let mut restarted = None;
        let joined = match started_at {
            None => join(&mut facts.alive_without_start, at, lease_ms),
            // Of a start that is over.
            Some(started_at) if facts.started > Some(started_at) => false,
            Some(started_at) => {
                if join_time(&mut facts.started, started_at) {
                    facts.alive = None;
                    restarted = Some(started_at);
                }
                join(&mut facts.alive, at, lease_ms)
            }
        };
        if !joined {
            return Applied::Stale;
        }
        self.renew_lease(index, before.lease_end(), clock);
        let instance = self.instances.get(index);
        let resumed = before.facts.lapsed && !instance.facts.lapsed;
        // Sessions of an earlier start end when the new one began; those that
        // come back do so by this announcement.
        let (at, cause) = match restarted {
            Some(started_at) => (started_at, Cause::VpnInstanceLost),
            None => (at, Cause::VpnInstanceAlive),
        };
        let settle = restarted.is_some() || resumed;
        self.changed(Before::Instance(index, before), at, cause, settle)
    }

    /// Files the end of an instance's lease. An end that the clock has passed
    /// already is fired like any other, unless the instance has lapsed before.
    fn renew_lease(&mut self, index: u32, filed: Option<Timestamp>, clock: Timestamp) {
        if let Some(filed) = filed {
            self.leases.remove(&(filed, index));
        }
        let instance = self.instances.get_mut(index);
        let Some(end) = instance.lease_end() else { return };
        if end > clock {
            instance.facts.lapsed = false;
        }
        if !instance.facts.lapsed {
            self.leases.insert((end, index));
        }
    }

    /// The next end of a lease that the clock has reached.
    pub fn lease_due(&self, clock: Timestamp) -> Option<(Timestamp, u32)> {
        self.leases.first().copied().filter(|&(end, _)| end <= clock)
    }

    /// Fires the end of a lease; the rows are the caller's to settle.
    pub fn lapse(&mut self, end: Timestamp, index: u32) -> Before {
        self.leases.remove(&(end, index));
        let instance = self.instances.get_mut(index);
        let before = Before::Instance(index, instance.clone());
        instance.facts.lapsed = true;
        // Else a restore would take the sessions back: the clock may stand just
        // before the end still (rule C2).
        self.dirty.insert(ScopeRef::Instance(index));
        before
    }

    /// After a restore: which leases have not ended.
    pub fn start(&mut self) {
        self.leases.clear();
        for index in self.instances.indices() {
            let instance = self.instances.get(index);
            let Some(end) = instance.lease_end() else { continue };
            if !instance.facts.lapsed {
                self.leases.insert((end, index));
            }
        }
    }
}

fn scope_name(event: &ScopeEvent) -> &str {
    match event {
        ScopeEvent::InstanceAlive { instance, .. } | ScopeEvent::InstanceLost { instance } => {
            instance
        }
        ScopeEvent::FleetSettingsChanged { fleet, .. }
        | ScopeEvent::FleetFrozen { fleet, .. }
        | ScopeEvent::FleetUnfrozen { fleet, .. } => fleet,
        ScopeEvent::OrganizationFrozen { organization, .. }
        | ScopeEvent::OrganizationUnfrozen { organization, .. } => organization,
    }
}

/// The cause that a change made by a freeze, or by lifting one, has.
pub(in crate::shard) fn cause_of_frozen(frozen: bool) -> Cause {
    if frozen { Cause::Frozen } else { Cause::Unfrozen }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: Timestamp = Timestamp(0);

    fn alive(started_at: Option<i64>, lease_ms: u32) -> ScopeEvent {
        ScopeEvent::InstanceAlive {
            instance: "vpn-1".into(),
            started_at: started_at.map(Timestamp),
            lease_ms,
        }
    }

    fn apply(scopes: &mut Scopes, at: i64, event: &ScopeEvent) -> Applied {
        scopes.apply(Timestamp(at), Timestamp(at), NEVER, event)
    }

    fn instance(scopes: &Scopes) -> &Instance {
        scopes.instances.get(scopes.instances.find("vpn-1").unwrap())
    }

    #[test]
    fn a_lease_runs_from_the_latest_announcement_of_the_current_start() {
        let mut scopes = Scopes::default();
        apply(&mut scopes, 100, &alive(Some(50), 1_000));
        apply(&mut scopes, 200, &alive(None, 1_000));
        assert_eq!(instance(&scopes).lease_end(), Some(Timestamp(1_200)));
        // Of an earlier start: nothing.
        assert!(matches!(apply(&mut scopes, 300, &alive(Some(40), 1_000)), Applied::Stale));
        assert_eq!(scopes.leases.len(), 1);
    }

    #[test]
    fn a_lease_that_was_fired_stays_so_in_a_restore_and_one_that_was_not_is_filed() {
        let mut scopes = Scopes::default();
        apply(&mut scopes, 100, &alive(Some(50), 1_000));
        scopes.start();
        let (end, index) = scopes.lease_due(Timestamp(1_100)).expect("it is filed");
        scopes.dirty.clear();
        scopes.lapse(end, index);
        assert!(scopes.dirty.contains(&ScopeRef::Instance(index)), "that is written");
        scopes.start();
        assert_eq!(scopes.lease_due(Timestamp(i64::MAX)), None);
        assert!(instance(&scopes).facts.lapsed);
    }

    #[test]
    fn a_start_in_the_future_is_not_believed() {
        let mut scopes = Scopes::default();
        assert!(matches!(apply(&mut scopes, 100, &alive(Some(101), 1_000)), Applied::Stale));
    }

    #[test]
    fn a_later_announcement_brings_lapsed_sessions_back() {
        let mut scopes = Scopes::default();
        apply(&mut scopes, 100, &alive(Some(50), 1_000));
        let (end, index) = scopes.lease_due(Timestamp(1_100)).unwrap();
        scopes.lapse(end, index);
        assert!(instance(&scopes).facts.lapsed);
        let event = alive(Some(50), 1_000);
        let applied = scopes.apply(Timestamp(1_500), Timestamp(1_500), Timestamp(1_400), &event);
        assert!(matches!(applied, Applied::Settle { cause: Cause::VpnInstanceAlive, .. }));
        assert!(!instance(&scopes).facts.lapsed);
    }

    #[test]
    fn lifting_one_reason_of_two_settles_nobody() {
        let mut scopes = Scopes::default();
        let frozen = |reason| ScopeEvent::FleetFrozen { fleet: "f".into(), reason };
        let lifted = |reason| ScopeEvent::FleetUnfrozen { fleet: "f".into(), reason };
        let settles = |applied| matches!(applied, Applied::Settle { .. });
        assert!(settles(apply(&mut scopes, 1, &frozen(FrozenReason::Allowance))));
        assert!(!settles(apply(&mut scopes, 2, &frozen(FrozenReason::OverdueInvoices))));
        assert!(!settles(apply(&mut scopes, 3, &lifted(Some(FrozenReason::Allowance)))));
        assert!(settles(apply(&mut scopes, 4, &lifted(None))));
    }

    #[test]
    fn counts_follow_and_are_told_once() {
        let mut scopes = Scopes::default();
        let fleet = scopes.fleets.intern(&"f".into());
        scopes.count(fleet, Status::Online, true);
        scopes.count(fleet, Status::Online, false);
        scopes.count(fleet, Status::Offline, true);
        assert_eq!(scopes.fleets.get(fleet).counts[Status::Offline.index()], 1);
        assert_eq!(scopes.changed_counts, vec![fleet]);
    }
}
