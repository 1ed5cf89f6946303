//! The merge of the three inputs by time (rule T4): three queues, and the
//! choice of the next record.

use std::collections::VecDeque;

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
    /// [`super::clock::Clock::has_unread`]), for at most 500 ms a stall.
    pub fn pop(
        &mut self,
        unread: [Option<bool>; 3],
        monotonic_ms: i64,
    ) -> Option<(Input, Queued, Timestamp)> {
        // `min_by_key` takes the first of equals, and that is the tie's rule.
        let (_, next) = Input::ALL
            .into_iter()
            .filter_map(|input| Some((self.head(input)?, input)))
            .min_by_key(|&(believed, _)| believed)?;
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
            let since_ms = *stalled_since_ms.get_or_insert(monotonic_ms);
            held |= monotonic_ms.saturating_sub(since_ms) < STALL_MS;
        }
        if held {
            return None;
        }
        let (believed, record) = self.queues[next.index()].pop_front()?;
        Some((next, record, believed))
    }
}
