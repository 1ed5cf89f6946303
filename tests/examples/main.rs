//! What the files in examples/ and deploy/ say of the service holds.

#[path = "../support/mod.rs"]
mod support;

mod deploy;
mod languages;
mod package;
