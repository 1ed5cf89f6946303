//! The view, and what reads it, against real Redis servers.

#[path = "../support/mod.rs"]
mod support;

mod cluster;
mod group;
mod reach;
mod read;
mod sweep;
mod twins;
mod view;
