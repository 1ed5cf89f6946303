//! Cold facts by number: all facts of a device but its heartbeat.
//!
//! Callers take a copy and give it back. Facts are packed (`packed.rs`) into
//! slots of a few sizes, each size in segments of its own. A removed slot leaves
//! no hole: the last slot of its size takes its place. For that, each slot knows
//! its row. So memory that is no longer needed, because sessions were closed or
//! forgotten, is freed, whatever the order of events.

use super::hot::NO_COLD;
use super::packed;
use crate::shard::device::{Cold, Membership};

/// The sizes of slots, in bytes, including the row's number. Most facts are
/// small, so the steps between small sizes are small.
const SIZES: [usize; 30] = [
    16, 20, 24, 28, 32, 34, 36, 38, 40, 44, 48, 52, 56, 60, 64, 72, 80, 96, 112, 128, 160, 192,
    224, 256, 320, 384, 512, 640, 768, 1024,
];

/// Slots a segment.
const SEGMENT: usize = 256;

/// A number consists of the index of the size and the index of the slot.
const PLACE_BITS: u32 = 27;
const PLACES: u32 = (1 << PLACE_BITS) - 1;

/// The head of a slot: its row.
const ROW: usize = size_of::<u32>();

/// A row whose facts have another number now.
pub(in crate::shard) type Moved = Option<(u32, u32)>;

#[derive(Debug)]
pub(in crate::shard) struct ColdFacts {
    slabs: Vec<Slab>,
    /// Facts too large for any slot: a handful, of devices with dozens of sessions.
    large: Vec<Vec<u8>>,
    /// The buffer in which a record is built.
    record: Vec<u8>,
}

impl Default for ColdFacts {
    fn default() -> ColdFacts {
        let slabs = SIZES.iter().map(|size| Slab { size: *size, ..Slab::default() }).collect();
        ColdFacts { slabs, large: Vec::new(), record: Vec::new() }
    }
}

impl ColdFacts {
    /// A copy of the facts; empty if there is nothing under that number.
    pub fn load(&self, number: u32) -> Cold {
        packed::decode(self.bytes(number))
    }

    /// The fleet and organization of the device.
    pub fn belongs_to(&self, number: u32) -> Membership {
        packed::belongs_to(self.bytes(number))
    }

    /// Whether the device is in a fleet, or was by the known facts.
    pub fn was_in(&self, number: u32, fleet: u32) -> bool {
        packed::was_in(self.bytes(number), fleet)
    }

    /// Whether the device has an open session of this VPN instance.
    pub fn has_session_of(&self, number: u32, instance: u32) -> bool {
        packed::has_session_of(self.bytes(number), instance)
    }

    /// Whether a session of the device, open or closed, names this VPN instance.
    pub fn names_instance(&self, number: u32, instance: u32) -> bool {
        packed::names_instance(self.bytes(number), instance)
    }

    fn bytes(&self, number: u32) -> &[u8] {
        let (class, place) = parts(number);
        let slot = match self.slabs.get(class) {
            Some(slab) if place < slab.len => slab.slot(place),
            None if class == SIZES.len() => self.large.get(place).map_or(&[][..], Vec::as_slice),
            _ => &[],
        };
        slot.get(ROW..).unwrap_or_default()
    }

    /// Stores the facts of a row in place of those under `number`, or under a new
    /// number for [`NO_COLD`]. Returns the number, and the row whose facts had to
    /// move for it.
    pub fn put(&mut self, number: u32, row: u32, cold: &Cold) -> (u32, Moved) {
        let mut record = std::mem::take(&mut self.record);
        record.clear();
        record.extend_from_slice(&row.to_le_bytes());
        packed::encode(cold, &mut record);
        // If a size has too many slots already, the next size is used.
        let fits = |slab: &Slab| slab.size >= record.len() && slab.len < PLACES as usize;
        let class = self.slabs.iter().position(fits).unwrap_or(SIZES.len());
        let (held_class, held_place) = parts(number);
        let put = if number != NO_COLD && held_class == class {
            match self.slabs.get_mut(class) {
                Some(slab) => slab.slot_mut(held_place)[..record.len()].copy_from_slice(&record),
                None => self.large[held_place].clone_from(&record),
            }
            (number, None)
        } else {
            let place = match self.slabs.get_mut(class) {
                Some(slab) => slab.push(&record),
                None => {
                    self.large.push(record.clone());
                    self.large.len() - 1
                }
            };
            (number_of(class, place), self.remove(number))
        };
        self.record = record;
        put
    }

    /// Removes facts. Returns the row whose facts had to move for it.
    pub fn remove(&mut self, number: u32) -> Moved {
        if number == NO_COLD {
            return None;
        }
        let (class, place) = parts(number);
        match self.slabs.get_mut(class) {
            Some(slab) => slab.swap_remove(place),
            None => {
                self.large.swap_remove(place);
            }
        }
        let moved = match self.slabs.get(class) {
            Some(slab) => (place < slab.len).then(|| slab.slot(place)),
            None => self.large.get(place).map(Vec::as_slice),
        };
        let row = moved?.first_chunk::<ROW>()?;
        Some((u32::from_le_bytes(*row), number))
    }
}

fn parts(number: u32) -> (usize, usize) {
    ((number >> PLACE_BITS) as usize, (number & PLACES) as usize)
}

fn number_of(class: usize, place: usize) -> u32 {
    (class as u32) << PLACE_BITS | place as u32 & PLACES
}

/// Slots of one size, without holes.
#[derive(Debug, Default)]
struct Slab {
    size: usize,
    len: usize,
    segments: Vec<Box<[u8]>>,
}

impl Slab {
    fn slot(&self, place: usize) -> &[u8] {
        let start = place % SEGMENT * self.size;
        &self.segments[place / SEGMENT][start..start + self.size]
    }

    fn slot_mut(&mut self, place: usize) -> &mut [u8] {
        let start = place % SEGMENT * self.size;
        &mut self.segments[place / SEGMENT][start..start + self.size]
    }

    fn push(&mut self, record: &[u8]) -> usize {
        let place = self.len;
        if place / SEGMENT == self.segments.len() {
            self.segments.push(vec![0; SEGMENT * self.size].into_boxed_slice());
        }
        self.len += 1;
        self.slot_mut(place)[..record.len()].copy_from_slice(record);
        place
    }

    /// Removes a slot; the last one takes its place.
    fn swap_remove(&mut self, place: usize) {
        self.len -= 1;
        if place != self.len {
            let (last, start) = (self.len % SEGMENT * self.size, place % SEGMENT * self.size);
            let (low, high) = self.segments.split_at_mut(self.len / SEGMENT);
            let from = last..last + self.size;
            match low.get_mut(place / SEGMENT) {
                Some(to) => to[start..start + self.size].copy_from_slice(&high[0][from]),
                None => high[0].copy_within(from, start),
            }
        }
        // One empty segment is kept, so that coming and going at its edge costs
        // no allocation.
        if self.len.div_ceil(SEGMENT) + 1 < self.segments.len() {
            self.segments.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::shard::device::Session;
    use crate::shard::event::Timestamp;
    use crate::shard::snapshot::DeviceFacts;

    fn cold(closed: u64, mark: i64) -> Cold {
        let closed = (0..closed).map(|n| Session {
            closed_at: Some(Timestamp(mark)),
            ..Session::new(1, n.to_string().into())
        });
        let facts = DeviceFacts { provisioned: Some(Timestamp(mark)), ..DeviceFacts::default() };
        Cold { facts, closed: closed.collect(), ..Cold::default() }
    }

    #[test]
    fn every_size_has_a_number() {
        assert!(SIZES.is_sorted());
        assert!(SIZES.len() < (1 << (32 - PLACE_BITS)) - 1, "and so has what is large");
        assert_eq!(parts(number_of(SIZES.len(), 5)), (SIZES.len(), 5));
        assert_ne!(number_of(SIZES.len(), PLACES as usize), NO_COLD);
    }

    #[test]
    fn memory_that_many_devices_no_longer_need_is_freed() {
        let mut facts = ColdFacts::default();
        let mut numbers: BTreeMap<u32, u32> = BTreeMap::new();
        let segments =
            |facts: &ColdFacts| facts.slabs.iter().map(|slab| slab.segments.len()).sum::<usize>();
        let mut put = |facts: &mut ColdFacts, row: u32, cold: &Cold| {
            let held = numbers.get(&row).copied().unwrap_or(NO_COLD);
            let (number, moved) = facts.put(held, row, cold);
            numbers.extend(moved);
            numbers.insert(row, number);
        };
        for row in 0..10_000 {
            put(&mut facts, row, &cold(0, 1));
        }
        let at_first = segments(&facts);
        for sessions in [1, 4, 0] {
            // In another order than they came.
            for row in (0..10_000_u32).map(|row| row * 7_919 % 10_000) {
                put(&mut facts, row, &cold(sessions, 2));
            }
            assert!(segments(&facts) <= at_first + 6, "{sessions}");
        }
    }

    proptest! {
        /// Against a map, with facts of all sizes that come, grow, shrink and go.
        #[test]
        fn facts_are_found_where_they_were_put(
            steps in prop::collection::vec((0..300_u32, prop::option::of(0..70_u64)), 1..2_000),
        ) {
            let mut facts = ColdFacts::default();
            let mut model: BTreeMap<u32, (u32, Cold)> = BTreeMap::new();
            for (mark, (row, sessions)) in (0..).zip(steps) {
                let held = model.get(&row).map_or(NO_COLD, |(number, _)| *number);
                let moved = match sessions {
                    Some(sessions) => {
                        let cold = cold(sessions, mark);
                        let (number, moved) = facts.put(held, row, &cold);
                        model.insert(row, (number, cold));
                        moved
                    }
                    None => {
                        model.remove(&row);
                        facts.remove(held)
                    }
                };
                if let Some((row, number)) = moved {
                    model.get_mut(&row).unwrap().0 = number;
                }
            }
            for (number, cold) in model.values() {
                prop_assert_eq!(&facts.load(*number), cold);
            }
            let held: usize = facts.slabs.iter().map(|slab| slab.len).sum();
            prop_assert_eq!(held + facts.large.len(), model.len());
            prop_assert_eq!(facts.load(NO_COLD), Cold::default());
        }
    }
}
