//! A device whose producers choose its partition in different ways: the owners of two
//! partitions know a part of it each, and both write it to Redis.

use std::time::Duration;

use crate::support::events::{device_id, heartbeat, registered};
use crate::support::kafka::KafkaBroker;
use crate::support::redis::RedisServer;
use crate::support::service::{DeviceStatus, ServiceConfig, run};
use crate::support::wait::{now_ms, wait_for};

const SOON: Duration = Duration::from_secs(60);
const TOLD: &str = "a device is on two partitions";
const METRIC: &str = "device_status_redis_two_partitions_total";

#[test]
fn a_device_on_two_partitions_is_told_by_the_log_a_metric_and_explain() {
    let broker = KafkaBroker::shared();
    let redis = RedisServer::start();
    let topics = broker.service_topics("two-partitions", 2);
    let config = ServiceConfig::new(broker, &topics)
        .redis(&redis.url())
        .set("topics.partitioner", "any")
        .set("redis.refresh_interval", "10s")
        .announce(&[TOLD]);
    let mut service = DeviceStatus::start_ready(&config);
    let [split, whole] = [1, 2].map(device_id);
    let producer = broker.producer();
    producer.send(&topics, [registered(&whole, now_ms(), "red", "acme").on_partition(1)]);
    producer.flush();
    redis.wait_for_fields(&whole, SOON, &[("fleet", "red")]);
    let passes = || service.metric("device_status_redis_scans_total", "").unwrap_or_default();
    let seen = passes();
    wait_for(SOON, "a pass over a device that is on one partition", || {
        if passes() > seen + 1.0 { Ok(()) } else { Err(passes()) }
    });
    assert_eq!(service.metric(METRIC, ""), Some(0.0));

    producer.send(&topics, [registered(&split, now_ms(), "red", "acme").on_partition(0)]);
    producer.send(&topics, [heartbeat(&split, now_ms()).on_partition(1)]);
    producer.flush();
    let line = service.process.wait_for_output(SOON, TOLD);
    assert!(line.contains(&split) && line.contains("other_partition"), "{line}");
    wait_for(SOON, "the metric to tell", || match service.metric(METRIC, "") {
        Some(count) if count > 0.0 => Ok(()),
        other => Err(format!("{other:?}")),
    });

    let explained = |device: &str| {
        let output = run(&config, &["explain", device, "--json"]);
        assert!(output.status.success(), "{output:?}");
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        said["notes"].to_string()
    };
    let notes = explained(&split);
    assert!(notes.contains("has a row in partition 1 too"), "{notes}");
    assert!(!explained(&whole).contains("too"), "{}", explained(&whole));
    assert!(service.terminate().success());
}
