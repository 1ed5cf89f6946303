//! Proves the core against an oracle that was written apart from it: generated
//! histories, told to a shard in every way in which Kafka may tell them, must
//! end in what the oracle says.
//!
//! `PROPTEST_CASES=5000 cargo test --test pure properties` looks longer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use device_status::shard::{Cause, DeviceEvent, DeviceId, EventBody, ScopeEvent, StatusChange};
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, RngSeed};

use crate::oracle::drive::{Delivery, Driver, delivery};
use crate::oracle::history::{Gap, History, close_steps, devices, rules, wide_steps};
use crate::oracle::model::Oracle;
use crate::oracle::sequence::{Expected, sequences};

/// The same cases each time, unless it is asked for more of them.
fn config(cases: u32) -> ProptestConfig {
    let longer = std::env::var_os("PROPTEST_CASES").is_some();
    let config = ProptestConfig::default();
    ProptestConfig {
        cases: if longer { config.cases } else { cases },
        rng_seed: if longer { config.rng_seed } else { RngSeed::Fixed(1) },
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/oracle/regressions.txt",
        ))),
        max_shrink_iters: 3_000,
        ..config
    }
}

fn tail() -> impl Strategy<Value = Gap> {
    prop_oneof![
        (0..3_000_i64).prop_map(Gap::Ms),
        (0..20_000_000_i64).prop_map(Gap::Ms),
        Just(Gap::Ms(300_000_000)),
        (any::<u8>(), 1_999..2_002_i64).prop_map(|(which, off_ms)| Gap::Deadline { which, off_ms }),
    ]
}

/// The facts of every row are those of the oracle.
fn check_facts(driver: &Driver<'_>) {
    let oracle = driver.known();
    for device in devices() {
        let told = oracle.row(&device);
        let Some(row) = driver.shard.snapshot(&device) else {
            let heard_of = oracle.facts.iter().any(|fact| match &fact.body {
                device_status::shard::EventBody::Heartbeat { device: whose, .. }
                | device_status::shard::EventBody::Device { device: whose, .. } => *whose == device,
                device_status::shard::EventBody::Scope(_) => false,
            });
            assert!(!heard_of, "{device} is not known");
            continue;
        };
        let (heartbeat, going_away, row) = (row.heartbeat, row.going_away, row.facts);
        let ms = |at: Option<device_status::shard::Timestamp>| at.map(|at| at.0);
        assert_eq!(ms(row.deleted), told.deleted);
        if told.registered.is_some() {
            assert_eq!(ms(row.registered), told.registered);
        }
        assert_eq!(ms(row.provisioned), told.provisioned);
        let flag = |held: Option<device_status::shard::snapshot::Flag>| {
            held.map(|held| (held.at.0, held.value))
        };
        assert_eq!(flag(row.active), told.active.map(|held| (held.at, held.value)));
        assert_eq!(flag(row.preregistered), told.preregistered.map(|held| (held.at, held.value)));
        assert_eq!(row.settings.map(|held| (held.at.0, held.value)), told.settings);
        assert_eq!(
            heartbeat.map(|held| (held.at.0, (held.value.carried(), going_away))),
            told.heartbeat
        );
        if let Some(held) = heartbeat {
            assert_eq!(held.value.ms(oracle.rules.default_poll_interval_ms), told.interval_ms);
        }
        assert_eq!(ms(row.last_vpn_opening), told.last_opening);
        let membership =
            row.membership.map(|held| (held.at.0, (held.value.fleet, held.value.organization)));
        assert_eq!(membership, told.membership);
        let frozen: BTreeMap<_, _> = device_status::shard::FrozenReason::ALL
            .into_iter()
            .zip(row.frozen)
            .filter_map(|(reason, held)| Some((reason, (held?.at.0, held?.value))))
            .collect();
        let told_frozen: BTreeMap<_, _> = told
            .frozen
            .iter()
            .filter_map(|(reason, held)| Some((*reason, ((*held)?.at, (*held)?.value))))
            .collect();
        assert_eq!(frozen, told_frozen);
        assert_eq!(
            row.configuration.started.is_some_and(|held| held.value),
            told.configuration.in_progress()
        );
        let started = row.update.started.as_ref().map(|held| (held.at.0, held.value.clone()));
        assert_eq!(started, told.update.started);
        let closed: BTreeMap<_, _> = driver
            .shard
            .closed_sessions(&device)
            .into_iter()
            .filter_map(|held| {
                Some(((held.instance.clone(), held.session.clone()), held.ended_at()?.0))
            })
            .collect();
        // A session that can never count again is dropped (rule J4), and what closed
        // it then keeps out nothing that could count.
        let matters = |closed: BTreeMap<(Arc<str>, Arc<str>), i64>| -> BTreeMap<_, _> {
            let after_end = |((instance, _), ended_at): &((Arc<str>, _), i64)| {
                let (lost, started, _) = oracle.instance(instance, i64::MAX);
                lost.is_none_or(|lost| *ended_at > lost)
                    && started.is_none_or(|started| *ended_at >= started)
            };
            closed.into_iter().filter(after_end).collect()
        };
        // Of a session that was dropped, nobody knows that a close ended an earlier
        // opening only.
        let was_dropped = |(instance, session): &(Arc<str>, Arc<str>)| {
            told.sessions.iter().any(|held| {
                !held.may_count && (&held.instance, &held.session) == (instance, session)
            })
        };
        // And a close that ends only what was opened before the deletion ends nothing.
        let ends_nothing = |(instance, session): &(Arc<str>, Arc<str>)| {
            oracle.facts.iter().any(|fact| match &fact.body {
                EventBody::Device {
                    device: whose,
                    event:
                        DeviceEvent::SessionClosed {
                            instance: of,
                            session: name,
                            opened_at: Some(until),
                        },
                } => {
                    (whose, of, name) == (&device, instance, session)
                        && told.deleted >= Some(until.0)
                }
                _ => false,
            })
        };
        let (mut closed, mut told_closed) = (matters(closed), matters(told.closed));
        closed.retain(|name, _| !was_dropped(name) && !ends_nothing(name));
        told_closed.retain(|name, _| !ends_nothing(name));
        assert_eq!(closed, told_closed);
        let open: BTreeSet<_> = row
            .sessions
            .iter()
            .map(|held| {
                let own_lease_end = held.lease_end().map(|end| end.0);
                (
                    held.instance.clone(),
                    held.session.clone(),
                    held.opened_at().unwrap().0,
                    own_lease_end,
                )
            })
            .collect();
        let told_open: BTreeSet<_> = told
            .sessions
            .iter()
            .filter(|session| session.may_count)
            .map(|held| {
                let held = held.clone();
                (held.instance, held.session, held.opened_at, held.own_lease_end)
            })
            .collect();
        assert_eq!(open, told_open);
    }
}

/// Versions count from 1 without gaps, one change begins where the last ended,
/// and nothing goes back.
fn check_continuity(changes: &[&StatusChange], history: &History) {
    // What ends an instance's sessions for good, so that they are kept no more.
    let are_ruled_out = history.records.iter().any(|record| {
        matches!(
            record.fact().body,
            EventBody::Scope(
                ScopeEvent::InstanceLost { .. }
                    | ScopeEvent::InstanceAlive { started_at: Some(_), .. }
            )
        )
    });
    let mut last: Option<&StatusChange> = None;
    for change in changes {
        // Where somebody is can change alone (J8).
        let moved = last.is_some_and(|last| {
            (&last.fleet, &last.organization) != (&change.fleet, &change.organization)
        });
        assert!(change.previous != change.current || moved, "no change: {change:?}");
        // The VPN's changes name the instance, and no others do; but where a session is
        // ruled out, its opening may still date a change (J8).
        let vpns = matches!(
            change.cause,
            Cause::VpnOpened
                | Cause::VpnClosed
                | Cause::VpnInstanceAlive
                | Cause::VpnInstanceLost
                | Cause::VpnLeaseExpired
        );
        let is_unknown =
            are_ruled_out && change.cause == Cause::VpnOpened && change.vpn_instance.is_none();
        assert!(change.vpn_instance.is_some() == vpns || is_unknown, "{change:?}");
        let before = last.filter(|last| last.current.is_some());
        assert_eq!(change.previous_fleet, before.and_then(|last| last.fleet.clone()));
        assert_eq!(change.previous_organization, before.and_then(|last| last.organization.clone()));
        assert_eq!(change.version, last.map_or(1, |last| last.version + 1), "{changes:#?}");
        assert_eq!(change.previous, last.and_then(|last| last.current), "{changes:#?}");
        if let Some(last) = last {
            assert!(change.since >= last.since, "{last:?}\n{change:?}");
            assert!(change.connectivity_since >= last.connectivity_since, "{last:?}\n{change:?}");
            assert!(change.membership_since >= last.membership_since, "{last:?}\n{change:?}");
        }
        last = Some(change);
    }
}

/// Every `since` is the time of an event, or an exact deadline, or one that it
/// was floored to.
fn check_times(driver: &Driver<'_>) {
    let mut oracle = Oracle::new(&driver.history.rules);
    oracle.facts.extend(driver.history.records.iter().map(crate::oracle::history::Record::fact));
    for device in devices() {
        let instants: BTreeSet<i64> =
            oracle.instants(&device).into_iter().map(|(at, _)| at).collect();
        let mut floors = BTreeSet::new();
        for change in driver.changes_of(&device) {
            for since in [change.since.0, change.connectivity_since.0] {
                assert!(
                    instants.contains(&since) || floors.contains(&since),
                    "{since} is the time of nothing: {change:?}"
                );
                floors.insert(since);
            }
        }
    }
}

fn check_end(driver: &Driver<'_>) {
    for device in devices() {
        let changes = driver.changes_of(&device);
        check_continuity(&changes, driver.history);
        let view = driver.shard.view(&device);
        let last = changes.last().and_then(|change| change.current);
        assert_eq!(last, view.as_ref().map(|view| (view.status, view.connectivity)));
        // With nothing left to come, by the clock alone.
        let oracle = driver.known();
        let row = oracle.row(&device);
        let clock = driver.shard.clock().0;
        if oracle.facts.iter().all(|fact| fact.at <= clock) {
            assert_eq!(oracle.shown(&row, clock, clock), last, "{device} at {clock}: {row:?}");
        }
    }
    check_times(driver);
    check_facts(driver);
    let mut counts = driver.committed.fleet_counts.clone();
    counts.retain(|_, counts| counts.iter().any(|count| *count > 0));
    assert_eq!(counts, driver.counted());
}

fn check_sequences(driver: &Driver<'_>) {
    let emitted = |device: &DeviceId| -> Vec<Expected> {
        driver.changes_of(device).into_iter().map(Expected::of).collect()
    };
    for (device, told) in sequences(driver.history, &emitted) {
        let changes = emitted(&device);
        let place =
            changes.iter().zip(&told).take_while(|(change, told)| told.allows(change)).count();
        if place < changes.len().max(told.len()) {
            panic!(
                "{device}: change {place} is\n{:#?}\nbut should be\n{:#?}",
                changes.get(place),
                told.get(place)
            );
        }
    }
}

proptest! {
    #![proptest_config(config(400))]

    /// docs/rules.md: any interleaving of the three inputs, in any order and
    /// with any duplicates, ends in the same facts and the same status.
    #[test]
    fn any_order_with_any_duplicates_ends_as_the_oracle_says(
        steps in close_steps(40),
        rules in rules(),
        order in prop::collection::vec((0..300_u16, prop::option::of(0..300_u16)), 1..60),
        delivery in delivery(true),
    ) {
        let one = History::shuffled(&steps, &rules, &order);
        let driver = Driver::new(&one, &delivery).run();
        check_end(&driver);
    }

    /// At every rest, of any history told in any way, each row shows what the
    /// oracle says; no timer is early; and what is emitted is whole.
    #[test]
    fn every_row_is_at_all_times_what_the_oracle_says(
        steps in close_steps(50),
        rules in rules(),
        tail in tail(),
        delivery in delivery(true),
    ) {
        let history = History::close(&steps, &rules, tail);
        let driver = Driver::new(&history, &delivery).run();
        check_end(&driver);
    }

    /// Where only one sequence of changes is right, it is the one emitted.
    #[test]
    fn the_changes_are_those_that_the_oracle_tells(
        steps in wide_steps(50),
        rules in rules(),
        tail in tail(),
        delivery in delivery(false),
    ) {
        let history = History::wide(&steps, &rules, tail);
        let driver = Driver::new(&history, &delivery).run();
        check_end(&driver);
        check_sequences(&driver);
    }

    /// The same of short histories, in which a row has forgotten nothing.
    #[test]
    fn the_changes_of_short_histories_are_exact(
        steps in wide_steps(9),
        rules in rules(),
        tail in tail(),
        delivery in delivery(false),
        crashes in prop::collection::vec(1..12_u16, 0..3),
    ) {
        let history = History::wide(&steps, &rules, tail);
        let driver = Driver::new(&history, &Delivery { crashes, ..delivery }).run();
        check_end(&driver);
        check_sequences(&driver);
    }

    /// Processes may die after any commit, and again while they restore.
    #[test]
    fn restores_emit_nothing_twice_and_miss_nothing(
        steps in wide_steps(40),
        rules in rules(),
        tail in tail(),
        delivery in delivery(false),
        crashes in prop::collection::vec(1..40_u16, 1..5),
    ) {
        let history = History::wide(&steps, &rules, tail);
        let driver = Driver::new(&history, &Delivery { crashes, ..delivery }).run();
        check_end(&driver);
        check_sequences(&driver);
    }

    /// The same where many sequences are right.
    #[test]
    fn restores_in_the_thick_of_it_end_as_the_oracle_says(
        steps in close_steps(50),
        rules in rules(),
        tail in tail(),
        delivery in delivery(true),
        crashes in prop::collection::vec(1..40_u16, 1..5),
    ) {
        let history = History::close(&steps, &rules, tail);
        let driver = Driver::new(&history, &Delivery { crashes, ..delivery }).run();
        check_end(&driver);
    }
}
