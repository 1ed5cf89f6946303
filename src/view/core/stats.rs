//! How the view is doing, for metrics, readiness and people.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How the view is doing, for metrics and readiness.
#[derive(Debug, Default)]
pub struct ViewStats {
    /// How many writes wait or are under way.
    pub backlog: AtomicUsize,
    /// Whether the server answered last time.
    pub connected: AtomicBool,
    /// Writes that the server took.
    pub written: AtomicU64,
    /// Writes that the server refused, holding later ones.
    pub refused: AtomicU64,
    /// Attempts to connect, and commands, that failed.
    pub errors: AtomicU64,
    /// Partitions whose view was found flushed, replaced or set back.
    pub rewrites: AtomicU64,
    /// What the sweep found and did.
    pub sweep: SweepStats,
    /// What keeps the view from being right, or may; for people.
    pub advice: Mutex<Advice>,
}

/// What the sweep found and did, in hashes (rule V6).
#[derive(Debug, Default)]
pub struct SweepStats {
    /// Hashes that were as they should be.
    pub same: AtomicU64,
    /// Hashes whose heartbeat alone was brought up to date.
    pub refreshed: AtomicU64,
    /// Hashes that were missing or wrong and have been written again.
    pub repaired: AtomicU64,
    /// Hashes of no row, and members of no set, that have been removed.
    pub removed: AtomicU64,
    /// Hashes that were left alone: something newer waits, or came meanwhile.
    pub skipped: AtomicU64,
    /// Hashes that the server would not let us read or write.
    pub failed: AtomicU64,
    /// Scans of the keyspace that came to their end.
    pub scans: AtomicU64,
}

/// What people should know.
#[derive(Debug, Default)]
pub struct Advice {
    /// Why nothing is written; absent while the server takes writes.
    pub trouble: Option<String>,
    /// That the server evicts keys when it is full, with what is lost then.
    pub evicts: Option<String>,
    /// The group that the keys belong to, if it is another: nothing is written.
    pub other_group: Option<String>,
}

impl ViewStats {
    /// Why the server takes no writes although it answers, if it takes none.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        let advice = self.advice();
        let answers = self.connected.load(Ordering::Relaxed) && advice.other_group.is_none();
        advice.trouble.clone().filter(|_| answers)
    }

    /// What people should know.
    pub fn advice(&self) -> MutexGuard<'_, Advice> {
        self.advice.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
