//! What a heartbeat, a change and a restore cost, end to end: the built binary
//! against a real Kafka and Redis, beside a bare consumer and a Kafka Streams
//! program on the same topics, in the same run.
//!
//! `cargo bench --bench end_to_end -- --help` lists the options; `make bench`
//! runs it all and `make bench-quick` the same with less data.

#[path = "../../tests/support/mod.rs"]
mod support;

mod bare;
mod latency;
mod load;
mod peer;
mod plot;
mod processor;
mod report;
mod service;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use support::kafka::{KafkaBroker, ServiceTopics};
use support::redis::RedisServer;

use load::Fleet;
use report::Report;

/// Measures device-status against a bare consumer and Kafka Streams.
#[derive(Parser, Debug)]
struct Options {
    /// Less of everything: some minutes instead of half an hour.
    #[arg(long)]
    quick: bool,
    /// Devices that send heartbeats.
    #[arg(long)]
    devices: Option<u64>,
    /// Heartbeats of devices that are known already.
    #[arg(long)]
    heartbeats: Option<u64>,
    /// How often each measure is taken; medians are quoted.
    #[arg(long)]
    rounds: Option<usize>,
    /// Only these: throughput, peer, latency, growth.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Where report.json and the plot go.
    #[arg(long, default_value = "target/bench")]
    output: PathBuf,
    /// This program as the bare consumer alone: broker, topic, count.
    #[arg(long, hide = true, num_args = 3)]
    bare: Vec<String>,
    /// What `cargo bench` passes.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    fn wants(&self, what: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == what)
    }
}

fn main() {
    let options = Options::parse();
    if !options.bare.is_empty() {
        return bare::child(&options.bare);
    }
    let quick = options.quick;
    let mut fleet = Fleet {
        devices: options.devices.unwrap_or(if quick { 200_000 } else { 1_000_000 }),
        heartbeats: options.heartbeats.unwrap_or(if quick { 2_000_000 } else { 10_000_000 }),
        partitions: 4,
    };
    let rounds = options.rounds.unwrap_or(if quick { 2 } else { 3 });
    let broker = KafkaBroker::start_with(&[("log.retention.ms", "-1")]);
    let mut report = Report::new(&fleet, rounds);

    // First, before the broker has changelogs of millions to compact.
    if options.wants("latency") {
        for changes_per_s in [1_000, 10_000] {
            let seconds = if quick { 8 } else { 30 };
            let redis = RedisServer::start();
            latency::measure(&broker, &redis, changes_per_s, seconds, &mut report);
        }
    }
    if options.wants("throughput") || options.wants("peer") {
        throughput(&options, &broker, &mut fleet, rounds, &mut report);
    }
    if options.wants("growth") {
        growth(quick, &broker, &mut report);
    }
    report.finish(&options.output);
}

/// How long the bare consumer must take for the topic: reading on is up to half
/// as fast again, and shall take its five seconds too.
const TOPIC: Duration = Duration::from_secs(8);

/// Fills the topic until its reading takes long enough to be measured.
fn fill(broker: &KafkaBroker, topics: &ServiceTopics, fleet: &mut Fleet) {
    loop {
        let total = fleet.devices + fleet.heartbeats;
        let once = bare::rate(broker, &topics.heartbeats, total);
        let wanted = once.per_s() * TOPIC.as_secs_f64();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let more = (wanted as u64).saturating_sub(total);
        if more == 0 {
            return;
        }
        report::say(&format!("{total} records are too few to measure by: {more} more"));
        load::heartbeats(broker, topics, fleet, total, more);
        fleet.heartbeats += more;
    }
}

/// Steady and cold, each run right behind one of what it is compared with, so
/// that the two had the same machine: A B A B.
fn throughput(
    options: &Options,
    broker: &KafkaBroker,
    fleet: &mut Fleet,
    rounds: usize,
    report: &mut Report,
) {
    let topics = broker.service_topics("bench", fleet.partitions);
    let redis = RedisServer::start();
    report::say("every device sends its first heartbeat");
    load::heartbeats(broker, &topics, fleet, 0, fleet.devices);
    let primed: Vec<_> = (0..rounds)
        .filter(|_| options.wants("throughput"))
        .map(|round| {
            let group = service::Group::new(broker, &topics, &format!("steady-{round}"));
            group.catch_up(&redis, fleet.devices);
            group
        })
        .collect();
    report::say("and then the others");
    load::heartbeats(broker, &topics, fleet, fleet.devices, fleet.heartbeats);
    if options.heartbeats.is_none() {
        fill(broker, &topics, fleet);
        report.set("heartbeats", fleet.heartbeats);
    }
    let total = fleet.devices + fleet.heartbeats;

    for round in 0..rounds {
        if options.wants("peer") {
            let (rate, heap_bytes) = peer::rate(broker, &topics, total, round);
            report.add("kafka_streams_cold", rate);
            report.set("streams_bytes_per_device", heap_bytes / fleet.devices);
        }
        let Some(group) = primed.get(round) else { continue };
        if let Some(rate) = bare::rate_with_jemalloc(broker, &topics.heartbeats, total) {
            report.add("bare_with_jemalloc", rate);
        }
        report.add("bare", bare::rate(broker, &topics.heartbeats, total));
        let cold = service::Group::new(broker, &topics, &format!("cold-{round}"));
        cold.cold(&redis, total, report);
        // A changelog of as many rows as there are devices.
        report.add("bare_changelog", bare::rate_of_what_there_is(broker, group.changelog()));
        report.add("bare", bare::rate(broker, &topics.heartbeats, total));
        group.steady(&redis, fleet, report);
    }
}

/// How cost grows with devices and with threads.
fn growth(quick: bool, broker: &KafkaBroker, report: &mut Report) {
    let sizes: &[u64] = if quick { &[10_000, 100_000] } else { &[100_000, 1_000_000, 10_000_000] };
    // Enough for some seconds, with two threads too.
    let least = if quick { 10_000_000 } else { 30_000_000 };
    for &devices in sizes {
        for threads in [1, 2] {
            let fleet = Fleet { devices, heartbeats: (devices * 2).max(least), partitions: 4 };
            let topics = broker.service_topics("growth", fleet.partitions);
            let redis = RedisServer::start();
            let group = service::Group::new(broker, &topics, "growth");
            load::heartbeats(broker, &topics, &fleet, 0, fleet.devices);
            group.catch_up(&redis, fleet.devices);
            load::heartbeats(broker, &topics, &fleet, fleet.devices, fleet.heartbeats);
            group.grow(&redis, &fleet, threads, report);
        }
    }
}
