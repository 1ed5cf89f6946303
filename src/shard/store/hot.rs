//! The part of a row that a heartbeat needs.

use crate::shard::event::Timestamp;
use crate::shard::facts::interval::IntervalCode;
use crate::shard::rules::Rules;
use crate::shard::status::{Connectivity, Status};

/// A row without cold facts.
pub(in crate::shard) const NO_COLD: u32 = u32::MAX;

/// An instant in 48 bits: enough until the year 10889.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) struct Instant48([u16; 3]);

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

/// The bits of [`Hot::flags`].
pub(in crate::shard) mod flag {
    /// The slot holds a row.
    pub const OCCUPIED: u16 = 1;
    /// The id is not 32 hex digits: the row holds its index among the texts.
    pub const TEXT: u16 = 1 << 1;
    /// The last heartbeat is newer than the changelog's (rule R2).
    pub const UNWRITTEN: u16 = 1 << 3;
    /// The row waits for the next outbox.
    pub const DIRTY: u16 = 1 << 4;
    /// The status changed since the last outbox.
    pub const CHANGED: u16 = 1 << 5;
    /// A deletion or closed sessions are remembered, which have their own
    /// deadlines.
    pub const REMEMBERS: u16 = 1 << 6;
    /// The row has a deletion, which suppresses events (rule J5).
    pub const DELETED: u16 = 1 << 7;
    /// The last heartbeat had `going_away` (rule J11).
    pub const GOING_AWAY: u16 = 1 << 8;
    /// The row must be written to the view at the takeover (rule V5).
    pub const VIEW_DIRTY: u16 = 1 << 9;
    /// The row is in its fleet's counts.
    pub const COUNTED: u16 = 1 << 10;

    pub const STATUS_SHIFT: u16 = 11;
    pub const STATUS_MASK: u16 = 0b111 << STATUS_SHIFT;
    pub const CONNECTIVITY_SHIFT: u16 = 14;
    pub const CONNECTIVITY_MASK: u16 = 0b11 << CONNECTIVITY_SHIFT;
    /// The status bits of a row without a status.
    pub const NO_STATUS: u16 = STATUS_MASK;
}

/// The part of a row that a heartbeat needs, in 48 bytes.
#[derive(Clone, Copy, Debug)]
pub(in crate::shard) struct Hot {
    pub id: [u8; 16],
    /// The last heartbeat.
    pub heartbeat: Instant48,
    /// The later of `since` and `connectivity_since`, as last emitted (rule J8):
    /// the lower limit of rule T5. The earlier one, if it differs, is in the cold
    /// facts.
    pub changed_at: Instant48,
    /// The time at which the row is filed in the wheel. Entries found elsewhere
    /// are stale.
    pub filed: Instant48,
    /// The interval by which the last heartbeat is judged (rule J3).
    pub interval: IntervalCode,
    /// Counts the device's changes.
    pub version: u32,
    /// The number of its cold facts. Only the table changes it.
    pub cold: u32,
    pub flags: u16,
}

impl Hot {
    pub const EMPTY: Hot = Hot {
        id: [0; 16],
        heartbeat: Instant48::NONE,
        changed_at: Instant48::NONE,
        filed: Instant48::NONE,
        interval: IntervalCode::DEFAULT,
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

    /// The last emitted status; absent before the first change and after a
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

    /// When the last heartbeat times out, and when it expires. Never, if the
    /// device went down with it.
    pub fn deadlines(&self, rules: &Rules) -> Option<(Timestamp, Timestamp)> {
        let heartbeat = self.heartbeat.get().filter(|_| !self.has(flag::GOING_AWAY))?;
        Some(rules.deadlines(heartbeat, self.interval.get()))
    }

    /// The lower limit of rule T5: the row is not judged back in time.
    pub fn floor(&self) -> Timestamp {
        self.changed_at.or_min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hot_row_takes_48_bytes() {
        assert_eq!(std::mem::size_of::<Hot>(), 48);
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
    fn row_returns_the_emitted_values_that_were_set() {
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
}
