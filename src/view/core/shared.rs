//! What the loop's side and the worker's side of a view hold together.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::state::State;
use super::stats::ViewStats;
use crate::stream_thread::ports::Clock;

/// The longest wait for something to happen; a bound only so that it is one.
pub const WAIT_MAX_MS: i64 = 60_000;

/// What the loop's side and the worker's side hold together.
pub struct Shared {
    /// Guarded for moments only, never across I/O.
    pub state: Mutex<State>,
    /// Something was put into `state`, or the worker has stopped.
    pub changed: Condvar,
    /// For metrics, readable without the lock.
    pub stats: Arc<ViewStats>,
    /// Time.
    pub clock: Arc<dyn Clock + Send + Sync>,
}

impl Shared {
    /// Locks the state. A panic elsewhere does not make it less true.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something changes, at most so long.
    pub fn wait<'a>(&self, state: MutexGuard<'a, State>, ms: i64) -> MutexGuard<'a, State> {
        let ms = u64::try_from(ms.clamp(1, WAIT_MAX_MS)).unwrap_or(1);
        let waited = self.changed.wait_timeout(state, Duration::from_millis(ms));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
