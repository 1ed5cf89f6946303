//! The built binary against a real Kafka and a real Redis, as a black box.

use std::collections::HashMap;
use std::time::Duration;

use crate::support::events::{self, Outgoing, device_id};
use crate::support::kafka::{Isolation, KafkaBroker, RawRecord, Record, ServiceTopics};
use crate::support::log::REDIS_ANEW;
use crate::support::redis::{self, RedisServer};
use crate::support::service::{DeviceStatus, ServiceConfig, run};
use crate::support::wait::{now_ms, pause, wait_for};
use device_status::shard::Input;
use device_status::wire::proto::v1::{Cause, Connectivity, Status, StatusChanged, vpn_event};

const SOON: Duration = Duration::from_secs(30);

fn changes(records: &[Record]) -> Vec<StatusChanged> {
    records.iter().map(Record::decode).collect()
}

/// No change lost, none twice, each beginning where the one before ended.
#[track_caller]
fn assert_unbroken(changes: &[StatusChanged]) {
    let mut last: HashMap<&str, &StatusChanged> = HashMap::new();
    for change in changes {
        let before = last.insert(&change.device_id, change);
        assert_eq!(
            change.version,
            before.map_or(0, |b| b.version) + 1,
            "{change:?} after {before:?}"
        );
        let shown = |c: &StatusChanged| (c.status, c.connectivity, c.fleet.clone());
        let previous = before.map_or((0, 0, String::new()), shown);
        let said =
            (change.previous_status, change.previous_connectivity, change.previous_fleet.clone());
        assert_eq!(said, previous, "{change:?}");
        assert_ne!(shown(change), previous, "no change at all: {change:?}");
        if let Some(before) = before {
            let since = |c: &StatusChanged| c.since.map(|t| (t.seconds, t.nanos));
            assert!(since(change) >= since(before), "{change:?} went back behind {before:?}");
        }
    }
}

/// Waits until a device's hash has these fields.
#[track_caller]
fn wait_for_fields(redis: &RedisServer, device: &str, within: Duration, fields: &[(&str, &str)]) {
    let mut connection = redis.connection();
    wait_for(within, &format!("{device} to show {fields:?}"), || {
        let found = redis::hash(&mut connection, &format!("ds:device:{device}"));
        let as_wanted =
            |(name, value): &(&str, &str)| found.get(*name).is_some_and(|found| found == value);
        if fields.iter().all(as_wanted) { Ok(()) } else { Err(format!("{found:?}")) }
    });
}

/// A fleet's devices by status, added up over the partitions.
fn fleet_counts(redis: &RedisServer, fleet: &str) -> HashMap<String, u64> {
    let mut connection = redis.connection();
    let mut sums = HashMap::new();
    for partition in 0..3 {
        for (status, count) in
            redis::hash(&mut connection, &format!("ds:fleet:{fleet}:{partition}"))
        {
            if let Ok(count) = count.parse::<u64>() {
                *sums.entry(status).or_default() += count;
            }
        }
    }
    sums
}

fn millis(at: Option<prost_types::Timestamp>) -> i64 {
    at.map_or(0, |t| t.seconds * 1000 + i64::from(t.nanos) / 1_000_000)
}

fn beat(device: &str, interval: Duration) -> Outgoing {
    events::heartbeat_every(device, now_ms(), interval)
}

#[test]
fn events_of_all_three_inputs_become_statuses_and_changes() {
    let broker = KafkaBroker::shared();
    let redis = RedisServer::start();
    let topics = broker.service_topics("all-inputs", 3);
    let service =
        DeviceStatus::start_ready(&ServiceConfig::new(broker, &topics).redis(&redis.url()));
    let producer = broker.producer();
    let (device, other) = (device_id(1), "a device with a plain name");

    let registered_ms = now_ms();
    producer.send(&topics, [events::registered(&device, registered_ms, "berlin", "acme")]);
    producer.send(&topics, [events::registered(other, registered_ms, "berlin", "acme")]);
    producer.flush();
    wait_for_fields(&redis, &device, SOON, &[("status", "configuring"), ("connectivity", "none")]);

    let heartbeat_ms = now_ms();
    producer.send(&topics, [events::heartbeat(&device, heartbeat_ms)]);
    producer.flush();
    wait_for_fields(
        &redis,
        &device,
        SOON,
        &[
            ("status", "online"),
            ("connectivity", "heartbeat-only"),
            ("display", "Online (Heartbeat Only)"),
            ("heartbeat", "online"),
            ("vpn", "down"),
            ("fleet", "berlin"),
            ("version", "2"),
            ("since_ms", &heartbeat_ms.to_string()),
        ],
    );

    let opened_ms = now_ms();
    producer.send(&topics, [events::session_opened(&device, opened_ms, "vpn-1", "s1")]);
    producer.flush();
    wait_for_fields(
        &redis,
        &device,
        SOON,
        &[
            ("connectivity", "full"),
            ("vpn", "up"),
            ("since_ms", &heartbeat_ms.to_string()),
            ("connectivity_since_ms", &opened_ms.to_string()),
        ],
    );
    let lost = vpn_event::Event::InstanceLost(device_status::wire::proto::v1::InstanceLost {
        instance: "vpn-1".into(),
    });
    producer.send(&topics, [events::vpn(None, now_ms(), lost)]);
    producer.flush();
    wait_for_fields(&redis, &device, SOON, &[("connectivity", "heartbeat-only"), ("version", "4")]);

    let mut reader = broker.reader(&topics.status_changes, Isolation::ReadCommitted);
    let all = changes(reader.read_count(SOON, 5));
    assert_unbroken(&all);
    let of_device: Vec<_> = all.iter().filter(|c| c.device_id == device).collect();
    let steps: Vec<_> =
        of_device.iter().map(|c| (c.status(), c.connectivity(), c.cause())).collect();
    assert_eq!(
        steps,
        [
            (Status::Configuring, Connectivity::None, Cause::Registered),
            (Status::Online, Connectivity::HeartbeatOnly, Cause::Heartbeat),
            (Status::Online, Connectivity::Full, Cause::VpnOpened),
            (Status::Online, Connectivity::HeartbeatOnly, Cause::VpnInstanceLost),
        ]
    );
    assert_eq!(millis(of_device[0].since), registered_ms);
    assert_eq!(of_device[0].fleet, "berlin");
    assert_eq!(of_device[0].organization, "acme");
    assert_eq!(fleet_counts(&redis, "berlin").get("online"), Some(&1));
    assert_eq!(fleet_counts(&redis, "berlin").get("configuring"), Some(&1));
    drop(service);
}

#[test]
fn a_kill_loses_no_change_doubles_none_and_makes_nobody_falsely_offline() {
    let broker = KafkaBroker::shared();
    let redis = RedisServer::start();
    let topics = broker.service_topics("kill", 3);
    let config = ServiceConfig::new(broker, &topics).redis(&redis.url());
    let mut service = DeviceStatus::start_ready(&config);
    let producer = broker.producer();
    let interval = Duration::from_secs(4);
    let devices: Vec<String> = (0..30).map(device_id).collect();
    let silent = &devices[7];
    let everybody_but_the_silent_one = || {
        producer.send(&topics, devices.iter().filter(|d| *d != silent).map(|d| beat(d, interval)));
        producer.flush();
    };

    let registrations = devices.iter().map(|d| events::registered(d, now_ms(), "f", "o"));
    producer.send(&topics, registrations);
    producer.flush();
    // Before any contact: of two inputs within the slack either may come first
    // (rule T8), and a device that polled first is Online at once.
    for device in &devices {
        wait_for_fields(&redis, device, SOON, &[("status", "configuring")]);
    }
    let last_word_ms = now_ms();
    producer.send(&topics, [events::heartbeat_every(silent, last_word_ms, interval)]);
    everybody_but_the_silent_one();
    for device in &devices {
        wait_for_fields(&redis, device, SOON, &[("status", "online")]);
    }

    service.kill();
    // Down for longer than any heartbeat counts, while everybody else polls.
    for round in 0..5 {
        pause(Duration::from_secs(2));
        everybody_but_the_silent_one();
        if round == 2 {
            let opened = events::session_opened(&devices[3], now_ms(), "vpn-1", "s");
            producer.send(&topics, [opened]);
        }
    }
    let mut service = DeviceStatus::start(&config);
    let mut reader = broker.reader(&topics.status_changes, Isolation::ReadCommitted);
    let mut found = None;
    wait_for(Duration::from_secs(60), "the silent device to go Offline", || {
        everybody_but_the_silent_one();
        let all = changes(reader.read_for(Duration::from_millis(500)));
        found = all.iter().find(|c| c.status() == Status::Offline).cloned();
        found.as_ref().map(|_| ()).ok_or_else(|| format!("{} changes", all.len()))
    });
    for _ in 0..3 {
        everybody_but_the_silent_one();
        reader.read_for(Duration::from_secs(1));
    }
    let all = changes(&reader.records);
    assert_unbroken(&all);
    let offline: Vec<_> = all.iter().filter(|c| c.status() == Status::Offline).collect();
    assert_eq!(offline.len(), 1, "somebody was called Offline who kept polling: {offline:#?}");
    assert_eq!(offline[0].device_id, *silent);
    // Tolerance 1.5 of the interval of 4 s, and a grace of 1 s.
    assert_eq!(millis(offline[0].since), last_word_ms + 7_000);
    assert_eq!(offline[0].cause(), Cause::HeartbeatExpired);
    wait_for_fields(&redis, silent, SOON, &[("status", "offline")]);
    wait_for_fields(&redis, &devices[3], SOON, &[("connectivity", "full")]);
    assert_eq!(all.len(), devices.len() * 2 + 2, "configuring and online each, vpn, offline");

    // And once more, politely.
    assert!(service.terminate().success());
    let _service = DeviceStatus::start_ready(&config);
    everybody_but_the_silent_one();
    producer.send(&topics, [beat(silent, interval)]);
    producer.flush();
    wait_for_fields(&redis, silent, SOON, &[("status", "online"), ("version", "4")]);
    assert_unbroken(&changes(reader.read_for(Duration::from_secs(1))));
}

#[test]
fn bad_records_become_dead_letters_and_stop_nobody() {
    let broker = KafkaBroker::shared();
    let redis = RedisServer::start();
    let topics = broker.service_topics("bad-input", 3);
    let config = ServiceConfig::new(broker, &topics).redis(&redis.url());
    let _service = DeviceStatus::start_ready(&config.announce(&["becomes a dead letter"]));
    let producer = broker.producer();
    let long_key = vec![b'k'; 129];
    let device = device_id(1);
    let home = device_status::wire::murmur2::partition_of(device.as_bytes(), 3);
    let good = events::heartbeat(&device, now_ms());
    let good_value = good.value.clone().unwrap();
    let heartbeats = topics.input(Input::Heartbeats);
    type Bad<'a> = (&'a str, &'a str, i32, Option<&'a [u8]>, Option<&'a [u8]>);
    let bad: [Bad<'_>; 7] = [
        ("undecodable", heartbeats, home, Some(device.as_bytes()), Some(&[0x0a, 0x7f, 1])),
        ("undecodable", heartbeats, home, Some(device.as_bytes()), Some(&[])),
        ("missing_key", heartbeats, 0, None, Some(&good_value)),
        ("invalid_key", heartbeats, 0, Some(&long_key), Some(&good_value)),
        ("wrong_partition", heartbeats, (home + 1) % 3, Some(device.as_bytes()), Some(&good_value)),
        ("unexpected_tombstone", heartbeats, home, Some(device.as_bytes()), None),
        // Field 99: an event that this version does not know.
        ("unknown_event", &topics.lifecycle, home, Some(device.as_bytes()), Some(&[0x9a, 0x06, 0])),
    ];
    for (label, topic, partition, key, value) in &bad {
        producer.send_raw(&RawRecord {
            topic,
            partition: Some(*partition),
            key: *key,
            value: *value,
            headers: &[("label", label.as_bytes())],
            ..RawRecord::default()
        });
    }
    producer.send(&topics, [good]);
    producer.flush();
    wait_for_fields(&redis, &device, SOON, &[("status", "online")]);

    let mut reader = broker.reader(&topics.dead_letters, Isolation::ReadCommitted);
    let letters = reader.read_count(SOON, bad.len()).to_vec();
    for (label, topic, partition, key, value) in &bad {
        let letter = letters
            .iter()
            .find(|l| l.header("label").as_deref() == Some(label) && l.value.as_deref() == *value)
            .unwrap_or_else(|| panic!("no letter for {label}"));
        assert_eq!(letter.header("__streams.errors.reason").as_deref(), Some(*label));
        assert_eq!(letter.header("__streams.errors.topic").as_deref(), Some(*topic));
        let position = partition.to_string();
        assert_eq!(letter.header("__streams.errors.partition"), Some(position));
        assert!(letter.header("__streams.errors.offset").is_some());
        assert!(letter.header("__streams.errors.message").is_some());
        assert_eq!(letter.key.as_deref(), *key);
    }
}

#[test]
fn a_start_is_refused_where_a_topic_is_missing_or_of_another_partition_count() {
    let broker = KafkaBroker::shared();
    let topics = broker.service_topics("refused", 2);
    let absent = ServiceTopics { lifecycle: "no-such-topic".into(), ..topics.clone() };
    let output = run(&ServiceConfig::new(broker, &absent), &["run"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(69), "{text}");
    assert!(text.contains("no-such-topic") && text.contains("topics create"), "{text}");

    let wider = ServiceTopics { lifecycle: broker.unique("wider"), ..topics };
    broker.create_topic(&wider.lifecycle, 5, &[("message.timestamp.type", "LogAppendTime")]);
    let output = run(&ServiceConfig::new(broker, &wider), &["run"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(69), "{text}");
    assert!(text.contains(&wider.lifecycle) && text.contains('5'), "{text}");
}

#[test]
fn a_topic_that_is_widened_stops_who_runs_and_all_four_alike_who_starts() {
    let broker = KafkaBroker::shared();
    let topics = broker.service_topics("widened", 2);
    let mut service = DeviceStatus::start(&ServiceConfig::new(broker, &topics));
    service.announce(&["stopping error=topic"]);
    // The group gives out the new partitions, of one input alone, before that.
    service.announce(&[
        "cannot resolve the start offsets",
        "giving partitions back to the group failed",
        "facility=ASSIGN",
    ]);
    let producer = broker.producer();
    producer.send(&topics, (0..20).map(|n| events::heartbeat(&device_id(n), now_ms())));
    producer.flush();
    let mut reader = broker.reader(&topics.status_changes, Isolation::ReadCommitted);
    reader.read_count(SOON, 20);

    broker.add_partitions(&topics.lifecycle, 4);
    // It is looked at twice a minute.
    let status = service.process.wait(SOON * 4);
    let text = service.process.output();
    assert_eq!(status.code(), Some(69), "{text}");
    assert!(text.contains(&topics.lifecycle) && text.contains("Scaling partitions"), "{text}");

    for topic in [&topics.vpn_sessions, &topics.heartbeats, &topics.changelog] {
        broker.add_partitions(topic, 4);
    }
    let wider = ServiceConfig::new(broker, &topics).set("topics.partitions", 4);
    let mut service = DeviceStatus::start(&wider.announce(&["partitions were added"]));
    let status = service.process.wait(SOON);
    let text = service.process.output();
    assert_eq!(status.code(), Some(69), "{text}");
    assert!(
        text.contains("partitions were added") && text.contains("scaling partitions"),
        "{text}"
    );
}

#[test]
fn an_unreachable_broker_is_named_with_the_remedy() {
    let broker = KafkaBroker::shared();
    let topics = ServiceTopics::named("unreachable", 2);
    let config = ServiceConfig::new(broker, &topics).set("kafka.brokers", "127.0.0.1:1");
    let output = run(&config, &["run"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(69), "{text}");
    assert!(text.contains("127.0.0.1:1") && text.contains("kafka.brokers"), "{text}");
}

#[test]
fn statuses_go_on_while_redis_is_away_and_arrive_when_it_is_back() {
    let broker = KafkaBroker::shared();
    let mut redis = RedisServer::start();
    let topics = broker.service_topics("redis-away", 2);
    let service =
        DeviceStatus::start_ready(&ServiceConfig::new(broker, &topics).redis(&redis.url()));
    let producer = broker.producer();
    producer.send(&topics, (0..50).map(|n| events::heartbeat(&device_id(n), now_ms())));
    producer.flush();
    wait_for_fields(&redis, &device_id(49), SOON, &[("status", "online")]);

    service.announce(REDIS_ANEW);
    redis.stop();
    producer.send(&topics, (50..100).map(|n| events::heartbeat(&device_id(n), now_ms())));
    producer.flush();
    let mut reader = broker.reader(&topics.status_changes, Isolation::ReadCommitted);
    assert_unbroken(&changes(reader.read_count(SOON, 100)));
    wait_for(SOON, "readiness to tell of Redis", || match service.get("/ready") {
        Ok((503, body)) if body.contains("redis") => Ok(()),
        other => Err(format!("{other:?}")),
    });

    redis.restart();
    for n in 0..100 {
        wait_for_fields(&redis, &device_id(n), SOON, &[("status", "online")]);
    }
}

#[test]
fn the_sweep_undoes_what_was_done_to_the_view_while_events_flow() {
    let broker = KafkaBroker::shared();
    let redis = RedisServer::start();
    let topics = broker.service_topics("sweep", 3);
    let config = ServiceConfig::new(broker, &topics).redis(&redis.url());
    let service = DeviceStatus::start_ready(&config.set("redis.refresh_interval", "10s"));
    let producer = broker.producer();
    let hour = Duration::from_secs(3_600);
    producer.send(&topics, (0..300).map(|n| beat(&device_id(n), hour)));
    producer.flush();
    for n in 0..300 {
        wait_for_fields(&redis, &device_id(n), SOON, &[("status", "online")]);
    }
    let mut connection = redis.connection();
    let key = |n: u64| format!("ds:device:{}", device_id(n));
    let token = redis::hash(&mut connection, &key(0))["token"].clone();
    let before: Vec<_> = (0..200).map(|n| redis::hash(&mut connection, &key(n))).collect();
    for n in 0..200 {
        let command = match n % 4 {
            0 => ::redis::cmd("DEL").arg(key(n)).to_owned(),
            1 => ::redis::cmd("SET").arg(key(n)).arg("text").to_owned(),
            2 => ::redis::cmd("HSET").arg(key(n)).arg(&["status", "frozen", "x", "y"]).to_owned(),
            _ => ::redis::cmd("HSET").arg(key(n)).arg(&["token", "0:9999999999999:1"]).to_owned(),
        };
        command.exec(&mut connection).unwrap();
    }
    let extra = ["status", "online", "token", &token];
    ::redis::cmd("HSET").arg("ds:device:never-heard-of").arg(&extra).exec(&mut connection).unwrap();
    let counts = ["online", "9", "token", &token];
    let partition = token.split(':').next().unwrap();
    let fleet = format!("ds:fleet:gone:{partition}");
    ::redis::cmd("HSET").arg(&fleet).arg(&counts).exec(&mut connection).unwrap();
    // Others go on meanwhile, so that a transaction is under way most of the time.
    let mut n = 0;
    // What the pass under way has gone past is found by the next, of 10 s each.
    wait_for(SOON * 2, "the view to be as it was", || {
        producer.send(&topics, (0..20).map(|i| beat(&device_id(1_000 + n + i), hour)));
        producer.flush();
        n += 20;
        pause(Duration::from_millis(20));
        let wrong = (0..200).filter(|n| {
            let kind: String = ::redis::cmd("TYPE").arg(key(*n)).query(&mut connection).unwrap();
            let mut held = if kind == "hash" {
                redis::hash(&mut connection, &key(*n))
            } else {
                Default::default()
            };
            let mut was = before[usize::try_from(*n).unwrap()].clone();
            held.remove("token");
            was.remove("token");
            held != was
        });
        let wrong = wrong.count();
        let left = [fleet.as_str(), "ds:device:never-heard-of"];
        let left: u64 = ::redis::cmd("EXISTS").arg(&left[..]).query(&mut connection).unwrap();
        if (wrong, left) == (0, 0) { Ok(()) } else { Err(format!("{wrong} wrong, {left} left")) }
    });
    let (_, metrics) = service.get("/metrics").unwrap();
    for line in metrics.lines().filter(|line| line.contains("redis_sweep")) {
        println!("{line}");
    }
    assert!(metrics.contains("device_status_redis_sweep_hashes_total{result=\"repaired\"} "));
    assert!(!metrics.contains("device_status_redis_sweep_hashes_total{result=\"repaired\"} 0"));
}

#[test]
fn shards_move_among_members_without_a_lost_or_doubled_change() {
    let broker = KafkaBroker::shared();
    let redis = RedisServer::start();
    let topics = broker.service_topics("members", 6);
    let config = || {
        let port = crate::support::process::free_port();
        ServiceConfig::new(broker, &topics)
            .redis(&redis.url())
            .set("admin.listen", format!("127.0.0.1:{port}"))
    };
    let mut first = DeviceStatus::start_ready(&config());
    let producer = broker.producer();
    let devices: Vec<String> = (0..60).map(device_id).collect();
    let toggle = |round: u64| {
        let at_ms = now_ms();
        let step = |device: &String| events::toggled(device, at_ms, "vpn-1", round);
        producer.send(&topics, devices.iter().map(step));
        producer.flush();
    };
    let mut second = None;
    for round in 0..40 {
        toggle(round);
        pause(Duration::from_millis(300));
        match round {
            5 => second = Some(DeviceStatus::start(&config())),
            20 => {
                if let Some(service) = &mut second {
                    service.wait_ready(SOON);
                }
                assert!(first.terminate().success());
            }
            _ => {}
        }
    }
    let mut reader = broker.reader(&topics.status_changes, Isolation::ReadCommitted);
    let all = changes(reader.read_until(SOON, "the last close of each", |records| {
        let closed = |r: &&Record| r.decode::<StatusChanged>().version == 40;
        records.iter().filter(closed).count() == devices.len()
    }));
    assert_unbroken(&all);
    assert_eq!(all.len(), devices.len() * 40);
    for device in &devices {
        wait_for_fields(&redis, device, SOON, &[("status", "offline"), ("version", "40")]);
    }
}
