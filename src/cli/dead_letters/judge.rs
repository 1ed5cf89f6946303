//! What the service would make of a dead letter that is sent again.

use prost::Message as _;

use super::topic::Letter;
use crate::cli::date::{date, protobuf_of};
use crate::config::Config;
use crate::shard::{Event, Input, Timestamp};
use crate::wire::decode::{Format, Refusal, decode};
use crate::wire::json;
use crate::wire::proto::v1::{self, lifecycle_event};

/// The input that a letter was read from, if it is one of ours.
pub fn input_of(letter: &Letter, config: &Config) -> Option<Input> {
    Input::ALL.into_iter().find(|input| config.topics.input(*input) == letter.said.topic)
}

/// The event that it is, or why it would be refused again, wherever it goes.
pub fn judge(letter: &Letter, input: Input, config: &Config) -> Result<Event, Refusal> {
    let format = config.formats.input(input);
    decode(input, format, letter.key.as_deref(), letter.value.as_deref())
}

/// The value with which it goes back: as it was or, of an event without a time of
/// its own, with that of its record, which would be another one now.
///
/// A deletion without a value becomes one with a value, but where values are framed
/// with the id of a schema, which is not known here.
pub fn value_to_send(letter: &Letter, config: &Config) -> Option<Vec<u8>> {
    let value = letter.value.clone();
    let dated = || {
        let input = input_of(letter, config)?;
        let event = judge(letter, input, config).ok()?;
        let read_ms = letter.said.timestamp_ms.filter(|_| event.occurred_at.is_none())?;
        dated(value.as_deref(), input, config.formats.input(input), Timestamp(read_ms))
    };
    dated().or(value)
}

fn dated(value: Option<&[u8]>, input: Input, format: Format, at: Timestamp) -> Option<Vec<u8>> {
    let mut bytes = match (value, format) {
        (None, Format::ConfluentProtobuf) => return None,
        (None, _) => {
            let event = Some(lifecycle_event::Event::Deleted(v1::Deleted {}));
            v1::LifecycleEvent { event, ..Default::default() }.encode_to_vec()
        }
        (Some(text), Format::Json) => protobuf_of(input, text).ok()?,
        (Some(value), _) => value.to_vec(),
    };
    date(&mut bytes, at);
    match format {
        Format::Json => json::write_bytes(json::message_of(input), &bytes).ok().map(String::into),
        _ => Some(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::{DeviceEvent, EventBody};

    const AT: Timestamp = Timestamp(1_700_000_000_123);

    #[test]
    fn what_is_dated_is_the_same_event_at_that_time() {
        let heartbeat = [0x12, 3, 0x08, 0x84, 0x07];
        let framed = [&[0, 0, 0, 0, 1, 0][..], &heartbeat].concat();
        let json = br#"{"poll_interval":"900s"}"#;
        let cases: [(&[u8], Format); 3] = [
            (&heartbeat, Format::Protobuf),
            (&framed, Format::ConfluentProtobuf),
            (json, Format::Json),
        ];
        for (value, format) in cases {
            let read = |value: &[u8]| decode(Input::Heartbeats, format, Some(b"d"), Some(value));
            let before = read(value).unwrap();
            assert_eq!(before.occurred_at, None);
            let after = read(&dated(Some(value), Input::Heartbeats, format, AT).unwrap()).unwrap();
            assert_eq!(after, Event { occurred_at: Some(AT), ..before });
        }
    }

    #[test]
    fn a_deletion_by_its_key_alone_becomes_one_that_says_when() {
        for format in [Format::Protobuf, Format::Json] {
            let value = dated(None, Input::Lifecycle, format, AT).unwrap();
            let event = decode(Input::Lifecycle, format, Some(b"d"), Some(&value)).unwrap();
            assert_eq!(event.occurred_at, Some(AT));
            let deleted = EventBody::Device {
                device: crate::shard::DeviceId::from_key(b"d").unwrap(),
                event: DeviceEvent::Deleted,
            };
            assert_eq!(event.body, deleted);
        }
        assert_eq!(dated(None, Input::Lifecycle, Format::ConfluentProtobuf, AT), None);
    }
}
