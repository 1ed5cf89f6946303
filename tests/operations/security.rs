//! A broker that asks who comes: TLS, SASL, ACLs, and secrets that stay secret.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Output;
use std::sync::OnceLock;
use std::time::Duration;

use crate::support::events::{self, device_id};
use crate::support::kafka::{Isolation, ServiceTopics};
use crate::support::redis::RedisServer;
use crate::support::secure::{Acl, AclOperation, CLIENT, Resource, SecureBroker};
use crate::support::service::{DeviceStatus, ServiceConfig, run};
use crate::support::wait::{now_ms, wait_for};
use device_status::wire::proto::v1::StatusChanged;

const SOON: Duration = Duration::from_secs(30);
const USER: &str = "device-status";
const PASSWORD: &str = "hunter2-of-the-service";

/// One for all tests of this file, each with topics and a user of its own.
fn broker() -> &'static SecureBroker {
    static SHARED: OnceLock<SecureBroker> = OnceLock::new();
    SHARED.get_or_init(|| {
        SecureBroker::start(&[
            (USER, PASSWORD),
            ("oauth", "-"),
            ("deployer", "hunter3"),
            ("support", "hunter5"),
            ("unaware", "hunter6"),
        ])
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The table of docs/security.md, for these topics.
pub(crate) fn documented(topics: &ServiceTopics) -> Vec<Acl> {
    let page = include_str!("../../docs/security.md");
    let section = page.split("\n## ").find(|section| section.starts_with("Least perm")).unwrap();
    let mut acls = Vec::new();
    for row in section.lines() {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, on, name, operations, _] = cells[..] else { continue };
        let resource = match on {
            "Topic" => Resource::Topic,
            "Group" => Resource::Group,
            "TransactionalId" => Resource::TransactionalId,
            _ => continue,
        };
        let default = name.split('`').nth(1).unwrap();
        let name = match default {
            "device-heartbeats" => topics.heartbeats.clone(),
            "device-vpn-sessions" => topics.vpn_sessions.clone(),
            "device-lifecycle" => topics.lifecycle.clone(),
            "device-status-changelog" => topics.changelog.clone(),
            "device-status-changes" => topics.status_changes.clone(),
            "device-status-dead-letters" => topics.dead_letters.clone(),
            "device-status" => topics.group.clone(),
            "device-status-" => format!("{}-", topics.group),
            other => panic!("{other} is no default name"),
        };
        for operation in operations.split(", ") {
            let operation = match operation {
                "Read" => AclOperation::Read,
                "Write" => AclOperation::Write,
                "DescribeConfigs" => AclOperation::DescribeConfigs,
                other => panic!("{other}?"),
            };
            let (name, prefixed) = (name.clone(), row.contains("(prefixed)"));
            acls.push(Acl { resource, name, prefixed, operation });
        }
    }
    assert_eq!(acls.len(), 15, "{acls:?}");
    acls
}

fn assert_no_secret(text: &str) {
    for secret in [PASSWORD, "hunter", "s3cret"] {
        assert!(!text.contains(secret), "{secret} is told:\n{text}");
    }
}

/// Runs a service until it has written a change, and looks for secrets.
#[track_caller]
fn assert_serves(config: &ServiceConfig, topics: &ServiceTopics) {
    let broker = &broker().broker;
    let mut service = DeviceStatus::start_ready(config);
    let producer = broker.producer();
    let device = device_id(u64::from(service.process.id()));
    producer.send(topics, [events::heartbeat(&device, now_ms())]);
    producer.flush();
    let mut changes = broker.reader(&topics.status_changes, Isolation::ReadCommitted);
    changes.read_until(SOON, "the device's change", |records| {
        records.iter().any(|record| record.decode::<StatusChanged>().device_id == device)
    });
    let (status, metrics) = service.get("/metrics").unwrap();
    assert_eq!(status, 200);
    assert_no_secret(&metrics);
    assert!(service.terminate().success());
    assert_no_secret(&service.process.output());
}

#[test]
fn the_documented_permissions_are_enough_and_each_is_needed() {
    let broker = broker();
    let topics = broker.broker.service_topics("secured", 2);
    let redis = RedisServer::start();
    let acls = documented(&topics);
    for acl in &acls {
        broker.allow(USER, acl);
    }
    let config = broker.config(&topics, USER).redis(&redis.url());
    let check = || run(&config, &["config", "check", "--connect", "--json"]);
    wait_for(SOON, "all permissions to be in force", || {
        let output = check();
        if output.status.success() { Ok(()) } else { Err(text(&output.stdout)) }
    });
    // librdkafka's own log of security, too.
    let verbose = config.clone().set("kafka.properties.debug", "security,broker,conf");
    assert_serves(&verbose.set("log.level", "trace"), &topics);

    for acl in &acls {
        broker.forbid(USER, acl);
        let operation = format!("{:?}", acl.operation);
        // That what was missing before is back, and that this is not any more,
        // takes the broker a moment.
        let (output, problem) = wait_for(SOON, &format!("nothing to lack but {acl:?}"), || {
            let output = check();
            let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            let checks = told["checks"].as_array().unwrap();
            let problems: Vec<&str> =
                checks.iter().filter_map(|check| check["problem"].as_str()).collect();
            match problems[..] {
                [problem] if problem.contains(&acl.name) => Ok((output, problem.to_owned())),
                _ => Err(format!("{problems:?}")),
            }
        });
        assert_eq!(output.status.code(), Some(69), "{output:?}");
        for word in [&format!("--operation {operation}"), "kafka-acls.sh", "User:device-status"] {
            assert!(problem.contains(word), "without {acl:?}: {problem}");
        }
        if acl.name == topics.changelog || acl.resource != Resource::Topic {
            let mut service = DeviceStatus::start(&config);
            if acl.resource == Resource::TransactionalId {
                service.announce(&["Kafka refuses transactions"]);
            }
            assert_eq!(service.process.wait(SOON).code(), Some(69), "without {acl:?}");
            // What it printed may come a moment later than its end; and librdkafka
            // has errors of its own to tell on the way.
            let error = wait_for(SOON, "its last words", || {
                let output = service.process.output();
                let said = output.lines().any(|line| line.starts_with("error: "));
                if said { Ok(output) } else { Err(output) }
            });
            assert!(error.contains(&acl.name) && error.contains(&operation), "{error}");
        }
        broker.allow(USER, acl);
    }
}

#[track_caller]
fn assert_told(output: &Output, code: i32, words: &[&str]) {
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{told}");
    for word in words {
        assert!(told.contains(word), "{told}\nlacks {word}");
    }
    assert_no_secret(&told);
}

#[test]
fn what_is_wrong_with_the_connection_is_told_with_the_key_to_set() {
    let broker = broker();
    let topics = ServiceTopics::named("nothing", 1);
    let config = || broker.config(&topics, USER);
    let path = |name: &str| broker.file(name).display().to_string();

    let other_ca = config().set("kafka.properties.ssl.ca.location", path("other-ca.pem"));
    assert_told(&run(&other_ca, &["topics", "check"]), 78, &["kafka.properties.ssl.ca.location"]);
    assert_told(&run(&other_ca, &["simulate"]), 78, &["kafka.properties.ssl.ca.location"]);

    let other_password = broker.file("wrong.password");
    std::fs::write(&other_password, "hunter4\n").unwrap();
    let wrong =
        config().set("kafka.properties.sasl.password_file", other_password.display().to_string());
    let words = ["invalid credentials", "kafka.properties.sasl.password"];
    assert_told(&run(&wrong, &["topics", "check"]), 78, &words);

    let plain = config().set("kafka.properties.security.protocol", "plaintext");
    let words = ["kafka.properties.security.protocol", "sasl_ssl"];
    assert_told(&run(&plain, &["topics", "check"]), 69, &words);

    let tls_to_plain = config().set("kafka.brokers", broker.broker.address());
    assert_told(&run(&tls_to_plain, &["topics", "check"]), 69, &["may not use TLS"]);

    let by_address =
        config().set("kafka.brokers", broker.address().replace("localhost", "127.0.0.1"));
    assert_told(&run(&by_address, &["topics", "check"]), 78, &["names in kafka.brokers"]);

    let mechanism = config().set("kafka.properties.sasl.mechanism", "SCRAM-SHA-256");
    assert_told(&run(&mechanism, &["topics", "check"]), 78, &["kafka.properties.sasl.mechanism"]);

    // A stranger with a right password sees nothing.
    let output = run(&config(), &["config", "check", "--connect"]);
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    let told = text(&output.stdout);
    assert!(told.contains("problem  topic nothing-changelog"), "{told}");
    assert!(
        told.contains("this client is not authorized to Read, Write, DescribeConfigs it"),
        "{told}"
    );
    assert!(told.contains("problem  Redis at redis://127.0.0.1:1"), "{told}");
}

#[test]
fn an_event_is_sent_by_hand_with_the_permission_to_write_its_topic_alone() {
    let broker = broker();
    let topics = broker.broker.service_topics("sent-by-hand", 2);
    let config = broker.config(&topics, "support");
    let send = ["send", "heartbeat", "by-hand"];
    assert_told(&run(&config, &send), 69, &[&topics.heartbeats]);
    let name = topics.heartbeats.clone();
    let operation = AclOperation::Write;
    let write = Acl { resource: Resource::Topic, name, prefixed: false, operation };
    broker.allow("support", &write);
    wait_for(SOON, "the event to be taken", || {
        let output = run(&config, &send);
        if output.status.success() { Ok(()) } else { Err(text(&output.stderr)) }
    });
    let mut sent = broker.broker.reader(&topics.heartbeats, Isolation::ReadCommitted);
    assert_eq!(sent.read_count(SOON, 1)[0].key_text(), "by-hand");
    broker.forbid("support", &write);
}

#[test]
fn topics_are_created_with_the_permission_to_create_alone() {
    let broker = broker();
    let topics = ServiceTopics::named("deployed", 2);
    let acl = |resource, name: &str, prefixed, operation| {
        broker.allow("deployer", &Acl { resource, name: name.to_owned(), prefixed, operation });
    };
    let config = broker.config(&topics, "deployer");
    let output = run(&config, &["topics", "create"]);
    assert_told(&output, 69, &["allow this client to create topics"]);
    acl(Resource::Cluster, "kafka-cluster", false, AclOperation::Create);
    acl(Resource::Topic, "deployed-", true, AclOperation::Describe);
    wait_for(SOON, "the topics to be created", || {
        let output = run(&config, &["topics", "create"]);
        if output.status.success() { Ok(()) } else { Err(text(&output.stderr)) }
    });
}

#[test]
fn settings_of_topics_that_are_hidden_are_named_in_a_warning() {
    let broker = broker();
    let topics = broker.broker.service_topics("unverified", 1);
    let redis = RedisServer::start();
    for acl in documented(&topics) {
        if acl.operation != AclOperation::DescribeConfigs {
            broker.allow("unaware", &acl);
        }
    }
    let config = broker.config(&topics, "unaware").redis(&redis.url());
    let unverified = config.clone().set("topics.unverified", true);
    let told = wait_for(SOON, "the permissions to be in force", || {
        let output = run(&unverified, &["config", "check", "--connect"]);
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stdout)) }
    });
    let changelog = "message.timestamp.type=LogAppendTime, cleanup.policy=compact";
    assert!(told.contains(&format!("not checked: {changelog}")), "{told}");
    let words = ["DescribeConfigs", "topics.unverified = true"];
    assert_told(&run(&config, &["topics", "check"]), 69, &words);
    let told = run(&unverified, &["topics", "check"]);
    assert!(told.status.success(), "{told:?}");
    let told = text(&told.stdout);
    assert!(told.contains(&format!("not checked: {}: {changelog}", topics.changelog)), "{told}");
    // Without the announced warning, the test fails at the end of the service.
    let warning = "cannot check the settings of the topics";
    let mut service = DeviceStatus::start_ready(&unverified.clone().announce(&[warning]));
    let log = service.process.output();
    assert!(log.contains(warning) && log.contains(changelog), "{log}");
    assert!(service.terminate().success());
    assert_serves(&unverified.announce(&[warning]), &topics);
}

#[test]
fn topics_are_created_without_the_settings_that_are_left_out() {
    let broker = &broker().broker;
    let topics = ServiceTopics::named("bare", 2);
    let config = ServiceConfig::new(broker, &topics);
    let create = ["topics", "create", "--without"];
    let refused = run(&config, &[&create[..], &["cleanup.policy"]].concat());
    assert_told(&refused, 2, &["cleanup.policy", "min.cleanable.dirty.ratio"]);
    let output = run(&config, &[&create[..], &["segment.bytes,retention.ms"]].concat());
    assert!(output.status.success(), "{output:?}");
    let changelog = broker.topic_settings(&topics.changelog);
    assert_eq!(changelog["segment.bytes"], "1073741824");
    assert_eq!(changelog["min.cleanable.dirty.ratio"], "0.2");
    assert_eq!(changelog["cleanup.policy"], "compact");
    // The harness's broker keeps everything.
    assert_eq!(broker.topic_settings(&topics.heartbeats)["retention.ms"], "-1");
    assert!(run(&config, &["topics", "check"]).status.success());
}

#[test]
fn plain_and_oauthbearer_serve_as_scram_does() {
    let broker = broker();
    let redis = RedisServer::start();
    let topics = broker.broker.service_topics("mechanisms", 1);
    for user in [USER, "oauth"] {
        for acl in documented(&topics) {
            broker.allow(user, &acl);
        }
    }
    let config = || broker.config(&topics, USER).redis(&redis.url());
    let plain = config().set("kafka.properties.sasl.mechanism", "PLAIN");
    wait_for(SOON, "the permissions to be in force", || {
        let output = run(&plain, &["config", "check", "--connect"]);
        if output.status.success() { Ok(()) } else { Err(text(&output.stdout)) }
    });
    assert_serves(&plain, &topics);

    let secret = broker.file("client.secret");
    std::fs::write(&secret, "s3cret\n").unwrap();
    let oauth = broker
        .config(&topics, "oauth")
        .redis(&redis.url())
        .set("kafka.properties.sasl.mechanism", "OAUTHBEARER")
        .set("kafka.properties.sasl.oauthbearer.method", "oidc")
        .set("kafka.properties.sasl.oauthbearer.client.id", "oauth")
        .set("kafka.properties.sasl.oauthbearer.client.secret_file", secret.display().to_string())
        .set("kafka.properties.sasl.oauthbearer.token.endpoint.url", issuer("oauth"));
    assert_serves(&oauth, &topics);
    let nobody = oauth
        .set("kafka.properties.sasl.oauthbearer.token.endpoint.url", "http://127.0.0.1:1/token");
    assert_told(&run(&nobody, &["topics", "check"]), 78, &["token.endpoint.url"]);
}

#[test]
fn a_certificate_is_enough_and_what_is_wrong_with_it_is_told() {
    let broker = broker();
    let redis = RedisServer::start();
    let topics = broker.broker.service_topics("certified", 1);
    for acl in documented(&topics) {
        broker.allow(CLIENT, &acl);
    }
    let nobody = broker.certificate_config(&topics).redis(&redis.url());
    let comes_as = |key: &str, certificate: &str| {
        let path = |name: &str| broker.file(name).display().to_string();
        nobody
            .clone()
            .set("kafka.properties.ssl.key.location", path(key))
            .set("kafka.properties.ssl.certificate.location", path(certificate))
    };
    let certified = comes_as("certified.key", "certified.pem");
    wait_for(SOON, "the permissions to be in force", || {
        let output = run(&certified, &["config", "check", "--connect"]);
        if output.status.success() { Ok(()) } else { Err(text(&output.stdout)) }
    });
    assert_serves(&certified, &topics);

    let keys = ["kafka.properties.ssl.certificate.location", "kafka.properties.ssl.key.location"];
    assert_told(&run(&nobody, &["topics", "check"]), 78, &keys);
    let stranger = comes_as("stranger.key", "stranger.pem");
    assert_told(&run(&stranger, &["topics", "check"]), 78, &keys);
    let mixed_up = comes_as("stranger.key", "certified.pem");
    assert_told(
        &run(&mixed_up, &["topics", "check"]),
        78,
        &["ssl.key.location", "[kafka.properties]"],
    );
}

#[test]
fn who_asks_about_a_device_needs_what_is_documented() {
    let broker = broker();
    let topics = broker.broker.service_topics("asked", 1);
    let service = ServiceConfig::new(&broker.broker, &topics).set("log.level", "warn");
    let mut running = DeviceStatus::start(&service);
    let producer = broker.broker.producer();
    producer.send(&topics, [events::heartbeat("oven", now_ms())]);
    producer.flush();
    let mut changes = broker.broker.reader(&topics.status_changes, Isolation::ReadCommitted);
    changes.read_count(SOON, 1);
    assert!(running.terminate().success());

    let asking = broker.config(&topics, "support").set("log.level", "error");
    let asking = asking.announce(&["GroupAuthorizationFailed"]);
    let acl = |resource, name: &str, operation| Acl {
        resource,
        name: name.to_owned(),
        prefixed: false,
        operation,
    };
    let topic = |name: &str| acl(Resource::Topic, name, AclOperation::Read);
    let works = |command: &'static str| {
        move |config: &ServiceConfig| {
            let output = run(config, &[command, "oven"]);
            if output.status.success() { Ok(()) } else { Err(text(&output.stderr)) }
        }
    };
    let for_history = [topic(&topics.status_changes)];
    let for_explain = [
        topic(&topics.lifecycle),
        topic(&topics.vpn_sessions),
        topic(&topics.heartbeats),
        topic(&topics.changelog),
        acl(Resource::Group, &topics.group, AclOperation::Describe),
    ];
    for (command, needed) in [("history", &for_history[..]), ("explain", &for_explain[..])] {
        for acl in needed {
            let told = wait_for(SOON, &format!("{command} to miss {acl:?}"), || {
                let output = run(&asking, &[command, "oven"]);
                let told = text(&output.stderr);
                if told.contains(&acl.name) { Ok((output, told)) } else { Err(told) }
            });
            assert_eq!(told.0.status.code(), Some(69), "without {acl:?}: {}", told.1);
            broker.allow("support", acl);
        }
        wait_for(SOON, command, || works(command)(&asking));
    }
}

/// Issues unsigned tokens for `subject` to who has the secret; its URL.
fn issuer(subject: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut request = [0; 4_096];
            let length = stream.read(&mut request).unwrap_or(0);
            let request = text(&request[..length]);
            // oauth:s3cret, by HTTP's basic authentication.
            let known = request.contains("Basic b2F1dGg6czNjcmV0");
            let now = now_ms() / 1_000;
            let claims = format!(
                r#"{{"sub":"{subject}","iat":{now},"exp":{},"scope":"kafka"}}"#,
                now + 3_600
            );
            let token = format!("{}.{}.", base64url(r#"{"alg":"none"}"#), base64url(&claims));
            let body = format!(r#"{{"access_token":"{token}","token_type":"Bearer"}}"#);
            let status = if known { "200 OK" } else { "401 Unauthorized" };
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
                 Connection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    url
}

fn base64url(text: &str) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let encode = |three: &[u8]| {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        let digit = |place: usize| DIGITS[(bits >> (18 - 6 * place)) as usize & 63] as char;
        (0..=three.len()).map(digit).collect::<String>()
    };
    text.as_bytes().chunks(3).map(encode).collect()
}

#[test]
fn kerberos_is_built_in() {
    let keytab = tempfile::NamedTempFile::new().unwrap();
    let config = ServiceConfig::default()
        .set("kafka.properties.security.protocol", "sasl_ssl")
        .set("kafka.properties.sasl.kerberos.keytab", keytab.path().display().to_string())
        .set("kafka.properties.sasl.kerberos.kinit.cmd", "true")
        .set("kafka.properties.sasl.mechanism", "GSSAPI")
        .set("kafka.brokers", "127.0.0.1:1");
    // It gets as far as connecting.
    let told = text(&run(&config, &["topics", "check"]).stderr);
    assert!(told.contains("Connection refused"), "{told}");
}
