//! The names of the view's keys and fields, and their fencing tokens. `get` and
//! `watch` use the same names. docs/redis.md describes them.

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

    /// The hash of a device, by an id from the command line.
    #[must_use]
    pub fn device_text(&self, device: &str) -> String {
        format!("{}device:{device}", self.prefix)
    }

    /// The counts of a fleet in one partition (rule V7).
    #[must_use]
    pub fn fleet(&self, fleet: &str, partition: i32) -> String {
        format!("{}fleet:{fleet}:{partition}", self.prefix)
    }

    /// The set of a fleet's devices in one partition with a status.
    #[must_use]
    pub fn members(&self, fleet: &str, partition: i32, status: Status) -> String {
        let (head, tail) = self.members_around(partition);
        format!("{head}{fleet}{tail}{}", status.wire_name())
    }

    /// The parts of a member set's key before and after the fleet. Scripts build
    /// such keys from them.
    #[must_use]
    pub fn members_around(&self, partition: i32) -> (String, String) {
        (format!("{}fleet:", self.prefix), format!(":{partition}:members:"))
    }

    /// The marker of a partition (rule V4).
    #[must_use]
    pub fn partition(&self, partition: i32) -> String {
        format!("{}partition:{partition}", self.prefix)
    }

    /// A replica marker: a copy of the partition's marker on another cluster node.
    #[must_use]
    pub fn replica_marker(&self, partition: i32, number: u32) -> String {
        format!("{}partition:{partition}:{number}", self.prefix)
    }

    /// The marker of a partition at a place: the partition's own, or a replica marker.
    #[must_use]
    pub fn marker(&self, partition: i32, place: Option<u32>) -> String {
        match place {
            None => self.partition(partition),
            Some(number) => self.replica_marker(partition, number),
        }
    }

    /// The key that names the group that owns the prefix (rule V8).
    #[must_use]
    pub fn owner(&self) -> String {
        format!("{}owner", self.prefix)
    }

    /// The prefix.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The channel on which hints are published.
    #[must_use]
    pub fn changes(&self) -> String {
        format!("{}changes", self.prefix)
    }
}

/// The kind of a key that the scan found, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// The hash of a device.
    Device(DeviceId),
    /// The counts of a fleet in a partition.
    Fleet(Box<str>, i32),
    /// The set of a fleet's devices in a partition with a status.
    Members {
        /// The fleet.
        fleet: Box<str>,
        /// The partition.
        partition: i32,
        /// The status.
        status: Status,
    },
}

impl Keys {
    /// The pattern for `SCAN` that matches all keys of the prefix.
    #[must_use]
    pub fn pattern(&self) -> String {
        let mut pattern = String::new();
        for character in self.prefix.chars() {
            if "*?[]\\^".contains(character) {
                pattern.push('\\');
            }
            pattern.push(character);
        }
        pattern + "*"
    }

    /// The key of a device's hash without the id at its end.
    #[must_use]
    pub fn before_device(&self) -> String {
        format!("{}device:", self.prefix)
    }

    /// The kind of a key; `None` if the sweep does not maintain keys of this name.
    #[must_use]
    pub fn named(&self, key: &str) -> Option<Named> {
        let rest = key.strip_prefix(&*self.prefix)?;
        if let Some(device) = rest.strip_prefix("device:") {
            return DeviceId::from_key(device.as_bytes()).ok().map(Named::Device);
        }
        let rest = rest.strip_prefix("fleet:")?;
        if let Some((of, status)) = rest.rsplit_once(":members:")
            && let Some(status) = Status::ALL.into_iter().find(|held| held.wire_name() == status)
        {
            let (fleet, partition) = of.rsplit_once(':')?;
            return Some(Named::Members {
                fleet: fleet.into(),
                partition: partition.parse().ok()?,
                status,
            });
        }
        let (fleet, partition) = rest.rsplit_once(':')?;
        partition.parse().ok().map(|partition| Named::Fleet(fleet.into(), partition))
    }
}

/// The fields of a device's hash without `token`, in the order of the scripts'
/// arguments.
pub const DEVICE_FIELDS: [&str; 16] = [
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
    "membership_since_ms",
    "release",
    "update_phase",
    "update_outcome",
    "update_since_ms",
];

/// The fields of a partition's marker.
pub const MARKER_FIELDS: [&str; 5] = ["epoch", "applied", "sequence", "time_ms", "group"];

/// The fencing token of a hash: which owner wrote it, and as which write (rule V2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// The partition of the writer.
    pub partition: i32,
    /// The epoch of the partition's owner (rule C7).
    pub epoch: u64,
    /// The number of the write among the owner's view writes.
    pub sequence: u64,
}

impl Token {
    /// Parses a token; `None` if it is malformed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Token> {
        let mut parts = text.splitn(3, ':');
        Some(Token {
            partition: parts.next()?.parse().ok()?,
            epoch: parts.next()?.parse().ok()?,
            sequence: parts.next()?.parse().ok()?,
        })
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.partition, self.epoch, self.sequence)
    }
}

/// The value of a marker without its group, in the order of [`MARKER_FIELDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkerValue {
    /// The owner's epoch.
    pub epoch: u64,
    /// The changelog offset up to which every write is acknowledged.
    pub applied: i64,
    /// The sequence up to which every write is acknowledged. It makes each value of
    /// a marker unique, so a view that was set back is noticed even if `applied` has
    /// not moved.
    pub sequence: u64,
    /// Everything committed up to this time is in the view.
    pub time_ms: i64,
}

impl fmt::Display for MarkerValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}:{}", self.epoch, self.applied, self.sequence, self.time_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_parse_back_with_any_colons_in_the_fleet() {
        let keys = Keys::new("d*s:");
        assert_eq!(keys.pattern(), "d\\*s:*");
        let device = DeviceId::from_key(b"a:b").unwrap();
        assert_eq!(keys.named(&keys.device(&device)), Some(Named::Device(device)));
        for fleet in ["", "blue", "a:3", "a:3:members:online", ":"] {
            let named = keys.named(&keys.fleet(fleet, 5));
            assert_eq!(named, Some(Named::Fleet(fleet.into(), 5)));
            let status = Status::PostProvisioning;
            let named = keys.named(&keys.members(fleet, 5, status));
            let fleet = fleet.into();
            assert_eq!(named, Some(Named::Members { fleet, partition: 5, status }));
        }
        for other in [
            "d*s:partition:3",
            "d*s:partition:3:0",
            "d*s:owner",
            "ds:device:a",
            "d*s:fleet:x",
            "d*s:fleet:x:y",
            "d*s:device:",
        ] {
            assert_eq!(keys.named(other), None, "{other}");
        }
    }

    #[test]
    fn tokens_parse_back() {
        let token = Token { partition: 3, epoch: 1_700_000_000_000, sequence: 42 };
        assert_eq!(Token::parse(&token.to_string()), Some(token));
        for other in ["", "3:1", "3:1:x", "3:-1:2", "a:1:2", "3:1:2:4"] {
            assert_eq!(Token::parse(other), None, "{other}");
        }
    }
}
