//! Two installations with one Redis prefix, as built binaries against a real
//! Kafka and a real Redis (rule V8).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::events::{self, device_id};
use crate::support::kafka::KafkaBroker;
use crate::support::log::{OTHER_GROUP, REDIS_AWAY};
use crate::support::redis::{RedisServer, hash};
use crate::support::service::{DeviceStatus, ServiceConfig, run};
use crate::support::wait::{now_ms, wait_for};

const SOON: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// Everything in Redis but the markers' times.
fn all(redis: &RedisServer) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut connection = redis.connection();
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
    let of = |key: String| {
        let mut held = hash(&mut connection, &key);
        held.remove("time_ms");
        (key, held)
    };
    keys.into_iter().map(of).collect()
}

#[test]
fn the_second_installation_leaves_the_view_of_the_first_until_it_is_told_to_take_it() {
    let broker = KafkaBroker::shared();
    let redis = RedisServer::start();
    let first_topics = broker.service_topics("first", 1);
    let second_topics = broker.service_topics("second", 4);
    let (first_group, second_group) = (&first_topics.group, &second_topics.group);
    let config = |topics| ServiceConfig::new(broker, topics).redis(&redis.url());
    let first_config = config(&first_topics);
    // It may find Redis later than the keys of the first.
    let told = [OTHER_GROUP, REDIS_AWAY];
    let second_config = config(&second_topics).announce(&told);
    let producer = broker.producer();
    let devices: Vec<String> = (0..20).map(device_id).collect();
    let beat = |device: &String| events::heartbeat_every(device, now_ms(), HOUR);
    producer.send(&first_topics, devices[..10].iter().map(beat));
    producer.send(&second_topics, devices[10..].iter().map(beat));
    producer.flush();
    let shows = [("status", "online")];

    let mut first = DeviceStatus::start_ready(&first_config);
    for device in &devices[..10] {
        redis.wait_for_fields(device, SOON, &shows);
    }
    wait_for(SOON, "the first to have written all", || {
        match first.metric("device_status_redis_backlog_writes", "") {
            Some(0.0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let before = all(&redis);

    // A start is refused, with both names and the remedy.
    let refused = run(&second_config, &["run"]);
    assert_eq!(refused.status.code(), Some(69));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    for word in [first_group, second_group, "redis.prefix", "--take-view-from"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let checked = run(&second_config, &["config", "check", "--connect"]);
    assert_eq!(checked.status.code(), Some(69));
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(said.contains("problem  redis.prefix") && said.contains(first_group), "{said}");
    let checked = run(&first_config, &["config", "check", "--connect"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    assert_eq!(all(&redis), before);

    // A start while Redis does not answer goes on, and meets it later.
    redis.process().pause();
    let mut second = DeviceStatus::start(&second_config);
    second.process.wait_for_output(SOON, "cannot connect to Redis");
    redis.process().resume();
    wait_for(SOON, "readiness to tell", || match second.get("/ready") {
        Ok((503, body)) if body.contains("belong to group") && body.contains(&**first_group) => {
            Ok(())
        }
        other => Err(format!("{other:?}")),
    });
    wait_for(SOON, "the gauge to tell", || {
        let other = second.metric("device_status_redis_other_group", "");
        let up = second.metric("device_status_redis_up", "");
        if (other, up) == (Some(1.0), Some(1.0)) {
            Ok(())
        } else {
            Err(format!("{other:?} {up:?}"))
        }
    });
    // It goes on in Kafka, and the first in Redis.
    wait_for(SOON, "the changes of the second", || {
        let changes = second.metric("device_status_changes_total", "").unwrap_or_default();
        if changes >= 10.0 { Ok(()) } else { Err(changes.to_string()) }
    });
    assert_eq!(all(&redis), before);
    first.wait_ready(SOON);
    assert_eq!(first.metric("device_status_redis_other_group", ""), Some(0.0));
    producer.send(&first_topics, [events::registered(&devices[3], now_ms(), "blue", "acme")]);
    producer.flush();
    redis.wait_for_fields(&devices[3], SOON, &[("fleet", "blue")]);
    assert!(redis.fields(&devices[15]).is_empty());
    second.terminate();
    first.terminate();

    // On purpose: what the second has is written, what the first left goes.
    let mut second = DeviceStatus::start_with(&second_config, &["--take-view-from", first_group]);
    second.wait_ready(SOON);
    for device in &devices[10..] {
        redis.wait_for_fields(device, SOON, &shows);
    }
    wait_for(SOON, "what the first left to go", || {
        let left: Vec<_> = devices[..10].iter().filter(|d| !redis.fields(d).is_empty()).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    // Left on, it does no harm; the first is refused now.
    second.terminate();
    let mut second = DeviceStatus::start_with(&second_config, &["--take-view-from", first_group]);
    second.wait_ready(SOON);
    assert_eq!(run(&first_config, &["run"]).status.code(), Some(69));
    second.terminate();
}
