//! How a stream thread is a member of the group: as a new member at each start, or
//! as a static member (KIP-345) that gets its previous partitions back.
//!
//! A static member that stops cleanly keeps its partitions until its session ends,
//! and the same id can rejoin at once. With `classic` it does not leave the group;
//! with `consumer` (KIP-848) it announces that it will return.
//!
//! After a crash, `classic` gives the instance id to the new process and fences the
//! old one; `consumer` refuses the new process until the session of the old one has
//! ended. The old one may be this process itself, if the group took its partitions
//! away while the brokers were down. So a refused member waits for a while.

use std::sync::Arc;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::client_config::{self, LoggingContext};
use super::group::{self, Identity};
use super::{native, protocol};
use crate::config::{Config, GroupProtocol, Topics};
use crate::error::{Error, Fatal};

/// How long a member waits for its instance id: twice the brokers' default of
/// `group.consumer.max.session.timeout.ms`.
const RELEASE_LIMIT_MS: i64 = 120_000;
/// Pause between two attempts to join.
const JOIN_AGAIN_MS: i64 = 2_000;
/// How long after the end of its session our last answer may still list a member.
const NAMED_LIMIT_MS: i64 = 15_000;

/// A stream thread's membership in the group.
pub struct Membership {
    config: ClientConfig,
    topics: Topics,
    instance_id: Option<String>,
    /// The thread's identity in the group, whichever consumer it joins with.
    pub identity: Arc<Identity>,
    session_ms: i64,
    refused: Option<Refused>,
}

/// The fatal error of a process whose instance id another process has taken. With
/// the classic protocol, librdkafka reports a fatal error. With the consumer
/// protocol, the client is refused forever without an error, and [`super::group`]
/// detects it.
pub fn id_lost(id: &str) -> Fatal {
    Fatal::unavailable(format!(
        "fenced: another process has taken the instance id {id:?} and its partitions. Give each \
         process its own kafka.instance_id; if this process was only unreachable for a while, \
         restart it"
    ))
}

/// The group refused the instance id, because another member has it.
struct Refused {
    since_ms: i64,
    again_ms: i64,
    /// This thread had the id and was fenced.
    fenced: bool,
}

impl Membership {
    /// The membership of a stream thread.
    pub fn new(config: &Config, thread: usize) -> Membership {
        let id = &config.kafka.instance_id;
        let instance_id = (!id.is_empty()).then(|| format!("{id}-{thread}"));
        let mut client = client_config::consumer(config);
        match config.kafka.group_protocol {
            GroupProtocol::Consumer => {
                client.set("group.protocol", "consumer");
                client.set("group.remote.assignor", "range");
            }
            GroupProtocol::Classic => {
                client.set("group.protocol", "classic");
                client.set("partition.assignment.strategy", "range");
            }
        }
        if let Some(id) = &instance_id {
            client.set("group.instance.id", id);
        }
        let topics = config.topics.clone();
        let identity = Arc::new(Identity::new(instance_id.clone()));
        let session_ms = group::session_timeout_ms(config);
        Membership { config: client, topics, instance_id, identity, session_ms, refused: None }
    }

    /// Creates a consumer that joins the group.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn join(&self) -> Result<BaseConsumer<LoggingContext>, KafkaError> {
        let consumer: BaseConsumer<LoggingContext> =
            self.config.create_with_context(LoggingContext)?;
        consumer.subscribe(&self.topics.inputs())?;
        self.identity.joins_as(native::member_id(&consumer));
        Ok(consumer)
    }

    /// The group has assigned partitions, so it accepts this member.
    pub fn assigned(&mut self) {
        self.refused = None;
    }

    /// Decides what to do after a fatal error of the consumer.
    pub fn gave_up(&mut self, code: Option<RDKafkaErrorCode>, message: &str, now_ms: i64) -> Error {
        let id = self.instance_id.as_deref().unwrap_or_default();
        let taken = format!(
            "another member of the group has the instance id {id:?}. If its process was killed, \
             the group frees the id when its session ends (group.consumer.session.timeout.ms on \
             the brokers); if it is running, give each process its own kafka.instance_id"
        );
        match code {
            Some(RDKafkaErrorCode::UnreleasedInstanceId) => {
                let new = Refused { since_ms: now_ms, again_ms: now_ms, fenced: false };
                let refused = self.refused.get_or_insert(new);
                if now_ms - refused.since_ms > RELEASE_LIMIT_MS {
                    return Fatal::unavailable(taken).into();
                }
                refused.again_ms = now_ms + JOIN_AGAIN_MS;
                Error::Retriable(taken)
            }
            Some(RDKafkaErrorCode::FencedInstanceId) => {
                let again_ms = now_ms + JOIN_AGAIN_MS;
                self.refused = Some(Refused { since_ms: now_ms, again_ms, fenced: true });
                Error::Retriable(taken)
            }
            // The start has checked the protocol, so the brokers have changed
            // since.
            Some(RDKafkaErrorCode::UnsupportedVersion | RDKafkaErrorCode::UnsupportedFeature) => {
                let remedy = protocol::REMEDY;
                Fatal::unavailable(format!("the Kafka consumer failed: {message}; {remedy}")).into()
            }
            _ => Fatal::unavailable(format!("the Kafka consumer failed: {message}")).into(),
        }
    }

    /// A new consumer could not be created: schedules another attempt.
    pub fn not_joined(&mut self, now_ms: i64) {
        if let Some(refused) = &mut self.refused {
            refused.again_ms = now_ms + JOIN_AGAIN_MS;
        }
    }

    /// Whether to join again with a new consumer now.
    ///
    /// # Errors
    /// When another process keeps the id. Joining again would fence that process.
    pub fn join_again(&mut self, now_ms: i64) -> Result<bool, Error> {
        let Some(refused) = self.refused.as_mut().filter(|refused| refused.again_ms <= now_ms)
        else {
            return Ok(false);
        };
        // The group does not say which process has the id. It may be this one: a
        // broker may have died before it answered our join. That member sends
        // nothing more and is removed when its session ends.
        if refused.fenced && self.identity.named_since(refused.since_ms) != Some(false) {
            let id = self.instance_id.as_deref().unwrap_or_default();
            let gone_ms = refused.since_ms + self.session_ms + NAMED_LIMIT_MS;
            if self.identity.named_since(gone_ms) == Some(true) {
                return Err(id_lost(id).into());
            }
            refused.again_ms = now_ms + JOIN_AGAIN_MS;
            return Err(Error::Retriable(format!(
                "fenced: another member of the group has the instance id {id:?} of this thread; \
                 joining again once the group no longer lists it"
            )));
        }
        // No further attempt unless the group refuses the id again.
        refused.again_ms = i64::MAX;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership(id: &str) -> Membership {
        let mut config = Config::default();
        config.kafka.instance_id = id.to_owned();
        Membership::new(&config, 3)
    }

    #[test]
    fn each_thread_has_its_own_instance_id_only_if_configured() {
        let named = membership("pod-7");
        assert_eq!(named.config.get("group.instance.id"), Some("pod-7-3"));
        assert_eq!(membership("").config.get("group.instance.id"), None);
    }

    #[test]
    fn taken_instance_id_is_retried_until_the_release_limit() {
        let taken = Some(RDKafkaErrorCode::UnreleasedInstanceId);
        let mut starting = membership("pod-7");
        assert!(!starting.join_again(0).unwrap());
        let Error::Retriable(words) = starting.gave_up(taken, "", 1_000) else { panic!() };
        assert!(words.contains("\"pod-7-3\"") && words.contains("kafka.instance_id"), "{words}");
        assert!(!starting.join_again(1_500).unwrap());
        assert!(starting.join_again(1_000 + JOIN_AGAIN_MS).unwrap());
        assert!(!starting.join_again(1_001 + JOIN_AGAIN_MS).unwrap());
        let late_ms = 1_001 + RELEASE_LIMIT_MS;
        assert!(matches!(starting.gave_up(taken, "", late_ms), Error::Fatal(_)));
    }

    fn fenced() -> Membership {
        let mut working = membership("pod-7");
        working.assigned();
        let fenced = Some(RDKafkaErrorCode::FencedInstanceId);
        assert!(matches!(working.gave_up(fenced, "", 0), Error::Retriable(_)));
        working
    }

    #[test]
    fn fenced_member_stops_if_another_keeps_its_id() {
        let mut working = fenced();
        for now_ms in (0..=working.session_ms + NAMED_LIMIT_MS).step_by(5_000) {
            working.identity.set_named(now_ms, true);
            assert!(!matches!(working.join_again(now_ms), Ok(true) | Err(Error::Fatal(_))));
        }
        let late_ms = working.session_ms + NAMED_LIMIT_MS + JOIN_AGAIN_MS;
        assert!(matches!(working.join_again(late_ms), Err(Error::Retriable(_))), "no answer");
        working.identity.set_named(late_ms, true);
        let late_ms = late_ms + JOIN_AGAIN_MS;
        let Err(Error::Fatal(fatal)) = working.join_again(late_ms) else { panic!() };
        assert!(fatal.message.contains("has taken the instance id \"pod-7-3\""), "{fatal}");
    }

    #[test]
    fn fenced_member_rejoins_once_no_member_has_its_id() {
        let mut working = fenced();
        working.identity.set_named(0, false);
        assert!(working.join_again(JOIN_AGAIN_MS).is_err(), "it is not known since the refusal");
        working.identity.set_named(5_000, true);
        assert!(working.join_again(2 * JOIN_AGAIN_MS).is_err());
        working.identity.set_named(10_000, false);
        assert!(working.join_again(10_000).unwrap());
        working.assigned();
        assert!(!working.join_again(20_000).unwrap());
    }

    #[test]
    fn member_refused_because_of_its_old_session_rejoins() {
        let mut working = membership("pod-7");
        working.assigned();
        let taken = Some(RDKafkaErrorCode::UnreleasedInstanceId);
        assert!(matches!(working.gave_up(taken, "", 0), Error::Retriable(_)));
        assert!(working.join_again(JOIN_AGAIN_MS).unwrap());
        working.assigned();
        assert!(!working.join_again(2 * JOIN_AGAIN_MS).unwrap());
    }
}
