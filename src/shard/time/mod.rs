//! Time: the clock that follows from the inputs, the choice of the next record,
//! and the timers of rows.

pub mod clock;
pub mod merge;
pub mod timer;
