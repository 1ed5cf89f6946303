//! The state of the topics, and their problems.

use std::fmt;

use serde::Serialize;

use crate::error::Fatal;
use crate::kafka::access::Operation;
use crate::kafka::role::Role;

/// The broker's own limit for a record's size, if a topic sets none.
const DEFAULT_MAX_MESSAGE_BYTES: usize = crate::wire::dead_letter::DEFAULT_MAX_BYTES;

/// A topic as the brokers report it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TopicState {
    /// Its role.
    pub role: Role,
    /// Its name.
    pub name: String,
    /// Its number of partitions; `None` if it does not exist.
    pub partitions: Option<i32>,
    /// `LogAppendTime` or `CreateTime`, if it could be read.
    pub timestamp_type: Option<String>,
    /// `delete`, `compact` or both, if it could be read.
    pub cleanup_policy: Option<String>,
    /// How long records are kept, if it could be read; -1: forever.
    pub retention_ms: Option<i64>,
    /// The largest record batch it takes (rule C8), if it could be read.
    pub max_message_bytes: Option<usize>,
    /// Operations that the service needs and the ACLs deny.
    pub denied: Vec<Operation>,
}

/// A problem of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("topic {topic}: {what}; {remedy}")]
pub struct TopicProblem {
    /// The topic.
    pub topic: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// Settings that could not be checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unverified {
    /// The topic.
    pub topic: String,
    /// The settings that it must have.
    pub settings: Vec<String>,
}

impl fmt::Display for Unverified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.topic, self.settings.join(", "))
    }
}

/// The topics as the brokers report them, and their problems.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TopicReport {
    /// The number of shards: the partitions of the inputs and the changelog, if
    /// they are equal.
    pub partitions: Option<i32>,
    /// In the order of [`Role::ALL`].
    pub topics: Vec<TopicState>,
    /// All problems; empty if there are none.
    pub problems: Vec<TopicProblem>,
    /// What could not be checked, with `topics.unverified`.
    pub unverified: Vec<Unverified>,
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
                Err(Fatal::unavailable(format!("the topics have problems:{lines}")))
            }
        }
    }
}

/// What `topics create` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CreateReport {
    /// How many partitions the new topics have.
    pub partitions: i32,
    /// Topics that were created.
    pub created: Vec<String>,
    /// Topics that existed and are unchanged.
    pub existed: Vec<String>,
}
