//! Single faults, one a test, against a real Kafka and Redis.

use std::collections::HashMap;
use std::time::Duration;

use crate::support::events::{self, device_id};
use crate::support::kafka::{
    EventProducer, Isolation, KafkaBroker, RawRecord, Record, ServiceTopics,
};
use crate::support::log::{KAFKA_AWAY, LOST, REDIS_LOST};
use crate::support::process::free_port;
use crate::support::redis::{self, RedisServer};
use crate::support::service::{DeviceStatus, ServiceConfig};
use crate::support::wait::{now_ms, pause, wait_for};
use device_status::wire::proto::v1::{Status, StatusChanged};

const SOON: Duration = Duration::from_secs(30);

fn decode(records: &[Record]) -> Vec<StatusChanged> {
    records.iter().map(Record::decode).collect()
}

/// Versions of each device count up without gaps; repeats are for the caller.
#[track_caller]
fn assert_versions_without_gaps(changes: &[StatusChanged]) {
    let mut last: HashMap<&str, u64> = HashMap::new();
    for change in changes {
        let before = last.insert(&change.device_id, change.version).unwrap_or(0);
        assert_eq!(change.version, before + 1, "{change:?}");
    }
}

fn poll_all(producer: &EventProducer, topics: &ServiceTopics, devices: &[String], every: Duration) {
    let beats = devices.iter().map(|device| events::heartbeat_every(device, now_ms(), every));
    producer.send(topics, beats);
    producer.flush();
}

#[track_caller]
fn wait_status(redis: &RedisServer, device: &str, status: &str) {
    let mut connection = redis.connection();
    wait_for(SOON, &format!("{device} to be {status}"), || {
        let hash = redis::hash(&mut connection, &format!("ds:device:{device}"));
        if hash.get("status").is_some_and(|found| found == status) {
            Ok(())
        } else {
            Err(format!("{hash:?}"))
        }
    });
}

#[test]
fn a_process_stopped_for_longer_than_any_deadline_reads_before_it_judges() {
    let broker = KafkaBroker::shared();
    let redis = RedisServer::start();
    let topics = broker.service_topics("stopped", 2);
    let service =
        DeviceStatus::start_ready(&ServiceConfig::new(broker, &topics).redis(&redis.url()));
    let producer = broker.producer();
    let devices: Vec<String> = (0..20).map(device_id).collect();
    let every = Duration::from_secs(2);
    poll_all(&producer, &topics, &devices, every);
    wait_status(&redis, &devices[19], "online");

    // The group may take the partitions away, and requests run out of time.
    service.announce(KAFKA_AWAY);
    // A call that is interrupted costs the view its connection.
    service.announce(&[LOST, REDIS_LOST]);
    // Deadline 3 s and a grace of 1 s: everybody would be Offline by a clock
    // that went on while nothing was read.
    service.pause();
    for _ in 0..8 {
        pause(Duration::from_secs(1));
        poll_all(&producer, &topics, &devices, every);
    }
    service.resume();
    let mut reader = broker.reader(&topics.status_changes, Isolation::ReadCommitted);
    for _ in 0..5 {
        poll_all(&producer, &topics, &devices, every);
        reader.read_for(Duration::from_secs(1));
    }
    let changes = decode(&reader.records);
    assert_versions_without_gaps(&changes);
    assert_eq!(changes.len(), devices.len(), "{changes:#?}");
    assert!(changes.iter().all(|change| change.status() == Status::Online));
}

#[test]
fn a_changelog_record_that_cannot_be_read_stops_its_shard_and_no_other() {
    let broker = KafkaBroker::shared();
    let redis = RedisServer::start();
    let topics = broker.service_topics("corrupted", 3);
    let config = ServiceConfig::new(broker, &topics).redis(&redis.url());
    let producer = broker.producer();
    producer.send_raw(&RawRecord {
        topic: &topics.changelog,
        partition: Some(1),
        key: Some(b"d/some-device"),
        value: Some(b"\xff\xff\xff"),
        ..RawRecord::default()
    });
    producer.flush();
    let service = DeviceStatus::start(&config.announce(&["stays stopped"]));
    wait_for(SOON, "two shards to run", || {
        match service.metric("device_status_shards", "running") {
            Some(2.0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let (status, body) = service.get("/ready").unwrap();
    assert_eq!(status, 503, "{body}");
    let words = service.process.wait_for_output(SOON, "stays stopped");
    assert!(words.contains("partition=1") && words.contains("offset 0"), "{words}");

    // The other shards work.
    let home = |device: &str| device_status::wire::murmur2::partition_of(device.as_bytes(), 3);
    let devices: Vec<String> = (0..20).map(device_id).filter(|d| home(d) != 1).collect();
    poll_all(&producer, &topics, &devices, Duration::from_secs(600));
    for device in &devices {
        wait_status(&redis, device, "online");
    }
}

#[test]
fn a_broker_that_is_away_expires_nobody_and_is_told_by_readiness() {
    let broker = KafkaBroker::start();
    let redis = RedisServer::start();
    let topics = broker.service_topics("away", 2);
    let service =
        DeviceStatus::start_ready(&ServiceConfig::new(&broker, &topics).redis(&redis.url()));
    let producer = broker.producer();
    let devices: Vec<String> = (0..10).map(device_id).collect();
    let every = Duration::from_secs(8);
    poll_all(&producer, &topics, &devices, every);
    wait_status(&redis, &devices[9], "online");

    service.announce(KAFKA_AWAY);
    broker.stop();
    wait_for(SOON, "readiness to tell of Kafka", || match service.get("/ready") {
        Ok((503, body)) if body.contains("Kafka") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // Past the deadline of 12 s and the grace: what they said meanwhile is not
    // known, so nothing may be said of them.
    pause(Duration::from_secs(10));
    let mut connection = redis.connection();
    for device in &devices {
        let hash = redis::hash(&mut connection, &format!("ds:device:{device}"));
        assert_eq!(hash.get("status").map(String::as_str), Some("online"));
    }
    broker.restart();
    poll_all(&producer, &topics, &devices, every);
    wait_for(SOON, "readiness to come back", || match service.get("/ready") {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    drop(service);
}

#[test]
fn at_least_once_loses_nothing_and_may_repeat_after_a_kill() {
    let broker = KafkaBroker::shared();
    let redis = RedisServer::start();
    let topics = broker.service_topics("at-least-once", 2);
    let config = ServiceConfig::new(broker, &topics)
        .redis(&redis.url())
        .set("processing.guarantee", "at_least_once");
    let mut service = DeviceStatus::start_ready(&config);
    let producer = broker.producer();
    let devices: Vec<String> = (0..40).map(device_id).collect();
    for round in 0..20 {
        let step = |device: &String| events::toggled(device, now_ms(), "vpn-1", round);
        producer.send(&topics, devices.iter().map(step));
        producer.flush();
        pause(Duration::from_millis(200));
        if round % 7 == 6 {
            service.kill();
            service = DeviceStatus::start(&config);
        }
    }
    for device in &devices {
        wait_status(&redis, device, "offline");
        let mut connection = redis.connection();
        wait_for(SOON, "the last version", || {
            let hash = redis::hash(&mut connection, &format!("ds:device:{device}"));
            if hash.get("version").is_some_and(|v| v == "20") {
                Ok(())
            } else {
                Err(format!("{hash:?}"))
            }
        });
    }
    let mut reader = broker.reader(&topics.status_changes, Isolation::ReadCommitted);
    let changes = decode(reader.read_for(Duration::from_secs(2)));
    for device in &devices {
        // Repeats are the same change again: the versions seen have no gap.
        let mut versions: Vec<u64> =
            changes.iter().filter(|c| c.device_id == *device).map(|c| c.version).collect();
        versions.sort_unstable();
        versions.dedup();
        assert_eq!(versions, (1..=20).collect::<Vec<_>>(), "{device}");
    }
}

#[test]
fn with_the_classic_protocol_a_second_member_costs_no_change() {
    let broker = KafkaBroker::shared();
    let redis = RedisServer::start();
    let topics = broker.service_topics("classic", 4);
    let config = || {
        ServiceConfig::new(broker, &topics)
            .redis(&redis.url())
            .set("kafka.group_protocol", "classic")
            .set("admin.listen", format!("127.0.0.1:{}", free_port()))
    };
    let first = DeviceStatus::start_ready(&config());
    let producer = broker.producer();
    let devices: Vec<String> = (0..40).map(device_id).collect();
    let mut second = None;
    for round in 0..40 {
        let step = |device: &String| events::toggled(device, now_ms(), "vpn-1", round);
        producer.send(&topics, devices.iter().map(step));
        producer.flush();
        pause(Duration::from_millis(250));
        if round == 10 {
            second = Some(DeviceStatus::start(&config()));
        }
        if round == 28
            && let Some(mut leaver) = second.take()
        {
            assert!(leaver.terminate().success());
        }
    }
    let mut reader = broker.reader(&topics.status_changes, Isolation::ReadCommitted);
    let changes = decode(reader.read_count(Duration::from_secs(60), devices.len() * 40));
    assert_versions_without_gaps(&changes);
    let words = first.process.output();
    assert!(words.contains("shard resumed without a restore"), "{words}");
}

#[test]
fn a_group_whose_offsets_are_gone_makes_nobody_offline_who_polled() {
    let broker = KafkaBroker::shared();
    let redis = RedisServer::start();
    let topics = broker.service_topics("offsets-gone", 2);
    let config = ServiceConfig::new(broker, &topics).redis(&redis.url());
    let mut service = DeviceStatus::start_ready(&config);
    let producer = broker.producer();
    let devices: Vec<String> = (0..20).map(device_id).collect();
    // Deadline 9 s and a grace of 1 s; heartbeats alone are not in the changelog.
    let every = Duration::from_secs(6);
    for _ in 0..5 {
        poll_all(&producer, &topics, &devices, every);
        pause(Duration::from_secs(3));
    }
    assert!(service.terminate().success());
    broker.delete_group(&topics.group);

    let gone = "committed offsets or their metadata are gone";
    let service = DeviceStatus::start(&config.announce(&[gone]));
    let mut reader = broker.reader(&topics.status_changes, Isolation::ReadCommitted);
    for _ in 0..5 {
        poll_all(&producer, &topics, &devices, every);
        reader.read_for(Duration::from_secs(2));
    }
    let words = service.process.output();
    assert!(words.contains(gone), "{words}");
    let changes = decode(&reader.records);
    assert_versions_without_gaps(&changes);
    assert_eq!(changes.len(), devices.len(), "{changes:#?}");
}

#[test]
fn inputs_that_no_longer_have_what_was_to_be_read_next_are_read_from_their_start() {
    let broker = KafkaBroker::shared();
    let redis = RedisServer::start();
    let topics = broker.service_topics("retention", 2);
    let config = ServiceConfig::new(broker, &topics).redis(&redis.url());
    let producer = broker.producer();
    let every = Duration::from_secs(3_600);
    let devices = |range: std::ops::Range<u64>| range.map(device_id).collect::<Vec<_>>();
    let mut service = DeviceStatus::start_ready(&config);
    poll_all(&producer, &topics, &devices(0..20), every);
    for device in devices(0..20) {
        wait_status(&redis, &device, "online");
    }
    let heartbeats = &topics.heartbeats;
    let made_anew = || broker.make_anew(heartbeats, 2);
    let deleted = || broker.delete_records(heartbeats);
    // Kafka forgets the offsets of a topic that is deleted.
    let faults: [(&dyn Fn(), _, u64); 2] = [
        (&deleted, "offset out of range: the committed offset is not in the log any more", 20),
        (&made_anew, "no committed offset for this input, though the others have one", 40),
    ];
    for (fault, expected, next) in faults {
        assert!(service.terminate().success());
        // Unread, and not to be read any more.
        poll_all(&producer, &topics, &devices(next + 10..next + 20), every);
        fault();
        poll_all(&producer, &topics, &devices(next..next + 10), every);
        let gone = "committed offsets or their metadata are gone";
        service = DeviceStatus::start_ready(&config.clone().announce(&[expected, gone]));
        for device in devices(next..next + 10) {
            wait_status(&redis, &device, "online");
        }
        let lost = service.metric("device_status_offsets_lost_total", "heartbeats");
        let words = service.process.output();
        assert_eq!(lost, Some(2.0), "one a partition: {words}");
        assert!(words.contains(expected), "{words}");
    }
    assert!(service.terminate().success());
    let changes = decode(&broker.read_committed(&topics.status_changes, SOON));
    assert_versions_without_gaps(&changes);
    let changed: Vec<_> = changes.iter().map(|change| change.device_id.clone()).collect();
    assert_eq!(changed.len(), 40, "{changes:#?}");
    assert!(changes.iter().all(|change| change.status() == Status::Online), "{changes:#?}");
}

#[test]
fn records_that_are_deleted_before_they_are_read_are_told_and_reading_goes_on() {
    let broker = KafkaBroker::shared();
    let redis = RedisServer::start();
    let topics = broker.service_topics("deleted-unread", 1);
    let told = ["records were deleted before they were read", "offset reset", REDIS_LOST];
    let config = ServiceConfig::new(broker, &topics).redis(&redis.url()).announce(&told);
    let service = DeviceStatus::start_ready(&config);
    let producer = broker.producer();
    let poll = |devices: std::ops::Range<u64>, every| {
        poll_all(&producer, &topics, &devices.map(device_id).collect::<Vec<_>>(), every);
    };
    let hour = Duration::from_secs(3_600);
    poll(0..10, hour);
    wait_status(&redis, &device_id(9), "online");
    let lost = || service.metric("device_status_offsets_lost_total", "heartbeats");
    assert_eq!(lost(), Some(0.0));

    service.pause();
    // The fetch under way is answered, and none follows it.
    poll(10..11, hour);
    pause(Duration::from_secs(2));
    poll(20..30, hour);
    broker.delete_records(&topics.heartbeats);
    // Its deadline comes by the clock alone, which has to go on.
    poll(30..31, Duration::from_secs(1));
    service.resume();
    wait_status(&redis, &device_id(10), "online");
    wait_status(&redis, &device_id(30), "offline");
    wait_for(SOON, "the loss to be counted", || match lost() {
        Some(1.0) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let words = service.process.output();
    assert!(words.contains("records were deleted before they were read"), "{words}");

    // Everything is deleted unread, and nothing follows.
    service.pause();
    poll(11..12, hour);
    pause(Duration::from_secs(2));
    poll(40..50, hour);
    broker.delete_records(&topics.heartbeats);
    service.resume();
    wait_for(SOON, "the second loss to be counted", || match lost() {
        Some(2.0) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    poll(31..32, Duration::from_secs(1));
    wait_status(&redis, &device_id(31), "offline");
    assert_eq!(lost(), Some(2.0));
    let changes = decode(&broker.read_committed(&topics.status_changes, SOON));
    assert_versions_without_gaps(&changes);
    let unread = (20..30).chain(40..50).map(device_id).collect::<Vec<_>>();
    assert!(changes.iter().all(|change| !unread.contains(&change.device_id)), "{changes:#?}");
}

#[test]
fn heartbeats_that_are_kept_for_less_than_the_replay_window_refuse_the_start() {
    let broker = KafkaBroker::shared();
    let topics = broker.service_topics("short", 2);
    let short = broker.unique("short-heartbeats");
    let settings = [("message.timestamp.type", "LogAppendTime"), ("retention.ms", "600000")];
    broker.create_topic(&short, 2, &settings);
    let config = ServiceConfig::new(broker, &topics).set("topics.heartbeats", short.as_str());
    let mut service = DeviceStatus::start(&config);
    assert_eq!(service.process.wait(SOON).code(), Some(69));
    let words = service.process.output();
    let names = [short.as_str(), "600000 ms", "processing.replay_window", "retention.ms=604800000"];
    assert!(names.iter().all(|name| words.contains(name)), "{words}");

    // A shorter window is the other remedy.
    let mut service = DeviceStatus::start(&config.set("processing.replay_window", "5m"));
    service.process.wait_for_output(SOON, "shard running");
    assert!(service.terminate().success());
}

#[test]
fn a_rebalance_in_the_middle_of_restores_is_clean() {
    let broker = KafkaBroker::shared();
    let redis = RedisServer::start();
    let topics = broker.service_topics("mid-restore", 4);
    let config = || {
        ServiceConfig::new(broker, &topics)
            .redis(&redis.url())
            .set("admin.listen", format!("127.0.0.1:{}", free_port()))
    };
    // Reads little at a time and naps in between: a restore takes many seconds.
    let slow = || {
        config()
            .set("kafka.properties.fetch.message.max.bytes", 1_000)
            .set("kafka.properties.queued.max.messages.kbytes", 1)
            .set("kafka.properties.fetch.queue.backoff.ms", 100)
    };
    let mut service = DeviceStatus::start_ready(&config());
    let producer = broker.producer();
    let devices: Vec<String> = (0..100).map(device_id).collect();
    let mut reader = broker.reader(&topics.status_changes, Isolation::ReadCommitted);
    // Committed in many small transactions, which are so many batches to read.
    for round in 0..30 {
        let step = |device: &String| events::toggled(device, now_ms(), "vpn-1", round);
        producer.send(&topics, devices.iter().map(step));
        producer.flush();
        reader.read_count(SOON, devices.len() * (usize::try_from(round).unwrap() + 1));
    }
    assert!(service.terminate().success());

    let first = DeviceStatus::start(&slow());
    first.process.wait_for_output(SOON, "assigned partitions");
    let mut second = DeviceStatus::start(&slow());
    first.process.wait_for_output(SOON, "revoked partitions=");
    let words = first.process.output();
    let before = words.split("revoked partitions=").next().unwrap();
    assert!(!before.contains("shard running"), "the restore was over too soon: {words}");
    second.process.wait_for_output(SOON, "assigned partitions");
    // Away with it again, before any of its restores is complete.
    assert!(second.terminate().success());
    assert!(!second.process.output().contains("shard running"));

    for round in 30..34 {
        let step = |device: &String| events::toggled(device, now_ms(), "vpn-1", round);
        producer.send(&topics, devices.iter().map(step));
    }
    producer.flush();
    let changes = decode(reader.read_count(Duration::from_secs(120), devices.len() * 34));
    assert_versions_without_gaps(&changes);
    for device in &devices {
        redis.wait_for_fields(device, SOON, &[("version", "34"), ("status", "offline")]);
    }
    drop(first);
}
