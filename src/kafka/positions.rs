//! Asking from outside of the group how far it has come, and where logs end.

use std::time::Duration;

use super::client_config;
use super::native::{Found, Questions, Spec};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::error::Fatal;
use crate::stream_thread::ports::CommittedOffset;

/// How long an answer may take.
const PATIENCE_MS: i64 = 20_000;
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Asks, and waits for the answers.
pub struct Positions<'a> {
    config: &'a Config,
    questions: Questions,
}

impl<'a> Positions<'a> {
    /// By a client of its own.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(config: &'a Config) -> Result<Positions<'a>, Fatal> {
        Ok(Positions { config, questions: Questions::new(client_config::asking(config)?) })
    }

    /// What the configured group has committed of a partition of each of these
    /// topics; what an open transaction may add is not in it. `None`: nothing.
    ///
    /// # Errors
    /// When Kafka does not answer, or does not let us know.
    pub fn committed<const N: usize>(
        &self,
        topics: [&str; N],
        partition: i32,
    ) -> Result<[Option<CommittedOffset>; N], Fatal> {
        let group = &self.config.kafka.group;
        let refused = |why: &str| {
            Fatal::unavailable(format!(
                "Kafka does not say what the group {group} has committed: {why}; check \
                 kafka.group, and that Describe or Read on the group is allowed"
            ))
        };
        self.questions.committed(0, group, false, &topics.map(|topic| (topic, partition)));
        let found = self.answer().map_err(|why| refused(&why))?;
        let mut committed = [const { None }; N];
        for (topic, committed) in std::iter::zip(topics, &mut committed) {
            let Some(found) = found.iter().find(|found| found.topic == topic) else { continue };
            if let Some(error) = &found.error {
                return Err(refused(error));
            }
            *committed = (found.offset >= 0).then(|| CommittedOffset {
                offset: found.offset,
                metadata: found.metadata.clone(),
            });
        }
        Ok(committed)
    }

    /// One past the last record of a partition, transactions open or not.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn high_watermark(&self, topic: &str, partition: i32) -> Result<i64, Fatal> {
        self.questions.list_offsets(0, false, &[(topic, partition, Spec::Latest)]);
        let found = self.answer().and_then(|found| match found.into_iter().next() {
            Some(Found { error: None, offset, .. }) => Ok(offset),
            Some(Found { error: Some(error), .. }) => Err(error),
            None => Err("no answer".to_owned()),
        });
        found.map_err(|why| {
            Fatal::unavailable(format!("Kafka does not say where {topic} ends: {why}"))
        })
    }

    /// The answer to the one question that was put.
    fn answer(&self) -> Result<Vec<Found>, String> {
        let clock = SystemClock::new();
        loop {
            if let Some((_, answer)) = self.questions.poll() {
                return answer;
            }
            if clock.monotonic_ms() > PATIENCE_MS {
                return Err("no answer".to_owned());
            }
            SystemClock::pause(LOOK_EVERY);
        }
    }
}
