//! Queries a group's committed offsets and high watermarks, without joining the
//! group.

use std::time::Duration;

use super::client_config;
use super::native::{PartitionOffset, Questions, Spec};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::error::Fatal;
use crate::stream_thread::ports::CommittedOffset;

/// How long an answer may take.
const PATIENCE_MS: i64 = 20_000;
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Sends queries and waits for the answers.
pub struct Positions<'a> {
    config: &'a Config,
    questions: Questions,
}

impl<'a> Positions<'a> {
    /// Creates a client for the queries.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(config: &'a Config) -> Result<Positions<'a>, Fatal> {
        Ok(Positions { config, questions: Questions::new(client_config::asking(config)?) })
    }

    /// The offset that the configured group has committed for a partition of each
    /// topic; `None` if there is none. Open transactions do not count.
    ///
    /// # Errors
    /// When Kafka does not answer, or refuses.
    pub fn committed<const N: usize>(
        &self,
        topics: [&str; N],
        partition: i32,
    ) -> Result<[Option<CommittedOffset>; N], Fatal> {
        let group = &self.config.kafka.group;
        let refused = |why: &str| {
            Fatal::unavailable(format!(
                "cannot read the committed offsets of group {group}: {why}; check kafka.group, \
                 and that this client is allowed to Describe or Read the group"
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

    /// The high watermark of a partition: one past its last record, including open
    /// transactions.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn high_watermark(&self, topic: &str, partition: i32) -> Result<i64, Fatal> {
        self.questions.list_offsets(0, false, &[(topic, partition, Spec::Latest)]);
        let found = self.answer().and_then(|found| match found.into_iter().next() {
            Some(PartitionOffset { error: None, offset, .. }) => Ok(offset),
            Some(PartitionOffset { error: Some(error), .. }) => Err(error),
            None => Err("no answer".to_owned()),
        });
        found.map_err(|why| {
            Fatal::unavailable(format!("cannot read the high watermark of {topic}: {why}"))
        })
    }

    /// The answer to the only open query.
    fn answer(&self) -> Result<Vec<PartitionOffset>, String> {
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
