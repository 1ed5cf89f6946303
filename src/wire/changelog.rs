//! Changelog entries (docs/rules.md, rules R): a shard's facts as keys and values
//! of a compacted topic.
//!
//! Keys are readable text that tools can filter: a kind, then an id.
//!
//! | Key | Holds |
//! |---|---|
//! | `d/<device id>` | a device's row |
//! | `c/<device id>/<fingerprint>` | a closed session that is remembered (rule J4) |
//! | `i/<instance>` | a VPN instance |
//! | `f/<fleet>` | a fleet |
//! | `o/<organization>` | an organization |
//! | `e` | the owner's epoch (rule C7) |
//! | `h` | what holds the shard (rule J7) |
//!
//! Values are the messages of `proto/device_status/changelog/v1`. Kinds of keys
//! and fields that a later version adds are skipped.

mod hold;

use std::sync::Arc;

use prost::Message;

use super::proto::changelog as proto;
use super::status_changed::{of_number, shown};
use crate::error::{Error, Fatal};
use crate::shard::snapshot::{
    ClosedSession, ConfigurationFacts, DeviceFacts, Emitted, Ended, Entry, Flag, FleetFacts,
    FrozenRegisters, HeartbeatInterval, InstanceFacts, Lease, Membership, Opening,
    OrganizationFacts, Register, ReleaseFacts, RowSnapshot, Session, SessionFingerprint, Tie,
    UpdateFacts,
};
use crate::shard::{DeviceId, Settings, Timestamp, UpdateOutcome, UpdatePhase};

/// The format in which this build writes the changelog. A later build may add to
/// it.
const VERSION: u32 = 2;

/// Key and value of an entry. Without a value it is a tombstone.
#[must_use]
pub fn encode(entry: &Entry) -> (Vec<u8>, Option<Vec<u8>>) {
    let named = |kind: &str, name: &str| [kind.as_bytes(), name.as_bytes()].concat();
    match entry {
        Entry::Device(device, row) => {
            let mut key = b"d/".to_vec();
            device.write_to(&mut key);
            (key, row.as_deref().map(bytes))
        }
        Entry::ClosedSession(device, fingerprint, session) => {
            let mut key = b"c/".to_vec();
            device.write_to(&mut key);
            key.extend_from_slice(format!("/{:016x}", fingerprint.0).as_bytes());
            (key, session.as_ref().map(bytes))
        }
        Entry::Instance(instance, facts) => (named("i/", instance), facts.as_ref().map(bytes)),
        Entry::Fleet(fleet, facts) => (named("f/", fleet), Some(bytes(facts))),
        Entry::Organization(organization, facts) => (named("o/", organization), Some(bytes(facts))),
        Entry::Epoch(epoch) => {
            let message = proto::Epoch {
                epoch: *epoch,
                version: VERSION,
                complete: true,
                ..proto::Epoch::default()
            };
            (b"e".to_vec(), Some(message.encode_to_vec()))
        }
        Entry::Hold(hold) => (b"h".to_vec(), hold.as_deref().map(bytes)),
    }
}

/// Reads an entry back. `None`: the kind of entry is from a later version.
///
/// # Errors
/// [`Error::Corrupted`] if no version wrote this: a truncated value, an invalid
/// device id, a number without a meaning. [`Error::Fatal`] if a version wrote it
/// whose format is no longer supported.
pub fn decode(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Option<Entry>, Error> {
    let read = match key {
        None => Err("a record without a key".to_owned()),
        Some(key) => read_entry(key, value),
    };
    if let Ok(Some(Entry::Epoch(_))) = read
        && version(value) < VERSION
    {
        return Err(Fatal::unavailable(format!(
            "the changelog was written by an early build, in version {} of its format; this build \
             reads version {VERSION}, and none before it. Start anew: docs/operations.md, \"The \
             changelog is lost\"",
            version(value).max(1)
        ))
        .into());
    }
    read.map_err(|what| {
        let key = String::from_utf8_lossy(key.unwrap_or_default());
        Error::Corrupted(format!(
            "changelog entry with key {key:?}: {what}. Something other than device-status wrote \
             to the changelog topic, or a later version of it did: run that version, or delete \
             this key with a tombstone, after which what it held is known again only from newer \
             events"
        ))
    })
}

/// If the entry with this key is a row: the device's key in the inputs.
#[must_use]
pub fn row_of(key: &[u8]) -> Option<&[u8]> {
    key.strip_prefix(b"d/")
}

/// The format version of the owner that wrote an epoch entry.
fn version(value: Option<&[u8]>) -> u32 {
    value.and_then(|value| proto::Epoch::decode(value).ok()).map_or(0, |epoch| epoch.version)
}

fn read_entry(key: &[u8], value: Option<&[u8]>) -> Result<Option<Entry>, String> {
    if let Some(id) = row_of(key) {
        let row = value.map(|value| read(value).map(Box::new)).transpose()?;
        return Ok(Some(Entry::Device(device_id(id)?, row)));
    }
    let entry = match key {
        [b'c', b'/', rest @ ..] => {
            let (device, fingerprint) = closed_session_key(rest)?;
            Entry::ClosedSession(device, fingerprint, value.map(read).transpose()?)
        }
        [b'i', b'/', instance @ ..] => {
            Entry::Instance(text(instance)?, value.map(read).transpose()?)
        }
        // The service writes no tombstones of the following, but an operator may.
        [b'f', b'/', fleet @ ..] => Entry::Fleet(text(fleet)?, read_or_none(value)?),
        [b'o', b'/', organization @ ..] => {
            Entry::Organization(text(organization)?, read_or_none(value)?)
        }
        b"e" => {
            let Some(value) = value else { return Ok(None) };
            let message: proto::Epoch = message(value)?;
            complete(message.complete)?;
            Entry::Epoch(message.epoch)
        }
        b"h" => Entry::Hold(value.map(|value| read(value).map(Box::new)).transpose()?),
        _ => return Ok(None),
    };
    Ok(Some(entry))
}

fn bytes<M: Message, T: Wire<M>>(facts: &T) -> Vec<u8> {
    facts.message().encode_to_vec()
}

fn read<M: Message + Default, T: Wire<M>>(value: &[u8]) -> Result<T, String> {
    T::read(&message(value)?)
}

fn read_or_none<M: Message + Default, T: Wire<M> + Default>(
    value: Option<&[u8]>,
) -> Result<T, String> {
    value.map_or_else(|| Ok(T::default()), read)
}

fn message<M: Message + Default>(value: &[u8]) -> Result<M, String> {
    M::decode(value).map_err(|error| format!("its value cannot be read ({error})"))
}

fn complete(complete: bool) -> Result<(), String> {
    if complete { Ok(()) } else { Err("its value is truncated".to_owned()) }
}

fn text(bytes: &[u8]) -> Result<Arc<str>, String> {
    std::str::from_utf8(bytes).map(Arc::from).map_err(|_| "the name is not UTF-8".to_owned())
}

fn device_id(key: &[u8]) -> Result<DeviceId, String> {
    DeviceId::from_key(key)
        .map_err(|reason| format!("the key is not a valid device id ({reason:?})"))
}

/// A device id may contain slashes: the fingerprint follows the last one.
fn closed_session_key(key: &[u8]) -> Result<(DeviceId, SessionFingerprint), String> {
    let no_fingerprint = || "the key does not end in a session's fingerprint".to_owned();
    let slash = key.len().checked_sub(17).ok_or_else(no_fingerprint)?;
    let (device, rest) = key.split_at(slash);
    let digits = rest.strip_prefix(b"/").ok_or_else(no_fingerprint)?;
    let fingerprint = digits
        .iter()
        .try_fold(0u64, |value, &digit| {
            let digit = char::from(digit).to_digit(16).filter(|_| !digit.is_ascii_uppercase())?;
            Some(value << 4 | u64::from(digit))
        })
        .ok_or_else(no_fingerprint)?;
    Ok((device_id(device)?, SessionFingerprint(fingerprint)))
}

/// Conversion between a fact and its message or field.
trait Wire<Field>: Sized {
    fn message(&self) -> Field;
    fn read(message: &Field) -> Result<Self, String>;
}

/// Maps facts to the fields of a message, one to one. `complete` is for a message
/// that is a whole value; `rest` is for a message with other facts beside these.
macro_rules! fields {
    (
        $message:ident, $facts:ty { $($fact:ident: $field:ident,)* }
        $($complete:ident)? $(..$rest:expr)?
    ) => {
        impl Wire<proto::$message> for $facts {
            fn message(&self) -> proto::$message {
                proto::$message {
                    $($field: self.$fact.message(),)*
                    $($complete: true,)?
                    $(..$rest)?
                }
            }

            fn read(message: &proto::$message) -> Result<Self, String> {
                $($complete(message.$complete)?;)?
                Ok(Self { $($fact: Wire::read(&message.$field)?,)* })
            }
        }
    };
}

fields! {
    Instance,
    InstanceFacts {
        clock: clock_ms,
        lost: lost_ms,
        started: started_ms,
        alive: alive,
        alive_without_start: alive_without_start,
        alive_is_later: alive_is_later,
        lapsed: lapsed,
    }
    complete
}
fields! {
    Fleet,
    FleetFacts {
        clock: clock_ms,
        settings: settings,
        earlier_settings: earlier_settings,
        frozen: frozen,
    }
    complete
}
fields! { Organization, OrganizationFacts { clock: clock_ms, frozen: frozen, } complete }
fields! {
    Session,
    Session<Arc<str>> {
        instance: instance,
        session: session,
        opening: opening,
        leased: leased,
        began_at: began_ms,
        closed_at: closed_ms,
        reopened: reopened,
        ended: ended,
    }
}
fields! {
    Row,
    DeviceFacts<Arc<str>> {
        last_vpn_opening: last_vpn_opening_ms,
        last_vpn_opening_told: last_vpn_opening_told_ms,
        sessions: sessions,
        membership: membership,
        earlier_fleets: earlier_memberships,
        registered: registered_ms,
        provisioned: provisioned_ms,
        active: active,
        preregistered: preregistered,
        frozen: frozen,
        settings: settings,
        earlier_settings: earlier_settings,
        configuration: configuration,
        update: update,
        deleted: deleted_ms,
        deletion_tie: deletion_tie,
        deletion_interval_s: deletion_interval_s,
        deletion_touched: deletion_touched_ms,
    }
    ..proto::Row::default()
}

/// For a field and a fact with the same parts: one pattern takes the one apart
/// and builds the other.
macro_rules! same {
    ($($field:ty, $fact:ty: ($($message:tt)*) = ($($facts:tt)*);)*) => {$(
        impl Wire<$field> for $fact {
            fn message(&self) -> $field {
                let $($facts)* = *self;
                $($message)*
            }

            fn read(message: &$field) -> Result<Self, String> {
                let $($message)* = *message;
                Ok($($facts)*)
            }
        }
    )*};
}

same! {
    i64, Timestamp: (at_ms) = (Timestamp(at_ms));
    bool, bool: (value) = (value);
    proto::Ended, Ended: (proto::Ended { until_ms, at_ms }) =
        (Ended { until: Timestamp(until_ms), at: Timestamp(at_ms) });
    u32, u32: (number) = (number);
}

/// The same for messages with fields that are not read.
macro_rules! partly {
    ($($message:ident, $fact:ty: ($($field:ident),*) = ($($facts:tt)*);)*) => {$(
        impl Wire<proto::$message> for $fact {
            fn message(&self) -> proto::$message {
                let $($facts)* = *self;
                proto::$message { $($field,)* ..proto::$message::default() }
            }

            fn read(message: &proto::$message) -> Result<Self, String> {
                let proto::$message { $($field,)* .. } = *message;
                Ok($($facts)*)
            }
        }
    )*};
}

partly! {
    Settings, Register<Settings>: (at_ms, poll_interval_s, vpn_enabled) = (Register {
        at: Timestamp(at_ms),
        value: Settings { poll_interval_s, vpn_enabled },
    });
    // Only the interval of earlier settings matters.
    Settings, Register<Option<u32>>: (at_ms, poll_interval_s) =
        (Register { at: Timestamp(at_ms), value: poll_interval_s });
}

/// Only the fleet of an earlier membership matters.
impl Wire<proto::Membership> for Register<Arc<str>> {
    fn message(&self) -> proto::Membership {
        let fleet = (!self.value.is_empty()).then(|| self.value.to_string());
        proto::Membership { at_ms: self.at.0, fleet, ..proto::Membership::default() }
    }

    fn read(membership: &proto::Membership) -> Result<Self, String> {
        let fleet = membership.fleet.as_deref().unwrap_or_default();
        Ok(Register { at: Timestamp(membership.at_ms), value: fleet.into() })
    }
}

impl Wire<proto::ClosedSession> for ClosedSession {
    fn message(&self) -> proto::ClosedSession {
        proto::ClosedSession {
            clock_ms: self.clock.message(),
            session: Some(self.session.message()),
            complete: true,
        }
    }

    fn read(message: &proto::ClosedSession) -> Result<ClosedSession, String> {
        complete(message.complete)?;
        let session = message.session.as_ref().ok_or("it holds no session")?;
        Ok(ClosedSession { session: Wire::read(session)?, clock: Wire::read(&message.clock_ms)? })
    }
}

/// A time equal to the event's own is not written.
impl Wire<proto::Opening> for Opening {
    fn message(&self) -> proto::Opening {
        let unless_own = |at: Timestamp| (at != self.at).then_some(at.0);
        proto::Opening {
            at_ms: self.at.0,
            connected_ms: unless_own(self.connected_at),
            counted_ms: unless_own(self.counted_at),
            lease_ms: self.lease_ms,
        }
    }

    fn read(message: &proto::Opening) -> Result<Opening, String> {
        let proto::Opening { at_ms, connected_ms, counted_ms, lease_ms } = *message;
        let or_own = |ms: Option<i64>| Timestamp(ms.unwrap_or(at_ms));
        Ok(Opening {
            at: Timestamp(at_ms),
            connected_at: or_own(connected_ms),
            counted_at: or_own(counted_ms),
            lease_ms,
        })
    }
}

/// The same.
impl Wire<proto::Lease> for Lease {
    fn message(&self) -> proto::Lease {
        proto::Lease {
            at_ms: self.at.0,
            lease_ms: self.lease_ms,
            counted_ms: (self.counted_at != self.at).then_some(self.counted_at.0),
        }
    }

    fn read(message: &proto::Lease) -> Result<Lease, String> {
        let proto::Lease { at_ms, lease_ms, counted_ms } = *message;
        let counted_at = Timestamp(counted_ms.unwrap_or(at_ms));
        Ok(Lease { at: Timestamp(at_ms), counted_at, lease_ms })
    }
}

impl Wire<proto::Row> for RowSnapshot {
    fn message(&self) -> proto::Row {
        let interval = self.heartbeat.map_or_else(Default::default, |heartbeat| heartbeat.value);
        let (set_s, default_too) = match interval {
            HeartbeatInterval::Set(seconds) => (Some(seconds), false),
            HeartbeatInterval::SetOrDefault(seconds) => (Some(seconds), true),
            HeartbeatInterval::Carried(_) | HeartbeatInterval::Default => (None, false),
        };
        proto::Row {
            clock_ms: self.clock.message(),
            emitted: self.emitted.message(),
            heartbeat_ms: self.heartbeat.map(|heartbeat| heartbeat.at.0),
            heartbeat_going_away: self.going_away,
            heartbeat_poll_interval_s: interval.carried(),
            heartbeat_set_s: set_s,
            heartbeat_default_too: default_too,
            complete: true,
            ..self.facts.message()
        }
    }

    fn read(row: &proto::Row) -> Result<RowSnapshot, String> {
        complete(row.complete)?;
        let interval = match (row.heartbeat_poll_interval_s, row.heartbeat_set_s) {
            (Some(seconds), _) => HeartbeatInterval::Carried(seconds),
            (None, Some(seconds)) if row.heartbeat_default_too => {
                HeartbeatInterval::SetOrDefault(seconds)
            }
            (None, Some(seconds)) => HeartbeatInterval::Set(seconds),
            (None, None) => HeartbeatInterval::Default,
        };
        let heartbeat = |at_ms| Register { at: Timestamp(at_ms), value: interval };
        Ok(RowSnapshot {
            heartbeat: row.heartbeat_ms.map(heartbeat),
            going_away: row.heartbeat_going_away,
            facts: Wire::read(row)?,
            emitted: Wire::read(&row.emitted)?,
            clock: Wire::read(&row.clock_ms)?,
        })
    }
}

impl<M, T: Wire<M>> Wire<Option<M>> for Option<T> {
    fn message(&self) -> Option<M> {
        self.as_ref().map(T::message)
    }

    fn read(message: &Option<M>) -> Result<Option<T>, String> {
        message.as_ref().map(T::read).transpose()
    }
}

impl<M, T: Wire<M>> Wire<Vec<M>> for Vec<T> {
    fn message(&self) -> Vec<M> {
        self.iter().map(T::message).collect()
    }

    fn read(messages: &Vec<M>) -> Result<Vec<T>, String> {
        messages.iter().map(T::read).collect()
    }
}

impl Wire<String> for Arc<str> {
    fn message(&self) -> String {
        self.to_string()
    }

    fn read(name: &String) -> Result<Arc<str>, String> {
        Ok(name.as_str().into())
    }
}

/// The empty name means none and is not written.
impl Wire<proto::Membership> for Register<Membership<Arc<str>>> {
    fn message(&self) -> proto::Membership {
        let if_any = |name: &Arc<str>| (!name.is_empty()).then(|| name.to_string());
        proto::Membership {
            at_ms: self.at.0,
            fleet: if_any(&self.value.fleet),
            organization: if_any(&self.value.organization),
        }
    }

    fn read(membership: &proto::Membership) -> Result<Self, String> {
        let proto::Membership { at_ms, fleet, organization } = membership;
        let name = |name: &Option<String>| Arc::from(name.as_deref().unwrap_or_default());
        let value = Membership { fleet: name(fleet), organization: name(organization) };
        Ok(Register { at: Timestamp(*at_ms), value })
    }
}

impl Wire<Vec<proto::Frozen>> for FrozenRegisters {
    fn message(&self) -> Vec<proto::Frozen> {
        let registers = (1..).zip(self);
        registers
            .filter_map(|(reason, register)| {
                let proto::Flag { at_ms, value, both_seen, other_ms } = (*register)?.message();
                Some(proto::Frozen { reason, at_ms, value, both_seen, other_ms })
            })
            .collect()
    }

    /// Reasons from a later version are skipped.
    fn read(messages: &Vec<proto::Frozen>) -> Result<Self, String> {
        let mut frozen = FrozenRegisters::default();
        for message in messages {
            let index = (message.reason as usize).wrapping_sub(1);
            if let Some(register) = frozen.get_mut(index) {
                let proto::Frozen { reason: _, at_ms, value, both_seen, other_ms } = *message;
                *register = Some(Wire::read(&proto::Flag { at_ms, value, both_seen, other_ms })?);
            }
        }
        Ok(frozen)
    }
}

impl Wire<proto::Flag> for Flag {
    fn message(&self) -> proto::Flag {
        proto::Flag {
            at_ms: self.at.0,
            value: self.value,
            both_seen: self.both_seen,
            other_ms: self.other.message(),
        }
    }

    fn read(message: &proto::Flag) -> Result<Flag, String> {
        Ok(Flag {
            at: Timestamp(message.at_ms),
            value: message.value,
            both_seen: message.both_seen,
            other: Wire::read(&message.other_ms)?,
        })
    }
}

impl Wire<i32> for Tie {
    fn message(&self) -> i32 {
        let tie = match self {
            Tie::None => proto::Tie::Unspecified,
            Tie::Began => proto::Tie::Began,
            Tie::Ended => proto::Tie::Ended,
        };
        tie.into()
    }

    fn read(message: &i32) -> Result<Tie, String> {
        match proto::Tie::try_from(*message) {
            Ok(proto::Tie::Unspecified) => Ok(Tie::None),
            Ok(proto::Tie::Began) => Ok(Tie::Began),
            Ok(proto::Tie::Ended) => Ok(Tie::Ended),
            Err(_) => Err(format!("unknown tie {message}")),
        }
    }
}

fn percentage(percent: u32) -> Result<u8, String> {
    u8::try_from(percent).map_err(|_| format!("{percent} is not a percentage"))
}

fn number<T: Copy + PartialEq>(all: &[T], value: Option<T>) -> u32 {
    let place = value.and_then(|value| all.iter().position(|one| *one == value));
    place.map_or(0, |place| place as u32 + 1)
}

fn one_of<T: Copy>(all: &[T], number: u32) -> Result<Option<T>, String> {
    let known = of_number(all, number.cast_signed());
    if number != 0 && known.is_none() { Err(format!("unknown number {number}")) } else { Ok(known) }
}

/// The two times tell which was later, the start or the finish.
impl Wire<Option<proto::Progress>> for ConfigurationFacts {
    fn message(&self) -> Option<proto::Progress> {
        let ConfigurationFacts { started: state, outcome, percent } = *self;
        let last = |started: bool| {
            let time = |flag: Flag| if flag.value == started { Some(flag.at) } else { flag.other };
            state.and_then(time).message()
        };
        (*self != ConfigurationFacts::default()).then(|| proto::Progress {
            started_ms: last(true),
            finished_ms: last(false),
            both_seen: state.is_some_and(|flag| flag.both_seen),
            outcome: number(&UpdateOutcome::ALL, outcome),
            percent_ms: percent.map(|percent| percent.at.0),
            percent: percent.map_or(0, |percent| u32::from(percent.value)),
            ..proto::Progress::default()
        })
    }

    fn read(message: &Option<proto::Progress>) -> Result<ConfigurationFacts, String> {
        let Some(message) = message else { return Ok(ConfigurationFacts::default()) };
        let value = message.started_ms > message.finished_ms;
        let (at, other) = match value {
            true => (message.started_ms, message.finished_ms),
            false => (message.finished_ms, message.started_ms),
        };
        let percent = percentage(message.percent)?;
        Ok(ConfigurationFacts {
            started: at.map(|at_ms| Flag {
                at: Timestamp(at_ms),
                value,
                both_seen: message.both_seen,
                other: other.map(Timestamp),
            }),
            outcome: one_of(&UpdateOutcome::ALL, message.outcome)?,
            percent: message
                .percent_ms
                .map(|at_ms| Register { at: Timestamp(at_ms), value: percent }),
        })
    }
}

impl Wire<Option<proto::Progress>> for UpdateFacts {
    fn message(&self) -> Option<proto::Progress> {
        let UpdateFacts { started, releases } = self;
        (*self != UpdateFacts::default()).then(|| proto::Progress {
            started_ms: started.as_ref().map(|started| started.at.0),
            release: started.as_ref().map_or_else(String::new, |started| started.value.message()),
            releases: releases.message(),
            ..proto::Progress::default()
        })
    }

    fn read(message: &Option<proto::Progress>) -> Result<UpdateFacts, String> {
        let Some(message) = message else { return Ok(UpdateFacts::default()) };
        let started =
            |at_ms| Register { at: Timestamp(at_ms), value: message.release.as_str().into() };
        Ok(UpdateFacts {
            started: message.started_ms.map(started),
            releases: Wire::read(&message.releases)?,
        })
    }
}

impl Wire<proto::Release> for ReleaseFacts {
    fn message(&self) -> proto::Release {
        let ReleaseFacts { release, finished, tie, percent, phase } = self;
        let outcome = finished.and_then(|finished| finished.value);
        proto::Release {
            release: release.message(),
            finished_ms: finished.map(|finished| finished.at.0),
            outcome: number(&UpdateOutcome::ALL, outcome),
            tie: tie.message(),
            percent_ms: percent.map(|percent| percent.at.0),
            percent: percent.map_or(0, |percent| u32::from(percent.value)),
            phase_ms: phase.map(|phase| phase.at.0),
            phase: number(&UpdatePhase::ALL, phase.map(|phase| phase.value)),
        }
    }

    fn read(message: &proto::Release) -> Result<ReleaseFacts, String> {
        let outcome = one_of(&UpdateOutcome::ALL, message.outcome)?;
        let percent = percentage(message.percent)?;
        let phase = one_of(&UpdatePhase::ALL, message.phase)?;
        let at = |ms: Option<i64>| ms.map(Timestamp);
        Ok(ReleaseFacts {
            release: Wire::read(&message.release)?,
            finished: at(message.finished_ms).map(|at| Register { at, value: outcome }),
            tie: Wire::read(&message.tie)?,
            percent: at(message.percent_ms).map(|at| Register { at, value: percent }),
            phase: at(message.phase_ms).zip(phase).map(|(at, value)| Register { at, value }),
        })
    }
}

impl Wire<proto::Emitted> for Emitted {
    fn message(&self) -> proto::Emitted {
        proto::Emitted {
            version: self.version,
            status: self.shown.map_or(0, |(status, _)| status as u32 + 1),
            connectivity: self.shown.map_or(0, |(_, connectivity)| connectivity as u32 + 1),
            since_ms: self.since.0,
            connectivity_since_ms: self.connectivity_since.0,
            membership_since_ms: self.membership_since.0,
        }
    }

    fn read(message: &proto::Emitted) -> Result<Emitted, String> {
        Ok(Emitted {
            version: message.version,
            shown: shown(message.status, message.connectivity)?,
            since: Timestamp(message.since_ms),
            connectivity_since: Timestamp(message.connectivity_since_ms),
            membership_since: Timestamp(message.membership_since_ms),
        })
    }
}

#[cfg(test)]
mod tests;
