//! Whose keys they are (rule V4): what names the group that a prefix belongs to.

use redis::{Cmd, Value};

use super::answer::{Answer, is_wrong_type, text};
use super::encode::Encoder;
use super::partition::Place;
use super::port::Server;

/// The group whose view is written.
#[derive(Clone, Debug)]
pub struct Group {
    /// `kafka.group`.
    pub name: String,
    /// How many partitions it shares. Keys of a partition beyond them are
    /// nobody's.
    pub partitions: i32,
    /// The group that the view may be taken from, on purpose.
    pub take_view_from: Option<String>,
}

impl Group {
    /// A group of any number of partitions that takes nothing from another.
    #[must_use]
    pub fn named(name: &str) -> Group {
        Group { name: name.to_owned(), partitions: i32::MAX, take_view_from: None }
    }
}

/// A marker of another group, met while writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Met {
    /// The group that it names.
    pub group: String,
    /// Which marker.
    pub marker: (i32, Place),
}

/// Reads the group of a key: the owner of the prefix, or a marker.
#[must_use]
pub fn read_group(key: &str) -> Cmd {
    let mut command = redis::cmd("HMGET");
    command.arg(key).arg("epoch").arg("group");
    command
}

/// The group that was read, and whether there was anything.
///
/// # Errors
/// When the server refused to tell.
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

/// Whether neither the owner of the prefix nor the markers of these partitions
/// name another group.
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
