//! The clock interface, and the only place that reads the host's clocks.

#![allow(clippy::disallowed_methods, reason = "the only place that reads the host's clocks")]

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::shard::Timestamp;

/// A source of time, passed to whatever needs it.
pub trait Clock {
    /// Milliseconds of a monotonic clock with an arbitrary start.
    fn monotonic_ms(&self) -> i64;
    /// The time of day by the host's clock, which may be wrong.
    fn wall(&self) -> Timestamp;
}

impl<T: Clock + ?Sized> Clock for Arc<T> {
    fn monotonic_ms(&self) -> i64 {
        (**self).monotonic_ms()
    }

    fn wall(&self) -> Timestamp {
        (**self).wall()
    }
}

/// The host's monotonic clock and its time of day.
#[derive(Clone, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    #[must_use]
    pub fn new() -> SystemClock {
        SystemClock { start: Instant::now() }
    }

    /// Blocks this thread. For tools, shutdown and the committer's thread; never in the
    /// loop.
    pub fn pause(duration: Duration) {
        std::thread::sleep(duration);
    }
}

impl Default for SystemClock {
    fn default() -> SystemClock {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn monotonic_ms(&self) -> i64 {
        i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    fn wall(&self) -> Timestamp {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)),
            Err(_) => Timestamp::MIN,
        }
    }
}
