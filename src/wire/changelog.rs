//! Changelog entries (docs/rules.md, rules R): a shard's facts as keys and
//! values of a compacted topic.
//!
//! Keys are text that a person can read and a tool can filter: a kind, and
//! whose it is.
//!
//! | Key | Holds |
//! |---|---|
//! | `d/<device id>` | a device's row |
//! | `c/<device id>/<fingerprint>` | a closed session that is remembered (rule J4) |
//! | `i/<instance>` | a VPN instance |
//! | `f/<fleet>` | a fleet |
//! | `o/<organization>` | an organization |
//! | `e` | the owner's epoch (rule C7) |
//!
//! Values are the messages of `proto/device_status/changelog/v1`. What a later
//! version adds, kinds of keys and fields, is passed over.

use std::sync::Arc;

use prost::Message;

use super::proto::changelog as proto;
use crate::error::Error;
use crate::shard::snapshot::{
    ClosedSession, Emitted, Entry, FleetFacts, InstanceFacts, OpenSession, OrganizationFacts,
    ProgressFacts, Register, RowSnapshot, SessionFingerprint,
};
use crate::shard::{Connectivity, DeviceId, FrozenReason, Settings, Status, Timestamp};

/// Key and value of an entry. Without a value it is a tombstone.
#[must_use]
pub fn encode(entry: &Entry) -> (Vec<u8>, Option<Vec<u8>>) {
    let named = |kind: &str, name: &str| [kind.as_bytes(), name.as_bytes()].concat();
    match entry {
        Entry::Device(device, row) => {
            let mut key = b"d/".to_vec();
            device.write_to(&mut key);
            (key, row.as_ref().map(|row| row_message(row).encode_to_vec()))
        }
        Entry::ClosedSession(device, fingerprint, session) => {
            let mut key = b"c/".to_vec();
            device.write_to(&mut key);
            key.extend_from_slice(format!("/{:016x}", fingerprint.0).as_bytes());
            let value = session.as_ref().map(|session| proto::ClosedSession {
                clock_ms: session.clock.0,
                closed_ms: session.closed_at.0,
                complete: true,
            });
            (key, value.map(|message| message.encode_to_vec()))
        }
        Entry::Instance(instance, facts) => {
            let lease =
                |alive: Register<u32>| proto::Lease { at_ms: alive.at.0, lease_ms: alive.value };
            let message = proto::Instance {
                clock_ms: facts.clock.0,
                lost_ms: ms(facts.lost),
                started_ms: ms(facts.started),
                alive: facts.alive.map(lease),
                alive_without_start: facts.alive_without_start.map(lease),
                complete: true,
            };
            (named("i/", instance), Some(message.encode_to_vec()))
        }
        Entry::Fleet(fleet, facts) => {
            let message = proto::Fleet {
                clock_ms: facts.clock.0,
                settings: facts.settings.map(settings_message),
                frozen: frozen_messages(&facts.frozen),
                complete: true,
            };
            (named("f/", fleet), Some(message.encode_to_vec()))
        }
        Entry::Organization(organization, facts) => {
            let message = proto::Organization {
                clock_ms: facts.clock.0,
                frozen: frozen_messages(&facts.frozen),
                complete: true,
            };
            (named("o/", organization), Some(message.encode_to_vec()))
        }
        Entry::Epoch(epoch) => {
            let message = proto::Epoch { epoch: *epoch, complete: true };
            (b"e".to_vec(), Some(message.encode_to_vec()))
        }
    }
}

/// Reads an entry back. `None`: one of a kind that only a later version knows.
///
/// # Errors
/// [`Error::Corrupted`] if this is not what any version wrote: a value that was
/// cut off, a device id that is none, a number that means nothing.
pub fn decode(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Option<Entry>, Error> {
    let read = match key {
        None => Err("a record without a key".to_owned()),
        Some(key) => read_entry(key, value),
    };
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

/// The device whose row an entry with this key is, by its key in the inputs.
#[must_use]
pub fn row_of(key: &[u8]) -> Option<&[u8]> {
    key.strip_prefix(b"d/")
}

fn read_entry(key: &[u8], value: Option<&[u8]>) -> Result<Option<Entry>, String> {
    if let Some(id) = row_of(key) {
        let row = value.map(|value| read_row(value).map(Box::new)).transpose()?;
        return Ok(Some(Entry::Device(device_id(id)?, row)));
    }
    let entry = match key {
        [b'c', b'/', rest @ ..] => {
            let (device, fingerprint) = closed_session_key(rest)?;
            let session = value
                .map(|value| {
                    let message: proto::ClosedSession = message(value)?;
                    complete(message.complete)?;
                    Ok::<_, String>(ClosedSession {
                        closed_at: Timestamp(message.closed_ms),
                        clock: Timestamp(message.clock_ms),
                    })
                })
                .transpose()?;
            Entry::ClosedSession(device, fingerprint, session)
        }
        // We write no tombstones of the following; a person may.
        [b'i', b'/', instance @ ..] => {
            let instance = text(instance)?;
            Entry::Instance(instance, value.map_or_else(|| Ok(Default::default()), read_instance)?)
        }
        [b'f', b'/', fleet @ ..] => {
            let fleet = text(fleet)?;
            Entry::Fleet(fleet, value.map_or_else(|| Ok(Default::default()), read_fleet)?)
        }
        [b'o', b'/', organization @ ..] => {
            let organization = text(organization)?;
            let facts = value.map_or_else(|| Ok(Default::default()), read_organization)?;
            Entry::Organization(organization, facts)
        }
        b"e" => {
            let Some(value) = value else { return Ok(None) };
            let message: proto::Epoch = message(value)?;
            complete(message.complete)?;
            Entry::Epoch(message.epoch)
        }
        _ => return Ok(None),
    };
    Ok(Some(entry))
}

fn message<M: Message + Default>(value: &[u8]) -> Result<M, String> {
    M::decode(value).map_err(|error| format!("its value cannot be read ({error})"))
}

fn complete(complete: bool) -> Result<(), String> {
    if complete { Ok(()) } else { Err("its value was cut off".to_owned()) }
}

fn text(bytes: &[u8]) -> Result<Arc<str>, String> {
    std::str::from_utf8(bytes).map(Arc::from).map_err(|_| "the name is not UTF-8".to_owned())
}

fn device_id(key: &[u8]) -> Result<DeviceId, String> {
    DeviceId::from_key(key).map_err(|reason| format!("this is no device id ({reason:?})"))
}

/// A device id may hold slashes: the fingerprint is what follows the last.
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

fn ms(at: Option<Timestamp>) -> Option<i64> {
    at.map(|at| at.0)
}

fn frozen_messages(frozen: &[Option<Register<bool>>; 4]) -> Vec<proto::Frozen> {
    let registers = (1..).zip(frozen);
    registers
        .filter_map(|(reason, register)| {
            let Register { at, value } = (*register)?;
            Some(proto::Frozen { reason, at_ms: at.0, value })
        })
        .collect()
}

/// Reasons that only a later version knows are passed over.
fn frozen_registers(messages: &[proto::Frozen]) -> [Option<Register<bool>>; 4] {
    let mut frozen = [None; FrozenReason::ALL.len()];
    for message in messages {
        let index = (message.reason as usize).wrapping_sub(1);
        if let Some(register) = frozen.get_mut(index) {
            *register = Some(Register { at: Timestamp(message.at_ms), value: message.value });
        }
    }
    frozen
}

fn settings_message(settings: Register<Settings>) -> proto::Settings {
    proto::Settings {
        at_ms: settings.at.0,
        poll_interval_ms: settings.value.poll_interval_ms,
        vpn_enabled: settings.value.vpn_enabled,
    }
}

fn settings_register(message: &proto::Settings) -> Register<Settings> {
    let proto::Settings { at_ms, poll_interval_ms, vpn_enabled } = *message;
    Register { at: Timestamp(at_ms), value: Settings { poll_interval_ms, vpn_enabled } }
}

fn progress_message(facts: &ProgressFacts) -> Option<proto::Progress> {
    if *facts == ProgressFacts::default() {
        return None;
    }
    Some(proto::Progress {
        started_ms: facts.started.as_ref().map(|started| started.at.0),
        release: facts
            .started
            .as_ref()
            .map(|started| started.value.to_string())
            .unwrap_or_default(),
        finished_ms: ms(facts.finished),
        percent_ms: facts.percent.map(|percent| percent.at.0),
        percent: facts.percent.map_or(0, |percent| u32::from(percent.value)),
    })
}

fn progress_facts(message: Option<proto::Progress>) -> Result<ProgressFacts, String> {
    let Some(message) = message else { return Ok(ProgressFacts::default()) };
    let percent = u8::try_from(message.percent)
        .map_err(|_| format!("{} is no percentage", message.percent))?;
    Ok(ProgressFacts {
        started: message
            .started_ms
            .map(|at_ms| Register { at: Timestamp(at_ms), value: message.release.into() }),
        finished: message.finished_ms.map(Timestamp),
        percent: message.percent_ms.map(|at_ms| Register { at: Timestamp(at_ms), value: percent }),
    })
}

fn row_message(row: &RowSnapshot) -> proto::Row {
    proto::Row {
        clock_ms: row.clock.0,
        emitted: row.emitted.map(|emitted| proto::Emitted {
            version: emitted.version,
            status: emitted.shown.map_or(0, |(status, _)| status as u32 + 1),
            connectivity: emitted.shown.map_or(0, |(_, connectivity)| connectivity as u32 + 1),
            since_ms: emitted.since.0,
            connectivity_since_ms: emitted.connectivity_since.0,
        }),
        heartbeat_ms: row.heartbeat.map(|heartbeat| heartbeat.at.0),
        heartbeat_poll_interval_ms: row.heartbeat.and_then(|heartbeat| heartbeat.value),
        last_vpn_opening_ms: ms(row.last_vpn_opening),
        sessions: row
            .sessions
            .iter()
            .map(|session| proto::OpenSession {
                instance: session.instance.to_string(),
                fingerprint: session.fingerprint.0,
                opened_ms: session.opened_at.0,
            })
            .collect(),
        membership: row.membership.as_ref().map(|membership| proto::Membership {
            at_ms: membership.at.0,
            fleet: membership.value.0.as_deref().map(str::to_owned),
            organization: membership.value.1.as_deref().map(str::to_owned),
        }),
        registered_ms: ms(row.registered),
        provisioned_ms: ms(row.provisioned),
        activated_ms: ms(row.activated),
        deactivated_ms: ms(row.deactivated),
        preregistered: row
            .preregistered
            .map(|flag| proto::Flag { at_ms: flag.at.0, value: flag.value }),
        frozen: frozen_messages(&row.frozen),
        settings: row.settings.map(settings_message),
        configuration: progress_message(&row.configuration),
        update: progress_message(&row.update),
        deleted_ms: ms(row.deleted),
        deletion_touched_ms: ms(row.deletion_touched),
        complete: true,
    }
}

fn read_row(value: &[u8]) -> Result<RowSnapshot, String> {
    let row: proto::Row = message(value)?;
    complete(row.complete)?;
    Ok(RowSnapshot {
        heartbeat: row
            .heartbeat_ms
            .map(|at_ms| Register { at: Timestamp(at_ms), value: row.heartbeat_poll_interval_ms }),
        last_vpn_opening: row.last_vpn_opening_ms.map(Timestamp),
        sessions: row
            .sessions
            .into_iter()
            .map(|session| OpenSession {
                instance: session.instance.into(),
                fingerprint: SessionFingerprint(session.fingerprint),
                opened_at: Timestamp(session.opened_ms),
            })
            .collect(),
        frozen: frozen_registers(&row.frozen),
        deactivated: row.deactivated_ms.map(Timestamp),
        activated: row.activated_ms.map(Timestamp),
        preregistered: row
            .preregistered
            .map(|flag| Register { at: Timestamp(flag.at_ms), value: flag.value }),
        provisioned: row.provisioned_ms.map(Timestamp),
        registered: row.registered_ms.map(Timestamp),
        membership: row.membership.map(|membership| Register {
            at: Timestamp(membership.at_ms),
            value: (membership.fleet.map(Arc::from), membership.organization.map(Arc::from)),
        }),
        settings: row.settings.as_ref().map(settings_register),
        configuration: progress_facts(row.configuration)?,
        update: progress_facts(row.update)?,
        deleted: row.deleted_ms.map(Timestamp),
        deletion_touched: row.deletion_touched_ms.map(Timestamp),
        emitted: row.emitted.as_ref().map(read_emitted).transpose()?,
        clock: Timestamp(row.clock_ms),
    })
}

fn read_emitted(message: &proto::Emitted) -> Result<Emitted, String> {
    let shown = if message.status == 0 && message.connectivity == 0 {
        None
    } else {
        let status = Status::ALL.get((message.status as usize).wrapping_sub(1));
        let connectivity = Connectivity::ALL.get((message.connectivity as usize).wrapping_sub(1));
        let shown = status.copied().zip(connectivity.copied());
        Some(shown.ok_or_else(|| {
            let (status, connectivity) = (message.status, message.connectivity);
            format!("there is no status {status} with connectivity {connectivity}")
        })?)
    };
    Ok(Emitted {
        version: message.version,
        shown,
        since: Timestamp(message.since_ms),
        connectivity_since: Timestamp(message.connectivity_since_ms),
    })
}

fn read_instance(value: &[u8]) -> Result<InstanceFacts, String> {
    let facts: proto::Instance = message(value)?;
    complete(facts.complete)?;
    let register =
        |lease: proto::Lease| Register { at: Timestamp(lease.at_ms), value: lease.lease_ms };
    Ok(InstanceFacts {
        lost: facts.lost_ms.map(Timestamp),
        started: facts.started_ms.map(Timestamp),
        alive: facts.alive.map(register),
        alive_without_start: facts.alive_without_start.map(register),
        clock: Timestamp(facts.clock_ms),
    })
}

fn read_fleet(value: &[u8]) -> Result<FleetFacts, String> {
    let facts: proto::Fleet = message(value)?;
    complete(facts.complete)?;
    Ok(FleetFacts {
        settings: facts.settings.as_ref().map(settings_register),
        frozen: frozen_registers(&facts.frozen),
        clock: Timestamp(facts.clock_ms),
    })
}

fn read_organization(value: &[u8]) -> Result<OrganizationFacts, String> {
    let facts: proto::Organization = message(value)?;
    complete(facts.complete)?;
    Ok(OrganizationFacts {
        frozen: frozen_registers(&facts.frozen),
        clock: Timestamp(facts.clock_ms),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What version 1 wrote. Never written anew: later versions must read it.
    const GOLDEN: &str = include_str!("../../tests/golden/changelog-v1.txt");

    fn at(ms: i64) -> Timestamp {
        Timestamp(1_760_000_000_000 + ms)
    }

    fn register<T>(ms: i64, value: T) -> Option<Register<T>> {
        Some(Register { at: at(ms), value })
    }

    /// The entries of the golden file, in its order.
    fn golden_entries() -> Vec<Entry> {
        let hex = DeviceId::from_key(b"0123456789abcdef0123456789abcdef").unwrap();
        let text = DeviceId::from_key("gerät/7".as_bytes()).unwrap();
        let frozen = [register(1, true), None, register(2, false), register(3, true)];
        let full = RowSnapshot {
            heartbeat: register(4, Some(900_000)),
            last_vpn_opening: Some(at(5)),
            sessions: vec![
                OpenSession {
                    instance: "vpn-1".into(),
                    fingerprint: SessionFingerprint(0xfedc_ba98_7654_3210),
                    opened_at: at(6),
                },
                OpenSession {
                    instance: "vpn-2".into(),
                    fingerprint: SessionFingerprint(1),
                    opened_at: at(7),
                },
            ],
            frozen,
            deactivated: Some(at(8)),
            activated: Some(at(9)),
            preregistered: register(10, true),
            provisioned: Some(at(11)),
            registered: Some(at(12)),
            membership: register(13, (Some("fleet".into()), Some("organization".into()))),
            settings: register(
                14,
                Settings { poll_interval_ms: Some(60_000), vpn_enabled: Some(false) },
            ),
            configuration: ProgressFacts {
                started: register(15, "".into()),
                finished: Some(at(16)),
                percent: register(17, 100),
            },
            update: ProgressFacts {
                started: register(18, "release-2".into()),
                finished: None,
                percent: register(19, 0),
            },
            deleted: Some(at(20)),
            deletion_touched: Some(at(21)),
            emitted: Some(Emitted {
                version: 300,
                shown: Some((Status::Frozen, Connectivity::None)),
                since: at(22),
                connectivity_since: at(23),
            }),
            clock: at(24),
        };
        let settings = Settings { poll_interval_ms: None, vpn_enabled: Some(true) };
        vec![
            Entry::Device(hex.clone(), Some(Box::new(full))),
            Entry::Device(text.clone(), Some(Box::default())),
            Entry::Device(hex.clone(), None),
            Entry::ClosedSession(
                text.clone(),
                SessionFingerprint(0xabc),
                Some(ClosedSession { closed_at: at(25), clock: at(26) }),
            ),
            Entry::ClosedSession(hex, SessionFingerprint(u64::MAX), None),
            Entry::Instance(
                "vpn-1".into(),
                InstanceFacts {
                    lost: Some(at(27)),
                    started: Some(at(28)),
                    alive: register(29, 60_000),
                    alive_without_start: register(30, 1_000),
                    clock: at(31),
                },
            ),
            Entry::Fleet(
                "fleet".into(),
                FleetFacts { settings: register(32, settings), frozen, clock: at(33) },
            ),
            Entry::Organization("".into(), OrganizationFacts { frozen, clock: at(34) }),
            Entry::Epoch(1_760_000_000_000),
        ]
    }

    fn to_hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn from_hex(text: &str) -> Vec<u8> {
        let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
        digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
    }

    fn golden_text() -> String {
        let line = |entry: &Entry| {
            let (key, value) = encode(entry);
            let value = value.map_or_else(|| "tombstone".to_owned(), |value| to_hex(&value));
            format!("{}\t{value}\n", String::from_utf8(key).unwrap())
        };
        golden_entries().iter().map(line).collect()
    }

    #[test]
    fn what_version_1_wrote_stays_readable() {
        let lines: Vec<&str> = GOLDEN.lines().collect();
        let entries = golden_entries();
        assert_eq!(lines.len(), entries.len());
        for (line, entry) in lines.into_iter().zip(entries) {
            let (key, value) = line.split_once('\t').unwrap();
            let value = (value != "tombstone").then(|| from_hex(value));
            let read = decode(Some(key.as_bytes()), value.as_deref()).unwrap();
            assert_eq!(read, Some(entry), "{key}");
        }
    }

    #[test]
    fn this_version_still_writes_what_version_1_reads() {
        assert_eq!(golden_text(), GOLDEN, "a field changed its number, type or place");
    }

    #[test]
    fn keys_can_be_read_by_people() {
        let keys: Vec<&str> = GOLDEN.lines().filter_map(|line| line.split('\t').next()).collect();
        let expected = [
            "d/0123456789abcdef0123456789abcdef",
            "d/gerät/7",
            "d/0123456789abcdef0123456789abcdef",
            "c/gerät/7/0000000000000abc",
            "c/0123456789abcdef0123456789abcdef/ffffffffffffffff",
            "i/vpn-1",
            "f/fleet",
            "o/",
            "e",
        ];
        assert_eq!(keys, expected);
    }

    #[test]
    fn a_value_cut_off_anywhere_is_corrupted_and_says_what_to_do() {
        for entry in golden_entries() {
            let (key, Some(value)) = encode(&entry) else { continue };
            for cut in 0..value.len() {
                let error = decode(Some(&key), Some(&value[..cut])).unwrap_err();
                let Error::Corrupted(message) = error else { panic!("{error}") };
                let name = format!("{:?}", String::from_utf8_lossy(&key));
                assert!(message.contains(&name) && message.contains("tombstone"), "{message}");
            }
        }
    }

    #[test]
    fn what_a_later_version_adds_is_passed_over() {
        for entry in golden_entries() {
            let (key, Some(mut value)) = encode(&entry) else { continue };
            // Field 1000, a string; field 1001, a number.
            value.extend_from_slice(&[0xc2, 0x3e, 2, b'h', b'i', 0xc8, 0x3e, 5]);
            assert_eq!(decode(Some(&key), Some(&value)).unwrap(), Some(entry));
        }
        for key in ["x/what", "", "d", "ee", "epoch"] {
            assert_eq!(decode(Some(key.as_bytes()), Some(b"?")).unwrap(), None, "{key}");
            assert_eq!(decode(Some(key.as_bytes()), None).unwrap(), None, "{key}");
        }
        let frozen = proto::Frozen { reason: 9, at_ms: 1, value: true };
        assert_eq!(frozen_registers(&[frozen, proto::Frozen::default()]), [None; 4]);
    }

    #[test]
    fn a_key_that_is_none_is_corrupted() {
        let long = [b"d/".as_slice(), &[b'x'; 129]].concat();
        let keys: [&[u8]; 9] = [
            b"d/",
            b"d/\xff",
            &long,
            b"c/",
            b"c//0000000000000001",
            b"c/a/00000000000000AB",
            b"c/a-0000000000000001",
            b"i/\xff",
            b"f/\xff",
        ];
        for key in keys {
            assert!(matches!(decode(Some(key), None), Err(Error::Corrupted(_))), "{key:?}");
        }
        assert!(matches!(decode(None, None), Err(Error::Corrupted(_))));
    }

    #[test]
    fn numbers_that_mean_nothing_are_corrupted() {
        let row = |status, connectivity, percent| proto::Row {
            emitted: Some(proto::Emitted { status, connectivity, ..Default::default() }),
            update: Some(proto::Progress { percent, ..Default::default() }),
            complete: true,
            ..Default::default()
        };
        for message in [row(8, 1, 0), row(1, 5, 0), row(1, 0, 0), row(0, 1, 0), row(1, 1, 256)] {
            let value = message.encode_to_vec();
            assert!(matches!(decode(Some(b"d/a"), Some(&value)), Err(Error::Corrupted(_))));
        }
        assert!(decode(Some(b"d/a"), Some(&row(1, 1, 255).encode_to_vec())).is_ok());
    }

    #[test]
    fn a_tombstone_written_by_hand_leaves_nothing_known() {
        let read = |key: &str| decode(Some(key.as_bytes()), None).unwrap();
        assert_eq!(read("i/a"), Some(Entry::Instance("a".into(), InstanceFacts::default())));
        assert_eq!(read("f/a"), Some(Entry::Fleet("a".into(), FleetFacts::default())));
        assert_eq!(read("e"), None);
    }

    fn time() -> BoxedStrategy<Timestamp> {
        prop_oneof![4 => 0..1i64 << 42, 1 => any::<i64>()].prop_map(Timestamp).boxed()
    }

    fn reg<T: std::fmt::Debug + 'static>(
        value: impl Strategy<Value = T> + 'static,
    ) -> BoxedStrategy<Option<Register<T>>> {
        prop::option::of((time(), value).prop_map(|(at, value)| Register { at, value })).boxed()
    }

    fn name() -> BoxedStrategy<Arc<str>> {
        "\\PC{0,12}".prop_map(Arc::from).boxed()
    }

    fn device() -> BoxedStrategy<DeviceId> {
        let id = prop_oneof!["[0-9a-f]{32}", "\\PC{1,30}"];
        id.prop_map(|id| DeviceId::from_key(id.as_bytes()).unwrap()).boxed()
    }

    fn settings() -> BoxedStrategy<Settings> {
        any::<(Option<u32>, Option<bool>)>()
            .prop_map(|(poll_interval_ms, vpn_enabled)| Settings { poll_interval_ms, vpn_enabled })
            .boxed()
    }

    fn frozen() -> BoxedStrategy<[Option<Register<bool>>; 4]> {
        prop::array::uniform4(reg(any::<bool>())).boxed()
    }

    fn progress() -> BoxedStrategy<ProgressFacts> {
        (reg(name()), prop::option::of(time()), reg(any::<u8>()))
            .prop_map(|(started, finished, percent)| ProgressFacts { started, finished, percent })
            .boxed()
    }

    fn emitted() -> BoxedStrategy<Emitted> {
        let shown = prop::option::of((
            prop::sample::select(Status::ALL.to_vec()),
            prop::sample::select(Connectivity::ALL.to_vec()),
        ));
        (any::<u64>(), shown, time(), time())
            .prop_map(|(version, shown, since, connectivity_since)| Emitted {
                version,
                shown,
                since,
                connectivity_since,
            })
            .boxed()
    }

    fn row() -> BoxedStrategy<RowSnapshot> {
        let session = (name(), any::<u64>(), time()).prop_map(|(instance, hash, opened_at)| {
            OpenSession { instance, fingerprint: SessionFingerprint(hash), opened_at }
        });
        let membership = (prop::option::of(name()), prop::option::of(name()));
        let facts = (
            reg(any::<Option<u32>>()),
            prop::collection::vec(session, 0..4),
            frozen(),
            reg(any::<bool>()),
            reg(membership),
            reg(settings()),
            progress(),
            progress(),
            prop::option::of(emitted()),
        );
        (facts, prop::array::uniform7(prop::option::of(time())), time())
            .prop_map(|(facts, times, clock)| {
                let (heartbeat, sessions, frozen, preregistered, membership, ..) = facts.clone();
                let (.., settings, configuration, update, emitted) = facts;
                RowSnapshot {
                    heartbeat,
                    last_vpn_opening: times[0],
                    sessions,
                    frozen,
                    deactivated: times[1],
                    activated: times[2],
                    preregistered,
                    provisioned: times[3],
                    registered: times[4],
                    membership,
                    settings,
                    configuration,
                    update,
                    deleted: times[5],
                    deletion_touched: times[6],
                    emitted,
                    clock,
                }
            })
            .boxed()
    }

    fn entry() -> BoxedStrategy<Entry> {
        let closed =
            (time(), time()).prop_map(|(closed_at, clock)| ClosedSession { closed_at, clock });
        let instance =
            (
                prop::option::of(time()),
                prop::option::of(time()),
                reg(any::<u32>()),
                reg(any::<u32>()),
                time(),
            )
                .prop_map(|(lost, started, alive, alive_without_start, clock)| {
                    InstanceFacts { lost, started, alive, alive_without_start, clock }
                });
        prop_oneof![
            (device(), prop::option::of(row().prop_map(Box::new)))
                .prop_map(|(device, row)| Entry::Device(device, row))
                .boxed(),
            (device(), any::<u64>(), prop::option::of(closed)).prop_map(
                |(device, hash, session)| {
                    Entry::ClosedSession(device, SessionFingerprint(hash), session)
                }
            ),
            (name(), instance).prop_map(|(name, facts)| Entry::Instance(name, facts)),
            (name(), reg(settings()), frozen(), time()).prop_map(
                |(name, settings, frozen, clock)| {
                    Entry::Fleet(name, FleetFacts { settings, frozen, clock })
                }
            ),
            (name(), frozen(), time()).prop_map(|(name, frozen, clock)| {
                Entry::Organization(name, OrganizationFacts { frozen, clock })
            }),
            any::<u64>().prop_map(Entry::Epoch),
        ]
        .boxed()
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(entry in entry()) {
            let (key, value) = encode(&entry);
            prop_assert_eq!(decode(Some(&key), value.as_deref()).unwrap(), Some(entry));
        }

        #[test]
        fn a_value_cut_off_is_never_taken_for_whole(
            entry in entry(),
            cut in any::<prop::sample::Index>(),
        ) {
            if let (key, Some(value)) = encode(&entry) {
                let cut = &value[..cut.index(value.len())];
                prop_assert!(matches!(decode(Some(&key), Some(cut)), Err(Error::Corrupted(_))));
            }
        }

        #[test]
        fn any_bytes_are_read_without_harm(
            kind in prop::sample::select(vec!["d/", "c/", "i/", "f/", "o/", "e", ""]),
            rest in prop::collection::vec(any::<u8>(), 0..40),
            value in prop::option::of(prop::collection::vec(any::<u8>(), 0..100)),
        ) {
            let key = [kind.as_bytes(), &rest].concat();
            let _ = decode(Some(&key), value.as_deref());
        }
    }
}
