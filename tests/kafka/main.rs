//! The service and its log port against a real Kafka.

#[path = "../support/mod.rs"]
mod support;

mod dead_letters;
mod end_to_end;
mod faults;
mod group;
mod group_protocol;
mod harness;
mod log;
mod ties;
