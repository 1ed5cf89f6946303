//! One event by hand, to a real broker.

use std::time::Duration;

use serde_json::Value;

use crate::support::kafka::KafkaBroker;
use crate::support::redis::RedisServer;
use crate::support::service::{DeviceStatus, ServiceConfig, run};

const SOON: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 3;

#[test]
fn an_event_that_is_sent_by_hand_has_its_effect_and_a_broadcast_reaches_every_partition() {
    let broker = KafkaBroker::shared();
    let redis = RedisServer::start();
    let topics = broker.service_topics("by-hand", PARTITIONS);
    let config = ServiceConfig::new(broker, &topics)
        .redis(&redis.url())
        .set("log.level", "warn")
        .set("formats.lifecycle", "json");
    let service = DeviceStatus::start_ready(&config);
    let told = |arguments: &[&str]| {
        let output = run(&config, arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let registered = r#"{"registered":{"fleet":"berlin","organization":"acme"}}"#;
    let said: Value =
        serde_json::from_str(&told(&["send", "lifecycle", "by-hand", registered, "--json"]))
            .unwrap();
    assert_eq!((&said["key"], &said["records"]), (&"by-hand".into(), &1.into()));
    assert!(said["event"]["occurredAt"].is_string(), "{said}");
    let text = told(&["send", "heartbeat", "by-hand"]);
    assert!(text.starts_with(&format!("Sent to {}, key by-hand: ", topics.heartbeats)), "{text}");
    redis.wait_for_fields("by-hand", SOON, &[("status", "online"), ("fleet", "berlin")]);

    let frozen = r#"{"fleet_frozen":{"fleet":"berlin","reason":"FROZEN_REASON_OTHER"}}"#;
    let text = told(&["send", "lifecycle", frozen]);
    assert!(text.contains("one copy to each of 3 partitions"), "{text}");
    redis.wait_for_fields("by-hand", SOON, &[("status", "frozen")]);
    let records = broker.read_committed(&topics.lifecycle, SOON);
    let mut copies: Vec<i32> =
        records.iter().filter(|record| record.key.is_none()).map(|r| r.partition).collect();
    copies.sort_unstable();
    assert_eq!(copies, [0, 1, 2]);

    // What would become a dead letter is not sent.
    let slips: [(&[&str], &str); 5] = [
        (&["lifecycle", "by-hand", r#"{"registerd":{}}"#], "registerd"),
        (&["lifecycle", "by-hand", frozen], "unexpected_key"),
        (&["lifecycle", "by-hand"], "would refuse"),
        (&["vpn", "by-hand", r#"{"sessionOpened":{"session":"1"}}"#], "instance"),
        (&["heartbeat", "by-hand", r#"{"pollInterval":"0.1s"}"#], "invalid_value"),
    ];
    for (arguments, piece) in slips {
        let output = run(&config, &[&["send"], arguments].concat());
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(piece), "{error}\nlacks {piece}");
    }
    assert!(broker.read_committed(&topics.dead_letters, SOON).is_empty());
    drop(service);
}
