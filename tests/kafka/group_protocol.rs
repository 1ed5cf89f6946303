//! Brokers that do not support the group protocol `consumer` (KIP-848), by which a
//! member would wait for ever and say nothing.

use std::time::Duration;

use crate::support::events::{self, device_id};
use crate::support::kafka::{Isolation, KafkaBroker, ServiceTopics};
use crate::support::secure::{Acl, AclOperation, Resource, SecureBroker};
use crate::support::service::{DeviceStatus, ServiceConfig, run};
use crate::support::wait::{Deadline, now_ms, wait_for};

const SOON: Duration = Duration::from_secs(30);
/// From the start of the process to its end.
const TOLD_WITHIN: Duration = Duration::from_secs(15);
/// The last before 4.0.
const BEFORE_4: &str = "3.9.1";
const REMEDY: &str = "set kafka.group_protocol = \"classic\"";

/// What `config check --connect` finds wrong.
#[track_caller]
fn problems(config: &ServiceConfig, code: i32) -> Vec<String> {
    let output = run(config, &["config", "check", "--connect", "--json"]);
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = told["checks"].as_array().unwrap();
    checks.iter().filter_map(|check| check["problem"].as_str()).map(str::to_owned).collect()
}

/// `run` ends soon, with the remedy, and so does the check.
#[track_caller]
fn assert_told(config: &ServiceConfig) {
    // There is no Redis.
    let found = problems(config, 69);
    let found: Vec<_> = found.iter().filter(|problem| problem.contains(REMEDY)).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    let deadline = Deadline::after(TOLD_WITHIN);
    let mut service = DeviceStatus::start(config);
    assert_eq!(service.process.wait(deadline.left()).code(), Some(69));
    wait_for(SOON, "its last words", || {
        let output = service.process.output();
        let mut lines = output.lines();
        let told = lines.any(|line| line.starts_with("error: ") && line.contains(REMEDY));
        if told { Ok(()) } else { Err(output) }
    });
}

/// With `classic` the same brokers serve.
#[track_caller]
fn assert_serves_with_classic(
    broker: &KafkaBroker,
    config: &ServiceConfig,
    topics: &ServiceTopics,
) {
    let config = config.clone().set("kafka.group_protocol", "classic");
    assert!(problems(&config, 69).iter().all(|problem| problem.contains("Redis")));
    let mut service = DeviceStatus::start(&config);
    let producer = broker.producer();
    producer.send(topics, [events::heartbeat(&device_id(1), now_ms())]);
    producer.flush();
    broker.reader(&topics.status_changes, Isolation::ReadCommitted).read_count(2 * SOON, 1);
    assert!(service.terminate().success());
}

#[test]
fn brokers_before_4_are_told_at_the_start_and_by_the_check_whatever_is_allowed() {
    let secure = SecureBroker::start_version(BEFORE_4, &[("device-status", "hunter2")]);
    let broker = &secure.broker;
    let topics = broker.service_topics("before-4", 2);
    // Who comes by the plain port may do everything.
    let config = ServiceConfig::new(broker, &topics);
    assert_told(&config);
    assert_serves_with_classic(broker, &config, &topics);

    // Who may use the group and nothing else, not read a setting either.
    let (resource, name) = (Resource::Group, topics.group.clone());
    let group = Acl { resource, name, prefixed: false, operation: AclOperation::Read };
    secure.allow("device-status", &group);
    let restricted = secure.config(&topics, "device-status");
    wait_for(SOON, "the permission to be in force", || {
        let found = problems(&restricted, 69);
        let told = found.iter().any(|problem| problem.contains(REMEDY));
        let denied = found.iter().any(|problem| problem.contains("DescribeConfigs"));
        if told && denied { Ok(()) } else { Err(format!("{found:?}")) }
    });
}

#[test]
fn an_early_version_of_the_protocol_is_told_too() {
    let protocols = [("group.coordinator.rebalance.protocols", "classic,consumer")];
    let broker = KafkaBroker::start_version(BEFORE_4, &protocols, &[]);
    let topics = broker.service_topics("early", 1);
    assert_told(&ServiceConfig::new(&broker, &topics));
}

#[test]
fn brokers_that_have_the_protocol_switched_off_are_told() {
    let off = [("group.coordinator.rebalance.protocols", "classic")];
    let broker = KafkaBroker::start_with(&off);
    let topics = broker.service_topics("switched-off", 1);
    assert_told(&ServiceConfig::new(&broker, &topics));
}

#[test]
fn the_check_leaves_no_trace_in_the_group() {
    let broker = KafkaBroker::start();
    let topics = broker.service_topics("no-trace", 1);
    let config = ServiceConfig::new(&broker, &topics);
    // A refusal that was wanted is no error.
    let output = run(&config, &["config", "check", "--connect"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("ERROR") && !said.contains("WARN"), "{said}");
    let found = problems(&config, 69);
    assert!(found.iter().all(|problem| problem.contains("Redis")), "{found:?}");
    assert_eq!(broker.groups(), Vec::<String>::new());
}
