//! Errors, named by their remedy. What follows each for the promises is in
//! docs/guarantees.md.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// Something went wrong; the variant says what to do about it. That somebody
/// else owns what we thought ours is no error: it is an answer to a commit, and
/// the loop asks what became of the batch (rule C6).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Try again, with backoff, until a deadline.
    #[error("retriable: {0}")]
    Retriable(String),
    /// What was stored cannot be read: discard the shard and restore it, or
    /// stop it if that is of no use.
    #[error("corrupted: {0}")]
    Corrupted(String),
    /// Stop, with a message a person can act on.
    #[error("fatal: {0}")]
    Fatal(#[from] Fatal),
}

/// A reason to stop, and the exit code that tells its kind to scripts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fatal {
    /// What kind of failure it is.
    pub kind: FatalKind,
    /// What is wrong, where, and what to do about it.
    pub message: String,
}

/// The kinds of failure that stop the process, each with its exit code: after
/// sysexits(3), or small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum FatalKind {
    /// What was asked for does not exist.
    NotFound = 1,
    /// What was asked for is known, but older than it may be.
    Stale = 3,
    /// The command line was wrong.
    Usage = 2,
    /// Kafka or Redis cannot be reached, or lacks something.
    Unavailable = 69,
    /// The configuration is wrong.
    Configuration = 78,
    /// Anything else: a bug, or a state that should not be.
    Internal = 70,
}

impl FatalKind {
    /// The process's exit code.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        self as u8
    }
}

/// Makes a function for each kind.
macro_rules! of_kinds {
    ($($function:ident: $kind:ident, $when:literal;)*) => {
        impl Fatal {
            $(
                #[doc = $when]
                pub fn $function(message: impl Into<String>) -> Fatal {
                    Fatal { kind: FatalKind::$kind, message: message.into() }
                }
            )*
        }
    };
}

of_kinds! {
    unavailable: Unavailable, "A dependency is unavailable.";
    configuration: Configuration, "The configuration is wrong.";
    not_found: NotFound, "What was asked for does not exist.";
    stale: Stale, "What was asked for is older than it may be.";
    usage: Usage, "The command line is wrong.";
    internal: Internal, "A bug, or a state that should not be.";
}

/// Locks: a panic elsewhere does not make what is known unknown.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
