//! What the server's answers say.

use std::collections::BTreeMap;

use redis::Value;

use super::keys::MarkerValue;

/// What a command was answered with: a value, or the server's complaint.
pub type Answer = Result<Value, String>;

/// What a marker turned out to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Something that is no marker, or nothing.
    Nothing,
    /// This epoch, in a value that may be malformed otherwise.
    Epoch(u64),
    /// A marker.
    Value(MarkerValue),
}

impl Found {
    /// Reads a marker's fields, in the order of
    /// [`MARKER_FIELDS`](super::keys::MARKER_FIELDS).
    #[must_use]
    pub fn read(value: &Value) -> Found {
        let Value::Array(fields) = value else { return Found::Nothing };
        let [epoch, applied, sequence, time, _group] = &fields[..] else { return Found::Nothing };
        let Some(epoch) = integer(epoch) else { return Found::Nothing };
        match (integer(applied), integer(sequence), integer(time)) {
            (Some(applied), Some(sequence), Some(time_ms)) => {
                Found::Value(MarkerValue { epoch, applied, sequence, time_ms })
            }
            _ => Found::Epoch(epoch),
        }
    }

    /// The epoch that it names.
    #[must_use]
    pub fn epoch(self) -> Option<u64> {
        match self {
            Found::Nothing => None,
            Found::Epoch(epoch) | Found::Value(MarkerValue { epoch, .. }) => Some(epoch),
        }
    }
}

/// The group that an answer to a marker's script or reading names, if it is
/// another than `ours`. A marker without a group is ours.
#[must_use]
pub fn other_group(answer: &Value, ours: &str) -> Option<String> {
    let Value::Array(fields) = answer else { return None };
    let ([Value::Int(2), group] | [_, _, _, _, group]) = &fields[..] else { return None };
    text(group).filter(|group| group != ours)
}

/// Whether this is a complaint about a key of another type than ours: somebody's
/// accident under one of our names, which is replaced.
#[must_use]
pub fn is_wrong_type(message: &str) -> bool {
    message.contains("WRONGTYPE")
}

/// A number, however the server tells it.
#[must_use]
pub fn integer<T: std::str::FromStr>(value: &Value) -> Option<T> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
        Value::Int(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

/// A bulk of text.
#[must_use]
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::VerbatimString { text, .. } | Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}

/// The fields of a hash; nothing if this is no hash.
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
