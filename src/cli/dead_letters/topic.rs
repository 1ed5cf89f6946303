//! Reads the dead letter topic, without a group: nothing is committed.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use crate::clock::SystemClock;
use crate::config::Config;
use crate::error::Fatal;
use crate::kafka::client_config;
use crate::kafka::trouble::Complaints;
use crate::stream_thread::ports::Clock;
use crate::wire::dead_letter::{self, Said};

/// How long a broker may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long may pass without a record before reading is given up.
const STALL_MS: i64 = 30_000;

/// Where a dead letter is: partition and offset of the dead letter topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The partition.
    pub partition: i32,
    /// The offset there.
    pub offset: i64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Position, String> {
        let (partition, offset) = text.split_once(':').ok_or("write PARTITION:OFFSET")?;
        match (partition.parse(), offset.parse()) {
            (Ok(partition), Ok(offset)) if partition >= 0 && offset >= 0 => {
                Ok(Position { partition, offset })
            }
            _ => Err("write PARTITION:OFFSET, such as 3:42".to_owned()),
        }
    }
}

/// A dead letter.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Where it is.
    pub position: Position,
    /// When it was written, in milliseconds since the epoch.
    pub written_ms: i64,
    /// What our headers say.
    pub said: Said,
    /// The original's key.
    pub key: Option<Vec<u8>>,
    /// The original's value.
    pub value: Option<Vec<u8>>,
    /// All headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Letter {
    fn of(message: &BorrowedMessage<'_>) -> Letter {
        let headers: Vec<_> = message.headers().map_or_else(Vec::new, |headers| {
            headers
                .iter()
                .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
                .collect()
        });
        Letter {
            position: Position { partition: message.partition(), offset: message.offset() },
            written_ms: message.timestamp().to_millis().unwrap_or_default(),
            said: dead_letter::read(&headers),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers,
        }
    }
}

#[derive(Default)]
struct ReaderContext(Mutex<Complaints>);

impl ReaderContext {
    fn complaints(&self) -> MutexGuard<'_, Complaints> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for ReaderContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", facility, "{message}");
        self.complaints().note(level, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
    }
}

impl ConsumerContext for ReaderContext {}

/// The dead letter topic.
pub struct Topic<'a> {
    config: &'a Config,
    consumer: BaseConsumer<ReaderContext>,
    partitions: Vec<i32>,
}

impl<'a> Topic<'a> {
    /// Reaches the brokers, and finds the topic.
    ///
    /// # Errors
    /// When there are no brokers, or not the topic, or it may not be seen.
    pub fn open(config: &'a Config) -> Result<Topic<'a>, Fatal> {
        let mut client = client_config::base(config);
        client
            // Asked for by librdkafka, and never joined.
            .set("group.id", format!("{}-dead-letters", config.kafka.group))
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest");
        let consumer: BaseConsumer<ReaderContext> =
            client.create_with_context(ReaderContext::default()).map_err(|error| {
                Fatal::configuration(format!(
                    "a Kafka client cannot be made: {error}; check kafka.properties"
                ))
            })?;
        let mut topic = Topic { config, consumer, partitions: Vec::new() };
        let name = topic.name();
        let metadata = topic
            .consumer
            .fetch_metadata(Some(name), TIMEOUT)
            .map_err(|error| topic.unavailable(&error))?;
        let found = metadata.topics().iter().find(|found| found.name() == name);
        topic.partitions = found
            .map(|found| found.partitions().iter().map(|partition| partition.id()).collect())
            .unwrap_or_default();
        if topic.partitions.is_empty() {
            return Err(Fatal::unavailable(format!(
                "there is no topic {name} that this client may see: check topics.dead_letters, \
                 and that Read on it is allowed"
            )));
        }
        Ok(topic)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'a str {
        &self.config.topics.dead_letters
    }

    fn unavailable(&self, error: &KafkaError) -> Fatal {
        // Serves what librdkafka has logged meanwhile.
        while self.consumer.poll(Duration::ZERO).is_some() {}
        let complaints = self.consumer.context().complaints();
        complaints.explain(self.config, "read dead letters from", &error.to_string())
    }

    /// Lends every letter that was written at or after `since_ms` to `each`, up
    /// to the end as it is now.
    ///
    /// # Errors
    /// When Kafka does not answer any more.
    pub fn read(&self, since_ms: Option<i64>, each: &mut dyn FnMut(Letter)) -> Result<(), Fatal> {
        let mut ends = BTreeMap::new();
        let mut starts = TopicPartitionList::new();
        for partition in &self.partitions {
            let (start, end) = self
                .consumer
                .fetch_watermarks(self.name(), *partition, TIMEOUT)
                .map_err(|error| self.unavailable(&error))?;
            if start < end {
                ends.insert(*partition, end);
                let from = since_ms.map_or(Offset::Beginning, Offset::Offset);
                starts
                    .add_partition_offset(self.name(), *partition, from)
                    .map_err(|error| self.unavailable(&error))?;
            }
        }
        if since_ms.is_some() && !ends.is_empty() {
            let found = self.consumer.offsets_for_times(starts, TIMEOUT);
            starts = found.map_err(|error| self.unavailable(&error))?;
        }
        self.follow(&starts, ends, each)
    }

    /// One letter.
    ///
    /// # Errors
    /// When it is not there, or Kafka does not answer.
    pub fn letter(&self, position: Position) -> Result<Letter, Fatal> {
        let missing = || {
            Fatal::not_found(format!(
                "there is no dead letter {position} in {}; device-status dead-letters list tells \
                 which there are",
                self.name()
            ))
        };
        let Position { partition, offset } = position;
        if !self.partitions.contains(&partition) {
            return Err(missing());
        }
        let (start, end) = self
            .consumer
            .fetch_watermarks(self.name(), partition, TIMEOUT)
            .map_err(|error| self.unavailable(&error))?;
        if !(start..end).contains(&offset) {
            return Err(missing());
        }
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(self.name(), partition, Offset::Offset(offset))
            .map_err(|error| self.unavailable(&error))?;
        let mut found = None;
        self.follow(&list, BTreeMap::from([(partition, offset + 1)]), &mut |letter| {
            if letter.position == position {
                found = Some(letter);
            }
        })?;
        found.ok_or_else(missing)
    }

    /// Reads from `starts` on, each partition until its end.
    fn follow(
        &self,
        starts: &TopicPartitionList,
        mut ends: BTreeMap<i32, i64>,
        each: &mut dyn FnMut(Letter),
    ) -> Result<(), Fatal> {
        self.consumer.assign(starts).map_err(|error| self.unavailable(&error))?;
        let clock = SystemClock::new();
        let mut heard_ms = clock.monotonic_ms();
        while !ends.is_empty() {
            match self.consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    heard_ms = clock.monotonic_ms();
                    let letter = Letter::of(&message);
                    let Position { partition, offset } = letter.position;
                    let Some(end) = ends.get(&partition).copied() else { continue };
                    if offset < end {
                        each(letter);
                    }
                    if offset + 1 >= end {
                        ends.remove(&partition);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(ends.remove(&partition)),
                Some(Err(error)) => {
                    let denied = RDKafkaErrorCode::TopicAuthorizationFailed;
                    if error.rdkafka_error_code() == Some(denied) {
                        return Err(Fatal::unavailable(format!(
                            "this client may not Read the topic {}; see docs/security.md",
                            self.name()
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
}
