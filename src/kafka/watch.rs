//! What the process watches of Kafka beside its loops: the group, and the number
//! of partitions.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::producer::{BaseProducer, Producer};

use super::client_config;
use super::group::{GroupReport, GroupWatch, Identity};
use super::membership;
use crate::config::Config;
use crate::error::Fatal;

/// How often the partition counts are looked at (rule R6).
const COUNT_INTERVAL_MS: i64 = 30_000;

/// The way out once partitions were added (docs/operations.md).
pub const ADDED_REMEDY: &str = "leave the service stopped, add no partitions to the others, and \
    begin anew on new topics, as \"Scaling partitions\" in docs/operations.md has it; where only \
    the changelog was widened, do as if it were lost";

const METADATA_TIMEOUT: Duration = Duration::from_secs(5);

/// Looks at both, for as long as the process wants to work.
pub struct Watch {
    partitions: PartitionWatch,
    group: GroupWatch,
    counted_ms: Option<i64>,
}

impl Watch {
    /// Watches a group of which these are our members.
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

    /// Looks at what is due. Answers what the group has said, if it has.
    ///
    /// # Errors
    /// When the process must stop: the number of partitions is another, or
    /// another process has taken an instance id of ours.
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

/// Notices that somebody changed the number of partitions (rule R6): keys then
/// belong elsewhere, and half a row in each of two shards is worse than none.
struct PartitionWatch {
    client: BaseProducer,
    topics: Vec<String>,
    expected: usize,
}

impl PartitionWatch {
    fn new(config: &Config, expected: i32) -> Result<PartitionWatch, Fatal> {
        let client = client_config::base(config).create().map_err(client_config::refused)?;
        let mut topics = config.topics.inputs().map(str::to_owned).to_vec();
        topics.push(config.topics.changelog.clone());
        Ok(PartitionWatch { client, topics, expected: usize::try_from(expected).unwrap_or(0) })
    }

    /// Looks once. What cannot be seen is no finding.
    fn check(&self) -> Result<(), Fatal> {
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
        "topic {topic} now has {count} partitions, and had {expected}: keys belong elsewhere now; \
         {ADDED_REMEDY}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_told_to_add_more_partitions() {
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
