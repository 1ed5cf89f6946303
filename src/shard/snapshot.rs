//! A shard's facts as values that can be stored and read back: what the
//! changelog holds.

use std::sync::Arc;

use super::event::{DeviceId, Settings, Timestamp, UpdateOutcome};
pub use super::facts::interval::HeartbeatInterval;
pub use super::facts::register::{Flag, FrozenRegisters, Register, Tie};
use super::facts::register::{delete, outlives};
pub use super::facts::session::{Ended, Opening, Session, SessionFingerprint};
pub use super::facts::update::{ReleaseFacts, UpdateFacts};
use super::status::{Cause, Connectivity, Status};

/// One changelog entry: a key and what is known under it now.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// A device's row; `None` once it is forgotten.
    Device(DeviceId, Option<Box<RowSnapshot>>),
    /// A closed session that is remembered (rule J4); `None` once it is forgotten.
    ClosedSession(DeviceId, SessionFingerprint, Option<ClosedSession>),
    /// A VPN instance; `None` once it is forgotten.
    Instance(Arc<str>, Option<InstanceFacts>),
    /// A fleet.
    Fleet(Arc<str>, FleetFacts),
    /// An organization.
    Organization(Arc<str>, OrganizationFacts),
    /// The owner's epoch (rule C7).
    Epoch(u64),
    /// What holds the shard (rule J7); `None` once all rows are settled.
    Hold(Option<Box<Hold>>),
}

/// A closed session that is remembered, so that a late open stays closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedSession {
    /// What is known of it.
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
    /// How long it holds, in milliseconds.
    pub lease_ms: u32,
}

impl Lease {
    /// When it ends.
    #[must_use]
    pub fn end(&self) -> Timestamp {
        self.counted_at.plus_ms(i64::from(self.lease_ms))
    }
}

/// Where a device belongs; the empty name is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Membership<Name> {
    /// Its fleet.
    pub fleet: Name,
    /// Its organization.
    pub organization: Name,
}

/// OS configuration, and how far it is (rule J2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConfigurationFacts {
    /// Whether it was started, or finished.
    pub started: Option<Flag>,
    /// What the last finish said of how it ended.
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
    /// Since when fleet and organization are as they are.
    pub membership_since: Timestamp,
}

/// All facts of a device but its heartbeat. Memory holds names as numbers, all
/// others as text.
///
/// A fact stands here, in its message (`changelog.proto`), in the tables of
/// `wire/changelog.rs` and `store/packed.rs`, and in `tests/strategies.rs`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceFacts<Name> {
    /// The latest contact by an opening, whatever became of the session: since
    /// when its connection is.
    pub last_vpn_opening: Option<Timestamp>,
    /// The latest own time of any opening, where it is another (rule J4).
    pub last_vpn_opening_told: Option<Timestamp>,
    /// Sessions that are open: in memory by (opening, name), in text by (instance,
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
    /// The fleets that it was in before, in the order of their times (rule J3).
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
    /// Whether it was registered in the very millisecond of the deletion (rule
    /// J5).
    pub deletion_tie: Tie,
    /// The longest poll interval that the deletion has to outlive, in seconds.
    pub deletion_interval_s: Option<u32>,
    /// The greatest clock at an event that the deletion suppressed: it is
    /// remembered until this plus the tombstone retention (rule J5).
    pub deletion_touched: Option<Timestamp>,
}

/// Whose name it is.
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

    /// Whether it was registered in the very millisecond of its deletion, which
    /// that goes before (rule J5).
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

    /// Takes in that a session was opened: when it was told, and the contact that it
    /// is. Says whether anything is new.
    pub(super) fn told_of_opening(&mut self, told: Timestamp, contact: Timestamp) -> bool {
        let held = (self.last_vpn_opening, self.last_vpn_opening_told);
        let told = held.1.or(held.0).max(Some(told));
        let contact = held.0.max(Some(contact));
        self.last_vpn_opening = contact;
        self.last_vpn_opening_told = told.filter(|_| told != contact);
        (self.last_vpn_opening, self.last_vpn_opening_told) != held
    }

    /// Clears what a deletion does not leave (rule J5).
    pub(super) fn delete(&mut self, at: Timestamp) {
        let contact = self.last_vpn_opening;
        let told = self.last_vpn_opening_told.or(self.last_vpn_opening);
        (self.last_vpn_opening, self.last_vpn_opening_told) = (None, None);
        if let (Some(contact), Some(told)) = (contact, told.filter(|told| *told > at)) {
            // What is told after the deletion is contact, however old the connection.
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

/// All facts of one device, and what was last emitted of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowSnapshot {
    /// The last heartbeat: its time and its interval.
    pub heartbeat: Option<Register<HeartbeatInterval>>,
    /// It said that the device goes down (rule J11).
    pub going_away: bool,
    /// All other facts.
    pub facts: DeviceFacts<Arc<str>>,
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
    /// The announcement of that start that counts latest.
    pub alive: Option<Lease>,
    /// That which named no start: it belongs to the current one, whichever that
    /// is.
    pub alive_without_start: Option<Lease>,
    /// Of these two the first is later in the log.
    pub alive_is_later: bool,
    /// The end of its lease was fired: its sessions do not count.
    pub lapsed: bool,
    /// The clock of the shard when this was written (rule R5).
    pub clock: Timestamp,
}

/// What is known of a fleet.
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

/// What is known of an organization.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrganizationFacts {
    /// Whether it is frozen.
    pub frozen: FrozenRegisters,
    /// The clock of the shard when this was written (rule R5).
    pub clock: Timestamp,
}

/// What holds the shard while rows are settled (rule J7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Whose rows are settled.
    pub scope: HeldScope,
    /// The time of the fact or of the deadline.
    pub at: Timestamp,
    /// Rows are judged at this instant.
    pub judged: Timestamp,
    /// What a change is due to.
    pub cause: Cause,
    /// The clock of the shard when this was written (rule R5).
    pub clock: Timestamp,
}

/// A scope, and what was known of it before and since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeldScope {
    /// A VPN instance.
    Instance(Arc<str>, [InstanceFacts; 2]),
    /// A fleet.
    Fleet(Arc<str>, [FleetFacts; 2]),
    /// An organization.
    Organization(Arc<str>, [OrganizationFacts; 2]),
}
