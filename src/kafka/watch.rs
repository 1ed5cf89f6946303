//! Notices that somebody changed the number of partitions (rule R6): keys then
//! belong elsewhere, and half a row in each of two shards is worse than none.

use std::time::Duration;

use rdkafka::producer::{BaseProducer, Producer};

use super::client_config;
use crate::config::Config;
use crate::error::Fatal;
use crate::shard::Input;

/// The way out once partitions were added (docs/operations.md).
pub const ADDED_REMEDY: &str = "leave the service stopped, add no partitions to the others, and \
    begin anew on new topics, as \"Scaling partitions\" in docs/operations.md has it; where only \
    the changelog was widened, do as if it were lost";

const METADATA_TIMEOUT: Duration = Duration::from_secs(5);

/// Looks at the partition counts of the inputs and the changelog.
pub struct PartitionWatch {
    client: BaseProducer,
    topics: Vec<String>,
    expected: usize,
}

impl PartitionWatch {
    /// Watches for another count than this.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(config: &Config, expected: i32) -> Result<PartitionWatch, Fatal> {
        let client =
            client_config::base(config).create().map_err(|error| client_config::refused(&error))?;
        let mut topics: Vec<String> =
            Input::ALL.iter().map(|input| config.topics.input(*input).to_owned()).collect();
        topics.push(config.topics.changelog.clone());
        Ok(PartitionWatch { client, topics, expected: usize::try_from(expected).unwrap_or(0) })
    }

    /// Looks once. What cannot be seen is no finding.
    ///
    /// # Errors
    /// When a count is another.
    pub fn check(&self) -> Result<(), Fatal> {
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
