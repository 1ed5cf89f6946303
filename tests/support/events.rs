//! The events of the three inputs, as their producers write them.

use std::time::Duration;

use device_status::shard::Input;
use device_status::wire::proto::v1::{
    FrozenReason, Heartbeat, InstanceAlive, LifecycleEvent, Registered, SessionClosed,
    SessionOpened, SettingsChanged, VpnEvent, lifecycle_event, vpn_event,
};
use prost::Message;

/// An event on its way to its topic.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Which of the three topics it belongs on.
    pub input: Input,
    /// The device's id; absent in a broadcast.
    pub key: Option<Vec<u8>>,
    /// Absent in a tombstone.
    pub value: Option<Vec<u8>>,
    /// Where to; absent: by the key, or every partition for a broadcast.
    pub partition: Option<i32>,
    /// The record's timestamp; absent: now.
    pub timestamp_ms: Option<i64>,
}

impl Outgoing {
    /// Chooses the partition.
    pub fn on_partition(mut self, partition: i32) -> Outgoing {
        self.partition = Some(partition);
        self
    }

    /// Chooses the record's timestamp.
    pub fn stamped(mut self, timestamp_ms: i64) -> Outgoing {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }
}

/// `device` polled at `at_ms`, and says nothing of its poll interval.
pub fn heartbeat(device: &str, at_ms: i64) -> Outgoing {
    heartbeat_of(
        device,
        Heartbeat { occurred_at: time(at_ms), poll_interval: None, ..Default::default() },
    )
}

/// `device` polled at `at_ms`, and was told to do so every `interval`.
pub fn heartbeat_every(device: &str, at_ms: i64, interval: Duration) -> Outgoing {
    let poll_interval = Some(interval.try_into().unwrap());
    heartbeat_of(
        device,
        Heartbeat { occurred_at: time(at_ms), poll_interval, ..Default::default() },
    )
}

fn heartbeat_of(device: &str, message: Heartbeat) -> Outgoing {
    outgoing(Input::Heartbeats, Some(device), Some(message.encode_to_vec()))
}

/// A VPN event of one device, or, without a device, a broadcast.
pub fn vpn(device: Option<&str>, at_ms: i64, event: vpn_event::Event) -> Outgoing {
    let message = VpnEvent { occurred_at: time(at_ms), event: Some(event) };
    outgoing(Input::VpnSessions, device, Some(message.encode_to_vec()))
}

/// `device` opened `session` on `instance`.
pub fn session_opened(device: &str, at_ms: i64, instance: &str, session: &str) -> Outgoing {
    let event =
        SessionOpened { instance: instance.into(), session: session.into(), ..Default::default() };
    vpn(Some(device), at_ms, vpn_event::Event::SessionOpened(event))
}

/// `device` closed `session` on `instance`.
pub fn session_closed(device: &str, at_ms: i64, instance: &str, session: &str) -> Outgoing {
    let event =
        SessionClosed { instance: instance.into(), session: session.into(), ..Default::default() };
    vpn(Some(device), at_ms, vpn_event::Event::SessionClosed(event))
}

/// Step `round` of a device whose only session opens and closes by turns, each time
/// under a new name: each step is a change.
pub fn toggled(device: &str, at_ms: i64, instance: &str, round: u64) -> Outgoing {
    toggled_as(device, at_ms, instance, &format!("s{}", round / 2), round)
}

/// The same under a name that may have been used before, then at a later time.
pub fn toggled_as(device: &str, at_ms: i64, instance: &str, session: &str, round: u64) -> Outgoing {
    if round.is_multiple_of(2) {
        session_opened(device, at_ms, instance, session)
    } else {
        session_closed(device, at_ms, instance, session)
    }
}

/// `instance` lives, and answers for its sessions for `lease`.
pub fn instance_alive(instance: &str, at_ms: i64, lease: Duration) -> Outgoing {
    let lease = Some(lease.try_into().unwrap());
    let event = InstanceAlive { instance: instance.into(), started_at: None, lease };
    vpn(None, at_ms, vpn_event::Event::InstanceAlive(event))
}

/// A lifecycle event of one device, or, without a device, a broadcast.
pub fn lifecycle(device: Option<&str>, at_ms: i64, event: lifecycle_event::Event) -> Outgoing {
    let message = LifecycleEvent { occurred_at: time(at_ms), event: Some(event) };
    outgoing(Input::Lifecycle, device, Some(message.encode_to_vec()))
}

/// `device` was registered, as an active device.
pub fn registered(device: &str, at_ms: i64, fleet: &str, organization: &str) -> Outgoing {
    let event =
        Registered { fleet: fleet.into(), organization: organization.into(), preregistered: false };
    lifecycle(Some(device), at_ms, lifecycle_event::Event::Registered(event))
}

/// `device` is to poll every `interval` (absent: as its fleet).
pub fn settings_changed(device: &str, at_ms: i64, interval: Option<Duration>) -> Outgoing {
    let poll_interval = interval.map(|interval| interval.try_into().unwrap());
    let event = SettingsChanged { poll_interval, vpn_enabled: None };
    lifecycle(Some(device), at_ms, lifecycle_event::Event::SettingsChanged(event))
}

/// `device` was frozen for `reason`.
pub fn frozen(device: &str, at_ms: i64, reason: FrozenReason) -> Outgoing {
    use device_status::wire::proto::v1::Frozen;
    let event = Frozen { reason: reason.into() };
    lifecycle(Some(device), at_ms, lifecycle_event::Event::Frozen(event))
}

/// `device` was deleted, told by a key without a value.
pub fn tombstone(device: &str) -> Outgoing {
    outgoing(Input::Lifecycle, Some(device), None)
}

/// The 32 hex digits of the `n`th device of a test.
pub fn device_id(n: u64) -> String {
    format!("{:016x}{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15), n)
}

fn outgoing(input: Input, device: Option<&str>, value: Option<Vec<u8>>) -> Outgoing {
    let key = device.map(|device| device.as_bytes().to_vec());
    Outgoing { input, key, value, partition: None, timestamp_ms: None }
}

fn time(ms: i64) -> Option<prost_types::Timestamp> {
    let nanos = i32::try_from(ms.rem_euclid(1000)).unwrap() * 1_000_000;
    Some(prost_types::Timestamp { seconds: ms.div_euclid(1000), nanos })
}
