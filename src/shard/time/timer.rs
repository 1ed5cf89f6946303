//! The timer wheel (rule T7): finds the next due row among tens of millions, at a
//! cost per entry that does not depend on their number.
//!
//! A hierarchical wheel after tokio's, with eight levels of 64 slots: of 1 ms, of
//! 64 ms, 4 s, 4 min, 5 h, 12 days, 2 years and 139 years. Together they cover
//! the 48 bits of a time that a row can hold. An entry's level is that of the
//! highest digit, of six bits, in which its time differs from the wheel's. When
//! time reaches a coarse slot, its entries move down into finer ones. Unlike
//! tokio's, it has no removal, hands out at most the requested number, and moves
//! entries down in steps too: ten million entries due in the same slot block
//! nothing.
//!
//! An entry is only the number of its row, four bytes. The row knows where it is
//! filed, and is asked at the entry's turn.

use crate::shard::event::Timestamp;

/// Rows by the time at which they are due.
///
/// There is no removal. If a row was filed elsewhere since, its old entry is
/// dropped at its turn.
#[derive(Clone, Debug)]
pub struct Wheel {
    /// The next millisecond to hand out. Everything before it has been handed
    /// out, and all entries in the slots are due at it or later.
    next_ms: i64,
    /// Entries that were filed after their time. They are handed out first.
    overdue: ChunkId,
    /// One bit for each slot, by level: whether the slot has entries.
    occupied: [u64; LEVELS],
    /// The first chunk of each slot, by level.
    slots: Box<[[ChunkId; SLOTS]; LEVELS]>,
    chunks: Chunks,
}

/// One digit of a time: the number of a slot.
const DIGIT_BITS: usize = 6;
const SLOTS: usize = 1 << DIGIT_BITS;
const LEVELS: usize = 8;

/// The end of the last slot.
const HORIZON_MS: i64 = 1 << (LEVELS * DIGIT_BITS);

/// An entry moves down at most seven times, usually three. A move is much less
/// work than the handling of the entry.
const MOVES_PER_UNIT: usize = 4;

/// The remaining work of an advance.
struct Advance<'a, F> {
    to_ms: i64,
    /// Where a row is filed, if it is.
    filed: F,
    due: &'a mut Vec<(u32, Timestamp)>,
    /// The budget, in moves: handing an entry out costs [`MOVES_PER_UNIT`].
    left: usize,
}

impl<F: Fn(u32) -> Option<Timestamp>> Advance<'_, F> {
    /// Hands an entry out if it is still valid, else drops it.
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

/// A time in units of a level's slots.
fn number(ms: i64, level: usize) -> i64 {
    ms >> (level * DIGIT_BITS)
}

/// The slot of a time within a level.
fn digit(ms: i64, level: usize) -> usize {
    number(ms, level) as usize % SLOTS
}

impl Wheel {
    /// An empty wheel whose position is `position`.
    #[must_use]
    pub fn new(position: Timestamp) -> Wheel {
        Wheel {
            next_ms: position.0.saturating_add(1).max(0),
            overdue: ChunkId::NONE,
            occupied: [0; LEVELS],
            slots: Box::new([[ChunkId::NONE; SLOTS]; LEVELS]),
            chunks: Chunks::default(),
        }
    }

    /// Files a row. At or before the position, it is due at the next advance. A
    /// time that no row can hold is never due.
    pub fn file(&mut self, row: u32, at: Timestamp) {
        if at.0 < self.next_ms {
            self.chunks.push(&mut self.overdue, row);
        } else if at.0 < HORIZON_MS {
            self.place(row, at.0);
        }
    }

    /// Hands the valid entries that are due at or before `to` to `due`, as (row,
    /// filed at): overdue ones first, then the earliest first. `filed` tells
    /// where a row is filed now. Stops when `budget` units of work are spent, and
    /// returns the number spent: one for each entry handed out, less for those
    /// that only move to a finer slot or are dropped.
    ///
    /// So fewer than `budget` entries, or none, do not mean that all were handed
    /// out. They were once [`Wheel::position`] is at `to`.
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

    /// A lower limit of the next due time; at or before the position if something
    /// is overdue. `None`: there are no entries.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        if !self.overdue.is_none() {
            return Some(self.position());
        }
        if self.arrived_level().is_some() {
            return Some(Timestamp(self.next_ms));
        }
        self.earliest_slot().map(|(_, _, start_ms)| Timestamp(start_ms))
    }

    /// Does the next piece of work. `false`: there is none left, or no budget
    /// for it.
    fn step<F: Fn(u32) -> Option<Timestamp>>(&mut self, work: &mut Advance<'_, F>) -> bool {
        if let Some(level) = self.arrived_level() {
            return self.go_down(level, work);
        }
        let earliest = self.earliest_slot().filter(|(_, _, start_ms)| *start_ms <= work.to_ms);
        let Some((level, slot, start_ms)) = earliest else {
            self.next_ms = work.to_ms.saturating_add(1);
            return false;
        };
        // Everything before the earliest slot has been handed out.
        self.next_ms = start_ms;
        if level > 0 {
            return true;
        }
        while work.left > 0
            && let Some(row) = self.chunks.pop(&mut self.slots[0][slot])
        {
            work.hand_out(row, |at| at.0 == start_ms);
        }
        if !self.vacate(0, slot) {
            return false;
        }
        self.next_ms = start_ms + 1;
        true
    }

    /// Files an entry in the slots. `at_ms` is within the range of the slots.
    fn place(&mut self, row: u32, at_ms: i64) {
        let differing = (at_ms ^ self.next_ms) as u64;
        // The highest bit gives the level; `| 1` maps "none" to level 0.
        let level = (differing | 1).ilog2() as usize / DIGIT_BITS;
        let slot = digit(at_ms, level);
        self.chunks.push(&mut self.slots[level][slot], row);
        self.occupied[level] |= 1 << slot;
    }

    /// The lowest level above the finest with entries in the slot that time has
    /// reached. They move down before anything is handed out. Entries are placed
    /// in a slot only while it is ahead.
    fn arrived_level(&self) -> Option<usize> {
        (1..LEVELS).find(|&level| self.occupied[level] >> digit(self.next_ms, level) & 1 == 1)
    }

    /// Moves entries of the slot that time has reached into finer ones. `false`:
    /// the budget was not enough for all.
    fn go_down<F: Fn(u32) -> Option<Timestamp>>(
        &mut self,
        level: usize,
        work: &mut Advance<'_, F>,
    ) -> bool {
        let slot = digit(self.next_ms, level);
        let arrived = number(self.next_ms, level);
        while work.left > 0
            && let Some(row) = self.chunks.pop(&mut self.slots[level][slot])
        {
            work.left -= 1;
            if let Some(at) = (work.filed)(row)
                && number(at.0, level) == arrived
            {
                self.place(row, at.0);
            }
        }
        self.vacate(level, slot)
    }

    /// The earliest slot with entries, and its start: the first one of the finest
    /// level with entries, since coarser levels begin where it ends.
    fn earliest_slot(&self) -> Option<(usize, usize, i64)> {
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        let slot = self.occupied[level].trailing_zeros() as usize;
        let start = number(self.next_ms, level + 1) << DIGIT_BITS | slot as i64;
        Some((level, slot, start << (level * DIGIT_BITS)))
    }

    /// Clears the bit of a slot if the slot is empty. Returns whether it is.
    fn vacate(&mut self, level: usize, slot: usize) -> bool {
        let empty = self.slots[level][slot].is_none();
        if empty {
            self.occupied[level] &= !(1 << slot);
        }
        empty
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

/// A few rows of one slot, 256 bytes. So slots grow without moving their rows,
/// and freed chunks are used by other slots.
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
