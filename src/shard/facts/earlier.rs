//! Registers that keep their earlier values: the poll intervals that devices were
//! told, and when (rule J3).

use super::register::Register;
use crate::shard::event::Timestamp;
use crate::shard::snapshot::FleetFacts;

/// The number of earlier values kept for a device, of settings and of fleets.
pub(in crate::shard) const EARLIER_OF_DEVICE_MAX: usize = 16;

/// The number of earlier values kept for a fleet. Its record must fit, also if
/// the settings are sent again every minute.
pub(in crate::shard) const EARLIER_OF_FLEET_MAX: usize = 256;

/// Joins an event to a register that keeps earlier values. Of the same instant
/// the later in the log wins (rule J2). Returns whether anything is new.
pub(in crate::shard) fn join<T: PartialEq, E: PartialEq>(
    register: &mut Option<Register<T>>,
    earlier: &mut Vec<Register<E>>,
    at: Timestamp,
    value: T,
    kept: impl Fn(&T) -> E,
) -> bool {
    match register {
        Some(held) if at == held.at => {
            let new = held.value != value;
            held.value = value;
            new
        }
        Some(held) if at < held.at => {
            let entry = Register { at, value: kept(&value) };
            match earlier.binary_search_by_key(&at, |held| held.at) {
                Ok(place) if earlier[place] == entry => return false,
                Ok(place) => earlier[place] = entry,
                Err(place) => earlier.insert(place, entry),
            }
            true
        }
        held => {
            let before = held.replace(Register { at, value });
            earlier.extend(before.map(|held| Register { at: held.at, value: kept(&held.value) }));
            true
        }
    }
}

/// Forgets values that applied only before `from`, and the oldest if there are
/// more than `most`.
pub(in crate::shard) fn forget<T, E>(
    register: Option<&Register<T>>,
    earlier: &mut Vec<Register<E>>,
    from: Timestamp,
    most: usize,
) {
    let before = match register {
        // It applies from then on itself.
        Some(held) if held.at <= from => earlier.len(),
        _ => earlier.partition_point(|held| held.at <= from).saturating_sub(1),
    };
    let too_many = earlier.len().saturating_sub(most);
    earlier.drain(..before.max(too_many));
}

/// The value at a moment, from the visible facts.
pub(in crate::shard) fn held_at<T: Copy>(
    earlier: &[Register<T>],
    last: Option<Register<T>>,
    moment: Timestamp,
    sees: impl Fn(Timestamp) -> bool,
) -> Option<T> {
    let all = earlier.iter().copied().chain(last);
    all.rev().find(|held| held.at <= moment && sees(held.at)).map(|held| held.value)
}

/// The interval that was set for a fleet at a moment, from the visible facts, in
/// seconds.
pub(in crate::shard) fn interval_at(
    fleet: &FleetFacts,
    moment: Timestamp,
    sees: impl Fn(Timestamp) -> bool,
) -> Option<u32> {
    let last = fleet.settings.map(|held| held.map(|settings| settings.poll_interval_s));
    held_at(&fleet.earlier_settings, last, moment, sees).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(at: i64, value: u32) -> Register<u32> {
        Register { at: Timestamp(at), value }
    }

    fn told(events: &[(i64, u32)]) -> (Option<Register<u32>>, Vec<Register<u32>>) {
        let (mut last, mut earlier) = (None, Vec::new());
        for (at, value) in events {
            join(&mut last, &mut earlier, Timestamp(*at), *value, |value| *value);
        }
        (last, earlier)
    }

    #[test]
    fn earlier_values_are_kept_in_any_order_of_arrival() {
        let kept = (Some(register(30, 3)), vec![register(10, 1), register(20, 2)]);
        let events = [(10, 1), (20, 2), (30, 3)];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut events = order.map(|place| events[place]).to_vec();
            assert_eq!(told(&events), kept);
            events.extend(events.clone());
            assert_eq!(told(&events), kept, "and once more");
        }
        // Of the same instant the later in the log wins.
        assert_eq!(told(&[(10, 1), (30, 3), (20, 7), (20, 2), (30, 9), (30, 3)]), kept);
    }

    #[test]
    fn values_that_applied_only_before_the_retention_are_forgotten() {
        let all = [register(10, 1), register(20, 2), register(30, 3)];
        let last = register(40, 4);
        let left = |from, most| {
            let mut earlier = all.to_vec();
            forget(Some(&last), &mut earlier, Timestamp(from), most);
            earlier
        };
        assert_eq!(left(9, 16), all);
        assert_eq!(left(19, 16), all, "the first still held then");
        assert_eq!(left(20, 16), all[1..]);
        assert_eq!(left(39, 16), all[2..]);
        assert_eq!(left(40, 16), []);
        assert_eq!(left(9, 2), all[1..], "the latest");
    }
}
