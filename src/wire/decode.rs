//! Decodes a record of an input to an [`Event`], or to a reason why it cannot be
//! used.
//!
//! Every record ends as one of the two. No bytes from a producer cause a panic,
//! and nothing is guessed. A refused record becomes a dead letter
//! (docs/events.md), and the partition continues.

use std::sync::Arc;

use prost::Message;
use prost_types::{Duration, Timestamp as ProtoTimestamp};

use super::json;
use super::proto::v1;
use crate::shard::rules::INTERVAL_MAX_S;
use crate::shard::{
    DeadLetterReason, DeviceEvent, DeviceId, Event, EventBody, FrozenReason, Input, ScopeEvent,
    Settings, Timestamp, UpdateOutcome, UpdatePhase,
};

/// The longest name of a fleet, an organization, a VPN instance, a session or
/// a release, in bytes.
pub const NAME_MAX_BYTES: usize = 255;

/// The shortest poll interval and lease, in milliseconds (rules J3, J4).
pub const INTERVAL_MIN_MS: u32 = 1_000;

/// The longest lease, in milliseconds (rule J4).
pub const LEASE_MAX_MS: u32 = 7 * 24 * 3_600_000;

/// The greatest percentage.
pub const PERCENT_MAX: u32 = 100;

/// The last second that a Protobuf timestamp may name: 9999-12-31T23:59:59Z.
pub const TIMESTAMP_MAX_SECONDS: i64 = 253_402_300_799;

/// The greatest nanosecond of a second.
const NANOS_MAX: i32 = 999_999_999;

/// The first byte of the Confluent wire format.
const CONFLUENT_MAGIC: u8 = 0;

/// The deepest nesting of a message in its schema. The Confluent wire format
/// contains the path to it.
const CONFLUENT_MAX_DEPTH: i64 = 16;

/// The format of an input's values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// The bare message.
    #[default]
    Protobuf,
    /// The message behind the Confluent Schema Registry's framing: a zero byte,
    /// the schema's id in four bytes, the message's place in the schema. Both are
    /// skipped, because each topic has one message type.
    ConfluentProtobuf,
    /// The message in Protobuf's canonical JSON form.
    Json,
}

impl Format {
    /// All formats.
    pub const ALL: [Format; 3] = [Format::Protobuf, Format::ConfluentProtobuf, Format::Json];

    /// The name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Format::Protobuf => "protobuf",
            Format::ConfluentProtobuf => "confluent-protobuf",
            Format::Json => "json",
        }
    }
}

/// Why a record could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", .reason.code())]
pub struct Refusal {
    /// For headers and metrics.
    pub reason: DeadLetterReason,
    /// For people: the field, and what is wrong with it.
    pub detail: String,
}

impl Refusal {
    fn new(reason: DeadLetterReason, detail: impl Into<String>) -> Refusal {
        Refusal { reason, detail: detail.into() }
    }

    fn undecodable(detail: impl Into<String>) -> Refusal {
        Refusal::new(DeadLetterReason::Undecodable, detail)
    }

    fn invalid(detail: impl Into<String>) -> Refusal {
        Refusal::new(DeadLetterReason::InvalidValue, detail)
    }
}

/// Reads one record of an input.
///
/// A null value is a tombstone: a deletion on the lifecycle topic, with a key;
/// refused everywhere else. An empty value is refused, because it usually comes
/// from a broken producer. (Protobuf would read it as a message without fields.)
/// So a heartbeat must carry at least one field.
///
/// # Errors
/// The record cannot be used: it must become a dead letter.
pub fn decode(
    input: Input,
    format: Format,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Result<Event, Refusal> {
    let Some(value) = value else { return tombstone(input, key) };
    let message = match format {
        Format::Protobuf | Format::Json => value,
        Format::ConfluentProtobuf => strip_confluent_framing(value)?,
    };
    if message.is_empty() {
        return Err(Refusal::undecodable("the value is empty"));
    }
    match input {
        Input::Heartbeats => {
            // The bytes of the other formats differ.
            let quick = format != Format::Json;
            let read = quick.then(|| super::heartbeat::read(message)).flatten();
            heartbeat(key, read.map_or_else(|| parse(format, message), Ok)?)
        }
        Input::VpnSessions => vpn_event(key, parse(format, message)?),
        Input::Lifecycle => lifecycle_event(key, parse(format, message)?),
    }
}

/// A value of an input as JSON, for people: the message, even if the core would
/// refuse it.
///
/// # Errors
/// Why the value is not a message, for people.
pub fn to_json(input: Input, format: Format, value: &[u8]) -> Result<String, String> {
    let message = match format {
        Format::Json => return String::from_utf8(value.to_vec()).map_err(|e| e.to_string()),
        Format::Protobuf => value,
        Format::ConfluentProtobuf => {
            strip_confluent_framing(value).map_err(|refusal| refusal.detail)?
        }
    };
    json::write_bytes(json::message_of(input), message)
}

fn parse<M: Message + Default + prost::Name>(format: Format, bytes: &[u8]) -> Result<M, Refusal> {
    let read = match format {
        Format::Json => json::read(bytes),
        Format::Protobuf | Format::ConfluentProtobuf => {
            M::decode(bytes).map_err(|error| error.to_string())
        }
    };
    read.map_err(|error| Refusal::undecodable(format!("the value is not a {}: {error}", M::NAME)))
}

fn tombstone(input: Input, key: Option<&[u8]>) -> Result<Event, Refusal> {
    match input {
        Input::Lifecycle => {
            let device = device(key, "a deletion by a null value")?;
            let body = EventBody::Device { device, event: DeviceEvent::Deleted };
            Ok(Event { occurred_at: None, body })
        }
        Input::VpnSessions | Input::Heartbeats => Err(Refusal::new(
            DeadLetterReason::UnexpectedTombstone,
            "the value is null; only the lifecycle topic has tombstones",
        )),
    }
}

fn heartbeat(key: Option<&[u8]>, message: v1::Heartbeat) -> Result<Event, Refusal> {
    let device = device(key, "a heartbeat")?;
    let occurred_at = occurred_at(message.occurred_at)?;
    let poll_interval_s = poll_interval(message.poll_interval)?;
    let going_away = message.going_away;
    Ok(Event { occurred_at, body: EventBody::Heartbeat { device, poll_interval_s, going_away } })
}

fn vpn_event(key: Option<&[u8]>, message: v1::VpnEvent) -> Result<Event, Refusal> {
    use v1::vpn_event::Event as Said;

    let Some(said) = message.event else { return Err(unknown_event()) };
    let body = match said {
        Said::SessionOpened(v1::SessionOpened { instance, session, opened_at, lease }) => {
            let event = DeviceEvent::SessionOpened {
                instance: required_name("session_opened.instance", instance)?,
                session: name("session_opened.session", session)?,
                opened_at: optional_timestamp("session_opened.opened_at", opened_at)?,
                lease_ms: lease
                    .map(|lease| self::lease("session_opened.lease", lease))
                    .transpose()?,
            };
            EventBody::Device { device: device(key, "session_opened")?, event }
        }
        Said::SessionClosed(v1::SessionClosed { instance, session, opened_at }) => {
            let event = DeviceEvent::SessionClosed {
                instance: required_name("session_closed.instance", instance)?,
                session: name("session_closed.session", session)?,
                opened_at: optional_timestamp("session_closed.opened_at", opened_at)?,
            };
            EventBody::Device { device: device(key, "session_closed")?, event }
        }
        Said::InstanceAlive(v1::InstanceAlive { instance, started_at, lease }) => {
            no_key(key, "instance_alive")?;
            EventBody::Scope(ScopeEvent::InstanceAlive {
                instance: required_name("instance_alive.instance", instance)?,
                started_at: optional_timestamp("instance_alive.started_at", started_at)?,
                lease_ms: self::lease(
                    "instance_alive.lease",
                    lease.ok_or_else(|| Refusal::invalid("instance_alive.lease is absent"))?,
                )?,
            })
        }
        Said::InstanceLost(v1::InstanceLost { instance }) => {
            no_key(key, "instance_lost")?;
            EventBody::Scope(ScopeEvent::InstanceLost {
                instance: required_name("instance_lost.instance", instance)?,
            })
        }
    };
    Ok(Event { occurred_at: occurred_at(message.occurred_at)?, body })
}

fn lifecycle_event(key: Option<&[u8]>, message: v1::LifecycleEvent) -> Result<Event, Refusal> {
    let Some(said) = message.event else { return Err(unknown_event()) };
    let body = match lifecycle_said(said)? {
        Said::OfDevice(name, event) => EventBody::Device { device: device(key, name)?, event },
        Said::OfScope(name, event) => {
            no_key(key, name)?;
            EventBody::Scope(event)
        }
    };
    Ok(Event { occurred_at: occurred_at(message.occurred_at)?, body })
}

/// A lifecycle event with its name, before its key is checked.
enum Said {
    OfDevice(&'static str, DeviceEvent),
    OfScope(&'static str, ScopeEvent),
}

fn lifecycle_said(said: v1::lifecycle_event::Event) -> Result<Said, Refusal> {
    use DeviceEvent as D;
    use Said::{OfDevice, OfScope};
    use v1::lifecycle_event::Event as E;

    Ok(match said {
        E::Registered(v1::Registered { fleet, organization, preregistered }) => {
            let fleet = name("registered.fleet", fleet)?;
            let organization = name("registered.organization", organization)?;
            let event = D::Registered { fleet, organization, preregistered };
            OfDevice("registered", event)
        }
        E::Provisioned(v1::Provisioned {}) => OfDevice("provisioned", D::Provisioned),
        E::Activated(v1::Activated {}) => OfDevice("activated", D::Activated),
        E::Deactivated(v1::Deactivated {}) => OfDevice("deactivated", D::Deactivated),
        E::Frozen(v1::Frozen { reason }) => {
            let reason = freezing("frozen.reason", reason)?;
            OfDevice("frozen", D::Frozen { reason })
        }
        E::Unfrozen(v1::Unfrozen { reason }) => {
            let reason = lifting("unfrozen.reason", reason)?;
            OfDevice("unfrozen", D::Unfrozen { reason })
        }
        E::ConfigurationStarted(v1::ConfigurationStarted {}) => {
            OfDevice("configuration_started", D::ConfigurationStarted)
        }
        E::ConfigurationProgressed(v1::ConfigurationProgressed { percent: said }) => {
            let percent = percent("configuration_progressed.percent", said)?;
            let event = D::ConfigurationProgressed { percent };
            OfDevice("configuration_progressed", event)
        }
        E::ConfigurationFinished(v1::ConfigurationFinished { outcome: said }) => {
            let outcome = outcome("configuration_finished.outcome", said)?;
            OfDevice("configuration_finished", D::ConfigurationFinished { outcome })
        }
        E::UpdateStarted(v1::UpdateStarted { release }) => {
            let release = name("update_started.release", release)?;
            OfDevice("update_started", D::UpdateStarted { release })
        }
        E::UpdateProgressed(v1::UpdateProgressed { percent: said, phase: doing, release }) => {
            let event = D::UpdateProgressed {
                percent: percent("update_progressed.percent", said)?,
                phase: phase("update_progressed.phase", doing)?,
                release: name("update_progressed.release", release.unwrap_or_default())?,
            };
            OfDevice("update_progressed", event)
        }
        E::UpdateFinished(v1::UpdateFinished { release, outcome: said }) => {
            let release = name("update_finished.release", release.unwrap_or_default())?;
            let outcome = outcome("update_finished.outcome", said)?;
            OfDevice("update_finished", D::UpdateFinished { release, outcome })
        }
        E::SettingsChanged(v1::SettingsChanged { poll_interval: said, vpn_enabled }) => {
            let settings = Settings { poll_interval_s: poll_interval(said)?, vpn_enabled };
            OfDevice("settings_changed", D::SettingsChanged(settings))
        }
        E::Moved(v1::Moved { fleet, organization }) => {
            let fleet = name("moved.fleet", fleet)?;
            let organization = name("moved.organization", organization)?;
            OfDevice("moved", D::Moved { fleet, organization })
        }
        E::Deleted(v1::Deleted {}) => OfDevice("deleted", D::Deleted),
        E::FleetSettingsChanged(v1::FleetSettingsChanged {
            fleet,
            poll_interval: said,
            vpn_enabled,
        }) => {
            let fleet = required_name("fleet_settings_changed.fleet", fleet)?;
            let settings = Settings { poll_interval_s: poll_interval(said)?, vpn_enabled };
            let event = ScopeEvent::FleetSettingsChanged { fleet, settings };
            OfScope("fleet_settings_changed", event)
        }
        E::FleetFrozen(v1::FleetFrozen { fleet, reason }) => {
            let fleet = required_name("fleet_frozen.fleet", fleet)?;
            let reason = freezing("fleet_frozen.reason", reason)?;
            OfScope("fleet_frozen", ScopeEvent::FleetFrozen { fleet, reason })
        }
        E::FleetUnfrozen(v1::FleetUnfrozen { fleet, reason }) => {
            let fleet = required_name("fleet_unfrozen.fleet", fleet)?;
            let reason = lifting("fleet_unfrozen.reason", reason)?;
            OfScope("fleet_unfrozen", ScopeEvent::FleetUnfrozen { fleet, reason })
        }
        E::OrganizationFrozen(v1::OrganizationFrozen { organization, reason }) => {
            let organization = required_name("organization_frozen.organization", organization)?;
            let reason = freezing("organization_frozen.reason", reason)?;
            let event = ScopeEvent::OrganizationFrozen { organization, reason };
            OfScope("organization_frozen", event)
        }
        E::OrganizationUnfrozen(v1::OrganizationUnfrozen { organization, reason }) => {
            let organization = required_name("organization_unfrozen.organization", organization)?;
            let reason = lifting("organization_unfrozen.reason", reason)?;
            let event = ScopeEvent::OrganizationUnfrozen { organization, reason };
            OfScope("organization_unfrozen", event)
        }
    })
}

fn unknown_event() -> Refusal {
    Refusal::new(
        DeadLetterReason::UnknownEvent,
        "no event is set, or one that this version does not know",
    )
}

fn device(key: Option<&[u8]>, what: &str) -> Result<DeviceId, Refusal> {
    use crate::shard::event::{DEVICE_ID_MAX_BYTES, InvalidDeviceId};

    let key = key.ok_or_else(|| {
        Refusal::new(
            DeadLetterReason::MissingKey,
            format!("{what} concerns one device, and the record has no key"),
        )
    })?;
    if let Some(wrapping) = wrapping(key) {
        return Err(Refusal::new(DeadLetterReason::InvalidKey, wrapping));
    }
    DeviceId::from_key(key).map_err(|invalid| {
        let detail = match invalid {
            InvalidDeviceId::Empty => "the key is empty".to_owned(),
            InvalidDeviceId::TooLong => format!(
                "the key has {} bytes; a device id has at most {DEVICE_ID_MAX_BYTES}",
                key.len()
            ),
            InvalidDeviceId::NotUtf8 => "the key is not UTF-8".to_owned(),
        };
        Refusal::new(DeadLetterReason::InvalidKey, detail)
    })
}

/// How the producer's serializer has wrapped the id, if it has. A wrapped id
/// would be another device than the bare id.
fn wrapping(key: &[u8]) -> Option<&'static str> {
    let is_json = || serde_json::from_slice::<serde_json::Value>(key).is_ok();
    match key.first()? {
        b'"' | b'{' | b'[' if is_json() => Some(
            "the key is JSON, not a bare device id: have the producer write keys as strings, such \
             as with Java's StringSerializer",
        ),
        0 => Some(
            "the key begins with a zero byte, as those of a Schema Registry's serializers and \
             binary numbers do: have the producer write keys as strings",
        ),
        _ => None,
    }
}

fn no_key(key: Option<&[u8]>, what: &str) -> Result<(), Refusal> {
    match key {
        None => Ok(()),
        Some(_) => Err(Refusal::new(
            DeadLetterReason::UnexpectedKey,
            format!(
                "{what} concerns every partition: its record must have a null key, \
                 one copy to each partition"
            ),
        )),
    }
}

fn name(field: &str, name: String) -> Result<Arc<str>, Refusal> {
    if name.len() > NAME_MAX_BYTES {
        return Err(Refusal::invalid(format!(
            "{field} has {} bytes; at most {NAME_MAX_BYTES}",
            name.len()
        )));
    }
    Ok(name.into())
}

fn required_name(field: &str, text: String) -> Result<Arc<str>, Refusal> {
    if text.is_empty() {
        return Err(Refusal::invalid(format!("{field} is absent")));
    }
    name(field, text)
}

fn percent(field: &str, percent: u32) -> Result<u8, Refusal> {
    match u8::try_from(percent) {
        Ok(small) if percent <= PERCENT_MAX => Ok(small),
        _ => Err(Refusal::invalid(format!("{field} is {percent}; at most {PERCENT_MAX}"))),
    }
}

fn unknown(field: &str, said: i32, what: &str) -> Refusal {
    Refusal::invalid(format!("{field} is {said}; this version does not know that {what}"))
}

/// The reason of an `unfrozen` event: without one it lifts every reason (rule
/// J2).
///
/// An unknown number is refused. If it were [`FrozenReason::Other`], lifting it
/// would also lift other reasons.
fn lifting(field: &str, reason: i32) -> Result<Option<FrozenReason>, Refusal> {
    match v1::FrozenReason::try_from(reason) {
        Ok(v1::FrozenReason::Unspecified) => Ok(None),
        Ok(v1::FrozenReason::Allowance) => Ok(Some(FrozenReason::Allowance)),
        Ok(v1::FrozenReason::PaidApplicationType) => Ok(Some(FrozenReason::PaidApplicationType)),
        Ok(v1::FrozenReason::OverdueInvoices) => Ok(Some(FrozenReason::OverdueInvoices)),
        Ok(v1::FrozenReason::Other) => Ok(Some(FrozenReason::Other)),
        Err(_) => Err(unknown(field, reason, "reason")),
    }
}

/// An unknown number is refused, because it could not be shown.
fn outcome(field: &str, said: i32) -> Result<Option<UpdateOutcome>, Refusal> {
    match v1::UpdateOutcome::try_from(said) {
        Ok(v1::UpdateOutcome::Unspecified) => Ok(None),
        Ok(v1::UpdateOutcome::Succeeded) => Ok(Some(UpdateOutcome::Succeeded)),
        Ok(v1::UpdateOutcome::Failed) => Ok(Some(UpdateOutcome::Failed)),
        Ok(v1::UpdateOutcome::Aborted) => Ok(Some(UpdateOutcome::Aborted)),
        Ok(v1::UpdateOutcome::Rejected) => Ok(Some(UpdateOutcome::Rejected)),
        Err(_) => Err(unknown(field, said, "outcome")),
    }
}

/// The same for phases.
fn phase(field: &str, said: i32) -> Result<Option<UpdatePhase>, Refusal> {
    match v1::UpdatePhase::try_from(said) {
        Ok(v1::UpdatePhase::Unspecified) => Ok(None),
        Ok(v1::UpdatePhase::Downloading) => Ok(Some(UpdatePhase::Downloading)),
        Ok(v1::UpdatePhase::Downloaded) => Ok(Some(UpdatePhase::Downloaded)),
        Ok(v1::UpdatePhase::Applying) => Ok(Some(UpdatePhase::Applying)),
        Err(_) => Err(unknown(field, said, "phase")),
    }
}

/// The reason of a `frozen` event: without one it is [`FrozenReason::Other`]
/// (rule J2).
fn freezing(field: &str, reason: i32) -> Result<FrozenReason, Refusal> {
    Ok(lifting(field, reason)?.unwrap_or(FrozenReason::Other))
}

fn occurred_at(said: Option<ProtoTimestamp>) -> Result<Option<Timestamp>, Refusal> {
    said.map(|at| timestamp("occurred_at", at)).transpose()
}

fn optional_timestamp(
    field: &str,
    said: Option<ProtoTimestamp>,
) -> Result<Option<Timestamp>, Refusal> {
    said.map(|at| timestamp(field, at)).transpose()
}

/// Truncates to milliseconds (rule J1).
fn timestamp(field: &str, said: ProtoTimestamp) -> Result<Timestamp, Refusal> {
    let ProtoTimestamp { seconds, nanos } = said;
    if !(0..=NANOS_MAX).contains(&nanos) {
        return Err(Refusal::invalid(format!(
            "{field} has {nanos} nanoseconds; 0 to {NANOS_MAX} are valid"
        )));
    }
    if seconds > TIMESTAMP_MAX_SECONDS {
        return Err(Refusal::invalid(format!("{field} is {seconds} s, after the year 9999")));
    }
    if seconds < Timestamp::MIN.0 / 1_000 {
        return Err(Refusal::invalid(format!("{field} is {seconds} s, before the year 1970")));
    }
    Ok(Timestamp(seconds * 1_000 + i64::from(nanos / 1_000_000)))
}

/// In whole seconds, rounded up: a deadline is never early (rule J3).
fn poll_interval(said: Option<Duration>) -> Result<Option<u32>, Refusal> {
    let Some(said) = said else { return Ok(None) };
    let longest_ms = i64::from(INTERVAL_MAX_S) * 1_000;
    let ms = milliseconds("poll_interval", said, longest_ms, "366 days")?;
    Ok(u32::try_from(ms.div_euclid(1_000) + i64::from(ms % 1_000 > 0)).ok())
}

/// In milliseconds.
fn lease(field: &str, said: Duration) -> Result<u32, Refusal> {
    let ms = milliseconds(field, said, i64::from(LEASE_MAX_MS), "7 days")?;
    Ok(u32::try_from(ms).unwrap_or(LEASE_MAX_MS))
}

/// Rounds up to milliseconds: a deadline is never early (rule J3).
fn milliseconds(
    field: &str,
    said: Duration,
    longest_ms: i64,
    longest: &str,
) -> Result<i64, Refusal> {
    let Duration { seconds, nanos } = said;
    let part = u32::try_from(nanos).map(|nanos| nanos.div_ceil(1_000_000)).ok();
    let ms = part
        .filter(|_| nanos <= NANOS_MAX)
        .and_then(|part| seconds.checked_mul(1_000)?.checked_add(i64::from(part)))
        .filter(|ms| (i64::from(INTERVAL_MIN_MS)..=longest_ms).contains(ms));
    ms.ok_or_else(|| {
        Refusal::invalid(format!(
            "{field} is {seconds} s and {nanos} ns; it must be from 1 s to {longest}"
        ))
    })
}

/// Strips the framing: a zero byte, four bytes of schema id, and the path to the
/// message in the schema as zigzag varints, its length first (a single zero means
/// the first message).
fn strip_confluent_framing(value: &[u8]) -> Result<&[u8], Refusal> {
    let Some((header, mut rest)) = value.split_at_checked(5) else {
        return Err(Refusal::undecodable("the value is shorter than the Confluent framing"));
    };
    if header[0] != CONFLUENT_MAGIC {
        return Err(Refusal::undecodable(format!(
            "the value begins with byte {}, not with 0 as the Confluent framing does; \
             is the topic's format plain protobuf?",
            header[0]
        )));
    }
    let depth = zigzag_varint(&mut rest)?;
    if !(0..=CONFLUENT_MAX_DEPTH).contains(&depth) {
        return Err(Refusal::undecodable(format!(
            "the Confluent framing names a path of {depth} message indexes"
        )));
    }
    for _ in 0..depth {
        zigzag_varint(&mut rest)?;
    }
    Ok(rest)
}

fn zigzag_varint(bytes: &mut &[u8]) -> Result<i64, Refusal> {
    let raw = prost::encoding::decode_varint(bytes).map_err(|_| {
        Refusal::undecodable("the Confluent framing ends within its message indexes")
    })?;
    Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
}

#[cfg(test)]
mod tests;
