//! The changelog as earlier versions wrote it, as this one writes it, and with
//! damage.

use proptest::option::of;
use proptest::prelude::*;

use super::*;
use crate::shard::snapshot::{HeldScope, Hold};
use crate::shard::tests::strategies::{
    device_facts, earlier, frozen, heartbeat_interval, lease, name, register, session, settings,
    time,
};
use crate::shard::{Cause, Connectivity, Status};

/// The changelog of version 2. Do not regenerate it after a release: later
/// versions must read it.
const GOLDEN: &str = include_str!("../../../tests/golden/changelog-v2.txt");

fn at(ms: i64) -> Timestamp {
    Timestamp(1_760_000_000_000 + ms)
}

fn flag(ms: i64, value: bool) -> Option<Flag> {
    Some(Flag::new(at(ms), value))
}

fn with_more(ms: i64, value: bool, other: i64) -> Option<Flag> {
    Some(Flag { both_seen: true, other: Some(at(other)), ..Flag::new(at(ms), value) })
}

fn fact<T>(ms: i64, value: T) -> Option<Register<T>> {
    Some(Register { at: at(ms), value })
}

fn opening(ms: i64) -> Opening {
    Opening { at: at(ms), connected_at: at(ms), counted_at: at(ms), lease_ms: None }
}

/// The entries of the golden file, in its order.
#[allow(clippy::needless_update, reason = "version 2 knew no fact that came later")]
fn golden_entries() -> Vec<Entry> {
    let hex = DeviceId::from_key(b"0123456789abcdef0123456789abcdef").unwrap();
    let text = DeviceId::from_key("gerät/7".as_bytes()).unwrap();
    let frozen = [flag(1, true), None, with_more(2, false, -2), flag(3, true)];
    let full = RowSnapshot {
        heartbeat: fact(4, HeartbeatInterval::Carried(900)),
        going_away: true,
        facts: DeviceFacts {
            last_vpn_opening: Some(at(5)),
            last_vpn_opening_told: Some(at(7)),
            sessions: vec![
                Session { opening: Some(opening(6)), ..Session::new("vpn-1".into(), "".into()) },
                Session {
                    opening: Some(Opening {
                        connected_at: at(5),
                        counted_at: at(8),
                        lease_ms: Some(60_000),
                        ..opening(7)
                    }),
                    leased: Some(Opening { counted_at: at(9), ..opening(4) }),
                    began_at: Some(at(3)),
                    closed_at: Some(at(7)),
                    reopened: true,
                    ended: Some(Ended { until: at(1), at: at(2) }),
                    ..Session::new("vpn-2".into(), "s2".into())
                },
            ],
            frozen,
            active: with_more(9, true, 8),
            preregistered: flag(10, true),
            provisioned: Some(at(11)),
            registered: Some(at(12)),
            membership: fact(
                13,
                Membership { fleet: "fleet".into(), organization: "organization".into() },
            ),
            settings: fact(14, Settings { poll_interval_s: Some(60), vpn_enabled: Some(false) }),
            configuration: ConfigurationFacts {
                started: with_more(16, false, 15),
                outcome: Some(UpdateOutcome::Rejected),
                percent: fact(17, 100),
            },
            update: UpdateFacts {
                started: fact(18, "release-2".into()),
                releases: vec![
                    ReleaseFacts { percent: fact(19, 0), ..ReleaseFacts::default() },
                    ReleaseFacts {
                        release: "release-2".into(),
                        finished: fact(18, Some(UpdateOutcome::Failed)),
                        tie: Tie::Ended,
                        percent: None,
                        phase: fact(18, UpdatePhase::Downloading),
                    },
                ],
            },
            deleted: Some(at(20)),
            deletion_tie: Tie::Began,
            deletion_interval_s: Some(3_600),
            deletion_touched: Some(at(21)),
            ..DeviceFacts::default()
        },
        emitted: Some(Emitted {
            version: 300,
            shown: Some((Status::Frozen, Connectivity::None)),
            since: at(22),
            connectivity_since: at(23),
            membership_since: at(13),
        }),
        clock: at(24),
    };
    let settings = Settings { poll_interval_s: None, vpn_enabled: Some(true) };
    vec![
        Entry::Device(hex.clone(), Some(Box::new(full))),
        Entry::Device(text.clone(), Some(Box::default())),
        Entry::Device(hex.clone(), None),
        Entry::ClosedSession(
            text.clone(),
            SessionFingerprint(0xabc),
            Some(ClosedSession {
                session: Session {
                    closed_at: Some(at(25)),
                    ..Session::new("vpn-1".into(), "s3".into())
                },
                clock: at(26),
            }),
        ),
        Entry::ClosedSession(hex, SessionFingerprint(u64::MAX), None),
        Entry::Instance(
            "vpn-1".into(),
            Some(InstanceFacts {
                lost: Some(at(27)),
                started: Some(at(28)),
                alive: Some(Lease { at: at(29), counted_at: at(30), lease_ms: 60_000 }),
                alive_without_start: Some(Lease {
                    at: at(30),
                    counted_at: at(30),
                    lease_ms: 1_000,
                }),
                alive_is_later: true,
                lapsed: true,
                clock: at(31),
            }),
        ),
        Entry::Instance("vpn-2".into(), None),
        Entry::Fleet(
            "fleet".into(),
            FleetFacts {
                settings: fact(32, settings),
                frozen,
                clock: at(33),
                ..FleetFacts::default()
            },
        ),
        Entry::Organization("".into(), OrganizationFacts { frozen, clock: at(34) }),
        Entry::Epoch(1_760_000_000_000),
        Entry::Hold(Some(Box::new(Hold {
            scope: HeldScope::Fleet(
                "fleet".into(),
                [
                    FleetFacts::default(),
                    FleetFacts { settings: fact(35, settings), ..FleetFacts::default() },
                ],
            ),
            at: at(35),
            judged: at(36),
            cause: Cause::SettingsChanged,
            clock: at(37),
        }))),
        Entry::Hold(None),
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
fn changelog_of_version_2_stays_readable() {
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
fn version_2_can_read_this_versions_changelog() {
    if std::env::var_os("UPDATE").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/changelog-v2.txt");
        std::fs::write(path, golden_text()).unwrap();
    }
    assert_eq!(golden_text(), GOLDEN, "a field changed its number, type or place");
}

#[test]
fn changelog_of_an_early_build_is_refused_by_its_version() {
    let early = proto::Epoch { epoch: 7, complete: true, ..Default::default() }.encode_to_vec();
    let Err(Error::Fatal(fatal)) = decode(Some(b"e"), Some(&early)) else { panic!("it is read") };
    assert_eq!(fatal.kind.exit_code(), 69);
    assert!(fatal.message.contains("version 1") && fatal.message.contains("operations.md"));
    let later = proto::Epoch { version: 3, epoch: 7, complete: true, ..Default::default() };
    let read = decode(Some(b"e"), Some(&later.encode_to_vec())).unwrap();
    assert_eq!(read, Some(Entry::Epoch(7)));
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
        "i/vpn-2",
        "f/fleet",
        "o/",
        "e",
        "h",
        "h",
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
fn additions_of_a_later_version_are_skipped() {
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
    let frozen = proto::Frozen { reason: 9, at_ms: 1, value: true, ..Default::default() };
    let read: FrozenRegisters = Wire::read(&vec![frozen, proto::Frozen::default()]).unwrap();
    assert_eq!(read, [None; 4]);
}

#[test]
fn invalid_key_is_corrupted() {
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
fn unknown_numbers_are_corrupted() {
    let row = |status, connectivity, percent| proto::Row {
        emitted: Some(proto::Emitted { status, connectivity, ..Default::default() }),
        configuration: Some(proto::Progress { percent, ..Default::default() }),
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
    assert_eq!(read("i/a"), Some(Entry::Instance("a".into(), None)));
    assert_eq!(read("f/a"), Some(Entry::Fleet("a".into(), FleetFacts::default())));
    assert_eq!(read("e"), None);
}

fn device() -> BoxedStrategy<DeviceId> {
    let id = prop_oneof!["[0-9a-f]{32}", "\\PC{1,30}"];
    id.prop_map(|id| DeviceId::from_key(id.as_bytes()).unwrap()).boxed()
}

fn emitted() -> BoxedStrategy<Emitted> {
    let shown = of((
        prop::sample::select(Status::ALL.to_vec()),
        prop::sample::select(Connectivity::ALL.to_vec()),
    ));
    (any::<u64>(), shown, time(), time(), time())
        .prop_map(|(version, shown, since, connectivity_since, membership_since)| Emitted {
            version,
            shown,
            since,
            connectivity_since,
            membership_since,
        })
        .boxed()
}

fn row() -> BoxedStrategy<RowSnapshot> {
    let heartbeat = (register(heartbeat_interval()), any::<bool>());
    (heartbeat, device_facts(name()), of(emitted()), time())
        .prop_map(|((heartbeat, going_away), facts, emitted, clock)| RowSnapshot {
            heartbeat,
            going_away,
            facts,
            emitted,
            clock,
        })
        .boxed()
}

fn entry() -> BoxedStrategy<Entry> {
    let closed = (session(name()), time());
    let closed = closed.prop_map(|(session, clock)| ClosedSession { session, clock });
    let leases = (of(lease()), of(lease()), [any::<bool>(), any::<bool>()]);
    let instance = (of(time()), of(time()), leases, time())
        .prop_map(|(lost, started, leases, clock)| {
            let (alive, alive_without_start, [alive_is_later, lapsed]) = leases;
            InstanceFacts {
                lost,
                started,
                alive,
                alive_without_start,
                alive_is_later,
                lapsed,
                clock,
            }
        })
        .boxed();
    let fleet = (register(settings()), earlier(any::<Option<u32>>()), frozen(), time())
        .prop_map(|(settings, earlier_settings, frozen, clock)| FleetFacts {
            settings,
            earlier_settings,
            frozen,
            clock,
        })
        .boxed();
    let organization =
        (frozen(), time()).prop_map(|(frozen, clock)| OrganizationFacts { frozen, clock }).boxed();
    let scope = prop_oneof![
        (name(), [instance.clone(), instance.clone()])
            .prop_map(|(name, facts)| HeldScope::Instance(name, facts)),
        (name(), [fleet.clone(), fleet.clone()])
            .prop_map(|(name, facts)| HeldScope::Fleet(name, facts)),
        (name(), [organization.clone(), organization.clone()])
            .prop_map(|(name, facts)| HeldScope::Organization(name, facts)),
    ];
    let causes = prop::sample::select(Cause::ALL.to_vec());
    let hold =
        (scope, time(), time(), causes, time()).prop_map(|(scope, at, judged, cause, clock)| {
            Box::new(Hold { scope, at, judged, cause, clock })
        });
    prop_oneof![
        of(hold).prop_map(Entry::Hold),
        (device(), of(row().prop_map(Box::new)))
            .prop_map(|(device, row)| Entry::Device(device, row))
            .boxed(),
        (device(), any::<u64>(), of(closed)).prop_map(|(device, hash, session)| {
            Entry::ClosedSession(device, SessionFingerprint(hash), session)
        }),
        (name(), of(instance)).prop_map(|(name, facts)| Entry::Instance(name, facts)),
        (name(), fleet).prop_map(|(name, facts)| Entry::Fleet(name, facts)),
        (name(), organization).prop_map(|(name, facts)| Entry::Organization(name, facts)),
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
    fn any_bytes_are_read_without_a_panic(
        kind in prop::sample::select(vec!["d/", "c/", "i/", "f/", "o/", "e", ""]),
        rest in prop::collection::vec(any::<u8>(), 0..40),
        value in of(prop::collection::vec(any::<u8>(), 0..100)),
    ) {
        let key = [kind.as_bytes(), &rest].concat();
        let _ = decode(Some(&key), value.as_deref());
    }
}
