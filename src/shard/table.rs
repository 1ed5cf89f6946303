//! Device id → row. A row is in two parts: what a heartbeat needs, hot, 56
//! bytes, in segments that never move; and all other facts, cold, which a
//! device known by heartbeats alone does not have.
//!
//! Segments rather than one growing vector: doubling would hold the table
//! three times over for a moment, and stall for as long as the copy takes.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::device::Cold;
use super::event::{DeviceId, Timestamp};
use super::rules::INTERVAL_MAX_MS;
use super::status::{Connectivity, Status};

/// Rows a segment.
const SEGMENT: usize = 4096;

/// The seed of the index: fixed, since the core has no randomness. A producer
/// that chooses ids to collide hurts its own partition only.
const SEED: u64 = 0x6465_7669_6365_7331;

/// An instant in 48 bits: enough until the year 10889.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instant48([u16; 3]);

impl Instant48 {
    /// No instant.
    pub const NONE: Instant48 = Instant48([u16::MAX; 3]);
    /// The latest instant that a row can hold.
    pub const MAX: i64 = (1 << 48) - 2;

    pub fn some(at: Timestamp) -> Instant48 {
        let bits = at.0.clamp(Timestamp::MIN.0, Self::MAX).to_le_bytes();
        Instant48([
            u16::from_le_bytes([bits[0], bits[1]]),
            u16::from_le_bytes([bits[2], bits[3]]),
            u16::from_le_bytes([bits[4], bits[5]]),
        ])
    }

    pub fn of(at: Option<Timestamp>) -> Instant48 {
        at.map_or(Instant48::NONE, Instant48::some)
    }

    pub fn get(self) -> Option<Timestamp> {
        if self == Instant48::NONE {
            return None;
        }
        let [low, middle, high] = self.0.map(i64::from);
        Some(Timestamp(low | middle << 16 | high << 32))
    }

    pub fn or_min(self) -> Timestamp {
        self.get().unwrap_or(Timestamp::MIN)
    }
}

/// What a bit of [`Hot::flags`] says.
pub(super) mod flag {
    /// The slot holds a row.
    pub const OCCUPIED: u16 = 1;
    /// The id is no 32 hex digits: the row holds its index among the texts.
    pub const TEXT: u16 = 1 << 1;
    /// The interval was carried by the last heartbeat; else it is what the row
    /// inherits now (rule J3).
    pub const CARRIED: u16 = 1 << 2;
    /// The last heartbeat is newer than what the changelog holds (rule R2).
    pub const UNWRITTEN: u16 = 1 << 3;
    /// The row waits for the next outbox.
    pub const DIRTY: u16 = 1 << 4;
    /// The status changed since the last outbox.
    pub const CHANGED: u16 = 1 << 5;
    /// A deletion or closed sessions are remembered, which have their own
    /// deadlines.
    pub const REMEMBERS: u16 = 1 << 6;
    /// There is a deletion, so facts are suppressed (rule J5).
    pub const DELETED: u16 = 1 << 7;
    /// The view has not acknowledged the deletion (rule V3).
    pub const UNACKNOWLEDGED: u16 = 1 << 8;
    /// The view must be told at the takeover (rule V5).
    pub const VIEW_DIRTY: u16 = 1 << 9;
    /// The row is in its fleet's counts.
    pub const COUNTED: u16 = 1 << 10;

    pub const STATUS_SHIFT: u16 = 11;
    pub const STATUS_MASK: u16 = 0b111 << STATUS_SHIFT;
    pub const CONNECTIVITY_SHIFT: u16 = 14;
    pub const CONNECTIVITY_MASK: u16 = 0b11 << CONNECTIVITY_SHIFT;
    /// The status bits of a row that shows nothing.
    pub const NO_STATUS: u16 = STATUS_MASK;
}

/// Says that a row has no cold facts.
pub(super) const NO_COLD: u32 = u32::MAX;

/// The part of a row that a heartbeat needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hot {
    id: [u8; 16],
    /// The last heartbeat.
    pub heartbeat: Instant48,
    /// What made the status true, as last emitted (rule J8).
    pub since: Instant48,
    /// What made the connectivity true, as last emitted.
    pub connectivity_since: Instant48,
    /// Where the row is filed in the wheel; entries found elsewhere are stale.
    pub filed: Instant48,
    /// The interval by which the last heartbeat is judged.
    pub interval_ms: u32,
    /// Counts the device's changes.
    pub version: u32,
    /// Where its other facts are.
    pub cold: u32,
    pub flags: u16,
}

impl Hot {
    const EMPTY: Hot = Hot {
        id: [0; 16],
        heartbeat: Instant48::NONE,
        since: Instant48::NONE,
        connectivity_since: Instant48::NONE,
        filed: Instant48::NONE,
        interval_ms: 0,
        version: 0,
        cold: NO_COLD,
        flags: flag::NO_STATUS,
    };

    pub fn has(&self, bit: u16) -> bool {
        self.flags & bit != 0
    }

    pub fn set(&mut self, bit: u16, on: bool) {
        if on {
            self.flags |= bit;
        } else {
            self.flags &= !bit;
        }
    }

    /// What was last emitted; absent before the first change and after a
    /// deletion.
    pub fn shown(&self) -> Option<(Status, Connectivity)> {
        let status = usize::from((self.flags & flag::STATUS_MASK) >> flag::STATUS_SHIFT);
        let connectivity =
            usize::from((self.flags & flag::CONNECTIVITY_MASK) >> flag::CONNECTIVITY_SHIFT);
        Some((*Status::ALL.get(status)?, Connectivity::ALL[connectivity]))
    }

    pub fn show(&mut self, shown: Option<(Status, Connectivity)>) {
        self.flags &= !(flag::STATUS_MASK | flag::CONNECTIVITY_MASK);
        self.flags |= match shown {
            None => flag::NO_STATUS,
            Some((status, connectivity)) => {
                (status as u16) << flag::STATUS_SHIFT
                    | (connectivity as u16) << flag::CONNECTIVITY_SHIFT
            }
        };
    }

    /// The interval that the last heartbeat carried, if it carried one.
    pub fn carried_ms(&self) -> Option<u32> {
        (self.has(flag::CARRIED) && self.heartbeat != Instant48::NONE).then_some(self.interval_ms)
    }

    pub fn set_interval(&mut self, interval_ms: i64) {
        self.interval_ms = u32::try_from(interval_ms.clamp(0, INTERVAL_MAX_MS)).unwrap_or(u32::MAX);
    }

    /// The floor of rule T5: the row is not judged back in time.
    pub fn floor(&self) -> Timestamp {
        self.since.or_min().max(self.connectivity_since.or_min())
    }
}

/// Cold facts by index. Callers take a copy and give it back, so that how they
/// are kept is nobody else's business.
#[derive(Debug, Default)]
pub(super) struct ColdFacts {
    segments: Vec<Vec<Option<Box<Cold>>>>,
    free: Vec<u32>,
}

impl ColdFacts {
    /// A copy of the facts; none at all if there is nothing under that index.
    pub fn load(&self, index: u32) -> Cold {
        self.peek(index).cloned().unwrap_or_default()
    }

    /// Whether the facts are such; false where there are none.
    pub fn is(&self, index: u32, test: impl FnOnce(&Cold) -> bool) -> bool {
        self.peek(index).is_some_and(test)
    }

    fn peek(&self, index: u32) -> Option<&Cold> {
        let index = index as usize;
        self.segments.get(index / SEGMENT)?.get(index % SEGMENT)?.as_deref()
    }

    /// Puts facts under the index, or under a new one for [`NO_COLD`]; returns
    /// which.
    pub fn store(&mut self, index: u32, cold: Cold) -> u32 {
        if index == NO_COLD {
            return self.add(cold);
        }
        let at = index as usize;
        let slot = self.segments.get_mut(at / SEGMENT).and_then(|s| s.get_mut(at % SEGMENT));
        match slot {
            Some(Some(held)) => **held = cold,
            Some(empty) => *empty = Some(Box::new(cold)),
            None => return self.add(cold),
        }
        index
    }

    fn add(&mut self, cold: Cold) -> u32 {
        if let Some(index) = self.free.pop() {
            return self.store(index, cold);
        }
        if self.segments.last().is_none_or(|segment| segment.len() == SEGMENT) {
            self.segments.push(Vec::with_capacity(SEGMENT));
        }
        let full = (self.segments.len() - 1) * SEGMENT;
        let segment = &mut self.segments[full / SEGMENT];
        segment.push(Some(Box::new(cold)));
        index_of(full + segment.len() - 1)
    }

    pub fn remove(&mut self, index: u32) {
        let at = index as usize;
        let slot = self.segments.get_mut(at / SEGMENT).and_then(|s| s.get_mut(at % SEGMENT));
        if let Some(slot) = slot
            && slot.take().is_some()
        {
            self.free.push(index);
        }
    }
}

/// All rows of a shard.
#[derive(Debug, Default)]
pub(super) struct Table {
    index: HashTable<u32>,
    segments: Vec<Vec<Hot>>,
    free: Vec<u32>,
    /// Ids that are no 32 hex digits.
    texts: Vec<Box<str>>,
    free_texts: Vec<u32>,
    pub cold: ColdFacts,
}

impl Table {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// One past the last slot: scans go up to here.
    pub fn end(&self) -> u32 {
        match self.segments.last() {
            None => 0,
            Some(last) => index_of((self.segments.len() - 1) * SEGMENT + last.len()),
        }
    }

    pub fn find(&self, device: &DeviceId) -> Option<u32> {
        self.index.find(hash_of(device), |&row| self.is(row, device)).copied()
    }

    /// The row in a slot; slots may be empty.
    pub fn get(&self, row: u32) -> Option<&Hot> {
        let row = row as usize;
        let hot = self.segments.get(row / SEGMENT)?.get(row % SEGMENT)?;
        hot.has(flag::OCCUPIED).then_some(hot)
    }

    pub fn get_mut(&mut self, row: u32) -> Option<&mut Hot> {
        let row = row as usize;
        let hot = self.segments.get_mut(row / SEGMENT)?.get_mut(row % SEGMENT)?;
        hot.has(flag::OCCUPIED).then_some(hot)
    }

    /// The device of a row.
    pub fn device(&self, hot: &Hot) -> DeviceId {
        match self.text(hot) {
            Some(text) => DeviceId::Text(text.into()),
            None => DeviceId::Hex(hot.id),
        }
    }

    /// The row of a device, made if there is none.
    pub fn find_or_insert(&mut self, device: &DeviceId) -> u32 {
        if let Some(row) = self.find(device) {
            return row;
        }
        let mut hot = Hot { flags: Hot::EMPTY.flags | flag::OCCUPIED, ..Hot::EMPTY };
        match device {
            DeviceId::Hex(id) => hot.id = *id,
            DeviceId::Text(text) => {
                let at = match self.free_texts.pop() {
                    Some(at) => {
                        self.texts[at as usize] = text.clone();
                        at
                    }
                    None => {
                        self.texts.push(text.clone());
                        index_of(self.texts.len() - 1)
                    }
                };
                hot.id[..4].copy_from_slice(&at.to_le_bytes());
                hot.flags |= flag::TEXT;
            }
        }
        let row = match self.free.pop() {
            Some(row) => {
                self.segments[row as usize / SEGMENT][row as usize % SEGMENT] = hot;
                row
            }
            None => {
                if self.segments.last().is_none_or(|segment| segment.len() == SEGMENT) {
                    self.segments.push(Vec::with_capacity(SEGMENT));
                }
                let full = (self.segments.len() - 1) * SEGMENT;
                let segment = &mut self.segments[full / SEGMENT];
                segment.push(hot);
                index_of(full + segment.len() - 1)
            }
        };
        let Table { index, segments, texts, .. } = self;
        index.insert_unique(hash_of(device), row, |&other| {
            hash_of_row(&segments[other as usize / SEGMENT][other as usize % SEGMENT], texts)
        });
        row
    }

    /// Forgets a row: the device is as if never heard of.
    pub fn remove(&mut self, row: u32) {
        let Some(hot) = self.get(row).copied() else { return };
        let hash = hash_of_row(&hot, &self.texts);
        if let Ok(entry) = self.index.find_entry(hash, |&other| other == row) {
            entry.remove();
        }
        if hot.has(flag::TEXT) {
            let at = text_index(&hot);
            self.texts[at as usize] = Box::from("");
            self.free_texts.push(at);
        }
        if hot.cold != NO_COLD {
            self.cold.remove(hot.cold);
        }
        self.segments[row as usize / SEGMENT][row as usize % SEGMENT] = Hot::EMPTY;
        self.free.push(row);
    }

    fn is(&self, row: u32, device: &DeviceId) -> bool {
        let row = row as usize;
        let hot = &self.segments[row / SEGMENT][row % SEGMENT];
        match device {
            DeviceId::Hex(id) => !hot.has(flag::TEXT) && hot.id == *id,
            DeviceId::Text(text) => self.text(hot) == Some(text),
        }
    }

    fn text(&self, hot: &Hot) -> Option<&str> {
        hot.has(flag::TEXT).then(|| &*self.texts[text_index(hot) as usize])
    }
}

fn text_index(hot: &Hot) -> u32 {
    u32::from_le_bytes([hot.id[0], hot.id[1], hot.id[2], hot.id[3]])
}

fn hash_of(device: &DeviceId) -> u64 {
    match device {
        DeviceId::Hex(id) => FixedState::with_seed(SEED).hash_one(u128::from_le_bytes(*id)),
        DeviceId::Text(text) => FixedState::with_seed(SEED).hash_one(&**text),
    }
}

fn hash_of_row(hot: &Hot, texts: &[Box<str>]) -> u64 {
    if hot.has(flag::TEXT) {
        FixedState::with_seed(SEED).hash_one(&*texts[text_index(hot) as usize])
    } else {
        FixedState::with_seed(SEED).hash_one(u128::from_le_bytes(hot.id))
    }
}

/// A partition of four billion devices would have run out of memory before.
fn index_of(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str) -> DeviceId {
        DeviceId::Text(name.into())
    }

    #[test]
    fn a_hot_row_takes_56_bytes() {
        assert_eq!(std::mem::size_of::<Hot>(), 56);
    }

    #[test]
    fn instants_read_back_as_they_were_and_stay_within_their_48_bits() {
        for at in [0, 1, 65_535, 65_536, 1_700_000_000_123, Instant48::MAX] {
            assert_eq!(Instant48::some(Timestamp(at)).get(), Some(Timestamp(at)));
        }
        assert_eq!(Instant48::some(Timestamp(-1)).get(), Some(Timestamp(0)));
        assert_eq!(Instant48::some(Timestamp(i64::MAX)).get(), Some(Timestamp(Instant48::MAX)));
        assert_eq!(Instant48::NONE.get(), None);
    }

    #[test]
    fn devices_of_both_kinds_of_id_are_found_after_others_were_forgotten() {
        let mut table = Table::default();
        let mut ids: Vec<DeviceId> =
            (0..10_000_u128).map(|n| DeviceId::Hex(n.to_le_bytes())).collect();
        ids.extend((0..100).map(|n| text(&format!("device {n}"))));
        let rows: Vec<u32> = ids.iter().map(|id| table.find_or_insert(id)).collect();
        for (id, &row) in ids.iter().zip(&rows).step_by(3) {
            table.remove(row);
            assert_eq!(table.find(id), None);
        }
        for (at, id) in ids.iter().enumerate() {
            assert_eq!(table.find(id).is_some(), at % 3 != 0);
        }
        let row = table.find_or_insert(&text("reused"));
        assert!(row < table.end());
        let hot = *table.get(row).unwrap();
        assert_eq!(table.device(&hot), text("reused"));
    }

    #[test]
    fn a_row_shows_what_it_was_told_to() {
        let mut hot = Hot::EMPTY;
        assert_eq!(hot.shown(), None);
        for status in Status::ALL {
            for connectivity in Connectivity::ALL {
                hot.show(Some((status, connectivity)));
                assert_eq!(hot.shown(), Some((status, connectivity)));
            }
        }
        hot.show(None);
        assert_eq!(hot.shown(), None);
    }

    #[test]
    fn cold_facts_are_copied_out_and_put_back() {
        let mut cold = ColdFacts::default();
        let index = cold.store(NO_COLD, Cold::default());
        let mut copy = cold.load(index);
        copy.activated = Some(Timestamp(5));
        assert_eq!(cold.store(index, copy.clone()), index);
        assert_eq!(cold.load(index), copy);
        cold.remove(index);
        assert_eq!(cold.load(index), Cold::default());
        assert_eq!(cold.store(NO_COLD, copy), index);
    }
}
