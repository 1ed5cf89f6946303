//! Credentials that change while the service runs: tokens of a program, and a password
//! in a file, on a broker whose sessions end after seconds.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::security::documented;
use crate::support::events::{self, device_id};
use crate::support::kafka::{Isolation, ServiceTopics};
use crate::support::redis::RedisServer;
use crate::support::secure::SecureBroker;
use crate::support::service::{DeviceStatus, run};
use crate::support::wait::{now_ms, wait_for};
use device_status::wire::proto::v1::StatusChanged;

const SOON: Duration = Duration::from_secs(60);

/// A broker that asks each connection to sign in again every few seconds.
fn broker() -> &'static SecureBroker {
    static SHARED: OnceLock<SecureBroker> = OnceLock::new();
    let users = [("rotated", "hunter2-before"), ("signer", "-")];
    SHARED
        .get_or_init(|| SecureBroker::start_with(&users, &[("connections.max.reauth.ms", "5000")]))
}

fn topics_for(user: &str, name: &str) -> ServiceTopics {
    let topics = broker().broker.service_topics(name, 1);
    for acl in documented(&topics) {
        broker().allow(user, &acl);
    }
    topics
}

/// Waits until a device's first heartbeat has become a change.
#[track_caller]
fn assert_changes(topics: &ServiceTopics, device: u64) {
    let broker = &broker().broker;
    let device = device_id(device);
    let producer = broker.producer();
    producer.send(topics, [events::heartbeat(&device, now_ms())]);
    producer.flush();
    let mut changes = broker.reader(&topics.status_changes, Isolation::ReadCommitted);
    changes.read_until(SOON, "the device's change", |records| {
        records.iter().any(|record| record.decode::<StatusChanged>().device_id == device)
    });
}

/// Writes a program that notes each token that it prints in `tokens`.
fn program(name: &str, script: &str) -> PathBuf {
    let path = broker().file(name);
    // Not written in place: it may be running.
    let new = broker().file(&format!("{name}.new"));
    std::fs::write(&new, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(&new, &path).unwrap();
    path
}

/// Prints a token of this many seconds, as the broker of the harness takes it.
fn signer(tokens: &Path, seconds: u32) -> String {
    format!(
        r#"now=$(date +%s)
expires=$((now + {seconds}))
encode() {{ printf %s "$1" | base64 -w0 | tr '+/' '-_' | tr -d '='; }}
claims="{{\"sub\":\"signer\",\"iat\":$now,\"exp\":$expires,\"scope\":\"kafka\"}}"
token="$(encode '{{"alg":"none"}}').$(encode "$claims")."
echo "$token" >>{tokens}
printf '{{"token":"%s","expires_at":%s000,"principal":"%s"}}' "$token" "$expires" "$1""#,
        tokens = tokens.display()
    )
}

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn tokens_of_a_program_are_renewed_and_its_errors_are_told() {
    let topics = topics_for("signer", "signed");
    let redis = RedisServer::start();
    let tokens = broker().file("tokens");
    let path = program("signer.sh", &signer(&tokens, 10));
    let command = |path: &Path| vec![path.display().to_string(), "signer".to_owned()];
    let config = broker()
        .config(&topics, "signer")
        .redis(&redis.url())
        .set("kafka.properties.sasl.mechanism", "OAUTHBEARER")
        .set("kafka.oauth_command", command(&path))
        // librdkafka's own log, in which no token may be.
        .set("kafka.properties.debug", "security")
        .set("log.level", "trace");
    wait_for(SOON, "the permissions to be in force", || {
        let output = run(&config, &["config", "check", "--connect"]);
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() { Ok(()) } else { Err(told) }
    });
    let at_first = lines(&tokens).len();
    let mut service = DeviceStatus::start_ready(&config);
    assert_changes(&topics, 1);
    wait_for(SOON, "three tokens, of which the first has expired", || {
        let made = lines(&tokens).len() - at_first;
        if made >= 3 { Ok(()) } else { Err(format!("{made}")) }
    });
    assert_changes(&topics, 2);
    service.assert_log_as_announced();

    // While the program fails, the last token expires.
    let expired = ["no new token for Kafka", "OAUTHBEARER", "SASL", "token", "Kafka"];
    service.announce(&expired);
    program("signer.sh", "echo 'no role for you' >&2; exit 3");
    service.process.wait_for_output(SOON, "ended with exit code 3: no role for you");
    let told = run(&config, &["topics", "check"]);
    assert_told(&told, 69, &["signer.sh", "exit code 3: no role for you", "run it by hand"]);
    program("signer.sh", &signer(&tokens, 10));
    assert_changes(&topics, 3);
    assert!(service.terminate().success());
    let output = service.process.output();
    for token in lines(&tokens) {
        assert!(!output.contains(&token), "{token} is told");
    }

    let with = |path: &Path| config.clone().set("kafka.oauth_command", command(path));
    let chatty = program("chatty.sh", "echo hunter2");
    let told = run(&with(&chatty), &["topics", "check"]);
    assert_told(&told, 78, &["chatty.sh", "one JSON object"]);
    let told = run(&with(Path::new("/no/such/program")), &["topics", "check"]);
    assert_told(&told, 78, &["/no/such/program", "cannot be run"]);
    let slow = program("slow.sh", "echo waits >&2; exec sleep 60");
    let told = run(&with(&slow), &["topics", "check"]);
    assert_told(&told, 69, &["slow.sh", "no end within 10 s: waits"]);
}

#[track_caller]
fn assert_told(output: &std::process::Output, code: i32, words: &[&str]) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{told}");
    for word in words {
        assert!(told.contains(word), "{told}\nlacks {word}");
    }
    assert!(!told.contains("hunter2"), "{told}");
}

#[test]
fn a_rotated_password_is_read_again_from_its_file() {
    let topics = topics_for("rotated", "rotated");
    let redis = RedisServer::start();
    let config = broker().config(&topics, "rotated").redis(&redis.url());
    wait_for(SOON, "the permissions to be in force", || {
        let output = run(&config, &["config", "check", "--connect"]);
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() { Ok(()) } else { Err(told) }
    });
    let mut service = DeviceStatus::start_ready(&config);
    assert_changes(&topics, 4);
    // Each client may be refused until it has the new password.
    let refused = ["SASL", "uthentication", "Authentication", "commit", "Kafka", "producer"];
    service.announce(&refused);
    set_password("rotated", "hunter2-after");
    service.process.wait_for_output(SOON, "uthentication");
    std::fs::write(broker().file("rotated.password"), "hunter2-after\n").unwrap();
    assert_changes(&topics, 5);
    service.wait_ready(SOON);
    assert!(service.terminate().success());
    let output = service.process.output();
    assert!(output.contains("user and password in files have changed"), "{output}");
    assert!(!output.contains("hunter2"), "the password is told");
}

/// Gives a user of SCRAM another password, with Kafka's own tool.
fn set_password(user: &str, password: &str) {
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/kafka/lib/*");
    let output = Command::new("java")
        .arg("-cp")
        .arg(lib)
        .args(["kafka.admin.ConfigCommand", "--bootstrap-server", &broker().broker.address()])
        .args(["--alter", "--entity-type", "users", "--entity-name", user])
        .args(["--add-config", &format!("SCRAM-SHA-512=[password={password}]")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}
