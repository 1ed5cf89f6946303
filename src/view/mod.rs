//! The view: the current status of every device in Redis. It is written after each
//! commit and can be rebuilt from the changelog. The core never reads it (rules V).
//!
//! ```text
//! loop ── View ──▶ state (backlog by device, marks, marker) ──▶ worker ──▶ Redis
//!      ◀─ events ─                                          ◀── answers ──
//! ```
//!
//! The loop's calls only touch memory. A separate thread, the worker, does the I/O:
//!
//! - It sends pipelines of scripts. Each script is a compare-and-set by fencing
//!   token on one hash (V2).
//! - After the writes it advances the marker of each partition (V4).
//! - In between it runs the sweep: it compares pages of committed rows with the
//!   server. It also scans the keyspace for orphaned keys (V6).
//!
//! docs/redis.md describes the keys.

mod core;
mod repair;
mod server;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::config::{Redis, milliseconds};
use crate::error::Fatal;
use crate::shard::{Timestamp, ViewWrite};
use crate::stream_thread::ports::{Clock, FoundKey, View, ViewEvent};

pub use self::core::stats::{Advice, SweepStats, ViewStats};
pub use self::core::{answer, keys, port, scripts};
pub use self::server::link::Backoff;
pub use self::server::{claim, read, turns};

use self::claim::{Gate, Group};
use self::core::encode::Encoder;
use self::core::keys::Keys;
use self::core::shared::Shared;
use self::core::state::State;
use self::core::task::Task;
use self::repair::scan::{Peers, Scan};
use self::server::access::Access;
use self::server::link::Link;
use self::server::worker::Worker;
use self::turns::Turns;

/// Tests the connection to Redis, for `config check --connect`. Returns a warning
/// where a usable server has a dangerous setting.
///
/// # Errors
/// When the server cannot be used; the message says what to do.
pub fn try_connection(redis: &Redis) -> Result<Option<String>, Fatal> {
    let access = Access::new(redis)?;
    let shown_url = access.shown();
    Link::new(access).connect().map_err(|error| {
        Fatal::unavailable(format!("cannot use Redis at {shown_url}: {error}. Check redis.url"))
    })
}

/// The view in Redis. Each stream thread has one.
pub struct RedisView {
    shared: Arc<Shared>,
}

impl RedisView {
    /// Starts the worker. It connects in the background, as soon as the server
    /// answers. `peers` are all views of this process. One of them `scans` the
    /// keyspace for orphaned keys, for all of them.
    ///
    /// # Errors
    /// When the URL is wrong, or the thread cannot be started. A server that does
    /// not answer is not an error.
    pub fn start(
        config: &Redis,
        group: &Group,
        clock: Arc<dyn Clock + Send + Sync>,
        peers: &Arc<Peers>,
        scans: bool,
    ) -> Result<RedisView, Fatal> {
        let link = Link::new(Access::new(config)?);
        let (view, turns) = RedisView::stepped(config, group, clock, peers, scans);
        let worker = Worker::new(turns, link, Gate::new(group.clone()));
        std::thread::Builder::new()
            .name("redis-view".to_owned())
            .spawn(move || worker.run())
            .map_err(|error| Fatal::internal(format!("cannot start the Redis thread: {error}")))?;
        Ok(view)
    }

    /// A view without a thread, for the simulation. The caller drives the returned
    /// turns against its own server.
    #[must_use]
    pub fn stepped(
        config: &Redis,
        group: &Group,
        clock: Arc<dyn Clock + Send + Sync>,
        peers: &Arc<Peers>,
        scans: bool,
    ) -> (RedisView, Turns) {
        let encoder = Encoder::new(&config.prefix, &group.name, config.fleet_members);
        let stats = Arc::new(ViewStats::default());
        let state = State::new(Keys::new(&config.prefix), &group.name, stats.clone());
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let shared = Arc::new(Shared { state, changed, stats, clock });
        peers.add(&shared);
        let scan = (scans && config.refresh_interval > Duration::ZERO)
            .then(|| Scan::new(peers.clone(), config.refresh_interval, group, &encoder));
        let turns = Turns::new(shared.clone(), encoder, scan, peers.clone());
        (RedisView { shared }, turns)
    }

    /// Counters and conditions, for metrics and readiness.
    #[must_use]
    pub fn stats(&self) -> Arc<ViewStats> {
        self.shared.stats.clone()
    }

    /// Writes the backlog for at most `within`, then stops the worker. Returns
    /// whether everything was written.
    pub fn close(self, within: Duration) -> bool {
        let now_ms = self.shared.clock.monotonic_ms();
        let close_at_ms = now_ms.saturating_add(milliseconds(within));
        let mut state = self.shared.lock();
        state.close_at_ms = Some(close_at_ms);
        self.shared.changed.notify_all();
        while !state.stopped {
            let left_ms = close_at_ms.saturating_sub(self.shared.clock.monotonic_ms());
            if left_ms <= 0 {
                break;
            }
            state = self.shared.wait(state, left_ms);
        }
        state.stopped && state.is_drained()
    }
}

impl Drop for RedisView {
    /// Tells the worker to stop after its current round. Does not wait for it,
    /// since an answer of the server may take seconds.
    fn drop(&mut self) {
        self.shared.lock().close_at_ms = Some(i64::MIN);
        self.shared.changed.notify_all();
    }
}

impl View for RedisView {
    fn ask_marker(&mut self, partition: i32) {
        self.shared.lock().ask(partition);
        self.shared.changed.notify_all();
    }

    fn take(&mut self, partition: i32, epoch: u64, applied: i64) {
        self.shared.lock().take(partition, epoch, applied);
        self.shared.changed.notify_all();
    }

    fn commit_begun(&mut self, partitions: impl Iterator<Item = i32>) {
        let monotonic_ms = self.shared.clock.monotonic_ms();
        let mut state = self.shared.lock();
        for partition in partitions {
            state.commit_begun(partition, monotonic_ms);
        }
    }

    fn write(
        &mut self,
        partition: i32,
        writes: Vec<ViewWrite>,
        applied: Option<i64>,
        now: Timestamp,
    ) {
        if writes.is_empty() && applied.is_none() {
            return;
        }
        let monotonic_ms = self.shared.clock.monotonic_ms();
        let mut state = self.shared.lock();
        state.partition(partition).write(writes, applied, now, monotonic_ms);
        state.count();
        drop(state);
        self.shared.changed.notify_all();
    }

    fn backlog(&self) -> usize {
        self.shared.stats.backlog.load(Ordering::Relaxed)
    }

    fn sweep(&mut self, partition: i32, page: Vec<ViewWrite>) {
        self.shared.lock().sweep(partition, Task::Compare(page));
        self.shared.changed.notify_all();
    }

    fn may_sweep(&self) -> bool {
        self.shared.lock().may_sweep()
    }

    fn remove(&mut self, partition: i32, keys: Vec<FoundKey>) {
        self.shared.lock().sweep(partition, Task::Remove(keys));
        self.shared.changed.notify_all();
    }

    fn release(&mut self, partition: i32) {
        self.shared.lock().release(partition);
        self.shared.changed.notify_all();
    }

    fn poll(&mut self, events: &mut Vec<ViewEvent>) {
        self.shared.lock().poll(events);
    }
}
