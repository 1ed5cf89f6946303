//! A shard's facts as values that can be stored and read back: what the
//! changelog holds.

use std::sync::Arc;

use super::event::{DeviceId, Settings, Timestamp};
pub use super::facts::register::{FrozenRegisters, Register};
use super::status::{Connectivity, Status};

/// One changelog entry: a key and what is known under it now.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// A device's row; `None` once it is forgotten.
    Device(DeviceId, Option<Box<RowSnapshot>>),
    /// A closed session that is remembered (rule J4); `None` once it is forgotten.
    ClosedSession(DeviceId, SessionFingerprint, Option<ClosedSession>),
    /// A VPN instance.
    Instance(Arc<str>, InstanceFacts),
    /// A fleet.
    Fleet(Arc<str>, FleetFacts),
    /// An organization.
    Organization(Arc<str>, OrganizationFacts),
    /// The owner's epoch (rule C7).
    Epoch(u64),
}

/// A stable 64-bit hash of (instance, session): the same in every version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionFingerprint(pub u64);

/// A closed session that is remembered, so that a late open stays closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedSession {
    /// When it was closed: the greatest of its closes.
    pub closed_at: Timestamp,
    /// The clock of the shard when this was written (rule R5).
    pub clock: Timestamp,
}

/// A session that was opened and not closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenSession {
    /// The VPN instance that holds it.
    pub instance: Arc<str>,
    /// Which session.
    pub fingerprint: SessionFingerprint,
    /// When it was opened: the greatest of its opens.
    pub opened_at: Timestamp,
}

/// What is in progress, and how far (rule J2: three registers).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgressFacts {
    /// The last start, with the release where there is one.
    pub started: Option<Register<Arc<str>>>,
    /// The last finish.
    pub finished: Option<Timestamp>,
    /// The last percentage.
    pub percent: Option<Register<u8>>,
}

/// What a row last emitted (rule J8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Emitted {
    /// Counts the device's changes. 0: none yet.
    pub version: u64,
    /// Absent before the first change and after a deletion.
    pub shown: Option<(Status, Connectivity)>,
    /// What made the status true.
    pub since: Timestamp,
    /// What made the connectivity true.
    pub connectivity_since: Timestamp,
}

/// Fleet and organization; absent: none.
pub type Membership = (Option<Arc<str>>, Option<Arc<str>>);

/// All facts of one device, and what was last emitted of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowSnapshot {
    /// The last heartbeat: its time and the interval it carried.
    pub heartbeat: Option<Register<Option<u32>>>,
    /// The greatest time of any opening, whatever became of the session.
    pub last_vpn_opening: Option<Timestamp>,
    /// Sessions opened and not closed, by (instance, fingerprint).
    pub sessions: Vec<OpenSession>,
    /// Whether it is frozen.
    pub frozen: FrozenRegisters,
    /// The last deactivation.
    pub deactivated: Option<Timestamp>,
    /// The last activation.
    pub activated: Option<Timestamp>,
    /// Set or cleared by `registered`.
    pub preregistered: Option<Register<bool>>,
    /// The last provisioning.
    pub provisioned: Option<Timestamp>,
    /// The last registration.
    pub registered: Option<Timestamp>,
    /// (fleet, organization), by `registered` and `moved`.
    pub membership: Option<Register<Membership>>,
    /// The device's settings.
    pub settings: Option<Register<Settings>>,
    /// OS configuration.
    pub configuration: ProgressFacts,
    /// Application update.
    pub update: ProgressFacts,
    /// The last deletion.
    pub deleted: Option<Timestamp>,
    /// The deletion is remembered until this plus the tombstone retention
    /// (rule J5).
    pub deletion_touched: Option<Timestamp>,
    /// What was last emitted.
    pub emitted: Option<Emitted>,
    /// The clock of the shard when this was written (rule R5).
    pub clock: Timestamp,
}

/// What is known of a VPN instance (rule J4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceFacts {
    /// The greatest time of `instance_lost`.
    pub lost: Option<Timestamp>,
    /// The greatest start announced that was not later than its record.
    pub started: Option<Timestamp>,
    /// The latest `instance_alive` of that start, and its lease in milliseconds.
    pub alive: Option<Register<u32>>,
    /// The latest `instance_alive` that named no start: it belongs to the
    /// current one, whichever that is.
    pub alive_without_start: Option<Register<u32>>,
    /// The clock of the shard when this was written (rule R5).
    pub clock: Timestamp,
}

/// What is known of a fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FleetFacts {
    /// Its settings.
    pub settings: Option<Register<Settings>>,
    /// Whether it is frozen.
    pub frozen: FrozenRegisters,
    /// The clock of the shard when this was written (rule R5).
    pub clock: Timestamp,
}

/// What is known of an organization.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrganizationFacts {
    /// Whether it is frozen.
    pub frozen: FrozenRegisters,
    /// The clock of the shard when this was written (rule R5).
    pub clock: Timestamp,
}
