//! device-status: the status of every device of a fleet, from Kafka to Redis
//! and back to Kafka, exactly once.
//!
//! # The path of the data
//!
//! ```text
//!  Kafka: heartbeats, VPN sessions, lifecycle
//!    │  kafka::log        a record, with its position and timestamp
//!    ▼
//!  wire::decode           bytes → Event, or a dead letter with a reason
//!    ▼
//!  shard::merge           the records of three inputs, in the order of their times
//!    ▼
//!  shard::clock           how far all inputs have been read: devices expire by it
//!    ▼
//!  shard::device, scope   the facts of the row; the latest event wins
//!    ▼
//!  shard::status          the ladder: facts and a time → status, connectivity
//!    ▼                    shard::timer, for devices that stopped sending
//!  shard::outbox          changelog, changes, dead letters, view writes
//!    ▼
//!  stream_thread::commit  one transaction, with the offsets of the inputs
//!    │  kafka::committer
//!    ├──▶ Kafka: device-status-changes, the changelog, dead letters
//!    ▼
//!  view                   Redis, after the commit
//! ```
//!
//! A [`shard::Shard`] is one partition number across the three inputs, with the rows
//! of its devices. It is pure: bytes and time are arguments, and the output is
//! returned as values. A [`stream_thread::StreamThread`] owns the shards that the
//! group assigned to it and drives them in one loop. It has three ports:
//! [`stream_thread::ports::Log`] (Kafka), [`stream_thread::ports::View`] (Redis) and
//! [`clock::Clock`]. [`cli::run`] starts the configured number of stream threads and
//! the [`admin`] server.
//!
//! # Architecture invariants
//!
//! - `shard` and `wire` do no I/O, read no clock, use no randomness, and return errors
//!   as values. `tests/pure/tidy.rs` and `clippy.toml` check this.
//! - A status is a function of the row and a time. A row is a join of its events: the
//!   same events, in any order and with any duplicates, make the same row.
//! - Devices expire only by the shard's clock, and the clock never passes what has been
//!   read.
//! - The output of a batch of records is written in the same transaction as their
//!   offsets. Redis is written after the commit, and never read for a decision.
//! - A rebalance arrives as a value. The loop commits before it gives partitions back.
//!
//! Comments cite rules by name (J1, T3, …). `docs/rules.md` defines them.

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
