//! The changelog's records: a shard's facts, written to be restored (rules R).
//!
//! Keys are readable, with a prefix for the kind: `d/<device>`,
//! `c/<fingerprint>/<device>`, `i/<instance>`, `f/<fleet>`, `o/<organization>`
//! and `e`. Values are the messages of `proto/device_status/changelog/v1`.

use std::sync::Arc;

use prost::Message;

use super::proto::changelog as stored;
use crate::error::Error;
use crate::shard::snapshot::{
    ClosedSession, Emitted, FleetFacts, InstanceFacts, OpenSession, OrganizationFacts,
    ProgressFacts, Register, RowSnapshot, SessionFingerprint,
};
use crate::shard::{Connectivity, DeviceId, Entry, FrozenReason, Settings, Status, Timestamp};

const EPOCH_KEY: &[u8] = b"e";

/// Key and value of an entry's record; no value = a tombstone.
#[must_use]
pub fn encode(entry: &Entry) -> (Vec<u8>, Option<Vec<u8>>) {
    match entry {
        Entry::Device(device, row) => {
            (device_key(b"d/", device), row.as_deref().map(|row| row_message(row).encode_to_vec()))
        }
        Entry::ClosedSession(device, fingerprint, closed) => {
            let prefix = format!("c/{:016x}/", fingerprint.0);
            let message = closed.as_ref().map(|closed| stored::ClosedSession {
                closed_ms: closed.closed_at.0,
                clock_ms: closed.clock.0,
            });
            (device_key(prefix.as_bytes(), device), message.map(|m| m.encode_to_vec()))
        }
        Entry::Instance(name, facts) => {
            let message = stored::Instance {
                lost_ms: ms(facts.lost),
                started_ms: ms(facts.started),
                alive: facts.alive.map(lease_message),
                alive_without_start: facts.alive_without_start.map(lease_message),
                clock_ms: facts.clock.0,
            };
            (name_key("i/", name), Some(message.encode_to_vec()))
        }
        Entry::Fleet(name, facts) => {
            let message = stored::Fleet {
                settings: facts.settings.map(settings_message),
                frozen: frozen_messages(&facts.frozen),
                clock_ms: facts.clock.0,
            };
            (name_key("f/", name), Some(message.encode_to_vec()))
        }
        Entry::Organization(name, facts) => {
            let message = stored::Organization {
                frozen: frozen_messages(&facts.frozen),
                clock_ms: facts.clock.0,
            };
            (name_key("o/", name), Some(message.encode_to_vec()))
        }
        Entry::Epoch(epoch) => {
            (EPOCH_KEY.to_vec(), Some(stored::Epoch { epoch: *epoch }.encode_to_vec()))
        }
    }
}

/// Reads a record back. `None`: a kind that only a newer version knows.
///
/// # Errors
/// [`Error::Corrupted`] where the record is not one that we wrote.
pub fn decode(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Option<Entry>, Error> {
    let key = key.ok_or_else(|| corrupted("the record has no key"))?;
    if key == EPOCH_KEY {
        let epoch = value.map(message::<stored::Epoch>).transpose()?;
        return Ok(epoch.map(|epoch| Entry::Epoch(epoch.epoch)));
    }
    let Some((kind, name)) = key.split_at_checked(2) else { return Ok(None) };
    Ok(Some(match kind {
        b"d/" => {
            let row = value.map(message).transpose()?.map(row).transpose()?;
            Entry::Device(device(name)?, row.map(Box::new))
        }
        b"c/" => closed_session(name, value)?,
        b"i/" => Entry::Instance(text(name)?, instance(message(value.unwrap_or_default())?)),
        b"f/" => Entry::Fleet(text(name)?, fleet(message(value.unwrap_or_default())?)?),
        b"o/" => {
            let found: stored::Organization = message(value.unwrap_or_default())?;
            let facts = OrganizationFacts {
                frozen: frozen(&found.frozen)?,
                clock: Timestamp(found.clock_ms),
            };
            Entry::Organization(text(name)?, facts)
        }
        _ => return Ok(None),
    }))
}

fn corrupted(what: &str) -> Error {
    Error::Corrupted(format!("{what}; only device-status may write the changelog"))
}

fn message<M: Message + Default>(value: &[u8]) -> Result<M, Error> {
    M::decode(value).map_err(|error| corrupted(&format!("the value cannot be read ({error})")))
}

fn text(name: &[u8]) -> Result<Arc<str>, Error> {
    std::str::from_utf8(name).map(Into::into).map_err(|_| corrupted("the key is not UTF-8"))
}

fn device(name: &[u8]) -> Result<DeviceId, Error> {
    DeviceId::from_key(name).map_err(|why| corrupted(&format!("the key names no device ({why:?})")))
}

fn device_key(prefix: &[u8], device: &DeviceId) -> Vec<u8> {
    let mut key = prefix.to_vec();
    device.write_to(&mut key);
    key
}

fn name_key(prefix: &str, name: &str) -> Vec<u8> {
    format!("{prefix}{name}").into_bytes()
}

fn ms(at: Option<Timestamp>) -> Option<i64> {
    at.map(|at| at.0)
}

fn at(ms: Option<i64>) -> Option<Timestamp> {
    ms.map(Timestamp)
}

fn closed_session(name: &[u8], value: Option<&[u8]>) -> Result<Entry, Error> {
    let (hex, rest) =
        name.split_at_checked(16).ok_or_else(|| corrupted("the key of a session is too short"))?;
    let fingerprint = std::str::from_utf8(hex)
        .ok()
        .and_then(|hex| u64::from_str_radix(hex, 16).ok())
        .ok_or_else(|| corrupted("the key of a session has no fingerprint"))?;
    let name = rest.strip_prefix(b"/").ok_or_else(|| corrupted("the key names no device"))?;
    let closed = value.map(message::<stored::ClosedSession>).transpose()?;
    let closed = closed.map(|found| ClosedSession {
        closed_at: Timestamp(found.closed_ms),
        clock: Timestamp(found.clock_ms),
    });
    Ok(Entry::ClosedSession(device(name)?, SessionFingerprint(fingerprint), closed))
}

fn row_message(row: &RowSnapshot) -> stored::Row {
    stored::Row {
        heartbeat_ms: row.heartbeat.map(|heartbeat| heartbeat.at.0),
        heartbeat_interval_ms: row.heartbeat.and_then(|heartbeat| heartbeat.value),
        last_vpn_opening_ms: ms(row.last_vpn_opening),
        sessions: row
            .sessions
            .iter()
            .map(|session| stored::OpenSession {
                instance: session.instance.to_string(),
                fingerprint: session.fingerprint.0,
                opened_ms: session.opened_at.0,
            })
            .collect(),
        frozen: frozen_messages(&row.frozen),
        deactivated_ms: ms(row.deactivated),
        activated_ms: ms(row.activated),
        preregistered: row
            .preregistered
            .map(|flag| stored::Flag { at_ms: flag.at.0, value: flag.value }),
        provisioned_ms: ms(row.provisioned),
        registered_ms: ms(row.registered),
        membership: row.membership.as_ref().map(|membership| stored::Membership {
            at_ms: membership.at.0,
            fleet: membership.value.0.as_deref().map(str::to_owned),
            organization: membership.value.1.as_deref().map(str::to_owned),
        }),
        settings: row.settings.map(settings_message),
        configuration: progress_message(&row.configuration),
        update: progress_message(&row.update),
        deleted_ms: ms(row.deleted),
        deletion_touched_ms: ms(row.deletion_touched),
        emitted: row.emitted.map(|emitted| stored::Emitted {
            version: emitted.version,
            status: emitted.shown.map_or(0, |(status, _)| number(status.index())),
            connectivity: emitted.shown.map_or(0, |(_, link)| number(link as usize)),
            since_ms: emitted.since.0,
            connectivity_since_ms: emitted.connectivity_since.0,
        }),
        clock_ms: row.clock.0,
    }
}

fn row(found: stored::Row) -> Result<RowSnapshot, Error> {
    Ok(RowSnapshot {
        heartbeat: found
            .heartbeat_ms
            .map(|at_ms| Register { at: Timestamp(at_ms), value: found.heartbeat_interval_ms }),
        last_vpn_opening: at(found.last_vpn_opening_ms),
        sessions: found
            .sessions
            .into_iter()
            .map(|session| OpenSession {
                instance: session.instance.into(),
                fingerprint: SessionFingerprint(session.fingerprint),
                opened_at: Timestamp(session.opened_ms),
            })
            .collect(),
        frozen: frozen(&found.frozen)?,
        deactivated: at(found.deactivated_ms),
        activated: at(found.activated_ms),
        preregistered: found
            .preregistered
            .map(|flag| Register { at: Timestamp(flag.at_ms), value: flag.value }),
        provisioned: at(found.provisioned_ms),
        registered: at(found.registered_ms),
        membership: found.membership.map(|membership| Register {
            at: Timestamp(membership.at_ms),
            value: (membership.fleet.map(Into::into), membership.organization.map(Into::into)),
        }),
        settings: found.settings.map(settings),
        configuration: progress(found.configuration)?,
        update: progress(found.update)?,
        deleted: at(found.deleted_ms),
        deletion_touched: at(found.deletion_touched_ms),
        emitted: found.emitted.map(emitted).transpose()?,
        clock: Timestamp(found.clock_ms),
    })
}

/// Numbers of enums begin at 1, as those of the public messages do.
fn number(index: usize) -> u32 {
    u32::try_from(index).map_or(0, |index| index + 1)
}

fn numbered<T: Copy>(all: &[T], number: u32, what: &str) -> Result<T, Error> {
    usize::try_from(number)
        .ok()
        .and_then(|number| all.get(number.checked_sub(1)?))
        .copied()
        .ok_or_else(|| corrupted(&format!("there is no {what} of number {number}")))
}

fn emitted(found: stored::Emitted) -> Result<Emitted, Error> {
    let shown = match (found.status, found.connectivity) {
        (0, 0) => None,
        (status, connectivity) => Some((
            numbered(&Status::ALL, status, "status")?,
            numbered(&Connectivity::ALL, connectivity, "connectivity")?,
        )),
    };
    Ok(Emitted {
        version: found.version,
        shown,
        since: Timestamp(found.since_ms),
        connectivity_since: Timestamp(found.connectivity_since_ms),
    })
}

type FrozenRegisters = [Option<Register<bool>>; FrozenReason::ALL.len()];

fn frozen_messages(registers: &FrozenRegisters) -> Vec<stored::Frozen> {
    FrozenReason::ALL
        .into_iter()
        .zip(registers)
        .filter_map(|(reason, register)| {
            let register = register.as_ref()?;
            Some(stored::Frozen {
                reason: number(reason.index()),
                at_ms: register.at.0,
                frozen: register.value,
            })
        })
        .collect()
}

fn frozen(found: &[stored::Frozen]) -> Result<FrozenRegisters, Error> {
    let mut registers = FrozenRegisters::default();
    for register in found {
        let reason = numbered(&FrozenReason::ALL, register.reason, "reason to freeze")?;
        registers[reason.index()] =
            Some(Register { at: Timestamp(register.at_ms), value: register.frozen });
    }
    Ok(registers)
}

fn settings_message(settings: Register<Settings>) -> stored::Settings {
    stored::Settings {
        at_ms: settings.at.0,
        poll_interval_ms: settings.value.poll_interval_ms,
        vpn_enabled: settings.value.vpn_enabled,
    }
}

fn settings(found: stored::Settings) -> Register<Settings> {
    Register {
        at: Timestamp(found.at_ms),
        value: Settings {
            poll_interval_ms: found.poll_interval_ms,
            vpn_enabled: found.vpn_enabled,
        },
    }
}

fn progress_message(facts: &ProgressFacts) -> Option<stored::Progress> {
    if *facts == ProgressFacts::default() {
        return None;
    }
    Some(stored::Progress {
        started_ms: facts.started.as_ref().map(|started| started.at.0),
        release: facts.started.as_ref().map(|s| s.value.to_string()).unwrap_or_default(),
        finished_ms: ms(facts.finished),
        percent_at_ms: facts.percent.map(|percent| percent.at.0),
        percent: facts.percent.map_or(0, |percent| u32::from(percent.value)),
    })
}

fn progress(found: Option<stored::Progress>) -> Result<ProgressFacts, Error> {
    let Some(found) = found else { return Ok(ProgressFacts::default()) };
    let percent =
        u8::try_from(found.percent).map_err(|_| corrupted("a percentage is above 255"))?;
    Ok(ProgressFacts {
        started: found
            .started_ms
            .map(|at_ms| Register { at: Timestamp(at_ms), value: found.release.as_str().into() }),
        finished: at(found.finished_ms),
        percent: found.percent_at_ms.map(|at_ms| Register { at: Timestamp(at_ms), value: percent }),
    })
}

fn lease_message(alive: Register<u32>) -> stored::Lease {
    stored::Lease { at_ms: alive.at.0, lease_ms: alive.value }
}

fn lease(found: stored::Lease) -> Register<u32> {
    Register { at: Timestamp(found.at_ms), value: found.lease_ms }
}

fn instance(found: stored::Instance) -> InstanceFacts {
    InstanceFacts {
        lost: at(found.lost_ms),
        started: at(found.started_ms),
        alive: found.alive.map(lease),
        alive_without_start: found.alive_without_start.map(lease),
        clock: Timestamp(found.clock_ms),
    }
}

fn fleet(found: stored::Fleet) -> Result<FleetFacts, Error> {
    Ok(FleetFacts {
        settings: found.settings.map(settings),
        frozen: frozen(&found.frozen)?,
        clock: Timestamp(found.clock_ms),
    })
}

#[cfg(test)]
mod tests;
