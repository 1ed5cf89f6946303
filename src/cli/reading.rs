//! Reads topics for a command. It joins no group, so nothing is committed and the
//! service is not disturbed. It reads committed records only, and shows progress on
//! a terminal if it takes long.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use indicatif::ProgressDrawTarget;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::text::bar;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::error::Fatal;
use crate::kafka::client_config;
use crate::kafka::sign_in::sign_in;
use crate::kafka::trouble::ListeningContext;
use crate::shard::Timestamp;
use crate::stream_thread::ports::Clock;

/// How long a broker may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long reading waits for a record before it gives up.
const STALL_MS: i64 = 30_000;
/// Reading that takes less than this shows no progress.
const PROGRESS_AFTER_MS: i64 = 1_000;

/// The offsets to read of each partition.
pub(super) type Ranges = BTreeMap<i32, Range<i64>>;

/// Reads topics.
pub(super) struct Reader<'a> {
    /// The configuration.
    pub(super) config: &'a Config,
    consumer: BaseConsumer<ListeningContext>,
}

impl<'a> Reader<'a> {
    /// A reader with its own client. `name` becomes a part of its group id.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(config: &'a Config, name: &str) -> Result<Reader<'a>, Fatal> {
        Reader::with(config, name, &[])
    }

    fn with(
        config: &'a Config,
        name: &str,
        properties: &[(&str, &str)],
    ) -> Result<Reader<'a>, Fatal> {
        let mut client = client_config::consumer(config);
        // librdkafka requires a group id. The group is never joined.
        client.set("group.id", format!("{}-{name}", config.kafka.group));
        for (name, value) in properties {
            client.set(*name, *value);
        }
        let made = client.create_with_context(ListeningContext::default());
        let consumer: BaseConsumer<ListeningContext> = made.map_err(client_config::refused)?;
        sign_in(consumer.client(), config)?;
        Ok(Reader { config, consumer })
    }

    /// The partitions of a topic. `key` is the configuration key that names it.
    ///
    /// # Errors
    /// When the brokers are away, or the topic does not exist or is hidden.
    pub fn partitions(&self, topic: &str, key: &str) -> Result<Vec<i32>, Fatal> {
        let metadata = self
            .consumer
            .fetch_metadata(Some(topic), TIMEOUT)
            .map_err(|error| self.unavailable(&error))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let partitions: Vec<i32> = found
            .map(|found| found.partitions().iter().map(|partition| partition.id()).collect())
            .unwrap_or_default();
        if partitions.is_empty() {
            return Err(Fatal::unavailable(format!(
                "topic {topic} does not exist, or this client is not authorized to see it: check \
                 {key}, and that this client is allowed to Read the topic"
            )));
        }
        Ok(partitions)
    }

    /// The current log start and end of a partition.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn bounds(&self, topic: &str, partition: i32) -> Result<Range<i64>, Fatal> {
        let bounds = self.consumer.fetch_watermarks(topic, partition, TIMEOUT);
        bounds.map(|(start, end)| start..end).map_err(|error| self.unavailable(&error))
    }

    /// All current offsets of these partitions, or those of records with a
    /// timestamp at or after `since`.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn ranges(
        &self,
        topic: &str,
        partitions: &[i32],
        since: Option<Timestamp>,
    ) -> Result<Ranges, Fatal> {
        let mut ranges = Ranges::new();
        for partition in partitions {
            let mut range = self.bounds(topic, *partition)?;
            if let Some(since) = since {
                range.start = self.offset_at(topic, *partition, since)?.unwrap_or(range.end);
            }
            ranges.insert(*partition, range);
        }
        Ok(ranges)
    }

    /// The offset of the first record with a timestamp at or after `at`; `None` if
    /// there is none.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn offset_at(
        &self,
        topic: &str,
        partition: i32,
        at: Timestamp,
    ) -> Result<Option<i64>, Fatal> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(at.0.max(0)))
            .and_then(|()| self.consumer.offsets_for_times(list, TIMEOUT))
            .and_then(|found| {
                let Some(found) = found.elements().into_iter().next() else { return Ok(None) };
                found.error()?;
                match found.offset() {
                    Offset::Offset(offset) => Ok(Some(offset)),
                    Offset::End => Ok(None),
                    // If the leader went away before it answered, librdkafka leaves
                    // the offset unchanged and reports no error.
                    _ => Err(KafkaError::OffsetFetch(RDKafkaErrorCode::BrokerTransportFailure)),
                }
            })
            .map_err(|error| self.unavailable(&error))
    }

    /// The timestamp of the record at this offset, committed or not; `None` if it has
    /// gone.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn uncommitted_timestamp(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<Option<Timestamp>, Fatal> {
        let uncommitted = [("isolation.level", "read_uncommitted")];
        let Reader { consumer, .. } = Reader::with(self.config, "open-transaction", &uncommitted)?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset))
            .and_then(|()| consumer.assign(&list))
            .map_err(|error| self.unavailable(&error))?;
        let clock = SystemClock::new();
        while clock.monotonic_ms() <= STALL_MS {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    return Ok(message.timestamp().to_millis().map(Timestamp));
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(None),
                Some(Err(_)) | None => {}
            }
        }
        let stalled = KafkaError::MessageConsumption(RDKafkaErrorCode::RequestTimedOut);
        Err(self.unavailable(&stalled))
    }

    /// Calls `each` with every record of these ranges, those of a partition in
    /// order.
    ///
    /// # Errors
    /// When Kafka does not answer any more.
    pub fn read(
        &self,
        topic: &str,
        mut ranges: Ranges,
        each: &mut dyn FnMut(&BorrowedMessage<'_>),
    ) -> Result<(), Fatal> {
        ranges.retain(|_, range| !range.is_empty());
        let mut starts = TopicPartitionList::new();
        let mut added = ranges.iter().map(|(partition, range)| {
            starts.add_partition_offset(topic, *partition, Offset::Offset(range.start))
        });
        let added = added.try_for_each(|added| added);
        let assigned = added.and_then(|()| self.consumer.assign(&starts));
        assigned.map_err(|error| self.unavailable(&error))?;
        let read = self.follow(topic, ranges, each);
        self.consumer.unassign().map_err(|error| self.unavailable(&error))?;
        read
    }

    fn follow(
        &self,
        topic: &str,
        mut ranges: Ranges,
        each: &mut dyn FnMut(&BorrowedMessage<'_>),
    ) -> Result<(), Fatal> {
        let clock = SystemClock::new();
        let all: i64 = ranges.values().map(|range| range.end - range.start).sum();
        let template = "reading {msg} [{wide_bar}] {percent} %, {eta} left";
        let progress = bar(u64::try_from(all).ok(), template, ProgressDrawTarget::hidden());
        progress.set_message(topic.to_owned());
        let mut shown = false;
        let mut heard_ms = clock.monotonic_ms();
        while !ranges.is_empty() {
            match self.consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) if message.topic() == topic => {
                    heard_ms = clock.monotonic_ms();
                    let (partition, offset) = (message.partition(), message.offset());
                    let Some(range) = ranges.get_mut(&partition) else { continue };
                    if offset < range.end {
                        each(&message);
                        if !shown && heard_ms >= PROGRESS_AFTER_MS {
                            shown = true;
                            progress.set_draw_target(ProgressDrawTarget::stderr());
                        }
                        progress.inc(u64::try_from(offset + 1 - range.start).unwrap_or_default());
                        range.start = offset + 1;
                    }
                    if offset + 1 >= range.end {
                        ranges.remove(&partition);
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(ranges.remove(&partition)),
                Some(Err(error)) => {
                    let denied = RDKafkaErrorCode::TopicAuthorizationFailed;
                    if error.rdkafka_error_code() == Some(denied) {
                        return Err(Fatal::unavailable(format!(
                            "this client is not authorized to Read the topic {topic}; see \
                             docs/security.md"
                        )));
                    }
                }
                None if clock.monotonic_ms() - heard_ms > STALL_MS => {
                    let stalled = KafkaError::MessageConsumption(RDKafkaErrorCode::RequestTimedOut);
                    return Err(self.unavailable(&stalled));
                }
                None => {}
            }
        }
        Ok(())
    }

    fn unavailable(&self, error: &KafkaError) -> Fatal {
        // Delivers the log lines that librdkafka has queued.
        while self.consumer.poll(Duration::ZERO).is_some() {}
        self.consumer.context().explain(self.config, "read from", &error.to_string())
    }
}
