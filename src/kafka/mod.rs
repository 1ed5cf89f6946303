//! Kafka itself, behind the ports that the loop knows.

pub mod client_config;
pub mod topics;
