//! The rows of a partition in memory.

pub mod cold;
pub mod hot;
mod index;
mod packed;
pub mod table;
