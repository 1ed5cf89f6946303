//! The merge of the three inputs by time (rule T4): three queues, and the
//! choice of the next record.

use std::collections::VecDeque;

use super::clock::Now;
use crate::shard::event::{Input, Queued, Timestamp};

/// The most silence that is counted between two turns, in milliseconds. While the
/// process was stopped or had other work, no answer could arrive.
const LISTENED_MAX_MS: i64 = 1_000;

/// Records that were read and wait for their turn.
#[derive(Clone, Debug)]
pub struct Merge {
    queues: [VecDeque<(Timestamp, Queued)>; 3],
    /// For each input, whether its first record is undecided: its sender stamped
    /// it, and its clamped timestamp is not decided yet (rule T3).
    undecided: [bool; 3],
    /// For each input that others wait for, how long it has not answered. `None`
    /// as soon as the input answers. So an unreadable input delays the others
    /// once, not once for each record.
    silences: [Option<Silence>; 3],
    /// How long an input may be silent before it is passed over.
    max_input_idle_ms: i64,
}

/// How long an input that others wait for has not answered.
#[derive(Clone, Copy, Debug)]
struct Silence {
    lasted_ms: i64,
    looked_at_ms: i64,
}

impl Merge {
    /// Three empty queues. An input that is silent for `max_input_idle_ms` cannot
    /// be read, and is no barrier.
    #[must_use]
    pub fn new(max_input_idle_ms: i64) -> Merge {
        Merge {
            queues: Default::default(),
            undecided: [false; 3],
            silences: [None; 3],
            max_input_idle_ms,
        }
    }

    /// Adds a record behind those of its input. `stamp` is its clamped timestamp
    /// if the broker stamped it. Else that is decided once it is the first record
    /// (rule T3).
    pub fn push(&mut self, input: Input, record: Queued, stamp: Timestamp) {
        let index = input.index();
        if self.queues[index].is_empty() {
            self.undecided[index] = !record.stamped_by_broker;
        }
        self.silences[index] = None;
        self.queues[index].push_back((stamp, record));
    }

    /// The timestamp of the input's first record, while it is undecided.
    #[must_use]
    pub fn undecided(&self, input: Input) -> Option<Timestamp> {
        let first = || self.queues[input.index()].front();
        if self.undecided[input.index()] { first().map(|&(stamp, _)| stamp) } else { None }
    }

    /// The timestamps behind the input's first record, in order.
    pub fn following(&self, input: Input) -> impl Iterator<Item = Timestamp> {
        self.queues[input.index()].iter().skip(1).map(|&(stamp, _)| stamp)
    }

    /// Sets the clamped timestamp of the input's first record (rule T3).
    pub fn decide(&mut self, input: Input, believed: Timestamp) {
        self.undecided[input.index()] = false;
        if let Some((stamp, _)) = self.queues[input.index()].front_mut() {
            *stamp = believed;
        }
    }

    /// The waiting records of the input, in order.
    pub fn waiting(&self, input: Input) -> impl Iterator<Item = &Queued> + Clone {
        self.queues[input.index()].iter().map(|(_, record)| record)
    }

    /// The number of waiting records of the input.
    #[must_use]
    pub fn len(&self, input: Input) -> usize {
        self.queues[input.index()].len()
    }

    /// Whether no records wait.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queues.iter().all(VecDeque::is_empty)
    }

    /// The clamped timestamp of the input's next record, once it is decided.
    #[must_use]
    pub fn head(&self, input: Input) -> Option<Timestamp> {
        let first = self.queues[input.index()].front().map(|&(believed, _)| believed);
        first.filter(|_| !self.undecided[input.index()])
    }

    /// The earliest head; of equal times the first in the order of
    /// [`Input::ALL`]. An undecided one is ordered by its own timestamp.
    pub fn next(&self) -> Option<(Timestamp, Input)> {
        let mut next = None;
        for input in Input::ALL {
            if let Some(&(at, _)) = self.queues[input.index()].front()
                && next.is_none_or(|(earliest, _)| at < earliest)
            {
                next = Some((at, input));
            }
        }
        next
    }

    /// Drops the waiting records of an input. They will be offered again.
    pub fn clear(&mut self, input: Input) {
        self.queues[input.index()].clear();
        self.undecided[input.index()] = false;
        self.silences[input.index()] = None;
    }

    /// A fetch of the input was answered, even if only with an end of partition.
    pub fn answered(&mut self, input: Input) {
        self.silences[input.index()] = None;
    }

    /// Whether the input is passed over because it cannot be read.
    #[must_use]
    pub fn is_passed_over(&self, input: Input) -> bool {
        self.silences[input.index()]
            .is_some_and(|silence| silence.lasted_ms >= self.max_input_idle_ms)
    }

    /// The next record: the earliest head, at equal times in the order of
    /// [`Input::ALL`]. `None` if there is none, or while an input is a barrier
    /// (rule T4): it has nothing buffered and may still deliver an earlier
    /// record, as `unread` says (by [`super::clock::Clock::has_unread`]), or its
    /// first record is undecided (rule T3). An input that has been silent for too
    /// long is no barrier. Silence counts once broker time is known: before that
    /// no answer proves how far an idle input is (rule T1), and nothing can be
    /// committed anyway.
    pub fn pop(
        &mut self,
        unread: [Option<bool>; 3],
        now: Now,
    ) -> Option<(Input, Queued, Timestamp)> {
        let (_, next) = self.next()?;
        let mut held = false;
        for input in Input::ALL {
            let silence = &mut self.silences[input.index()];
            // An input that is idle at its end, or has something buffered, cannot
            // deliver an earlier record.
            let nothing_waits = self.queues[input.index()].is_empty();
            let holds = nothing_waits && unread[input.index()] != Some(false);
            if !holds && !self.undecided[input.index()] {
                *silence = None;
                continue;
            }
            let now_ms = now.monotonic_ms;
            let silence = silence.get_or_insert(Silence { lasted_ms: 0, looked_at_ms: now_ms });
            if now.broker.is_some() {
                let listened_ms = now_ms.saturating_sub(silence.looked_at_ms);
                silence.lasted_ms += listened_ms.clamp(0, LISTENED_MAX_MS);
            }
            silence.looked_at_ms = now_ms;
            held |= silence.lasted_ms < self.max_input_idle_ms;
        }
        if held || self.undecided[next.index()] {
            return None;
        }
        let queue = &mut self.queues[next.index()];
        let (believed, record) = queue.pop_front()?;
        let next_record = queue.front().map(|(_, record)| record);
        self.undecided[next.index()] = next_record.is_some_and(|record| !record.stamped_by_broker);
        Some((next, record, believed))
    }
}

#[cfg(test)]
mod tests;
