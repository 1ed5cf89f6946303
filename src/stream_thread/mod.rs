//! The loop of one stream thread: poll, apply, expire, commit.

pub mod ports;
