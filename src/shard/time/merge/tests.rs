use proptest::prelude::*;

use super::*;
use crate::shard::event::{
    Content, DeadLetter, DeadLetterReason, DeviceId, Event, EventBody, Relay,
};

const IDLE: [Option<bool>; 3] = [Some(false); 3];

fn at(monotonic_ms: i64) -> Now {
    Now { monotonic_ms, broker: Some(Timestamp(monotonic_ms)) }
}

fn record(offset: i64) -> Queued {
    let device = DeviceId::Hex([0; 16]);
    let body = EventBody::Heartbeat { device, poll_interval_s: None, going_away: false };
    Queued {
        offset,
        timestamp: Timestamp(0),
        stamped_by_broker: true,
        relay: Relay::default(),
        content: Content::Event(Event { occurred_at: None, body }),
    }
}

const IDLE_MAX_MS: i64 = 10_000;

fn merge(records: &[(Input, i64)]) -> Merge {
    let mut merge = Merge::new(IDLE_MAX_MS);
    for &(input, believed) in records {
        let offset = merge.len(input) as i64;
        merge.push(input, record(offset), Timestamp(believed));
    }
    merge
}

fn drain(merge: &mut Merge) -> Vec<(Input, i64)> {
    std::iter::from_fn(|| merge.pop(IDLE, at(0))).map(|(input, _, at)| (input, at.0)).collect()
}

#[test]
fn a_close_read_ahead_of_the_heartbeats_around_it_waits_for_them() {
    use Input::{Heartbeats, VpnSessions};
    let mut merge = merge(&[(VpnSessions, 50), (Heartbeats, 10), (Heartbeats, 60)]);
    assert_eq!(drain(&mut merge), [(Heartbeats, 10), (VpnSessions, 50), (Heartbeats, 60)]);
    assert!(merge.is_empty());
}

#[test]
fn at_equal_times_lifecycle_comes_first_then_the_vpn_then_heartbeats() {
    use Input::{Heartbeats, Lifecycle, VpnSessions};
    let mut merge = merge(&[(Heartbeats, 5), (VpnSessions, 5), (Lifecycle, 5), (Lifecycle, 5)]);
    let order = [(Lifecycle, 5), (Lifecycle, 5), (VpnSessions, 5), (Heartbeats, 5)];
    assert_eq!(drain(&mut merge), order);
}

#[test]
fn events_at_the_head_of_idle_inputs_never_wait() {
    let mut merge = merge(&[(Input::Heartbeats, 5)]);
    assert!(merge.pop(IDLE, at(0)).is_some());
}

/// Asks the merge once a second (the real loop would ask more often), and returns
/// how often a barrier held it.
fn held_for(merge: &mut Merge, unread: [Option<bool>; 3], from_ms: i64) -> i64 {
    (0..60)
        .find(|second| merge.pop(unread, at(from_ms + second * 1_000)).is_some())
        .expect("nobody is held for a minute")
}

#[test]
fn an_input_with_unread_records_holds_the_others_until_it_is_silent_for_too_long() {
    for unread in [Some(true), None] {
        let mut merge = merge(&[(Input::Heartbeats, 5), (Input::Heartbeats, 6)]);
        let unread = [Some(false), unread, Some(false)];
        assert_eq!(held_for(&mut merge, unread, 1_000), 10);
        assert!(merge.is_passed_over(Input::VpnSessions));
        assert!(merge.pop(unread, at(11_000)).is_some(), "once a silence, not once a record");
        merge.push(Input::Heartbeats, record(2), Timestamp(7));
        assert!(merge.pop(unread, at(90_000)).is_some(), "it is silent still");
    }
}

#[test]
fn silence_counts_once_the_brokers_time_is_known() {
    let mut merge = merge(&[(Input::Heartbeats, 5)]);
    let unread = [Some(false), None, Some(false)];
    for monotonic_ms in (0..90_000).step_by(500) {
        assert!(merge.pop(unread, Now { monotonic_ms, broker: None }).is_none());
    }
    assert_eq!(held_for(&mut merge, unread, 89_500), 10);
    merge.push(Input::Heartbeats, record(1), Timestamp(6));
    let idle = merge.pop(IDLE, Now { monotonic_ms: 190_000, broker: None });
    assert!(idle.is_some(), "what is read to its end holds nobody");
}

#[test]
fn a_stop_of_the_process_is_no_silence() {
    let unread = [Some(false), Some(true), Some(false)];
    let mut merge = merge(&[(Input::Heartbeats, 5)]);
    assert!(merge.pop(unread, at(0)).is_none());
    assert!(merge.pop(unread, at(3_600_000)).is_none());
    assert_eq!(held_for(&mut merge, unread, 3_600_000), 9, "the hour counts for a second");
}

#[test]
fn a_silent_input_that_answers_again_holds_the_others_again() {
    use Input::{Heartbeats, VpnSessions};
    let unread = [Some(false), Some(true), Some(false)];
    let waiting: Vec<_> = (5..9).map(|at| (Heartbeats, at)).collect();
    let answers: [fn(&mut Merge); 3] = [
        |merge| {
            merge.push(VpnSessions, record(0), Timestamp(4));
            let earliest = merge.pop([Some(false), Some(true), Some(false)], at(20_000));
            assert_eq!(earliest.map(|(input, ..)| input), Some(VpnSessions));
        },
        |merge| merge.answered(VpnSessions),
        // The input is known to be idle, and then to have records again.
        |merge| assert!(merge.pop(IDLE, at(20_000)).is_some()),
    ];
    for answers in answers {
        let mut merge = merge(&waiting);
        assert_eq!(held_for(&mut merge, unread, 0), 10);
        answers(&mut merge);
        assert!(!merge.is_passed_over(VpnSessions));
        assert_eq!(held_for(&mut merge, unread, 30_000), 10);
    }
}

#[test]
fn an_undecided_head_holds_the_others_until_it_is_decided() {
    use Input::{Heartbeats, VpnSessions};
    let stamped_by_its_sender = |offset| Queued { stamped_by_broker: false, ..record(offset) };
    let mut merge = merge(&[(Heartbeats, 5), (Heartbeats, 70)]);
    merge.push(VpnSessions, stamped_by_its_sender(0), Timestamp(60));
    merge.push(VpnSessions, stamped_by_its_sender(1), Timestamp(61));
    assert_eq!(merge.undecided(VpnSessions), Some(Timestamp(60)));
    assert_eq!(merge.head(VpnSessions), None);
    assert!(merge.pop(IDLE, at(0)).is_none());
    merge.decide(VpnSessions, Timestamp(4));
    assert_eq!(merge.head(VpnSessions), Some(Timestamp(4)));
    assert_eq!(merge.pop(IDLE, at(0)).map(|(.., at)| at.0), Some(4));
    // The next record is a barrier too, until it is decided, or nothing follows
    // it for too long.
    assert_eq!(merge.undecided(VpnSessions), Some(Timestamp(61)));
    assert_eq!(held_for(&mut merge, IDLE, 0), 10);
    assert!(merge.is_passed_over(VpnSessions));
    assert!(merge.pop(IDLE, at(10_000)).is_none(), "it is the next, and is not decided");
    merge.push(VpnSessions, stamped_by_its_sender(2), Timestamp(62));
    assert!(!merge.is_passed_over(VpnSessions), "it answers");
}

#[test]
fn an_input_is_not_silent_while_nobody_waits_for_it() {
    let unread = [None, None, Some(false)];
    let mut merge = merge(&[]);
    for second in 0..60 {
        assert!(merge.pop(unread, at(second * 1_000)).is_none());
    }
    merge.push(Input::Heartbeats, record(0), Timestamp(7));
    assert_eq!(held_for(&mut merge, unread, 60_000), 10);
}

#[test]
fn bad_records_keep_their_place_and_a_cleared_input_keeps_none() {
    let mut merge = merge(&[(Input::Heartbeats, 5)]);
    let bad = DeadLetter {
        reason: DeadLetterReason::Undecodable,
        input: Input::Lifecycle,
        partition: 0,
        offset: 7,
        timestamp: Timestamp(4),
        key: None,
        value: None,
        headers: Vec::new(),
        detail: "".into(),
    };
    let queued = Queued { content: Content::Bad(Box::new(bad)), ..record(7) };
    merge.push(Input::Lifecycle, queued, Timestamp(4));
    assert_eq!(merge.head(Input::Lifecycle), Some(Timestamp(4)));
    let first = merge.queues[Input::Lifecycle.index()].front();
    assert_eq!(first.map(|(_, record)| record.offset), Some(7));
    merge.clear(Input::Heartbeats);
    assert_eq!(merge.head(Input::Heartbeats), None);
    assert_eq!(drain(&mut merge), [(Input::Lifecycle, 4)]);
}

proptest! {
    /// Every pushed record comes out, each input in its order. Each pop takes the
    /// earliest head, ties by input. An idle input is no barrier. An input that
    /// may have more records is one until it has been silent for too long.
    #[test]
    fn the_earliest_head_comes_next(
        steps in prop::collection::vec(
            (
                prop::option::of((0..3usize, 0..20i64)),
                prop::option::weighted(0.1, 0..3usize),
                any::<[Option<bool>; 3]>(),
                prop_oneof![5 => 0..900i64, 1 => 900..20_000i64],
            ),
            0..200),
        constant in any::<Option<[Option<bool>; 3]>>(),
    ) {
        let mut merge = Merge::new(IDLE_MAX_MS);
        let mut queues: [VecDeque<(i64, i64)>; 3] = Default::default();
        let (mut now_ms, mut offset) = (0, 0);
        // How long each input has been waited for, and when that was looked at.
        let mut waited: [Option<(i64, i64)>; 3] = [None; 3];
        for (pushed, answered, unread, passed_ms) in steps {
            now_ms += passed_ms;
            let unread = constant.unwrap_or(unread);
            if let Some((index, believed)) = pushed {
                merge.push(Input::ALL[index], record(offset), Timestamp(believed));
                queues[index].push_back((believed, offset));
                offset += 1;
            }
            if let Some(index) = answered {
                merge.answered(Input::ALL[index]);
                waited[index] = None;
            }
            let model = (0..3).filter_map(|i| Some((queues[i].front()?.0, i))).min();
            let mut held = false;
            for index in (0..3).filter(|_| model.is_some()) {
                if queues[index].is_empty() && unread[index] != Some(false) {
                    let (lasted_ms, looked_at_ms) = waited[index].unwrap_or((0, now_ms));
                    let lasted_ms = lasted_ms + (now_ms - looked_at_ms).min(1_000);
                    waited[index] = Some((lasted_ms, now_ms));
                    held |= lasted_ms < IDLE_MAX_MS;
                } else {
                    waited[index] = None;
                }
            }
            match (merge.pop(unread, at(now_ms)), model) {
                (None, None) => {}
                (None, Some(_)) => prop_assert!(held, "held by nobody"),
                (Some((input, record, believed)), Some((at, index))) => {
                    prop_assert!(!held, "{index} goes before one that may have more");
                    prop_assert_eq!((input.index(), believed.0), (index, at));
                    let front = queues[index].pop_front();
                    prop_assert_eq!(front, Some((believed.0, record.offset)));
                }
                (Some(_), None) => prop_assert!(false, "out of nothing"),
            }
            for input in Input::ALL {
                prop_assert_eq!(merge.len(input), queues[input.index()].len());
            }
        }
    }
}
