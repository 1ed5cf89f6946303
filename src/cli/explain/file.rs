//! A history of events as JSON lines: the messages of `proto/` in a form that
//! people can read and write. The format is in `docs/explain.md`.

use prost_reflect::{Kind, MessageDescriptor, OneofDescriptor};
use prost_types::{Duration as ProtoDuration, Timestamp as ProtoTimestamp};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::cli::text;
use crate::error::Fatal;
use crate::shard::{DeviceId, Event, EventBody, Input, Timestamp};
use crate::wire::decode::{Format, TIMESTAMP_MAX_SECONDS, decode};
use crate::wire::json;
use crate::wire::status_changed::instant;

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
    #[serde(with = "InputName")]
    input: Input,
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
    let value = match event {
        Value::Null => None,
        Value::Object(fields) => {
            Some(canonical(input, fields, at_ms).map_err(|error| format!("event: {error}"))?)
        }
        _ => return Err("event: it must be an object, or null for a deletion".into()),
    };
    let key = device.as_deref().map(str::as_bytes);
    // From here on it is what it would be in Kafka: the same limits hold.
    let event = decode(input, Format::Json, key, value.as_deref().map(str::as_bytes));
    let event = event.map_err(|refusal| {
        // Its place in the canonical form is not that in the line.
        let detail = refusal.detail.split(" at line 1 column ").next().unwrap_or_default();
        format!("event: {detail}")
    })?;
    Ok(Record { at: Timestamp(at_ms), input, event })
}

#[derive(Deserialize)]
#[serde(remote = "Input", rename_all = "snake_case")]
enum InputName {
    Heartbeats,
    VpnSessions,
    Lifecycle,
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
    // The parser takes a date alone for midnight, and the absence of a zone for UTC.
    let has_zone = text.get(19..).is_some_and(|rest| rest.contains(['Z', 'z', '+', '-']));
    let at = text.parse::<ProtoTimestamp>().ok().filter(|_| has_zone).ok_or_else(wrong)?;
    in_range(instant(at).0)
}

/// A length of time in Protobuf's JSON: it is written as `15m`, as `1h 30m`, or as
/// Protobuf has it, `900s`.
fn length(text: &str) -> Result<String, String> {
    let written = || ProtoDuration::try_from(humantime::parse_duration(text).ok()?).ok();
    let length = text.parse::<ProtoDuration>().ok().or_else(written);
    let length = length.ok_or_else(|| format!("{text:?} is no length of time: write \"15m\""))?;
    Ok(length.to_string())
}

/// An input's message in Protobuf's JSON.
fn canonical(input: Input, fields: Map<String, Value>, at_ms: i64) -> Result<String, String> {
    let message = json::descriptor(json::message_of(input))?;
    let mut fields = canonical_fields(&message, fields)?;
    if input == Input::Heartbeats && fields.get("occurredAt").is_none_or(Value::is_null) {
        // A message that says nothing at all is refused; what is absent is the
        // record's time.
        fields.insert("occurredAt".to_owned(), text::moment(at_ms).into());
    }
    Ok(Value::Object(fields).to_string())
}

fn canonical_fields(
    message: &MessageDescriptor,
    fields: Map<String, Value>,
) -> Result<Map<String, Value>, String> {
    let mut canonical = Map::new();
    let mut events = Vec::new();
    let choice = choice_of(message);
    for (name, value) in fields {
        let field = message.get_field_by_name(&name);
        let field = field.or_else(|| message.get_field_by_json_name(&name));
        let field = field.ok_or_else(|| unknown(message, &name))?;
        if choice.is_some() && field.containing_oneof() == choice {
            events.push(name);
        }
        canonical.insert(field.json_name().to_owned(), canonical_value(&field.kind(), value)?);
    }
    match events.len() {
        0 if choice.is_some() => Err("it names no event, as {\"provisioned\": {}} does".to_owned()),
        0 | 1 => Ok(canonical),
        _ => Err(format!("a line holds one event, not {}", events.join(" and "))),
    }
}

fn canonical_value(kind: &Kind, value: Value) -> Result<Value, String> {
    match (kind, value) {
        (_, Value::Null) => Ok(Value::Null),
        (Kind::Message(message), value) => match (message.full_name(), value) {
            ("google.protobuf.Timestamp", value) => {
                Moment::try_from(value).map(|Moment(ms)| text::moment(ms).into())
            }
            ("google.protobuf.Duration", Value::String(text)) => length(&text).map(Value::from),
            (_, Value::Object(fields)) => canonical_fields(message, fields).map(Value::from),
            (_, other) => Ok(other),
        },
        (Kind::Enum(values), Value::String(text)) => {
            let first = values.default_value();
            let prefix = first.name().trim_end_matches("UNSPECIFIED");
            let whole = format!("{prefix}{}", text.to_ascii_uppercase());
            let is_known = values.get_value_by_name(&whole).is_some();
            Ok(if is_known { whole } else { text }.into())
        }
        (_, other) => Ok(other),
    }
}

/// The choice of events that a message is, if it is one.
fn choice_of(message: &MessageDescriptor) -> Option<OneofDescriptor> {
    message.oneofs().find(|oneof| !oneof.is_synthetic())
}

fn unknown(message: &MessageDescriptor, name: &str) -> String {
    let (what, fields): (_, Vec<_>) = match choice_of(message) {
        Some(choice) => ("event", choice.fields().collect()),
        None => ("field", message.fields().collect()),
    };
    let names: Vec<String> = fields.iter().map(|field| format!("`{}`", field.name())).collect();
    let expected = match &names[..] {
        [] => "there are no fields".to_owned(),
        [name] => format!("expected {name}"),
        names => format!("expected one of {}", names.join(", ")),
    };
    format!("unknown {what} `{name}`, {expected}")
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
        assert_eq!(moment("1969-12-31T23:00:01-01:00"), Ok(1_000));
        assert_eq!(
            moment("1969-12-31T23:59:59Z").unwrap_err(),
            "-1000 is no time between the years 1970 and 9999"
        );
        assert_eq!(moment("1767225600000"), Ok(1_767_225_600_000));
        for wrong in ["", "now", "10:30", "2026-01-31", "2026-01-31T10:30:00", "-1", "1€€"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_line_says_what_the_message_says() {
        let line = r#"{"at": 5000, "input": "heartbeats", "device": "a", "event": {"poll_interval": "1h 30m"}}"#;
        let record = record(line).unwrap();
        assert_eq!((record.at, record.input), (Timestamp(5_000), Input::Heartbeats));
        assert_eq!(record.event.occurred_at, Some(Timestamp(5_000)));
        let EventBody::Heartbeat { poll_interval_s, .. } = record.event.body else { panic!() };
        assert_eq!(poll_interval_s, Some(5_400));
        // Protobuf's own JSON is read as well.
        let line = r#"{"at": 0, "input": "lifecycle", "event": {"occurredAt": "1970-01-01T00:00:00Z",
            "fleetSettingsChanged": {"fleet": "f", "pollInterval": "900s", "vpnEnabled": false}}}"#;
        let settings = Settings { poll_interval_s: Some(900), vpn_enabled: Some(false) };
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
                r#"{"at": 0, "input": "heartbeats", "device": "a", "event": {"poll_interval": "367d"}}"#,
                "event: poll_interval is 31708800 s and 0 ns; it must be from 1 s to 366 days",
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
