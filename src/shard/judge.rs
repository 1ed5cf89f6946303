//! Judges a row: fires its deadlines first, then compares its status with the
//! last emitted one (rules T5, J8, J9).
//!
//! # How `since` and `cause` are found
//!
//! The status at a past moment follows from the facts of the row and its scopes,
//! without later ones. A register holds only its last value, so the past is not
//! completely known. The *emitted* status is known. A change is noticed because
//! of a trigger: an event or a deadline. Up to the trigger's time, the status
//! follows from the facts before the trigger, which the table and the scope that
//! holds the shard still have. From then on it follows from all facts.
//!
//! From the trigger on, the status is computed at the moment of each fact or
//! deadline, up to the instant of judging. `since` is the last of these moments
//! from which on the new status holds, and `cause` is the fact or deadline of
//! that moment. If it holds from the trigger on, it may have held before, for
//! example if a late event changed nothing when it arrived. So the search goes
//! back to the last emitted `since`, where the emitted status stands. If the
//! known facts do not explain how that became the new status, the trigger is the
//! cause.
//!
//! So a heartbeat that arrives after its own deadline has passed makes the device
//! Offline since that deadline. A device that moves into a fleet that was frozen
//! after the move is Frozen since the freeze. The search runs only if there is a
//! change.

use super::device::{ClosedChanges, Cold, Membership, Session};
use super::event::Timestamp;
use super::facts::interval::IntervalCode;
use super::facts::seen::{Facts, View};
use super::hot::{Hot, Instant48, flag};
use super::outbox::StatusChange;
use super::rules::JUDGED_AHEAD_MS;
use super::status::{Cause, Connectivity, Status, next_deadline};
use super::{Shard, Turn};

/// A row taken out of the table to be worked on.
#[derive(Debug)]
pub(super) struct Row {
    pub index: u32,
    pub hot: Hot,
    pub cold: Cold,
    /// The cold facts differ from the table's.
    pub cold_changed: bool,
    /// The same, but the difference need not be written.
    pub remembered_only: bool,
    /// The row must be written to the changelog.
    pub written: bool,
    /// Leases of its sessions that end at or before this time are over (rule T5).
    pub leases_at: Timestamp,
    /// The row's place in the counts when it was taken out.
    counted: Option<(u32, Status)>,
    /// The fleet and organization that were last emitted, and since when.
    membership: Membership,
    membership_since: Timestamp,
    /// The VPN instance that the event is about.
    pub vpn_instance: Option<u32>,
    pub closed: ClosedChanges,
}

/// Why a row is judged, and when that happened.
pub(super) type Trigger = Option<(Timestamp, Cause)>;

pub(super) type Shown = Option<(Status, Connectivity)>;

impl Shard {
    /// Takes a row out of the table.
    pub(super) fn load(&self, index: u32) -> Option<Row> {
        let hot = *self.table.get(index)?;
        let cold = self.table.load_cold(&hot);
        let counted = hot.has(flag::COUNTED).then(|| hot.shown()).flatten();
        let counted = counted.map(|(status, _)| (cold.belongs_to().fleet, status));
        // The row is always judged when these are set, so they are emitted.
        let membership = cold.belongs_to();
        let membership_since = cold.membership_since(&hot);
        Some(Row {
            index,
            hot,
            cold,
            membership,
            membership_since,
            vpn_instance: None,
            cold_changed: false,
            remembered_only: false,
            written: false,
            leases_at: self.leases_at(index),
            counted,
            closed: Vec::new(),
        })
    }

    /// Puts a row back, with its counts, its place in the list of rows to be
    /// written, and its timer.
    pub(super) fn store(&mut self, mut row: Row, judged: Timestamp) {
        let hot = &mut row.hot;
        if row.cold_changed {
            row.cold.forget_told(self.told_kept_from());
        }
        if row.cold_changed || row.remembered_only {
            hot.set(flag::DELETED, row.cold.facts.deleted.is_some());
            hot.set(flag::REMEMBERS, row.cold.has_deadlines());
        }
        let previous_fleet = row.counted.map_or(0, |(fleet, _)| fleet);
        let counts = hot.shown().map(|(status, _)| (row.cold.belongs_to().fleet, status));
        if counts != row.counted {
            if let Some((fleet, status)) = row.counted {
                self.scopes.count(fleet, status, false);
            }
            if let Some((fleet, status)) = counts {
                self.scopes.count(fleet, status, true);
            }
        }
        hot.set(flag::COUNTED, counts.is_some());

        let leaves_window = hot.has(flag::UNWRITTEN).then(|| self.leaves_window(hot)).flatten();
        let opening_leaves = row.cold.opening_leaves_window_at(self.rules.replay_window_ms);
        let leaving =
            leaves_window.into_iter().chain(opening_leaves).any(|leaves| leaves <= judged);
        if (row.written || row.cold_changed || leaving) && !hot.has(flag::DIRTY) {
            hot.set(flag::DIRTY, true);
            self.pending.row(row.index, previous_fleet, &row.cold);
        }
        if !row.closed.is_empty() {
            let device = self.table.device(hot);
            self.pending.closed(&device, row.closed.drain(..));
        }
        let since_held = row.cold.membership_since;
        row.cold.set_membership_since(&row.hot, row.membership_since);
        row.remembered_only |= row.cold.membership_since != since_held;
        self.file(&mut row, judged);
        if row.cold_changed || row.remembered_only {
            self.table.put_cold(row.index, &row.cold);
        }
        self.table.put(row.index, row.hot);
    }

    /// When the row's last heartbeat leaves the replay window (rule R2).
    fn leaves_window(&self, hot: &Hot) -> Option<Timestamp> {
        Some(hot.heartbeat.get()?.plus_ms(self.rules.replay_window_ms.max(0)))
    }

    /// Files the row at the least of its deadlines, unless it is filed earlier:
    /// then the wheel re-files it when it fires (rule T7).
    fn file(&mut self, row: &mut Row, judged: Timestamp) {
        let hot = &mut row.hot;
        let deadlines = hot.deadlines(&self.rules);
        let mut next = next_deadline(deadlines, judged);
        let mut sooner = |at: Option<Timestamp>| {
            next = next.into_iter().chain(at).min();
        };
        if hot.has(flag::UNWRITTEN) && !hot.has(flag::DIRTY) {
            sooner(self.leaves_window(hot));
        }
        if hot.has(flag::REMEMBERS) {
            let retention_ms = self.rules.tombstone_retention_ms;
            sooner(row.cold.closed_forgotten_at(retention_ms));
            sooner(row.cold.next_lease_end(row.leases_at));
            sooner(row.cold.lapsed_dropped_at(retention_ms));
            if !hot.has(flag::DIRTY) {
                sooner(row.cold.opening_leaves_window_at(self.rules.replay_window_ms));
            }
            // A deletion is not forgotten before the view has acknowledged it
            // (rule V3). The acknowledgement files the row again.
            if !row.cold.facts.is_deleted() || !self.waits_for_view(row.index, hot) {
                sooner(row.cold.deletion_forgotten_at(&self.rules));
            }
        }
        if let Some(next) = next {
            self.file_at(row.index, &mut row.hot, next);
        }
    }

    pub(super) fn file_at(&mut self, index: u32, hot: &mut Hot, at: Timestamp) {
        // A time that a row cannot hold is never due.
        if at.0 <= Instant48::MAX && hot.filed.get().is_none_or(|filed| at < filed) {
            hot.filed = Instant48::some(at);
            self.wheel.file(index, at);
            self.next_due = Some(self.next_due.map_or(at, |due| due.min(at)));
        }
    }

    /// Fires the heartbeat's deadlines that have passed after `after` and by
    /// `until`, in order, each as a change of its own (rule T5). Those up to
    /// `after` have been fired. Fired again, they would be judged by later facts.
    /// `before`: judge by the facts before the scope event that holds the shard.
    pub(super) fn fire(&mut self, row: &mut Row, after: Timestamp, until: Timestamp, before: bool) {
        let facts = self.facts(row, before);
        let Some((timeout, expiry)) = facts.deadlines(View::Now) else { return };
        for (deadline, cause) in
            [(timeout, Cause::HeartbeatTimedOut), (expiry, Cause::HeartbeatExpired)]
        {
            if after < deadline && deadline <= until {
                // A row is not judged back in time, and neither is its deadline.
                let at = deadline.max(row.hot.floor()).min(until);
                self.judge(row, at, Some((deadline, cause)), before);
                // It was fired ahead of the clock and must not fire again: the
                // entry in the wheel is stale.
                row.hot.filed = Instant48::NONE;
            }
        }
    }

    /// Since when earlier settings are kept (rule J3).
    pub(super) fn told_kept_from(&self) -> Timestamp {
        self.clock.plus_ms(-self.rules.tombstone_retention_ms.max(0))
    }

    /// Finds the interval of a new heartbeat that carries none (rule J3).
    pub(super) fn tell(&self, row: &mut Row, at: Timestamp) {
        // In a restore, an event that holds the shard has not reached the row
        // yet.
        let told = self.facts(row, true).told(at, View::Now);
        row.hot.interval = IntervalCode::new(told.interval).steady(told.steady);
    }

    /// Finds the interval of the last heartbeat again after a setting or a move
    /// of time `at` (rule J3). If the interval changed, the row is written.
    pub(super) fn retell(&self, row: &mut Row, at: Timestamp) {
        let Some(heartbeat) = row.hot.heartbeat.get() else { return };
        let held = row.hot.interval.get();
        if held.carried().is_some() {
            return;
        }
        let facts = self.facts(row, false);
        let told = facts.told(heartbeat, View::Now);
        let interval = if facts.concerns_heartbeat(at) { told.interval } else { held };
        row.written |= interval != held;
        let steady = told.steady && told.interval == interval;
        row.hot.interval = IntervalCode::new(interval).steady(steady);
    }

    /// The row before the event that it is judged for. The table has it until the
    /// row is put back.
    fn before_trigger(&self, row: &Row) -> Option<Row> {
        let mut earlier = self.load(row.index)?;
        earlier.hot.show(row.hot.shown());
        earlier.hot.changed_at = row.hot.changed_at;
        earlier.cold.earlier = row.cold.earlier;
        earlier.leases_at = row.leases_at;
        Some(earlier)
    }

    /// Leases of a row's sessions that end by then are over.
    pub(super) fn leases_at(&self, index: u32) -> Timestamp {
        self.lapsed.get(&index).map_or(self.fired, |lapsed| self.fired.max(*lapsed))
    }

    /// All timers have fired through this.
    pub(super) fn fired_through(&mut self, at: Timestamp) {
        self.fired = self.fired.max(at);
        let fired = self.fired;
        self.lapsed.retain(|_, lapsed| *lapsed > fired);
    }

    /// The same when the clock has reached `clock`. Also fires the ends of its
    /// sessions' own leases, which nothing else fires.
    pub(super) fn fire_by_clock(
        &mut self,
        row: &mut Row,
        after: Timestamp,
        clock: Timestamp,
        until: Timestamp,
    ) {
        let mut after = after;
        row.leases_at = row.leases_at.max(after);
        while let Some(end) = row.cold.next_lease_end(row.leases_at).filter(|end| *end <= clock) {
            // Deadlines in the same millisecond come first, by the order of
            // causes.
            self.fire(row, after, end, false);
            after = after.max(end);
            row.leases_at = end;
            self.lapsed.insert(row.index, end);
            let at = end.max(row.hot.floor()).min(until);
            self.judge(row, at, Some((end, Cause::VpnLeaseExpired)), false);
        }
        row.leases_at = row.leases_at.max(clock);
        self.fire(row, after, until, false);
    }

    pub(super) fn facts<'a>(&'a self, row: &'a Row, before: bool) -> Facts<'a> {
        let Row { index, hot, cold, leases_at, .. } = row;
        Facts { before, leases_at: *leases_at, ..self.facts_of(*index, hot, cold) }
    }

    /// The facts that a row in the table is judged by.
    pub(super) fn facts_of<'a>(&'a self, index: u32, hot: &'a Hot, cold: &'a Cold) -> Facts<'a> {
        Facts {
            hot,
            cold,
            scopes: &self.scopes,
            rules: &self.rules,
            before: false,
            leases_at: self.leases_at(index),
        }
    }

    /// The status and connectivity at `at`, independent of the emitted ones.
    pub(super) fn shows(&self, row: &Row, at: Timestamp) -> Shown {
        self.facts(row, false).shown(at)
    }

    /// Emits the status and connectivity at `at`, if they differ from the emitted
    /// ones.
    pub(super) fn judge(
        &mut self,
        row: &mut Row,
        at: Timestamp,
        trigger: Trigger,
        before: bool,
    ) -> bool {
        let facts = self.facts(row, before);
        let current = facts.shown(at);
        let previous = row.hot.shown();
        let membership = row.cold.belongs_to();
        let moved_only = current == previous;
        if moved_only && (current.is_none() || membership == row.membership) {
            return false;
        }
        let earlier = self.before_trigger(row);
        let earlier = self.facts(earlier.as_ref().unwrap_or(row), true);
        // An event may be later than the instant of judging, which is at most 10
        // s ahead of the clock (rule T5). It still dates its change.
        let seen = trigger.map_or(at, |(at, _)| at).min(at.plus_ms(JUDGED_AHEAD_MS)).max(at);
        let since_held = row.cold.since(&row.hot).unwrap_or(Timestamp::MIN);
        let connectivity_since_held =
            row.cold.connectivity_since(&row.hot).unwrap_or(Timestamp::MIN);
        let date = |floor, holds: &dyn Fn(Shown) -> bool, held: &dyn Fn(Shown) -> bool| {
            Dating { earlier: &earlier, facts: &facts, at, judged: seen }
                .date(floor, trigger, holds, held)
        };
        let (since, connectivity_since, (made_at, cause)) = match current {
            None => {
                let deleted = row.cold.facts.deleted.unwrap_or(at);
                let since = deleted.max(since_held);
                (since, deleted.max(connectivity_since_held), (since, Cause::Deleted))
            }
            Some((status, connectivity)) => {
                // When, and why.
                let mut moved: Option<(Timestamp, Cause)> = None;
                let mut connectivity_since = connectivity_since_held;
                if previous.is_none_or(|(_, held)| held != connectivity) {
                    let of = |shown: Shown| shown.map(|(_, connectivity)| connectivity);
                    let holds = |shown: Shown| of(shown) == Some(connectivity);
                    let held = |shown: Shown| of(shown) == of(previous);
                    let made = date(connectivity_since_held, &holds, &held);
                    connectivity_since = made.0;
                    moved = Some(made);
                }
                let mut since = since_held;
                if previous.is_none_or(|(held, _)| held != status) {
                    let of = |shown: Shown| shown.map(|(status, _)| status);
                    let holds = |shown: Shown| of(shown) == Some(status);
                    let held = |shown: Shown| of(shown) == of(previous);
                    let made = date(since_held, &holds, &held);
                    since = made.0;
                    moved = Some(made);
                }
                // If neither moved, the change is a move of the device.
                (since, connectivity_since, moved.unwrap_or((since, Cause::Moved)))
            }
        };
        let vpn_instance = cause.is_of_vpn().then(|| {
            let of_event =
                row.vpn_instance.filter(|_| trigger.is_some_and(|(_, made)| made == cause));
            of_event.or_else(|| facts.vpn_instance_at(made_at, cause))
        });
        let vpn_instance = vpn_instance.flatten();
        let before = if previous.is_some() { row.membership } else { Membership::default() };
        let mut membership_since = row.membership_since;
        if previous.is_none() {
            membership_since = membership_since.max(since);
        } else if current.is_some() && membership != before {
            let set_at = row.cold.facts.membership.as_ref().map(|held| held.at.min(seen));
            membership_since = membership_since.max(set_at.unwrap_or(membership_since));
        }
        // A deletion names the fleet and organization that it ends.
        let membership = if current.is_some() { membership } else { before };
        let update = &row.cold.facts.update;
        let told_at = since.max(connectivity_since);
        let told_at = if moved_only { told_at.max(membership_since) } else { told_at };
        let change = StatusChange {
            device: self.table.device(&row.hot),
            fleet: self.scopes.fleets.name_if_any(membership.fleet),
            organization: self.scopes.organizations.name_if_any(membership.organization),
            version: u64::from(row.hot.version.saturating_add(1)),
            previous,
            current,
            since,
            connectivity_since,
            cause,
            heartbeat_state: facts.heartbeat_state_as_of(told_at, seen),
            last_heartbeat: row.hot.heartbeat.get(),
            vpn_connected: facts.vpn_connected(View::Now),
            progress: current.and_then(|(status, _)| facts.progress(status)),
            membership_since,
            previous_fleet: self.scopes.fleets.name_if_any(before.fleet),
            previous_organization: self.scopes.organizations.name_if_any(before.organization),
            vpn_instance: vpn_instance.map(|index| self.scopes.instances.name(index).clone()),
            release: update.release(),
            update_phase: update.phase(),
            update_outcome: update.outcome(),
            update_since: update.since(),
        };
        self.pending.change(change);
        let hot = &mut row.hot;
        hot.version = hot.version.saturating_add(1);
        hot.show(current);
        let earlier_held = row.cold.earlier;
        row.cold.set_since(hot, since, connectivity_since);
        row.remembered_only |= row.cold.earlier != earlier_held;
        hot.set(flag::CHANGED, true);
        row.membership = membership;
        row.membership_since = membership_since;
        row.written = true;
        true
    }

    /// Drops sessions that can never count again (rule J4), so that they do not
    /// accumulate if a device's closes are lost. A loss or a restart of the
    /// instance is final for earlier openings, and so is a lease that ended long
    /// ago.
    pub(super) fn prune_sessions(&self, row: &mut Row, clock: Timestamp) {
        let instances = &self.scopes.instances;
        let retention_ms = self.rules.tombstone_retention_ms;
        let held = row.cold.facts.sessions.len();
        let mut closes = Vec::new();
        row.cold.facts.sessions.retain(|session| {
            let instance = instances.get(session.instance);
            let lapsed =
                session.lease_end().is_some_and(|end| end.plus_ms(retention_ms.max(0)) <= clock);
            let may_count = session.opened_at().is_some_and(|at| instance.may_count(at));
            let stays = may_count && !lapsed && !instance.is_long_lapsed(clock, retention_ms);
            if !stays {
                closes.extend(session.of_closes());
            }
            stays
        });
        // A restore would find them again when their instance is forgotten, and
        // count them.
        row.cold_changed |= row.cold.facts.sessions.len() != held;
        // The closes of earlier connections end openings that are told again later.
        for session in closes {
            row.cold.put_session(session, false, &mut row.closed);
        }
    }

    /// Drops open sessions if a device has too many (rule J4), and reports it.
    pub(super) fn limit_sessions(&self, row: &mut Row, turn: &mut Turn) {
        let instances = &self.scopes.instances;
        let leases_at = row.leases_at;
        let counts = |held: &Session| instances.get(held.instance).counts(held, leases_at);
        let fallen_out = row.cold.limit_open_sessions(counts);
        if fallen_out > 0 {
            row.cold_changed = true;
            turn.open_sessions_fallen_out += u32::try_from(fallen_out).unwrap_or(u32::MAX);
            turn.most_sessions.get_or_insert_with(|| self.table.device(&row.hot));
        }
    }

    /// Forgets closes and deletions that are old enough at `clock` (rules J4,
    /// J5). Returns whether the whole row is forgotten.
    pub(super) fn forget(&mut self, row: &mut Row, clock: Timestamp) -> bool {
        if !row.hot.has(flag::REMEMBERS) {
            return false;
        }
        let retention_ms = self.rules.tombstone_retention_ms;
        self.prune_sessions(row, clock);
        while row.cold.closed_forgotten_at(retention_ms).is_some_and(|at| at <= clock) {
            row.cold.forget_oldest_closed(&mut row.closed);
            row.cold_changed = true;
        }
        if row.cold.deletion_forgotten_at(&self.rules).is_none_or(|at| at > clock) {
            return false;
        }
        if row.cold.facts.is_deleted() {
            // Not before it is written, and the view has acknowledged it (rule
            // V3).
            let waits = self.waits_for_view(row.index, &row.hot);
            return !waits && !row.written && !row.cold_changed;
        }
        row.cold.forget_deletion();
        row.cold_changed = true;
        false
    }

    /// Removes a row: the device is unknown again (rule J5).
    pub(super) fn remove(&mut self, mut row: Row) {
        let device = self.table.device(&row.hot);
        row.closed.extend(row.cold.closed.drain(..).map(|closed| (closed, false)));
        self.pending.closed(&device, row.closed.drain(..));
        self.pending.forgotten(device);
        self.table.remove(row.index);
        self.lapsed.remove(&row.index);
    }
}

/// The facts that date a change of a row (rule J9; see the top of this file).
struct Dating<'a> {
    /// What was known before the trigger.
    earlier: &'a Facts<'a>,
    /// What is known.
    facts: &'a Facts<'a>,
    /// No deadline later than this has passed (rule T5).
    at: Timestamp,
    judged: Timestamp,
}

impl Dating<'_> {
    /// Since when the row has its status, and the cause. `was`: whether that
    /// status was emitted.
    fn date(
        &self,
        floor: Timestamp,
        trigger: Trigger,
        holds: &dyn Fn(Shown) -> bool,
        was: &dyn Fn(Shown) -> bool,
    ) -> (Timestamp, Cause) {
        // A restore has no trigger: the emitted status stands until the fact that
        // makes the difference.
        let Some((triggered_at, cause)) = trigger else {
            let (found, _) = self.became(self.facts, floor, self.judged, false, holds);
            return found.unwrap_or((floor, Cause::RulesChanged));
        };
        let start = triggered_at.max(floor);
        let held = holds(self.shown_at(self.facts, start));
        let (found, held_on) = self.became(self.facts, start, self.judged, held, holds);
        if let Some(found) = found {
            return found;
        }
        // If no known fact is later than the event, the emitted status stood
        // until the event.
        let is_late = || !self.earlier.moments(start, self.judged).is_empty();
        if held_on && start > floor && cause != Cause::RulesChanged && is_late() {
            let emitted = self.shown_at(self.earlier, floor);
            // Facts of the same millisecond that were known came before it.
            let until = start.min(self.at);
            let (found, held_on) = self.became(self.earlier, floor, until, holds(emitted), holds);
            // If the facts do not explain the emitted status, they say nothing
            // about what followed.
            if was(emitted)
                && held_on
                && let Some(found) = found
            {
                return found;
            }
        }
        (start, cause)
    }

    /// The last moment after `after`, and not later than `until`, from which on it
    /// held, and whether it held until then. `held`: whether it did at `after`.
    fn became(
        &self,
        facts: &Facts<'_>,
        after: Timestamp,
        until: Timestamp,
        mut held: bool,
        holds: &dyn Fn(Shown) -> bool,
    ) -> (Option<(Timestamp, Cause)>, bool) {
        let mut found = None;
        for (at, cause) in facts.moments(after, until) {
            let holds = holds(self.shown_at(facts, at));
            if holds && !held {
                found = Some((at, cause));
            }
            held = holds;
        }
        (found, held)
    }

    fn shown_at(&self, facts: &Facts<'_>, at: Timestamp) -> Shown {
        facts.ladder(at, View::AsOf { at, judged: self.judged }).shown()
    }
}
