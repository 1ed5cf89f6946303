//! The share of an input's records that become dead letters. Where it is great, a
//! producer is at fault, and reading stops before everything it writes is refused.

/// The share is that of the trailing minute, which is kept in parts.
const PARTS: usize = 12;
const PART_MS: i64 = 5_000;
/// Fewer records than that tell nothing.
const RECORDS_MIN: u32 = 100;

/// The share of one input of a partition.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LetterShare {
    /// Records and dead letters among them, by part of the minute.
    parts: [(u32, u32); PARTS],
    /// The latest part, counted from the beginning of the monotonic clock.
    latest: i64,
    /// The share that was too great.
    stopped_at: Option<f64>,
}

impl LetterShare {
    /// Counts a record. Answers the share, where this record has made it greater
    /// than `max_share`: reading is to stop before the record.
    pub fn count(&mut self, is_letter: bool, max_share: f64, now_ms: i64) -> Option<f64> {
        self.pass_to(now_ms);
        let part = &mut self.parts[Self::place(self.latest)];
        part.0 = part.0.saturating_add(1);
        if !is_letter {
            return None;
        }
        part.1 = part.1.saturating_add(1);
        self.stopped_at = self.of_enough().filter(|share| *share > max_share);
        self.stopped_at
    }

    /// Whether reading has stopped. Only another process begins again.
    pub fn has_stopped(&self) -> bool {
        self.stopped_at.is_some()
    }

    /// The share as it is now, or as it was when reading stopped; 0 of too few.
    pub fn now(mut self, now_ms: i64) -> f64 {
        self.stopped_at.unwrap_or_else(|| {
            self.pass_to(now_ms);
            self.of_enough().unwrap_or(0.0)
        })
    }

    fn pass_to(&mut self, now_ms: i64) {
        let part = now_ms.div_euclid(PART_MS);
        for gone in (self.latest + 1..=part).rev().take(PARTS) {
            self.parts[Self::place(gone)] = (0, 0);
        }
        self.latest = self.latest.max(part);
    }

    fn place(part: i64) -> usize {
        part.rem_euclid(PARTS as i64) as usize
    }

    fn of_enough(&self) -> Option<f64> {
        let sum =
            |of: fn(&(u32, u32)) -> u32| self.parts.iter().map(of).fold(0_u32, u32::saturating_add);
        let records = sum(|part| part.0);
        (records >= RECORDS_MIN).then(|| f64::from(sum(|part| part.1)) / f64::from(records))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(share: &mut LetterShare, letters: usize, good: usize, at_ms: i64) -> Option<f64> {
        (0..good).for_each(|_| assert_eq!(share.count(false, 0.5, at_ms), None));
        (0..letters).find_map(|_| share.count(true, 0.5, at_ms))
    }

    #[test]
    fn reading_stops_at_the_record_that_makes_the_share_too_great() {
        let mut share = LetterShare::default();
        assert_eq!(count(&mut share, 100, 100, 1_000_000), None);
        assert!(!share.has_stopped());
        assert_eq!(count(&mut share, 1, 0, 1_000_000), Some(101.0 / 201.0));
        assert!(share.has_stopped());
        assert!(share.now(9_000_000) > 0.5, "time alone mends nothing");
    }

    #[test]
    fn a_few_records_tell_nothing() {
        let mut share = LetterShare::default();
        assert_eq!(count(&mut share, 99, 0, 0), None);
        assert_eq!(share.now(0), 0.0);
        assert_eq!(count(&mut share, 1, 0, 0), Some(1.0));
    }

    #[test]
    fn only_the_last_minute_counts() {
        let mut share = LetterShare::default();
        assert_eq!(count(&mut share, 90, 110, 2_000), None);
        assert_eq!(share.now(59_999), 0.45);
        assert_eq!(share.now(60_000), 0.0);
        assert_eq!(count(&mut share, 60, 100, 62_000), None);
        // As it was, had the first minute counted on: more than half.
        assert_eq!(count(&mut share, 40, 0, 64_000), None);
        assert_eq!(share.now(64_000), 0.5);
        assert_eq!(share.now(9_000_000), 0.0);
        assert!(count(&mut share, 100, 0, 9_000_000).is_some());
    }
}
