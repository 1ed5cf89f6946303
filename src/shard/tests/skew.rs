//! A shard's observations of its senders' clocks.

use super::*;
use crate::shard::skew::Example;

const SECOND_MS: i64 = 1_000;

/// The observation of an event that happened so long ago by its sender's clock.
fn seen(told: &mut Told, input: Input, age_ms: i64, body: EventBody) -> Skew {
    let now_ms = told.now.broker.unwrap().0;
    let occurred_at = Some(Timestamp(now_ms - age_ms));
    told.offer_content(input, Content::Event(Event { occurred_at, body }));
    told.shard.turn(told.now, 1_000).skew
}

/// The observation of an announcement that is ten minutes old. Headers of its
/// record tell the age of its source's record, or that it is a replayed dead
/// letter.
fn with_headers(lease_ms: u32, source_age_ms: Option<i64>, replayed: bool) -> Skew {
    let mut told = Told::new();
    let occurred_at = Some(Timestamp(T0 - 10 * MINUTE_MS));
    let content = Content::Event(Event { occurred_at, body: alive(lease_ms) });
    let record = Queued {
        offset: 0,
        timestamp: Timestamp(T0),
        stamped_by_broker: true,
        relay: Relay {
            source_timestamp: source_age_ms.map(|age_ms| Timestamp(T0 - age_ms)),
            is_replayed: replayed,
        },
        content,
    };
    told.shard.offer(Input::VpnSessions, record);
    told.shard.turn(told.now, 10).skew
}

fn heartbeat(poll_interval_s: Option<u32>) -> EventBody {
    EventBody::Heartbeat { device: device(1), poll_interval_s, going_away: false }
}

fn alive(lease_ms: u32) -> EventBody {
    let instance = "vpn-1".into();
    EventBody::Scope(ScopeEvent::InstanceAlive { instance, started_at: None, lease_ms })
}

fn opened(lease_ms: Option<u32>) -> EventBody {
    let (instance, session) = ("vpn-1".into(), "s".into());
    let event = DeviceEvent::SessionOpened { instance, session, opened_at: None, lease_ms };
    EventBody::Device { device: device(1), event }
}

fn age_of(skew: &Skew, doubt: Doubt) -> Option<i64> {
    skew.examples[doubt.index()].as_ref().map(|example| example.age_ms)
}

#[test]
fn only_events_with_occurred_at_have_an_age() {
    let mut told = Told::new();
    told.heartbeat(&device(1));
    assert_eq!(told.shard.turn(told.now, 10).skew, Skew::default());
    let skew = seen(&mut told, Input::Heartbeats, 500, heartbeat(None));
    let mut ages = Ages::default();
    ages.count(500);
    assert_eq!(skew.ages[Input::Heartbeats.index()], ages);
    assert_eq!(skew.ages[Input::Lifecycle.index()].total(), 0);
    assert_eq!(skew.examples, [const { None }; 4]);
}

#[test]
fn expired_heartbeat_is_reported_by_its_interval() {
    let mut told = Told::new();
    // A quarter of an hour counts for 22.5 minutes, and 15 seconds of grace.
    let life_ms = 22 * MINUTE_MS + 45 * SECOND_MS;
    for interval_s in [Some(900), None] {
        let skew = seen(&mut told, Input::Heartbeats, life_ms - 1, heartbeat(interval_s));
        assert_eq!(skew.heartbeats_over, 0, "{interval_s:?}");
        assert_eq!(age_of(&skew, Doubt::Behind), Some(life_ms - 1));
        let skew = seen(&mut told, Input::Heartbeats, life_ms, heartbeat(interval_s));
        assert_eq!(skew.heartbeats_over, 1, "{interval_s:?}");
        assert_eq!(age_of(&skew, Doubt::HeartbeatOver), Some(life_ms));
        assert_eq!(age_of(&skew, Doubt::Behind), None);
    }
    let settings = Settings { poll_interval_s: Some(3_600), vpn_enabled: None };
    told.lifecycle(&device(1), DeviceEvent::SettingsChanged(settings));
    told.run();
    // A setting later than the allowed lateness after the heartbeat would not
    // count (rule J3).
    told.at(told.now.broker.unwrap().0 + 2 * life_ms);
    let skew = seen(&mut told, Input::Heartbeats, life_ms, heartbeat(None));
    assert_eq!(skew.heartbeats_over, 0, "the device may be silent for longer");
}

#[test]
fn heartbeat_of_1970_is_reported_even_after_a_later_one() {
    let mut told = Told::new();
    told.heartbeat(&device(1));
    told.run();
    told.offer_content(
        Input::Heartbeats,
        Content::Event(Event { occurred_at: Some(Timestamp(5_000)), body: heartbeat(None) }),
    );
    let turn = told.shard.turn(told.now, 10);
    assert_eq!(turn.stale[Input::Heartbeats.index()], 1);
    assert_eq!(turn.skew.heartbeats_over, 1);
    let example = Example { subject: Subject::Device(device(1)), age_ms: T0 - 5_000 };
    assert_eq!(turn.skew.examples[Doubt::HeartbeatOver.index()], Some(example));
}

#[test]
fn lease_that_is_over_on_arrival_is_reported() {
    let mut told = Told::new();
    let instance = Subject::Instance("vpn-1".into());
    // With this lateness it runs from its record (rule J4).
    let delay_ms = 15 * MINUTE_MS;
    for (body, subject) in
        [(alive(120_000), instance), (opened(Some(120_000)), Subject::Device(device(1)))]
    {
        let skew = seen(&mut told, Input::VpnSessions, delay_ms, body.clone());
        assert_eq!((skew.leases_over, age_of(&skew, Doubt::LeaseOver)), (0, None));
        assert_eq!(age_of(&skew, Doubt::Behind), Some(delay_ms));
        let skew = seen(&mut told, Input::VpnSessions, delay_ms + 1, body);
        let example = Example { subject, age_ms: delay_ms + 1 };
        assert_eq!(skew.leases_over, 1);
        assert_eq!(skew.examples[Doubt::LeaseOver.index()], Some(example));
    }
    let skew = seen(&mut told, Input::VpnSessions, delay_ms + 1, alive(960_000));
    assert_eq!((skew.leases_over, age_of(&skew, Doubt::LeaseOver)), (0, None));
    let skew = seen(&mut told, Input::VpnSessions, 2 * delay_ms, opened(None));
    assert_eq!((skew.leases_over, age_of(&skew, Doubt::LeaseOver)), (0, None));
}

#[test]
fn lease_is_judged_over_by_its_counted_time() {
    let minute_ms = u32::try_from(MINUTE_MS).unwrap();
    assert_eq!(with_headers(minute_ms, None, false).leases_over, 0);
    // A relay copied it late.
    let source_age_ms = Some(6 * MINUTE_MS);
    assert_eq!(with_headers(6 * minute_ms, source_age_ms, false).leases_over, 1);
    assert_eq!(with_headers(6 * minute_ms + 1, source_age_ms, false).leases_over, 0);
    assert_eq!(with_headers(minute_ms, Some(-1), false).leases_over, 0);
    // A replayed dead letter counts at its own time.
    assert_eq!(with_headers(10 * minute_ms, None, true).leases_over, 1);
    assert_eq!(with_headers(10 * minute_ms + 1, None, true).leases_over, 0);
}

#[test]
fn lease_shorter_than_the_allowed_lateness_is_not_reported() {
    let rules = Rules::default();
    let mut shard = Shard::new(3, rules);
    shard.start(Start { epoch: 7, ..Start::default() });
    let mut told = Told { shard, ..Told::new() };
    told.at(T0);
    let skew = seen(&mut told, Input::VpnSessions, 5_000, alive(2_000));
    assert_eq!((skew.leases_over, age_of(&skew, Doubt::LeaseOver)), (1, None));
    let skew = seen(&mut told, Input::VpnSessions, 5_000, alive(2_001));
    assert_eq!(skew.leases_over, 0);
}

#[test]
fn a_heartbeat_that_goes_away_has_never_expired() {
    let mut told = Told::new();
    let day_ms = 24 * 60 * MINUTE_MS;
    let goes = EventBody::Heartbeat { device: device(1), poll_interval_s: None, going_away: true };
    let skew = seen(&mut told, Input::Heartbeats, day_ms, goes);
    assert_eq!((skew.heartbeats_over, age_of(&skew, Doubt::HeartbeatOver)), (0, None));
    assert_eq!(age_of(&skew, Doubt::Behind), Some(day_ms));
}

#[test]
fn future_event_is_reported_but_a_repeated_lifecycle_event_is_not() {
    let mut told = Told::new();
    let body = |event| EventBody::Device { device: device(1), event };
    let skew = seen(&mut told, Input::Lifecycle, -60_000, body(DeviceEvent::Provisioned));
    assert_eq!(age_of(&skew, Doubt::Ahead), None);
    let skew = seen(&mut told, Input::Lifecycle, -60_001, body(DeviceEvent::Provisioned));
    assert_eq!(age_of(&skew, Doubt::Ahead), Some(-60_001));
    let year_ms = 365 * 24 * 60 * MINUTE_MS;
    let skew = seen(&mut told, Input::Lifecycle, year_ms, body(DeviceEvent::Activated));
    assert_eq!(skew.examples, [const { None }; 4]);
    assert_eq!(skew.ages[Input::Lifecycle.index()].total(), 1);
}

#[test]
fn an_event_that_holds_its_shard_is_counted_once() {
    let mut told = Told::new();
    for number in 0..30 {
        told.register(&device(number), "f");
    }
    told.run();
    let frozen = ScopeEvent::FleetFrozen { fleet: "f".into(), reason: FrozenReason::Other };
    let event = Event { occurred_at: Some(Timestamp(T0 - 5)), body: EventBody::Scope(frozen) };
    told.offer_content(Input::Lifecycle, Content::Event(event));
    let (mut turns, mut counted) = (0, 0);
    loop {
        let turn = told.shard.turn(told.now, 5);
        counted += turn.skew.ages[Input::Lifecycle.index()].total();
        turns += 1;
        if !turn.more {
            break;
        }
    }
    assert!(turns > 3, "only {turns} turns");
    assert_eq!(counted, 1);
}
