//! Checks the settings of the topics.

use super::report::{TopicProblem, TopicReport, TopicState};
use crate::config::Config;
use crate::kafka::access::{self, Operation};
use crate::kafka::role::Role;
use crate::kafka::watch::ADDED_REMEDY;

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
    TopicReport { partitions, topics, problems }
}

fn judge_alone(config: &Config, topic: &TopicState, problems: &mut Vec<TopicProblem>) {
    let role = topic.role;
    let mut problem = |what: String, remedy: String| {
        problems.push(TopicProblem { topic: topic.name.clone(), what, remedy });
    };
    if !topic.denied.is_empty() {
        let denied: Vec<_> = topic.denied.iter().map(Operation::to_string).collect();
        problem(
            format!("this client is not authorized to {} it", denied.join(", ")),
            access::allow(config, &topic.denied, &format!("--topic {}", topic.name)),
        );
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
    let (Some(timestamps), Some(cleanup)) = (&topic.timestamp_type, &topic.cleanup_policy) else {
        if !topic.denied.contains(&Operation::DescribeConfigs) {
            problem(
                "its settings cannot be read".to_owned(),
                "allow this client to DescribeConfigs".to_owned(),
            );
        }
        return;
    };
    if timestamps != "LogAppendTime" {
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
    let compacted = cleanup.split(',').any(|policy| policy.trim() == "compact");
    let deleted = cleanup.split(',').any(|policy| policy.trim() == "delete");
    let harm = match role {
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
    if matches!(role, Role::Heartbeats | Role::VpnSessions)
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
    }
}
