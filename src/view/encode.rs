//! From view writes to commands.

use std::sync::Arc;

use redis::Cmd;
use serde_json::json;

use super::backlog::Waiting;
use super::keys::{Keys, MARKER_FIELDS, MarkerValue, Token};
use super::scripts::{DELETED_TTL_SECONDS, SCRIPTS, call};
use crate::shard::{DeviceId, DeviceView, Status, ViewBody};

/// Turns writes into commands for one prefix.
#[derive(Clone, Debug)]
pub struct Encoder {
    keys: Keys,
    fleet_members: bool,
}

impl Encoder {
    /// An encoder for `redis.prefix` and `redis.fleet_members`.
    #[must_use]
    pub fn new(prefix: &str, fleet_members: bool) -> Encoder {
        Encoder { keys: Keys::new(prefix), fleet_members }
    }

    /// The command that writes what waits. It answers 1, or 0 if refused.
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
        let mut command = begin(&SCRIPTS.device, &self.keys.device(&view.device), token);
        let fleet = view.fleet.as_deref().unwrap_or_default();
        command
            .arg(view.status.wire_name())
            .arg(view.connectivity.wire_name())
            .arg(view.status.display(view.connectivity))
            .arg(view.since.0)
            .arg(view.connectivity_since.0)
            .arg(view.heartbeat.wire_name());
        optional(&mut command, view.last_heartbeat.map(|at| at.0));
        command.arg(if view.vpn_connected { "up" } else { "down" });
        optional(&mut command, view.progress);
        command.arg(fleet).arg(view.version);
        if view.changed {
            command.arg(self.keys.changes()).arg(change_hint(view));
        } else {
            command.arg("").arg("");
        }
        if self.fleet_members {
            self.membership(&mut command, token.partition, &view.device);
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
        let mut command = begin(&SCRIPTS.deletion, &self.keys.device(device), token);
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
        let mut command = begin(&SCRIPTS.fleet, &key, token);
        for count in counts {
            command.arg(*count);
        }
        command.arg(DELETED_TTL_SECONDS);
        command
    }

    /// Reads a marker.
    #[must_use]
    pub fn read_marker(&self, partition: i32) -> Cmd {
        let mut command = redis::cmd("HMGET");
        command.arg(self.keys.partition(partition)).arg(&MARKER_FIELDS);
        command
    }

    /// Takes a marker.
    #[must_use]
    pub fn take_marker(&self, partition: i32, epoch: u64, applied: i64) -> Cmd {
        let mut command = call(&SCRIPTS.take, &self.keys.partition(partition));
        command.arg(epoch).arg(applied);
        command
    }

    /// Advances a marker that holds one of `from`.
    #[must_use]
    pub fn advance_marker(&self, partition: i32, from: &[MarkerValue], to: MarkerValue) -> Cmd {
        let mut command = call(&SCRIPTS.advance, &self.keys.partition(partition));
        command.arg(to.epoch).arg(to.applied).arg(to.sequence).arg(to.time_ms);
        for value in from {
            command.arg(value.to_string());
        }
        command
    }
}

fn begin(script: &redis::Script, key: &str, token: Token) -> Cmd {
    let mut command = call(script, key);
    command.arg(token.to_string()).arg(token.epoch).arg(token.sequence);
    command
}

/// A number, or the empty string where there is none.
fn optional(command: &mut Cmd, value: Option<impl redis::ToSingleRedisArg>) {
    match value {
        Some(value) => command.arg(value),
        None => command.arg(""),
    };
}

fn change_hint(view: &DeviceView) -> String {
    json!({
        "device": view.device.to_string(),
        "status": view.status.wire_name(),
        "connectivity": view.connectivity.wire_name(),
        "display": view.status.display(view.connectivity),
        "since_ms": view.since.0,
        "version": view.version,
    })
    .to_string()
}

fn deletion_hint(device: &DeviceId) -> String {
    json!({ "device": device.to_string(), "deleted": true }).to_string()
}
