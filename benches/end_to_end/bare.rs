//! The yardstick: a consumer that only counts, configured like the service's.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::processor;
use crate::report::{Measured, say};
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
    let mut numbers = said.split_whitespace().map(|number| number.parse().expect("a number"));
    Some(Measured { per_s: numbers.next()?, cpu_ns: numbers.next()? })
}

/// What the other process does.
pub fn child(arguments: &[String]) {
    let [address, topic, count] = arguments else { panic!("--bare BROKER TOPIC COUNT") };
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("broker.address.family", "v4");
    let Measured { per_s, cpu_ns } = rate_of(&config, topic, count.parse().expect("a count"));
    println!("{per_s} {cpu_ns}");
}

fn jemalloc() -> Option<PathBuf> {
    let library = |directory: std::fs::DirEntry| directory.path().join("libjemalloc.so.2");
    let mut places = std::fs::read_dir(Path::new("/usr/lib")).ok()?.flatten().map(library);
    places.find(|library| library.exists())
}

fn rate_of(config: &ClientConfig, topic: &str, count: u64) -> Measured {
    let consumer = consumer(config, topic);
    let mut seen = 0;
    let mut start = None;
    // The first tenth is left out: connections and buffers fill.
    let from = count / 10;
    while seen < count {
        if let Some(Ok(_)) = consumer.poll(Duration::from_millis(100)) {
            seen += 1;
            if seen == from {
                start = Some((Stopwatch::start(), processor::this_thread_ns()));
            }
        }
    }
    let (watch, cpu_ns) = start.expect("more than nothing to read");
    Measured::new(seen - from, watch.elapsed(), processor::this_thread_ns() - cpu_ns)
}

/// The same of a compacted topic, of which nobody knows how much there is.
pub fn rate_of_what_there_is(broker: &KafkaBroker, topic: &str) -> Measured {
    let consumer = consumer(&broker.config(), topic);
    let partitions = consumer.assignment().expect("an assignment").count();
    let (mut seen, mut ends) = (0, 0);
    let watch = Stopwatch::start();
    let cpu_ns = processor::this_thread_ns();
    while ends < partitions {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(_)) => seen += 1,
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => ends += 1,
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
    Measured::new(seen, watch.elapsed(), processor::this_thread_ns() - cpu_ns)
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
