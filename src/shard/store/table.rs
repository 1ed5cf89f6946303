//! Device id → row. A row has two parts. The hot part (`hot.rs`) has the facts
//! that a heartbeat needs, 48 bytes, in segments that never move. The cold part
//! (`cold.rs`) has all other facts; a device with heartbeats only has none.
//!
//! Segments instead of one growing vector: doubling would need three times the
//! memory for a moment, and block for as long as the copy takes.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;

use super::cold::{ColdFacts, Moved};
use super::hot::{Hot, NO_COLD, flag};
use super::index::Index;
use crate::shard::device::Cold;
use crate::shard::event::DeviceId;

/// Rows a segment.
const SEGMENT: usize = 4096;

/// The seed of the index: fixed, since the core has no randomness. A producer
/// that chooses colliding ids hurts only its own partition.
const SEED: u64 = 0x6465_7669_6365_7331;

/// All rows of a shard.
#[derive(Debug, Default)]
pub(in crate::shard) struct Table {
    index: Index,
    segments: Vec<Vec<Hot>>,
    free: Vec<u32>,
    /// Ids that are not 32 hex digits.
    texts: Vec<Box<str>>,
    free_texts: Vec<u32>,
    pub cold: ColdFacts,
}

impl Table {
    /// The number of rows.
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
        self.index.find(hash_of(device), |&row| self.is(row, device))
    }

    /// The probable row of a device, if it has one. The row itself is not read.
    pub fn guess(&self, device: &DeviceId) -> Option<u32> {
        self.index.find(hash_of(device), |_| true)
    }

    /// Whether the device is in a slot.
    pub fn is_at(&self, row: u32, device: &DeviceId) -> bool {
        self.get(row).is_some() && self.is(row, device)
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

    /// Puts a hot row back. The number of its cold facts stays as in the table.
    pub fn put(&mut self, row: u32, hot: Hot) {
        if let Some(slot) = self.get_mut(row) {
            *slot = Hot { cold: slot.cold, ..hot };
        }
    }

    /// A copy of a row's cold facts.
    pub fn load_cold(&self, hot: &Hot) -> Cold {
        if hot.cold == NO_COLD { Cold::default() } else { self.cold.load(hot.cold) }
    }

    /// Puts a row's cold facts back.
    pub fn put_cold(&mut self, row: u32, cold: &Cold) {
        let Some(hot) = self.get(row) else { return };
        let held = hot.cold;
        let (number, moved) = if *cold == Cold::default() {
            (NO_COLD, self.cold.remove(held))
        } else {
            self.cold.put(held, row, cold)
        };
        if let Some(hot) = self.get_mut(row) {
            hot.cold = number;
        }
        self.follow(moved);
    }

    /// Stores the new number of another row's facts.
    fn follow(&mut self, moved: Moved) {
        if let Some((row, number)) = moved
            && let Some(hot) = self.get_mut(row)
        {
            hot.cold = number;
        }
    }

    /// The device of a row.
    pub fn device(&self, hot: &Hot) -> DeviceId {
        match self.text(hot) {
            Some(text) => DeviceId::Text(text.into()),
            None => DeviceId::Hex(hot.id),
        }
    }

    /// The row of a device, created if there is none.
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
        index.insert(hash_of(device), row, |&other| {
            hash_of_row(&segments[other as usize / SEGMENT][other as usize % SEGMENT], texts)
        });
        row
    }

    /// Removes a row: the device is unknown again.
    pub fn remove(&mut self, row: u32) {
        let Some(hot) = self.get(row).copied() else { return };
        self.index.remove(hash_of_row(&hot, &self.texts), row);
        if hot.has(flag::TEXT) {
            let at = text_index(&hot);
            self.texts[at as usize] = Box::from("");
            self.free_texts.push(at);
        }
        let moved = self.cold.remove(hot.cold);
        self.follow(moved);
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

/// With four billion devices, a partition would have run out of memory before
/// this.
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
}
