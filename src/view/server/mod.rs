//! The connection to Redis: servers and credentials, the ownership of the prefix, the
//! worker thread that writes, and the reader for `get` and `watch`.

pub mod access;
pub mod claim;
pub mod link;
pub mod nodes;
pub mod read;
pub mod turns;
pub mod worker;
