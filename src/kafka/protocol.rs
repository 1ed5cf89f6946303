//! Whether the brokers know the group protocol that is configured.
//!
//! librdkafka has no question for that, and a consumer whose coordinator does not
//! know `consumer` (KIP-848) says nothing, for ever: librdkafka 2.12 does not send
//! its heartbeat, and waits for the answer. So a consumer asks to join the group
//! in a way that every coordinator refuses, by an assignor that there is not, and
//! how it is refused tells. Nothing comes of it: an assignor is looked at before
//! there is a member. No ACL is needed besides those of the group, and without
//! them the refusal tells as much.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tracing::subscriber::{NoSubscriber, with_default};

use super::client_config;
use super::reaper::Reaper;
use crate::clock::{Clock as _, SystemClock};
use crate::config::{Config, GroupProtocol};
use crate::error::Fatal;

/// How long the group's coordinator may take.
const PATIENCE_MS: i64 = 10_000;
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// There is none of this name, on any broker.
const NO_ASSIGNOR: &str = "device-status-check";

/// What librdkafka logs of a coordinator whose ConsumerGroupHeartbeat is too old
/// or not there, and tells in no other way. Kafka 3.7 to 3.9 have one that is too
/// old, switched on or not.
const NOT_SENT: &str = "ConsumerGroupHeartbeatRequest not supported by broker";

/// What to set where the brokers do not know the protocol.
pub const REMEDY: &str = "set kafka.group_protocol = \"classic\" for all members of the group, or \
    upgrade the brokers to Kafka 4.0 and their feature group.version to 1";

#[derive(Default)]
struct Listening {
    not_sent: AtomicBool,
}

impl ClientContext for Listening {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        if message.contains(NOT_SENT) {
            self.not_sent.store(true, Ordering::Relaxed);
        }
        tracing::trace!(target: "librdkafka", facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
    }
}

impl ConsumerContext for Listening {}

/// What stands in the way of the configured protocol, if anything: what and
/// remedy. Waits for the coordinator, which is in service.
///
/// # Errors
/// When it does not answer in time, and when librdkafka refuses the
/// configuration.
pub fn problem(config: &Config) -> Result<Option<String>, Fatal> {
    if config.kafka.group_protocol == GroupProtocol::Classic {
        return Ok(None);
    }
    let mut client = client_config::consumer(config);
    client
        .set("group.protocol", "consumer")
        .set("group.remote.assignor", NO_ASSIGNOR)
        .set("debug", "cgrp")
        .set_log_level(RDKafkaLogLevel::Debug);
    let refused = client_config::refused;
    let consumer: BaseConsumer<Listening> =
        client.create_with_context(Listening::default()).map_err(refused)?;
    let subscribed = consumer.subscribe(&[config.topics.heartbeats.as_str()]).map_err(refused);
    let told = subscribed.and_then(|()| ask(config, &consumer));
    // It never ends where the coordinator does not know how a member leaves. That
    // a member was refused is said as an error at its end, and was wanted.
    Reaper::start().run(move || with_default(NoSubscriber::default(), move || drop(consumer)));
    told
}

fn ask(config: &Config, consumer: &BaseConsumer<Listening>) -> Result<Option<String>, Fatal> {
    let clock = SystemClock::new();
    while clock.monotonic_ms() < PATIENCE_MS {
        let polled = consumer.poll(LOOK_EVERY).and_then(Result::err);
        let told = polled.and_then(|error| error.rdkafka_error_code());
        let fatal = consumer.client().fatal_error().map(|(code, _)| code);
        let not_sent = consumer.context().not_sent.load(Ordering::Relaxed);
        match fatal.or(told).and_then(is_known).or(not_sent.then_some(false)) {
            Some(true) => return Ok(None),
            Some(false) => {
                return Ok(Some(format!(
                    "the brokers do not know the group protocol \"consumer\" (KIP-848), or know \
                     only an early version of it; {REMEDY}"
                )));
            }
            None => {}
        }
    }
    Err(Fatal::unavailable(format!(
        "the coordinator of the group {} does not answer a member that joins by the group \
         protocol \"consumer\"; see that it is in service, or {REMEDY}",
        config.kafka.group
    )))
}

/// Whether the coordinator knows the protocol, if an error tells: whatever it
/// refuses but the protocol itself, it has understood.
fn is_known(code: RDKafkaErrorCode) -> Option<bool> {
    match code {
        RDKafkaErrorCode::UnsupportedVersion | RDKafkaErrorCode::UnsupportedFeature => Some(false),
        RDKafkaErrorCode::UnsupportedAssignor
        | RDKafkaErrorCode::InvalidRequest
        | RDKafkaErrorCode::GroupMaxSizeReached
        | RDKafkaErrorCode::GroupAuthorizationFailed
        | RDKafkaErrorCode::TopicAuthorizationFailed => Some(true),
        _ => None,
    }
}
