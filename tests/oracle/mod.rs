//! A second telling of the rules, written apart from the core, and generated
//! histories to compare both by.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod drive;
pub mod fleet;
pub mod history;
pub mod model;
pub mod sequence;
