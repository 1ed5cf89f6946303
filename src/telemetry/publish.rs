//! Publishes the reports of the loop and the view as metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{counter, gauge, histogram};

use super::ages;
use super::table::*;
use crate::shard::{Input, Status, Timestamp};
use crate::stream_thread::report::{Counts, Report, StageName};
use crate::view::ViewStats;

/// The kinds of names that are counted.
const NAME_KINDS: [&str; 3] = ["fleet", "organization", "instance"];

/// The metrics of a stream thread.
#[derive(Debug)]
pub struct ThreadMetrics {
    thread: usize,
    /// The partitions with published gauges.
    owned: Vec<i32>,
}

impl ThreadMetrics {
    /// Metrics of a thread before its first report.
    #[must_use]
    pub fn new(thread: usize) -> ThreadMetrics {
        ThreadMetrics { thread, owned: Vec::new() }
    }

    /// Publishes a report. `wall` is used while the broker time is not known.
    pub fn publish(&mut self, report: &Report, wall: impl Fn() -> Timestamp) {
        publish_counts(&report.counts);
        let count = |stage| report.shards.iter().filter(|s| s.stage == stage).count();
        let stages =
            [StageName::Created, StageName::Restoring, StageName::Running, StageName::Failed];
        for stage in stages {
            let state = if stage == StageName::Created { "waiting" } else { stage.name() };
            let thread = self.thread.to_string();
            gauge!(SHARDS, "thread" => thread, "state" => state).set(count(stage) as f64);
        }
        for (work, span) in [("applied", report.applied), ("restored", report.restored)] {
            let Some((first_ms, last_ms)) = span.ends() else { continue };
            for (edge, ms) in [("first", first_ms), ("last", last_ms)] {
                let thread = self.thread.to_string();
                gauge!(WORKED_AT, "thread" => thread, "work" => work, "edge" => edge)
                    .set(ms as f64 / 1000.0);
            }
        }
        for shard in &report.shards {
            let partition = shard.partition.to_string();
            for (status, count) in Status::ALL.iter().zip(shard.statuses) {
                gauge!(
                    DEVICES,
                    "partition" => partition.clone(),
                    "status" => status.wire_name()
                )
                .set(count as f64);
            }
            for (kind, count) in NAME_KINDS.iter().zip(shard.names) {
                gauge!(NAMES, "partition" => partition.clone(), "kind" => *kind).set(count as f64);
            }
            for (input, lag) in Input::ALL.iter().zip(shard.lag) {
                if let Some(lag) = lag {
                    gauge!(
                        LAG,
                        "input" => input.name(),
                        "partition" => partition.clone()
                    )
                    .set(lag as f64);
                }
            }
            for (input, open) in Input::ALL.iter().zip(shard.open) {
                let age_ms = open.map_or(0, |open| open.age_ms);
                gauge!(
                    OPEN_TRANSACTION,
                    "input" => input.name(),
                    "partition" => partition.clone()
                )
                .set(age_ms as f64 / 1000.0);
            }
            for (input, (share, stopped)) in
                Input::ALL.iter().zip(shard.letter_share.iter().zip(shard.stopped))
            {
                gauge!(LETTER_SHARE, "input" => input.name(), "partition" => partition.clone())
                    .set(*share);
                gauge!(STOPPED, "input" => input.name(), "partition" => partition.clone())
                    .set(if stopped.is_some() { 1 } else { 0 });
            }
            let now = report.broker_time.unwrap_or_else(&wall);
            if shard.stage == StageName::Running {
                gauge!(CLOCK_LAG, "partition" => partition.clone())
                    .set((now.0 - shard.clock.0).max(0) as f64 / 1000.0);
            }
            gauge!(REDIS_SWEEP_PROGRESS, "partition" => partition.clone()).set(shard.swept);
            gauge!(RESTORE_REMAINING, "partition" => partition).set(shard.to_restore as f64);
        }
        let owned: Vec<i32> = report.shards.iter().map(|shard| shard.partition).collect();
        for gone in self.owned.iter().filter(|partition| !owned.contains(partition)) {
            forget_partition(*gone);
        }
        self.owned = owned;
    }
}

/// Adds to the counters. Zeros are published too, so that each counter exists.
pub(super) fn publish_counts(counts: &Counts) {
    for input in Input::ALL {
        let (applied, stale) = (counts.applied[input.index()], counts.stale[input.index()]);
        let results = [("applied", applied.saturating_sub(stale)), ("stale", stale)];
        for (result, count) in results {
            counter!(RECORDS, "input" => input.name(), "result" => result).increment(count);
        }
        counter!(OFFSETS_LOST, "input" => input.name())
            .increment(counts.offsets_gone[input.index()]);
    }
    ages::OF_EVENTS.add(&counts.ages);
    for (what, count) in [("lease", counts.leases_over), ("heartbeat", counts.heartbeats_over)] {
        counter!(OVER_ON_ARRIVAL, "what" => what).increment(count);
    }
    for ((input, reason), count) in &counts.dead_letters {
        counter!(DEAD_LETTERS, "input" => input.name(), "reason" => reason.code())
            .increment(*count);
        counter!(
            RECORDS,
            "input" => input.name(),
            "result" => "dead_letter"
        )
        .increment(*count);
    }
    for ((from, to), count) in &counts.changes {
        let name = |shown: &Option<_>| shown.map_or("none", |(s, _): (Status, _)| s.wire_name());
        counter!(STATUS_CHANGES, "from" => name(from), "to" => name(to)).increment(*count);
    }
    for seconds in &counts.change_delay_seconds {
        histogram!(CHANGE_DELAY).record(*seconds);
    }
    for seconds in &counts.transaction_seconds {
        histogram!(TRANSACTION_DURATION).record(*seconds);
    }
    let commits = [
        ("committed", counts.commits),
        ("refused", counts.commits_refused),
        ("unknown", counts.commits_unknown),
    ];
    for (result, count) in commits {
        counter!(COMMITS, "result" => result).increment(count);
    }
    for (kind, count) in ["assigned", "revoked", "lost"].iter().zip(counts.rebalances) {
        counter!(REBALANCES, "kind" => *kind).increment(count);
    }
    for (source, count) in ["changelog", "vpn_sessions", "heartbeats"].iter().zip(counts.restored) {
        counter!(RESTORED, "source" => *source).increment(count);
    }
    counter!(DEADLINES).increment(counts.expired);
    counter!(SESSIONS_FORGOTTEN).increment(counts.sessions_forgotten);
    counter!(OPEN_SESSIONS_FORGOTTEN).increment(counts.open_sessions_forgotten);
    counter!(REDIS_REWRITES).increment(counts.view_rewrites);
}

/// Sets the gauges of a partition to zero that is no longer owned. Its next owner
/// publishes them from now on.
pub(super) fn forget_partition(partition: i32) {
    let partition = partition.to_string();
    for status in Status::ALL.map(Status::wire_name) {
        gauge!(DEVICES, "partition" => partition.clone(), "status" => status).set(0);
    }
    for kind in NAME_KINDS {
        gauge!(NAMES, "partition" => partition.clone(), "kind" => kind).set(0);
    }
    for input in Input::ALL.map(Input::name) {
        gauge!(LAG, "input" => input, "partition" => partition.clone()).set(0);
        for name in [OPEN_TRANSACTION, LETTER_SHARE, STOPPED] {
            gauge!(name, "input" => input, "partition" => partition.clone()).set(0);
        }
    }
    gauge!(CLOCK_LAG, "partition" => partition.clone()).set(0);
    gauge!(REDIS_SWEEP_PROGRESS, "partition" => partition.clone()).set(0);
    gauge!(RESTORE_REMAINING, "partition" => partition).set(0);
}

/// Publishes the metrics of all views.
pub fn publish_views(views: &[Arc<ViewStats>]) {
    let backlog: usize = views.iter().map(|view| view.backlog.load(Ordering::Relaxed)).sum();
    let connected = views.iter().all(|view| view.connected.load(Ordering::Relaxed));
    gauge!(REDIS_BACKLOG).set(backlog as f64);
    gauge!(REDIS_UP).set(if connected { 1 } else { 0 });
    let of_other_group = views.iter().any(|view| view.advice().other_group.is_some());
    gauge!(REDIS_OTHER_GROUP).set(if of_other_group { 1 } else { 0 });
    let refused = views.iter().any(|view| view.refusal().is_some());
    gauge!(REDIS_REFUSING).set(if refused { 1 } else { 0 });
    let evicts = views.iter().any(|view| view.advice().evicts.is_some());
    gauge!(REDIS_EVICTS).set(if evicts { 1 } else { 0 });
    publish_view_counts(views);
}

/// Publishes the counters of all views.
pub(super) fn publish_view_counts(views: &[Arc<ViewStats>]) {
    let sum = |of: fn(&ViewStats) -> &AtomicU64| {
        views.iter().map(|view| of(view).load(Ordering::Relaxed)).sum::<u64>()
    };
    let results = [
        ("written", sum(|view| &view.written)),
        ("refused", sum(|view| &view.refused)),
        ("failed", sum(|view| &view.errors)),
    ];
    for (result, count) in results {
        counter!(REDIS_WRITES, "result" => result).absolute(count);
    }
    let swept = [
        ("same", sum(|view| &view.sweep.same)),
        ("refreshed", sum(|view| &view.sweep.refreshed)),
        ("repaired", sum(|view| &view.sweep.repaired)),
        ("removed", sum(|view| &view.sweep.removed)),
        ("skipped", sum(|view| &view.sweep.skipped)),
        ("failed", sum(|view| &view.sweep.failed)),
    ];
    for (result, count) in swept {
        counter!(REDIS_SWEEP, "result" => result).absolute(count);
    }
    counter!(TWO_PARTITIONS).absolute(sum(|view| &view.sweep.twofold));
    counter!(REDIS_SCANS).absolute(sum(|view| &view.sweep.scans));
}
