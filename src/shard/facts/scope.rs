//! Scopes: VPN instances and their leases, fleets, organizations (rules J4, J7).
//! Their names are interned, so a row stores four bytes for each.

use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::earlier;
use super::register::{is_frozen, join_frozen, join_time};
use super::session::Session;
use super::status::{Cause, Status};
use crate::shard::event::{FrozenReason, ScopeEvent, Timestamp};
use crate::shard::snapshot::{FleetFacts, InstanceFacts, Lease, NameOf, OrganizationFacts};

/// A name, interned; 0 is none.
pub(in crate::shard) type Interned = u32;

/// Named values, by number. Number 0 is the empty name: none.
#[derive(Debug)]
pub(in crate::shard) struct Named<T> {
    names: Vec<Arc<str>>,
    values: Vec<T>,
    index: HashTable<u32>,
    /// Free numbers of forgotten names, for the next names.
    free: Vec<u32>,
}

impl<T: Default> Default for Named<T> {
    fn default() -> Named<T> {
        let mut named = Named {
            names: Vec::new(),
            values: Vec::new(),
            index: HashTable::new(),
            free: Vec::new(),
        };
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
        let at = match self.free.pop() {
            Some(at) => {
                self.names[at as usize] = name.clone();
                at
            }
            None => {
                self.names.push(name.clone());
                self.values.push(T::default());
                u32::try_from(self.names.len() - 1).unwrap_or(u32::MAX)
            }
        };
        let Named { names, index, .. } = self;
        index.insert_unique(hash_of(name), at, |&other| hash_of(&names[other as usize]));
        at
    }

    pub fn name(&self, at: u32) -> &Arc<str> {
        &self.names[at as usize]
    }

    /// Forgets a name. Its number must not be in use any more.
    pub fn remove(&mut self, at: u32) {
        let name = std::mem::take(&mut self.names[at as usize]);
        self.values[at as usize] = T::default();
        if let Ok(found) = self.index.find_entry(hash_of(&name), |&other| other == at) {
            found.remove();
            self.free.push(at);
        }
    }

    /// The number of names, without the empty one.
    pub fn len(&self) -> usize {
        self.index.len().saturating_sub(1)
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
    /// No row named it at the last check of all rows, and no event has since
    /// (rule J4).
    pub unnamed: bool,
}

impl Instance {
    /// The end of the lease in force, if there is one.
    pub fn lease_end(&self) -> Option<Timestamp> {
        self.alive().map(|alive| alive.end())
    }

    /// The announcement whose lease is in force: the one with the latest counted
    /// time; of the same time the later in the log.
    pub fn alive(&self) -> Option<Lease> {
        let facts = &self.facts;
        let (Some(one), Some(other)) = (facts.alive, facts.alive_without_start) else {
            return facts.alive.or(facts.alive_without_start);
        };
        // The first of two duplicates counts.
        let duplicates = (one.at, one.lease_ms) == (other.at, other.lease_ms);
        let later = one.counted_at > other.counted_at
            || one.counted_at == other.counted_at && facts.alive_is_later;
        Some(if later == duplicates { other } else { one })
    }

    /// When to check whether rows still name it, by the clock: `retention_ms`
    /// after the end of its lease, or after its latest fact.
    fn forget_from(&self, retention_ms: i64) -> [Option<Timestamp>; 2] {
        let facts = &self.facts;
        let lease_end = self.lease_end();
        let last = facts.lost.max(facts.started).max(lease_end);
        [lease_end, last].map(|at| Some(at?.plus_ms(retention_ms.max(0))))
    }

    /// Whether its own facts allow that it is forgotten (rule J4).
    pub fn is_over(&self, clock: Timestamp, retention_ms: i64) -> bool {
        let [_, last] = self.forget_from(retention_ms);
        last.is_none_or(|last| last <= clock)
    }

    /// Whether its lease ended so long ago that its sessions must be dropped.
    pub fn is_long_lapsed(&self, clock: Timestamp, retention_ms: i64) -> bool {
        let [lapsed, _] = self.forget_from(retention_ms);
        lapsed.is_some_and(|lapsed| lapsed <= clock)
    }

    /// Whether a session opened at this time may count: no loss or restart of its
    /// instance has ended it for good (rule J4).
    pub fn may_count(&self, opened_at: Timestamp) -> bool {
        self.facts.lost.is_none_or(|lost| opened_at > lost)
            && self.facts.started.is_none_or(|started| opened_at >= started)
    }

    /// Whether a session of this instance counts. Own leases that end at or
    /// before `leases_at` are over (rule J4).
    pub fn counts<Name>(&self, session: &Session<Name>, leases_at: Timestamp) -> bool {
        session.is_open()
            && !self.facts.lapsed
            && session.opened_at().is_some_and(|at| self.may_count(at))
            && session.lease_end().is_none_or(|end| end > leases_at)
    }
}

/// A fleet.
#[derive(Debug, Default)]
pub(in crate::shard) struct Fleet {
    pub facts: FleetFacts,
    /// Its devices by status.
    pub counts: [u64; Status::ALL.len()],
    /// The counts differ from those last written to the view.
    pub counts_changed: bool,
}

/// The scope of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::shard) enum ScopeRef {
    Instance(u32),
    Fleet(u32),
    Organization(u32),
}

/// A scope's facts before the event that holds the shard. They judge the
/// deadlines of a row before that event (rule T5), in whichever chunk the row is
/// settled.
#[derive(Debug)]
pub(in crate::shard) enum Before {
    Instance(u32, Instance),
    Fleet(u32, FleetFacts),
    Organization(u32, OrganizationFacts),
}

/// The result of a scope event.
#[derive(Debug)]
pub(in crate::shard) enum Applied {
    /// A later fact is known, or the same one.
    Stale,
    /// The fact is new, and changes no row.
    Quiet,
    /// Rows must be settled, for this reason.
    Settle { scope: ScopeRef, before: Box<Before>, at: Timestamp, cause: Cause },
}

/// All scopes of a shard.
#[derive(Debug, Default)]
pub(in crate::shard) struct Scopes {
    pub instances: Named<Instance>,
    pub fleets: Named<Fleet>,
    pub organizations: Named<OrganizationFacts>,
    /// Ends of leases that are not fired yet, with their instances.
    pub leases: BTreeSet<(Timestamp, u32)>,
    /// When to check next whether instances may be forgotten.
    pub forgets: BTreeSet<(Timestamp, u32)>,
    /// Instances that may be forgotten once the next outbox is written: it has
    /// the rows that named them last.
    pub forgotten_next: Vec<u32>,
    /// Instances that may be forgotten: those rows are in an earlier outbox.
    pub forgotten: Vec<u32>,
    /// Facts that wait for the next outbox.
    pub dirty: BTreeSet<ScopeRef>,
    /// Fleets whose counts changed.
    pub changed_counts: Vec<u32>,
    /// While an event holds the shard: the scope's facts before it.
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

    /// A fleet's facts, present ones or those before the event that holds the
    /// shard.
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

    /// Forgets a fleet's settings that applied only before `from`, if no late
    /// heartbeat may need them (rule J3).
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

    /// Marks the counts of all known fleets to be written, also of empty ones:
    /// the view may show devices for them.
    pub fn tell_all_counts(&mut self) {
        for fleet in self.fleets.indices() {
            let held = self.fleets.get_mut(fleet);
            if !held.counts_changed {
                held.counts_changed = true;
                self.changed_counts.push(fleet);
            }
        }
    }

    /// The number of an instance that an event names. It must not be forgotten at
    /// that moment. A new one is checked from `forget_from` on.
    pub fn told_instance(&mut self, name: &Arc<str>, forget_from: Timestamp) -> u32 {
        let known = self.instances.find(name);
        let index = known.unwrap_or_else(|| self.instances.intern(name));
        self.instances.get_mut(index).unnamed = false;
        if known.is_none() {
            self.forgets.insert((forget_from, index));
        }
        index
    }

    /// Joins an event. `believed` is its record's clamped timestamp (rule J4: a
    /// start later than that is ignored), `counted_at` the time from which its
    /// lease runs. `clock` tells which leases are over.
    pub fn apply(
        &mut self,
        at: Timestamp,
        believed: Timestamp,
        counted_at: Timestamp,
        clock: Timestamp,
        event: &ScopeEvent,
    ) -> Applied {
        // The empty name means no scope and concerns no row.
        if scope_name(event).is_empty() {
            return Applied::Stale;
        }
        match event {
            ScopeEvent::InstanceAlive { instance, started_at, lease_ms } => {
                // If the start is ignored, so is the lease.
                if started_at.is_some_and(|started_at| started_at > believed) {
                    return Applied::Stale;
                }
                let instance = self.told_instance(instance, clock);
                let lease = Lease { at, counted_at, lease_ms: *lease_ms };
                self.alive(instance, lease, *started_at, clock)
            }
            ScopeEvent::InstanceLost { instance } => {
                let index = self.told_instance(instance, clock);
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
                // `vpn_enabled` has its present value at all times; an interval
                // counts from its event on.
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
        if !settle {
            return Applied::Quiet;
        }
        Applied::Settle { scope, before: Box::new(before), at, cause }
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
        lease: Lease,
        started_at: Option<Timestamp>,
        clock: Timestamp,
    ) -> Applied {
        let instance = self.instances.get_mut(index);
        let before = instance.clone();
        let facts = &mut instance.facts;
        let mut restarted = None;
        let joined = match started_at {
            None => join_lease(&mut facts.alive_without_start, lease),
            // The announcement of an earlier run.
            Some(started_at) if facts.started > Some(started_at) => false,
            Some(started_at) => {
                if join_time(&mut facts.started, started_at) {
                    facts.alive = None;
                    restarted = Some(started_at);
                }
                join_lease(&mut facts.alive, lease) | restarted.is_some()
            }
        };
        if !joined {
            return Applied::Stale;
        }
        facts.alive_is_later = started_at.is_some()
            && facts.alive_without_start.is_some_and(|other| other.counted_at == lease.counted_at);
        self.renew_lease(index, before.lease_end(), clock);
        let instance = self.instances.get(index);
        let resumed = before.facts.lapsed && !instance.facts.lapsed;
        // Sessions of an earlier run end at the start of the new one. Sessions
        // that count again do so because of this announcement.
        let (at, cause) = match restarted {
            Some(started_at) => (started_at, Cause::VpnInstanceLost),
            None => (lease.at, Cause::VpnInstanceAlive),
        };
        let settle = restarted.is_some() || resumed;
        self.changed(Before::Instance(index, before), at, cause, settle)
    }

    /// Files the end of an instance's lease. An end that the clock has already
    /// passed is fired like any other, unless it was fired before.
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

    /// Fires the end of a lease. The caller must settle the rows.
    pub fn lapse(&mut self, end: Timestamp, index: u32) -> Before {
        self.leases.remove(&(end, index));
        let instance = self.instances.get_mut(index);
        let before = Before::Instance(index, instance.clone());
        instance.facts.lapsed = true;
        // Otherwise a restore would count the sessions again: the committed clock
        // may still be just before the end (rule C2).
        self.dirty.insert(ScopeRef::Instance(index));
        before
    }

    /// The next instance to be checked whether it may be forgotten.
    pub fn forget_due(&mut self, clock: Timestamp, retention_ms: i64) -> Option<u32> {
        while let Some(&(at, index)) = self.forgets.first()
            && at <= clock
        {
            self.forgets.remove(&(at, index));
            let instance = self.instances.get(index);
            if instance.is_over(clock, retention_ms) || instance.is_long_lapsed(clock, retention_ms)
            {
                return Some(index);
            }
            self.look_again(index, clock, retention_ms);
        }
        None
    }

    /// All rows were checked: `named` says whether one still names the instance.
    pub fn looked_at(&mut self, index: u32, named: bool, clock: Timestamp, retention_ms: i64) {
        let instance = self.instances.get_mut(index);
        instance.unnamed = !named && instance.is_over(clock, retention_ms);
        if instance.unnamed {
            self.forgotten_next.push(index);
        } else {
            self.look_again(index, clock, retention_ms);
        }
    }

    fn look_again(&mut self, index: u32, clock: Timestamp, retention_ms: i64) {
        let instance = self.instances.get_mut(index);
        let next = instance.forget_from(retention_ms).into_iter().flatten();
        let next = next.filter(|at| *at > clock).min();
        self.forgets.insert((next.unwrap_or(clock.plus_ms(retention_ms.max(1))), index));
    }

    /// Forgets instances: the rows that named them last were in an earlier
    /// outbox. Returns those that the changelog has.
    pub fn forget(&mut self, clock: Timestamp) -> Vec<Arc<str>> {
        let due = std::mem::replace(&mut self.forgotten, std::mem::take(&mut self.forgotten_next));
        let mut forgotten = Vec::new();
        for index in due {
            let instance = self.instances.get(index);
            if !instance.unnamed {
                // An event has named it since.
                self.forgets.insert((clock, index));
                continue;
            }
            if let Some(end) = instance.lease_end() {
                self.leases.remove(&(end, index));
            }
            if instance.facts != InstanceFacts::default() {
                forgotten.push(self.instances.name(index).clone());
            }
            self.dirty.remove(&ScopeRef::Instance(index));
            self.instances.remove(index);
        }
        forgotten
    }

    /// After a restore: files the leases that have not ended.
    pub fn start(&mut self, clock: Timestamp, retention_ms: i64) {
        self.leases.clear();
        self.forgets.clear();
        for index in self.instances.indices().skip(1) {
            let instance = self.instances.get(index);
            let known = instance.facts != InstanceFacts::default();
            let forget_from = if known { clock } else { clock.plus_ms(retention_ms.max(1)) };
            self.forgets.insert((forget_from, index));
            let Some(end) = instance.lease_end() else { continue };
            if !instance.facts.lapsed {
                self.leases.insert((end, index));
            }
        }
    }
}

/// Joins an announcement, if its counted time is later than the present one's and
/// it is no duplicate.
fn join_lease(held: &mut Option<Lease>, lease: Lease) -> bool {
    let stays = held.is_some_and(|held| {
        (held.at, held.lease_ms) == (lease.at, lease.lease_ms) || held.counted_at > lease.counted_at
    });
    if !stays {
        *held = Some(lease);
    }
    !stays
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

/// The cause of a change by a freeze or by its lifting.
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
        scopes.apply(Timestamp(at), Timestamp(at), Timestamp(at), NEVER, event)
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
        // An announcement of an earlier start is ignored.
        assert!(matches!(apply(&mut scopes, 300, &alive(Some(40), 1_000)), Applied::Stale));
        assert_eq!(scopes.leases.len(), 1);
    }

    #[test]
    fn restore_keeps_fired_leases_fired_and_files_the_others() {
        let mut scopes = Scopes::default();
        apply(&mut scopes, 100, &alive(Some(50), 1_000));
        scopes.start(Timestamp(1_099), 86_400_000);
        let (end, index) = scopes.lease_due(Timestamp(1_100)).expect("it is filed");
        scopes.dirty.clear();
        scopes.lapse(end, index);
        assert!(scopes.dirty.contains(&ScopeRef::Instance(index)), "that is written");
        scopes.start(Timestamp(1_099), 86_400_000);
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
        let at = Timestamp(1_500);
        let applied = scopes.apply(at, at, at, Timestamp(1_400), &event);
        assert!(matches!(applied, Applied::Settle { cause: Cause::VpnInstanceAlive, .. }));
        assert!(!instance(&scopes).facts.lapsed);
    }

    #[test]
    fn late_announcement_counts_later_and_a_duplicate_does_not() {
        let mut scopes = Scopes::default();
        let tell = |scopes: &mut Scopes, at, counted_at, started_at| {
            let (at, counted_at) = (Timestamp(at), Timestamp(counted_at));
            scopes.apply(at, counted_at, counted_at, NEVER, &alive(started_at, 1_000))
        };
        tell(&mut scopes, 100, 500, None);
        assert_eq!(instance(&scopes).lease_end(), Some(Timestamp(1_500)));
        // Later by its own time, and earlier by its counted time.
        assert!(matches!(tell(&mut scopes, 400, 400, None), Applied::Stale));
        assert!(matches!(tell(&mut scopes, 100, 900, None), Applied::Stale));
        // The same announcement, with a start.
        tell(&mut scopes, 100, 900, Some(50));
        assert_eq!(instance(&scopes).lease_end(), Some(Timestamp(1_500)));
    }

    #[test]
    fn an_instance_is_forgotten_once_nobody_names_it_and_its_rows_are_written() {
        const KEPT_MS: i64 = 1_000;
        let mut scopes = Scopes::default();
        apply(&mut scopes, 100, &alive(Some(50), 1_000));
        let index = scopes.instances.find("vpn-1").unwrap();
        assert_eq!(scopes.forget_due(Timestamp(2_099), KEPT_MS), None);
        assert_eq!(scopes.forget_due(Timestamp(2_100), KEPT_MS), Some(index));
        scopes.looked_at(index, true, Timestamp(2_100), KEPT_MS);
        assert_eq!(scopes.forget_due(Timestamp(3_099), KEPT_MS), None, "it was looked at");
        assert_eq!(scopes.forget_due(Timestamp(3_100), KEPT_MS), Some(index));
        scopes.looked_at(index, false, Timestamp(3_100), KEPT_MS);
        assert!(scopes.forget(Timestamp(3_100)).is_empty(), "its rows are in this outbox");
        assert_eq!(scopes.forget(Timestamp(3_100)), vec![Arc::from("vpn-1")]);
        assert_eq!(scopes.instances.find("vpn-1"), None);
        assert_eq!(scopes.instances.len(), 0);
        // Another instance has its number now.
        assert_eq!(scopes.instances.intern(&"vpn-2".into()), index);
        assert_eq!(scopes.instances.get(index).facts, InstanceFacts::default());
    }

    #[test]
    fn an_instance_that_is_told_of_again_is_not_forgotten() {
        let mut scopes = Scopes::default();
        apply(&mut scopes, 100, &ScopeEvent::InstanceLost { instance: "vpn-1".into() });
        let index = scopes.forget_due(Timestamp(200), 100).unwrap();
        scopes.looked_at(index, false, Timestamp(200), 100);
        scopes.forget(Timestamp(200));
        scopes.told_instance(&"vpn-1".into(), Timestamp(300));
        assert!(scopes.forget(Timestamp(200)).is_empty());
        assert_eq!(scopes.forget_due(Timestamp(200), 100), Some(index), "it is looked at again");
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
