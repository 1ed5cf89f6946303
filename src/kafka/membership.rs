//! How a stream thread is a member of the group: a new one at each start, or a
//! static one (KIP-345) that finds the partitions it had.
//!
//! A static member that ends politely keeps its partitions for as long as its
//! session: with `classic` it says nothing to the group, with `consumer`
//! (KIP-848) that it will be back. The same id can come back at once then. After
//! a crash, `classic` gives the id to whoever comes with it, and refuses the
//! former one from then on; `consumer` refuses the newcomer until the session of
//! the former one has ended. The former one may be this process itself, where
//! the group took its partitions away while the brokers stood still. So whoever
//! is refused waits for that, for a while.

use std::sync::Arc;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::client_config::{self, LoggingContext};
use super::group::{self, Identity};
use super::{native, protocol};
use crate::config::{Config, GroupProtocol, Topics};
use crate::error::{Error, Fatal};

/// How long a member waits for its id: twice the longest session that brokers
/// allow unless they are told otherwise (`group.consumer.max.session.timeout.ms`).
const RELEASE_LIMIT_MS: i64 = 120_000;
/// How often it tries.
const JOIN_AGAIN_MS: i64 = 2_000;
/// How long after the end of its session a member is still named by the group, at
/// most, as far as we hear of it.
const NAMED_LIMIT_MS: i64 = 15_000;

/// What a stream thread joins the group with.
pub struct Membership {
    config: ClientConfig,
    topics: Topics,
    instance_id: Option<String>,
    /// Who the thread is in the group, whichever consumer it joins with.
    pub identity: Arc<Identity>,
    session_ms: i64,
    refused: Option<Refused>,
}

/// What ends a process whose instance id is another's by now. With the classic
/// protocol librdkafka is told so, and gives up; with the consumer protocol it
/// goes on for ever, refused, and [`super::group`] finds out.
pub fn id_lost(id: &str) -> Fatal {
    Fatal::unavailable(format!(
        "another process has taken the instance id {id:?} from this one, whose partitions it has. \
         Give each process a kafka.instance_id of its own; if this one only came back late, start \
         it again"
    ))
}

/// The id is taken, as far as the group knows.
struct Refused {
    since_ms: i64,
    again_ms: i64,
    /// It was ours, and is another member's.
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

    /// A consumer that joins.
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

    /// The group has spoken.
    pub fn assigned(&mut self) {
        self.refused = None;
    }

    /// What follows from an error after which the consumer is of no more use.
    pub fn gave_up(&mut self, code: Option<RDKafkaErrorCode>, message: &str, now_ms: i64) -> Error {
        let id = self.instance_id.as_deref().unwrap_or_default();
        let taken = format!(
            "another member of the group has the instance id {id:?}. If its process was killed, \
             the group gives the id back when its session ends \
             (group.consumer.session.timeout.ms on the brokers); if it lives, give each process \
             a kafka.instance_id of its own"
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
            // The start has asked; they were others then.
            Some(RDKafkaErrorCode::UnsupportedVersion | RDKafkaErrorCode::UnsupportedFeature) => {
                let remedy = protocol::REMEDY;
                Fatal::unavailable(format!("the Kafka consumer gave up: {message}; {remedy}"))
                    .into()
            }
            _ => Fatal::unavailable(format!("the Kafka consumer gave up: {message}")).into(),
        }
    }

    /// Another consumer could not even be made: it is tried again.
    pub fn not_joined(&mut self, now_ms: i64) {
        if let Some(refused) = &mut self.refused {
            refused.again_ms = now_ms + JOIN_AGAIN_MS;
        }
    }

    /// Whether it is time to try again with another consumer.
    ///
    /// # Errors
    /// Where another process has the id for good: it would be fenced in its turn.
    pub fn join_again(&mut self, now_ms: i64) -> Result<bool, Error> {
        let Some(refused) = self.refused.as_mut().filter(|refused| refused.again_ms <= now_ms)
        else {
            return Ok(false);
        };
        // Who it is that has the id is not told. It may be this process itself,
        // whose joining was not answered by a broker that died: that member says
        // no more, and is gone when its session ends.
        if refused.fenced && self.identity.named_since(refused.since_ms) != Some(false) {
            let id = self.instance_id.as_deref().unwrap_or_default();
            let gone_ms = refused.since_ms + self.session_ms + NAMED_LIMIT_MS;
            if self.identity.named_since(gone_ms) == Some(true) {
                return Err(id_lost(id).into());
            }
            refused.again_ms = now_ms + JOIN_AGAIN_MS;
            return Err(Error::Retriable(format!(
                "another member of the group has the instance id {id:?}, which this one had; it \
                 joins again if that one turns out to be gone"
            )));
        }
        // Until it is refused again.
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
    fn each_thread_is_a_member_of_its_own_and_none_is_static_unasked() {
        let named = membership("pod-7");
        assert_eq!(named.config.get("group.instance.id"), Some("pod-7-3"));
        assert_eq!(membership("").config.get("group.instance.id"), None);
    }

    #[test]
    fn a_taken_id_is_waited_for_at_a_start_and_not_for_ever() {
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
    fn who_worked_and_lost_its_id_to_another_stops() {
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
    fn who_was_fenced_by_itself_comes_back_once_the_group_names_nobody_under_its_id() {
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
    fn who_worked_and_is_taken_for_its_own_predecessor_comes_back() {
        let mut working = membership("pod-7");
        working.assigned();
        let taken = Some(RDKafkaErrorCode::UnreleasedInstanceId);
        assert!(matches!(working.gave_up(taken, "", 0), Error::Retriable(_)));
        assert!(working.join_again(JOIN_AGAIN_MS).unwrap());
        working.assigned();
        assert!(!working.join_again(2 * JOIN_AGAIN_MS).unwrap());
    }
}
