//! One partition's state machine: pure, single-threaded, deterministic.
//!
//! Records that are offered to a [`Shard`] wait in the merge of the three inputs
//! (`time/merge.rs`). A turn applies records (`apply.rs`), fires timers and
//! settles rows (`settle.rs`), up to a budget. Each touched row is judged
//! (`judge.rs`), and a difference from the row's last emitted status goes to the
//! outbox (`write.rs`). Nothing is emitted before [`Shard::start`], which ends
//! the restore (`restore.rs`).
//!
//! Three modules serve it. `time` has the shard's clock, the merge that chooses
//! the next record, and the timers. `facts` has the facts of devices and scopes,
//! as registers, and the status that follows from them. `store` holds the rows in
//! memory.

mod ahead;
mod apply;
mod compare;
pub mod event;
mod facts;
mod fnv;
mod hold;
mod judge;
mod look;
pub mod outbox;
mod pending;
#[cfg(test)]
mod properties;
mod restore;
pub mod rules;
mod settle;
mod settling;
pub mod skew;
pub mod snapshot;
mod store;
mod sweep;
#[cfg(test)]
pub(crate) mod tests;
mod time;
mod write;

use std::collections::{BTreeMap, VecDeque};

pub use clock::Now;
pub use event::{
    Content, DeadLetter, DeadLetterReason, DeviceEvent, DeviceId, Event, EventBody, FrozenReason,
    Header, Input, Queued, Relay, ScopeEvent, Settings, Timestamp, UpdateOutcome, UpdatePhase,
};
pub use facts::seen::IntervalOf;
pub use facts::session::session_fingerprint;
pub use facts::status;
pub use look::{Explanation, RuledOut, SessionExplained};
pub use outbox::{DeviceView, Outbox, StatusChange, ViewBody, ViewWrite};
pub use rules::Rules;
pub use skew::{Ages, Doubt, Skew, Subject};
pub use snapshot::Entry;
pub use status::{Cause, Connectivity, HeartbeatState, Rung, Status};
pub use sweep::SweepCursor;
pub use time::{clock, merge, timer};

use ahead::Ahead;
use clock::Clock;
use facts::{device, scope};
use hold::Held;
use hot::Instant48;
use merge::Merge;
use pending::Pending;
use rules::JUDGED_AHEAD_MS;
use scope::Scopes;
use settling::{Settling, What};
use store::{cold, hot, table};
use table::Table;
use timer::Wheel;

/// The state of one partition number across the three inputs.
#[derive(Debug)]
pub struct Shard {
    partition: i32,
    rules: Rules,
    table: Table,
    scopes: Scopes,
    /// Rows by their next deadline (rule T7).
    wheel: Wheel,
    /// Nothing in the wheel is due before this time, so the wheel need not be
    /// asked at every record.
    next_due: Option<Timestamp>,
    /// The time through which all timers have fired.
    fired: Timestamp,
    /// Rows whose leases were fired beyond that time, and how far: the timers of
    /// one millisecond may take several turns.
    lapsed: BTreeMap<u32, Timestamp>,
    /// The watermarks of the inputs, and the clock that follows from them.
    watermarks: Clock,
    /// The clock (rule T2) by which rows are judged. While the end of a lease is
    /// being settled, it stands just before that end.
    clock: Timestamp,
    merge: Merge,
    /// The size in memory of the records waiting in the merge, by input.
    buffered_bytes: [usize; 3],
    ahead: Ahead,
    phase: Phase,
    /// The hold of the shard in the changelog (rule J7).
    held: Held,
    /// The next offset to commit of each input.
    positions: [i64; 3],
    /// The contents of the next outbox, other than facts.
    pending: Pending,
    /// The owner's epoch (rule C7).
    epoch: u64,
    /// Counts view writes (rule V2).
    sequence: u64,
    /// The greatest epoch in the changelog.
    last_epoch: Option<u64>,
    /// The greatest clock in the changelog (rule R5).
    greatest_clock: Option<Timestamp>,
    /// The start of the replay of heartbeats, until everything due at the
    /// restored clock is done (rule R2).
    replay_from_held: Option<Timestamp>,
    /// Rows that the view may not have seen (rule V5).
    view_dirty: VecDeque<u32>,
    /// The next row of a rewrite of the whole view (rule V4).
    rewrite_next: Option<u32>,
    /// Deletions that were written to the view, by sequence (rule V3).
    unacknowledged: BTreeMap<u64, u32>,
    /// The latest of these writes for each row that has one.
    unacknowledged_rows: BTreeMap<u32, u64>,
    /// Entries that the wheel has just handed out.
    due: Vec<(u32, Timestamp)>,
}

/// The state of the shard.
#[derive(Debug)]
enum Phase {
    /// Taking over the changelog; nothing is applied or emitted.
    Restoring,
    /// Settling rows; nothing else is applied or fired (rules J7, R3).
    Settling(Settling),
    /// Applying records and firing timers.
    Running,
}

/// The state with which a restored shard starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// The owner's epoch (rule C7).
    pub epoch: u64,
    /// The committed clock; `None` if nothing was ever committed.
    pub clock: Option<Timestamp>,
    /// The committed watermarks.
    pub watermarks: [Option<Timestamp>; 3],
    /// The start of the replay of heartbeats.
    pub replay_from: Option<Timestamp>,
    /// Whether the settings that statuses depend on differ from the last owner's
    /// (rule J9).
    pub rules_changed: bool,
    /// The view was lost: write every row to it.
    pub rewrite_view: bool,
    /// The next offset to read of each input.
    pub positions: [i64; 3],
}

/// The result of a turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Events applied, of each input.
    pub applied: [u32; 3],
    /// Of these, events older than the present fact, or of a deleted device.
    pub stale: [u32; 3],
    /// Records that became dead letters.
    pub bad: u32,
    /// Rows that changed because of a deadline.
    pub expired: u32,
    /// Closed sessions that were dropped because the device has too many (rule
    /// J4).
    pub sessions_fallen_out: u32,
    /// Open sessions that were dropped because the device has too many (rule J4).
    pub open_sessions_fallen_out: u32,
    /// The first of these devices.
    pub most_sessions: Option<DeviceId>,
    /// Observations of the senders' clocks.
    pub skew: Skew,
    /// More work could be done now.
    pub more: bool,
}

/// The progress of a shard, committed beside the offsets (rule C2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The time through which all timers have fired.
    pub clock: Timestamp,
    /// The watermarks.
    pub watermarks: [Option<Timestamp>; 3],
    /// The time from which a restore must replay heartbeats (rule R2).
    pub replay_from: Timestamp,
}

impl Shard {
    /// An empty shard, restoring.
    #[must_use]
    pub fn new(partition: i32, rules: Rules) -> Shard {
        Shard {
            partition,
            watermarks: Clock::new(rules.slack_ms, rules.max_clock_jump_ms),
            merge: Merge::new(rules.max_input_idle_ms),
            rules,
            table: Table::default(),
            scopes: Scopes::default(),
            wheel: Wheel::new(Timestamp::MIN),
            next_due: None,
            fired: Timestamp::MIN,
            lapsed: BTreeMap::new(),
            clock: Timestamp::MIN,
            buffered_bytes: [0; 3],
            ahead: Ahead::default(),
            phase: Phase::Restoring,
            held: Held::default(),
            positions: [0; 3],
            pending: Pending::default(),
            epoch: 0,
            sequence: 0,
            last_epoch: None,
            greatest_clock: None,
            replay_from_held: None,
            view_dirty: VecDeque::new(),
            rewrite_next: None,
            unacknowledged: BTreeMap::new(),
            unacknowledged_rows: BTreeMap::new(),
            due: Vec::new(),
        }
    }

    /// The partition's number.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.partition
    }

    // ---- reading

    /// Takes a record into the merge. Records of an input come in order of
    /// their offsets.
    pub fn offer(&mut self, input: Input, record: Queued) {
        self.watermarks.offered(input, record.offset.saturating_add(1));
        let stamp = Timestamp(record.timestamp.0.clamp(Timestamp::MIN.0, Instant48::MAX));
        let first = self.merge.len(input) == 0;
        self.buffered_bytes[input.index()] += record.bytes();
        self.merge.push(input, record, stamp);
        // The record that holds the shard comes before this one (rule J7).
        if first && !self.is_held_by(input) {
            self.watermarks.head(input, self.merge.head(input));
        }
    }

    /// Whether the clamped timestamp of the input's first record is undecided and
    /// waits for the following records (rule T3).
    #[must_use]
    pub fn waits_for_more(&self, input: Input) -> bool {
        self.merge.undecided(input).is_some() && self.merge.len(input) <= clock::FOLLOWING
    }

    /// The size in memory of the input's waiting records, in bytes.
    #[must_use]
    pub fn buffered_bytes(&self, input: Input) -> usize {
        self.buffered_bytes[input.index()]
    }

    /// Everything before `offset` has been offered, for now (rule T1).
    pub fn end_of_partition(&mut self, input: Input, offset: i64) {
        self.merge.answered(input);
        self.watermarks.end_of_partition(input, offset);
    }

    /// The answer to a query for the input's end that was sent at broker time
    /// `asked_at` (rule T1).
    pub fn learn_end(
        &mut self,
        input: Input,
        asked_at: Option<Timestamp>,
        high_watermark: i64,
        last_stable: i64,
    ) {
        self.watermarks.learn_end(input, asked_at, high_watermark, last_stable);
        // While a record waits, the merge checks this itself.
        if self.merge.is_empty() && self.watermarks.has_unread(input) == Some(false) {
            self.merge.answered(input);
        }
    }

    /// Reading was interrupted: the input is behind until shown otherwise
    /// (rule T1).
    pub fn forget_evidence(&mut self, input: Input) {
        self.watermarks.forget_evidence(input);
    }

    /// Whether the input is passed over because it cannot be read (rule T4).
    #[must_use]
    pub fn is_passed_over(&self, input: Input) -> bool {
        self.merge.is_passed_over(input)
    }

    /// Whether the shard applies and expires, and is not in the middle of a
    /// restore or of a scope event.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        matches!(self.phase, Phase::Running)
    }

    /// Drops records that were read and not processed: reading begins again at
    /// the positions (rule R7). Only for a shard [at rest](Shard::is_at_rest).
    pub fn rewind(&mut self) {
        for input in Input::ALL {
            self.merge.clear(input);
            self.buffered_bytes[input.index()] = 0;
            self.ahead.clear();
            self.watermarks.discard_buffered(input);
            self.watermarks.head(input, None);
            self.watermarks.forget_evidence(input);
        }
    }

    // ---- working

    /// Settles, merges, applies and fires timers, at most about `budget` units
    /// of work.
    pub fn turn(&mut self, now: Now, budget: usize) -> Turn {
        self.turn_until_full(now, budget, usize::MAX)
    }

    /// The same, until about `output_max_bytes` wait to be written (rule C10).
    /// The rest is left for after the next commit, and does not count as `more`.
    pub fn turn_until_full(&mut self, now: Now, budget: usize, output_max_bytes: usize) -> Turn {
        let mut turn = Turn::default();
        let mut records = budget.max(1);
        let mut timers = budget.max(1);
        if self.is_at_rest() {
            // The first waiting record is counted again: it may have a greater
            // effect now, because broker time may have been corrected (rule T2).
            for input in Input::ALL {
                self.watermarks.head(input, self.merge.head(input));
            }
        }
        loop {
            match self.phase {
                Phase::Restoring => return turn,
                Phase::Settling(_) => {
                    if !self.dates_new_rules(now) {
                        return turn;
                    }
                    self.settle_chunk(&mut records, output_max_bytes, &mut turn);
                    if matches!(self.phase, Phase::Settling(_)) {
                        turn.more = self.pending.bytes < output_max_bytes;
                        return turn;
                    }
                }
                Phase::Running => {}
            }
            self.believe_heads(now);
            let clock = self.watermarks.clock(now).min(Timestamp(Instant48::MAX));
            let lease = self.scopes.lease_due(clock.max(self.clock));
            self.clock = self.clock.max(lease.map_or(clock, |(end, _)| end.plus_ms(-1)));
            // Before any row is judged by this clock, the timers fire through it.
            // So no row was judged later than the committed clock (rule C2), and
            // a restore judges none back in time.
            if !self.fire_timers(self.clock, &mut timers, output_max_bytes, &mut turn) {
                turn.more = self.pending.bytes < output_max_bytes;
                return turn;
            }
            if let Some((end, instance)) = lease {
                self.hold_for_lease(end, instance);
                continue;
            }
            let retention_ms = self.rules.tombstone_retention_ms;
            if let Some(instance) = self.scopes.forget_due(self.clock, retention_ms) {
                self.settle(What::Look { instance, named: false }, None);
                continue;
            }
            if self.pending.bytes >= output_max_bytes {
                return turn;
            }
            if records == 0 {
                turn.more |= !self.merge.is_empty();
                return turn;
            }
            let unread = self.unread();
            self.ahead.look_up(self.merge.waiting(Input::Heartbeats), &self.table);
            let Some((input, record, believed)) = self.merge.pop(unread, now) else {
                return turn;
            };
            records -= 1;
            let buffered_bytes = &mut self.buffered_bytes[input.index()];
            *buffered_bytes = buffered_bytes.saturating_sub(record.bytes());
            let row = if input == Input::Heartbeats { self.ahead.take() } else { None };
            self.apply(input, record, believed, row, &mut turn);
        }
    }

    /// Decides the clamped timestamps of the first waiting records that their
    /// senders stamped (rule T3).
    fn believe_heads(&mut self, now: Now) {
        for input in Input::ALL {
            let Some(stamp) = self.merge.undecided(input) else { continue };
            let following = self.merge.following(input);
            let given_up = self.merge.is_passed_over(input);
            let believed = self.watermarks.believe(input, stamp, following, given_up, now);
            if let Some(believed) = believed {
                let believed = Timestamp(believed.0.min(Instant48::MAX));
                self.merge.decide(input, believed);
                self.watermarks.head(input, Some(believed));
            }
        }
    }

    /// Which inputs may still deliver an earlier record than the waiting ones
    /// (rule T4). If an input was last known to be idle long before the next
    /// record, nothing is known of it: the clock stands at that time, and a
    /// deadline between the two would be overlooked (rule T8).
    fn unread(&self) -> [Option<bool>; 3] {
        let least = self.merge.next().map(|(next, _)| next.plus_ms(-JUDGED_AHEAD_MS));
        let of = |input| {
            let unread = self.watermarks.has_unread(input)?;
            (unread || self.watermarks.idle_at(input) >= least).then_some(unread)
        };
        [of(Input::ALL[0]), of(Input::ALL[1]), of(Input::ALL[2])]
    }

    // ---- committing

    /// The next offset to commit.
    #[must_use]
    pub fn position(&self, input: Input) -> i64 {
        self.positions[input.index()]
    }

    /// The progress of the shard. Commit it together with the outbox taken at the
    /// same moment.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let clock = self.fired;
        Progress {
            clock,
            watermarks: Input::ALL.map(|input| self.watermarks.watermark(input)),
            replay_from: self
                .replay_from_held
                .unwrap_or_else(|| clock.plus_ms(-self.rules.replay_window_ms).max(Timestamp::MIN)),
        }
    }

    // ---- looking

    /// The clock (rule T2), as it was at the last turn.
    #[must_use]
    pub fn clock(&self) -> Timestamp {
        self.clock
    }

    /// Devices by status, in the order of [`Status::ALL`].
    #[must_use]
    pub fn status_counts(&self) -> [u64; Status::ALL.len()] {
        let mut sums = [0; Status::ALL.len()];
        for fleet in self.scopes.fleets.values() {
            for (sum, count) in sums.iter_mut().zip(fleet.counts) {
                *sum += count;
            }
        }
        sums
    }

    /// The number of known names of fleets, organizations and VPN instances.
    #[must_use]
    pub fn names(&self) -> [usize; 3] {
        let Scopes { fleets, organizations, instances, .. } = &self.scopes;
        [fleets.len(), organizations.len(), instances.len()]
    }

    /// The number of rows, including those of devices that do not exist yet or
    /// are deleted.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.table.len()
    }

    /// The instant at which a row is judged (rule T5). The lower limit, `since`,
    /// is limited like the event: a `since` more than 10 s ahead comes from an
    /// event while an input could not be read, or from a start with other
    /// settings, and must not expire a device either.
    fn judged_at(clock: Timestamp, at: Timestamp, floor: Timestamp) -> Timestamp {
        clock.max(at.max(floor).min(clock.plus_ms(JUDGED_AHEAD_MS)))
    }
}
