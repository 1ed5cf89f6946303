//! Commits of a client, step by step: transactions, or rule C9 without them.

use std::sync::Arc;

use device_status::shard::{Input, Timestamp};
use device_status::stream_thread::ports::{
    Batch, Clock as _, CommittedOffset, Outcome, OutputRecord, OutputTopic, Receipt, ShardBatch,
};

use crate::kafka::{Message, OffsetsOf, Refused, Topic};
use crate::sim::Sim;

/// What a client gives a commit before it makes its producer anew.
const COMMIT_DEADLINE_MS: i64 = 15_000;

/// A commit under way.
pub struct Job {
    batch: Arc<Batch>,
    member: (u64, u32),
    stage: Stage,
    due: i64,
    started_at: i64,
    receipt: Receipt,
    stamp: Option<i64>,
    /// When the delivery report was heard, on the client's own clock.
    heard_ms: Option<i64>,
    /// A request that was under way when the process was stopped has arrived.
    arrived_while_paused: bool,
}

impl Job {
    pub fn new(batch: Arc<Batch>, member: (u64, u32), started_at: i64, due: i64) -> Job {
        Job {
            batch,
            member,
            stage: Stage::Send { next: 0 },
            due,
            started_at,
            receipt: Receipt::default(),
            stamp: None,
            heard_ms: None,
            arrived_while_paused: false,
        }
    }

    /// Nothing more happens until then.
    pub fn wait_until(&mut self, due: i64) {
        self.due = due;
    }

    fn offsets(&self) -> OffsetsOf {
        let shards = self.batch.shards.iter();
        let of = |shard: &ShardBatch| {
            let (partition, metadata) = (shard.partition, shard.metadata.clone());
            Input::ALL.into_iter().zip(shard.offsets).map(move |(input, offset)| {
                ((input, partition), CommittedOffset { offset, metadata: metadata.clone() })
            })
        };
        shards.flat_map(of).collect()
    }

    fn has_changes(&self) -> bool {
        let mut records = self.batch.shards.iter().flat_map(|shard| &shard.records);
        records.any(|record| record.topic == OutputTopic::StatusChanges)
    }
}

#[derive(Debug)]
pub enum Stage {
    /// The producer is to be made, anew if there is a reason.
    Init {
        unknown: Option<String>,
    },
    Send {
        next: usize,
    },
    Offsets,
    Commit,
    Abort {
        stale_member: bool,
        message: String,
    },
    Report(Option<Outcome>),
}

impl Sim {
    /// One step of the commit under way. Says whether there may be another.
    pub fn advance_commit(&mut self, index: usize) -> bool {
        let (now, reachable) = (self.now, self.reachable(index));
        let client = &mut self.clients[index];
        let paused = client.paused;
        if client.doomed {
            return false;
        }
        let Some(mut job) = client.job.take() else { return false };
        if !paused && job.stamp.is_some() && job.heard_ms.is_none() {
            job.heard_ms = Some(client.clock.monotonic_ms());
        }
        if now < job.due || paused && job.arrived_while_paused {
            client.job = Some(job);
            return false;
        }
        job.arrived_while_paused = paused;
        if !reachable && !matches!(job.stage, Stage::Report(_)) {
            let late = now - job.started_at > COMMIT_DEADLINE_MS;
            if late && !matches!(job.stage, Stage::Init { .. }) {
                let unknown = Some("no answer".to_owned());
                job.stage = Stage::Init { unknown };
                self.clients[index].producer = None;
            }
            job.due = now + 50;
            self.clients[index].job = Some(job);
            return false;
        }
        let id = self.clients[index].transactional_id.clone();
        let latency = self.latency();
        job.due += latency;
        let stage = std::mem::replace(&mut job.stage, Stage::Report(None));
        if self.trace.on {
            let name = self.clients[index].name.clone();
            self.note(|| format!("{name} commit: {stage:?}"));
        }
        let result = match stage {
            Stage::Report(outcome) => {
                if let Some(mut outcome) = outcome {
                    if let Outcome::Committed(receipt) = &mut outcome {
                        *receipt = std::mem::take(&mut job.receipt);
                        receipt.broker_time = job
                            .stamp
                            .zip(job.heard_ms)
                            .map(|(stamp, heard)| (Timestamp(stamp), heard));
                    }
                    self.clients[index].outcomes.push_back(outcome);
                }
                return false;
            }
            Stage::Init { unknown: Some(message) } if self.clients[index].at_least_once => {
                job.stage = Stage::Report(Some(Outcome::Unknown { message }));
                Ok(())
            }
            Stage::Init { unknown } => match self.kafka.init_producer(&id, now) {
                Ok(epoch) => {
                    self.clients[index].producer = Some(epoch);
                    job.stage = match unknown {
                        Some(message) => Stage::Report(Some(Outcome::Unknown { message })),
                        None => Stage::Send { next: 0 },
                    };
                    Ok(())
                }
                Err(_) => {
                    job.stage = Stage::Init { unknown };
                    job.due += 20;
                    Ok(())
                }
            },
            Stage::Send { next } if self.clients[index].at_least_once => {
                self.send_plainly(index, &mut job, next);
                Ok(())
            }
            Stage::Offsets if self.clients[index].at_least_once => {
                self.commit_plainly(&mut job);
                Ok(())
            }
            Stage::Send { next } => self.send(index, &id, &mut job, next),
            Stage::Offsets => self.send_offsets(index, &id, &mut job),
            Stage::Commit => self.end(index, &id, &mut job),
            Stage::Abort { stale_member, message } => {
                let luck = self.random.number();
                let epoch = self.clients[index].producer.unwrap_or(0);
                let ended = self.kafka.end_transaction(&id, epoch, false, now, luck);
                job.stage = if ended == Err(Refused::Concurrent) {
                    Stage::Abort { stale_member, message }
                } else {
                    let refused = Outcome::Refused { stale_member, message };
                    Stage::Report(Some(refused))
                };
                ended
            }
        };
        match result {
            Ok(()) | Err(Refused::StaleMember) => {}
            Err(Refused::Concurrent) => job.due += 20,
            Err(Refused::Fenced) => {
                self.clients[index].producer = None;
                let unknown = Some("fenced".to_owned());
                job.stage = Stage::Init { unknown };
            }
        }
        // A process may end at any of these moments.
        let (crash, leave) = (self.faults.crash_in_commit, self.faults.leave_after_commit);
        let done = matches!(job.stage, Stage::Report(Some(Outcome::Committed(_))));
        if self.random.chance(crash) {
            self.clients[index].doomed = true;
        } else if done && job.has_changes() && self.random.chance(leave) {
            self.clients[index].is_to_leave = true;
        } else if done && job.has_changes() && !self.clients[index].at_least_once {
            let evicted = self.faults.evicted_after_commit;
            if self.random.chance(evicted) {
                self.kafka.group.leave(job.member.0);
                let name = self.clients[index].name.clone();
                self.note(|| format!("{name} is evicted, right after its commit"));
            }
        }
        self.clients[index].job = Some(job);
        true
    }

    /// A record of the batch, and where it goes.
    fn message(&self, record: &OutputRecord) -> ((Topic, i32), Message) {
        let topic = match record.topic {
            OutputTopic::Changelog => Topic::Changelog,
            OutputTopic::StatusChanges => Topic::Changes,
            OutputTopic::DeadLetters => Topic::DeadLetters,
        };
        let place = self.kafka.place(topic, record.partition, record.key.as_deref());
        let message = Message {
            key: record.key.clone(),
            value: record.value.clone(),
            headers: record.headers.clone(),
            stamp: None,
        };
        (place, message)
    }

    fn written(&self, index: usize, job: &mut Job, (topic, partition): (Topic, i32), offset: i64) {
        if topic != Topic::Changelog {
            return;
        }
        job.receipt.changelog_end.insert(partition, offset + 1);
        job.stamp = Some(self.now);
        let client = &self.clients[index];
        job.heard_ms = (!client.paused).then(|| client.clock.monotonic_ms());
    }

    /// At least once: changes and dead letters, then the changelog (rule C9).
    fn send_plainly(&mut self, index: usize, job: &mut Job, next: usize) {
        let batch = job.batch.clone();
        let records = || batch.shards.iter().flat_map(|shard| &shard.records);
        let is_changelog = |record: &&OutputRecord| record.topic == OutputTopic::Changelog;
        let first = records().filter(|record| !is_changelog(record));
        let ordered: Vec<&OutputRecord> = first.chain(records().filter(is_changelog)).collect();
        let total = ordered.len();
        let stop =
            if self.random.chance(0.3) { next + self.random.below(total + 1) } else { total };
        for record in ordered.iter().take(stop).skip(next) {
            let (place, message) = self.message(record);
            let offset = self.kafka.append(place, message, self.now);
            self.written(index, job, place, offset);
        }
        job.stage = Stage::Send { next: stop.min(total) };
        let refused = self.faults.refused;
        if self.random.chance(refused / 2.0) {
            let message = "a record was not written".to_owned();
            job.stage = Stage::Report(Some(Outcome::Refused { stale_member: false, message }));
        } else if stop >= total {
            job.stage = Stage::Offsets;
        }
    }

    fn commit_plainly(&mut self, job: &mut Job) {
        let (unheard, unanswered) = (self.faults.request_lost, self.faults.answer_lost);
        let outcome = if self.random.chance(unheard) {
            Outcome::Refused { stale_member: false, message: "no answer".to_owned() }
        } else if self.kafka.commit_offsets(job.member, job.offsets()).is_err() {
            Outcome::Refused { stale_member: true, message: "the member is stale".to_owned() }
        } else if self.random.chance(unanswered) {
            Outcome::Refused { stale_member: false, message: "no answer".to_owned() }
        } else {
            Outcome::Committed(Receipt::default())
        };
        job.stage = Stage::Report(Some(outcome));
    }

    fn send(
        &mut self,
        index: usize,
        id: &str,
        job: &mut Job,
        mut next: usize,
    ) -> Result<(), Refused> {
        let Some(epoch) = self.clients[index].producer else {
            job.stage = Stage::Init { unknown: None };
            return Ok(());
        };
        let total = job.batch.shards.iter().map(|shard| shard.records.len()).sum::<usize>();
        job.stage = Stage::Send { next };
        let stop =
            if self.random.chance(0.3) { next + self.random.below(total + 1) } else { total };
        let batch = job.batch.clone();
        let records = batch.shards.iter().flat_map(|shard| &shard.records);
        for record in records.take(stop).skip(next) {
            let (place, message) = self.message(record);
            let now = self.now;
            let offset = self.kafka.send(id, epoch, place, message, now)?;
            next += 1;
            job.stage = Stage::Send { next };
            self.written(index, job, place, offset);
        }
        let refused = self.faults.refused;
        if self.random.chance(refused / 2.0) {
            let message = "a record was not written".to_owned();
            job.stage = Stage::Abort { stale_member: false, message };
        } else if next >= total {
            job.stage = Stage::Offsets;
        }
        Ok(())
    }

    fn send_offsets(&mut self, index: usize, id: &str, job: &mut Job) -> Result<(), Refused> {
        let epoch = self.clients[index].producer.unwrap_or(0);
        job.stage = Stage::Offsets;
        match self.kafka.send_offsets(id, epoch, job.member, job.offsets(), self.now) {
            Err(Refused::StaleMember) => {
                let message = "the member is stale".to_owned();
                job.stage = Stage::Abort { stale_member: true, message };
                return Ok(());
            }
            other => other?,
        }
        job.stage = Stage::Commit;
        let (refused, unanswered) = (self.faults.refused, self.faults.offsets_unanswered);
        if self.random.chance(refused / 2.0) {
            let message = "the coordinator moved".to_owned();
            job.stage = Stage::Abort { stale_member: false, message };
        } else if self.random.chance(unanswered) {
            self.timed_out(index, job, "no answer to the offsets");
        }
        Ok(())
    }

    fn timed_out(&mut self, index: usize, job: &mut Job, message: &str) {
        self.clients[index].producer = None;
        job.stage = Stage::Init { unknown: Some(message.to_owned()) };
        job.due = self.now + self.random.between(50, 12_000);
    }

    fn end(&mut self, index: usize, id: &str, job: &mut Job) -> Result<(), Refused> {
        let epoch = self.clients[index].producer.unwrap_or(0);
        job.stage = Stage::Commit;
        let lost = self.faults.request_lost;
        if self.random.chance(lost) {
            self.timed_out(index, job, "the commit was not heard");
            return Ok(());
        }
        let luck = self.random.number();
        self.kafka.end_transaction(id, epoch, true, self.now, luck)?;
        if self.trace.on {
            let what: Vec<String> = job
                .batch
                .shards
                .iter()
                .map(|s| format!("{} {:?} {}", s.partition, s.offsets, s.metadata))
                .collect();
            self.note(|| format!("  committed {}", what.join(" | ")));
        }
        let lost = self.faults.answer_lost;
        if self.random.chance(lost) {
            self.timed_out(index, job, "the commit was not answered");
        } else {
            job.stage = Stage::Report(Some(Outcome::Committed(Receipt::default())));
        }
        Ok(())
    }
}
