//! Parses the server's answers.

use std::collections::BTreeMap;

use redis::Value;

use super::keys::MarkerValue;

/// The answer to a command: a value, or the server's error.
pub type Answer = Result<Value, String>;

/// The content of a marker's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkerContent {
    /// The key is missing, or does not hold a marker.
    Nothing,
    /// Only the epoch can be read; other fields are missing or malformed.
    Epoch(u64),
    /// A complete marker.
    Value(MarkerValue),
}

impl MarkerContent {
    /// Reads a marker's fields, in the order of
    /// [`MARKER_FIELDS`](super::keys::MARKER_FIELDS).
    #[must_use]
    pub fn read(value: &Value) -> MarkerContent {
        let Value::Array(fields) = value else { return MarkerContent::Nothing };
        let [epoch, applied, sequence, time, _group] = &fields[..] else {
            return MarkerContent::Nothing;
        };
        let Some(epoch) = integer(epoch) else { return MarkerContent::Nothing };
        match (integer(applied), integer(sequence), integer(time)) {
            (Some(applied), Some(sequence), Some(time_ms)) => {
                MarkerContent::Value(MarkerValue { epoch, applied, sequence, time_ms })
            }
            _ => MarkerContent::Epoch(epoch),
        }
    }

    /// The epoch in it.
    #[must_use]
    pub fn epoch(self) -> Option<u64> {
        match self {
            MarkerContent::Nothing => None,
            MarkerContent::Epoch(epoch) | MarkerContent::Value(MarkerValue { epoch, .. }) => {
                Some(epoch)
            }
        }
    }
}

/// The group in an answer about a marker, if it differs from `ours`. A marker
/// without a group counts as ours.
#[must_use]
pub fn other_group(answer: &Value, ours: &str) -> Option<String> {
    let Value::Array(fields) = answer else { return None };
    let ([Value::Int(2), group] | [_, _, _, _, group]) = &fields[..] else { return None };
    text(group).filter(|group| group != ours)
}

/// Whether the error says that a key has the wrong type. Such a key was written by
/// mistake under one of our names; it is replaced.
#[must_use]
pub fn is_wrong_type(message: &str) -> bool {
    message.contains("WRONGTYPE")
}

/// Parses a number, sent as an integer or as text.
#[must_use]
pub fn integer<T: std::str::FromStr>(value: &Value) -> Option<T> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
        Value::Int(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

/// Parses a text.
#[must_use]
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::VerbatimString { text, .. } | Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}

/// The fields of a hash; `None` if this is not a hash.
#[must_use]
pub fn pairs(value: &Value) -> Option<BTreeMap<&[u8], &[u8]>> {
    fn bytes(value: &Value) -> Option<&[u8]> {
        match value {
            Value::BulkString(bytes) => Some(bytes),
            Value::SimpleString(text) => Some(text.as_bytes()),
            _ => None,
        }
    }
    match value {
        Value::Array(items) => items
            .chunks(2)
            .map(|pair| Some((bytes(pair.first()?)?, bytes(pair.get(1)?)?)))
            .collect(),
        Value::Map(items) => {
            items.iter().map(|(name, value)| Some((bytes(name)?, bytes(value)?))).collect()
        }
        _ => None,
    }
}
