//! Writes events to Kafka: simulated ones, or what somebody types.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rdkafka::producer::BaseRecord;

use super::sender::{Lost, Sender};
use crate::config::Config;
use crate::error::Fatal;
use crate::shard::{DeviceId, Input};
use crate::simulate::{Sent, kind_of};
use crate::wire::{Format, json};

/// Writes events to the configured topics.
pub(super) struct Traffic<'a> {
    /// What tells the topics.
    pub(super) config: &'a Config,
    sender: Sender,
    /// By input: the topic's name and its number of partitions; 0 if nothing is
    /// to be written there.
    topics: Vec<(&'a str, i32)>,
    /// How many events were sent, by kind.
    pub(super) counts: BTreeMap<String, u64>,
    /// How many records these are: a broadcast is one record for each partition.
    pub(super) records: u64,
}

impl<'a> Traffic<'a> {
    /// Connects to the brokers as `name`, and finds the topics of these inputs.
    /// `linger_ms` is the `linger.ms` of the producer.
    ///
    /// # Errors
    /// When the brokers cannot be reached, a topic does not exist, or a format has
    /// Confluent's framing.
    pub(super) fn open(
        config: &'a Config,
        name: &str,
        inputs: &[Input],
        linger_ms: &str,
    ) -> Result<Traffic<'a>, Fatal> {
        for input in inputs {
            if config.formats.input(*input) == Format::ConfluentProtobuf {
                let name = input.name();
                return Err(Fatal::configuration(format!(
                    "this command writes events as bare Protobuf or JSON, but formats.{name} is \
                     another format: set it to \"protobuf\" or \"json\" for this command"
                )));
            }
        }
        let client_id = format!("device-status-{name}");
        let own = [
            ("client.id", &*client_id),
            ("compression.type", "lz4"),
            ("linger.ms", linger_ms),
            ("batch.num.messages", "100000"),
            ("batch.size", "900000"),
            ("queue.buffering.max.messages", "500000"),
            ("queue.buffering.max.kbytes", "262144"),
            ("delivery.report.only.error", "true"),
        ];
        let sender = Sender::new(config, &own)?;
        let topics = find_topics(&sender, config, inputs)?;
        Ok(Traffic { config, sender, topics, counts: BTreeMap::new(), records: 0 })
    }

    /// The id of the cluster, if the brokers return one in time.
    pub(super) fn cluster_id(&self, timeout: Duration) -> Option<String> {
        self.sender.cluster_id(timeout)
    }

    /// The first input topic that contains records, and their number.
    ///
    /// # Errors
    /// When Kafka does not answer in time.
    pub(super) fn first_record_holder(
        &self,
        timeout: Duration,
    ) -> Result<Option<(&'a str, u64)>, Fatal> {
        for (topic, partitions) in &self.topics {
            let counts = (0..*partitions).map(|p| self.sender.records(topic, p, timeout));
            let count: Result<u64, _> = counts.sum();
            let count = count.map_err(|error| {
                Fatal::unavailable(format!("cannot check whether {topic} is empty: {error}"))
            })?;
            if count > 0 {
                return Ok(Some((topic, count)));
            }
        }
        Ok(None)
    }

    /// Sends one event: a broadcast to every partition, any other to the partition
    /// of its key. Waits while the queue is full.
    ///
    /// # Errors
    /// When Kafka refuses it.
    pub(super) fn send(&mut self, mut sent: Sent, stop: &AtomicBool) -> Result<(), Fatal> {
        let kind = kind_of(&sent).map_err(Fatal::internal)?;
        if let Some(value) = &mut sent.value
            && self.config.formats.input(sent.input) == Format::Json
        {
            let json = json::write_bytes(json::message_of(sent.input), value);
            *value = json.map_err(Fatal::internal)?.into_bytes();
        }
        let key = sent.device.as_ref().map(DeviceId::to_string);
        let (topic, partitions) = self.topics[sent.input.index()];
        for copy in 0..if key.is_some() { 1 } else { partitions } {
            let mut record = BaseRecord::<[u8], [u8]>::to(topic);
            record.partition = key.is_none().then_some(copy);
            record.key = key.as_ref().map(String::as_bytes);
            record.payload = sent.value.as_deref();
            let taken = self.sender.send(record, stop);
            if !taken.map_err(|e| Fatal::unavailable(format!("cannot send to {topic}: {e}")))? {
                return Ok(());
            }
            self.records += 1;
        }
        *self.counts.entry(kind).or_default() += 1;
        Ok(())
    }

    /// Serves the producer's callbacks; to be called often.
    ///
    /// # Errors
    /// When records could not be delivered.
    pub(super) fn poll(&self) -> Result<(), Fatal> {
        self.sender.serve(Duration::ZERO).map_err(|lost| self.failure(&lost))
    }

    /// Waits until everything has arrived; not for long after `stop`.
    ///
    /// # Errors
    /// When some records are not delivered in time.
    pub(super) fn finish(&self, stop: &AtomicBool) -> Result<(), Fatal> {
        self.sender.finish(stop).map_err(|lost| self.failure(&lost))
    }

    fn failure(&self, Lost { records, why }: &Lost) -> Fatal {
        Fatal::unavailable(format!(
            "Kafka at {} did not acknowledge {records} records in time: {why}",
            self.config.kafka.brokers,
        ))
    }
}

fn find_topics<'a>(
    sender: &Sender,
    config: &'a Config,
    inputs: &[Input],
) -> Result<Vec<(&'a str, i32)>, Fatal> {
    let metadata = sender.topics(config)?;
    let topics = Input::ALL.into_iter().map(|input| {
        let name = config.topics.input(input);
        let found = metadata.topics().iter().find(|topic| topic.name() == name);
        match found.map_or(0, |topic| topic.partitions().len()) {
            _ if !inputs.contains(&input) => Ok((name, 0)),
            0 => Err(Fatal::unavailable(format!(
                "topic {name} does not exist on {}. Create it with `device-status topics create`, \
                 or set another name in topics.{}",
                config.kafka.brokers,
                input.name()
            ))),
            partitions => Ok((name, i32::try_from(partitions).unwrap_or(i32::MAX))),
        }
    });
    topics.collect()
}
