//! Creates the topics, and checks that their settings are right.

mod brokers;
mod judge;
mod report;

use serde::Serialize;
use tracing::warn;

pub use self::brokers::{Brokers, optional_settings};
pub use self::report::{CreateReport, TopicProblem, TopicReport, TopicState, Unverified};
pub use super::role::Role;
use super::{access, protocol};
use crate::config::{Config, GroupProtocol, Guarantee};
use crate::error::{Fatal, FatalKind};

/// Checks topics, consumer group and group protocol at the start of the service.
///
/// # Errors
/// [`Fatal`] of kind unavailable, with the remedy, if Kafka cannot be reached or a
/// check fails.
pub fn check_topics(config: &Config) -> Result<TopicReport, Fatal> {
    let brokers = Brokers::connect(config)?;
    let report = brokers.inspect()?.into_result()?;
    if !report.unverified.is_empty() {
        let topics: Vec<String> = report.unverified.iter().map(Unverified::to_string).collect();
        warn!(
            topics = topics.join("; "),
            "cannot check the settings of the topics, because the brokers do not show them; \
             starting anyway, as topics.unverified says. With other settings than these, state is \
             lost or devices expire at wrong times"
        );
    }
    let mut problem = brokers.group_problem()?;
    if problem.is_none() {
        problem = protocol::problem(config).or_else(|fatal| match fatal.kind {
            FatalKind::Configuration => Err(fatal),
            // The coordinator may only be slow.
            _ => {
                warn!(error = %fatal, "cannot check whether this process can join its consumer \
                                       group; starting anyway");
                Ok(None)
            }
        })?;
    }
    problem.map_or(Ok(report), |problem| Err(Fatal::unavailable(problem)))
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was checked, and the result if it is good.
    pub check: String,
    /// The problem and its remedy, if there is one.
    pub problem: Option<String>,
    /// Whether the configuration itself is wrong, not what it points to.
    #[serde(skip)]
    pub misconfigured: bool,
}

impl Check {
    /// A check without a problem.
    #[must_use]
    pub fn ok(check: String) -> Check {
        Check { check, problem: None, misconfigured: false }
    }

    /// A check that found a problem.
    #[must_use]
    pub fn failed(check: String, fatal: &Fatal) -> Check {
        let misconfigured = fatal.kind == FatalKind::Configuration;
        Check { check, problem: Some(fatal.message.clone()), misconfigured }
    }
}

/// Checks everything that the start needs from Kafka, without changing anything.
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
            None => {
                let shown = [&topic.timestamp_type, &topic.cleanup_policy];
                let mut told =
                    format!("{name}: {} partitions", topic.partitions.unwrap_or_default());
                for setting in shown.into_iter().flatten() {
                    told += &format!(", {setting}");
                }
                let not = report.unverified.iter().find(|not| not.topic == topic.name);
                if let Some(not) = not {
                    told += &format!("; not checked: {}", not.settings.join(", "));
                }
                checks.push(Check::ok(told));
            }
            Some(first) => checks.extend(std::iter::once(first).chain(problems).map(failed)),
        }
    }
    let group = format!("consumer group {}", config.kafka.group);
    let check = |name: String, problem| match problem {
        Ok(None) => Check::ok(name),
        Ok(Some(problem)) => Check::failed(name, &Fatal::unavailable(problem)),
        Err(fatal) => Check::failed(name, &fatal),
    };
    checks.push(check(group, brokers.group_problem()));
    let asks = config.kafka.group_protocol == GroupProtocol::Consumer;
    if asks && checks.last().is_some_and(|group| group.problem.is_none()) {
        checks.push(check("group protocol consumer".to_owned(), protocol::problem(config)));
    }
    if config.processing.guarantee == Guarantee::ExactlyOnce {
        let name = format!("transactional ids {}*", access::transactional_id_prefix(config));
        checks.push(check(name, access::try_transactions(config).map(|()| None)));
    }
    checks
}
