//! Rate limit for warnings and errors, so that a lasting problem does not fill the disk.
//! Each place in the code may log a burst, and then one line at a time. Suppressed lines
//! are counted and reported.
//!
//! All lines of librdkafka come from one place in the code, so they are told apart by
//! their facility (`FAIL`, `REQTMOUT` …).

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Mutex, OnceLock};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata};
use tracing_subscriber::layer::{Context, Filter};

use crate::error::lock;

/// The burst of lines from one place: enough for one line per partition.
const BURST: f64 = 20.0;
/// After the burst, one line is allowed in this time.
const REFILL_MS: f64 = 10_000.0;
/// How often suppressed lines are reported.
const TELL_MS: i64 = 60_000;

/// A monotonic clock, in milliseconds.
pub type MonotonicMs = Box<dyn Fn() -> i64 + Send + Sync>;

type Kind = (Identifier, String);

/// The rate limit, by place and facility.
pub struct Limit {
    clock: MonotonicMs,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    kinds: HashMap<Kind, Bucket>,
    told_ms: i64,
}

struct Bucket {
    room: f64,
    filled_ms: i64,
    place: String,
    left_out: u64,
}

static LIMIT: OnceLock<Limit> = OnceLock::new();

/// Installs the rate limit of the process's log.
pub fn install(clock: MonotonicMs) -> &'static Limit {
    LIMIT.get_or_init(|| Limit::new(clock))
}

/// Logs, at most once a minute, how many lines were suppressed. Call it regularly.
pub fn tell_left_out() {
    if let Some(limit) = LIMIT.get() {
        limit.report();
    }
}

impl Limit {
    fn new(clock: MonotonicMs) -> Limit {
        Limit { clock, state: Mutex::default() }
    }

    fn takes(&self, kind: Kind, place: impl FnOnce() -> String) -> bool {
        let now_ms = (self.clock)();
        let mut state = lock(&self.state);
        let bucket = state.kinds.entry(kind).or_insert_with(|| Bucket {
            room: BURST,
            filled_ms: now_ms,
            place: place(),
            left_out: 0,
        });
        let passed_ms = (now_ms - bucket.filled_ms).max(0);
        bucket.room = (bucket.room + passed_ms as f64 / REFILL_MS).min(BURST);
        bucket.filled_ms = now_ms;
        if bucket.room >= 1.0 {
            bucket.room -= 1.0;
            true
        } else {
            bucket.left_out += 1;
            false
        }
    }

    fn report(&self) {
        let now_ms = (self.clock)();
        let mut left_out = Vec::new();
        {
            let mut state = lock(&self.state);
            if now_ms - state.told_ms < TELL_MS {
                return;
            }
            state.told_ms = now_ms;
            for bucket in state.kinds.values_mut().filter(|bucket| bucket.left_out > 0) {
                left_out.push((bucket.place.clone(), std::mem::take(&mut bucket.left_out)));
            }
        }
        for (place, lines) in left_out {
            tracing::info!(
                lines,
                place,
                "similar log lines were suppressed: the problem continues"
            );
        }
    }
}

/// The facility of a line of librdkafka.
#[derive(Default)]
struct Facility(String);

impl Visit for Facility {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "facility" {
            value.clone_into(&mut self.0);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

impl<S> Filter<S> for &'static Limit {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    /// No limit by level. Without this hint, every disabled debug line would be built and
    /// passed to the filter.
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::WARN {
            return true;
        }
        let mut facility = Facility::default();
        if metadata.target() == "librdkafka" {
            event.record(&mut facility);
        }
        let Facility(facility) = facility;
        let place = || match (facility.as_str(), metadata.file(), metadata.line()) {
            ("", Some(file), Some(line)) => format!("{file}:{line}"),
            ("", ..) => metadata.target().to_owned(),
            (facility, ..) => format!("librdkafka {facility}"),
        };
        self.takes((metadata.callsite(), facility.clone()), place)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use tracing_subscriber::Layer as _;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn count(&self, words: &str) -> usize {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap().matches(words).count()
        }
    }

    fn logged(with: impl FnOnce(&'static Limit, &AtomicI64, &Lines)) {
        let now_ms = Arc::new(AtomicI64::new(0));
        let clock = now_ms.clone();
        let limit = Limit::new(Box::new(move || clock.load(Ordering::Relaxed)));
        let limit: &'static Limit = Box::leak(Box::new(limit));
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = tracing_subscriber::fmt::layer();
        let layer = layer.with_ansi(false).with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(limit));
        tracing::subscriber::with_default(subscriber, || with(limit, &now_ms, &lines));
    }

    #[test]
    fn a_lasting_problem_is_logged_as_a_burst_then_rarely_and_counted() {
        logged(|limit, now_ms, lines| {
            for second in 0..120 {
                now_ms.store(second * 1_000, Ordering::Relaxed);
                for _ in 0..10 {
                    tracing::warn!("the same again");
                }
                tracing::info!("news");
            }
            let told = lines.count("the same again");
            assert_eq!(told, 20 + 11);
            assert_eq!(lines.count("news"), 120);
            limit.report();
            assert_eq!(lines.count(&format!("lines={}", 1_200 - told)), 1);
            assert_eq!(lines.count("place=\"src/telemetry/limit.rs:"), 1);
            limit.report();
            assert_eq!(lines.count("log lines were suppressed"), 1);
        });
    }

    #[test]
    fn one_problem_does_not_suppress_another() {
        logged(|_, _, lines| {
            let librdkafka = |facility: &str| {
                tracing::error!(target: "librdkafka", facility, "its words");
            };
            for _ in 0..100 {
                librdkafka("FAIL");
            }
            librdkafka("FATAL");
            assert_eq!(lines.count("facility=\"FAIL\""), 20);
            assert_eq!(lines.count("facility=\"FATAL\""), 1);
        });
    }
}
