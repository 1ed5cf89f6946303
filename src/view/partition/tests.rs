//! What a partition does after answers, losses and silence.

use super::*;
use crate::shard::ViewBody;

fn count(sequence: u64) -> ViewWrite {
    let fleet = format!("f{sequence}").as_str().into();
    ViewWrite { sequence, body: ViewBody::FleetCounts { fleet, counts: [0; 7] } }
}

/// A partition that holds its marker and has sent one write, which was
/// answered.
fn written_once() -> Partition {
    let mut partition = Partition::new(1);
    partition.take(5, 0);
    assert_eq!(partition.taken(0, 0, 0), None);
    partition.write(vec![count(1)], Some(10), Timestamp(1), 0);
    let (place, waiting) = partition.next_write().unwrap();
    partition.write_done(place, waiting);
    partition.round_ended();
    partition
}

fn advance(partition: &Partition) -> (Vec<MarkerValue>, MarkerValue) {
    match partition.marker_step(0) {
        Some(MarkerStep::Advance { from, to }) => (from, to),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_write_is_acknowledged_once_the_marker_covers_it() {
    let mut partition = written_once();
    assert_eq!(partition.tell_acknowledged(), None);
    let (_, to) = advance(&partition);
    assert_eq!((to.applied, to.sequence), (10, 1));
    partition.advanced(to, 0);
    assert_eq!(partition.tell_acknowledged(), Some(1));
    assert_eq!(partition.marker_step(0), None);
    partition.disconnected();
    assert_eq!(partition.waiting(), 0);
}

#[test]
fn after_a_lost_connection_the_marker_waits_for_what_it_did_not_cover() {
    for advanced_unseen in [false, true] {
        let mut partition = written_once();
        let (from, lost) = advance(&partition);
        partition.advance_unanswered(lost);
        partition.disconnected();
        partition.round_ended();
        // Nothing is written before the marker was seen to be ours.
        assert_eq!(partition.waiting(), 1);
        assert_eq!(partition.next_write(), None);
        assert_eq!(partition.marker_step(0), Some(MarkerStep::Check));
        let found = if advanced_unseen { lost } else { from[0] };
        assert_eq!(partition.checked(Found::Value(found)), None);
        // Either value may still turn up; what is promised does not grow.
        let (from, to) = advance(&partition);
        assert!(from.contains(&lost) && from.contains(&found));
        assert_eq!(to.applied, found.applied);
        partition.advanced(to, 0);
        let (place, waiting) = partition.next_write().unwrap();
        partition.write_done(place, waiting);
        partition.round_ended();
        let (_, to) = advance(&partition);
        assert_eq!((to.applied, to.sequence), (10, 1));
    }
}

#[test]
fn a_lost_marker_is_taken_from_nothing_and_promises_nothing_until_told() {
    let mut partition = written_once();
    assert_eq!(partition.mismatch(Found::Nothing), Some(Finding::RewriteNeeded));
    assert_eq!(partition.marker_step(0), Some(MarkerStep::Take { epoch: 5, applied: 0 }));
    assert_eq!(partition.taken(0, 0, 0), None);
    assert_eq!(partition.waiting(), 1);
    partition.write(vec![], Some(20), Timestamp(2), 0);
    let (place, waiting) = partition.next_write().unwrap();
    partition.write_done(place, waiting);
    partition.round_ended();
    assert_eq!(advance(&partition).1.applied, 0);
    partition.rewrite_told();
    partition.write(vec![], Some(30), Timestamp(3), 0);
    assert_eq!(advance(&partition).1.applied, 30);
}

#[test]
fn a_larger_epoch_ends_it() {
    let mut partition = written_once();
    partition.write(vec![count(2)], None, Timestamp(2), 0);
    assert_eq!(partition.checked(Found::Epoch(6)), Some(Finding::Superseded));
    partition.write(vec![count(3)], None, Timestamp(3), 0);
    assert_eq!((partition.waiting(), partition.due_in_ms(0)), (0, None));
}

#[test]
fn idle_time_goes_on_and_time_with_writes_missing_stands_still() {
    let mut partition = written_once();
    let (_, to) = advance(&partition);
    partition.advanced(to, 0);
    let at = |partition: &Partition, ms| match partition.marker_step(ms) {
        Some(MarkerStep::Advance { to, .. }) => to.time_ms,
        other => panic!("{other:?}"),
    };
    assert_eq!(at(&partition, 7_000), 7_001);
    partition.write(vec![count(2)], Some(20), Timestamp(8_001), 8_000);
    assert_eq!(at(&partition, 20_000), 1);
}

#[test]
fn marks_do_not_grow_with_an_outage() {
    let mut partition = Partition::new(1);
    for sequence in 1..=10_000 {
        let applied = i64::try_from(sequence).unwrap();
        partition.write(vec![count(sequence)], Some(applied), Timestamp(applied), 0);
    }
    assert!(partition.marks.len() <= MARKS_MAX);
    assert_eq!(partition.marks.back().unwrap().applied, 10_000);
}
