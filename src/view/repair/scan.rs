//! The keyspace scan: it finds orphaned keys (rule V6). Each process has one scan, with
//! one pass per `redis.refresh_interval`. It reads the tokens of the keys; the loop
//! decides whether a key has a row.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use redis::{Cmd, Value};

use crate::config::milliseconds;
use crate::error::lock;
use crate::shard::Status;
use crate::stream_thread::ports::{FoundKey, FoundSubject};
use crate::view::core::answer::{Answer, pairs};
use crate::view::core::encode::Encoder;
use crate::view::core::keys::{Named, Token};
use crate::view::core::owner::{Group, are_ours};
use crate::view::core::port::Server;
use crate::view::core::shared::Shared;
use crate::view::core::stats::ViewStats;

/// The minimum time between two steps.
const STEP_MS: i64 = 100;
/// Keys per step. The maximum limits the rate to 20,000 keys a second.
const KEYS_PER_STEP: std::ops::RangeInclusive<i64> = 100..=2_000;
/// Keys per step of a pass after a loss, which is not spread over the interval.
const KEYS_AFTER_LOSS: i64 = 1_000;
/// Member sets per step, and members read of each.
const SETS_PER_STEP: usize = 32;
const MEMBERS_PER_STEP: usize = 100;
/// The wait while this process owns no partition.
const IDLE_MS: i64 = 500;

/// The views of one process, which share one scan.
#[derive(Default)]
pub struct Peers {
    views: Mutex<Vec<Weak<Shared>>>,
    /// A view lost data: old keys may have come back.
    again: AtomicBool,
}

impl Peers {
    /// Adds a view.
    pub fn add(&self, view: &Arc<Shared>) {
        lock(&self.views).push(Arc::downgrade(view));
    }

    /// Restarts the scan, after a view lost data.
    pub fn scan_again(&self) {
        self.again.store(true, Ordering::Relaxed);
        // Another view may run the scan, and its worker may be waiting.
        self.views().iter().for_each(|view| view.changed.notify_all());
    }

    fn views(&self) -> Vec<Arc<Shared>> {
        lock(&self.views).iter().filter_map(Weak::upgrade).collect()
    }

    fn any_holds(&self) -> bool {
        self.views().iter().any(|view| view.lock().holds_any())
    }

    fn holder(&self, partition: i32) -> Option<Arc<Shared>> {
        self.views().into_iter().find(|view| view.lock().holds(partition))
    }
}

/// The answer to one `SCAN`: the next cursor, if there is more, and the items.
type ScanPage = (Option<String>, Vec<Box<[u8]>>);

/// The position of a pass, which goes from server to server.
#[derive(Clone)]
struct Cursor {
    server: usize,
    cursor: String,
}

impl Cursor {
    /// The start of a server's keys; `None` after the last server.
    fn at(server: usize, servers: usize) -> Option<Cursor> {
        (server < servers).then(|| Cursor { server, cursor: "0".to_owned() })
    }
}

/// A member set to check.
struct Set {
    fleet: Box<str>,
    partition: i32,
    status: Status,
    cursor: String,
}

/// The keyspace scan.
pub struct Scan {
    peers: Arc<Peers>,
    interval_ms: i64,
    pattern: String,
    /// The number of partitions of the group. Keys of higher partitions are orphaned.
    partitions: i32,
    /// The position; `None` between passes.
    cursor: Option<Cursor>,
    started_ms: i64,
    next_ms: i64,
    keys_per_step: i64,
    step_ms: i64,
    sets: VecDeque<Set>,
    /// This pass, or the next, follows a loss and is fast.
    hurry: bool,
    /// The server refuses `SCAN`, and that was logged.
    refused: bool,
}

impl Scan {
    /// A scan every `interval`, for all of `peers`.
    #[must_use]
    pub fn new(peers: Arc<Peers>, interval: Duration, group: &Group, encoder: &Encoder) -> Scan {
        Scan {
            peers,
            interval_ms: milliseconds(interval).max(1),
            pattern: encoder.keys().pattern(),
            partitions: group.partitions,
            cursor: None,
            started_ms: 0,
            next_ms: 0,
            keys_per_step: *KEYS_PER_STEP.start(),
            step_ms: STEP_MS,
            sets: VecDeque::new(),
            // The keys of the former group should disappear soon.
            hurry: group.take_view_from.is_some(),
            refused: false,
        }
    }

    /// The time until the next step.
    #[must_use]
    pub fn due_in_ms(&self, now_ms: i64) -> i64 {
        if self.peers.again.load(Ordering::Relaxed) {
            return 0;
        }
        (self.next_ms - now_ms).max(0)
    }

    /// Runs a step, if one is due.
    ///
    /// # Errors
    /// When the connection was lost.
    pub async fn step(
        &mut self,
        encoder: &Encoder,
        server: &mut impl Server,
        stats: &ViewStats,
        now_ms: i64,
    ) -> Result<(), String> {
        if self.peers.again.swap(false, Ordering::Relaxed) {
            self.cursor = None;
            self.sets.clear();
            self.hurry = true;
            self.next_ms = now_ms;
        }
        if now_ms < self.next_ms {
            return Ok(());
        }
        if !self.peers.any_holds() {
            self.next_ms = now_ms + IDLE_MS;
            return Ok(());
        }
        if self.cursor.is_none() && self.sets.is_empty() {
            self.started_ms = now_ms;
            self.cursor = Cursor::at(0, server.servers());
        }
        if !self.sets.is_empty() {
            self.next_ms = now_ms + self.step_ms;
            self.look_at_sets(encoder, server, stats).await?;
        } else if let Some(cursor) = self.cursor.take()
            && let Err(message) = self.look_at_keys(&cursor, encoder, server, stats, now_ms).await
        {
            // Repeat the step: what it found has not been reported.
            self.cursor = Some(cursor);
            return Err(message);
        }
        if self.cursor.is_none() && self.sets.is_empty() {
            stats.sweep.scans.fetch_add(1, Ordering::Relaxed);
            self.hurry = false;
            self.next_ms = now_ms.max(self.started_ms.saturating_add(self.interval_ms));
        }
        Ok(())
    }

    /// Sets the pace by the number of keys that a server has now, so that a pass takes
    /// most of its interval, even if the number changes meanwhile.
    async fn pace(&mut self, number: usize, server: &mut impl Server) -> Result<(), String> {
        if self.hurry {
            self.keys_per_step = KEYS_AFTER_LOSS;
            self.step_ms = STEP_MS;
            return Ok(());
        }
        let keys = match server.ask_server(number, &redis::cmd("DBSIZE")).await? {
            Ok(Value::Int(keys)) => keys,
            // Without the right to ask, assume many.
            _ => 1_000_000,
        };
        let servers = i64::try_from(server.servers()).unwrap_or(i64::MAX).max(1);
        let budget_ms = (self.interval_ms / 10 * 9 / servers).max(1);
        self.keys_per_step = (keys.saturating_mul(STEP_MS) / budget_ms)
            .clamp(*KEYS_PER_STEP.start(), *KEYS_PER_STEP.end());
        let steps = keys / self.keys_per_step + 1;
        self.step_ms = (budget_ms / steps).max(STEP_MS);
        Ok(())
    }

    async fn look_at_keys(
        &mut self,
        Cursor { server: number, cursor }: &Cursor,
        encoder: &Encoder,
        server: &mut impl Server,
        stats: &ViewStats,
        now_ms: i64,
    ) -> Result<(), String> {
        if *number >= server.servers() {
            // The cluster has fewer nodes now: the pass is complete.
            return Ok(());
        }
        self.pace(*number, server).await?;
        self.next_ms = now_ms + self.step_ms;
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(&self.pattern).arg("COUNT").arg(self.keys_per_step);
        let answer = server.ask_server(*number, &scan).await?;
        let Some((next, keys)) = self.page(answer, stats) else { return Ok(()) };
        self.cursor = match next {
            Some(cursor) => Some(Cursor { server: *number, cursor }),
            None => Cursor::at(number + 1, server.servers()),
        };
        let mut named = Vec::new();
        let mut reads = Vec::new();
        for key in keys {
            let Ok(key) = std::str::from_utf8(&key) else { continue };
            match encoder.keys().named(key) {
                None => {}
                Some(Named::Members { fleet, partition, status }) => {
                    self.sets.push_back(Set { fleet, partition, status, cursor: "0".to_owned() });
                }
                Some(of) => {
                    reads.push(redis::cmd("HGETALL").arg(key).to_owned());
                    reads.push(redis::cmd("PTTL").arg(key).to_owned());
                    named.push(of);
                }
            }
        }
        let answers = server.round_trip(&reads).await?;
        let mut found: BTreeMap<i32, Vec<FoundKey>> = BTreeMap::new();
        let mut beyond = Vec::new();
        for (of, answers) in named.into_iter().zip(answers.chunks(2)) {
            if let [hash, ttl] = answers
                && let Some((partition, key)) = orphan(of, hash, ttl)
            {
                match partition < self.partitions {
                    true => found.entry(partition).or_default().push(key),
                    false => beyond.push(encoder.remove(partition, &key)),
                }
            }
        }
        if !beyond.is_empty() && are_ours([], encoder, server).await? {
            add_removed(&server.round_trip(&beyond).await?, stats);
        }
        for (partition, keys) in found {
            if let Some(view) = self.peers.holder(partition) {
                view.lock().found(partition, keys);
            }
        }
        Ok(())
    }

    async fn look_at_sets(
        &mut self,
        encoder: &Encoder,
        server: &mut impl Server,
        stats: &ViewStats,
    ) -> Result<(), String> {
        let mut sets: Vec<Set> = self.sets.drain(..SETS_PER_STEP.min(self.sets.len())).collect();
        sets.retain(|set| {
            set.partition >= self.partitions || self.peers.holder(set.partition).is_some()
        });
        let partitions: BTreeSet<i32> = sets.iter().map(|set| set.partition).collect();
        if sets.is_empty() || !are_ours(partitions, encoder, server).await? {
            return Ok(());
        }
        let key = |set: &Set| encoder.keys().members(&set.fleet, set.partition, set.status);
        // Leftovers: member sets are turned off, or another group had more partitions.
        let (sets, leftover): (Vec<Set>, Vec<Set>) = sets
            .into_iter()
            .partition(|set| encoder.keeps_members() && set.partition < self.partitions);
        let unlink = |set: &Set| redis::cmd("UNLINK").arg(key(set)).to_owned();
        let unlinks: Vec<Cmd> = leftover.iter().map(unlink).collect();
        add_removed(&server.round_trip(&unlinks).await?, stats);
        let read = |set: &Set| {
            let mut read = redis::cmd("SSCAN");
            read.arg(key(set)).arg(&set.cursor).arg("COUNT").arg(MEMBERS_PER_STEP);
            read
        };
        let reads: Vec<Cmd> = sets.iter().map(read).collect();
        let answers = server.round_trip(&reads).await?;
        let mut culls = Vec::new();
        for (mut set, answer) in sets.into_iter().zip(answers) {
            // A key that is not a set is replaced by the next write to it.
            let Some((next, ids)) = parse(answer.ok().as_ref()) else { continue };
            if !ids.is_empty() {
                culls.push(encoder.cull(&set.fleet, set.partition, set.status, &ids));
            }
            if let Some(next) = next {
                set.cursor = next;
                self.sets.push_back(set);
            }
        }
        add_removed(&server.round_trip(&culls).await?, stats);
        Ok(())
    }

    fn page(&mut self, answer: Answer, stats: &ViewStats) -> Option<ScanPage> {
        match answer {
            Ok(value) => parse(Some(&value)),
            Err(message) => {
                stats.sweep.failed.fetch_add(1, Ordering::Relaxed);
                if !std::mem::replace(&mut self.refused, true) {
                    tracing::warn!(
                        error = message,
                        "Redis refuses SCAN: orphaned keys are neither found nor removed"
                    );
                }
                None
            }
        }
    }
}

fn add_removed(answers: &[Answer], stats: &ViewStats) {
    for answer in answers {
        match answer {
            Ok(Value::Int(removed)) => {
                let removed = u64::try_from(*removed).unwrap_or_default();
                stats.sweep.removed.fetch_add(removed, Ordering::Relaxed)
            }
            _ => stats.sweep.failed.fetch_add(1, Ordering::Relaxed),
        };
    }
}

/// Parses the answer to a `SCAN`.
fn parse(value: Option<&Value>) -> Option<ScanPage> {
    let Some(Value::Array(parts)) = value else { return None };
    let [Value::BulkString(cursor), Value::Array(items)] = &parts[..] else { return None };
    let cursor = String::from_utf8_lossy(cursor).into_owned();
    let items = items.iter().filter_map(|item| match item {
        Value::BulkString(bytes) => Some(bytes.as_slice().into()),
        _ => None,
    });
    Some(((cursor != "0").then_some(cursor), items.collect()))
}

/// A hash that may be orphaned, and the partition whose owner decides. `None` for an
/// empty hash that expires by itself.
fn orphan(of: Named, hash: &Answer, ttl: &Answer) -> Option<(i32, FoundKey)> {
    let held = pairs(hash.as_ref().ok()?)?;
    let text = std::str::from_utf8(held.get("token".as_bytes())?).ok()?;
    let expires = matches!(ttl, Ok(Value::Int(ms)) if *ms > 0);
    let shows = |status: &Status| {
        held.get(status.wire_name().as_bytes()).is_some_and(|count| *count != b"0")
    };
    let (partition, subject, empty) = match of {
        Named::Device(device) => {
            let empty = !held.contains_key("status".as_bytes());
            (Token::parse(text)?.partition, FoundSubject::Device(device), empty)
        }
        Named::Fleet(fleet, partition) => {
            let empty = !Status::ALL.iter().any(shows);
            (partition, FoundSubject::Fleet(fleet.into()), empty)
        }
        Named::Members { .. } => return None,
    };
    (!(empty && expires)).then(|| (partition, FoundKey { subject, token: text.into() }))
}
