//! `/live`, `/ready` and `/metrics`.

mod health;
mod server;

pub use health::{GroupHealth, Health, MAX_TURN_MS, RedisHealth, ThreadReport, Verdict};
pub use server::{Server, start};
