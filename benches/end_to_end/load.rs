//! Filling topics, as fast as librdkafka takes it.

use device_status::wire::murmur2::partition_of;
use device_status::wire::proto::v1::Heartbeat;
use prost::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::time::Duration;

use crate::support::kafka::{KafkaBroker, ServiceTopics};
use crate::support::wait::now_ms;

/// How much there is of everything.
#[derive(Clone, Copy, Debug)]
pub struct Fleet {
    /// Devices that send heartbeats.
    pub devices: u64,
    /// Heartbeats besides the first of each.
    pub heartbeats: u64,
    /// Of each topic.
    pub partitions: i32,
}

/// The key of a device: 32 hexadecimal digits that look drawn by lot.
pub fn key(device: u64) -> String {
    let low = device.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let high = (device ^ 0x5851_f42d_4c95_7f2d).wrapping_mul(0xd134_2543_de82_ef95);
    format!("{high:016x}{low:016x}")
}

/// Heartbeats `first..first + count`, device after device in an order that the
/// table's layout does not know, stamped by the broker.
pub fn heartbeats(
    broker: &KafkaBroker,
    topics: &ServiceTopics,
    fleet: &Fleet,
    first: u64,
    count: u64,
) {
    let mut config = broker.config();
    config.set("compression.type", "lz4").set("linger.ms", "5").set("acks", "1");
    config.set("batch.num.messages", "10000").set("queue.buffering.max.messages", "1000000");
    let producer: BaseProducer = config.create().expect("a producer");
    for n in first..first + count {
        // A step that shares no factor with the number of devices visits each
        // once a round.
        let device = n.wrapping_mul(STEP) % fleet.devices;
        let key = key(device);
        let at_ms = now_ms();
        let occurred_at = Some(prost_types::Timestamp {
            seconds: at_ms / 1000,
            nanos: i32::try_from(at_ms % 1000).expect("less than a thousand") * 1_000_000,
        });
        let value =
            Heartbeat { occurred_at, poll_interval: None, ..Default::default() }.encode_to_vec();
        let mut record = BaseRecord::to(&topics.heartbeats)
            .partition(partition_of(key.as_bytes(), fleet.partitions))
            .key(key.as_bytes())
            .payload(&value);
        while let Err((_full, refused)) = producer.send(record) {
            producer.poll(Duration::from_millis(5));
            record = refused;
        }
        if n % 1_000 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(Duration::from_secs(120)).expect("the broker takes it all");
}

/// A prime larger than any fleet.
const STEP: u64 = 1_000_000_007;
