//! Versions of Kafka, Redis and Valkey that the service must work with. `make compat`
//! names them (`COMPAT_KAFKA`, `COMPAT_REDIS`); without these variables it is one of each.

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use crate::restarts::Traffic;
use crate::support::kafka::{KafkaBroker, ServiceTopics};
use crate::support::process::free_port;
use crate::support::redis::{self, RedisServer};
use crate::support::service::{DeviceStatus, ServiceConfig, run};

const SOON: Duration = Duration::from_secs(30);
/// The broker ends the transaction that a dead process left open, and the
/// partitions are restored.
const TAKEOVER: Duration = Duration::from_secs(60);
const SESSION_MS: &str = "6000";
const PARTITIONS: i32 = 4;

/// The words of a variable.
fn words(name: &str) -> Vec<String> {
    let words = std::env::var(name).unwrap_or_default();
    words.split_whitespace().map(str::to_owned).collect()
}

/// The version that `scripts/kafka.sh` gets when it is asked for none.
fn usual_kafka() -> String {
    let pom = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/kafka/pom.xml");
    let pom = std::fs::read_to_string(pom).unwrap();
    let (_, version) = pom.split_once("<kafka.version>").unwrap();
    version.split_once('<').unwrap().0.to_owned()
}

fn start_kafka(version: &str) -> KafkaBroker {
    let session = [("group.consumer.session.timeout.ms", SESSION_MS)];
    if version == usual_kafka() {
        return KafkaBroker::start_with(&session);
    }
    KafkaBroker::start_version(version.to_owned().leak(), &session, &[])
}

/// The protocols of groups that brokers of this version have.
fn protocols(version: &str) -> &'static [&'static str] {
    let major: u32 = version.split('.').next().unwrap().parse().unwrap();
    if major < 4 { &["classic"] } else { &["classic", "consumer"] }
}

/// What a server calls itself.
fn name_of(server: &RedisServer) -> String {
    let info: String = ::redis::cmd("INFO").arg("server").query(&mut server.connection()).unwrap();
    let field = |name: &str| info.lines().find_map(|line| line.trim().strip_prefix(name));
    match field("valkey_version:") {
        Some(version) => format!("Valkey {version}"),
        None => format!("Redis {}", field("redis_version:").unwrap()),
    }
}

#[track_caller]
fn succeeds(config: &ServiceConfig, arguments: &[&str]) -> String {
    let output = run(config, arguments);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}{complained}");
    said
}

/// Two members share the partitions, one is killed, and no change is lost or doubled.
fn works(broker: &KafkaBroker, redis: &RedisServer, protocol: &str) {
    let topics = ServiceTopics::named(&broker.unique(&format!("compat-{protocol}")), PARTITIONS);
    let config = ServiceConfig::new(broker, &topics)
        .redis(&redis.url())
        .set("redis.prefix", "ds:")
        .set("kafka.group_protocol", protocol)
        // The transaction that the killed one left open ends after ten seconds.
        .announce(&["cannot resolve the start offsets"]);
    let config = match protocol {
        "classic" => config.set("kafka.properties.session.timeout.ms", SESSION_MS),
        _ => config,
    };
    succeeds(&config, &["topics", "create"]);
    // Created is not yet led: a broker that is busy refuses questions until then.
    for topic in [&topics.lifecycle, &topics.vpn_sessions, &topics.heartbeats, &topics.changelog] {
        broker.read_committed(topic, SOON);
    }
    succeeds(&config, &["config", "check", "--connect"]);

    let other = config.clone().set("admin.listen", format!("127.0.0.1:{}", free_port()));
    let mut killed = DeviceStatus::start_ready(&config);
    let mut left = DeviceStatus::start(&other);
    let mut traffic = Traffic::new(broker, &topics, 40);
    let shards = |service: &DeviceStatus| service.metric("device_status_shards", "running");
    traffic.flow_until("two shards each, running", || {
        [&killed, &left].iter().all(|service| shards(service) == Some(2.0))
    });
    traffic.flow_for(5);
    killed.kill();
    traffic.flow_until("the other to take over", || shards(&left) == Some(f64::from(PARTITIONS)));
    let mut returned = DeviceStatus::start(&config);
    traffic.flow_until("the killed one to be back", || shards(&returned) == Some(2.0));
    left.wait_ready(SOON);
    returned.wait_ready(SOON);
    traffic.flow_for(5);
    traffic.assert_each_change_once(broker);

    let version = traffic.rounds().to_string();
    for device in traffic.devices() {
        redis.wait_for_fields(device, TAKEOVER, &[("version", &version)]);
    }
    let device = &traffic.devices()[0];
    let shown: serde_json::Value =
        serde_json::from_str(&succeeds(&config, &["get", "--json", device])).unwrap();
    assert_eq!(shown["version"].to_string(), version, "{shown}");
    assert!(returned.terminate().success());
    assert!(left.terminate().success());
}

#[test]
fn each_supported_version_of_kafka_redis_and_valkey_keeps_the_promises() {
    let kafkas = match words("COMPAT_KAFKA") {
        named if named.is_empty() => vec![usual_kafka()],
        named => named,
    };
    let redises: Vec<OsString> = match words("COMPAT_REDIS") {
        named if named.is_empty() => vec![redis::program()],
        named => named.into_iter().map(OsString::from).collect(),
    };
    let mut table = String::new();
    let mut failed = 0;
    for version in &kafkas {
        let broker = start_kafka(version);
        for program in &redises {
            for protocol in protocols(version) {
                // Each group has a Redis of its own: a prefix belongs to one group.
                let redis = RedisServer::start_other(program);
                let what = format!("Kafka {version:6}  {:14}  {protocol:8}", name_of(&redis));
                let attempt = || works(&broker, &redis, protocol);
                let result = match catch_unwind(AssertUnwindSafe(attempt)) {
                    Ok(()) => "passed",
                    Err(_) => {
                        failed += 1;
                        "FAILED"
                    }
                };
                eprintln!("{what}  {result}");
                table += &format!("{what}  {result}\n");
            }
        }
    }
    println!("\n{table}");
    assert_eq!(failed, 0, "\n{table}");
}
