//! Collects the output of the shard: the difference between two commits.

use super::Shard;
use super::device::Cold;
use super::event::Timestamp;
use super::facts::session::session_fingerprint;
use super::hot::{Hot, flag};
use super::outbox::{DeviceView, Outbox, ViewBody, ViewWrite};
use super::pending::Pending;
use super::scope::ScopeRef;
use super::snapshot::{ClosedSession, Emitted, Entry, Register, RowSnapshot};

impl Shard {
    /// Whether there is anything to be written besides offsets, other than a
    /// rewrite of the view.
    #[must_use]
    pub fn has_output(&self) -> bool {
        let Pending { changes, dead_letters, rows, closed, forgotten, epoch, bytes: _ } =
            &self.pending;
        *epoch
            || self.held.has_output()
            || !changes.is_empty()
            || !dead_letters.is_empty()
            || !rows.is_empty()
            || !closed.is_empty()
            || !forgotten.is_empty()
            || !self.scopes.dirty.is_empty()
            || !self.scopes.forgotten.is_empty()
            || !self.scopes.forgotten_next.is_empty()
    }

    /// The approximate size of the waiting output in a transaction, in bytes
    /// (rule C10).
    #[must_use]
    pub fn output_bytes(&self) -> usize {
        self.pending.bytes
    }

    /// The output since the last outbox, and the next `rewrite` rows of a rewrite
    /// of the view (rules V4, V5).
    pub fn take_outbox(&mut self, rewrite: usize) -> Outbox {
        let clock = self.progress().clock;
        let pending = std::mem::take(&mut self.pending);
        let mut outbox = Outbox {
            changelog: Vec::with_capacity(pending.rows.len() + 1),
            changes: pending.changes,
            dead_letters: pending.dead_letters,
            view: Vec::with_capacity(pending.rows.len()),
        };
        if pending.epoch {
            outbox.changelog.push(Entry::Epoch(self.epoch));
        }
        outbox.changelog.extend(self.held.take_entry());
        // A forgotten device may be back already. Its row comes later, and the
        // last entry of a key counts.
        let forgotten = pending.forgotten.into_iter();
        outbox.changelog.extend(forgotten.map(|device| Entry::Device(device, None)));
        self.write_scopes(clock, &mut outbox);
        for (device, session, remembered) in pending.closed {
            let session = session.rename(self.scopes.instances.name(session.instance).clone());
            let fingerprint = session_fingerprint(&session.instance, &session.session);
            let closed = remembered.then_some(ClosedSession { session, clock });
            outbox.changelog.push(Entry::ClosedSession(device, fingerprint, closed));
        }
        let forgotten = self.scopes.forget(clock).into_iter();
        outbox.changelog.extend(forgotten.map(|name| Entry::Instance(name, None)));
        for (index, previous_fleet) in pending.rows {
            self.write_row(index, previous_fleet, clock, &mut outbox);
        }
        if !self.is_settling_restored() {
            self.write_rewrite(rewrite, &mut outbox);
            self.write_counts(&mut outbox);
        }
        outbox
    }

    /// Adds the epoch entry to the next outbox again: its delivery report tells
    /// broker time (rule T6).
    pub fn write_epoch(&mut self) {
        self.pending.epoch = true;
    }

    /// The view was lost: write every row again, in pages, through the next
    /// outboxes.
    pub fn rewrite_view(&mut self) {
        self.rewrite_next = Some(0);
        self.scopes.tell_all_counts();
    }

    /// Whether rows of a rewrite, or rows that the view may not have (rule V5),
    /// are not yet handed out.
    #[must_use]
    pub fn rewriting_view(&self) -> bool {
        self.rewrite_next.is_some() || !self.view_dirty.is_empty()
    }

    /// The view has acknowledged every write up to this sequence (rule V3).
    pub fn view_acknowledged(&mut self, sequence: u64) {
        while let Some((&written, &index)) = self.unacknowledged.first_key_value()
            && written <= sequence
        {
            self.unacknowledged.remove(&written);
            // Another deletion of the row may be in flight.
            if self.unacknowledged_rows.get(&index) != Some(&written) {
                continue;
            }
            self.unacknowledged_rows.remove(&index);
            // Files the row for the time at which the deletion is forgotten.
            let Some(row) = self.load(index) else { continue };
            let judged = Shard::judged_at(self.clock, Timestamp::MIN, row.hot.floor());
            self.store(row, judged);
        }
    }

    /// Whether a row must still be written to the view, or the view must still
    /// acknowledge its deletion (rule V3).
    pub(super) fn waits_for_view(&self, index: u32, hot: &Hot) -> bool {
        hot.has(flag::DIRTY | flag::VIEW_DIRTY) || self.unacknowledged_rows.contains_key(&index)
    }

    fn view_write(&mut self, body: ViewBody, outbox: &mut Outbox) -> u64 {
        self.sequence += 1;
        outbox.view.push(ViewWrite { sequence: self.sequence, body });
        self.sequence
    }

    fn write_scopes(&mut self, clock: Timestamp, outbox: &mut Outbox) {
        for scope in std::mem::take(&mut self.scopes.dirty) {
            outbox.changelog.push(match scope {
                ScopeRef::Instance(index) => {
                    let mut facts = self.scopes.instances.get(index).facts.clone();
                    facts.clock = clock;
                    Entry::Instance(self.scopes.instances.name(index).clone(), Some(facts))
                }
                ScopeRef::Fleet(index) => {
                    let mut facts = self.scopes.fleets.get(index).facts.clone();
                    facts.clock = clock;
                    Entry::Fleet(self.scopes.fleets.name(index).clone(), facts)
                }
                ScopeRef::Organization(index) => {
                    let mut facts = self.scopes.organizations.get(index).clone();
                    facts.clock = clock;
                    Entry::Organization(self.scopes.organizations.name(index).clone(), facts)
                }
            });
        }
    }

    fn write_row(
        &mut self,
        index: u32,
        previous_fleet: u32,
        clock: Timestamp,
        outbox: &mut Outbox,
    ) {
        let Some(hot) = self.table.get_mut(index) else { return };
        // The slot may have another row by now, which is in the list itself.
        if !hot.has(flag::DIRTY) {
            return;
        }
        let changed = hot.has(flag::CHANGED);
        hot.set(flag::DIRTY | flag::CHANGED | flag::UNWRITTEN | flag::VIEW_DIRTY, false);
        let hot = *hot;
        let mut cold = self.table.load_cold(&hot);
        if cold.deletion_touched_written != cold.facts.deletion_touched
            || cold.unwritten_openings.is_some()
        {
            cold.deletion_touched_written = cold.facts.deletion_touched;
            cold.unwritten_openings = None;
            self.table.put_cold(index, &cold);
        }
        let snapshot = self.snapshot_of(&hot, &cold, clock);
        outbox.changelog.push(Entry::Device(self.table.device(&hot), Some(Box::new(snapshot))));
        self.write_view(index, &hot, &cold, Some(previous_fleet), changed, outbox);
    }

    /// Writes a row to the view, unless it was never there and is not needed
    /// there.
    fn write_view(
        &mut self,
        index: u32,
        hot: &Hot,
        cold: &Cold,
        previous_fleet: Option<u32>,
        changed: bool,
        outbox: &mut Outbox,
    ) {
        if let Some(view) = self.device_view(index, hot, cold, previous_fleet, changed) {
            self.view_write(ViewBody::Device(Box::new(view)), outbox);
        } else if cold.facts.is_deleted() {
            let fleet = previous_fleet.and_then(|fleet| self.scopes.fleets.name_if_any(fleet));
            let device = self.table.device(hot);
            let sequence = self.view_write(ViewBody::DeviceDeleted { device, fleet }, outbox);
            self.unacknowledged.insert(sequence, index);
            self.unacknowledged_rows.insert(index, sequence);
        }
    }

    pub(super) fn device_view(
        &self,
        index: u32,
        hot: &Hot,
        cold: &Cold,
        previous_fleet: Option<u32>,
        changed: bool,
    ) -> Option<DeviceView> {
        let (status, connectivity) = hot.shown()?;
        let facts = self.facts_of(index, hot, cold);
        let fleet = cold.belongs_to().fleet;
        let judged = Shard::judged_at(self.clock, Timestamp::MIN, hot.floor());
        Some(DeviceView {
            device: self.table.device(hot),
            status,
            connectivity,
            since: cold.since(hot).unwrap_or(Timestamp::MIN),
            connectivity_since: cold.connectivity_since(hot).unwrap_or(Timestamp::MIN),
            heartbeat: facts.heartbeat_state(judged),
            last_heartbeat: hot.heartbeat.get(),
            vpn_connected: facts.vpn_connected(super::facts::seen::View::Now),
            progress: facts.progress(status),
            release: cold.facts.update.release(),
            update_phase: cold.facts.update.phase(),
            update_outcome: cold.facts.update.outcome(),
            update_since: cold.facts.update.since(),
            membership_since: cold.membership_since(hot),
            fleet: self.scopes.fleets.name_if_any(fleet),
            previous_fleet: previous_fleet
                .filter(|previous| *previous != fleet)
                .and_then(|previous| self.scopes.fleets.name_if_any(previous)),
            version: u64::from(hot.version),
            changed,
        })
    }

    fn write_counts(&mut self, outbox: &mut Outbox) {
        for fleet in std::mem::take(&mut self.scopes.changed_counts) {
            let held = self.scopes.fleets.get_mut(fleet);
            held.counts_changed = false;
            let counts = held.counts;
            let fleet = self.scopes.fleets.name(fleet).clone();
            self.view_write(ViewBody::FleetCounts { fleet, counts }, outbox);
        }
    }

    fn write_rewrite(&mut self, mut rows: usize, outbox: &mut Outbox) {
        // First the rows that the view may not have (rule V5).
        while rows > 0
            && let Some(index) = self.view_dirty.pop_front()
        {
            let Some(hot) = self.table.get_mut(index) else { continue };
            if hot.has(flag::VIEW_DIRTY) {
                hot.set(flag::VIEW_DIRTY, false);
                let hot = *hot;
                let cold = self.table.load_cold(&hot);
                self.write_view(index, &hot, &cold, None, false, outbox);
                rows -= 1;
            }
        }
        while rows > 0
            && let Some(index) = self.rewrite_next
        {
            if index >= self.table.end() {
                self.rewrite_next = None;
                break;
            }
            self.rewrite_next = Some(index + 1);
            let Some(hot) = self.table.get(index).copied() else { continue };
            let cold = self.table.load_cold(&hot);
            // Deletions too: the view may have been set back to a time before
            // one.
            if hot.shown().is_some() || cold.facts.is_deleted() {
                self.write_view(index, &hot, &cold, None, false, outbox);
                rows -= 1;
            }
        }
    }

    /// A row as the changelog stores it.
    pub(super) fn snapshot_of(&self, hot: &Hot, cold: &Cold, clock: Timestamp) -> RowSnapshot {
        let mut facts = cold.facts.rename(|of, name| self.scopes.name(of, *name).clone());
        facts.sessions.sort_by(|one, other| {
            (&one.instance, &one.session).cmp(&(&other.instance, &other.session))
        });
        RowSnapshot {
            heartbeat: hot.heartbeat.get().map(|at| Register { at, value: hot.interval.get() }),
            going_away: hot.has(flag::GOING_AWAY),
            facts,
            emitted: (hot.version > 0).then(|| Emitted {
                version: u64::from(hot.version),
                shown: hot.shown(),
                since: cold.since(hot).unwrap_or(Timestamp::MIN),
                connectivity_since: cold.connectivity_since(hot).unwrap_or(Timestamp::MIN),
                membership_since: cold.membership_since(hot),
            }),
            clock,
        }
    }
}
