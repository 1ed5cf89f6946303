//! A partition after answers, data loss and lost connections.

use super::*;
use crate::shard::ViewBody;

fn count(sequence: u64) -> ViewWrite {
    let fleet = format!("f{sequence}").as_str().into();
    ViewWrite { sequence, body: ViewBody::FleetCounts { fleet, counts: [0; 7] } }
}

/// A partition that holds its marker, with one answered write.
fn written_once() -> Partition {
    let mut partition = Partition::new(1, &[]);
    partition.take(5, 0);
    assert_eq!(partition.taken(None, 0, (0, 0), 0), None);
    partition.write(vec![count(1)], Some(10), Timestamp(1), 0);
    let (place, waiting) = partition.next_write().unwrap();
    partition.write_done(place, waiting);
    partition.round_ended();
    partition
}

fn step_of(partition: &Partition, place: Place, ms: i64) -> Option<MarkerStep> {
    let mut steps = partition.marker_steps(ms).into_iter();
    steps.find(|(of, _)| *of == place).map(|(_, step)| step)
}

fn own_step(partition: &Partition, ms: i64) -> Option<MarkerStep> {
    step_of(partition, None, ms)
}

fn advance(partition: &Partition) -> (Vec<MarkerValue>, MarkerValue) {
    match own_step(partition, 0) {
        Some(MarkerStep::Advance { from, to }) => (from, to),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_write_is_acknowledged_once_the_marker_covers_it() {
    let mut partition = written_once();
    assert_eq!(partition.take_acknowledged(), None);
    let (_, to) = advance(&partition);
    assert_eq!((to.applied, to.sequence), (10, 1));
    partition.advanced(None, to, 0);
    assert_eq!(partition.take_acknowledged(), Some(1));
    assert_eq!(own_step(&partition, 0), None);
    partition.disconnected();
    assert_eq!(partition.waiting(), 0);
}

#[test]
fn after_a_lost_connection_the_marker_waits_for_unconfirmed_writes() {
    for advanced_unseen in [false, true] {
        let mut partition = written_once();
        let (from, lost) = advance(&partition);
        partition.advance_unanswered(None, lost);
        partition.disconnected();
        partition.round_ended();
        // Nothing is written before the marker is checked.
        assert_eq!(partition.waiting(), 1);
        assert_eq!(partition.next_write(), None);
        assert_eq!(own_step(&partition, 0), Some(MarkerStep::Check));
        let found = if advanced_unseen { lost } else { from[0] };
        assert_eq!(partition.checked(None, MarkerContent::Value(found)), None);
        // The marker may still become either value; the promise does not grow.
        let (from, to) = advance(&partition);
        assert!(from.contains(&lost) && from.contains(&found));
        assert_eq!(to.applied, found.applied);
        partition.advanced(None, to, 0);
        let (place, waiting) = partition.next_write().unwrap();
        partition.write_done(place, waiting);
        partition.round_ended();
        let (_, to) = advance(&partition);
        assert_eq!((to.applied, to.sequence), (10, 1));
    }
}

#[test]
fn a_lost_marker_promises_nothing_until_the_loop_knows() {
    let mut partition = written_once();
    assert_eq!(partition.mismatch(None, MarkerContent::Nothing), Some(Finding::RewriteNeeded));
    assert_eq!(own_step(&partition, 0), Some(MarkerStep::Take { epoch: 5, applied: 0 }));
    assert_eq!(partition.taken(None, 0, (0, 0), 0), None);
    assert_eq!(partition.waiting(), 1);
    partition.write(vec![], Some(20), Timestamp(2), 0);
    let (place, waiting) = partition.next_write().unwrap();
    partition.write_done(place, waiting);
    partition.round_ended();
    assert_eq!(advance(&partition).1.applied, 0);
    partition.rewrite_reported();
    partition.write(vec![], Some(30), Timestamp(3), 0);
    assert_eq!(advance(&partition).1.applied, 30);
}

#[test]
fn a_larger_epoch_fences_the_partition() {
    let mut partition = written_once();
    partition.write(vec![count(2)], None, Timestamp(2), 0);
    assert_eq!(partition.checked(None, MarkerContent::Epoch(6)), Some(Finding::Superseded));
    partition.write(vec![count(3)], None, Timestamp(3), 0);
    assert_eq!((partition.waiting(), partition.due_in_ms(0)), (0, None));
}

/// The time to which the marker is to be advanced.
fn advanced_to(partition: &Partition, now_ms: i64) -> i64 {
    match own_step(partition, now_ms) {
        Some(MarkerStep::Advance { to, .. }) => to.time_ms,
        other => panic!("{other:?}"),
    }
}

#[test]
fn marker_time_advances_while_idle_and_stops_while_writes_are_missing() {
    let mut partition = written_once();
    let (_, to) = advance(&partition);
    partition.advanced(None, to, 0);
    assert_eq!(advanced_to(&partition, 7_000), 7_001);
    partition.write(vec![count(2)], Some(20), Timestamp(8_001), 8_000);
    assert_eq!(advanced_to(&partition, 20_000), 1);
}

#[test]
fn marks_do_not_grow_with_an_outage() {
    let mut partition = Partition::new(1, &[]);
    for sequence in 1..=10_000 {
        let applied = i64::try_from(sequence).unwrap();
        partition.write(vec![count(sequence)], Some(applied), Timestamp(applied), 0);
    }
    assert!(partition.marks.len() <= MARKS_MAX);
    assert_eq!(partition.marks.back().unwrap().applied, 10_000);
}

/// As [`written_once`], on a cluster of three nodes.
fn written_once_on_a_cluster() -> Partition {
    let mut partition = Partition::new(1, &[4, 7]);
    partition.take(5, 0);
    for place in [None, Some(4), Some(7)] {
        assert!(!partition.may_write());
        assert_eq!(partition.taken(place, 0, (0, 0), 0), None);
    }
    partition.write(vec![count(1)], Some(10), Timestamp(1), 0);
    let (place, waiting) = partition.next_write().unwrap();
    partition.write_done(place, waiting);
    partition.round_ended();
    partition
}

fn advance_replica_marker(partition: &mut Partition, number: u32) -> MarkerValue {
    let Some(MarkerStep::Advance { to, .. }) = step_of(partition, Some(number), 0) else {
        panic!("{partition:?}")
    };
    partition.advanced(Some(number), to, 0);
    to
}

#[test]
fn the_marker_promises_no_more_than_each_replica_marker() {
    let mut partition = written_once_on_a_cluster();
    assert_eq!(own_step(&partition, 0), None);
    assert_eq!(advance_replica_marker(&mut partition, 4).applied, 10);
    assert_eq!(own_step(&partition, 0), None);
    assert_eq!(partition.take_acknowledged(), None);
    advance_replica_marker(&mut partition, 7);
    let (_, to) = advance(&partition);
    assert_eq!((to.applied, to.sequence), (10, 1));
    partition.advanced(None, to, 0);
    assert_eq!(partition.take_acknowledged(), Some(1));
    assert_eq!(partition.marker_steps(0), []);
    // While idle, its time follows theirs.
    assert_eq!(partition.due_in_ms(0), Some(CHECK_INTERVAL_MS));
    for number in [4, 7] {
        let Some(MarkerStep::Advance { to, .. }) = step_of(&partition, Some(number), 7_000) else {
            panic!("{partition:?}")
        };
        partition.advanced(Some(number), to, 7_000);
    }
    assert_eq!(advance(&partition).1.time_ms, 7_001);
}

#[test]
fn a_node_that_lost_its_last_writes_causes_a_rewrite() {
    let mut partition = written_once_on_a_cluster();
    let before = partition.markers[1].possible[0];
    advance_replica_marker(&mut partition, 4);
    let held = advance_replica_marker(&mut partition, 7);
    let (_, to) = advance(&partition);
    partition.advanced(None, to, 0);
    partition.disconnected();
    assert_eq!(partition.checked(None, MarkerContent::Value(to)), None);
    assert_eq!(partition.checked(Some(4), MarkerContent::Value(held)), None);
    assert!(!partition.may_write());
    let finding = partition.checked(Some(7), MarkerContent::Value(before));
    assert_eq!(finding, Some(Finding::RewriteNeeded));
    // Answers for the other markers in the same round change nothing any more.
    partition.advanced(Some(4), held, 0);
    assert_eq!(partition.taken(None, 10, (10, 1), 0), None);
    for place in [None, Some(4), Some(7)] {
        let take = MarkerStep::Take { epoch: 5, applied: 0 };
        assert_eq!(step_of(&partition, place, 0), Some(take));
    }
}

#[test]
fn a_new_node_gets_a_replica_marker_and_a_removed_node_loses_its_own() {
    let mut partition = written_once_on_a_cluster();
    advance_replica_marker(&mut partition, 4);
    let held = advance_replica_marker(&mut partition, 7);
    let (_, to) = advance(&partition);
    partition.advanced(None, to, 0);
    partition.set_replica_markers(&[4, 9]);
    // The old replica marker is checked on the node that has its slot now.
    assert_eq!(step_of(&partition, Some(7), 0), Some(MarkerStep::Check));
    assert!(!partition.may_write());
    assert_eq!(partition.checked(Some(7), MarkerContent::Value(held)), None);
    assert_eq!(step_of(&partition, Some(7), 0), None);
    let take = MarkerStep::Take { epoch: 5, applied: 0 };
    assert_eq!(partition.marker_steps(0), [(Some(9), take)]);
    assert_eq!(partition.taken(Some(9), 0, (0, 0), 0), None);
    // The partition's own marker does not go back.
    assert_eq!(own_step(&partition, 0), None);
    advance_replica_marker(&mut partition, 9);
    assert_eq!(partition.marker_steps(0), []);
}

#[test]
fn a_node_that_took_slots_over_without_their_keys_has_everything_written_again() {
    let mut partition = written_once_on_a_cluster();
    for number in [4, 7] {
        advance_replica_marker(&mut partition, number);
    }
    let (_, to) = advance(&partition);
    partition.advanced(None, to, 0);
    partition.set_replica_markers(&[4]);
    let finding = partition.checked(Some(7), MarkerContent::Nothing);
    assert_eq!(finding, Some(Finding::RewriteNeeded));
    let take = MarkerStep::Take { epoch: 5, applied: 0 };
    assert_eq!(partition.marker_steps(0), [None, Some(4)].map(|place| (place, take.clone())));
}

#[test]
fn a_takeover_rewrites_if_a_replica_marker_was_lost() {
    let mut partition = Partition::new(1, &[4]);
    partition.take(5, 100);
    assert_eq!(partition.taken(None, 100, (100, 1), 0), None);
    // A new node needs the same promise.
    partition.set_replica_markers(&[4, 9]);
    let take = MarkerStep::Take { epoch: 5, applied: 100 };
    assert_eq!(step_of(&partition, Some(9), 0), Some(take));
    assert_eq!(partition.taken(Some(4), 100, (0, 0), 0), Some(Finding::RewriteNeeded));
}

#[test]
fn the_time_stands_while_nobody_knows_whether_a_commit_has_happened() {
    let mut partition = written_once();
    let (_, to) = advance(&partition);
    partition.advanced(None, to, 0);
    assert_eq!(advanced_to(&partition, 7_000), 7_001);
    partition.commit_begun(8_000);
    assert_eq!(advanced_to(&partition, 8_000), 8_001);
    // It is sent again.
    partition.commit_begun(20_000);
    assert_eq!(advanced_to(&partition, 60_000), 8_001);
    partition.write(vec![], Some(20), Timestamp(60_500), 61_000);
    partition.round_ended();
    assert_eq!(advanced_to(&partition, 68_000), 67_500);
}
