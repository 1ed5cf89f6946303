//! A history of events as JSON lines: the messages of `proto/` in a form that
//! people can read and write. The format is in `docs/explain.md`.

use prost::Message as _;
use prost_types::{Duration as ProtoDuration, Timestamp as ProtoTimestamp};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::Fatal;
use crate::shard::{DeviceId, Event, EventBody, Input, Timestamp};
use crate::wire::decode::{Format, TIMESTAMP_MAX_SECONDS, decode};
use crate::wire::proto::v1;

/// One line: a record of an input, decoded.
#[derive(Clone, Debug)]
pub struct Record {
    /// The record's timestamp.
    pub at: Timestamp,
    /// Where it is read.
    pub input: Input,
    /// What it says.
    pub event: Event,
}

impl Record {
    /// The device that it concerns; none: it concerns a scope.
    pub fn device(&self) -> Option<&DeviceId> {
        match &self.event.body {
            EventBody::Heartbeat { device, .. } | EventBody::Device { device, .. } => Some(device),
            EventBody::Scope(_) => None,
        }
    }
}

/// How many wrong lines are told of.
const TOLD_OF: usize = 10;

/// Reads a whole history. `name` is that of the file.
///
/// # Errors
/// Of kind usage, with the numbers of the lines that cannot be read.
pub fn read(name: &str, text: &str) -> Result<Vec<Record>, Fatal> {
    let mut records = Vec::new();
    let mut wrong = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        match record(line) {
            Ok(record) => records.push(record),
            Err(message) => wrong.push(format!("line {number}: {message}")),
        }
    }
    if wrong.is_empty() {
        return Ok(records);
    }
    let count = wrong.len();
    let mut message = match count {
        1 => format!("{name}: a line cannot be read:"),
        _ => format!("{name}: {count} lines cannot be read:"),
    };
    for line in wrong.into_iter().take(TOLD_OF) {
        message.push_str("\n  ");
        message.push_str(&line);
    }
    if count > TOLD_OF {
        message.push_str(&format!("\n  and {} more", count - TOLD_OF));
    }
    Err(Fatal::usage(message))
}

/// One line, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    at: Moment,
    input: InputName,
    #[serde(default)]
    device: Option<String>,
    event: Value,
}

fn record(line: &str) -> Result<Record, String> {
    let line: Line = serde_json::from_str(line).map_err(|error| {
        // It is one line to the parser: only the column helps.
        error.to_string().replace(" at line 1 column ", ", at column ")
    })?;
    let Line { at: Moment(at_ms), input, device, event } = line;
    let input = input.input();
    let value = match (event, input) {
        (Value::Null, _) => None,
        (Value::Object(fields), Input::Heartbeats) => Some(heartbeat(fields, at_ms)?),
        (Value::Object(fields), Input::VpnSessions) => Some(vpn_event(fields)?),
        (Value::Object(fields), Input::Lifecycle) => Some(lifecycle_event(fields)?),
        _ => return Err("event: it must be an object, or null for a deletion".into()),
    };
    let key = device.as_deref().map(str::as_bytes);
    // From here on it is what it would be in Kafka: the same limits hold.
    let event = decode(input, Format::Protobuf, key, value.as_deref())
        .map_err(|refusal| format!("event: {}", refusal.detail))?;
    Ok(Record { at: Timestamp(at_ms), input, event })
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum InputName {
    Heartbeats,
    VpnSessions,
    Lifecycle,
}

impl InputName {
    fn input(self) -> Input {
        match self {
            InputName::Heartbeats => Input::Heartbeats,
            InputName::VpnSessions => Input::VpnSessions,
            InputName::Lifecycle => Input::Lifecycle,
        }
    }
}

/// An instant: RFC 3339, or milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub struct Moment(pub i64);

impl TryFrom<Value> for Moment {
    type Error = String;

    fn try_from(value: Value) -> Result<Moment, String> {
        match &value {
            Value::String(text) => moment(text).map(Moment),
            Value::Number(number) => match number.as_i64() {
                Some(ms) => in_range(ms).map(Moment),
                None => Err(format!("{number} is no time in whole milliseconds")),
            },
            _ => {
                Err(format!("{value} is no time: write \"2026-01-31T10:30:00Z\", or milliseconds"))
            }
        }
    }
}

impl Moment {
    fn proto(self) -> ProtoTimestamp {
        let Moment(ms) = self;
        let nanos = i32::try_from(ms.rem_euclid(1_000)).unwrap_or(0) * 1_000_000;
        ProtoTimestamp { seconds: ms.div_euclid(1_000), nanos }
    }
}

fn in_range(ms: i64) -> Result<i64, String> {
    if !(0..=TIMESTAMP_MAX_SECONDS * 1_000 + 999).contains(&ms) {
        return Err(format!("{ms} is no time between the years 1970 and 9999"));
    }
    Ok(ms)
}

/// An instant as RFC 3339 has it, or milliseconds since the epoch.
///
/// # Errors
/// When it is neither.
pub fn moment(text: &str) -> Result<i64, String> {
    let wrong =
        || format!("{text:?} is no time: write 2026-01-31T10:30:00Z, or milliseconds since 1970");
    if let Ok(ms) = text.parse::<i64>() {
        return in_range(ms);
    }
    let (local, offset_minutes) = split_offset(text).ok_or_else(wrong)?;
    let at = humantime::parse_rfc3339(&format!("{local}Z")).map_err(|_| wrong())?;
    let since_epoch = at.duration_since(std::time::UNIX_EPOCH).map_err(|_| wrong())?;
    let ms = i64::try_from(since_epoch.as_millis()).map_err(|_| wrong())?;
    in_range(ms - offset_minutes * 60_000)
}

/// Splits `…Z` or `…+02:00` into the local time and the minutes that it is ahead.
fn split_offset(text: &str) -> Option<(&str, i64)> {
    if let Some(local) = text.strip_suffix(['Z', 'z']) {
        return Some((local, 0));
    }
    let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let sign = match offset.get(..1)? {
        "+" => 1,
        "-" => -1,
        _ => return None,
    };
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let (hours, minutes) = (hours.parse::<u8>().ok()?, minutes.parse::<u8>().ok()?);
    (hours < 24 && minutes < 60)
        .then(|| (local, sign * (i64::from(hours) * 60 + i64::from(minutes))))
}

/// A length of time: `15m`, `1h 30m`, or `900s` as Protobuf's JSON has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Length(ProtoDuration);

impl TryFrom<String> for Length {
    type Error = String;

    fn try_from(text: String) -> Result<Length, String> {
        let seconds = text.strip_suffix('s').and_then(|number| number.parse::<f64>().ok());
        let length = match seconds {
            Some(seconds) => std::time::Duration::try_from_secs_f64(seconds).ok(),
            None => humantime::parse_duration(&text).ok(),
        };
        let length = length.and_then(|length| ProtoDuration::try_from(length).ok());
        length.map(Length).ok_or_else(|| format!("{text:?} is no length of time: write \"15m\""))
    }
}

fn parsed<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value)
        .map_err(|error| format!("event: {}", error.to_string().replace("variant", "event")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Heartbeat {
    #[serde(alias = "occurredAt")]
    occurred_at: Option<Moment>,
    #[serde(alias = "pollInterval")]
    poll_interval: Option<Length>,
}

fn heartbeat(fields: Map<String, Value>, at_ms: i64) -> Result<Vec<u8>, String> {
    let said: Heartbeat = parsed(Value::Object(fields))?;
    let message = v1::Heartbeat {
        // A message that says nothing at all has no bytes, and is refused; what
        // is absent is the record's time.
        occurred_at: Some(said.occurred_at.unwrap_or(Moment(at_ms)).proto()),
        poll_interval: said.poll_interval.map(|Length(length)| length),
    };
    Ok(message.encode_to_vec())
}

/// Takes `occurred_at` out, and what is left apart: one event.
fn one_event(mut fields: Map<String, Value>) -> Result<(Option<ProtoTimestamp>, Value), String> {
    let said = fields.remove("occurred_at").or_else(|| fields.remove("occurredAt"));
    let said = said.filter(|said| !said.is_null());
    let occurred_at = said.map(Moment::try_from).transpose();
    let occurred_at = occurred_at.map_err(|error| format!("event: occurred_at: {error}"))?;
    if fields.len() != 1 {
        let names: Vec<&str> = fields.keys().map(String::as_str).collect();
        return Err(match names[..] {
            [] => "event: it names no event, as {\"provisioned\": {}} does".into(),
            _ => format!("event: a line holds one event, not {}", names.join(" and ")),
        });
    }
    Ok((occurred_at.map(Moment::proto), Value::Object(fields)))
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Vpn {
    #[serde(alias = "sessionOpened")]
    SessionOpened { instance: String, session: String },
    #[serde(alias = "sessionClosed")]
    SessionClosed { instance: String, session: String },
    #[serde(alias = "instanceAlive")]
    InstanceAlive {
        instance: String,
        #[serde(alias = "startedAt")]
        started_at: Option<Moment>,
        lease: Length,
    },
    #[serde(alias = "instanceLost")]
    InstanceLost { instance: String },
}

fn vpn_event(fields: Map<String, Value>) -> Result<Vec<u8>, String> {
    use v1::vpn_event::Event as E;

    let (occurred_at, said) = one_event(fields)?;
    let event = match parsed(said)? {
        Vpn::SessionOpened { instance, session } => {
            E::SessionOpened(v1::SessionOpened { instance, session })
        }
        Vpn::SessionClosed { instance, session } => {
            E::SessionClosed(v1::SessionClosed { instance, session })
        }
        Vpn::InstanceAlive { instance, started_at, lease: Length(lease) } => {
            let started_at = started_at.map(Moment::proto);
            E::InstanceAlive(v1::InstanceAlive { instance, started_at, lease: Some(lease) })
        }
        Vpn::InstanceLost { instance } => E::InstanceLost(v1::InstanceLost { instance }),
    };
    Ok(v1::VpnEvent { occurred_at, event: Some(event) }.encode_to_vec())
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reason {
    #[default]
    #[serde(alias = "FROZEN_REASON_UNSPECIFIED")]
    Unspecified,
    #[serde(alias = "FROZEN_REASON_ALLOWANCE")]
    Allowance,
    #[serde(alias = "FROZEN_REASON_PAID_APPLICATION_TYPE")]
    PaidApplicationType,
    #[serde(alias = "FROZEN_REASON_OVERDUE_INVOICES")]
    OverdueInvoices,
    #[serde(alias = "FROZEN_REASON_OTHER")]
    Other,
}

impl Reason {
    fn number(self) -> i32 {
        i32::from(match self {
            Reason::Unspecified => v1::FrozenReason::Unspecified,
            Reason::Allowance => v1::FrozenReason::Allowance,
            Reason::PaidApplicationType => v1::FrozenReason::PaidApplicationType,
            Reason::OverdueInvoices => v1::FrozenReason::OverdueInvoices,
            Reason::Other => v1::FrozenReason::Other,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Lifecycle {
    Registered {
        #[serde(default)]
        fleet: String,
        #[serde(default)]
        organization: String,
        #[serde(default)]
        preregistered: bool,
    },
    Provisioned {},
    Activated {},
    Deactivated {},
    Frozen {
        #[serde(default)]
        reason: Reason,
    },
    Unfrozen {
        #[serde(default)]
        reason: Reason,
    },
    #[serde(alias = "configurationStarted")]
    ConfigurationStarted {},
    #[serde(alias = "configurationProgressed")]
    ConfigurationProgressed {
        percent: u32,
    },
    #[serde(alias = "configurationFinished")]
    ConfigurationFinished {},
    #[serde(alias = "updateStarted")]
    UpdateStarted {
        #[serde(default)]
        release: String,
    },
    #[serde(alias = "updateProgressed")]
    UpdateProgressed {
        percent: u32,
    },
    #[serde(alias = "updateFinished")]
    UpdateFinished {},
    #[serde(alias = "settingsChanged")]
    SettingsChanged {
        #[serde(alias = "pollInterval")]
        poll_interval: Option<Length>,
        #[serde(alias = "vpnEnabled")]
        vpn_enabled: Option<bool>,
    },
    Moved {
        #[serde(default)]
        fleet: String,
        #[serde(default)]
        organization: String,
    },
    Deleted {},
    #[serde(alias = "fleetSettingsChanged")]
    FleetSettingsChanged {
        fleet: String,
        #[serde(alias = "pollInterval")]
        poll_interval: Option<Length>,
        #[serde(alias = "vpnEnabled")]
        vpn_enabled: Option<bool>,
    },
    #[serde(alias = "fleetFrozen")]
    FleetFrozen {
        fleet: String,
        #[serde(default)]
        reason: Reason,
    },
    #[serde(alias = "fleetUnfrozen")]
    FleetUnfrozen {
        fleet: String,
        #[serde(default)]
        reason: Reason,
    },
    #[serde(alias = "organizationFrozen")]
    OrganizationFrozen {
        organization: String,
        #[serde(default)]
        reason: Reason,
    },
    #[serde(alias = "organizationUnfrozen")]
    OrganizationUnfrozen {
        organization: String,
        #[serde(default)]
        reason: Reason,
    },
}

fn lifecycle_event(fields: Map<String, Value>) -> Result<Vec<u8>, String> {
    use v1::lifecycle_event::Event as E;

    let length = |said: Option<Length>| said.map(|Length(length)| length);
    let (occurred_at, said) = one_event(fields)?;
    let event = match parsed(said)? {
        Lifecycle::Registered { fleet, organization, preregistered } => {
            E::Registered(v1::Registered { fleet, organization, preregistered })
        }
        Lifecycle::Provisioned {} => E::Provisioned(v1::Provisioned {}),
        Lifecycle::Activated {} => E::Activated(v1::Activated {}),
        Lifecycle::Deactivated {} => E::Deactivated(v1::Deactivated {}),
        Lifecycle::Frozen { reason } => E::Frozen(v1::Frozen { reason: reason.number() }),
        Lifecycle::Unfrozen { reason } => E::Unfrozen(v1::Unfrozen { reason: reason.number() }),
        Lifecycle::ConfigurationStarted {} => E::ConfigurationStarted(v1::ConfigurationStarted {}),
        Lifecycle::ConfigurationProgressed { percent } => {
            E::ConfigurationProgressed(v1::ConfigurationProgressed { percent })
        }
        Lifecycle::ConfigurationFinished {} => {
            E::ConfigurationFinished(v1::ConfigurationFinished {})
        }
        Lifecycle::UpdateStarted { release } => E::UpdateStarted(v1::UpdateStarted { release }),
        Lifecycle::UpdateProgressed { percent } => {
            E::UpdateProgressed(v1::UpdateProgressed { percent })
        }
        Lifecycle::UpdateFinished {} => E::UpdateFinished(v1::UpdateFinished {}),
        Lifecycle::SettingsChanged { poll_interval, vpn_enabled } => {
            let poll_interval = length(poll_interval);
            E::SettingsChanged(v1::SettingsChanged { poll_interval, vpn_enabled })
        }
        Lifecycle::Moved { fleet, organization } => E::Moved(v1::Moved { fleet, organization }),
        Lifecycle::Deleted {} => E::Deleted(v1::Deleted {}),
        Lifecycle::FleetSettingsChanged { fleet, poll_interval, vpn_enabled } => {
            let poll_interval = length(poll_interval);
            E::FleetSettingsChanged(v1::FleetSettingsChanged { fleet, poll_interval, vpn_enabled })
        }
        Lifecycle::FleetFrozen { fleet, reason } => {
            E::FleetFrozen(v1::FleetFrozen { fleet, reason: reason.number() })
        }
        Lifecycle::FleetUnfrozen { fleet, reason } => {
            E::FleetUnfrozen(v1::FleetUnfrozen { fleet, reason: reason.number() })
        }
        Lifecycle::OrganizationFrozen { organization, reason } => {
            let reason = reason.number();
            E::OrganizationFrozen(v1::OrganizationFrozen { organization, reason })
        }
        Lifecycle::OrganizationUnfrozen { organization, reason } => {
            let reason = reason.number();
            E::OrganizationUnfrozen(v1::OrganizationUnfrozen { organization, reason })
        }
    };
    Ok(v1::LifecycleEvent { occurred_at, event: Some(event) }.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::{DeviceEvent, FrozenReason, ScopeEvent, Settings};

    fn said(line: &str) -> Result<EventBody, String> {
        record(line).map(|record| record.event.body)
    }

    #[test]
    fn times_are_rfc_3339_or_milliseconds() {
        assert_eq!(moment("1970-01-01T00:00:01.5Z"), Ok(1_500));
        assert_eq!(moment("1970-01-01T02:00:01+02:00"), Ok(1_000));
        assert_eq!(
            moment("1969-12-31T23:00:01-01:00"),
            Err(moment_error("1969-12-31T23:00:01-01:00"))
        );
        assert_eq!(moment("1767225600000"), Ok(1_767_225_600_000));
        for wrong in ["", "now", "10:30", "2026-01-31", "2026-01-31T10:30:00", "-1", "1€€"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }

    fn moment_error(text: &str) -> String {
        format!("{text:?} is no time: write 2026-01-31T10:30:00Z, or milliseconds since 1970")
    }

    #[test]
    fn a_line_says_what_the_message_says() {
        let line = r#"{"at": 5000, "input": "heartbeats", "device": "a", "event": {"poll_interval": "1h 30m"}}"#;
        let record = record(line).unwrap();
        assert_eq!((record.at, record.input), (Timestamp(5_000), Input::Heartbeats));
        assert_eq!(record.event.occurred_at, Some(Timestamp(5_000)));
        let EventBody::Heartbeat { poll_interval_ms, .. } = record.event.body else { panic!() };
        assert_eq!(poll_interval_ms, Some(5_400_000));
        // Protobuf's own JSON is read as well.
        let line = r#"{"at": 0, "input": "lifecycle", "event": {"occurredAt": "1970-01-01T00:00:00Z",
            "fleetSettingsChanged": {"fleet": "f", "pollInterval": "900s", "vpnEnabled": false}}}"#;
        let settings = Settings { poll_interval_ms: Some(900_000), vpn_enabled: Some(false) };
        let event = ScopeEvent::FleetSettingsChanged { fleet: "f".into(), settings };
        assert_eq!(said(line), Ok(EventBody::Scope(event)));
        let line = r#"{"at": 0, "input": "lifecycle", "device": "a",
            "event": {"frozen": {"reason": "FROZEN_REASON_ALLOWANCE"}}}"#;
        let device = DeviceId::from_key(b"a").unwrap();
        let event = DeviceEvent::Frozen { reason: FrozenReason::Allowance };
        assert_eq!(said(line), Ok(EventBody::Device { device: device.clone(), event }));
        // A null value is a deletion, as in Kafka.
        let line = r#"{"at": 0, "input": "lifecycle", "device": "a", "event": null}"#;
        let event = DeviceEvent::Deleted;
        assert_eq!(said(line), Ok(EventBody::Device { device, event }));
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said() {
        for (line, expected) in [
            ("{", "EOF while parsing an object, at column 1"),
            (
                r#"{"at": 0, "input": "heartbeats", "device": "a"}"#,
                "missing field `event`, at column 47",
            ),
            (
                r#"{"at": 0, "input": "vpn", "event": {}}"#,
                "unknown variant `vpn`, expected one of \
                `heartbeats`, `vpn_sessions`, `lifecycle`, at column 24",
            ),
            (
                r#"{"at": "noon", "input": "heartbeats", "event": {}}"#,
                "\"noon\" is no time: write \
                2026-01-31T10:30:00Z, or milliseconds since 1970, at column 13",
            ),
            (
                r#"{"at": 0, "input": "heartbeats", "event": {}}"#,
                "event: a heartbeat concerns one device, and the record has no key",
            ),
            (
                r#"{"at": 0, "input": "heartbeats", "device": "a", "event": {"poll_interval": "soon"}}"#,
                "event: \"soon\" is no length of time: write \"15m\"",
            ),
            (
                r#"{"at": 0, "input": "heartbeats", "device": "a", "event": {"poll_interval": "8d"}}"#,
                "event: poll_interval is 691200 s and 0 ns; it must be from 1 s to 7 days",
            ),
            (
                r#"{"at": 0, "input": "lifecycle", "device": "a", "event": {}}"#,
                "event: it names no event, as {\"provisioned\": {}} does",
            ),
            (
                r#"{"at": 0, "input": "lifecycle", "device": "a", "event": {"moved": {}, "frozen": {}}}"#,
                "event: a line holds one event, not frozen and moved",
            ),
            (
                r#"{"at": 0, "input": "lifecycle", "device": "a", "event": {"fleet_frozen": {"fleet": "f"}}}"#,
                "event: fleet_frozen concerns every partition: its record must have a null key, \
                 one copy to each partition",
            ),
            (
                r#"{"at": 0, "input": "vpn_sessions", "device": "a", "event": null}"#,
                "event: the value is null; only the lifecycle topic has tombstones",
            ),
            (
                r#"{"at": 0, "input": "lifecycle", "device": "a", "event": {"frozen": {"because": 1}}}"#,
                "event: unknown field `because`, expected `reason`",
            ),
        ] {
            assert_eq!(said(line).unwrap_err(), expected, "{line}");
        }
        let error =
            said(r#"{"at": 0, "input": "vpn_sessions", "device": "a", "event": {"opened": {}}}"#);
        assert!(
            error.unwrap_err().starts_with("event: unknown event `opened`, expected one of `s")
        );
    }

    #[test]
    fn every_wrong_line_is_named() {
        let error = read("h.jsonl", "\n{\n\n[]\n").unwrap_err();
        assert_eq!(error.kind, crate::error::FatalKind::Usage);
        let lines: Vec<&str> = error.message.lines().collect();
        assert_eq!(lines[0], "h.jsonl: 2 lines cannot be read:");
        assert!(lines[1].starts_with("  line 2: ") && lines[2].starts_with("  line 4: "));
        let error = read("h.jsonl", &"{\n".repeat(15)).unwrap_err();
        assert!(error.message.ends_with("and 5 more"), "{}", error.message);
    }
}
