//! Reads the view, for `get` and `watch`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Connection, PubSub, Value};
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use super::access::{Access, complaint};
use super::claim::{of_another, others_named};
use super::nodes::Nodes;
use crate::config::Redis;
use crate::error::Fatal;
use crate::shard::Status;
use crate::view::core::keys::{DEVICE_FIELDS, Keys, Token};

/// Partitions are read in blocks of this many, until a block is empty.
const PARTITIONS_BLOCK: i32 = 128;

/// How long a listener waits for a message before it tests the connection.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);

/// A device as stored in the view. The fields are kept as text, so that values of a
/// newer version are shown too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceStatus {
    /// Its id.
    pub device: String,
    fields: BTreeMap<&'static str, String>,
}

impl DeviceStatus {
    /// The value of one of [`DEVICE_FIELDS`]; `None` if it is empty.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The value of a numeric field.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i64> {
        self.field(name)?.parse().ok()
    }

    /// As JSON: numbers as numbers, empty fields as `null`.
    #[must_use]
    pub fn to_json(&self, freshness: Freshness) -> Json {
        let mut object = Map::new();
        object.insert("device".to_owned(), json!(self.device));
        for name in DEVICE_FIELDS {
            let is_number = name.ends_with("_ms") || name == "version" || name == "progress";
            let value = match self.field(name) {
                Some(text) if is_number => self.number(name).map_or(json!(text), Json::from),
                Some(text) => json!(text),
                None => Json::Null,
            };
            object.insert(name.to_owned(), value);
        }
        freshness.beside(object.into())
    }
}

/// A view older than this is not up to date. Markers advance every 5 s (rule V4).
pub const OLD_MS: i64 = 30_000;

/// How fresh the view is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// Everything committed up to this time is in the view, in milliseconds since the
    /// epoch; `None` while the marker promises nothing.
    pub up_to_ms: Option<i64>,
    /// The time of the Redis server. Ages are relative to it, since this host's clock may
    /// be wrong.
    pub now_ms: i64,
}

impl Freshness {
    /// The age; `None` while the marker promises nothing.
    #[must_use]
    pub fn age_ms(self) -> Option<i64> {
        self.up_to_ms.map(|up_to_ms| self.now_ms.saturating_sub(up_to_ms).max(0))
    }

    /// Whether the age exceeds `max_ms`, or is unknown.
    #[must_use]
    pub fn is_older_than(self, max_ms: i64) -> bool {
        self.age_ms().is_none_or(|age_ms| age_ms > max_ms)
    }

    /// Adds the freshness to a JSON object, as two members.
    #[must_use]
    pub fn beside(self, mut object: Json) -> Json {
        object["view_time_ms"] = json!(self.up_to_ms);
        object["view_age_ms"] = json!(self.age_ms());
        object
    }
}

/// A device, if the view has it, and the freshness of its partition.
pub type Seen = (Option<DeviceStatus>, Freshness);

/// A connection for reading.
pub struct Reader {
    keys: Keys,
    nodes: Nodes,
    /// The server's address, without its password.
    pub shown_url: String,
}

impl Reader {
    /// Connects.
    ///
    /// # Errors
    /// When the URL is wrong, the server does not answer, or it refuses the login.
    pub fn connect(config: &Redis) -> Result<Reader, Fatal> {
        let access = Arc::new(Access::new(config)?);
        let shown_url = access.shown();
        let nodes = Nodes::connect(&access).map_err(|error| {
            Fatal::unavailable(format!(
                "cannot reach Redis at {shown_url}: {error}. \
                 Check that it runs, and redis.url"
            ))
        })?;
        let mut reader = Reader { keys: Keys::new(&config.prefix), nodes, shown_url };
        // A missing password is only noticed by a command.
        reader.now_ms()?;
        Ok(reader)
    }

    /// Checks that no group other than `group` owns keys under the prefix (rule V8).
    ///
    /// # Errors
    /// When another group does, or the server does not answer.
    pub fn check_owner(&mut self, group: &str) -> Result<(), Fatal> {
        let Reader { keys, nodes, shown_url } = self;
        let layout = nodes.layout();
        let mut ask = |commands: &[Cmd]| {
            let answers = nodes.exchange(commands)?.into_iter();
            Ok(answers.map(|answer| answer.map_err(|error| complaint(&error))).collect())
        };
        let others = others_named(keys, &layout, group, None, &mut ask);
        match others.map_err(|error| unavailable(shown_url, &error))?.first() {
            None => Ok(()),
            Some(other) => Err(Fatal::unavailable(of_another(shown_url, keys, group, other))),
        }
    }

    /// A second connection, to subscribe to hints.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn listener(&self) -> Result<Listener, Fatal> {
        let connection = self.nodes.listener().map_err(|error| self.unavailable(&error))?;
        let (channel, shown_url) = (self.keys.changes(), self.shown_url.clone());
        Ok(Listener { connection, channel, shown_url })
    }

    /// Reads devices. For a device that the view does not have, the freshness is that of
    /// the oldest partition, of at least `partitions`.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn devices(&mut self, ids: &[String], partitions: i32) -> Result<Vec<Seen>, Fatal> {
        // Read the markers before the devices, so that no device is older than reported.
        let places = ids.iter().map(|id| fields(&self.keys.device_text(id), &["token"]));
        let places = self.query(&places.collect::<Vec<_>>())?;
        let places: Vec<Option<i32>> = places.into_iter().map(partition).collect();
        let known: BTreeSet<i32> = places.iter().flatten().copied().collect();
        let mut times = BTreeMap::new();
        let asked = known.iter().map(|known| fields(&self.keys.partition(*known), &["time_ms"]));
        for (partition, answer) in known.iter().zip(self.query(&asked.collect::<Vec<_>>())?) {
            times.insert(*partition, marker_time(answer).flatten());
        }
        let oldest = match places.contains(&None) {
            true => self.oldest(partitions)?.up_to_ms,
            false => None,
        };
        let commands = ids.iter().map(|id| fields(&self.keys.device_text(id), &DEVICE_FIELDS));
        let answers = self.query(&commands.collect::<Vec<_>>())?;
        let now_ms = self.now_ms()?;
        let seen = ids.iter().zip(places).zip(answers).map(|((id, place), answer)| {
            let up_to_ms = place.map_or(oldest, |place| times.get(&place).copied().flatten());
            (device(id, answer), Freshness { up_to_ms, now_ms })
        });
        Ok(seen.collect())
    }

    fn now_ms(&mut self) -> Result<i64, Fatal> {
        let time = self.query(&[redis::cmd("TIME")])?.pop();
        let time = time.and_then(|time| redis::from_redis_value(time).ok());
        let (seconds, micros): (i64, i64) = time.unwrap_or_default();
        Ok(seconds * 1000 + micros / 1000)
    }

    /// The freshness of the oldest partition. At least `partitions` are read, and more if
    /// there are more markers.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn oldest(&mut self, partitions: i32) -> Result<Freshness, Fatal> {
        let (mut first, mut all) = (0, Vec::new());
        loop {
            let block = first..first + PARTITIONS_BLOCK;
            let asked =
                block.map(|partition| fields(&self.keys.partition(partition), &["time_ms"]));
            let answers = self.query(&asked.collect::<Vec<_>>())?;
            let before = all.len();
            all.extend(answers.into_iter().filter_map(marker_time));
            first += PARTITIONS_BLOCK;
            if all.len() == before && first >= partitions {
                break;
            }
        }
        // `None` sorts first: a partition that promises nothing is the oldest.
        let up_to_ms = all.into_iter().min().flatten();
        Ok(Freshness { up_to_ms, now_ms: self.now_ms()? })
    }

    /// The number of a fleet's devices in each status, in the order of
    /// [`Status::ALL`]: the sum over the partitions (rule V7). `None` if no partition has
    /// the fleet. At least `partitions` are read, and more if there are more markers.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn fleet(
        &mut self,
        fleet: &str,
        partitions: i32,
    ) -> Result<Option<[u64; Status::ALL.len()]>, Fatal> {
        let names = Status::ALL.map(Status::wire_name);
        let mut sum = [0; Status::ALL.len()];
        let mut known = false;
        let mut block = 0;
        loop {
            let mut commands = Vec::new();
            for partition in block..block + PARTITIONS_BLOCK {
                commands.push(fields(&self.keys.fleet(fleet, partition), &names));
                let mut exists = redis::cmd("EXISTS");
                exists.arg(self.keys.partition(partition));
                commands.push(exists);
            }
            let mut exists = false;
            for answer in self.query(&commands)? {
                if let Value::Int(found) = answer {
                    exists |= found != 0;
                    continue;
                }
                let counts: Vec<Option<u64>> = redis::from_redis_value(answer).unwrap_or_default();
                for (sum, count) in sum.iter_mut().zip(counts) {
                    known |= count.is_some();
                    *sum = u64::saturating_add(*sum, count.unwrap_or(0));
                }
            }
            block += PARTITIONS_BLOCK;
            if !exists && block >= partitions {
                return Ok(known.then_some(sum));
            }
        }
    }

    fn query(&mut self, commands: &[Cmd]) -> Result<Vec<Value>, Fatal> {
        let answers = self.nodes.exchange(commands);
        let answers = answers.map_err(|error| self.unavailable(&error))?;
        let taken = answers.into_iter().map(|answer| match answer {
            // A key of the wrong type was written by mistake: treat it as missing.
            Err(error) if error.code() == Some("WRONGTYPE") => Ok(Value::Nil),
            answer => answer.map_err(|error| self.unavailable(&complaint(&error))),
        });
        taken.collect()
    }

    fn unavailable(&self, error: &str) -> Fatal {
        unavailable(&self.shown_url, error)
    }
}

fn unavailable(shown_url: &str, error: &str) -> Fatal {
    Fatal::unavailable(format!("Redis at {shown_url} does not answer: {error}"))
}

/// A hint: the device may have changed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Hint {
    /// Its id.
    pub device: String,
}

/// A connection to subscribe to hints.
pub struct Listener {
    connection: Connection,
    channel: String,
    shown_url: String,
}

impl Listener {
    /// Subscribes.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn hints(&mut self) -> Result<Hints<'_>, Fatal> {
        let mut messages = self.connection.as_pubsub();
        messages
            .subscribe(&self.channel)
            .and_then(|()| messages.set_read_timeout(Some(LISTEN_TIMEOUT)))
            .map_err(|error| unavailable(&self.shown_url, &error.to_string()))?;
        Ok(Hints { messages, shown_url: &self.shown_url })
    }
}

/// A subscription to hints.
pub struct Hints<'a> {
    messages: PubSub<'a>,
    shown_url: &'a str,
}

impl Hints<'_> {
    /// Waits for the next hint. After some seconds without one it tests the connection
    /// and returns `None`.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn next_hint(&mut self) -> Result<Option<Hint>, Fatal> {
        loop {
            let heard = match self.messages.get_message() {
                Err(error) if error.is_timeout() => self.messages.ping().map(|_: Value| None),
                heard => heard.map(Some),
            };
            let message = heard.map_err(|error| unavailable(self.shown_url, &error.to_string()))?;
            let Some(message) = message else { return Ok(None) };
            if let Ok(hint) = serde_json::from_slice(message.get_payload_bytes()) {
                return Ok(Some(hint));
            }
        }
    }
}

fn fields(key: &str, names: &[&str]) -> Cmd {
    let mut command = redis::cmd("HMGET");
    command.arg(key).arg(names);
    command
}

/// The partition in the answer to `HMGET key token`.
fn partition(answer: Value) -> Option<i32> {
    let values: Vec<Option<String>> = redis::from_redis_value(answer).ok()?;
    Some(Token::parse(&values.into_iter().next()??)?.partition)
}

/// The time in the answer to `HMGET marker time_ms`. `None`: there is no marker;
/// `Some(None)`: it promises nothing.
fn marker_time(answer: Value) -> Option<Option<i64>> {
    let values: Vec<Option<String>> = redis::from_redis_value(answer).ok()?;
    let time_ms: i64 = values.into_iter().next()??.parse().ok()?;
    Some((time_ms > 0).then_some(time_ms))
}

/// A device; `None` if the hash has no status, as after a deletion.
fn device(id: &str, answer: Value) -> Option<DeviceStatus> {
    let values: Vec<Option<String>> = redis::from_redis_value(answer).ok()?;
    let fields: BTreeMap<_, _> = DEVICE_FIELDS
        .into_iter()
        .zip(values)
        .filter_map(|(name, value)| Some((name, value?)))
        .collect();
    let device = id.to_owned();
    fields.contains_key("status").then_some(DeviceStatus { device, fields })
}
