//! Events that are written by hand or again, and the times they are given.

use prost::Message as _;

use crate::shard::{Input, Timestamp};
use crate::wire::json;
use crate::wire::proto::v1;
use crate::wire::status_changed::timestamp;

/// An event of an input that is written as JSON, as Protobuf.
///
/// # Errors
/// What is wrong with it, for people.
pub(super) fn protobuf_of(input: Input, text: &[u8]) -> Result<Vec<u8>, String> {
    Ok(match input {
        Input::Heartbeats => json::read::<v1::Heartbeat>(text)?.encode_to_vec(),
        Input::VpnSessions => json::read::<v1::VpnEvent>(text)?.encode_to_vec(),
        Input::Lifecycle => json::read::<v1::LifecycleEvent>(text)?.encode_to_vec(),
    })
}

/// Gives an event, bare or framed, the time that it lacks.
pub(super) fn date(protobuf: &mut Vec<u8>, at: Timestamp) {
    // Its number is the same in all three messages, and fields may stand in any order.
    let dated = v1::Heartbeat { occurred_at: Some(timestamp(at)), ..Default::default() };
    protobuf.extend(dated.encode_to_vec());
}
