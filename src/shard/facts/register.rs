//! The register: the form of nearly every fact (rule J2).
//!
//! A register remembers the event time that set it, and the later event time
//! wins. So a row does not depend on the order of arrival, or on duplicates.
//! [`takes_over`] and [`join_flag`] decide between two events of the same
//! instant, for all registers. [`outlives`] decides which facts a deletion
//! leaves.

use crate::shard::event::{FrozenReason, Timestamp};

/// A value and the event time that set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Register<T> {
    /// The event time.
    pub at: Timestamp,
    /// The value.
    pub value: T,
}

impl<T> Register<T> {
    /// The same time with another value.
    pub(in crate::shard) fn map<U>(self, map: impl FnOnce(T) -> U) -> Register<U> {
        Register { at: self.at, value: map(self.value) }
    }

    pub(in crate::shard) fn as_ref(&self) -> Register<&T> {
        Register { at: self.at, value: &self.value }
    }
}

/// A register of two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flag {
    /// When it was set.
    pub at: Timestamp,
    /// The value.
    pub value: bool,
    /// The other value was seen at that time too, so neither wins again.
    pub both_seen: bool,
    /// The last time of the other value before that (rule J9).
    pub other: Option<Timestamp>,
}

impl Flag {
    /// A flag with only one known value.
    #[must_use]
    pub fn new(at: Timestamp, value: bool) -> Flag {
        Flag { at, value, both_seen: false, other: None }
    }

    /// The last known time of a value.
    #[must_use]
    pub fn last(&self, value: bool) -> Option<Timestamp> {
        if value == self.value { Some(self.at) } else { self.other.max(self.tied()) }
    }

    fn tied(&self) -> Option<Timestamp> {
        self.both_seen.then_some(self.at)
    }
}

/// The tie in the millisecond of an end whose beginning is a register of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tie {
    /// Nothing began then.
    #[default]
    None,
    /// Something began then too, and overrides the end.
    Began,
    /// Something began then too, and the end overrides it.
    Ended,
}

/// One register a reason, in the order of [`FrozenReason::ALL`].
pub type FrozenRegisters = [Option<Flag>; FrozenReason::ALL.len()];

/// A fact that remembers the event time that set it: a register, or the time
/// alone if there is no value.
pub(in crate::shard) trait Dated {
    fn at(&self) -> Timestamp;

    /// Forgets values from before a deletion.
    fn forget_until(&mut self, _deleted: Timestamp) {}
}

impl Dated for Timestamp {
    fn at(&self) -> Timestamp {
        *self
    }
}

impl<T> Dated for Register<T> {
    fn at(&self) -> Timestamp {
        self.at
    }
}

impl Dated for Flag {
    fn at(&self) -> Timestamp {
        self.at
    }

    fn forget_until(&mut self, deleted: Timestamp) {
        self.other.take_if(|other| !outlives(*other, deleted));
    }
}

/// Whether an event replaces the present value, both as (time, value). The later
/// one wins; of the same instant the later in the log, unless the values are
/// equal.
pub(in crate::shard) fn takes_over<T: PartialEq>(
    event: (Timestamp, T),
    held: Option<(Timestamp, T)>,
) -> bool {
    held.is_none_or(|held| held.0 < event.0 || held.0 == event.0 && held.1 != event.1)
}

/// Sets a register. Returns whether the event won.
pub(in crate::shard) fn join<T: PartialEq>(
    register: &mut Option<Register<T>>,
    at: Timestamp,
    value: T,
) -> bool {
    let held = register.as_ref().map(|held| (held.at, &held.value));
    let later = takes_over((at, &value), held);
    if later {
        *register = Some(Register { at, value });
    }
    later
}

/// Sets a register of two values. Of one instant, a value that was not yet seen
/// wins. Returns whether anything is new.
pub(in crate::shard) fn join_flag(register: &mut Option<Flag>, at: Timestamp, value: bool) -> bool {
    let Some(held) = register else {
        *register = Some(Flag::new(at, value));
        return true;
    };
    if at < held.at {
        let news = value != held.value && held.other < Some(at);
        if news {
            held.other = Some(at);
        }
        return news;
    }
    if at > held.at {
        *held = Flag { at, value, both_seen: false, other: held.last(!value) };
        return true;
    }
    if value == held.value || held.both_seen {
        return false;
    }
    // The beginning of the earlier value is not known.
    *held = Flag { at, value, both_seen: true, other: None };
    true
}

/// Sets a register that only remembers the time.
pub(in crate::shard) fn join_time(register: &mut Option<Timestamp>, at: Timestamp) -> bool {
    let later = takes_over((at, ()), register.map(|held| (held, ())));
    if later {
        *register = Some(at);
    }
    later
}

/// Sets one reason's register, or all of them.
pub(in crate::shard) fn join_frozen(
    registers: &mut FrozenRegisters,
    at: Timestamp,
    reason: Option<FrozenReason>,
    frozen: bool,
) -> bool {
    match reason {
        Some(reason) => join_flag(&mut registers[reason.index()], at, frozen),
        None => {
            registers.iter_mut().fold(false, |any, register| join_flag(register, at, frozen) | any)
        }
    }
}

/// Whether any reason is set.
pub(in crate::shard) fn is_frozen(registers: &FrozenRegisters) -> bool {
    registers.iter().flatten().any(|register| register.value)
}

/// Whether a fact exists although its device was deleted: facts at or before the
/// deletion do not (rule J5).
pub(in crate::shard) fn outlives(fact: Timestamp, deleted: Timestamp) -> bool {
    fact > deleted
}

/// Clears a register that a deletion removes (rule J5).
pub(in crate::shard) fn delete<R: Dated>(register: &mut Option<R>, deleted: Timestamp) {
    register.take_if(|held| !outlives(held.at(), deleted));
    if let Some(held) = register {
        held.forget_until(deleted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(events: &[(i64, bool)]) -> Flag {
        let mut flag = None;
        for (at, value) in events {
            join_flag(&mut flag, Timestamp(*at), *value);
        }
        flag.unwrap()
    }

    #[test]
    fn in_a_tie_an_unseen_value_wins_and_a_seen_one_is_a_duplicate() {
        assert!(!told(&[(5, true), (5, false)]).value);
        assert!(told(&[(5, false), (5, true)]).value);
        let thrice = [(5, true), (5, false), (5, true)];
        assert!(!told(&thrice).value);
        let mut flag = Some(told(&thrice));
        for (at, value) in thrice {
            assert!(!join_flag(&mut flag, Timestamp(at), value));
        }
    }

    #[test]
    fn in_a_tie_the_later_name_wins_unless_it_is_the_present_one() {
        let mut name = None;
        let told = ["a", "b", "b", "a"].map(|value| join(&mut name, Timestamp(5), value));
        assert_eq!(told, [true, true, false, true]);
        assert!(!join(&mut name, Timestamp(4), "b"));
    }

    #[test]
    fn a_flag_knows_the_last_time_of_its_other_value_in_every_order() {
        let events = [(3, true), (5, false), (7, true), (9, true)];
        for first in 0..events.len() {
            let mut order = events.to_vec();
            order.rotate_left(first);
            assert_eq!(told(&order).other, Some(Timestamp(5)), "{order:?}");
            order.reverse();
            assert_eq!(told(&order).other, Some(Timestamp(5)), "{order:?}");
        }
        // In one millisecond with a value that is no longer the present one.
        let tied = told(&[(5, true), (5, false), (9, false)]);
        assert_eq!((tied.last(true), tied.last(false)), (Some(Timestamp(5)), Some(Timestamp(9))));
    }

    #[test]
    fn a_deletion_leaves_nothing_of_before_it() {
        let mut flag = Some(told(&[(3, true), (9, false)]));
        delete(&mut flag, Timestamp(3));
        assert_eq!(flag, Some(Flag::new(Timestamp(9), false)));
        delete(&mut flag, Timestamp(9));
        assert_eq!(flag, None);
    }
}
