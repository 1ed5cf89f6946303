//! The admin server: `/live`, `/ready` and `/metrics`.

mod health;
mod server;

pub use health::{GroupHealth, Health, MAX_TURN_MS, ProbeResult, RedisHealth, ThreadReport};
pub use server::{Server, start};
