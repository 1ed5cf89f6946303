//! The service of the Debian package, in a system that has only that. A part of
//! `make test-all`: scripts/check-package.sh makes the system, and names it in
//! `PACKAGE_ROOT`.

use std::process::Command;
use std::time::Duration;

use crate::support::events::{device_id, registered};
use crate::support::kafka::KafkaBroker;
use crate::support::process::{Process, free_port};
use crate::support::redis::RedisServer;
use crate::support::service::ask;
use crate::support::wait::{now_ms, wait_for};

const SOON: Duration = Duration::from_secs(60);

#[test]
fn the_service_of_the_package_does_its_work_as_its_own_user() {
    let Some(root) = std::env::var_os("PACKAGE_ROOT") else {
        println!("left out: PACKAGE_ROOT is not set (make check-package)");
        return;
    };
    let broker = KafkaBroker::shared();
    let redis = RedisServer::start();
    let topics = broker.service_topics("package", 1);
    let admin = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new("chroot");
    command.args(["--userspec=device-status:device-status"]).arg(root);
    command.args(["device-status", "--config", "/etc/device-status/device-status.toml", "run"]);
    for (key, value) in [
        ("KAFKA__BROKERS", broker.address()),
        ("KAFKA__GROUP", topics.group.clone()),
        ("TOPICS__HEARTBEATS", topics.heartbeats.clone()),
        ("TOPICS__VPN_SESSIONS", topics.vpn_sessions.clone()),
        ("TOPICS__LIFECYCLE", topics.lifecycle.clone()),
        ("TOPICS__STATUS_CHANGES", topics.status_changes.clone()),
        ("TOPICS__DEAD_LETTERS", topics.dead_letters.clone()),
        ("TOPICS__CHANGELOG", topics.changelog.clone()),
        ("TOPICS__PARTITIONS", "1".to_owned()),
        ("TOPICS__REPLICATION_FACTOR", "1".to_owned()),
        ("REDIS__URL", redis.url()),
        ("ADMIN__LISTEN", admin.clone()),
    ] {
        command.env(format!("DEVICE_STATUS_{key}"), value);
    }
    let mut service = Process::spawn("device-status", command);
    wait_for(SOON, "the service to be ready", || match ask(&admin, "/ready") {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.id())).unwrap();
    let user = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    assert!(!user.split_whitespace().any(|id| id == "0"), "{user}");
    let device = device_id(1);
    let producer = broker.producer();
    producer.send(&topics, [registered(&device, now_ms(), "red", "acme")]);
    producer.flush();
    redis.wait_for_fields(&device, SOON, &[("fleet", "red")]);
    assert_eq!(service.terminate(SOON).code(), Some(0));
}
