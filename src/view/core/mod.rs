//! What the view knows and decides, without I/O: what waits and has been
//! written, how it is told to the server, and what the server's answers mean.

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
