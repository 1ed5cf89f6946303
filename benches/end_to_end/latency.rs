//! From an event's sending to its change on the topic, for a reader that waits
//! for transactions, and to the hint that Redis has it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use hdrhistogram::Histogram;
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::report::{Report, say};
use crate::support::events;
use crate::support::kafka::{KafkaBroker, ServiceTopics};
use crate::support::redis::RedisServer;
use crate::support::service::{DeviceStatus, ServiceConfig};
use crate::support::wait::{Deadline, Stopwatch, now_ms, pause, wait_for};

/// The first seconds are left out: connections, caches and the broker's
/// compiler warm up.
const WARM_UP_S: u64 = 10;

/// When each event was sent, and what has come of it.
struct Track {
    watch: Stopwatch,
    sent_us: Vec<AtomicU64>,
    warm_up: usize,
}

impl Track {
    fn now_us(&self) -> u64 {
        u64::try_from(self.watch.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Notes that the change of a device was seen.
    fn seen(&self, device: &[u8], into: &mut Histogram<u64>) -> bool {
        let device = std::str::from_utf8(device).ok();
        let Some(index) = device.and_then(|d| usize::from_str_radix(d, 16).ok()) else {
            return false;
        };
        let Some(sent_us) = self.sent_us.get(index) else { return false };
        if index >= self.warm_up {
            let took_us = self.now_us() - sent_us.load(Ordering::Acquire);
            into.record(took_us.max(1)).expect("a latency");
        }
        true
    }
}

/// Opens a VPN session of another device so many times a second; each is one
/// change.
pub fn measure(
    broker: &KafkaBroker,
    redis: &RedisServer,
    changes_per_s: u64,
    seconds: u64,
    report: &mut Report,
) {
    say(&format!("latency at {changes_per_s} changes/s for {seconds} s"));
    let topics = broker.service_topics("latency", 4);
    let config = ServiceConfig::new(broker, &topics).redis(&redis.url()).set("log.level", "warn");
    let mut service = DeviceStatus::start_ready(&config);
    let count = usize::try_from(changes_per_s * (seconds + WARM_UP_S)).expect("a count");
    let track = Arc::new(Track {
        watch: Stopwatch::start(),
        sent_us: (0..count).map(|_| AtomicU64::new(0)).collect(),
        warm_up: usize::try_from(changes_per_s * WARM_UP_S).expect("a count"),
    });
    let done = Arc::new(AtomicBool::new(false));
    let topic = {
        let consumer = follow(broker, &topics.status_changes, topics.partitions);
        let (track, done) = (track.clone(), done.clone());
        thread::spawn(move || watch_topic(&consumer, &track, &done))
    };
    let view = {
        let mut connection = redis.connection();
        let (track, done) = (track.clone(), done.clone());
        let (ready, is_ready) = std::sync::mpsc::channel();
        let view = thread::spawn(move || watch_redis(&mut connection, &track, &done, &ready));
        is_ready.recv().expect("a subscription");
        view
    };
    send(broker, &topics, &track, changes_per_s);
    let all = u64::try_from(count).expect("a count");
    let published = || service.metric("device_status_changes_total", "").unwrap_or(0.0);
    #[allow(clippy::cast_precision_loss, reason = "a count of changes")]
    wait_for(Duration::from_secs(60), "all changes", || {
        if published() >= all as f64 { Ok(()) } else { Err(published().to_string()) }
    });
    // What was counted is committed; readers get a moment more.
    pause(Duration::from_secs(1));
    done.store(true, Ordering::Release);
    let topic = topic.join().expect("the topic's reader");
    let view = view.join().expect("the view's reader");
    service.terminate();
    for (what, histogram) in [("", &topic), ("_redis", &view)] {
        let at = |quantile| {
            let us = u32::try_from(histogram.value_at_quantile(quantile)).unwrap_or(u32::MAX);
            f64::from(us / 10) / 100.0
        };
        let (p50, p90, p99, p999) = (at(0.5), at(0.9), at(0.99), at(0.999));
        say(&format!(
            "  latency{what} at {changes_per_s}/s, {} changes: p50 {p50} ms, p90 {p90} ms, p99 {p99} ms, p99.9 {p999} ms",
            histogram.len()
        ));
        for (name, value) in [("p50", p50), ("p90", p90), ("p99", p99), ("p999", p999)] {
            report.set(&format!("latency{what}_{name}_ms_at_{changes_per_s}"), value);
            if changes_per_s == 10_000 {
                report.set(&format!("latency{what}_{name}_ms"), value);
            }
        }
    }
}

fn send(broker: &KafkaBroker, topics: &ServiceTopics, track: &Track, changes_per_s: u64) {
    let mut config = broker.config();
    config.set("partitioner", "murmur2_random").set("linger.ms", "1").set("acks", "1");
    let producer: BaseProducer = config.create().expect("a producer");
    let count = u64::try_from(track.sent_us.len()).expect("a count");
    let start_us = track.now_us();
    let mut next = 0;
    while next < count {
        let due = ((track.now_us() - start_us) * changes_per_s / 1_000_000).min(count);
        while next < due {
            let device = format!("{next:032x}");
            let event = events::session_opened(&device, now_ms(), "vpn-1", "session");
            let value = event.value.as_deref().expect("a value");
            let index = usize::try_from(next).expect("an index");
            track.sent_us[index].store(track.now_us(), Ordering::Release);
            let mut record = BaseRecord::to(&topics.vpn_sessions).key(&device).payload(value);
            while let Err((_full, refused)) = producer.send(record) {
                producer.poll(Duration::from_millis(1));
                record = refused;
            }
            next += 1;
        }
        producer.poll(Duration::ZERO);
        pause(Duration::from_micros(500));
    }
    producer.flush(Duration::from_secs(30)).expect("the broker takes it all");
}

fn follow(broker: &KafkaBroker, topic: &str, partitions: i32) -> BaseConsumer {
    let mut config = broker.config();
    config.set("group.id", "latency").set("isolation.level", "read_committed");
    config.set("enable.auto.commit", "false").set("fetch.wait.max.ms", "500");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning).expect("a partition");
    }
    consumer.assign(&list).expect("an assignment");
    consumer
}

fn watch_topic(consumer: &BaseConsumer, track: &Track, done: &AtomicBool) -> Histogram<u64> {
    let mut histogram = Histogram::new(3).expect("a histogram");
    while !done.load(Ordering::Acquire) {
        if let Some(Ok(record)) = consumer.poll(Duration::from_millis(20)) {
            track.seen(record.key().unwrap_or_default(), &mut histogram);
        }
    }
    histogram
}

fn watch_redis(
    connection: &mut redis::Connection,
    track: &Track,
    done: &AtomicBool,
    ready: &std::sync::mpsc::Sender<()>,
) -> Histogram<u64> {
    let mut histogram = Histogram::new(3).expect("a histogram");
    let mut channel = connection.as_pubsub();
    channel.subscribe("ds:changes").expect("a subscription");
    channel.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    ready.send(()).expect("the one who waits");
    let limit = Deadline::after(Duration::from_secs(300));
    while !done.load(Ordering::Acquire) && !limit.passed() {
        let Ok(message) = channel.get_message() else { continue };
        let payload = message.get_payload_bytes();
        let hint: serde_json::Value = serde_json::from_slice(payload).expect("a hint is JSON");
        track.seen(hint["device"].as_str().unwrap_or_default().as_bytes(), &mut histogram);
    }
    histogram
}
