use std::collections::HashMap;

use super::*;
use crate::shard::{Event, EventBody};
use crate::wire::{Format, decode};

const START: Timestamp = Timestamp(1_700_000_000_000);

fn run(plan: Plan, duration_ms: i64, step_ms: i64) -> Vec<Sent> {
    let mut fleet = Fleet::new(plan);
    let mut all = Vec::new();
    let mut at = 0;
    while at < duration_ms {
        at += step_ms;
        all.extend(fleet.advance(START.plus_ms(at)));
    }
    all
}

fn counts(all: &[Sent]) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for sent in all {
        *counts.entry(kind_of(sent).unwrap()).or_default() += 1;
    }
    counts
}

/// What the service makes of it.
fn event_of(sent: &Sent) -> Event {
    let key = sent.device.as_ref().map(DeviceId::to_string);
    let key = key.as_ref().map(String::as_bytes);
    decode(sent.input, Format::Protobuf, key, sent.value.as_deref()).unwrap()
}

#[test]
fn the_same_seed_sends_the_same_events_however_time_is_cut() {
    let plan = Plan::of_rate(300, 7, START, 100.0);
    let fine = run(plan.clone(), 120_000, 10);
    assert_eq!(fine, run(plan.clone(), 120_000, 1_000));
    assert_ne!(fine, run(Plan { seed: 8, ..plan }, 120_000, 1_000));
}

#[test]
fn the_rate_is_as_asked_from_the_start() {
    let plan = Plan::of_rate(2_000, 1, START, 500.0);
    let all = run(plan, 200_000, 100);
    for second in [10, 60, 120, 190] {
        let from = START.plus_ms(second * 1000 - 10_000);
        let to = START.plus_ms(second * 1000);
        let sent = all.iter().filter(|sent| from < sent.at && sent.at <= to).count();
        assert!((4_000..6_500).contains(&sent), "{sent} events in the 10 s to {second} s");
    }
}

#[test]
fn every_kind_of_event_happens_and_most_are_heartbeats() {
    let all = run(Plan::of_poll_interval(2_000, 3, START, 10_000), 2_000_000, 1_000);
    let counts = counts(&all);
    for kind in kinds().unwrap() {
        assert!(counts.contains_key(&kind), "no {kind}");
    }
    let share = counts["heartbeat"] as f64 / all.len() as f64;
    assert!((0.85..0.97).contains(&share), "{share} of the events are heartbeats");
    assert!(counts["session_closed"] <= counts["session_opened"]);
    assert!(counts["update_finished"] <= counts["update_started"]);
    assert!(all.iter().any(|sent| sent.value.is_none()));
}

#[test]
fn time_goes_forward_and_nothing_is_sent_before_it_happened() {
    let all = run(Plan::of_poll_interval(500, 5, START, 5_000), 600_000, 50);
    assert!(all.windows(2).all(|pair| pair[0].at <= pair[1].at));
    let told = all.iter().filter(|sent| sent.value.is_some());
    let times: Vec<_> = told.map(|sent| (event_of(sent).occurred_at.unwrap(), sent.at)).collect();
    assert!(times.iter().all(|(occurred_at, at)| occurred_at <= at));
    // Closes that are heard of after the next session was opened are the point.
    let late = times.iter().filter(|(occurred_at, at)| occurred_at != at).count();
    assert!(late > 100, "{late}");
}

#[test]
fn polls_are_at_most_half_an_interval_early_or_late() {
    let mut last: HashMap<DeviceId, Timestamp> = HashMap::new();
    let mut fleet = Fleet::new(Plan::of_poll_interval(50, 5, START, 10_000));
    for place in 0..50 {
        fleet.hold(place);
    }
    for sent in fleet.advance(START.plus_ms(600_000)) {
        if sent.input == Input::Heartbeats
            && let Some(before) = last.insert(sent.device.unwrap(), sent.at)
        {
            let gap = sent.at.0 - before.0;
            assert!((5_000..=15_000).contains(&gap), "{gap} ms");
        }
    }
    assert_eq!(last.len(), 50);
}

#[test]
fn a_device_that_is_switched_off_says_nothing_until_it_is_switched_on() {
    let mut fleet = Fleet::new(Plan::of_poll_interval(20, 5, START, 1_000));
    fleet.hold(3);
    fleet.advance(START.plus_ms(60_000));
    let watched = Some(fleet.device_id(3));
    let of_it = |all: Vec<Sent>| -> Vec<Sent> {
        all.into_iter().filter(|sent| sent.device == watched).collect()
    };
    fleet.switch_off(3);
    let said = of_it(fleet.advance(START.plus_ms(120_000)));
    assert_eq!(counts(&said), HashMap::from([("session_closed".to_owned(), 1)]));
    fleet.switch_on(3);
    let said = of_it(fleet.advance(START.plus_ms(180_000)));
    assert!(counts(&said)["heartbeat"] > 40);
    assert_eq!(counts(&said)["session_opened"], 1);
}

#[test]
fn all_that_is_sent_is_taken_for_whom_and_when_it_was_sent() {
    let plan = Plan::of_poll_interval(200, 9, START, 5_000);
    let told_s = plan.told_poll_interval_s;
    for sent in run(plan, 300_000, 1_000) {
        let event = event_of(&sent);
        // A key without a value has no time of its own: it is the record's.
        assert_eq!(event.occurred_at.is_some(), sent.value.is_some());
        let device = match event.body {
            EventBody::Heartbeat { device, poll_interval_s, .. } => {
                assert_eq!(poll_interval_s, Some(told_s));
                Some(device)
            }
            EventBody::Device { device, .. } => Some(device),
            EventBody::Scope(_) => None,
        };
        assert_eq!(device, sent.device);
    }
}

#[test]
fn devices_are_known_by_their_ids_as_of_a_seed() {
    let plan = Plan::of_poll_interval(50, 9, START, 1_000);
    let mut devices: Vec<_> =
        run(plan, 300_000, 1_000).into_iter().filter_map(|s| s.device).collect();
    devices.sort();
    devices.dedup();
    // Some took the places of others that were deleted.
    assert!(devices.len() > 52, "{}", devices.len());
    assert!(devices.iter().all(|device| is_of_seed(9, device)));
    assert!(!devices.iter().any(|device| is_of_seed(10, device)));
    for other in ["device-1", "00112233445566778899aabbccddeeff"] {
        assert!(!is_of_seed(9, &DeviceId::from_key(other.as_bytes()).unwrap()));
    }
}
