//! A client of the simulated cluster, and the [`Log`] that it is to a stream
//! thread: group consumer, restore consumer, questions, and a producer whose
//! transactions go step by step.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use device_status::error::Error;
use device_status::shard::{Header, Input, Timestamp};
use device_status::stream_thread::ports::{
    Batch, Bounds, Commits, Delivery, Headers as HeadersPort, Log, LogBounds, LogEvent, OffsetAt,
    Outcome, QuestionId, RecordRef, Source,
};

use crate::commit::Job;
use crate::group::HeartbeatAnswer;
use crate::kafka::{Headers, Record, Topic};
use crate::sim::{Shared, Sim, SimClock};

#[derive(Debug)]
struct RecordHeaders<'a>(&'a Headers);

impl HeadersPort for RecordHeaders<'_> {
    fn to_vec(&self) -> Vec<Header> {
        let copy = |(name, value): &(String, Option<Vec<u8>>)| {
            (name.as_str().into(), value.as_ref().map(|bytes| bytes.as_slice().into()))
        };
        self.0.iter().map(copy).collect()
    }
}

#[derive(Debug)]
struct Reading {
    position: i64,
    paused: bool,
    /// The end that was last told.
    told_end: Option<i64>,
    /// When the fetch that is under way is answered.
    answered_at: i64,
}

struct Question {
    id: QuestionId,
    what: Asked,
    /// When the broker answers, for each part of the bounds.
    due: [i64; 3],
    arrives_at: i64,
    fails: bool,
}

/// How long nothing was heard of an input.
struct Silence {
    since: i64,
    /// For how much of that the process listened.
    listened_ms: i64,
    /// Which of [`Sim::unreachable`] it is, once it is too long.
    told: Option<usize>,
}

enum Asked {
    /// Where each log begins, is stable, and ends.
    Bounds(Vec<(Source, i32)>, OffsetAt, [Option<Part>; 3]),
    Committed(Vec<(Input, i32)>, Option<Result<Commits, String>>),
}

/// One of the three offsets of each partition; none where somebody else than its
/// leader was asked.
type Part = BTreeMap<(Source, i32), i64>;

/// The bounds of a partition that all three parts know.
fn bounds(parts: &[Option<Part>; 3], place: (Source, i32)) -> Option<LogBounds> {
    let [start, stable, end] = parts.each_ref().map(|part| part.as_ref()?.get(&place).copied());
    let (stable, end) = (stable?, end?);
    let start = start?;
    Some(LogBounds { start: if start < 0 { end } else { start }, stable, end })
}

pub struct Client {
    pub name: String,
    pub clock: SimClock,
    pub paused: bool,
    pub cut_off_until: i64,
    /// Whether the process's view has nothing left to write.
    pub view_drained: bool,
    /// How many scans of Redis have come to their end.
    pub scans: u64,
    /// It ends before it does anything more.
    pub doomed: bool,
    pub is_to_leave: bool,
    /// It was asked to end.
    pub stopping: bool,
    pub at_least_once: bool,
    pub transactional_id: String,
    pub producer: Option<u32>,
    pub job: Option<Job>,
    pub outcomes: VecDeque<Outcome>,
    member: Option<(u64, u32)>,
    closed: bool,
    lost: bool,
    heartbeat_at: i64,
    /// Given to the loop, in its own words.
    pub owned: BTreeSet<(Input, i32)>,
    /// To be given to the loop later.
    held_back: Vec<(Input, i32)>,
    wait_assign: BTreeSet<(Input, i32)>,
    wait_unassign: BTreeSet<(Input, i32)>,
    given_back: BTreeSet<i32>,
    reading: BTreeMap<(Input, i32), Reading>,
    restoring: BTreeMap<(Source, i32), Reading>,
    questions: Vec<Question>,
    next_question: QuestionId,
    read_ahead: usize,
    /// Up to how long a fetch of each input takes, the first one and some later.
    pub fetch_late_ms: [i64; Input::ALL.len()],
    /// No fetch of these inputs is answered until then.
    pub unanswered_until: [i64; Input::ALL.len()],
    /// How often a restore was not allowed to begin or end a reading.
    pub refused_restores: usize,
    polled_at: i64,
    silences: BTreeMap<(Input, i32), Silence>,
    /// How long an input may be silent before nobody waits for it (rule T4).
    pub max_input_idle_ms: i64,
}

impl Client {
    /// Whether the loop has an input of a partition paused.
    pub fn has_paused(&self, input: Input, partition: i32) -> bool {
        self.reading.get(&(input, partition)).is_some_and(|reading| reading.paused)
    }

    pub fn new(name: String, clock: SimClock, read_ahead: usize) -> Client {
        Client {
            transactional_id: name.clone(),
            name,
            clock,
            paused: false,
            cut_off_until: 0,
            view_drained: true,
            scans: 0,
            doomed: false,
            is_to_leave: false,
            stopping: false,
            at_least_once: false,
            producer: None,
            job: None,
            outcomes: VecDeque::new(),
            member: None,
            closed: false,
            lost: false,
            heartbeat_at: 0,
            owned: BTreeSet::new(),
            held_back: Vec::new(),
            wait_assign: BTreeSet::new(),
            wait_unassign: BTreeSet::new(),
            given_back: BTreeSet::new(),
            reading: BTreeMap::new(),
            restoring: BTreeMap::new(),
            questions: Vec::new(),
            next_question: 0,
            read_ahead,
            fetch_late_ms: [0; Input::ALL.len()],
            unanswered_until: [0; Input::ALL.len()],
            refused_restores: 0,
            polled_at: 0,
            silences: BTreeMap::new(),
            max_input_idle_ms: i64::MAX,
        }
    }

    /// Whether a commit is under way, or the view is behind one.
    pub fn is_busy(&self) -> bool {
        !self.closed && (self.job.is_some() || !self.outcomes.is_empty() || !self.view_drained)
    }

    /// The process is gone. What it had open stays open.
    pub fn crash(&mut self) {
        self.closed = true;
        self.job = None;
        self.questions.clear();
        self.paused = false;
    }

    /// No question that is under way is answered before this. Says whether there
    /// is one.
    pub fn delay_answers(&mut self, until: i64) -> bool {
        for question in &mut self.questions {
            question.arrives_at = question.arrives_at.max(until);
        }
        !self.questions.is_empty()
    }
}

impl Sim {
    /// What the brokers do for a client on their own time.
    pub fn tick_client(&mut self, index: usize) {
        if self.clients[index].closed {
            return;
        }
        self.answer_questions(index, self.now);
        for _ in 0..12 {
            if !self.advance_commit(index) {
                break;
            }
        }
    }

    /// Brokers answer what has come due: before they append what comes later.
    pub fn answer_until(&mut self, at: i64) {
        for index in 0..self.clients.len() {
            self.answer_questions(index, at);
        }
    }

    fn answer_questions(&mut self, index: usize, at: i64) {
        if self.clients[index].questions.is_empty() || !self.reachable(index) {
            return;
        }
        let Sim { clients, kafka, leaderless, .. } = self;
        let now = at;
        for question in &mut clients[index].questions {
            let Question { what, due, .. } = question;
            match what {
                Asked::Bounds(of, from, parts) => {
                    for (kind, part) in parts.iter_mut().enumerate() {
                        if part.is_some() || now < due[kind] {
                            continue;
                        }
                        let led = |place: &&(Source, i32)| {
                            let until = leaderless.get(&(topic_of(place.0), place.1));
                            until.is_none_or(|until| now >= *until)
                        };
                        let offset = |place: &(Source, i32)| {
                            let log = kafka.log((topic_of(place.0), place.1));
                            let offset = match (kind, *from) {
                                (0, OffsetAt::Start) => log.start,
                                (0, OffsetAt::Time(timestamp)) => log.offset_at(timestamp.0),
                                (1, _) => log.last_stable(),
                                _ => log.end,
                            };
                            (*place, offset)
                        };
                        *part = Some(of.iter().filter(led).map(offset).collect());
                    }
                }
                Asked::Committed(of, answer) => {
                    if answer.is_none() && now >= due[0] {
                        *answer = Some(kafka.stable_offsets(of));
                    }
                }
            }
        }
    }

    // ---- the group's consumer

    fn poll_group(&mut self, index: usize, events: &mut Vec<LogEvent>) {
        let now = self.now;
        if self.clients[index].member.is_none() {
            if !self.clients[index].wait_unassign.is_empty() {
                return;
            }
            let joined = self.kafka.group.join(now);
            let client = &mut self.clients[index];
            client.member = Some(joined);
            client.lost = false;
            client.heartbeat_at = now;
            let name = client.name.clone();
            self.note(|| format!("{name} joins as {joined:?}"));
        }
        let pause = self.random.between(500, 3_000);
        let client = &mut self.clients[index];
        let Some((member, _)) = client.member else { return };
        if now < client.heartbeat_at {
            return;
        }
        client.heartbeat_at = now + pause;
        let busy = !client.wait_assign.is_empty() || !client.wait_unassign.is_empty();
        if !client.held_back.is_empty() && !busy {
            let rest = std::mem::take(&mut client.held_back);
            client.wait_assign.extend(rest.iter().copied());
            client.owned.extend(rest.iter().copied());
            events.push(LogEvent::Assigned(rest));
            return;
        }
        let answer = if busy {
            match self.kafka.group.members.get_mut(&member) {
                Some(known) => {
                    known.heard_at = now;
                    HeartbeatAnswer::Nothing
                }
                None => HeartbeatAnswer::Unknown,
            }
        } else {
            let given_back = std::mem::take(&mut client.given_back);
            self.kafka.group.heartbeat(member, &given_back, now)
        };
        if answer != HeartbeatAnswer::Nothing {
            let name = self.clients[index].name.clone();
            self.note(|| format!("{name} heartbeat: {answer:?}"));
        }
        let split = !self.kafka.group.classic && self.random.chance(0.1);
        let client = &mut self.clients[index];
        if let Some(known) = self.kafka.group.members.get(&member) {
            client.member = Some((member, known.epoch));
        }
        match answer {
            HeartbeatAnswer::Nothing => {}
            HeartbeatAnswer::Unknown => {
                client.member = None;
                client.held_back.clear();
                client.given_back.clear();
                client.wait_assign.clear();
                client.wait_unassign = client.owned.clone();
                if !client.owned.is_empty() {
                    client.lost = true;
                    events.push(LogEvent::Lost(client.owned.iter().copied().collect()));
                }
            }
            HeartbeatAnswer::Revoke(partitions) => {
                let revoked: Vec<_> =
                    client.owned.iter().copied().filter(|(_, p)| partitions.contains(p)).collect();
                client.wait_unassign = revoked.iter().copied().collect();
                events.push(LogEvent::Revoked(revoked));
            }
            HeartbeatAnswer::Assign(partitions) => {
                let mut given: Vec<(Input, i32)> =
                    partitions.iter().flat_map(|p| Input::ALL.map(|input| (input, *p))).collect();
                if split {
                    client.held_back = given.split_off(given.len() / 2);
                }
                client.owned.extend(given.iter().copied());
                client.wait_assign.extend(given.iter().copied());
                events.push(LogEvent::Assigned(given));
            }
        }
    }

    fn fetch(
        &mut self,
        index: usize,
        max: usize,
        records: &mut Vec<(Delivery, i32, Rc<Record>)>,
        events: &mut Vec<LogEvent>,
    ) {
        let Sim { clients, kafka, random, leaderless, now, .. } = self;
        let is_leaderless = |place| leaderless.get(&place).is_some_and(|until| *now < *until);
        let client = &mut clients[index];
        let read_ahead = client.read_ahead.min(max);
        let mut order: Vec<(Source, i32)> = client.restoring.keys().copied().collect();
        random.shuffle(&mut order);
        for (source, partition) in order {
            let Some(reading) = client.restoring.get_mut(&(source, partition)) else { continue };
            if is_leaderless((topic_of(source), partition)) {
                continue;
            }
            let log = kafka.log((topic_of(source), partition));
            reading.position = reading.position.max(log.start);
            let (found, position) = log.read(reading.position, 1 + random.below(read_ahead));
            reading.position = position;
            let ended = found.is_empty() && position >= log.last_stable();
            if ended && reading.told_end != Some(position) && random.chance(0.6) {
                reading.told_end = Some(position);
                events.push(LogEvent::RestoreEnd { source, partition, offset: position });
            }
            for record in found {
                records.push((Delivery::Restore(source), partition, record));
            }
        }
        let mut order: Vec<(Input, i32)> = client.reading.keys().copied().collect();
        random.shuffle(&mut order);
        for (input, partition) in order {
            let Some(reading) = client.reading.get_mut(&(input, partition)) else { continue };
            let waits = *now < reading.answered_at.max(client.unanswered_until[input.index()]);
            let leaderless = is_leaderless((Topic::Input(input), partition));
            if reading.paused || waits || leaderless || random.chance(0.3) {
                continue;
            }
            let late_ms = client.fetch_late_ms[input.index()];
            if late_ms > 0 && random.chance(0.05) {
                reading.answered_at = *now + random.between(0, late_ms);
            }
            let log = kafka.log((Topic::Input(input), partition));
            reading.position = reading.position.max(log.start);
            let (found, position) = log.read(reading.position, 1 + random.below(read_ahead));
            reading.position = position;
            let ended = position >= log.last_stable();
            // An end is told by an empty fetch, sometimes right behind records.
            let empty = found.is_empty() || random.chance(0.1);
            if ended && empty && reading.told_end != Some(position) && random.chance(0.6) {
                reading.told_end = Some(position);
                events.push(LogEvent::EndOfPartition { input, partition, offset: position });
            }
            for record in found {
                records.push((Delivery::Group(input), partition, record));
            }
        }
    }

    fn answers(&mut self, index: usize, events: &mut Vec<LogEvent>) {
        let now = self.now;
        let client = &mut self.clients[index];
        let mut rest = Vec::new();
        for question in std::mem::take(&mut client.questions) {
            let complete = match &question.what {
                Asked::Bounds(_, _, parts) => parts.iter().all(Option::is_some),
                Asked::Committed(_, answer) => answer.is_some(),
            };
            if now < question.arrives_at || !complete && !question.fails {
                rest.push(question);
                continue;
            }
            let failed = || "no answer from the broker".to_owned();
            let event = match question.what {
                Asked::Bounds(of, _, parts) => {
                    let found = |place: &(Source, i32)| Some((*place, bounds(&parts, *place)?));
                    let all: Bounds = of.iter().filter_map(found).collect();
                    let fails = question.fails || all.is_empty() && !of.is_empty();
                    if !fails {
                        let unanswered = of.iter().filter(|place| !all.contains_key(place));
                        events.extend(unanswered.map(|(_, partition)| LogEvent::NoAnswer {
                            partition: *partition,
                            error: "no leader".to_owned(),
                        }));
                    }
                    LogEvent::Bounds(question.id, if fails { Err(failed()) } else { Ok(all) })
                }
                Asked::Committed(_, answer) => {
                    let answer =
                        answer.filter(|_| !question.fails).unwrap_or_else(|| Err(failed()));
                    LogEvent::Committed(question.id, answer)
                }
            };
            events.push(event);
        }
        client.questions = rest;
    }

    /// Tells the auditor of inputs that have not answered for too long (rule T4),
    /// as where one question after another fails.
    fn listen(
        &mut self,
        index: usize,
        records: &[(Delivery, i32, Rc<Record>)],
        events: &[LogEvent],
    ) {
        let Sim { clients, unreachable, now, .. } = self;
        let client = &mut clients[index];
        let Client { reading, silences, max_input_idle_ms, .. } = client;
        let listened_ms = (*now - std::mem::replace(&mut client.polled_at, *now)).min(1_000);
        let mut answers = BTreeSet::new();
        for (delivery, partition, _) in records {
            if let Delivery::Group(input) = delivery {
                answers.insert((*input, *partition));
            }
        }
        for event in events {
            match event {
                LogEvent::EndOfPartition { input, partition, .. } => {
                    answers.insert((*input, *partition));
                }
                LogEvent::Bounds(_, Ok(found)) => {
                    for ((source, partition), log) in found {
                        let Source::Input(input) = *source else { continue };
                        let place = (input, *partition);
                        let read = reading.get(&place).map_or(i64::MIN, |reading| reading.position);
                        if log.stable <= read {
                            answers.insert(place);
                        }
                    }
                }
                _ => {}
            }
        }
        silences.retain(|place, _| reading.contains_key(place));
        for place in reading.keys() {
            let fresh = || Silence { since: *now, listened_ms: 0, told: None };
            let silence = silences.entry(*place).or_insert_with(fresh);
            silence.listened_ms += listened_ms;
            if silence.listened_ms >= *max_input_idle_ms {
                let told = *silence.told.get_or_insert_with(|| {
                    unreachable.push((silence.since, *now));
                    unreachable.len() - 1
                });
                unreachable[told].1 = *now;
            }
            if answers.contains(place) {
                *silence = fresh();
            }
        }
    }

    fn may_restore(&mut self, index: usize) -> Result<(), Error> {
        let refused = self.faults.restore_refused;
        if self.random.chance(refused) {
            self.clients[index].refused_restores += 1;
            return Err(Error::Retriable("refused".into()));
        }
        Ok(())
    }

    fn ask(&mut self, index: usize, what: Asked) -> QuestionId {
        let due = [0; 3].map(|_| self.now + self.latency());
        let fails = self.faults.question_fails;
        let fails = self.random.chance(fails) || !self.reachable(index) && self.random.chance(0.5);
        let longest = self.faults.answers_late_ms;
        let late = if longest > 0 { self.random.between(longest / 2, longest) } else { 0 };
        let mut arrives_at = due.into_iter().max().unwrap_or(0) + self.latency() + late;
        if fails {
            arrives_at += 5_000;
        }
        let client = &mut self.clients[index];
        client.next_question += 1;
        let id = client.next_question;
        client.questions.push(Question { id, what, due, arrives_at, fails });
        id
    }
}

fn topic_of(source: Source) -> Topic {
    match source {
        Source::Input(input) => Topic::Input(input),
        Source::Changelog => Topic::Changelog,
    }
}

/// The [`Log`] of one process.
pub struct SimLog {
    pub sim: Shared,
    pub client: usize,
}

impl Log for SimLog {
    fn poll(
        &mut self,
        _timeout: Duration,
        max_records: usize,
        on_record: &mut dyn FnMut(Delivery, RecordRef<'_>),
        events: &mut Vec<LogEvent>,
    ) -> Result<(), Error> {
        let mut records = Vec::new();
        {
            let mut sim = self.sim.borrow_mut();
            sim.tick_client(self.client);
            if sim.reachable(self.client) {
                sim.fetch(self.client, max_records, &mut records, events);
                sim.poll_group(self.client, events);
            }
            sim.answers(self.client, events);
            sim.listen(self.client, &records, events);
            let client = &mut sim.clients[self.client];
            if let Some(outcome) = client.outcomes.pop_front() {
                events.push(LogEvent::Submitted(outcome));
            }
            if sim.trace.on {
                for event in events.iter() {
                    if let LogEvent::Submitted(outcome) = event {
                        let name = sim.clients[self.client].name.clone();
                        let text = format!("{name} is told {outcome:?}");
                        sim.note(|| text);
                    }
                }
            }
        }
        for (delivery, partition, record) in records {
            on_record(
                delivery,
                RecordRef {
                    partition,
                    offset: record.offset,
                    timestamp: Timestamp(record.timestamp),
                    stamped_by_broker: record.stamped_by_broker,
                    key: record.message.key.as_deref(),
                    value: record.message.value.as_deref(),
                    headers: &RecordHeaders(&record.message.headers),
                },
            );
        }
        Ok(())
    }

    fn ask_bounds(&mut self, of: &[(Source, i32)], from: OffsetAt) -> QuestionId {
        let what = Asked::Bounds(of.to_vec(), from, [const { None }; 3]);
        self.sim.borrow_mut().ask(self.client, what)
    }

    fn ask_committed(&mut self, of: &[(Input, i32)]) -> QuestionId {
        self.sim.borrow_mut().ask(self.client, Asked::Committed(of.to_vec(), None))
    }

    fn assign(&mut self, starts: &[(Input, i32, i64)]) -> Result<(), Error> {
        let mut sim = self.sim.borrow_mut();
        let client = &mut sim.clients[self.client];
        if starts.iter().any(|(input, p, _)| !client.owned.contains(&(*input, *p))) {
            return Err(Error::Retriable("not ours any more".to_owned()));
        }
        for &(input, partition, position) in starts {
            client.wait_assign.remove(&(input, partition));
            let reading = Reading { position, paused: true, told_end: None, answered_at: 0 };
            client.reading.insert((input, partition), reading);
        }
        Ok(())
    }

    fn unassign(&mut self, partitions: &[(Input, i32)]) -> Result<(), Error> {
        let mut sim = self.sim.borrow_mut();
        let client = &mut sim.clients[self.client];
        for place in partitions {
            client.reading.remove(place);
            if client.wait_unassign.remove(place) {
                client.owned.remove(place);
                client.wait_assign.remove(place);
                if !client.lost {
                    client.given_back.insert(place.1);
                }
            }
        }
        if client.wait_unassign.is_empty() {
            client.lost = false;
        }
        Ok(())
    }

    fn pause(&mut self, partitions: &[(Input, i32)]) -> Result<(), Error> {
        self.set_paused(partitions, true);
        Ok(())
    }

    fn resume(&mut self, partitions: &[(Input, i32)]) -> Result<(), Error> {
        self.set_paused(partitions, false);
        Ok(())
    }

    fn log_start(&self, input: Input, partition: i32) -> Option<i64> {
        Some(self.sim.borrow().kafka.log((Topic::Input(input), partition)).start)
    }

    fn start_restore(&mut self, source: Source, partition: i32, offset: i64) -> Result<(), Error> {
        let reading = Reading { position: offset, paused: false, told_end: None, answered_at: 0 };
        let mut sim = self.sim.borrow_mut();
        sim.may_restore(self.client)?;
        sim.clients[self.client].restoring.insert((source, partition), reading);
        Ok(())
    }

    fn stop_restore(&mut self, source: Source, partition: i32) -> Result<(), Error> {
        let mut sim = self.sim.borrow_mut();
        sim.may_restore(self.client)?;
        sim.clients[self.client].restoring.remove(&(source, partition));
        Ok(())
    }

    fn submit(&mut self, batch: Arc<Batch>) {
        let mut sim = self.sim.borrow_mut();
        let now = sim.now;
        let latency = sim.latency();
        for shard in &batch.shards {
            let name = (shard.partition, shard.metadata.clone());
            sim.kafka.submitted.entry(name).or_insert(now);
        }
        let client = &mut sim.clients[self.client];
        assert!(client.job.is_none(), "one commit at a time");
        match client.member {
            Some(member) if !client.lost => {
                client.job = Some(Job::new(batch, member, now, now + latency));
            }
            _ => client.outcomes.push_back(Outcome::Refused {
                stale_member: true,
                message: "the assignment is lost".to_owned(),
            }),
        }
    }

    fn close(&mut self) {
        let mut sim = self.sim.borrow_mut();
        let client = &mut sim.clients[self.client];
        client.closed = true;
        let (member, name) = (client.member.take(), client.name.clone());
        // The broker hears of it unless it cannot.
        if let Some((member, _)) = member
            && sim.reachable(self.client)
        {
            sim.kafka.group.leave(member);
        }
        sim.note(|| format!("{name} leaves"));
    }
}

impl SimLog {
    fn set_paused(&self, partitions: &[(Input, i32)], paused: bool) {
        let mut sim = self.sim.borrow_mut();
        let Sim { clients, random, now, .. } = &mut *sim;
        let client = &mut clients[self.client];
        for place in partitions {
            let late_ms = client.fetch_late_ms[place.0.index()];
            if let Some(reading) = client.reading.get_mut(place) {
                reading.paused = paused;
                reading.told_end = None;
                if late_ms > 0 {
                    reading.answered_at = *now + random.between(0, late_ms);
                }
            }
        }
    }
}
