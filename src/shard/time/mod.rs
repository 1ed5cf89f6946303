//! When: what time the inputs make it, whose record comes next, and which row is
//! due.

pub mod clock;
pub mod merge;
pub mod timer;
