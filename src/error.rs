//! Errors, named by their remedy. docs/guarantees.md says what each means for the
//! guarantees.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// An error; the variant says how to handle it. Being fenced by a later owner is not an
/// error but an answer to a commit: the loop then looks up whether the batch was committed
/// (rule C6).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Retry with backoff until a deadline.
    #[error("retriable: {0}")]
    Retriable(String),
    /// Stored data cannot be read. Discard the shard and restore it; stop it if that does
    /// not help.
    #[error("corrupted: {0}")]
    Corrupted(String),
    /// Stop the process, with a message that says what to do.
    #[error("fatal: {0}")]
    Fatal(#[from] Fatal),
}

/// A reason to stop the process, and its exit code for scripts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fatal {
    /// The kind of failure.
    pub kind: FatalKind,
    /// What is wrong, where, and what to do about it.
    pub message: String,
}

/// The kinds of failure that stop the process, with their exit codes: those of
/// sysexits(3), or small ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum FatalKind {
    /// The requested object does not exist.
    NotFound = 1,
    /// The requested object exists, but is older than allowed (`get --max-age`).
    Stale = 3,
    /// The command line was wrong.
    Usage = 2,
    /// Kafka or Redis cannot be reached, or lacks something.
    Unavailable = 69,
    /// The configuration is wrong.
    Configuration = 78,
    /// A bug.
    Internal = 70,
}

impl FatalKind {
    /// The process's exit code.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        self as u8
    }
}

/// Defines a constructor for each kind.
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
    not_found: NotFound, "The requested object does not exist.";
    stale: Stale, "The requested object is older than allowed.";
    usage: Usage, "The command line is wrong.";
    internal: Internal, "A bug.";
}

/// Locks a mutex. Its data stays valid if another thread panicked.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
