//! Waiting for conditions, always with a deadline: the one place of the tests
//! that looks at the clock and sleeps.
#![allow(clippy::disallowed_methods, reason = "tests of real processes wait in real time")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point in time by which something must have happened.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    started: Instant,
    within: Duration,
}

impl Deadline {
    /// The deadline that passes `within` from now.
    pub fn after(within: Duration) -> Deadline {
        Deadline { started: Instant::now(), within }
    }

    /// How long is left; zero once it has passed.
    pub fn left(&self) -> Duration {
        self.within.saturating_sub(self.started.elapsed())
    }

    /// Whether it has passed.
    pub fn passed(&self) -> bool {
        self.left().is_zero()
    }
}

/// How long something took.
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    pub fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    /// The time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The time of day, in milliseconds since the epoch.
pub fn now_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since_epoch.as_millis()).unwrap()
}

/// Does nothing for a while. Prefer to wait for a condition; this is for
/// showing that something does *not* happen.
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// Waits until `condition` holds, and fails the test if it does not in time.
#[track_caller]
pub fn wait_until(within: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(within, what, || if condition() { Ok(()) } else { Err("it is not so yet") });
}

/// Waits until `attempt` succeeds and returns what it returned. When it does
/// not in time, the test fails with `what` and the last error, which should
/// tell what was found instead.
#[track_caller]
pub fn wait_for<T, E: std::fmt::Display>(
    within: Duration,
    what: &str,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> T {
    let deadline = Deadline::after(within);
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) if deadline.passed() => {
                panic!("waited {within:?} for {what}, in vain: {error}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}
