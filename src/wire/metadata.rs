//! What is committed beside a shard's offsets (rule C2): one short ASCII text,
//! the same on all three inputs.
//!
//! ```text
//! 1,<clock>,<lifecycle>,<vpn>,<heartbeats>,<epoch>,<batch>,<replay from>,<rules>
//! ```
//! Times are milliseconds since the epoch, a watermark not known is empty, and
//! the fingerprint of the rules is hexadecimal. The first field is the version
//! of the format.

use crate::shard::Timestamp;

const VERSION: &str = "1";

/// How far a shard had come when its offsets were committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardMetadata {
    /// The clock through which all timers had fired.
    pub clock: Timestamp,
    /// The watermarks of the inputs, in the order of
    /// [`Input::ALL`](crate::shard::Input::ALL).
    pub watermarks: [Option<Timestamp>; 3],
    /// The owner's epoch (rule C7).
    pub epoch: u64,
    /// Counts the owner's batches.
    pub batch: u64,
    /// Whence a restore replays heartbeats (rule R2).
    pub replay_from: Timestamp,
    /// Of the configuration that statuses depend on.
    pub rules_fingerprint: u64,
}

impl ShardMetadata {
    /// The text to commit.
    #[must_use]
    pub fn encode(&self) -> String {
        let [lifecycle, vpn, heartbeats] =
            self.watermarks.map(|at| at.map_or_else(String::new, |at| at.to_string()));
        format!(
            "{VERSION},{},{lifecycle},{vpn},{heartbeats},{},{},{},{:x}",
            self.clock, self.epoch, self.batch, self.replay_from, self.rules_fingerprint
        )
    }

    /// Reads it back; `None` for what an operator's tool or another version wrote.
    #[must_use]
    pub fn decode(text: &str) -> Option<ShardMetadata> {
        let mut fields = text.split(',');
        if fields.next()? != VERSION {
            return None;
        }
        let time = |text: &str| text.parse().ok().map(Timestamp);
        let clock = time(fields.next()?)?;
        let mut watermarks = [None; 3];
        for watermark in &mut watermarks {
            let text = fields.next()?;
            *watermark = if text.is_empty() { None } else { Some(time(text)?) };
        }
        let epoch = fields.next()?.parse().ok()?;
        let batch = fields.next()?.parse().ok()?;
        let replay_from = time(fields.next()?)?;
        let rules_fingerprint = u64::from_str_radix(fields.next()?, 16).ok()?;
        fields.next().is_none().then_some(ShardMetadata {
            clock,
            watermarks,
            epoch,
            batch,
            replay_from,
            rules_fingerprint,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_committed_reads_back(
            times in any::<[i64; 2]>(),
            watermarks in any::<[Option<i64>; 3]>(),
            numbers in any::<[u64; 3]>(),
        ) {
            let metadata = ShardMetadata {
                clock: Timestamp(times[0]),
                watermarks: watermarks.map(|at| at.map(Timestamp)),
                epoch: numbers[0],
                batch: numbers[1],
                replay_from: Timestamp(times[1]),
                rules_fingerprint: numbers[2],
            };
            let text = metadata.encode();
            prop_assert!(text.is_ascii() && text.len() < 256);
            prop_assert_eq!(ShardMetadata::decode(&text), Some(metadata));
        }

        #[test]
        fn foreign_text_is_no_metadata(text in ".*") {
            prop_assert_eq!(ShardMetadata::decode(&text), None);
        }
    }
}
