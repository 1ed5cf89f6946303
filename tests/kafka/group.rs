//! The group as its members live in it: more threads than partitions, more
//! members than partitions, joins, leaves and kills. Nobody waits for long for an
//! owner, and who waits says so.

use std::time::Duration;

use crate::support::events::{self, device_id};
use crate::support::kafka::{Isolation, KafkaBroker, ServiceTopics};
use crate::support::log::{INSTANCE_ID_TAKEN, KAFKA_AWAY, REDIS_LOST};
use crate::support::process::free_port;
use crate::support::redis::RedisServer;
use crate::support::service::{DeviceStatus, ServiceConfig};
use crate::support::wait::{Stopwatch, now_ms, pause, wait_for, wait_until};
use device_status::shard::Input;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

const SOON: Duration = Duration::from_secs(30);
/// The session timeout of the tests, with either protocol.
const SESSION: Duration = Duration::from_secs(6);
/// What a takeover takes beside it: the broker ends the transaction that a dead
/// process left open (10 s), the partition is restored, two cores are shared.
const TAKEOVER: Duration = Duration::from_secs(20);

fn broker() -> KafkaBroker {
    let session = SESSION.as_millis().to_string();
    KafkaBroker::start_with(&[
        ("group.consumer.session.timeout.ms", &session),
        ("group.consumer.heartbeat.interval.ms", "1000"),
        ("group.consumer.min.heartbeat.interval.ms", "1000"),
    ])
}

/// Processes of one group.
struct Members<'a> {
    broker: &'a KafkaBroker,
    topics: ServiceTopics,
    redis: RedisServer,
    protocol: &'static str,
    threads: i64,
    running: Vec<DeviceStatus>,
    round: u64,
}

impl<'a> Members<'a> {
    fn new(
        broker: &'a KafkaBroker,
        protocol: &'static str,
        partitions: i32,
        threads: i64,
    ) -> Members<'a> {
        let topics = broker.service_topics(&format!("members-{protocol}"), partitions);
        let redis = RedisServer::start();
        Members { broker, topics, redis, protocol, threads, running: Vec::new(), round: 0 }
    }

    fn config(&self) -> ServiceConfig {
        let config = ServiceConfig::new(self.broker, &self.topics)
            .redis(&self.redis.url())
            .set("admin.listen", format!("127.0.0.1:{}", free_port()))
            .set("kafka.group_protocol", self.protocol)
            .set("processing.threads", self.threads);
        if self.protocol == "classic" {
            let session = SESSION.as_millis().to_string();
            return config.set("kafka.properties.session.timeout.ms", session);
        }
        config
    }

    fn join(&mut self) {
        self.running.push(DeviceStatus::start(&self.config()));
    }

    /// The first process that has a partition.
    fn owner(&mut self) -> DeviceStatus {
        let has_one = |service: &DeviceStatus| shards(service) > 0.0;
        let place = self.running.iter().position(has_one).expect("an owner");
        self.running.remove(place)
    }

    /// Waits until each partition runs once, nobody has anything to complain of,
    /// and a change of every device comes out.
    #[track_caller]
    fn settle(&mut self, what: &str, within: Duration) {
        let clock = Stopwatch::start();
        let partitions = f64::from(self.topics.partitions);
        wait_for(within, &format!("each partition to have an owner after {what}"), || {
            let shards: Vec<f64> = self.running.iter().map(shards).collect();
            let told = || self.running.iter().map(|s| s.get("/ready")).collect::<Vec<_>>();
            let whole = shards.iter().sum::<f64>() == partitions;
            if whole { Ok(()) } else { Err(format!("{shards:?} run; {:?}", told())) }
        });
        eprintln!("{} {what}: running after {:?}", self.protocol, clock.elapsed());
        for member in &mut self.running {
            member.wait_ready(SOON);
        }
        eprintln!("{} {what}: ready after {:?}", self.protocol, clock.elapsed());
        let devices: Vec<String> = (0..16).map(device_id).collect();
        let producer = self.broker.producer();
        let step = |device: &String| events::toggled(device, now_ms(), "vpn-1", self.round);
        producer.send(&self.topics, devices.iter().map(step));
        producer.flush();
        self.round += 1;
        let expected = devices.len() * usize::try_from(self.round).unwrap();
        let mut changes = self.broker.reader(&self.topics.status_changes, Isolation::ReadCommitted);
        changes.read_count(SOON, expected);
    }
}

fn shards(service: &DeviceStatus) -> f64 {
    service.metric("device_status_shards", "running").unwrap_or(0.0)
}

/// Processes join, leave and are killed, the one that has the partition first.
fn members_come_and_go(protocol: &'static str, partitions: i32, threads: i64) {
    let broker = broker();
    let mut members = Members::new(&broker, protocol, partitions, threads);
    let polite = TAKEOVER;
    let killed = SESSION + TAKEOVER;
    members.join();
    members.settle("the first", SOON);
    members.join();
    members.settle("the second joined", polite);
    members.join();
    members.settle("the third joined", polite);
    assert!(members.owner().terminate().success());
    members.settle("an owner left", polite);
    members.owner().kill();
    members.settle("an owner was killed", killed);
    members.join();
    members.join();
    members.settle("two joined at once", polite);
    members.owner().kill();
    members.join();
    members.settle("an owner was killed and another came", killed);
    for service in &mut members.running {
        assert!(service.terminate().success());
    }
}

#[test]
fn with_more_threads_than_partitions_there_is_always_an_owner_and_spares_are_ready() {
    members_come_and_go("consumer", 1, 2);
}

#[test]
fn with_more_threads_than_partitions_the_classic_protocol_does_not_stand_still() {
    members_come_and_go("classic", 1, 2);
}

#[test]
fn with_more_members_than_partitions_there_is_always_an_owner() {
    members_come_and_go("consumer", 2, 1);
}

#[test]
fn with_more_members_than_partitions_the_classic_protocol_does_not_stand_still() {
    members_come_and_go("classic", 2, 1);
}

/// A member that takes partitions and then does nothing for the group but to be
/// there: it is asked to give back, and does not.
struct Mute {
    consumer: BaseConsumer,
}

impl Mute {
    fn join(members: &Members<'_>) -> Mute {
        Mute::join_as(members, None)
    }

    fn join_as(members: &Members<'_>, instance_id: Option<&str>) -> Mute {
        let mut config = members.broker.config();
        config.set("group.id", &members.topics.group).set("enable.auto.commit", "false");
        config.set("group.protocol", members.protocol);
        if let Some(id) = instance_id {
            config.set("group.instance.id", id);
        }
        if members.protocol == "classic" {
            config.set("partition.assignment.strategy", "range");
            config.set("session.timeout.ms", SESSION.as_millis().to_string());
        } else {
            config.set("group.remote.assignor", "range");
        }
        let consumer: BaseConsumer = config.create().unwrap();
        let topics = Input::ALL.map(|input| members.topics.input(input));
        consumer.subscribe(&topics).unwrap();
        wait_until(SOON, "the mute member to have partitions", || {
            drop(consumer.poll(Duration::from_millis(50)));
            consumer.assignment().unwrap().count() > 0
        });
        Mute { consumer }
    }
}

/// The group waits for a member that does not answer. Each process finds that
/// out by itself, says so in time, and is well once it is over.
fn a_standstill_is_told(protocol: &'static str, patience: Duration) {
    let broker = broker();
    // Three members have two each, so that each of two has to give one back.
    let mut members = Members::new(&broker, protocol, 6, 1);
    members.join();
    members.settle("the first", SOON);
    let clock = Stopwatch::start();
    let mute = Mute::join(&members);
    // Only who joins makes the group ask the mute one for what it has.
    members.join();
    let first = &members.running[0];
    let without = || first.metric("device_status_partitions_without_owner", "").unwrap_or(0.0);
    wait_until(SOON, "partitions to be without an owner", || without() > 0.0);
    let reason = wait_for(patience + SOON, "readiness to tell", || match first.get("/ready") {
        Ok((503, body)) if body.contains("have had no owner in the consumer group") => Ok(body),
        other => Err(format!("{other:?}")),
    });
    eprintln!("{protocol}: told after {:?}: {reason}", clock.elapsed());
    assert!(clock.elapsed() > patience, "told after {:?}", clock.elapsed());
    assert!(matches!(first.get("/live"), Ok((200, _))));
    drop(mute.consumer);
    members.settle("the mute one left", SOON);
    // The group is asked only every few seconds.
    let none_without = |first: &DeviceStatus| {
        first.metric("device_status_partitions_without_owner", "") == Some(0.0)
    };
    wait_until(SOON, "no partition to be without an owner", || none_without(&members.running[0]));
}

#[test]
fn a_group_that_stands_still_is_told_by_readiness_with_the_classic_protocol() {
    a_standstill_is_told("classic", SESSION + SOON);
}

/// With this protocol clients do not learn the brokers' session timeout.
#[test]
fn a_partition_that_is_not_given_back_is_told_by_readiness() {
    a_standstill_is_told("consumer", Duration::from_secs(45) + SOON);
}

/// With the consumer protocol librdkafka is refused for ever, and says nothing.
#[test]
fn whoever_comes_back_late_to_an_instance_id_that_another_has_ends() {
    let broker = broker();
    let members = Members::new(&broker, "consumer", 2, 1);
    let config = || members.config().set("kafka.instance_id", "host-1");
    let mut first = DeviceStatus::start_ready(&config().announce(INSTANCE_ID_TAKEN));
    // What it had asked for is late once it goes on.
    first.announce(KAFKA_AWAY);
    first.announce(&[REDIS_LOST]);
    first.pause();
    // Refused until the session of the first has ended.
    let second = DeviceStatus::start_ready(&config().announce(INSTANCE_ID_TAKEN));
    first.resume();
    let status = first.process.wait(SOON);
    assert_eq!(status.code(), Some(69), "{}", first.process.output());
    let words = first.process.wait_for_output(SOON, "has taken the instance id");
    assert!(words.contains("\"host-1-0\"") && words.contains("kafka.instance_id"), "{words}");
    pause(Duration::from_secs(2));
    assert!(matches!(second.get("/ready"), Ok((200, _))), "the successor is not disturbed");
}

/// A member that took the id and is gone again, as one whose joining was answered
/// by a broker that died: the id was this process's all along.
#[test]
fn whoever_lost_its_instance_id_to_a_member_that_is_gone_comes_back() {
    let broker = broker();
    let members = Members::new(&broker, "classic", 2, 1);
    let config = members.config().set("kafka.instance_id", "host-1");
    let mut first = DeviceStatus::start_ready(&config.announce(INSTANCE_ID_TAKEN));
    drop(Mute::join_as(&members, Some("host-1-0")));
    first.process.wait_for_output(SOON, "has the instance id");
    wait_for(SESSION + TAKEOVER, "the partitions to be back", || match shards(&first) {
        2.0 => Ok(()),
        other => Err(format!("{other}; {:?}", first.get("/ready"))),
    });
    first.wait_ready(SOON);
    assert!(first.terminate().success());
}
