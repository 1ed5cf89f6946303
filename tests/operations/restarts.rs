//! Starts and stops under traffic: rolling restarts with static membership, ids
//! that are taken, and SIGTERM whatever else is wrong.

use std::collections::HashMap;
use std::time::Duration;

use crate::assert_each_change_once;
use crate::support::events::{self, device_id};
use crate::support::kafka::{EventProducer, Isolation, KafkaBroker, Record, ServiceTopics};
use crate::support::log::{INSTANCE_ID_TAKEN, KAFKA_AWAY, REDIS_ANEW};
use crate::support::process::free_port;
use crate::support::redis::{self, RedisServer};
use crate::support::service::{DeviceStatus, ServiceConfig};
use crate::support::wait::{Stopwatch, now_ms, pause, wait_for};
use device_status::wire::proto::v1::StatusChanged;

const SOON: Duration = Duration::from_secs(30);
/// How long a process may take to end politely, whatever is wrong: what
/// Kubernetes gives by default.
const GRACE: Duration = Duration::from_secs(30);

/// Devices that all change at every round.
pub struct Traffic {
    producer: EventProducer,
    topics: ServiceTopics,
    devices: Vec<String>,
    round: u64,
}

impl Traffic {
    /// So many devices, which nobody has heard of.
    pub fn new(broker: &KafkaBroker, topics: &ServiceTopics, devices: u64) -> Traffic {
        Traffic {
            producer: broker.producer(),
            topics: topics.clone(),
            devices: (0..devices).map(device_id).collect(),
            round: 0,
        }
    }

    /// Their ids.
    pub fn devices(&self) -> &[String] {
        &self.devices
    }

    /// How often each has changed: its version.
    pub fn rounds(&self) -> u64 {
        self.round
    }

    fn round(&mut self) {
        let step = |device: &String| events::toggled(device, now_ms(), "vpn-1", self.round);
        self.producer.send(&self.topics, self.devices.iter().map(step));
        self.producer.producer.poll(Duration::ZERO);
        self.round += 1;
    }

    /// Rounds until a condition holds.
    #[track_caller]
    pub fn flow_until(&mut self, what: &str, mut holds: impl FnMut() -> bool) {
        wait_for(Duration::from_secs(60), what, || {
            self.round();
            pause(Duration::from_millis(100));
            if holds() { Ok(()) } else { Err("it is not so yet") }
        });
    }

    /// So many rounds.
    pub fn flow_for(&mut self, rounds: u64) {
        for _ in 0..rounds {
            self.round();
            pause(Duration::from_millis(100));
        }
    }

    /// Every round is one change of every device, once and in order.
    #[track_caller]
    pub fn assert_each_change_once(&self, broker: &KafkaBroker) {
        self.producer.flush();
        let within = Duration::from_secs(60);
        assert_each_change_once(within, broker, &self.topics, &self.devices, self.round);
    }
}

fn config(broker: &KafkaBroker, topics: &ServiceTopics, redis: &RedisServer) -> ServiceConfig {
    ServiceConfig::new(broker, topics)
        .redis(&redis.url())
        .set("admin.listen", format!("127.0.0.1:{}", free_port()))
}

fn ready(service: &DeviceStatus) -> bool {
    matches!(service.get("/ready"), Ok((200, _)))
}

fn rebalances(service: &DeviceStatus) -> f64 {
    service.metric("device_status_rebalances_total", "").unwrap()
}

/// One process after the other is ended and started again under its id; the
/// others are told of nothing.
fn rolling_restart_moves_nothing(label: &str, protocol: &str) {
    let broker = KafkaBroker::shared();
    let redis = RedisServer::start();
    let topics = broker.service_topics(label, 6);
    let configs: Vec<ServiceConfig> = (0..3)
        .map(|n| {
            config(broker, &topics, &redis)
                .set("kafka.group_protocol", protocol)
                .set("kafka.instance_id", format!("host-{n}"))
        })
        .collect();
    let mut services: Vec<DeviceStatus> = configs.iter().map(DeviceStatus::start).collect();
    let mut traffic = Traffic::new(broker, &topics, 30);
    traffic.flow_until("two shards each, running", || {
        services.iter().all(|service| {
            ready(service) && service.metric("device_status_shards", "running") == Some(2.0)
        })
    });
    for n in 0..services.len() {
        let before: Vec<f64> = services.iter().map(rebalances).collect();
        let held = two_partitions(&services[n]);
        assert!(services[n].terminate().success());
        traffic.flow_for(5);
        services[n] = DeviceStatus::start(&configs[n]);
        let returned = &services[n];
        traffic.flow_until("the process to be back", || ready(returned));
        assert_eq!(two_partitions(&services[n]), held, "what it had before");
        for other in (0..services.len()).filter(|other| *other != n) {
            assert_eq!(rebalances(&services[other]), before[other], "process {other} was touched");
            assert!(ready(&services[other]));
        }
    }
    traffic.assert_each_change_once(broker);
}

/// The two partitions whose devices a process counts. The gauges of a partition
/// that it has given back stay, at zero.
#[track_caller]
fn two_partitions(service: &DeviceStatus) -> Vec<String> {
    wait_for(SOON, "the devices of two partitions to be counted", || {
        let (_, body) = service.get("/metrics").map_err(|error| error.to_string())?;
        let lines = body.lines().filter(|line| line.starts_with("device_status_devices{"));
        let counted = lines.filter(|line| !line.ends_with(" 0"));
        let partition =
            |line: &str| Some(line.split_once("partition=\"")?.1.chars().next()?.to_string());
        let mut partitions: Vec<String> = counted.filter_map(partition).collect();
        partitions.sort();
        partitions.dedup();
        if partitions.len() == 2 { Ok(partitions) } else { Err(format!("{partitions:?}")) }
    })
}

#[test]
fn a_rolling_restart_of_static_members_moves_no_partition() {
    rolling_restart_moves_nothing("rolling", "consumer");
}

#[test]
fn a_rolling_restart_of_static_members_moves_no_partition_with_the_classic_protocol() {
    rolling_restart_moves_nothing("rolling-classic", "classic");
}

#[test]
fn an_id_that_is_taken_is_named_and_waited_for_until_its_session_ends() {
    let broker = KafkaBroker::shared();
    let redis = RedisServer::start();
    let topics = broker.service_topics("taken", 2);
    let config = || config(broker, &topics, &redis).set("kafka.instance_id", "host-1");
    let mut first = DeviceStatus::start_ready(&config());
    let mut traffic = Traffic::new(broker, &topics, 20);
    traffic.flow_for(5);

    let mut second = DeviceStatus::start(&config().announce(INSTANCE_ID_TAKEN));
    let words = second.process.wait_for_output(SOON, "has the instance id");
    assert!(words.contains("\"host-1-0\"") && words.contains("kafka.instance_id"), "{words}");
    wait_for(SOON, "readiness to name the id", || match second.get("/ready") {
        Ok((503, body)) if body.contains("host-1-0") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    traffic.flow_for(10);
    assert!(ready(&first), "whoever has the id is not disturbed");

    first.kill();
    traffic.flow_until("the id to be given back", || ready(&second));
    traffic.assert_each_change_once(broker);
    assert!(second.terminate().success());
}

#[test]
fn with_the_classic_protocol_a_newcomer_takes_the_id_and_the_former_process_stops() {
    let broker = KafkaBroker::shared();
    let redis = RedisServer::start();
    let topics = broker.service_topics("fenced", 2);
    let config = || {
        config(broker, &topics, &redis)
            .set("kafka.group_protocol", "classic")
            .set("kafka.instance_id", "host-1")
            .set("kafka.properties.session.timeout.ms", "6000")
    };
    let mut first = DeviceStatus::start_ready(&config());
    let mut traffic = Traffic::new(broker, &topics, 20);
    traffic.flow_for(5);
    first.announce(INSTANCE_ID_TAKEN);
    let second = DeviceStatus::start(&config());
    traffic.flow_until("the newcomer to have taken over", || ready(&second));
    let status = first.process.wait(SOON);
    assert_eq!(status.code(), Some(69), "{}", first.process.output());
    let words = first.process.wait_for_output(SOON, "has taken the instance id");
    assert!(words.contains("kafka.instance_id"), "{words}");
    traffic.assert_each_change_once(broker);
}

#[test]
fn sigterm_under_load_commits_leaves_and_tells_redis() {
    let broker = KafkaBroker::shared();
    let redis = RedisServer::start();
    let topics = broker.service_topics("sigterm", 4);
    let mut service = DeviceStatus::start_ready(&config(broker, &topics, &redis));
    let mut traffic = Traffic::new(broker, &topics, 300);
    traffic.flow_for(20);
    let clock = Stopwatch::start();
    service.process.signal(crate::support::process::Signal::TERM);
    traffic.flow_for(5);
    let status = service.process.wait(GRACE);
    assert!(status.success(), "{status}");
    assert!(clock.elapsed() < Duration::from_secs(10), "{:?}", clock.elapsed());

    // What was committed is in Redis, with nobody left to write it.
    let mut reader = broker.reader(&topics.status_changes, Isolation::ReadCommitted);
    let changes = reader.read_for(Duration::from_secs(1));
    let mut last: HashMap<String, u64> = HashMap::new();
    for change in changes.iter().map(Record::decode::<StatusChanged>) {
        last.insert(change.device_id, change.version);
    }
    assert_eq!(last.len(), traffic.devices.len());
    let mut connection = redis.connection();
    for (device, version) in last {
        let hash = redis::hash(&mut connection, &format!("ds:device:{device}"));
        assert_eq!(hash.get("version"), Some(&version.to_string()), "{device}");
    }
    // The group is left: a successor has the partitions without a session's wait.
    let successor = DeviceStatus::start(&config(broker, &topics, &redis));
    let clock = Stopwatch::start();
    traffic.flow_until("the successor", || ready(&successor));
    assert!(clock.elapsed() < Duration::from_secs(9), "{:?}", clock.elapsed());
    traffic.assert_each_change_once(broker);
}

#[test]
fn sigterm_while_redis_is_away_still_commits_and_ends_in_time() {
    let broker = KafkaBroker::shared();
    let mut redis = RedisServer::start();
    let topics = broker.service_topics("sigterm-redis", 2);
    let mut service = DeviceStatus::start_ready(&config(broker, &topics, &redis));
    let mut traffic = Traffic::new(broker, &topics, 50);
    traffic.flow_for(5);
    service.announce(REDIS_ANEW);
    redis.stop();
    traffic.flow_for(5);
    let clock = Stopwatch::start();
    assert!(service.process.terminate(GRACE).success());
    assert!(clock.elapsed() < Duration::from_secs(10), "{:?}", clock.elapsed());
    redis.restart();
    let successor = DeviceStatus::start_ready(&config(broker, &topics, &redis));
    traffic.assert_each_change_once(broker);
    let version = traffic.round.to_string();
    for device in &traffic.devices {
        redis.wait_for_fields(device, SOON, &[("version", &version)]);
    }
    drop(successor);
}

#[test]
fn sigterm_while_kafka_is_away_ends_in_time_and_its_successor_goes_on() {
    let broker = KafkaBroker::start_with(&[("group.consumer.session.timeout.ms", "5000")]);
    let redis = RedisServer::start();
    let topics = broker.service_topics("sigterm-kafka", 2);
    let config = || config(&broker, &topics, &redis).set("processing.commit_interval", "5s");
    let mut service = DeviceStatus::start_ready(&config());
    let mut traffic = Traffic::new(&broker, &topics, 50);
    let commits = || service.metric("device_status_commits_total", "").unwrap_or(0.0);
    let committed = commits();
    traffic.flow_until("a commit", || commits() > committed);
    // The next one is seconds away: what is applied now is not committed.
    traffic.round();
    traffic.producer.flush();
    let applied = traffic.devices.len() as f64 * traffic.round as f64;
    wait_for(SOON, "all to be applied", || {
        match service.metric("device_status_records_total", "applied") {
            Some(count) if count >= applied => Ok(()),
            other => Err(format!("{other:?} of {applied}")),
        }
    });
    service.announce(KAFKA_AWAY);
    service.announce(&["the next owner redoes it", "Kafka does not answer; the group will notice"]);
    // There and silent is the worst case: requests wait for their timeouts.
    broker.pause();
    let status = service.process.terminate(GRACE);
    broker.resume();
    assert!(status.success(), "{status}\n{}", service.process.output());
    service.process.wait_for_output(SOON, "the next owner redoes it");

    let successor = DeviceStatus::start_ready(&config());
    traffic.flow_for(5);
    traffic.assert_each_change_once(&broker);
    drop(successor);
}

#[test]
fn sigterm_during_a_start_that_waits_for_kafka_ends_it_at_once() {
    // Takes connections, and never says a word.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("device-status.toml");
    let brokers = silent.local_addr().unwrap();
    std::fs::write(&path, format!("[kafka]\nbrokers = \"{brokers}\"\n")).unwrap();
    let mut command = std::process::Command::new(crate::support::service::binary());
    command.arg("--config").arg(path).arg("run");
    let mut process = crate::support::process::Process::spawn("device-status", command);
    let _asked = silent.accept().unwrap();
    let status = process.terminate(GRACE);
    // Waiting on would end with 69.
    assert_eq!(status.code(), Some(0), "{status}\n{}", process.output());
}
