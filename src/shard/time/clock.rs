//! The clock of a shard: how far each input has been read, and the time that
//! follows from it (rules T1, T2 and T3).
//!
//! Nothing here reads a host's clock. Time comes in as [`Now`]. The clock
//! advances only on evidence that all records up to then have been read. So a
//! shard that is behind, stopped or cut off expires no device.

use crate::shard::event::{Input, Timestamp};
use crate::shard::rules::JUDGED_AHEAD_MS;

/// The moment of a call, from the loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// A clock that only goes forward, from an arbitrary start.
    pub monotonic_ms: i64,
    /// Broker time (rule T6); `None` before the first report.
    pub broker: Option<Timestamp>,
}

/// The number of following records that decide about a timestamp that is ahead
/// (rule T3). One more wrong timestamp than this in a row, and they are accepted.
pub(in crate::shard) const FOLLOWING: usize = 14;

/// The number of answers kept per input whose end is not reached yet. One arrives
/// each second, so this covers the whole of a usual open transaction.
const ANSWERS_KEPT: usize = 16;

/// Three watermarks, and the clock that follows from them.
///
/// The calls for a record, in this order: [`Clock::offered`] when it is offered.
/// When it is first in the buffer, [`Clock::believe`] unless the broker stamped
/// it, and [`Clock::head`]. Once it has been *applied*, [`Clock::processed`], and
/// only then the calls for the next head. Otherwise the clock would be ahead of
/// the record that is being judged by it.
#[derive(Clone, Debug)]
pub struct Clock {
    slack_ms: i64,
    max_clock_jump_ms: i64,
    clock: Timestamp,
    inputs: [InputClock; 3],
}

/// The state of one input.
#[derive(Clone, Debug, Default)]
struct InputClock {
    /// The watermark of rule T1: the greatest of all evidence.
    watermark: Option<Timestamp>,
    /// The same as the clock counts it: each evidence no later than the broker
    /// time at which it was taken. Timestamps in the future prove nothing about
    /// records that are not yet written, and must not advance the clock after the
    /// input has become unreadable.
    counted: Option<Timestamp>,
    /// The greatest evidence since the clock was last computed.
    uncounted: Option<Timestamp>,
    /// The number of records ever offered.
    offered: u64,
    /// The number of them that were processed, from the first.
    processed: u64,
    /// The first record in the buffer proves nothing, because there was nothing
    /// to measure it by.
    unmeasured: bool,
    /// Everything below this offset has been offered, or was never a record.
    delivered: Option<i64>,
    /// Everything below this offset has been processed, or was never a record.
    reached: Option<i64>,
    /// Ends of partition with earlier records that are not all processed: the
    /// oldest, which is reached first, and the newest.
    ends: [Option<End>; 2],
    /// Answers with an end that is not reached yet. Both the ends and the times
    /// increase.
    answers: Vec<Answer>,
    /// The time of the question that `last_stable` answers.
    last_stable_asked_at: Option<Timestamp>,
    /// The last stable offset, by the newest answer since assignment.
    last_stable: Option<i64>,
}

/// An end of partition. It counts once the records delivered before it are
/// processed.
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

    /// Continues from the committed clock and watermarks (rules R): evidence
    /// stays valid.
    pub fn restore(&mut self, clock: Timestamp, watermarks: [Option<Timestamp>; 3]) {
        self.clock = self.clock.max(clock);
        for (state, watermark) in self.inputs.iter_mut().zip(watermarks) {
            state.watermark = state.watermark.max(watermark);
            state.counted = state.counted.max(watermark);
        }
    }

    /// Reading begins at this offset: its committer has processed all records
    /// before it. Without this call, an end of partition has the same effect.
    pub fn start_at(&mut self, input: Input, next_offset: i64) {
        self.inputs[input.index()].reach(next_offset);
    }

    /// A record was offered. The next one to read is at `next_offset`. Each call
    /// is followed by one of [`Clock::processed`].
    pub fn offered(&mut self, input: Input, next_offset: i64) {
        let state = &mut self.inputs[input.index()];
        state.offered += 1;
        state.delivered = state.delivered.max(Some(next_offset));
    }

    /// The clamped timestamp of the first record in the input's buffer, if its
    /// sender stamped it (rule T3): for the clock, for the merge, and as the
    /// upper limit of its event time (rule J1). `None`: undecided, until the
    /// following records or broker time are known.
    ///
    /// `following`: the timestamps behind it in the buffer. `given_up`: decide
    /// now, without waiting for more.
    pub fn believe(
        &mut self,
        input: Input,
        stamp: Timestamp,
        following: impl Iterator<Item = Timestamp>,
        given_up: bool,
        now: Now,
    ) -> Option<Timestamp> {
        let jump_ms = self.max_clock_jump_ms;
        let state = &mut self.inputs[input.index()];
        // There are no times before the epoch: -1 is Kafka's "no timestamp".
        let stamp = stamp.max(Timestamp::MIN);
        let Some(before) = state.watermark else {
            let broker = now.broker?;
            state.unmeasured = stamp > broker.plus_ms(jump_ms);
            return Some(if state.unmeasured { broker } else { stamp });
        };
        if stamp <= before.plus_ms(jump_ms) {
            // Many small jumps must not add up to a large one.
            let latest = now.broker.map(|broker| broker.plus_ms(jump_ms).max(before));
            return Some(latest.map_or(stamp, |latest| stamp.min(latest)));
        }
        let broker = now.broker?;
        if stamp > broker.plus_ms(jump_ms) {
            return Some(before);
        }
        let (mut count, mut least) = (0, stamp);
        for other in following.take(FOLLOWING) {
            count += 1;
            // A record that is itself late decides nothing.
            if other >= before.plus_ms(jump_ms.saturating_neg()) {
                least = least.min(other);
            }
        }
        if count < FOLLOWING && !given_up && state.may_deliver_more(stamp.min(broker)) {
            return None;
        }
        Some(if stamp > least.plus_ms(jump_ms) { least.max(before) } else { stamp })
    }

    /// The clamped timestamp of the first record in the input's buffer; `None`
    /// when it is empty. Nothing earlier can be unread (rule T1).
    pub fn head(&mut self, input: Input, believed: Option<Timestamp>) {
        let state = &mut self.inputs[input.index()];
        if let Some(believed) = believed
            && !state.unmeasured
        {
            state.prove(believed);
        }
    }

    /// A record was applied. The next one to read is at `next_offset`.
    pub fn processed(&mut self, input: Input, believed: Timestamp, next_offset: i64) {
        let state = &mut self.inputs[input.index()];
        state.processed = state.offered.min(state.processed + 1);
        if !std::mem::take(&mut state.unmeasured) {
            state.prove(believed);
        }
        state.reach(next_offset);
        if state.ends[0].is_some() {
            state.settle_ends();
        }
    }

    /// Everything before `offset` has been delivered. It is reached once the
    /// buffered records have been processed. This alone is no evidence (rule T1):
    /// the offset may be that of an open transaction, and it is reported only
    /// once.
    pub fn end_of_partition(&mut self, input: Input, offset: i64) {
        let state = &mut self.inputs[input.index()];
        let end = End { offset, after_records: state.offered };
        state.delivered = state.delivered.max(Some(offset));
        // Dropping the ends between the oldest and the newest costs only some
        // delay.
        let place = usize::from(state.ends[0].is_some());
        state.ends[place] = Some(end);
        state.settle_ends();
    }

    /// The answer to a query for the partition's ends that was sent at broker
    /// time `asked_at`. Once `high_watermark` is reached, it proves that
    /// everything up to `asked_at` is read. Before the first report of broker
    /// time (`None`) it only tells whether there are records to read.
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

    /// Whether the input is known to have unread records (rule T4). `None`:
    /// nothing is known since assignment.
    #[must_use]
    pub fn has_unread(&self, input: Input) -> Option<bool> {
        let state = &self.inputs[input.index()];
        Some(state.reached? < state.last_stable?)
    }

    /// When an input without [unread records](Clock::has_unread) was last known
    /// to have none: the later of its watermark and of the newest question.
    /// Behind an open transaction the watermark stands, although nothing can be
    /// read.
    #[must_use]
    pub fn idle_at(&self, input: Input) -> Option<Timestamp> {
        let state = &self.inputs[input.index()];
        state.watermark.max(state.last_stable_asked_at)
    }

    /// Reading was interrupted (start, pause, reassignment): the input is behind
    /// until an answer says otherwise (rule T1). Evidence and reached offsets
    /// stay.
    pub fn forget_evidence(&mut self, input: Input) {
        let state = &mut self.inputs[input.index()];
        state.answers.clear();
        state.last_stable = None;
        state.last_stable_asked_at = None;
    }

    /// The input's buffer was dropped unprocessed. Its records will be offered
    /// again.
    pub fn discard_buffered(&mut self, input: Input) {
        let state = &mut self.inputs[input.index()];
        state.processed = state.offered;
        state.ends = [None, None];
        state.unmeasured = false;
        state.delivered = None;
    }

    /// Everything up to here has been read of the input (rule T1). `None`:
    /// nothing is known.
    #[must_use]
    pub fn watermark(&self, input: Input) -> Option<Timestamp> {
        self.inputs[input.index()].watermark
    }

    /// The least of the three watermarks, less the allowed lateness. It never
    /// goes back, and never passes broker time (rule T2). While a watermark is
    /// unknown it stands.
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

    /// Whether a record that was written before `at` may still follow the offered
    /// ones.
    fn may_deliver_more(&self, at: Timestamp) -> bool {
        let asked_at = self.last_stable_asked_at;
        self.last_stable.is_none()
            || self.delivered.max(self.reached) < self.last_stable
            || asked_at < Some(at.plus_ms(-JUDGED_AHEAD_MS))
    }

    fn reach(&mut self, offset: i64) {
        self.reached = self.reached.max(Some(offset));
        if !self.answers.is_empty() {
            self.settle_answers();
        }
    }

    /// Applies the ends of partition with all earlier records processed.
    fn settle_ends(&mut self) {
        while let Some(end) = self.ends[0]
            && self.processed >= end.after_records
        {
            self.ends = [self.ends[1], None];
            self.reach(end.offset);
        }
    }

    /// Keeps an answer unless another has the same effect. An answer that is
    /// reached earlier and proves a later time is better. An end that went back
    /// (an unclean election, a topic created again) replaces answers that can no
    /// longer be reached.
    fn keep(&mut self, answer: Answer) {
        let says_as_much = |a: &Answer, b: &Answer| a.asked_at >= b.asked_at && a.end <= b.end;
        if self.answers.iter().any(|kept| says_as_much(kept, &answer)) {
            return;
        }
        self.answers.retain(|kept| !says_as_much(&answer, kept));
        let place = self.answers.partition_point(|kept| kept.end < answer.end);
        self.answers.insert(place, answer);
        if self.answers.len() > ANSWERS_KEPT {
            // The oldest is reached first, and the newest proves most. Of those
            // between, every second one is enough.
            let newest = self.answers.len() - 1;
            let mut index = 0;
            self.answers.retain(|_| {
                index += 1;
                (index - 1) % 2 == 0 || index - 1 == newest
            });
        }
    }

    /// Applies the answers with a reached end.
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

#[cfg(test)]
mod tests;
