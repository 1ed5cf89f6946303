//! The output of a shard: the difference between two commits.
//!
//! Everything in an [`Outbox`] goes into one Kafka transaction; its view writes
//! follow the commit (rule V1).

use std::sync::Arc;

use super::event::{DeadLetter, DeviceId, Timestamp, UpdateOutcome, UpdatePhase};
use super::snapshot::Entry;
use super::status::{Cause, Connectivity, HeartbeatState, Status};

/// The output of a shard since the last outbox.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outbox {
    /// Changelog entries. The last one of a key counts.
    pub changelog: Vec<Entry>,
    /// Status changes, in order.
    pub changes: Vec<StatusChange>,
    /// Records that could not be used.
    pub dead_letters: Vec<DeadLetter>,
    /// Writes to the view, to follow the commit.
    pub view: Vec<ViewWrite>,
}

impl Outbox {
    /// Whether there is nothing to be written to Kafka besides offsets.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changelog.is_empty()
            && self.changes.is_empty()
            && self.dead_letters.is_empty()
            && self.view.is_empty()
    }
}

/// One change of a device's status or connectivity.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusChange {
    /// The device.
    pub device: DeviceId,
    /// The fleet it belongs to, if any.
    pub fleet: Option<Arc<str>>,
    /// The organization it belongs to, if any.
    pub organization: Option<Arc<str>>,
    /// Counts this device's changes from 1, without gaps.
    pub version: u64,
    /// The status before; absent in the first change.
    pub previous: Option<(Status, Connectivity)>,
    /// The status now; absent if the device was deleted.
    pub current: Option<(Status, Connectivity)>,
    /// When the status became true.
    pub since: Timestamp,
    /// When the connectivity became true.
    pub connectivity_since: Timestamp,
    /// The fact or deadline that led to the change.
    pub cause: Cause,
    /// The state of the heartbeat at `since`.
    pub heartbeat_state: HeartbeatState,
    /// The last known heartbeat.
    pub last_heartbeat: Option<Timestamp>,
    /// Whether any session counts.
    pub vpn_connected: bool,
    /// Percent, while the status is Configuring or Updating.
    pub progress: Option<u8>,
    /// Since when the device has this fleet and organization.
    pub membership_since: Timestamp,
    /// The fleet of the change before; none in the first change, and in the first
    /// after a deletion.
    pub previous_fleet: Option<Arc<str>>,
    /// The same for the organization.
    pub previous_organization: Option<Arc<str>>,
    /// If the cause is one of the VPN's: the instance that made the change.
    pub vpn_instance: Option<Arc<str>>,
    /// The release of the update that was started last, if it has a name (rule
    /// J12).
    pub release: Option<Arc<str>>,
    /// Its phase, while it is in progress.
    pub update_phase: Option<UpdatePhase>,
    /// How it ended, once it did.
    pub update_outcome: Option<UpdateOutcome>,
    /// Since when it is in progress, or finished.
    pub update_since: Option<Timestamp>,
}

#[cfg(test)]
impl StatusChange {
    /// A first change at an instant, without other facts.
    pub fn first(device: DeviceId, at: Timestamp, current: (Status, Connectivity)) -> StatusChange {
        StatusChange {
            device,
            fleet: None,
            organization: None,
            version: 1,
            previous: None,
            current: Some(current),
            since: at,
            connectivity_since: at,
            cause: Cause::HeartbeatExpired,
            heartbeat_state: HeartbeatState::Offline,
            last_heartbeat: None,
            vpn_connected: false,
            progress: None,
            membership_since: at,
            previous_fleet: None,
            previous_organization: None,
            vpn_instance: None,
            release: None,
            update_phase: None,
            update_outcome: None,
            update_since: None,
        }
    }
}

/// One write to the view. `sequence` counts the shard's view writes (rule V2).
#[derive(Clone, Debug, PartialEq)]
pub struct ViewWrite {
    /// With the shard's epoch, the token of the write.
    pub sequence: u64,
    /// The write.
    pub body: ViewBody,
}

/// The contents of a view write.
#[derive(Clone, Debug, PartialEq)]
pub enum ViewBody {
    /// A device as it is now.
    Device(Box<DeviceView>),
    /// The device was deleted (rule V3).
    DeviceDeleted {
        /// Whose hash to empty.
        device: DeviceId,
        /// Which fleet's member sets to leave.
        fleet: Option<Arc<str>>,
    },
    /// How many devices of a fleet have each status, in this partition:
    /// absolute, in the order of [`Status::ALL`]. Devices of no fleet are
    /// counted under the empty name.
    FleetCounts {
        /// The fleet.
        fleet: Arc<str>,
        /// Devices by status.
        counts: [u64; Status::ALL.len()],
    },
}

/// All that the view shows of a device.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceView {
    /// The device.
    pub device: DeviceId,
    /// Its status.
    pub status: Status,
    /// Its connectivity.
    pub connectivity: Connectivity,
    /// The time and cause of the status.
    pub since: Timestamp,
    /// The time and cause of the connectivity.
    pub connectivity_since: Timestamp,
    /// State of the heartbeat.
    pub heartbeat: HeartbeatState,
    /// The last heartbeat.
    pub last_heartbeat: Option<Timestamp>,
    /// Whether any VPN session counts.
    pub vpn_connected: bool,
    /// Percent, while the status is Configuring or Updating.
    pub progress: Option<u8>,
    /// The release of the update that was started last, if it has a name (rule
    /// J12).
    pub release: Option<Arc<str>>,
    /// Its phase, while it is in progress.
    pub update_phase: Option<UpdatePhase>,
    /// How it ended, once it did.
    pub update_outcome: Option<UpdateOutcome>,
    /// Since when it is in progress, or finished.
    pub update_since: Option<Timestamp>,
    /// Its fleet.
    pub fleet: Option<Arc<str>>,
    /// Since when the device has this fleet and organization.
    pub membership_since: Timestamp,
    /// The fleet whose member sets it was last written to, if another.
    pub previous_fleet: Option<Arc<str>>,
    /// The number of its last change.
    pub version: u64,
    /// Whether this write belongs to a change, which is published on
    /// `ds:changes`.
    pub changed: bool,
}
