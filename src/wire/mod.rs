//! Converts bytes to the core's values and back. Pure, no I/O.

pub mod changelog;
pub mod dead_letter;
pub mod decode;
pub mod headers;
mod heartbeat;
pub mod json;
pub mod metadata;
pub mod murmur2;
pub mod proto;
pub mod status_changed;

pub use decode::{Format, Refusal, decode};
pub use status_changed::ChangeFormat;
