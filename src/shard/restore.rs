//! Taking a shard over from its changelog (rules R): entries in any order, then
//! the heartbeats of the replay window, then [`Shard::start`].

use super::apply::{Heartbeat, join_heartbeat};
use super::clock::Clock;
use super::device::{Cold, Joined, Session};
use super::event::{DeviceEvent, DeviceId, Input, Timestamp};
use super::facts::interval::IntervalCode;
use super::facts::register::outlives;
use super::facts::seen::Facts;
use super::facts::session::session_fingerprint;
use super::hold::change_of;
use super::hot::{Instant48, NO_COLD, flag};
use super::judge::Row;
use super::settling::{RulesBefore, What};
use super::snapshot::{Entry, InstanceFacts, RowSnapshot};
use super::timer::Wheel;
use super::{Shard, Start};

impl Shard {
    /// Takes in an entry of the changelog. The last one of a key counts.
    /// `written_after_marker`: the view may not have it (rule V5).
    pub fn restore_entry(&mut self, entry: Entry, written_after_marker: bool) {
        match entry {
            Entry::Device(device, Some(snapshot)) => {
                self.saw_clock(snapshot.clock);
                self.restore_row(&device, &snapshot, written_after_marker);
            }
            Entry::Device(device, None) => {
                if let Some(index) = self.table.find(&device) {
                    self.restore_row(&device, &RowSnapshot::default(), false);
                    self.drop_if_empty(index);
                }
            }
            Entry::ClosedSession(device, fingerprint, closed) => {
                if let Some(closed) = &closed {
                    self.saw_clock(closed.clock);
                }
                let index = match (&closed, self.table.find(&device)) {
                    (_, Some(index)) => index,
                    (Some(_), None) => self.table.find_or_insert(&device),
                    (None, None) => return,
                };
                let Some(mut row) = self.load(index) else { return };
                let closed = closed.map(|closed| {
                    let instance = self.scopes.instances.intern(&closed.session.instance);
                    closed.session.rename(instance)
                });
                let instances = &self.scopes.instances;
                let of = |held: &Session| {
                    session_fingerprint(instances.name(held.instance), &held.session)
                };
                row.cold.restore_closed(fingerprint, closed, of);
                self.put_restored(row);
                self.drop_if_empty(index);
            }
            Entry::Instance(name, Some(facts)) => {
                self.saw_clock(facts.clock);
                let index = self.scopes.instances.intern(&name);
                self.scopes.instances.get_mut(index).facts = facts;
            }
            Entry::Instance(name, None) => {
                if let Some(index) = self.scopes.instances.find(&name) {
                    self.scopes.instances.get_mut(index).facts = InstanceFacts::default();
                }
            }
            Entry::Fleet(name, facts) => {
                self.saw_clock(facts.clock);
                let index = self.scopes.fleets.intern(&name);
                self.scopes.fleets.get_mut(index).facts = facts;
            }
            Entry::Organization(name, facts) => {
                self.saw_clock(facts.clock);
                let index = self.scopes.organizations.intern(&name);
                *self.scopes.organizations.get_mut(index) = facts;
            }
            Entry::Epoch(epoch) => self.last_epoch = self.last_epoch.max(Some(epoch)),
            Entry::Hold(hold) => {
                if let Some(hold) = &hold {
                    self.saw_clock(hold.clock);
                }
                self.held.restore(hold);
            }
        }
    }

    fn saw_clock(&mut self, clock: Timestamp) {
        self.greatest_clock = self.greatest_clock.max(Some(clock));
    }

    fn restore_row(&mut self, device: &DeviceId, snapshot: &RowSnapshot, view_dirty: bool) {
        let index = self.table.find_or_insert(device);
        let Some(mut row) = self.load(index) else { return };
        let facts = snapshot.facts.rename(|of, name| self.scopes.intern(of, name));
        row.cold = Cold {
            deletion_touched_written: facts.deletion_touched,
            facts,
            earlier: None,
            membership_since: None,
            closed: row.cold.closed,
            unwritten_openings: None,
        };
        row.cold.sort_sessions();

        let hot = &mut row.hot;
        hot.heartbeat = Instant48::of(snapshot.heartbeat.map(|heartbeat| heartbeat.at));
        let interval = snapshot.heartbeat.map(|heartbeat| heartbeat.value);
        hot.interval = IntervalCode::new(interval.unwrap_or_default());
        hot.set(flag::GOING_AWAY, snapshot.going_away);
        hot.set(flag::UNWRITTEN, false);
        let emitted = snapshot.emitted;
        hot.version = emitted.map_or(0, |held| u32::try_from(held.version).unwrap_or(u32::MAX));
        hot.show(emitted.and_then(|held| held.shown));
        hot.changed_at = Instant48::NONE;
        if let Some(held) = emitted {
            row.cold.set_since(hot, held.since, held.connectivity_since);
        }
        // Nothing was emitted for a device that never existed (rule J8).
        let membership_since = emitted.map_or(Timestamp::MIN, |held| held.membership_since);
        row.cold.set_membership_since(hot, membership_since);
        if view_dirty && !hot.has(flag::VIEW_DIRTY) {
            hot.set(flag::VIEW_DIRTY, true);
            self.view_dirty.push_back(index);
        }
        self.put_restored(row);
    }

    /// Puts a row back without the steps that follow in a running shard.
    fn put_restored(&mut self, mut row: Row) {
        let hot = &mut row.hot;
        hot.set(flag::DELETED, row.cold.facts.deleted.is_some());
        hot.set(flag::REMEMBERS, row.cold.has_deadlines());
        self.table.put_cold(row.index, &row.cold);
        self.table.put(row.index, row.hot);
    }

    fn drop_if_empty(&mut self, index: u32) {
        let Some(hot) = self.table.get(index) else { return };
        if hot.cold == NO_COLD && hot.heartbeat == Instant48::NONE && hot.version == 0 {
            self.table.remove(index);
        }
    }

    /// Takes in a heartbeat of the replay window; `at` is its event time, clamped
    /// to the restored watermark (rule T3). If it is newer than its row's, it is
    /// unwritten (rule R2).
    ///
    /// A device without a row is skipped. Its first heartbeat made it exist, and
    /// that was written. So it has been deleted and forgotten since.
    pub fn replay_heartbeat(
        &mut self,
        device: &DeviceId,
        at: Timestamp,
        poll_interval_s: Option<u32>,
        going_away: bool,
    ) {
        let at = at.max(Timestamp::MIN);
        let Some(index) = self.table.find(device) else { return };
        let Some(hot) = self.table.get(index) else { return };
        if hot.has(flag::DELETED)
            && self.table.load_cold(hot).facts.deleted.is_some_and(|deleted| !outlives(at, deleted))
        {
            return;
        }
        let Some(hot) = self.table.get_mut(index) else { return };
        let joined = join_heartbeat(hot, Heartbeat { at, poll_interval_s, going_away });
        let tell =
            joined == Joined::Changed && poll_interval_s.is_none() && !hot.interval.is_steady();
        if tell && let Some(mut row) = self.load(index) {
            // It came before the event that holds the shard, which reaches the
            // rows later.
            if self.scopes.before.is_none()
                && let Some(hold) = self.held.get()
            {
                self.scopes.before = change_of(hold, &mut self.scopes).map(|(_, before)| before);
            }
            self.tell(&mut row, at);
            self.table.put(index, row.hot);
        }
    }

    /// The same for a heartbeat that is read again, and that had been processed
    /// only as far as the clock tells (rule R5). The clock is no proof: a
    /// heartbeat that changes the emitted status had not been processed, and here
    /// its change would get no date. So it is left to be read.
    pub fn replay_heartbeat_if_seen(
        &mut self,
        device: &DeviceId,
        at: Timestamp,
        poll_interval_s: Option<u32>,
        going_away: bool,
        clock: Timestamp,
    ) {
        let Some(before) = self.table.find(device).and_then(|index| self.load(index)) else {
            return;
        };
        self.replay_heartbeat(device, at, poll_interval_s, going_away);
        let as_emitted = |row: &Row| {
            let judged = Shard::judged_at(clock, Timestamp::MIN, row.hot.floor());
            self.shows(row, judged) == row.hot.shown()
        };
        let after = self.load(before.index);
        if as_emitted(&before) && after.is_some_and(|after| !as_emitted(&after)) {
            self.table.put(before.index, before.hot);
        }
    }

    /// Takes in an opening of the replay window. `at` is its event time, `sent` a
    /// time at which its sender was alive (rules J4, R2). It renews a session
    /// that is open in the row, if it is newer than the row's opening. It opens
    /// none, because an opening that opened a session was written.
    pub fn replay_opening(
        &mut self,
        device: &DeviceId,
        at: Timestamp,
        sent: Option<Timestamp>,
        opening: &DeviceEvent,
    ) {
        if let Some(row) = self.replayed_opening(device, at, sent, opening) {
            self.put_restored(row);
        }
    }

    /// The same for an opening that had been processed only as far as the clock
    /// tells (rule R5), as with heartbeats.
    pub fn replay_opening_if_seen(
        &mut self,
        device: &DeviceId,
        at: Timestamp,
        sent: Option<Timestamp>,
        opening: &DeviceEvent,
        clock: Timestamp,
    ) {
        let Some(before) = self.table.find(device).and_then(|index| self.load(index)) else {
            return;
        };
        let Some(after) = self.replayed_opening(device, at, sent, opening) else { return };
        let as_emitted = |row: &Row| {
            let judged = Shard::judged_at(clock, Timestamp::MIN, row.hot.floor());
            Facts { leases_at: clock, ..self.facts(row, false) }.shown(judged) == row.hot.shown()
        };
        if !as_emitted(&before) || as_emitted(&after) {
            self.put_restored(after);
        }
    }

    /// The row with an unwritten opening; `None` if the opening changes nothing.
    fn replayed_opening(
        &mut self,
        device: &DeviceId,
        at: Timestamp,
        sent: Option<Timestamp>,
        opening: &DeviceEvent,
    ) -> Option<Row> {
        let DeviceEvent::SessionOpened { instance, session, .. } = opening else { return None };
        let at = at.max(Timestamp::MIN);
        let mut row = self.load(self.table.find(device)?)?;
        let index = self.scopes.instances.find(instance)?;
        let held = row.cold.session(index, session).filter(|held| held.is_open())?;
        let deleted = row.cold.facts.deleted;
        if held.opened_at() >= Some(at) || deleted.is_some_and(|deleted| !outlives(at, deleted)) {
            return None;
        }
        if self.open_session(&mut row, at, sent, opening).0 == Joined::Stale {
            return None;
        }
        let unwritten = &mut row.cold.unwritten_openings;
        *unwritten = Some(unwritten.map_or(at, |since| since.min(at)));
        Some(row)
    }

    /// The greatest epoch found in the changelog (rule C7).
    #[must_use]
    pub fn last_epoch(&self) -> Option<u64> {
        self.last_epoch
    }

    /// The greatest clock found in the changelog (rule R5).
    #[must_use]
    pub fn greatest_clock(&self) -> Option<Timestamp> {
        self.greatest_clock
    }

    /// Ends the restore: the next turns settle the rows (rule R3), then the shard
    /// runs. A second call does nothing.
    pub fn start(&mut self, start: Start) {
        if !matches!(self.phase, super::Phase::Restoring) {
            return;
        }
        let clock = start.clock.or(self.greatest_clock).unwrap_or(Timestamp::MIN);
        self.watermarks = Clock::new(self.rules.slack_ms, self.rules.max_clock_jump_ms);
        self.watermarks.restore(clock, start.watermarks);
        for input in Input::ALL {
            self.watermarks.start_at(input, start.positions[input.index()]);
        }
        self.clock = clock;
        self.wheel = Wheel::new(clock);
        self.next_due = None;
        self.fired = clock;
        self.positions = start.positions;
        self.replay_from_held = start.replay_from;
        self.epoch = start.epoch;
        self.pending.epoch = true;
        if self.table.len() > 0 {
            // The last owner may not have written them.
            self.scopes.tell_all_counts();
        }
        if start.rewrite_view {
            self.rewrite_view();
        }
        self.scopes.start(clock, self.rules.tombstone_retention_ms);
        let held = self.held.get().and_then(|hold| change_of(hold, &mut self.scopes));
        let (held, before) = held.unzip();
        let rules = if start.rules_changed {
            RulesBefore::Others { until: None }
        } else {
            RulesBefore::Same
        };
        self.settle(What::Restored { rules, held }, before);
    }
}
