//! Bytes to the core's values and back: pure, no I/O.

pub mod dead_letter;
pub mod decode;
pub mod murmur2;
pub mod proto;

pub use decode::{Format, Refusal, decode};
