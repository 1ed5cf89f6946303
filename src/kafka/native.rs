//! What librdkafka offers and rust-rdkafka does not: the topic and offset of an
//! end-of-partition event, rebalances that are left to the loop (rule C5), and
//! questions that are answered without blocking (rules T1, R1).
//!
//! One of the few modules where `unsafe` is allowed. Every pointer that comes
//! from librdkafka lives in a guard of this module that destroys it; nothing
//! borrowed from an event outlives the closure it is lent to.
//!
//! `guards` owns what comes from librdkafka, `records` takes records and
//! rebalances, `questions` asks without blocking, `group` who the members of a
//! group are, `access` what a client may do.

#![allow(unsafe_code, reason = "librdkafka's C interface")]

mod access;
mod group;
mod guards;
#[cfg(test)]
mod properties;
mod questions;
mod records;

pub use access::{Operation, TopicAccess, may_commit, topic_access};
pub use group::{Group, GroupQuestion, Member, member_id};
pub use guards::{Found, NoAnswer};
pub use questions::{Questions, Spec};
pub use records::{ConsumerQueue, NativeRecord, Polled};
