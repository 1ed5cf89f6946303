//! Bytes to the core's types, and back; pure.

pub mod proto;
