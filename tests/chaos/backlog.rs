//! A first start of the built binary on hours of history, on a real Kafka: each
//! change of each device is compared with what the oracle tells (rules T4, T6,
//! T8).
//!
//! `BACKLOG_STARTS=10 cargo test --test chaos backlog` starts that often.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use device_status::shard::Input;
use device_status::wire::proto::v1::StatusChanged;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::oracle::fleet::{Fleet, Told};
use crate::support::kafka::{EventProducer, Isolation, KafkaBroker, RawRecord, ServiceTopics};
use crate::support::service::{DeviceStatus, ServiceConfig};
use crate::support::wait::{Deadline, now_ms, pause, wait_for};

const DEVICES: usize = 600;
const STEPS: usize = 80;
const SOON: Duration = Duration::from_secs(30);
const HISTORY: [(&str, &str); 3] = [
    ("message.timestamp.type", "CreateTime"),
    ("retention.ms", "-1"),
    ("message.timestamp.before.max.ms", "9223372036854775807"),
];

/// Two nodes. The second one has a single input, so that a stop of it delays that
/// input alone.
struct Cluster {
    first: KafkaBroker,
    slow: KafkaBroker,
}

impl Cluster {
    fn start() -> Cluster {
        // A stop of some seconds is no death.
        let first = KafkaBroker::start_with(&[("broker.session.timeout.ms", "60000")]);
        // The coordinators are where they were first needed.
        first.transactional_producer("first");
        let mut config = first.config();
        config.set("group.id", "first");
        let member: BaseConsumer = config.create().unwrap();
        wait_for(SOON, "a group coordinator", || {
            let nothing = rdkafka::TopicPartitionList::new();
            member.committed_offsets(nothing, Duration::from_secs(1)).map(|_| ())
        });
        let slow = first.second_node();
        Cluster { first, slow }
    }

    /// Writes the history of the fleet to topics of its own, that of VPN sessions
    /// on the slow node.
    fn write(&self, fleet: &Fleet, partitions: i32) -> ServiceTopics {
        let inputs = ServiceTopics::named(&self.first.unique("history"), partitions);
        for input in Input::ALL {
            let node = if input == Input::VpnSessions { &self.slow } else { &self.first };
            node.create_topic(inputs.input(input), partitions, &HISTORY);
        }
        let mut config = self.first.config();
        config.set("partitioner", "murmur2_random").set("enable.idempotence", "true");
        // A fetch brings whole batches: of small ones it takes many.
        config.set("batch.num.messages", "20");
        let producer = EventProducer { producer: config.create().unwrap() };
        for record in &fleet.records {
            producer.send_raw(&RawRecord {
                topic: inputs.input(record.input),
                partition: None,
                timestamp_ms: Some(record.at),
                key: Some(record.device.as_bytes()),
                value: Some(&record.value),
                headers: &[],
            });
        }
        producer.flush();
        inputs
    }

    /// The same inputs, for a group that has read none of them.
    fn new_group(&self, inputs: &ServiceTopics) -> ServiceTopics {
        let own = ServiceTopics::named(&self.first.unique("backlog"), inputs.partitions);
        let compact = [("cleanup.policy", "compact"), ("message.timestamp.type", "LogAppendTime")];
        self.first.create_topic(&own.changelog, inputs.partitions, &compact);
        self.first.create_topic(&own.status_changes, inputs.partitions, &[]);
        self.first.create_topic(&own.dead_letters, 1, &[]);
        // The slow node hears of them too, before it is slow.
        for topic in [&own.changelog, &own.status_changes, &own.dead_letters] {
            drop(self.slow.reader(topic, Isolation::ReadUncommitted));
        }
        ServiceTopics {
            heartbeats: inputs.heartbeats.clone(),
            vpn_sessions: inputs.vpn_sessions.clone(),
            lifecycle: inputs.lifecycle.clone(),
            ..own
        }
    }

    fn config(&self, topics: &ServiceTopics) -> ServiceConfig {
        let mut config = ServiceConfig::new(&self.first, topics);
        let brokers = format!("{},{}", self.first.address(), self.slow.address());
        for (key, value) in [
            ("kafka.brokers", brokers.as_str()),
            ("kafka.properties.fetch.message.max.bytes", "8192"),
            ("heartbeat.minimum", "10m"),
            ("heartbeat.grace", "15s"),
            ("processing.tombstone_retention", "8760h"),
            ("log.level", "info"),
        ] {
            config = config.set(key, value);
        }
        config.set("topics.accept_create_time", true)
    }

    /// Runs the service until it has read everything and has told as many changes
    /// as there are; tells them.
    fn start_on(
        &self,
        inputs: &ServiceTopics,
        count: usize,
        slowly: bool,
    ) -> BTreeMap<String, Vec<Told>> {
        let topics = self.new_group(inputs);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            if slowly {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        self.slow.pause();
                        pause(Duration::from_millis(1_500));
                        self.slow.resume();
                        pause(Duration::from_millis(20));
                    }
                });
            }
            let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let mut service = DeviceStatus::start(&self.config(&topics));
                self.wait_until_all_is_read(&mut service, &topics);
                let read = || self.first.read_committed(&topics.status_changes, SOON);
                let deadline = Deadline::after(SOON);
                while read().len() < count && !deadline.passed() {
                    pause(Duration::from_millis(100));
                }
                // Nor do more come.
                pause(Duration::from_secs(1));
                let mut told: BTreeMap<String, Vec<Told>> = BTreeMap::new();
                for record in read() {
                    let change: StatusChanged = record.decode();
                    told.entry(change.device_id.clone()).or_default().push(Told::of(&change));
                }
                service.kill();
                told
            }));
            done.store(true, Ordering::Relaxed);
            told.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Until what is committed is all there is, and the clock is at the present.
    fn wait_until_all_is_read(&self, service: &mut DeviceStatus, topics: &ServiceTopics) {
        wait_for(Duration::from_secs(120), "the history to be read", || {
            if let Some(status) = service.process.ended() {
                panic!("device-status ended ({status}):\n{}", service.process.output());
            }
            let lag = service.metric("device_status_input_lag_records", "");
            let clock_lag = |partition: i32| {
                let label = format!("partition=\"{partition}\"");
                service.metric("device_status_clock_lag_seconds", &label)
            };
            let behind: Option<Vec<f64>> = (0..topics.partitions).map(clock_lag).collect();
            match (lag, behind) {
                (Some(0.0), Some(behind)) if behind.iter().all(|lag| *lag < 15.0) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }
}

fn starts() -> usize {
    std::env::var("BACKLOG_STARTS").ok().and_then(|count| count.parse().ok()).unwrap_or(1)
}

#[test]
fn a_backlog_of_hours_is_told_change_by_change() {
    let _alone = crate::alone();
    let cluster = Cluster::start();
    let fleet = Fleet::new(DEVICES, STEPS, now_ms() - 60_000);
    let mut wrong = Vec::new();
    for partitions in [1, 12] {
        let inputs = cluster.write(&fleet, partitions);
        for start in 1..=starts() {
            for slowly in [false, true] {
                let told = cluster.start_on(&inputs, fleet.count(), slowly);
                let differences = fleet.differences(&told);
                let changes: usize = told.values().map(Vec::len).sum();
                let what = format!(
                    "{partitions} partitions, start {start}{}: {} of {} devices differ, {changes} \
                     changes of {}",
                    if slowly { ", one input slow" } else { "" },
                    differences.len(),
                    fleet.changes.len(),
                    fleet.count(),
                );
                eprintln!("{what}");
                wrong.extend(differences.first().map(|first| format!("{what}; {first}")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
