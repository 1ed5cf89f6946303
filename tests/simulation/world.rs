//! One simulated world: processes, faults, a fleet, and the end of it all.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::Ordering;

use device_status::shard::{Input, Rules};
use device_status::stream_thread::report::{ShardReport, StageName};
use device_status::stream_thread::{
    DeadLetterSettings, OUTPUT_MAX_BYTES, READ_AHEAD_MAX_BYTES, Settings, StreamThread,
};
use device_status::view::RedisView;
use device_status::wire::ChangeFormat;
use device_status::wire::decode::Format;

use crate::alarms;
use crate::auditor::{self, Observed};
use crate::client::{Client, SimLog};
use crate::group::Group;
use crate::kafka::{Kafka, Record, Topic};
use crate::redis::{self, Hash, Redis, SimWorker, ViewPlan};
use crate::sim::{Faults, Random, START_MS, Shared, Sim, SimClock, Trace};
use crate::workload::{Shape, Workload};

type Thread = StreamThread<SimLog, RedisView, SimClock>;

/// What a seed stands for.
#[derive(Clone, Debug)]
pub struct Plan {
    pub partitions: i32,
    pub changes_partitions: i32,
    pub processes: usize,
    pub duration_ms: i64,
    pub session_timeout_ms: i64,
    pub rules: Rules,
    pub shape: Shape,
    pub faults: Faults,
    pub commit_interval_ms: i64,
    pub marker_delay_ms: i64,
    pub marker_late_ms: i64,
    pub marker_late_one_in: u64,
    pub work_per_turn: usize,
    pub output_max_bytes: usize,
    pub read_ahead_max_bytes: usize,
    pub read_ahead: usize,
    /// Up to how long a fetch of each input takes, the first one and some later.
    pub fetch_late_ms: [i64; Input::ALL.len()],
    pub tick_ms: i64,
    pub classic: bool,
    pub at_least_once: bool,
    pub view: ViewPlan,
    /// The longest that a process is kept from the brokers.
    pub longest_absence_ms: i64,
}

impl Plan {
    pub fn new(random: &mut Random) -> Plan {
        let long_intervals = random.chance(0.5);
        let mut some = |rate: f64| {
            if random.chance(0.5) { rate * (0.3 + random.unit()) } else { 0.0 }
        };
        let offsets_lost = some(0.2);
        let mut faults = Faults {
            crash_per_s: some(0.02),
            pause_per_s: some(0.02),
            leave_per_s: some(0.01),
            brokers_away_per_s: some(0.006),
            leaderless_per_s: some(0.003),
            cut_off_per_s: some(0.01),
            clock_step_per_s: some(0.02),
            redis_away_per_s: some(0.01),
            redis_emptied_per_s: some(0.01),
            redis_set_back_per_s: some(0.01),
            redis_meddled_per_s: 0.0,
            compaction_per_s: some(0.1),
            retention_per_s: some(0.1),
            offsets_lost_per_s: 0.0,
            crash_in_commit: some(0.002),
            leave_after_commit: some(0.1),
            evicted_after_commit: some(0.1),
            refused: some(0.05),
            request_lost: some(0.02),
            answer_lost: some(0.02),
            offsets_unanswered: some(0.02),
            redis_round_lost: some(0.05),
            redis_slow: some(0.02),
            crash_in_redis: some(0.003),
            slow: some(0.02),
            question_fails: some(0.1),
            answers_late_ms: 0,
            restore_refused: 0.0,
        };
        let steady = random.chance(0.1);
        if steady {
            faults.answers_late_ms = 400;
        }
        let create_time = random.chance(0.2);
        // What was deleted cannot be read again; and what producers stamped too
        // early is not to be told, when it is, from what the clock has seen.
        if faults.retention_per_s == 0.0 && !create_time {
            faults.offsets_lost_per_s = offsets_lost;
        }
        let at_least_once = random.chance(0.12);
        let session_timeout_ms = *random.pick(&[15_000, 30_000]);
        let rules = Rules {
            tolerance: 1.5,
            minimum_ms: 5_000,
            grace_ms: random.between(1_000, 8_000),
            default_poll_interval_ms: 30_000,
            slack_ms: 2_000,
            replay_window_ms: *random.pick(&[20_000, 60_000, 120_000]),
            // Longer than anything is silent.
            max_clock_jump_ms: 900_000,
            tombstone_retention_ms: 24 * 3_600_000,
            max_input_idle_ms: 10_000,
            max_lease_delay_ms: 0,
            vpn_enabled_by_default: true,
        };
        let herd = random.chance(0.25);
        let rich = random.chance(0.7);
        let one_fleet = rich && random.chance(0.3);
        let crowd = herd || one_fleet;
        let marker_late_ms = *random.pick(&[5, 5, 9_000]);
        let marker_delay_ms = *random.pick(&[2, 50, 1_500]);
        // A record a transaction, unless each takes its time.
        let least_bytes = if marker_late_ms.max(marker_delay_ms) > 50 { 10_000 } else { 1 };
        let output_max_bytes = *random.pick(&[least_bytes, OUTPUT_MAX_BYTES]);
        let partitions = random.between(1, if crowd { 2 } else { 3 }) as i32;
        let refresh_interval_ms = *random.pick(&[0, 3_000, 3_000, 12_000]);
        let view = ViewPlan { refresh_interval_ms, members: random.chance(0.5) };
        if refresh_interval_ms > 0 && random.chance(0.7) {
            faults.redis_meddled_per_s = 0.3 * random.unit();
        }
        let mut plan = Plan {
            partitions,
            changes_partitions: random.between(1, 4) as i32,
            processes: random.between(1, 3) as usize,
            duration_ms: random.between(120_000, 420_000),
            session_timeout_ms,
            rules,
            shape: Shape {
                devices: if crowd { random.between(8, 24) } else { random.between(2, 12) } as usize,
                instances: 2,
                transactions: random.chance(0.4),
                rich,
                herd,
                one_fleet,
                steady,
                create_time,
                bad_records: random.chance(0.5),
                long_intervals,
            },
            faults,
            commit_interval_ms: *random.pick(&[20, 20, 200]),
            marker_late_ms,
            marker_late_one_in: *random.pick(&[2, 12]),
            marker_delay_ms,
            // Enough for what is said.
            work_per_turn: if steady { 20_000 } else { *random.pick(&[1, 3, 20_000]) },
            output_max_bytes,
            read_ahead_max_bytes: *random.pick(&[10_000, READ_AHEAD_MAX_BYTES]),
            read_ahead: *random.pick(if steady { &[30, 300] } else { &[3, 30, 300] }),
            fetch_late_ms: Input::ALL.map(|_| *random.pick(&[0, 0, 400, 5_000])),
            tick_ms: if steady { 60 } else { *random.pick(&[60, 120, 250]) },
            classic: !at_least_once && random.chance(0.25),
            at_least_once,
            view,
            // Without transactions a process that does not know that it was
            // replaced may write what is of the past.
            longest_absence_ms: if at_least_once { session_timeout_ms / 5 } else { 60_000 },
        };
        if plan.tick_ms > 120 {
            // A transaction takes ticks, and what was said must come to its end.
            plan.output_max_bytes = plan.output_max_bytes.max(10_000);
        }
        plan
    }
}

pub struct Process {
    pub client: usize,
    thread: Option<Thread>,
    worker: SimWorker,
    clock: SimClock,
    started_at: i64,
    /// How long it was suspended: its monotonic clock did not move.
    suspended_ms: i64,
    pub wall_offset_ms: i64,
    paused_until: Option<i64>,
    paused_at: i64,
    suspended: bool,
    leaving: bool,
}

pub struct World {
    pub sim: Shared,
    pub plan: Plan,
    pub workload: Workload,
    /// The places of processes, taken or not, and when the next one starts.
    pub places: Vec<(Option<Process>, i64)>,
    /// Views of processes that have left, and until when they may work.
    draining: Vec<(SimWorker, i64)>,
    started: usize,
    faulty: bool,
}

/// What a seed came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub failures: Vec<String>,
    pub hash: u64,
    pub trace: Vec<String>,
    pub counts: BTreeMap<&'static str, u64>,
}

/// Runs one seed.
pub fn run(seed: u64, trace: bool) -> Outcome {
    alarms::listen(false);
    alarms::take();
    let mut random = Random::new(seed);
    let plan = Plan::new(&mut random);
    let mut world = World::new(plan, random, trace);
    let mut outcome = Outcome::default();
    if let Err(failure) = world.live(&mut outcome) {
        outcome.failures.push(failure);
    }
    if let Some(alarm) = alarms::false_alarm(alarms::take()) {
        outcome.failures.push(format!("a false alarm: {alarm}"));
    }
    // Nothing of the world refers to the world any more but this.
    for (process, _) in &mut world.places {
        *process = None;
    }
    let mut sim = world.sim.borrow_mut();
    outcome.hash = sim.trace.hash;
    outcome.trace = std::mem::take(&mut sim.trace.lines).into_iter().collect();
    outcome
}

impl World {
    pub fn new(plan: Plan, random: Random, trace: bool) -> World {
        let group = Group::new(plan.partitions, plan.session_timeout_ms, plan.classic);
        let mut kafka = Kafka::new(plan.partitions, plan.changes_partitions, group);
        kafka.marker_delay_ms = plan.marker_delay_ms;
        kafka.marker_late_ms = plan.marker_late_ms;
        kafka.marker_late_one_in = plan.marker_late_one_in;
        if plan.shape.create_time {
            kafka.keep_stamps();
        }
        let mut sim = Sim {
            now: START_MS,
            random,
            kafka,
            redis: Redis::default(),
            clients: Vec::new(),
            faults: Faults::default(),
            brokers_away_until: 0,
            leaderless: BTreeMap::new(),
            unreachable: Vec::new(),
            trace: Trace { on: trace, ..Trace::default() },
        };
        sim.note(|| format!("{plan:?}"));
        let workload = Workload::new(plan.shape.clone(), &mut sim);
        let places = (0..plan.processes).map(|place| (None, START_MS + 300 * place as i64));
        World {
            places: places.collect(),
            sim: Rc::new(RefCell::new(sim)),
            plan,
            workload,
            draining: Vec::new(),
            started: 0,
            faulty: false,
        }
    }

    fn start_process(&mut self) -> Process {
        self.started += 1;
        let clock = SimClock::default();
        let mut sim = self.sim.borrow_mut();
        let client = sim.clients.len();
        let name = format!("process-{}", self.started);
        sim.note(|| format!("{name} starts"));
        let mut new = Client::new(name, clock.clone(), self.plan.read_ahead);
        new.at_least_once = self.plan.at_least_once;
        new.fetch_late_ms = self.plan.fetch_late_ms;
        new.max_input_idle_ms = self.plan.rules.max_input_idle_ms;
        sim.clients.push(new);
        let wrong = sim.faults.clock_step_per_s > 0.0 && sim.random.chance(0.3);
        let wall_offset_ms = if wrong { sim.random.between(-600_000, 600_000) } else { 0 };
        let started_at = sim.now;
        drop(sim);
        let settings = Settings {
            rules: self.plan.rules.clone(),
            formats: [Format::Protobuf; 3],
            partitions: self.plan.partitions,
            check_partitioner: true,
            commit_interval_ms: self.plan.commit_interval_ms,
            work_per_turn: self.plan.work_per_turn,
            output_max_bytes: self.plan.output_max_bytes,
            read_ahead_max_bytes: self.plan.read_ahead_max_bytes,
            refresh_interval_ms: self.plan.view.refresh_interval_ms,
            suspend: self.plan.classic,
            change_format: ChangeFormat::Protobuf,
            cloud_events_source: None,
            dead_letters: DeadLetterSettings {
                topics: Input::ALL.map(|input| input.name().to_owned()),
                max_bytes: 1_000_000,
                max_share: 1.0,
            },
        };
        let log = SimLog { sim: self.sim.clone(), client };
        let (view, worker) =
            SimWorker::start(self.sim.clone(), client, clock.clone(), &self.plan.view);
        let mut process = Process {
            client,
            thread: None,
            worker,
            clock: clock.clone(),
            started_at,
            suspended_ms: 0,
            wall_offset_ms,
            paused_until: None,
            paused_at: 0,
            suspended: false,
            leaving: false,
        };
        process.tell_time(started_at);
        process.thread = Some(StreamThread::new(settings, log, view, clock));
        process
    }

    fn live(&mut self, outcome: &mut Outcome) -> Result<(), String> {
        let begin = START_MS + 8_000;
        self.run_until(begin)?;
        self.faulty = true;
        self.sim.borrow_mut().faults = self.plan.faults.clone();
        self.run_until(begin + self.plan.duration_ms)?;
        self.calm();
        self.settle("after the faults")?;
        self.sweep()?;
        self.audit(outcome)?;

        // What one process has in memory, all of it written anew …
        self.empty_redis();
        self.run_for(8_000)?;
        self.settle("after Redis was emptied")?;
        let before = self.sim.borrow().redis.hashes();
        // … is what a fresh one restores.
        for (process, start_at) in &mut self.places {
            if let Some(process) = process.take() {
                self.sim.borrow_mut().clients[process.client].crash();
            }
            *start_at = i64::MAX;
        }
        self.places[0].1 = self.sim.borrow().now;
        let wait = self.plan.session_timeout_ms + 12_000;
        self.run_for(wait)?;
        self.settle("after a fresh start")?;
        self.empty_redis();
        self.run_for(8_000)?;
        self.settle("after Redis was emptied again")?;
        self.audit(outcome)?;
        let after = self.sim.borrow().redis.hashes();
        let absurd = self.workload.absurd();
        compare_views(&before, &after, &absurd)?;
        Ok(())
    }

    fn empty_redis(&mut self) {
        let mut sim = self.sim.borrow_mut();
        sim.note(|| "Redis is emptied, at the end".to_owned());
        sim.redis.server.keys.clear();
    }

    /// The end of all faults.
    pub fn calm(&mut self) {
        self.faulty = false;
        let mut sim = self.sim.borrow_mut();
        sim.note(|| "calm".to_owned());
        sim.faults = Faults::default();
        sim.brokers_away_until = 0;
        sim.leaderless.clear();
        sim.redis.away_until = 0;
        for client in &mut sim.clients {
            client.cut_off_until = 0;
        }
        let now = sim.now;
        for (process, start_at) in &mut self.places {
            if let Some(process) = process {
                process.paused_until = process.paused_until.map(|until| until.min(now));
            } else {
                *start_at = (*start_at).min(now + 1_000);
            }
        }
    }

    /// Until what was done to Redis has been undone: two passes after now have
    /// been made by all who have partitions, the first of which may have begun
    /// before.
    fn sweep(&mut self) -> Result<(), String> {
        let interval_ms = self.plan.view.refresh_interval_ms;
        if interval_ms == 0 {
            return Ok(());
        }
        let scans = |world: &World| -> Vec<(usize, u64)> {
            let sim = world.sim.borrow();
            let alive = world.places.iter().filter_map(|(process, _)| process.as_ref());
            let owners = alive.filter(|process| !sim.clients[process.client].owned.is_empty());
            owners.map(|process| (process.client, sim.clients[process.client].scans)).collect()
        };
        let before = scans(self);
        let deadline = self.sim.borrow().now + 240_000;
        self.run_for(3 * interval_ms)?;
        while scans(self).iter().any(|(client, count)| {
            let before = before.iter().find(|(before, _)| before == client);
            *count < before.map_or(0, |(_, count)| *count) + 2
        }) {
            if self.sim.borrow().now >= deadline {
                return Err(format!("the scan does not end: {:?}", scans(self)));
            }
            self.run_for(interval_ms)?;
        }
        self.run_for(1_000)?;
        self.settle("after the sweep")
    }

    fn run_for(&mut self, ms: i64) -> Result<(), String> {
        let until = self.sim.borrow().now + ms;
        self.run_until(until)
    }

    /// Until everything is read, committed and shown.
    pub fn settle(&mut self, when: &str) -> Result<(), String> {
        // The slowest worlds read little faster than was written.
        let deadline = self.sim.borrow().now + 600_000;
        let wait = self.sim.borrow_mut().random.between(8_000, 40_000);
        self.run_for(wait)?;
        while self.sim.borrow().now < deadline {
            self.run_for(1_000)?;
            if !self.is_settled() {
                continue;
            }
            // Between two commits nothing is under way, though more may wait for
            // the next: who is at rest is so for longer than a commit interval.
            self.run_for(2 * self.plan.commit_interval_ms)?;
            if self.is_settled() {
                return Ok(());
            }
        }
        let mut states = Vec::new();
        for (process, _) in &mut self.places {
            if let Some(thread) = process.as_mut().and_then(|process| process.thread.as_mut()) {
                states.push(format!("{:?}", thread.report().shards));
            }
        }
        Err(format!("nothing comes to rest {when}: {}", states.join("\n")))
    }

    fn is_settled(&mut self) -> bool {
        let mut running = 0;
        for (process, _) in &mut self.places {
            let Some(thread) = process.as_mut().and_then(|process| process.thread.as_mut()) else {
                continue;
            };
            for shard in thread.report().shards {
                if shard.stage != StageName::Running {
                    return false;
                }
                running += 1;
            }
        }
        let sim = self.sim.borrow();
        let read = (0..self.plan.partitions).all(|partition| {
            Input::ALL.into_iter().all(|input| {
                let committed = sim.kafka.offsets.get(&(input, partition));
                let log = sim.kafka.log((Topic::Input(input), partition));
                let last = log.committed().last().map_or(0, |record| record.offset + 1);
                last == 0 || committed.is_some_and(|committed| committed.offset >= last)
            })
        });
        let busy = !sim.kafka.is_quiet() || sim.clients.iter().any(Client::is_busy);
        running == self.plan.partitions && read && !busy && self.workload.is_written()
    }

    pub fn audit(&mut self, outcome: &mut Outcome) -> Result<(), String> {
        let sim = self.sim.borrow();
        if let Some(violation) = &sim.redis.violation {
            return Err(violation.clone());
        }
        let observed = Observed {
            kafka: &sim.kafka,
            redis: &sim.redis.hashes(),
            keyspace: &sim.redis.server.keys,
            unreachable: &sim.unreachable,
            now: sim.now,
        };
        auditor::audit(&observed, &self.plan, &mut outcome.counts)
    }

    pub fn run_until(&mut self, until: i64) -> Result<(), String> {
        loop {
            let now = {
                let mut sim = self.sim.borrow_mut();
                let step = if sim.random.chance(0.2) {
                    sim.random.between(1, 15)
                } else {
                    sim.random.between(1, 2 * self.plan.tick_ms)
                };
                sim.now += step;
                sim.now
            };
            // What comes for a process meanwhile is stamped by its own clock.
            let processes = self.places.iter_mut().filter_map(|(process, _)| process.as_mut());
            for process in processes.filter(|process| process.paused_until.is_none()) {
                process.tell_time(now);
            }
            {
                let mut sim = self.sim.borrow_mut();
                if self.faulty || now < START_MS + 8_000 {
                    self.workload.generate(&mut sim);
                }
                self.workload.write(&mut sim, !self.faulty);
                for note in sim.kafka.tick(now) {
                    sim.note(|| note);
                }
                for client in 0..sim.clients.len() {
                    sim.tick_client(client);
                }
            }
            if self.faulty {
                self.inject();
            }
            self.step_processes()?;
            let mut draining = std::mem::take(&mut self.draining);
            draining.retain_mut(|(worker, until)| {
                worker.work();
                now < *until && !worker.is_drained()
            });
            self.draining = draining;
            if now >= until {
                return Ok(());
            }
        }
    }

    fn step_processes(&mut self) -> Result<(), String> {
        let now = self.sim.borrow().now;
        let mut order: Vec<usize> = (0..self.places.len()).collect();
        self.sim.borrow_mut().random.shuffle(&mut order);
        for place in order {
            if self.places[place].0.is_none() {
                if now < self.places[place].1 {
                    continue;
                }
                self.places[place].0 = Some(self.start_process());
            }
            let Some(process) = &mut self.places[place].0 else { continue };
            if self.sim.borrow().clients[process.client].doomed {
                self.crash(place);
                continue;
            }
            if let Some(until) = process.paused_until {
                if now < until {
                    continue;
                }
                process.paused_until = None;
                if std::mem::take(&mut process.suspended) {
                    process.suspended_ms += now - process.paused_at;
                }
                let mut sim = self.sim.borrow_mut();
                let client = &mut sim.clients[process.client];
                client.paused = false;
                let name = client.name.clone();
                sim.note(|| format!("{name} goes on"));
            }
            process.tell_time(now);
            let steps = 1 + self.sim.borrow_mut().random.below(3);
            for _ in 0..steps {
                let Some(thread) = &mut process.thread else { break };
                process.worker.work();
                if let Err(fatal) = thread.step() {
                    return Err(format!("process {} stopped: {fatal}", process.client));
                }
                if thread.stopped() {
                    break;
                }
            }
            process.worker.report();
            let client = process.client;
            let (doomed, is_to_leave) = {
                let client = &mut self.sim.borrow_mut().clients[client];
                (client.doomed, std::mem::take(&mut client.is_to_leave))
            };
            if doomed {
                self.crash(place);
                continue;
            }
            let Some(process) = &mut self.places[place].0 else { continue };
            if is_to_leave {
                process.leave(&mut self.sim.borrow_mut());
            }
            if process.thread.as_ref().is_some_and(Thread::stopped) {
                let process = self.places[place].0.take();
                self.draining.extend(process.map(|process| (process.worker, now + 5_000)));
                let wait = self.sim.borrow_mut().random.between(500, 20_000);
                self.places[place].1 = now + wait;
            }
        }
        Ok(())
    }

    pub fn crash(&mut self, place: usize) {
        let Some(process) = self.places[place].0.take() else { return };
        let mut sim = self.sim.borrow_mut();
        let name = sim.clients[process.client].name.clone();
        sim.note(|| format!("{name} crashes"));
        sim.clients[process.client].crash();
        self.places[place].1 = sim.now + sim.random.between(100, 40_000);
    }

    /// Lets things go wrong.
    fn inject(&mut self) {
        let World { sim, places, plan, .. } = self;
        let mut sim = sim.borrow_mut();
        let faults = plan.faults.clone();
        let per_tick = plan.tick_ms as f64 / 1_000.0;
        let now = sim.now;
        for (process, _) in places.iter_mut() {
            let Some(alive) = process else { continue };
            let client = alive.client;
            let name = sim.clients[client].name.clone();
            if sim.random.chance(faults.crash_per_s * per_tick) {
                sim.clients[client].doomed = true;
                continue;
            }
            if alive.paused_until.is_some() {
                continue;
            }
            if sim.random.chance(faults.pause_per_s * per_tick) {
                let longest = if sim.random.chance(0.5) { 3_000 } else { 60_000 };
                let ms = sim.random.between(100, longest).min(plan.longest_absence_ms);
                let suspended = sim.random.chance(0.3);
                alive.pause(&mut sim, ms, suspended);
            } else if !alive.leaving && sim.random.chance(faults.leave_per_s * per_tick) {
                alive.leave(&mut sim);
            } else if sim.random.chance(faults.cut_off_per_s * per_tick) {
                let ms = sim.random.between(500, 60_000).min(plan.longest_absence_ms);
                sim.clients[client].cut_off_until = now + ms;
                sim.unreachable.push((now, now + ms));
                sim.note(|| format!("{name} is cut off for {ms} ms"));
            }
            if sim.random.chance(faults.clock_step_per_s * per_tick) {
                alive.wall_offset_ms = sim.random.between(-900_000, 900_000);
                let by = alive.wall_offset_ms;
                sim.note(|| format!("{name}: the host's clock is off by {by} ms"));
            }
        }
        if sim.random.chance(faults.brokers_away_per_s * per_tick) {
            let ms = sim.random.between(500, 25_000).min(plan.longest_absence_ms);
            sim.brokers_away_until = now + ms;
            sim.unreachable.push((now, now + ms));
            sim.note(|| format!("the brokers are away for {ms} ms"));
        }
        if sim.random.chance(faults.redis_away_per_s * per_tick) {
            let ms = sim.random.between(500, 40_000);
            sim.redis.away_until = now + ms;
            sim.note(|| format!("Redis is away for {ms} ms"));
        }
        if sim.random.chance(faults.redis_emptied_per_s * per_tick) {
            sim.redis.server.keys.clear();
            sim.note(|| "Redis is emptied".to_owned());
        }
        if sim.random.chance(faults.redis_set_back_per_s * per_tick) {
            sim.redis.server.keys = sim.redis.snapshot.clone();
            sim.redis.incarnation += 1;
            sim.note(|| "Redis is set back".to_owned());
        }
        if sim.random.chance(faults.redis_meddled_per_s * per_tick) {
            redis::meddle(&mut sim, plan.partitions);
        }
        if sim.random.chance(0.1 * per_tick) {
            sim.redis.snapshot = sim.redis.server.keys.clone();
        }
        for partition in 0..plan.partitions {
            for input in Input::ALL {
                if sim.random.chance(faults.leaderless_per_s * per_tick) {
                    let ms = sim.random.between(500, 40_000).min(plan.longest_absence_ms);
                    sim.leaderless.insert((Topic::Input(input), partition), now + ms);
                    sim.unreachable.push((now, now + ms));
                    sim.note(|| format!("{} {partition} has no leader for {ms} ms", input.name()));
                }
            }
            if sim.random.chance(faults.compaction_per_s * per_tick) {
                let share = sim.random.unit();
                let log = sim.kafka.logs.get_mut(&(Topic::Changelog, partition));
                log.expect("a changelog").compact(share, now);
                sim.note(|| format!("changelog {partition} is compacted"));
            }
            if sim.random.chance(faults.retention_per_s * per_tick) {
                delete_old_records(&mut sim, partition);
            }
        }
        if sim.random.chance(faults.offsets_lost_per_s * per_tick) && sim.kafka.lose_offsets() {
            sim.note(|| "the committed offsets are lost".to_owned());
        }
    }
}

/// Retention: of heartbeats and VPN sessions nothing is deleted that a restore replays
/// (rule R2), of lifecycle events nothing that was not processed.
fn delete_old_records(sim: &mut Sim, partition: i32) {
    for input in Input::ALL {
        let Some(committed) = sim.kafka.offsets.get(&(input, partition)) else { continue };
        let replayed_from = committed.metadata.split(';').nth(5).and_then(|at| at.parse().ok());
        let (offset, replayed_from) = (committed.offset, replayed_from.unwrap_or(i64::MIN));
        let log = sim.kafka.logs.get_mut(&(Topic::Input(input), partition)).expect("an input");
        let needed = |record: &Record| {
            record.offset >= offset
                || input != Input::Lifecycle && record.timestamp >= replayed_from
        };
        let first = log.records.iter().find(|record| needed(record));
        let before = first.map_or(offset, |record| record.offset);
        log.delete_before(before);
        sim.note(|| format!("{} {partition} begins at {before}", input.name()));
    }
}

impl Process {
    /// How its shards stand.
    pub fn shards(&mut self) -> Vec<ShardReport> {
        self.thread.as_mut().map(|thread| thread.report().shards).unwrap_or_default()
    }

    /// Since the last report.
    pub fn offsets_lost(&mut self, input: Input) -> u64 {
        let report = self.thread.as_mut().map(|thread| thread.report());
        report.map_or(0, |report| report.counts.offsets_gone[input.index()])
    }

    pub fn leave(&mut self, sim: &mut Sim) {
        if self.leaving {
            return;
        }
        let name = sim.clients[self.client].name.clone();
        sim.note(|| format!("{name} is to leave"));
        self.leaving = true;
        sim.clients[self.client].stopping = true;
        if let Some(thread) = &mut self.thread {
            thread.stop();
        }
    }

    /// `suspended`: the whole machine, whose monotonic clock stands.
    pub fn pause(&mut self, sim: &mut Sim, ms: i64, suspended: bool) {
        self.paused_until = Some(sim.now + ms);
        self.paused_at = sim.now;
        self.suspended = suspended;
        let client = &mut sim.clients[self.client];
        client.paused = true;
        let name = client.name.clone();
        sim.note(|| format!("{name} is paused for {ms} ms"));
    }

    fn tell_time(&mut self, now: i64) {
        let monotonic_ms = now - self.started_at - self.suspended_ms;
        self.clock.monotonic_ms.store(monotonic_ms, Ordering::Relaxed);
        self.clock.wall_ms.store(now + self.wall_offset_ms, Ordering::Relaxed);
    }
}

/// Two full writes of the same memory say the same, but for what time did.
fn compare_views(
    before: &BTreeMap<String, Hash>,
    after: &BTreeMap<String, Hash>,
    absurd: &BTreeSet<String>,
) -> Result<(), String> {
    for key in before.keys().chain(after.keys()) {
        if !key.starts_with("ds:device:") {
            continue;
        }
        // The token of a deleted device stays for a while, or is not written anew.
        let shown = |hash: &&Hash| hash.contains_key("status");
        let (was, is) = match (before.get(key).filter(shown), after.get(key).filter(shown)) {
            (Some(was), Some(is)) => (was, is),
            (None, None) => continue,
            (was, is) => return Err(format!("{key}: live {was:?}, fresh {is:?}")),
        };
        // A change in between is judged by the auditor.
        if was.get("version") != is.get("version") {
            continue;
        }
        for field in was.keys().chain(is.keys()) {
            let by_time = ["token", "heartbeat", "vpn"].contains(&field.as_str());
            // How late a record counts whose stamp nobody believes depends on
            // what was read before it, and a replay begins later (rule T3).
            let by_time = by_time || field == "heartbeat_ms" && absurd.contains(key);
            if !by_time && was.get(field) != is.get(field) {
                return Err(format!("{key} {field}: live {was:?}, fresh {is:?}"));
            }
        }
    }
    Ok(())
}
