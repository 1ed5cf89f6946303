//! What the consumers and the committer of a stream thread have in common.

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;

use super::client_config;

/// Leaves rebalances to the loop: nothing happens inside a callback (rule C5).
pub struct LoopContext;

impl ClientContext for LoopContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client_config::log(level, facility, message);
    }
}

impl ConsumerContext for LoopContext {}
