//! The production [`Log`]: one group consumer, one producer, one client for queries
//! and, during a restore, one more consumer.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, RebalanceProtocol};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tracing::warn;

use super::access;
use super::client_config::{self, LoggingContext, SOCKET_TIMEOUT_MS};
use super::committer::Committer;
pub use super::committer::Stamps;
use super::group::Identity;
use super::membership::Membership;
use super::native::{ConsumerQueue, NativeRecord, PartitionOffset, Polled, Questions, Spec};
use super::reaper::{Reaped, Reaper};
use crate::clock::Clock;
use crate::config::{Config, Guarantee, Topics};
use crate::error::{Error, Fatal};
use crate::shard::Input;
use crate::stream_thread::ports::{
    Batch, Bounds, Commits, CommittedOffset, Delivery, Log, LogBounds, LogEvent, OffsetAt, Outcome,
    QuestionId, RecordRef, Source,
};

/// How long leaving the group may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// How often partition queues are forwarded again.
const FORWARD_INTERVAL_MS: i64 = 200;

/// Kafka, for one stream thread.
pub struct KafkaLog {
    group: String,
    topics: Topics,
    clock: Arc<dyn Clock + Send + Sync>,
    membership: Membership,
    consumer: Option<ConsumerQueue>,
    committer: Committer,
    questions: Reaped<Questions>,
    reaper: Reaper,
    restore_config: ClientConfig,
    restore: Option<ConsumerQueue>,
    /// Partitions that the group has assigned and the loop has not given back.
    held: BTreeSet<(Input, i32)>,
    names: TopicCache,
    restore_names: TopicCache,
    pending: HashMap<QuestionId, Pending>,
    parts: HashMap<u64, (QuestionId, Kind)>,
    /// Start offsets of the assigned partitions; only with an eager protocol, which
    /// assigns all partitions at once.
    assigned: BTreeMap<(Input, i32), i64>,
    next_id: u64,
    forwarded_ms: i64,
    refused: VecDeque<Outcome>,
}

/// Maps librdkafka's topic handles to sources, while partitions stay assigned.
#[derive(Default)]
struct TopicCache(Vec<(usize, Source)>);

/// A query whose answer comes in parts.
struct Pending {
    of: Vec<(Source, i32)>,
    /// Log start, last stable offset and high watermark.
    parts: [Option<Answer>; 3],
}

/// The offset of each partition, or its error.
type Answer = Result<BTreeMap<(Source, i32), Result<i64, String>>, String>;

/// What a part of a query asks for.
#[derive(Clone)]
enum Kind {
    /// One of the [parts](Pending::parts) of the bounds.
    Bounds(usize),
    Committed,
}

impl KafkaLog {
    /// Joins the group. `process_id` and `thread` make the transactional id unique
    /// (rule C4). `stamps` is the source of broker time.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn start(
        config: &Config,
        process_id: &str,
        thread: usize,
        stamps: Stamps,
        clock: Arc<dyn Clock + Send + Sync>,
    ) -> Result<KafkaLog, Fatal> {
        let refused = client_config::refused;
        let topics = config.topics.clone();
        let membership = Membership::new(config, thread);
        let reaper = Reaper::start();
        let consumer = reaper.keep(membership.join().map_err(refused)?);

        let transactional = config.processing.guarantee == Guarantee::ExactlyOnce;
        let mut producer_config = client_config::base(config);
        producer_config.set("enable.idempotence", "true").set("partitioner", "murmur2_random");
        client_config::set_defaults(
            &mut producer_config,
            config,
            &[
                ("linger.ms", "1"),
                // While the broker still writes the markers of the last
                // transaction, it refuses the next one, and the client retries. The
                // default is to wait 100 ms.
                ("retry.backoff.ms", "2"),
                ("compression.type", "lz4"),
                // The broker's default. Dead letters are truncated to it.
                ("message.max.bytes", "1048588"),
                ("queue.buffering.max.messages", "500000"),
            ],
        );
        if transactional {
            let id = format!("{}{process_id}-{thread}", access::transactional_id_prefix(config));
            producer_config.set("transactional.id", id).set("transaction.timeout.ms", "10000");
        }
        let committer = Committer::start(
            producer_config,
            transactional,
            access::transactions_remedy(config),
            topics.clone(),
            stamps,
            clock.clone(),
        );
        // librdkafka does not refresh its metadata after FENCED_LEADER_EPOCH, so
        // the metadata must be recent.
        let questions = client_config::consumer(config)
            .set("metadata.max.age.ms", "1000")
            .set("topic.metadata.refresh.interval.ms", "1000")
            .set("socket.timeout.ms", SOCKET_TIMEOUT_MS.to_string())
            .create_with_context(LoggingContext)
            .map_err(refused)?;

        let restore_config = client_config::consumer(config);
        Ok(KafkaLog {
            group: config.kafka.group.clone(),
            topics,
            clock,
            membership,
            consumer: Some(ConsumerQueue::new(consumer)),
            committer,
            questions: reaper.keep(Questions::new(questions)),
            reaper,
            restore_config,
            restore: None,
            held: BTreeSet::new(),
            names: TopicCache::default(),
            restore_names: TopicCache::default(),
            pending: HashMap::new(),
            parts: HashMap::new(),
            assigned: BTreeMap::new(),
            next_id: 0,
            forwarded_ms: 0,
            refused: VecDeque::new(),
        })
    }

    /// This thread's identity in the group.
    #[must_use]
    pub fn identity(&self) -> Arc<Identity> {
        self.membership.identity.clone()
    }

    fn consumer(&self) -> Result<&BaseConsumer<LoggingContext>, Error> {
        match &self.consumer {
            Some(queue) => Ok(queue.consumer()),
            None => Err(Error::Retriable("the consumer is closed".into())),
        }
    }

    fn list(&self, partitions: &[(Input, i32)]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (input, partition) in partitions {
            list.add_partition(self.topics.input(*input), *partition);
        }
        list
    }

    fn starts(&self, starts: &[(Input, i32, i64)]) -> Result<TopicPartitionList, Error> {
        let mut list = TopicPartitionList::with_capacity(starts.len());
        for (input, partition, offset) in starts {
            let topic = self.topics.input(*input);
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset))
                .map_err(retriable("assign"))?;
        }
        Ok(list)
    }

    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn poll_answers(&mut self, events: &mut Vec<LogEvent>) {
        while let Some((part, answer)) = self.questions.poll() {
            let Some((question, kind)) = self.parts.remove(&part) else { continue };
            match kind {
                Kind::Committed => {
                    events.push(LogEvent::Committed(question, self.committed(answer)));
                }
                Kind::Bounds(place) => {
                    let found = answer.map(|found| {
                        let of = |found: PartitionOffset| {
                            let source = self.topics.source(&found.topic)?;
                            let offset = found.error.map_or(Ok(found.offset), Err);
                            Some(((source, found.partition), offset))
                        };
                        found.into_iter().filter_map(of).collect()
                    });
                    let Some(pending) = self.pending.get_mut(&question) else { continue };
                    pending.parts[place] = Some(found);
                    if pending.parts.iter().all(Option::is_some)
                        && let Some(done) = self.pending.remove(&question)
                    {
                        done.tell(question, &self.topics, events);
                    }
                }
            }
        }
    }

    fn committed(&self, answer: Result<Vec<PartitionOffset>, String>) -> Result<Commits, String> {
        let mut all = Commits::new();
        for found in answer? {
            let Some(input) = self.topics.input_of(&found.topic) else { continue };
            if let Some(error) = found.error {
                return Err(format!("{} [{}]: {error}", found.topic, found.partition));
            }
            let offset = (found.offset >= 0)
                .then_some(CommittedOffset { offset: found.offset, metadata: found.metadata });
            all.insert((input, found.partition), offset);
        }
        Ok(all)
    }

    fn inputs(&self, partitions: Vec<(String, i32)>) -> Vec<(Input, i32)> {
        partitions.into_iter().filter_map(|(t, p)| Some((self.topics.input_of(&t)?, p))).collect()
    }
}

impl Pending {
    /// Reports the answer once all parts have come. A partition counts as answered
    /// only if all parts have it.
    fn tell(self, question: QuestionId, topics: &Topics, events: &mut Vec<LogEvent>) {
        let mut found = Bounds::new();
        let mut failed = Vec::new();
        for place in &self.of {
            match self.bounds(*place) {
                Ok(bounds) => drop(found.insert(*place, bounds)),
                Err(error) => {
                    let (topic, partition) = (topics.of_source(place.0), place.1);
                    failed.push((partition, format!("{topic} [{partition}]: {error}")));
                }
            }
        }
        if found.is_empty() && !failed.is_empty() {
            events.push(LogEvent::Bounds(question, Err(failed.swap_remove(0).1)));
            return;
        }
        for (partition, error) in failed {
            events.push(LogEvent::NoAnswer { partition, error });
        }
        events.push(LogEvent::Bounds(question, Ok(found)));
    }

    fn bounds(&self, place: (Source, i32)) -> Result<LogBounds, String> {
        let told = |part: &Option<Answer>| {
            let nothing = || "no answer".to_owned();
            let answer = part.as_ref().ok_or_else(nothing)?.as_ref().map_err(String::clone)?;
            answer.get(&place).cloned().unwrap_or_else(|| Err(nothing()))
        };
        let [start, stable, end] = &self.parts;
        let (start, stable, end) = (told(start)?, told(stable)?, told(end)?);
        // No record has a timestamp that late.
        let start = if start < 0 { end } else { start };
        Ok(LogBounds { start, stable, end })
    }
}

impl TopicCache {
    fn source(&mut self, record: &NativeRecord<'_>, topics: &Topics) -> Option<Source> {
        let handle = record.topic_handle();
        if let Some((_, source)) = self.0.iter().find(|(known, _)| *known == handle) {
            return Some(*source);
        }
        let source = topics.source(record.topic())?;
        self.0.push((handle, source));
        Some(source)
    }
}

/// Turns a failed call into a retriable error that names it.
fn retriable(doing: &str) -> impl Fn(KafkaError) -> Error {
    move |error| Error::Retriable(format!("{doing}: {error}"))
}

/// Takes up to `max_records` records from a queue, and passes all other events to
/// `other`.
fn drain(
    queue: &ConsumerQueue,
    mut delivery_of: impl FnMut(&NativeRecord<'_>) -> Option<Delivery>,
    timeout: Duration,
    max_records: usize,
    on_record: &mut dyn FnMut(Delivery, RecordRef<'_>),
    other: &mut dyn FnMut(Polled<'_>),
) {
    let mut with = |polled: Polled<'_>| match polled {
        Polled::Record(record) => {
            let Some(delivery) = delivery_of(&record) else { return };
            let (timestamp, stamped_by_broker) = record.timestamp();
            on_record(
                delivery,
                RecordRef {
                    partition: record.partition(),
                    offset: record.offset(),
                    timestamp,
                    stamped_by_broker,
                    key: record.key(),
                    value: record.value(),
                    headers: &record,
                },
            );
        }
        rest => other(rest),
    };
    while queue.poll(&mut with) {}
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    queue.take(timeout_ms, max_records, with);
}

impl Log for KafkaLog {
    fn poll(
        &mut self,
        timeout: Duration,
        max_records: usize,
        on_record: &mut dyn FnMut(Delivery, RecordRef<'_>),
        events: &mut Vec<LogEvent>,
    ) -> Result<(), Error> {
        let mut failed = None;
        let now_ms = self.clock.monotonic_ms();
        if self.membership.join_again(now_ms)? {
            self.consumer = None;
            let joined = self.membership.join();
            let joined = joined.map_err(|e| {
                self.membership.not_joined(now_ms);
                Error::Retriable(format!("consumer: {e}"))
            })?;
            self.consumer = Some(ConsumerQueue::new(self.reaper.keep(joined)));
        }
        if now_ms - self.forwarded_ms >= FORWARD_INTERVAL_MS {
            self.forwarded_ms = now_ms;
            let queues = self.consumer.iter().chain(&self.restore);
            queues.for_each(ConsumerQueue::forward_again);
        }
        if let Some(queue) = &self.restore {
            let mut other = |polled: Polled<'_>| match polled {
                Polled::EndOfPartition { topic, partition, offset } => {
                    if let Some(source) = self.topics.source(&topic) {
                        events.push(LogEvent::RestoreEnd { source, partition, offset });
                    }
                }
                Polled::Failed { message, .. } => {
                    warn!(
                        error = %message,
                        "the restore consumer reported an error; it continues to read"
                    )
                }
                _ => {}
            };
            let (names, topics) = (&mut self.restore_names, &self.topics);
            let delivery_of =
                |record: &NativeRecord<'_>| names.source(record, topics).map(Delivery::Restore);
            drain(queue, delivery_of, Duration::ZERO, max_records, on_record, &mut other);
        }
        let mut rebalances = Vec::new();
        if let Some(queue) = &self.consumer {
            let mut other = |polled: Polled<'_>| match polled {
                Polled::EndOfPartition { topic, partition, offset } => {
                    if let Some(Source::Input(input)) = self.topics.source(&topic) {
                        events.push(LogEvent::EndOfPartition { input, partition, offset });
                    }
                }
                Polled::Assigned(partitions) => rebalances.push((true, partitions)),
                Polled::Revoked(partitions) => rebalances.push((false, partitions)),
                // A fatal error is reported once, so a later error must not replace
                // it.
                Polled::Failed { fatal, message } => {
                    if !matches!(failed, Some((true, _))) {
                        failed = Some((fatal, message));
                    }
                }
                Polled::Record(_) | Polled::Other => {}
            };
            let (names, topics) = (&mut self.names, &self.topics);
            let delivery_of = |record: &NativeRecord<'_>| match names.source(record, topics)? {
                Source::Input(input) => Some(Delivery::Group(input)),
                Source::Changelog => None,
            };
            drain(queue, delivery_of, timeout, max_records, on_record, &mut other);
        }
        for (assigned, partitions) in rebalances {
            self.names = TopicCache::default();
            let partitions = self.inputs(partitions);
            if assigned {
                self.membership.assigned();
                self.assigned.clear();
                self.held.extend(&partitions);
            }
            // Read before assign and unassign, which reset it.
            let lost = self.consumer()?.assignment_lost();
            if partitions.is_empty() {
                // librdkafka waits for this call even without partitions. Until it
                // comes, this member does not rejoin, and the whole group waits for
                // it.
                let taken = if assigned { self.assign(&[]) } else { self.unassign(&[]) };
                if let Err(error) = taken {
                    warn!(
                        %error,
                        "acknowledging a rebalance without partitions failed; the group may wait \
                         for this member"
                    );
                }
            }
            events.push(match (assigned, lost) {
                (true, _) => LogEvent::Assigned(partitions),
                (false, true) => LogEvent::Lost(partitions),
                (false, false) => LogEvent::Revoked(partitions),
            });
        }
        self.poll_answers(events);
        if let Some(outcome) = self.refused.pop_front().or_else(|| self.committer.poll()) {
            events.push(LogEvent::Submitted(outcome));
        }
        match failed {
            Some((true, message)) => {
                let code = self.consumer()?.client().fatal_error().map(|(code, _)| code);
                // A consumer with a fatal error reports no more rebalances.
                let held = std::mem::take(&mut self.held);
                if !held.is_empty() {
                    events.push(LogEvent::Lost(held.into_iter().collect()));
                }
                Err(self.membership.gave_up(code, &message, now_ms))
            }
            Some((false, message)) => Err(Error::Retriable(message)),
            None => Ok(()),
        }
    }

    fn ask_bounds(&mut self, of: &[(Source, i32)], from: OffsetAt) -> QuestionId {
        let question = self.next_id();
        let from = match from {
            OffsetAt::Start => Spec::Earliest,
            OffsetAt::Time(timestamp) => Spec::Time(timestamp),
        };
        // One request can hold a partition only once, and has one isolation level.
        let parts = [(from, false), (Spec::Latest, true), (Spec::Latest, false)];
        for (part, (spec, committed)) in parts.into_iter().enumerate() {
            let id = self.next_id();
            let asked: Vec<_> =
                of.iter().map(|(source, p)| (self.topics.of_source(*source), *p, spec)).collect();
            self.questions.list_offsets(id, committed, &asked);
            self.parts.insert(id, (question, Kind::Bounds(part)));
        }
        let pending = Pending { of: of.to_vec(), parts: [const { None }; 3] };
        self.pending.insert(question, pending);
        question
    }

    fn ask_committed(&mut self, of: &[(Input, i32)]) -> QuestionId {
        let question = self.next_id();
        let id = self.next_id();
        let asked: Vec<_> = of.iter().map(|(i, p)| (self.topics.input(*i), *p)).collect();
        self.questions.committed(id, &self.group, true, &asked);
        self.parts.insert(id, (question, Kind::Committed));
        question
    }

    fn assign(&mut self, starts: &[(Input, i32, i64)]) -> Result<(), Error> {
        if let Some(queue) = &mut self.consumer {
            for (input, partition, _) in starts {
                queue.forward(self.topics.input(*input), *partition);
            }
        }
        self.held.extend(starts.iter().map(|(input, partition, _)| (*input, *partition)));
        let consumer = self.consumer()?;
        if matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative) {
            consumer.incremental_assign(&self.starts(starts)?).map_err(retriable("assign"))?;
        } else {
            // An eager protocol assigns all partitions again: the earlier ones
            // continue from their current position.
            let come_to = if self.assigned.is_empty() { None } else { consumer.position().ok() };
            let come_to = come_to.iter().flat_map(TopicPartitionList::elements);
            for at in come_to {
                if let (Some(input), Offset::Offset(offset)) =
                    (self.topics.input_of(at.topic()), at.offset())
                    && let Some(held) = self.assigned.get_mut(&(input, at.partition()))
                {
                    *held = offset;
                }
            }
            self.assigned.extend(starts.iter().map(|(i, p, offset)| ((*i, *p), *offset)));
            let all: Vec<_> = self.assigned.iter().map(|((i, p), at)| (*i, *p, *at)).collect();
            self.consumer()?.assign(&self.starts(&all)?).map_err(retriable("assign"))?;
        }
        if starts.is_empty() {
            return Ok(());
        }
        let partitions: Vec<_> = starts.iter().map(|(input, p, _)| (*input, *p)).collect();
        self.pause(&partitions)
    }

    fn unassign(&mut self, partitions: &[(Input, i32)]) -> Result<(), Error> {
        self.held.retain(|held| !partitions.contains(held));
        let consumer = self.consumer()?;
        let unassigned = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(&self.list(partitions)),
            _ => consumer.unassign(),
        };
        self.assigned.clear();
        if let Some(queue) = &mut self.consumer {
            for (input, partition) in partitions {
                queue.stop_forwarding(self.topics.input(*input), *partition);
            }
        }
        unassigned.map_err(retriable("unassign"))
    }

    fn pause(&mut self, partitions: &[(Input, i32)]) -> Result<(), Error> {
        self.consumer()?.pause(&self.list(partitions)).map_err(retriable("pause"))
    }

    fn resume(&mut self, partitions: &[(Input, i32)]) -> Result<(), Error> {
        self.consumer()?.resume(&self.list(partitions)).map_err(retriable("resume"))
    }

    fn log_start(&self, input: Input, partition: i32) -> Option<i64> {
        self.consumer.as_ref()?.log_start(self.topics.input(input), partition)
    }

    fn start_restore(&mut self, source: Source, partition: i32, offset: i64) -> Result<(), Error> {
        if self.restore.is_none() {
            let consumer = self
                .restore_config
                .create_with_context(LoggingContext)
                .map_err(retriable("restore consumer"))?;
            self.restore = Some(ConsumerQueue::new(self.reaper.keep(consumer)));
        }
        self.restore_names = TopicCache::default();
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(self.topics.of_source(source), partition, Offset::Offset(offset))
            .map_err(retriable("restore"))?;
        if let Some(queue) = &mut self.restore {
            queue.forward(self.topics.of_source(source), partition);
            queue.consumer().incremental_assign(&list).map_err(retriable("restore"))?;
        }
        Ok(())
    }

    fn stop_restore(&mut self, source: Source, partition: i32) -> Result<(), Error> {
        let topic = self.topics.of_source(source);
        let Some(queue) = &mut self.restore else { return Ok(()) };
        queue.stop_forwarding(topic, partition);
        if queue.is_idle() {
            self.restore = None;
            return Ok(());
        }
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(topic, partition);
        queue.consumer().incremental_unassign(&list).map_err(retriable("restore"))
    }

    fn submit(&mut self, batch: Arc<Batch>) {
        let Some(queue) = &self.consumer else { return };
        let member = queue.consumer().group_metadata();
        // The metadata is read before the check: the broker refuses metadata from
        // before a loss, but would accept metadata from after it (rule C5).
        match member {
            Some(member) if !queue.consumer().assignment_lost() => {
                self.committer.submit(batch, member, queue.consumer().clone());
            }
            _ => self.refused.push_back(Outcome::Refused {
                stale_member: true,
                message: "the partition assignment was lost".into(),
            }),
        }
    }

    fn close(&mut self) {
        let Some(committer) = self.committer.close() else { return };
        let (restore, consumer) = (self.restore.take(), self.consumer.take());
        self.reaper.run(move || {
            drop(restore);
            let _ = committer.join();
            // Dropping the consumer leaves the group.
            drop(consumer);
        });
        // What still runs ends with the process.
        if !self.reaper.wait(CLOSE_LIMIT) {
            warn!(
                "Kafka does not answer; the group will notice at the session timeout that this \
                 member left"
            );
        }
    }
}

/// A thread that fails leaves the group, too.
impl Drop for KafkaLog {
    fn drop(&mut self) {
        self.close();
    }
}
