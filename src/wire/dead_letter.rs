//! Dead letters as they are written to their topic: the original key, value and
//! headers, and headers that say where the record was read and what is wrong with
//! it.
//!
//! The header names are those of Kafka Streams (KIP-1034), and their values are
//! text, so that its tools can read them. `reason`, `timestamp` and `truncated`
//! are our own.

use crate::shard::DeadLetter;

/// The prefix of all our headers. Headers of the original with this prefix are
/// from an earlier time in this topic, and are replaced.
pub const HEADER_PREFIX: &str = "__streams.errors.";
/// The topic that the record was read from.
pub const HEADER_TOPIC: &str = "__streams.errors.topic";
/// The partition that it was read from.
pub const HEADER_PARTITION: &str = "__streams.errors.partition";
/// Its offset there.
pub const HEADER_OFFSET: &str = "__streams.errors.offset";
/// Its timestamp there, in milliseconds since the epoch.
pub const HEADER_TIMESTAMP: &str = "__streams.errors.timestamp";
/// The reason code: see [`crate::shard::DeadLetterReason::code`].
pub const HEADER_REASON: &str = "__streams.errors.reason";
/// The reason in words.
pub const HEADER_MESSAGE: &str = "__streams.errors.message";
/// On a replayed record: topic, partition and offset of the dead letter, such as
/// `device-status-dead-letters/3/42`. The record keeps this header.
pub const HEADER_REPLAYED: &str = "device_status.replayed";
/// The parts that were cut to make the record fit, such as
/// `value: 900000 of 1200000 bytes kept`. A record with this header cannot be
/// replayed.
pub const HEADER_TRUNCATED: &str = "__streams.errors.truncated";

/// The largest record that a broker accepts by default (`message.max.bytes`). A
/// dead letter is cut to this size if no other limit is known.
pub const DEFAULT_MAX_BYTES: usize = 1_048_588;

/// The smallest possible limit: our own headers at their longest.
pub const MIN_MAX_BYTES: usize = 4_096;

/// The most that is kept of the reason in words, in bytes.
const MESSAGE_MAX_BYTES: usize = 1_024;

/// The most that is kept of a key if the record does not fit, in bytes. A longer
/// key is no device id anyway.
const KEY_KEPT_BYTES: usize = 1_024;

/// The largest overhead of the batch and the record: 61 bytes of batch header and
/// seven varints.
const RECORD_OVERHEAD_BYTES: usize = 128;

/// The largest size of a header's two lengths.
const HEADER_OVERHEAD_BYTES: usize = 10;

/// The largest size of [`HEADER_TRUNCATED`].
const TRUNCATED_MAX_BYTES: usize = HEADER_TRUNCATED.len() + HEADER_OVERHEAD_BYTES + 256;

/// A dead letter, ready to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The original's key.
    pub key: Option<Vec<u8>>,
    /// The original's value.
    pub value: Option<Vec<u8>>,
    /// The original's headers, then ours.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Encoded {
    /// The largest possible size of the record on the wire, alone in its batch
    /// and not compressed.
    #[must_use]
    pub fn max_size_bytes(&self) -> usize {
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let headers: usize = self.headers.iter().map(header_size).sum();
        RECORD_OVERHEAD_BYTES + length(&self.key) + length(&self.value) + headers
    }
}

fn header_size((name, value): &(String, Option<Vec<u8>>)) -> usize {
    name.len() + value.as_ref().map_or(0, Vec::len) + HEADER_OVERHEAD_BYTES
}

/// Encodes a dead letter from `topic` as a record of at most `max_bytes`, or
/// [`MIN_MAX_BYTES`] if that is more.
///
/// If it does not fit (rule C8), a key that is too long to be an id is cut first.
/// Then the last headers are dropped if headers take more than half. Then the
/// value is cut. A header says so.
#[must_use]
pub fn encode(letter: &DeadLetter, topic: &str, max_bytes: usize) -> Encoded {
    let max_bytes = max_bytes.max(MIN_MAX_BYTES);
    let theirs = letter
        .headers
        .iter()
        .filter(|(name, _)| !name.starts_with(HEADER_PREFIX))
        .map(|(name, value)| (name.to_string(), value.as_ref().map(|bytes| bytes.to_vec())));
    let mut encoded = Encoded {
        key: letter.key.as_ref().map(|key| key.to_vec()),
        value: letter.value.as_ref().map(|value| value.to_vec()),
        headers: theirs.collect(),
    };
    let mut ours = vec![
        ours(HEADER_TOPIC, topic.to_owned()),
        ours(HEADER_PARTITION, letter.partition.to_string()),
        ours(HEADER_OFFSET, letter.offset.to_string()),
        ours(HEADER_TIMESTAMP, letter.timestamp.to_string()),
        ours(HEADER_REASON, letter.reason.code().to_owned()),
        ours(HEADER_MESSAGE, prefix(&letter.detail, MESSAGE_MAX_BYTES).to_owned()),
    ];
    let ours_size: usize = ours.iter().map(header_size).sum();
    if encoded.max_size_bytes() + ours_size > max_bytes {
        let left_out = truncate(&mut encoded, max_bytes - ours_size - TRUNCATED_MAX_BYTES);
        ours.push(self::ours(HEADER_TRUNCATED, left_out));
    }
    encoded.headers.append(&mut ours);
    encoded
}

/// The contents of our headers on a dead letter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The topic that it was read from.
    pub topic: String,
    /// The partition there.
    pub partition: Option<i32>,
    /// The offset there.
    pub offset: Option<i64>,
    /// Its timestamp there, in milliseconds since the epoch.
    pub timestamp_ms: Option<i64>,
    /// The reason code.
    pub reason: String,
    /// The reason in words.
    pub message: String,
    /// The parts that were cut.
    pub truncated: Option<String>,
    /// If the record was a replay: its earlier dead letter.
    pub replayed: Option<String>,
}

/// Reads the headers of a dead letter. Other programs may have written to the
/// topic: a header that is absent or not text is left empty.
#[must_use]
pub fn read(headers: &[(String, Option<Vec<u8>>)]) -> Said {
    let text = |name: &str| {
        // The last one is ours.
        let (_, value) = headers.iter().rev().find(|(found, _)| found == name)?;
        value.as_ref().map(|value| String::from_utf8_lossy(value).into_owned())
    };
    let number = |name: &str| text(name)?.parse::<i64>().ok();
    Said {
        topic: text(HEADER_TOPIC).unwrap_or_default(),
        partition: number(HEADER_PARTITION).and_then(|number| i32::try_from(number).ok()),
        offset: number(HEADER_OFFSET),
        timestamp_ms: number(HEADER_TIMESTAMP),
        reason: text(HEADER_REASON).unwrap_or_default(),
        message: text(HEADER_MESSAGE).unwrap_or_default(),
        truncated: text(HEADER_TRUNCATED),
        replayed: text(HEADER_REPLAYED),
    }
}

/// The headers for the replay of the dead letter at `place`: those of the
/// original, and [`HEADER_REPLAYED`].
#[must_use]
pub fn replayed(
    headers: &[(String, Option<Vec<u8>>)],
    place: &str,
) -> Vec<(String, Option<Vec<u8>>)> {
    let theirs = headers
        .iter()
        .filter(|(name, _)| !name.starts_with(HEADER_PREFIX) && name != HEADER_REPLAYED)
        .cloned();
    theirs.chain([ours(HEADER_REPLAYED, place.to_owned())]).collect()
}

fn ours(name: &str, value: String) -> (String, Option<Vec<u8>>) {
    (name.to_owned(), Some(value.into_bytes()))
}

/// Cuts to a size. Returns a description of the cut parts.
fn truncate(encoded: &mut Encoded, max_bytes: usize) -> String {
    let mut left_out = Vec::new();
    if let Some(key) = encoded.key.as_mut().filter(|key| key.len() > KEY_KEPT_BYTES) {
        left_out.push(format!("key: {KEY_KEPT_BYTES} of {} bytes kept", key.len()));
        key.truncate(KEY_KEPT_BYTES);
    }
    if encoded.max_size_bytes() > max_bytes {
        let mut room = max_bytes / 2;
        let kept = encoded.headers.iter().take_while(|header| {
            let size = header_size(header);
            let fits = size <= room;
            room = room.saturating_sub(size);
            fits
        });
        let (kept, all) = (kept.count(), encoded.headers.len());
        if kept < all {
            left_out.push(format!("headers: {kept} of {all} kept"));
            encoded.headers.truncate(kept);
        }
    }
    let excess = encoded.max_size_bytes().saturating_sub(max_bytes);
    if let Some(value) = encoded.value.as_mut().filter(|_| excess > 0) {
        let kept = value.len().saturating_sub(excess);
        left_out.push(format!("value: {kept} of {} bytes kept", value.len()));
        value.truncate(kept);
    }
    left_out.join("; ")
}

fn prefix(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::shard::{DeadLetterReason, Input, Timestamp};

    fn letter(key: Option<&[u8]>, value: Option<&[u8]>) -> DeadLetter {
        DeadLetter {
            input: Input::VpnSessions,
            partition: 3,
            offset: 42,
            timestamp: Timestamp(1_700_000_000_123),
            key: key.map(Into::into),
            value: value.map(Into::into),
            headers: vec![
                ("trace".into(), Some(b"abc".as_slice().into())),
                ("empty".into(), None),
                (HEADER_REASON.into(), Some(b"an earlier one".as_slice().into())),
            ],
            reason: DeadLetterReason::UnknownEvent,
            detail: "no event is set".into(),
        }
    }

    fn header<'a>(encoded: &'a Encoded, name: &str) -> Option<&'a str> {
        let mut found = encoded.headers.iter().filter(|(other, _)| other == name);
        let (_, value) = found.next()?;
        assert!(found.next().is_none(), "{name} twice");
        value.as_ref().map(|value| std::str::from_utf8(value).unwrap())
    }

    #[test]
    fn dead_letter_keeps_the_record_and_names_its_position() {
        let encoded = encode(
            &letter(Some(b"device"), Some(b"value")),
            "device-vpn-sessions",
            DEFAULT_MAX_BYTES,
        );
        assert_eq!(encoded.key.as_deref(), Some(b"device".as_slice()));
        assert_eq!(encoded.value.as_deref(), Some(b"value".as_slice()));
        assert_eq!(header(&encoded, "trace"), Some("abc"));
        assert_eq!(encoded.headers[1], ("empty".to_owned(), None));
        assert_eq!(header(&encoded, HEADER_TOPIC), Some("device-vpn-sessions"));
        assert_eq!(header(&encoded, HEADER_PARTITION), Some("3"));
        assert_eq!(header(&encoded, HEADER_OFFSET), Some("42"));
        assert_eq!(header(&encoded, HEADER_TIMESTAMP), Some("1700000000123"));
        assert_eq!(header(&encoded, HEADER_REASON), Some("unknown_event"));
        assert_eq!(header(&encoded, HEADER_MESSAGE), Some("no event is set"));
        assert_eq!(header(&encoded, HEADER_TRUNCATED), None);
    }

    #[test]
    fn dead_letter_headers_are_read_back_and_removed_by_a_replay() {
        let letter = letter(Some(b"device"), Some(b"value"));
        let encoded = encode(&letter, "device-vpn-sessions", DEFAULT_MAX_BYTES);
        let said = read(&encoded.headers);
        assert_eq!(
            said,
            Said {
                topic: "device-vpn-sessions".to_owned(),
                partition: Some(3),
                offset: Some(42),
                timestamp_ms: Some(1_700_000_000_123),
                reason: "unknown_event".to_owned(),
                message: "no event is set".to_owned(),
                truncated: None,
                replayed: None,
            }
        );
        let back = replayed(&encoded.headers, "letters/0/7");
        let names: Vec<&str> = back.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["trace", "empty", HEADER_REPLAYED]);
        assert_eq!(read(&back).replayed.as_deref(), Some("letters/0/7"));
        let again = replayed(&back, "letters/0/8");
        assert_eq!((again.len(), read(&again).replayed.as_deref()), (3, Some("letters/0/8")));
    }

    #[test]
    fn null_stays_null_and_empty_empty() {
        let encoded = encode(&letter(None, None), "t", DEFAULT_MAX_BYTES);
        assert_eq!((encoded.key, encoded.value), (None, None));
        let encoded = encode(&letter(Some(b""), Some(b"")), "t", DEFAULT_MAX_BYTES);
        assert_eq!((encoded.key, encoded.value), (Some(vec![]), Some(vec![])));
    }

    #[test]
    fn oversized_dead_letter_is_cut_and_a_header_says_so() {
        let value = vec![7; 2_000_000];
        let encoded = encode(&letter(Some(b"device"), Some(&value)), "t", DEFAULT_MAX_BYTES);
        assert!(encoded.max_size_bytes() <= DEFAULT_MAX_BYTES);
        assert!(encoded.max_size_bytes() > DEFAULT_MAX_BYTES - 1_000);
        let kept = encoded.value.as_ref().unwrap().len();
        assert_eq!(
            header(&encoded, HEADER_TRUNCATED).unwrap(),
            format!("value: {kept} of 2000000 bytes kept")
        );
        assert_eq!(header(&encoded, "trace"), Some("abc"));
    }

    #[test]
    fn a_huge_key_does_not_cost_the_value() {
        let key = vec![7; 2_000_000];
        let encoded = encode(&letter(Some(&key), Some(b"value")), "t", DEFAULT_MAX_BYTES);
        assert_eq!(encoded.key.as_ref().map(Vec::len), Some(KEY_KEPT_BYTES));
        assert_eq!(encoded.value.as_deref(), Some(b"value".as_slice()));
    }

    proptest! {
        #[test]
        fn any_headers_are_read_without_a_panic(
            headers in proptest::collection::vec(
                (
                    proptest::sample::select(vec![
                        HEADER_TOPIC, HEADER_PARTITION, HEADER_OFFSET, HEADER_TIMESTAMP,
                        HEADER_REASON, HEADER_TRUNCATED, HEADER_REPLAYED, "other",
                    ]),
                    proptest::option::of(proptest::collection::vec(any::<u8>(), 0..24)),
                ),
                0..8,
            ),
        ) {
            let headers: Vec<_> =
                headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            let _ = read(&replayed(&headers, "place"));
            let _ = read(&headers);
        }

        #[test]
        fn every_dead_letter_fits(
            key in 0usize..5_000,
            value in 0usize..20_000,
            headers in proptest::collection::vec((0usize..3_000, 0usize..3_000), 0..6),
            detail in 0usize..3_000,
            max_bytes in 0usize..20_000,
        ) {
            let mut letter = letter(Some(&vec![1; key]), Some(&vec![2; value]));
            letter.headers = headers
                .into_iter()
                .map(|(name, value)| ("h".repeat(name).into(), Some(vec![3; value].into())))
                .collect();
            letter.detail = "é".repeat(detail).into();
            let whole = encode(&letter, &"t".repeat(249), usize::MAX);
            let encoded = encode(&letter, &"t".repeat(249), max_bytes);
            prop_assert!(encoded.max_size_bytes() <= max_bytes.max(MIN_MAX_BYTES));
            let truncated = header(&encoded, HEADER_TRUNCATED).is_some();
            prop_assert_eq!(truncated, encoded != whole);
        }
    }
}
