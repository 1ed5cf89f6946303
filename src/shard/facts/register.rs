//! The register: what nearly every fact is (rule J2).
//!
//! A register remembers the event time that set it, and the later event time
//! wins. So a row is the same whatever the order of arrival, and however often
//! an event comes. What wins of two events of the same instant is decided in
//! [`takes_over`], for all registers; what a deletion leaves, in [`outlives`].

use crate::shard::event::{FrozenReason, Timestamp};

/// A value and the event time that set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Register<T> {
    /// When.
    pub at: Timestamp,
    /// What.
    pub value: T,
}

impl<T> Register<T> {
    /// The same of another value.
    pub(in crate::shard) fn map<U>(self, map: impl FnOnce(T) -> U) -> Register<U> {
        Register { at: self.at, value: map(self.value) }
    }

    pub(in crate::shard) fn as_ref(&self) -> Register<&T> {
        Register { at: self.at, value: &self.value }
    }
}

/// One register a reason, in the order of [`FrozenReason::ALL`].
pub type FrozenRegisters = [Option<Register<bool>>; FrozenReason::ALL.len()];

/// What remembers the event time that set it: a register, or the time alone
/// where there is no value to remember.
pub(in crate::shard) trait Dated {
    fn at(&self) -> Timestamp;
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

/// Whether an event takes the place of what is held, both given as (time,
/// value): the later one does, and of two of the same instant the greater value.
pub(in crate::shard) fn takes_over<T: Ord>(
    event: (Timestamp, T),
    held: Option<(Timestamp, T)>,
) -> bool {
    held.is_none_or(|held| held < event)
}

/// Sets a register. Says whether the event took over.
pub(in crate::shard) fn join<T: Ord>(
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

/// Sets a register that only remembers when.
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
        Some(reason) => join(&mut registers[reason.index()], at, frozen),
        None => registers.iter_mut().fold(false, |any, register| join(register, at, frozen) | any),
    }
}

/// Whether any reason holds.
pub(in crate::shard) fn is_frozen(registers: &FrozenRegisters) -> bool {
    registers.iter().flatten().any(|register| register.value)
}

/// Whether a fact exists although its device was deleted: facts at or before the
/// deletion do not (rule J5).
pub(in crate::shard) fn outlives(fact: Timestamp, deleted: Timestamp) -> bool {
    fact > deleted
}

/// Clears a register that a deletion does not leave (rule J5).
pub(in crate::shard) fn delete<R: Dated>(register: &mut Option<R>, deleted: Timestamp) {
    register.take_if(|held| !outlives(held.at(), deleted));
}
