//! Errors, named by their remedy. What follows each for the promises is in
//! docs/guarantees.md.

use std::fmt;

/// Something went wrong; the variant says what to do about it. That somebody
/// else owns what we thought ours is no error: it is an answer to a commit, and
/// the loop asks what became of the batch (rule C6).
#[derive(Debug)]
pub enum Error {
    /// Try again, with backoff, until a deadline.
    Retriable(String),
    /// What was stored cannot be read: discard the shard and restore it, or
    /// stop it if that is of no use.
    Corrupted(String),
    /// Stop, with a message a person can act on.
    Fatal(Fatal),
}

/// A reason to stop, and the exit code that tells its kind to scripts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fatal {
    /// What kind of failure it is.
    pub kind: FatalKind,
    /// What is wrong, where, and what to do about it.
    pub message: String,
}

/// The kinds of failure that stop the process, after sysexits(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FatalKind {
    /// What was asked for does not exist.
    NotFound,
    /// What was asked for is known, but older than it may be.
    Stale,
    /// The command line was wrong.
    Usage,
    /// Kafka or Redis cannot be reached, or lacks something.
    Unavailable,
    /// The configuration is wrong.
    Configuration,
    /// Anything else: a bug, or a state that should not be.
    Internal,
}

impl FatalKind {
    /// Its name for programs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            FatalKind::NotFound => "not_found",
            FatalKind::Stale => "stale",
            FatalKind::Usage => "usage",
            FatalKind::Unavailable => "unavailable",
            FatalKind::Internal => "internal",
            FatalKind::Configuration => "configuration",
        }
    }

    /// The process's exit code.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            FatalKind::NotFound => 1,
            FatalKind::Usage => 2,
            FatalKind::Stale => 3,
            FatalKind::Unavailable => 69,
            FatalKind::Internal => 70,
            FatalKind::Configuration => 78,
        }
    }
}

impl Fatal {
    /// A dependency is unavailable.
    pub fn unavailable(message: impl Into<String>) -> Fatal {
        Fatal { kind: FatalKind::Unavailable, message: message.into() }
    }

    /// The configuration is wrong.
    pub fn configuration(message: impl Into<String>) -> Fatal {
        Fatal { kind: FatalKind::Configuration, message: message.into() }
    }

    /// What was asked for does not exist.
    pub fn not_found(message: impl Into<String>) -> Fatal {
        Fatal { kind: FatalKind::NotFound, message: message.into() }
    }

    /// What was asked for is older than it may be.
    pub fn stale(message: impl Into<String>) -> Fatal {
        Fatal { kind: FatalKind::Stale, message: message.into() }
    }

    /// The command line is wrong.
    pub fn usage(message: impl Into<String>) -> Fatal {
        Fatal { kind: FatalKind::Usage, message: message.into() }
    }

    /// A bug, or a state that should not be.
    pub fn internal(message: impl Into<String>) -> Fatal {
        Fatal { kind: FatalKind::Internal, message: message.into() }
    }
}

impl From<Fatal> for Error {
    fn from(fatal: Fatal) -> Error {
        Error::Fatal(fatal)
    }
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Retriable(message) => write!(f, "retriable: {message}"),
            Error::Corrupted(message) => write!(f, "corrupted: {message}"),
            Error::Fatal(fatal) => write!(f, "fatal: {fatal}"),
        }
    }
}

impl std::error::Error for Error {}
impl std::error::Error for Fatal {}
