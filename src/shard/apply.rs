//! Applying one record: to its row (rules J1 to J6) or to its scope (J7).

use std::sync::Arc;

use super::device::{self, Joined, Session};
use super::event::{
    Content, DeviceEvent, DeviceId, EventBody, Input, Queued, ScopeEvent, Timestamp,
};
use super::facts::interval::IntervalCode;
use super::facts::register::{outlives, takes_over};
use super::facts::seen::View;
use super::facts::session::{Began, Opening};
use super::hot::{Hot, Instant48, flag};
use super::judge::Row;
use super::scope::Applied;
use super::settling::{HeldRecord, ScopeChange};
use super::status::{Cause, Connectivity, Status};
use super::{Phase, Shard, Turn};

/// The contents of a heartbeat.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heartbeat {
    pub at: Timestamp,
    /// The poll interval that it carries.
    pub poll_interval_s: Option<u32>,
    /// The device announced that it shuts down (rule J11).
    pub going_away: bool,
}

impl Shard {
    /// `row`: the place of a heartbeat's row, as looked up ahead.
    pub(super) fn apply(
        &mut self,
        input: Input,
        record: Queued,
        believed: Timestamp,
        row: Option<u32>,
        turn: &mut Turn,
    ) {
        let held = HeldRecord { input, believed, next_offset: record.offset.saturating_add(1) };
        let sent = record.relay.sent_at(believed);
        match record.content {
            Content::Bad(letter) => {
                turn.bad += 1;
                self.pending.dead_letter(*letter);
            }
            Content::Event(event) => {
                turn.applied[input.index()] += 1;
                self.compare(input, &event, record.timestamp, believed, sent, &mut turn.skew);
                // Rule J1: a sender whose clock runs ahead gains nothing.
                let at = event.occurred_at.unwrap_or(record.timestamp);
                let at = Timestamp(at.min(believed).0.max(Timestamp::MIN.0));
                match event.body {
                    EventBody::Heartbeat { device, poll_interval_s, going_away } => {
                        let said = Heartbeat { at, poll_interval_s, going_away };
                        let joined = self.heartbeat(&device, said, row);
                        turn.stale[input.index()] += u32::from(joined == Joined::Stale);
                    }
                    EventBody::Device { device, event } => {
                        let joined = self.device(&device, at, sent, &event, turn);
                        turn.stale[input.index()] += u32::from(joined == Joined::Stale);
                    }
                    EventBody::Scope(event) => {
                        if self.scope(at, sent, &event, held, turn) {
                            return;
                        }
                    }
                }
            }
        }
        self.finish(held);
    }

    /// The record is done with: its offset may be committed.
    pub(super) fn finish(&mut self, record: HeldRecord) {
        let HeldRecord { input, believed, next_offset } = record;
        let position = &mut self.positions[input.index()];
        *position = next_offset.max(*position);
        self.watermarks.processed(input, believed, next_offset);
        self.watermarks.head(input, self.merge.head(input));
    }

    fn heartbeat(&mut self, device: &DeviceId, said: Heartbeat, row: Option<u32>) -> Joined {
        let at = said.at;
        let row = row.filter(|&row| self.table.is_at(row, device));
        let index = row.or_else(|| self.table.find(device));
        if let Some(index) = index
            && let Some(joined) = self.heartbeat_of_quiet_row(index, said)
        {
            return joined;
        }
        let index = index.unwrap_or_else(|| self.table.find_or_insert(device));
        let Some(mut row) = self.load(index) else { return Joined::Stale };
        if self.is_suppressed(&mut row, at, said.poll_interval_s, false) {
            self.store(row, self.clock);
            return Joined::Stale;
        }
        let judged = Shard::judged_at(self.clock, at, row.hot.floor());
        self.fire(&mut row, self.clock, judged, false);
        let joined = join_heartbeat(&mut row.hot, said);
        if joined == Joined::Changed {
            if said.poll_interval_s.is_none() && !row.hot.interval.is_steady() {
                self.tell(&mut row, at);
            }
            let cause = if said.going_away { Cause::HeartbeatEnded } else { Cause::Heartbeat };
            self.judge(&mut row, judged, Some((at, cause)), false);
        }
        self.store(row, judged);
        joined
    }

    /// The fast path, for nearly all traffic: the row shows the same, and only
    /// its deadline moves. It reads no cold fact, allocates and writes nothing,
    /// and touches the wheel only if the deadline is earlier (rule T7). `None`:
    /// take the slow path.
    fn heartbeat_of_quiet_row(&mut self, index: u32, said: Heartbeat) -> Option<Joined> {
        let Heartbeat { at, poll_interval_s, going_away } = said;
        let (clock, rules) = (self.clock, &self.rules);
        let hot = self.table.get_mut(index)?;
        let held = hot.heartbeat.get()?;
        if going_away || hot.has(flag::DELETED | flag::GOING_AWAY) {
            return None;
        }
        if at < held {
            return Some(Joined::Stale);
        }
        // Rare: a heartbeat at the same instant, or one whose interval must be
        // found (rule J3).
        if at == held || poll_interval_s.is_none() && !hot.interval.is_steady() {
            return None;
        }
        match hot.shown()? {
            // Contact ends these statuses.
            (Status::Inactive | Status::PostProvisioning, _) => return None,
            // The heartbeat held was found missing, perhaps at a later instant than
            // this one's (rule T5), by which it would still count.
            (_, Connectivity::VpnOnly | Connectivity::None) => return None,
            (
                Status::Online
                | Status::Configuring
                | Status::Updating
                | Status::Offline
                | Status::Frozen,
                Connectivity::Full | Connectivity::HeartbeatOnly,
            ) => {}
        }
        let judged = Shard::judged_at(clock, at, hot.floor());
        let (timeout_held, _) = rules.deadlines(held, hot.interval.get());
        let interval = poll_interval_s.map_or(hot.interval, IntervalCode::carried);
        let (timeout, _) = rules.deadlines(at, interval.get());
        if timeout_held <= judged || timeout <= judged {
            return None;
        }
        hot.heartbeat = Instant48::some(at);
        hot.interval = interval;
        hot.flags |= flag::UNWRITTEN;
        let leaves_window = at.plus_ms(rules.replay_window_ms.max(0));
        let deadline = timeout.min(leaves_window);
        if hot.filed.get().is_none_or(|filed| deadline < filed) {
            let mut moved = *hot;
            self.file_at(index, &mut moved, deadline);
            if let Some(hot) = self.table.get_mut(index) {
                hot.filed = moved.filed;
            }
        }
        Some(Joined::Changed)
    }

    fn device(
        &mut self,
        device: &DeviceId,
        at: Timestamp,
        sent: Option<Timestamp>,
        event: &DeviceEvent,
        turn: &mut Turn,
    ) -> Joined {
        let index = self.table.find_or_insert(device);
        let Some(mut row) = self.load(index) else { return Joined::Stale };
        if *event != DeviceEvent::Deleted {
            let lifecycle = !event.is_of_vpn();
            if self.is_suppressed(&mut row, at, event.poll_interval_s(), lifecycle) {
                self.store(row, self.clock);
                return Joined::Stale;
            }
        }
        let judged = Shard::judged_at(self.clock, at, row.hot.floor());
        self.fire(&mut row, self.clock, judged, false);
        let mut dated = at;
        let joined = match event {
            DeviceEvent::SessionOpened { .. } => {
                let (joined, dated_by_it) = self.open_session(&mut row, at, sent, event);
                dated = dated_by_it;
                joined
            }
            DeviceEvent::SessionClosed { instance, session, opened_at } => {
                let instance = self.told_instance(instance);
                row.cold.close_session(instance, session, at, *opened_at, &mut row.closed)
            }
            DeviceEvent::Deleted => {
                let interval_s = self.longest_interval_s(&row);
                let joined = row.cold.delete(at, interval_s, &mut row.closed);
                let heartbeat = row.hot.heartbeat.get();
                if joined == Joined::Changed && heartbeat.is_some_and(|held| !outlives(held, at)) {
                    row.hot.heartbeat = Instant48::NONE;
                    row.hot.interval = IntervalCode::DEFAULT;
                    row.hot.set(flag::GOING_AWAY | flag::UNWRITTEN, false);
                }
                joined
            }
            _ => row.cold.join(at, event, &mut self.scopes),
        };
        if joined != Joined::Stale {
            if matches!(
                event,
                DeviceEvent::SettingsChanged(_)
                    | DeviceEvent::Moved { .. }
                    | DeviceEvent::Registered { .. }
                    | DeviceEvent::Deleted
            ) {
                self.retell(&mut row, at);
            }
            let fallen_out = row.closed.iter().filter(|(_, remembered)| !remembered).count();
            if matches!(event, DeviceEvent::SessionClosed { .. }) {
                turn.sessions_fallen_out += u32::try_from(fallen_out).unwrap_or(u32::MAX);
            }
            if let DeviceEvent::SessionOpened { instance, .. }
            | DeviceEvent::SessionClosed { instance, .. } = event
            {
                row.vpn_instance = self.scopes.instances.find(instance);
            }
            let trigger = Some((dated, device::cause_of(event)));
            let emitted = self.judge(&mut row, judged, trigger, false);
            // A restore replays a renewal that is not emitted (rule R2).
            if joined == Joined::Changed || emitted {
                row.cold_changed = true;
            } else {
                row.remembered_only = true;
                let unwritten = &mut row.cold.unwritten_openings;
                *unwritten = Some(unwritten.map_or(at, |since| since.min(at)));
            }
        }
        // Not earlier: the end of a session may be the cause of the change.
        if matches!(event, DeviceEvent::SessionOpened { .. }) {
            self.prune_sessions(&mut row, self.clock);
            self.limit_sessions(&mut row, turn);
        }
        self.store(row, judged);
        joined
    }

    /// The number of an instance that a session names.
    fn told_instance(&mut self, name: &Arc<str>) -> u32 {
        let forget_from = self.clock.plus_ms(self.rules.tombstone_retention_ms.max(1));
        self.scopes.told_instance(name, forget_from)
    }

    /// Joins an opening. Also returns the time that dates its change (rule J4).
    pub(super) fn open_session(
        &mut self,
        row: &mut Row,
        at: Timestamp,
        sent: Option<Timestamp>,
        event: &DeviceEvent,
    ) -> (Joined, Timestamp) {
        let DeviceEvent::SessionOpened { instance, session, opened_at, lease_ms } = event else {
            return (Joined::Stale, at);
        };
        let opening = Opening {
            at,
            connected_at: opened_at.map_or(at, |opened_at| opened_at.min(at)).max(Timestamp::MIN),
            counted_at: lease_ms.map_or(at, |_| self.rules.counted_at(at, sent)),
            lease_ms: *lease_ms,
        };
        let index = self.told_instance(instance);
        let instance = self.scopes.instances.get(index);
        let held = row.cold.session(index, session);
        // A session that its instance has ended may be dropped, so its lease is
        // irrelevant.
        let lease_end = held
            .filter(|held| held.opened_at().is_some_and(|at| instance.may_count(at)))
            .and_then(Session::lease_end);
        let ends = [instance.facts.lost, instance.facts.started, instance.lease_end(), lease_end];
        let dated = match held {
            Some(held) => held.dates(&opening, ends),
            None => Session::new(index, session.clone()).dates(&opening, ends),
        };
        let open = held.filter(|held| held.is_open());
        let counts = |held: &Session| self.facts(row, false).session_counts(held, View::Now);
        let counted = open.is_some_and(counts);
        let renews = open.is_some();
        let began = if renews { Began::Before } else { Began::At(dated) };
        let mut joined = row.cold.open_session(index, session, opening, began, &mut row.closed);
        // An opening is left to the replay only if it renewed a session that
        // counted, or made no difference.
        if renews && !counted && !matches!(self.phase, Phase::Restoring) {
            let held = row.cold.session(index, session);
            if held.is_some_and(|held| self.facts(row, false).session_counts(held, View::Now)) {
                row.cold.begin_session(index, session, dated);
                joined = Joined::Changed;
            }
        }
        (joined, dated)
    }

    /// Whether the deletion of the row suppresses an event (rule J5). If so, the
    /// deletion is remembered longer. `interval_s`: the poll interval that the
    /// event carries. In the millisecond of the deletion, lifecycle events that
    /// are later in the log count.
    fn is_suppressed(
        &self,
        row: &mut Row,
        at: Timestamp,
        interval_s: Option<u32>,
        lifecycle: bool,
    ) -> bool {
        let Some(deleted) = row.cold.facts.deleted else { return false };
        // A later event is kept for a registration that may come yet; until then
        // it is suppressed as well, or a deleted device that goes on polling
        // would be back as a new one once its deletion is forgotten.
        let before = !(outlives(at, deleted) || lifecycle && at == deleted);
        if !before && !row.cold.facts.is_deleted() {
            return false;
        }
        let touched = row.cold.facts.deletion_touched;
        let write = row.cold.touch_deletion(self.clock, interval_s);
        if write {
            row.cold_changed = true;
        } else if row.cold.facts.deletion_touched != touched {
            row.remembered_only = true;
        }
        before
    }

    /// The longest poll interval that is known of a device, but the default (rule
    /// J5).
    fn longest_interval_s(&self, row: &Row) -> Option<u32> {
        let fleet = &self.scopes.fleets.get(row.cold.belongs_to().fleet).facts;
        let settings = [row.cold.facts.settings, fleet.settings].into_iter().flatten();
        let set = settings.filter_map(|settings| settings.value.poll_interval_s);
        set.chain(row.hot.heartbeat.get().and_then(|_| row.hot.interval.get().seconds())).max()
    }

    /// Applies a scope event. Says whether it holds the shard (rule J7).
    fn scope(
        &mut self,
        at: Timestamp,
        sent: Option<Timestamp>,
        event: &ScopeEvent,
        record: HeldRecord,
        turn: &mut Turn,
    ) -> bool {
        let counted_at = self.rules.counted_at(at, sent);
        let applied = self.scopes.apply(at, record.believed, counted_at, self.clock, event);
        if let ScopeEvent::FleetSettingsChanged { fleet, .. } = event {
            self.scopes.forget_told(fleet, self.told_kept_from());
        }
        match applied {
            Applied::Stale => {
                turn.stale[record.input.index()] += 1;
                false
            }
            Applied::Quiet => false,
            Applied::Settle { scope, before, at: made_at, cause } => {
                // A restart is reported after it happened. Rows are still judged
                // at the time of the event (rule T5).
                let judged = at.max(made_at);
                let change = ScopeChange { scope, judged, at: made_at, cause };
                self.hold(change, *before, Some(record));
                true
            }
        }
    }
}

/// Joins a heartbeat: the later one wins; of two at the same instant, the later
/// in the log (rule J2). The interval of one that carries none is the caller's to
/// find, unless it is steady.
pub(super) fn join_heartbeat(hot: &mut Hot, said: Heartbeat) -> Joined {
    let Heartbeat { at, poll_interval_s, going_away } = said;
    let carried_s = hot.interval.get().carried();
    let held = hot.heartbeat.get().map(|held| (held, (carried_s, hot.has(flag::GOING_AWAY))));
    if !takes_over((at, (poll_interval_s, going_away)), held) {
        return Joined::Stale;
    }
    hot.heartbeat = Instant48::some(at);
    hot.set(flag::GOING_AWAY, going_away);
    hot.interval = match poll_interval_s {
        Some(carried_s) => IntervalCode::carried(carried_s),
        None if hot.interval.is_steady() => hot.interval,
        None => IntervalCode::DEFAULT,
    };
    hot.set(flag::UNWRITTEN, true);
    Joined::Changed
}
