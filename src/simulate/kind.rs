//! The kinds of events, by their names in `proto/`.

use prost_reflect::{DynamicMessage, FieldDescriptor};

use super::Sent;
use crate::shard::Input;
use crate::wire::json;

const HEARTBEAT: &str = "heartbeat";

/// All kinds of events, in the order of `proto/`.
///
/// # Errors
/// When the build described no such messages.
pub fn kinds() -> Result<Vec<String>, String> {
    let mut kinds = vec![HEARTBEAT.to_owned()];
    for input in [Input::VpnSessions, Input::Lifecycle] {
        let message = json::descriptor(json::message_of(input))?;
        let events = message.fields().filter(is_event);
        kinds.extend(events.map(|field| field.name().to_owned()));
    }
    Ok(kinds)
}

/// The kind of what a record tells.
///
/// # Errors
/// When its value is not its input's message.
pub fn kind_of(sent: &Sent) -> Result<String, String> {
    let Some(value) = &sent.value else { return Ok("deleted".to_owned()) };
    if sent.input == Input::Heartbeats {
        return Ok(HEARTBEAT.to_owned());
    }
    let descriptor = json::descriptor(json::message_of(sent.input))?;
    let message = DynamicMessage::decode(descriptor, &value[..]).map_err(|e| e.to_string())?;
    let event = message.fields().map(|(field, _)| field).find(is_event);
    event.map(|field| field.name().to_owned()).ok_or_else(|| "it tells no event".to_owned())
}

/// Whether a field is one of a message's choice of events.
fn is_event(field: &FieldDescriptor) -> bool {
    field.containing_oneof().is_some_and(|choice| !choice.is_synthetic())
}
