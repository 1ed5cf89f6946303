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
//!  shard::merge           three inputs, one order: by the time of the records
//!    ▼
//!  shard::clock           how far everything has been read: the time that judges
//!    ▼
//!  shard::device, scope   the facts of the row, the latest winning
//!    ▼
//!  shard::status          the ladder: facts and an instant → status, connectivity
//!    ▼                    shard::timer, for those that say nothing any more
//!  shard::outbox          changelog, changes, dead letters, view writes
//!    ▼
//!  stream_thread::commit  one transaction, with the offsets of the inputs
//!    │  kafka::committer
//!    ├──▶ Kafka: device-status-changes, the changelog, dead letters
//!    ▼
//!  view                   Redis, after the commit
//! ```
//!
//! A [`shard::Shard`] is one partition number across the three inputs, and all
//! that is known of its devices. It is pure: bytes and time come in as
//! arguments, what is to be written comes out as values. A
//! [`stream_thread::StreamThread`] holds the shards that the group gave it and
//! drives them in one loop, over three ports: [`stream_thread::ports::Log`]
//! (Kafka), [`stream_thread::ports::View`] (Redis) and
//! [`clock::Clock`]. [`cli::run`] starts as many of them as the
//! configuration says, and the [`admin`] server beside them.
//!
//! # Architecture invariants
//!
//! - `shard` and `wire` do no I/O, read no clock, use no randomness, and cannot
//!   fail but by value. `tests/pure/tidy.rs` and `clippy.toml` hold that line.
//! - A status is a function of the row and of an instant, and a row is a join of
//!   its events: same events, any order, any duplicates, same row.
//! - Nobody expires but by the shard's clock, and the clock never passes what
//!   has been read.
//! - What a batch of records changed is written in the same transaction as
//!   their offsets; Redis follows, and is never read to decide anything.
//! - A rebalance arrives as a value; the loop commits before it gives back.
//!
//! The rules that comments cite by name (J1, T3, …) are defined in
//! `docs/rules.md`.

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
