//! Writes simulated events to Kafka.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use crate::clock::SystemClock;
use crate::config::{Config, Formats};
use crate::error::Fatal;
use crate::kafka::client_config;
use crate::kafka::trouble::ListeningContext;
use crate::shard::{EventBody, Input};
use crate::simulate::{KINDS, Sent, encode, kind_of};
use crate::stream_thread::ports::Clock;
use crate::wire::{Format, json};

/// How long brokers may take to answer at the start.
const REACHABLE_WITHIN: Duration = Duration::from_secs(8);
/// How many of librdkafka's log lines are looked through for a reason.
const SERVED_MAX: u32 = 100;
/// How long a record may wait for its broker.
const DELIVERED_WITHIN: Duration = Duration::from_secs(30);

/// How records go to the brokers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// As soon as each is there.
    EachByItself,
    /// Many at a time, each up to 20 ms late.
    Batches,
}

/// Writes simulated events to the configured topics.
pub struct Traffic {
    producer: BaseProducer<Deliveries>,
    brokers: String,
    /// By input: the topic's name and its number of partitions.
    topics: [(String, i32); 3],
    formats: Formats,
    key: Vec<u8>,
    value: Vec<u8>,
    counts: [u64; KINDS.len()],
    records: u64,
}

/// Counts the records that did not arrive.
#[derive(Default)]
struct Deliveries {
    failed: AtomicU64,
    /// The latest trouble, in words.
    trouble: Mutex<Option<String>>,
    /// What tells why brokers cannot be reached.
    heard: ListeningContext,
}

impl Deliveries {
    fn note(&self, trouble: String) {
        if let Ok(mut latest) = self.trouble.lock() {
            *latest = Some(trouble);
        }
    }

    fn trouble(&self) -> String {
        self.trouble.lock().ok().and_then(|latest| latest.clone()).unwrap_or_default()
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.heard.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.note(format!("{error}: {reason}"));
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.failed.fetch_add(1, Ordering::Relaxed);
            self.note(error.to_string());
        }
    }
}

impl Traffic {
    /// Reaches the brokers, and finds the topics.
    ///
    /// # Errors
    /// When there are no brokers, or not the topics, or they hold Confluent's
    /// framing.
    pub fn open(config: &Config, sending: Sending) -> Result<Traffic, Fatal> {
        for input in Input::ALL {
            if config.formats.input(input) == Format::ConfluentProtobuf {
                let name = input.name();
                return Err(Fatal::configuration(format!(
                    "simulated events are written as bare Protobuf or JSON, and formats.{name} \
                     says otherwise: set it to \"protobuf\" or \"json\" to simulate"
                )));
            }
        }
        let brokers = config.kafka.brokers.clone();
        let producer = producer(config, sending)?;
        let topics = find_topics(&producer, config)?;
        Ok(Traffic {
            producer,
            brokers,
            topics,
            formats: config.formats.clone(),
            key: Vec::new(),
            value: Vec::new(),
            counts: [0; KINDS.len()],
            records: 0,
        })
    }

    /// Sends one event: a broadcast to every partition, another where its key
    /// belongs. Waits while the queue is full.
    ///
    /// # Errors
    /// When Kafka takes nothing for too long.
    pub fn send(&mut self, sent: &Sent, stop: &AtomicBool) -> Result<(), Fatal> {
        let (has_key, has_value) = encode(sent, &mut self.key, &mut self.value);
        if has_value && self.formats.input(sent.input) == Format::Json {
            let json = json::write_bytes(json::message_of(sent.input), &self.value);
            self.value = json.map_err(Fatal::internal)?.into_bytes();
        }
        let (topic, partitions) = &self.topics[sent.input.index()];
        let broadcast = matches!(sent.event.body, EventBody::Scope(_));
        for copy in 0..if broadcast { *partitions } else { 1 } {
            let mut record = BaseRecord::<[u8], [u8]>::to(topic);
            record.partition = broadcast.then_some(copy);
            record.key = has_key.then_some(self.key.as_slice());
            record.payload = has_value.then_some(self.value.as_slice());
            while let Err((error, refused)) = self.producer.send(record) {
                if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                    return Err(Fatal::unavailable(format!("cannot send to {topic}: {error}")));
                }
                if stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                self.producer.poll(Duration::from_millis(5));
                self.check()?;
                record = refused;
            }
            self.records += 1;
        }
        self.counts[kind_of(&sent.event.body)] += 1;
        Ok(())
    }

    /// Lets the producer work; to be called often.
    ///
    /// # Errors
    /// When records could not be delivered.
    pub fn poll(&self) -> Result<(), Fatal> {
        self.producer.poll(Duration::ZERO);
        self.check()
    }

    /// Waits until everything has arrived.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn finish(&self, clock: &SystemClock) -> Result<(), Fatal> {
        let started_ms = clock.monotonic_ms();
        while self.producer.in_flight_count() > 0 {
            self.producer.poll(Duration::from_millis(5));
            if clock.monotonic_ms() - started_ms > DELIVERED_WITHIN.as_millis() as i64 {
                return Err(self.lost(self.producer.in_flight_count() as u64));
            }
        }
        self.check()
    }

    /// How many events were sent, by place in [`KINDS`].
    #[must_use]
    pub fn counts(&self) -> &[u64; KINDS.len()] {
        &self.counts
    }

    /// How many records these made: a broadcast makes one a partition.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    fn check(&self) -> Result<(), Fatal> {
        match self.producer.context().failed.load(Ordering::Relaxed) {
            0 => Ok(()),
            failed => Err(self.lost(failed)),
        }
    }

    fn lost(&self, records: u64) -> Fatal {
        Fatal::unavailable(format!(
            "Kafka at {} did not take {records} records within {} s: {}",
            self.brokers,
            DELIVERED_WITHIN.as_secs(),
            self.producer.context().trouble()
        ))
    }
}

fn producer(config: &Config, sending: Sending) -> Result<BaseProducer<Deliveries>, Fatal> {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", &config.kafka.brokers)
        .set("client.id", "device-status-simulate")
        .set("partitioner", "murmur2_random")
        .set("enable.idempotence", "true")
        .set("compression.type", "lz4")
        .set("linger.ms", if sending == Sending::Batches { "20" } else { "0" })
        .set("batch.num.messages", "100000")
        .set("batch.size", "900000")
        .set("queue.buffering.max.messages", "500000")
        .set("queue.buffering.max.kbytes", "262144")
        .set("delivery.report.only.error", "true")
        .set("message.timeout.ms", DELIVERED_WITHIN.as_millis().to_string());
    for (name, value) in &config.kafka.properties {
        client.set(name, value);
    }
    client
        .create_with_context(Deliveries::default())
        .map_err(|error| client_config::refused(&error))
}

fn find_topics(
    producer: &BaseProducer<Deliveries>,
    config: &Config,
) -> Result<[(String, i32); 3], Fatal> {
    let brokers = &config.kafka.brokers;
    // All topics: asking for one by name may create it.
    let metadata = producer.client().fetch_metadata(None, REACHABLE_WITHIN).map_err(|error| {
        // Serves the callbacks that know what went wrong.
        for _ in 0..SERVED_MAX {
            producer.poll(Duration::ZERO);
        }
        producer.context().heard.complaints.explain(config, "reach", &error.to_string())
    })?;
    let mut topics = Vec::new();
    for input in Input::ALL {
        let name = config.topics.input(input);
        let found = metadata.topics().iter().find(|topic| topic.name() == name);
        let partitions = found.map_or(0, |topic| topic.partitions().len());
        if partitions == 0 {
            return Err(Fatal::unavailable(format!(
                "there is no topic {name} on {brokers}. `device-status topics create` creates \
                 it; another name goes into topics.{}",
                input.name()
            )));
        }
        topics.push((name.to_owned(), i32::try_from(partitions).unwrap_or(i32::MAX)));
    }
    topics.try_into().map_err(|_| Fatal::internal("there are three inputs"))
}
