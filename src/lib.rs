//! device-status: the status of every device of a fleet, from Kafka to Redis
//! and back to Kafka, exactly once.

pub mod cli;
pub mod error;
pub mod shard;
pub mod stream_thread;
pub mod view;
