//! The harness itself: what the other tests take for granted of it.

use std::process::Command;
use std::time::Duration;

use crate::support::events::{device_id, heartbeat, instance_alive, tombstone};
use crate::support::kafka::{Isolation, KafkaBroker, RawRecord};
use crate::support::log::Log;
use crate::support::process::Process;
use crate::support::wait::{Stopwatch, now_ms, wait_until};
use device_status::wire::proto::v1::Heartbeat;
use rdkafka::producer::Producer as _;

const SOON: Duration = Duration::from_secs(30);

#[test]
fn what_was_written_is_read_back() {
    let broker = KafkaBroker::shared();
    let topics = broker.service_topics_stamped_by_sender("read-back", 3);
    let producer = broker.producer();
    let at = now_ms() - 30 * 24 * 3_600_000;
    producer.send(
        &topics,
        [
            heartbeat(&device_id(1), at).on_partition(2).stamped(at + 5),
            heartbeat(&device_id(2), at),
        ],
    );
    producer.flush();

    let records = broker.read_committed(&topics.heartbeats, SOON);
    assert_eq!(records.len(), 2);
    let first = records.iter().find(|record| record.key_text() == device_id(1)).unwrap();
    assert_eq!((first.partition, first.offset), (2, 0));
    assert_eq!(first.timestamp_ms, Some(at + 5));
    let occurred_at = first.decode::<Heartbeat>().occurred_at.unwrap();
    assert_eq!(occurred_at.seconds, at.div_euclid(1000));
}

#[test]
fn a_broadcast_is_on_every_partition_and_a_tombstone_on_one() {
    let broker = KafkaBroker::shared();
    let topics = broker.service_topics("broadcast", 4);
    let producer = broker.producer();
    let lease = Duration::from_secs(60);
    producer.send(&topics, [instance_alive("vpn-1", now_ms(), lease), tombstone(&device_id(1))]);
    producer.flush();

    let broadcasts = broker.read_committed(&topics.vpn_sessions, SOON);
    let mut partitions: Vec<i32> = broadcasts.iter().map(|record| record.partition).collect();
    partitions.sort_unstable();
    assert_eq!(partitions, [0, 1, 2, 3]);
    assert!(broadcasts.iter().all(|record| record.key.is_none()));
    let tombstones = broker.read_committed(&topics.lifecycle, SOON);
    assert_eq!(tombstones.len(), 1);
    assert_eq!(tombstones[0].value, None);
}

#[test]
fn only_a_read_uncommitted_reader_sees_what_was_aborted() {
    let broker = KafkaBroker::shared();
    let topic = broker.unique("transactions");
    broker.create_topic(&topic, 1, &[]);
    let producer = broker.transactional_producer(&topic);
    let send = |value: &[u8]| {
        let headers: [(&str, &[u8]); 1] = [("kind", value)];
        producer.send_raw(&RawRecord {
            topic: &topic,
            key: Some(b"key"),
            value: Some(value),
            headers: &headers,
            ..RawRecord::default()
        });
        producer.flush();
    };
    producer.producer.begin_transaction().unwrap();
    send(b"aborted");
    producer.producer.abort_transaction(SOON).unwrap();
    producer.producer.begin_transaction().unwrap();
    send(b"committed");
    producer.producer.commit_transaction(SOON).unwrap();

    let all = broker.read_uncommitted(&topic, SOON);
    assert_eq!(all.len(), 2);
    let committed = broker.read_committed(&topic, SOON);
    assert_eq!(committed.len(), 1);
    assert_eq!(committed[0].header("kind").as_deref(), Some("committed"));

    let mut reader = broker.reader(&topic, Isolation::ReadCommitted);
    producer.producer.begin_transaction().unwrap();
    send(b"open");
    assert_eq!(reader.read_for(Duration::from_millis(500)).len(), 1);
    producer.producer.commit_transaction(SOON).unwrap();
    assert_eq!(reader.read_count(SOON, 2).len(), 2);
}

#[test]
fn a_broker_comes_back_on_its_port_with_its_data() {
    let broker = KafkaBroker::start();
    let topics = broker.service_topics("restart", 1);
    let producer = broker.producer();
    for (round, end) in [KafkaBroker::stop, KafkaBroker::kill].into_iter().enumerate() {
        producer.send(&topics, [heartbeat(&device_id(round as u64), now_ms())]);
        producer.flush();
        end(&broker);
        let outage = Stopwatch::start();
        broker.restart();
        eprintln!("restarted within {:?}", outage.elapsed());
        let records = broker.read_committed(&topics.heartbeats, SOON);
        assert_eq!(records.len(), round + 1);
    }
}

#[test]
fn a_process_is_watched_and_dies_with_its_owner() {
    let mut command = Command::new("sh");
    command.args(["-c", "echo ready; exec sleep 600"]);
    let process = Process::spawn("sleeper", command);
    process.wait_for_output(SOON, "ready");
    let id = process.id();
    let alive = || std::path::Path::new(&format!("/proc/{id}")).exists();
    assert!(alive());
    process.pause();
    drop(process);
    wait_until(SOON, "the process to be gone", || !alive());
}

#[test]
fn a_log_line_that_was_not_announced_or_has_a_key_twice_is_a_fault() {
    let log = Log::new(&["as expected".to_owned()]);
    let line = |level: &str, message: &str, more: &str| {
        let head = format!("\"timestamp\":\"now\",\"level\":\"{level}\"");
        log.line(&format!("{{{head},\"message\":\"{message}\"{more},\"target\":\"here\"}}"))
    };
    assert_eq!(line("INFO", "news", ",\"partition\":3"), "now  INFO here: news partition=3");
    line("WARN", "it is as expected", "");
    assert_eq!(log.take_faults(), [""; 0]);

    line("WARN", "it is not", "");
    line("ERROR", "nor is this", "");
    assert_eq!(log.take_faults(), ["now  WARN here: it is not", "now ERROR here: nor is this"]);
    for twice in [",\"message\":\"again\"", ",\"field\":{\"a\":1,\"a\":1}", ",\"target\":\"there\""]
    {
        line("INFO", "news", twice);
        let faults = log.take_faults();
        assert!(faults.len() == 1 && faults[0].contains("stands twice"), "{faults:?}");
    }
    log.line("no JSON");
    assert_eq!(log.take_faults().len(), 1);
    log.line("error: these are its last words");
    log.line("of which there are many");
    assert_eq!(log.take_faults(), [""; 0]);
}
