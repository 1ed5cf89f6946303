//! How `simulate` sends, as a real broker stamps it; what it asks, and leaves behind.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::events::device_id;
use crate::support::kafka::{Isolation, KafkaBroker, RawRecord, Record};
use crate::support::process::{Process, Signal};
use crate::support::redis::RedisServer;
use crate::support::service::{DeviceStatus, ServiceConfig, binary, run};
use crate::support::wait::wait_for;

/// A busy machine takes its time, and sends together what it is late with.
const SOON: Duration = Duration::from_secs(120);
const FLEET: [&str; 5] = ["simulate", "--devices", "50", "--rate", "250"];

fn instants(heartbeats: &[Record]) -> usize {
    heartbeats.iter().map(|record| record.timestamp_ms).collect::<BTreeSet<_>>().len()
}

#[test]
fn events_are_sent_each_at_its_instant() {
    let broker = KafkaBroker::shared();
    let topics = broker.service_topics("simulated-evenly", 1);
    let config = ServiceConfig::new(broker, &topics);
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary());
    command.arg("--config").arg(config.write_to(directory.path())).args(FLEET);
    let _fleet = Process::spawn("simulate", command);
    let mut reader = broker.reader(&topics.heartbeats, Isolation::ReadUncommitted);
    // At 250 events a second, a batch every 20 ms makes 30 instants of these.
    wait_for(SOON, "100 heartbeats, each by itself", || {
        let read = reader.read_for(Duration::from_secs(1));
        let last = &read[read.len().saturating_sub(100)..];
        let instants = instants(last);
        if instants > 60 { Ok(()) } else { Err(format!("{instants} instants of {}", last.len())) }
    });
}

#[test]
fn in_bursts_events_come_together() {
    let broker = KafkaBroker::shared();
    let topics = broker.service_topics("simulated-bursts", 1);
    let config = ServiceConfig::new(broker, &topics);
    let bursts = ["--duration", "2s", "--bursts", "500ms"];
    let output = run(&config, &[&FLEET[..], &bursts].concat());
    assert!(output.status.success(), "{output:?}");
    let heartbeats = broker.read_committed(&topics.heartbeats, SOON);
    assert!(heartbeats.len() > 100, "{}", heartbeats.len());
    // Four bursts and the end, each in a batch or two.
    let instants = instants(&heartbeats);
    assert!(instants <= 10, "{instants} instants of {}", heartbeats.len());
}

#[test]
fn where_others_write_it_asks_and_what_it_wrote_can_be_removed() {
    // Any cluster but that of `make kafka`.
    let options = ["--cluster-id", "b3RoZXItYnJva2VyLTEyMw"].map(str::to_owned);
    let broker = KafkaBroker::start_with_options(&options);
    let topics = broker.service_topics("simulated-asked", 2);
    let redis = RedisServer::start();
    let config = ServiceConfig::new(&broker, &topics).redis(&redis.url()).set("log.level", "warn");
    let service = DeviceStatus::start_ready(&config);
    let answer = |arguments: &[&str]| {
        let output = run(&config, &[arguments, &["--json"]].concat());
        let text = if output.status.success() { &output.stdout } else { &output.stderr };
        let text = String::from_utf8(text.clone()).unwrap();
        // Errors stand behind the log.
        let json: Value = serde_json::from_str(text.trim().lines().last().unwrap()).unwrap();
        (output.status.code().unwrap(), json)
    };
    let fleet = ["simulate", "--devices", "20", "--rate", "40", "--duration", "3s"];
    let (code, summary) = answer(&fleet);
    assert_eq!(code, 0, "empty topics are nobody's: {summary}");
    let simulated = summary["devices_to_try"][0].as_str().unwrap();
    redis.wait_for_fields(simulated, SOON, &[("status", "online")]);
    let real = device_id(1);
    let producer = broker.producer();
    producer.send_raw(&RawRecord {
        topic: &topics.heartbeats,
        key: Some(real.as_bytes()),
        // A poll interval of 15 minutes.
        value: Some(&[0x12, 3, 0x08, 0x84, 0x07]),
        ..RawRecord::default()
    });
    producer.flush();
    redis.wait_for_fields(&real, SOON, &[("status", "online")]);

    let count = || broker.read_committed(&topics.heartbeats, SOON).len();
    let before = count();
    for asked in [&fleet[..], &["simulate", "--remove"]] {
        let (code, error) = answer(asked);
        let message = error["error"]["message"].as_str().unwrap();
        assert_eq!(code, 2, "{message}");
        for piece in [&topics.lifecycle, "holds", "say --yes"] {
            assert!(message.contains(piece), "{message}");
        }
    }
    assert_eq!(count(), before);
    assert_eq!(answer(&[&fleet[..], &["--yes"]].concat()).0, 0);
    assert!(count() > before);

    let (code, removed) = answer(&["simulate", "--remove", "--yes"]);
    assert_eq!(code, 0);
    assert!(removed["devices_deleted"].as_i64().unwrap() >= 10, "{removed}");
    wait_for(SOON, "the simulated devices to go", || {
        let (code, left) = answer(&["get", simulated]);
        if code == 1 { Ok(()) } else { Err(left) }
    });
    assert_eq!(answer(&["get", &real]).0, 0, "what was not simulated stays");
    let (_, removed) = answer(&["simulate", "--remove", "--yes"]);
    assert_eq!(removed["devices_deleted"], 0);
    drop(service);
}

#[test]
fn a_signal_ends_it_within_seconds_though_kafka_hangs() {
    let broker = KafkaBroker::start();
    let topics = broker.service_topics("simulated-hangs", 1);
    let config = ServiceConfig::new(&broker, &topics);
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary());
    command.arg("--config").arg(config.write_to(directory.path())).args(FLEET);
    let mut fleet = Process::spawn("simulate", command);
    fleet.wait_for_output(SOON, "Try: device-status get ");
    fleet.wait_for_output(SOON, "`simulate --remove --seed 1`");
    let mut reader = broker.reader(&topics.heartbeats, Isolation::ReadUncommitted);
    reader.read_count(SOON, 50);
    broker.pause();
    // Meanwhile some wait.
    reader.read_for(Duration::from_secs(1));
    fleet.signal(Signal::INT);
    let status = fleet.wait(Duration::from_secs(12));
    broker.resume();
    // Its last events did not arrive.
    assert_eq!(status.code(), Some(69));
}
