//! What the view costs: device hashes, each a compare-and-set with a hint, by
//! the worker's pipelines to a real Redis, until all are acknowledged.

#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use device_status::config::Redis;
use device_status::shard::{
    Connectivity, DeviceId, DeviceView, HeartbeatState, Status, Timestamp, ViewBody, ViewWrite,
};
use device_status::stream_thread::ports::View;
use device_status::view::RedisView;

use support::redis::{HostClock, RedisServer, group};
use support::wait::pause;

const BATCH: u64 = 10_000;
const PARTITION: i32 = 3;
const EPOCH: u64 = 1_790_000_000_000;
const AT: Timestamp = Timestamp(1_790_000_000_500);

struct Owner {
    view: RedisView,
    sequence: u64,
    events: Vec<device_status::stream_thread::ports::ViewEvent>,
}

impl Owner {
    fn start(server: &RedisServer) -> Owner {
        let refresh_interval = Duration::ZERO;
        let config = Redis { url: server.url(), refresh_interval, ..Redis::default() };
        let mut view =
            RedisView::start(&config, &group(), HostClock::start(), &Arc::default(), true)
                .expect("a view");
        view.take(PARTITION, EPOCH, 0);
        Owner { view, sequence: 0, events: Vec::new() }
    }

    fn writes(&mut self, first_device: u64) -> Vec<ViewWrite> {
        let numbers = first_device..first_device + BATCH;
        let writes = numbers.map(|number| {
            self.sequence += 1;
            ViewWrite { sequence: self.sequence, body: ViewBody::Device(Box::new(device(number))) }
        });
        writes.collect()
    }

    fn write(&mut self, writes: Vec<ViewWrite>) {
        let stats = self.view.stats();
        self.view.write(PARTITION, writes, None, AT);
        while stats.backlog.load(Ordering::Relaxed) > 0 {
            self.view.poll(&mut self.events);
            self.events.clear();
            pause(Duration::from_micros(200));
        }
    }
}

fn device(number: u64) -> DeviceView {
    let id = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    DeviceView {
        device: DeviceId::Hex(id.to_be_bytes()),
        status: Status::Online,
        connectivity: Connectivity::HeartbeatOnly,
        since: AT,
        connectivity_since: AT,
        heartbeat: HeartbeatState::Online,
        last_heartbeat: Some(AT),
        vpn_connected: false,
        progress: None,
        release: None,
        update_phase: None,
        update_outcome: None,
        update_since: None,
        membership_since: Timestamp(0),
        fleet: None,
        previous_fleet: None,
        version: 1,
        changed: true,
    }
}

fn view(criterion: &mut Criterion) {
    let server = RedisServer::start();
    let mut owner = Owner::start(&server);
    let mut group = criterion.benchmark_group("view");
    group.throughput(Throughput::Elements(BATCH)).sample_size(10);
    let owner = std::cell::RefCell::new(&mut owner);
    group.bench_function("devices that are there", |bencher| {
        bencher.iter_batched(
            || owner.borrow_mut().writes(0),
            |writes| owner.borrow_mut().write(writes),
            BatchSize::PerIteration,
        );
    });
    let mut next = BATCH;
    group.bench_function("new devices", |bencher| {
        bencher.iter_batched(
            || {
                next += BATCH;
                owner.borrow_mut().writes(next)
            },
            |writes| owner.borrow_mut().write(writes),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, view);
criterion_main!(benches);
