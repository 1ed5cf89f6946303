//! The state that the loop and the worker of a view share.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::state::State;
use super::stats::ViewStats;
use crate::stream_thread::ports::Clock;

/// The upper bound of a single wait for a change.
pub const WAIT_MAX_MS: i64 = 60_000;

/// The state that the loop and the worker share.
pub struct Shared {
    /// Locked only briefly, never during I/O.
    pub state: Mutex<State>,
    /// Signals that `state` has changed, or that the worker has stopped.
    pub changed: Condvar,
    /// For metrics, readable without the lock.
    pub stats: Arc<ViewStats>,
    /// Time.
    pub clock: Arc<dyn Clock + Send + Sync>,
}

impl Shared {
    /// Locks the state. It stays valid if another thread panicked.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change, for at most `ms`.
    pub fn wait<'a>(&self, state: MutexGuard<'a, State>, ms: i64) -> MutexGuard<'a, State> {
        let ms = u64::try_from(ms.clamp(1, WAIT_MAX_MS)).unwrap_or(1);
        let waited = self.changed.wait_timeout(state, Duration::from_millis(ms));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
