//! A fast decoder for heartbeats in the usual encoding. Nearly every record is a
//! heartbeat, and the generic decoder took a third of a heartbeat's time.

use prost_types::{Duration, Timestamp};

use super::proto::v1::Heartbeat;

const OCCURRED_AT: u8 = 0x0a;
const POLL_INTERVAL: u8 = 0x12;
const SECONDS: u8 = 0x08;
const NANOS: u8 = 0x10;
const GOING_AWAY: u8 = 0x18;

/// Reads the value if it has the usual encoding: known fields only, each at most
/// once, in order. `None`: use the generic decoder, which may still accept it.
#[must_use]
pub fn read(value: &[u8]) -> Option<Heartbeat> {
    let mut heartbeat = Heartbeat::default();
    let mut rest = value;
    if let Some((seconds, nanos)) = field(OCCURRED_AT, &mut rest)? {
        heartbeat.occurred_at = Some(Timestamp { seconds, nanos });
    }
    if let Some((seconds, nanos)) = field(POLL_INTERVAL, &mut rest)? {
        heartbeat.poll_interval = Some(Duration { seconds, nanos });
    }
    if let [GOING_AWAY, said @ (0 | 1), after @ ..] = rest {
        heartbeat.going_away = *said == 1;
        rest = after;
    }
    rest.is_empty().then_some(heartbeat)
}

/// A field that holds seconds and nanoseconds, if it comes next.
#[expect(clippy::option_option, reason = "not there, or not written the usual way")]
fn field(tag: u8, rest: &mut &[u8]) -> Option<Option<(i64, i32)>> {
    let Some((&first, after)) = rest.split_first() else { return Some(None) };
    if first != tag {
        return Some(None);
    }
    let (&len, after) = after.split_first()?;
    // A length of more than one byte is not usual.
    if len >= 0x80 {
        return None;
    }
    let (mut message, after) = after.split_at_checked(usize::from(len))?;
    *rest = after;
    let seconds = number(SECONDS, &mut message)?;
    let nanos = i32::try_from(number(NANOS, &mut message)?).ok()?;
    message.is_empty().then_some(Some((seconds, nanos)))
}

/// A non-negative number; 0 if another field comes next.
fn number(tag: u8, rest: &mut &[u8]) -> Option<i64> {
    let Some((&first, mut after)) = rest.split_first() else { return Some(0) };
    if first != tag {
        return Some(0);
    }
    let mut number = 0;
    for shift in (0..56).step_by(7) {
        let (&byte, next) = after.split_first()?;
        after = next;
        number |= i64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            *rest = after;
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    #[test]
    fn usual_heartbeats_need_no_generic_decoder() {
        let occurred_at = Some(Timestamp { seconds: 1_790_000_000, nanos: 999_999_999 });
        for poll_interval in [None, Some(Duration { seconds: 900, nanos: 0 })] {
            for going_away in [false, true] {
                let heartbeat = Heartbeat { occurred_at, poll_interval, going_away };
                assert_eq!(read(&heartbeat.encode_to_vec()), Some(heartbeat));
            }
        }
    }

    /// Bytes that look like a heartbeat, or nearly.
    fn nearly() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            Just(0x0a_u8),
            Just(0x12),
            Just(0x08),
            Just(0x10),
            Just(0x18),
            0u8..12,
            any::<u8>(),
        ];
        prop::collection::vec(byte, 0..24)
    }

    fn written() -> impl Strategy<Value = Vec<u8>> {
        let occurred_at = prop::option::of((any::<i64>(), any::<i32>()));
        let poll_interval = prop::option::of((any::<i64>(), any::<i32>()));
        let damage = prop::option::of((any::<prop::sample::Index>(), any::<u8>()));
        (occurred_at, poll_interval, any::<bool>(), damage).prop_map(|told| {
            let (occurred_at, poll_interval, going_away, damage) = told;
            let heartbeat = Heartbeat {
                occurred_at: occurred_at.map(|(seconds, nanos)| Timestamp { seconds, nanos }),
                poll_interval: poll_interval.map(|(seconds, nanos)| Duration { seconds, nanos }),
                going_away,
            };
            let mut bytes = heartbeat.encode_to_vec();
            if let Some((index, byte)) = damage
                && !bytes.is_empty()
            {
                let at = index.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn fast_decoder_agrees_with_the_generic_decoder(
            value in prop_oneof![nearly(), written()],
        ) {
            if let Some(heartbeat) = read(&value) {
                prop_assert_eq!(Heartbeat::decode(value.as_slice()).ok(), Some(heartbeat));
            }
        }
    }
}
