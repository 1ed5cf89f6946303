//! The text beside the committed offsets (rule C2): the shard's clock and the
//! number of the commit.
//!
//! `ds2;clock;lifecycle,vpn,heartbeats;epoch;batch;replay-from;fingerprint`,
//! times in milliseconds, `-` for an unknown watermark, the fingerprint in 16 hex
//! digits. Text after another `;` is from a later, compatible version.

use crate::shard::Timestamp;

/// The text that a shard commits beside its offsets, the same on all three
/// inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardMetadata {
    /// The clock through which all timers have fired.
    pub clock: Timestamp,
    /// The watermarks, in the order of [`crate::shard::Input::ALL`].
    pub watermarks: [Option<Timestamp>; 3],
    /// The epoch of the owner that committed (rule C7).
    pub epoch: u64,
    /// The number of its commit; the greatest (epoch, batch) counts.
    pub batch: u64,
    /// Heartbeats are replayed from here (rule R2).
    pub replay_from: Timestamp,
    /// The hash of the settings that statuses depend on.
    pub rules_fingerprint: u64,
}

const FORMAT: &str = "ds2";

impl ShardMetadata {
    /// The text to commit: ASCII, at most about 200 bytes.
    #[must_use]
    pub fn encode(&self) -> String {
        let [lifecycle, vpn_sessions, heartbeats] = self
            .watermarks
            .map(|watermark| watermark.map_or_else(|| "-".to_owned(), |at| at.to_string()));
        format!(
            "{FORMAT};{};{lifecycle},{vpn_sessions},{heartbeats};{};{};{};{:016x}",
            self.clock, self.epoch, self.batch, self.replay_from, self.rules_fingerprint
        )
    }

    /// Reads the text back. `None` if this program did not write it: an
    /// operator's reset, another program's text, another format.
    #[must_use]
    pub fn decode(text: &str) -> Option<ShardMetadata> {
        let mut fields = text.split(';');
        if fields.next()? != FORMAT {
            return None;
        }
        let clock = timestamp(fields.next()?)?;
        let mut inputs = fields.next()?.split(',');
        let mut watermarks = [None; 3];
        for watermark in &mut watermarks {
            *watermark = match inputs.next()? {
                "-" => None,
                text => Some(timestamp(text)?),
            };
        }
        if inputs.next().is_some() {
            return None;
        }
        let epoch = fields.next()?.parse().ok()?;
        let batch = fields.next()?.parse().ok()?;
        let replay_from = timestamp(fields.next()?)?;
        // The length is fixed, so that truncated text is recognized.
        let digits = fields.next().filter(|digits| digits.len() == 16)?;
        let rules_fingerprint = u64::from_str_radix(digits, 16).ok()?;
        Some(ShardMetadata { clock, watermarks, epoch, batch, replay_from, rules_fingerprint })
    }
}

fn timestamp(text: &str) -> Option<Timestamp> {
    text.parse().ok().map(Timestamp)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_metadata() -> impl Strategy<Value = ShardMetadata> {
        let numbers = (any::<i64>(), any::<u64>(), any::<u64>(), any::<i64>(), any::<u64>());
        (numbers, any::<[Option<i64>; 3]>()).prop_map(
            |((clock, epoch, batch, replay_from, rules_fingerprint), watermarks)| ShardMetadata {
                clock: Timestamp(clock),
                watermarks: watermarks.map(|at| at.map(Timestamp)),
                epoch,
                batch,
                replay_from: Timestamp(replay_from),
                rules_fingerprint,
            },
        )
    }

    #[test]
    fn metadata_of_the_first_version_stays_readable() {
        let text = "ds2;1760000000000;1760000002000,-,1760000001999;7;42;1759998200000;\
                    00000000deadbeef";
        let metadata = ShardMetadata {
            clock: Timestamp(1_760_000_000_000),
            watermarks: [
                Some(Timestamp(1_760_000_002_000)),
                None,
                Some(Timestamp(1_760_000_001_999)),
            ],
            epoch: 7,
            batch: 42,
            replay_from: Timestamp(1_759_998_200_000),
            rules_fingerprint: 0xdead_beef,
        };
        assert_eq!(ShardMetadata::decode(text), Some(metadata.clone()));
        assert_eq!(metadata.encode(), text);
        assert_eq!(ShardMetadata::decode(&format!("{text};more")), Some(metadata));
    }

    #[test]
    fn foreign_text_is_none() {
        for text in
            ["", ";", "ds2", "ds1;1;1,1,1;1;1;1;0000000000000000", "NULL", "{\"a\":1}", "é;"]
        {
            assert_eq!(ShardMetadata::decode(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_committed_reads_back(metadata in any_metadata()) {
            let text = metadata.encode();
            prop_assert!(text.is_ascii() && text.len() < 256);
            prop_assert_eq!(ShardMetadata::decode(&text), Some(metadata));
        }

        #[test]
        fn a_text_cut_off_is_none(metadata in any_metadata(), cut in any::<prop::sample::Index>()) {
            let text = metadata.encode();
            prop_assert_eq!(ShardMetadata::decode(&text[..cut.index(text.len())]), None);
        }

        #[test]
        fn any_text_is_read_without_harm(text in "\\PC*|ds2[;,0-9a-f-]*") {
            let _ = ShardMetadata::decode(&text);
        }
    }
}
