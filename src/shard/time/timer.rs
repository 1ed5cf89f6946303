//! The timer wheel (rule T7): which row is due next, for tens of millions of
//! rows, at a cost per entry that does not depend on how many there are.
//!
//! A hierarchical wheel after tokio's: slots of 1 ms, above them slots of 64 ms,
//! of 4 s, 4 min, 5 h, 12 days and 2 years, by the highest digit in which an
//! entry's time differs from the wheel's. When time comes to a coarse slot, its
//! entries go down into finer ones. Unlike tokio's it has no removal, hands out
//! at most what it is asked for, and goes down in steps too: ten million
//! entries due in the same slot delay nobody.
//!
//! An entry is the number of its row and nothing else, four bytes: the row knows
//! where it is filed, and is asked when the entry's turn comes.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::shard::event::Timestamp;

/// Rows by the time at which they are due.
///
/// There is no removal. An entry that its row no longer knows of, because it was
/// filed elsewhere since, is dropped when its turn comes.
#[derive(Clone, Debug)]
pub struct Wheel {
    /// The next millisecond to hand out; everything before has been. All
    /// entries of the slots are due at it or later.
    next_ms: i64,
    /// Filed when their time had already come: handed out first.
    overdue: ChunkId,
    /// One bit a slot, whether it holds anything: the slots of a level begin
    /// at `LEVELS[level].first_slot`, which is a multiple of 64.
    occupied: [u64; SLOTS / 64],
    /// One bit a level, whether any of its slots holds anything.
    levels: u32,
    /// The first chunk of each slot.
    slots: Box<[ChunkId; SLOTS]>,
    chunks: Chunks,
    /// Due after the last slot ends, in the year 2109.
    beyond: BTreeMap<Timestamp, Vec<u32>>,
    /// How many entries there are.
    len: usize,
}

/// A level: its slots are `1 << shift` ms long, and there are `1 << bits`.
struct Level {
    shift: u32,
    bits: u32,
    first_slot: usize,
}

const LEVELS: [Level; 7] = [
    Level { shift: 0, bits: 6, first_slot: 0 },
    Level { shift: 6, bits: 6, first_slot: 64 },
    Level { shift: 12, bits: 6, first_slot: 128 },
    Level { shift: 18, bits: 6, first_slot: 192 },
    Level { shift: 24, bits: 6, first_slot: 256 },
    Level { shift: 30, bits: 6, first_slot: 320 },
    Level { shift: 36, bits: 6, first_slot: 384 },
];
const SLOTS: usize = 384 + 64;

/// The end of the last slot.
const HORIZON_MS: i64 = 1 << 42;

/// An entry goes down at most six times, and mostly three; going down is much
/// less work than what its owner does with it.
const MOVES_PER_UNIT: usize = 4;

/// What is left to do of an advance.
struct Advance<'a, F> {
    to_ms: i64,
    /// Where a row is filed, if it is.
    filed: F,
    due: &'a mut Vec<(u32, Timestamp)>,
    /// Work, in moves: handing an entry out costs [`MOVES_PER_UNIT`].
    left: usize,
}

impl<F: Fn(u32) -> Option<Timestamp>> Advance<'_, F> {
    /// Hands an entry out if it still holds, or drops it.
    fn hand_out(&mut self, row: u32, holds: impl FnOnce(Timestamp) -> bool) {
        match (self.filed)(row).filter(|at| holds(*at)) {
            Some(at) => {
                self.due.push((row, at));
                self.left = self.left.saturating_sub(MOVES_PER_UNIT);
            }
            None => self.left -= 1,
        }
    }
}

impl Level {
    /// The slot of a time, within the level.
    fn slot_of(&self, ms: i64) -> usize {
        (ms >> self.shift) as usize & ((1 << self.bits) - 1)
    }

    /// The words of [`Wheel::occupied`] that hold the level's bits.
    fn words(&self) -> Range<usize> {
        self.first_slot / 64..(self.first_slot + (1 << self.bits)).div_ceil(64)
    }

    /// The start of a slot, in the round in which `ms` is.
    fn start_of(&self, slot: usize, ms: i64) -> i64 {
        let above = self.shift + self.bits;
        (ms >> above << above) | ((slot as i64) << self.shift)
    }
}

impl Wheel {
    /// An empty wheel for which everything up to `position` is past.
    #[must_use]
    pub fn new(position: Timestamp) -> Wheel {
        Wheel {
            next_ms: position.0.saturating_add(1).max(0),
            overdue: ChunkId::NONE,
            occupied: [0; SLOTS / 64],
            levels: 0,
            slots: Box::new([ChunkId::NONE; SLOTS]),
            chunks: Chunks::default(),
            beyond: BTreeMap::new(),
            len: 0,
        }
    }

    /// Files a row. At or before the position, it is due at the next advance.
    pub fn file(&mut self, row: u32, at: Timestamp) {
        self.len += 1;
        if at.0 < self.next_ms {
            self.chunks.push(&mut self.overdue, row);
        } else if at.0 >= HORIZON_MS {
            self.beyond.entry(at).or_default().push(row);
        } else {
            self.place(row, at.0);
        }
    }

    /// Hands to `due` entries that are due at or before `to` and still hold, as
    /// (row, filed at): those overdue first, then the earliest first. `filed`
    /// tells where a row is filed now. Stops when `budget` units of work are
    /// spent, and returns how many were: one for each entry handed out, less for
    /// those that only move to a finer slot or are dropped.
    ///
    /// So fewer than `budget` entries, even none, does not mean that this was
    /// all: that is so once [`Wheel::position`] is at `to`.
    pub fn advance(
        &mut self,
        to: Timestamp,
        budget: usize,
        filed: impl Fn(u32) -> Option<Timestamp>,
        due: &mut Vec<(u32, Timestamp)>,
    ) -> usize {
        let moves = budget.saturating_mul(MOVES_PER_UNIT);
        let mut work = Advance { to_ms: to.0, filed, due, left: moves };
        while work.left > 0
            && let Some(row) = self.chunks.pop(&mut self.overdue)
        {
            self.len -= 1;
            work.hand_out(row, |at| at.0 < self.next_ms);
        }
        while self.overdue.is_none() && self.next_ms <= to.0 && self.step(&mut work) {}
        (moves - work.left).div_ceil(MOVES_PER_UNIT)
    }

    /// The time through which everything has been handed out (rule C2): never
    /// the target of an advance while entries due by then remain.
    #[must_use]
    pub fn position(&self) -> Timestamp {
        Timestamp(self.next_ms.saturating_sub(1))
    }

    /// A time before which nothing is due; at or before the position if
    /// something is overdue. `None`: there are no entries.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        if !self.overdue.is_none() {
            return Some(self.position());
        }
        if self.arrived_level().is_some() {
            return Some(Timestamp(self.next_ms));
        }
        match self.earliest_slot() {
            Some((_, _, start_ms)) => Some(Timestamp(start_ms)),
            None => self.beyond.keys().next().copied(),
        }
    }

    /// How many entries there are, those that no longer hold among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Does the next piece of work. `false`: there is none left, or no budget
    /// for it.
    fn step<F: Fn(u32) -> Option<Timestamp>>(&mut self, work: &mut Advance<'_, F>) -> bool {
        if let Some(level) = self.arrived_level() {
            return self.go_down(level, work);
        }
        let Some((level, slot, start_ms)) = self.earliest_slot() else {
            return self.hand_out_beyond(work);
        };
        if start_ms > work.to_ms {
            self.next_ms = work.to_ms.saturating_add(1);
            return false;
        }
        // Everything before the earliest slot has been handed out.
        self.next_ms = start_ms;
        if level > 0 {
            return true;
        }
        while work.left > 0
            && let Some(row) = self.chunks.pop(&mut self.slots[slot])
        {
            self.len -= 1;
            work.hand_out(row, |at| at.0 == start_ms);
        }
        if !self.slots[slot].is_none() {
            return false;
        }
        self.vacate(0, slot);
        self.next_ms = start_ms + 1;
        true
    }

    /// Files an entry in the slots: `at_ms` is neither past nor beyond.
    fn place(&mut self, row: u32, at_ms: i64) {
        let differing = (at_ms ^ self.next_ms) as u64;
        // Its highest bit tells the level; `| 1` puts "none" into level 0.
        let level = (63 - (differing | 1).leading_zeros()) as usize / 6;
        let slot = LEVELS[level].first_slot + LEVELS[level].slot_of(at_ms);
        self.chunks.push(&mut self.slots[slot], row);
        self.occupied[slot / 64] |= 1 << (slot % 64);
        self.levels |= 1 << level;
    }

    /// The level above the finest with entries in the very slot that time has
    /// come to: they go down before anything is handed out. Entries are placed
    /// there only while it lies ahead.
    fn arrived_level(&self) -> Option<usize> {
        if self.levels >> 1 == 0 {
            return None;
        }
        (1..LEVELS.len()).find(|&level| {
            let slot = LEVELS[level].first_slot + LEVELS[level].slot_of(self.next_ms);
            self.occupied[slot / 64] >> (slot % 64) & 1 == 1
        })
    }

    /// Moves entries of the slot that time has come to into finer ones.
    /// `false`: there was no budget for all of them.
    fn go_down<F: Fn(u32) -> Option<Timestamp>>(
        &mut self,
        level: usize,
        work: &mut Advance<'_, F>,
    ) -> bool {
        let Level { shift, first_slot, .. } = LEVELS[level];
        let slot = first_slot + LEVELS[level].slot_of(self.next_ms);
        let number = self.next_ms >> shift;
        while work.left > 0
            && let Some(row) = self.chunks.pop(&mut self.slots[slot])
        {
            work.left -= 1;
            match (work.filed)(row) {
                Some(at) if at.0 >> shift == number => self.place(row, at.0),
                _ => self.len -= 1,
            }
        }
        if !self.slots[slot].is_none() {
            return false;
        }
        self.vacate(level, slot);
        true
    }

    /// The earliest slot that holds anything, and its start: the first of the
    /// finest level that has any, since coarser levels begin where it ends.
    fn earliest_slot(&self) -> Option<(usize, usize, i64)> {
        if self.levels == 0 {
            return None;
        }
        let level = self.levels.trailing_zeros() as usize;
        let place = LEVELS.get(level)?;
        let word = place.words().find(|&word| self.occupied[word] != 0)?;
        let slot = word * 64 + self.occupied[word].trailing_zeros() as usize;
        Some((level, slot, place.start_of(slot - place.first_slot, self.next_ms)))
    }

    /// Notes that a slot is empty.
    fn vacate(&mut self, level: usize, slot: usize) {
        self.occupied[slot / 64] &= !(1 << (slot % 64));
        if self.occupied[LEVELS[level].words()].iter().all(|&word| word == 0) {
            self.levels &= !(1 << level);
        }
    }

    /// All slots are empty: hands out what lies beyond them, or is done.
    fn hand_out_beyond<F: Fn(u32) -> Option<Timestamp>>(
        &mut self,
        work: &mut Advance<'_, F>,
    ) -> bool {
        let first = self.beyond.first_entry();
        let Some(mut first) = first.filter(|entry| entry.key().0 <= work.to_ms) else {
            self.next_ms = work.to_ms.saturating_add(1);
            return false;
        };
        let at = *first.key();
        self.next_ms = at.0;
        while work.left > 0
            && let Some(row) = first.get_mut().pop()
        {
            self.len -= 1;
            work.hand_out(row, |filed| filed == at);
        }
        if !first.get().is_empty() {
            return false;
        }
        first.remove();
        self.next_ms = at.0.saturating_add(1);
        // At the end of all time `next_ms` cannot pass its target.
        self.next_ms > at.0
    }
}

/// The place of a chunk; also that of the next free one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ChunkId(u32);

impl ChunkId {
    const NONE: ChunkId = ChunkId(u32::MAX);

    fn is_none(self) -> bool {
        self == ChunkId::NONE
    }
}

const CHUNK_ENTRIES: usize = 62;
const PAGE_CHUNKS: usize = 64;

/// A few rows of one slot, 256 bytes: so that slots grow without moving what
/// they hold, and what one gives up another takes.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    rows: [u32; CHUNK_ENTRIES],
    len: u32,
    /// The slot's next chunk, which is full; or the next free one.
    next: ChunkId,
}

/// All chunks of a wheel, in pages that never move.
#[derive(Clone, Debug)]
struct Chunks {
    pages: Vec<Box<[Chunk]>>,
    free: ChunkId,
}

impl Default for Chunks {
    fn default() -> Chunks {
        Chunks { pages: Vec::new(), free: ChunkId::NONE }
    }
}

impl Chunks {
    fn get(&mut self, id: ChunkId) -> &mut Chunk {
        &mut self.pages[id.0 as usize / PAGE_CHUNKS][id.0 as usize % PAGE_CHUNKS]
    }

    /// Puts a row into the slot that begins with `first`.
    fn push(&mut self, first: &mut ChunkId, row: u32) {
        if first.is_none() || self.get(*first).len as usize == CHUNK_ENTRIES {
            if self.free.is_none() {
                self.add_page();
            }
            let id = self.free;
            let next = *first;
            let chunk = self.get(id);
            let free = chunk.next;
            chunk.next = next;
            chunk.len = 0;
            self.free = free;
            *first = id;
        }
        let chunk = self.get(*first);
        chunk.rows[chunk.len as usize] = row;
        chunk.len += 1;
    }

    /// Takes a row out of the slot that begins with `first`.
    fn pop(&mut self, first: &mut ChunkId) -> Option<u32> {
        if first.is_none() {
            return None;
        }
        let (id, free) = (*first, self.free);
        let chunk = self.get(id);
        chunk.len -= 1;
        let row = chunk.rows[chunk.len as usize];
        if chunk.len == 0 {
            *first = chunk.next;
            chunk.next = free;
            self.free = id;
        }
        Some(row)
    }

    fn add_page(&mut self) {
        let first = (self.pages.len() * PAGE_CHUNKS) as u32;
        let page = (0..PAGE_CHUNKS as u32).map(|index| Chunk {
            rows: [0; CHUNK_ENTRIES],
            len: 0,
            next: if index + 1 < PAGE_CHUNKS as u32 {
                ChunkId(first + index + 1)
            } else {
                ChunkId::NONE
            },
        });
        self.pages.push(page.collect());
        self.free = ChunkId(first);
    }
}

#[cfg(test)]
mod tests;
