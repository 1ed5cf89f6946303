//! The way to Redis: connections, whose keys they are, the thread that writes,
//! and the reader of `get` and `watch`.

pub mod access;
pub mod claim;
pub mod link;
pub mod nodes;
pub mod read;
pub mod turns;
pub mod worker;
