//! Watches the consumer group and the number of partitions, outside of the loops.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::producer::{BaseProducer, Producer};

use super::client_config;
use super::group::{GroupReport, GroupWatch, Identity};
use super::membership;
use super::native::Tended;
use crate::config::Config;
use crate::error::Fatal;

/// How often the number of partitions is checked (rule R6).
const COUNT_INTERVAL_MS: i64 = 30_000;

/// The remedy after partitions were added (docs/operations.md).
pub const ADDED_REMEDY: &str = "leave the service stopped, add no partitions to the other topics, \
                                and start over on new topics (\"Scaling partitions\" in \
                                docs/operations.md); if only the changelog was widened, treat it \
                                as lost";

const METADATA_TIMEOUT: Duration = Duration::from_secs(5);

/// Watches both while the process runs.
pub struct Watch {
    partitions: PartitionWatch,
    group: GroupWatch,
    counted_ms: Option<i64>,
}

impl Watch {
    /// Watches the configured group. `members` are the stream threads of this
    /// process.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(config: &Config, members: Vec<Arc<Identity>>) -> Result<Watch, Fatal> {
        Ok(Watch {
            partitions: PartitionWatch::new(config, config.topics.partitions)?,
            group: GroupWatch::new(config, members)?,
            counted_ms: None,
        })
    }

    /// Runs the checks that are due. Returns a report of the group, if one has
    /// come.
    ///
    /// # Errors
    /// When the process must stop: the number of partitions has changed, or another
    /// process has taken an instance id of ours.
    pub fn look(&mut self, now_ms: i64) -> Result<Option<GroupReport>, Fatal> {
        if now_ms - *self.counted_ms.get_or_insert(now_ms) > COUNT_INTERVAL_MS {
            self.counted_ms = Some(now_ms);
            self.partitions.check()?;
        }
        let report = self.group.look(now_ms);
        match report.as_ref().and_then(|report| report.taken.as_deref()) {
            Some(id) => Err(membership::id_lost(id)),
            None => Ok(report),
        }
    }
}

/// Detects a change of the number of partitions (rule R6): keys then belong to
/// other partitions, and a row split over two shards is worse than none.
struct PartitionWatch {
    client: BaseProducer,
    topics: Vec<String>,
    expected: usize,
    tended: Tended,
}

impl PartitionWatch {
    fn new(config: &Config, expected: i32) -> Result<PartitionWatch, Fatal> {
        let client: BaseProducer =
            client_config::base(config).create().map_err(client_config::refused)?;
        let tended = Tended::new(client.client());
        let mut topics = config.topics.inputs().map(str::to_owned).to_vec();
        topics.push(config.topics.changelog.clone());
        let expected = usize::try_from(expected).unwrap_or(0);
        Ok(PartitionWatch { client, topics, expected, tended })
    }

    /// Checks once. A topic whose metadata cannot be read is skipped.
    fn check(&self) -> Result<(), Fatal> {
        self.tended.tend(self.client.client());
        for topic in &self.topics {
            let Ok(metadata) = self.client.client().fetch_metadata(Some(topic), METADATA_TIMEOUT)
            else {
                continue;
            };
            let count = metadata
                .topics()
                .iter()
                .find(|found| found.name() == topic && found.error().is_none())
                .map_or(0, |found| found.partitions().len());
            if count != 0 && count != self.expected {
                return Err(changed(topic, self.expected, count));
            }
        }
        Ok(())
    }
}

fn changed(topic: &str, expected: usize, count: usize) -> Fatal {
    Fatal::unavailable(format!(
        "topic {topic} now has {count} partitions, and had {expected}: keys now belong to other \
         partitions; {ADDED_REMEDY}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedy_never_says_to_add_partitions() {
        let told = changed("device-lifecycle", 12, 16).message;
        assert!(told.contains("device-lifecycle now has 16 partitions, and had 12"), "{told}");
        assert!(!told.contains("same number"), "{told}");
        let manual = include_str!("../../docs/operations.md");
        assert!(manual.contains("\n## Scaling partitions\n"));
        assert!(manual.contains("leave the service stopped, and do this with new topics"));
        assert!(manual.contains("If only the changelog was widened"));
        for said in ["leave the service stopped", "new topics", "only the changelog was widened"] {
            assert!(told.contains(said), "{told}");
        }
    }
}
