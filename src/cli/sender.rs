//! Sends records to Kafka, and checks that they are delivered.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};

use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::error::{Fatal, lock};
use crate::kafka::client_config;
use crate::kafka::sign_in::{Tended, sign_in};
use crate::kafka::trouble::ListeningContext;

/// How long brokers may take to answer at the start.
const REACHABLE_WITHIN: Duration = Duration::from_secs(8);
/// How many of librdkafka's log lines are searched for a cause.
const SERVED_MAX: u32 = 100;
/// How long a record may wait for its broker.
pub(super) const DELIVERED_WITHIN: Duration = Duration::from_secs(30);
/// How long to wait for delivery reports before the rest counts as lost.
const TOLD_WITHIN_MS: i64 = DELIVERED_WITHIN.as_millis() as i64 + 5_000;
/// How long what is left is waited for, once somebody wants the process to end.
const STOPPED_WITHIN_MS: i64 = 3_000;

/// Sends records.
pub(super) struct Sender(BaseProducer<Deliveries>, Tended);

/// Records that did not arrive.
#[derive(Clone, Default)]
pub(super) struct Lost {
    pub(super) records: u64,
    /// The latest error.
    pub(super) why: String,
}

#[derive(Default)]
struct Deliveries {
    lost: Mutex<Lost>,
    /// librdkafka's log lines, which show why brokers cannot be reached.
    heard: ListeningContext,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.heard.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        lock(&self.lost).why = format!("{error}: {reason}");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            let mut lost = lock(&self.lost);
            lost.records += 1;
            lost.why = error.to_string();
        }
    }
}

impl Sender {
    /// A sender with its own default settings, which the user's properties
    /// override.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub(super) fn new(config: &Config, own: &[(&str, &str)]) -> Result<Sender, Fatal> {
        let mut client = client_config::base(config);
        client.set("enable.idempotence", "true").set("partitioner", "murmur2_random");
        client.set("message.timeout.ms", DELIVERED_WITHIN.as_millis().to_string());
        client_config::set_defaults(&mut client, config, own);
        let made = client.create_with_context(Deliveries::default());
        let producer: BaseProducer<Deliveries> = made.map_err(client_config::refused)?;
        let tended = sign_in(producer.client(), config)?;
        Ok(Sender(producer, tended))
    }

    /// The metadata of all topics: a request for one by name may create it.
    ///
    /// # Errors
    /// When the brokers cannot be reached.
    pub(super) fn topics(&self, config: &Config) -> Result<Metadata, Fatal> {
        self.0.client().fetch_metadata(None, REACHABLE_WITHIN).map_err(|error| {
            // Delivers librdkafka's log lines, which show the cause.
            for _ in 0..SERVED_MAX {
                self.0.poll(Duration::ZERO);
            }
            self.0.context().heard.explain(config, "reach", &error.to_string())
        })
    }

    /// The id of the cluster, if the brokers return one in time.
    pub(super) fn cluster_id(&self, timeout: Duration) -> Option<String> {
        self.0.client().fetch_cluster_id(timeout)
    }

    /// The number of records in a partition, by its offsets.
    ///
    /// # Errors
    /// When Kafka does not answer in time.
    pub(super) fn records(
        &self,
        topic: &str,
        partition: i32,
        timeout: Duration,
    ) -> Result<u64, KafkaError> {
        let (start, end) = self.0.client().fetch_watermarks(topic, partition, timeout)?;
        Ok(u64::try_from(end - start).unwrap_or_default())
    }

    /// Sends one record. Waits while the queue is full, but not after `stop`, nor
    /// once records are lost. Returns whether it was sent.
    ///
    /// # Errors
    /// When the producer refuses the record.
    pub(super) fn send(
        &self,
        mut record: BaseRecord<'_, [u8], [u8]>,
        stop: &AtomicBool,
    ) -> Result<bool, KafkaError> {
        while let Err((error, refused)) = self.0.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(error);
            }
            if stop.load(Ordering::Relaxed) || self.serve(Duration::from_millis(5)).is_err() {
                return Ok(false);
            }
            record = refused;
        }
        Ok(true)
    }

    /// Serves the producer's callbacks; to be called often.
    ///
    /// # Errors
    /// When records were lost.
    pub(super) fn serve(&self, wait: Duration) -> Result<(), Lost> {
        self.1.tend(self.0.client());
        self.0.poll(wait);
        let lost = lock(&self.0.context().lost);
        if lost.records == 0 { Ok(()) } else { Err(lost.clone()) }
    }

    /// Waits until everything has arrived; not for long after `stop`.
    ///
    /// # Errors
    /// When some records are not delivered in time.
    pub(super) fn finish(&self, stop: &AtomicBool) -> Result<(), Lost> {
        let clock = SystemClock::new();
        let mut until_ms = TOLD_WITHIN_MS;
        while self.0.in_flight_count() > 0 {
            if stop.load(Ordering::Relaxed) {
                until_ms = until_ms.min(clock.monotonic_ms() + STOPPED_WITHIN_MS);
            }
            if clock.monotonic_ms() > until_ms {
                let mut lost = lock(&self.0.context().lost).clone();
                lost.records += u64::try_from(self.0.in_flight_count()).unwrap_or_default();
                if lost.why.is_empty() {
                    lost.why = "no answer".to_owned();
                }
                return Err(lost);
            }
            self.0.poll(Duration::from_millis(5));
        }
        self.serve(Duration::ZERO)
    }
}
