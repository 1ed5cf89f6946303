//! Updates: the last start, and the facts of each release (rule J12).

use std::sync::Arc;

use super::register::{Register, Tie, delete, join};
use crate::shard::event::{Timestamp, UpdateOutcome, UpdatePhase};

/// The number of releases whose finishes are kept; as many percentages and
/// phases.
pub(in crate::shard) const RELEASES_MAX: usize = 4;

/// The facts of updates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpdateFacts {
    /// The last start, with its release.
    pub started: Option<Register<Arc<str>>>,
    /// The facts of each release, by its name.
    pub releases: Vec<ReleaseFacts>,
}

/// The facts of the updates to one release. Without a name: those that name none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReleaseFacts {
    /// Its name.
    pub release: Arc<str>,
    /// The last finish, and how it ended.
    pub finished: Option<Register<Option<UpdateOutcome>>>,
    /// Whether it was started in the same millisecond as the finish.
    pub tie: Tie,
    /// The last percentage.
    pub percent: Option<Register<u8>>,
    /// The last phase.
    pub phase: Option<Register<UpdatePhase>>,
}

/// One of the registers of a release.
type Told<T> = fn(&mut ReleaseFacts) -> &mut Option<Register<T>>;

impl ReleaseFacts {
    /// Whether it concerns the updates to a release.
    fn concerns(&self, release: &str) -> bool {
        self.release.is_empty() || *self.release == *release
    }
}

impl UpdateFacts {
    /// The facts that concern the update that was started last.
    fn concerned(&self) -> impl Iterator<Item = &ReleaseFacts> {
        let started = self.started.iter();
        started
            .flat_map(|started| self.releases.iter().filter(|held| held.concerns(&started.value)))
    }

    /// Whether an update is in progress, by the visible facts.
    pub(in crate::shard) fn in_progress(&self, sees: impl Fn(Timestamp) -> bool) -> bool {
        let Some(started) = self.started.as_ref().filter(|started| sees(started.at)) else {
            return false;
        };
        !self.concerned().any(|held| {
            held.finished.is_some_and(|Register { at, .. }| {
                sees(at) && (at > started.at || at == started.at && held.tie == Tie::Ended)
            })
        })
    }

    /// The latest value since the start. Of the same millisecond, the one that
    /// names the release: if one without a release came later, it has replaced
    /// that value.
    fn latest<T: Copy>(
        &self,
        told: impl Fn(&ReleaseFacts) -> Option<Register<T>>,
    ) -> Option<Register<T>> {
        let started = self.started.as_ref()?.at;
        self.concerned()
            .filter_map(|held| Some((told(held)?, !held.release.is_empty())))
            .filter(|(told, _)| told.at >= started)
            .max_by_key(|(told, named)| (told.at, *named))
            .map(|(told, _)| told)
    }

    /// Its progress, in percent.
    pub(in crate::shard) fn percent(&self) -> Option<u8> {
        self.latest(|held| held.percent).map(|told| told.value)
    }

    /// Its phase, while it is in progress.
    #[must_use]
    pub fn phase(&self) -> Option<UpdatePhase> {
        let told = self.latest(|held| held.phase);
        told.filter(|_| self.in_progress(|_| true)).map(|told| told.value)
    }

    /// The finish that ended it.
    fn end(&self) -> Option<Register<Option<UpdateOutcome>>> {
        self.latest(|held| held.finished).filter(|_| !self.in_progress(|_| true))
    }

    /// Its outcome, if the finish had one.
    #[must_use]
    pub fn outcome(&self) -> Option<UpdateOutcome> {
        self.end()?.value
    }

    /// Since when it is in progress, or finished.
    #[must_use]
    pub fn since(&self) -> Option<Timestamp> {
        let started = self.started.as_ref()?.at;
        Some(self.end().map_or(started, |end| end.at))
    }

    /// Its release, if it has a name.
    #[must_use]
    pub fn release(&self) -> Option<Arc<str>> {
        let release = &self.started.as_ref()?.value;
        (!release.is_empty()).then(|| release.clone())
    }

    pub(in crate::shard) fn start(&mut self, at: Timestamp, release: &Arc<str>) -> bool {
        if !join(&mut self.started, at, release.clone()) {
            return false;
        }
        for held in self.releases.iter_mut().filter(|held| held.concerns(release)) {
            let ended_then = held.finished.is_some_and(|finished| finished.at == at);
            if ended_then && held.tie == Tie::None {
                held.tie = Tie::Began;
            }
        }
        true
    }

    pub(in crate::shard) fn finish(
        &mut self,
        at: Timestamp,
        release: &Arc<str>,
        outcome: Option<UpdateOutcome>,
    ) -> bool {
        let place = self.place_of(release);
        let held_at = self.releases[place].finished.map(|finished| finished.at);
        let mut changed = self.tell(place, |held| &mut held.finished, at, outcome);
        let finished_at = self.releases[place].finished.map(|finished| finished.at);
        if finished_at != held_at {
            self.releases[place].tie = Tie::None;
        }
        let begun = self.started.as_ref().is_some_and(|started| {
            started.at == at && self.releases[place].concerns(&started.value)
        });
        if begun && finished_at == Some(at) && self.releases[place].tie == Tie::None {
            // A repeated finish is a value that was seen already.
            let seen = self.concerned().any(|held| {
                held.tie != Tie::None && held.finished.is_some_and(|finished| finished.at == at)
            });
            let goes_on = seen && self.in_progress(|_| true);
            self.releases[place].tie = if goes_on { Tie::Began } else { Tie::Ended };
            changed = true;
        }
        self.limit(|held| &mut held.finished);
        self.tidy();
        changed
    }

    pub(in crate::shard) fn progress(
        &mut self,
        at: Timestamp,
        release: &Arc<str>,
        percent: u8,
        phase: Option<UpdatePhase>,
    ) -> bool {
        let place = self.place_of(release);
        let mut changed = self.tell(place, |held| &mut held.percent, at, percent);
        self.limit(|held| &mut held.percent);
        if let Some(phase) = phase {
            let place = self.place_of(release);
            changed |= self.tell(place, |held| &mut held.phase, at, phase);
            self.limit(|held| &mut held.phase);
        }
        self.tidy();
        changed
    }

    fn place_of(&mut self, release: &Arc<str>) -> usize {
        let known = self.releases.iter().position(|held| held.release == *release);
        known.unwrap_or_else(|| {
            self.releases.push(ReleaseFacts { release: release.clone(), ..Default::default() });
            self.releases.len() - 1
        })
    }

    /// Sets a register of a release. A value without a release concerns every
    /// release, and replaces earlier values of the same millisecond.
    fn tell<T: Copy + PartialEq>(
        &mut self,
        place: usize,
        told: Told<T>,
        at: Timestamp,
        value: T,
    ) -> bool {
        let mut changed = join(told(&mut self.releases[place]), at, value);
        if self.releases[place].release.is_empty() {
            for held in self.releases.iter_mut().filter_map(|held| told(held).as_mut()) {
                if held.at == at && held.value != value {
                    held.value = value;
                    changed = true;
                }
            }
        }
        changed
    }

    /// Drops the oldest if there are too many, but nothing that concerns the
    /// update that was started last.
    fn limit<T>(&mut self, told: Told<T>) {
        let count = self.releases.iter_mut().filter_map(|held| told(held).as_ref()).count();
        let started = self.started.as_ref().map(|started| started.value.clone());
        for _ in RELEASES_MAX..count {
            let oldest = self
                .releases
                .iter_mut()
                .filter(|held| started.as_ref().is_none_or(|started| !held.concerns(started)))
                .map(told)
                .filter(|told| told.is_some())
                .min_by_key(|told| told.as_ref().map(|told| told.at));
            if let Some(oldest) = oldest {
                *oldest = None;
            }
        }
    }

    /// Clears the facts that a deletion removes (rule J5).
    pub(in crate::shard) fn delete(&mut self, at: Timestamp) {
        delete(&mut self.started, at);
        for held in &mut self.releases {
            delete(&mut held.finished, at);
            delete(&mut held.percent, at);
            delete(&mut held.phase, at);
        }
        self.tidy();
    }

    fn tidy(&mut self) {
        for held in &mut self.releases {
            if held.finished.is_none() {
                held.tie = Tie::None;
            }
        }
        self.releases.retain(|held| {
            held.finished.is_some() || held.percent.is_some() || held.phase.is_some()
        });
        self.releases.sort_by(|one, other| one.release.cmp(&other.release));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_releases_are_forgotten_but_never_the_last_updates_finish() {
        let mut facts = UpdateFacts::default();
        facts.start(Timestamp(1), &"r0".into());
        facts.finish(Timestamp(2), &"r0".into(), Some(UpdateOutcome::Failed));
        for number in 1..=5 {
            let release = format!("r{number}").into();
            facts.finish(Timestamp(2 + number), &release, None);
            facts.progress(Timestamp(20 - number), &release, 50, None);
        }
        let finished = |held: &&ReleaseFacts| held.finished.is_some();
        let names = |of: &dyn Fn(&&ReleaseFacts) -> bool| -> Vec<String> {
            facts.releases.iter().filter(of).map(|held| held.release.to_string()).collect()
        };
        assert_eq!(names(&finished), ["r0", "r3", "r4", "r5"]);
        assert_eq!(names(&|held| held.percent.is_some()), ["r1", "r2", "r3", "r4"]);
        assert_eq!(facts.outcome(), Some(UpdateOutcome::Failed));
        assert!(!facts.in_progress(|_| true));
    }

    #[test]
    fn finishes_with_and_without_a_release_in_one_millisecond_are_one_fact() {
        let release: Arc<str> = "r".into();
        let none: Arc<str> = "".into();
        let at = Timestamp(5);
        let mut facts = UpdateFacts::default();
        facts.finish(at, &none, None);
        facts.start(at, &release);
        assert!(facts.in_progress(|_| true), "not seen before");
        facts.finish(at, &release, None);
        assert!(facts.in_progress(|_| true), "that it ended was seen before");
        let mut facts = UpdateFacts::default();
        facts.start(at, &release);
        facts.finish(at, &release, Some(UpdateOutcome::Failed));
        facts.finish(at, &none, Some(UpdateOutcome::Aborted));
        assert!(!facts.in_progress(|_| true));
        assert_eq!(facts.outcome(), Some(UpdateOutcome::Aborted), "the later in the log");
    }
}
