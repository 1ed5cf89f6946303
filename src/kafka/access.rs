//! The permissions (ACLs) that the service needs, and a check of them
//! (docs/security.md).

use std::fmt;
use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};

use super::client_config;
use super::native::{self, NoAnswer, Tended};
pub use super::native::{Operation, TopicAccess, topic_access};
use super::role::Role;
use super::trouble::ListeningContext;
use crate::config::Config;
use crate::error::Fatal;

/// Timeout for the transaction coordinator.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A topic that does not exist and is never created.
const NO_TOPIC: &str = "__device_status_no_such_topic";

/// The name that Kafka's command line tools use.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The operations that the service needs on a topic. Each of them implies
/// `Describe`.
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

/// The needed operations that the ACLs deny. With `topics.unverified` a start needs no
/// DescribeConfigs.
#[must_use]
pub fn denied(config: &Config, role: Role, access: &TopicAccess) -> Vec<Operation> {
    let spared = config.topics.unverified.then_some(Operation::DescribeConfigs);
    let needed = needed(role).iter().copied().filter(|operation| Some(*operation) != spared);
    match access {
        TopicAccess::Hidden => needed.collect(),
        TopicAccess::Known(Some(allowed)) => {
            needed.filter(|operation| !allowed.contains(operation)).collect()
        }
        TopicAccess::Unknown | TopicAccess::Known(None) => Vec::new(),
    }
}

/// The `kafka-acls.sh` command that allows operations on `resource`, such as
/// `--topic NAME`.
#[must_use]
pub fn allow(config: &Config, operations: &[Operation], resource: &str) -> String {
    let operations: Vec<String> =
        operations.iter().map(|operation| format!("--operation {operation}")).collect();
    // The principal, as far as the configuration shows it.
    let user = config.kafka.properties.get("sasl.username");
    format!(
        "run kafka-acls.sh --add --allow-principal User:{} {} {resource}",
        user.map_or("<this client>", String::as_str),
        operations.join(" ")
    )
}

/// The problem with using the consumer group and its remedy, if there is one.
///
/// # Errors
/// The error of the brokers or of librdkafka.
pub fn group_problem<C: ProducerContext>(
    client: &BaseProducer<C>,
    config: &Config,
) -> Result<Option<String>, NoAnswer> {
    let group = &config.kafka.group;
    if native::may_commit(client, group, NO_TOPIC)? {
        return Ok(None);
    }
    let remedy = allow(config, &[Operation::Read], &format!("--group {group}"));
    Ok(Some(format!("this client is not authorized to Read the consumer group {group}; {remedy}")))
}

/// The remedy when Kafka refuses transactions.
#[must_use]
pub fn transactions_remedy(config: &Config) -> String {
    let prefix = transactional_id_prefix(config);
    let resource = format!("--transactional-id {prefix} --resource-pattern-type prefixed");
    format!(
        "{}, or set processing.guarantee = \"at_least_once\"",
        allow(config, &[Operation::Write], &resource)
    )
}

/// The prefix of all transactional ids of this installation (rule C4).
#[must_use]
pub fn transactional_id_prefix(config: &Config) -> String {
    format!("{}-", config.kafka.group)
}

/// Initializes a transactional producer as a stream thread does, but under a
/// separate id and without writing anything.
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
    Tended::new(producer.client());
    producer.init_transactions(TIMEOUT).map_err(failed)
}
