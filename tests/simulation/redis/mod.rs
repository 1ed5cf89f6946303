//! The simulated Redis: a server that an operator may meddle with, and the
//! worker of the view, which is production's, driven by steps.

mod server;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use device_status::config;
use device_status::view::answer::Answer;
use device_status::view::claim::Group;
use device_status::view::port::Server as Servers;
use device_status::view::scripts::Script;
use device_status::view::turns::{Round, Turns};
use device_status::view::{RedisView, ViewStats};
use redis::{Cmd, Value};

pub use self::server::{Hash, Held, Key, Keyspace};
use self::server::{Server, order_of, script_of, words};
use crate::auditor;
use crate::sim::{Shared, Sim, SimClock};

const GROUP: &str = "simulated";

/// The server, and what is wrong with it.
#[derive(Default)]
pub struct Redis {
    pub server: Server,
    /// As a replica has it that lags behind, or a backup.
    pub snapshot: Keyspace,
    pub away_until: i64,
    /// Counts its starts: connections end with it.
    pub incarnation: u64,
    /// Who did what nobody may.
    pub violation: Option<String>,
}

/// How the view of a world is kept.
#[derive(Clone, Debug)]
pub struct ViewPlan {
    /// `redis.refresh_interval`; 0: no sweep.
    pub refresh_interval_ms: i64,
    /// `redis.fleet_members`.
    pub members: bool,
}

impl Redis {
    /// All hashes.
    pub fn hashes(&self) -> BTreeMap<String, Hash> {
        let hash = |(key, held): (&String, &Key)| match &held.held {
            Held::Hash(hash) => Some((key.clone(), hash.clone())),
            _ => None,
        };
        self.server.keys.iter().filter_map(hash).collect()
    }
}

/// What somebody with access to the server does to it: one thing, of many.
pub fn meddle(sim: &mut Sim, partitions: i32) {
    let Sim { redis, random, now, .. } = sim;
    let keys: Vec<String> = redis.server.keys.keys().cloned().collect();
    if keys.is_empty() {
        return;
    }
    let key = random.pick(&keys).clone();
    let partition = random.between(0, i64::from(partitions));
    let epochs = [1, *now - 60_000, *now + 86_400_000];
    let token = format!("{partition}:{}:{}", random.pick(&epochs), random.between(1, 1_000_000));
    let number = random.below(4);
    let server = &mut redis.server;
    let mut set = |key: &str, fields: &[(&str, &str)]| {
        if server.hash(key).is_ok() {
            let fields = fields.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            server.set_fields(key, fields);
        }
    };
    // A marker of a later owner ends the writing of those that are there.
    let is_marker = key.contains("partition:");
    match random.below(10) {
        0 => drop(server.keys.remove(&key)),
        1 if !is_marker => set(&key, &[("status", "frozen"), ("online", "77")]),
        2 => {
            let held = Held::Text("an accident".to_owned());
            server.keys.insert(key.clone(), Key { held, expires_at: None });
        }
        3 if !is_marker => set(&key, &[("token", &token)]),
        4 if !is_marker => set(&key, &[("extra", "x")]),
        5 => {
            if let Some(Key { held: Held::Hash(hash), .. }) = server.keys.get_mut(&key)
                && hash.len() > 1
            {
                hash.remove("token");
            }
        }
        6 => {
            let stray = format!("ds:device:stray-{number}");
            let fields = [("token", token.as_str()), ("status", "online"), ("fleet", "red")];
            set(&stray, &[&fields[..], &[("version", "1")]].concat());
        }
        7 => {
            let stray = format!("ds:fleet:stray-{number}:{}", partition % i64::from(partitions));
            set(&stray, &[("token", &token), ("online", "3")]);
        }
        8 => {
            let stray = format!("ds:fleet:red:{partition}:members:online");
            server.add_member(&stray, &format!("stray-{number}"));
        }
        _ => {
            // A key of an old backup.
            let old: Vec<String> = redis.snapshot.keys().cloned().collect();
            if let Some(old) = (!old.is_empty()).then(|| random.pick(&old).clone()) {
                server.keys.insert(old.clone(), redis.snapshot[&old].clone());
            }
        }
    }
    sim.note(|| format!("somebody meddles with {key}, {token}"));
}

/// Whose partition a command writes to, and for which epoch.
fn writes(command: &Cmd) -> Option<(i32, u64)> {
    let words = words(command);
    script_of(&words)?;
    let (key, first) = (&words[3], words.get(4)?);
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

/// Not by what the scripts say: by what they do.
fn judge(sim: &Sim, words: &[String], script: Script) -> Option<String> {
    let server = &sim.redis.server;
    let key = &words[3];
    let held = server.hash(key).ok().flatten()?;
    let token = held.get("token")?;
    let next = words.get(4)?;
    match script {
        Script::Device | Script::Deletion | Script::Fleet => (order_of(token)? > order_of(next)?)
            .then(|| format!("{key} goes back from {token} to {next}")),
        Script::DeviceRepairExact | Script::FleetRepairExact => {
            let mut parts = token.split(':');
            let (partition, epoch) = (parts.next()?, parts.next()?);
            let marker = server.hash(&format!("ds:partition:{partition}")).ok().flatten()?;
            let later = order_of(token)?.0 > order_of(next)?.0;
            let theirs = next.split(':').next() == Some(partition);
            (theirs && later && marker.get("epoch").map(String::as_str) == Some(epoch))
                .then(|| format!("{key}: {next} replaces what a later owner wrote, {token}"))
        }
        Script::Removal => {
            let id = key.strip_prefix("ds:device:")?;
            let partition: i32 = token.split(':').next()?.parse().ok()?;
            let version = held.get("version")?.parse().ok()?;
            auditor::is_shown(&sim.kafka, id, partition, version)
                .then(|| format!("{key} is removed, and the device lives: {held:?}"))
        }
        _ => None,
    }
}

fn execute(sim: &mut Sim, client: usize, command: &Cmd) -> Answer {
    sim.redis.server.now = sim.now;
    let words = words(command);
    let script = script_of(&words);
    let before = script.and_then(|script| judge(sim, &words, script));
    let answer = sim.redis.server.execute(command);
    if answer == Ok(Value::Int(1)) && sim.redis.violation.is_none() {
        sim.redis.violation = before;
    }
    if sim.trace.on {
        let name = sim.clients[client].name.clone();
        let shown = match script {
            Some(script) => {
                format!(
                    "{script:?} {}",
                    words[3..].iter().take(6).cloned().collect::<Vec<_>>().join(" ")
                )
            }
            None => words.join(" "),
        };
        sim.note(|| format!("{name} redis: {shown} → {answer:?}"));
    }
    answer
}

/// A question under way, or its answer.
#[derive(Default)]
struct Mailbox {
    question: Option<Vec<Cmd>>,
    answer: Option<Result<Vec<Answer>, String>>,
}

/// The server as the worker sees it: its answers take their time.
struct Asked(Rc<RefCell<Mailbox>>);

impl Servers for Asked {
    async fn round_trip(&mut self, commands: &[Cmd]) -> Result<Vec<Answer>, String> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        self.0.borrow_mut().question = Some(commands.to_vec());
        poll_fn(|_| match self.0.borrow_mut().answer.take() {
            Some(answer) => Poll::Ready(answer),
            None => Poll::Pending,
        })
        .await
    }

    async fn ask_server(&mut self, _: usize, command: &Cmd) -> Result<Answer, String> {
        let answers = self.round_trip(std::slice::from_ref(command)).await?;
        answers.into_iter().next().ok_or_else(|| "no answer".to_owned())
    }

    fn servers(&self) -> usize {
        1
    }
}

/// A turn under way; it gives the turns back.
type Turn = Pin<Box<dyn Future<Output = (Turns, bool)>>>;

enum Doing {
    Nothing(Box<Turns>),
    Turn(Turn, UnderWay),
    /// Only for a moment.
    Moved,
}

/// The worker of one process.
pub struct SimWorker {
    sim: Shared,
    client: usize,
    doing: Doing,
    mailbox: Rc<RefCell<Mailbox>>,
    /// Whether the last round left nothing to be written.
    written: Rc<Cell<bool>>,
    stats: Arc<ViewStats>,
    /// With which incarnation of the server.
    connected: Option<u64>,
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
    answers: Vec<Answer>,
    lost: bool,
}

impl SimWorker {
    /// The view of a process, and its worker.
    pub fn start(
        sim: Shared,
        client: usize,
        clock: SimClock,
        plan: &ViewPlan,
    ) -> (RedisView, SimWorker) {
        let config = config::Redis {
            refresh_interval: Duration::from_millis(plan.refresh_interval_ms as u64),
            fleet_members: plan.members,
            ..config::Redis::default()
        };
        let group = Group { partitions: sim.borrow().kafka.partitions, ..Group::named(GROUP) };
        let (view, turns) =
            RedisView::stepped(&config, &group, Arc::new(clock), &Arc::default(), true);
        let worker = SimWorker {
            sim,
            client,
            doing: Doing::Nothing(Box::new(turns)),
            mailbox: Rc::default(),
            written: Rc::default(),
            stats: view.stats(),
            connected: None,
            told: BTreeMap::new(),
        };
        (view, worker)
    }

    /// Whether all that can be written has been. A page or a scan that is under
    /// way changes nothing of it.
    pub fn is_drained(&self) -> bool {
        match &self.doing {
            Doing::Nothing(turns) => turns.is_drained(),
            _ => self.written.get() && self.stats.backlog.load(Ordering::Relaxed) == 0,
        }
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
        // A page may be compared while its partition is given back: its repairs
        // are safe like those of one who ends.
        let repairs = script_of(&words(command)).is_some_and(|script| {
            matches!(
                script,
                Script::DeviceRepair
                    | Script::DeviceRepairExact
                    | Script::FleetRepair
                    | Script::FleetRepairExact
            )
        });
        let held =
            repairs || client.stopping || client.owned.iter().any(|(_, owned)| *owned == partition);
        let what = match superseded {
            Some(later) => format!("although it was told of epoch {later}"),
            // The classic protocol takes everything, to give it back.
            None if !held && !sim.kafka.group.classic => "and has given it back".to_owned(),
            None => return,
        };
        let what = format!("{name} writes partition {partition} for epoch {epoch}, {what}");
        sim.redis.violation.get_or_insert(what);
    }

    /// Tells the world how the view stands.
    pub fn report(&self) {
        let drained = self.is_drained();
        let mut sim = self.sim.borrow_mut();
        let client = &mut sim.clients[self.client];
        client.view_drained = drained;
        client.scans = self.stats.sweep.scans.load(Ordering::Relaxed);
    }

    /// What the worker's thread does meanwhile.
    pub fn work(&mut self) {
        let (now, incarnation, away) = {
            let sim = self.sim.borrow();
            (sim.now, sim.redis.incarnation, sim.now < sim.redis.away_until)
        };
        match std::mem::replace(&mut self.doing, Doing::Moved) {
            Doing::Nothing(turns) => {
                if away || turns.due_in_ms() != Some(0) {
                    self.doing = Doing::Nothing(turns);
                    return;
                }
                if self.connected != Some(incarnation) {
                    self.connected = Some(incarnation);
                    turns.connected();
                }
                let mut server = Asked(self.mailbox.clone());
                let written = self.written.clone();
                written.set(false);
                let turn = async move {
                    let mut turns = *turns;
                    let round = turns.round(&mut server).await;
                    written.set(turns.is_drained());
                    let done = match round {
                        Ok(Round::Refused(_)) => true,
                        Ok(_) => turns.repair(&mut server).await.is_ok(),
                        Err(_) => false,
                    };
                    (turns, done)
                };
                self.go_on(Box::pin(turn));
            }
            Doing::Turn(turn, round) if now < round.due => self.doing = Doing::Turn(turn, round),
            Doing::Turn(turn, mut round) => {
                if self.connected != Some(incarnation) {
                    round.commands.clear();
                    round.lost = true;
                }
                let mut sim = self.sim.borrow_mut();
                for command in round.commands {
                    round.answers.push(execute(&mut sim, self.client, &command));
                }
                drop(sim);
                let answers = if round.lost || away {
                    self.connected = None;
                    Err("lost".to_owned())
                } else {
                    Ok(round.answers)
                };
                for (answer, of) in answers.iter().flatten().zip(round.of) {
                    if let (Ok(answer), Some(of)) = (answer, of) {
                        let told = self.told.entry(of).or_default();
                        *told = (*told).max(epoch_told(answer).unwrap_or(0));
                    }
                }
                self.mailbox.borrow_mut().answer = Some(answers);
                self.go_on(turn);
            }
            Doing::Moved => unreachable!("a turn is put back"),
        }
    }

    /// Lets the worker go on until it asks something, or its turn is over.
    fn go_on(&mut self, mut turn: Turn) {
        let mut context = Context::from_waker(Waker::noop());
        self.doing = match turn.as_mut().poll(&mut context) {
            Poll::Ready((turns, done)) => {
                if !done {
                    self.connected = None;
                }
                Doing::Nothing(Box::new(turns))
            }
            Poll::Pending => {
                let commands = self.mailbox.borrow_mut().question.take();
                let round = self.send(commands.expect("a question"));
                Doing::Turn(turn, round)
            }
        };
    }

    fn send(&mut self, mut commands: Vec<Cmd>) -> UnderWay {
        let mut sim = self.sim.borrow_mut();
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
        let due = sim.now + sim.latency() + slow;
        let crash = sim.faults.crash_in_redis;
        sim.clients[self.client].doomed |= sim.random.chance(crash);
        let mut round = UnderWay { due, of, commands, answers: Vec::new(), lost };
        if sim.random.chance(0.5) {
            for command in round.commands.drain(..) {
                round.answers.push(execute(&mut sim, self.client, &command));
            }
        }
        round
    }
}
