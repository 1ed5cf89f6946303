//! Messages in the canonical JSON form of Protobuf, using the descriptors that
//! the build writes beside the types.

use std::sync::OnceLock;

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor};
use serde_json::Deserializer;

use crate::shard::Input;

/// The descriptors of the messages in `proto/`.
static DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The descriptor of the message with this name.
///
/// # Errors
/// There is no such message.
pub fn descriptor(full_name: &str) -> Result<MessageDescriptor, String> {
    static POOL: OnceLock<Result<DescriptorPool, String>> = OnceLock::new();
    let pool =
        POOL.get_or_init(|| DescriptorPool::decode(DESCRIPTORS).map_err(|error| error.to_string()));
    let pool = pool.as_ref().map_err(Clone::clone)?;
    pool.get_message_by_name(full_name).ok_or_else(|| format!("unknown message type {full_name}"))
}

/// Reads a message. An unknown field is an error, as in the canonical form: a
/// misspelled name must not silently become a default.
///
/// # Errors
/// What is wrong, for people.
pub fn read<M: Message + Name + Default>(text: &[u8]) -> Result<M, String> {
    read_with(text, &DeserializeOptions::new())
}

/// Reads a message of our own that a later version may have written. Fields that it
/// does not have are skipped.
///
/// # Errors
/// What is wrong, for people.
pub fn read_later<M: Message + Name + Default>(text: &[u8]) -> Result<M, String> {
    read_with(text, &DeserializeOptions::new().deny_unknown_fields(false))
}

fn read_with<M: Message + Name + Default>(
    text: &[u8],
    options: &DeserializeOptions,
) -> Result<M, String> {
    let mut deserializer = Deserializer::from_slice(text);
    let descriptor = descriptor(&M::full_name())?;
    let message = DynamicMessage::deserialize_with_options(descriptor, &mut deserializer, options)
        .map_err(|error| error.to_string())?;
    deserializer.end().map_err(|error| error.to_string())?;
    message.transcode_to().map_err(|error| error.to_string())
}

/// Writes a message.
///
/// # Errors
/// A value cannot be written as JSON, such as a date after the year 9999.
pub fn write<M: Message + Name>(message: &M) -> Result<String, String> {
    write_bytes(&M::full_name(), &message.encode_to_vec())
}

/// The name of the message type of an input.
#[must_use]
pub const fn message_of(input: Input) -> &'static str {
    match input {
        Input::Heartbeats => "device_status.v1.Heartbeat",
        Input::VpnSessions => "device_status.v1.VpnEvent",
        Input::Lifecycle => "device_status.v1.LifecycleEvent",
    }
}

/// Writes a message of this name as JSON from its bytes.
///
/// # Errors
/// The bytes are not this message, or a value cannot be written as JSON.
pub fn write_bytes(full_name: &str, bytes: &[u8]) -> Result<String, String> {
    let message =
        DynamicMessage::decode(descriptor(full_name)?, bytes).map_err(|error| error.to_string())?;
    serde_json::to_string(&message).map_err(|error| error.to_string())
}
