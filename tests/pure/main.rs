//! What needs neither Kafka nor Redis nor the built binary.

#[path = "../oracle/mod.rs"]
mod oracle;

mod configuration_docs;
mod fuzz_targets;
mod memory;
mod properties;
mod stories;
mod story;
mod tidy;
