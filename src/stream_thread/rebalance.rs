//! Handles partitions that the group assigns, revokes or gives to others (rules C5,
//! R4, R6, R7).

use tracing::{error, info, warn};

use super::ports::{Log, View};
use super::restore::Restore;
use super::slot::{Slot, Stage, all_inputs};
use super::start_offsets::ResolvingStarts;
use super::thread::{Release, StreamThread};
use crate::clock::Clock;
use crate::shard::Input;

/// How long revoked partitions are kept for a last commit.
const RELEASE_LIMIT_MS: i64 = 30_000;
/// The same limit from the beginning of a stop, also for partitions that were
/// revoked before it. With the time to leave the group and to write the rest to
/// Redis, it is less than the 30 s that Kubernetes gives by default.
const STOP_LIMIT_MS: i64 = 15_000;

impl<L: Log, V: View, C: Clock> StreamThread<L, V, C> {
    pub(super) fn on_assigned(&mut self, partitions: Vec<(Input, i32)>) {
        info!(partitions = %describe(&partitions), "assigned");
        self.counts.rebalances[0] += 1;
        self.discard_suspended(&partitions);
        if !partitions.is_empty() {
            self.resolving_starts.push(ResolvingStarts::new(partitions, self.clock.monotonic_ms()));
        }
    }

    pub(super) fn on_revoked(&mut self, partitions: Vec<(Input, i32)>) {
        info!(partitions = %describe(&partitions), "revoked");
        self.counts.rebalances[1] += 1;
        self.forget_resolving_starts(&partitions);
        if !partitions.is_empty() {
            self.release = Some(Release { partitions, since_ms: self.clock.monotonic_ms() });
        }
    }

    pub(super) fn on_lost(&mut self, partitions: &[(Input, i32)]) {
        if !partitions.is_empty() {
            warn!(
                partitions = %describe(partitions),
                "partitions lost: the group gave them to other members"
            );
            self.counts.rebalances[2] += 1;
        }
        self.forget_resolving_starts(partitions);
        self.release = None;
        // The machine may have slept. The next commit sets broker time again (rule
        // T6).
        self.broker_time.forget();
        self.drop_partitions(partitions, false);
    }

    fn forget_resolving_starts(&mut self, partitions: &[(Input, i32)]) {
        for resolving in &mut self.resolving_starts {
            resolving.partitions.retain(|known| !partitions.contains(known));
        }
        self.resolving_starts.retain(|resolving| !resolving.partitions.is_empty());
    }

    /// Asks for the start offsets of assigned partitions, and assigns those that
    /// are known.
    pub(super) fn resolve_starts(&mut self) {
        let now_ms = self.clock.monotonic_ms();
        let mut resolved = Vec::new();
        for resolving in &mut self.resolving_starts {
            resolving.ask(&mut self.log, now_ms);
            resolved.push(resolving.take_starts(now_ms));
        }
        self.resolving_starts.retain(|resolving| !resolving.partitions.is_empty());
        resolved.retain(|starts| !starts.is_empty());
        for starts in resolved {
            let offsets: Vec<_> =
                starts.iter().map(|(input, p, start)| (*input, *p, start.offset)).collect();
            if let Err(error) = self.log.assign(&offsets) {
                warn!(
                    %error,
                    "the Kafka client did not accept the assignment; waiting for the next \
                     rebalance"
                );
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
                        "offset out of range: the committed offset is not in the log any more; \
                         continuing from the log start"
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
                            "no committed offset for this input, though the others have one: its \
                             topic was recreated, or the offset was deleted. Continuing from the \
                             log start"
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

    /// Gives partitions back once their output is committed.
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
                "the last commit before giving partitions back did not finish in time; the next \
                 owner redoes it"
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
        // Partitions revoked before the stop may not have been all of ours.
        if self.stopping() && self.slots.is_empty() {
            self.log.close();
            self.stopped = true;
        }
    }

    /// Drops partitions, and the shards that had any of them (rule C5).
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
                // The view of a suspended shard continues to be written, whatever
                // becomes of the slot that waits for its inputs (rule R7).
                self.view.release(partition);
            }
            // At a stop, the view writes its backlog before it closes. Fencing
            // protects the writes of a later owner (rule V2).
        }
        if !partitions.is_empty()
            && let Err(error) = self.log.unassign(partitions)
        {
            warn!(%error, "giving partitions back to the group failed");
        }
        if !orphans.is_empty() && !self.stopping() {
            // The remaining inputs of the shard are read again from the committed
            // offsets once the shard is complete again.
            if let Err(error) = self.log.unassign(&orphans) {
                warn!(%error, "unassigning the partitions of an incomplete shard failed");
            }
            self.resolving_starts.push(ResolvingStarts::new(orphans, self.clock.monotonic_ms()));
        }
    }

    /// Drops the suspended shards that a rebalance has not brought back (rule R7).
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
