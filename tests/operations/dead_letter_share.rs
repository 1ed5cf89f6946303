//! A producer that writes what nobody can read: reading stops before everything has
//! become a dead letter, and goes on from there when it is let.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::events::{self, device_id};
use crate::support::kafka::{EventProducer, Isolation, KafkaBroker, RawRecord, ServiceTopics};
use crate::support::redis::RedisServer;
use crate::support::service::{DeviceStatus, ServiceConfig};
use crate::support::wait::{now_ms, wait_for};

const SOON: Duration = Duration::from_secs(60);
const GOOD: i64 = 120;
const BAD: i64 = 400;

fn send(producer: &EventProducer, topics: &ServiceTopics, device: &str, value: &[u8]) {
    producer.send_raw(&RawRecord {
        topic: &topics.heartbeats,
        key: Some(device.as_bytes()),
        value: Some(value),
        ..RawRecord::default()
    });
}

#[test]
fn too_many_dead_letters_stop_their_input_and_a_greater_share_goes_on_without_a_loss() {
    let broker = KafkaBroker::shared();
    let topics = broker.service_topics("share", 1);
    let redis = RedisServer::start();
    let config = ServiceConfig::new(broker, &topics)
        .redis(&redis.url())
        .set("processing.max_input_idle", "2s")
        .announce(&["become dead letters", "becomes a dead letter"]);
    let limited = config.clone().set("dead_letters.max_share", 0.5);
    let mut service = DeviceStatus::start_ready(&limited);
    let (producer, heartbeat) = (broker.producer(), [0x12, 3, 0x08, 0x84, 0x07]);
    let [first, last, registered] = [1, 2, 3].map(device_id);
    (0..GOOD).for_each(|_| send(&producer, &topics, &first, &heartbeat));
    (0..BAD).for_each(|_| send(&producer, &topics, &first, b"\xffno message"));
    send(&producer, &topics, &last, &heartbeat);
    producer.flush();

    let stopped = format!("the reading of heartbeats[0] before offset {} has stopped", 2 * GOOD);
    wait_for(SOON, "readiness to tell", || match service.get("/ready") {
        Ok((503, body)) if body.contains(&stopped) && body.contains("with a larger") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let of_heartbeats = "input=\"heartbeats\",partition=\"0\"";
    assert_eq!(service.metric("device_status_input_stopped", of_heartbeats), Some(1.0));
    let share = service.metric("device_status_dead_letter_share_ratio", of_heartbeats).unwrap();
    assert!(share > 0.5 && share < 0.51, "{share}");
    // The others go on, and what is not read is not committed.
    producer.send(&topics, [events::registered(&registered, now_ms(), "red", "acme")]);
    producer.flush();
    redis.wait_for_fields(&registered, SOON, &[("fleet", "red")]);
    redis.wait_for_fields(&first, SOON, &[("status", "online")]);
    service.terminate();
    let committed = broker.committed_offsets(&topics.group, &topics.heartbeats);
    assert_eq!(committed[0].1, 2 * GOOD);
    let mut letters = broker.reader(&topics.dead_letters, Isolation::ReadCommitted);
    let offsets = |letters: &[crate::support::kafka::Record]| {
        let offset = |letter: &crate::support::kafka::Record| {
            letter.header("__streams.errors.offset").unwrap().parse().unwrap()
        };
        letters.iter().map(offset).collect::<Vec<i64>>()
    };
    let before = letters.read_count(SOON, GOOD as usize);
    assert_eq!(offsets(before), (GOOD..2 * GOOD).collect::<Vec<i64>>());

    let mut service = DeviceStatus::start_ready(&config);
    redis.wait_for_fields(&last, SOON, &[("status", "online")]);
    let after = letters.read_count(SOON, BAD as usize);
    assert_eq!(after.len() as i64, BAD, "each once");
    let all: BTreeSet<i64> = offsets(after).into_iter().collect();
    assert_eq!(all, (GOOD..GOOD + BAD).collect());
    service.terminate();
}
