//! The state and decisions of the view, without I/O: the backlog, the markers, the
//! commands for the server, and the meaning of its answers.

pub mod answer;
pub mod backlog;
pub mod encode;
pub mod keys;
pub mod layout;
pub mod owner;
pub mod partition;
pub mod port;
pub mod scripts;
pub mod shared;
pub mod state;
pub mod stats;
pub mod task;
