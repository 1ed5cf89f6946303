//! Packs outboxes into a transaction, and handles its outcome (rules C1, C2, C3,
//! C6).

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::{info, warn};

use super::in_flight::{Fate, InFlight, InFlightState, backoff_ms, fate, pack};
use super::ports::{Batch, Commits, Log, Outcome, Receipt, ShardBatch, View};
use super::slot::{Slot, Stage, all_inputs};
use super::thread::StreamThread;
use crate::clock::Clock;
use crate::error::Fatal;

/// How often progress alone is committed (rule C3).
const PROGRESS_INTERVAL_MS: i64 = 5_000;
/// Broker time is refreshed at least this often (rule T6).
const BROKER_TIME_INTERVAL_MS: i64 = 55_000;
/// Rows of a view rewrite per commit, and the backlog from which on none are added.
const REWRITE_PER_COMMIT: usize = 2_000;
const VIEW_BACKLOG_HIGH: usize = 10_000;

impl<L: Log, V: View, C: Clock> StreamThread<L, V, C> {
    /// Commits what is due, or continues the commit in flight (rules C3, C6).
    pub(super) fn commit(&mut self) {
        let now_ms = self.clock.monotonic_ms();
        if self.in_flight.is_some() {
            self.retry(now_ms);
            return;
        }
        let leaving = self.stopping() || self.release.is_some();
        let since_commit = now_ms - self.last_commit_ms;
        let full = self.output_bytes() >= self.settings.output_max_bytes;
        if since_commit < self.settings.commit_interval_ms && !leaving && !full {
            return;
        }
        // Broker time is also unknown after a commit whose outcome was looked up,
        // because its delivery reports are lost.
        let wanted = self.broker_time.wants_report(now_ms, BROKER_TIME_INTERVAL_MS);
        if wanted && let Some(running) = self.slots.values_mut().find_map(Slot::running_mut) {
            running.shard.write_epoch();
        }
        let rewrite = if self.view.backlog() < VIEW_BACKLOG_HIGH { REWRITE_PER_COMMIT } else { 0 };
        let mut batch = Batch::default();
        let mut parts = BTreeMap::new();
        for running in self.slots.values_mut().filter_map(Slot::running_mut) {
            let progress_due = leaving || now_ms - running.batched_ms >= PROGRESS_INTERVAL_MS;
            let shard = &mut running.shard;
            // A leaving shard does not rewrite the view; the next owner does. A
            // shard that started after its partitions were revoked takes no turns,
            // so it would never finish the rewrite and never be given back.
            let rewrites = rewrite > 0 && !leaving && shard.rewriting_view();
            let output = shard.has_output() || rewrites;
            // The clock of an idle shard moves, too. It is committed so that a
            // restart continues from it.
            if output || progress_due && (!leaving || running.has_moved()) {
                running.batched_ms = now_ms;
                let outbox = running.shard.take_outbox(rewrite);
                // 0 while rows still reflect the old rules.
                let unsettled = running.shard.is_settling_new_rules();
                let fingerprint = if unsettled { 0 } else { self.rules_fingerprint };
                let (shard, part) = pack(running, outbox, fingerprint, &self.settings);
                parts.insert(shard.partition, part);
                batch.shards.push(shard);
            }
        }
        if batch.shards.is_empty() {
            return;
        }
        self.view.commit_begun(batch.shards.iter().map(|shard| shard.partition));
        let batch = Arc::new(batch);
        self.log.submit(batch.clone());
        self.last_commit_ms = now_ms;
        self.in_flight = Some(InFlight {
            batch,
            parts,
            submitted_ms: now_ms,
            attempts: 0,
            state: InFlightState::Submitted,
        });
    }

    /// Sends a refused batch again, for the shards that are still owned.
    fn retry(&mut self, now_ms: i64) {
        let Some(flight) = &mut self.in_flight else { return };
        match flight.state {
            InFlightState::Submitted | InFlightState::Resolving(_) => {}
            InFlightState::Unresolved { ask_ms } if now_ms < ask_ms => {}
            InFlightState::Unresolved { .. } => {
                let of: Vec<_> = flight.parts.keys().flat_map(|p| all_inputs(*p)).collect();
                flight.state = InFlightState::Resolving(self.log.ask_committed(&of));
            }
            InFlightState::Waiting { until_ms } if now_ms < until_ms => {}
            InFlightState::Waiting { .. } => {
                let slots = &self.slots;
                flight.parts.retain(|partition, part| {
                    let running = slots.get(partition).and_then(Slot::running);
                    running.is_some_and(|running| running.epoch == part.epoch)
                });
                if flight.parts.len() < flight.batch.shards.len() {
                    let held = |shard: &&ShardBatch| flight.parts.contains_key(&shard.partition);
                    let shards = flight.batch.shards.iter().filter(held).cloned().collect();
                    flight.batch = Arc::new(Batch { shards });
                }
                if flight.batch.shards.is_empty() {
                    self.in_flight = None;
                    return;
                }
                flight.state = InFlightState::Submitted;
                self.log.submit(flight.batch.clone());
            }
        }
    }

    pub(super) fn on_outcome(&mut self, outcome: Outcome) -> Result<(), Fatal> {
        let now_ms = self.clock.monotonic_ms();
        match outcome {
            Outcome::Committed(receipt) => self.on_committed(&receipt),
            Outcome::Refused { stale_member, message } => {
                self.counts.commits_refused += 1;
                let leaving = self.release.is_some();
                if stale_member {
                    // A rebalance is normal.
                    info!(
                        error = %message,
                        "a rebalance came before the commit; the transaction is sent again"
                    );
                } else {
                    warn!(error = %message, "a transaction was refused; it is sent again");
                }
                if let Some(flight) = &mut self.in_flight {
                    flight.attempts += 1;
                    let until_ms = now_ms + backoff_ms(flight.attempts);
                    flight.state = InFlightState::Waiting { until_ms };
                }
                if stale_member && leaving {
                    // The group no longer waits for our last commit.
                    self.abandon_release();
                }
            }
            Outcome::Unknown { message } => {
                self.counts.commits_unknown += 1;
                warn!(
                    error = %message,
                    "the outcome of a transaction is unknown; reading the committed offsets to \
                     find out"
                );
                if let Some(flight) = &mut self.in_flight {
                    flight.attempts += 1;
                    flight.state = InFlightState::Unresolved { ask_ms: now_ms };
                }
            }
            Outcome::Fatal(fatal) => return Err(fatal),
        }
        Ok(())
    }

    fn on_committed(&mut self, receipt: &Receipt) {
        if let Some((stamp, received_ms)) = receipt.broker_time
            && self.broker_time.report(stamp, received_ms)
        {
            // Idle inputs are a barrier to the others for half a second only (rule
            // T4), and a query sent before the time was known does not show how far
            // they are.
            self.ask_ends_at_once();
        }
        let Some(mut flight) = self.in_flight.take() else { return };
        self.counts.commits += 1;
        // The duration is unknown if the outcome was looked up.
        self.counts.transaction_seconds.extend(receipt.duration.map(|took| took.as_secs_f64()));
        let now = self.wall();
        for shard in &flight.batch.shards {
            let Some(part) = flight.parts.remove(&shard.partition) else { continue };
            self.counts.add(&part.counts, now);
            let Some(slot) = self.slots.get_mut(&shard.partition) else { continue };
            let applied = slot.marker.applied();
            let ours = slot.running_mut().filter(|running| running.epoch == part.epoch);
            let Some(running) = ours else { continue };
            // Only an owner whose epoch is in the changelog may write the view
            // (rule C7). The first commit has just written the epoch.
            if running.committed.is_none() {
                self.view.take(shard.partition, running.epoch, applied);
            }
            running.committed = Some((shard.offsets, shard.metadata.clone()));
            if let Some(end) = receipt.changelog_end.get(&shard.partition) {
                running.changelog_end = running.changelog_end.max(*end);
            }
            // A rewrite may have become due since the batch was packed.
            let rewriting = part.rewriting || running.shard.rewriting_view();
            let applied = (!rewriting).then_some(running.changelog_end);
            if !part.view.is_empty() || applied.is_some() {
                self.view.write(shard.partition, part.view, applied, now);
            }
        }
    }

    /// Finds out from the committed offsets whether the batch was committed (rule
    /// C6).
    pub(super) fn resolve(&mut self, committed: &Commits) {
        let Some(flight) = &mut self.in_flight else { return };
        let mut happened = false;
        for (partition, part) in &flight.parts {
            // For a shard that we lost, the committed offsets say nothing: a later
            // owner's commit may carry the same numbers as ours.
            let Some(slot) = self.slots.get_mut(partition) else { continue };
            if slot.running().is_none_or(|running| running.epoch != part.epoch) {
                continue;
            }
            match fate(*partition, part, committed) {
                Fate::Committed => happened = true,
                Fate::NotCommitted => {}
                Fate::Superseded => {
                    warn!(
                        partition,
                        "fenced: another owner has committed since; the shard is dropped here"
                    );
                    slot.stage = Stage::Failed;
                    self.view.release(*partition);
                }
            }
        }
        info!(happened, "the outcome of the transaction is known");
        if happened {
            // A transaction is committed as a whole.
            self.on_committed(&Receipt::default());
        } else {
            flight.state = InFlightState::Waiting { until_ms: self.clock.monotonic_ms() };
        }
    }
}
