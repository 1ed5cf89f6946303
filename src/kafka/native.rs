//! Parts of librdkafka that rust-rdkafka lacks: the topic and offset of an
//! end-of-partition event, rebalances that the loop handles (rule C5), and
//! non-blocking queries (rules T1, R1).
//!
//! `unsafe` is allowed here. Every pointer from librdkafka is in a guard of this
//! module that destroys it; nothing borrowed from an event outlives the closure
//! that receives it.
//!
//! `guards` owns librdkafka's values, `records` takes records and rebalances,
//! `questions` sends non-blocking queries, `group` describes a group's members,
//! `access` reads permissions, `sign_in` changes credentials.

#![allow(unsafe_code, reason = "librdkafka's C interface")]

mod access;
mod group;
mod guards;
#[cfg(test)]
mod properties;
mod questions;
mod records;
mod sign_in;

pub use access::{Operation, TopicAccess, may_commit, topic_access};
pub use group::{Group, GroupQuestion, Member, member_id};
pub use guards::{NoAnswer, PartitionOffset};
pub use questions::{Questions, Spec};
pub use records::{ConsumerQueue, NativeRecord, Polled};
pub use sign_in::Tended;
