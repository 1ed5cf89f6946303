//! What bytes cost: heartbeats read, rows and changes written.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use device_status::shard::{
    Cause, Connectivity, DeviceId, Entry, HeartbeatState, Input, Status, StatusChange, Timestamp,
    snapshot::{DeviceFacts, Emitted, HeartbeatInterval, Membership, Register, RowSnapshot},
};
use device_status::wire::murmur2::partition_of;
use device_status::wire::proto::v1::Heartbeat;
use device_status::wire::{ChangeFormat, Format, changelog, decode, status_changed};
use prost::Message;

const AT: Timestamp = Timestamp(1_790_000_000_000);
const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

fn decoding(criterion: &mut Criterion) {
    let at = prost_types::Timestamp { seconds: AT.0 / 1000, nanos: 123_000_000 };
    let value = Heartbeat { occurred_at: Some(at), poll_interval: None, ..Default::default() }
        .encode_to_vec();
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Elements(1));
    group.bench_function("heartbeat", |bencher| {
        bencher.iter(|| {
            let (key, value) = (black_box(KEY), black_box(&value));
            decode(Input::Heartbeats, Format::Protobuf, Some(key), Some(value))
        });
    });
    let (key, value) = changelog::encode(&row());
    group.bench_function("row of the changelog", |bencher| {
        bencher.iter(|| changelog::decode(Some(black_box(&key)), value.as_deref()));
    });
    group.bench_function("partition of a key", |bencher| {
        bencher.iter(|| partition_of(black_box(KEY), 12));
    });
    group.finish();
}

fn device() -> DeviceId {
    DeviceId::from_key(KEY).unwrap()
}

fn row() -> Entry {
    let emitted = Emitted {
        version: 7,
        shown: Some((Status::Online, Connectivity::Full)),
        since: AT,
        connectivity_since: AT,
        membership_since: AT,
    };
    let membership = Membership { fleet: "fleet".into(), organization: "org".into() };
    let row = RowSnapshot {
        heartbeat: Some(Register { at: AT, value: HeartbeatInterval::Default }),
        going_away: false,
        facts: DeviceFacts {
            registered: Some(AT),
            provisioned: Some(AT),
            membership: Some(Register { at: AT, value: membership }),
            ..DeviceFacts::default()
        },
        emitted: Some(emitted),
        clock: AT,
    };
    Entry::Device(device(), Some(Box::new(row)))
}

fn encoding(criterion: &mut Criterion) {
    let change = StatusChange {
        device: device(),
        fleet: Some("fleet".into()),
        organization: Some("org".into()),
        version: 7,
        previous: Some((Status::Offline, Connectivity::None)),
        current: Some((Status::Online, Connectivity::HeartbeatOnly)),
        since: AT,
        connectivity_since: AT,
        cause: Cause::Heartbeat,
        heartbeat_state: HeartbeatState::Online,
        last_heartbeat: Some(AT),
        vpn_connected: false,
        progress: None,
        release: None,
        update_phase: None,
        update_outcome: None,
        update_since: None,
        membership_since: Timestamp(0),
        previous_fleet: None,
        previous_organization: None,
        vpn_instance: None,
    };
    let row = row();
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Elements(1));
    group.bench_function("status change", |bencher| {
        bencher.iter(|| status_changed::encode(black_box(&change), ChangeFormat::Protobuf));
    });
    group.bench_function("status change in JSON", |bencher| {
        bencher.iter(|| status_changed::encode(black_box(&change), ChangeFormat::Json));
    });
    group.bench_function("row of the changelog", |bencher| {
        bencher.iter(|| changelog::encode(black_box(&row)));
    });
    group.finish();
}

criterion_group!(benches, decoding, encoding);
criterion_main!(benches);
