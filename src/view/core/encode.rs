//! Encodes view writes as Redis commands.

use std::borrow::Cow;
use std::sync::Arc;

use redis::Cmd;
use serde::Serialize;
use serde_json::json;

use super::backlog::Waiting;
use super::keys::{DEVICE_FIELDS, Keys, MARKER_FIELDS, MarkerValue, Token};
use super::partition::Place;
use super::scripts::{DELETED_TTL_SECONDS, Script};
use crate::shard::{DeviceId, DeviceView, Status, UpdateOutcome, UpdatePhase, ViewBody, ViewWrite};
use crate::stream_thread::ports::{FoundKey, FoundSubject};

/// Encodes writes for one prefix and group.
#[derive(Clone, Debug)]
pub struct Encoder {
    keys: Keys,
    group: Box<str>,
    fleet_members: bool,
}

impl Encoder {
    /// An encoder for `redis.prefix`, `kafka.group` and `redis.fleet_members`.
    #[must_use]
    pub fn new(prefix: &str, group: &str, fleet_members: bool) -> Encoder {
        Encoder { keys: Keys::new(prefix), group: group.into(), fleet_members }
    }

    /// The command for a waiting write. It returns 1, or 0 if it was fenced.
    #[must_use]
    pub fn write(&self, partition: i32, epoch: u64, waiting: &Waiting) -> Cmd {
        let token = Token { partition, epoch, sequence: waiting.sequence };
        match &waiting.body {
            ViewBody::Device(view) => self.device(token, view, &waiting.leave),
            ViewBody::DeviceDeleted { device, fleet } => {
                self.deletion(token, device, fleet.as_ref(), &waiting.leave)
            }
            ViewBody::FleetCounts { fleet, counts } => self.fleet(token, fleet, counts),
        }
    }

    fn device(&self, token: Token, view: &DeviceView, leave: &[Arc<str>]) -> Cmd {
        let key = self.keys.device(&view.device);
        let command = begin(Script::Device, &key, token);
        self.device_arguments(command, token.partition, view, leave)
    }

    fn device_arguments(
        &self,
        mut command: Cmd,
        partition: i32,
        view: &DeviceView,
        leave: &[Arc<str>],
    ) -> Cmd {
        for value in device_values(view) {
            command.arg(&*value);
        }
        if view.changed {
            command.arg(self.keys.changes()).arg(change_hint(view));
        } else {
            command.arg("").arg("");
        }
        if self.fleet_members {
            self.membership(&mut command, partition, &view.device);
            for other in leave.iter().chain(&view.previous_fleet) {
                command.arg(&**other);
            }
        }
        command
    }

    fn deletion(
        &self,
        token: Token,
        device: &DeviceId,
        fleet: Option<&Arc<str>>,
        leave: &[Arc<str>],
    ) -> Cmd {
        let mut command = begin(Script::Deletion, &self.keys.device(device), token);
        command.arg(DELETED_TTL_SECONDS).arg(self.keys.changes()).arg(deletion_hint(device));
        if self.fleet_members {
            self.membership(&mut command, token.partition, device);
            command.arg(fleet.map_or("", |fleet| fleet));
            for other in leave {
                command.arg(&**other);
            }
        }
        command
    }

    fn membership(&self, command: &mut Cmd, partition: i32, device: &DeviceId) {
        let (head, tail) = self.keys.members_around(partition);
        command.arg(device.to_string()).arg(head).arg(tail);
    }

    fn fleet(&self, token: Token, fleet: &str, counts: &[u64; Status::ALL.len()]) -> Cmd {
        let key = self.keys.fleet(fleet, token.partition);
        fleet_arguments(begin(Script::Fleet, &key, token), counts)
    }

    /// The commands that read what the sweep compares: the hash, and whether the
    /// device is in its member set where those are kept.
    #[must_use]
    pub fn look(&self, partition: i32, body: &ViewBody) -> (Cmd, Option<Cmd>) {
        let all_of = |key: String| {
            let mut command = redis::cmd("HGETALL");
            command.arg(key);
            command
        };
        match body {
            ViewBody::Device(view) => {
                let member = self.fleet_members.then(|| {
                    let fleet = view.fleet.as_deref().unwrap_or_default();
                    let mut command = redis::cmd("SISMEMBER");
                    command.arg(self.keys.members(fleet, partition, view.status));
                    command.arg(view.device.to_string());
                    command
                });
                (all_of(self.keys.device(&view.device)), member)
            }
            ViewBody::FleetCounts { fleet, .. } => {
                (all_of(self.keys.fleet(fleet, partition)), None)
            }
            ViewBody::DeviceDeleted { device, .. } => (all_of(self.keys.device(device)), None),
        }
    }

    /// The expected fields of a hash, without its token.
    #[must_use]
    pub fn fields(body: &ViewBody) -> Vec<(&'static str, Cow<'_, str>)> {
        match body {
            ViewBody::Device(view) => DEVICE_FIELDS.into_iter().zip(device_values(view)).collect(),
            ViewBody::FleetCounts { counts, .. } => {
                let values = counts.iter().map(|count| Cow::Owned(count.to_string()));
                Status::ALL.into_iter().map(Status::wire_name).zip(values).collect()
            }
            ViewBody::DeviceDeleted { .. } => Vec::new(),
        }
    }

    /// The command that repairs a hash. With an `expected` token it writes only
    /// while the hash has exactly that token. It returns 1, or 0 if refused.
    #[must_use]
    pub fn repair(
        &self,
        partition: i32,
        epoch: u64,
        write: &ViewWrite,
        expected: Option<&str>,
    ) -> Option<Cmd> {
        let token = Token { partition, epoch, sequence: write.sequence };
        let begin = |key: &str, guarded, exact| match expected {
            None => begin(guarded, key, token),
            Some(expected) => begin_exact(exact, key, &token.to_string(), expected),
        };
        match &write.body {
            ViewBody::Device(view) => {
                let key = self.keys.device(&view.device);
                let command = begin(&key, Script::DeviceRepair, Script::DeviceRepairExact);
                Some(self.device_arguments(command, partition, view, &[]))
            }
            ViewBody::FleetCounts { fleet, counts } => {
                let key = self.keys.fleet(fleet, partition);
                let command = begin(&key, Script::FleetRepair, Script::FleetRepairExact);
                Some(fleet_arguments(command, counts))
            }
            ViewBody::DeviceDeleted { .. } => None,
        }
    }

    /// The command that removes an orphaned key, only while it has the token that
    /// the scan read. It returns 1, or 0 if refused.
    #[must_use]
    pub fn remove(&self, partition: i32, found: &FoundKey) -> Cmd {
        match &found.subject {
            FoundSubject::Device(device) => {
                let key = self.keys.device(device);
                let mut command = begin_exact(Script::Removal, &key, "", &found.token);
                if self.fleet_members {
                    self.membership(&mut command, partition, device);
                }
                command
            }
            FoundSubject::Fleet(fleet) => {
                let key = self.keys.fleet(fleet, partition);
                begin_exact(Script::Removal, &key, "", &found.token)
            }
        }
    }

    /// The command that removes the ids from a member set whose devices do not
    /// belong there. It returns how many.
    #[must_use]
    pub fn cull(&self, fleet: &str, partition: i32, status: Status, ids: &[Box<[u8]>]) -> Cmd {
        let mut command = Script::Cull.call(&self.keys.members(fleet, partition, status));
        command.arg(self.keys.before_device()).arg(format!("{partition}:"));
        command.arg(fleet).arg(status.wire_name());
        for id in ids {
            command.arg(&**id);
        }
        command
    }

    /// The names of the keys.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The group that owns the view.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Whether member sets are kept.
    #[must_use]
    pub fn keeps_members(&self) -> bool {
        self.fleet_members
    }

    /// The command that reads a marker.
    #[must_use]
    pub fn read_marker(&self, partition: i32, place: Place) -> Cmd {
        let mut command = redis::cmd("HMGET");
        command.arg(self.keys.marker(partition, place)).arg(&MARKER_FIELDS);
        command
    }

    /// The command that takes a marker for an epoch.
    #[must_use]
    pub fn take_marker(&self, partition: i32, place: Place, epoch: u64, applied: i64) -> Cmd {
        let mut command = Script::Take.call(&self.keys.marker(partition, place));
        command.arg(epoch).arg(applied).arg(&*self.group);
        command
    }

    /// The command that advances a marker, if it holds one of `from`.
    #[must_use]
    pub fn advance_marker(
        &self,
        partition: i32,
        place: Place,
        from: &[MarkerValue],
        to: MarkerValue,
    ) -> Cmd {
        let mut command = Script::Advance.call(&self.keys.marker(partition, place));
        command.arg(to.epoch).arg(to.applied).arg(to.sequence).arg(to.time_ms).arg(&*self.group);
        for value in from {
            command.arg(value.to_string());
        }
        command
    }
}

fn begin(script: Script, key: &str, token: Token) -> Cmd {
    let mut command = script.call(key);
    command.arg(token.to_string()).arg(token.epoch).arg(token.sequence);
    command
}

fn begin_exact(script: Script, key: &str, token: &str, expected: &str) -> Cmd {
    let mut command = script.call(key);
    command.arg(token).arg(expected).arg("");
    command
}

/// The values of a device's fields, in the order of [`DEVICE_FIELDS`].
fn device_values(view: &DeviceView) -> [Cow<'_, str>; DEVICE_FIELDS.len()] {
    fn number(value: impl ToString) -> Cow<'static, str> {
        Cow::Owned(value.to_string())
    }
    [
        Cow::Borrowed(view.status.wire_name()),
        Cow::Borrowed(view.connectivity.wire_name()),
        Cow::Borrowed(view.status.display(view.connectivity)),
        number(view.since.0),
        number(view.connectivity_since.0),
        Cow::Borrowed(view.heartbeat.wire_name()),
        view.last_heartbeat.map_or(Cow::Borrowed(""), |at| number(at.0)),
        Cow::Borrowed(if view.vpn_connected { "up" } else { "down" }),
        view.progress.map_or(Cow::Borrowed(""), number),
        Cow::Borrowed(view.fleet.as_deref().unwrap_or_default()),
        number(view.version),
        number(view.membership_since.0),
        Cow::Borrowed(view.release.as_deref().unwrap_or_default()),
        Cow::Borrowed(view.update_phase.map_or("", UpdatePhase::wire_name)),
        Cow::Borrowed(view.update_outcome.map_or("", UpdateOutcome::wire_name)),
        view.update_since.map_or(Cow::Borrowed(""), |at| number(at.0)),
    ]
}

fn fleet_arguments(mut command: Cmd, counts: &[u64; Status::ALL.len()]) -> Cmd {
    for count in counts {
        command.arg(*count);
    }
    command.arg(DELETED_TTL_SECONDS);
    command
}

/// The hint that is published when a device's status has changed.
#[derive(Serialize)]
struct ChangeHint<'a> {
    device: &'a str,
    status: &'a str,
    connectivity: &'a str,
    display: &'a str,
    since_ms: i64,
    version: u64,
}

fn change_hint(view: &DeviceView) -> Vec<u8> {
    let hint = ChangeHint {
        device: &view.device.to_string(),
        status: view.status.wire_name(),
        connectivity: view.connectivity.wire_name(),
        display: view.status.display(view.connectivity),
        since_ms: view.since.0,
        version: view.version,
    };
    serde_json::to_vec(&hint).expect("texts and numbers are JSON")
}

fn deletion_hint(device: &DeviceId) -> String {
    json!({ "device": device.to_string(), "deleted": true }).to_string()
}
