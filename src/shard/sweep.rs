//! The shard's side of the view's sweep (rule V6): committed rows and counts,
//! page by page, and whether a key of the view has a row.
//!
//! The caller must call this only while nothing of this shard is in an open
//! transaction.

use super::Shard;
use super::event::DeviceId;
use super::hot::flag;
use super::outbox::{ViewBody, ViewWrite};

/// The progress of a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepCursor {
    rows: u32,
    fleets: u32,
}

impl Shard {
    /// Whether rows can be compared now: not while the shard is held, or while
    /// the view is rewritten anyway.
    #[must_use]
    pub fn may_sweep(&self) -> bool {
        self.is_at_rest() && !self.rewriting_view()
    }

    /// The finished part of a pass, and its total.
    #[must_use]
    pub fn sweep_progress(&self, cursor: SweepCursor) -> (u32, u32) {
        let (rows, fleets) = (self.table.end(), self.scopes.fleets.indices().end);
        (
            cursor.rows.min(rows).saturating_add(cursor.fleets.min(fleets)),
            rows.saturating_add(fleets),
        )
    }

    /// The next page of a pass: at most `count` writes, to be made where the view
    /// differs. Rows that wait for a commit are left out: the commit writes them.
    pub fn sweep_page(&mut self, cursor: &mut SweepCursor, count: u32) -> Vec<ViewWrite> {
        let mut bodies = Vec::new();
        let rows = self.table.end();
        if cursor.rows < rows {
            let until = cursor.rows.saturating_add(count).min(rows);
            bodies.extend((cursor.rows..until).filter_map(|row| {
                let hot = self.table.get(row)?;
                if hot.has(flag::DIRTY | flag::VIEW_DIRTY) {
                    return None;
                }
                let view = self.device_view(row, hot, &self.table.load_cold(hot), None, false)?;
                Some(ViewBody::Device(Box::new(view)))
            }));
            cursor.rows = until;
        } else {
            let fleets = self.scopes.fleets.indices().end;
            let until = cursor.fleets.saturating_add(count).min(fleets);
            bodies.extend((cursor.fleets..until).filter_map(|index| {
                let held = self.scopes.fleets.get(index);
                let fleet = self.scopes.fleets.name(index).clone();
                let counts = held.counts;
                // A fleet without devices may also have no hash.
                let shown = !held.counts_changed && counts.iter().any(|count| *count > 0);
                shown.then_some(ViewBody::FleetCounts { fleet, counts })
            }));
            cursor.fleets = until;
        }
        let numbered = bodies.into_iter().map(|body| {
            self.sequence += 1;
            ViewWrite { sequence: self.sequence, body }
        });
        numbered.collect()
    }

    /// Whether it is certain that the view must not have this device.
    #[must_use]
    pub fn shows_no_device(&self, device: &DeviceId) -> bool {
        // A deletion that is not committed or not acknowledged is written to the
        // view in its turn.
        let row = self.table.find(device).and_then(|row| Some((row, self.table.get(row)?)));
        self.is_at_rest()
            && row.is_none_or(|(row, hot)| hot.shown().is_none() && !self.waits_for_view(row, hot))
    }

    /// Whether it is certain that this fleet has no devices.
    #[must_use]
    pub fn counts_no_device(&self, fleet: &str) -> bool {
        let held = self.scopes.fleets.find(fleet).map(|index| self.scopes.fleets.get(index));
        self.is_at_rest()
            && held.is_none_or(|held| {
                !held.counts_changed && held.counts.iter().all(|count| *count == 0)
            })
    }
}
