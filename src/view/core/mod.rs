//! What the view knows and decides, without I/O: what waits and has been
//! written, how it is told to the server, and what the server's answers mean.

pub mod backlog;
pub mod encode;
pub mod keys;
pub mod partition;
pub mod scripts;
pub mod state;
