//! What an operator lives through: restarts, outages, two installations, a broker
//! that asks who comes, a Redis that fails over, and what the metrics say.

#[path = "../support/mod.rs"]
mod support;

mod metrics;
mod outages;
mod restarts;
mod security;
mod two_installations;
mod view_whole;
