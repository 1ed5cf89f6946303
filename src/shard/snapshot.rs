//! A shard's facts as values that can be stored and read back: the contents of
//! the changelog.

use std::sync::Arc;

use super::event::{DeviceId, Settings, Timestamp, UpdateOutcome};
pub use super::facts::interval::HeartbeatInterval;
pub use super::facts::register::{Flag, FrozenRegisters, Register, Tie};
use super::facts::register::{delete, outlives};
pub use super::facts::session::{Ended, Opening, Session, SessionFingerprint};
pub use super::facts::update::{ReleaseFacts, UpdateFacts};
use super::status::{Cause, Connectivity, Status};

/// One changelog entry: a key and its present value.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// A device's row; `None` once it is forgotten.
    Device(DeviceId, Option<Box<RowSnapshot>>),
    /// A remembered closed session (rule J4); `None` once it is forgotten.
    ClosedSession(DeviceId, SessionFingerprint, Option<ClosedSession>),
    /// A VPN instance; `None` once it is forgotten.
    Instance(Arc<str>, Option<InstanceFacts>),
    /// A fleet.
    Fleet(Arc<str>, FleetFacts),
    /// An organization.
    Organization(Arc<str>, OrganizationFacts),
    /// The owner's epoch (rule C7).
    Epoch(u64),
    /// The hold of the shard (rule J7); `None` once all rows are settled.
    Hold(Option<Box<Hold>>),
}

/// A closed session, remembered so that a late open does not open it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedSession {
    /// Its facts.
    pub session: Session<Arc<str>>,
    /// The clock of the shard when this was written (rule R5).
    pub clock: Timestamp,
}

/// An announcement of a VPN instance (rule J4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its own time.
    pub at: Timestamp,
    /// The time from which the lease runs.
    pub counted_at: Timestamp,
    /// Its length, in milliseconds.
    pub lease_ms: u32,
}

impl Lease {
    /// When it ends.
    #[must_use]
    pub fn end(&self) -> Timestamp {
        self.counted_at.plus_ms(i64::from(self.lease_ms))
    }
}

/// The fleet and organization of a device; the empty name means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Membership<Name> {
    /// Its fleet.
    pub fleet: Name,
    /// Its organization.
    pub organization: Name,
}

/// OS configuration and its progress (rule J2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConfigurationFacts {
    /// Whether it was started, or finished.
    pub started: Option<Flag>,
    /// The outcome of the last finish, if it had one.
    pub outcome: Option<UpdateOutcome>,
    /// The last percentage.
    pub percent: Option<Register<u8>>,
}

impl ConfigurationFacts {
    /// The last finish.
    #[must_use]
    pub fn finished(&self) -> Option<Timestamp> {
        self.started?.last(false)
    }
}

/// The last emitted values of a row (rule J8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Emitted {
    /// Counts the device's changes. 0: none yet.
    pub version: u64,
    /// Absent before the first change and after a deletion.
    pub shown: Option<(Status, Connectivity)>,
    /// The time and cause of the status.
    pub since: Timestamp,
    /// The time and cause of the connectivity.
    pub connectivity_since: Timestamp,
    /// Since when fleet and organization are as they are.
    pub membership_since: Timestamp,
}

/// All facts of a device but its heartbeat. Memory holds names as numbers, all
/// others as text.
///
/// To add a fact, add it here, to its message (`changelog.proto`), to the tables
/// of `wire/changelog.rs` and `store/packed.rs`, and to `tests/strategies.rs`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceFacts<Name> {
    /// The latest contact by an opening, whatever became of the session: when its
    /// connection began.
    pub last_vpn_opening: Option<Timestamp>,
    /// The latest own time of any opening, if it differs (rule J4).
    pub last_vpn_opening_told: Option<Timestamp>,
    /// Open sessions: in memory ordered by (opening, name), in text by (instance,
    /// name).
    pub sessions: Vec<Session<Name>>,
    /// Whether it is frozen.
    pub frozen: FrozenRegisters,
    /// Activated or deactivated.
    pub active: Option<Flag>,
    /// Set or cleared by `registered`.
    pub preregistered: Option<Flag>,
    /// The last provisioning.
    pub provisioned: Option<Timestamp>,
    /// The last registration.
    pub registered: Option<Timestamp>,
    /// Set by `registered` and `moved`.
    pub membership: Option<Register<Membership<Name>>>,
    /// Its earlier fleets, in the order of their times (rule J3).
    pub earlier_fleets: Vec<Register<Name>>,
    /// The device's settings.
    pub settings: Option<Register<Settings>>,
    /// The poll intervals that were set before, in the order of their times
    /// (rule J3).
    pub earlier_settings: Vec<Register<Option<u32>>>,
    /// OS configuration.
    pub configuration: ConfigurationFacts,
    /// Application update.
    pub update: UpdateFacts,
    /// The last deletion.
    pub deleted: Option<Timestamp>,
    /// Whether it was registered in the same millisecond as the deletion (rule
    /// J5).
    pub deletion_tie: Tie,
    /// The longest poll interval, for the span of the deletion, in seconds.
    pub deletion_interval_s: Option<u32>,
    /// The greatest clock at an event that the deletion suppressed. The deletion
    /// is remembered for its span from then on (rule J5).
    pub deletion_touched: Option<Timestamp>,
}

/// The device.
#[derive(Clone, Copy, Debug)]
pub(super) enum NameOf {
    Instance,
    Fleet,
    Organization,
}

impl<Name> DeviceFacts<Name> {
    /// The same facts under other names.
    pub(super) fn rename<Other>(
        &self,
        mut rename: impl FnMut(NameOf, &Name) -> Other,
    ) -> DeviceFacts<Other> {
        let sessions = self
            .sessions
            .iter()
            .map(|session| session.rename(rename(NameOf::Instance, &session.instance)));
        DeviceFacts {
            last_vpn_opening: self.last_vpn_opening,
            last_vpn_opening_told: self.last_vpn_opening_told,
            sessions: sessions.collect(),
            frozen: self.frozen,
            active: self.active,
            preregistered: self.preregistered,
            provisioned: self.provisioned,
            registered: self.registered,
            membership: self.membership.as_ref().map(|Register { at, value }| Register {
                at: *at,
                value: Membership {
                    fleet: rename(NameOf::Fleet, &value.fleet),
                    organization: rename(NameOf::Organization, &value.organization),
                },
            }),
            earlier_fleets: self
                .earlier_fleets
                .iter()
                .map(|held| held.as_ref().map(|fleet| rename(NameOf::Fleet, fleet)))
                .collect(),
            settings: self.settings,
            earlier_settings: self.earlier_settings.clone(),
            configuration: self.configuration,
            update: self.update.clone(),
            deleted: self.deleted,
            deletion_tie: self.deletion_tie,
            deletion_interval_s: self.deletion_interval_s,
            deletion_touched: self.deletion_touched,
        }
    }

    /// Whether a registration in the same millisecond overrides its deletion
    /// (rule J5).
    pub(super) fn is_registered_anew(&self) -> bool {
        self.deletion_tie == Tie::Began && self.registered == self.deleted
    }

    /// Whether it is deleted, and no later registration brought it back (rule J5).
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.deleted.is_some_and(|deleted| {
            let comes_later =
                |registered| outlives(registered, deleted) || self.is_registered_anew();
            !self.registered.is_some_and(comes_later)
        })
    }

    /// Takes in the opening of a session: its own time, and its time as contact.
    /// Returns whether anything is new.
    pub(super) fn told_of_opening(&mut self, told: Timestamp, contact: Timestamp) -> bool {
        let held = (self.last_vpn_opening, self.last_vpn_opening_told);
        let told = held.1.or(held.0).max(Some(told));
        let contact = held.0.max(Some(contact));
        self.last_vpn_opening = contact;
        self.last_vpn_opening_told = told.filter(|_| told != contact);
        (self.last_vpn_opening, self.last_vpn_opening_told) != held
    }

    /// Clears the facts that a deletion removes (rule J5).
    pub(super) fn delete(&mut self, at: Timestamp) {
        let contact = self.last_vpn_opening;
        let told = self.last_vpn_opening_told.or(self.last_vpn_opening);
        (self.last_vpn_opening, self.last_vpn_opening_told) = (None, None);
        if let (Some(contact), Some(told)) = (contact, told.filter(|told| *told > at)) {
            // An opening after the deletion is contact, however old the
            // connection is.
            self.told_of_opening(told, contact.max(at.plus_ms(1)));
        }
        for register in &mut self.frozen {
            delete(register, at);
        }
        delete(&mut self.active, at);
        delete(&mut self.preregistered, at);
        delete(&mut self.provisioned, at);
        delete(&mut self.registered, at);
        delete(&mut self.membership, at);
        self.earlier_fleets.retain(|held| outlives(held.at, at));
        delete(&mut self.settings, at);
        self.earlier_settings.retain(|held| outlives(held.at, at));
        delete(&mut self.configuration.started, at);
        if self.configuration.finished().is_none() {
            self.configuration.outcome = None;
        }
        delete(&mut self.configuration.percent, at);
        self.update.delete(at);
    }
}

/// All facts of one device, and its last emitted values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowSnapshot {
    /// The last heartbeat: its time and its interval.
    pub heartbeat: Option<Register<HeartbeatInterval>>,
    /// It had `going_away` (rule J11).
    pub going_away: bool,
    /// All other facts.
    pub facts: DeviceFacts<Arc<str>>,
    /// The last emitted values.
    pub emitted: Option<Emitted>,
    /// The clock of the shard when this was written (rule R5).
    pub clock: Timestamp,
}

/// The facts of a VPN instance (rule J4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceFacts {
    /// The greatest time of `instance_lost`.
    pub lost: Option<Timestamp>,
    /// The greatest start announced that was not later than its record.
    pub started: Option<Timestamp>,
    /// The announcement of that start with the latest counted time.
    pub alive: Option<Lease>,
    /// The same of announcements without a start: they belong to the current one.
    pub alive_without_start: Option<Lease>,
    /// Whether the first of these two is later in the log.
    pub alive_is_later: bool,
    /// The end of its lease was fired: its sessions do not count.
    pub lapsed: bool,
    /// The clock of the shard when this was written (rule R5).
    pub clock: Timestamp,
}

/// The facts of a fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FleetFacts {
    /// Its settings.
    pub settings: Option<Register<Settings>>,
    /// The poll intervals that were set before, in the order of their times
    /// (rule J3).
    pub earlier_settings: Vec<Register<Option<u32>>>,
    /// Whether it is frozen.
    pub frozen: FrozenRegisters,
    /// The clock of the shard when this was written (rule R5).
    pub clock: Timestamp,
}

/// The facts of an organization.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrganizationFacts {
    /// Whether it is frozen.
    pub frozen: FrozenRegisters,
    /// The clock of the shard when this was written (rule R5).
    pub clock: Timestamp,
}

/// The hold of the shard while rows are settled (rule J7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The scope whose rows are settled.
    pub scope: HeldScope,
    /// The time of the fact or of the deadline.
    pub at: Timestamp,
    /// Rows are judged at this instant.
    pub judged: Timestamp,
    /// The cause of the changes.
    pub cause: Cause,
    /// The clock of the shard when this was written (rule R5).
    pub clock: Timestamp,
}

/// A scope, and its facts before and after the change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeldScope {
    /// A VPN instance.
    Instance(Arc<str>, [InstanceFacts; 2]),
    /// A fleet.
    Fleet(Arc<str>, [FleetFacts; 2]),
    /// An organization.
    Organization(Arc<str>, [OrganizationFacts; 2]),
}
