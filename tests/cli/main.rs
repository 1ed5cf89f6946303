//! The commands of the built binary as black boxes.

#[path = "../support/mod.rs"]
mod support;

mod configuration;
mod demo;
mod explain;
mod explain_kafka;
mod package_files;
mod send;
mod service_manager;
mod signals;
mod simulate;
