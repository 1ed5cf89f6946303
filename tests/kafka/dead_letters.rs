//! JSON inputs, changes as CloudEvents, and what is done about dead letters,
//! with the built binary and a real Kafka.

use std::time::Duration;

use crate::support::events::{self, device_id};
use crate::support::kafka::{
    EventProducer, Isolation, KafkaBroker, RawRecord, Record, ServiceTopics, TopicReader,
};
use crate::support::redis::RedisServer;
use crate::support::service::{DeviceStatus, ServiceConfig, run};
use crate::support::wait::{now_ms, wait_for};
use device_status::wire::murmur2::partition_of;
use device_status::wire::proto::v1::{Heartbeat, Status, StatusChanged};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);
const PARTITIONS: i32 = 3;
const GOOD: &[u8] = br#"{"pollInterval":"900s"}"#;
const SLIP: &[u8] = br#"{"poll_intervall":"900s"}"#;

fn home_of(device: &str) -> i32 {
    partition_of(device.as_bytes(), PARTITIONS)
}

fn send(producer: &EventProducer, topic: &str, device: &str, partition: i32, value: Option<&[u8]>) {
    producer.send_raw(&RawRecord {
        topic,
        partition: Some(partition),
        key: Some(device.as_bytes()),
        value,
        headers: &[("trace", b"abc")],
        ..RawRecord::default()
    });
    producer.flush();
}

/// Reads on until a device has changed, and returns that change.
#[track_caller]
fn change_of(changes: &mut TopicReader, device: &str) -> (StatusChanged, Vec<(String, String)>) {
    let is_its = |record: &&Record| record.key_text() == device;
    let records =
        changes.read_until(SOON, "a change", |records| records.iter().any(|r| is_its(&r)));
    let record = records.iter().find(is_its).unwrap();
    let headers = record
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), String::from_utf8(value.clone().unwrap()).unwrap()));
    (record.decode(), headers.collect())
}

#[track_caller]
fn told(config: &ServiceConfig, arguments: &[&str]) -> String {
    let output = run(config, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn told_json(config: &ServiceConfig, arguments: &[&str]) -> Value {
    serde_json::from_str(&told(config, &[arguments, &["--json"]].concat())).unwrap()
}

#[track_caller]
fn told_lines(config: &ServiceConfig, arguments: &[&str]) -> Vec<Value> {
    let text = told(config, arguments);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[track_caller]
fn listed(config: &ServiceConfig, filter: &[&str]) -> Vec<Value> {
    let rows = told_json(config, &[&["dead-letters", "list"], filter].concat());
    rows.as_array().unwrap().clone()
}

fn column(rows: &[Value], name: &str) -> Vec<String> {
    rows.iter().map(|row| row[name].as_str().unwrap_or("-").to_owned()).collect()
}

#[test]
fn a_json_fleet_has_statuses_and_its_dead_letters_are_read_and_sent_back() {
    let broker = KafkaBroker::shared();
    let redis = RedisServer::start();
    let topics = broker.service_topics("letters", PARTITIONS);
    let config = ServiceConfig::new(broker, &topics)
        .redis(&redis.url())
        .set("log.level", "warn")
        .set("formats.heartbeats", "json")
        .set("formats.cloud_events_source", "//fleet.example/test");
    let service = DeviceStatus::start_ready(&config);
    service.announce(&["becomes a dead letter"]);
    let producer = broker.producer();
    let mut changes = broker.reader(&topics.status_changes, Isolation::ReadCommitted);
    let [good, slip, lost, silent] = [1, 2, 3, 4].map(device_id);
    assert_eq!(told(&config, &["dead-letters", "list"]), "no dead letters\n");

    send(&producer, &topics.heartbeats, &good, home_of(&good), Some(GOOD));
    let (change, headers) = change_of(&mut changes, &good);
    assert_eq!(change.status(), Status::Online);
    let header = |name: &str| headers.iter().find(|(found, _)| found == name).unwrap().1.as_str();
    assert_eq!(header("ce_id"), format!("{good}:1"));
    assert_eq!(header("ce_source"), "//fleet.example/test");
    assert_eq!(header("ce_type"), "device_status.v1.StatusChanged");
    assert_eq!(header("ce_time"), change.since.unwrap().to_string());
    assert_eq!(header("content-type"), "application/protobuf");

    send(&producer, &topics.heartbeats, &slip, home_of(&slip), Some(SLIP));
    let elsewhere = (home_of(&lost) + 1) % PARTITIONS;
    send(&producer, &topics.heartbeats, &lost, elsewhere, Some(GOOD));
    send(&producer, &topics.heartbeats, &silent, home_of(&silent), None);
    let mut letters = broker.reader(&topics.dead_letters, Isolation::ReadCommitted);
    letters.read_count(SOON, 3);

    let all = listed(&config, &[]);
    let mut reasons = column(&all, "reason");
    reasons.sort();
    assert_eq!(reasons, ["undecodable", "unexpected_tombstone", "wrong_partition"]);
    assert_eq!(listed(&config, &["--limit", "1"]), all[2..]);
    assert_eq!(listed(&config, &["--since", "1h", "--topic", &topics.heartbeats]), all);
    assert_eq!(listed(&config, &["--topic", &topics.lifecycle]), [0; 0]);
    assert_eq!(listed(&config, &["--since", "2100-01-01T00:00:00Z"]), [0; 0]);
    let misplaced = listed(&config, &["--reason", "wrong_partition"]);
    assert_eq!(column(&misplaced, "key"), [lost.as_str()]);
    let undecodable = listed(&config, &["--reason", "undecodable"]);
    assert!(column(&undecodable, "message")[0].contains("poll_intervall"), "{undecodable:?}");
    let text = told(&config, &["dead-letters", "list", "--limit", "2"]);
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.contains("and 1 before them: say --limit 3"), "{text}");

    let position = column(&misplaced, "position").remove(0);
    let shown = told_json(&config, &["dead-letters", "show", &position]);
    assert_eq!(shown["partition"], elsewhere);
    assert_eq!(shown["value"]["pollInterval"], "900s");
    assert_eq!(shown["headers"][0]["name"], "trace");
    let slip_position = column(&undecodable, "position").remove(0);
    let text = told(&config, &["dead-letters", "show", &slip_position]);
    for line in ["reason      undecodable: ", "header      trace: abc", "7b 22 70 6f 6c 6c", &slip]
    {
        assert!(text.contains(line), "{text}\nlacks {line}");
    }
    assert_eq!(run(&config, &["dead-letters", "show", "0:99999"]).status.code(), Some(1));
    assert_eq!(run(&config, &["dead-letters", "replay"]).status.code(), Some(2));
    // Nobody is there to be asked.
    assert_eq!(run(&config, &["dead-letters", "replay", &position]).status.code(), Some(2));

    // By its key it comes to the right partition, and so to a status.
    let replayed = told_json(&config, &["dead-letters", "replay", &position, "--yes"]);
    assert_eq!(replayed["replayed"][0], position.as_str());
    let (change, _) = change_of(&mut changes, &lost);
    assert_eq!((change.status(), change.version), (Status::Online, 1));
    // It had no time of its own, and has that of the record that was refused.
    assert_eq!(change.since.unwrap().to_string(), misplaced[0]["timestamp"]);
    let place = format!("{}/{}", topics.dead_letters, position.replace(':', "/"));
    let records = broker.read_uncommitted(&topics.heartbeats, SOON);
    let sent = records.iter().find(|r| r.header("device_status.replayed").is_some()).unwrap();
    assert_eq!(sent.header("device_status.replayed"), Some(place));
    assert_eq!((sent.key_text(), sent.partition), (lost.clone(), home_of(&lost)));
    let heartbeat: Heartbeat =
        device_status::wire::json::read(sent.value.as_deref().unwrap()).unwrap();
    assert_eq!(heartbeat.poll_interval.unwrap().seconds, 900);
    assert_eq!(heartbeat.occurred_at.unwrap().to_string(), misplaced[0]["timestamp"]);
    assert_eq!(sent.header("trace").as_deref(), Some("abc"));
    assert_eq!(sent.header("__streams.errors.reason"), None);

    // What is still wrong is not sent unless it is meant.
    let replay = ["dead-letters", "replay", "--reason", "undecodable", "--yes"];
    let refused = run(&config, &replay);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let text = String::from_utf8(refused.stdout).unwrap();
    for piece in [&slip_position, "it is still wrong (undecodable: ", "0 records sent back"] {
        assert!(text.contains(piece), "{text}\nlacks {piece}");
    }
    // It comes back, and tells that it was tried.
    let text = told(&config, &[&replay[..], &["--force"]].concat());
    assert_eq!(text, "1 record sent back\n");
    letters.read_count(SOON, 4);
    let again = listed(&config, &["--reason", "undecodable"]);
    let tried = column(&again, "replayed");
    assert_eq!(tried[0], "-");
    assert_eq!(tried[1], format!("{}/{}", topics.dead_letters, slip_position.replace(':', "/")));
    drop(service);
}

#[test]
fn changes_are_written_in_json_after_a_switch_and_history_shows_both() {
    let broker = KafkaBroker::shared();
    let topics = broker.service_topics("json-changes", 1);
    let redis = RedisServer::start();
    let protobuf = ServiceConfig::new(broker, &topics).redis(&redis.url()).set("log.level", "warn");
    let json = protobuf.clone().set("formats.status_changes", "json");
    let cloud_events = json.clone().set("formats.cloud_events_source", "//fleet.example/test");
    let producer = broker.producer();
    let mut changes = broker.reader(&topics.status_changes, Isolation::ReadCommitted);
    let device = device_id(7);
    let mut records = Vec::new();
    // Each moves the device to another fleet, which is one change.
    for (config, fleet) in [(&protobuf, "one"), (&json, "two"), (&cloud_events, "three")] {
        let mut service = DeviceStatus::start_ready(config);
        producer.send(&topics, [events::registered(&device, now_ms(), fleet, "")]);
        producer.flush();
        let count = records.len() + 1;
        records.push(changes.read_count(SOON, count)[count - 1].clone());
        assert!(service.terminate().success());
    }
    let [before, plain, event] = &records[..] else { panic!() };
    assert_eq!(before.decode::<StatusChanged>().fleet, "one");
    assert_eq!(before.headers, []);

    let value = |record: &Record| -> Value {
        serde_json::from_slice(record.value.as_deref().unwrap()).unwrap()
    };
    let told = value(plain);
    assert_eq!(told["deviceId"], device.as_str());
    assert_eq!((&told["fleet"], &told["previousFleet"]), (&"two".into(), &"one".into()));
    assert_eq!((&told["version"], &told["cause"]), (&"2".into(), &"CAUSE_MOVED".into()));
    assert_eq!(plain.key_text(), device);
    let content_type = ("content-type".to_owned(), Some(b"application/json".to_vec()));
    assert_eq!(plain.headers, [content_type]);

    assert_eq!(value(event)["version"], "3");
    let header = |name: &str| event.header(name).unwrap();
    assert_eq!(header("content-type"), "application/json");
    assert_eq!(header("ce_id"), format!("{device}:3"));
    assert_eq!(header("ce_specversion"), "1.0");
    assert_eq!(header("ce_type"), "device_status.v1.StatusChanged");

    let lines = told_lines(&json, &["history", &device, "--json"]);
    let fleets = column(&lines, "fleet");
    assert_eq!(fleets, ["one", "two", "three"]);
}

#[test]
fn what_is_no_dead_letter_of_ours_is_not_sent_anywhere() {
    let broker = KafkaBroker::shared();
    let topics = ServiceTopics::named(&broker.unique("foreign"), 1);
    broker.create_topic(&topics.dead_letters, 1, &[]);
    let producer = broker.producer();
    let elsewhere: &[(&str, &[u8])] =
        &[("__streams.errors.topic", b"payroll"), ("__streams.errors.partition", b"0")];
    let cut: &[(&str, &[u8])] = &[
        ("__streams.errors.topic", topics.heartbeats.as_bytes()),
        ("__streams.errors.partition", b"0"),
        ("__streams.errors.truncated", b"value: 3 of 9 bytes kept"),
    ];
    for headers in [elsewhere, cut, &[]] {
        let record = RawRecord { topic: &topics.dead_letters, headers, ..RawRecord::default() };
        producer.send_raw(&RawRecord { value: Some(b"\x1b[2J"), ..record });
    }
    producer.flush();
    let config = ServiceConfig::new(broker, &topics).set("log.level", "warn");
    let output = run(&config, &["dead-letters", "replay", "--all", "--yes"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    for line in ["\"payroll\", which is no input", "it was cut to fit", "0 records sent back"] {
        assert!(text.contains(line), "{text}\nlacks {line}");
    }
    let text = told(&config, &["dead-letters", "show", "0:0"]);
    assert!(!text.contains('\x1b'), "a terminal would obey {text:?}");
}

#[test]
fn simulated_events_can_be_json() {
    let broker = KafkaBroker::shared();
    let topics = broker.service_topics("simulated-json", 1);
    let config = ServiceConfig::new(broker, &topics)
        .set("log.level", "warn")
        .set("formats.heartbeats", "json")
        .set("formats.lifecycle", "json");
    let arguments = ["simulate", "--devices", "20", "--rate", "50", "--duration", "2s"];
    told(&config, &arguments);
    let heartbeats = wait_for(SOON, "simulated heartbeats", || {
        let records = broker.read_committed(&topics.heartbeats, SOON);
        if records.is_empty() { Err("none") } else { Ok(records) }
    });
    for record in heartbeats {
        let text = record.value.as_deref().unwrap();
        device_status::wire::json::read::<Heartbeat>(text).unwrap();
    }
    let lifecycle = broker.read_committed(&topics.lifecycle, SOON);
    assert!(lifecycle.iter().filter_map(|r| r.value.as_ref()).all(|value| value[0] == b'{'));
}
