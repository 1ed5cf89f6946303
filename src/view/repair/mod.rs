//! Repairs of the view in the background (rule V6): the sweep compares hashes with
//! memory, the keyspace scan finds orphaned keys.

pub mod scan;
pub mod sweep;
