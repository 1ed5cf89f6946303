//! One partition of the view: its waiting writes, its acknowledged writes, and how
//! far its marker may advance (rules V2 to V5). No I/O.
//!
//! A write passes three places: `backlog` (to be sent), the current round (sent),
//! and `unconfirmed` (answered, but the marker does not cover it yet). It is
//! acknowledged and dropped only after the marker has advanced past it. A failover
//! may lose the last writes of a server. The loss is always noticed: either the
//! marker differs from the one we wrote last, or all writes behind it are still here
//! and are written again.
//!
//! Each node of a cluster can lose its last writes on its own. So each node has a
//! marker: one has the partition's own marker, the others have replica markers. The
//! replica markers advance first. The own marker advances only as far as all of them
//! have, so it is valid for the whole partition.

use std::collections::VecDeque;

use super::answer::MarkerContent;
use super::backlog::{Backlog, Waiting};
use super::keys::MarkerValue;
use crate::shard::{Timestamp, ViewBody, ViewWrite};

/// How often an idle marker is checked (rule V4).
pub const CHECK_INTERVAL_MS: i64 = 5_000;

/// The maximum number of marks. Beyond it every other one is dropped, which only
/// makes the steps of the marker larger.
const MARKS_MAX: usize = 512;

/// The number of unconfirmed writes at which sending slows down. It is reached only
/// if the server refuses some writes and accepts others.
const UNCONFIRMED_MAX: usize = 8_192;

/// The maximum number of values that a marker is assumed to possibly hold. The
/// oldest unanswered one is dropped first. If that was the true one, the partition
/// is rewritten.
const POSSIBLE_MAX: usize = 8;

/// Who owns a partition of the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ownership {
    /// The loop has not taken the partition yet.
    Untaken,
    /// The markers are ours, or about to be taken.
    Owned,
    /// Fenced: a later owner holds the marker. Nothing is written any more.
    Superseded,
}

/// The state of one marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MarkerState {
    /// It must be taken.
    Taking {
        /// The `applied` that it may promise.
        applied: i64,
    },
    /// It was taken.
    Held {
        /// Whether it was checked on this connection.
        verified: bool,
    },
}

/// A marker of a partition: `None` is its own, a number is a replica marker.
pub type Place = Option<u32>;

/// What is known of a marker.
#[derive(Debug)]
struct Marker {
    place: Place,
    state: MarkerState,
    /// The values that it may hold: first the value last seen, then those of
    /// unanswered calls (rule V4).
    possible: Vec<MarkerValue>,
    check_at_ms: i64,
    /// No node needs it any more. It is checked once before it is dropped: if it is
    /// missing, a node took over its slot without the keys, and lost other keys too.
    leaves: bool,
}

impl Marker {
    fn new(place: Place, applied: i64) -> Marker {
        let state = MarkerState::Taking { applied };
        Marker { place, state, possible: Vec::new(), check_at_ms: 0, leaves: false }
    }

    fn is_verified(&self) -> bool {
        self.state == MarkerState::Held { verified: true }
    }
}

/// The `applied` that the marker may promise once every write up to `sequence` is
/// acknowledged.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    sequence: u64,
    applied: i64,
    now: Timestamp,
}

/// The next action on a marker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MarkerStep {
    /// Take it.
    Take {
        /// For this epoch.
        epoch: u64,
        /// The `applied` that it may promise.
        applied: i64,
    },
    /// Check that it is still ours, before anything is written.
    Check,
    /// Advance it, or only check that it still holds our last value.
    Advance {
        /// The values that it may hold now.
        from: Vec<MarkerValue>,
        /// The new value.
        to: MarkerValue,
    },
}

/// A finding that the loop must be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The view was flushed, replaced or set back.
    RewriteNeeded,
    /// Fenced: a later owner has taken the partition.
    Superseded,
}

/// One partition of the view.
#[derive(Debug)]
pub struct Partition {
    /// Tells apart different instances of this partition: a round that is under way
    /// may belong to an earlier one.
    pub generation: u64,
    epoch: u64,
    ownership: Ownership,
    backlog: Backlog,
    unconfirmed: Vec<(u64, Waiting)>,
    /// The last sequence received from the loop.
    received: u64,
    /// Everything up to this sequence is answered.
    written: u64,
    /// Everything up to this sequence is covered by the marker.
    acknowledged: u64,
    /// The acknowledged sequence that was reported to the loop.
    reported: u64,
    marks: VecDeque<Mark>,
    /// The last mark whose writes are all answered.
    passed: Mark,
    /// The time of the last commit, and when it was received on the monotonic clock.
    /// `None` while writes of a commit are still missing. No moment of receipt: a
    /// commit has begun, and the time stays the same until its writes are added.
    complete: Option<(Timestamp, Option<i64>)>,
    /// The partition's own marker, then its replica markers.
    markers: Vec<Marker>,
    /// The loop does not know yet that a rewrite is needed. Until it does, its values
    /// of `applied` must be ignored.
    rewrite_unreported: bool,
    /// Discarded writes. The worker frees them, since freeing takes time that the
    /// loop does not have.
    discarded: Backlog,
}

impl Partition {
    /// A partition that the loop has not taken yet.
    #[must_use]
    pub fn new(generation: u64, replica_markers: &[u32]) -> Partition {
        let places = std::iter::once(None).chain(replica_markers.iter().copied().map(Some));
        Partition {
            generation,
            epoch: 0,
            ownership: Ownership::Untaken,
            backlog: Backlog::default(),
            unconfirmed: Vec::new(),
            received: 0,
            written: 0,
            acknowledged: 0,
            reported: 0,
            marks: VecDeque::new(),
            passed: Mark::default(),
            complete: None,
            markers: places.map(|place| Marker::new(place, 0)).collect(),
            rewrite_unreported: false,
            discarded: Backlog::default(),
        }
    }

    /// Whether `take` for this epoch keeps the state here. Otherwise the partition
    /// must be made anew.
    #[must_use]
    pub fn continues_as(&self, epoch: u64) -> bool {
        self.ownership == Ownership::Untaken || self.epoch == epoch
    }

    /// Takes the partition for an epoch.
    pub fn take(&mut self, epoch: u64, applied: i64) {
        if self.ownership != Ownership::Untaken {
            self.forget_marks();
        }
        self.epoch = epoch;
        self.ownership = Ownership::Owned;
        self.take_markers(applied);
        self.requeue_unconfirmed();
    }

    fn take_markers(&mut self, applied: i64) {
        self.markers.retain(|marker| !marker.leaves);
        for marker in &mut self.markers {
            *marker = Marker::new(marker.place, applied);
        }
    }

    /// Applies a new set of replica markers, after the nodes of the cluster changed.
    /// New ones are taken. One that is no longer needed is dropped after a check: if
    /// it is still there, the node that has its slot now got the slot's other keys too.
    pub fn set_replica_markers(&mut self, replica_markers: &[u32]) {
        let taking = |marker: &Marker| match marker.state {
            MarkerState::Taking { applied } => Some(applied),
            MarkerState::Held { .. } => None,
        };
        let applied = self.markers.iter().filter_map(taking).max().unwrap_or(0);
        for marker in &mut self.markers {
            marker.leaves = marker.place.is_some_and(|number| !replica_markers.contains(&number));
            if let MarkerState::Held { verified } = &mut marker.state {
                *verified &= !marker.leaves;
            }
        }
        self.markers.retain(|marker| !marker.leaves || taking(marker).is_none());
        for &number in replica_markers {
            if !self.markers.iter().any(|marker| marker.place == Some(number)) {
                self.markers.push(Marker::new(Some(number), applied));
            }
        }
    }

    /// The epoch of the writes.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The number of writes to send.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.backlog.len()
    }

    /// A commit has begun. Until its writes are added, the marker's time stays the
    /// same, because it is unknown whether the commit has happened.
    pub fn commit_begun(&mut self, monotonic_ms: i64) {
        if let Some((now, Some(at_ms))) = self.complete {
            self.complete = Some((now.plus_ms(monotonic_ms - at_ms), None));
        }
    }

    /// Adds the writes of a commit, and the `applied` that the marker may promise once
    /// they are acknowledged.
    pub fn write(
        &mut self,
        writes: Vec<ViewWrite>,
        applied: Option<i64>,
        now: Timestamp,
        monotonic_ms: i64,
    ) {
        if self.ownership == Ownership::Superseded {
            return;
        }
        if applied.is_none() && !writes.is_empty() {
            self.complete = None;
        }
        for write in writes {
            self.received = self.received.max(write.sequence);
            self.backlog.push(write);
        }
        let Some(applied) = applied.filter(|_| !self.rewrite_unreported) else { return };
        self.complete = Some((now, Some(monotonic_ms)));
        if self.marks.len() >= MARKS_MAX {
            let mut keep = false;
            self.marks.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.marks.push_back(Mark { sequence: self.received, applied, now });
        if self.backlog.is_empty() && self.written == self.received {
            self.pass_marks();
        }
    }

    /// The actions on the markers that are due now.
    #[must_use]
    pub fn marker_steps(&self, monotonic_ms: i64) -> Vec<(Place, MarkerStep)> {
        if self.ownership != Ownership::Owned {
            return Vec::new();
        }
        let step = |marker: &Marker| Some((marker.place, self.marker_step(marker, monotonic_ms)?));
        self.markers.iter().filter_map(step).collect()
    }

    fn marker_step(&self, marker: &Marker, monotonic_ms: i64) -> Option<MarkerStep> {
        match marker.state {
            MarkerState::Taking { applied } => {
                Some(MarkerStep::Take { epoch: self.epoch, applied })
            }
            MarkerState::Held { verified: false } => Some(MarkerStep::Check),
            // No marker advances until all have been checked.
            MarkerState::Held { verified: true } if !self.may_write() => None,
            MarkerState::Held { verified: true } => {
                let held = marker.possible.first()?;
                (self.is_behind(marker) || monotonic_ms >= marker.check_at_ms).then(|| {
                    let to = match marker.place {
                        None if self.has_replica_markers() => self.agreed(held),
                        _ => self.next_marker(held, monotonic_ms),
                    };
                    MarkerStep::Advance { from: marker.possible.clone(), to }
                })
            }
        }
    }

    /// Whether a marker is about to be taken.
    #[must_use]
    pub fn takes_any(&self) -> bool {
        let taking = |marker: &Marker| matches!(marker.state, MarkerState::Taking { .. });
        self.ownership == Ownership::Owned && self.markers.iter().any(taking)
    }

    fn has_replica_markers(&self) -> bool {
        self.markers.len() > 1
    }

    /// The value that all replica markers have reached, but at least `held`.
    fn agreed(&self, held: &MarkerValue) -> MarkerValue {
        let values = self.markers.iter().skip(1).filter_map(|marker| marker.possible.first());
        let least = values.copied().reduce(|a, b| MarkerValue {
            applied: a.applied.min(b.applied),
            sequence: a.sequence.min(b.sequence),
            time_ms: a.time_ms.min(b.time_ms),
            ..a
        });
        least.map_or(*held, |least| MarkerValue {
            epoch: self.epoch,
            applied: least.applied.max(held.applied),
            sequence: least.sequence.max(held.sequence),
            time_ms: least.time_ms.max(held.time_ms),
        })
    }

    /// Whether the marker can advance.
    fn is_behind(&self, marker: &Marker) -> bool {
        let Some(held) = marker.possible.first() else { return true };
        if marker.place.is_none() && self.has_replica_markers() {
            return self.agreed(held) != *held;
        }
        held.sequence != self.written || held.applied != self.may_say(held).applied
    }

    /// The mark that the marker may promise. After a lost connection it stays at
    /// `held`, its present value, until all later writes are written again.
    fn may_say(&self, held: &MarkerValue) -> Mark {
        let MarkerValue { sequence, applied, time_ms, .. } = *held;
        if self.written >= self.passed.sequence {
            self.passed
        } else {
            Mark { sequence, applied, now: Timestamp(time_ms) }
        }
    }

    fn next_marker(&self, held: &MarkerValue, monotonic_ms: i64) -> MarkerValue {
        let mark = self.may_say(held);
        // While idle, the view is complete up to now.
        let time = match self.complete {
            Some((now, at_ms)) if self.marks.is_empty() && self.written == self.received => {
                at_ms.map_or(now, |at_ms| now.plus_ms(monotonic_ms - at_ms))
            }
            _ => mark.now,
        };
        let (epoch, sequence) = (self.epoch, self.written);
        MarkerValue { epoch, applied: mark.applied, sequence, time_ms: time.0 }
    }

    /// Whether writes may be sent: only if all markers were checked to be ours.
    #[must_use]
    pub fn may_write(&self) -> bool {
        self.ownership == Ownership::Owned && self.markers.iter().all(Marker::is_verified)
    }

    /// The time until something is due; 0: now.
    #[must_use]
    pub fn due_in_ms(&self, monotonic_ms: i64) -> Option<i64> {
        match self.ownership {
            Ownership::Untaken | Ownership::Superseded => None,
            Ownership::Owned if !self.may_write() || self.has_unwritten() => Some(0),
            Ownership::Owned => {
                let check_at_ms = self.markers.iter().map(|marker| marker.check_at_ms).min();
                check_at_ms.map(|check_at_ms| (check_at_ms - monotonic_ms).max(0))
            }
        }
    }

    /// Whether there are writes to send, or a marker to advance.
    #[must_use]
    pub fn has_unwritten(&self) -> bool {
        match self.ownership {
            Ownership::Untaken | Ownership::Superseded => false,
            Ownership::Owned => {
                !self.backlog.is_empty() || self.markers.iter().any(|marker| self.is_behind(marker))
            }
        }
    }

    /// The maximum number of writes in a round.
    #[must_use]
    pub fn send_limit(&self) -> usize {
        match self.unconfirmed.len() {
            // Only the first, which blocks the marker.
            UNCONFIRMED_MAX.. => 1,
            _ => self.backlog.len(),
        }
    }

    /// Whether a write to the same device or fleet waits to be sent.
    #[must_use]
    pub fn awaits(&self, body: &ViewBody) -> bool {
        self.backlog.has_of(body)
    }

    /// The last sequence received from the loop.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Takes the next write to send, if writes may be sent.
    pub fn next_write(&mut self) -> Option<(u64, Waiting)> {
        self.may_write().then(|| self.backlog.pop()).flatten()
    }

    /// The connection was lost or replaced: the markers must be checked again, and
    /// unconfirmed writes may be lost.
    pub fn disconnected(&mut self) {
        for marker in &mut self.markers {
            if let MarkerState::Held { verified } = &mut marker.state {
                *verified = false;
            }
        }
        self.requeue_unconfirmed();
    }

    fn requeue_unconfirmed(&mut self) {
        for (place, waiting) in std::mem::take(&mut self.unconfirmed) {
            self.backlog.put_back(place, waiting);
        }
        self.written = self.written.min(self.before_line());
    }

    /// The last sequence before the first waiting write.
    fn before_line(&self) -> u64 {
        self.backlog.first().map_or(self.received, |place| place - 1)
    }

    /// A write of the round was answered.
    pub fn write_done(&mut self, place: u64, waiting: Waiting) {
        self.unconfirmed.push((place, waiting));
    }

    /// A write of the round failed, or was not answered.
    pub fn write_failed(&mut self, place: u64, waiting: Waiting) {
        self.backlog.put_back(place, waiting);
    }

    /// A write was fenced: check at once whether another owner holds the marker.
    pub fn write_refused(&mut self) {
        self.markers[0].check_at_ms = 0;
    }

    /// All results of the round have been reported.
    pub fn round_ended(&mut self) {
        self.written = self.before_line();
        self.pass_marks();
    }

    fn pass_marks(&mut self) {
        while let Some(mark) = self.marks.front().copied()
            && mark.sequence <= self.written
        {
            self.passed = mark;
            self.marks.pop_front();
        }
    }

    fn marker(&mut self, place: Place) -> Option<&mut Marker> {
        self.markers.iter_mut().find(|marker| marker.place == place)
    }

    /// The marker was taken with the promise `wanted`; it holds `applied` and `time_ms`.
    pub fn taken(
        &mut self,
        place: Place,
        wanted: i64,
        (applied, time_ms): (i64, i64),
        monotonic_ms: i64,
    ) -> Option<Finding> {
        let epoch = self.epoch;
        let marker = self.marker(place)?;
        // A loss found in the same round has reset the markers.
        if marker.state != (MarkerState::Taking { applied: wanted }) {
            return None;
        }
        let sequence = 0;
        marker.possible = vec![MarkerValue { epoch, applied, sequence, time_ms }];
        if applied != wanted {
            return Some(self.lost());
        }
        marker.state = MarkerState::Held { verified: true };
        marker.check_at_ms = monotonic_ms + CHECK_INTERVAL_MS;
        if place.is_none() && self.passed.applied < applied {
            self.passed = Mark { sequence, applied, now: Timestamp(time_ms) };
        }
        None
    }

    /// The marker was advanced to `to`.
    pub fn advanced(&mut self, place: Place, to: MarkerValue, monotonic_ms: i64) {
        let Some(marker) = self.marker(place) else { return };
        if !matches!(marker.state, MarkerState::Held { .. }) {
            return;
        }
        marker.possible.clear();
        marker.possible.push(to);
        marker.check_at_ms = monotonic_ms + CHECK_INTERVAL_MS;
        if place.is_none() {
            self.acknowledged = self.acknowledged.max(to.sequence);
            self.unconfirmed.retain(|(place, _)| *place > to.sequence);
        }
    }

    /// The answer never came: the marker may or may not hold `to`.
    pub fn advance_unanswered(&mut self, place: Place, to: MarkerValue) {
        let Some(marker) = self.marker(place) else { return };
        if !marker.possible.contains(&to) {
            marker.possible.push(to);
        }
        if marker.possible.len() > POSSIBLE_MAX {
            marker.possible.remove(1);
        }
    }

    /// The result of [`MarkerStep::Check`].
    pub fn checked(&mut self, place: Place, found: MarkerContent) -> Option<Finding> {
        let marker = self.marker(place)?;
        match found {
            MarkerContent::Value(value) if marker.possible.contains(&value) => {
                marker.possible.retain(|other| *other != value);
                marker.possible.insert(0, value);
                if let MarkerState::Held { verified } = &mut marker.state {
                    *verified = true;
                }
                // Write it again soon: an unanswered call may still arrive at the
                // server.
                marker.check_at_ms = 0;
                self.markers.retain(|marker| !(marker.leaves && marker.is_verified()));
                None
            }
            other => self.mismatch(place, other),
        }
    }

    /// The marker does not hold our last value (rule V4).
    pub fn mismatch(&mut self, place: Place, found: MarkerContent) -> Option<Finding> {
        if found.epoch().is_some_and(|epoch| epoch > self.epoch) {
            return Some(self.superseded());
        }
        let held = self.marker(place).is_some_and(|m| matches!(m.state, MarkerState::Held { .. }));
        held.then(|| self.lost())
    }

    /// Fenced: a later owner holds the marker.
    pub fn superseded(&mut self) -> Finding {
        self.ownership = Ownership::Superseded;
        self.discarded = std::mem::take(&mut self.backlog);
        self.unconfirmed.clear();
        self.marks.clear();
        Finding::Superseded
    }

    fn lost(&mut self) -> Finding {
        self.requeue_unconfirmed();
        self.forget_marks();
        self.rewrite_unreported = true;
        self.take_markers(0);
        Finding::RewriteNeeded
    }

    fn forget_marks(&mut self) {
        self.marks.clear();
        self.passed = Mark::default();
        self.complete = None;
    }

    /// The loop has been told that a rewrite is needed.
    pub fn rewrite_reported(&mut self) {
        self.rewrite_unreported = false;
    }

    /// The newly acknowledged sequence, reported once.
    pub fn take_acknowledged(&mut self) -> Option<u64> {
        (self.acknowledged > self.reported).then(|| {
            self.reported = self.acknowledged;
            self.reported
        })
    }
}

#[cfg(test)]
mod tests;
