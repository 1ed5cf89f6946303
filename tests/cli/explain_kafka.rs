//! `device-status explain ID` and `history ID` as black boxes, beside a running
//! service with a real Kafka and a real Redis: what they say is what the service
//! shows, also of what it has not read yet.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::events::{
    Outgoing, device_id, heartbeat_every, lifecycle, registered, session_closed, session_opened,
    toggled, tombstone,
};
use crate::support::kafka::{Isolation, KafkaBroker, ServiceTopics};
use crate::support::process::free_port;
use crate::support::redis::RedisServer;
use crate::support::service::{DeviceStatus, ServiceConfig, run};
use crate::support::wait::{now_ms, pause, wait_for};
use device_status::wire::murmur2::partition_of;
use device_status::wire::proto::v1::{FleetFrozen, FrozenReason, StatusChanged, lifecycle_event};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);
const PARTITIONS: i32 = 3;
const EVERY: Duration = Duration::from_secs(600);

#[track_caller]
fn told(config: &ServiceConfig, arguments: &[&str]) -> String {
    let output = run(config, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn failure(config: &ServiceConfig, arguments: &[&str]) -> (i32, String) {
    let output = run(config, arguments);
    assert!(output.stdout.is_empty(), "{output:?}");
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[track_caller]
fn explained(config: &ServiceConfig, device: &str) -> Value {
    serde_json::from_str(&told(config, &["explain", device, "--json"])).unwrap()
}

/// As `explain` says it once the service has read all and shows this status.
#[track_caller]
fn explained_as(config: &ServiceConfig, device: &str, status: &str) -> Value {
    wait_for(SOON, &format!("explain to say {status}"), || {
        let output = run(config, &["explain", device, "--json"]);
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        let Ok(said) = serde_json::from_str::<Value>(&text) else {
            return Err(format!("{output:?}"));
        };
        let unread: u64 =
            said["unread"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
        if unread == 0 && said["status"] == status { Ok(said) } else { Err(text) }
    })
}

fn history(config: &ServiceConfig, device: &str, more: &[&str]) -> Vec<Value> {
    let text = told(config, &[&["history", device, "--json"], more].concat());
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn send(broker: &KafkaBroker, topics: &ServiceTopics, events: impl IntoIterator<Item = Outgoing>) {
    let producer = broker.producer();
    producer.send(topics, events);
    producer.flush();
}

fn decisive(said: &Value) -> &Value {
    said["rungs"].as_array().unwrap().iter().find(|rung| rung["decides"] == true).unwrap()
}

#[test]
fn a_device_is_explained_as_the_service_knows_it_and_its_history_told() {
    let broker = KafkaBroker::shared();
    let redis = RedisServer::start();
    let topics = broker.service_topics("explain", PARTITIONS);
    let config = ServiceConfig::new(broker, &topics).redis(&redis.url()).set("log.level", "warn");
    let mut service = DeviceStatus::start_ready(&config);
    service.announce(&["becomes a dead letter"]);
    let [oven, other] = [1, 2].map(device_id);
    let partition = partition_of(oven.as_bytes(), PARTITIONS);
    let start = now_ms() - 60_000;
    let at = |seconds: i64| start + seconds * 1_000;

    let events = [
        registered(&oven, at(1), "kitchens", "acme"),
        registered(&other, at(1), "kitchens", "acme").on_partition(partition),
    ];
    send(broker, &topics, events);
    let said = explained_as(&config, &oven, "configuring");
    assert_eq!(decisive(&said)["because"], json!(["no contact so far"]));
    // The second heartbeat changes nothing, so that only its topic has it.
    let events =
        [heartbeat_every(&oven, at(2), EVERY), session_opened(&oven, at(3), "vpn-1", "s1")];
    send(broker, &topics, events);
    explained_as(&config, &oven, "online");
    send(broker, &topics, [heartbeat_every(&oven, at(40), EVERY)]);
    let said = wait_for(SOON, "the second heartbeat", || {
        let said = explained_as(&config, &oven, "online");
        if said["heartbeat"]["last_ms"] == at(40) { Ok(said) } else { Err(said) }
    });
    assert_eq!(said["partition"], partition);
    assert_eq!(said["notes"], json!([]));
    assert_eq!(said["heartbeat"]["timeout_ms"], at(40) + 900_000);
    assert_eq!(said["vpn"]["sessions"][0]["instance"], "vpn-1");
    assert_eq!(decisive(&said)["rung"], "online");
    let shown: Value = serde_json::from_str(&told(&config, &["get", &oven, "--json"])).unwrap();
    for field in [
        "device",
        "status",
        "connectivity",
        "since_ms",
        "connectivity_since_ms",
        "version",
        "fleet",
    ] {
        assert_eq!(said[field], shown[field], "{field}: {said} {shown}");
    }

    // A scope's fact explains its devices.
    let event = FleetFrozen { fleet: "kitchens".into(), reason: FrozenReason::Allowance.into() };
    let event = lifecycle_event::Event::FleetFrozen(event);
    send(broker, &topics, [lifecycle(None, at(50), event)]);
    let said = explained_as(&config, &oven, "frozen");
    let because = decisive(&said)["because"][0].as_str().unwrap();
    assert!(because.starts_with("fleet kitchens: allowance, frozen since "), "{because}");

    // What the service has not read is told, and changes nothing.
    assert!(service.terminate().success());
    send(
        broker,
        &topics,
        [session_closed(&oven, at(51), "vpn-1", "s1"), heartbeat_every(&oven, at(52), EVERY)],
    );
    let said = explained(&config, &oven);
    assert_eq!(said["unread"], json!({ "lifecycle": 0, "vpn_sessions": 1, "heartbeats": 1 }));
    assert_eq!((&said["unread_of_device"], &said["status"]), (&json!(2), &json!("frozen")));
    assert_eq!(said["heartbeat"]["last_ms"], at(40));
    let text = told(&config, &["explain", &oven]);
    let line =
        "not read yet  2 records of its partition (vpn_sessions 1, heartbeats 1), 2 of its own";
    assert!(text.contains(line) && text.starts_with(&format!("{oven}  Frozen\n")), "{text}");
    let other_rules = told(&config, &["explain", &oven, "--set", "heartbeat.tolerance=3"]);
    assert!(other_rules.contains("note: the service runs with other heartbeat.*"), "{other_rules}");
    let new = device_id(3);
    send(broker, &topics, [heartbeat_every(&new, at(53), EVERY)]);
    let (code, text) = failure(&config, &["explain", &new]);
    assert_eq!(code, 1);
    assert!(text.contains("knows nothing of") && text.contains("one record of it waits"), "{text}");

    let _service = DeviceStatus::start_ready(&config);
    send(broker, &topics, [tombstone(&oven)]);
    let gone = wait_for(SOON, "the deletion", || {
        let text = told(&config, &["explain", &oven]);
        if text.contains("not shown: deleted ") { Ok(text) } else { Err(text) }
    });
    assert!(gone.starts_with(&format!("{oven}  not shown\n")), "{gone}");

    // Its history is what the topic has.
    let mut reader = broker.reader(&topics.status_changes, Isolation::ReadCommitted);
    let is_its = |record: &&crate::support::kafka::Record| record.key_text() == oven;
    let records = reader.read_until(SOON, "the deletion's change", |records| {
        records.iter().filter(is_its).any(|record| record.decode::<StatusChanged>().deleted)
    });
    let changes: Vec<StatusChanged> =
        records.iter().filter(is_its).map(|record| record.decode()).collect();
    let rows = history(&config, &oven, &[]);
    let column = |name: &str| -> Vec<&Value> { rows.iter().map(|row| &row[name]).collect() };
    let versions: Vec<Value> = changes.iter().map(|change| change.version.into()).collect();
    assert_eq!(column("version"), versions.iter().collect::<Vec<_>>());
    assert_eq!(rows[0]["previous"], Value::Null);
    assert_eq!((&rows[0]["cause"], &rows[0]["since_ms"]), (&json!("registered"), &json!(at(1))));
    let frozen = rows.iter().find(|row| row["cause"] == "frozen").unwrap();
    assert_eq!(frozen["current"], json!({ "status": "frozen", "connectivity": "full" }));
    assert_eq!((&frozen["fleet"], &frozen["vpn"]), (&json!("kitchens"), &json!("up")));
    let last = rows.last().unwrap();
    assert_eq!((&last["deleted"], &last["current"]), (&json!(true), &Value::Null));
    assert_eq!(last["offset"], records.iter().rfind(is_its).unwrap().offset);

    let text = told(&config, &["history", &oven]);
    assert!(text.starts_with(&format!("{oven}\n  fleet kitchens\n    1   ")), "{text}");
    assert!(text.lines().last().unwrap().contains("  deleted"), "{text}");
    let all = rows.len();
    assert_eq!(history(&config, &oven, &["--limit", "1"]), rows[all - 1..]);
    let text = told(&config, &["history", &oven, "--limit", "1"]);
    assert!(text.contains(&format!("\n  {} earlier: say --limit {all}\n", all - 1)), "{text}");
    assert_eq!(history(&config, &oven, &["--since", "1h"]), rows);
    let later = ["history", &*oven, "--since", "2100-01-01T00:00:00Z"];
    let (code, text) = failure(&config, &later);
    assert!(
        code == 1 && text.contains("has no change of a device") && text.contains("in that time")
    );
    assert_eq!(failure(&config, &["history", "nobody"]).0, 1);
}

/// What is said while everything moves is what the service had come to at some
/// moment, never a mixture of two.
#[test]
fn under_traffic_an_explanation_is_of_one_moment() {
    let broker = KafkaBroker::shared();
    let topics = broker.service_topics("explain-traffic", 1);
    let config = ServiceConfig::new(broker, &topics).set("log.level", "warn");
    let mut service = DeviceStatus::start(&config);
    let device = device_id(11);
    send(broker, &topics, [heartbeat_every(&device, now_ms(), EVERY)]);
    explained_as(&config, &device, "online");
    let over = AtomicBool::new(false);
    let said: Vec<Value> = std::thread::scope(|scope| {
        scope.spawn(|| {
            let producer = broker.producer();
            for round in 0.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                producer.send(&topics, [toggled(&device, now_ms(), "vpn-1", round)]);
                producer.flush();
                pause(Duration::from_millis(5));
            }
        });
        let asked = std::panic::catch_unwind(AssertUnwindSafe(|| {
            (0..12).map(|_| explained(&config, &device)).collect()
        }));
        // Whatever became of it: the other thread waits for this.
        over.store(true, Ordering::Relaxed);
        asked.unwrap_or_else(|panic| resume_unwind(panic))
    });
    assert!(service.terminate().success());
    let rows = history(&config, &device, &["--limit", "100000"]);
    let versions: BTreeSet<u64> =
        said.iter().map(|said| said["version"].as_u64().unwrap()).collect();
    assert!(versions.len() > 6, "nothing moved: {versions:?}");
    for said in said {
        let row = rows.iter().find(|row| row["version"] == said["version"]).unwrap();
        let shown = json!({ "status": said["status"], "connectivity": said["connectivity"] });
        assert_eq!(row["current"], shown, "{said}");
        assert_eq!(row["connectivity_since_ms"], said["connectivity_since_ms"], "{said}");
        assert_eq!(row["vpn"] == "up", said["vpn"]["up"] == true, "{said}");
    }
}

#[test]
fn a_device_is_found_wherever_a_partitioner_of_ones_own_puts_it() {
    let broker = KafkaBroker::shared();
    let topics = broker.service_topics("explain-any", PARTITIONS);
    let config = ServiceConfig::new(broker, &topics)
        .set("topics.partitioner", "any")
        .set("log.level", "warn");
    let mut service = DeviceStatus::start(&config);
    let device = device_id(7);
    let partition = (partition_of(device.as_bytes(), PARTITIONS) + 1) % PARTITIONS;
    let events = [
        registered(&device, now_ms() - 9_000, "", ""),
        heartbeat_every(&device, now_ms() - 5_000, EVERY),
    ];
    send(broker, &topics, events.map(|event| event.on_partition(partition)));
    let said = explained_as(&config, &device, "online");
    assert_eq!((&said["partition"], &said["version"]), (&json!(partition), &json!(2)));
    assert_eq!(history(&config, &device, &[]).len(), 2);
    assert!(service.terminate().success());
}

#[test]
fn who_asks_is_told_what_is_in_the_way() {
    let broker = KafkaBroker::shared();
    let topics = ServiceTopics::named(&broker.unique("explain-nothing"), 1);
    let config = ServiceConfig::new(broker, &topics).set("log.level", "warn");
    for (command, key) in [("explain", "topics.lifecycle"), ("history", "topics.status_changes")] {
        let (code, text) = failure(&config, &[command, "oven"]);
        assert_eq!(code, 69, "{text}");
        assert!(text.contains(&format!("check {key}")), "{text}");
    }
    for command in ["explain", "history"] {
        let (code, text) = failure(&config, &[command, ""]);
        assert!(code == 2 && text.contains("is no device id"), "{text}");
    }
    // Nothing has ever run here.
    let topics = broker.service_topics("explain-never", 1);
    let never = ServiceConfig::new(broker, &topics).set("log.level", "warn");
    let (code, text) = failure(&never, &["explain", "oven"]);
    assert!(code == 1 && text.contains("knows nothing of a device \"oven\""), "{text}");

    let away = config.set("kafka.brokers", format!("127.0.0.1:{}", free_port()));
    let (code, text) = failure(&away, &["explain", "oven"]);
    assert_eq!(code, 69);
    assert!(
        text.contains("cannot read from Kafka at 127.0.0.1:") && text.contains("kafka.brokers")
    );
}
