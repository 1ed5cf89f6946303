//! Senders whose clocks are wrong are told of, by metrics, in the log and by `explain`;
//! and those are not that are honest.

use std::time::Duration;

use crate::support::events::{
    device_id, heartbeat, heartbeat_every, instance_alive, registered, session_opened,
};
use crate::support::kafka::KafkaBroker;
use crate::support::redis::RedisServer;
use crate::support::service::{DeviceStatus, ServiceConfig, run};
use crate::support::wait::{now_ms, wait_for, wait_until};
use device_status::shard::Input;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);
const MINUTE_MS: i64 = 60_000;
const HOUR: Duration = Duration::from_secs(3_600);
const PARTITIONS: i32 = 2;

const LEASE_OVER: &str = "a lease was over when it came";
const HEARTBEAT_OVER: &str = "a heartbeat had expired when it came";
const AHEAD: &str = "the occurred_at of an event is later than";
const SLOW: &str = "many events come minutes after they happened";

/// Events of an input that are as old as this, or younger; all of them for `+Inf`.
fn of_age(service: &DeviceStatus, input: Input, at_most: &str) -> f64 {
    let labels = [format!("input=\"{}\"", input.name()), format!("le=\"{at_most}\"")];
    service.metrics("device_status_event_age_seconds_bucket", &labels).iter().sum()
}

fn over(service: &DeviceStatus, what: &str) -> f64 {
    let label = format!("what=\"{what}\"");
    service.metric("device_status_over_on_arrival_total", &label).unwrap()
}

fn explained(config: &ServiceConfig, device: &str) -> Value {
    let output = run(config, &["explain", device, "--json"]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What is doubted of a device: event, whom it is about, doubt.
fn doubts(said: &Value) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let doubts = said["doubts"].as_array().unwrap().iter();
    doubts.map(|told| (text(&told["event"]), text(&told["of"]), text(&told["doubt"]))).collect()
}

#[test]
fn senders_with_wrong_clocks_are_told_of_and_honest_ones_are_not() {
    let broker = KafkaBroker::shared();
    let redis = RedisServer::start();
    let topics = broker.service_topics("wrong-clocks", PARTITIONS);
    let config = ServiceConfig::new(broker, &topics).redis(&redis.url());
    let config = config.set("heartbeat.minimum", "10m");
    let mut service = DeviceStatus::start_ready(&config);
    let producer = broker.producer();
    let [honest, of_1970, early, oven] = [1, 2, 3, 4].map(device_id);

    // A life that is told again, leases and heartbeats that are a little late.
    let life_ms = now_ms() - 300 * 24 * 60 * MINUTE_MS;
    producer.send(&topics, [registered(&honest, life_ms, "kitchens", "acme")]);
    producer.send(&topics, [instance_alive("vpn-1", now_ms() - 20_000, HOUR)]);
    let late = |ms: i64| heartbeat_every(&honest, now_ms() - ms, HOUR);
    producer.send(&topics, (0..30).rev().map(|n| late(n * 1_900)));
    producer.send(&topics, [late(30 * MINUTE_MS), heartbeat(&honest, now_ms())]);
    producer.flush();
    wait_until(SOON, "the honest to be counted", || {
        of_age(&service, Input::Heartbeats, "+Inf") == 32.0
    });
    wait_until(SOON, "the announcement in each partition", || {
        of_age(&service, Input::VpnSessions, "+Inf") == f64::from(PARTITIONS)
    });
    assert_eq!(of_age(&service, Input::Heartbeats, "300"), 31.0);
    assert_eq!(of_age(&service, Input::Heartbeats, "3600"), 32.0);
    assert_eq!(of_age(&service, Input::Heartbeats, "-1"), 0.0);
    assert_eq!([over(&service, "lease"), over(&service, "heartbeat")], [0.0, 0.0]);
    service.assert_log_as_announced();

    service.announce(&[LEASE_OVER, HEARTBEAT_OVER, AHEAD]);
    producer.send(&topics, [instance_alive("vpn-2", now_ms() - 20 * MINUTE_MS, HOUR / 60)]);
    producer.send(&topics, [heartbeat(&of_1970, 5_000), heartbeat(&of_1970, 6_000)]);
    let in_future = session_opened(&early, now_ms() + 10 * MINUTE_MS, "vpn-1", "s1");
    producer.send(&topics, [in_future, session_opened(&oven, now_ms(), "vpn-2", "s2")]);
    producer.flush();
    wait_until(SOON, "what was over to be counted", || {
        over(&service, "lease") == f64::from(PARTITIONS) && over(&service, "heartbeat") == 2.0
    });
    let sessions = f64::from(2 * PARTITIONS) + 2.0;
    wait_until(SOON, "the sessions", || of_age(&service, Input::VpnSessions, "+Inf") == sessions);
    assert_eq!(of_age(&service, Input::VpnSessions, "-300"), 1.0);
    assert_eq!(of_age(&service, Input::Heartbeats, "31536000"), 32.0);
    assert_eq!(of_age(&service, Input::Heartbeats, "+Inf"), 34.0);
    for (kind, example) in [
        (LEASE_OVER, "of=VPN instance vpn-2"),
        (HEARTBEAT_OVER, &format!("of=device {of_1970}")),
        (AHEAD, &format!("of=device {early}")),
    ] {
        let log = service.process.output();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(kind)).collect();
        assert!(lines.len() == 1 && lines[0].contains(example), "{example}: {lines:?}");
        assert!(lines[0].contains("NTP"), "{lines:?}");
    }

    let is_read =
        |said: &Value| said["unread"].as_object().unwrap().values().all(|unread| *unread == 0);
    let doubted = |device: &str| {
        let said = wait_for(SOON, "all to be committed", || {
            let said = explained(&config, device);
            if is_read(&said) { Ok(said) } else { Err(said) }
        });
        doubts(&said)
    };
    let told = |event: &str, of: String, doubt: &str| (event.to_owned(), of, doubt.to_owned());
    assert_eq!(doubted(&of_1970), [told("heartbeat", format!("device {of_1970}"), "over")]);
    assert_eq!(doubted(&early), [told("session_opened", format!("device {early}"), "ahead")]);
    let instance = "VPN instance vpn-2".to_owned();
    assert_eq!(doubted(&oven), [told("instance_alive", instance, "over")]);
    let life = told("registered", format!("device {honest}"), "behind");
    assert_eq!(doubted(&honest), [life], "the last heartbeat was in time");

    // What a start reads again was counted by the process before.
    assert!(service.terminate().success());
    let service = DeviceStatus::start_ready(&config);
    producer.send(&topics, [heartbeat(&honest, now_ms())]);
    producer.flush();
    wait_until(SOON, "a new heartbeat", || of_age(&service, Input::Heartbeats, "+Inf") > 0.0);
    assert!(service.metric("device_status_restored_records_total", "heartbeats").unwrap() > 30.0);
    assert_eq!(of_age(&service, Input::Heartbeats, "+Inf"), 1.0);
    assert_eq!([over(&service, "lease"), over(&service, "heartbeat")], [0.0, 0.0]);
    assert_eq!(doubted(&of_1970).len(), 1);

    // An API server that is ten minutes slow, one of four.
    service.announce(&[SLOW]);
    let beats = (0..40).map(|n| {
        let slow_ms = if n % 4 == 0 { 10 * MINUTE_MS } else { 0 };
        heartbeat(&device_id(100 + n), now_ms() - slow_ms)
    });
    producer.send(&topics, beats);
    producer.flush();
    service.process.wait_for_output(SOON, SLOW);
}
