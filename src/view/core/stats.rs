//! Counters and warnings of the view.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Counters and warnings of the view, for metrics and readiness.
#[derive(Debug, Default)]
pub struct ViewStats {
    /// Writes that wait, or are in the current round.
    pub backlog: AtomicUsize,
    /// Whether the connection is up.
    pub connected: AtomicBool,
    /// Writes that the server accepted.
    pub written: AtomicU64,
    /// Writes that were fenced by a later token.
    pub refused: AtomicU64,
    /// Failed connection attempts and failed commands.
    pub errors: AtomicU64,
    /// Rewrites of a partition, because the server had lost data.
    pub rewrites: AtomicU64,
    /// Results of the sweep.
    pub sweep: SweepStats,
    /// Warnings for people.
    pub advice: Mutex<Advice>,
}

/// Results of the sweep, counted in hashes (rule V6).
#[derive(Debug, Default)]
pub struct SweepStats {
    /// Hashes that were right.
    pub same: AtomicU64,
    /// Hashes of which only the heartbeat was refreshed.
    pub refreshed: AtomicU64,
    /// Hashes that were missing or wrong, and were written again.
    pub repaired: AtomicU64,
    /// Orphaned keys and wrong members of sets that were removed.
    pub removed: AtomicU64,
    /// Hashes that were not compared, because a newer write waits or came meanwhile.
    pub skipped: AtomicU64,
    /// Hashes that could not be read or written.
    pub failed: AtomicU64,
    /// Devices whose hash the owner of another partition wrote, counted in each pass.
    pub twofold: AtomicU64,
    /// Completed keyspace scans.
    pub scans: AtomicU64,
}

/// Warnings for people.
#[derive(Debug, Default)]
pub struct Advice {
    /// Why nothing is written; `None` while the server accepts writes.
    pub trouble: Option<String>,
    /// A warning that the server evicts keys when its memory is full.
    pub evicts: Option<String>,
    /// The other group that owns the prefix: nothing is written.
    pub other_group: Option<String>,
}

impl ViewStats {
    /// Why the server answers but refuses writes, if it does.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        let advice = self.advice();
        let answers = self.connected.load(Ordering::Relaxed) && advice.other_group.is_none();
        advice.trouble.clone().filter(|_| answers)
    }

    /// Locks the warnings.
    pub fn advice(&self) -> MutexGuard<'_, Advice> {
        self.advice.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
