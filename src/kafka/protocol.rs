//! Checks whether the brokers support the configured group protocol.
//!
//! librdkafka has no query for that, and a consumer whose coordinator does not know
//! `consumer` (KIP-848) stays silent forever: librdkafka 2.12 does not send its
//! heartbeat, and waits for the answer. So a consumer tries to join the group with
//! an assignor that does not exist, which every coordinator refuses. The error
//! shows whether the coordinator knows the protocol. The group does not change,
//! because the coordinator checks the assignor before it adds a member. Only the
//! group's ACL is needed; without it, the refusal shows as much.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tracing::subscriber::{NoSubscriber, with_default};

use super::client_config;
use super::native::Tended;
use super::reaper::Reaper;
use crate::clock::{Clock as _, SystemClock};
use crate::config::{Config, GroupProtocol};
use crate::error::Fatal;

/// How long the group's coordinator may take.
const PATIENCE_MS: i64 = 10_000;
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// An assignor that no broker has.
const NO_ASSIGNOR: &str = "device-status-check";

/// librdkafka's log line about a coordinator whose ConsumerGroupHeartbeat is
/// missing or too old; it reports this in no other way. Kafka 3.7 to 3.9 have a
/// version that is too old, whether enabled or not.
const NOT_SENT: &str = "ConsumerGroupHeartbeatRequest not supported by broker";

/// The remedy if the brokers do not support the protocol.
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

/// The problem with the configured group protocol and its remedy, if there is one.
/// Waits for the coordinator, which must be available.
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
    Tended::new(consumer.client());
    let subscribed = consumer.subscribe(&[config.topics.heartbeats.as_str()]).map_err(refused);
    let told = subscribed.and_then(|()| ask(config, &consumer));
    // The drop never returns if the coordinator does not support leaving. It logs
    // the refused join as an error, which is expected here.
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
                    "the brokers do not support the group protocol \"consumer\" (KIP-848), or \
                     only an early version of it; {REMEDY}"
                )));
            }
            None => {}
        }
    }
    Err(Fatal::unavailable(format!(
        "the coordinator of the group {} does not answer a join with the group protocol \
         \"consumer\"; check that the coordinator is available, or {REMEDY}",
        config.kafka.group
    )))
}

/// Whether the coordinator knows the protocol, if the error shows it: a coordinator
/// that refuses anything but the protocol has understood the request.
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
