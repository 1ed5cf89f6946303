//! How the rows of a partition lie in memory.

pub mod cold;
pub mod hot;
mod index;
mod packed;
pub mod table;
