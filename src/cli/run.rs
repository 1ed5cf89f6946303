//! Stands in for the module of this name until the branches meet.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::clock::SystemClock;
use crate::config::Config;
use crate::error::Fatal;

/// Runs the service until `shutdown` is set.
///
/// # Errors
/// Never, here.
#[allow(clippy::needless_pass_by_value, reason = "the real one takes them")]
pub fn run_service(_config: Config, shutdown: Arc<AtomicBool>) -> Result<(), Fatal> {
    while !shutdown.load(Ordering::Relaxed) {
        SystemClock::pause(Duration::from_millis(20));
    }
    Ok(())
}
