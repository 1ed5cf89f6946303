//! Kafka clients: the implementation of the loop's `Log` port, and the checks of
//! topics, consumer group and permissions.

pub mod access;
pub mod client_config;
mod committer;
pub mod credentials;
pub mod group;
pub mod log;
mod membership;
mod native;
mod oauth;
pub mod positions;
mod protocol;
mod reaper;
mod role;
pub mod sign_in;
mod topic_names;
pub mod topics;
pub mod trouble;
pub mod watch;
