//! Status changes for consumers: key and value of a record of
//! `device-status-changes`.

use prost::{Message, Name as _};

use super::decode::TIMESTAMP_MAX_SECONDS;
use super::json;
use super::proto::v1;
use crate::shard::{
    Cause, Connectivity, DeviceId, HeartbeatState, Status, StatusChange, Timestamp, UpdateOutcome,
    UpdatePhase,
};

/// How the values of changes are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChangeFormat {
    /// The bare message.
    #[default]
    Protobuf,
    /// The message in Protobuf's canonical JSON form.
    Json,
}

impl ChangeFormat {
    /// The name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            ChangeFormat::Protobuf => "protobuf",
            ChangeFormat::Json => "json",
        }
    }

    /// The media type of a value.
    const fn content_type(self) -> &'static str {
        match self {
            ChangeFormat::Protobuf => "application/protobuf",
            ChangeFormat::Json => "application/json",
        }
    }
}

/// Key (the device id) and value (a `StatusChanged`) of a change.
#[must_use]
pub fn encode(change: &StatusChange, format: ChangeFormat) -> (Vec<u8>, Vec<u8>) {
    let mut key = Vec::new();
    change.device.write_to(&mut key);
    let message = message(change);
    let value = match format {
        ChangeFormat::Protobuf => message.encode_to_vec(),
        ChangeFormat::Json => json_of(message),
    };
    (key, value)
}

/// A change in JSON. Times beyond the years that JSON can express are clamped.
///
/// JSON can express all else of a message. If it could not, the bare message would
/// be written: [`decode`] reads both.
fn json_of(mut message: v1::StatusChanged) -> Vec<u8> {
    let times = [
        &mut message.since,
        &mut message.connectivity_since,
        &mut message.last_heartbeat,
        &mut message.membership_since,
        &mut message.update_since,
    ];
    for time in times.into_iter().flatten() {
        time.seconds = time.seconds.clamp(TIMESTAMP_MIN_SECONDS, TIMESTAMP_MAX_SECONDS);
    }
    json::write(&message).map_or_else(|_| message.encode_to_vec(), String::into_bytes)
}

/// The first second that a Protobuf timestamp may name: 0001-01-01T00:00:00Z.
const TIMESTAMP_MIN_SECONDS: i64 = -62_135_596_800;

fn message(change: &StatusChange) -> v1::StatusChanged {
    let (previous_status, previous_connectivity) = numbers(change.previous);
    let (status, connectivity) = numbers(change.current);
    v1::StatusChanged {
        device_id: change.device.to_string(),
        fleet: change.fleet.as_deref().unwrap_or_default().to_owned(),
        organization: change.organization.as_deref().unwrap_or_default().to_owned(),
        version: change.version,
        previous_status,
        previous_connectivity,
        status,
        connectivity,
        since: Some(timestamp(change.since)),
        connectivity_since: Some(timestamp(change.connectivity_since)),
        cause: i32::from(change.cause as u8),
        heartbeat_state: change.heartbeat_state as i32 + 1,
        last_heartbeat: change.last_heartbeat.map(timestamp),
        vpn_connected: change.vpn_connected,
        progress: change.progress.map(u32::from),
        deleted: change.current.is_none(),
        membership_since: Some(timestamp(change.membership_since)),
        previous_fleet: change.previous_fleet.as_deref().unwrap_or_default().to_owned(),
        previous_organization: change
            .previous_organization
            .as_deref()
            .unwrap_or_default()
            .to_owned(),
        vpn_instance: change.vpn_instance.as_deref().unwrap_or_default().to_owned(),
        release: change.release.as_deref().unwrap_or_default().to_owned(),
        update_phase: change.update_phase.map_or(0, |phase| phase as i32 + 1),
        update_outcome: change.update_outcome.map_or(0, |outcome| outcome as i32 + 1),
        update_since: change.update_since.map(timestamp),
    }
}

/// Reads back the output of [`encode`] in any format, of this or a later version.
///
/// # Errors
/// What is wrong with it, for people.
pub fn decode(value: &[u8]) -> Result<StatusChange, String> {
    // As Protobuf, this byte would begin a group, which proto3 does not have.
    let message = match value.first() {
        Some(b'{') => json::read_later(value),
        _ => v1::StatusChanged::decode(value).map_err(|error| error.to_string()),
    };
    let message =
        message.map_err(|error| format!("the value is not a StatusChanged message ({error})"))?;
    let name = |text: &str| (!text.is_empty()).then(|| text.into());
    let shown = |status: i32, connectivity: i32| {
        shown(status.cast_unsigned(), connectivity.cast_unsigned())
            .map_err(|_| "its status is not known to this version".to_owned())
    };
    Ok(StatusChange {
        device: DeviceId::from_key(message.device_id.as_bytes())
            .map_err(|reason| format!("its device id is invalid ({reason:?})"))?,
        fleet: name(&message.fleet),
        organization: name(&message.organization),
        version: message.version,
        previous: shown(message.previous_status, message.previous_connectivity)?,
        current: shown(message.status, message.connectivity)?,
        since: message.since.map(instant).ok_or("it has no since")?,
        connectivity_since: message.connectivity_since.map(instant).ok_or("it has no since")?,
        cause: Cause::ALL
            .into_iter()
            .find(|cause| i32::from(*cause as u8) == message.cause)
            .ok_or("its cause is not known to this version")?,
        heartbeat_state: match message.heartbeat_state() {
            v1::HeartbeatState::Unspecified | v1::HeartbeatState::Unknown => {
                HeartbeatState::Unknown
            }
            v1::HeartbeatState::Online => HeartbeatState::Online,
            v1::HeartbeatState::Timeout => HeartbeatState::Timeout,
            v1::HeartbeatState::Offline => HeartbeatState::Offline,
        },
        last_heartbeat: message.last_heartbeat.map(instant),
        vpn_connected: message.vpn_connected,
        progress: message.progress.and_then(|percent| u8::try_from(percent).ok()),
        membership_since: message.membership_since.map_or(Timestamp::MIN, instant),
        previous_fleet: name(&message.previous_fleet),
        previous_organization: name(&message.previous_organization),
        vpn_instance: name(&message.vpn_instance),
        release: name(&message.release),
        update_phase: of_number(&UpdatePhase::ALL, message.update_phase),
        update_outcome: of_number(&UpdateOutcome::ALL, message.update_outcome),
        update_since: message.update_since.map(instant),
    })
}

/// The headers of a change. With a `source`, which names the installation, they
/// are the attributes of a CloudEvent (CloudEvents 1.0, the binary mode of its Kafka
/// binding). Without one, JSON has its content type, and Protobuf has none.
///
/// A repeated change has the same CloudEvents id.
#[must_use]
pub fn headers(
    change: &StatusChange,
    format: ChangeFormat,
    source: Option<&str>,
) -> Vec<(String, Option<Vec<u8>>)> {
    let header = |name: &str, value: String| (name.to_owned(), Some(value.into_bytes()));
    let content_type = || header("content-type", format.content_type().to_owned());
    let Some(source) = source else {
        return match format {
            ChangeFormat::Protobuf => Vec::new(),
            ChangeFormat::Json => vec![content_type()],
        };
    };
    let happened = timestamp(change.since.max(change.connectivity_since));
    vec![
        header("ce_specversion", "1.0".to_owned()),
        header("ce_id", format!("{}:{}", change.device, change.version)),
        header("ce_source", source.to_owned()),
        header("ce_type", v1::StatusChanged::full_name()),
        header("ce_subject", change.device.to_string()),
        header("ce_time", happened.to_string()),
        content_type(),
    ]
}

/// The numbers of a status and a connectivity, from 1; zeros if nothing is shown.
fn numbers(shown: Option<(Status, Connectivity)>) -> (i32, i32) {
    shown.map_or((0, 0), |(status, connectivity)| (status as i32 + 1, connectivity as i32 + 1))
}

/// The value with this number in messages, counted from 1. `None` for a number of
/// a later version.
pub(super) fn of_number<T: Copy>(all: &[T], number: i32) -> Option<T> {
    all.get(usize::try_from(number).ok()?.checked_sub(1)?).copied()
}

/// The status and connectivity of these numbers.
///
/// # Errors
/// This version does not know one of them: what is wrong, for people.
pub(super) fn shown(
    status: u32,
    connectivity: u32,
) -> Result<Option<(Status, Connectivity)>, String> {
    if (status, connectivity) == (0, 0) {
        return Ok(None);
    }
    let place = |number: u32| (number as usize).checked_sub(1);
    let known_status = place(status).and_then(|place| Status::ALL.get(place));
    let known_connectivity = place(connectivity).and_then(|place| Connectivity::ALL.get(place));
    let shown = known_status.copied().zip(known_connectivity.copied());
    shown.map(Some).ok_or_else(|| {
        format!("status {status} with connectivity {connectivity} is unknown to this version")
    })
}

/// An instant as a Protobuf timestamp.
pub(crate) fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    let nanos = at.0.rem_euclid(1_000) as i32 * 1_000_000;
    prost_types::Timestamp { seconds: at.0.div_euclid(1_000), nanos }
}

/// A Protobuf timestamp as an instant, truncated to milliseconds.
pub(crate) fn instant(timestamp: prost_types::Timestamp) -> Timestamp {
    let ms = i128::from(timestamp.seconds) * 1_000 + i128::from(timestamp.nanos / 1_000_000);
    let ms = ms.clamp(i64::MIN.into(), i64::MAX.into());
    Timestamp(i64::try_from(ms).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::ChangeFormat::{Json, Protobuf};
    use super::*;

    fn change() -> StatusChange {
        StatusChange {
            device: DeviceId::from_key(b"0123456789abcdef0123456789abcdef").unwrap(),
            fleet: Some("fleet".into()),
            organization: None,
            version: 3,
            previous: Some((Status::Offline, Connectivity::None)),
            current: Some((Status::Online, Connectivity::VpnOnly)),
            since: Timestamp(1_760_000_000_123),
            connectivity_since: Timestamp(-1),
            cause: Cause::VpnOpened,
            heartbeat_state: HeartbeatState::Timeout,
            last_heartbeat: Some(Timestamp(1_759_999_000_000)),
            vpn_connected: true,
            progress: Some(40),
            membership_since: Timestamp(1_750_000_000_000),
            previous_fleet: Some("old fleet".into()),
            previous_organization: Some("old organization".into()),
            vpn_instance: Some("vpn-1".into()),
            release: Some("release-2".into()),
            update_phase: Some(UpdatePhase::Applying),
            update_outcome: Some(UpdateOutcome::Failed),
            update_since: Some(Timestamp(1_751_000_000_000)),
        }
    }

    #[test]
    fn change_has_both_statuses_its_since_and_its_cause() {
        let (key, value) = encode(&change(), Protobuf);
        assert_eq!(key, b"0123456789abcdef0123456789abcdef");
        let message = v1::StatusChanged::decode(value.as_slice()).unwrap();
        assert_eq!(message.device_id.as_bytes(), key);
        assert_eq!((message.fleet.as_str(), message.organization.as_str()), ("fleet", ""));
        assert_eq!(message.version, 3);
        assert_eq!(message.previous_status(), v1::Status::Offline);
        assert_eq!(message.previous_connectivity(), v1::Connectivity::None);
        assert_eq!(message.status(), v1::Status::Online);
        assert_eq!(message.connectivity(), v1::Connectivity::VpnOnly);
        let since = prost_types::Timestamp { seconds: 1_760_000_000, nanos: 123_000_000 };
        assert_eq!(message.since, Some(since));
        let before_the_epoch = prost_types::Timestamp { seconds: -1, nanos: 999_000_000 };
        assert_eq!(message.connectivity_since, Some(before_the_epoch));
        assert_eq!(message.cause(), v1::Cause::VpnOpened);
        assert_eq!(message.heartbeat_state(), v1::HeartbeatState::Timeout);
        assert_eq!(message.last_heartbeat.unwrap().seconds, 1_759_999_000);
        assert!(message.vpn_connected && !message.deleted);
        assert_eq!(message.progress, Some(40));
        assert_eq!(message.membership_since.unwrap().seconds, 1_750_000_000);
        assert_eq!(message.previous_fleet, "old fleet");
        assert_eq!(message.previous_organization, "old organization");
        assert_eq!(message.vpn_instance, "vpn-1");
        assert_eq!(message.release, "release-2");
        assert_eq!(message.update_phase(), v1::UpdatePhase::Applying);
        assert_eq!(message.update_outcome(), v1::UpdateOutcome::Failed);
        assert_eq!(message.update_since.unwrap().seconds, 1_751_000_000);
    }

    #[test]
    fn any_change_is_read_back_unchanged() {
        let mut changes = vec![
            change(),
            StatusChange { current: None, fleet: None, cause: Cause::Deleted, ..change() },
            StatusChange { previous: None, last_heartbeat: None, progress: None, ..change() },
        ];
        for cause in Cause::ALL {
            changes.push(StatusChange { cause, ..change() });
        }
        use HeartbeatState::{Offline, Online, Timeout, Unknown};
        for heartbeat_state in [Unknown, Online, Timeout, Offline] {
            changes.push(StatusChange { heartbeat_state, ..change() });
        }
        for status in Status::ALL {
            for connectivity in Connectivity::ALL {
                changes.push(StatusChange { current: Some((status, connectivity)), ..change() });
            }
        }
        for change in changes {
            for format in [Protobuf, Json] {
                assert_eq!(decode(&encode(&change, format).1).as_ref(), Ok(&change));
            }
        }
    }

    #[test]
    fn a_change_in_json_is_in_the_canonical_form() {
        let text = |change: &StatusChange| String::from_utf8(encode(change, Json).1).unwrap();
        let told: serde_json::Value = serde_json::from_str(&text(&change())).unwrap();
        assert_eq!(
            told,
            serde_json::json!({
                "deviceId": "0123456789abcdef0123456789abcdef",
                "fleet": "fleet",
                "version": "3",
                "previousStatus": "STATUS_OFFLINE",
                "previousConnectivity": "CONNECTIVITY_NONE",
                "status": "STATUS_ONLINE",
                "connectivity": "CONNECTIVITY_VPN_ONLY",
                "since": "2025-10-09T08:53:20.123Z",
                "connectivitySince": "1969-12-31T23:59:59.999Z",
                "cause": "CAUSE_VPN_OPENED",
                "heartbeatState": "HEARTBEAT_STATE_TIMEOUT",
                "lastHeartbeat": "2025-10-09T08:36:40Z",
                "vpnConnected": true,
                "progress": 40,
                "membershipSince": "2025-06-15T15:06:40Z",
                "previousFleet": "old fleet",
                "previousOrganization": "old organization",
                "vpnInstance": "vpn-1",
                "release": "release-2",
                "updatePhase": "UPDATE_PHASE_APPLYING",
                "updateOutcome": "UPDATE_OUTCOME_FAILED",
                "updateSince": "2025-06-27T04:53:20Z",
            })
        );
        let deleted = text(&StatusChange { current: None, ..change() });
        assert!(deleted.contains(r#""deleted":true"#), "{deleted}");
        // JSON ends with the year 9999, and begins with the year 1.
        for (at, clamped) in [(i64::MAX, "9999-12-31T23:59:59"), (i64::MIN, "0001-01-01T00:00:00")]
        {
            let far = text(&StatusChange { since: Timestamp(at), ..change() });
            assert!(far.contains(clamped), "{far}");
        }
    }

    #[test]
    fn fields_of_a_later_version_are_passed_over_in_json() {
        let (_, value) = encode(&change(), Json);
        let later = String::from_utf8(value).unwrap().replacen('{', r#"{"mood":"good","#, 1);
        assert_eq!(decode(later.as_bytes()), Ok(change()));
        assert!(decode(b"{}").unwrap_err().contains("device id"));
        assert!(decode(b"{").unwrap_err().contains("not a StatusChanged"));
        let twice = [later.as_bytes(), b"{}"].concat();
        assert!(decode(&twice).unwrap_err().contains("trailing"), "{:?}", decode(&twice));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64),
            at in proptest::prelude::any::<i64>(),
        ) {
            let _ = decode(&bytes);
            let change = StatusChange { since: Timestamp(at), ..change() };
            proptest::prop_assert_eq!(decode(&encode(&change, Protobuf).1), Ok(change));
        }
    }

    #[test]
    fn decoding_anything_but_a_change_names_the_reason() {
        assert!(decode(b"\xff").unwrap_err().contains("not a StatusChanged message"));
        assert!(decode(b"").unwrap_err().contains("device id"));
        let unknown = v1::StatusChanged {
            cause: 99,
            ..v1::StatusChanged::decode(encode(&change(), Protobuf).1.as_slice()).unwrap()
        };
        assert!(decode(&unknown.encode_to_vec()).unwrap_err().contains("cause is not known"));
    }

    #[test]
    fn cloud_event_id_is_device_and_version() {
        let headers = headers(&change(), Protobuf, Some("/fleet"));
        let texts: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), str::from_utf8(value.as_ref().unwrap()).unwrap()))
            .collect();
        assert_eq!(
            texts,
            [
                ("ce_specversion", "1.0"),
                ("ce_id", "0123456789abcdef0123456789abcdef:3"),
                ("ce_source", "/fleet"),
                ("ce_type", "device_status.v1.StatusChanged"),
                ("ce_subject", "0123456789abcdef0123456789abcdef"),
                ("ce_time", "2025-10-09T08:53:20.123Z"),
                ("content-type", "application/protobuf"),
            ]
        );
        let in_json = super::headers(&change(), Json, Some("/fleet"));
        assert_eq!(in_json[..6], headers[..6]);
        let content_type = ("content-type".to_owned(), Some(b"application/json".to_vec()));
        assert_eq!(in_json[6], content_type);
        assert_eq!(super::headers(&change(), Json, None), [content_type]);
        assert_eq!(super::headers(&change(), Protobuf, None), []);
    }

    #[test]
    fn a_deletion_has_no_status_and_a_first_change_had_none() {
        let (_, value) =
            encode(&StatusChange { current: None, previous: None, ..change() }, Protobuf);
        let message = v1::StatusChanged::decode(value.as_slice()).unwrap();
        assert!(message.deleted);
        assert_eq!((message.status, message.connectivity), (0, 0));
        assert_eq!((message.previous_status, message.previous_connectivity), (0, 0));
    }

    #[test]
    fn numbers_in_messages_match_the_core() {
        for status in Status::ALL {
            for connectivity in Connectivity::ALL {
                let expected = (status.index() as i32 + 1, connectivity as i32 + 1);
                let numbers = numbers(Some((status, connectivity)));
                assert_eq!(numbers, expected);
                let told = |name: &str| name.to_uppercase().replace('-', "_");
                let named = v1::Status::try_from(numbers.0).unwrap().as_str_name();
                assert_eq!(named, format!("STATUS_{}", told(status.wire_name())));
                let named = v1::Connectivity::try_from(numbers.1).unwrap().as_str_name();
                assert_eq!(named, format!("CONNECTIVITY_{}", told(connectivity.wire_name())));
            }
        }
        assert_eq!(Cause::Deleted as i32, v1::Cause::Deleted as i32);
        assert_eq!(Cause::VpnLeaseExpired as i32, v1::Cause::VpnLeaseExpired as i32);
        assert_eq!(Cause::RulesChanged as i32, v1::Cause::RulesChanged as i32);
    }
}
