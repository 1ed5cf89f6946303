//! The contents of the next outbox, and their approximate size in a transaction
//! (rule C10).

use super::device::{Cold, Session};
use super::event::{DeadLetter, DeviceId};
use super::outbox::StatusChange;

/// Approximate size of a change in a transaction, in bytes.
const CHANGE_BYTES: usize = 400;
/// The same for a row, and for each of its sessions.
const ROW_BYTES: usize = 300;
const SESSION_BYTES: usize = 64;
/// The same for a closed session, and for a forgotten row.
const KEY_BYTES: usize = 100;

/// The contents of the next outbox.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub changes: Vec<StatusChange>,
    pub dead_letters: Vec<DeadLetter>,
    /// Rows to be written, and their fleet in the view.
    pub rows: Vec<(u32, u32)>,
    /// Closed sessions that were added or changed (`true`), or removed.
    pub closed: Vec<(DeviceId, Session, bool)>,
    /// Devices whose rows were forgotten.
    pub forgotten: Vec<DeviceId>,
    /// The epoch must be written (rules C7, T6).
    pub epoch: bool,
    /// The approximate size of all of it in a transaction, in bytes (rule C10).
    pub bytes: usize,
}

impl Pending {
    pub fn change(&mut self, change: StatusChange) {
        self.bytes += CHANGE_BYTES;
        self.changes.push(change);
    }

    pub fn dead_letter(&mut self, letter: DeadLetter) {
        self.bytes += letter.bytes();
        self.dead_letters.push(letter);
    }

    pub fn row(&mut self, index: u32, previous_fleet: u32, cold: &Cold) {
        self.bytes += ROW_BYTES + SESSION_BYTES * cold.facts.sessions.len();
        self.rows.push((index, previous_fleet));
    }

    pub fn closed(&mut self, device: &DeviceId, closed: impl Iterator<Item = (Session, bool)>) {
        let before = self.closed.len();
        self.closed.extend(closed.map(|(session, kept)| (device.clone(), session, kept)));
        self.bytes += KEY_BYTES * (self.closed.len() - before);
    }

    pub fn forgotten(&mut self, device: DeviceId) {
        self.bytes += KEY_BYTES;
        self.forgotten.push(device);
    }
}
