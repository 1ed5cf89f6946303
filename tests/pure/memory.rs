//! What a device costs in memory, counted by the allocator: row, index, timer
//! and all that hangs on them; also while the table grows.
//!
//! Memory is deterministic, so these tests hold the bars in bytes. The long
//! form, with the figures of docs/performance.md:
//! `MEMORY_DEVICES=10000000 cargo test --release --test pure memory -- --nocapture`;
//! with `MEMORY_REPORT=FILE` the figures are also written there, as JSON.
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use device_status::shard::{
    Content, DeviceEvent, DeviceId, Event, EventBody, Input, Now, Queued, Relay, Rules, Shard,
    Start, Status, Timestamp,
};

/// Counts for each thread what it holds, and the most that it ever held: other
/// tests run beside these.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// What glibc takes for an allocation: eight bytes more, in steps of sixteen.
fn taken(layout: Layout) -> isize {
    (layout.size() + 8).next_multiple_of(16).max(32).cast_signed()
}

fn hold(more: isize) {
    let held = HELD.get() + more;
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
}

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        hold(taken(layout));
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        hold(-taken(layout));
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const DAY_MS: i64 = 24 * 3_600_000;
const POLL_MS: i64 = 15 * 60_000;
const T0: i64 = 1_790_000_000_000;

/// Records between two commits: few, so that what is on its way to Kafka does
/// not count for what is held.
const BATCH: u64 = 500;

fn devices() -> u64 {
    std::env::var("MEMORY_DEVICES").map_or(100_000, |count| count.parse().unwrap())
}

/// A device by number: 32 hex digits as random as those of a UUID.
fn device(number: u64) -> DeviceId {
    let mixed = |n: u64| {
        let n = (n ^ (n >> 31)).wrapping_mul(0x7fb5_d329_728e_a185);
        (n ^ (n >> 27)).wrapping_mul(0x81da_def4_bc2d_d44d)
    };
    let (high, low) = (mixed(number + 1), mixed(!number));
    DeviceId::Hex((u128::from(high) << 64 | u128::from(low)).to_le_bytes())
}

/// A shard, and what is told to it.
struct Told {
    shard: Shard,
    now_ms: i64,
    offsets: [i64; 3],
    /// The most that one batch held for a moment, above what was held before it.
    transient: isize,
    /// The most bytes a device at any batch, once half of the devices were there.
    worst: f64,
    empty: isize,
}

impl Told {
    fn new() -> Told {
        let empty = HELD.get();
        let mut shard = Shard::new(0, Rules { slack_ms: 0, ..Rules::default() });
        let clock = Some(Timestamp(T0));
        shard.start(Start { epoch: 1, clock, ..Start::default() });
        let mut told = Told { shard, now_ms: T0, offsets: [0; 3], transient: 0, worst: 0.0, empty };
        told.settle();
        told
    }

    fn now(&self) -> Now {
        Now { monotonic_ms: self.now_ms, broker: Some(Timestamp(self.now_ms)) }
    }

    fn offer(&mut self, input: Input, body: EventBody) {
        let offset = self.offsets[input.index()];
        self.offsets[input.index()] += 1;
        let content = Content::Event(Event { occurred_at: None, body });
        let timestamp = Timestamp(self.now_ms);
        let record =
            Queued { offset, timestamp, stamped_by_broker: true, relay: Relay::default(), content };
        self.shard.offer(input, record);
    }

    /// Has all done that is due by now, and commits it.
    fn settle(&mut self) {
        for input in Input::ALL {
            let end = self.offsets[input.index()];
            self.shard.learn_end(input, Some(Timestamp(self.now_ms)), end, end);
            self.shard.end_of_partition(input, end);
        }
        while self.shard.turn(self.now(), 1_000).more {
            self.shard.take_outbox(0);
        }
        self.shard.take_outbox(0);
        self.shard.view_acknowledged(u64::MAX);
    }

    fn held(&self) -> isize {
        HELD.get() - self.empty
    }

    /// Tells `event` of each device, in an order of its own, over `span_ms`.
    fn tell(&mut self, span_ms: i64, seed: u64, event: impl Fn(u64) -> (Input, EventBody)) {
        let count = devices();
        let start_ms = self.now_ms;
        // A step that has no factor in common with the count comes to everyone.
        let step = (1 << 40 | seed << 1 | 1)
            + 2 * (0..).find(|n| gcd((1 << 40 | seed << 1 | 1) + 2 * n, count) == 1).unwrap();
        for number in 0..count {
            let device =
                u64::try_from(u128::from(number) * u128::from(step) % u128::from(count)).unwrap();
            let (input, body) = event(device);
            self.now_ms = start_ms
                + i64::try_from(i128::from(span_ms) * i128::from(number) / i128::from(count))
                    .unwrap();
            self.offer(input, body);
            if number % BATCH == BATCH - 1 || number + 1 == count {
                let before = HELD.get();
                PEAK.set(before);
                self.settle();
                self.transient = self.transient.max(PEAK.get() - before);
                let rows = self.shard.rows();
                if rows as u64 >= count / 2 {
                    self.worst = self.worst.max(self.held() as f64 / rows as f64);
                }
            }
        }
        self.now_ms = start_ms + span_ms;
    }

    fn heartbeats(&mut self) {
        self.tell(POLL_MS, 1, |number| {
            let body = EventBody::Heartbeat {
                device: device(number),
                poll_interval_s: None,
                going_away: false,
            };
            (Input::Heartbeats, body)
        });
    }

    fn lifecycle(&mut self, span_ms: i64, seed: u64, event: impl Fn(u64) -> DeviceEvent) {
        self.tell(span_ms, seed, |number| {
            (Input::Lifecycle, EventBody::Device { device: device(number), event: event(number) })
        });
    }

    fn sessions(&mut self, span_ms: i64, seed: u64, event: impl Fn(u64) -> DeviceEvent) {
        self.tell(span_ms, seed, |number| {
            (Input::VpnSessions, EventBody::Device { device: device(number), event: event(number) })
        });
    }

    fn bytes_per_device(&self) -> f64 {
        self.held() as f64 / self.shard.rows() as f64
    }

    fn report(&self, name: &str, what: &str) -> f64 {
        let bytes = self.bytes_per_device();
        record(&format!("bytes_per_device_{name}"), bytes);
        println!(
            "{} devices {what}: {bytes:.1} bytes a device; {:.1} at worst since half of them; \
             at most {:.1} MB more for a moment",
            self.shard.rows(),
            self.worst,
            self.transient as f64 / 1e6,
        );
        bytes
    }
}

/// For the report of `make bench`.
fn record(name: &str, bytes: f64) {
    let Ok(path) = std::env::var("MEMORY_REPORT") else { return };
    let mut all: serde_json::Map<String, serde_json::Value> = std::fs::read(&path)
        .map_or_else(|_| Default::default(), |json| serde_json::from_slice(&json).unwrap());
    all.insert("bytes_per_device_devices".into(), devices().into());
    all.insert(name.into(), ((bytes * 10.0).round() / 10.0).into());
    std::fs::write(&path, serde_json::to_vec_pretty(&all).unwrap()).unwrap();
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn session(number: u64, which: u64) -> (std::sync::Arc<str>, std::sync::Arc<str>) {
    (format!("vpn-{}", number % (devices() / 20_000)).into(), format!("{number:x}-{which}").into())
}

fn opened(number: u64, which: u64) -> DeviceEvent {
    let (instance, session) = session(number, which);
    DeviceEvent::SessionOpened { instance, session, opened_at: None, lease_ms: None }
}

fn closed(number: u64, which: u64) -> DeviceEvent {
    let (instance, session) = session(number, which);
    DeviceEvent::SessionClosed { instance, session, opened_at: None }
}

/// While growing, at most this share of what is held is held once more, besides
/// what a batch has on its way.
fn assert_grows_gently(told: &Told) {
    let bar = told.held() / 20 + 4_000_000;
    assert!(told.transient <= bar, "{} bytes more for a moment, {bar} allowed", told.transient);
}

#[test]
fn a_device_known_by_heartbeats_alone_takes_at_most_72_bytes() {
    let mut told = Told::new();
    for _ in 0..3 {
        told.heartbeats();
    }
    let bytes = told.report("heartbeat_only", "known by heartbeats alone");
    assert_eq!(told.shard.status_counts()[Status::Online.index()], devices());
    assert!(bytes <= 72.0 && told.worst <= 72.0);
    assert_grows_gently(&told);
}

#[test]
fn a_registered_device_with_a_session_takes_at_most_112_bytes_and_64_for_each_that_closed() {
    let mut told = Told::new();
    // A fleet as it comes to be: registered over a year, provisioned in the
    // month after, each time in another order; connected within the last days.
    told.lifecycle(365 * DAY_MS, 2, |number| DeviceEvent::Registered {
        fleet: format!("fleet {}", number % (devices() / 1_000)).into(),
        organization: format!("organization {}", number % (devices() / 10_000)).into(),
        preregistered: false,
    });
    told.report("registered", "registered");
    told.lifecycle(30 * DAY_MS, 3, |_| DeviceEvent::Provisioned);
    told.report("provisioned", "provisioned");
    told.sessions(3 * DAY_MS, 4, |number| opened(number, 0));
    for _ in 0..3 {
        told.heartbeats();
    }
    let bytes = told.report("full", "registered, provisioned, with a session open");
    assert_eq!(told.shard.status_counts()[Status::Online.index()], devices());
    assert!(bytes <= 112.0 && told.worst <= 112.0);
    assert_grows_gently(&told);

    const CLOSED: u64 = 4;
    let held = told.held();
    for which in 0..CLOSED {
        // Within a poll: heartbeats that time out cost time and no memory.
        told.sessions(45_000, 5, |number| closed(number, which));
        told.sessions(45_000, 6, |number| opened(number, which + 1));
    }
    for _ in 0..2 {
        told.heartbeats();
    }
    let each = (told.held() as f64 - held as f64) / (CLOSED * devices()) as f64;
    told.report("four_closed_sessions", "with four closed sessions");
    println!("{each:.1} bytes for each closed session");
    record("bytes_per_closed_session", each);
    assert_eq!(told.shard.closed_sessions(&device(7)).len() as u64, CLOSED);
    assert!(each <= 64.0);
    assert_grows_gently(&told);

    // A day later the sessions are forgotten, and the room they took is back.
    told.now_ms += DAY_MS + POLL_MS;
    told.settle();
    assert_eq!(told.shard.status_counts()[Status::Online.index()], devices(), "by the VPN");
    told.heartbeats();
    let bytes = told.report("sessions_forgotten", "once those were forgotten");
    assert_eq!(told.shard.closed_sessions(&device(7)).len(), 0);
    assert!(bytes <= 112.0);
}
