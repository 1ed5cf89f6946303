//! Headers that tell at what time a record's sender was alive (rule J4).

use super::dead_letter::HEADER_REPLAYED;
use crate::shard::{Header, Relay, Timestamp};

/// The timestamp of the record that a relay has copied, in milliseconds since the
/// epoch, as text.
pub const HEADER_SOURCE_TIMESTAMP: &str = "device_status.source_timestamp";

/// The timestamp of the source's record. `None` if the header is absent or no
/// number.
fn source_timestamp(headers: &[Header]) -> Option<Timestamp> {
    let said = headers.iter().find(|(name, _)| **name == *HEADER_SOURCE_TIMESTAMP)?;
    let ms = std::str::from_utf8(said.1.as_deref()?).ok()?.parse().ok()?;
    Some(Timestamp(ms))
}

/// Whether the record is a replayed dead letter.
fn is_replayed(headers: &[Header]) -> bool {
    headers.iter().any(|(name, _)| **name == *HEADER_REPLAYED)
}

/// The relevant contents of a record's headers.
#[must_use]
pub fn relay(headers: &[Header]) -> Relay {
    Relay { source_timestamp: source_timestamp(headers), is_replayed: is_replayed(headers) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, value: Option<&str>) -> Header {
        (name.into(), value.map(|value| value.as_bytes().into()))
    }

    #[test]
    fn source_timestamp_header_is_in_milliseconds() {
        let said = |value| source_timestamp(&[header(HEADER_SOURCE_TIMESTAMP, value)]);
        assert_eq!(said(Some("1790000000123")), Some(Timestamp(1_790_000_000_123)));
        assert_eq!([said(None), said(Some("")), said(Some("soon"))], [None; 3]);
        assert_eq!(source_timestamp(&[header("other", Some("1"))]), None);
    }

    #[test]
    fn replayed_dead_letter_is_recognized_by_its_header() {
        assert!(is_replayed(&[header("other", None), header(HEADER_REPLAYED, Some("1"))]));
        assert!(!is_replayed(&[header("other", Some("1"))]));
    }
}
