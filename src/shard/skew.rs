//! Distances between event times and their records' timestamps. They show senders
//! with wrong clocks, which are reported. They decide nothing: rule J1 defines
//! the event time. `compare.rs` decides which events are doubtful.

use std::fmt;
use std::sync::Arc;

use super::event::{DeviceId, Event, EventBody, Input, ScopeEvent, Timestamp};

/// An event that is further than this from its record is doubtful, in
/// milliseconds.
pub const FAR_MS: i64 = 60_000;

/// A sender whose events are older than this on arrival does harm, in
/// milliseconds. A poll interval of ten minutes counts for fifteen and a grace,
/// so the device would be Offline before its next heartbeat.
pub const SLOW_MS: i64 = 300_000;

/// The upper bounds of the age buckets, in milliseconds. Synchronized clocks are
/// within a second. Two seconds are the allowed lateness, ten the limit of rule
/// T5. A minute is [`FAR_MS`], five are [`SLOW_MS`]. A quarter of an hour is the
/// usual poll interval. A week is Kafka's usual retention. An age of more than a
/// year means a clock that starts in 1970.
pub const AGE_BOUNDS_MS: [i64; 18] = [
    -86_400_000,
    -3_600_000,
    -900_000,
    -SLOW_MS,
    -FAR_MS,
    -10_000,
    -1_000,
    0,
    1_000,
    2_000,
    10_000,
    FAR_MS,
    SLOW_MS,
    900_000,
    3_600_000,
    86_400_000,
    604_800_000,
    31_536_000_000,
];

/// Numbers of events by age: up to each bound of [`AGE_BOUNDS_MS`] and above the
/// one before, and last those beyond all bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ages(pub [u64; AGE_BOUNDS_MS.len() + 1]);

impl Ages {
    /// Counts one event.
    pub fn count(&mut self, age_ms: i64) {
        self.0[AGE_BOUNDS_MS.partition_point(|bound_ms| *bound_ms < age_ms)] += 1;
    }

    /// Adds other counts.
    pub fn add(&mut self, others: &Ages) {
        for (sum, count) in self.0.iter_mut().zip(others.0) {
            *sum += count;
        }
    }

    /// The number of events.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The number of events above this bound.
    #[must_use]
    pub fn above(&self, bound_ms: i64) -> u64 {
        self.0.iter().skip(AGE_BOUNDS_MS.partition_point(|bound| *bound <= bound_ms)).sum()
    }
}

/// Why the time of an event is doubtful.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doubt {
    /// A lease was over on arrival.
    LeaseOver,
    /// A heartbeat had expired on arrival.
    HeartbeatOver,
    /// It is in the future: the sender's clock is fast.
    Ahead,
    /// It is late: the sender's clock is slow, or the sender has delayed the
    /// event.
    Behind,
}

impl Doubt {
    /// All of them; `ALL[i].index() == i`.
    pub const ALL: [Doubt; 4] =
        [Doubt::LeaseOver, Doubt::HeartbeatOver, Doubt::Ahead, Doubt::Behind];

    /// Its place in arrays that hold one value of each.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// The subject of an event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A device.
    Device(DeviceId),
    /// A VPN instance, by name.
    Instance(Arc<str>),
    /// A fleet, by name.
    Fleet(Arc<str>),
    /// An organization, by name.
    Organization(Arc<str>),
}

impl Subject {
    /// The subject of this event.
    #[must_use]
    pub fn of(body: &EventBody) -> Subject {
        match body {
            EventBody::Heartbeat { device, .. } | EventBody::Device { device, .. } => {
                Subject::Device(device.clone())
            }
            EventBody::Scope(
                ScopeEvent::InstanceAlive { instance, .. } | ScopeEvent::InstanceLost { instance },
            ) => Subject::Instance(instance.clone()),
            EventBody::Scope(
                ScopeEvent::FleetSettingsChanged { fleet, .. }
                | ScopeEvent::FleetFrozen { fleet, .. }
                | ScopeEvent::FleetUnfrozen { fleet, .. },
            ) => Subject::Fleet(fleet.clone()),
            EventBody::Scope(
                ScopeEvent::OrganizationFrozen { organization, .. }
                | ScopeEvent::OrganizationUnfrozen { organization, .. },
            ) => Subject::Organization(organization.clone()),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Device(device) => write!(f, "device {device}"),
            Subject::Instance(name) => write!(f, "VPN instance {name}"),
            Subject::Fleet(name) => write!(f, "fleet {name}"),
            Subject::Organization(name) => write!(f, "organization {name}"),
        }
    }
}

/// A doubtful event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Its subject.
    pub subject: Subject,
    /// Its record's timestamp less its own time, in milliseconds.
    pub age_ms: i64,
}

/// Observations of the senders' clocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skew {
    /// Ages of the events with an `occurred_at`, by input.
    pub ages: [Ages; Input::ALL.len()],
    /// Leases that were over on arrival.
    pub leases_over: u32,
    /// Heartbeats that had expired on arrival.
    pub heartbeats_over: u32,
    /// The first event of each kind to be reported, in the order of
    /// [`Doubt::ALL`].
    pub examples: [Option<Example>; Doubt::ALL.len()],
}

impl Skew {
    /// Adds a doubtful event.
    #[cold]
    pub(super) fn note(&mut self, doubt: Doubt, input: Input, age_ms: i64, body: &EventBody) {
        let tells = match doubt {
            Doubt::LeaseOver => {
                self.leases_over += 1;
                age_ms > FAR_MS
            }
            Doubt::HeartbeatOver => {
                self.heartbeats_over += 1;
                age_ms > FAR_MS
            }
            Doubt::Ahead => true,
            // Lifecycle events may be sent again much later, with their original
            // time.
            Doubt::Behind => age_ms > SLOW_MS && input != Input::Lifecycle,
        };
        if tells {
            let example = || Example { subject: Subject::of(body), age_ms };
            self.examples[doubt.index()].get_or_insert_with(example);
        }
    }
}

impl Event {
    /// The event's age when its record was written, in milliseconds, if it has an
    /// `occurred_at`. Negative: the event is later than its record.
    #[must_use]
    pub fn age_ms(&self, stamp: Timestamp) -> Option<i64> {
        Some(stamp.0.saturating_sub(self.occurred_at?.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_counted_up_to_their_bounds() {
        let mut ages = Ages::default();
        for bound_ms in AGE_BOUNDS_MS {
            ages.count(bound_ms);
            ages.count(bound_ms + 1);
        }
        let mut expected = [2; AGE_BOUNDS_MS.len() + 1];
        expected[0] = 1;
        expected[AGE_BOUNDS_MS.len()] = 1;
        assert_eq!(ages.0, expected);
        assert_eq!(ages.total(), 36);
        // An event at the bound itself is not above it.
        assert_eq!(ages.above(31_536_000_000), 1);
        assert_eq!(ages.above(SLOW_MS), 1 + 5 * 2);
        assert_eq!(ages.above(-86_400_000), 35);
        for extreme in [i64::MIN, i64::MAX] {
            ages.count(extreme);
        }
        assert_eq!((ages.0[0], ages.0[AGE_BOUNDS_MS.len()]), (2, 2));
        let mut sum = ages;
        sum.add(&ages);
        assert_eq!(sum.total(), 2 * ages.total());
    }
}
