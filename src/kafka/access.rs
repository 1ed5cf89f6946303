//! What this client must be allowed to do, and whether it is (docs/security.md).

use std::fmt;
use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};

use super::client_config;
use super::native::{self, NoAnswer};
pub use super::native::{Operation, TopicAccess, topic_access};
use super::role::Role;
use super::trouble::ListeningContext;
use crate::config::Config;
use crate::error::Fatal;

/// How long the transaction coordinator may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A topic of this name there is not, and nothing makes one.
const NO_TOPIC: &str = "__device_status_no_such_topic";

/// As Kafka's tools write it, which is as we do.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What the service does with the topic of a role. That it may describe it
/// follows from the others.
#[must_use]
pub const fn needed(role: Role) -> &'static [Operation] {
    match role {
        Role::Heartbeats | Role::VpnSessions | Role::Lifecycle => {
            &[Operation::Read, Operation::DescribeConfigs]
        }
        Role::Changelog => &[Operation::Read, Operation::Write, Operation::DescribeConfigs],
        Role::StatusChanges | Role::DeadLetters => &[Operation::Write, Operation::DescribeConfigs],
    }
}

/// What of that is not allowed.
#[must_use]
pub fn denied(role: Role, access: &TopicAccess) -> Vec<Operation> {
    let needed = needed(role);
    match access {
        TopicAccess::Hidden => needed.to_vec(),
        TopicAccess::Known(Some(allowed)) => {
            needed.iter().filter(|operation| !allowed.contains(operation)).copied().collect()
        }
        TopicAccess::Unknown | TopicAccess::Known(None) => Vec::new(),
    }
}

/// The command that allows something: of the topic, group or id `resource`, as
/// `--topic NAME`.
#[must_use]
pub fn allow(config: &Config, operations: &[Operation], resource: &str) -> String {
    let operations: Vec<String> =
        operations.iter().map(|operation| format!("--operation {operation}")).collect();
    // Whom the broker takes us for, as far as the configuration tells.
    let user = config.kafka.properties.get("sasl.username");
    format!(
        "run kafka-acls.sh --add --allow-principal User:{} {} {resource}",
        user.map_or("<this client>", String::as_str),
        operations.join(" ")
    )
}

/// What stands in the way of using the group, if anything: what and remedy.
///
/// # Errors
/// What the brokers or librdkafka say.
pub fn group_problem<C: ProducerContext>(
    client: &BaseProducer<C>,
    config: &Config,
) -> Result<Option<String>, NoAnswer> {
    let group = &config.kafka.group;
    if native::may_commit(client, group, NO_TOPIC)? {
        return Ok(None);
    }
    let remedy = allow(config, &[Operation::Read], &format!("--group {group}"));
    Ok(Some(format!("this client may not Read the consumer group {group}; {remedy}")))
}

/// What to do where transactions are refused.
#[must_use]
pub fn transactions_remedy(config: &Config) -> String {
    let prefix = transactional_id_prefix(config);
    let resource = format!("--transactional-id {prefix} --resource-pattern-type prefixed");
    format!(
        "{}, or set processing.guarantee = \"at_least_once\"",
        allow(config, &[Operation::Write], &resource)
    )
}

/// What the transactional ids of this installation begin with (rule C4).
#[must_use]
pub fn transactional_id_prefix(config: &Config) -> String {
    format!("{}-", config.kafka.group)
}

/// Begins as a stream thread does, under an id of its own, and writes nothing.
///
/// # Errors
/// When transactions are refused.
pub fn try_transactions(config: &Config) -> Result<(), Fatal> {
    let failed = |error: KafkaError| {
        let remedy = transactions_remedy(config);
        Fatal::unavailable(format!("Kafka refuses transactions: {error}; {remedy}"))
    };
    let id = format!("{}check-{}", transactional_id_prefix(config), uuid::Uuid::new_v4().simple());
    let mut client = client_config::base(config);
    client.set("enable.idempotence", "true").set("transactional.id", id);
    let producer: BaseProducer<ListeningContext> =
        client.create_with_context(ListeningContext::default()).map_err(failed)?;
    producer.init_transactions(TIMEOUT).map_err(failed)
}
