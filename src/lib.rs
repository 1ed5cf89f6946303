//! device-status: the status of every device of a fleet, from Kafka to Redis
//! and back to Kafka, exactly once.

pub mod admin;
pub mod cli;
pub mod clock;
pub mod config;
pub mod error;
pub mod kafka;
pub mod shard;
pub mod simulate;
pub mod stream_thread;
pub mod telemetry;
pub mod view;
pub mod wire;
