//! How `simulate` sends, as a real broker stamps it.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use crate::support::kafka::{Isolation, KafkaBroker, Record};
use crate::support::process::Process;
use crate::support::service::{ServiceConfig, binary, run};
use crate::support::wait::wait_for;

/// A busy machine takes its time, and sends together what it is late with.
const SOON: Duration = Duration::from_secs(120);
const FLEET: [&str; 5] = ["simulate", "--devices", "50", "--rate", "250"];

fn instants(heartbeats: &[Record]) -> usize {
    heartbeats.iter().map(|record| record.timestamp_ms).collect::<BTreeSet<_>>().len()
}

#[test]
fn events_are_sent_each_at_its_instant() {
    let broker = KafkaBroker::shared();
    let topics = broker.service_topics("simulated-evenly", 1);
    let config = ServiceConfig::new(broker, &topics);
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary());
    command.arg("--config").arg(config.write_to(directory.path())).args(FLEET);
    let _fleet = Process::spawn("simulate", command);
    let mut reader = broker.reader(&topics.heartbeats, Isolation::ReadUncommitted);
    // At 250 events a second, a batch every 20 ms makes 30 instants of these.
    wait_for(SOON, "100 heartbeats, each by itself", || {
        let read = reader.read_for(Duration::from_secs(1));
        let last = &read[read.len().saturating_sub(100)..];
        let instants = instants(last);
        if instants > 60 { Ok(()) } else { Err(format!("{instants} instants of {}", last.len())) }
    });
}

#[test]
fn in_bursts_events_come_together() {
    let broker = KafkaBroker::shared();
    let topics = broker.service_topics("simulated-bursts", 1);
    let config = ServiceConfig::new(broker, &topics);
    let bursts = ["--duration", "2s", "--bursts", "500ms"];
    let output = run(&config, &[&FLEET[..], &bursts].concat());
    assert!(output.status.success(), "{output:?}");
    let heartbeats = broker.read_committed(&topics.heartbeats, SOON);
    assert!(heartbeats.len() > 100, "{}", heartbeats.len());
    // Four bursts and the end, each in a batch or two.
    let instants = instants(&heartbeats);
    assert!(instants <= 10, "{instants} instants of {}", heartbeats.len());
}
