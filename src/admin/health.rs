//! The health of the process. The stream threads and the view report to [`Health`],
//! which evaluates the reports at each probe. The caller passes the time.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use serde::Serialize;

use crate::error::lock;

/// A loop that has not run for longer than this is stuck.
pub const MAX_TURN_MS: i64 = 30_000;

/// The health of the process, from the reports of its parts.
#[derive(Debug)]
pub struct Health {
    threads: Vec<Thread>,
    redis: Mutex<RedisHealth>,
    group: Mutex<GroupHealth>,
    fatal: Mutex<Option<String>>,
    stopping: AtomicBool,
}

#[derive(Debug)]
struct Thread {
    /// The last turn of its loop, on the monotonic clock.
    turned_ms: AtomicI64,
    /// `None` before the first report.
    report: Mutex<Option<ThreadReport>>,
}

/// The report of a stream thread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ThreadReport {
    /// Whether the thread has received an assignment from the group, even an empty one.
    pub heard: bool,
    /// Shards with at least one assigned input.
    pub assigned: usize,
    /// Of these, shards that wait for another input (rule R6).
    pub waiting: usize,
    /// Of these, shards that are being restored.
    pub restoring: usize,
    /// Of these, shards that run.
    pub running: usize,
    /// Whether every running shard is near the end of its inputs.
    pub near_head: bool,
    /// Producers' transactions that have been open on an input for too long.
    pub open_transactions: Vec<String>,
    /// Inputs whose reading has stopped because too many of their records became dead
    /// letters.
    pub stopped_inputs: Vec<String>,
    /// Why Kafka cannot be reached; `None` while it can.
    pub kafka_error: Option<String>,
}

/// The health of the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisHealth {
    /// Redis has not answered yet.
    Connecting,
    /// Redis answers.
    Available,
    /// Redis does not answer, for this reason.
    Unavailable(String),
    /// Redis answers but refuses writes, for this reason.
    Refusing(String),
    /// The prefix belongs to this other group: nothing is written.
    OfAnotherGroup(String),
}

impl RedisHealth {
    const fn name(&self) -> &'static str {
        match self {
            RedisHealth::Connecting => "connecting",
            RedisHealth::Available => "available",
            RedisHealth::Unavailable(_) => "unavailable",
            RedisHealth::Refusing(_) => "refusing",
            RedisHealth::OfAnotherGroup(_) => "of-another-group",
        }
    }
}

/// The state of the consumer group, by its coordinator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupHealth {
    /// Members of the group without a partition, by thread.
    pub spare: BTreeSet<usize>,
    /// What is wrong with the group.
    pub trouble: Option<String>,
}

/// The answer to a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProbeResult {
    /// Whether the probe succeeds.
    pub ok: bool,
    /// Why it does not.
    pub reasons: Vec<String>,
    /// The last report of each stream thread.
    pub threads: Vec<Option<ThreadReport>>,
    /// The state of the view.
    pub redis: &'static str,
}

impl Health {
    /// The health of a process with `threads` stream threads, at its start.
    #[must_use]
    pub fn new(threads: usize, now_ms: i64) -> Health {
        let thread = || Thread { turned_ms: AtomicI64::new(now_ms), report: Mutex::new(None) };
        Health {
            threads: std::iter::repeat_with(thread).take(threads).collect(),
            redis: Mutex::new(RedisHealth::Connecting),
            group: Mutex::default(),
            fatal: Mutex::new(None),
            stopping: AtomicBool::new(false),
        }
    }

    /// Records a turn of a thread's loop. Cheap enough for every turn.
    pub fn turned(&self, thread: usize, now_ms: i64) {
        if let Some(thread) = self.threads.get(thread) {
            thread.turned_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    /// Sets the report of a thread. To be called when it changes.
    pub fn report(&self, thread: usize, report: ThreadReport) {
        if let Some(thread) = self.threads.get(thread) {
            *lock(&thread.report) = Some(report);
        }
    }

    /// Sets the health of the view.
    pub fn set_redis(&self, redis: RedisHealth) {
        *lock(&self.redis) = redis;
    }

    /// Sets the state of the group.
    pub fn set_group(&self, group: GroupHealth) {
        *lock(&self.group) = group;
    }

    /// Sets the error that ends the process. The first one is kept.
    pub fn set_fatal(&self, message: impl Into<String>) {
        lock(&self.fatal).get_or_insert(message.into());
    }

    /// The process is stopping: it stays live, but is not ready.
    pub fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// The liveness probe. A process that fails it should be restarted.
    #[must_use]
    pub fn live(&self, now_ms: i64) -> ProbeResult {
        let mut reasons: Vec<String> = lock(&self.fatal).iter().cloned().collect();
        for (number, thread) in self.threads.iter().enumerate() {
            let idle_ms = now_ms.saturating_sub(thread.turned_ms.load(Ordering::Relaxed));
            if idle_ms > MAX_TURN_MS {
                reasons.push(format!(
                    "stream thread {number} is stuck: its loop has not run for {} s",
                    idle_ms / 1_000
                ));
            }
        }
        self.probe_result(reasons)
    }

    /// The readiness probe: whether all shards are restored and run, Kafka and Redis are
    /// reachable, and each partition of the group has an owner.
    #[must_use]
    pub fn ready(&self, now_ms: i64) -> ProbeResult {
        let mut reasons = self.live(now_ms).reasons;
        if self.stopping.load(Ordering::Relaxed) {
            reasons.push("the process is stopping".to_owned());
        }
        let group = lock(&self.group).clone();
        for (number, thread) in self.threads.iter().enumerate() {
            let report = lock(&thread.report).clone().unwrap_or_default();
            // With the consumer protocol, a surplus member gets no assignment, so the
            // coordinator's list of members decides.
            let heard = report.heard || group.spare.contains(&number);
            if !heard && report.kafka_error.is_none() {
                reasons.push(format!(
                    "stream thread {number} has no partition assignment from the consumer group yet"
                ));
            }
            reasons.extend(unready(number, &report));
        }
        reasons.extend(group.trouble);
        match &*lock(&self.redis) {
            RedisHealth::Available => {}
            RedisHealth::Connecting => reasons.push("Redis has not answered yet".to_owned()),
            RedisHealth::Unavailable(reason) => {
                reasons.push(format!("Redis is unavailable: {reason}"));
            }
            RedisHealth::Refusing(reason) => {
                reasons.push(format!("Redis refuses writes: {reason}"));
            }
            RedisHealth::OfAnotherGroup(other) => reasons.push(format!(
                "the keys under redis.prefix belong to group {other:?}: this process writes \
                 nothing to Redis. Set another redis.prefix, or start with --take-view-from {other}"
            )),
        }
        self.probe_result(reasons)
    }

    fn probe_result(&self, reasons: Vec<String>) -> ProbeResult {
        ProbeResult {
            ok: reasons.is_empty(),
            reasons,
            threads: self.threads.iter().map(|thread| lock(&thread.report).clone()).collect(),
            redis: lock(&self.redis).name(),
        }
    }
}

fn unready(number: usize, report: &ThreadReport) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Some(error) = &report.kafka_error {
        reasons.push(format!("stream thread {number} cannot reach Kafka: {error}"));
    }
    reasons.extend(report.open_transactions.iter().map(|open| {
        format!(
            "stream thread {number}: a producer's transaction is open on {open}. Records behind it \
             cannot be read, and no device of the partition expires. Find the transaction with \
             kafka-transactions.sh find-hanging and abort it"
        )
    }));
    reasons.extend(report.stopped_inputs.iter().map(|stopped| {
        format!(
            "stream thread {number}: the reading of {stopped} has stopped: more than \
             dead_letters.max_share of the last minute's records became dead letters. Fix the \
             producer, then restart with a larger dead_letters.max_share, or with 1"
        )
    }));
    if report.waiting > 0 {
        reasons.push(format!(
            "stream thread {number}: {} of {} shards wait until all three inputs are assigned",
            report.waiting, report.assigned
        ));
    }
    if report.restoring > 0 {
        reasons.push(format!(
            "stream thread {number}: {} of {} shards are being restored",
            report.restoring, report.assigned
        ));
    }
    if reasons.is_empty() && report.running < report.assigned {
        reasons.push(format!(
            "stream thread {number}: only {} of {} shards are running",
            report.running, report.assigned
        ));
    }
    reasons
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A healthy process with two threads.
    pub(in crate::admin) fn all_well() -> Health {
        let health = Health::new(2, 0);
        for thread in 0..2 {
            let report = ThreadReport {
                heard: true,
                assigned: 3,
                running: 3,
                near_head: true,
                ..Default::default()
            };
            health.report(thread, report);
        }
        health.set_redis(RedisHealth::Available);
        health
    }

    #[test]
    fn a_stuck_loop_is_not_live() {
        let health = all_well();
        assert!(health.live(MAX_TURN_MS).ok);
        health.turned(0, 10_000);
        let probe = health.live(MAX_TURN_MS + 1);
        assert!(!probe.ok);
        assert_eq!(probe.reasons, ["stream thread 1 is stuck: its loop has not run for 30 s"]);
    }

    #[test]
    fn not_ready_before_assignment_and_restore() {
        let health = Health::new(1, 0);
        assert!(health.live(0).ok);
        let reasons = health.ready(0).reasons;
        assert_eq!(
            reasons,
            [
                "stream thread 0 has no partition assignment from the consumer group yet",
                "Redis has not answered yet"
            ]
        );
        health.set_redis(RedisHealth::Available);
        let mut report = ThreadReport {
            heard: true,
            assigned: 4,
            waiting: 1,
            restoring: 2,
            running: 1,
            ..Default::default()
        };
        health.report(0, report.clone());
        assert_eq!(health.ready(0).reasons.len(), 2);
        report.waiting = 0;
        report.restoring = 0;
        health.report(0, report.clone());
        assert_eq!(health.ready(0).reasons, ["stream thread 0: only 1 of 4 shards are running"]);
        report.running = 4;
        health.report(0, report);
        assert!(health.ready(0).ok);
        // A spare thread without shards is ready.
        health.report(0, ThreadReport { heard: true, ..Default::default() });
        assert!(health.ready(0).ok);
    }

    #[test]
    fn a_surplus_thread_without_assignment_is_ready() {
        let health = all_well();
        health.report(1, ThreadReport::default());
        let unheard = ["stream thread 1 has no partition assignment from the consumer group yet"];
        assert_eq!(health.ready(0).reasons, unheard);
        health.set_group(GroupHealth { spare: [0].into(), trouble: None });
        assert_eq!(health.ready(0).reasons, unheard);
        health.set_group(GroupHealth { spare: [1].into(), trouble: None });
        assert!(health.ready(0).ok);
    }

    #[test]
    fn a_kafka_error_replaces_the_missing_assignment_while_it_lasts() {
        let health = all_well();
        let kafka_error = Some("all brokers are down".to_owned());
        health.report(1, ThreadReport { kafka_error, ..Default::default() });
        let reasons = health.ready(0).reasons;
        assert_eq!(reasons, ["stream thread 1 cannot reach Kafka: all brokers are down"]);
        health.report(1, ThreadReport::default());
        let reasons = health.ready(0).reasons;
        assert_eq!(
            reasons,
            ["stream thread 1 has no partition assignment from the consumer group yet"]
        );
    }

    #[test]
    fn a_partition_without_owner_makes_unready_but_not_dead() {
        let health = all_well();
        let trouble = Some("nobody has partition 2".to_owned());
        health.set_group(GroupHealth { trouble, ..Default::default() });
        assert_eq!(health.ready(0).reasons, ["nobody has partition 2"]);
        assert!(health.live(0).ok);
    }

    #[test]
    fn unreachable_dependencies_make_unready_but_not_dead() {
        let health = all_well();
        assert!(health.ready(0).ok);
        health.set_redis(RedisHealth::Unavailable("connection refused".to_owned()));
        let probe = health.ready(0);
        assert_eq!(probe.reasons, ["Redis is unavailable: connection refused"]);
        assert_eq!(probe.redis, "unavailable");
        assert!(health.live(0).ok);

        let health = all_well();
        let kafka_error = Some("all brokers are down".to_owned());
        health.report(1, ThreadReport { kafka_error, ..Default::default() });
        assert!(!health.ready(0).ok && health.live(0).ok);

        let health = all_well();
        health.set_stopping();
        assert!(!health.ready(0).ok && health.live(0).ok);

        let health = all_well();
        health.set_fatal("first");
        health.set_fatal("second");
        assert_eq!(health.live(0).reasons, ["first"]);
    }
}
