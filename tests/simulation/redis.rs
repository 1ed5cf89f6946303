//! A Redis that knows device-status's scripts, and the [`View`] that writes to
//! it: the production code of the view, a round at a time.

use std::collections::BTreeMap;

use device_status::shard::{Timestamp, ViewWrite};
use device_status::stream_thread::ports::{FoundKey, View, ViewEvent};
use device_status::view::rounds::Rounds;
use redis::{Arg, Cmd, Value};

use crate::sim::{Shared, Sim, SimClock};

pub type Hash = BTreeMap<String, String>;

/// The server.
#[derive(Default)]
pub struct Redis {
    pub keys: BTreeMap<String, Hash>,
    /// As a replica has it that lags behind.
    pub snapshot: BTreeMap<String, Hash>,
    pub away_until: i64,
    /// Counts its starts: connections end with it.
    pub incarnation: u64,
    /// Who did what nobody may.
    pub violation: Option<String>,
}

const MARKER: [&str; 5] = ["epoch", "applied", "sequence", "time_ms", "group"];
const GROUP: &str = "simulated";
const DEVICE: [&str; 11] = [
    "status",
    "connectivity",
    "display",
    "since_ms",
    "connectivity_since_ms",
    "heartbeat",
    "heartbeat_ms",
    "vpn",
    "progress",
    "fleet",
    "version",
];
const FLEET: [&str; 7] =
    ["online", "configuring", "updating", "offline", "post-provisioning", "inactive", "frozen"];

fn text(value: &str) -> Value {
    Value::BulkString(value.as_bytes().to_vec())
}

fn number(value: Option<&str>) -> i64 {
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// Whose partition a command writes to, and for which epoch.
fn writes(command: &Cmd) -> Option<(i32, u64)> {
    let argument = |index: usize| match command.args_iter().nth(index) {
        Some(Arg::Simple(bytes)) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    };
    if argument(0)? != "EVALSHA" {
        return None;
    }
    let (key, first) = (argument(3)?, argument(4)?);
    if let Some((_, partition)) = key.split_once("partition:") {
        return Some((partition.parse().ok()?, first.parse().ok()?));
    }
    let mut token = first.split(':');
    Some((token.next()?.parse().ok()?, token.next()?.parse().ok()?))
}

/// The epoch of a marker, as an answer tells it.
fn epoch_told(answer: &Value) -> Option<u64> {
    let Value::Array(fields) = answer else { return None };
    let told = match fields.first()? {
        Value::Int(0) => fields.get(1)?,
        Value::Int(_) => return None,
        first => first,
    };
    let Value::BulkString(bytes) = told else { return None };
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

impl Redis {
    /// Does what a command asks, as the scripts do.
    pub fn execute(&mut self, command: &Cmd) -> Value {
        let arguments: Vec<String> = command
            .args_iter()
            .map(|argument| match argument {
                Arg::Simple(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                _ => String::new(),
            })
            .collect();
        if arguments[0] == "HMGET" {
            return self.marker(&arguments[1]);
        }
        assert_eq!(arguments[0], "EVALSHA");
        let (key, rest) = (&arguments[3], &arguments[4..]);
        if key.contains("partition:") {
            if rest.len() == 3 { self.take(key, rest) } else { self.advance(key, rest) }
        } else {
            self.write(key, rest)
        }
    }

    fn marker(&self, key: &str) -> Value {
        let held = self.keys.get(key);
        let field = |name: &&str| held.and_then(|held| held.get(*name));
        let all = MARKER.iter().map(|name| field(name).map_or(Value::Nil, |value| text(value)));
        Value::Array(all.collect())
    }

    fn take(&mut self, key: &str, arguments: &[String]) -> Value {
        let held = self.keys.entry(key.to_owned()).or_default();
        let field = |name: &str| held.get(name).map(String::as_str);
        if let Some(group) = field("group").filter(|group| *group != arguments[2]) {
            return Value::Array(vec![Value::Int(2), text(group)]);
        }
        if let Some(epoch) = field("epoch")
            && number(Some(epoch)) > number(Some(&arguments[0]))
        {
            return Value::Array(vec![Value::Int(0), text(epoch)]);
        }
        let mut applied = arguments[1].clone();
        let mut time = field("time_ms").unwrap_or("0").to_owned();
        if number(field("applied")) < number(Some(&applied)) {
            applied = "0".to_owned();
        }
        if applied == "0" {
            time = "0".to_owned();
        }
        let values = [arguments[0].as_str(), &applied, "0", &time, &arguments[2]];
        *held = MARKER.iter().zip(values).map(|(k, v)| ((*k).to_owned(), v.to_owned())).collect();
        Value::Array(vec![Value::Int(1), text(&applied), text(&time)])
    }

    fn advance(&mut self, key: &str, arguments: &[String]) -> Value {
        let empty = Hash::default();
        let held = self.keys.get(key).unwrap_or(&empty);
        if held.get("group").is_some_and(|group| *group != arguments[4]) {
            return self.marker(key);
        }
        let now: Vec<&str> =
            MARKER[..4].iter().map(|name| held.get(*name).map_or("", String::as_str)).collect();
        let now = now.join(":");
        if !arguments[5..].contains(&now) {
            return self.marker(key);
        }
        let fields = MARKER.iter().zip(arguments).map(|(k, v)| ((*k).to_owned(), v.clone()));
        let fields = fields.collect();
        self.keys.insert(key.to_owned(), fields);
        Value::Int(1)
    }

    fn write(&mut self, key: &str, arguments: &[String]) -> Value {
        let held = self.keys.entry(key.to_owned()).or_default();
        let token = held.get("token").cloned();
        if let Some(token) = &token
            && order_of(token) > (number(Some(&arguments[1])), number(Some(&arguments[2])))
        {
            return Value::Int(0);
        }
        // Not by what the script says: by what it does.
        if token.as_deref().is_some_and(|token| order_of(token) > order_of(&arguments[0])) {
            let what = format!("{key} goes back from {token:?} to {}", arguments[0]);
            self.violation.get_or_insert(what);
        }
        let names: &[&str] = match (key.contains("fleet:"), arguments.len()) {
            (true, _) => &FLEET,
            (false, 6) => &[],
            (false, _) => &DEVICE,
        };
        *held =
            names.iter().zip(&arguments[3..]).map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        held.insert("token".to_owned(), arguments[0].clone());
        Value::Int(1)
    }
}

/// The epoch and the sequence of a token.
fn order_of(token: &str) -> (i64, i64) {
    let mut parts = token.split(':').skip(1).map(|part| number(Some(part)));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

fn execute(sim: &mut Sim, client: usize, command: &Cmd) -> Value {
    let answer = sim.redis.execute(command);
    if sim.trace.on {
        let name = sim.clients[client].name.clone();
        let arguments = command.args_iter().skip(3).map(|argument| match argument {
            Arg::Simple(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            _ => String::new(),
        });
        let arguments: Vec<String> = arguments.take(6).collect();
        sim.note(|| format!("{name} redis: {} → {answer:?}", arguments.join(" ")));
    }
    answer
}

/// The [`View`] of one process.
pub struct SimView {
    sim: Shared,
    client: usize,
    rounds: Rounds<SimClock>,
    /// With which incarnation of the server.
    connected: Option<u64>,
    under_way: Option<UnderWay>,
    /// By partition and the epoch that a command was made for, the greatest
    /// epoch that its answer told of.
    told: BTreeMap<(i32, u64), u64>,
}

struct UnderWay {
    due: i64,
    /// Of which partitions the answers are, and for which epochs they asked.
    of: Vec<Option<(i32, u64)>>,
    /// Sent, and not yet arrived.
    commands: Vec<Cmd>,
    answers: Vec<Result<Value, String>>,
    lost: bool,
}

impl SimView {
    pub fn new(sim: Shared, client: usize, clock: SimClock) -> SimView {
        let rounds = Rounds::new("ds:", GROUP, clock);
        SimView { sim, client, rounds, connected: None, under_way: None, told: BTreeMap::new() }
    }

    pub fn is_drained(&self) -> bool {
        self.rounds.is_drained()
    }

    /// Nobody goes on writing for an epoch who was told, writing for it, of a
    /// later owner, or who has given the partition back; but for one who ends,
    /// and writes what still waits: a later owner's writes are safe from it
    /// (rule V2). Who has got the partition again while the answer was on its
    /// way may ask for its marker: that is how it learns who owns it.
    fn watch(&self, sim: &mut Sim, command: &Cmd) {
        let Some((partition, epoch)) = writes(command) else { return };
        let name = &sim.clients[self.client].name;
        let superseded = self.told.get(&(partition, epoch)).filter(|told| **told > epoch);
        let client = &sim.clients[self.client];
        let held = client.stopping || client.owned.iter().any(|(_, owned)| *owned == partition);
        let what = match superseded {
            Some(later) => format!("although it was told of epoch {later}"),
            // The classic protocol takes everything, to give it back.
            None if !held && !sim.kafka.group.classic => "and has given it back".to_owned(),
            None => return,
        };
        let what = format!("{name} writes partition {partition} for epoch {epoch}, {what}");
        sim.redis.violation.get_or_insert(what);
    }

    /// What the worker's thread does meanwhile.
    pub fn work(&mut self) {
        let mut sim = self.sim.borrow_mut();
        let now = sim.now;
        let incarnation = sim.redis.incarnation;
        if let Some(round) = &mut self.under_way {
            if now < round.due {
                return;
            }
            if self.connected != Some(incarnation) {
                round.commands.clear();
                round.lost = true;
            }
            for command in round.commands.drain(..) {
                round.answers.push(Ok(execute(&mut sim, self.client, &command)));
            }
            let answers = std::mem::take(&mut round.answers);
            let of = std::mem::take(&mut round.of);
            let away = now < sim.redis.away_until;
            let answers = (!round.lost && !away).then_some(answers);
            self.connected = answers.is_some().then_some(incarnation);
            self.under_way = None;
            for (answer, of) in answers.iter().flatten().zip(of) {
                if let (Ok(answer), Some(of)) = (answer, of) {
                    let told = self.told.entry(of).or_default();
                    *told = (*told).max(epoch_told(answer).unwrap_or(0));
                }
            }
            drop(sim);
            self.rounds.end(answers);
            return;
        }
        if now < sim.redis.away_until || !self.rounds.is_due() {
            return;
        }
        if self.connected != Some(incarnation) {
            self.connected = Some(incarnation);
            self.rounds.connected();
        }
        let mut commands = self.rounds.begin();
        for command in &commands {
            self.watch(&mut sim, command);
        }
        let of = commands.iter().map(writes).collect();
        let lost = sim.faults.redis_round_lost;
        let lost = sim.random.chance(lost);
        if lost {
            // Some of it arrives all the same.
            let arrive = sim.random.below(commands.len() + 1);
            commands.truncate(arrive);
        }
        let slow = sim.faults.redis_slow;
        let slow = if sim.random.chance(slow) { sim.random.between(1_000, 20_000) } else { 0 };
        let due = now + sim.latency() + slow;
        let crash = sim.faults.crash_in_redis;
        sim.clients[self.client].doomed |= sim.random.chance(crash);
        let mut round = UnderWay { due, of, commands, answers: Vec::new(), lost };
        if sim.random.chance(0.5) {
            for command in round.commands.drain(..) {
                round.answers.push(Ok(execute(&mut sim, self.client, &command)));
            }
        }
        self.under_way = Some(round);
    }
}

impl View for SimView {
    fn ask_marker(&mut self, partition: i32) {
        self.rounds.ask_marker(partition);
    }

    fn take(&mut self, partition: i32, epoch: u64, applied: i64) {
        self.rounds.take(partition, epoch, applied);
    }

    fn write(
        &mut self,
        partition: i32,
        writes: Vec<ViewWrite>,
        applied: Option<i64>,
        now: Timestamp,
    ) {
        self.rounds.write(partition, writes, applied, now);
    }

    fn backlog(&self) -> usize {
        self.rounds.backlog()
    }

    fn sweep(&mut self, partition: i32, page: Vec<ViewWrite>) {
        self.rounds.sweep(partition, page);
    }

    fn may_sweep(&self) -> bool {
        self.rounds.may_sweep()
    }

    fn remove(&mut self, partition: i32, keys: Vec<FoundKey>) {
        self.rounds.remove(partition, keys);
    }

    fn release(&mut self, partition: i32) {
        self.rounds.release(partition);
    }

    fn poll(&mut self, events: &mut Vec<ViewEvent>) {
        self.work();
        let before = events.len();
        self.rounds.poll(events);
        let drained = self.rounds.is_drained() && events.is_empty();
        let mut sim = self.sim.borrow_mut();
        sim.clients[self.client].view_drained = drained;
        if sim.trace.on {
            let name = sim.clients[self.client].name.clone();
            for event in &events[before..] {
                if !matches!(event, ViewEvent::Acknowledged { .. }) {
                    sim.note(|| format!("{name} view: {event:?}"));
                }
            }
        }
    }
}
