//! What the tests against real brokers, servers and processes share.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod events;
pub mod kafka;
pub mod log;
pub mod owner;
pub mod process;
pub mod redis;
pub mod redis_cluster;
pub mod redis_sentinel;
pub mod redis_tls;
pub mod secure;
pub mod sender;
pub mod service;
pub mod topics;
pub mod wait;
