use proptest::prelude::*;

use super::*;

const SLACK_MS: i64 = 2_000;
const JUMP_MS: i64 = 300_000;
const T0: i64 = 1_760_000_000_000;
const BEATS: Input = Input::Heartbeats;

fn at(ms: i64) -> Timestamp {
    Timestamp(T0 + ms)
}

fn broker(ms: i64) -> Now {
    Now { monotonic_ms: ms, broker: Some(at(ms)) }
}

const UNKNOWN: Now = Now { monotonic_ms: 0, broker: None };

fn clock() -> Clock {
    Clock::new(SLACK_MS, JUMP_MS)
}

/// A clock whose other two inputs are far ahead.
fn only_heartbeats_matter() -> Clock {
    let mut clock = clock();
    for input in [Input::Lifecycle, Input::VpnSessions] {
        read(&mut clock, input, 0, at(1_000_000_000_000));
    }
    clock
}

/// Offers and processes a record that the broker stamped.
fn read(clock: &mut Clock, input: Input, offset: i64, ts: Timestamp) {
    clock.offered(input, offset + 1);
    clock.head(input, Some(ts));
    clock.processed(input, ts, offset + 1);
    clock.head(input, None);
}

/// The same for a record that its sender stamped, if it is decided. `following`:
/// the timestamps behind it.
fn sent_before(
    clock: &mut Clock,
    ts: Timestamp,
    following: &[Timestamp],
    now: Now,
) -> Option<Timestamp> {
    let offset = clock.reached(BEATS).unwrap_or(0);
    let last = offset + 1 + following.len() as i64;
    clock.inputs[BEATS.index()].delivered = Some(last);
    let believed = clock.believe(BEATS, ts, following.iter().copied(), false, now)?;
    clock.offered(BEATS, last);
    clock.head(BEATS, Some(believed));
    clock.processed(BEATS, believed, offset + 1);
    clock.head(BEATS, None);
    Some(believed)
}

fn sent(clock: &mut Clock, ts: Timestamp, now: Now) -> Timestamp {
    sent_before(clock, ts, &[], now).expect("decided")
}

#[test]
fn a_clock_that_knows_nothing_stands_at_the_epoch() {
    let mut clock = clock();
    assert_eq!(clock.clock(broker(0)), Timestamp::MIN);
    read(&mut clock, Input::Heartbeats, 0, at(0));
    read(&mut clock, Input::Lifecycle, 0, at(0));
    assert_eq!(clock.clock(broker(0)), Timestamp::MIN, "one input is still unknown");
    assert_eq!(clock.has_unread(BEATS), None);
}

#[test]
fn clock_is_the_least_watermark_less_the_allowed_lateness() {
    let mut clock = clock();
    for (input, ms) in Input::ALL.into_iter().zip([50_000, 30_000, 40_000]) {
        read(&mut clock, input, 0, at(ms));
    }
    assert_eq!(clock.clock(broker(9_000_000)), at(30_000 - SLACK_MS));
}

#[test]
fn the_clock_never_passes_broker_time_and_never_goes_back() {
    let mut clock = clock();
    for input in Input::ALL {
        read(&mut clock, input, 0, at(100_000));
    }
    assert_eq!(clock.clock(broker(5_000)), at(5_000 - SLACK_MS));
    assert_eq!(clock.clock(broker(1_000)), at(5_000 - SLACK_MS));
    let mut restored = self::clock();
    restored.restore(at(70_000), [Some(at(72_000)); 3]);
    assert_eq!(restored.clock(broker(60_000)), at(70_000), "ahead, it waits");
}

#[test]
fn an_idle_input_follows_the_evidence() {
    let mut clock = only_heartbeats_matter();
    read(&mut clock, BEATS, 9, at(0));
    clock.learn_end(BEATS, Some(at(60_000)), 10, 10);
    assert_eq!(clock.clock(broker(60_500)), at(60_000 - SLACK_MS));
    assert_eq!(clock.has_unread(BEATS), Some(false));
    // Time alone does not advance the clock.
    assert_eq!(clock.clock(broker(90_000)), at(60_000 - SLACK_MS));
}

#[test]
fn an_input_that_cannot_be_read_holds_the_clock() {
    let mut clock = only_heartbeats_matter();
    read(&mut clock, BEATS, 9, at(0));
    for second in 1..1_000 {
        clock.learn_end(BEATS, Some(at(second * 1_000)), 12, 12);
    }
    assert_eq!(clock.clock(broker(1_000_000)), at(-SLACK_MS));
    assert_eq!(clock.has_unread(BEATS), Some(true));
}

#[test]
fn an_end_of_partition_alone_is_no_evidence() {
    let mut clock = only_heartbeats_matter();
    read(&mut clock, BEATS, 9, at(0));
    clock.end_of_partition(BEATS, 10);
    assert_eq!(clock.clock(broker(3_600_000)), at(-SLACK_MS));
}

#[test]
fn an_open_transaction_holds_the_clock_and_nobodys_records() {
    let mut clock = only_heartbeats_matter();
    read(&mut clock, BEATS, 9, at(0));
    // Offsets 10 to 14 belong to an open transaction.
    clock.end_of_partition(BEATS, 10);
    clock.learn_end(BEATS, Some(at(5_000)), 15, 10);
    assert_eq!(clock.has_unread(BEATS), Some(false));
    assert_eq!(clock.watermark(BEATS), Some(at(0)));
    assert_eq!(clock.idle_at(BEATS), Some(at(5_000)));
    assert_eq!(clock.clock(broker(5_000)), at(-SLACK_MS));
    // It was aborted: an end of partition, and not a record, reaches it.
    clock.end_of_partition(BEATS, 16);
    assert_eq!(clock.clock(broker(7_000)), at(5_000 - SLACK_MS));
}

#[test]
fn end_of_partition_counts_once_earlier_records_are_processed() {
    let mut clock = only_heartbeats_matter();
    let believed = [at(1_000), at(2_000)];
    clock.offered(BEATS, 11);
    clock.offered(BEATS, 12);
    clock.head(BEATS, Some(believed[0]));
    clock.end_of_partition(BEATS, 13);
    clock.learn_end(BEATS, Some(at(60_000)), 13, 13);
    // Behind the end comes another record, so that the buffer never empties.
    let later = at(61_000);
    clock.offered(BEATS, 14);
    assert_eq!(clock.reached(BEATS), None);
    assert_eq!(clock.clock(broker(61_000)), at(1_000 - SLACK_MS));
    clock.processed(BEATS, believed[0], 11);
    // The queue looks empty while its record is being processed, but is not.
    clock.head(BEATS, None);
    assert_eq!(clock.reached(BEATS), Some(11));
    assert_eq!(clock.clock(broker(61_000)), at(1_000 - SLACK_MS));
    clock.processed(BEATS, believed[1], 12);
    assert_eq!(clock.reached(BEATS), Some(13));
    assert_eq!(clock.clock(broker(61_000)), at(60_000 - SLACK_MS));
    clock.head(BEATS, Some(later));
    assert_eq!(clock.clock(broker(62_000)), at(61_000 - SLACK_MS));
}

#[test]
fn an_answer_asked_before_a_stop_proves_nothing_about_the_stop() {
    let mut clock = only_heartbeats_matter();
    read(&mut clock, BEATS, 9, at(0));
    // SIGSTOP for a minute between the question and its answer.
    clock.learn_end(BEATS, Some(at(1_000)), 10, 10);
    assert_eq!(clock.clock(broker(61_000)), at(1_000 - SLACK_MS));
}

#[test]
fn an_older_answer_takes_nothing_back() {
    let mut clock = only_heartbeats_matter();
    read(&mut clock, BEATS, 9, at(0));
    clock.learn_end(BEATS, Some(at(8_000)), 12, 12);
    clock.learn_end(BEATS, Some(at(7_000)), 10, 10);
    assert_eq!(clock.has_unread(BEATS), Some(true), "two records are known to wait");
    assert_eq!(clock.watermark(BEATS), Some(at(7_000)), "true, and reached");
    clock.end_of_partition(BEATS, 12);
    assert_eq!(clock.watermark(BEATS), Some(at(8_000)));
    clock.learn_end(BEATS, Some(at(6_000)), 12, 12);
    assert_eq!(clock.watermark(BEATS), Some(at(8_000)));
}

#[test]
fn an_end_that_went_back_can_be_reached() {
    let mut clock = only_heartbeats_matter();
    read(&mut clock, BEATS, 9, at(0));
    clock.learn_end(BEATS, Some(at(8_000)), 20, 20);
    clock.learn_end(BEATS, Some(at(9_000)), 10, 10);
    assert_eq!(clock.has_unread(BEATS), Some(false));
    assert_eq!(clock.watermark(BEATS), Some(at(9_000)));
}

#[test]
fn an_error_in_place_of_an_offset_is_no_answer() {
    let mut clock = only_heartbeats_matter();
    read(&mut clock, BEATS, 9, at(0));
    clock.learn_end(BEATS, Some(at(8_000)), -1, -1);
    clock.learn_end(BEATS, Some(at(8_000)), -1001, 10);
    assert_eq!(clock.watermark(BEATS), Some(at(0)));
    assert_eq!(clock.has_unread(BEATS), None);
}

#[test]
fn before_the_first_report_an_answer_only_tells_what_is_unread() {
    let mut clock = only_heartbeats_matter();
    read(&mut clock, BEATS, 9, at(0));
    clock.learn_end(BEATS, None, 10, 10);
    assert_eq!(clock.has_unread(BEATS), Some(false));
    assert_eq!(clock.watermark(BEATS), Some(at(0)));
}

#[test]
fn after_a_pause_the_input_is_behind_until_asked_again() {
    let mut clock = only_heartbeats_matter();
    read(&mut clock, BEATS, 9, at(0));
    clock.learn_end(BEATS, Some(at(5_000)), 11, 11);
    clock.forget_evidence(BEATS);
    assert_eq!(clock.has_unread(BEATS), None);
    clock.end_of_partition(BEATS, 11);
    assert_eq!(clock.clock(broker(9_000)), at(-SLACK_MS));
    clock.learn_end(BEATS, Some(at(9_000)), 11, 11);
    assert_eq!(clock.clock(broker(9_000)), at(9_000 - SLACK_MS));
}

#[test]
fn an_input_committed_to_its_end_needs_no_record_to_follow() {
    let mut clock = only_heartbeats_matter();
    clock.restore(at(0), [None, None, Some(at(1_000))]);
    clock.start_at(BEATS, 500);
    clock.learn_end(BEATS, Some(at(20_000)), 500, 500);
    assert_eq!(clock.clock(broker(20_000)), at(20_000 - SLACK_MS));
}

#[test]
fn a_discarded_buffer_leaves_no_debt() {
    let mut clock = only_heartbeats_matter();
    read(&mut clock, BEATS, 9, at(0));
    clock.offered(BEATS, 11);
    clock.head(BEATS, Some(at(1_000)));
    clock.end_of_partition(BEATS, 11);
    clock.discard_buffered(BEATS);
    clock.head(BEATS, None);
    clock.learn_end(BEATS, Some(at(5_000)), 11, 11);
    assert_eq!(clock.clock(broker(5_000)), at(1_000 - SLACK_MS), "it was not processed");
    read(&mut clock, BEATS, 10, at(1_000));
    assert_eq!(clock.clock(broker(5_000)), at(5_000 - SLACK_MS));
}

#[test]
fn a_transaction_open_for_long_costs_bounded_memory_and_little_time() {
    let mut clock = only_heartbeats_matter();
    read(&mut clock, BEATS, 9, at(0));
    for second in 1..=900 {
        clock.learn_end(BEATS, Some(at(second * 1_000)), 10 + second, 10);
        assert!(clock.inputs[BEATS.index()].answers.len() <= ANSWERS_KEPT);
    }
    clock.end_of_partition(BEATS, 11);
    assert_eq!(clock.watermark(BEATS), Some(at(1_000)), "the oldest was kept");
    clock.end_of_partition(BEATS, 910);
    assert_eq!(clock.watermark(BEATS), Some(at(900_000)), "and the newest");
}

#[test]
fn no_number_of_absurd_timestamps_moves_anything() {
    let mut clock = only_heartbeats_matter();
    clock.restore(at(0), [None, None, Some(at(0))]);
    assert_eq!(sent(&mut clock, at(1_000), broker(1_000)), at(1_000));
    let absurd = at(365 * 86_400_000);
    for _ in 0..100 {
        assert_eq!(sent(&mut clock, absurd, broker(2_000)), at(1_000));
    }
    assert_eq!(clock.watermark(BEATS), Some(at(1_000)));
    assert_eq!(sent(&mut clock, at(2_000), broker(2_000)), at(2_000));
    assert_eq!(clock.clock(broker(10_000)), at(2_000 - SLACK_MS));
}

const HOUR_MS: i64 = 3_600_000;

/// The clamped timestamp of a record that follows a gap of seven hours, in a
/// backlog of fourteen, with these records behind it.
fn after_seven_hours(clock: &Clock, behind_ms: &[i64]) -> Option<Timestamp> {
    let behind: Vec<_> = behind_ms.iter().map(|ms| at(*ms)).collect();
    sent_before(&mut clock.clone(), at(7 * HOUR_MS), &behind, broker(14 * HOUR_MS))
}

/// A clock that has read the heartbeats up to `at(0)`, while there are more.
fn in_a_backlog() -> Clock {
    let mut clock = only_heartbeats_matter();
    clock.restore(at(0), [None, None, Some(at(0))]);
    clock.start_at(BEATS, 0);
    clock.learn_end(BEATS, Some(at(14 * HOUR_MS)), 1_000, 1_000);
    clock
}

#[test]
fn gap_is_accepted_once_later_records_or_the_end_show_it() {
    let gap = Some(at(7 * HOUR_MS));
    let mut clock = in_a_backlog();
    assert_eq!(after_seven_hours(&clock, &[8 * HOUR_MS; FOLLOWING]), gap);
    // With fewer, later records may still contradict.
    for count in 0..FOLLOWING {
        assert_eq!(after_seven_hours(&clock, &vec![8 * HOUR_MS; count]), None, "{count}");
    }
    let stamp = at(7 * HOUR_MS);
    let given_up = clock.believe(BEATS, stamp, std::iter::empty(), true, broker(14 * HOUR_MS));
    assert_eq!(given_up, gap);
    clock.learn_end(BEATS, Some(at(14 * HOUR_MS)), 3, 3);
    assert_eq!(after_seven_hours(&clock, &[8 * HOUR_MS]), None, "one more is to come");
    assert_eq!(after_seven_hours(&clock, &[8 * HOUR_MS; 2]), gap);
    // An old answer about the end says nothing about later records.
    let mut old = only_heartbeats_matter();
    old.restore(at(0), [None, None, Some(at(0))]);
    old.learn_end(BEATS, Some(at(1_000)), 1, 1);
    assert_eq!(after_seven_hours(&old, &[]), None);
    old.learn_end(BEATS, Some(at(7 * HOUR_MS)), 1, 1);
    assert_eq!(after_seven_hours(&old, &[]), gap);
}

#[test]
fn wrong_clock_in_a_backlog_is_clamped_to_the_earliest_follower() {
    let clock = in_a_backlog();
    let mut behind_ms = [8 * HOUR_MS; FOLLOWING];
    behind_ms[FOLLOWING - 1] = 2 * HOUR_MS;
    assert_eq!(after_seven_hours(&clock, &behind_ms), Some(at(2 * HOUR_MS)));
    behind_ms[3] = -JUMP_MS;
    assert_eq!(after_seven_hours(&clock, &behind_ms), Some(at(0)), "as what came before");
    // Records that are late themselves, or a little out of order, decide nothing.
    for nothing_ms in [-JUMP_MS - 1, -20_000 * 86_400_000, 7 * HOUR_MS - JUMP_MS] {
        let behind_ms = [nothing_ms; FOLLOWING];
        assert_eq!(after_seven_hours(&clock, &behind_ms), Some(at(7 * HOUR_MS)));
    }
    // Fifteen wrong timestamps in a row cannot be recognized.
    let mut behind_ms = vec![8 * HOUR_MS; FOLLOWING];
    behind_ms.push(0);
    assert_eq!(after_seven_hours(&clock, &behind_ms), Some(at(7 * HOUR_MS)));
}

#[test]
fn record_that_is_ahead_waits_for_broker_time() {
    let mut clock = in_a_backlog();
    let behind = [at(8 * HOUR_MS); FOLLOWING];
    assert_eq!(sent_before(&mut clock, at(7 * HOUR_MS), &behind, UNKNOWN), None);
    assert_eq!(sent_before(&mut clock, at(JUMP_MS), &behind, UNKNOWN), Some(at(JUMP_MS)));
}

#[test]
fn many_small_jumps_make_no_large_one() {
    let mut clock = only_heartbeats_matter();
    clock.restore(at(0), [None, None, Some(at(0))]);
    for step in 1..100 {
        sent(&mut clock, at(step * JUMP_MS), broker(1_000));
    }
    assert!(clock.watermark(BEATS).unwrap() <= at(1_000 + JUMP_MS));
}

#[test]
fn a_first_record_is_measured_from_broker_time() {
    let mut clock = only_heartbeats_matter();
    assert_eq!(sent(&mut clock, at(JUMP_MS + 1_001), broker(1_000)), at(1_000));
    let mut behind = only_heartbeats_matter();
    assert_eq!(sent(&mut behind, at(-90_000_000), broker(1_000)), at(-90_000_000));
}

#[test]
fn a_first_record_waits_for_the_brokers_time() {
    let mut clock = only_heartbeats_matter();
    assert_eq!(sent_before(&mut clock, at(500), &[], UNKNOWN), None);
    assert_eq!(clock.watermark(BEATS), None);
    assert_eq!(sent(&mut clock, at(500), broker(1_000)), at(500));
    assert_eq!(clock.watermark(BEATS), Some(at(500)));
}

#[test]
fn an_absurd_first_record_does_not_prove_that_all_until_now_was_read() {
    let mut clock = only_heartbeats_matter();
    let absurd = at(365 * 86_400_000);
    for _ in 0..2 {
        assert_eq!(sent(&mut clock, absurd, broker(60_000)), at(60_000));
        assert_eq!(clock.watermark(BEATS), None);
    }
    assert_eq!(sent(&mut clock, at(500), broker(60_000)), at(500));
    assert_eq!(clock.watermark(BEATS), Some(at(500)));
    assert_eq!(sent(&mut clock, absurd, broker(60_000)), at(500));
}

#[test]
fn a_record_without_a_timestamp_counts_as_the_epoch() {
    let mut clock = only_heartbeats_matter();
    for ms in [-1, i64::MIN] {
        assert_eq!(sent(&mut clock, Timestamp(ms), broker(0)), Timestamp::MIN);
    }
}

/// A partition on a broker, and a consumer of it.
#[derive(Debug, Default)]
struct Partition {
    log: Vec<Stored>,
    /// Offsets from here on belong to a transaction that is open.
    open_from: Option<usize>,
    delivered: usize,
    buffer: std::collections::VecDeque<(usize, Timestamp)>,
    processed: usize,
    /// Questions in flight: time of asking, high watermark, last stable offset.
    asked: Vec<(Timestamp, i64, i64)>,
}

#[derive(Clone, Copy, Debug)]
struct Stored {
    at: Timestamp,
    /// A marker or an aborted record is never delivered.
    delivered: bool,
}

impl Partition {
    fn last_stable(&self) -> usize {
        self.open_from.unwrap_or(self.log.len())
    }

    /// The first record that can ever be read and is not processed.
    fn first_unprocessed(&self) -> Option<Timestamp> {
        self.log[self.processed..].iter().find(|stored| stored.delivered).map(|s| s.at)
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    TimePasses(i64),
    Append { delivered: bool, open: bool },
    CloseTransaction,
    Deliver(usize),
    Process(usize),
    Ask,
    Answer(usize),
    Forget,
    Discard,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..5_000i64).prop_map(Step::TimePasses),
        6 => (prop::bool::weighted(0.8), prop::bool::weighted(0.3))
            .prop_map(|(delivered, open)| Step::Append { delivered, open }),
        2 => Just(Step::CloseTransaction),
        6 => (0..5usize).prop_map(Step::Deliver),
        6 => (0..5usize).prop_map(Step::Process),
        4 => Just(Step::Ask),
        4 => (0..3usize).prop_map(Step::Answer),
        1 => Just(Step::Forget),
        1 => Just(Step::Discard),
    ]
}

fn deliver(partition: &mut Partition, clock: &mut Clock, input: Input, count: usize) {
    for _ in 0..count {
        if partition.delivered >= partition.last_stable() {
            break;
        }
        let stored = partition.log[partition.delivered];
        if stored.delivered {
            clock.offered(input, partition.delivered as i64 + 1);
            partition.buffer.push_back((partition.delivered, stored.at));
            clock.head(input, partition.buffer.front().map(|&(_, believed)| believed));
        }
        partition.delivered += 1;
        if partition.delivered == partition.last_stable() {
            clock.end_of_partition(input, partition.delivered as i64);
        }
    }
}

fn process(partition: &mut Partition, clock: &mut Clock, input: Input, count: usize) {
    for _ in 0..count {
        let Some((offset, believed)) = partition.buffer.pop_front() else { break };
        partition.processed = offset + 1;
        clock.processed(input, believed, offset as i64 + 1);
        clock.head(input, partition.buffer.front().map(|&(_, believed)| believed));
    }
}

proptest! {
    /// With any order of questions, answers, deliveries, discards and
    /// transactions, the clock never passes a record that may still come, never
    /// goes back, and catches up as soon as it may.
    #[test]
    fn the_clock_is_never_past_what_is_unread(
        steps in prop::collection::vec((0..3usize, step()), 0..300),
    ) {
        let mut clock = clock();
        let mut partitions: [Partition; 3] = Default::default();
        let mut now_ms = 0;
        let mut last = Timestamp::MIN;
        for (index, step) in steps {
            let (partition, input) = (&mut partitions[index], Input::ALL[index]);
            match step {
                Step::TimePasses(ms) => now_ms += ms,
                Step::Append { delivered, open } => {
                    if open && partition.open_from.is_none() {
                        partition.open_from = Some(partition.log.len());
                    }
                    partition.log.push(Stored { at: at(now_ms), delivered });
                }
                Step::CloseTransaction => {
                    if partition.open_from.take().is_some() {
                        partition.log.push(Stored { at: at(now_ms), delivered: false });
                    }
                }
                Step::Deliver(count) => deliver(partition, &mut clock, input, count),
                Step::Process(count) => process(partition, &mut clock, input, count),
                Step::Ask => {
                    let ends = (partition.log.len() as i64, partition.last_stable() as i64);
                    partition.asked.push((at(now_ms), ends.0, ends.1));
                }
                Step::Answer(which) => {
                    if which < partition.asked.len() {
                        let (asked_at, high, stable) = partition.asked.remove(which);
                        clock.learn_end(input, Some(asked_at), high, stable);
                    }
                }
                Step::Forget => clock.forget_evidence(input),
                Step::Discard => {
                    partition.buffer.clear();
                    partition.delivered = partition.processed;
                    clock.discard_buffered(input);
                    clock.head(input, None);
                }
            }
            let now = broker(now_ms);
            let stands = clock.clock(now);
            prop_assert!(stands >= last, "went back");
            prop_assert!(stands <= at(now_ms), "past broker time");
            last = stands;
            for (partition, input) in partitions.iter().zip(Input::ALL) {
                if let Some(first) = partition.first_unprocessed() {
                    prop_assert!(clock.watermark(input) <= Some(first), "past {first}");
                    prop_assert!(stands <= first.plus_ms(-SLACK_MS).max(Timestamp::MIN));
                }
                prop_assert!(clock.inputs[input.index()].answers.len() <= ANSWERS_KEPT);
                if let Some(reached) = clock.reached(input) {
                    let reached = reached as usize;
                    let unseen = &partition.log[partition.processed.min(reached)..reached];
                    prop_assert!(unseen.iter().all(|stored| !stored.delivered));
                }
            }
        }
        for (partition, input) in partitions.iter_mut().zip(Input::ALL) {
            partition.open_from = None;
            partition.log.push(Stored { at: at(now_ms), delivered: false });
            deliver(partition, &mut clock, input, usize::MAX);
            process(partition, &mut clock, input, usize::MAX);
            let end = partition.log.len() as i64;
            clock.learn_end(input, Some(at(now_ms)), end, end);
            prop_assert_eq!(clock.has_unread(input), Some(false));
        }
        prop_assert_eq!(clock.clock(broker(now_ms)), at(now_ms - SLACK_MS));
    }

    /// With absurd timestamps among good ones, the good ones count as if the
    /// others were absent.
    #[test]
    fn absurd_stamps_touch_no_other_record(
        records in prop::collection::vec((0..60_000i64, 0..40usize), 1..50),
        absurd_ms in (2 * JUMP_MS + 4_000_000)..10_000_000_000_000i64,
    ) {
        let (mut strewn, mut clean) = (only_heartbeats_matter(), only_heartbeats_matter());
        let mut now_ms = 0;
        for (gap_ms, absurd) in records {
            let now = broker(now_ms);
            for _ in 0..absurd {
                sent(&mut strewn, at(absurd_ms), now);
            }
            prop_assert_eq!(strewn.clock(now).max(at(-1)), clean.clock(now).max(at(-1)));
            now_ms += gap_ms;
            let now = broker(now_ms);
            prop_assert_eq!(sent(&mut strewn, at(now_ms), now), at(now_ms));
            prop_assert_eq!(sent(&mut clean, at(now_ms), now), at(now_ms));
            prop_assert_eq!(strewn.watermark(BEATS), clean.watermark(BEATS));
            prop_assert_eq!(strewn.clock(now), clean.clock(now));
        }
    }

    /// A backlog with gaps of any length and wrong timestamps, never fifteen in a
    /// row. The good ones are accepted. A wrong one after a gap counts for little
    /// more than the good one that follows. And a decision does not depend on how
    /// much of the backlog is there.
    #[test]
    fn gaps_are_accepted_and_wrong_clocks_clamped(
        records in prop::collection::vec(
            (0..3 * HOUR_MS, prop::collection::vec(0..20 * HOUR_MS, 0..FOLLOWING)), 1..30),
        here in 0..2 * FOLLOWING,
    ) {
        let mut log: Vec<(i64, bool)> = vec![(0, true)];
        let mut good_ms = 0;
        for (gap_ms, wrong) in records {
            log.extend(wrong.iter().map(|ahead_ms| (good_ms + ahead_ms, false)));
            good_ms += gap_ms;
            log.push((good_ms, true));
        }
        let now = broker(200 * HOUR_MS);
        let mut clock = only_heartbeats_matter();
        clock.start_at(BEATS, 0);
        let end = log.len() as i64;
        clock.learn_end(BEATS, now.broker, end, end);
        let stamps: Vec<_> = log.iter().map(|(ms, _)| at(*ms)).collect();
        for (place, (ms, good)) in log.iter().enumerate() {
            let (next_good_ms, _) = log[place..].iter().find(|(_, good)| *good).unwrap();
            let behind = &stamps[place + 1..];
            let early = &behind[..here.min(behind.len())];
            let before = clock.watermark(BEATS).unwrap_or(Timestamp::MIN);
            let early = sent_before(&mut clock.clone(), at(*ms), early, now);
            let believed = sent_before(&mut clock, at(*ms), behind, now).expect("all is here");
            prop_assert_eq!(early.unwrap_or(believed), believed);
            if *good {
                prop_assert_eq!(believed, at(*ms));
            }
            // A timestamp ahead by no more than the jump is accepted as it is,
            // and several of these may have moved the watermark past the good
            // one.
            let is_gap = at(*ms) > before.plus_ms(JUMP_MS);
            let latest = at(next_good_ms + JUMP_MS);
            if is_gap && latest >= before {
                prop_assert!(believed <= latest.max(before), "{believed:?}");
            }
        }
    }

    /// No timestamp, offset or order of calls makes the clock panic or go back.
    #[test]
    fn nothing_breaks_it(
        calls in prop::collection::vec(
            (0..9u8, 0..3usize, any::<i64>(), any::<i64>(), any::<Option<i64>>()), 0..100),
        slack_ms in any::<i64>(),
        jump_ms in any::<i64>(),
    ) {
        let mut clock = Clock::new(slack_ms, jump_ms);
        let mut last = Timestamp::MIN;
        for (call, index, a, b, w) in calls {
            let input = Input::ALL[index];
            let w = w.map(Timestamp);
            let now = Now { monotonic_ms: a, broker: w };
            match call {
                0 => {
                    clock.offered(input, b);
                    let following = w.into_iter();
                    let _ = clock.believe(input, Timestamp(a), following, b > 0, now);
                }
                1 => clock.head(input, w),
                2 => clock.processed(input, Timestamp(a), b),
                3 => clock.end_of_partition(input, a),
                4 => clock.learn_end(input, w, a, b),
                5 => clock.restore(Timestamp(a), [w; 3]),
                6 => clock.start_at(input, a),
                7 => clock.discard_buffered(input),
                _ => clock.forget_evidence(input),
            }
            let stands = clock.clock(now);
            prop_assert!(stands >= last);
            last = stands;
        }
    }
}
