//! Reads and creates topics on the brokers.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseProducer, Producer as _};

use super::judge::{REQUIRED_SETTINGS, judge};
use super::report::{CreateReport, TopicReport, TopicState};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::error::{Fatal, FatalKind};
use crate::kafka::native::NoAnswer;
use crate::kafka::role::Role;
use crate::kafka::sign_in::{Tended, sign_in};
use crate::kafka::trouble::ListeningContext;
use crate::kafka::{access, client_config};

/// How long to wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// By how much each wait for metadata is longer than the one before.
const METADATA_STEP: Duration = Duration::from_secs(1);

/// How long Kafka may be reachable without a broker in service. After an outage the
/// controller must readmit a broker, and may have to be elected first.
const IN_SERVICE_WITHIN_MS: i64 = 40_000;

/// Pause between two checks for that.
const IN_SERVICE_PAUSE: Duration = Duration::from_millis(500);

/// Attempts and pause while waiting until all brokers know new topics.
const PROPAGATION_TRIES: u32 = 50;
const PROPAGATION_PAUSE: Duration = Duration::from_millis(100);

/// How many of librdkafka's log lines are searched for a cause.
const SERVED_MAX: u32 = 100;

/// Whether the brokers do not know a request.
fn is_unsupported(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{UnsupportedFeature, UnsupportedVersion};
    let code = match error {
        KafkaError::AdminOp(code) => Some(*code),
        error => error.rdkafka_error_code(),
    };
    code.is_some_and(|code| [UnsupportedFeature, UnsupportedVersion].contains(&code))
}

/// The setting that makes an acknowledged record survive the loss of a broker.
const IN_SYNC: (&str, &str) = ("min.insync.replicas", "2");

/// The settings that a new topic gets.
fn settings(role: Role, replicas: i32) -> impl Iterator<Item = (&'static str, &'static str)> {
    role.settings().iter().copied().chain((replicas >= 3).then_some(IN_SYNC))
}

/// The settings that `topics create` can leave out: the service works without them.
#[must_use]
pub fn optional_settings() -> Vec<&'static str> {
    let mut names: Vec<_> = Role::ALL
        .into_iter()
        .flat_map(|role| settings(role, 3))
        .map(|(name, _)| name)
        .filter(|name| !REQUIRED_SETTINGS.contains(name))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Clients that read and create topics.
pub struct Brokers<'a> {
    config: &'a Config,
    /// For metadata: unlike the admin client, it says why it cannot connect.
    producer: BaseProducer<ListeningContext>,
    admin: AdminClient<ListeningContext>,
    runtime: tokio::runtime::Runtime,
}

impl<'a> Brokers<'a> {
    /// Creates the clients. They connect at their first request.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn connect(config: &'a Config) -> Result<Brokers<'a>, Fatal> {
        let mut client = client_config::base(config);
        client.set_log_level(RDKafkaLogLevel::Info);
        let failed = client_config::refused;
        let producer: BaseProducer<ListeningContext> =
            client.create_with_context(ListeningContext::default()).map_err(failed)?;
        let admin: AdminClient<ListeningContext> =
            client.create_with_context(ListeningContext::default()).map_err(failed)?;
        sign_in(producer.client(), config)?;
        Tended::new(admin.inner());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .map_err(|error| Fatal::internal(format!("Kafka client's runtime: {error}")))?;
        Ok(Brokers { config, producer, admin, runtime })
    }

    fn unavailable(&self, doing: &str, error: impl fmt::Display) -> Fatal {
        // Delivers all log lines that librdkafka has queued.
        for _ in 0..SERVED_MAX {
            self.producer.poll(Duration::ZERO);
        }
        self.producer.context().explain(self.config, doing, &error.to_string())
    }

    /// The metadata of all topics: a request for one by name could create it. Waits
    /// in steps, so that a configuration error is reported soon.
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

    /// The metadata, once a broker is in service.
    ///
    /// A cluster without a broker in service names no controller either. A client
    /// with such metadata waits for a controller, and librdkafka does not refresh
    /// it by itself.
    fn in_service(&self) -> Result<Metadata, Fatal> {
        let clock = SystemClock::new();
        let started_ms = clock.monotonic_ms();
        loop {
            let metadata = self.metadata()?;
            let late = clock.monotonic_ms() - started_ms >= IN_SERVICE_WITHIN_MS;
            if late || !metadata.brokers().is_empty() {
                // The admin client has its own metadata.
                let _ = self.admin.inner().fetch_metadata(None, METADATA_STEP);
                return Ok(metadata);
            }
            SystemClock::pause(IN_SERVICE_PAUSE);
        }
    }

    /// Repeats a query that times out, as long as Kafka is reachable.
    fn ask<T>(&self, doing: &str, question: impl Fn() -> Result<T, NoAnswer>) -> Result<T, Fatal> {
        let clock = SystemClock::new();
        let started_ms = clock.monotonic_ms();
        loop {
            let late = clock.monotonic_ms() - started_ms >= IN_SERVICE_WITHIN_MS;
            match question() {
                Err(error) if error.timed_out() && !late => drop(self.in_service()?),
                Err(error) => return Err(self.unavailable(doing, error)),
                Ok(answer) => return Ok(answer),
            }
        }
    }

    /// The number of partitions of each existing topic, and the number of brokers.
    fn partitions(&self) -> Result<(BTreeMap<String, i32>, usize), Fatal> {
        let metadata = self.in_service()?;
        let topics = metadata.topics().iter().filter(|topic| topic.error().is_none());
        let counts = topics.map(|topic| {
            let count = i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX);
            (topic.name().to_owned(), count)
        });
        Ok((counts.collect(), metadata.brokers().len()))
    }

    /// Reads the topics and checks them.
    ///
    /// # Errors
    /// [`Fatal`] of kind unavailable, if Kafka cannot be reached or refuses.
    pub fn inspect(&self) -> Result<TopicReport, Fatal> {
        let (counts, _) = self.partitions()?;
        let present: Vec<&str> = Role::ALL
            .iter()
            .map(|role| role.topic(self.config))
            .filter(|name| counts.contains_key(*name))
            .collect();
        let settings = self.settings(&present)?;
        let names = Role::ALL.map(|role| role.topic(self.config));
        let access = self.ask("read the topic permissions from", || {
            access::topic_access(&self.producer, &names)
        })?;
        let denied = |role: Role| {
            let name = role.topic(self.config);
            let found = access.iter().find(|(found, _)| found == name);
            found.map_or_else(Vec::new, |(_, access)| access::denied(self.config, role, access))
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

    /// The problem with using the consumer group and its remedy, if there is one.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn group_problem(&self) -> Result<Option<String>, Fatal> {
        self.ask("find the group coordinator in", || {
            access::group_problem(&self.producer, self.config)
        })
    }

    fn settings(&self, topics: &[&str]) -> Result<HashMap<String, ConfigResource>, Fatal> {
        if topics.is_empty() {
            return Ok(HashMap::new());
        }
        let resources: Vec<ResourceSpecifier<'_>> =
            topics.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
        let unverified = self.config.topics.unverified;
        let results = self.ask("read the topics' settings from", || {
            let settings = self.admin.describe_configs(&resources, &options);
            match self.runtime.block_on(settings) {
                // These brokers do not know the request.
                Err(error) if unverified && is_unsupported(&error) => Ok(Vec::new()),
                settings => Ok(settings?),
            }
        })?;
        // A topic whose settings must not be read is left out; the check reports
        // that.
        let readable = results.into_iter().filter_map(Result::ok);
        Ok(readable
            .filter_map(|resource| match &resource.specifier {
                OwnedResourceSpecifier::Topic(name) => Some((name.clone(), resource)),
                _ => None,
            })
            .collect())
    }

    /// Creates the missing topics, without the settings of these names, and leaves
    /// the others unchanged.
    ///
    /// If an input or the changelog exists, the new ones get its number of
    /// partitions, whatever `topics.partitions` says: all must be equal.
    ///
    /// # Errors
    /// [`Fatal`] of kind unavailable, if Kafka cannot be reached or refuses.
    pub fn create(&self, without: &[String]) -> Result<CreateReport, Fatal> {
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
            missing.iter().map(|role| self.new_topic(*role, partitions, without)).collect();
        let options =
            AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT));
        let results = self.ask("create topics in", || {
            Ok(self.runtime.block_on(self.admin.create_topics(&new_topics, &options))?)
        })?;
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
            lines.push(format!("created: {}", report.created.join(", ")));
        }
        Err(Fatal::unavailable(lines.join("\n  ")))
    }

    fn new_topic<'b>(&'b self, role: Role, partitions: i32, without: &[String]) -> NewTopic<'b> {
        let replicas = self.config.topics.replication_factor;
        let topic =
            NewTopic::new(role.topic(self.config), partitions, TopicReplication::Fixed(replicas));
        let settings = settings(role, replicas);
        let wanted = settings.filter(|(name, _)| !without.iter().any(|left| left == name));
        wanted.fold(topic, |topic, (name, value)| topic.set(name, value))
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
            RDKafkaErrorCode::InvalidConfig | RDKafkaErrorCode::PolicyViolation => format!(
                "if the brokers do not allow one of the settings, leave it out with --without, \
                 for example --without {}",
                optional_settings().join(",")
            ),
            _ => "see the broker's log".to_owned(),
        };
        format!("cannot create {}: {code}; {remedy}", names.join(", "))
    }

    /// A new topic is known to each broker only after a while.
    fn wait_for(&self, created: &[String]) -> Result<(), Fatal> {
        for _ in 0..PROPAGATION_TRIES {
            let (counts, _) = self.partitions()?;
            if created.iter().all(|name| counts.contains_key(name)) {
                break;
            }
            SystemClock::pause(PROPAGATION_PAUSE);
        }
        Ok(())
    }
}
