//! The roles of the topics.

use serde::Serialize;

use crate::config::Config;

/// The role of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Input: polls of the API.
    Heartbeats,
    /// Input: VPN sessions and instances.
    VpnSessions,
    /// Input: lifecycle and billing.
    Lifecycle,
    /// Our own state.
    Changelog,
    /// Output: status changes.
    StatusChanges,
    /// Output: records that could not be used.
    DeadLetters,
}

impl Role {
    /// All roles.
    pub const ALL: [Role; 6] = [
        Role::Heartbeats,
        Role::VpnSessions,
        Role::Lifecycle,
        Role::Changelog,
        Role::StatusChanges,
        Role::DeadLetters,
    ];

    /// The configured name of its topic.
    #[must_use]
    pub fn topic(self, config: &Config) -> &str {
        let topics = &config.topics;
        match self {
            Role::Heartbeats => &topics.heartbeats,
            Role::VpnSessions => &topics.vpn_sessions,
            Role::Lifecycle => &topics.lifecycle,
            Role::Changelog => &topics.changelog,
            Role::StatusChanges => &topics.status_changes,
            Role::DeadLetters => &topics.dead_letters,
        }
    }

    /// Whether partition `p` of it belongs to shard `p`.
    #[must_use]
    pub const fn is_copartitioned(self) -> bool {
        !matches!(self, Role::StatusChanges | Role::DeadLetters)
    }

    /// Whether it is one of the three inputs.
    #[must_use]
    pub const fn is_input(self) -> bool {
        matches!(self, Role::Heartbeats | Role::VpnSessions | Role::Lifecycle)
    }

    /// The settings that `topics create` gives it.
    #[must_use]
    pub const fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            // Seven days: a week of outage, and far more than the replay window.
            Role::Heartbeats | Role::VpnSessions | Role::Lifecycle | Role::StatusChanges => &[
                ("cleanup.policy", "delete"),
                ("retention.ms", "604800000"),
                ("message.timestamp.type", "LogAppendTime"),
            ],
            // Thirty days, so that a person has time to look.
            Role::DeadLetters => &[
                ("cleanup.policy", "delete"),
                ("retention.ms", "2592000000"),
                ("message.timestamp.type", "LogAppendTime"),
            ],
            // Small segments and eager cleaning, because a restore also reads what
            // is not yet compacted. Tombstones stay for a day.
            Role::Changelog => &[
                ("cleanup.policy", "compact"),
                ("message.timestamp.type", "LogAppendTime"),
                ("segment.bytes", "134217728"),
                ("min.cleanable.dirty.ratio", "0.2"),
                ("min.compaction.lag.ms", "60000"),
                ("delete.retention.ms", "86400000"),
            ],
        }
    }
}
