//! The built binary for minutes on end: under faults, with nothing going wrong, and
//! on hours of history.

#[path = "../support/mod.rs"]
mod support;

#[path = "../oracle/mod.rs"]
mod oracle;

mod backlog;
mod faults;
mod soak;

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// How many tests of this binary the machine bears at a time is theirs to say.
static MACHINE: RwLock<()> = RwLock::new(());

/// For a test beside which no other may run.
fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

/// For a test that may run beside others of its kind.
fn among_others() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}
