//! Senders that keep a rate: what a fleet does on an ordinary day.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use device_status::wire::proto::v1::{FrozenReason, Unfrozen, lifecycle_event};
use rdkafka::producer::Producer as _;

use super::events::{self, Outgoing, device_id};
use super::kafka::{EventProducer, KafkaBroker, ServiceTopics};
use super::wait::{Stopwatch, now_ms, pause};

/// Devices of one sender.
const DEVICES: u64 = 1_000;
/// Longer than any run, so that nobody expires.
const POLL_INTERVAL: Duration = Duration::from_secs(3_600);
/// Unacknowledged records at which a sender waits for the broker: three bursts.
const IN_FLIGHT_MAX: u64 = 15_000;
/// How often a sender looks whether it is to send otherwise.
const LOOK: Duration = Duration::from_millis(50);

/// How records come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Each at its instant.
    Even,
    /// A second's worth at once.
    Bursty,
}

/// How many, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    pub per_second: u32,
    pub shape: Shape,
}

impl Pace {
    /// How many records are to be sent by `elapsed`.
    fn due(self, elapsed: Duration) -> u64 {
        let per_second = u64::from(self.per_second);
        match self.shape {
            Shape::Even => {
                let micros = u64::try_from(elapsed.as_micros()).unwrap();
                1 + micros * per_second / 1_000_000
            }
            Shape::Bursty => (1 + elapsed.as_secs()) * per_second,
        }
    }

    /// When the record after so many is to be sent.
    fn instant(self, sent: u64) -> Duration {
        match self.shape {
            Shape::Even => Duration::from_micros(sent * 1_000_000 / u64::from(self.per_second)),
            Shape::Bursty => Duration::from_secs(sent / u64::from(self.per_second)),
        }
    }
}

/// Sends events to the topics of one service, until it is dropped.
pub struct Sender {
    pace: Arc<Mutex<Pace>>,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Sender {
    /// Begins to send.
    pub fn start(broker: &KafkaBroker, topics: &ServiceTopics, pace: Pace) -> Sender {
        let alone = [("linger.ms", "0"), ("batch.num.messages", "1")];
        let producer = broker.producer_with(&alone);
        let topics = topics.clone();
        let pace = Arc::new(Mutex::new(pace));
        let stop = Arc::<AtomicBool>::default();
        let sent = Arc::<AtomicU64>::default();
        let thread = thread::spawn({
            let (pace, stop, sent) = (pace.clone(), stop.clone(), sent.clone());
            move || send(&producer, &topics, &pace, &stop, &sent)
        });
        Sender { pace, stop, sent, thread: Some(thread) }
    }

    /// Sends otherwise from now on.
    pub fn set_pace(&self, pace: Pace) {
        *self.pace.lock().unwrap_or_else(PoisonError::into_inner) = pace;
    }

    /// Records that were sent.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends sending; answers how many records the broker has.
    pub fn finish(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().unwrap();
        thread.join().expect("the sender");
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn send(
    producer: &EventProducer,
    topics: &ServiceTopics,
    wanted: &Mutex<Pace>,
    stop: &AtomicBool,
    total: &AtomicU64,
) {
    let look = || *wanted.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut pace, mut clock, mut sent) = (look(), Stopwatch::start(), 0);
    while !stop.load(Ordering::Relaxed) {
        let now = look();
        if now != pace {
            (pace, clock, sent) = (now, Stopwatch::start(), 0);
        }
        let in_flight = u64::try_from(producer.producer.in_flight_count()).unwrap();
        let due = pace.due(clock.elapsed()).saturating_sub(sent);
        for _ in 0..due.min(IN_FLIGHT_MAX.saturating_sub(in_flight)) {
            producer.send(topics, [event(total.fetch_add(1, Ordering::Relaxed))]);
            sent += 1;
        }
        producer.producer.poll(Duration::ZERO);
        let next = pace.instant(sent).saturating_sub(clock.elapsed());
        pause(next.clamp(Duration::from_micros(100), LOOK));
    }
    producer.flush();
}

/// The `n`th event: mostly heartbeats, and some of each other input. What it is
/// about stays the same, so that no memory is owed to it.
fn event(n: u64) -> Outgoing {
    let (device, round, at_ms) = (device_id(n % DEVICES), n / DEVICES, now_ms());
    match n % 10 {
        0 if round.is_multiple_of(2) => events::frozen(&device, at_ms, FrozenReason::Allowance),
        0 => {
            let event = lifecycle_event::Event::Unfrozen(Unfrozen {
                reason: FrozenReason::Allowance.into(),
            });
            events::lifecycle(Some(&device), at_ms, event)
        }
        5 => events::session_opened(&device, at_ms, "vpn-1", "session-1"),
        _ => events::heartbeat_every(&device, at_ms, POLL_INTERVAL),
    }
}
