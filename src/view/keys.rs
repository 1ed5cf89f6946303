//! The names of the view's keys and fields, and the tokens they carry. Written
//! by the view, read by `get` and `watch`; described in docs/redis.md.

use std::fmt;

use crate::shard::{DeviceId, Status};

/// Builds keys under one prefix.
#[derive(Clone, Debug)]
pub struct Keys {
    prefix: Box<str>,
}

impl Keys {
    /// Keys that begin with `prefix` (`redis.prefix`).
    #[must_use]
    pub fn new(prefix: &str) -> Keys {
        Keys { prefix: prefix.into() }
    }

    /// The hash of a device.
    #[must_use]
    pub fn device(&self, device: &DeviceId) -> String {
        format!("{}device:{device}", self.prefix)
    }

    /// The hash of a device, by the id as somebody typed it.
    #[must_use]
    pub fn device_text(&self, device: &str) -> String {
        format!("{}device:{device}", self.prefix)
    }

    /// The counts of a fleet in one partition (rule V7).
    #[must_use]
    pub fn fleet(&self, fleet: &str, partition: i32) -> String {
        format!("{}fleet:{fleet}:{partition}", self.prefix)
    }

    /// The members of a fleet in one partition that have a status.
    #[must_use]
    pub fn members(&self, fleet: &str, partition: i32, status: Status) -> String {
        let (head, tail) = self.members_around(partition);
        format!("{head}{fleet}{tail}{}", status.wire_name())
    }

    /// What stands before the fleet and between fleet and status in the key of
    /// a member set, for the scripts that put such keys together.
    #[must_use]
    pub fn members_around(&self, partition: i32) -> (String, String) {
        (format!("{}fleet:", self.prefix), format!(":{partition}:members:"))
    }

    /// The marker of a partition (rule V4).
    #[must_use]
    pub fn partition(&self, partition: i32) -> String {
        format!("{}partition:{partition}", self.prefix)
    }

    /// The channel of hints.
    #[must_use]
    pub fn changes(&self) -> String {
        format!("{}changes", self.prefix)
    }
}

/// Fields of a device's hash, besides `token`, in the order in which the
/// scripts take their values.
pub const DEVICE_FIELDS: [&str; 11] = [
    "status",
    "connectivity",
    "display",
    "since_ms",
    "connectivity_since_ms",
    "heartbeat",
    "heartbeat_ms",
    "vpn",
    "progress",
    "fleet",
    "version",
];

/// Fields of a partition's marker.
pub const MARKER_FIELDS: [&str; 4] = ["epoch", "applied", "sequence", "time_ms"];

/// Who wrote a hash, and when in the life of that owner (rule V2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// The partition that the key belonged to.
    pub partition: i32,
    /// The epoch of the partition's owner (rule C7).
    pub epoch: u64,
    /// The owner's count of view writes.
    pub sequence: u64,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.partition, self.epoch, self.sequence)
    }
}

/// What a marker holds, in the order of [`MARKER_FIELDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkerValue {
    /// The owner's epoch.
    pub epoch: u64,
    /// The changelog offset up to which every write is acknowledged.
    pub applied: i64,
    /// The write up to which every write is acknowledged. It makes each value
    /// of a marker unlike the ones before, so that a view that was set back is
    /// told even where `applied` has not moved.
    pub sequence: u64,
    /// Everything committed up to this time is in the view.
    pub time_ms: i64,
}

impl fmt::Display for MarkerValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}:{}", self.epoch, self.applied, self.sequence, self.time_ms)
    }
}
