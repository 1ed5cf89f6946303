//! What everything simulated shares: time, luck, the cluster, Redis, the
//! clients, and a trace of it all.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use device_status::shard::Timestamp;
use device_status::stream_thread::ports::Clock;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::client::Client;
use crate::kafka::{Kafka, TopicPartition};
use crate::redis::Redis;

pub type Shared = Rc<RefCell<Sim>>;

/// 2026-01-01T00:00:00Z: where simulated time begins.
pub const START_MS: i64 = 1_767_225_600_000;

/// How many lines of a trace are kept.
const TRACE_KEPT: usize = 40_000;

pub struct Sim {
    /// True time, and the broker's.
    pub now: i64,
    pub random: Random,
    pub kafka: Kafka,
    pub redis: Redis,
    pub clients: Vec<Client>,
    pub faults: Faults,
    /// Nobody reaches the brokers until then.
    pub brokers_away_until: i64,
    /// Partitions that nobody can read or ask about until then.
    pub leaderless: BTreeMap<TopicPartition, i64>,
    /// From when until when somebody did not reach the brokers, at most; or heard
    /// nothing of an input for too long.
    pub unreachable: Vec<(i64, i64)>,
    pub trace: Trace,
}

/// How likely things go wrong. Zero everywhere: they do not.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    pub crash_per_s: f64,
    pub pause_per_s: f64,
    pub leave_per_s: f64,
    pub brokers_away_per_s: f64,
    /// Of each partition of each input.
    pub leaderless_per_s: f64,
    pub cut_off_per_s: f64,
    pub clock_step_per_s: f64,
    pub redis_away_per_s: f64,
    pub redis_emptied_per_s: f64,
    pub redis_set_back_per_s: f64,
    /// Of somebody who changes keys by hand.
    pub redis_meddled_per_s: f64,
    pub compaction_per_s: f64,
    pub retention_per_s: f64,
    /// While the group has no members.
    pub offsets_lost_per_s: f64,
    /// Of any step of a commit.
    pub crash_in_commit: f64,
    /// Of a commit with changes.
    pub leave_after_commit: f64,
    /// The same: the group gives the member's partitions to others.
    pub evicted_after_commit: f64,
    /// Of a commit.
    pub refused: f64,
    pub request_lost: f64,
    pub answer_lost: f64,
    pub offsets_unanswered: f64,
    /// Of a round with Redis.
    pub redis_round_lost: f64,
    pub redis_slow: f64,
    pub crash_in_redis: f64,
    /// Of any step of a commit, a question or a round with Redis.
    pub slow: f64,
    pub question_fails: f64,
    /// Up to how long the answer to any question is on its way, on top.
    pub answers_late_ms: i64,
    /// Of the beginning and the end of a restore's reading; only in stories.
    pub restore_refused: f64,
}

impl Sim {
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        let now = self.now;
        self.trace.note(now, line);
    }

    /// Whether a client reaches the brokers.
    pub fn reachable(&self, client: usize) -> bool {
        self.now >= self.brokers_away_until && self.now >= self.clients[client].cut_off_until
    }

    /// How long a request takes.
    pub fn latency(&mut self) -> i64 {
        let slow = self.faults.slow;
        if self.random.chance(slow) {
            self.random.between(200, 4_000)
        } else {
            self.random.between(0, 12)
        }
    }
}

/// Luck from a seed.
pub struct Random(ChaCha8Rng);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(ChaCha8Rng::seed_from_u64(seed))
    }

    /// From `from` to `to`, both included.
    pub fn between(&mut self, from: i64, to: i64) -> i64 {
        self.0.random_range(from..=to.max(from))
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end.max(1))
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.0.random_bool(probability.min(1.0))
    }

    pub fn unit(&mut self) -> f64 {
        self.0.random_range(0.0..1.0)
    }

    pub fn number(&mut self) -> u64 {
        self.0.random()
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end + 1));
        }
    }
}

/// What happened, for people; and its hash, for the test of determinism.
#[derive(Default)]
pub struct Trace {
    pub on: bool,
    pub lines: VecDeque<String>,
    pub hash: u64,
}

impl Trace {
    pub fn note(&mut self, now: i64, line: impl FnOnce() -> String) {
        if !self.on {
            return;
        }
        let ms = now - START_MS;
        let line = format!("{:>5}.{:03} {}", ms / 1_000, ms % 1_000, line());
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.lines.len() >= TRACE_KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }
}

/// A process's clocks, moved by the world.
#[derive(Clone, Default)]
pub struct SimClock {
    pub monotonic_ms: Arc<AtomicI64>,
    pub wall_ms: Arc<AtomicI64>,
}

impl Clock for SimClock {
    fn monotonic_ms(&self) -> i64 {
        self.monotonic_ms.load(Ordering::Relaxed)
    }

    fn wall(&self) -> Timestamp {
        Timestamp(self.wall_ms.load(Ordering::Relaxed))
    }
}
