//! What an operator lives through: restarts, outages, two installations, a broker
//! that asks who comes, a Redis that fails over, other versions of both, and what the
//! metrics say.

#[path = "../support/mod.rs"]
mod support;

mod dead_letter_share;
mod metrics;
mod outages;
mod redis_refuses;
mod restarts;
mod security;
mod sign_in;
mod two_installations;
mod two_partitions;
mod versions;
mod view_whole;
mod wrong_clocks;

use std::collections::HashMap;
use std::time::Duration;

use device_status::wire::proto::v1::StatusChanged;
use support::kafka::{Isolation, KafkaBroker, Record, ServiceTopics};

/// So many changes of each device, each once and in order.
#[track_caller]
fn assert_each_change_once(
    within: Duration,
    broker: &KafkaBroker,
    topics: &ServiceTopics,
    devices: &[String],
    rounds: u64,
) {
    let expected = devices.len() * usize::try_from(rounds).unwrap();
    let mut reader = broker.reader(&topics.status_changes, Isolation::ReadCommitted);
    reader.read_count(within, expected);
    let records = reader.read_for(Duration::from_millis(500));
    assert_eq!(records.len(), expected);
    let mut last: HashMap<String, u64> = HashMap::new();
    for change in records.iter().map(Record::decode::<StatusChanged>) {
        let before = last.insert(change.device_id.clone(), change.version).unwrap_or(0);
        assert_eq!(change.version, before + 1, "{change:?}");
    }
}
