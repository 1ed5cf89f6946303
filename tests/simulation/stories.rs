//! What thousands of worlds have found, told one by one: a scripted world for
//! each mistake in restoring, and in learning the time, that was mended.

use device_status::shard::Input;
use device_status::wire::murmur2::partition_of;
use device_status::wire::proto::v1::{
    self, Connectivity, FrozenReason, Status, lifecycle_event as lifecycle, vpn_event as vpn,
};

use crate::alarms;
use crate::script::{Script, worlds};
use crate::sim::START_MS;

const ONLINE: (Status, Connectivity) = (Status::Online, Connectivity::HeartbeatOnly);
const OFFLINE: (Status, Connectivity) = (Status::Offline, Connectivity::None);

fn registered(fleet: &str) -> lifecycle::Event {
    let fleet = fleet.to_owned();
    let organization = String::new();
    lifecycle::Event::Registered(v1::Registered { fleet, organization, preregistered: false })
}

fn since((status, connectivity): (Status, Connectivity), at: i64) -> (Status, Connectivity, i64) {
    (status, connectivity, at)
}

/// Devices that poll in time, without end, each at another moment.
fn a_fleet_polls(script: &mut Script, devices: i64, every_ms: i64, late_ms: i64, until: i64) {
    for number in 0..devices {
        let mut at = 10_000 + number * every_ms / devices;
        while at < until {
            script.polls(&format!("device-{number}"), at, at + late_ms, 10_000);
            at += every_ms;
        }
    }
}

/// Nobody of the fleet that polls all the time was ever Offline.
fn nobody_went_offline(script: &Script, devices: i64) {
    for number in 0..devices {
        let device = format!("device-{number}");
        let changes = script.changes(&device);
        assert_eq!(changes.len(), 1, "{device}: {changes:?}");
    }
}

#[test]
fn a_report_that_was_lost_with_the_first_commit_is_asked_for_again() {
    worlds(
        |_| {},
        |script| {
            script.polls("quiet", 12_000, 12_300, 30_000);
            script.until(15_000);
            script.dies();
            let before = script.commits();
            script.faults(|faults| faults.answer_lost = 1.0);
            script.until_it("committed", |script| script.commits() > before);
            script.faults(|faults| faults.answer_lost = 0.0);
            script.until(64_000);
            // Its time is known again, so the clock goes on and comes to the deadline.
            let expected = [since(ONLINE, 12_000), since(OFFLINE, 58_000)];
            assert_eq!(script.changes("quiet"), expected);
            script.ends_well();
        },
    );
}

#[test]
fn a_successor_may_be_held_by_another_scope_event_than_its_predecessor_was() {
    let devices: Vec<String> = (0..12).map(|number| format!("device-{number}")).collect();
    worlds(
        |plan| plan.work_per_turn = 1,
        |script| {
            for device in &devices {
                script.says(Some(device), 10_000, registered("red"));
                script.opens_a_session(device, 12_000);
            }
            script.until(33_000);
            let (fleet, reason) = ("red".to_owned(), FrozenReason::Allowance.into());
            let frozen = lifecycle::Event::FleetFrozen(v1::FleetFrozen { fleet, reason });
            script.begins_transaction(vec![Script::lifecycle(None, script.now(), frozen)]);
            let lost = v1::InstanceLost { instance: "vpn".to_owned() };
            script.says_vpn(None, script.now() + 500, vpn::Event::InstanceLost(lost));
            let [_, sessions, _] = script.committed();
            script.until_it("begun", |script| {
                script
                    .changes("device-0")
                    .last()
                    .is_some_and(|(status, ..)| *status == Status::Offline)
            });
            assert_eq!(script.committed()[1], sessions, "the loss is not settled");
            script.dies();
            script.until(script.now() + 5_000);
            script.ends_transaction();
            script.ends_well();
            for device in &devices {
                let shown =
                    script.changes(device).last().map(|(status, links, _)| (*status, *links));
                assert_eq!(shown, Some((Status::Frozen, Connectivity::None)));
            }
        },
    );
}

#[test]
fn what_is_read_again_does_not_take_back_the_heartbeats_that_are_replayed() {
    worlds(
        |plan| plan.read_ahead = 1,
        |script| {
            a_fleet_polls(script, 20, 10_000, 300, 330_000);
            // Its row tells how far the clock had come.
            script.says(Some("witness"), 200_000, registered(""));
            script.until(203_000);
            script.dies_and_offsets_are_lost();
            script.until_it("half way through what is read again", |script| {
                (50..300).contains(&script.committed()[2])
            });
            script.dies();
            script.until(330_000);
            nobody_went_offline(script, 20);
        },
    );
}

#[test]
fn one_absurd_stamp_does_not_cut_the_replay_short() {
    worlds(
        |plan| (plan.shape.create_time, plan.read_ahead) = (true, 1),
        |script| {
            a_fleet_polls(script, 20, 10_000, 300, 200_000);
            script.polls_stamped("absurd", 60_000, 60_300, 10_000, 400 * 24 * 3_600_000);
            script.says(Some("witness"), 100_000, registered(""));
            script.until(103_000);
            script.dies_and_offsets_are_lost();
            script.until(200_000);
            nobody_went_offline(script, 20);
        },
    );
}

#[test]
fn what_the_slack_let_the_clock_see_is_replayed() {
    worlds(
        |_| {},
        |script| {
            // Each polls just before its deadline, and is written just after.
            a_fleet_polls(script, 40, 15_900, 900, 200_000);
            script.says(Some("witness"), 100_000, registered(""));
            script.until_it("seen", |script| script.has_in_changelog("d/witness"));
            script.dies_and_offsets_are_lost();
            script.until(200_000);
            nobody_went_offline(script, 40);
        },
    );
}

#[test]
fn the_next_in_line_when_the_offsets_were_lost_was_not_seen() {
    worlds(
        |plan| plan.work_per_turn = 1,
        |script| {
            for number in 0..20 {
                let device = format!("device-{number}");
                script.polls(&device, 10_000, 10_100 + number, 5_000);
                let back_at = 45_000 + 1_000 * number;
                script.polls(&device, back_at, back_at + 100, 60_000);
            }
            script.until(35_000);
            script.dies();
            // All are Offline; that they are back is read in one go, one by one, each
            // with a row that tells how far the clock has come.
            script.world.places[0].1 = START_MS + 70_000;
            script.until_it("half way", |script| script.changes("device-9").len() > 2);
            script.dies_and_offsets_are_lost();
            script.until(script.now() + 20_000);
            for number in 0..20 {
                let changes = script.changes(&format!("device-{number}"));
                assert_eq!(changes.last(), Some(&since(ONLINE, 45_000 + 1_000 * number)));
            }
            script.ends_well();
        },
    );
}

#[test]
fn what_was_processed_while_no_answer_came_counts_after_a_restart() {
    worlds(
        |plan| plan.shape.create_time = true,
        |script| {
            script.world.places[0].1 = START_MS + 45_000;
            for at in [10_000, 25_000, 40_000, 55_000, 70_000, 85_000] {
                script.polls("device", at, at + 100, 15_000);
            }
            script.until_it_runs();
            script.faults(|faults| faults.question_fails = 1.0);
            script.until_it("processed", |script| script.committed()[2] >= 3);
            script.dies();
            script.faults(|faults| faults.question_fails = 0.0);
            script.world.places[0].1 = START_MS + script.now() + 1_000;
            script.until(90_000);
            assert_eq!(script.changes("device"), [since(ONLINE, 10_000)]);
            script.ends_well();
        },
    );
}

#[test]
fn what_left_the_window_unwritten_is_replayed_where_what_followed_is_unseen() {
    worlds(
        |_| {},
        |script| {
            for at in [15_000, 40_000, 64_000, 88_000, 112_000, 136_000, 160_000] {
                script.polls("device", at, at + 100, 20_000);
            }
            // The clock stands before it sees that the poll at 40 s leaves the window,
            // until after the next one was processed; then it comes to 61 s.
            script.until(57_000);
            let other = Script::lifecycle(Some("other"), script.now(), registered(""));
            script.begins_transaction(vec![other]);
            script.until(57_500);
            script.faults(|faults| faults.question_fails = 1.0);
            script.until(63_000);
            let witness = Script::lifecycle(Some("witness"), script.now(), registered(""));
            script.begins_transaction(vec![witness]);
            script.opens_a_session("other", 63_500);
            script.until(65_000);
            script.ends_transaction();
            script.until_it("seen", |script| script.has_in_changelog("d/witness"));
            script.faults(|faults| faults.question_fails = 0.0);
            script.dies_and_offsets_are_lost();
            script.until(160_000);
            assert_eq!(script.changes("device"), [since(ONLINE, 15_000)]);
            script.ends_well();
        },
    );
}

#[test]
fn a_machine_that_slept_asks_how_far_the_inputs_are_as_soon_as_it_knows_the_time() {
    worlds(
        |plan| plan.session_timeout_ms = 120_000,
        |script| {
            for at in [10_000, 75_000, 100_000] {
                script.polls("device", at, at + 100, 20_000);
            }
            // Reported just before it sleeps, the time is not in doubt after.
            script.says(Some("registered"), 20_000, registered(""));
            script.until_it("reported", |script| script.has_in_changelog("d/registered"));
            script.until(script.now() + 200);
            script.sleeps(0, 60_000);
            // What is committed first tells how long it slept.
            script.polls("first", 28_000, 28_100, 60_000);
            script.until(90_000);
            let expected = [since(ONLINE, 10_000), since(OFFLINE, 41_000), since(ONLINE, 75_000)];
            assert_eq!(script.changes("device"), expected);
            script.ends_well();
        },
    );
}

#[test]
fn a_machine_that_slept_until_the_group_gave_it_up_does_not_believe_its_clock() {
    worlds(
        |_| {},
        |script| {
            for at in [10_000, 75_000, 100_000] {
                script.polls("device", at, at + 100, 20_000);
            }
            script.says(Some("registered"), 20_000, registered(""));
            script.until_it("reported", |script| script.has_in_changelog("d/registered"));
            script.until(script.now() + 200);
            script.sleeps(0, 60_000);
            // No input is idle, so nobody waits for an answer about one.
            script.says(Some("other"), 76_000, registered(""));
            script.opens_a_session("other", 76_000);
            script.until(90_000);
            let expected = [since(ONLINE, 10_000), since(OFFLINE, 41_000), since(ONLINE, 75_000)];
            assert_eq!(script.changes("device"), expected);
            script.ends_well();
        },
    );
}

#[test]
fn a_machine_that_slept_does_not_believe_its_clock_where_a_shard_was_later() {
    worlds(
        |plan| {
            (plan.partitions, plan.processes) = (2, 2);
            plan.session_timeout_ms = 120_000;
            // Records of brokers would tell that it slept.
            plan.shape.create_time = true;
        },
        |script| {
            script.polls("device", 50_000, 50_100, 20_000);
            script.polls("device", 95_000, 95_100, 60_000);
            script.until(55_000);
            script.sleeps(1, 50_000);
            script.until(70_000);
            script.is_told_to_leave();
            script.until_it("left", Script::has_left);
            script.world.places[0].1 = START_MS + 400_000;
            // No input is idle, so nobody waits for an answer about one.
            script.says(Some("second"), 96_000, registered(""));
            script.opens_a_session("second", 96_000);
            script.until(140_000);
            let expected = [since(ONLINE, 50_000), since(OFFLINE, 81_000), since(ONLINE, 95_000)];
            assert_eq!(script.changes("device"), expected);
            script.ends_well();
        },
    );
}

#[test]
fn a_machine_that_slept_asks_for_the_time_where_senders_stamps_are_later() {
    worlds(
        |plan| {
            plan.session_timeout_ms = 120_000;
            plan.shape.create_time = true;
        },
        |script| {
            for at in [10_000, 75_000, 100_000] {
                script.polls("device", at, at + 100, 20_000);
            }
            script.says(Some("registered"), 20_000, registered(""));
            script.until_it("reported", |script| script.has_in_changelog("d/registered"));
            script.until(script.now() + 200);
            // The idle inputs hold the heartbeat, since it seems to be of much later.
            script.sleeps(0, 60_000);
            script.until(110_000);
            let expected = [since(ONLINE, 10_000), since(OFFLINE, 41_000), since(ONLINE, 75_000)];
            assert_eq!(script.changes("device"), expected);
            script.ends_well();
        },
    );
}

#[test]
fn a_question_that_takes_long_does_not_keep_another_from_being_put() {
    worlds(
        |_| {},
        |script| {
            script.polls("device", 10_000, 10_100, 15_000);
            script.says(Some("witness"), 12_000, registered(""));
            script.until(15_000);
            script.dies();
            script.polls("device", 60_000, 60_100, 60_000);
            script.world.places[0].1 = START_MS + 70_000;
            // The first one is put when the shard begins to run. It proves nothing,
            // since broker time is not known; and its answer takes its time.
            script.until_it_runs();
            script.hears_no_answer_for(10_000);
            script.until(script.now() + 20_000);
            let expected = [since(ONLINE, 10_000), since(OFFLINE, 33_500), since(ONLINE, 60_000)];
            assert_eq!(script.changes("device"), expected);
            script.ends_well();
        },
    );
}

#[test]
fn a_shard_that_is_lost_before_its_first_commit_comes_back_under_another_epoch() {
    let devices: Vec<String> = (0..12).map(|number| format!("device-{number}")).collect();
    worlds(
        |plan| plan.work_per_turn = 1,
        |script| {
            for device in &devices {
                script.says(Some(device), 10_000, registered("red"));
            }
            let (fleet, reason) = ("red".to_owned(), FrozenReason::Allowance.into());
            let frozen = lifecycle::Event::FleetFrozen(v1::FleetFrozen { fleet, reason });
            script.says(None, 20_000, frozen);
            script.until_it("begun", |script| script.changes("device-0").len() > 1);
            script.dies();
            // So that the next one comes to those first who are not settled.
            script.until(script.now() + 12_000);
            script.compacts_the_changelog();
            // The rest is settled, and told, by one whose clock is behind, and whose
            // first commit does not arrive.
            script.until_it("started", |script| script.world.places[0].0.is_some());
            script.process().wall_offset_ms = -600_000;
            script.faults(|faults| faults.request_lost = 1.0);
            script.until_it("unanswered", |script| script.has_lost_its_producer());
            script.faults(|faults| faults.request_lost = 0.0);
            script.hears_nothing_of_its_commit_for(14_000);
            script.evicts_the_member();
            script.ends_well();
        },
    );
}

#[test]
fn a_shard_that_begins_to_run_as_it_is_asked_back_is_given_back_at_once() {
    // The restore ends as soon as the changelog has a leader, at another tick of
    // those in which the group may ask.
    for later_ms in (0..4_000).step_by(60) {
        worlds(
            |plan| plan.classic = true,
            |script| {
                script.loses_the_leader_of_the_changelog(0, 10_000 + later_ms);
                script.until(10_000);
                script.another_member_joins();
                script.until(20_000);
                let commits = script.commits();
                script.until(40_000);
                // One in five seconds for the clock, of three inputs.
                let more = script.commits() - commits;
                assert!(more < 30, "{more} commits");
            },
        );
    }
}

#[test]
fn a_stop_takes_no_longer_because_the_group_asked_for_something_before_it() {
    worlds(
        |plan| {
            plan.partitions = 2;
            plan.processes = 2;
            plan.session_timeout_ms = 60_000;
        },
        |script| {
            let joins_at = 20_000;
            script.world.places[1].1 = START_MS + joins_at;
            a_fleet_polls(script, 4, 4_000, 300, 60_000);
            script.until(joins_at - 2_000);
            script.faults(|faults| faults.refused = 1.0);
            let told_at = joins_at + 3_000;
            script.until(told_at);
            script.is_told_to_leave();
            script.until_it("left", Script::has_left);
            let took_ms = script.now() - told_at;
            assert!(took_ms < 17_000, "it tried to commit for {took_ms} ms");
            script.faults(|faults| faults.refused = 0.0);
            script.ends_well();
        },
    );
}

#[test]
fn a_restore_that_is_refused_again_and_again_comes_to_its_end() {
    worlds(
        |_| {},
        |script| {
            script.says(Some("registered"), 11_000, registered("red"));
            a_fleet_polls(script, 3, 10_000, 300, 120_000);
            script.until(50_000);
            script.faults(|faults| faults.restore_refused = 1.0);
            script.dies();
            script.until_it("refused", |script| script.refused_restores() > 3);
            script.faults(|faults| faults.restore_refused = 0.6);
            script.until_it_runs();
            script.faults(|faults| faults.restore_refused = 0.0);
            script.until(120_000);
            nobody_went_offline(script, 3);
            assert_eq!(script.changes("registered").len(), 1);
            script.ends_well();
        },
    );
}

#[test]
fn an_input_that_runs_far_ahead_is_paused_and_goes_on() {
    const MANY: i64 = 12_000;
    worlds(
        |plan| {
            (plan.read_ahead, plan.work_per_turn) = (2_000, 50);
            plan.read_ahead_max_bytes = 4 << 20;
        },
        |script| {
            script.polls("device", 10_000, 10_100, 60_000);
            script.until(20_000);
            for number in 0..MANY {
                script.polls("device", 20_000 + number / 2, 26_000, 60_000);
            }
            script.until_it("paused", |script| script.has_paused(Input::Heartbeats));
            assert!(script.committed()[2] < MANY, "there is more to come");
            script.until_it("resumed", |script| !script.has_paused(Input::Heartbeats));
            script.until_it("read", |script| script.committed()[2] > MANY);
            // It counts from the last poll, which was made at 26 s.
            script.until(150_000);
            let expected = [since(ONLINE, 10_000), since(OFFLINE, 116_999)];
            assert_eq!(script.changes("device"), expected);
            script.ends_well();
        },
    );
}

#[test]
fn a_steady_input_is_not_taken_for_one_that_was_made_anew() {
    worlds(
        |_| {},
        |script| {
            script.faults(|faults| faults.answers_late_ms = 400);
            // A record or more between any answer and its arrival.
            for poll in 0..4_000 {
                let at = 10_000 + 20 * poll;
                script.polls("steady", at, at, 10_000);
            }
            alarms::take();
            script.until(89_000);
            assert_eq!(alarms::take(), [""; 0]);
            assert_eq!(script.changes("steady"), [since(ONLINE, 10_000)]);
            // What came to its end is noticed as before.
            script.until(92_000);
            script.loses_the_log(Input::Heartbeats);
            script.until(95_000);
            let told = alarms::take();
            assert!(told.len() == 1 && told[0].contains("was recreated"), "{told:?}");
        },
    );
}

#[test]
fn an_input_that_ends_before_what_was_read_of_it_expires_nobody_and_ends_the_process() {
    worlds(
        |_| {},
        |script| {
            a_fleet_polls(script, 3, 10_000, 300, 30_000);
            script.until(35_000);
            // Made anew: what the devices say from now on is not where it is read.
            script.loses_the_log(Input::Heartbeats);
            script.until(85_000);
            nobody_went_offline(script, 3);
            let end = script.world.run_until(START_MS + 120_000).expect_err("an end");
            assert!(end.contains("heartbeats ends at 0"), "{end}");
            nobody_went_offline(script, 3);
        },
    );
}

/// A device of each of two partitions.
fn one_of_each() -> [String; 2] {
    [0, 1].map(|partition| {
        let mut names = (0..).map(|number| format!("device-{number}"));
        names.find(|name| partition_of(name.as_bytes(), 2) == partition).expect("a name")
    })
}

#[test]
fn a_flood_of_dead_letters_goes_in_many_transactions_and_holds_up_no_other_shard() {
    const LETTERS: usize = 400;
    const BYTES: usize = 2_000;
    const MOST: usize = 20_000;
    let [_, other] = one_of_each();
    worlds(
        |plan| (plan.partitions, plan.read_ahead, plan.output_max_bytes) = (2, 1_000, MOST),
        |script| {
            script.until(10_000);
            for _ in 0..LETTERS {
                script.says_rubbish(12_000, 0, BYTES);
            }
            script.polls(&other, 12_000, 12_000, 60_000);
            script.until_it("half through", |script| {
                script.dead_letter_bytes().iter().sum::<usize>() >= LETTERS * BYTES / 2
            });
            assert_eq!(script.changes(&other), [since(ONLINE, 12_000)]);
            script.ends_well();
            let written = script.dead_letter_bytes();
            assert!(written.iter().all(|bytes| *bytes <= MOST + BYTES), "{written:?}");
            assert_eq!(written.iter().sum::<usize>(), LETTERS * BYTES);
        },
    );
}

#[test]
fn a_partition_without_a_leader_holds_up_no_other() {
    let [device, other] = one_of_each();
    worlds(
        |plan| plan.partitions = 2,
        |script| {
            // Neither is it known where to begin, nor, later, how far it goes.
            script.has_no_leader(Input::VpnSessions, 1, 40_000);
            for name in [&device, &other] {
                script.polls(name, 10_000, 10_100, 10_000);
                script.polls(name, 50_000, 50_100, 10_000);
            }
            script.until(35_000);
            let expected = [since(ONLINE, 10_000), since(OFFLINE, 26_000)];
            assert_eq!(script.changes(&device), expected, "the other partition has no leader");
            assert_eq!(script.changes(&other), []);
            script.until(55_000);
            let expected = [expected[0], expected[1], since(ONLINE, 50_000)];
            assert_eq!(script.changes(&device), expected);
            assert_eq!(script.changes(&other), expected, "its leader is back");
            script.has_no_leader(Input::VpnSessions, 1, 100_000);
            script.until(80_000);
            let offline = since(OFFLINE, 66_000);
            assert_eq!(script.changes(&device).last(), Some(&offline));
            assert_eq!(script.changes(&other), expected, "nothing says how far it goes");
            script.until(105_000);
            assert_eq!(script.changes(&other).last(), Some(&offline));
            script.ends_well();
        },
    );
}

#[test]
fn a_changelog_without_a_leader_holds_up_no_other_restore() {
    let [device, other] = one_of_each();
    worlds(
        |plan| plan.partitions = 2,
        |script| {
            for name in [&device, &other] {
                script.polls(name, 10_000, 10_100, 30_000);
            }
            script.until(15_000);
            script.dies();
            script.loses_the_leader_of_the_changelog(1, 90_000);
            script.until(80_000);
            let expected = [since(ONLINE, 10_000), since(OFFLINE, 56_000)];
            assert_eq!(script.changes(&device), expected);
            assert_eq!(script.changes(&other), expected[..1]);
            script.until(100_000);
            assert_eq!(script.changes(&other), expected);
            script.ends_well();
        },
    );
}

#[test]
fn new_rules_are_dated_by_the_broker_where_the_hosts_clock_is_wrong_by_hours() {
    for wrong_by_ms in [-7_200_000, 7_200_000] {
        worlds(
            |_| {},
            |script| {
                script.polls("device", 10_000, 10_100, 10_000);
                script.until(30_000);
                script.dies();
                // What was too late by the old rules counts by the new ones.
                script.changes_rules(|rules| rules.tolerance = 20.0);
                script.until_it("started", |script| script.world.places[0].0.is_some());
                let started = script.now();
                script.process().wall_offset_ms = wrong_by_ms;
                script.until(started + 20_000);
                let changes = script.changes("device");
                assert_eq!(changes[..2], [since(ONLINE, 10_000), since(OFFLINE, 26_000)]);
                let [(status, links, at)] = changes[2..] else { panic!("{changes:?}") };
                assert_eq!((status, links), ONLINE);
                assert!((started..started + 20_000).contains(&at), "{at} after {started}");
            },
        );
    }
}

#[test]
fn retention_that_overtakes_the_reading_is_told_and_the_clock_goes_on() {
    worlds(
        |_| {},
        |script| {
            script.polls("kept", 10_000, 10_100, 60_000);
            script.until(20_000);
            assert_eq!(script.offsets_lost(Input::Heartbeats), 0);
            script.is_cut_off_for(6_000);
            script.polls("unread", 21_000, 21_100, 60_000);
            script.until(23_000);
            script.deletes_everything(Input::Heartbeats);
            script.polls("read", 24_000, 24_100, 10_000);
            script.until(35_000);
            assert_eq!(script.offsets_lost(Input::Heartbeats), 1);
            // 10 s, one and a half times, and 1 s.
            script.until(60_000);
            let expected = [since(ONLINE, 24_000), since(OFFLINE, 40_000)];
            assert_eq!(script.changes("read"), expected);
            assert_eq!(script.changes("unread"), []);
            assert_eq!(script.offsets_lost(Input::Heartbeats), 0, "it is told once");
        },
    );
}

#[test]
fn an_input_that_is_emptied_unread_proves_that_it_is_read() {
    worlds(
        |_| {},
        |script| {
            script.polls("device", 10_000, 10_100, 10_000);
            script.until(15_000);
            script.is_cut_off_for(6_000);
            script.polls("unread", 16_000, 16_100, 60_000);
            script.until(18_000);
            script.deletes_everything(Input::Heartbeats);
            // Nothing follows, and the deadline comes all the same.
            script.until(60_000);
            assert_eq!(script.changes("device"), [since(ONLINE, 10_000), since(OFFLINE, 26_000)]);
            assert_eq!(script.offsets_lost(Input::Heartbeats), 1);
        },
    );
}

#[test]
fn where_transactions_end_nothing_was_deleted() {
    worlds(
        |_| {},
        |script| {
            script.until(10_000);
            let said = Script::lifecycle(Some("device"), 10_000, registered("red"));
            script.begins_transaction(vec![said]);
            script.until(11_000);
            script.ends_transaction();
            script.says(Some("device"), 14_000, registered("green"));
            script.until(20_000);
            // What was read may be deleted, and so may the end of a transaction.
            script.deletes_everything(Input::Lifecycle);
            script.says(Some("device"), 26_000, registered("blue"));
            script.until(30_000);
            assert_eq!(script.offsets_lost(Input::Lifecycle), 0);
            script.ends_well();
        },
    );
}

#[test]
fn a_transactions_end_that_is_deleted_after_it_was_read_is_no_loss() {
    worlds(
        |_| {},
        |script| {
            script.until(10_000);
            let said = Script::lifecycle(Some("device"), 10_000, registered("red"));
            script.begins_transaction(vec![said]);
            script.until(11_000);
            script.ends_transaction();
            script.until(20_000);
            script.deletes_everything(Input::Lifecycle);
            script.says(Some("device"), 26_000, registered("blue"));
            script.until(30_000);
            assert_eq!(script.offsets_lost(Input::Lifecycle), 0);
            script.ends_well();
        },
    );
}
