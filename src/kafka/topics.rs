//! The topics: making them, and checking that they are as they must be.

mod brokers;
mod judge;

use std::fmt;

use serde::Serialize;
use tracing::warn;

use self::brokers::Brokers;
use super::access::{self, Operation};
use super::protocol;
use crate::config::{Config, GroupProtocol, Guarantee};
use crate::error::{Fatal, FatalKind};
use crate::shard::Input;

/// The broker's own limit for a record's size, if a topic sets none.
const DEFAULT_MAX_MESSAGE_BYTES: usize = crate::wire::dead_letter::DEFAULT_MAX_BYTES;

/// What a topic is for.
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

    /// The role of an input.
    #[must_use]
    pub const fn of_input(input: Input) -> Role {
        match input {
            Input::Lifecycle => Role::Lifecycle,
            Input::VpnSessions => Role::VpnSessions,
            Input::Heartbeats => Role::Heartbeats,
        }
    }

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

    const fn is_input(self) -> bool {
        matches!(self, Role::Heartbeats | Role::VpnSessions | Role::Lifecycle)
    }

    /// The settings that `topics create` gives it.
    const fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            // Seven days: a week of outage, and far more than the replay window.
            Role::Heartbeats | Role::VpnSessions | Role::Lifecycle | Role::StatusChanges => &[
                ("cleanup.policy", "delete"),
                ("retention.ms", "604800000"),
                ("message.timestamp.type", "LogAppendTime"),
            ],
            // Thirty days: until a person has looked.
            Role::DeadLetters => &[
                ("cleanup.policy", "delete"),
                ("retention.ms", "2592000000"),
                ("message.timestamp.type", "LogAppendTime"),
            ],
            // Small segments, cleaned eagerly: what a restore reads is bounded
            // by what is not yet compacted. Tombstones stay for a day.
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

/// A topic as the brokers have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TopicState {
    /// What it is for.
    pub role: Role,
    /// Its name.
    pub name: String,
    /// How many partitions it has; none: it does not exist.
    pub partitions: Option<i32>,
    /// `LogAppendTime` or `CreateTime`, if it could be read.
    pub timestamp_type: Option<String>,
    /// `delete`, `compact` or both, if it could be read.
    pub cleanup_policy: Option<String>,
    /// How long records are kept, if it could be read; -1: forever.
    pub retention_ms: Option<i64>,
    /// The largest record batch it takes (rule C8), if it could be read.
    pub max_message_bytes: Option<usize>,
    /// What the service needs to do with it, and may not.
    #[serde(serialize_with = "names")]
    pub denied: Vec<Operation>,
}

fn names<S: serde::Serializer>(operations: &[Operation], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(operations.iter().map(|operation| operation.name()))
}

/// Something about a topic that must be otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TopicProblem {
    /// The topic.
    pub topic: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for TopicProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "topic {}: {}; {}", self.topic, self.what, self.remedy)
    }
}

/// The topics as the brokers have them, and what is wrong with them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TopicReport {
    /// How many shards there are: the partitions that the inputs and the
    /// changelog have in common, if they have.
    pub partitions: Option<i32>,
    /// In the order of [`Role::ALL`].
    pub topics: Vec<TopicState>,
    /// What must be otherwise; empty: all is well.
    pub problems: Vec<TopicProblem>,
}

impl TopicReport {
    /// The topic of a role.
    #[must_use]
    pub fn topic(&self, role: Role) -> Option<&TopicState> {
        self.topics.iter().find(|topic| topic.role == role)
    }

    /// The largest record that a role's topic takes (rule C8).
    #[must_use]
    pub fn max_message_bytes(&self, role: Role) -> usize {
        let known = self.topic(role).and_then(|topic| topic.max_message_bytes);
        known.unwrap_or(DEFAULT_MAX_MESSAGE_BYTES)
    }

    /// The problems as one error, if there are any.
    ///
    /// # Errors
    /// [`Fatal`] of kind unavailable, naming every problem and its remedy.
    pub fn into_result(self) -> Result<TopicReport, Fatal> {
        match self.problems.as_slice() {
            [] => Ok(self),
            [problem] => Err(Fatal::unavailable(problem.to_string())),
            problems => {
                let lines: Vec<String> =
                    problems.iter().map(|problem| format!("\n  {problem}")).collect();
                let lines = lines.concat();
                Err(Fatal::unavailable(format!("the topics are not as they must be:{lines}")))
            }
        }
    }
}

/// What `topics create` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CreateReport {
    /// How many partitions the new topics have.
    pub partitions: i32,
    /// Topics that were made.
    pub created: Vec<String>,
    /// Topics that were there, and left as they are.
    pub existed: Vec<String>,
}

/// Looks at the topics, and refuses what must be otherwise: for the start.
///
/// # Errors
/// [`Fatal`] of kind unavailable, if Kafka cannot be reached or a topic is not
/// as it must be; with what to do about it.
pub fn check_topics(config: &Config) -> Result<TopicReport, Fatal> {
    let brokers = Brokers::connect(config)?;
    let report = brokers.inspect()?.into_result()?;
    let mut problem = brokers.group_problem()?;
    if problem.is_none() {
        problem = protocol::problem(config).or_else(|fatal| match fatal.kind {
            FatalKind::Configuration => Err(fatal),
            // It may be only late.
            _ => {
                warn!(error = %fatal, "it is not known whether this process can join its group");
                Ok(None)
            }
        })?;
    }
    match problem {
        None => Ok(report),
        Some((what, remedy)) => Err(Fatal::unavailable(format!("{what}; {remedy}"))),
    }
}

/// Looks at the topics.
///
/// # Errors
/// [`Fatal`] of kind unavailable, if Kafka cannot be reached.
pub fn inspect_topics(config: &Config) -> Result<TopicReport, Fatal> {
    Brokers::connect(config)?.inspect()
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at, and what was found if it is well.
    pub check: String,
    /// What is wrong and what to do about it, if something is.
    pub problem: Option<String>,
    /// Whether the configuration is to blame, not what it points to.
    #[serde(skip)]
    pub misconfigured: bool,
}

impl Check {
    /// Something that is well.
    #[must_use]
    pub fn ok(check: String) -> Check {
        Check { check, problem: None, misconfigured: false }
    }

    /// Something that is not.
    #[must_use]
    pub fn failed(check: String, fatal: &Fatal) -> Check {
        let misconfigured = fatal.kind == FatalKind::Configuration;
        Check { check, problem: Some(fatal.message.clone()), misconfigured }
    }
}

/// Looks at everything that the start needs of Kafka, changing nothing.
#[must_use]
pub fn inspect_all(config: &Config) -> Vec<Check> {
    let reached = format!("Kafka at {}", config.kafka.brokers);
    let inspected = Brokers::connect(config)
        .and_then(|brokers| brokers.inspect().map(|found| (brokers, found)));
    let (brokers, report) = match inspected {
        Ok(found) => found,
        Err(fatal) => return vec![Check::failed(reached, &fatal)],
    };
    let mut checks = vec![Check::ok(reached)];
    for topic in &report.topics {
        let mut problems = report.problems.iter().filter(|problem| problem.topic == topic.name);
        let name = format!("topic {}", topic.name);
        let failed = |problem: &TopicProblem| {
            Check::failed(name.clone(), &Fatal::unavailable(problem.to_string()))
        };
        match problems.next() {
            None => checks.push(Check::ok(format!(
                "{name}: {} partitions, {}, {}",
                topic.partitions.unwrap_or_default(),
                topic.timestamp_type.as_deref().unwrap_or_default(),
                topic.cleanup_policy.as_deref().unwrap_or_default(),
            ))),
            Some(first) => checks.extend(std::iter::once(first).chain(problems).map(failed)),
        }
    }
    let group = format!("consumer group {}", config.kafka.group);
    let check = |name: String, problem| match problem {
        Ok(None) => Check::ok(name),
        Ok(Some((what, remedy))) => {
            Check::failed(name, &Fatal::unavailable(format!("{what}; {remedy}")))
        }
        Err(fatal) => Check::failed(name, &fatal),
    };
    checks.push(check(group, brokers.group_problem()));
    let asks = config.kafka.group_protocol == GroupProtocol::Consumer;
    if asks && checks.last().is_some_and(|group| group.problem.is_none()) {
        checks.push(check("group protocol consumer".to_owned(), protocol::problem(config)));
    }
    if config.processing.guarantee == Guarantee::ExactlyOnce {
        let name = format!("transactional ids {}*", access::transactional_id_prefix(config));
        checks.push(match access::try_transactions(config) {
            Ok(()) => Check::ok(name),
            Err(fatal) => Check::failed(name, &fatal),
        });
    }
    checks
}

/// Makes the topics that are missing; the others are left as they are.
///
/// If some of the inputs and the changelog are there already, the others get as
/// many partitions as they have, whatever `topics.partitions` says: they must be
/// equal.
///
/// # Errors
/// [`Fatal`] of kind unavailable, if Kafka cannot be reached or refuses.
pub fn create_topics(config: &Config) -> Result<CreateReport, Fatal> {
    Brokers::connect(config)?.create()
}
