//! What waits to be written, of one partition: the latest state of each device
//! and fleet, so that its size is bounded by their number however long the
//! server is away.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::shard::{DeviceId, ViewBody, ViewWrite};

/// What a write is about; a later write about the same replaces it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    Device(DeviceId),
    Fleet(Arc<str>),
}

impl Subject {
    fn of(body: &ViewBody) -> Subject {
        match body {
            ViewBody::Device(view) => Subject::Device(view.device.clone()),
            ViewBody::DeviceDeleted { device, .. } => Subject::Device(device.clone()),
            ViewBody::FleetCounts { fleet, .. } => Subject::Fleet(fleet.clone()),
        }
    }
}

/// A write that waits, standing for itself and the ones it replaced.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    /// The sequence of the latest, which goes into the token.
    pub sequence: u64,
    /// What the latest says. A hint is due if one was due for any.
    pub body: ViewBody,
    /// Fleets whose member sets the device must leave, besides those that
    /// `body` names.
    pub leave: Vec<Arc<str>>,
}

impl Waiting {
    /// Makes this stand for `older` as well.
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

/// Writes that wait, each in the place of the earliest that it stands for: so
/// everything before the first in line has been written.
#[derive(Debug, Default)]
pub struct Backlog {
    line: BTreeMap<u64, Waiting>,
    places: Places,
}

/// How many tables [`Places`] is spread over.
const TABLES: usize = 256;

/// Where in the line each subject is. Many small tables rather than one: each
/// grows by itself, so that no single write pays for moving a million entries
/// while the loop waits for it.
#[derive(Debug, Default)]
struct Places {
    hasher: foldhash::fast::RandomState,
    tables: Vec<HashMap<Subject, u64, foldhash::fast::RandomState>>,
}

impl Places {
    /// The table of a subject, by bits of the hash that a table itself looks at
    /// last.
    fn at(&self, subject: &Subject) -> usize {
        (self.hasher.hash_one(subject) >> 40) as usize % TABLES
    }

    fn get(&self, subject: &Subject) -> Option<u64> {
        self.tables.get(self.at(subject))?.get(subject).copied()
    }

    fn table(
        &mut self,
        subject: &Subject,
    ) -> &mut HashMap<Subject, u64, foldhash::fast::RandomState> {
        if self.tables.is_empty() {
            let hasher = &self.hasher;
            self.tables.resize_with(TABLES, || HashMap::with_hasher(hasher.clone()));
        }
        let at = self.at(subject);
        &mut self.tables[at]
    }

    fn remove(&mut self, subject: &Subject) {
        self.table(subject).remove(subject);
    }
}

impl Backlog {
    /// Adds a write, whose sequence is larger than any before.
    pub fn push(&mut self, write: ViewWrite) {
        let ViewWrite { sequence, body } = write;
        let mut waiting = Waiting { sequence, body, leave: Vec::new() };
        let subject = Subject::of(&waiting.body);
        let place = *self.places.table(&subject).entry(subject).or_insert(sequence);
        if let Some(older) = self.line.remove(&place) {
            waiting.replace(older);
        }
        self.line.insert(place, waiting);
    }

    /// Takes the first in line, and its place.
    pub fn pop(&mut self) -> Option<(u64, Waiting)> {
        let (place, waiting) = self.line.pop_first()?;
        self.places.remove(&Subject::of(&waiting.body));
        Some((place, waiting))
    }

    /// Puts back what was taken. The latest of a subject holds, in the earliest
    /// place of those it stands for.
    pub fn put_back(&mut self, place: u64, waiting: Waiting) {
        let subject = Subject::of(&waiting.body);
        let (mut first, mut latest) = (place, waiting);
        if let Some(other_place) = self.places.get(&subject)
            && let Some(mut other) = self.line.remove(&other_place)
        {
            first = first.min(other_place);
            if other.sequence > latest.sequence {
                std::mem::swap(&mut other, &mut latest);
            }
            latest.replace(other);
        }
        self.places.table(&subject).insert(subject, first);
        self.line.insert(first, latest);
    }

    /// Whether a write about the same waits.
    #[must_use]
    pub fn has_of(&self, body: &ViewBody) -> bool {
        self.places.get(&Subject::of(body)).is_some()
    }

    /// The place of the first in line.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        self.line.first_key_value().map(|(place, _)| *place)
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.line.len()
    }

    /// Whether none waits.
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
    fn the_latest_of_a_device_keeps_the_place_of_its_first() {
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
    fn what_is_put_back_gives_way_to_what_came_meanwhile_but_keeps_its_place() {
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
    fn the_order_of_putting_back_does_not_matter() {
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
    fn fleets_passed_through_while_waiting_are_left_too() {
        let mut backlog = Backlog::default();
        for (sequence, fleet) in [(1, "one"), (2, "two"), (3, "three"), (4, "two")] {
            backlog.push(device(sequence, "a", fleet, false));
        }
        let (_, waiting) = backlog.pop().unwrap();
        assert!(waiting.leave.contains(&"one".into()) && waiting.leave.contains(&"three".into()));
    }
}
