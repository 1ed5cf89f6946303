//! A small world by script: nothing happens in it but what a test says, and the
//! auditor judges the end. A test runs some seeds, since latencies, and who does
//! what first, are luck all the same.

use std::panic::{AssertUnwindSafe, catch_unwind};

use device_status::shard::{Input, Rules};
use device_status::stream_thread::report::StageName;
use device_status::stream_thread::{OUTPUT_MAX_BYTES, READ_AHEAD_MAX_BYTES};
use device_status::wire::metadata::ShardMetadata;
use device_status::wire::murmur2::partition_of;
use device_status::wire::proto::v1::{
    self, Connectivity, Status, lifecycle_event as lifecycle, vpn_event as vpn,
};
use prost::Message as _;

use crate::alarms;
use crate::kafka::{Message, Topic};
use crate::redis::ViewPlan;
use crate::sim::{Faults, Random, START_MS};
use crate::workload::{BAD, Shape, duration, proto};
use crate::world::{Outcome, Plan, Process, World};

/// How many worlds a test looks at.
const SEEDS: u64 = 12;

/// Runs a story in some worlds.
pub fn worlds(change: impl Fn(&mut Plan), story: impl Fn(&mut Script)) {
    alarms::listen(false);
    for seed in 0..SEEDS {
        let mut plan = quiet_plan();
        change(&mut plan);
        let mut script = Script { world: World::new(plan, Random::new(seed), true) };
        let told = catch_unwind(AssertUnwindSafe(|| story(&mut script)));
        for (process, _) in &mut script.world.places {
            *process = None;
        }
        if let Err(failure) = told {
            for line in &script.world.sim.borrow().trace.lines {
                println!("{line}");
            }
            println!("in the world of seed {seed}");
            std::panic::resume_unwind(failure);
        }
    }
}

/// One partition, one process, no faults, nobody who says anything. A heartbeat
/// that carries `n` seconds counts for one and a half times that, and a second.
fn quiet_plan() -> Plan {
    Plan {
        partitions: 1,
        changes_partitions: 1,
        processes: 1,
        duration_ms: 0,
        session_timeout_ms: 15_000,
        rules: Rules {
            tolerance: 1.5,
            minimum_ms: 5_000,
            grace_ms: 1_000,
            default_poll_interval_ms: 30_000,
            slack_ms: 2_000,
            replay_window_ms: 20_000,
            max_clock_jump_ms: 900_000,
            tombstone_retention_ms: 24 * 3_600_000,
            max_input_idle_ms: 10_000,
            max_lease_delay_ms: 0,
            vpn_enabled_by_default: true,
        },
        shape: Shape::default(),
        faults: Faults::default(),
        commit_interval_ms: 20,
        marker_delay_ms: 2,
        marker_late_ms: 2,
        marker_late_one_in: 12,
        work_per_turn: 20_000,
        output_max_bytes: OUTPUT_MAX_BYTES,
        read_ahead_max_bytes: READ_AHEAD_MAX_BYTES,
        read_ahead: 30,
        fetch_late_ms: [0; Input::ALL.len()],
        tick_ms: 60,
        classic: false,
        at_least_once: false,
        view: ViewPlan { refresh_interval_ms: 0, members: false },
        longest_absence_ms: 60_000,
    }
}

/// Times are milliseconds since the beginning.
pub struct Script {
    pub world: World,
}

impl Script {
    pub fn now(&self) -> i64 {
        self.world.sim.borrow().now - START_MS
    }

    pub fn until(&mut self, at: i64) {
        self.world.run_until(START_MS + at).expect("a world that goes on");
    }

    /// A tick at a time, until something is so.
    pub fn until_it(&mut self, what: &str, is: impl Fn(&Script) -> bool) {
        let deadline = self.now() + 120_000;
        while !is(self) {
            assert!(self.now() < deadline, "never {what}");
            self.until(self.now());
        }
    }

    // ---- what is said

    /// A heartbeat that carries an interval, written some time after the poll.
    pub fn polls(&mut self, device: &str, at: i64, written_at: i64, interval_ms: i64) {
        self.polls_stamped(device, at, written_at, interval_ms, written_at);
    }

    /// The same, with another producer's stamp, where stamps are kept.
    pub fn polls_stamped(
        &mut self,
        device: &str,
        at: i64,
        written_at: i64,
        interval_ms: i64,
        stamp: i64,
    ) {
        let heartbeat = v1::Heartbeat {
            occurred_at: proto(START_MS + at),
            poll_interval: duration(interval_ms),
            going_away: false,
        };
        let mut message = Message::of(Some(device), heartbeat.encode_to_vec());
        message.stamp = Some(START_MS + stamp);
        let partition = partition_of(device.as_bytes(), self.world.plan.partitions);
        self.world.workload.push(START_MS + written_at, Input::Heartbeats, partition, message);
    }

    /// Records that nobody can use.
    pub fn says_rubbish(&mut self, at: i64, partition: i32, bytes: usize) {
        let mut message = Message::of(Some("device"), vec![0xff; bytes]);
        message.headers = vec![(BAD.to_owned(), None)];
        self.world.workload.push(START_MS + at, Input::Heartbeats, partition, message);
    }

    pub fn says(&mut self, device: Option<&str>, at: i64, event: lifecycle::Event) {
        let message = Script::lifecycle(device, at, event);
        self.world.workload.push(START_MS + at, Input::Lifecycle, 0, message);
    }

    pub fn says_vpn(&mut self, device: Option<&str>, at: i64, event: vpn::Event) {
        let event = v1::VpnEvent { occurred_at: proto(START_MS + at), event: Some(event) };
        let message = Message::of(device, event.encode_to_vec());
        self.world.workload.push(START_MS + at, Input::VpnSessions, 0, message);
    }

    pub fn opens_a_session(&mut self, device: &str, at: i64) {
        let (instance, session) = ("vpn".to_owned(), "s".to_owned());
        let opened = v1::SessionOpened { instance, session, ..Default::default() };
        self.says_vpn(Some(device), at, vpn::Event::SessionOpened(opened));
    }

    pub fn lifecycle(device: Option<&str>, at: i64, event: lifecycle::Event) -> Message {
        let event = v1::LifecycleEvent { occurred_at: proto(START_MS + at), event: Some(event) };
        Message::of(device, event.encode_to_vec())
    }

    /// Writes lifecycle records now, in a transaction that stays open.
    pub fn begins_transaction(&mut self, messages: Vec<Message>) {
        let mut sim = self.world.sim.borrow_mut();
        let now = sim.now;
        let place = (Topic::Input(Input::Lifecycle), 0);
        let log = sim.kafka.log(place);
        if log.last_stable() == log.end {
            sim.kafka.init_producer("gateway", now).expect("a producer");
        }
        for message in messages {
            sim.kafka.send("gateway", 1, place, message, now).expect("a record");
        }
    }

    pub fn ends_transaction(&mut self) {
        let mut sim = self.world.sim.borrow_mut();
        let now = sim.now;
        sim.kafka.end_transaction("gateway", 1, true, now, 0).expect("an end");
    }

    // ---- what goes wrong

    pub fn faults(&mut self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.world.sim.borrow_mut().faults);
    }

    pub fn process(&mut self) -> &mut Process {
        self.world.places[0].0.as_mut().expect("a process")
    }

    /// A machine sleeps; its monotonic clock stands meanwhile.
    pub fn sleeps(&mut self, place: usize, ms: i64) {
        let World { places, sim, .. } = &mut self.world;
        places[place].0.as_mut().expect("a process").pause(&mut sim.borrow_mut(), ms, true);
    }

    /// A process is stopped; its monotonic clock goes on.
    pub fn stops(&mut self, place: usize, ms: i64) {
        let World { places, sim, .. } = &mut self.world;
        places[place].0.as_mut().expect("a process").pause(&mut sim.borrow_mut(), ms, false);
    }

    /// The process is asked to end.
    pub fn is_told_to_leave(&mut self) {
        let World { places, sim, .. } = &mut self.world;
        places[0].0.as_mut().expect("a process").leave(&mut sim.borrow_mut());
    }

    /// The process dies, and the next one starts once the group has noticed.
    pub fn dies(&mut self) {
        self.world.crash(0);
        let noticed = self.now() + self.world.plan.session_timeout_ms + 1_000;
        self.world.places[0].1 = START_MS + noticed;
    }

    /// The process dies, the group is forgotten, and the next one starts.
    pub fn dies_and_offsets_are_lost(&mut self) {
        self.dies();
        self.until_it("without members", |script| script.is_forgotten());
    }

    fn is_forgotten(&self) -> bool {
        self.world.sim.borrow_mut().kafka.lose_offsets()
    }

    pub fn compacts_the_changelog(&mut self) {
        let mut sim = self.world.sim.borrow_mut();
        let now = sim.now;
        sim.kafka.logs.get_mut(&(Topic::Changelog, 0)).expect("a changelog").compact(1.0, now);
    }

    /// A topic is deleted and made anew.
    pub fn loses_the_log(&mut self, input: Input) {
        let mut sim = self.world.sim.borrow_mut();
        let log = sim.kafka.logs.get_mut(&(Topic::Input(input), 0)).expect("an input");
        log.records.clear();
        (log.start, log.end) = (0, 0);
    }

    /// Retention deletes all that an input holds.
    pub fn deletes_everything(&mut self, input: Input) {
        let mut sim = self.world.sim.borrow_mut();
        let log = sim.kafka.logs.get_mut(&(Topic::Input(input), 0)).expect("an input");
        log.delete_before(log.end);
    }

    /// The process hears nothing of the brokers for a while, and still turns.
    pub fn is_cut_off_for(&mut self, ms: i64) {
        let client = self.process().client;
        let mut sim = self.world.sim.borrow_mut();
        sim.clients[client].cut_off_until = sim.now + ms;
    }

    /// What became of the commit that was not answered is told so late that its
    /// transaction has timed out.
    pub fn hears_nothing_of_its_commit_for(&mut self, ms: i64) {
        let client = self.process().client;
        let mut sim = self.world.sim.borrow_mut();
        let due = sim.now + ms;
        sim.clients[client].job.as_mut().expect("a commit").wait_until(due);
    }

    /// The leader of an input says where it ends, and answers no fetch.
    pub fn cannot_read(&mut self, input: Input, until: i64) {
        let client = self.process().client;
        let mut sim = self.world.sim.borrow_mut();
        sim.clients[client].unanswered_until[input.index()] = START_MS + until;
    }

    /// The answer to a question that is under way takes this long.
    pub fn hears_no_answer_for(&mut self, ms: i64) {
        let client = self.process().client;
        let mut sim = self.world.sim.borrow_mut();
        let due = sim.now + ms;
        assert!(sim.clients[client].delay_answers(due), "no question");
    }

    pub fn loses_the_leader_of_the_changelog(&mut self, partition: i32, until: i64) {
        let mut sim = self.world.sim.borrow_mut();
        sim.leaderless.insert((Topic::Changelog, partition), START_MS + until);
    }

    /// A partition of an input has no leader until then.
    pub fn has_no_leader(&mut self, input: Input, partition: i32, until: i64) {
        let mut sim = self.world.sim.borrow_mut();
        sim.leaderless.insert((Topic::Input(input), partition), START_MS + until);
        let now = sim.now;
        sim.unreachable.push((now, START_MS + until));
    }

    /// Processes that start from now on have these rules.
    pub fn changes_rules(&mut self, change: impl Fn(&mut Rules)) {
        change(&mut self.world.plan.rules);
    }

    pub fn evicts_the_member(&mut self) {
        let mut sim = self.world.sim.borrow_mut();
        let members: Vec<u64> = sim.kafka.group.members.keys().copied().collect();
        for member in members {
            sim.kafka.group.leave(member);
        }
    }

    /// A member joins that says nothing more, and gets no partition: with the
    /// classic protocol all give theirs back.
    pub fn another_member_joins(&mut self) {
        let mut sim = self.world.sim.borrow_mut();
        let now = sim.now;
        sim.kafka.group.join(now);
    }

    pub fn loses_redis(&mut self, until: i64) {
        self.world.sim.borrow_mut().redis.away_until = START_MS + until;
    }

    /// A tick at a time, until the shard runs.
    pub fn until_it_runs(&mut self) {
        self.until_its_shard_is(StageName::Running);
    }

    /// A tick at a time, until a shard of the process is at this stage.
    pub fn until_its_shard_is(&mut self, stage: StageName) {
        let deadline = self.now() + 120_000;
        let is = |process: &mut Process| process.shards().iter().any(|at| at.stage == stage);
        while !self.world.places[0].0.as_mut().is_some_and(is) {
            assert!(self.now() < deadline, "never {stage:?}");
            self.until(self.now());
        }
    }

    // ---- what is seen

    /// How often the process found since the last look that records of an input
    /// had been deleted unread.
    pub fn offsets_lost(&mut self, input: Input) -> u64 {
        self.process().offsets_lost(input)
    }

    pub fn has_left(&self) -> bool {
        self.world.places[0].0.is_none()
    }

    /// What the process has committed, of lifecycle, sessions and heartbeats.
    pub fn committed(&self) -> [i64; 3] {
        let sim = self.world.sim.borrow();
        Input::ALL.map(|input| sim.kafka.offsets.get(&(input, 0)).map_or(0, |at| at.offset))
    }

    /// How many rows the process has.
    pub fn rows(&mut self) -> usize {
        self.process().shards().iter().map(|shard| shard.rows).sum()
    }

    /// For which epoch the last commit was made.
    pub fn epoch(&self) -> Option<u64> {
        let sim = self.world.sim.borrow();
        let committed = sim.kafka.offsets.get(&(Input::Lifecycle, 0))?;
        ShardMetadata::decode(&committed.metadata).map(|metadata| metadata.epoch)
    }

    /// How many commits there have been.
    pub fn commits(&self) -> usize {
        self.world.sim.borrow().kafka.offset_commits.len()
    }

    /// Whether a commit of the process was not answered.
    pub fn has_lost_its_producer(&self) -> bool {
        let Some(process) = &self.world.places[0].0 else { return false };
        let sim = self.world.sim.borrow();
        sim.clients[process.client].producer.is_none() && !sim.kafka.is_quiet()
    }

    /// Whether the process reads no more of an input for now.
    pub fn has_paused(&self, input: Input) -> bool {
        let Some(process) = &self.world.places[0].0 else { return false };
        self.world.sim.borrow().clients[process.client].has_paused(input, 0)
    }

    /// How often the process could not begin or end a restore's reading.
    pub fn refused_restores(&self) -> usize {
        let Some(process) = &self.world.places[0].0 else { return 0 };
        self.world.sim.borrow().clients[process.client].refused_restores
    }

    pub fn has_in_changelog(&self, key: &str) -> bool {
        let sim = self.world.sim.borrow();
        let mut records = sim.kafka.log((Topic::Changelog, 0)).committed();
        records.any(|record| record.message.key.as_deref() == Some(key.as_bytes()))
    }

    /// All changes, in the order in which they were told.
    pub fn all_changes(&self) -> Vec<v1::StatusChanged> {
        let sim = self.world.sim.borrow();
        let log = sim.kafka.log((Topic::Changes, 0));
        let values = log.committed().map(|record| record.message.value.as_deref().unwrap_or(b""));
        values.map(|value| v1::StatusChanged::decode(value).expect("a change")).collect()
    }

    /// How many bytes of dead letters each transaction wrote, in order.
    pub fn dead_letter_bytes(&self) -> Vec<usize> {
        let sim = self.world.sim.borrow();
        let mut transactions: Vec<(Option<u64>, usize)> = Vec::new();
        for record in sim.kafka.log((Topic::DeadLetters, 0)).committed() {
            let bytes = record.message.value.as_ref().map_or(0, Vec::len);
            match transactions.last_mut() {
                Some((transaction, sum)) if *transaction == record.transaction => *sum += bytes,
                _ => transactions.push((record.transaction, bytes)),
            }
        }
        transactions.into_iter().map(|(_, bytes)| bytes).collect()
    }

    /// The changes of a device: what it shows, and since when.
    pub fn changes(&self, device: &str) -> Vec<(Status, Connectivity, i64)> {
        let changes = self.all_changes().into_iter().filter(|change| change.device_id == device);
        let since = |change: &v1::StatusChanged| {
            let ms =
                |at: prost_types::Timestamp| at.seconds * 1_000 + i64::from(at.nanos) / 1_000_000;
            change.since.map_or(0, |at| ms(at) - START_MS)
        };
        changes.map(|value| (value.status(), value.connectivity(), since(&value))).collect()
    }

    /// Everything comes to rest, and the auditor has nothing to say.
    pub fn ends_well(&mut self) {
        self.world.calm();
        let mut outcome = Outcome::default();
        let end = self.world.settle("at the end").and_then(|()| self.world.audit(&mut outcome));
        end.unwrap_or_else(|failure| panic!("{failure}"));
    }
}
