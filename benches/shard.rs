//! What a heartbeat costs the core: from a record's bytes to the row.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use device_status::shard::clock::Now;
use device_status::shard::{Content, Input, Queued, Rules, Shard, Start, Timestamp};
use device_status::wire::Format;
use device_status::wire::decode::decode;
use device_status::wire::murmur2::partition_of;
use device_status::wire::proto::v1::Heartbeat;
use prost::Message;

const DEVICES: u64 = 1_000_000;
const BATCH: u64 = 10_000;
const START_MS: i64 = 1_790_000_000_000;

fn key(device: u64) -> String {
    format!("{:032x}", device.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn value(at_ms: i64) -> Vec<u8> {
    let at = prost_types::Timestamp {
        seconds: at_ms / 1000,
        nanos: i32::try_from(at_ms % 1000).unwrap() * 1_000_000,
    };
    Heartbeat { occurred_at: Some(at), poll_interval: None }.encode_to_vec()
}

/// Heartbeats as they lie in a partition, one a device, in turn.
struct Log {
    shard: Shard,
    next: u64,
}

impl Log {
    fn new() -> Log {
        let mut shard = Shard::new(0, Rules::default());
        shard.start(Start { epoch: 1, ..Start::default() });
        for input in Input::ALL {
            shard.learn_end(input, None, 0, 0);
            shard.end_of_partition(input, 0);
        }
        let mut log = Log { shard, next: 0 };
        while log.next < DEVICES {
            log.read(BATCH);
            log.shard.take_outbox(0);
        }
        log
    }

    fn read(&mut self, count: u64) {
        let now = Now { monotonic_ms: 0, broker: None };
        for _ in 0..count {
            let at_ms = START_MS + i64::try_from(self.next / 1_000).unwrap();
            let (key, value) = (key(self.next % DEVICES), value(at_ms));
            let event =
                decode(Input::Heartbeats, Format::Protobuf, Some(key.as_bytes()), Some(&value));
            let record = Queued {
                offset: i64::try_from(self.next).unwrap(),
                timestamp: Timestamp(at_ms),
                stamped_by_broker: true,
                content: Content::Event(event.unwrap()),
            };
            self.shard.offer(Input::Heartbeats, record, now);
            self.next += 1;
        }
        while self.shard.turn(now, 20_000).more {}
    }
}

fn heartbeats(criterion: &mut Criterion) {
    let mut log = Log::new();
    let mut group = criterion.benchmark_group("heartbeat");
    group.throughput(Throughput::Elements(BATCH));
    group.sample_size(20);
    group.bench_function("of a known device of a million", |bencher| {
        bencher.iter(|| log.read(BATCH));
    });
    group.finish();
}

fn decoding(criterion: &mut Criterion) {
    let (key, value) = (key(7), value(START_MS));
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Elements(1));
    group.bench_function("heartbeat", |bencher| {
        bencher.iter_batched(
            || (),
            |()| {
                decode(
                    Input::Heartbeats,
                    Format::Protobuf,
                    Some(black_box(key.as_bytes())),
                    Some(black_box(&value)),
                )
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function("partition of a key", |bencher| {
        bencher.iter(|| partition_of(black_box(key.as_bytes()), 12));
    });
    group.finish();
}

criterion_group!(benches, heartbeats, decoding);
criterion_main!(benches);
