//! The yardstick: a consumer that only counts, configured like the service's.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::processor;
use crate::report::{LEAST, Measured, say};
use crate::support::kafka::KafkaBroker;
use crate::support::wait::Stopwatch;

/// Records a second of a whole topic of `count` records.
pub fn rate(broker: &KafkaBroker, topic: &str, count: u64) -> Measured {
    say(&format!("a bare consumer reads {topic}"));
    rate_of(&broker.config(), topic, count)
}

/// The same by a process of its own with another allocator than the C
/// library's, as the service has one: that of Redis, if it is found.
pub fn rate_with_jemalloc(broker: &KafkaBroker, topic: &str, count: u64) -> Option<Measured> {
    let library = jemalloc()?;
    say(&format!("a bare consumer with jemalloc reads {topic}"));
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["--bare", &broker.address(), topic, &count.to_string()])
        .env("LD_PRELOAD", library)
        .output()
        .expect("this program again");
    let said = String::from_utf8(output.stdout).expect("text");
    let mut numbers = said.split_whitespace();
    let records = numbers.next()?.parse().expect("a count");
    let took = Duration::from_nanos(numbers.next()?.parse().expect("nanoseconds"));
    Some(Measured::new(records, took, numbers.next()?.parse().expect("nanoseconds")))
}

/// What the other process does.
pub fn child(arguments: &[String]) {
    let [address, topic, count] = arguments else { panic!("--bare BROKER TOPIC COUNT") };
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("broker.address.family", "v4");
    let measured = rate_of(&config, topic, count.parse().expect("a count"));
    println!("{} {} {}", measured.records, measured.took.as_nanos(), measured.cpu_ns);
}

fn jemalloc() -> Option<PathBuf> {
    let library = |directory: std::fs::DirEntry| directory.path().join("libjemalloc.so.2");
    let mut places = std::fs::read_dir(Path::new("/usr/lib")).ok()?.flatten().map(library);
    places.find(|library| library.exists())
}

fn rate_of(config: &ClientConfig, topic: &str, count: u64) -> Measured {
    passes(config, topic, |seen, _| seen == count)
}

/// The same of a compacted topic, of which nobody knows how much there is.
pub fn rate_of_what_there_is(broker: &KafkaBroker, topic: &str) -> Measured {
    say(&format!("a bare consumer reads {topic}"));
    passes(&broker.config(), topic, |_, ends_left| ends_left == 0)
}

/// Reads a topic from its start until it is `done`, by the records seen and the
/// partitions that have not ended, and again until that took long enough to
/// be measured. Each pass counts from its first record to its last.
#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn passes(config: &ClientConfig, topic: &str, done: impl Fn(u64, usize) -> bool) -> Measured {
    let (mut records, mut took, mut cpu_ns) = (0, Duration::ZERO, 0);
    while took < LEAST {
        let consumer = consumer(config, topic);
        let mut ends_left = consumer.assignment().expect("an assignment").count();
        let mut seen = 0;
        let mut start = None;
        let mut last = Duration::ZERO;
        while !done(seen, ends_left) {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(_)) => {
                    seen += 1;
                    start.get_or_insert_with(|| (Stopwatch::start(), processor::this_thread_ns()));
                }
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => {
                    ends_left = ends_left.saturating_sub(1);
                    last = start.as_ref().map_or(last, |(watch, _)| watch.elapsed());
                }
                Some(Err(error)) => panic!("{error}"),
                None => {}
            }
        }
        let (watch, cpu_before_ns) = start.expect("something to read");
        // Ends come at once behind the last record.
        took += if ends_left == 0 { last } else { watch.elapsed() };
        cpu_ns += processor::this_thread_ns() - cpu_before_ns;
        records += seen;
    }
    Measured::new(records, took, cpu_ns as f64 / records as f64)
}

fn consumer(config: &ClientConfig, topic: &str) -> BaseConsumer {
    let mut config = config.clone();
    config.set("group.id", "bare").set("enable.auto.commit", "false");
    config.set("enable.auto.offset.store", "false").set("isolation.level", "read_committed");
    config.set("fetch.queue.backoff.ms", "10").set("queued.min.messages", "200000");
    config.set("queued.max.messages.kbytes", "65536").set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).expect("metadata");
    let mut list = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        list.add_partition_offset(topic, partition.id(), Offset::Beginning).expect("a partition");
    }
    consumer.assign(&list).expect("an assignment");
    consumer
}
