//! The `device-status` program.

fn main() {}
