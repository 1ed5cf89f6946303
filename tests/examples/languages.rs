//! The examples in other languages do what they say, against a real Kafka, a real Redis
//! and the service, and the documentation shows them as they are.
//!
//! `WITHOUT_EXAMPLES=1` leaves out what needs the packages of these languages.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::events::device_id;
use crate::support::kafka::{KafkaBroker, ServiceTopics};
use crate::support::process::Process;
use crate::support::redis::RedisServer;
use crate::support::redis_tls::TlsServer;
use crate::support::secure::{Acl, AclOperation, Resource, SecureBroker};
use crate::support::service::{DeviceStatus, ServiceConfig};
use crate::support::wait::wait_for;

const SOON: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 5;

/// A language, as somebody who runs its examples sees it.
struct Language {
    name: &'static str,
    interpreter: PathBuf,
    folder: PathBuf,
    extension: &'static str,
}

impl Language {
    fn all() -> [Language; 2] {
        let made = root().join("target/examples");
        [
            Language {
                name: "python",
                interpreter: made.join("python/bin/python"),
                folder: root().join("examples/python"),
                extension: "py",
            },
            Language {
                name: "node",
                interpreter: PathBuf::from("node"),
                folder: made.join("node"),
                extension: "js",
            },
        ]
    }

    fn command(&self, example: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.interpreter);
        command.arg(self.folder.join(format!("{example}.{}", self.extension))).args(arguments);
        command.env("PYTHONPATH", root().join("target/examples/messages"));
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("PROTO", root().join("proto"));
        command
    }

    fn read(&self, redis: &RedisServer, arguments: &[&str]) -> Command {
        let mut command = self.command("read_redis", arguments);
        command.env("REDIS_URL", redis.url());
        command
    }

    fn produce(
        &self,
        broker: &KafkaBroker,
        topics: &ServiceTopics,
        device: &str,
        fleet: &str,
    ) -> Command {
        let mut command = self.command("produce_events", &[device, fleet]);
        command.env("KAFKA_BROKERS", broker.address());
        name_topics(&mut command, topics);
        command
    }
}

fn name_topics(command: &mut Command, topics: &ServiceTopics) {
    command.env("HEARTBEATS_TOPIC", &topics.heartbeats);
    command.env("VPN_TOPIC", &topics.vpn_sessions);
    command.env("LIFECYCLE_TOPIC", &topics.lifecycle);
    command.env("CHANGES_TOPIC", &topics.status_changes);
}

/// The producer in Java.
fn java(device: &str, fleet: &str, topics: &ServiceTopics) -> Command {
    let made = root().join("target/examples/java");
    let mut command = Command::new("java");
    let path = format!("{0}/classes:{0}/lib/*", made.display());
    command.args(["-cp", &path, "ProduceEvents", device, fleet]);
    name_topics(&mut command, topics);
    command
}

/// The reader in Go.
fn go(arguments: &[&str], topics: &ServiceTopics) -> Command {
    let mut command = Command::new(root().join("target/examples/go/read_statuses"));
    command.args(arguments);
    name_topics(&mut command, topics);
    command
}

/// Fetches and builds what the examples need; false: they are left out.
#[track_caller]
fn prepared() -> bool {
    if std::env::var_os("WITHOUT_EXAMPLES").is_some() {
        println!("left out, because WITHOUT_EXAMPLES is set");
        return false;
    }
    printed(Command::new(root().join("scripts/examples.sh"))).unwrap_or_else(|error| {
        panic!("{error}\nWithout a network, WITHOUT_EXAMPLES=1 leaves this test out.")
    });
    true
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a command to its end, and returns what it printed.
#[track_caller]
fn printed(mut command: Command) -> Result<String, String> {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => Ok(text.trim_end().to_owned()),
        false => Err(format!("{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr))),
    }
}

#[test]
fn the_examples_in_python_and_node_produce_events_and_read_statuses() {
    if !prepared() {
        return;
    }
    let broker = KafkaBroker::shared();
    let redis = RedisServer::start();
    let topics = broker.service_topics("examples", PARTITIONS);
    let config = ServiceConfig::new(broker, &topics).redis(&redis.url());
    let service = DeviceStatus::start_ready(&config);

    for language in Language::all() {
        let fleet = format!("fleet of {}", language.name);
        let devices: Vec<String> = (0..3).map(|n| device_id(fleet.len() as u64 * 10 + n)).collect();

        // A follower is told of what happens after it has come.
        let mut follower = Process::spawn(language.name, language.read(&redis, &["follow"]));
        wait_for(SOON, "the follower to listen", || {
            let mut connection = redis.connection();
            let listeners: (String, usize) =
                redis::cmd("PUBSUB").arg(&["NUMSUB", "ds:changes"]).query(&mut connection).unwrap();
            if listeners.1 > 0 { Ok(()) } else { Err(follower.output()) }
        });
        for device in &devices {
            let told = printed(language.produce(broker, &topics, device, &fleet)).unwrap();
            assert_eq!(told, format!("told of {device}"));
        }
        for device in &devices {
            redis.wait_for_fields(device, SOON, &[("status", "online"), ("fleet", &fleet)]);
            let line = format!("{device}: Online (Heartbeat Only)");
            follower.wait_for_output(SOON, &line);
        }
        follower.kill();

        let since_ms = redis.fields(&devices[0])["since_ms"].clone();
        let expected = format!("{}: Online (Heartbeat Only) since {since_ms} (fresh)", devices[0]);
        eventually_prints(&expected, || language.read(&redis, &["device", &devices[0]]));
        let expected = format!("{fleet}: online 3 (fresh)");
        eventually_prints(&expected, || language.read(&redis, &["fleet", &fleet]));
        let unknown = printed(language.read(&redis, &["device", "nobody"])).unwrap_err();
        assert!(unknown.contains("nobody is not known"), "{unknown}");
    }
    // The broadcasts came without a key, the others to the partition of their key.
    assert_eq!(service.metric("device_status_dead_letters_total", ""), Some(0.0));

    // Nobody owns the partitions any more, and the readers are told so.
    drop(service);
    let mut connection = redis.connection();
    for partition in 0..PARTITIONS {
        let marker = format!("ds:partition:{partition}");
        let time_ms: i64 =
            redis::cmd("HGET").arg(&[&marker, "time_ms"]).query(&mut connection).unwrap();
        let earlier = (time_ms - 100_000).to_string();
        redis::cmd("HSET").arg(&[&marker, "time_ms", &earlier]).exec(&mut connection).unwrap();
    }
    for language in Language::all() {
        let fleet = format!("fleet of {}", language.name);
        let answer = printed(language.read(&redis, &["fleet", &fleet])).unwrap();
        assert!(answer.starts_with(&format!("{fleet}: online 3 (1")), "{answer}");
        assert!(answer.ends_with(" s old)"), "{answer}");
    }
    redis::cmd("DEL").arg("ds:partition:0").exec(&mut connection).unwrap();
    for language in Language::all() {
        let fleet = format!("fleet of {}", language.name);
        let answer = printed(language.read(&redis, &["fleet", &fleet])).unwrap();
        assert_eq!(answer, format!("{fleet}: online 3 (incomplete)"));
    }
}

#[test]
fn the_examples_of_all_languages_come_by_tls_and_sasl_from_the_environment() {
    if !prepared() {
        return;
    }
    const USER: (&str, &str) = ("example", "hunter2");
    let secure = SecureBroker::start(&[USER]);
    let topics = secure.broker.service_topics("secure-examples", PARTITIONS);
    for topic in [&topics.lifecycle, &topics.vpn_sessions, &topics.heartbeats] {
        for operation in [AclOperation::Write, AclOperation::Describe] {
            let (resource, name) = (Resource::Topic, topic.clone());
            secure.allow(USER.0, &Acl { resource, name, prefixed: false, operation });
        }
    }
    let (resource, name) = (Resource::Topic, topics.status_changes.clone());
    let operation = AclOperation::Read;
    secure.allow(USER.0, &Acl { resource, name, prefixed: false, operation });
    let tls = TlsServer::start(false, "127.0.0.1");
    let (redis, redis_url) = (&tls.server, tls.config().url);
    let by_tls = |mut command: Command| {
        command.env("KAFKA_BROKERS", secure.address());
        command.env("KAFKA_SECURITY_PROTOCOL", "SASL_SSL");
        command.env("KAFKA_CA_FILE", secure.file("ca.pem"));
        command.env("KAFKA_SASL_MECHANISM", "SCRAM-SHA-512");
        command.env("KAFKA_SASL_USERNAME", USER.0).env("KAFKA_SASL_PASSWORD", USER.1);
        command.env("REDIS_URL", &redis_url).env("REDIS_CA_FILE", tls.authority.ca_file());
        command
    };
    let config = ServiceConfig::new(&secure.broker, &topics).redis(&redis.url());
    let _service = DeviceStatus::start_ready(&config);

    let mut devices = Vec::new();
    let mut told = |name: &str, command: &dyn Fn(&str) -> Command| {
        let device = format!("{name}-device");
        assert_eq!(printed(by_tls(command(&device))).unwrap(), format!("told of {device}"));
        redis.wait_for_fields(&device, SOON, &[("status", "online"), ("fleet", "berlin")]);
        devices.push(device);
    };
    for language in Language::all() {
        let produce = |device: &str| language.produce(&secure.broker, &topics, device, "berlin");
        told(language.name, &produce);
    }
    told("java", &|device| java(device, "berlin", &topics));

    for device in &devices {
        let since_ms = redis.fields(device)["since_ms"].clone();
        let expected = format!("{device}: Online (Heartbeat Only) since {since_ms} (fresh)");
        for language in Language::all() {
            eventually_prints(&expected, || by_tls(language.read(redis, &["device", device])));
        }
        eventually_prints(&expected, || by_tls(go(&["device", device], &topics)));
    }
    let unknown = printed(by_tls(go(&["device", "nobody"], &topics))).unwrap_err();
    assert!(unknown.contains("nobody is not known"), "{unknown}");

    // Each change once, in the order of each device: it is registered, then it polls.
    let expected = devices.len() * 2;
    let changes = printed(by_tls(go(&["changes", &expected.to_string()], &topics))).unwrap();
    for device in &devices {
        let mut of_device = changes.lines().filter(|line| line.starts_with(device.as_str()));
        let last = format!("{device}: 2 online");
        assert_eq!(of_device.next_back(), Some(last.as_str()), "{changes}");
    }
    // Who brings the wrong password is refused.
    let mut stranger = by_tls(go(&["changes", "1"], &topics));
    stranger.env("KAFKA_SASL_PASSWORD", "wrong");
    assert!(printed(stranger).unwrap_err().contains("SASL_AUTHENTICATION_FAILED"));
}

/// Fleet counts and markers follow a device by a moment.
#[track_caller]
fn eventually_prints(expected: &str, command: impl Fn() -> Command) {
    wait_for(SOON, &format!("{:?} to print {expected:?}", command()), || {
        let answer = printed(command())?;
        if answer == expected { Ok(()) } else { Err(answer) }
    });
}

/// Each fenced block that follows a line `<!-- FILE -->` is that file.
#[test]
fn the_documentation_shows_the_examples_as_they_are() {
    let mut shown = 0;
    for page in ["docs/events.md", "docs/redis.md"] {
        let text = std::fs::read_to_string(root().join(page)).unwrap();
        let mut parts = text.split("<!-- ");
        let mut made = parts.next().unwrap().to_owned();
        for part in parts {
            let (file, rest) = part.split_once(" -->\n\n```").expect("a block after its file");
            let (language, rest) = rest.split_once('\n').unwrap();
            let (_, rest) = rest.split_once("\n```\n").expect("the block's end");
            let code = std::fs::read_to_string(root().join(file)).unwrap();
            made += &format!("<!-- {file} -->\n\n```{language}\n{code}```\n{rest}");
            shown += 1;
        }
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(root().join(page), &made).unwrap();
        }
        let now = std::fs::read_to_string(root().join(page)).unwrap();
        assert!(now == made, "{page}: run UPDATE=1 cargo test --test examples documentation");
    }
    assert_eq!(shown, 4, "both pages show both languages");
}
