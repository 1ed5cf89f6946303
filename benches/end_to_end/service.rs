//! The built binary, as a black box: its rates are those of its own stamps of
//! the first and the last record, since its counters move only twice a second.

use std::time::Duration;

use crate::load::Fleet;
use crate::processor;
use crate::report::{Measured, Report, say};
use crate::support::kafka::{KafkaBroker, ServiceTopics};
use crate::support::redis::RedisServer;
use crate::support::service::{DeviceStatus, ServiceConfig};
use crate::support::wait::{pause, wait_for};

const PATIENCE: Duration = Duration::from_secs(600);

/// A group of its own on the shared inputs, with outputs of its own.
pub struct Group {
    topics: ServiceTopics,
    config: ServiceConfig,
}

/// A run under observation.
struct Run {
    service: DeviceStatus,
}

/// A look at the counters, just after they moved.
#[derive(Clone, Debug)]
struct Look {
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
        Run { service: DeviceStatus::start(&config) }
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
        let restored = run.wait_until_restored();
        report.add("restore", restored);
        let looks = run.looks_until(fleet.heartbeats);
        report.add("steady", run.measured("applied", fleet.heartbeats, cpu_ns_each(&looks)));
        report.add_threads("steady", &processor::threads_ns(run.service.process.id()));
        run.service.terminate();
    }

    /// Reads everything from the start: a change, a row and a write to Redis
    /// for every device.
    pub fn cold(&self, redis: &RedisServer, records: u64, report: &mut Report) {
        say(&format!("{} reads everything, cold", self.topics.group));
        let mut run = self.start(redis, 1);
        let looks = run.looks_until(records);
        report.add("cold", run.measured("applied", records, cpu_ns_each(&looks)));
        run.wait_until_written();
        let resident = processor::resident_bytes(run.service.process.id());
        report.set("cold_resident_bytes", resident);
        run.service.terminate();
    }

    /// Steady, with another number of threads.
    pub fn grow(&self, redis: &RedisServer, fleet: &Fleet, threads: i64, report: &mut Report) {
        say(&format!("{} devices, {threads} threads", fleet.devices));
        let mut run = self.start(redis, threads);
        let restored = run.wait_until_restored();
        let looks = run.looks_until(fleet.heartbeats);
        let name = format!("growth_{}_devices_{threads}_threads", fleet.devices);
        report.add(&name, run.measured("applied", fleet.heartbeats, cpu_ns_each(&looks)));
        let restore_ms = u64::try_from(restored.took.as_millis()).expect("milliseconds");
        report.set(&format!("{name}_restore_ms"), restore_ms);
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
        Some(Look { records, cpu_ns: cpu_ns.sum() })
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
            // Asking costs the service time.
            pause(Duration::from_millis(20));
            Err(look.records.to_string())
        });
        looks
    }

    fn wait_until_restored(&mut self) -> Measured {
        let service = &self.service;
        wait_for(PATIENCE, "the restore", || {
            let running = service.metric("device_status_shards", "running").unwrap_or(0.0);
            if running >= 4.0 { Ok(()) } else { Err(format!("{running} shards run")) }
        });
        let count = service.metric("device_status_restored_records_total", "").unwrap_or(0.0);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let restored = count as u64;
        self.measured("restored", restored, 0.0)
    }

    /// So many records, between the service's own stamps of the first and the
    /// last, of whichever thread.
    fn measured(&self, work: &str, records: u64, cpu_ns: f64) -> Measured {
        let at = |edge: &str, choose: fn(f64, f64) -> f64| {
            let labels = [format!("work=\"{work}\""), format!("edge=\"{edge}\"")];
            let all = self.service.metrics("device_status_worked_at_seconds", &labels);
            all.into_iter().reduce(choose).expect("the service did some work")
        };
        let took_s = at("last", f64::max) - at("first", f64::min);
        Measured::new(records, Duration::from_secs_f64(took_s.max(0.0)), cpu_ns)
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

/// Processor time of the stream threads for each record, between the first and
/// the last time that the counters moved: what they did before and after, as a
/// restore, is left out. 0 where they moved once only.
#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn cpu_ns_each(looks: &[Look]) -> f64 {
    let first = looks.iter().find(|look| look.records > 0);
    let (Some(first), Some(last)) = (first, looks.last()) else { return 0.0 };
    match last.records - first.records {
        0 => 0.0,
        records => (last.cpu_ns - first.cpu_ns) as f64 / records as f64,
    }
}
