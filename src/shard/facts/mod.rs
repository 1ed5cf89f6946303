//! The facts of devices and scopes, how an event changes them, and the status
//! that follows.

pub mod device;
pub mod earlier;
pub mod interval;
pub mod register;
pub mod scope;
pub mod seen;
pub mod session;
pub mod sessions;
pub mod status;
pub mod told;
pub mod update;
