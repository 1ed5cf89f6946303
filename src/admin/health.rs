//! How the process is. The loop of each stream thread, and the view, tell
//! [`Health`]; it judges when it is asked. Time comes from the caller's clock.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use serde::Serialize;

use crate::error::lock;

/// A loop that has not turned for longer than this is stuck.
pub const MAX_TURN_MS: i64 = 30_000;

/// How the process is, as its parts have told.
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
    /// When its loop last came round, on the monotonic clock.
    turned_ms: AtomicI64,
    /// `None` until its loop has told.
    report: Mutex<Option<ThreadReport>>,
}

/// What a stream thread tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ThreadReport {
    /// Whether the group has given the thread its partitions, or told it that
    /// there are none.
    pub heard: bool,
    /// Shards of which at least one input is assigned.
    pub assigned: usize,
    /// Of these, those that lack an input (rule R6).
    pub waiting: usize,
    /// Of these, those that are being restored.
    pub restoring: usize,
    /// Of these, those that run.
    pub running: usize,
    /// Whether every running shard is near the end of its inputs.
    pub near_head: bool,
    /// Transactions of producers that have been open on the inputs for long.
    pub open_transactions: Vec<String>,
    /// Inputs that are read no further, since too many of their records became dead
    /// letters.
    pub stopped_inputs: Vec<String>,
    /// Why Kafka cannot be reached, if it cannot.
    pub kafka_error: Option<String>,
}

/// How the view is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisHealth {
    /// Nothing was heard of it yet.
    Connecting,
    /// It answers.
    Available,
    /// It does not, for this reason.
    Unavailable(String),
    /// It answers, and refuses what we write, for this reason.
    Refusing(String),
    /// The keys under our prefix are this other group's: nothing is written.
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

/// How the group is, as it says itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupHealth {
    /// The threads that it knows, and has no partition for.
    pub spare: BTreeSet<usize>,
    /// What is wrong with it.
    pub trouble: Option<String>,
}

/// The answer to a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Whether all is well.
    pub ok: bool,
    /// What is not.
    pub reasons: Vec<String>,
    /// What each stream thread told last.
    pub threads: Vec<Option<ThreadReport>>,
    /// How the view is.
    pub redis: &'static str,
}

impl Health {
    /// The health of a process of this many stream threads, all of which are
    /// taken to have turned `now`.
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

    /// A thread's loop came round. Cheap: for every turn.
    pub fn turned(&self, thread: usize, now_ms: i64) {
        if let Some(thread) = self.threads.get(thread) {
            thread.turned_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    /// How a thread is. To be told when it changes.
    pub fn report(&self, thread: usize, report: ThreadReport) {
        if let Some(thread) = self.threads.get(thread) {
            *lock(&thread.report) = Some(report);
        }
    }

    /// How the view is.
    pub fn set_redis(&self, redis: RedisHealth) {
        *lock(&self.redis) = redis;
    }

    /// What the group said last.
    pub fn set_group(&self, group: GroupHealth) {
        *lock(&self.group) = group;
    }

    /// Something that ends the process. The first one stays.
    pub fn set_fatal(&self, message: impl Into<String>) {
        lock(&self.fatal).get_or_insert(message.into());
    }

    /// The process was asked to end: it is well, and wants no more work.
    pub fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether the process works at all: if not, it had better be restarted.
    #[must_use]
    pub fn live(&self, now_ms: i64) -> Verdict {
        let mut reasons: Vec<String> = lock(&self.fatal).iter().cloned().collect();
        for (number, thread) in self.threads.iter().enumerate() {
            let idle_ms = now_ms.saturating_sub(thread.turned_ms.load(Ordering::Relaxed));
            if idle_ms > MAX_TURN_MS {
                reasons.push(format!(
                    "stream thread {number} has not come round its loop for {} s",
                    idle_ms / 1_000
                ));
            }
        }
        self.verdict(reasons)
    }

    /// Whether the process does all its work: its shards are restored, Kafka
    /// and Redis reachable, and no partition of the group is left lying.
    #[must_use]
    pub fn ready(&self, now_ms: i64) -> Verdict {
        let mut reasons = self.live(now_ms).reasons;
        if self.stopping.load(Ordering::Relaxed) {
            reasons.push("the process is stopping".to_owned());
        }
        let group = lock(&self.group).clone();
        for (number, thread) in self.threads.iter().enumerate() {
            let report = lock(&thread.report).clone().unwrap_or_default();
            // With the consumer protocol, a thread that gets nothing is told
            // nothing: the group knows it, and has nothing for it.
            let heard = report.heard || group.spare.contains(&number);
            if !heard && report.kafka_error.is_none() {
                reasons.push(format!("stream thread {number} has not heard from the group yet"));
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
                reasons.push(format!("Redis takes no writes: {reason}"));
            }
            RedisHealth::OfAnotherGroup(other) => reasons.push(format!(
                "the keys under redis.prefix belong to group {other:?}, so nothing is written to \
                 Redis: set another redis.prefix, or start with --take-view-from {other}"
            )),
        }
        self.verdict(reasons)
    }

    fn verdict(&self, reasons: Vec<String>) -> Verdict {
        Verdict {
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
            "stream thread {number}: a producer's transaction is open on {open}. What is behind it \
             cannot be read, and nobody is expired meanwhile: find it with kafka-transactions.sh \
             find-hanging, and abort it"
        )
    }));
    reasons.extend(report.stopped_inputs.iter().map(|stopped| {
        format!(
            "stream thread {number}: the reading of {stopped} has stopped: more than \
             dead_letters.max_share of the last minute's records became dead letters. Mend the \
             producer, then restart with a greater dead_letters.max_share, or with 1"
        )
    }));
    if report.waiting > 0 {
        reasons.push(format!(
            "stream thread {number}: {} of {} shards wait for the rest of their inputs",
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
            "stream thread {number}: {} of {} shards run",
            report.running, report.assigned
        ));
    }
    reasons
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Two threads that do all their work.
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
    fn a_loop_that_does_not_turn_is_not_live() {
        let health = all_well();
        assert!(health.live(MAX_TURN_MS).ok);
        health.turned(0, 10_000);
        let verdict = health.live(MAX_TURN_MS + 1);
        assert!(!verdict.ok);
        assert_eq!(verdict.reasons, ["stream thread 1 has not come round its loop for 30 s"]);
    }

    #[test]
    fn not_ready_until_the_group_has_spoken_and_all_is_restored() {
        let health = Health::new(1, 0);
        assert!(health.live(0).ok);
        let reasons = health.ready(0).reasons;
        assert_eq!(
            reasons,
            ["stream thread 0 has not heard from the group yet", "Redis has not answered yet"]
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
        assert_eq!(health.ready(0).reasons, ["stream thread 0: 1 of 4 shards run"]);
        report.running = 4;
        health.report(0, report);
        assert!(health.ready(0).ok);
        // A spare has nothing to do, and is ready to.
        health.report(0, ThreadReport { heard: true, ..Default::default() });
        assert!(health.ready(0).ok);
    }

    #[test]
    fn a_thread_that_the_group_has_nothing_for_is_ready_though_nobody_told_it() {
        let health = all_well();
        health.report(1, ThreadReport::default());
        let unheard = ["stream thread 1 has not heard from the group yet"];
        assert_eq!(health.ready(0).reasons, unheard);
        health.set_group(GroupHealth { spare: [0].into(), trouble: None });
        assert_eq!(health.ready(0).reasons, unheard);
        health.set_group(GroupHealth { spare: [1].into(), trouble: None });
        assert!(health.ready(0).ok);
    }

    #[test]
    fn what_kept_a_thread_from_kafka_is_told_instead_of_the_silence_and_while_it_lasts() {
        let health = all_well();
        let kafka_error = Some("all brokers are down".to_owned());
        health.report(1, ThreadReport { kafka_error, ..Default::default() });
        let reasons = health.ready(0).reasons;
        assert_eq!(reasons, ["stream thread 1 cannot reach Kafka: all brokers are down"]);
        health.report(1, ThreadReport::default());
        let reasons = health.ready(0).reasons;
        assert_eq!(reasons, ["stream thread 1 has not heard from the group yet"]);
    }

    #[test]
    fn a_partition_that_is_left_lying_makes_everybody_unready_and_nobody_dead() {
        let health = all_well();
        let trouble = Some("nobody has partition 2".to_owned());
        health.set_group(GroupHealth { trouble, ..Default::default() });
        assert_eq!(health.ready(0).reasons, ["nobody has partition 2"]);
        assert!(health.live(0).ok);
    }

    #[test]
    fn what_is_unreachable_makes_unready_and_not_dead() {
        let health = all_well();
        assert!(health.ready(0).ok);
        health.set_redis(RedisHealth::Unavailable("connection refused".to_owned()));
        let verdict = health.ready(0);
        assert_eq!(verdict.reasons, ["Redis is unavailable: connection refused"]);
        assert_eq!(verdict.redis, "unavailable");
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
