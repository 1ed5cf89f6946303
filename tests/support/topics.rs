//! The topics of a broker: what tests write to them, read from them and ask of them.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use device_status::shard::Input;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::events::Outgoing;
use super::kafka::KafkaBroker;
use super::wait::{Deadline, wait_for};

impl KafkaBroker {
    /// Creates a topic, with settings such as `("cleanup.policy", "compact")`.
    pub fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        // On this broker, should there be another.
        let here = vec![self.node()];
        let here = vec![here.as_slice(); usize::try_from(partitions).unwrap()];
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Variable(&here));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let admin: AdminClient<DefaultClientContext> = self.config().create().unwrap();
        let options = AdminOptions::new()
            .operation_timeout(Some(Duration::from_secs(20)))
            .request_timeout(Some(Duration::from_secs(20)));
        let results = block_on(admin.create_topics([&topic], &options)).unwrap();
        for result in results {
            result.unwrap_or_else(|(topic, error)| panic!("creating {topic}: {error}"));
        }
        // Created is not yet known: metadata reaches the broker a moment later.
        let consumer = self.consumer_config().create::<BaseConsumer>().unwrap();
        wait_for(Duration::from_secs(20), &format!("topic {name} to have leaders"), || {
            partitions_of(&consumer, name).and_then(|count| {
                if count == partitions { Ok(()) } else { Err(format!("{count} partitions")) }
            })
        });
    }

    /// Adds partitions to a topic.
    pub fn add_partitions(&self, name: &str, total: usize) {
        use rdkafka::admin::NewPartitions;
        let admin: AdminClient<DefaultClientContext> = self.config().create().unwrap();
        let partitions = NewPartitions::new(name, total);
        let results = block_on(admin.create_partitions([&partitions], &AdminOptions::new()));
        for result in results.unwrap() {
            result.unwrap_or_else(|(topic, error)| panic!("adding to {topic}: {error}"));
        }
    }

    /// Deletes a consumer group, and with it its committed offsets.
    pub fn delete_group(&self, group: &str) {
        let admin: AdminClient<DefaultClientContext> = self.config().create().unwrap();
        wait_for(Duration::from_secs(30), "the group to be deleted", || {
            let results = block_on(admin.delete_groups(&[group], &AdminOptions::new())).unwrap();
            results.into_iter().next().unwrap().map_err(|(_, error)| error.to_string())
        });
    }

    /// The names of all groups.
    pub fn groups(&self) -> Vec<String> {
        let consumer = self.consumer_config().create::<BaseConsumer>().unwrap();
        let groups = consumer.fetch_group_list(None, Duration::from_secs(10)).unwrap();
        groups.groups().iter().map(|group| group.name().to_owned()).collect()
    }

    /// Deletes all records that a topic has, as retention does.
    pub fn delete_records(&self, topic: &str) {
        let admin: AdminClient<DefaultClientContext> = self.config().create().unwrap();
        let consumer = self.consumer_config().create::<BaseConsumer>().unwrap();
        let mut all = TopicPartitionList::new();
        let within = Duration::from_secs(30);
        for partition in 0..wait_for(within, topic, || partitions_of(&consumer, topic)) {
            all.add_partition_offset(topic, partition, Offset::End).unwrap();
        }
        let results = block_on(admin.delete_records(&all, &AdminOptions::new())).unwrap();
        for result in results.elements() {
            result.error().unwrap();
        }
    }

    /// Deletes a topic, and makes it anew as the service's inputs are made.
    pub fn make_anew(&self, topic: &str, partitions: i32) {
        let admin: AdminClient<DefaultClientContext> = self.config().create().unwrap();
        let results = block_on(admin.delete_topics(&[topic], &AdminOptions::new())).unwrap();
        results.into_iter().next().unwrap().unwrap();
        let consumer = self.consumer_config().create::<BaseConsumer>().unwrap();
        wait_for(Duration::from_secs(30), "the topic to be gone", || {
            let topics = consumer.fetch_metadata(None, Duration::from_secs(5));
            let topics = topics.map_err(|error| error.to_string())?;
            let known = topics.topics().iter().any(|known| known.name() == topic);
            if known { Err("it is still there".to_owned()) } else { Ok(()) }
        });
        self.create_topic(topic, partitions, &[("message.timestamp.type", "LogAppendTime")]);
    }

    /// Creates the topics of one instance of the service, under names that no
    /// other test uses.
    pub fn service_topics(&self, label: &str, partitions: i32) -> ServiceTopics {
        let stamp = [("message.timestamp.type", "LogAppendTime")];
        self.create_service_topics(label, partitions, &stamp)
    }

    /// The same with `CreateTime` inputs, whose records carry the timestamps
    /// that the test gives them (`topics.accept_create_time`).
    pub fn service_topics_stamped_by_sender(&self, label: &str, partitions: i32) -> ServiceTopics {
        self.create_service_topics(label, partitions, &[("message.timestamp.type", "CreateTime")])
    }

    fn create_service_topics(
        &self,
        label: &str,
        partitions: i32,
        input_settings: &[(&str, &str)],
    ) -> ServiceTopics {
        let topics = ServiceTopics::named(&self.unique(label), partitions);
        for input in Input::ALL {
            self.create_topic(topics.input(input), partitions, input_settings);
        }
        self.create_topic(
            &topics.changelog,
            partitions,
            &[("cleanup.policy", "compact"), ("message.timestamp.type", "LogAppendTime")],
        );
        self.create_topic(&topics.status_changes, partitions, &[]);
        self.create_topic(&topics.dead_letters, partitions, &[]);
        topics
    }

    /// A client configuration that knows the address and nothing else.
    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.address());
        config.set("broker.address.family", "v4");
        // A broker that is restarted on purpose is found again soon.
        config.set("reconnect.backoff.ms", "20").set("reconnect.backoff.max.ms", "200");
        config
    }

    /// The settings of a topic, as the broker tells them.
    pub fn topic_settings(&self, topic: &str) -> HashMap<String, String> {
        let admin: AdminClient<DefaultClientContext> = self.config().create().unwrap();
        let resource = [ResourceSpecifier::Topic(topic)];
        let options = AdminOptions::new();
        let described = block_on(admin.describe_configs(&resource, &options));
        let entries = described.unwrap().remove(0).unwrap().entries.into_iter();
        entries.filter_map(|entry| Some((entry.name, entry.value?))).collect()
    }

    pub(super) fn consumer_config(&self) -> ClientConfig {
        let mut config = self.config();
        config.set("group.id", "test-harness");
        config.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
        config.set("enable.partition.eof", "true").set("auto.offset.reset", "earliest");
        config.set("fetch.wait.max.ms", "50").set("fetch.queue.backoff.ms", "10");
        config
    }

    /// A producer of events.
    pub fn producer(&self) -> EventProducer {
        self.producer_with(&[])
    }

    /// The same with other settings.
    pub fn producer_with(&self, settings: &[(&str, &str)]) -> EventProducer {
        let mut config = self.config();
        config.set("partitioner", "murmur2_random").set("linger.ms", "1");
        config.set("enable.idempotence", "true");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        EventProducer { producer: config.create().unwrap() }
    }

    /// A transactional producer, ready to begin.
    pub fn transactional_producer(&self, transactional_id: &str) -> EventProducer {
        let mut config = self.config();
        config.set("partitioner", "murmur2_random").set("linger.ms", "1");
        config.set("transactional.id", transactional_id);
        let producer: BaseProducer = config.create().unwrap();
        producer.init_transactions(Duration::from_secs(30)).unwrap();
        EventProducer { producer }
    }

    /// A reader of a whole topic, from its start.
    pub fn reader(&self, topic: &str, isolation: Isolation) -> TopicReader {
        let mut config = self.consumer_config();
        config.set("isolation.level", isolation.name());
        let consumer: BaseConsumer = config.create().unwrap();
        let count = wait_for(Duration::from_secs(20), &format!("topic {topic}"), || {
            partitions_of(&consumer, topic)
        });
        let mut partitions = TopicPartitionList::new();
        for partition in 0..count {
            partitions.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&partitions).unwrap();
        TopicReader { consumer, records: Vec::new() }
    }

    /// All committed records of a topic, up to its end as it is now, which
    /// includes waiting for transactions that are still open.
    #[track_caller]
    pub fn read_committed(&self, topic: &str, within: Duration) -> Vec<Record> {
        let deadline = Deadline::after(within);
        let all = self.reader(topic, Isolation::ReadUncommitted).consumer;
        let committed = self.reader(topic, Isolation::ReadCommitted);
        let timeout = Duration::from_secs(5);
        let partitions = wait_for(deadline.left(), "its partitions", || partitions_of(&all, topic));
        for partition in 0..partitions {
            let (_, end) = wait_for(deadline.left(), "the end of a partition", || {
                all.fetch_watermarks(topic, partition, timeout)
            });
            let what = format!("no transaction to be open on {topic}-{partition}");
            wait_for(deadline.left(), &what, || {
                // Asked by a read_committed consumer, this is the last stable offset.
                let (_, stable) = committed
                    .consumer
                    .fetch_watermarks(topic, partition, timeout)
                    .map_err(|error| error.to_string())?;
                if stable >= end { Ok(()) } else { Err(format!("stable to {stable} of {end}")) }
            });
        }
        committed.read_to_end(deadline.left())
    }

    /// All records of a topic, aborted and open ones too.
    #[track_caller]
    pub fn read_uncommitted(&self, topic: &str, within: Duration) -> Vec<Record> {
        self.reader(topic, Isolation::ReadUncommitted).read_to_end(within)
    }

    /// What a group has committed on a topic: (partition, offset, metadata).
    pub fn committed_offsets(&self, group: &str, topic: &str) -> Vec<(i32, i64, String)> {
        let mut config = self.consumer_config();
        config.set("group.id", group);
        let consumer: BaseConsumer = config.create().unwrap();
        let within = Duration::from_secs(30);
        let mut partitions = TopicPartitionList::new();
        for partition in 0..wait_for(within, topic, || partitions_of(&consumer, topic)) {
            partitions.add_partition(topic, partition);
        }
        let committed = wait_for(within, "committed offsets", || {
            consumer.committed_offsets(partitions.clone(), Duration::from_secs(20))
        });
        let known = committed.elements().into_iter().filter_map(|element| match element.offset() {
            Offset::Offset(offset) => {
                Some((element.partition(), offset, element.metadata().to_owned()))
            }
            _ => None,
        });
        known.collect()
    }
}

/// The names of one service's topics on a broker, and of its group.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "as in the configuration")]
pub struct ServiceTopics {
    pub group: String,
    pub heartbeats: String,
    pub vpn_sessions: String,
    pub lifecycle: String,
    pub status_changes: String,
    pub dead_letters: String,
    pub changelog: String,
    pub partitions: i32,
}

impl ServiceTopics {
    /// The names that begin with `prefix`; creates nothing.
    pub fn named(prefix: &str, partitions: i32) -> ServiceTopics {
        ServiceTopics {
            group: prefix.to_owned(),
            heartbeats: format!("{prefix}-heartbeats"),
            vpn_sessions: format!("{prefix}-vpn-sessions"),
            lifecycle: format!("{prefix}-lifecycle"),
            status_changes: format!("{prefix}-status-changes"),
            dead_letters: format!("{prefix}-dead-letters"),
            changelog: format!("{prefix}-changelog"),
            partitions,
        }
    }

    /// The topic of an input.
    pub fn input(&self, input: Input) -> &str {
        match input {
            Input::Heartbeats => &self.heartbeats,
            Input::VpnSessions => &self.vpn_sessions,
            Input::Lifecycle => &self.lifecycle,
        }
    }
}

/// Writes events.
pub struct EventProducer {
    /// For what the methods do not do: transactions.
    pub producer: BaseProducer,
}

impl EventProducer {
    /// Puts events on their topics: a broadcast on every partition, another
    /// where its key belongs or it asks to go. Call [`EventProducer::flush`].
    pub fn send(&self, topics: &ServiceTopics, events: impl IntoIterator<Item = Outgoing>) {
        for event in events {
            let partitions: Vec<Option<i32>> = match (&event.key, event.partition) {
                (None, None) => (0..topics.partitions).map(Some).collect(),
                (_, partition) => vec![partition],
            };
            for partition in partitions {
                self.send_raw(&RawRecord {
                    topic: topics.input(event.input),
                    partition,
                    timestamp_ms: event.timestamp_ms,
                    key: event.key.as_deref(),
                    value: event.value.as_deref(),
                    headers: &[],
                });
            }
        }
    }

    /// Puts any record on any topic.
    pub fn send_raw(&self, raw: &RawRecord<'_>) {
        let mut record = BaseRecord::<[u8], [u8]>::to(raw.topic);
        record.partition = raw.partition;
        record.timestamp = raw.timestamp_ms;
        record.key = raw.key;
        record.payload = raw.value;
        if !raw.headers.is_empty() {
            let headers = raw.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header { key, value: Some(*value) })
            });
            record.headers = Some(headers);
        }
        let deadline = Deadline::after(Duration::from_secs(30));
        while let Err((error, refused)) = self.producer.send(record) {
            let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
            assert!(full && !deadline.passed(), "sending to {}: {error}", raw.topic);
            self.producer.poll(Duration::from_millis(10));
            record = refused;
        }
    }

    /// Waits until the broker has everything.
    #[track_caller]
    pub fn flush(&self) {
        let deadline = Deadline::after(Duration::from_secs(60));
        while self.producer.in_flight_count() > 0 {
            assert!(!deadline.passed(), "the broker does not take the records");
            self.producer.poll(Duration::from_millis(1));
        }
    }
}

/// A record to write as it is.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs, reason = "Kafka's terms")]
pub struct RawRecord<'a> {
    pub topic: &'a str,
    pub partition: Option<i32>,
    pub timestamp_ms: Option<i64>,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [(&'a str, &'a [u8])],
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "Kafka's terms")]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub timestamp_ms: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    /// The key as text; empty without one.
    pub fn key_text(&self) -> String {
        String::from_utf8_lossy(self.key.as_deref().unwrap_or_default()).into_owned()
    }

    /// The value as a message.
    #[track_caller]
    pub fn decode<M: prost::Message + Default>(&self) -> M {
        M::decode(self.value.as_deref().expect("the record has no value")).unwrap()
    }

    /// A header's value as text.
    pub fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().find(|(key, _)| key == name)?;
        value.as_ref().map(|value| String::from_utf8_lossy(value).into_owned())
    }

    fn from_message(message: &BorrowedMessage<'_>) -> Record {
        let header =
            |header: Header<'_, &[u8]>| (header.key.to_owned(), header.value.map(<[u8]>::to_vec));
        Record {
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: message
                .headers()
                .map(|headers| headers.iter().map(header).collect())
                .unwrap_or_default(),
        }
    }
}

/// Which records a reader is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "Kafka's terms")]
pub enum Isolation {
    ReadCommitted,
    ReadUncommitted,
}

impl Isolation {
    fn name(self) -> &'static str {
        match self {
            Isolation::ReadCommitted => "read_committed",
            Isolation::ReadUncommitted => "read_uncommitted",
        }
    }
}

/// Reads one topic, all partitions, from the start; keeps what it has read.
pub struct TopicReader {
    consumer: BaseConsumer,
    /// In the order in which they came: that of the log within a partition.
    pub records: Vec<Record>,
}

impl TopicReader {
    /// Reads on until `enough` says so of all that was read.
    #[track_caller]
    pub fn read_until(
        &mut self,
        within: Duration,
        what: &str,
        mut enough: impl FnMut(&[Record]) -> bool,
    ) -> &[Record] {
        let deadline = Deadline::after(within);
        while !enough(&self.records) {
            assert!(
                !deadline.passed(),
                "waited {within:?} for {what}, in vain; {} records were read, the last: {:?}",
                self.records.len(),
                self.records.last()
            );
            self.poll(Duration::from_millis(20));
        }
        &self.records
    }

    /// Reads until `count` records were read in all.
    #[track_caller]
    pub fn read_count(&mut self, within: Duration, count: usize) -> &[Record] {
        self.read_until(within, &format!("{count} records"), |records| records.len() >= count)
    }

    /// Reads for a while, whatever comes.
    pub fn read_for(&mut self, duration: Duration) -> &[Record] {
        let deadline = Deadline::after(duration);
        while !deadline.passed() {
            self.poll(deadline.left().min(Duration::from_millis(50)));
        }
        &self.records
    }

    /// Reads every partition to its end, once.
    #[track_caller]
    fn read_to_end(mut self, within: Duration) -> Vec<Record> {
        let deadline = Deadline::after(within);
        let assigned = self.consumer.assignment().unwrap();
        let mut unread: HashSet<i32> =
            assigned.elements().iter().map(|element| element.partition()).collect();
        while !unread.is_empty() {
            assert!(!deadline.passed(), "partitions not read to the end yet: {unread:?}");
            if let Polled::EndOfPartition(partition) = self.poll(Duration::from_millis(50)) {
                unread.remove(&partition);
            }
        }
        self.records
    }

    fn poll(&mut self, timeout: Duration) -> Polled {
        match self.consumer.poll(timeout) {
            None => Polled::Nothing,
            Some(Ok(message)) => {
                self.records.push(Record::from_message(&message));
                Polled::Record
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => Polled::EndOfPartition(partition),
            // The broker may be away on purpose; deadlines decide.
            Some(Err(_)) => Polled::Nothing,
        }
    }
}

enum Polled {
    Nothing,
    Record,
    EndOfPartition(i32),
}

fn partitions_of(consumer: &BaseConsumer, topic: &str) -> Result<i32, String> {
    let metadata = consumer
        .fetch_metadata(Some(topic), Duration::from_secs(5))
        .map_err(|error| error.to_string())?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let found = found.ok_or_else(|| format!("{topic} is not known"))?;
    if found.error().is_some() || found.partitions().is_empty() {
        return Err(format!("{topic}: {:?}", found.error()));
    }
    if found.partitions().iter().any(|partition| partition.leader() < 0) {
        return Err(format!("{topic}: a partition has no leader"));
    }
    Ok(i32::try_from(found.partitions().len()).unwrap())
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}
