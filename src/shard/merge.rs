//! The merge of the three inputs by time (rule T4): three queues, and the
//! choice of the next record.

use std::collections::VecDeque;

use super::clock::Now;
use super::event::{Input, Queued, Timestamp};

/// How long an input that delivers nothing holds up the others.
const STALL_MS: i64 = 500;

/// Records that were read and wait for their turn.
#[derive(Clone, Debug, Default)]
pub struct Merge {
    queues: [VecDeque<(Timestamp, Queued)>; 3],
    /// Since when an input with nothing buffered has held up the others. One
    /// stall lasts until the input delivers again or is known to have nothing
    /// more; so an input that cannot be read costs the others 500 ms once, not
    /// 500 ms a record.
    stalled_since_ms: [Option<i64>; 3],
}

impl Merge {
    /// Adds a record behind those of its input; `believed` is the time it
    /// counts as (rule T3).
    pub fn push(&mut self, input: Input, record: Queued, believed: Timestamp) {
        self.queues[input.index()].push_back((believed, record));
    }

    /// The records of the input that wait, in order.
    pub fn waiting(&self, input: Input) -> impl Iterator<Item = &Queued> + Clone {
        self.queues[input.index()].iter().map(|(_, record)| record)
    }

    /// How many records of the input wait.
    #[must_use]
    pub fn len(&self, input: Input) -> usize {
        self.queues[input.index()].len()
    }

    /// Whether no record of any input waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queues.iter().all(VecDeque::is_empty)
    }

    /// The believed time of the input's next record.
    #[must_use]
    pub fn head(&self, input: Input) -> Option<Timestamp> {
        self.queues[input.index()].front().map(|&(believed, _)| believed)
    }

    /// The earliest head, of equals the first in the order of [`Input::ALL`].
    pub fn next(&self) -> Option<(Timestamp, Input)> {
        let mut next = None;
        for input in Input::ALL {
            if let Some(at) = self.head(input)
                && next.is_none_or(|(earliest, _)| at < earliest)
            {
                next = Some((at, input));
            }
        }
        next
    }

    /// The offset of the input's next record.
    #[must_use]
    pub fn head_offset(&self, input: Input) -> Option<i64> {
        self.queues[input.index()].front().map(|(_, record)| record.offset)
    }

    /// Throws away what waits of an input, to be offered again.
    pub fn clear(&mut self, input: Input) {
        self.queues[input.index()].clear();
    }

    /// The next record: the earliest head, at equal times in the order of
    /// [`Input::ALL`]. `None` while there is none, or while an input with
    /// nothing buffered may still deliver an earlier one, as `unread` says (by
    /// [`super::clock::Clock::has_unread`]), for at most 500 ms a stall. They
    /// count from when the broker's time is known: before that no answer proves
    /// how far an idle input is (rule T1), and nothing can be committed anyhow.
    pub fn pop(
        &mut self,
        unread: [Option<bool>; 3],
        now: Now,
    ) -> Option<(Input, Queued, Timestamp)> {
        let (_, next) = self.next()?;
        let mut held = false;
        for input in Input::ALL {
            let stalled_since_ms = &mut self.stalled_since_ms[input.index()];
            // Of what is idle at its end, or has something buffered, nothing
            // earlier can come.
            let may_deliver = unread[input.index()] != Some(false);
            if !may_deliver || !self.queues[input.index()].is_empty() {
                *stalled_since_ms = None;
                continue;
            }
            let since_ms = stalled_since_ms.get_or_insert(now.monotonic_ms);
            if now.broker.is_none() {
                *since_ms = now.monotonic_ms;
            }
            held |= now.monotonic_ms.saturating_sub(*since_ms) < STALL_MS;
        }
        if held {
            return None;
        }
        let (believed, record) = self.queues[next.index()].pop_front()?;
        Some((next, record, believed))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::shard::event::{Content, DeadLetter, DeadLetterReason, DeviceId, Event, EventBody};

    const IDLE: [Option<bool>; 3] = [Some(false); 3];

    fn at(monotonic_ms: i64) -> Now {
        Now { monotonic_ms, broker: Some(Timestamp(monotonic_ms)) }
    }

    fn record(offset: i64) -> Queued {
        let device = DeviceId::Hex([0; 16]);
        let body = EventBody::Heartbeat { device, poll_interval_ms: None };
        Queued {
            offset,
            timestamp: Timestamp(0),
            stamped_by_broker: true,
            content: Content::Event(Event { occurred_at: None, body }),
        }
    }

    fn merge(records: &[(Input, i64)]) -> Merge {
        let mut merge = Merge::default();
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

    #[test]
    fn an_input_with_unread_records_holds_the_others_half_a_second() {
        for unread in [Some(true), None] {
            let mut merge = merge(&[(Input::Heartbeats, 5), (Input::Heartbeats, 6)]);
            let unread = [Some(false), unread, Some(false)];
            assert!(merge.pop(unread, at(1_000)).is_none());
            assert!(merge.pop(unread, at(1_499)).is_none());
            assert!(merge.pop(unread, at(1_500)).is_some());
            assert!(merge.pop(unread, at(1_500)).is_some(), "once a stall, not once a record");
            merge.push(Input::Heartbeats, record(2), Timestamp(7));
            assert!(merge.pop(unread, at(90_000)).is_some(), "the stall goes on, and is over");
        }
    }

    #[test]
    fn a_stall_begins_when_the_brokers_time_is_known() {
        let mut merge = merge(&[(Input::Heartbeats, 5)]);
        let unread = [Some(false), None, Some(false)];
        for monotonic_ms in [0, 1_000, 9_000] {
            assert!(merge.pop(unread, Now { monotonic_ms, broker: None }).is_none());
        }
        assert!(merge.pop(unread, at(9_400)).is_none());
        assert!(merge.pop(unread, at(9_500)).is_some());
        merge.push(Input::Heartbeats, record(1), Timestamp(6));
        let idle = merge.pop(IDLE, Now { monotonic_ms: 9_600, broker: None });
        assert!(idle.is_some(), "what is read to its end holds nobody");
    }

    #[test]
    fn a_stall_ends_with_the_record_that_was_waited_for() {
        use Input::{Heartbeats, VpnSessions};
        let unread = [Some(false), Some(true), Some(false)];
        let mut merge = merge(&[(Heartbeats, 5), (Heartbeats, 9)]);
        assert!(merge.pop(unread, at(0)).is_none());
        merge.push(VpnSessions, record(0), Timestamp(4));
        assert_eq!(merge.pop(unread, at(1)).map(|(input, ..)| input), Some(VpnSessions));
        // The next one is a stall of its own.
        assert!(merge.pop(unread, at(600)).is_none());
        assert!(merge.pop(unread, at(1_099)).is_none());
        assert_eq!(merge.pop(unread, at(1_100)).map(|(input, ..)| input), Some(Heartbeats));
    }

    #[test]
    fn an_input_without_records_of_its_own_begins_no_stall_while_nobody_waits() {
        let unread = [None, None, Some(false)];
        let mut merge = Merge::default();
        assert!(merge.pop(unread, at(0)).is_none());
        merge.push(Input::Heartbeats, record(0), Timestamp(7));
        assert!(merge.pop(unread, at(10_000)).is_none(), "the stall begins now");
        assert!(merge.pop(unread, at(10_500)).is_some());
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
        assert_eq!(merge.head_offset(Input::Lifecycle), Some(7));
        merge.clear(Input::Heartbeats);
        assert_eq!(merge.head(Input::Heartbeats), None);
        assert_eq!(drain(&mut merge), [(Input::Lifecycle, 4)]);
    }

    proptest! {
        /// All that is pushed comes out, each input in its order; at each pop
        /// the earliest head, ties by input; nobody is held by an input that has
        /// nothing more to say, nor, while that does not change, for longer
        /// than 500 ms.
        #[test]
        fn the_earliest_head_comes_next(
            steps in prop::collection::vec(
                (prop::option::of((0..3usize, 0..20i64)), any::<[Option<bool>; 3]>(), 0..300i64),
                0..200),
            constant in any::<Option<[Option<bool>; 3]>>(),
        ) {
            let mut merge = Merge::default();
            let mut queues: [VecDeque<(i64, i64)>; 3] = Default::default();
            let (mut now_ms, mut offset, mut waits_since) = (0, 0, None);
            for (pushed, unread, passed_ms) in steps {
                now_ms += passed_ms;
                let unread = constant.unwrap_or(unread);
                if let Some((index, believed)) = pushed {
                    merge.push(Input::ALL[index], record(offset), Timestamp(believed));
                    queues[index].push_back((believed, offset));
                    offset += 1;
                }
                let headless = (0..3).any(|i| queues[i].is_empty() && unread[i] != Some(false));
                let model = (0..3).filter_map(|i| Some((queues[i].front()?.0, i))).min();
                match (merge.pop(unread, at(now_ms)), model) {
                    (None, None) => waits_since = None,
                    (None, Some(_)) => {
                        prop_assert!(headless, "held by nobody");
                        let since = *waits_since.get_or_insert(now_ms);
                        prop_assert!(constant.is_none() || now_ms - since < STALL_MS);
                    }
                    (Some((input, record, believed)), Some((at, index))) => {
                        waits_since = None;
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
}
