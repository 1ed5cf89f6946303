//! What is written is read back, whatever it is.

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use super::*;

fn time() -> impl Strategy<Value = Timestamp> {
    (0_i64..4_000_000_000_000).prop_map(Timestamp)
}

fn name() -> impl Strategy<Value = Arc<str>> {
    "[a-zA-Z0-9 /é-]{1,20}".prop_map(Into::into)
}

fn register<T: std::fmt::Debug>(
    value: impl Strategy<Value = T>,
) -> impl Strategy<Value = Option<Register<T>>> {
    of((time(), value).prop_map(|(at, value)| Register { at, value }))
}

fn frozen_registers() -> impl Strategy<Value = FrozenRegisters> {
    proptest::array::uniform4(register(any::<bool>()))
}

fn some_settings() -> impl Strategy<Value = Settings> {
    (of(any::<u32>()), of(any::<bool>()))
        .prop_map(|(poll_interval_ms, vpn_enabled)| Settings { poll_interval_ms, vpn_enabled })
}

fn progress_facts() -> impl Strategy<Value = ProgressFacts> {
    (register(name()), of(time()), register(0_u8..=100))
        .prop_map(|(started, finished, percent)| ProgressFacts { started, finished, percent })
}

fn emitted_facts() -> impl Strategy<Value = Emitted> {
    let shown = (
        proptest::sample::select(&Status::ALL[..]),
        proptest::sample::select(&Connectivity::ALL[..]),
    );
    (any::<u64>(), of(shown), time(), time()).prop_map(
        |(version, shown, since, connectivity_since)| Emitted {
            version,
            shown,
            since,
            connectivity_since,
        },
    )
}

fn device_id() -> impl Strategy<Value = DeviceId> {
    prop_oneof![
        any::<[u8; 16]>().prop_map(DeviceId::Hex),
        "[a-z/é]{1,30}".prop_map(|text| DeviceId::Text(text.into())),
    ]
}

fn snapshot() -> impl Strategy<Value = RowSnapshot> {
    let sessions =
        vec(
            (name(), any::<u64>(), time()).prop_map(|(instance, fingerprint, opened_at)| {
                OpenSession { instance, fingerprint: SessionFingerprint(fingerprint), opened_at }
            }),
            0..3,
        );
    let times = proptest::array::uniform7(of(time()));
    let links = (register(of(any::<u32>())), sessions, frozen_registers());
    let life = (
        register(any::<bool>()),
        register((of(name()), of(name()))),
        register(some_settings()),
        progress_facts(),
        progress_facts(),
    );
    (times, links, life, of(emitted_facts()), time()).prop_map(
        |(times, (heartbeat, sessions, frozen), life, emitted, clock)| RowSnapshot {
            heartbeat,
            last_vpn_opening: times[0],
            sessions,
            frozen,
            deactivated: times[1],
            activated: times[2],
            preregistered: life.0,
            provisioned: times[3],
            registered: times[4],
            membership: life.1,
            settings: life.2,
            configuration: life.3,
            update: life.4,
            deleted: times[5],
            deletion_touched: times[6],
            emitted,
            clock,
        },
    )
}

fn lease_facts() -> impl Strategy<Value = Option<Register<u32>>> {
    register(any::<u32>())
}

fn entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        (device_id(), of(snapshot())).prop_map(|(id, row)| Entry::Device(id, row.map(Box::new))),
        (device_id(), any::<u64>(), of((time(), time()))).prop_map(|(id, fingerprint, closed)| {
            let closed = closed.map(|(closed_at, clock)| ClosedSession { closed_at, clock });
            Entry::ClosedSession(id, SessionFingerprint(fingerprint), closed)
        }),
        (name(), of(time()), of(time()), lease_facts(), lease_facts(), time()).prop_map(
            |(name, lost, started, alive, alive_without_start, clock)| {
                let facts = InstanceFacts { lost, started, alive, alive_without_start, clock };
                Entry::Instance(name, facts)
            }
        ),
        (name(), register(some_settings()), frozen_registers(), time()).prop_map(
            |(name, settings, frozen, clock)| {
                Entry::Fleet(name, FleetFacts { settings, frozen, clock })
            }
        ),
        (name(), frozen_registers(), time()).prop_map(|(name, frozen, clock)| {
            Entry::Organization(name, OrganizationFacts { frozen, clock })
        }),
        any::<u64>().prop_map(Entry::Epoch),
    ]
}

proptest! {
    #[test]
    fn every_entry_reads_back_as_it_was(entry in entry()) {
        let (key, value) = encode(&entry);
        prop_assert_eq!(decode(Some(&key), value.as_deref()).unwrap(), Some(entry));
    }

    #[test]
    fn a_newer_versions_fields_are_passed_over(entry in entry()) {
        let (key, value) = encode(&entry);
        if let Some(mut value) = value {
            // Field 1000, a varint.
            value.extend([0xc0, 0x3e, 0x07]);
            prop_assert_eq!(decode(Some(&key), Some(&value)).unwrap(), Some(entry));
        }
    }

    #[test]
    fn anything_at_all_is_read_or_refused(key in vec(any::<u8>(), 0..40), value in vec(any::<u8>(), 0..60)) {
        let _ = decode(Some(&key), Some(&value));
    }
}

#[test]
fn a_truncated_record_is_corrupted_and_says_so() {
    let row = RowSnapshot { clock: Timestamp(5), ..RowSnapshot::default() };
    let device = DeviceId::from_key(b"a").unwrap();
    let (key, value) = encode(&Entry::Device(device, Some(Box::new(row))));
    let value = value.unwrap();
    let error = decode(Some(&key), Some(&value[..value.len() - 1])).unwrap_err();
    assert!(matches!(error, Error::Corrupted(_)), "{error}");
}

#[test]
fn a_newer_versions_kinds_of_entry_are_passed_over() {
    assert_eq!(decode(Some(b"z/what"), Some(b"?")).unwrap(), None);
}
