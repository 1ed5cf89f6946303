use proptest::prelude::*;
use prost::Message;

use super::*;

const KEY: Option<&[u8]> = Some(b"0123456789abcdef0123456789abcdef");

fn at(seconds: i64, nanos: i32) -> Option<ProtoTimestamp> {
    Some(ProtoTimestamp { seconds, nanos })
}

fn lasting(seconds: i64, nanos: i32) -> Option<Duration> {
    Some(Duration { seconds, nanos })
}

fn read(input: Input, key: Option<&[u8]>, message: &impl Message) -> Result<Event, Refusal> {
    decode(input, Format::Protobuf, key, Some(&message.encode_to_vec()))
}

fn reason(result: Result<Event, Refusal>) -> DeadLetterReason {
    result.expect_err("must be refused").reason
}

fn vpn(event: v1::vpn_event::Event) -> v1::VpnEvent {
    v1::VpnEvent { occurred_at: at(10, 0), event: Some(event) }
}

fn lifecycle(event: v1::lifecycle_event::Event) -> v1::LifecycleEvent {
    v1::LifecycleEvent { occurred_at: at(10, 0), event: Some(event) }
}

fn heartbeat_with(poll_interval: Option<Duration>) -> v1::Heartbeat {
    v1::Heartbeat { occurred_at: at(10, 0), poll_interval, ..Default::default() }
}

#[test]
fn heartbeat_time_is_truncated_to_milliseconds() {
    let message = v1::Heartbeat {
        occurred_at: at(10, 123_999_999),
        poll_interval: lasting(900, 0),
        ..Default::default()
    };
    let event = read(Input::Heartbeats, KEY, &message).unwrap();
    assert_eq!(event.occurred_at, Some(Timestamp(10_123)));
    assert_eq!(
        event.body,
        EventBody::Heartbeat {
            device: DeviceId::from_key(KEY.unwrap()).unwrap(),
            poll_interval_s: Some(900),
            going_away: false,
        }
    );
}

#[test]
fn heartbeat_without_a_time_has_the_records_timestamp() {
    let message =
        v1::Heartbeat { occurred_at: None, poll_interval: lasting(60, 0), ..Default::default() };
    assert_eq!(read(Input::Heartbeats, KEY, &message).unwrap().occurred_at, None);
}

#[test]
fn a_field_of_a_newer_producer_is_skipped() {
    // Field 100, varint 1.
    let event = decode(Input::Heartbeats, Format::Protobuf, KEY, Some(&[0xa0, 0x06, 0x01]));
    assert!(event.is_ok());
}

#[test]
fn an_empty_value_is_undecodable_everywhere() {
    for input in Input::ALL {
        for key in [KEY, None] {
            let result = decode(input, Format::Protobuf, key, Some(b""));
            assert_eq!(reason(result), DeadLetterReason::Undecodable);
        }
    }
}

#[test]
fn a_truncated_value_is_undecodable() {
    let whole = heartbeat_with(lasting(900, 0)).encode_to_vec();
    let result = decode(Input::Heartbeats, Format::Protobuf, KEY, Some(&whole[..whole.len() - 1]));
    assert_eq!(reason(result), DeadLetterReason::Undecodable);
}

#[test]
fn text_is_undecodable() {
    for input in Input::ALL {
        let result = decode(input, Format::Protobuf, KEY, Some(b"{\"occurredAt\":\"2026\"}"));
        assert_eq!(reason(result), DeadLetterReason::Undecodable);
    }
}

#[test]
fn a_tombstone_deletes_on_the_lifecycle_topic_only() {
    let event = decode(Input::Lifecycle, Format::Protobuf, KEY, None).unwrap();
    assert_eq!(event.occurred_at, None);
    assert!(matches!(event.body, EventBody::Device { event: DeviceEvent::Deleted, .. }));
    for input in [Input::Heartbeats, Input::VpnSessions] {
        for key in [KEY, None] {
            let result = decode(input, Format::Protobuf, key, None);
            assert_eq!(reason(result), DeadLetterReason::UnexpectedTombstone);
        }
    }
    let result = decode(Input::Lifecycle, Format::Protobuf, None, None);
    assert_eq!(reason(result), DeadLetterReason::MissingKey);
    let result = decode(Input::Lifecycle, Format::Protobuf, Some(b""), None);
    assert_eq!(reason(result), DeadLetterReason::InvalidKey);
}

#[test]
fn an_id_that_only_begins_like_json_is_an_id() {
    for key in ["{4f2a}", "\"", "[4f", "4", "true", "null"] {
        assert!(
            read(Input::Heartbeats, Some(key.as_bytes()), &heartbeat_with(None)).is_ok(),
            "{key}"
        );
    }
}

#[test]
fn unset_or_unknown_event_is_refused_as_such() {
    let vpn = v1::VpnEvent { occurred_at: at(10, 0), event: None };
    assert_eq!(reason(read(Input::VpnSessions, KEY, &vpn)), DeadLetterReason::UnknownEvent);
    let lifecycle = v1::LifecycleEvent { occurred_at: at(10, 0), event: None };
    assert_eq!(reason(read(Input::Lifecycle, KEY, &lifecycle)), DeadLetterReason::UnknownEvent);
    // Field 99 with an empty message: an event of a newer version.
    let result = decode(Input::Lifecycle, Format::Protobuf, KEY, Some(&[0x9a, 0x06, 0x00]));
    assert_eq!(reason(result), DeadLetterReason::UnknownEvent);
}

#[test]
fn device_events_need_a_key_that_is_a_device_id() {
    let opened = vpn(v1::vpn_event::Event::SessionOpened(v1::SessionOpened {
        instance: "eu-1".into(),
        session: "s".into(),
        ..Default::default()
    }));
    let closed = vpn(v1::vpn_event::Event::SessionClosed(v1::SessionClosed {
        instance: "eu-1".into(),
        session: "s".into(),
        ..Default::default()
    }));
    let activated = lifecycle(v1::lifecycle_event::Event::Activated(v1::Activated {}));
    let long = [b'x'; 129];
    let cases: [(Option<&[u8]>, DeadLetterReason); 9] = [
        (None, DeadLetterReason::MissingKey),
        (Some(b""), DeadLetterReason::InvalidKey),
        (Some(&long), DeadLetterReason::InvalidKey),
        (Some(&[0xff]), DeadLetterReason::InvalidKey),
        (Some(b"\"4f2a\""), DeadLetterReason::InvalidKey),
        (Some(b"{\"id\":\"4f2a\"}"), DeadLetterReason::InvalidKey),
        (Some(b"[\"4f2a\"]"), DeadLetterReason::InvalidKey),
        (Some(b"\0\0\0\0\x07\x084f2a"), DeadLetterReason::InvalidKey),
        (Some(&7_u64.to_be_bytes()), DeadLetterReason::InvalidKey),
    ];
    for (key, expected) in cases {
        assert_eq!(reason(read(Input::Heartbeats, key, &heartbeat_with(None))), expected);
        assert_eq!(reason(read(Input::VpnSessions, key, &opened)), expected);
        assert_eq!(reason(read(Input::VpnSessions, key, &closed)), expected);
        assert_eq!(reason(read(Input::Lifecycle, key, &activated)), expected);
    }
}

fn scope_events() -> Vec<(Input, Vec<u8>)> {
    use v1::lifecycle_event::Event as L;
    use v1::vpn_event::Event as V;

    let vpn_events = [
        V::InstanceAlive(v1::InstanceAlive {
            instance: "eu-1".into(),
            started_at: at(5, 0),
            lease: lasting(30, 0),
        }),
        V::InstanceLost(v1::InstanceLost { instance: "eu-1".into() }),
    ];
    let lifecycle_events = [
        L::FleetSettingsChanged(v1::FleetSettingsChanged {
            fleet: "f".into(),
            poll_interval: lasting(60, 0),
            vpn_enabled: Some(false),
        }),
        L::FleetFrozen(v1::FleetFrozen { fleet: "f".into(), reason: 1 }),
        L::FleetUnfrozen(v1::FleetUnfrozen { fleet: "f".into(), reason: 0 }),
        L::OrganizationFrozen(v1::OrganizationFrozen { organization: "o".into(), reason: 0 }),
        L::OrganizationUnfrozen(v1::OrganizationUnfrozen { organization: "o".into(), reason: 3 }),
    ];
    let vpn_events = vpn_events.map(|event| (Input::VpnSessions, vpn(event).encode_to_vec()));
    let lifecycle_events =
        lifecycle_events.map(|event| (Input::Lifecycle, lifecycle(event).encode_to_vec()));
    vpn_events.into_iter().chain(lifecycle_events).collect()
}

#[test]
fn broadcasts_must_have_no_key() {
    for (input, value) in scope_events() {
        let event = decode(input, Format::Protobuf, None, Some(&value)).unwrap();
        assert!(matches!(event.body, EventBody::Scope(_)));
        for key in [KEY, Some(b"".as_slice())] {
            let result = decode(input, Format::Protobuf, key, Some(&value));
            assert_eq!(reason(result), DeadLetterReason::UnexpectedKey);
        }
    }
}

#[test]
fn required_names_must_be_present_and_all_names_short() {
    use v1::lifecycle_event::Event as L;
    use v1::vpn_event::Event as V;

    for bad in [String::new(), "x".repeat(NAME_MAX_BYTES + 1)] {
        let good = || "n".to_owned();
        let keyed = [
            V::SessionOpened(v1::SessionOpened {
                instance: bad.clone(),
                session: good(),
                ..Default::default()
            }),
            V::SessionClosed(v1::SessionClosed {
                instance: bad.clone(),
                session: good(),
                ..Default::default()
            }),
        ];
        for event in keyed {
            let result = read(Input::VpnSessions, KEY, &vpn(event));
            assert_eq!(reason(result), DeadLetterReason::InvalidValue);
        }
        let broadcast = [
            V::InstanceAlive(v1::InstanceAlive {
                instance: bad.clone(),
                started_at: None,
                lease: lasting(30, 0),
            }),
            V::InstanceLost(v1::InstanceLost { instance: bad.clone() }),
        ];
        for event in broadcast {
            let result = read(Input::VpnSessions, None, &vpn(event));
            assert_eq!(reason(result), DeadLetterReason::InvalidValue);
        }
        let scopes = [
            L::FleetSettingsChanged(v1::FleetSettingsChanged {
                fleet: bad.clone(),
                ..Default::default()
            }),
            L::FleetFrozen(v1::FleetFrozen { fleet: bad.clone(), reason: 1 }),
            L::FleetUnfrozen(v1::FleetUnfrozen { fleet: bad.clone(), reason: 1 }),
            L::OrganizationFrozen(v1::OrganizationFrozen { organization: bad.clone(), reason: 1 }),
            L::OrganizationUnfrozen(v1::OrganizationUnfrozen {
                organization: bad.clone(),
                reason: 1,
            }),
        ];
        for event in scopes {
            let result = read(Input::Lifecycle, None, &lifecycle(event));
            assert_eq!(reason(result), DeadLetterReason::InvalidValue);
        }
    }
    let long = "x".repeat(NAME_MAX_BYTES + 1);
    let optional = [
        L::Registered(v1::Registered { fleet: long.clone(), ..Default::default() }),
        L::Registered(v1::Registered { organization: long.clone(), ..Default::default() }),
        L::Moved(v1::Moved { fleet: long.clone(), organization: String::new() }),
        L::Moved(v1::Moved { fleet: String::new(), organization: long.clone() }),
        L::UpdateStarted(v1::UpdateStarted { release: long }),
    ];
    for event in optional {
        let result = read(Input::Lifecycle, KEY, &lifecycle(event));
        assert_eq!(reason(result), DeadLetterReason::InvalidValue);
    }
    let moved = L::Moved(v1::Moved { fleet: String::new(), organization: String::new() });
    assert!(read(Input::Lifecycle, KEY, &lifecycle(moved)).is_ok());
}

#[test]
fn intervals_are_one_second_to_a_year_in_whole_seconds_rounded_up() {
    let cases = [
        (lasting(0, 999_999_999), Some(1)),
        (lasting(1, 0), Some(1)),
        (lasting(1, 1), Some(2)),
        (lasting(604_800, 0), Some(604_800)),
        (lasting(366 * 86_400, 0), Some(366 * 86_400)),
        (lasting(366 * 86_400, 1), None),
        (lasting(0, 999_000_000), None),
        (lasting(0, 0), None),
        (lasting(-1, 0), None),
        (lasting(2, -1), None),
        (lasting(2, 1_000_000_000), None),
        (lasting(i64::MAX, 999_999_999), None),
        (lasting(i64::MIN, i32::MIN), None),
    ];
    for (said, expected) in cases {
        let result = read(Input::Heartbeats, KEY, &heartbeat_with(said));
        match expected {
            Some(seconds) => assert!(
                matches!(result.unwrap().body, EventBody::Heartbeat { poll_interval_s, .. }
                    if poll_interval_s == Some(seconds)),
                "{said:?}"
            ),
            None => assert_eq!(reason(result), DeadLetterReason::InvalidValue, "{said:?}"),
        }
        let settings = v1::SettingsChanged { poll_interval: said, vpn_enabled: Some(true) };
        let settings = lifecycle(v1::lifecycle_event::Event::SettingsChanged(settings));
        assert_eq!(read(Input::Lifecycle, KEY, &settings).is_ok(), expected.is_some());
    }
}

#[test]
fn leases_are_one_second_to_seven_days_rounded_up_to_milliseconds() {
    let cases = [
        (lasting(0, 999_999_999), Some(1_000)),
        (lasting(1, 0), Some(1_000)),
        (lasting(1, 1), Some(1_001)),
        (lasting(604_800, 0), Some(604_800_000)),
        (lasting(604_800, 1), None),
        (lasting(0, 999_000_000), None),
        (lasting(-1, 0), None),
        (lasting(2, -1), None),
        (lasting(i64::MAX, 999_999_999), None),
    ];
    let alive = |lease| {
        vpn(v1::vpn_event::Event::InstanceAlive(v1::InstanceAlive {
            instance: "eu-1".into(),
            started_at: None,
            lease,
        }))
    };
    for (said, expected) in cases {
        let opened = vpn(v1::vpn_event::Event::SessionOpened(v1::SessionOpened {
            instance: "eu-1".into(),
            lease: said,
            ..Default::default()
        }));
        let results =
            [read(Input::VpnSessions, None, &alive(said)), read(Input::VpnSessions, KEY, &opened)];
        for result in results {
            let Some(ms) = expected else {
                assert_eq!(reason(result), DeadLetterReason::InvalidValue, "{said:?}");
                continue;
            };
            match result.unwrap().body {
                EventBody::Scope(ScopeEvent::InstanceAlive { lease_ms, .. }) => {
                    assert_eq!(lease_ms, ms);
                }
                EventBody::Device {
                    event: DeviceEvent::SessionOpened { lease_ms, .. }, ..
                } => {
                    assert_eq!(lease_ms, Some(ms));
                }
                other => panic!("{other:?}"),
            }
        }
    }
    let result = read(Input::VpnSessions, None, &alive(None));
    assert_eq!(reason(result), DeadLetterReason::InvalidValue);
}

#[test]
fn times_beyond_protobufs_or_a_rows_range_are_refused() {
    let good = [(0, 0), (TIMESTAMP_MAX_SECONDS, 999_999_999)];
    let bad = [(-1, 0), (TIMESTAMP_MAX_SECONDS + 1, 0), (1, -1), (1, 1_000_000_000), (i64::MIN, 0)];
    let cases = good.map(|case| (case, true)).into_iter().chain(bad.map(|case| (case, false)));
    for ((seconds, nanos), expected) in cases {
        let when = at(seconds, nanos);
        let heartbeat =
            v1::Heartbeat { occurred_at: when, poll_interval: None, ..Default::default() };
        let alive = vpn(v1::vpn_event::Event::InstanceAlive(v1::InstanceAlive {
            instance: "eu-1".into(),
            started_at: when,
            lease: lasting(30, 0),
        }));
        let mut activated = lifecycle(v1::lifecycle_event::Event::Activated(v1::Activated {}));
        activated.occurred_at = when;
        for result in [
            read(Input::Heartbeats, KEY, &heartbeat),
            read(Input::VpnSessions, None, &alive),
            read(Input::Lifecycle, KEY, &activated),
        ] {
            match expected {
                true => assert!(result.is_ok(), "{when:?}"),
                false => assert_eq!(reason(result), DeadLetterReason::InvalidValue, "{when:?}"),
            }
        }
    }
}

#[test]
fn percentages_end_at_a_hundred() {
    use v1::lifecycle_event::Event as L;

    for (percent, expected) in [(0, true), (100, true), (101, false), (256, false), (300, false)] {
        let events = [
            L::ConfigurationProgressed(v1::ConfigurationProgressed { percent }),
            L::UpdateProgressed(v1::UpdateProgressed { percent, ..Default::default() }),
        ];
        for event in events {
            let result = read(Input::Lifecycle, KEY, &lifecycle(event));
            match expected {
                true => assert!(result.is_ok()),
                false => assert_eq!(reason(result), DeadLetterReason::InvalidValue),
            }
        }
    }
}

#[test]
fn reasons_unset_mean_other_or_all_and_unknown_ones_are_refused() {
    use v1::lifecycle_event::Event as L;

    let frozen = |reason| {
        let message = lifecycle(L::Frozen(v1::Frozen { reason }));
        read(Input::Lifecycle, KEY, &message).map(|event| event.body)
    };
    let unfrozen = |reason| {
        let message = lifecycle(L::Unfrozen(v1::Unfrozen { reason }));
        read(Input::Lifecycle, KEY, &message).map(|event| event.body)
    };
    let device = DeviceId::from_key(KEY.unwrap()).unwrap();
    let body = |event| EventBody::Device { device: device.clone(), event };
    let other = FrozenReason::Other;
    assert_eq!(frozen(0), Ok(body(DeviceEvent::Frozen { reason: other })));
    assert_eq!(frozen(4), Ok(body(DeviceEvent::Frozen { reason: other })));
    assert_eq!(unfrozen(0), Ok(body(DeviceEvent::Unfrozen { reason: None })));
    assert_eq!(unfrozen(4), Ok(body(DeviceEvent::Unfrozen { reason: Some(other) })));
    assert_eq!(frozen(5).unwrap_err().reason, DeadLetterReason::InvalidValue);
    assert_eq!(unfrozen(-1).unwrap_err().reason, DeadLetterReason::InvalidValue);
}

#[test]
fn the_confluent_framing_is_taken_off() {
    let message = heartbeat_with(lasting(900, 0)).encode_to_vec();
    let plain = decode(Input::Heartbeats, Format::Protobuf, KEY, Some(&message));
    // Schema 7; the first message, with its path written in full, and a nested
    // one.
    for path in [&[0][..], &[2, 0], &[4, 2, 6]] {
        let framed = [&[0, 0, 0, 0, 7], path, &message].concat();
        let read = decode(Input::Heartbeats, Format::ConfluentProtobuf, KEY, Some(&framed));
        assert_eq!(read, plain);
    }
    let bad: [&[u8]; 7] = [
        b"",
        &[0, 0, 0, 0],
        &[0, 0, 0, 0, 7],
        &[1, 0, 0, 0, 7, 0, 8],
        &[0, 0, 0, 0, 7, 0],
        &[0, 0, 0, 0, 7, 1, 0],
        &[0, 0, 0, 0, 7, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0],
    ];
    for value in bad {
        let result = decode(Input::Heartbeats, Format::ConfluentProtobuf, KEY, Some(value));
        assert_eq!(reason(result), DeadLetterReason::Undecodable, "{value:?}");
    }
}

#[test]
fn the_detail_names_the_field_and_the_limit() {
    let refusal = read(Input::Heartbeats, KEY, &heartbeat_with(lasting(0, 5))).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "invalid_value: poll_interval is 0 s and 5 ns; it must be from 1 s to 366 days"
    );
}

#[test]
fn json_is_read_in_protobufs_canonical_form() {
    let json = |input, key, text: &str| decode(input, Format::Json, key, Some(text.as_bytes()));
    let full = r#"{"occurredAt":"1970-01-01T00:00:10.123Z","pollInterval":"900s"}"#;
    let message = v1::Heartbeat {
        occurred_at: at(10, 123_000_000),
        poll_interval: lasting(900, 0),
        ..Default::default()
    };
    let expected = read(Input::Heartbeats, KEY, &message);
    assert_eq!(json(Input::Heartbeats, KEY, full), expected);
    // Original field names, a time offset, spaces: a reader must accept all of
    // these.
    let other =
        r#" { "occurred_at": "1970-01-01T01:00:10.123+01:00", "poll_interval": "900.0s" } "#;
    assert_eq!(json(Input::Heartbeats, KEY, other), expected);
    assert_eq!(json(Input::Heartbeats, KEY, "{}").unwrap().occurred_at, None);

    let opened = r#"{"sessionOpened":{"instance":"vpn-1","session":"s"}}"#;
    assert!(json(Input::VpnSessions, KEY, opened).is_ok());
    let frozen = r#"{"frozen":{"reason":"FROZEN_REASON_ALLOWANCE"}}"#;
    assert!(json(Input::Lifecycle, KEY, frozen).is_ok());
    assert_eq!(
        json(Input::Lifecycle, KEY, r#"{"occurredAt":null}"#).unwrap_err().reason,
        DeadLetterReason::UnknownEvent
    );
}

#[test]
fn json_of_another_message_is_undecodable_with_the_reason() {
    let json = |input, text: &[u8]| decode(input, Format::Json, KEY, Some(text)).unwrap_err();
    let bad: [(Input, &[u8], &str); 12] = [
        (Input::Heartbeats, b"", "empty"),
        (Input::Heartbeats, b"null", "null"),
        (Input::Heartbeats, b"[]", "sequence"),
        (Input::Heartbeats, b"{", "EOF"),
        (Input::Heartbeats, b"{} {}", "trailing"),
        (Input::Heartbeats, br#"{"occured_at":null}"#, "occured_at"),
        (Input::Heartbeats, br#"{"occurredAt":1700000000}"#, "1700000000"),
        (Input::Heartbeats, br#"{"pollInterval":"15m"}"#, "duration"),
        (Input::Heartbeats, b"\x0a\x02\x08\x0a", ""),
        (Input::Heartbeats, b"\x22\xff\x22", ""),
        (Input::Lifecycle, br#"{"frozen":{"reason":"CAPRICE"}}"#, "CAPRICE"),
        (Input::Lifecycle, br#"{"deleted":{},"activated":{}}"#, ""),
    ];
    for (input, text, word) in bad {
        let refusal = json(input, text);
        assert_eq!(refusal.reason, DeadLetterReason::Undecodable, "{refusal}");
        assert!(refusal.detail.contains(word), "{refusal} lacks {word}");
    }
    let refusal = json(Input::Heartbeats, br#"{"pollInterval":"0.5s"}"#);
    assert_eq!(refusal.reason, DeadLetterReason::InvalidValue);
}

fn any_input() -> impl Strategy<Value = Input> {
    prop_oneof![Just(Input::Heartbeats), Just(Input::VpnSessions), Just(Input::Lifecycle)]
}

fn any_format() -> impl Strategy<Value = Format> {
    proptest::sample::select(&Format::ALL[..])
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        input in any_input(),
        format in any_format(),
        key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..140)),
        value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200)),
    ) {
        let _ = decode(input, format, key.as_deref(), value.as_deref());
    }

    #[test]
    fn a_good_record_with_one_byte_changed_never_panics(
        which in 0usize..7,
        position in 0usize..64,
        byte in any::<u8>(),
        keyed in any::<bool>(),
    ) {
        let (input, mut value) = scope_events().swap_remove(which);
        let position = position % value.len();
        value[position] = byte;
        let _ = decode(input, Format::Protobuf, KEY.filter(|_| keyed), Some(&value));
    }

    #[test]
    fn no_json_value_panics(
        input in any_input(),
        text in r#"(\{|\}|\[|\]|:|,|"|null|-?[0-9]{1,20}|1e400|"occurredAt"|"pollInterval"|"frozen"|"instanceAlive"|"1970-01-01T00:00:00Z"|"-1s"|\\u[0-9a-f]{4}| ){0,24}"#,
    ) {
        let _ = decode(input, Format::Json, KEY, Some(text.as_bytes()));
    }

    #[test]
    fn json_says_what_protobuf_says(
        seconds in 0i64..TIMESTAMP_MAX_SECONDS, nanos in 0i32..1_000_000_000,
        lease in 1i64..600_000, which in 0usize..6,
        instance in "[^\u{0}]{1,20}", session in any::<String>(), percent in 0u32..200,
    ) {
        use v1::lifecycle_event::Event as L;
        use v1::vpn_event::Event as V;
        let opened = v1::SessionOpened { instance: instance.clone(), session, ..Default::default() };
        let alive = v1::InstanceAlive {
            instance: instance.clone(),
            started_at: at(seconds, nanos),
            lease: lasting(lease, nanos),
        };
        let vpn = |event| v1::VpnEvent { occurred_at: at(seconds, nanos), event: Some(event) };
        let lifecycle =
            |event| v1::LifecycleEvent { occurred_at: at(seconds, nanos), event: Some(event) };
        let both = |input, key, bytes: Vec<u8>| {
            let json = json::write_bytes(json::message_of(input), &bytes).unwrap();
            let by_json = decode(input, Format::Json, key, Some(json.as_bytes()));
            (by_json, decode(input, Format::Protobuf, key, Some(&bytes)))
        };
        let (by_json, by_protobuf) = match which {
            0 => both(Input::Heartbeats, KEY, heartbeat_with(lasting(lease, nanos)).encode_to_vec()),
            1 => both(Input::VpnSessions, KEY, vpn(V::SessionOpened(opened)).encode_to_vec()),
            2 => both(Input::VpnSessions, None, vpn(V::InstanceAlive(alive)).encode_to_vec()),
            3 => {
                let moved = v1::Moved { fleet: instance, organization: String::new() };
                both(Input::Lifecycle, KEY, lifecycle(L::Moved(moved)).encode_to_vec())
            }
            4 => {
                let progressed = v1::UpdateProgressed { percent, ..Default::default() };
                let event = lifecycle(L::UpdateProgressed(progressed));
                both(Input::Lifecycle, KEY, event.encode_to_vec())
            }
            _ => {
                let settings =
                    v1::SettingsChanged { poll_interval: None, vpn_enabled: Some(percent > 100) };
                let event = lifecycle(L::SettingsChanged(settings));
                both(Input::Lifecycle, KEY, event.encode_to_vec())
            }
        };
        prop_assert_eq!(by_json, by_protobuf);
    }

    #[test]
    fn decoded_values_are_within_their_limits(
        seconds in any::<i64>(), nanos in any::<i32>(),
        interval_seconds in 0i64..40_000_000, interval_nanos in any::<i32>(),
    ) {
        let message = v1::Heartbeat {
            occurred_at: at(seconds, nanos),
            poll_interval: lasting(interval_seconds, interval_nanos),
            going_away: false,
        };
        if let Ok(event) = read(Input::Heartbeats, KEY, &message) {
            prop_assert!(event.occurred_at.is_some_and(|at| at >= Timestamp::MIN));
            let EventBody::Heartbeat { poll_interval_s: Some(seconds), .. } = event.body else {
                panic!("another event");
            };
            prop_assert!((1..=INTERVAL_MAX_S).contains(&seconds));
        }
    }
}
