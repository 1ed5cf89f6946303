//! What the loop does when the group gives and takes partitions (rules C5, R4,
//! R6, R7).

use tracing::{error, info, warn};

use super::adoption::Adoption;
use super::ports::{Log, View};
use super::restore::Restore;
use super::slot::{Slot, Stage, all_inputs};
use super::thread::{Release, StreamThread};
use crate::clock::Clock;
use crate::shard::Input;

/// How long partitions the group wants back are kept for a last commit.
const RELEASE_LIMIT_MS: i64 = 30_000;
/// The same from the beginning of a stop, also for what was asked back before
/// it: with the time it takes to leave the group and to tell
/// Redis the rest, less than the 30 s that Kubernetes gives by default.
const STOP_LIMIT_MS: i64 = 15_000;

impl<L: Log, V: View, C: Clock> StreamThread<L, V, C> {
    pub(super) fn on_assigned(&mut self, partitions: Vec<(Input, i32)>) {
        info!(partitions = %describe(&partitions), "assigned");
        self.counts.rebalances[0] += 1;
        self.discard_suspended(&partitions);
        if !partitions.is_empty() {
            self.adoptions.push(Adoption::new(partitions, self.clock.monotonic_ms()));
        }
    }

    pub(super) fn on_revoked(&mut self, partitions: Vec<(Input, i32)>) {
        info!(partitions = %describe(&partitions), "revoked");
        self.counts.rebalances[1] += 1;
        self.forget_adoptions(&partitions);
        if !partitions.is_empty() {
            self.release = Some(Release { partitions, since_ms: self.clock.monotonic_ms() });
        }
    }

    pub(super) fn on_lost(&mut self, partitions: &[(Input, i32)]) {
        if !partitions.is_empty() {
            warn!(partitions = %describe(partitions), "lost: the group gave them to others");
            self.counts.rebalances[2] += 1;
        }
        self.forget_adoptions(partitions);
        self.release = None;
        // The machine may have slept; the first commit to come tells (rule T6).
        self.broker_time.forget();
        self.drop_partitions(partitions, false);
    }

    fn forget_adoptions(&mut self, partitions: &[(Input, i32)]) {
        for adoption in &mut self.adoptions {
            adoption.partitions.retain(|known| !partitions.contains(known));
        }
        self.adoptions.retain(|adoption| !adoption.partitions.is_empty());
    }

    /// Puts questions of assignments under way; what is answered is assigned.
    pub(super) fn adopt(&mut self) {
        let now_ms = self.clock.monotonic_ms();
        let mut adopted = Vec::new();
        for adoption in &mut self.adoptions {
            adoption.ask(&mut self.log, now_ms);
            adopted.push(adoption.take_starts(now_ms));
        }
        self.adoptions.retain(|adoption| !adoption.partitions.is_empty());
        adopted.retain(|starts| !starts.is_empty());
        for starts in adopted {
            let offsets: Vec<_> =
                starts.iter().map(|(input, p, start)| (*input, *p, start.offset)).collect();
            if let Err(error) = self.log.assign(&offsets) {
                warn!(%error, "the assignment was not taken; the group will say what comes next");
                continue;
            }
            for (input, partition, start) in starts {
                if start.gone {
                    self.counts.offsets_gone[input.index()] += 1;
                    let committed = start.committed.as_ref().map(|committed| committed.offset);
                    error!(
                        partition,
                        input = input.name(),
                        committed,
                        log_start = start.offset,
                        log_end = start.log_end,
                        "what was to be read next is not in the log any more: going on from its start"
                    );
                }
                let view = &mut self.view;
                let slot = self.slots.entry(partition).or_insert_with(|| {
                    view.ask_marker(partition);
                    Slot::new(partition, now_ms)
                });
                if let Stage::Created(created) = &mut slot.stage {
                    created.inputs[input.index()] = Some(start);
                }
            }
            self.begin_restores();
        }
    }

    fn begin_restores(&mut self) {
        let now_ms = self.clock.monotonic_ms();
        let mut resumed = false;
        for slot in self.slots.values_mut() {
            let Stage::Created(created) = &mut slot.stage else { continue };
            let [Some(_), Some(_), Some(_)] = &created.inputs else { continue };
            let starts = std::mem::take(&mut created.inputs).map(Option::unwrap_or_default);
            let partition = slot.partition;
            match self.suspended.remove(&partition) {
                Some(kept) if kept.is_current(&starts) => {
                    info!(partition, "shard resumed without a restore");
                    slot.stage = Stage::Running(Box::new(kept.resume(now_ms)));
                    resumed = true;
                }
                _ => {
                    let mut restore = Restore::new(partition, starts, &self.settings, now_ms);
                    for input in restore.past.mark_forgotten() {
                        self.counts.offsets_gone[input.index()] += 1;
                        error!(
                            partition,
                            input = input.name(),
                            "nothing is committed of this input, though it is of the others: its \
                             topic was made anew, or the offset was deleted. Going on from the \
                             log's start"
                        );
                    }
                    slot.stage = Stage::Restoring(Box::new(restore));
                }
            }
        }
        if resumed {
            self.ask_ends_at_once();
        }
    }

    /// Gives partitions back once what they had to say is committed.
    pub(super) fn finish_release(&mut self) {
        let now_ms = self.clock.monotonic_ms();
        if self.stopping() && self.release.is_none() && !self.stopped {
            let partitions = self.slots.keys().flat_map(|p| all_inputs(*p)).collect();
            self.release = Some(Release { partitions, since_ms: now_ms });
            return;
        }
        let Some(release) = &self.release else { return };
        let late = match self.stopping_since_ms {
            Some(since_ms) => now_ms - since_ms > STOP_LIMIT_MS,
            None => now_ms - release.since_ms > RELEASE_LIMIT_MS,
        };
        let unsaid = self.in_flight.is_some()
            || self.slots.values().filter_map(Slot::running).any(|running| {
                release.holds(running.shard.partition())
                    && (running.shard.has_output() || running.has_moved())
            });
        if unsaid && !late {
            return;
        }
        if unsaid {
            warn!(
                "the last commit before a release did not succeed in time; the next owner redoes it"
            );
        }
        self.complete_release(!unsaid);
    }

    /// Gives partitions back without a last commit.
    pub(super) fn abandon_release(&mut self) {
        self.complete_release(false);
    }

    fn complete_release(&mut self, everything_committed: bool) {
        let Some(release) = self.release.take() else { return };
        self.drop_partitions(&release.partitions, everything_committed);
        // What was asked back before the stop may not have been everything.
        if self.stopping() && self.slots.is_empty() {
            self.log.close();
            self.stopped = true;
        }
    }

    /// Lets go of partitions, and of the shards that had any of them (rule C5).
    fn drop_partitions(&mut self, partitions: &[(Input, i32)], everything_committed: bool) {
        let mut orphans = Vec::new();
        let mut shards: Vec<i32> = partitions.iter().map(|(_, partition)| *partition).collect();
        shards.sort_unstable();
        shards.dedup();
        for partition in shards {
            let Some(slot) = self.slots.remove(&partition) else { continue };
            if let Stage::Restoring(restore) = &slot.stage
                && let Some(source) = restore.reading()
            {
                let _ = self.log.stop_restore(source, partition);
            }
            for input in Input::ALL {
                if slot.has(input) && !partitions.contains(&(input, partition)) {
                    orphans.push((input, partition));
                }
            }
            let keep = self.settings.suspend && everything_committed && !self.stopping();
            if let Stage::Running(mut running) = slot.stage
                && keep
                && running.shard.is_at_rest()
                && running.committed.is_some()
            {
                running.shard.rewind();
                self.suspended.insert(partition, running);
            } else if !self.stopping() && !self.suspended.contains_key(&partition) {
                // Of a suspended shard the view goes on being written, whatever
                // becomes of the slot in which it waits for its inputs (rule R7).
                self.view.release(partition);
            }
            // At a stop, what waits in the view is written before it closes: a
            // later owner's writes are safe from it (rule V2).
        }
        if !partitions.is_empty()
            && let Err(error) = self.log.unassign(partitions)
        {
            warn!(%error, "partitions were not given back");
        }
        if !orphans.is_empty() && !self.stopping() {
            // The rest of a shard is read again from the group's offsets once
            // the shard is complete again.
            if let Err(error) = self.log.unassign(&orphans) {
                warn!(%error, "partitions of an incomplete shard were not let go");
            }
            self.adoptions.push(Adoption::new(orphans, self.clock.monotonic_ms()));
        }
    }

    /// A rebalance that ends without a suspended shard has given it away (R7).
    fn discard_suspended(&mut self, assigned: &[(Input, i32)]) {
        let view = &mut self.view;
        self.suspended.retain(|partition, _| {
            let back = assigned.iter().any(|(_, p)| p == partition);
            if !back {
                view.release(*partition);
            }
            back
        });
    }
}

fn describe(partitions: &[(Input, i32)]) -> String {
    let mut text = String::new();
    for input in Input::ALL {
        let mut of: Vec<_> =
            partitions.iter().filter(|(i, _)| *i == input).map(|(_, p)| *p).collect();
        of.sort_unstable();
        if !of.is_empty() {
            text.push_str(&format!("{}{of:?} ", input.name()));
        }
    }
    text.truncate(text.trim_end().len());
    text
}
