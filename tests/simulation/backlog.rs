//! A first start on hours of history in all three inputs, whose fetches take
//! their time: every change between is told (rules T4, T6, T8).

use std::collections::BTreeMap;

use device_status::shard::Input;
use device_status::wire::proto::v1::{Connectivity, Status};

use crate::kafka::Message;
use crate::oracle::fleet::{Fleet, Told};
use crate::script::{Script, worlds};
use crate::sim::START_MS;
use crate::workload::ABSURD;
use crate::world::Plan;

const DEVICES: usize = 40;
const STEPS: usize = 80;

fn told(script: &Script) -> BTreeMap<String, Vec<Told>> {
    let mut told: BTreeMap<String, Vec<Told>> = BTreeMap::new();
    for change in script.all_changes() {
        told.entry(change.device_id.clone()).or_default().push(Told::of(&change));
    }
    told
}

/// Starts on the history of a fleet, and compares each change of it.
fn a_fleet_is_told(change: impl Fn(&mut Plan), meanwhile: impl Fn(&mut Script)) {
    a_fleet_is_told_between(|_, _| Vec::new(), change, meanwhile);
}

/// The same, with other records written into its history: those that `others`
/// tells to follow each record of it.
fn a_fleet_is_told_between(
    others: impl Fn(&Fleet, usize) -> Vec<(Input, Message)>,
    change: impl Fn(&mut Plan),
    meanwhile: impl Fn(&mut Script),
) {
    let fleet = Fleet::new(DEVICES, STEPS, START_MS);
    assert!(fleet.count() > 4 * DEVICES, "{} changes are no history", fleet.count());
    worlds(
        |plan| {
            plan.rules = fleet.rules.clone();
            plan.shape.create_time = true;
            change(plan);
        },
        |script| {
            for (place, record) in fleet.records.iter().enumerate() {
                let message = Message {
                    stamp: Some(record.at),
                    ..Message::of(Some(&record.device), record.value.clone())
                };
                script.world.workload.push(START_MS, record.input, 0, message);
                for (input, message) in others(&fleet, place) {
                    script.world.workload.push(START_MS, input, 0, message);
                }
            }
            script.world.places[0].1 = START_MS + 2_000;
            meanwhile(script);
            script.ends_well();
            let differences = fleet.differences(&told(script));
            assert!(
                differences.is_empty(),
                "of {} devices {} are told otherwise: {}",
                fleet.changes.len(),
                differences.len(),
                differences[0]
            );
        },
    );
}

#[test]
fn a_backlog_of_inputs_that_come_at_once_is_told_change_by_change() {
    a_fleet_is_told(|_| {}, |_| {});
}

#[test]
fn a_backlog_of_slow_inputs_is_told_change_by_change() {
    for slow in Input::ALL {
        a_fleet_is_told(|plan| plan.fetch_late_ms[slow.index()] = 5_000, |_| {});
    }
    a_fleet_is_told(|plan| plan.fetch_late_ms = [5_000, 2_000, 400], |_| {});
}

/// A record from a sender whose clock is hours ahead, though not later than now, in
/// each input after every few records of the fleet. One that is only a few minutes
/// ahead of what follows is within the allowance (T3), and is not among them.
fn wrong_clocks(fleet: &Fleet, place: usize) -> Vec<(Input, Message)> {
    let wrong_ms = 3_600_000 * (1 + place as i64 % 24);
    let input = Input::ALL[place / 7 % 3];
    let stamp = (fleet.records[place].at + wrong_ms).min(START_MS);
    let next = fleet.records[place + 1..].iter().find(|record| record.input == input);
    let allowed = |next: i64| (stamp - 300_000..stamp).contains(&next);
    if !place.is_multiple_of(7) || next.is_some_and(|next| allowed(next.at)) {
        return Vec::new();
    }
    let template = fleet.records.iter().find(|record| record.input == input).unwrap();
    let headers = vec![(ABSURD.to_owned(), None)];
    let message = Message::of(Some("0000000000000000000000000000ffff"), template.value.clone());
    vec![(input, Message { stamp: Some(stamp), headers, ..message })]
}

#[test]
fn wrong_clocks_in_a_backlog_change_nobody_elses_sequence() {
    a_fleet_is_told_between(wrong_clocks, |_| {}, |_| {});
    a_fleet_is_told_between(
        wrong_clocks,
        |plan| (plan.fetch_late_ms, plan.read_ahead) = ([3_000, 1_000, 400], 3),
        |script| {
            script.until_it_runs();
            script.until(script.now() + 20_000);
            script.dies();
        },
    );
}

#[test]
fn a_backlog_is_told_change_by_change_whatever_stops_the_reading() {
    a_fleet_is_told(
        |plan| (plan.fetch_late_ms, plan.read_ahead) = ([3_000; 3], 3),
        |script| {
            script.until_it_runs();
            script.until(script.now() + 3_000);
            // Longer than an input may be silent, while it is not listened to.
            script.stops(0, 14_000);
            script.until(script.now() + 20_000);
            script.dies();
        },
    );
}

#[test]
fn an_input_that_cannot_be_read_is_passed_over_and_comes_back() {
    worlds(
        |_| {},
        |script| {
            script.polls("device", 10_000, 10_100, 60_000);
            script.until(15_000);
            script.cannot_read(Input::VpnSessions, 120_000);
            script.opens_a_session("device", 20_000);
            // It is held until the input has been silent for ten seconds, …
            script.polls("first", 23_000, 23_100, 60_000);
            script.until(32_000);
            assert_eq!(script.changes("first"), []);
            script.until(36_000);
            assert_eq!(script.changes("first").len(), 1);
            // … and nobody after it is held for another ten.
            script.polls("second", 40_000, 40_100, 60_000);
            script.until(42_000);
            assert_eq!(script.changes("second").len(), 1);
            script.until(119_000);
            for device in ["device", "first", "second"] {
                assert_eq!(script.changes(device).len(), 1, "the clock stands");
            }
            script.until(130_000);
            let changes = script.changes("device");
            assert_eq!(changes.len(), 3, "{changes:?}");
            assert_eq!(changes[1], (Status::Online, Connectivity::Full, 10_000));
            script.ends_well();
        },
    );
}
