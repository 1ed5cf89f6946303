//! What the loop hands over to be put right (rule V6).

use crate::shard::ViewWrite;
use crate::stream_thread::ports::FoundKey;

/// Something to sweep.
#[derive(Debug)]
pub struct Sweep {
    /// Whose.
    pub partition: i32,
    /// For which epoch.
    pub epoch: u64,
    /// The last sequence that a token of ours can have.
    pub latest: u64,
    /// What to do.
    pub task: Task,
}

/// What to do.
#[derive(Debug)]
pub enum Task {
    /// Write where the view holds something else.
    Compare(Vec<ViewWrite>),
    /// Remove hashes that no row has.
    Remove(Vec<FoundKey>),
}

impl Sweep {
    /// How many hashes it is about.
    #[must_use]
    pub fn rows(&self) -> usize {
        match &self.task {
            Task::Compare(page) => page.len(),
            Task::Remove(keys) => keys.len(),
        }
    }
}
