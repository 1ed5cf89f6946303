//! The command line.

pub mod get;
pub mod watch;
