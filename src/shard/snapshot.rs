//! A shard's facts as values that can be stored and read back: what the
//! changelog holds.

use std::sync::Arc;

use super::event::{DeviceId, Settings, Timestamp};
use super::facts::register::delete;
pub use super::facts::register::{FrozenRegisters, Register};
pub use super::facts::session::{Ended, Opening, Session, SessionFingerprint};
use super::status::{Connectivity, Status};

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
    /// The latest own time of any opening (rule J4).
    pub last_vpn_opening_told: Option<Timestamp>,
    /// Sessions that are open: in memory by (opening, name), in text by (instance,
    /// name).
    pub sessions: Vec<Session<Name>>,
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
    /// Set by `registered` and `moved`.
    pub membership: Option<Register<Membership<Name>>>,
    /// The device's settings.
    pub settings: Option<Register<Settings>>,
    /// OS configuration.
    pub configuration: ProgressFacts,
    /// Application update.
    pub update: ProgressFacts,
    /// The last deletion.
    pub deleted: Option<Timestamp>,
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
            deactivated: self.deactivated,
            activated: self.activated,
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
            settings: self.settings,
            configuration: self.configuration.clone(),
            update: self.update.clone(),
            deleted: self.deleted,
            deletion_touched: self.deletion_touched,
        }
    }

    /// Clears what a deletion does not leave (rule J5).
    pub(super) fn delete(&mut self, at: Timestamp) {
        delete(&mut self.last_vpn_opening_told, at);
        // What is told after the deletion is contact, however old the connection.
        let contact = self.last_vpn_opening.max(Some(at.plus_ms(1)));
        self.last_vpn_opening = contact.filter(|_| self.last_vpn_opening_told.is_some());
        for register in &mut self.frozen {
            delete(register, at);
        }
        delete(&mut self.deactivated, at);
        delete(&mut self.activated, at);
        delete(&mut self.preregistered, at);
        delete(&mut self.provisioned, at);
        delete(&mut self.registered, at);
        delete(&mut self.membership, at);
        delete(&mut self.settings, at);
        for progress in [&mut self.configuration, &mut self.update] {
            delete(&mut progress.started, at);
            delete(&mut progress.finished, at);
            delete(&mut progress.percent, at);
        }
    }
}

/// All facts of one device, and what was last emitted of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowSnapshot {
    /// The last heartbeat: its time and the interval it carried, in seconds.
    pub heartbeat: Option<Register<Option<u32>>>,
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
