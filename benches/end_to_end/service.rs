//! The built binary, as a black box: its rates are those of its own counters.

use std::time::Duration;

use crate::load::Fleet;
use crate::processor;
use crate::report::{Measured, Report, say};
use crate::support::kafka::{KafkaBroker, ServiceTopics};
use crate::support::redis::RedisServer;
use crate::support::service::{DeviceStatus, ServiceConfig};
use crate::support::wait::{Stopwatch, pause, wait_for};

const PATIENCE: Duration = Duration::from_secs(600);

/// A group of its own on the shared inputs, with outputs of its own.
pub struct Group {
    topics: ServiceTopics,
    config: ServiceConfig,
}

/// A run under observation.
struct Run {
    service: DeviceStatus,
    watch: Stopwatch,
}

/// A look at the counters.
#[derive(Clone, Debug)]
struct Look {
    at: Duration,
    records: u64,
    cpu_ns: u64,
}

impl Group {
    /// Creates the outputs.
    pub fn new(broker: &KafkaBroker, inputs: &ServiceTopics, name: &str) -> Group {
        let prefix = broker.unique(name);
        let own = ServiceTopics::named(&prefix, inputs.partitions);
        let topics = ServiceTopics {
            group: own.group,
            changelog: own.changelog,
            status_changes: own.status_changes,
            dead_letters: own.dead_letters,
            ..inputs.clone()
        };
        let compact = [("cleanup.policy", "compact"), ("message.timestamp.type", "LogAppendTime")];
        broker.create_topic(&topics.changelog, topics.partitions, &compact);
        broker.create_topic(&topics.status_changes, topics.partitions, &[]);
        broker.create_topic(&topics.dead_letters, topics.partitions, &[]);
        let config = ServiceConfig::new(broker, &topics)
            .set("heartbeat.minimum", "10m")
            .set("heartbeat.grace", "15s")
            .set("redis.prefix", format!("{prefix}:"))
            .set("log.level", "warn");
        Group { topics, config }
    }

    /// The name of its changelog.
    pub fn changelog(&self) -> &str {
        &self.topics.changelog
    }

    fn start(&self, redis: &RedisServer, threads: i64) -> Run {
        let config = self.config.clone().redis(&redis.url()).set("processing.threads", threads);
        Run { service: DeviceStatus::start(&config), watch: Stopwatch::start() }
    }

    /// Reads what there is, commits it, and ends.
    pub fn catch_up(&self, redis: &RedisServer, records: u64) {
        say(&format!("{} learns the fleet", self.topics.group));
        let mut run = self.start(redis, 1);
        run.looks_until(records);
        run.wait_until_written();
        run.service.terminate();
    }

    /// Restores, then reads heartbeats of devices that are known.
    pub fn steady(&self, redis: &RedisServer, fleet: &Fleet, report: &mut Report) {
        say(&format!("{} restores, then reads on", self.topics.group));
        let mut run = self.start(redis, 1);
        let (restored, took) = run.wait_until_restored();
        report.add("restore", Measured::new(restored, took, 0));
        let looks = run.looks_until(fleet.heartbeats);
        report.add("steady", rate(&looks, fleet.heartbeats));
        report.add_threads("steady", &processor::threads_ns(run.service.process.id()));
        run.service.terminate();
    }

    /// Reads everything from the start: a change, a row and a write to Redis
    /// for every device.
    pub fn cold(&self, redis: &RedisServer, records: u64, report: &mut Report) {
        say(&format!("{} reads everything, cold", self.topics.group));
        let mut run = self.start(redis, 1);
        let looks = run.looks_until(records);
        let first = looks.iter().find(|look| look.records > 0).expect("it read something");
        let last = looks.last().expect("a look");
        report.add(
            "cold",
            Measured::new(
                last.records - first.records,
                last.at - first.at,
                last.cpu_ns - first.cpu_ns,
            ),
        );
        run.wait_until_written();
        let resident = processor::resident_bytes(run.service.process.id());
        report.set("cold_resident_bytes", resident);
        run.service.terminate();
    }

    /// Steady, with another number of threads.
    pub fn grow(&self, redis: &RedisServer, fleet: &Fleet, threads: i64, report: &mut Report) {
        say(&format!("{} devices, {threads} threads", fleet.devices));
        let mut run = self.start(redis, threads);
        let (_, took) = run.wait_until_restored();
        let looks = run.looks_until(fleet.heartbeats);
        let name = format!("growth_{}_devices_{threads}_threads", fleet.devices);
        report.add(&name, rate(&looks, fleet.heartbeats));
        report.set(&format!("{name}_restore_ms"), u64::try_from(took.as_millis()).unwrap());
        let resident = processor::resident_bytes(run.service.process.id());
        report.set(&format!("{name}_resident_bytes"), resident);
        run.service.terminate();
    }
}

impl Run {
    fn look(&mut self) -> Option<Look> {
        if let Some(status) = self.service.process.ended() {
            panic!("device-status ended ({status}):\n{}", self.service.process.output());
        }
        let records = self.service.metric("device_status_records_total", "")?;
        let threads = processor::threads_ns(self.service.process.id());
        let cpu_ns =
            threads.iter().filter(|(name, _)| name.starts_with("stream-")).map(|(_, ns)| ns);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let records = records as u64;
        Some(Look { at: self.watch.elapsed(), records, cpu_ns: cpu_ns.sum() })
    }

    /// Looks again and again; keeps a look for each step of the counters.
    fn looks_until(&mut self, records: u64) -> Vec<Look> {
        let mut looks: Vec<Look> = Vec::new();
        wait_for(PATIENCE, &format!("{records} records to be read"), || {
            let Some(look) = self.look() else { return Err("no answer".to_owned()) };
            if looks.last().is_none_or(|last| last.records != look.records) {
                looks.push(look.clone());
            }
            if look.records >= records {
                return Ok(());
            }
            // The counters move twice a second; asking costs the service time.
            pause(Duration::from_millis(20));
            Err(look.records.to_string())
        });
        looks
    }

    fn wait_until_restored(&mut self) -> (u64, Duration) {
        let mut restored = 0;
        let mut began = None;
        wait_for(PATIENCE, "the restore", || {
            let service = &self.service;
            let count = service.metric("device_status_restored_records_total", "").unwrap_or(0.0);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let count = count as u64;
            if count > 0 && began.is_none() {
                began = Some(self.watch.elapsed());
            }
            restored = count;
            let running = service.metric("device_status_shards", "running").unwrap_or(0.0);
            if running >= 4.0 { Ok(()) } else { Err(format!("{running} shards run")) }
        });
        (restored, self.watch.elapsed() - began.unwrap_or_default())
    }

    fn wait_until_written(&mut self) {
        wait_for(PATIENCE, "Redis to have everything and Kafka to know", || {
            let service = &self.service;
            let backlog = service.metric("device_status_redis_backlog_writes", "");
            let lag = service.metric("device_status_input_lag_records", "");
            match (backlog, lag) {
                (Some(backlog), Some(lag)) if backlog == 0.0 && lag == 0.0 => Ok(()),
                other => Err(format!("{other:?} to go")),
            }
        });
    }
}

/// The rate between the first tenth and the last look before the end: at both
/// a counter had just been published.
fn rate(looks: &[Look], records: u64) -> Measured {
    let first = looks.iter().find(|look| look.records >= records / 10).expect("a look");
    let before_end = |look: &&Look| look.records < records && look.records > first.records;
    let last = looks.iter().rev().find(before_end).or(looks.last()).expect("a look");
    Measured::new(last.records - first.records, last.at - first.at, last.cpu_ns - first.cpu_ns)
}
