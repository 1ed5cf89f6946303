//! One partition of the view: what waits, what has been written, and how far
//! its marker may go (rules V2 to V5). No I/O.
//!
//! A write goes through three places: `backlog` (to be sent), the round that is
//! under way, and `unconfirmed` (answered, but the marker does not cover it
//! yet). It is forgotten, and acknowledged, only once the marker has been
//! advanced over it. So a view that loses its last writes, as a replica does
//! that takes over, is always caught: either its marker is not what we last
//! wrote, or everything behind that marker is still here to be written again.
//!
//! The nodes of a cluster lose their last writes one by one, so each has a
//! marker: a *witness*, where it is not the partition's own. All witnesses are
//! advanced first, and the partition's own marker only as far as all of them
//! have come: it speaks for the whole.

use std::collections::VecDeque;

use super::answer::Found;
use super::backlog::{Backlog, Waiting};
use super::keys::MarkerValue;
use crate::shard::{Timestamp, ViewBody, ViewWrite};

/// How long a marker goes unchecked (rule V4).
pub const CHECK_INTERVAL_MS: i64 = 5_000;

/// How many marks are kept; beyond it every other one is dropped, which only
/// makes the marker's steps larger.
const MARKS_MAX: usize = 512;

/// How many unconfirmed writes let more be sent. It is passed only where the
/// server refuses some writes and takes others.
const UNCONFIRMED_MAX: usize = 8_192;

/// How many values a marker may possibly hold before the oldest doubt is
/// dropped; wrongly dropping one costs a rewrite.
const POSSIBLE_MAX: usize = 8;

/// Where a partition stands with its markers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nobody has said for which epoch to write.
    Untaken,
    /// They are ours, or to be taken.
    Owned,
    /// A later owner holds the marker: nothing is written any more.
    Superseded,
}

/// Where we stand with one marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It is to be taken.
    Taking {
        /// What it may say.
        applied: i64,
    },
    /// It is ours, as far as we know.
    Held {
        /// Whether that was seen on this connection.
        verified: bool,
    },
}

/// Which marker of a partition: its own, or a witness, by number.
pub type Place = Option<u32>;

/// A marker, as far as we know it.
#[derive(Debug)]
struct Marker {
    place: Place,
    standing: Standing,
    /// What it may hold: first what it held when last seen, then what calls
    /// would have written whose answers never came (rule V4).
    possible: Vec<MarkerValue>,
    check_at_ms: i64,
    /// No server needs it any more. It is looked at once: whoever took its slot
    /// over without its keys has lost others with it.
    leaves: bool,
}

impl Marker {
    fn new(place: Place, applied: i64) -> Marker {
        let standing = Standing::Taking { applied };
        Marker { place, standing, possible: Vec::new(), check_at_ms: 0, leaves: false }
    }

    fn is_verified(&self) -> bool {
        self.standing == Standing::Held { verified: true }
    }
}

/// Once every write up to `sequence` is acknowledged, the marker may say so.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    sequence: u64,
    applied: i64,
    now: Timestamp,
}

/// What is to be done with a marker next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MarkerStep {
    /// Take it.
    Take {
        /// For this epoch.
        epoch: u64,
        /// What it may say.
        applied: i64,
    },
    /// See whether it is still ours, before anything is written.
    Check,
    /// Advance it, or only see whether it still holds what we last wrote.
    Advance {
        /// What it may hold now.
        from: Vec<MarkerValue>,
        /// What it shall hold.
        to: MarkerValue,
    },
}

/// What the loop must be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The view was flushed, replaced or set back.
    RewriteNeeded,
    /// A later owner has taken the partition.
    Superseded,
}

/// One partition of the view.
#[derive(Debug)]
pub struct Partition {
    /// Tells this life of the partition from others in rounds under way.
    pub generation: u64,
    epoch: u64,
    phase: Phase,
    backlog: Backlog,
    unconfirmed: Vec<(u64, Waiting)>,
    /// The last sequence that was handed to us.
    received: u64,
    /// Everything up to here has been answered.
    written: u64,
    /// Everything up to here is covered by the marker.
    acknowledged: u64,
    /// Up to here the loop has been told.
    told: u64,
    marks: VecDeque<Mark>,
    /// The last mark that was passed.
    passed: Mark,
    /// While nothing is missing from what was handed to us: the time of the
    /// last commit, and when on our monotonic clock we heard it.
    complete: Option<(Timestamp, Option<i64>)>,
    /// The partition's own marker, then its witnesses.
    markers: Vec<Marker>,
    /// A rewrite is needed and the loop does not know yet, so what it says of
    /// `applied` does not allow for it.
    rewrite_untold: bool,
    /// What is no longer to be written, kept until somebody has the time to
    /// free it.
    discarded: Backlog,
}

impl Partition {
    /// A partition that nobody has taken.
    #[must_use]
    pub fn new(generation: u64, witnesses: &[u32]) -> Partition {
        let places = std::iter::once(None).chain(witnesses.iter().copied().map(Some));
        Partition {
            generation,
            epoch: 0,
            phase: Phase::Untaken,
            backlog: Backlog::default(),
            unconfirmed: Vec::new(),
            received: 0,
            written: 0,
            acknowledged: 0,
            told: 0,
            marks: VecDeque::new(),
            passed: Mark::default(),
            complete: None,
            markers: places.map(|place| Marker::new(place, 0)).collect(),
            rewrite_untold: false,
            discarded: Backlog::default(),
        }
    }

    /// Whether `take` for this epoch goes on with what is here, rather than
    /// beginning anew.
    #[must_use]
    pub fn continues_as(&self, epoch: u64) -> bool {
        self.phase == Phase::Untaken || self.epoch == epoch
    }

    /// Takes the partition for an epoch.
    pub fn take(&mut self, epoch: u64, applied: i64) {
        if self.phase != Phase::Untaken {
            self.forget_marks();
        }
        self.epoch = epoch;
        self.phase = Phase::Owned;
        self.take_markers(applied);
        self.requeue_unconfirmed();
    }

    fn take_markers(&mut self, applied: i64) {
        self.markers.retain(|marker| !marker.leaves);
        for marker in &mut self.markers {
            *marker = Marker::new(marker.place, applied);
        }
    }

    /// The servers have changed, and with them the witnesses. New ones begin
    /// with what is there. One that is no longer needed goes once it was seen
    /// where it is now: then that node was given what is beside it, too.
    pub fn witnessed_by(&mut self, witnesses: &[u32]) {
        let taking = |marker: &Marker| match marker.standing {
            Standing::Taking { applied } => Some(applied),
            Standing::Held { .. } => None,
        };
        let applied = self.markers.iter().filter_map(taking).max().unwrap_or(0);
        for marker in &mut self.markers {
            marker.leaves = marker.place.is_some_and(|number| !witnesses.contains(&number));
            if let Standing::Held { verified } = &mut marker.standing {
                *verified &= !marker.leaves;
            }
        }
        self.markers.retain(|marker| !marker.leaves || taking(marker).is_none());
        for &number in witnesses {
            if !self.markers.iter().any(|marker| marker.place == Some(number)) {
                self.markers.push(Marker::new(Some(number), applied));
            }
        }
    }

    /// The epoch that writes are made for.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How many writes wait to be sent.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.backlog.len()
    }

    /// A commit has begun: until what it holds is written, the marker says nothing
    /// of later times, since nobody knows whether it has happened.
    pub fn commit_begun(&mut self, monotonic_ms: i64) {
        if let Some((now, Some(at_ms))) = self.complete {
            self.complete = Some((now.plus_ms(monotonic_ms - at_ms), None));
        }
    }

    /// Hands over writes that follow a commit, and what the marker may say
    /// once they are acknowledged.
    pub fn write(
        &mut self,
        writes: Vec<ViewWrite>,
        applied: Option<i64>,
        now: Timestamp,
        monotonic_ms: i64,
    ) {
        if self.phase == Phase::Superseded {
            return;
        }
        if applied.is_none() && !writes.is_empty() {
            self.complete = None;
        }
        for write in writes {
            self.received = self.received.max(write.sequence);
            self.backlog.push(write);
        }
        let Some(applied) = applied.filter(|_| !self.rewrite_untold) else { return };
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

    /// What is to be done with the markers now.
    #[must_use]
    pub fn marker_steps(&self, monotonic_ms: i64) -> Vec<(Place, MarkerStep)> {
        if self.phase != Phase::Owned {
            return Vec::new();
        }
        let step = |marker: &Marker| Some((marker.place, self.marker_step(marker, monotonic_ms)?));
        self.markers.iter().filter_map(step).collect()
    }

    fn marker_step(&self, marker: &Marker, monotonic_ms: i64) -> Option<MarkerStep> {
        match marker.standing {
            Standing::Taking { applied } => Some(MarkerStep::Take { epoch: self.epoch, applied }),
            Standing::Held { verified: false } => Some(MarkerStep::Check),
            // None goes ahead while it is not known what became of another.
            Standing::Held { verified: true } if !self.may_write() => None,
            Standing::Held { verified: true } => {
                let held = marker.possible.first()?;
                (self.is_behind(marker) || monotonic_ms >= marker.check_at_ms).then(|| {
                    let to = match marker.place {
                        None if self.has_witnesses() => self.agreed(held),
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
        let taking = |marker: &Marker| matches!(marker.standing, Standing::Taking { .. });
        self.phase == Phase::Owned && self.markers.iter().any(taking)
    }

    fn has_witnesses(&self) -> bool {
        self.markers.len() > 1
    }

    /// How far all witnesses have come, at least as far as `held`.
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

    /// Whether the marker could say more than it does.
    fn is_behind(&self, marker: &Marker) -> bool {
        let Some(held) = marker.possible.first() else { return true };
        if marker.place.is_none() && self.has_witnesses() {
            return self.agreed(held) != *held;
        }
        held.sequence != self.written || held.applied != self.may_say(held).applied
    }

    /// The mark that the marker may show, `held` being what it shows now: after
    /// a lost connection what follows `held` is written again first.
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
        // Idle, what is committed is in the view up to this moment.
        let time = match self.complete {
            Some((now, at_ms)) if self.marks.is_empty() && self.written == self.received => {
                at_ms.map_or(now, |at_ms| now.plus_ms(monotonic_ms - at_ms))
            }
            _ => mark.now,
        };
        let (epoch, sequence) = (self.epoch, self.written);
        MarkerValue { epoch, applied: mark.applied, sequence, time_ms: time.0 }
    }

    /// Whether writes may be sent: only where all markers were seen to be ours.
    #[must_use]
    pub fn may_write(&self) -> bool {
        self.phase == Phase::Owned && self.markers.iter().all(Marker::is_verified)
    }

    /// How long until there is something to do; 0 if there is now.
    #[must_use]
    pub fn due_in_ms(&self, monotonic_ms: i64) -> Option<i64> {
        match self.phase {
            Phase::Untaken | Phase::Superseded => None,
            Phase::Owned if !self.may_write() || self.unsettled() => Some(0),
            Phase::Owned => {
                let check_at_ms = self.markers.iter().map(|marker| marker.check_at_ms).min();
                check_at_ms.map(|check_at_ms| (check_at_ms - monotonic_ms).max(0))
            }
        }
    }

    /// Whether there are writes to send, or a marker to advance over them.
    #[must_use]
    pub fn unsettled(&self) -> bool {
        match self.phase {
            Phase::Untaken | Phase::Superseded => false,
            Phase::Owned => {
                !self.backlog.is_empty() || self.markers.iter().any(|marker| self.is_behind(marker))
            }
        }
    }

    /// How many writes may be sent in a round.
    #[must_use]
    pub fn send_limit(&self) -> usize {
        match self.unconfirmed.len() {
            // Only the one that holds up the others.
            UNCONFIRMED_MAX.. => 1,
            _ => self.backlog.len(),
        }
    }

    /// Whether a write about the same waits to be sent.
    #[must_use]
    pub fn awaits(&self, body: &ViewBody) -> bool {
        self.backlog.has_of(body)
    }

    /// The last sequence that was handed to us.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Takes the next write to be sent, if any may be.
    pub fn next_write(&mut self) -> Option<(u64, Waiting)> {
        self.may_write().then(|| self.backlog.pop()).flatten()
    }

    /// The connection was lost, or made anew: nothing is known of the markers,
    /// and of what the last server had not yet made durable.
    pub fn disconnected(&mut self) {
        for marker in &mut self.markers {
            if let Standing::Held { verified } = &mut marker.standing {
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

    /// The last sequence before everything that waits.
    fn before_line(&self) -> u64 {
        self.backlog.first().map_or(self.received, |place| place - 1)
    }

    /// A write of this round was answered.
    pub fn write_done(&mut self, place: u64, waiting: Waiting) {
        self.unconfirmed.push((place, waiting));
    }

    /// A write of this round was not made, or nobody knows.
    pub fn write_failed(&mut self, place: u64, waiting: Waiting) {
        self.backlog.put_back(place, waiting);
    }

    /// A write was refused: see at once whether somebody else owns the marker.
    pub fn write_refused(&mut self) {
        self.markers[0].check_at_ms = 0;
    }

    /// All writes of a round have been told to be done or failed.
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

    /// The marker was taken with `wanted`, and says `applied` and `time_ms`.
    pub fn taken(
        &mut self,
        place: Place,
        wanted: i64,
        (applied, time_ms): (i64, i64),
        monotonic_ms: i64,
    ) -> Option<Finding> {
        let epoch = self.epoch;
        let marker = self.marker(place)?;
        // Another loss may have been found in the same round.
        if marker.standing != (Standing::Taking { applied: wanted }) {
            return None;
        }
        let sequence = 0;
        marker.possible = vec![MarkerValue { epoch, applied, sequence, time_ms }];
        if applied != wanted {
            return Some(self.lost());
        }
        marker.standing = Standing::Held { verified: true };
        marker.check_at_ms = monotonic_ms + CHECK_INTERVAL_MS;
        if place.is_none() && self.passed.applied < applied {
            self.passed = Mark { sequence, applied, now: Timestamp(time_ms) };
        }
        None
    }

    /// The marker holds `to`, by our hand.
    pub fn advanced(&mut self, place: Place, to: MarkerValue, monotonic_ms: i64) {
        let Some(marker) = self.marker(place) else { return };
        if !matches!(marker.standing, Standing::Held { .. }) {
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

    /// Nobody knows whether the marker was advanced.
    pub fn advance_unanswered(&mut self, place: Place, to: MarkerValue) {
        let Some(marker) = self.marker(place) else { return };
        if !marker.possible.contains(&to) {
            marker.possible.push(to);
        }
        if marker.possible.len() > POSSIBLE_MAX {
            marker.possible.remove(1);
        }
    }

    /// The marker was looked at, before writing on a new connection.
    pub fn checked(&mut self, place: Place, found: Found) -> Option<Finding> {
        let marker = self.marker(place)?;
        match found {
            Found::Value(value) if marker.possible.contains(&value) => {
                marker.possible.retain(|other| *other != value);
                marker.possible.insert(0, value);
                if let Standing::Held { verified } = &mut marker.standing {
                    *verified = true;
                }
                // Write it again soon: a call whose answer never came may
                // still be on its way.
                marker.check_at_ms = 0;
                self.markers.retain(|marker| !(marker.leaves && marker.is_verified()));
                None
            }
            other => self.mismatch(place, other),
        }
    }

    /// The marker does not hold what we last wrote (rule V4).
    pub fn mismatch(&mut self, place: Place, found: Found) -> Option<Finding> {
        if found.epoch().is_some_and(|epoch| epoch > self.epoch) {
            return Some(self.superseded());
        }
        let held = self.marker(place).is_some_and(|m| matches!(m.standing, Standing::Held { .. }));
        held.then(|| self.lost())
    }

    /// A later owner holds the marker.
    pub fn superseded(&mut self) -> Finding {
        self.phase = Phase::Superseded;
        self.discarded = std::mem::take(&mut self.backlog);
        self.unconfirmed.clear();
        self.marks.clear();
        Finding::Superseded
    }

    fn lost(&mut self) -> Finding {
        self.requeue_unconfirmed();
        self.forget_marks();
        self.rewrite_untold = true;
        self.take_markers(0);
        Finding::RewriteNeeded
    }

    fn forget_marks(&mut self) {
        self.marks.clear();
        self.passed = Mark::default();
        self.complete = None;
    }

    /// The loop has been told that a rewrite is needed.
    pub fn rewrite_told(&mut self) {
        self.rewrite_untold = false;
    }

    /// What is newly acknowledged, once.
    pub fn tell_acknowledged(&mut self) -> Option<u64> {
        (self.acknowledged > self.told).then(|| {
            self.told = self.acknowledged;
            self.told
        })
    }
}

#[cfg(test)]
mod tests;
