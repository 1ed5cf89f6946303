//! How far the times that senders tell are from the times of their records. A sender
//! whose clock is wrong is told of, not believed in silence. Nothing is decided by
//! it: what an event counts as is rule J1. Which events are doubted is in
//! `compare.rs`.

use std::fmt;
use std::sync::Arc;

use super::event::{DeviceId, Event, EventBody, Input, ScopeEvent, Timestamp};

/// What is further from its record than this is doubted, in milliseconds.
pub const FAR_MS: i64 = 60_000;

/// A sender whose events are older than this when they come does harm, in
/// milliseconds: a poll interval of ten minutes counts for fifteen and a grace, so
/// the device would be Offline before its next heartbeat comes.
pub const SLOW_MS: i64 = 300_000;

/// Ages are told apart by these upper bounds, in milliseconds. Clocks that are kept
/// in step are within a second. Two seconds are the slack of the clock, ten the
/// limit of rule T5. A minute is [`FAR_MS`], five are [`SLOW_MS`]. A quarter of an
/// hour is the usual poll interval. A week is how long Kafka keeps records, and
/// nobody keeps an event back for a year: there is a clock that begins in 1970.
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

/// How many ages of events there were up to each bound of [`AGE_BOUNDS_MS`] and
/// above the one before, and last beyond all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ages(pub [u64; AGE_BOUNDS_MS.len() + 1]);

impl Ages {
    /// Counts one.
    pub fn count(&mut self, age_ms: i64) {
        self.0[AGE_BOUNDS_MS.partition_point(|bound_ms| *bound_ms < age_ms)] += 1;
    }

    /// Adds what others have counted.
    pub fn add(&mut self, others: &Ages) {
        for (sum, count) in self.0.iter_mut().zip(others.0) {
            *sum += count;
        }
    }

    /// How many there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// How many are above this bound.
    #[must_use]
    pub fn above(&self, bound_ms: i64) -> u64 {
        self.0.iter().skip(AGE_BOUNDS_MS.partition_point(|bound| *bound <= bound_ms)).sum()
    }
}

/// Why the time of an event is doubted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doubt {
    /// A lease was over when it came.
    LeaseOver,
    /// A heartbeat had expired when it came.
    HeartbeatOver,
    /// It is of the future: the sender's clock is fast.
    Ahead,
    /// It came late: the sender's clock is slow, or kept the event back.
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

/// Whom an event is about.
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
    /// That of an event.
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

/// An event that is doubted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Whom it is about.
    pub subject: Subject,
    /// Its record's timestamp less its own time, in milliseconds.
    pub age_ms: i64,
}

/// What was seen of the senders' clocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skew {
    /// Ages of the events that tell their time, by input.
    pub ages: [Ages; Input::ALL.len()],
    /// Leases that were over when they came.
    pub leases_over: u32,
    /// Heartbeats that had expired when they came.
    pub heartbeats_over: u32,
    /// The first of each that somebody should hear of, in the order of [`Doubt::ALL`].
    pub examples: [Option<Example>; Doubt::ALL.len()],
}

impl Skew {
    /// Takes in an event that is doubted.
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
            // What is told of a life again is as old as it is.
            Doubt::Behind => age_ms > SLOW_MS && input != Input::Lifecycle,
        };
        if tells {
            let example = || Example { subject: Subject::of(body), age_ms };
            self.examples[doubt.index()].get_or_insert_with(example);
        }
    }
}

impl Event {
    /// How old it was when its record was written, in milliseconds, if it tells its
    /// time. Less than 0: it is of later than that.
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
        // Of the bound itself one is not above it.
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
