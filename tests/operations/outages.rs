//! Parts of Kafka that are away for long while others are there, and disks that
//! fill up, against real brokers.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::assert_each_change_once;
use crate::support::events::{self, device_id};
use crate::support::kafka::{EventProducer, Isolation, KafkaBroker, ServiceTopics};
use crate::support::log::{KAFKA_AWAY, LOST};
use crate::support::redis::RedisServer;
use crate::support::service::{DeviceStatus, ServiceConfig, run};
use crate::support::wait::{Stopwatch, now_ms, pause, wait_for};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::Producer as _;

const SOON: Duration = Duration::from_secs(30);
const CHANGES_WITHIN: Duration = Duration::from_secs(120);

/// Every device takes some steps, each of which is a change.
fn steps(
    producer: &EventProducer,
    topics: &ServiceTopics,
    devices: &[String],
    rounds: std::ops::Range<u64>,
) {
    for round in rounds {
        let step = |device: &String| events::toggled(device, now_ms(), "vpn-1", round);
        producer.send(topics, devices.iter().map(step));
        producer.producer.poll(Duration::ZERO);
    }
}

#[track_caller]
fn wait_unready(service: &DeviceStatus, word: &str) {
    wait_for(SOON, &format!("readiness to tell of {word}"), || match service.get("/ready") {
        Ok((503, body)) if body.contains(word) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// Waits until the service has taken in nothing more for some seconds; answers
/// how many records it has, and its memory in megabytes.
fn wait_until_it_stands(service: &DeviceStatus) -> (f64, f64) {
    let mut applied = -1.0;
    let mut since = Stopwatch::start();
    wait_for(Duration::from_secs(60), "the service to take in nothing more", || {
        let now = service.metric("device_status_records_total", "applied").unwrap_or(0.0);
        if (now - applied).abs() > 0.5 {
            applied = now;
            since = Stopwatch::start();
        }
        if since.elapsed() > Duration::from_secs(4) { Ok(()) } else { Err(applied) }
    });
    (applied, service.metric("process_resident_memory_bytes", "").unwrap() / 1e6)
}

#[test]
fn coordinators_that_are_away_for_long_stop_the_reading_and_lose_nothing() {
    let coordinator = KafkaBroker::start();
    let redis = RedisServer::start();
    // The first node has the coordinators of groups and transactions, since it is
    // alone when those are first needed; the second node has the data.
    coordinator.transactional_producer("first");
    let mut config = coordinator.config();
    config.set("group.id", "first");
    let member: BaseConsumer = config.create().unwrap();
    wait_for(SOON, "a group coordinator", || {
        let nothing = rdkafka::TopicPartitionList::new();
        member.committed_offsets(nothing, Duration::from_secs(1)).map(|_| ())
    });
    let broker = coordinator.second_node();
    let topics = broker.service_topics("coordinators", 2);
    let config = ServiceConfig::new(&broker, &topics)
        .redis(&redis.url())
        .set("kafka.brokers", format!("{},{}", coordinator.address(), broker.address()))
        // Little is fetched ahead, so that what the loop holds back is seen.
        .set("kafka.properties.queued.max.messages.kbytes", "1024")
        .set("log.level", "info");
    let service = DeviceStatus::start_ready(&config);
    let producer = broker.producer();
    let devices: Vec<String> = (0..1_000).map(device_id).collect();
    steps(&producer, &topics, &devices, 0..2);
    producer.flush();
    let mut reader = broker.reader(&topics.status_changes, Isolation::ReadCommitted);
    reader.read_count(SOON, 2_000);

    service.announce(KAFKA_AWAY);
    service.announce(&[LOST]);
    coordinator.pause();
    let away = Stopwatch::start();
    let lines = service.process.output().lines().count();
    steps(&producer, &topics, &devices, 2..252);
    producer.flush();
    wait_unready(&service, "Kafka");
    let (applied, held) = wait_until_it_stands(&service);
    assert!(applied < 240_000.0, "{applied} records were applied, uncommitted");
    // As much again: it stays where it is.
    steps(&producer, &topics, &devices, 252..402);
    producer.flush();
    let (still_applied, still_held) = wait_until_it_stands(&service);
    eprintln!("{applied} records, {held} MB; then {still_applied} records, {still_held} MB");
    assert!(still_applied - applied < 10_000.0, "{applied}, then {still_applied} records");
    assert!(still_held - held < 30.0, "{held} MB, then {still_held} MB");
    pause(Duration::from_secs(45).saturating_sub(away.elapsed()));
    wait_unready(&service, "Kafka");
    let said = service.process.output().lines().count() - lines;
    assert!(said < 60, "{said} lines in {:?}:\n{}", away.elapsed(), service.process.output());
    coordinator.resume();

    wait_for(Duration::from_secs(60), "readiness to come back", || match service.get("/ready") {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_each_change_once(CHANGES_WITHIN, &broker, &topics, &devices, 402);
}

#[test]
fn questions_that_wait_for_a_coordinator_that_is_away_are_answered_when_it_is_back() {
    let broker = KafkaBroker::start();
    let topics = broker.service_topics("questions", 1);
    // An open transaction on the group's offsets: where to start reading is not
    // known, and is asked again and again, until the broker gives it up.
    let holder = broker.transactional_producer("holder");
    let mut config = broker.config();
    config.set("group.id", topics.group.as_str());
    let member: BaseConsumer = config.create().unwrap();
    let mut offsets = rdkafka::TopicPartitionList::new();
    let start = rdkafka::Offset::Offset(0);
    offsets.add_partition_offset(&topics.heartbeats, 0, start).unwrap();
    holder.producer.begin_transaction().unwrap();
    let metadata = member.group_metadata().unwrap();
    holder.producer.send_offsets_to_transaction(&offsets, &metadata, SOON).unwrap();

    let redis = RedisServer::start();
    let config = ServiceConfig::new(&broker, &topics).redis(&redis.url());
    let mut service = DeviceStatus::start(&config.announce(KAFKA_AWAY));
    service.process.wait_for_output(SOON, "cannot resolve the start offsets");
    broker.kill();
    // Longer than any question may take.
    pause(Duration::from_secs(14));
    broker.restart();
    holder.producer.abort_transaction(SOON).unwrap();
    service.wait_ready(Duration::from_secs(60));
}

#[test]
fn a_transaction_that_hangs_on_an_input_is_told_until_it_ends() {
    let broker = KafkaBroker::shared();
    let topics = broker.service_topics("hanging", 1);
    let redis = RedisServer::start();
    let config = ServiceConfig::new(broker, &topics)
        .redis(&redis.url())
        .announce(&["a producer's transaction is open on this input"]);
    let mut service = DeviceStatus::start_ready(&config);
    let gauge = |service: &DeviceStatus| {
        let labels = "input=\"lifecycle\",partition=\"0\"";
        service.metric("device_status_open_transaction_seconds", labels).unwrap_or_default()
    };
    let [device, known] = [1, 2].map(device_id);
    let producer = broker.producer();
    producer.send(&topics, [events::registered(&known, now_ms(), "blue", "acme")]);
    producer.flush();
    redis.wait_for_fields(&known, SOON, &[("fleet", "blue")]);
    let noted = || {
        let output = run(&config, &["explain", &known, "--json"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_str::<serde_json::Value>(&said).unwrap()["notes"].to_string()
    };
    let holder = broker.transactional_producer(&topics.group);
    holder.producer.begin_transaction().unwrap();
    holder.send(&topics, [events::registered(&device, now_ms(), "red", "acme")]);
    holder.flush();
    wait_for(SOON, "the gauge to tell", || match gauge(&service) {
        age if age > 1.0 => Ok(()),
        age => Err(age),
    });
    for word in ["open on lifecycle[0] at least since 20", "offset 1", "find-hanging"] {
        wait_unready(&service, word);
    }
    let notes = noted();
    for word in ["open on lifecycle, partition 0, at least since 20", "offset 1", "find-hanging"] {
        assert!(notes.contains(word), "{notes}");
    }
    assert!(gauge(&service) >= 10.0);
    assert!(redis.fields(&device).is_empty());
    holder.producer.commit_transaction(SOON).unwrap();
    redis.wait_for_fields(&device, SOON, &[("fleet", "red")]);
    assert!(!noted().contains("transaction"), "{}", noted());
    service.wait_ready(SOON);
    wait_for(SOON, "the gauge to fall", || match gauge(&service) {
        age if age < 0.5 => Ok(()),
        age => Err(age),
    });
    service.terminate();
}

/// What happened while the brokers were away is told then, and not once more by
/// each client when they are back.
#[test]
fn a_broker_that_comes_back_is_followed_by_no_errors_about_the_past() {
    let broker = KafkaBroker::start();
    let topics = broker.service_topics("back", 4);
    let redis = RedisServer::start();
    let config = ServiceConfig::new(&broker, &topics)
        .redis(&redis.url())
        .set("processing.threads", 2)
        .announce(KAFKA_AWAY);
    let mut service = DeviceStatus::start_ready(&config);
    let producer = broker.producer();
    let devices: Vec<String> = (0..50).map(device_id).collect();
    steps(&producer, &topics, &devices, 0..4);
    producer.flush();
    broker.kill();
    wait_unready(&service, "Kafka");
    pause(Duration::from_secs(20));
    broker.restart();
    let before = service.process.output().lines().count();
    service.wait_ready(Duration::from_secs(60));
    pause(Duration::from_secs(5));
    let output = service.process.output();
    let after: Vec<&str> = output.lines().skip(before).collect();
    // What is refused while the broker comes up is told as it happens.
    let past = |line: &&&str| line.contains(" ERROR ") && !line.contains("facility=FAIL");
    let errors: Vec<_> = after.iter().filter(past).collect();
    assert!(errors.len() <= 1, "{errors:#?}");
    let foreign = after.iter().find(|line| line.contains(" rdkafka::"));
    assert_eq!(foreign, None);
    service.terminate();
}

/// A disk of its own, so that it can fill up.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where mounting is not permitted.
    fn mount(size: &str) -> Option<SmallDisk> {
        let directory = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(directory.path());
        mount.output().is_ok_and(|out| out.status.success()).then(|| SmallDisk(directory))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the room there is, until the answer is removed.
    fn fill(&self) -> std::path::PathBuf {
        let path = self.path().join("ballast");
        let mut file = std::fs::File::create(&path).unwrap();
        let block = vec![1; 64 << 10];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

#[test]
fn a_broker_whose_disk_is_full_costs_no_change() {
    let Some(disk) = SmallDisk::mount("96m") else {
        eprintln!("skipped: mounting a small disk is not permitted here");
        return;
    };
    let broker = KafkaBroker::start_on(&disk.path().join("data"));
    let redis = RedisServer::start();
    let topics = broker.service_topics("disk-full", 2);
    let config = ServiceConfig::new(&broker, &topics).redis(&redis.url());
    let service = DeviceStatus::start_ready(&config);
    let producer = broker.producer();
    let devices: Vec<String> = (0..100).map(device_id).collect();
    steps(&producer, &topics, &devices, 0..10);
    producer.flush();

    service.announce(KAFKA_AWAY);
    let ballast = disk.fill();
    // Whatever of these the broker does not take, their producer sends again.
    steps(&producer, &topics, &devices, 10..20);
    broker.wait_for_its_end(SOON);
    wait_unready(&service, "Kafka");
    std::fs::remove_file(ballast).unwrap();
    broker.restart();
    producer.flush();
    steps(&producer, &topics, &devices, 20..30);
    producer.flush();
    wait_for(SOON, "readiness to come back", || match service.get("/ready") {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_each_change_once(CHANGES_WITHIN, &broker, &topics, &devices, 30);
    drop(service);
}

#[test]
fn a_cluster_that_is_not_in_service_yet_is_waited_for() {
    // The only broker is taken out of service again and again: its controller
    // hears too seldom of it.
    let rarely = [("broker.session.timeout.ms", "2000"), ("broker.heartbeat.interval.ms", "7000")];
    let broker = KafkaBroker::start_with(&rarely);
    let topics = ServiceTopics::named(&broker.unique("in-service"), 2);
    let config = ServiceConfig::new(&broker, &topics);
    for arguments in [["topics", "create"], ["topics", "check"]] {
        wait_for(SOON, "no broker to be in service", || {
            // A client that hears of no broker forgets those that it knew, and
            // may have none to ask from then on: each asks once.
            let observer: BaseConsumer = broker.config().create().unwrap();
            let metadata = observer.fetch_metadata(None, Duration::from_secs(5));
            let metadata = metadata.map_err(|error| error.to_string())?;
            if metadata.brokers().is_empty() { Ok(()) } else { Err("there is one".to_owned()) }
        });
        let output = run(&config, &arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }
}
