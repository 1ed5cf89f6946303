//! Work over many rows, in bounded chunks: re-evaluation after a scope event or
//! the end of a lease (rule J7) or after a restore (rule R3), and timers (rule
//! T7).

use super::clock::Now;
use super::event::{Input, Timestamp};
use super::hold::hold_of;
use super::hot::{Instant48, NO_COLD, flag};
use super::judge::Row;
use super::scope::{Before, ScopeRef};
use super::settling::{HeldRecord, RulesBefore, ScopeChange, Settling, What};
use super::status::Cause;
use super::{Phase, Shard, Turn};

/// The cost of checking a row that is not concerned, as a part of a unit of work.
const LOOKS_PER_UNIT: usize = 8;

impl Shard {
    /// From now on the shard only settles rows, until all are settled.
    pub(super) fn settle(&mut self, what: What, before: Option<Before>) {
        self.scopes.before = before;
        self.phase = Phase::Settling(Settling { what, next: 0, end: self.table.end() });
    }

    /// Holds the shard, and puts the hold into the next outbox (rule J7).
    pub(super) fn hold(&mut self, change: ScopeChange, before: Before, record: Option<HeldRecord>) {
        let clock = self.progress().clock;
        self.held.begin(hold_of(&change, &before, &self.scopes, clock));
        self.settle(What::Scope { change, record }, Some(before));
    }

    /// The end of a lease, fired by the clock only (rule J7). All timers before
    /// it have fired, and the clock stands before it until the last chunk (rule
    /// C2).
    pub(super) fn hold_for_lease(&mut self, end: Timestamp, instance: u32) {
        let before = self.scopes.lapse(end, instance);
        let scope = ScopeRef::Instance(instance);
        let change = ScopeChange { scope, judged: end, at: end, cause: Cause::VpnLeaseExpired };
        self.hold(change, before, None);
    }

    /// Whether the record that holds the shard is of this input.
    pub(super) fn is_held_by(&self, input: Input) -> bool {
        match &self.phase {
            Phase::Settling(Settling {
                what: What::Scope { record: Some(record), .. }, ..
            }) => record.input == input,
            _ => false,
        }
    }

    /// Whether restored rows are still being settled. Until they are, the counts
    /// are incomplete.
    pub(super) fn is_settling_restored(&self) -> bool {
        match &self.phase {
            Phase::Restoring => true,
            Phase::Settling(settling) => matches!(settling.what, What::Restored { .. }),
            Phase::Running => false,
        }
    }

    /// Whether some rows still show statuses by other settings. Until they are
    /// settled, the next owner must also treat the present settings as new (rule
    /// C2).
    #[must_use]
    pub fn is_settling_new_rules(&self) -> bool {
        let Phase::Settling(settling) = &self.phase else { return false };
        matches!(settling.what, What::Restored { rules: RulesBefore::Others { .. }, .. })
    }

    /// Whether the rows being settled can be dated. If the settings are new, this
    /// needs the broker time at which the settling begins (rules J9, T6).
    pub(super) fn dates_new_rules(&mut self, now: Now) -> bool {
        let Phase::Settling(settling) = &mut self.phase else { return true };
        let What::Restored { rules: RulesBefore::Others { until }, .. } = &mut settling.what else {
            return true;
        };
        *until = until.or(now.broker);
        until.is_some()
    }

    /// Settles rows until the budget is used up, enough waits to be written, or
    /// all are settled.
    pub(super) fn settle_chunk(
        &mut self,
        budget: &mut usize,
        output_max_bytes: usize,
        turn: &mut Turn,
    ) {
        let Phase::Settling(Settling { mut what, mut next, end }) = self.phase else { return };
        let mut looks = 0;
        while next < end && *budget > 0 && self.pending.bytes < output_max_bytes {
            let index = next;
            next += 1;
            looks += 1;
            if looks >= LOOKS_PER_UNIT {
                looks = 0;
                *budget -= 1;
            }
            let Some(hot) = self.table.get(index) else { continue };
            let concerns = |change: &ScopeChange| change.concerns(&self.table.cold, hot.cold);
            match &mut what {
                What::Restored { rules, held } => {
                    let (rules, held) = (*rules, held.filter(concerns));
                    self.settle_restored_row(index, rules, held, turn);
                }
                What::Scope { change, .. } if concerns(change) => {
                    self.settle_row(index, change, turn);
                }
                What::Look { instance, named }
                    if hot.cold != NO_COLD
                        && self.table.cold.names_instance(hot.cold, *instance) =>
                {
                    *named |= self.still_names(index, *instance);
                }
                What::Scope { .. } | What::Look { .. } => continue,
            }
            *budget = budget.saturating_sub(1);
        }
        if next < end {
            self.phase = Phase::Settling(Settling { what, next, end });
            return;
        }
        self.phase = Phase::Running;
        self.scopes.before = None;
        self.held.end();
        match what {
            What::Restored { .. } => self.replay_from_held = None,
            What::Look { instance, named } => {
                let retention_ms = self.rules.tombstone_retention_ms;
                self.scopes.looked_at(instance, named, self.clock, retention_ms);
            }
            What::Scope { record, .. } => {
                if let Some(record) = record {
                    self.finish(record);
                }
            }
        }
    }

    /// Drops sessions of a row that can never count again. Returns whether the
    /// row still names the instance (rule J4).
    fn still_names(&mut self, index: u32, instance: u32) -> bool {
        let Some(mut row) = self.load(index) else { return false };
        self.prune_sessions(&mut row, self.clock);
        let named = row.cold.names_instance(instance);
        if row.cold_changed {
            let judged = Shard::judged_at(self.clock, Timestamp::MIN, row.hot.floor());
            self.store(row, judged);
        }
        named
    }

    /// Settles a row of the scope that holds the shard.
    fn settle_row(&mut self, index: u32, change: &ScopeChange, turn: &mut Turn) {
        let Some(mut row) = self.load(index) else { return };
        if let ScopeRef::Instance(instance) = change.scope {
            row.vpn_instance = Some(instance);
        }
        let judged = self.judged_for(change, &row);
        let version = row.hot.version;
        self.fire(&mut row, self.clock, judged, true);
        turn.expired += u32::from(row.hot.version != version);
        if change.cause == Cause::SettingsChanged {
            self.retell(&mut row, change.at);
        }
        self.judge(&mut row, judged, Some((change.at, change.cause)), false);
        self.prune_sessions(&mut row, self.clock);
        self.store(row, judged);
    }

    /// The instant of judging for a row of the scope that holds the shard.
    fn judged_for(&self, change: &ScopeChange, row: &Row) -> Timestamp {
        let clock = if change.is_lease_end() { change.at.max(self.clock) } else { self.clock };
        Shard::judged_at(clock, change.judged, row.hot.floor())
    }

    /// Settles a row after a restore. `held`: if it is of the scope that held the
    /// shard (rule R3).
    fn settle_restored_row(
        &mut self,
        index: u32,
        rules: RulesBefore,
        held: Option<ScopeChange>,
        turn: &mut Turn,
    ) {
        let Some(mut row) = self.load(index) else { return };
        let mut judged = Shard::judged_at(self.clock, Timestamp::MIN, row.hot.floor());
        self.find_lapsed(&mut row, judged);
        // The settings at the heartbeat's time may be forgotten since. So its
        // interval stands, unless the event that held the shard changes it (rule
        // J3).
        let set = held.filter(|change| change.cause == Cause::SettingsChanged);
        self.retell(&mut row, set.map_or(Timestamp(i64::MAX), |change| change.at));
        if let Some(change) = held {
            judged = self.judged_for(&change, &row);
            let settled = self.shows(&row, judged) == row.hot.shown();
            // The deadlines of rows that the last owner settled have fired. Now
            // they would be judged by the facts before the event.
            if !settled && matches!(rules, RulesBefore::Same) {
                self.settle_row(index, &change, turn);
                return;
            }
        }
        // Timers have fired through the committed clock, so deadlines before it
        // are not emitted now: some were over before their heartbeat arrived.
        // With other settings, a difference is dated no earlier than the start
        // (rule J9).
        let until = match rules {
            RulesBefore::Same => None,
            RulesBefore::Others { until } => until,
        };
        self.judge(&mut row, judged, until.map(|at| (at, Cause::RulesChanged)), false);
        if self.forget(&mut row, self.clock) {
            self.remove(row);
            return;
        }
        self.prune_sessions(&mut row, self.clock);
        self.store(row, judged);
    }

    /// Finds out whether the last owner has fired a lease that ends just after
    /// the committed clock. The timers of that millisecond may have taken several
    /// turns. If it was fired, the row shows its status without that lease.
    fn find_lapsed(&mut self, row: &mut Row, judged: Timestamp) {
        let next = self.clock.plus_ms(1);
        if row.cold.next_lease_end(row.leases_at) != Some(next)
            || self.shows(row, judged) == row.hot.shown()
        {
            return;
        }
        let leases_at = std::mem::replace(&mut row.leases_at, next);
        if self.shows(row, judged) == row.hot.shown() {
            self.lapsed.insert(row.index, next);
        } else {
            row.leases_at = leases_at;
        }
    }

    /// Fires timers through `until`, within the budget and while not too much
    /// waits to be written. Returns whether all have fired.
    pub(super) fn fire_timers(
        &mut self,
        until: Timestamp,
        budget: &mut usize,
        output_max_bytes: usize,
        turn: &mut Turn,
    ) -> bool {
        // In small steps: entries that were handed out are fired at once, so that
        // the wheel's position is the time through which all have *fired*.
        const STEP: usize = 1024;
        while self.timers_due(until) {
            if *budget == 0 || self.pending.bytes >= output_max_bytes {
                self.fired_through(self.wheel.position().min(until));
                return false;
            }
            let mut due = std::mem::take(&mut self.due);
            let step = STEP.min(*budget);
            let table = &self.table;
            let filed = |row| table.get(row).and_then(|hot| hot.filed.get());
            let spent = self.wheel.advance(until, step, filed, &mut due);
            *budget -= spent.clamp(1, *budget);
            for (index, filed_at) in due.drain(..) {
                // Each fires at its own time, not at the last one's: the
                // committed clock may be between the two.
                self.fire_timer(index, filed_at, filed_at.max(self.fired), turn);
                // The row's next deadline may already be behind the wheel.
                while let Some(next) = self.table.get(index).and_then(|hot| hot.filed.get())
                    && next <= self.wheel.position()
                {
                    self.fire_timer(index, next, next.max(self.fired), turn);
                }
            }
            self.due = due;
            self.next_due = self.wheel.next_due();
        }
        self.fired_through(until);
        true
    }

    /// Whether timers may be due by then.
    pub(super) fn timers_due(&self, until: Timestamp) -> bool {
        self.next_due.is_some_and(|due| due <= until)
    }

    fn fire_timer(&mut self, index: u32, filed_at: Timestamp, now: Timestamp, turn: &mut Turn) {
        let Some(hot) = self.table.get_mut(index) else { return };
        // The entry is stale: the row was filed earlier since, or the slot has
        // another row (rule T7).
        if hot.filed.get() != Some(filed_at) {
            return;
        }
        hot.filed = Instant48::NONE;
        let cheap = !hot.has(flag::REMEMBERS);
        if cheap && self.refile_quiet_row(index, now) {
            return;
        }
        let Some(mut row) = self.load(index) else { return };
        let judged = Shard::judged_at(now, Timestamp::MIN, row.hot.floor());
        let version = row.hot.version;
        self.fire_by_clock(&mut row, filed_at.plus_ms(-1), now, judged);
        turn.expired += u32::from(row.hot.version != version);
        if self.forget(&mut row, now) {
            self.remove(row);
            return;
        }
        self.store(row, judged);
    }

    /// A row that has polled since it was filed only needs another place in the
    /// wheel (rule T7: the lazy reset). No cold fact is read for that.
    fn refile_quiet_row(&mut self, index: u32, now: Timestamp) -> bool {
        let Some(hot) = self.table.get(index) else { return true };
        let Some(heartbeat) = hot.heartbeat.get() else { return false };
        let judged = Shard::judged_at(now, Timestamp::MIN, hot.floor());
        let timeout = hot.deadlines(&self.rules).map(|(timeout, _)| timeout);
        let leaves_window = (hot.has(flag::UNWRITTEN) && !hot.has(flag::DIRTY))
            .then(|| heartbeat.plus_ms(self.rules.replay_window_ms.max(0)));
        let Some(deadline) = timeout.into_iter().chain(leaves_window).min() else { return true };
        if deadline <= judged {
            return false;
        }
        let mut moved = *hot;
        self.file_at(index, &mut moved, deadline);
        if let Some(hot) = self.table.get_mut(index) {
            hot.filed = moved.filed;
        }
        true
    }
}
