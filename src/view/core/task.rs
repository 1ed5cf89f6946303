//! The tasks of the sweep (rule V6).

use crate::shard::ViewWrite;
use crate::stream_thread::ports::FoundKey;

/// A task of the sweep, for one partition.
#[derive(Debug)]
pub struct Sweep {
    /// The partition.
    pub partition: i32,
    /// The epoch of its owner.
    pub epoch: u64,
    /// The largest sequence that one of our tokens can have.
    pub latest: u64,
    /// The task.
    pub task: Task,
}

/// The kind of a task.
#[derive(Debug)]
pub enum Task {
    /// Compare these rows with the server, and repair what differs.
    Compare(Vec<ViewWrite>),
    /// Remove orphaned keys.
    Remove(Vec<FoundKey>),
}

impl Sweep {
    /// Its number of hashes.
    #[must_use]
    pub fn rows(&self) -> usize {
        match &self.task {
            Task::Compare(page) => page.len(),
            Task::Remove(keys) => keys.len(),
        }
    }
}
