//! What the core's parts cost: events of each kind, applied to devices of a
//! table of a million and of ten million; the ladder; the timer wheel.
//!
//! `BENCH_DEVICES=1000000` leaves out the larger table, which takes a minute to
//! fill and a gigabyte.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use device_status::shard::clock::Now;
use device_status::shard::status::{Ladder, heartbeat_state};
use device_status::shard::timer::Wheel;
use device_status::shard::{
    Content, DeviceEvent, DeviceId, Event, EventBody, FrozenReason, Input, Queued, Relay, Rules,
    Settings, Shard, Start, Timestamp,
};

const BATCH: u64 = 10_000;
const START_MS: i64 = 1_790_000_000_000;

/// A device by number, with an id as random as a UUID.
fn device(number: u64) -> DeviceId {
    let mixed = |n: u64| {
        let n = (n ^ (n >> 31)).wrapping_mul(0x7fb5_d329_728e_a185);
        (n ^ (n >> 27)).wrapping_mul(0x81da_def4_bc2d_d44d)
    };
    let id = u128::from(mixed(number + 1)) << 64 | u128::from(mixed(!number));
    DeviceId::Hex(id.to_le_bytes())
}

/// A shard of many devices, and what is told to it.
struct Told {
    shard: Shard,
    devices: u64,
    told: u64,
    offset: i64,
    now: Now,
}

impl Told {
    fn new(devices: u64) -> Told {
        let mut shard = Shard::new(0, Rules::default());
        shard.start(Start { epoch: 1, clock: Some(Timestamp(START_MS)), ..Start::default() });
        for input in Input::ALL {
            shard.learn_end(input, None, 0, 0);
            shard.end_of_partition(input, 0);
        }
        // Without the broker's time nobody's silence would be believed.
        let now = Now { broker: Some(Timestamp(START_MS)), ..Now::default() };
        let mut told = Told { shard, devices, told: 0, offset: 0, now };
        while told.told < devices {
            let records = told.heartbeats(BATCH);
            told.run(Input::Heartbeats, records);
        }
        assert!(told.shard.rows() as u64 >= devices - BATCH, "what is told is not applied");
        told
    }

    /// The next records: of each device in turn, in an order without a system,
    /// so late that nobody expires in between and a thousand fall into each
    /// millisecond.
    fn records(&mut self, count: u64, body: impl Fn(u64) -> EventBody) -> Vec<Queued> {
        let records = (self.told..self.told + count).map(|told| {
            let number = told.wrapping_mul(7_919_777) % self.devices;
            let timestamp = Timestamp(START_MS + i64::try_from(told / 50_000).unwrap());
            let event = Event { occurred_at: None, body: body(number) };
            self.offset += 1;
            Queued {
                offset: self.offset,
                timestamp,
                stamped_by_broker: true,
                relay: Relay::default(),
                content: Content::Event(event),
            }
        });
        let records = records.collect();
        self.told += count;
        records
    }

    fn heartbeats(&mut self, count: u64) -> Vec<Queued> {
        self.records(count, |number| EventBody::Heartbeat {
            device: device(number),
            poll_interval_s: None,
            going_away: false,
        })
    }

    fn run(&mut self, input: Input, records: Vec<Queued>) {
        // Of the other inputs nothing is known: they hold nobody up any more.
        self.now.monotonic_ms += 1_000;
        for record in records {
            self.shard.offer(input, record);
        }
        while self.shard.turn(self.now, 20_000).more {}
        black_box(self.shard.take_outbox(0));
    }
}

fn sizes() -> Vec<u64> {
    let most = std::env::var("BENCH_DEVICES").map_or(10_000_000, |count| count.parse().unwrap());
    [1_000_000, 10_000_000].into_iter().filter(|size| *size <= most).collect()
}

fn name(size: u64) -> String {
    format!("{}M devices", size / 1_000_000)
}

/// Applied, and what they ask to be written taken: one group a kind of event.
fn events(criterion: &mut Criterion) {
    for size in sizes() {
        let mut told = Told::new(size);
        let mut bench = |kind: &str, input: Input, body: &dyn Fn(u64) -> EventBody| {
            let mut group = criterion.benchmark_group(kind);
            group.throughput(Throughput::Elements(BATCH)).sample_size(20);
            group.bench_function(name(size), |bencher| {
                let told = std::cell::RefCell::new(&mut told);
                bencher.iter_batched(
                    || told.borrow_mut().records(BATCH, body),
                    |records| told.borrow_mut().run(input, records),
                    BatchSize::PerIteration,
                );
            });
            group.finish();
        };
        bench("heartbeat of a known device", Input::Heartbeats, &|number| EventBody::Heartbeat {
            device: device(number),
            poll_interval_s: None,
            going_away: false,
        });
        let of = |number, event| EventBody::Device { device: device(number), event };
        let names: Vec<Arc<str>> = (0..1_000).map(|n| format!("name {n}").into()).collect();
        let named = |number: u64| names[(number % 1_000) as usize].clone();
        bench("registered", Input::Lifecycle, &|number| {
            let event = DeviceEvent::Registered {
                fleet: named(number),
                organization: named(number / 1_000),
                preregistered: false,
            };
            of(number, event)
        });
        bench("settings changed", Input::Lifecycle, &|number| {
            let settings = Settings { poll_interval_s: Some(900), vpn_enabled: Some(true) };
            of(number, DeviceEvent::SettingsChanged(settings))
        });
        bench("session opened", Input::VpnSessions, &|number| {
            let (instance, session) = (named(number % 50), named(number));
            of(
                number,
                DeviceEvent::SessionOpened { instance, session, opened_at: None, lease_ms: None },
            )
        });
        bench("session closed", Input::VpnSessions, &|number| {
            let (instance, session) = (named(number % 50), named(number));
            of(number, DeviceEvent::SessionClosed { instance, session, opened_at: None })
        });
        bench("frozen", Input::Lifecycle, &|number| {
            of(number, DeviceEvent::Frozen { reason: FrozenReason::Allowance })
        });
        bench("update progressed", Input::Lifecycle, &|number| {
            of(
                number,
                DeviceEvent::UpdateProgressed { percent: 50, phase: None, release: "".into() },
            )
        });
        bench("heartbeat of a device with facts", Input::Heartbeats, &|number| {
            EventBody::Heartbeat {
                device: device(number),
                poll_interval_s: None,
                going_away: false,
            }
        });
        // A row is made, and the change goes out.
        let fresh = std::cell::Cell::new(size);
        bench("heartbeat of a new device", Input::Heartbeats, &|_| {
            fresh.set(fresh.get() + 1);
            EventBody::Heartbeat {
                device: device(fresh.get()),
                poll_interval_s: None,
                going_away: false,
            }
        });
    }
}

fn ladder(criterion: &mut Criterion) {
    let deadlines = Some((Timestamp(START_MS), Timestamp(START_MS + 15_000)));
    let mut group = criterion.benchmark_group("ladder");
    group.bench_function("online", |bencher| {
        bencher.iter(|| {
            let ladder = Ladder {
                exists: true,
                frozen: false,
                inactive: false,
                unseen_since_provisioning: false,
                contacted: true,
                heartbeat: heartbeat_state(deadlines, black_box(Timestamp(START_MS - 1))),
                vpn_connected: black_box(true),
                vpn_disabled: false,
                configuring: false,
                updating: black_box(false),
            };
            black_box(ladder).shown()
        });
    });
    group.finish();
}

/// Rows filed at the usual deadline, then fired: each goes down three times.
fn wheel(criterion: &mut Criterion) {
    const SPAN_MS: i64 = 1_350_000;
    let mut group = criterion.benchmark_group("wheel");
    group.throughput(Throughput::Elements(1_000_000)).sample_size(10);
    group.bench_function("arm 1M", |bencher| {
        bencher.iter_batched(
            || Wheel::new(Timestamp(START_MS)),
            |mut wheel| {
                for row in 0..1_000_000_u32 {
                    wheel.file(row, Timestamp(START_MS + SPAN_MS + i64::from(row)));
                }
                wheel
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("advance over 1M", |bencher| {
        bencher.iter_batched(
            || {
                let mut wheel = Wheel::new(Timestamp(START_MS));
                for row in 0..1_000_000_u32 {
                    wheel.file(row, Timestamp(START_MS + SPAN_MS + i64::from(row)));
                }
                wheel
            },
            |mut wheel| {
                let to = Timestamp(START_MS + SPAN_MS + 1_000_000);
                let filed = |row: u32| Some(Timestamp(START_MS + SPAN_MS + i64::from(row)));
                let mut due = Vec::new();
                while wheel.position() < to {
                    wheel.advance(to, 1_024, filed, &mut due);
                    black_box(&due);
                    due.clear();
                }
                wheel
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, events, ladder, wheel);
criterion_main!(benches);
