//! The whole service, the built binary, while its Redis is away or fails over.
//! A checker that knows nothing but the change topic compares: every hash with
//! the last word on its device, and every fleet's counts.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::support::events::{self, device_id};
use crate::support::kafka::{EventProducer, Isolation, KafkaBroker, ServiceTopics, TopicReader};
use crate::support::log::REDIS_ANEW;
use crate::support::redis::{RedisServer, hash};
use crate::support::redis_cluster::RedisCluster;
use crate::support::redis_sentinel::RedisSentinel;
use crate::support::service::{DeviceStatus, ServiceConfig};
use crate::support::wait::{Stopwatch, now_ms, pause, wait_for};
use device_status::wire::proto::v1::StatusChanged;
use prost_types::Timestamp;
use redis::ConnectionLike;

const DEVICES: u64 = 300;
const PARTITIONS: i32 = 3;
const PATIENCE: Duration = Duration::from_secs(90);

/// A service under traffic: VPN sessions that open and close, registrations,
/// deletions.
struct World {
    producer: EventProducer,
    topics: ServiceTopics,
    reader: TopicReader,
    service: DeviceStatus,
    round: u64,
}

impl World {
    fn start(label: &str, redis: impl FnOnce(ServiceConfig) -> ServiceConfig) -> World {
        let broker = KafkaBroker::shared();
        let topics = broker.service_topics(label, PARTITIONS);
        let config = ServiceConfig::new(broker, &topics).set("log.level", "info");
        let mut service = DeviceStatus::start(&redis(config));
        let reader = broker.reader(&topics.status_changes, Isolation::ReadCommitted);
        service.wait_ready(PATIENCE);
        World { producer: broker.producer(), topics, reader, service, round: 0 }
    }

    /// Every device takes a step; some move, some are deleted and come back.
    fn flow(&mut self) {
        self.step(true);
    }

    fn step(&mut self, lifecycle: bool) {
        let at_ms = now_ms();
        let mut sent = Vec::new();
        for n in 0..DEVICES {
            let id = device_id(n);
            let fleet = if (n + self.round / 8).is_multiple_of(5) { "red" } else { "blue" };
            if lifecycle && self.round % 8 == n % 8 {
                sent.push(events::registered(&id, at_ms, fleet, "org"));
            }
            sent.push(events::toggled(&id, at_ms, &format!("vpn-{}", n % 3), self.round));
            if lifecycle && n % 29 == 0 && self.round % 8 == 7 {
                sent.push(events::tombstone(&id));
            }
        }
        self.producer.send(&self.topics, sent);
        self.producer.flush();
        self.round += 1;
        pause(Duration::from_millis(200));
    }

    fn flow_for(&mut self, duration: Duration) {
        let watch = Stopwatch::start();
        while watch.elapsed() < duration {
            self.flow();
        }
    }

    fn metric(&self, name: &str) -> f64 {
        self.service.metric(name, "").unwrap_or(f64::NAN)
    }

    /// Traffic until a condition holds.
    #[track_caller]
    fn flow_until(&mut self, what: &str, mut condition: impl FnMut(&World) -> bool) {
        let watch = Stopwatch::start();
        while !condition(self) {
            assert!(
                watch.elapsed() < PATIENCE,
                "in vain: {what}\n{}",
                self.service.process.output()
            );
            self.flow();
        }
    }

    /// Comes to rest, and waits until Redis shows the last word on everybody.
    fn assert_equal(&mut self, redis: &mut dyn ConnectionLike) {
        // A move alone is no change: let one follow, that tells the fleet.
        self.step(false);
        let (last, counts) = self.last_words();
        wait_for(PATIENCE, "Redis to show the last word on everybody", || {
            let wrong: Vec<String> = last
                .values()
                .filter_map(|change| difference(change, &hash(redis, &key(change))))
                .collect();
            if wrong.is_empty() {
                Ok(())
            } else {
                Err(format!("{} differ: {wrong:#?}", wrong.len()))
            }
        });
        wait_for(PATIENCE, "the counts of the fleets", || {
            for (fleet, expected) in &counts {
                let mut shown: BTreeMap<String, u64> = BTreeMap::new();
                for partition in 0..PARTITIONS {
                    let mut held = hash(redis, &format!("ds:fleet:{fleet}:{partition}"));
                    held.remove("token");
                    for (status, count) in held {
                        *shown.entry(status).or_default() += count.parse::<u64>().unwrap();
                    }
                }
                shown.retain(|_, count| *count > 0);
                if shown != *expected {
                    return Err(format!("{fleet}: {shown:?}, not {expected:?}"));
                }
            }
            Ok(())
        });
    }

    /// The last change of each device, and what they make of each fleet.
    fn last_words(
        &mut self,
    ) -> (HashMap<String, StatusChanged>, BTreeMap<String, BTreeMap<String, u64>>) {
        let service = &self.service;
        wait_for(PATIENCE, "all to be processed", || {
            let lag = service.metric("device_status_input_lag_records", "");
            if lag == Some(0.0) { Ok(()) } else { Err(format!("lag {lag:?}")) }
        });
        // A change follows its record by a commit.
        let mut seen = 0;
        loop {
            let read = self.reader.read_for(Duration::from_secs(3)).len();
            if read == seen && read > 0 {
                break;
            }
            seen = read;
        }
        let mut last = HashMap::new();
        for record in &self.reader.records {
            let change: StatusChanged = record.decode();
            last.insert(change.device_id.clone(), change);
        }
        assert_eq!(last.len() as u64, DEVICES);
        let mut counts: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        for fleet in ["blue", "red"] {
            counts.insert(fleet.to_owned(), BTreeMap::new());
        }
        for change in last.values().filter(|change| !change.deleted) {
            let of = counts.entry(change.fleet.clone()).or_default();
            *of.entry(status(change)).or_default() += 1;
        }
        (last, counts)
    }
}

fn key(change: &StatusChanged) -> String {
    format!("ds:device:{}", change.device_id)
}

fn wire(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap().to_ascii_lowercase().replace('_', "-")
}

fn status(change: &StatusChanged) -> String {
    wire(change.status().as_str_name(), "STATUS_")
}

fn millis(at: Option<Timestamp>) -> String {
    at.map_or(0, |t| t.seconds * 1000 + i64::from(t.nanos) / 1_000_000).to_string()
}

/// How a hash differs from the last word on its device.
fn difference(change: &StatusChanged, held: &BTreeMap<String, String>) -> Option<String> {
    if change.deleted {
        let gone = held.keys().all(|field| field == "token");
        return (!gone).then(|| format!("{held:?} is of a device that was deleted"));
    }
    let expected = [
        ("status", status(change)),
        ("connectivity", wire(change.connectivity().as_str_name(), "CONNECTIVITY_")),
        ("since_ms", millis(change.since)),
        ("connectivity_since_ms", millis(change.connectivity_since)),
        ("version", change.version.to_string()),
        ("vpn", if change.vpn_connected { "up" } else { "down" }.to_owned()),
    ];
    let differs = |(field, value): &&(&str, String)| held.get(*field) != Some(value);
    let (field, value) = expected.iter().find(differs)?;
    Some(format!("{field} is not {value} in {held:?}"))
}

fn resident_kib(world: &World) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.service.process.id()));
    let status = status.unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// `REDIS_AWAY_SECONDS` says how long (default 12).
#[test]
fn while_redis_is_away_kafka_is_kept_up_with_and_what_waits_is_bounded_by_the_devices() {
    let seconds = std::env::var("REDIS_AWAY_SECONDS").ok().and_then(|s| s.parse().ok());
    let away = Duration::from_secs(seconds.unwrap_or(12));
    let mut redis = RedisServer::start();
    let mut world = World::start("away", |config| config.redis(&redis.url()));
    world.flow_for(Duration::from_secs(3));
    world.service.announce(REDIS_ANEW);
    redis.stop();
    world.flow_until("the outage to be noticed", |world| {
        world.metric("device_status_redis_up") == 0.0
    });
    let before_kib = resident_kib(&world);
    let (mut lag, mut backlog, mut resident): (f64, f64, u64) = (0.0, 0.0, 0);
    let watch = Stopwatch::start();
    while watch.elapsed() < away {
        world.flow_for(Duration::from_secs(1));
        lag = lag.max(world.metric("device_status_input_lag_records"));
        backlog = backlog.max(world.metric("device_status_redis_backlog_writes"));
        resident = resident.max(resident_kib(&world));
    }
    let grown_kib = resident.saturating_sub(before_kib);
    eprintln!(
        "{away:?} away: {} events, lag at most {lag}, backlog at most {backlog}, {grown_kib} KiB more",
        world.round * DEVICES
    );
    let (code, body) = world.service.get("/ready").unwrap();
    assert!(body.to_lowercase().contains("redis"), "{code} {body}");
    // Two rounds under way at most on a quiet machine; ten on a busy one.
    assert!(lag <= 10.0 * 1.2 * DEVICES as f64, "lag {lag}");
    // Each device, and each fleet of each partition (devices without one too).
    assert!(backlog <= (DEVICES + 3 * PARTITIONS as u64) as f64, "backlog {backlog}");
    assert!(grown_kib < 64 * 1024, "{grown_kib} KiB more");
    redis.restart();
    world.flow_for(Duration::from_secs(1));
    world.assert_equal(&mut redis.connection());
}

#[test]
fn a_cluster_whose_master_dies_under_traffic_shows_the_last_word_on_everybody() {
    let mut cluster = RedisCluster::start(3, true);
    let mut world = World::start("cluster", |config| config.redis(&cluster.url()));
    world.flow_for(Duration::from_secs(2));
    world.service.announce(REDIS_ANEW);
    cluster.cut_off_replica(1);
    world.flow_for(Duration::from_secs(2));
    cluster.kill_master(1);
    world.flow_until("the loss to be noticed", |world| {
        world.metric("device_status_redis_up") == 0.0
    });
    world.flow_until("the replica to be written to", |world| {
        world.metric("device_status_redis_up") == 1.0
    });
    world.flow_for(Duration::from_secs(1));
    world.assert_equal(&mut cluster.connection());
}

#[test]
fn a_master_of_sentinels_that_dies_under_traffic_is_followed_by_the_last_word_on_everybody() {
    let mut servers = RedisSentinel::start("s3cret");
    let mut world = World::start("sentinel", |config| {
        config
            .redis(&servers.url())
            .set("redis.password", "s3cret")
            .set("redis.sentinel_password", "s3cret")
    });
    world.flow_for(Duration::from_secs(2));
    world.service.announce(REDIS_ANEW);
    servers.cut_off_replica();
    world.flow_for(Duration::from_secs(2));
    servers.master.kill();
    world.flow_until("the loss to be noticed", |world| {
        world.metric("device_status_redis_up") == 0.0
    });
    world.flow_until("the replica to be written to", |world| {
        world.metric("device_status_redis_up") == 1.0
    });
    world.flow_for(Duration::from_secs(1));
    world.assert_equal(&mut servers.replica.connection());
}
