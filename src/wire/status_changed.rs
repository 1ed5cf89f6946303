//! A status change as the message of the change topic (DESIGN section 5).

use prost::Message;

use super::proto::v1;
use crate::shard::{Cause, Connectivity, HeartbeatState, Status, StatusChange, Timestamp};

/// Key and value of the record.
#[must_use]
pub fn encode(change: &StatusChange) -> (Vec<u8>, Vec<u8>) {
    let device_id = change.device.to_string();
    let key = device_id.clone().into_bytes();
    let (previous_status, previous_connectivity) = shown(change.previous);
    let (status, connectivity) = shown(change.current);
    let message = v1::StatusChanged {
        device_id,
        fleet: change.fleet.as_deref().unwrap_or_default().to_owned(),
        organization: change.organization.as_deref().unwrap_or_default().to_owned(),
        version: change.version,
        previous_status,
        previous_connectivity,
        status,
        connectivity,
        since: Some(timestamp(change.since)),
        connectivity_since: Some(timestamp(change.connectivity_since)),
        cause: cause(change.cause).into(),
        heartbeat_state: heartbeat_state(change.heartbeat_state).into(),
        last_heartbeat: change.last_heartbeat.map(timestamp),
        vpn_connected: change.vpn_connected,
        progress: change.progress.map(u32::from),
        deleted: change.current.is_none(),
    };
    (key, message.encode_to_vec())
}

fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    let nanos = at.0.rem_euclid(1000) * 1_000_000;
    prost_types::Timestamp {
        seconds: at.0.div_euclid(1000),
        nanos: i32::try_from(nanos).unwrap_or_default(),
    }
}

fn shown(shown: Option<(Status, Connectivity)>) -> (i32, i32) {
    shown.map_or((0, 0), |(s, c)| (status(s).into(), connectivity(c).into()))
}

const fn status(status: Status) -> v1::Status {
    match status {
        Status::Online => v1::Status::Online,
        Status::Configuring => v1::Status::Configuring,
        Status::Updating => v1::Status::Updating,
        Status::Offline => v1::Status::Offline,
        Status::PostProvisioning => v1::Status::PostProvisioning,
        Status::Inactive => v1::Status::Inactive,
        Status::Frozen => v1::Status::Frozen,
    }
}

const fn connectivity(connectivity: Connectivity) -> v1::Connectivity {
    match connectivity {
        Connectivity::Full => v1::Connectivity::Full,
        Connectivity::VpnOnly => v1::Connectivity::VpnOnly,
        Connectivity::HeartbeatOnly => v1::Connectivity::HeartbeatOnly,
        Connectivity::None => v1::Connectivity::None,
    }
}

const fn heartbeat_state(state: HeartbeatState) -> v1::HeartbeatState {
    match state {
        HeartbeatState::Unknown => v1::HeartbeatState::Unknown,
        HeartbeatState::Online => v1::HeartbeatState::Online,
        HeartbeatState::Timeout => v1::HeartbeatState::Timeout,
        HeartbeatState::Offline => v1::HeartbeatState::Offline,
    }
}

const fn cause(cause: Cause) -> v1::Cause {
    match cause {
        Cause::Deleted => v1::Cause::Deleted,
        Cause::Registered => v1::Cause::Registered,
        Cause::Provisioned => v1::Cause::Provisioned,
        Cause::Activated => v1::Cause::Activated,
        Cause::Deactivated => v1::Cause::Deactivated,
        Cause::Frozen => v1::Cause::Frozen,
        Cause::Unfrozen => v1::Cause::Unfrozen,
        Cause::Moved => v1::Cause::Moved,
        Cause::SettingsChanged => v1::Cause::SettingsChanged,
        Cause::Heartbeat => v1::Cause::Heartbeat,
        Cause::HeartbeatTimedOut => v1::Cause::HeartbeatTimedOut,
        Cause::HeartbeatExpired => v1::Cause::HeartbeatExpired,
        Cause::VpnOpened => v1::Cause::VpnOpened,
        Cause::VpnClosed => v1::Cause::VpnClosed,
        Cause::VpnInstanceAlive => v1::Cause::VpnInstanceAlive,
        Cause::VpnInstanceLost => v1::Cause::VpnInstanceLost,
        Cause::VpnLeaseExpired => v1::Cause::VpnLeaseExpired,
        Cause::ConfigurationStarted => v1::Cause::ConfigurationStarted,
        Cause::ConfigurationFinished => v1::Cause::ConfigurationFinished,
        Cause::UpdateStarted => v1::Cause::UpdateStarted,
        Cause::UpdateFinished => v1::Cause::UpdateFinished,
        Cause::RulesChanged => v1::Cause::RulesChanged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::DeviceId;

    fn change() -> StatusChange {
        StatusChange {
            device: DeviceId::from_key(b"a").unwrap(),
            fleet: Some("f".into()),
            organization: None,
            version: 3,
            previous: Some((Status::Online, Connectivity::Full)),
            current: Some((Status::Offline, Connectivity::None)),
            since: Timestamp(1_700_000_000_123),
            connectivity_since: Timestamp(1_700_000_000_123),
            cause: Cause::VpnLeaseExpired,
            heartbeat_state: HeartbeatState::Offline,
            last_heartbeat: None,
            vpn_connected: false,
            progress: None,
        }
    }

    #[test]
    fn a_consumer_reads_what_was_meant() {
        let (key, value) = encode(&change());
        let message = v1::StatusChanged::decode(value.as_slice()).unwrap();
        assert_eq!(key, b"a");
        assert_eq!(message.status(), v1::Status::Offline);
        assert_eq!(message.previous_connectivity(), v1::Connectivity::Full);
        assert_eq!(message.cause(), v1::Cause::VpnLeaseExpired);
        let since = message.since.unwrap();
        assert_eq!((since.seconds, since.nanos), (1_700_000_000, 123_000_000));
        assert!(!message.deleted);
    }

    #[test]
    fn a_deletion_has_no_status() {
        let (_, value) = encode(&StatusChange { current: None, ..change() });
        let message = v1::StatusChanged::decode(value.as_slice()).unwrap();
        assert_eq!(message.status(), v1::Status::Unspecified);
        assert!(message.deleted);
    }
}
