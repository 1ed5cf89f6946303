//! From outboxes to a transaction, and what to do about its outcome
//! (rules C1, C2, C3, C6).

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::{info, warn};

use super::ports::{
    Batch, FoundCommit, Log, Outcome, OutputRecord, OutputTopic, QuestionId, Receipt, ShardBatch,
    View,
};
use super::report::Counts;
use super::slot::{MarkerAnswer, Slot, Stage};
use super::{Settings, StreamThread, all_inputs};
use crate::clock::Clock;
use crate::error::Fatal;
use crate::shard::{Outbox, Timestamp, ViewWrite};
use crate::wire::metadata::ShardMetadata;
use crate::wire::{changelog, dead_letter, status_changed};

/// How often progress alone is committed (rule C3).
const PROGRESS_INTERVAL_MS: i64 = 5_000;
/// The broker's time is taken anew at least this often (rule T6).
const BROKER_TIME_INTERVAL_MS: i64 = 55_000;
/// Rows of a rewrite of the view that go with one commit, and the backlog at
/// which no more are added.
const REWRITE_PER_COMMIT: usize = 2_000;
const VIEW_BACKLOG_HIGH: usize = 10_000;

/// A batch whose fate is not known yet.
pub(super) struct InFlight {
    pub batch: Arc<Batch>,
    pub parts: BTreeMap<i32, Part>,
    pub submitted_ms: i64,
    pub attempts: u32,
    pub state: InFlightState,
}

pub(super) enum InFlightState {
    /// The log has it.
    Submitted,
    /// To be sent again, as it is.
    Waiting { until_ms: i64 },
    /// Committed offsets were asked for, to learn what happened.
    Resolving(QuestionId),
    /// They are to be asked for.
    Unresolved { ask_ms: i64 },
}

/// What follows the commit of one shard's part.
pub(super) struct Part {
    pub epoch: u64,
    pub batch: u64,
    pub view: Vec<ViewWrite>,
    /// Some rows of a rewrite of the view are still to come.
    pub rewriting: bool,
    pub counts: Counts,
}

/// Turns what a shard has to say into its part of a batch.
pub(super) fn pack(
    slot: &mut Slot,
    outbox: Outbox,
    rules_fingerprint: u64,
    settings: &Settings,
) -> (ShardBatch, Part) {
    let dead_letters = &settings.dead_letters;
    let source = settings.cloud_events_source.as_deref();
    let mut records = Vec::with_capacity(outbox.changelog.len() + outbox.changes.len());
    let mut counts = Counts::default();
    for entry in &outbox.changelog {
        let (key, value) = changelog::encode(entry);
        records.push(OutputRecord {
            topic: OutputTopic::Changelog,
            partition: Some(slot.partition),
            key: Some(key),
            value,
            headers: Vec::new(),
        });
    }
    for change in &outbox.changes {
        let (key, value) = status_changed::encode(change);
        *counts.changes.entry((change.previous, change.current)).or_default() += 1;
        counts.change_instants.push(change.since.max(change.connectivity_since));
        records.push(OutputRecord {
            topic: OutputTopic::StatusChanges,
            partition: None,
            key: Some(key),
            value: Some(value),
            headers: source.map_or_else(Vec::new, |of| status_changed::cloud_event(change, of)),
        });
    }
    if let Some(first) = outbox.dead_letters.first() {
        warn!(
            input = first.input.name(),
            partition = first.partition,
            offset = first.offset,
            reason = first.reason.code(),
            detail = ?first.detail,
            and_more = outbox.dead_letters.len() - 1,
            "a record cannot be used and becomes a dead letter; device-status dead-letters list \
             tells which, and why"
        );
    }
    for letter in &outbox.dead_letters {
        *counts.dead_letters.entry((letter.input, letter.reason)).or_default() += 1;
        let topic = &dead_letters.topics[letter.input.index()];
        let encoded = dead_letter::encode(letter, topic, dead_letters.max_bytes);
        records.push(OutputRecord {
            topic: OutputTopic::DeadLetters,
            partition: None,
            key: encoded.key,
            value: encoded.value,
            headers: encoded.headers,
        });
    }
    let progress = slot.shard.progress();
    slot.batch += 1;
    let metadata = ShardMetadata {
        clock: progress.clock,
        watermarks: progress.watermarks,
        epoch: slot.epoch,
        batch: slot.batch,
        replay_from: progress.replay_from,
        rules_fingerprint,
    };
    let shard = ShardBatch {
        partition: slot.partition,
        records,
        offsets: slot.positions(),
        metadata: metadata.encode(),
    };
    let part = Part {
        epoch: slot.epoch,
        batch: slot.batch,
        view: outbox.view,
        rewriting: slot.shard.rewriting_view(),
        counts,
    };
    (shard, part)
}

/// What the committed offsets say of a batch whose fate nobody told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is committed.
    Happened,
    /// It is not.
    DidNot,
    /// A later owner has committed: what we hold is of the past.
    Superseded,
}

/// Compares (epoch, batch) of a shard's part with what is committed (rule C6).
pub(super) fn verdict(partition: i32, part: &Part, committed: &[FoundCommit]) -> Verdict {
    let latest = committed
        .iter()
        .filter(|(_, p, _)| *p == partition)
        .filter_map(|(.., committed)| ShardMetadata::decode(&committed.as_ref()?.metadata))
        .map(|metadata| (metadata.epoch, metadata.batch))
        .max();
    match latest {
        Some((epoch, _)) if epoch > part.epoch => Verdict::Superseded,
        Some(latest) if latest >= (part.epoch, part.batch) => Verdict::Happened,
        _ => Verdict::DidNot,
    }
}

/// How long to wait before the `attempt`th time, in milliseconds.
pub(super) fn backoff_ms(attempt: u32) -> i64 {
    (50_i64 << attempt.min(6)).min(2_000)
}

/// One past the last changelog record of a partition, if the batch had any.
pub(super) fn changelog_end(receipt: &Receipt, partition: i32) -> Option<i64> {
    receipt.changelog_end.iter().find(|(p, _)| *p == partition).map(|(_, end)| *end)
}

impl Counts {
    /// Adds what became true with a commit at `now`.
    pub(super) fn add(&mut self, committed: &Counts, now: Timestamp) {
        for (key, count) in &committed.changes {
            *self.changes.entry(*key).or_default() += count;
        }
        for (key, count) in &committed.dead_letters {
            *self.dead_letters.entry(*key).or_default() += count;
        }
        let delay_ms = |instant: &Timestamp| now.0.saturating_sub(instant.0).max(0);
        let seconds = committed.change_instants.iter().map(|at| delay_ms(at) as f64 / 1_000.0);
        self.change_delay_seconds.extend(seconds);
    }
}

impl<L: Log, V: View, C: Clock> StreamThread<L, V, C> {
    /// Commits what is due, or goes on with what is under way (rules C3, C6).
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
        // Unknown it is also after a commit that had to be looked up: what the
        // broker reported of its records is lost.
        let wanted = self.broker_time.wants_report(now_ms, BROKER_TIME_INTERVAL_MS);
        if wanted && let Some(slot) = self.slots.values_mut().find(|slot| slot.is_running()) {
            slot.shard.write_epoch();
        }
        let rewrite = if self.view.backlog() < VIEW_BACKLOG_HIGH { REWRITE_PER_COMMIT } else { 0 };
        let mut batch = Batch::default();
        let mut parts = BTreeMap::new();
        for slot in self.slots.values_mut().filter(|slot| slot.is_running()) {
            let progress_due = leaving || now_ms - slot.batched_ms >= PROGRESS_INTERVAL_MS;
            let output = slot.shard.has_output() || (rewrite > 0 && slot.shard.rewriting_view());
            let moved =
                slot.committed.as_ref().is_none_or(|(offsets, _)| *offsets != slot.positions());
            // The clock of an idle shard moves too, and is worth keeping: a
            // restart then judges from where it had come.
            if output || progress_due && (moved || !leaving) {
                slot.batched_ms = now_ms;
                let outbox = slot.shard.take_outbox(rewrite);
                // Nobody's rules, as long as some rows are not settled by ours.
                let unsettled = slot.shard.is_settling_new_rules();
                let fingerprint = if unsettled { 0 } else { self.rules_fingerprint };
                let (shard, part) = pack(slot, outbox, fingerprint, &self.settings);
                parts.insert(slot.partition, part);
                batch.shards.push(shard);
            }
        }
        if batch.shards.is_empty() {
            return;
        }
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

    /// Sends a refused batch again, for the shards that are still held.
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
                    slots.get(partition).is_some_and(|slot| slot.epoch == part.epoch)
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
                    // A rebalance came between: nothing is wrong.
                    info!(error = %message, "the group has moved on; a transaction is sent again");
                } else {
                    warn!(error = %message, "a transaction was refused; it is sent again");
                }
                if let Some(flight) = &mut self.in_flight {
                    flight.attempts += 1;
                    let until_ms = now_ms + backoff_ms(flight.attempts);
                    flight.state = InFlightState::Waiting { until_ms };
                }
                if stale_member && leaving {
                    // The group no longer waits for what we still had to say.
                    self.abandon_release();
                }
            }
            Outcome::Unknown { message } => {
                self.counts.commits_unknown += 1;
                warn!(error = %message, "the fate of a transaction is unknown; asking for the offsets");
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
            // Idle inputs hold the others for half a second only (rule T4), and
            // what was asked before does not say how far they are.
            self.ask_ends_at_once();
        }
        let Some(mut flight) = self.in_flight.take() else { return };
        self.counts.commits += 1;
        // A commit that was looked up took nobody knows how long.
        self.counts.transaction_seconds.extend(receipt.duration.map(|took| took.as_secs_f64()));
        let now = self.wall();
        for shard in &flight.batch.shards {
            let Some(part) = flight.parts.remove(&shard.partition) else { continue };
            self.counts.add(&part.counts, now);
            let Some(slot) = self.slots.get_mut(&shard.partition) else { continue };
            if slot.epoch != part.epoch {
                continue;
            }
            // The view is touched by nobody whose epoch is not in the changelog
            // (rule C7), which the first commit has just done.
            if slot.committed.is_none() {
                let applied = match slot.marker {
                    MarkerAnswer::Known(Some(marker)) => marker.applied,
                    _ => 0,
                };
                self.view.take(shard.partition, slot.epoch, applied);
            }
            slot.committed = Some((shard.offsets, shard.metadata.clone()));
            if let Some(end) = changelog_end(receipt, shard.partition) {
                slot.changelog_end = slot.changelog_end.max(end);
            }
            // A rewrite may have become due since the batch was packed.
            let rewriting = part.rewriting || slot.shard.rewriting_view();
            let applied = (!rewriting).then_some(slot.changelog_end);
            if !part.view.is_empty() || applied.is_some() {
                self.view.write(shard.partition, part.view, applied, now);
            }
        }
    }

    /// Tells from the committed offsets what became of the batch (rule C6).
    pub(super) fn resolve(&mut self, committed: &[FoundCommit]) {
        let Some(flight) = &mut self.in_flight else { return };
        let mut happened = false;
        for (partition, part) in &flight.parts {
            // What others have committed since to a shard that we lost may bear
            // the numbers that ours would have had: it tells nothing.
            let held = self.slots.get_mut(partition).filter(|slot| slot.epoch == part.epoch);
            let Some(slot) = held else { continue };
            match verdict(*partition, part, committed) {
                Verdict::Happened => happened = true,
                Verdict::DidNot => {}
                Verdict::Superseded => {
                    warn!(partition, "another owner has committed since; dropping the shard");
                    slot.stage = Stage::Failed;
                    slot.epoch = 0;
                    self.view.release(*partition);
                }
            }
        }
        info!(happened, "the fate of the transaction is known");
        if happened {
            // A transaction happens as a whole.
            self.on_committed(&Receipt::default());
        } else {
            flight.state = InFlightState::Waiting { until_ms: self.clock.monotonic_ms() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::{Input, Timestamp};
    use crate::stream_thread::ports::CommittedOffset;

    fn part(epoch: u64, batch: u64) -> Part {
        Part { epoch, batch, view: Vec::new(), rewriting: false, counts: Counts::default() }
    }

    fn committed(epoch: u64, batch: u64) -> Vec<FoundCommit> {
        let metadata = ShardMetadata {
            clock: Timestamp(1),
            watermarks: [None; 3],
            epoch,
            batch,
            replay_from: Timestamp(0),
            rules_fingerprint: 7,
        };
        let committed = CommittedOffset { offset: 5, metadata: metadata.encode() };
        vec![(Input::Lifecycle, 3, Some(committed))]
    }

    #[test]
    fn a_batch_of_unknown_fate_is_judged_by_its_number() {
        assert_eq!(verdict(3, &part(8, 2), &committed(8, 2)), Verdict::Happened);
        assert_eq!(verdict(3, &part(8, 2), &committed(8, 1)), Verdict::DidNot);
        assert_eq!(verdict(3, &part(8, 2), &committed(7, 9)), Verdict::DidNot);
        assert_eq!(verdict(3, &part(8, 2), &committed(9, 1)), Verdict::Superseded);
        assert_eq!(verdict(3, &part(8, 2), &[]), Verdict::DidNot);
    }
}
