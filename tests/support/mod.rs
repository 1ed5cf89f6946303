//! What the tests against real servers share.
#![allow(dead_code, reason = "each test uses its own part")]

pub mod redis;
