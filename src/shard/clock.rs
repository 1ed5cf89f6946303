//! The clock of a shard: what has been read of each input, and what time that
//! makes it (rules T1, T2 and T3).
//!
//! Nothing here looks at a host's clock. Time comes in as [`Now`], and the
//! clock moves only on proof that what happened until then has been read: so
//! that a shard that is behind, stopped or cut off expires nobody.

use super::event::{Input, Timestamp};

/// The moment of a call, as the loop knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// A clock that only goes forward, from an arbitrary start.
    pub monotonic_ms: i64,
    /// Broker time (rule T6); `None` before the first report.
    pub broker: Option<Timestamp>,
}

/// How many records in a row must be ahead before a jump is believed (rule T3).
const AHEAD_BELIEVED: u32 = 15;

/// How many answers that have not been reached yet are kept per input. One
/// comes a second, so that this covers the usual open transaction whole.
const ANSWERS_KEPT: usize = 16;

/// Three watermarks, and the clock they make.
///
/// How to tell it of a record, in this order: [`Clock::believe`] when it is
/// offered, [`Clock::head`] when it is first in the buffer, then, once it has
/// been *applied*, [`Clock::processed`], and only then [`Clock::head`] of the
/// next. Told of the next head any earlier, the clock would be ahead of the
/// record that is being judged by it.
#[derive(Clone, Debug)]
pub struct Clock {
    slack_ms: i64,
    max_clock_jump_ms: i64,
    clock: Timestamp,
    inputs: [InputClock; 3],
}

/// What is known of one input.
#[derive(Clone, Debug, Default)]
struct InputClock {
    /// Rule T1: the greatest of all proofs.
    watermark: Option<Timestamp>,
    /// The same as the clock counts it: each proof no later than the broker
    /// time at which it was taken. Stamps of the future prove nothing about
    /// what is yet to be written, and must not carry the clock on after the
    /// input has become unreadable.
    counted: Option<Timestamp>,
    /// The greatest proof since the clock was last asked.
    uncounted: Option<Timestamp>,
    /// The believed time of the record offered last: what the next one's jump
    /// is measured from (rule T3).
    previous: Option<Timestamp>,
    /// How many records in a row were ahead by more than the jump allowed.
    ahead_in_a_row: u32,
    /// How many records were offered, ever.
    offered: u64,
    /// How many of them were processed: the first so many.
    processed: u64,
    /// The first so many offered records include all that were believed with
    /// nothing to measure them by: they prove nothing.
    unmeasured: u64,
    /// Everything below this offset has been processed, or was never a record.
    reached: Option<i64>,
    /// Ends of partition whose earlier records are not all processed: the
    /// oldest, which is reached first, and the newest.
    ends: [Option<End>; 2],
    /// Answers whose end is not reached yet, with both the end and the time
    /// growing.
    answers: Vec<Answer>,
    /// When the answer that `last_stable` comes from was asked for.
    last_stable_asked_at: Option<Timestamp>,
    /// The last stable offset, by the newest answer since assignment.
    last_stable: Option<i64>,
}

/// An end of partition, good once the records delivered before it are processed.
#[derive(Clone, Copy, Debug)]
struct End {
    offset: i64,
    after_records: u64,
}

/// The partition ended at `end` no earlier than `asked_at`.
#[derive(Clone, Copy, Debug)]
struct Answer {
    asked_at: Timestamp,
    end: i64,
}

impl Clock {
    /// A clock that knows nothing: it stands at [`Timestamp::MIN`].
    #[must_use]
    pub fn new(slack_ms: i64, max_clock_jump_ms: i64) -> Clock {
        Clock {
            slack_ms,
            max_clock_jump_ms,
            clock: Timestamp::MIN,
            inputs: [InputClock::default(), InputClock::default(), InputClock::default()],
        }
    }

    /// Goes on from the committed clock and watermarks (rules R): what was
    /// proven once stays proven.
    pub fn restore(&mut self, clock: Timestamp, watermarks: [Option<Timestamp>; 3]) {
        self.clock = self.clock.max(clock);
        for (state, watermark) in self.inputs.iter_mut().zip(watermarks) {
            state.watermark = state.watermark.max(watermark);
            state.counted = state.counted.max(watermark);
        }
    }

    /// Reading begins at this offset: all before it was processed by whoever
    /// committed it. Without this call, an end of partition tells the same.
    pub fn start_at(&mut self, input: Input, next_offset: i64) {
        self.inputs[input.index()].reach(next_offset);
    }

    /// What time a record counts as (rule T3): for the clock, for the merge,
    /// and as the latest that its event may have happened (rule J1). Called
    /// once a record, in order of offset, when it is offered; each call is
    /// answered by one of [`Clock::processed`].
    pub fn believe(
        &mut self,
        input: Input,
        record_ts: Timestamp,
        stamped_by_broker: bool,
        now: Now,
    ) -> Timestamp {
        let jump_ms = self.max_clock_jump_ms;
        let state = &mut self.inputs[input.index()];
        state.offered += 1;
        // Before the epoch there is nothing: -1 is Kafka's "no timestamp".
        let record_ts = record_ts.max(Timestamp::MIN);
        if stamped_by_broker {
            state.ahead_in_a_row = 0;
            state.previous = Some(record_ts);
            return record_ts;
        }
        let Some(reference) = state.watermark.max(state.previous).or(now.broker) else {
            // Nothing to measure it by: it may count for its own device, but
            // must not become what others are measured by.
            state.unmeasured = state.offered;
            return record_ts;
        };
        let ahead = record_ts > reference.plus_ms(jump_ms);
        state.ahead_in_a_row = if ahead { state.ahead_in_a_row.saturating_add(1) } else { 0 };
        let mut believed =
            if ahead && state.ahead_in_a_row < AHEAD_BELIEVED { reference } else { record_ts };
        if let Some(broker) = now.broker {
            // Fifteen in a row show that time has passed, not that it is later
            // than the broker says; nor do many small jumps, one on another.
            believed = believed.min(reference.max(broker.plus_ms(jump_ms)));
        }
        state.previous = Some(believed);
        believed
    }

    /// The believed time of the first record in the input's buffer; `None` when
    /// it is empty. Nothing earlier can be unread (rule T1).
    pub fn head(&mut self, input: Input, believed: Option<Timestamp>) {
        let state = &mut self.inputs[input.index()];
        if let Some(believed) = believed
            && state.processed >= state.unmeasured
        {
            state.prove(believed);
        }
    }

    /// A record was applied; the next to read after it is at `next_offset`.
    pub fn processed(&mut self, input: Input, believed: Timestamp, next_offset: i64) {
        let state = &mut self.inputs[input.index()];
        let measured = state.processed >= state.unmeasured;
        state.processed = state.offered.min(state.processed + 1);
        if measured {
            state.prove(believed);
        }
        state.reach(next_offset);
        if state.ends[0].is_some() {
            state.settle_ends();
        }
    }

    /// Everything before `offset` has been delivered: reached, once what is
    /// buffered has been processed. No evidence by itself (rule T1): the
    /// offset may be that of an open transaction, and it is told only once.
    pub fn end_of_partition(&mut self, input: Input, offset: i64) {
        let state = &mut self.inputs[input.index()];
        let end = End { offset, after_records: state.offered };
        // Between the oldest and the newest nothing is lost but some delay.
        let place = usize::from(state.ends[0].is_some());
        state.ends[place] = Some(end);
        state.settle_ends();
    }

    /// The answer to a query for the partition's ends that was sent at broker
    /// time `asked_at`. It proves that all up to then is read once what was
    /// reached comes to `high_watermark`. Before the first report of broker
    /// time (`None`) it only tells whether there is something to read.
    ///
    /// Answers may come in any order. Negative offsets are no answer.
    pub fn learn_end(
        &mut self,
        input: Input,
        asked_at: Option<Timestamp>,
        high_watermark: i64,
        last_stable: i64,
    ) {
        if high_watermark < 0 || last_stable < 0 {
            return;
        }
        let state = &mut self.inputs[input.index()];
        if state.last_stable.is_none() || asked_at >= state.last_stable_asked_at {
            state.last_stable = Some(last_stable);
            state.last_stable_asked_at = asked_at;
        }
        if let Some(asked_at) = asked_at {
            state.keep(Answer { asked_at, end: high_watermark });
            state.settle_answers();
        }
    }

    /// The offset below which everything has been processed: the greater of the
    /// last record + 1 and the last end of partition. `None`: nothing read yet.
    #[must_use]
    pub fn reached(&self, input: Input) -> Option<i64> {
        self.inputs[input.index()].reached
    }

    /// Whether records are known to be waiting that have not been read (rule
    /// T4). `None`: nothing is known since assignment.
    #[must_use]
    pub fn has_unread(&self, input: Input) -> Option<bool> {
        let state = &self.inputs[input.index()];
        Some(state.reached? < state.last_stable?)
    }

    /// Reading was interrupted (start, pause, reassignment): the input is
    /// behind until an answer says otherwise (rule T1). What has been proven
    /// and reached stays so.
    pub fn forget_evidence(&mut self, input: Input) {
        let state = &mut self.inputs[input.index()];
        state.answers.clear();
        state.last_stable = None;
        state.last_stable_asked_at = None;
    }

    /// The input's buffer was thrown away unprocessed; its records will be
    /// offered again.
    pub fn discard_buffered(&mut self, input: Input) {
        let state = &mut self.inputs[input.index()];
        state.processed = state.offered;
        state.ends = [None, None];
        state.previous = None;
        state.ahead_in_a_row = 0;
    }

    /// Everything up to here has been read of the input (rule T1). `None`:
    /// nothing is known.
    #[must_use]
    pub fn watermark(&self, input: Input) -> Option<Timestamp> {
        self.inputs[input.index()].watermark
    }

    /// The least of the three watermarks, less the slack; never back, never
    /// past broker time (rule T2). While one of them is unknown it stands.
    pub fn clock(&mut self, now: Now) -> Timestamp {
        let mut least = Some(Timestamp(i64::MAX));
        for state in &mut self.inputs {
            if let Some(proof) = state.uncounted.take() {
                let proof = now.broker.map_or(proof, |broker| proof.min(broker));
                state.counted = state.counted.max(Some(proof));
            }
            least = least.min(state.counted);
        }
        if let Some(least) = least {
            let clock = least.plus_ms(self.slack_ms.saturating_neg());
            self.clock = self.clock.max(now.broker.map_or(clock, |broker| clock.min(broker)));
        }
        self.clock
    }
}

impl InputClock {
    /// Everything up to `at` has been read.
    fn prove(&mut self, at: Timestamp) {
        self.watermark = self.watermark.max(Some(at));
        self.uncounted = self.uncounted.max(Some(at));
    }

    fn reach(&mut self, offset: i64) {
        self.reached = self.reached.max(Some(offset));
        if !self.answers.is_empty() {
            self.settle_answers();
        }
    }

    /// Takes the ends whose records have all been processed.
    fn settle_ends(&mut self) {
        while let Some(end) = self.ends[0]
            && self.processed >= end.after_records
        {
            self.ends = [self.ends[1], None];
            self.reach(end.offset);
        }
    }

    /// Keeps an answer unless another says as much. What is reached earlier and
    /// proves later times is worth more; an end that went back (an unclean
    /// election, a topic made anew) replaces what can no longer be reached.
    fn keep(&mut self, answer: Answer) {
        let says_as_much = |a: &Answer, b: &Answer| a.asked_at >= b.asked_at && a.end <= b.end;
        if self.answers.iter().any(|kept| says_as_much(kept, &answer)) {
            return;
        }
        self.answers.retain(|kept| !says_as_much(&answer, kept));
        let place = self.answers.partition_point(|kept| kept.end < answer.end);
        self.answers.insert(place, answer);
        if self.answers.len() > ANSWERS_KEPT {
            // The oldest is reached first, the newest proves most, and of those
            // between every other one will do.
            let newest = self.answers.len() - 1;
            let mut index = 0;
            self.answers.retain(|_| {
                index += 1;
                (index - 1) % 2 == 0 || index - 1 == newest
            });
        }
    }

    /// Takes the answers whose end has been reached.
    fn settle_answers(&mut self) {
        let Some(reached) = self.reached else { return };
        let count = self.answers.partition_point(|answer| answer.end <= reached);
        if let Some(last) = count.checked_sub(1).and_then(|last| self.answers.get(last)) {
            let asked_at = last.asked_at;
            self.answers.drain(..count);
            self.prove(asked_at);
        }
    }
}
