//! The topics: making them, and checking that they are as they must be.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};
use serde::Serialize;

use super::access::{self, Operation};
use super::client_config;
use super::trouble::Complaints;
use crate::config::{Config, Guarantee};
use crate::error::{Fatal, FatalKind};
use crate::shard::Input;

/// How long to wait for the brokers.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How much longer each wait for the brokers is than the one before it.
const METADATA_STEP: Duration = Duration::from_secs(1);

/// How often, and how long each, to wait until new topics are known everywhere.
const PROPAGATION_TRIES: u32 = 50;
const PROPAGATION_PAUSE: Duration = Duration::from_millis(100);

/// How many of librdkafka's log lines are looked through for a reason.
const SERVED_MAX: u32 = 100;

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
    match brokers.group_problem()? {
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
    checks.push(match brokers.group_problem() {
        Ok(None) => Check::ok(group),
        Ok(Some((what, remedy))) => {
            Check::failed(group, &Fatal::unavailable(format!("{what}; {remedy}")))
        }
        Err(fatal) => Check::failed(group, &fatal),
    });
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

/// Remembers what librdkafka complained about first: its errors say why, where
/// those of a call only say that.
#[derive(Debug, Default)]
struct AdminContext {
    complaints: Mutex<Complaints>,
}

impl AdminContext {
    fn complaints(&self) -> MutexGuard<'_, Complaints> {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for AdminContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // Not at its own level: what matters goes into the error.
        tracing::debug!(target: "librdkafka", facility, "{message}");
        self.complaints().note(level, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
    }
}

impl ProducerContext for AdminContext {
    type DeliveryOpaque = ();
    fn delivery(&self, _: &rdkafka::message::DeliveryResult<'_>, (): ()) {}
}

struct Brokers<'a> {
    config: &'a Config,
    /// For metadata: unlike the admin client, it says why it cannot connect.
    producer: BaseProducer<AdminContext>,
    admin: AdminClient<AdminContext>,
    runtime: tokio::runtime::Runtime,
}

impl<'a> Brokers<'a> {
    fn connect(config: &'a Config) -> Result<Brokers<'a>, Fatal> {
        let mut client = client_config::base(config);
        client.set_log_level(RDKafkaLogLevel::Info);
        let failed = |error| client_config::refused(&error);
        let producer = client.create_with_context(AdminContext::default()).map_err(failed)?;
        let admin = client.create_with_context(AdminContext::default()).map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|error| Fatal::internal(format!("Kafka client's runtime: {error}")))?;
        Ok(Brokers { config, producer, admin, runtime })
    }

    fn unavailable(&self, doing: &str, error: impl fmt::Display) -> Fatal {
        // Serves what librdkafka has logged meanwhile, down to the last line.
        for _ in 0..SERVED_MAX {
            self.producer.poll(Duration::ZERO);
        }
        self.producer.context().complaints().explain(self.config, doing, &error.to_string())
    }

    /// Of all topics: asking for one by name could create it. Waits in steps, so
    /// that what no waiting mends is told soon.
    fn metadata(&self) -> Result<Metadata, Fatal> {
        let mut waited = Duration::ZERO;
        let mut step = METADATA_STEP;
        loop {
            match self.producer.client().fetch_metadata(None, step) {
                Ok(metadata) => return Ok(metadata),
                Err(error) => {
                    waited += step;
                    step += METADATA_STEP;
                    let fatal = self.unavailable("reach", error);
                    if fatal.kind == FatalKind::Configuration || waited >= TIMEOUT {
                        return Err(fatal);
                    }
                }
            }
        }
    }

    /// How many partitions each topic has that there is, and how many brokers
    /// there are.
    fn partitions(&self) -> Result<(BTreeMap<String, i32>, usize), Fatal> {
        let metadata = self.metadata()?;
        let topics = metadata.topics().iter().filter(|topic| topic.error().is_none());
        let counts = topics.map(|topic| {
            let count = i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX);
            (topic.name().to_owned(), count)
        });
        Ok((counts.collect(), metadata.brokers().len()))
    }

    fn inspect(&self) -> Result<TopicReport, Fatal> {
        let (counts, _) = self.partitions()?;
        let present: Vec<&str> = Role::ALL
            .iter()
            .map(|role| role.topic(self.config))
            .filter(|name| counts.contains_key(*name))
            .collect();
        let settings = self.settings(&present)?;
        let names = Role::ALL.map(|role| role.topic(self.config));
        let access = access::topic_access(&self.producer, &names)
            .map_err(|error| self.unavailable("ask what is allowed in", error))?;
        let denied = |role: Role| {
            let name = role.topic(self.config);
            let found = access.iter().find(|(found, _)| found == name);
            found.map_or_else(Vec::new, |(_, access)| access::denied(role, access))
        };
        let topics = Role::ALL.map(|role| {
            let name = role.topic(self.config);
            let setting = |key: &str| settings.get(name)?.get(key)?.value.clone();
            TopicState {
                role,
                name: name.to_owned(),
                partitions: counts.get(name).copied(),
                timestamp_type: setting("message.timestamp.type"),
                cleanup_policy: setting("cleanup.policy"),
                retention_ms: setting("retention.ms").and_then(|value| value.parse().ok()),
                max_message_bytes: setting("max.message.bytes")
                    .and_then(|value| value.parse().ok()),
                denied: denied(role),
            }
        });
        Ok(judge(self.config, topics.into()))
    }

    fn group_problem(&self) -> Result<Option<(String, String)>, Fatal> {
        access::group_problem(&self.producer, self.config)
            .map_err(|error| self.unavailable("ask for the group's coordinator in", error))
    }

    fn settings(&self, topics: &[&str]) -> Result<HashMap<String, ConfigResource>, Fatal> {
        if topics.is_empty() {
            return Ok(HashMap::new());
        }
        let resources: Vec<ResourceSpecifier<'_>> =
            topics.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
        let results = self
            .runtime
            .block_on(self.admin.describe_configs(&resources, &options))
            .map_err(|error| self.unavailable("read the topics' settings from", error))?;
        // A topic whose settings may not be read is told by their absence.
        let readable = results.into_iter().filter_map(Result::ok);
        Ok(readable
            .filter_map(|resource| match &resource.specifier {
                OwnedResourceSpecifier::Topic(name) => Some((name.clone(), resource)),
                _ => None,
            })
            .collect())
    }

    fn create(&self) -> Result<CreateReport, Fatal> {
        let (counts, brokers) = self.partitions()?;
        let partitions = Role::ALL
            .iter()
            .filter(|role| role.is_copartitioned())
            .find_map(|role| counts.get(role.topic(self.config)))
            .copied()
            .unwrap_or(self.config.topics.partitions);
        let (existing, missing): (Vec<Role>, Vec<Role>) =
            Role::ALL.iter().partition(|role| counts.contains_key(role.topic(self.config)));
        let name = |role: Role| role.topic(self.config).to_owned();
        let mut report = CreateReport {
            partitions,
            created: Vec::new(),
            existed: existing.into_iter().map(name).collect(),
        };
        if missing.is_empty() {
            return Ok(report);
        }
        let new_topics: Vec<NewTopic<'_>> =
            missing.iter().map(|role| self.new_topic(*role, partitions)).collect();
        let options =
            AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT));
        let results = self
            .runtime
            .block_on(self.admin.create_topics(&new_topics, &options))
            .map_err(|error| self.unavailable("create topics in", error))?;
        let mut refused: Vec<(RDKafkaErrorCode, Vec<String>)> = Vec::new();
        for result in results {
            match result {
                Ok(name) => report.created.push(name),
                Err((name, RDKafkaErrorCode::TopicAlreadyExists)) => report.existed.push(name),
                Err((name, code)) => match refused.iter_mut().find(|(known, _)| *known == code) {
                    Some((_, names)) => names.push(name),
                    None => refused.push((code, vec![name])),
                },
            }
        }
        self.wait_for(&report.created)?;
        if refused.is_empty() {
            return Ok(report);
        }
        let mut lines: Vec<String> =
            refused.iter().map(|(code, names)| self.refused(names, *code, brokers)).collect();
        if !report.created.is_empty() {
            lines.push(format!("created were {}", report.created.join(", ")));
        }
        Err(Fatal::unavailable(lines.join("\n  ")))
    }

    fn new_topic<'b>(&'b self, role: Role, partitions: i32) -> NewTopic<'b> {
        let replicas = self.config.topics.replication_factor;
        let topic =
            NewTopic::new(role.topic(self.config), partitions, TopicReplication::Fixed(replicas));
        let topic = role.settings().iter().fold(topic, |topic, (key, value)| topic.set(key, value));
        // What is acknowledged must outlive the broker that acknowledged it.
        if replicas >= 3 { topic.set("min.insync.replicas", "2") } else { topic }
    }

    fn refused(&self, names: &[String], code: RDKafkaErrorCode, brokers: usize) -> String {
        let remedy = match code {
            RDKafkaErrorCode::InvalidReplicationFactor => format!(
                "set topics.replication_factor, now {}, to at most the number of brokers, which \
                 is {brokers}",
                self.config.topics.replication_factor
            ),
            RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed => {
                "allow this client to create topics, or have someone else create them".to_owned()
            }
            _ => "see the broker's log".to_owned(),
        };
        format!("not created: {}: {code}; {remedy}", names.join(", "))
    }

    /// A new topic is known to each broker only after a while.
    fn wait_for(&self, created: &[String]) -> Result<(), Fatal> {
        for _ in 0..PROPAGATION_TRIES {
            let (counts, _) = self.partitions()?;
            if created.iter().all(|name| counts.contains_key(name)) {
                break;
            }
            self.runtime.block_on(async { tokio::time::sleep(PROPAGATION_PAUSE).await });
        }
        Ok(())
    }
}

/// What is wrong with the topics as they are.
fn judge(config: &Config, topics: Vec<TopicState>) -> TopicReport {
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
                        "has {other} partitions, but {} has {count}: the inputs and the \
                         changelog must have as many as each other",
                        first.name
                    ),
                    remedy: "create them anew with equal counts; adding partitions would move \
                             devices away from their state"
                        .to_owned(),
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
        let denied: Vec<&str> = topic.denied.iter().map(|operation| operation.name()).collect();
        problem(
            format!("this client may not {} it", denied.join(", ")),
            access::allow(config, &topic.denied, &format!("--topic {}", topic.name)),
        );
        // Where it may not be seen, the rest is not known.
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
            let what = format!("has {timestamps} timestamps: its stamps tell the broker's time");
            problem(what, timestamp_setting);
        } else if role.is_input() && !config.topics.accept_create_time {
            problem(
                format!("has {timestamps} timestamps, so that one wrong clock can disturb all"),
                format!("{timestamp_setting}, or accept it: topics.accept_create_time = true"),
            );
        }
    }
    let compacted = cleanup.split(',').any(|policy| policy.trim() == "compact");
    let deleted = cleanup.split(',').any(|policy| policy.trim() == "delete");
    if role == Role::Changelog && (!compacted || deleted) {
        let what = format!("has cleanup.policy={cleanup}, by which rows of quiet devices are lost");
        problem(what, alter("cleanup.policy=compact"));
    }
    if role.is_input() && compacted {
        let what = format!("has cleanup.policy={cleanup}, by which events are lost");
        problem(what, alter("cleanup.policy=delete"));
    }
    if role == Role::DeadLetters && compacted {
        let what = format!("has cleanup.policy={cleanup}, which refuses records without a key");
        problem(what, alter("cleanup.policy=delete"));
    }
    let window_ms = config.rules().replay_window_ms;
    if role == Role::Heartbeats
        && let Some(retention_ms) = topic.retention_ms
        && (0..window_ms).contains(&retention_ms)
    {
        problem(
            format!(
                "keeps records for {retention_ms} ms, less than processing.replay_window \
                 ({window_ms} ms): a restore would miss heartbeats"
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
    fn a_missing_topic_is_told_with_what_to_run() {
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
    fn producers_timestamps_are_refused_unless_accepted_and_always_in_the_changelog() {
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
    fn what_is_not_allowed_is_told_with_the_command_that_allows_it() {
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
                "topic device-heartbeats: this client may not Read, DescribeConfigs it; run \
                 kafka-acls.sh --add --allow-principal User:ds --operation Read --operation \
                 DescribeConfigs --topic device-heartbeats",
                "topic device-status-changelog: this client may not Read it; run kafka-acls.sh \
                 --add --allow-principal User:ds --operation Read --topic device-status-changelog",
            ]
        );
    }

    #[test]
    fn cleanup_must_not_lose_what_is_needed() {
        let config = Config::default();
        let with = |policy: &'static str| {
            problems(&config, |topic| topic.cleanup_policy = Some(policy.to_owned()))
        };
        assert_eq!(with("delete").len(), 1);
        assert_eq!(with("compact").len(), 4);
        assert_eq!(with("compact,delete").len(), 5);
        let short = problems(&config, |topic| topic.retention_ms = Some(60_000));
        assert_eq!(short.len(), 1);
        assert!(problems(&config, |topic| topic.retention_ms = Some(-1)).is_empty());
        let unreadable = problems(&config, |topic| topic.timestamp_type = None);
        assert_eq!(unreadable.len(), 6);
    }
}
