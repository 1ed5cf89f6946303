//! Hash → row, in segments that grow one at a time.
//!
//! A single table doubles at once: for a moment it exists twice, and at ten
//! million rows its rehash, which reads every row, would block the loop for a
//! second. So the hashes are distributed over segments. With equal shares, all
//! segments would double within the same per cent of growth. So each has a
//! slightly larger share than the one before, the last twice that of the first,
//! and at any time a few are about to grow. This also keeps the bytes per row the
//! same at all sizes. With a single table they vary by a factor of two.

use hashbrown::HashTable;

const SEGMENTS: usize = 128;

#[derive(Debug)]
pub(in crate::shard) struct Index {
    segments: Box<[HashTable<u32>]>,
    len: usize,
}

impl Default for Index {
    fn default() -> Index {
        Index { segments: (0..SEGMENTS).map(|_| HashTable::new()).collect(), len: 0 }
    }
}

/// The segment of a hash. It hardly depends on the lowest and the highest bits,
/// which the segment's own table uses.
///
/// With the share `x` of all hashes below it, a hash belongs to segment
/// `SEGMENTS * log2(1 + x)`, which makes the shares grow evenly; a parabola is
/// near enough to the logarithm.
fn segment_of(hash: u64) -> usize {
    const ONE: u64 = 1 << 24;
    let x = (hash >> 30) & (ONE - 1);
    let bent = x + ((x * (ONE - x)) >> 24) * 11 / 32;
    (bent as usize * SEGMENTS) >> 24
}

impl Index {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn find(&self, hash: u64, is: impl FnMut(&u32) -> bool) -> Option<u32> {
        self.segments[segment_of(hash)].find(hash, is).copied()
    }

    /// Adds a row that is not in the index.
    pub fn insert(&mut self, hash: u64, row: u32, hash_of: impl Fn(&u32) -> u64) {
        self.segments[segment_of(hash)].insert_unique(hash, row, hash_of);
        self.len += 1;
    }

    pub fn remove(&mut self, hash: u64, row: u32) {
        if let Ok(entry) = self.segments[segment_of(hash)].find_entry(hash, |held| *held == row) {
            entry.remove();
            self.len -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u64) -> u64 {
        number
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(32)
            .wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    #[test]
    fn shares_are_all_of_different_sizes_up_to_twice_the_smallest() {
        let mut shares = [0_u64; SEGMENTS];
        for x in 0..1 << 24 {
            shares[segment_of(x << 30)] += 1;
        }
        assert!(shares.is_sorted());
        let ratio = shares[SEGMENTS - 1] as f64 / shares[0] as f64;
        assert!((1.9..2.2).contains(&ratio), "{ratio}");
    }

    #[test]
    fn index_grows_gradually_with_the_same_load_at_any_size() {
        let mut index = Index::default();
        let mut capacity = 0;
        for number in 0..300_000_u64 {
            index.insert(hash(number), number as u32, |row| hash(u64::from(*row)));
            if number % 1_000 == 999 && number > 50_000 {
                let held: usize = index.segments.iter().map(HashTable::capacity).sum();
                let grown = held.saturating_sub(capacity) as f64 / held as f64;
                assert!(capacity == 0 || grown < 0.08, "{number}: {grown} in a thousand rows");
                capacity = held;
                // A table is between half full and full.
                let share = held as f64 / number as f64;
                assert!((1.3..1.6).contains(&share), "{number}: {share}");
            }
        }
        assert_eq!(index.len(), 300_000);
        for number in 0..300_000 {
            assert_eq!(
                index.find(hash(number), |row| u64::from(*row) == number),
                Some(number as u32)
            );
        }
        index.remove(hash(7), 7);
        assert_eq!(index.find(hash(7), |row| *row == 7), None);
        assert_eq!(index.len(), 299_999);
    }
}
