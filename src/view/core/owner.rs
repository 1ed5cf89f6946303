//! The ownership of a prefix (rule V8): which group its keys name.

use redis::{Cmd, Value};

use super::answer::{Answer, is_wrong_type, text};
use super::encode::Encoder;
use super::partition::Place;
use super::port::Server;

/// The consumer group that owns the view.
#[derive(Clone, Debug)]
pub struct Group {
    /// `kafka.group`.
    pub name: String,
    /// Its number of partitions. Keys of higher partitions are orphaned.
    pub partitions: i32,
    /// The group whose view may be taken over (`--take-view-from`).
    pub take_view_from: Option<String>,
}

impl Group {
    /// A group with any number of partitions that takes over no other view.
    #[must_use]
    pub fn named(name: &str) -> Group {
        Group { name: name.to_owned(), partitions: i32::MAX, take_view_from: None }
    }
}

/// A marker of another group that was found while writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignMarker {
    /// The group in it.
    pub group: String,
    /// Its partition and place.
    pub marker: (i32, Place),
}

/// The command that reads the group in a key: the prefix's owner key, or a marker.
#[must_use]
pub fn read_group(key: &str) -> Cmd {
    let mut command = redis::cmd("HMGET");
    command.arg(key).arg("epoch").arg("group");
    command
}

/// Parses the answer to [`read_group`]: whether the key exists, and its group.
///
/// # Errors
/// When the server refused the command.
pub fn group_read(answer: Answer) -> Result<(bool, Option<String>), String> {
    match answer {
        Ok(Value::Array(fields)) => {
            let exists = fields.iter().any(|field| *field != Value::Nil);
            Ok((exists, fields.get(1).and_then(text)))
        }
        Err(message) if is_wrong_type(&message) => Ok((true, None)),
        Err(message) => Err(message),
        Ok(_) => Ok((false, None)),
    }
}

/// Whether no other group is named by the prefix's owner key or by the markers of
/// these partitions.
///
/// # Errors
/// When the connection was lost.
pub async fn are_ours(
    partitions: impl IntoIterator<Item = i32>,
    encoder: &Encoder,
    server: &mut impl Server,
) -> Result<bool, String> {
    let keys = encoder.keys();
    let mut commands = vec![read_group(&keys.owner())];
    commands.extend(partitions.into_iter().map(|partition| read_group(&keys.partition(partition))));
    let ours = |answer| match group_read(answer) {
        Ok((_, group)) => group.is_none_or(|group| group == encoder.group()),
        Err(_) => false,
    };
    Ok(server.round_trip(&commands).await?.into_iter().all(ours))
}
