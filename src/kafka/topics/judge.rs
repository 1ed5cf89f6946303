//! Checks the settings of the topics.

use super::report::{TopicProblem, TopicReport, TopicState, Unverified};
use crate::config::Config;
use crate::kafka::access::{self, Operation};
use crate::kafka::role::Role;
use crate::kafka::watch::ADDED_REMEDY;

/// The settings that a start insists on, if it can read them.
pub const REQUIRED_SETTINGS: [&str; 2] = [TIMESTAMPS, CLEANUP];

const TIMESTAMPS: &str = "message.timestamp.type";
const CLEANUP: &str = "cleanup.policy";
const RETENTION: &str = "retention.ms";

/// Finds the problems of the topics.
pub fn judge(config: &Config, topics: Vec<TopicState>) -> TopicReport {
    let mut problems = Vec::new();
    for topic in &topics {
        judge_alone(config, topic, &mut problems);
    }
    let mut copartitioned = topics
        .iter()
        .filter(|topic| topic.role.is_copartitioned())
        .filter_map(|topic| Some((topic, topic.partitions?)));
    let mut partitions = None;
    if let Some((first, count)) = copartitioned.next() {
        partitions = Some(count);
        for (topic, other) in copartitioned {
            if other != count {
                partitions = None;
                problems.push(TopicProblem {
                    topic: topic.name.clone(),
                    what: format!(
                        "has {other} partitions, but {} has {count}: the inputs and the changelog \
                         must have the same number of partitions",
                        first.name
                    ),
                    remedy: format!(
                        "if nothing was written yet, delete them and run device-status topics \
                         create; if partitions were added, {ADDED_REMEDY}"
                    ),
                });
            }
        }
    }
    let unverified = match config.topics.unverified {
        true => topics.iter().filter_map(|topic| unverified(config, topic)).collect(),
        false => Vec::new(),
    };
    TopicReport { partitions, topics, problems, unverified }
}

/// What a topic must have and the brokers do not show.
fn unverified(config: &Config, topic: &TopicState) -> Option<Unverified> {
    topic.partitions?;
    let role = topic.role;
    let mut settings = Vec::new();
    let stamped = role == Role::Changelog || role.is_input() && !config.topics.accept_create_time;
    if stamped && topic.timestamp_type.is_none() {
        settings.push(format!("{TIMESTAMPS}=LogAppendTime"));
    }
    if role != Role::StatusChanges && topic.cleanup_policy.is_none() {
        let right = if role == Role::Changelog { "compact" } else { "delete" };
        settings.push(format!("{CLEANUP}={right}"));
    }
    if is_replayed(role) && topic.retention_ms.is_none() {
        settings.push(format!("{RETENTION} of at least {}", config.rules().replay_window_ms));
    }
    (!settings.is_empty()).then(|| Unverified { topic: topic.name.clone(), settings })
}

/// Whether a restore replays it (rule R2).
fn is_replayed(role: Role) -> bool {
    matches!(role, Role::Heartbeats | Role::VpnSessions)
}

fn judge_alone(config: &Config, topic: &TopicState, problems: &mut Vec<TopicProblem>) {
    let role = topic.role;
    let mut problem = |what: String, remedy: String| {
        problems.push(TopicProblem { topic: topic.name.clone(), what, remedy });
    };
    if !topic.denied.is_empty() {
        let denied: Vec<_> = topic.denied.iter().map(Operation::to_string).collect();
        let mut remedy = access::allow(config, &topic.denied, &format!("--topic {}", topic.name));
        if topic.denied == [Operation::DescribeConfigs] {
            remedy += UNVERIFIED_REMEDY;
        }
        problem(format!("this client is not authorized to {} it", denied.join(", ")), remedy);
        // If the topic is hidden, nothing else is known of it.
        if topic.partitions.is_none() {
            return;
        }
    }
    if topic.partitions.is_none() {
        let remedy = "run device-status topics create, or set its name in the configuration";
        return problem("does not exist".to_owned(), remedy.to_owned());
    }
    let alter = |setting: &str| {
        format!(
            "run kafka-configs.sh --alter --entity-type topics --entity-name {} --add-config \
             {setting}",
            topic.name
        )
    };
    let is_known = topic.timestamp_type.is_some() && topic.cleanup_policy.is_some();
    if !is_known && !config.topics.unverified {
        if !topic.denied.contains(&Operation::DescribeConfigs) {
            problem(
                "its settings cannot be read".to_owned(),
                format!("allow this client to DescribeConfigs{UNVERIFIED_REMEDY}"),
            );
        }
        return;
    }
    if let Some(timestamps) = &topic.timestamp_type
        && timestamps != "LogAppendTime"
    {
        let timestamp_setting = alter("message.timestamp.type=LogAppendTime");
        if role == Role::Changelog {
            let what = format!(
                "has {timestamps} timestamps, but broker time is taken from its \
                                LogAppendTime timestamps"
            );
            problem(what, timestamp_setting);
        } else if role.is_input() && !config.topics.accept_create_time {
            problem(
                format!(
                    "has {timestamps} timestamps: one producer with a wrong clock can affect \
                         all devices"
                ),
                format!("{timestamp_setting}, or accept it: topics.accept_create_time = true"),
            );
        }
    }
    let cleanup = topic.cleanup_policy.as_deref().unwrap_or_default();
    let compacted = cleanup.split(',').any(|policy| policy.trim() == "compact");
    let deleted = cleanup.split(',').any(|policy| policy.trim() == "delete");
    let harm = match role {
        _ if cleanup.is_empty() => "",
        Role::Changelog if !compacted || deleted => "which deletes the rows of quiet devices",
        Role::DeadLetters if compacted => "which refuses records without a key",
        _ if role.is_input() && compacted => "which deletes events",
        _ => "",
    };
    if !harm.is_empty() {
        let right = if role == Role::Changelog { "compact" } else { "delete" };
        let what = format!("has cleanup.policy={cleanup}, {harm}");
        problem(what, alter(&format!("cleanup.policy={right}")));
    }
    let window_ms = config.rules().replay_window_ms;
    if is_replayed(role)
        && let Some(retention_ms) = topic.retention_ms
        && (0..window_ms).contains(&retention_ms)
    {
        problem(
            format!(
                "keeps records for {retention_ms} ms, less than processing.replay_window \
                 ({window_ms} ms): a restore would miss what is not in the changelog"
            ),
            format!("{}, or shorten the window", alter("retention.ms=604800000")),
        );
    }
}

/// The alternative to the permission to DescribeConfigs.
const UNVERIFIED_REMEDY: &str =
    ", or, where the brokers do not show settings, set topics.unverified = true";

#[cfg(test)]
mod tests {
    use super::*;

    fn good(config: &Config) -> Vec<TopicState> {
        let state = |role: Role| {
            let cleanup = if role == Role::Changelog { "compact" } else { "delete" };
            TopicState {
                role,
                name: role.topic(config).to_owned(),
                partitions: Some(12),
                timestamp_type: Some("LogAppendTime".to_owned()),
                cleanup_policy: Some(cleanup.to_owned()),
                retention_ms: Some(604_800_000),
                max_message_bytes: Some(1_048_588),
                denied: Vec::new(),
            }
        };
        Role::ALL.map(state).into()
    }

    fn problems(config: &Config, change: impl Fn(&mut TopicState)) -> Vec<String> {
        let mut topics = good(config);
        topics.iter_mut().for_each(change);
        let report = judge(config, topics);
        report.problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn good_topics_pass() {
        let config = Config::default();
        let report = judge(&config, good(&config)).into_result().unwrap();
        assert_eq!(report.partitions, Some(12));
        assert_eq!(report.max_message_bytes(Role::DeadLetters), 1_048_588);
    }

    #[test]
    fn missing_topic_names_the_command_to_run() {
        let config = Config::default();
        let problems = problems(&config, |topic| {
            if topic.role == Role::Lifecycle {
                topic.partitions = None;
            }
        });
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("topic device-lifecycle: does not exist; run device-"));
    }

    #[test]
    fn unequal_partition_counts_are_refused() {
        let config = Config::default();
        let mut topics = good(&config);
        topics[3].partitions = Some(6);
        topics[4].partitions = Some(1);
        let report = judge(&config, topics);
        assert_eq!(report.partitions, None);
        assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
        let fatal = report.into_result().unwrap_err();
        assert!(fatal.message.contains("has 6 partitions, but device-heartbeats has 12"));
        assert_eq!(fatal.kind.exit_code(), 69);
    }

    #[test]
    fn create_time_must_be_accepted_and_is_never_right_for_the_changelog() {
        let mut config = Config::default();
        let create_time =
            |topic: &mut TopicState| topic.timestamp_type = Some("CreateTime".to_owned());
        let found = problems(&config, create_time);
        assert_eq!(found.len(), 4);
        assert!(found[0].contains("topics.accept_create_time"));
        config.topics.accept_create_time = true;
        let found = problems(&config, create_time);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("device-status-changelog"));
    }

    #[test]
    fn denied_operations_name_the_acl_command() {
        let mut config = Config::default();
        let user = ("sasl.username".to_owned(), "ds".to_owned());
        config.kafka.properties.extend([user]);
        let found = problems(&config, |topic| {
            if topic.role == Role::Changelog {
                topic.denied = vec![Operation::Read];
            }
            if topic.role == Role::Heartbeats {
                topic.denied = vec![Operation::Read, Operation::DescribeConfigs];
                topic.partitions = None;
            }
        });
        assert_eq!(
            found,
            [
                "topic device-heartbeats: this client is not authorized to Read, DescribeConfigs \
                 it; run kafka-acls.sh --add --allow-principal User:ds --operation Read \
                 --operation DescribeConfigs --topic device-heartbeats",
                "topic device-status-changelog: this client is not authorized to Read it; run \
                 kafka-acls.sh --add --allow-principal User:ds --operation Read --topic \
                 device-status-changelog",
            ]
        );
    }

    #[test]
    fn cleanup_and_retention_that_lose_records_are_reported() {
        let config = Config::default();
        let with = |policy: &'static str| {
            problems(&config, |topic| topic.cleanup_policy = Some(policy.to_owned()))
        };
        assert_eq!(with("delete").len(), 1);
        assert_eq!(with("compact").len(), 4);
        assert_eq!(with("compact,delete").len(), 5);
        let short = problems(&config, |topic| topic.retention_ms = Some(60_000));
        assert_eq!(short.len(), 2, "heartbeats and VPN sessions");
        assert!(problems(&config, |topic| topic.retention_ms = Some(-1)).is_empty());
        let unreadable = problems(&config, |topic| topic.timestamp_type = None);
        assert_eq!(unreadable.len(), 6);
        assert!(unreadable[0].contains("topics.unverified = true"), "{unreadable:?}");
    }

    #[test]
    fn settings_that_are_not_shown_are_named_and_those_that_are_shown_are_checked() {
        let mut config = Config::default();
        config.topics.unverified = true;
        let report = |change: &dyn Fn(&mut TopicState)| {
            let mut topics = good(&config);
            topics.iter_mut().for_each(change);
            judge(&config, topics)
        };
        assert_eq!(report(&|_| ()).unverified, []);
        let hidden = report(&|topic| {
            topic.timestamp_type = None;
            topic.cleanup_policy = None;
            topic.retention_ms = None;
        });
        assert_eq!(hidden.problems, []);
        let told: Vec<String> = hidden.unverified.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "device-heartbeats: message.timestamp.type=LogAppendTime, cleanup.policy=delete, \
                 retention.ms of at least 1800000",
                "device-vpn-sessions: message.timestamp.type=LogAppendTime, cleanup.policy=delete, \
                 retention.ms of at least 1800000",
                "device-lifecycle: message.timestamp.type=LogAppendTime, cleanup.policy=delete",
                "device-status-changelog: message.timestamp.type=LogAppendTime, \
                 cleanup.policy=compact",
                "device-status-dead-letters: cleanup.policy=delete",
            ]
        );
        let half = report(&|topic| {
            topic.timestamp_type = None;
            topic.cleanup_policy = Some("delete".to_owned());
        });
        assert_eq!(half.problems.len(), 1, "the changelog must be compacted");
        assert_eq!(half.unverified.len(), 4);
    }
}
