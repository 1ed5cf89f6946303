//! A shard's facts as values that can be stored and read back: what the
//! changelog holds.

use std::sync::Arc;

use super::event::{DeviceId, Settings, Timestamp, UpdateOutcome};
pub use super::facts::interval::HeartbeatInterval;
pub use super::facts::register::{Flag, FrozenRegisters, Register, Tie};
use super::facts::register::{delete, outlives};
pub use super::facts::update::{ReleaseFacts, UpdateFacts};
use super::status::{Cause, Connectivity, Status};

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
    /// What holds the shard (rule J7); `None` once all rows are settled.
    Hold(Option<Box<Hold>>),
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session<Name> {
    /// The VPN instance that holds it.
    pub instance: Name,
    /// Which session.
    pub fingerprint: SessionFingerprint,
    /// When it was opened: the greatest of its opens.
    pub opened_at: Timestamp,
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
    /// The greatest time of any opening, whatever became of the session.
    pub last_vpn_opening: Option<Timestamp>,
    /// Sessions opened and not closed: in memory by (opening, fingerprint), in
    /// text by (instance, fingerprint).
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
        let sessions = self.sessions.iter().map(|session| Session {
            instance: rename(NameOf::Instance, &session.instance),
            fingerprint: session.fingerprint,
            opened_at: session.opened_at,
        });
        DeviceFacts {
            last_vpn_opening: self.last_vpn_opening,
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

    /// Clears what a deletion does not leave (rule J5).
    pub(super) fn delete(&mut self, at: Timestamp) {
        delete(&mut self.last_vpn_opening, at);
        self.sessions.retain(|session| outlives(session.opened_at, at));
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
    /// The latest `instance_alive` of that start, and its lease in milliseconds.
    pub alive: Option<Register<u32>>,
    /// The latest `instance_alive` that named no start: it belongs to the
    /// current one, whichever that is.
    pub alive_without_start: Option<Register<u32>>,
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
