//! The subcommands.

pub mod simulate;
pub mod traffic;
