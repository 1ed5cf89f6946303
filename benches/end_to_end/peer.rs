//! The Kafka Streams program of `benches/peer-kafka-streams`, on the same topic.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::report::{Measured, say};
use crate::support::kafka::{KafkaBroker, ServiceTopics};

/// Reads the whole topic of heartbeats, cold: how fast, and how many bytes of
/// heap are in use then.
pub fn rate(
    broker: &KafkaBroker,
    topics: &ServiceTopics,
    records: u64,
    round: usize,
) -> (Measured, u64) {
    say("Kafka Streams reads everything, cold");
    let application = broker.unique(&format!("peer-{round}"));
    let changes = format!("{application}-changes");
    broker.create_topic(&changes, topics.partitions, &[]);
    let state = tempfile::tempdir().expect("a directory");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peer-kafka-streams/run.sh");
    let mut peer = Command::new(script)
        .args([&broker.address(), &application, &topics.heartbeats, &changes])
        .arg(records.to_string())
        .arg(state.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("benches/peer-kafka-streams/run.sh");
    // It says: done RECORDS in MILLISECONDS
    // and: heap in use: BYTES bytes
    let (mut said, mut heap_bytes) = (None, 0);
    for line in BufReader::new(peer.stdout.take().expect("its output")).lines() {
        let line = line.expect("text");
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["done", records, "in", ms] = words[..] {
            said = Some((records.parse().expect("a count"), ms.parse().expect("milliseconds")));
        } else {
            say(&format!("    {line}"));
        }
        if let ["heap", "in", "use:", bytes, ..] = words[..] {
            heap_bytes = bytes.parse().expect("a count");
        }
    }
    let status = peer.wait().expect("the peer");
    let (records, ms) = said.unwrap_or_else(|| panic!("the peer ended ({status}) too early"));
    (Measured::new(records, Duration::from_millis(ms), 0.0), heap_bytes)
}
