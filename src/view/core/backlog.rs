//! The writes of one partition that wait for the server. Only the latest state of
//! each device and fleet is kept, so the size is bounded by their number however
//! long Redis is unavailable.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::shard::{DeviceId, ViewBody, ViewWrite};

/// The device or fleet of a write. A later write to the same target replaces it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Target {
    Device(DeviceId),
    Fleet(Arc<str>),
}

impl Target {
    fn of(body: &ViewBody) -> Target {
        match body {
            ViewBody::Device(view) => Target::Device(view.device.clone()),
            ViewBody::DeviceDeleted { device, .. } => Target::Device(device.clone()),
            ViewBody::FleetCounts { fleet, .. } => Target::Fleet(fleet.clone()),
        }
    }
}

/// A waiting write. It includes the effects of the writes that it replaced.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    /// The sequence of the latest write, for the token.
    pub sequence: u64,
    /// The state of the latest write. It is marked as changed if any of the
    /// replaced writes was, so that the hint is published.
    pub body: ViewBody,
    /// Fleets whose member sets the device must leave, besides those in `body`.
    pub leave: Vec<Arc<str>>,
}

impl Waiting {
    /// Takes over the effects of `older`.
    fn replace(&mut self, older: Waiting) {
        let Waiting { body, leave, .. } = older;
        let mut left = leave;
        match body {
            ViewBody::Device(older) => {
                left.extend(older.previous_fleet);
                left.extend(older.fleet);
                if let ViewBody::Device(view) = &mut self.body {
                    view.changed |= older.changed;
                }
            }
            ViewBody::DeviceDeleted { fleet, .. } => left.extend(fleet),
            ViewBody::FleetCounts { .. } => {}
        }
        for fleet in left {
            let stays =
                matches!(&self.body, ViewBody::Device(view) if view.fleet.as_ref() == Some(&fleet));
            if !stays && !self.leave.contains(&fleet) {
                self.leave.push(fleet);
            }
        }
    }
}

/// Waiting writes in order. A write keeps the place of the earliest write that it
/// replaced, so everything before the first place has been written.
#[derive(Debug, Default)]
pub struct Backlog {
    line: BTreeMap<u64, Waiting>,
    places: Places,
}

/// The number of tables in [`Places`].
const TABLES: usize = 256;

/// The place of each target in the line. It is split into many small tables,
/// because a table that grows moves all its entries while the loop waits.
#[derive(Debug, Default)]
struct Places {
    hasher: foldhash::fast::RandomState,
    tables: Vec<HashMap<Target, u64, foldhash::fast::RandomState>>,
}

impl Places {
    /// The index of a target's table. It uses bits of the hash that the tables
    /// themselves hardly use.
    fn at(&self, target: &Target) -> usize {
        (self.hasher.hash_one(target) >> 40) as usize % TABLES
    }

    fn get(&self, target: &Target) -> Option<u64> {
        self.tables.get(self.at(target))?.get(target).copied()
    }

    fn table(&mut self, target: &Target) -> &mut HashMap<Target, u64, foldhash::fast::RandomState> {
        if self.tables.is_empty() {
            let hasher = &self.hasher;
            self.tables.resize_with(TABLES, || HashMap::with_hasher(hasher.clone()));
        }
        let at = self.at(target);
        &mut self.tables[at]
    }

    fn remove(&mut self, target: &Target) {
        self.table(target).remove(target);
    }
}

impl Backlog {
    /// Adds a write. Its sequence must be larger than all before.
    pub fn push(&mut self, write: ViewWrite) {
        let ViewWrite { sequence, body } = write;
        let mut waiting = Waiting { sequence, body, leave: Vec::new() };
        let target = Target::of(&waiting.body);
        let place = *self.places.table(&target).entry(target).or_insert(sequence);
        if let Some(older) = self.line.remove(&place) {
            waiting.replace(older);
        }
        self.line.insert(place, waiting);
    }

    /// Takes the first write, with its place.
    pub fn pop(&mut self) -> Option<(u64, Waiting)> {
        let (place, waiting) = self.line.pop_first()?;
        self.places.remove(&Target::of(&waiting.body));
        Some((place, waiting))
    }

    /// Puts back a write that was taken. If a later write to the same target came
    /// meanwhile, that one stays, in the earlier of the two places.
    pub fn put_back(&mut self, place: u64, waiting: Waiting) {
        let target = Target::of(&waiting.body);
        let (mut first, mut latest) = (place, waiting);
        if let Some(other_place) = self.places.get(&target)
            && let Some(mut other) = self.line.remove(&other_place)
        {
            first = first.min(other_place);
            if other.sequence > latest.sequence {
                std::mem::swap(&mut other, &mut latest);
            }
            latest.replace(other);
        }
        self.places.table(&target).insert(target, first);
        self.line.insert(first, latest);
    }

    /// Whether a write to the same target waits.
    #[must_use]
    pub fn has_of(&self, body: &ViewBody) -> bool {
        self.places.get(&Target::of(body)).is_some()
    }

    /// The place of the first write.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        self.line.first_key_value().map(|(place, _)| *place)
    }

    /// The number of waiting writes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.line.len()
    }

    /// Whether no write waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.line.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::{Connectivity, DeviceView, HeartbeatState, Status, Timestamp};

    fn device(sequence: u64, id: &str, fleet: &str, changed: bool) -> ViewWrite {
        ViewWrite {
            sequence,
            body: ViewBody::Device(Box::new(DeviceView {
                device: DeviceId::from_key(id.as_bytes()).unwrap(),
                status: Status::Online,
                connectivity: Connectivity::Full,
                since: Timestamp(1),
                connectivity_since: Timestamp(1),
                heartbeat: HeartbeatState::Online,
                last_heartbeat: None,
                vpn_connected: true,
                progress: None,
                release: None,
                update_phase: None,
                update_outcome: None,
                update_since: None,
                membership_since: Timestamp(0),
                fleet: Some(fleet.into()),
                previous_fleet: None,
                version: sequence,
                changed,
            })),
        }
    }

    #[test]
    fn latest_write_of_a_device_keeps_the_place_of_its_first() {
        let mut backlog = Backlog::default();
        backlog.push(device(1, "a", "f", true));
        backlog.push(device(2, "b", "f", false));
        backlog.push(device(3, "a", "f", false));
        assert_eq!(backlog.len(), 2);
        let (place, waiting) = backlog.pop().unwrap();
        assert_eq!((place, waiting.sequence), (1, 3));
        assert!(matches!(waiting.body, ViewBody::Device(view) if view.changed));
        assert_eq!(backlog.first(), Some(2));
    }

    #[test]
    fn put_back_write_yields_to_a_later_one_and_keeps_its_place() {
        let mut backlog = Backlog::default();
        backlog.push(device(1, "a", "first", false));
        let (place, waiting) = backlog.pop().unwrap();
        backlog.push(device(2, "b", "f", false));
        backlog.push(device(3, "a", "second", false));
        backlog.put_back(place, waiting);
        assert_eq!(backlog.len(), 2);
        let (place, waiting) = backlog.pop().unwrap();
        assert_eq!((place, waiting.sequence), (1, 3));
        assert_eq!(waiting.leave, [std::sync::Arc::<str>::from("first")]);
        assert_eq!(backlog.pop().unwrap().0, 2);
        assert!(backlog.is_empty() && backlog.pop().is_none());
    }

    #[test]
    fn order_of_put_back_does_not_matter() {
        for reversed in [false, true] {
            let mut backlog = Backlog::default();
            let mut taken = Vec::new();
            for sequence in 1..=3 {
                backlog.push(device(sequence, "a", "f", sequence == 1));
                taken.push(backlog.pop().unwrap());
            }
            if reversed {
                taken.reverse();
            }
            for (place, waiting) in taken {
                backlog.put_back(place, waiting);
            }
            assert_eq!(backlog.len(), 1);
            let (place, waiting) = backlog.pop().unwrap();
            assert_eq!((place, waiting.sequence), (1, 3));
            assert!(matches!(waiting.body, ViewBody::Device(view) if view.changed));
        }
    }

    #[test]
    fn member_sets_of_intermediate_fleets_are_left_too() {
        let mut backlog = Backlog::default();
        for (sequence, fleet) in [(1, "one"), (2, "two"), (3, "three"), (4, "two")] {
            backlog.push(device(sequence, "a", fleet, false));
        }
        let (_, waiting) = backlog.pop().unwrap();
        assert!(waiting.leave.contains(&"one".into()) && waiting.leave.contains(&"three".into()));
    }
}
