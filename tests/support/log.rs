//! The log of a service under test. A line of level WARN or ERROR that the test
//! did not announce fails the test, and so does a line that is not JSON as it is
//! written down: a key stands once.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// What a service says of a Redis that does not take connections.
pub const REDIS_AWAY: &str = "cannot connect to Redis; processing continues, writes to Redis wait";

/// What a service says when the Redis that it is connected to goes away.
pub const REDIS_LOST: &str =
    "lost the connection to Redis; processing continues, writes to Redis wait";

/// What a service says while its brokers are away or do not answer, and what
/// follows from it for what was under way.
pub const KAFKA_AWAY: &[&str] = &[
    "facility=FAIL",
    "facility=REQTMOUT",
    "facility=METADATAUPDATE",
    "reading from Kafka failed; retrying",
    "the restore consumer reported an error",
    "the ends of the inputs are not known",
    "cannot read the log start and end of a partition",
    "a shard cannot be restored yet",
    "cannot resolve the start offsets",
    "recreating the producer",
    "the outcome of a transaction is unknown",
    "a transaction was refused; it is sent again",
    "the transaction coordinator does not answer",
];

/// What it says of a Redis that has lost what was written to it.
pub const VIEW_FLUSHED: &str = "Redis lost data of this partition";

/// What a service says whose Redis goes away and comes back without what was
/// written to it, or with less.
pub const REDIS_ANEW: &[&str] =
    &[REDIS_LOST, REDIS_AWAY, VIEW_FLUSHED, "the view was lost or set back; writing it again"];

/// What a service says whose `redis.prefix` is another group's.
pub const OTHER_GROUP: &str = "the keys in Redis belong to another group";

/// What an owner says that finds the marker of its successor.
pub const VIEW_SUPERSEDED: &str = "fenced: a later owner of this partition writes to Redis";

/// What a service says whose partitions the group gave to others.
pub const LOST: &str = "partitions lost: the group gave them to other members";

/// What a service says that is refused an instance id, or has lost it. The client
/// of librdkafka that was refused says so once more as it is put away.
pub const INSTANCE_ID_TAKEN: &[&str] = &[
    "another member of the group has the instance id",
    "UnreleasedInstanceId",
    "FencedInstanceId",
    "Static consumer fenced by other consumer",
    "has taken the instance id",
    LOST,
];

/// What is kept of a log.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    announced: Vec<String>,
    /// Warnings and errors.
    troubles: Vec<String>,
    malformed: Vec<String>,
    /// A process that ends with an error says so after its last log line, and
    /// may need several lines for it.
    last_words: bool,
}

impl Log {
    /// A log in which these pieces of text are expected.
    pub fn new(announced: &[String]) -> Log {
        let log = Log::default();
        log.announce(announced.iter().map(String::as_str));
        log
    }

    /// Expects warnings and errors with these pieces of text.
    pub fn announce<'a>(&self, pieces: impl IntoIterator<Item = &'a str>) {
        let pieces = pieces.into_iter().map(str::to_owned);
        self.state(|state| state.announced.extend(pieces));
    }

    /// Takes a line in, and answers how to show it.
    pub fn line(&self, line: &str) -> String {
        self.state(|state| {
            // With --json they are one object.
            let is_last = ["error: ", "{\"error\":{"].iter().any(|error| line.starts_with(error));
            state.last_words |= is_last;
            if state.last_words {
                return line.to_owned();
            }
            match read(line) {
                Ok(read) => {
                    if read.is_trouble() {
                        state.troubles.push(read.to_string());
                    }
                    read.to_string()
                }
                Err(error) => {
                    state.malformed.push(format!("{error}: {line}"));
                    line.to_owned()
                }
            }
        })
    }

    /// Takes the lines that fail a test: those that are not as they should be, then
    /// warnings and errors that nobody announced.
    pub fn take_faults(&self) -> Vec<String> {
        self.state(|state| {
            let State { announced, troubles, malformed, .. } = state;
            troubles.retain(|line| !announced.iter().any(|piece| line.contains(piece)));
            malformed.drain(..).chain(troubles.drain(..)).collect()
        })
    }

    /// Fails the test if there are such lines.
    #[track_caller]
    pub fn assert_as_announced(&self, name: &str) {
        let faults = self.take_faults();
        assert!(
            faults.is_empty(),
            "{name} logged what the test did not announce:\n{}",
            faults.join("\n")
        );
    }

    fn state<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Looks at the end of a test for what parts of the service logged that ran in
/// the test's own process. Their threads do not tell whose they are, so the log
/// and what is announced are those of all tests of the binary.
pub struct InProcess(());

impl InProcess {
    /// Begins to look.
    pub fn watch() -> InProcess {
        in_process();
        InProcess(())
    }

    /// Expects warnings and errors with these pieces of text.
    pub fn announce(pieces: &[&str]) {
        in_process().announce(pieces.iter().copied());
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            in_process().assert_as_announced("what runs in this process");
        }
    }
}

fn in_process() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_max_level(tracing::Level::DEBUG)
            .with_writer(move || Lines(writer.clone()))
            .finish();
        // Not what comes through the crate `log`: that is of the harness's clients.
        tracing::subscriber::set_global_default(subscriber).unwrap();
        log
    })
}

/// Takes a line at each write, as `tracing` writes.
struct Lines(Log);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.line(String::from_utf8_lossy(bytes).trim_end());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One line, as the service wrote it.
struct Line {
    level: String,
    /// The time, the level, the message and the fields, as the text format has them.
    text: String,
}

impl Line {
    fn is_trouble(&self) -> bool {
        ["WARN", "ERROR"].contains(&self.level.as_str())
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn read(line: &str) -> Result<Line, String> {
    let Strict(value) = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let Value::Object(mut fields) = value else { return Err("not an object".to_owned()) };
    let mut take = |name: &str| match fields.remove(name) {
        Some(Value::String(text)) => Ok(text),
        other => Err(format!("{name} is {other:?}")),
    };
    let (time, level) = (take("timestamp")?, take("level")?);
    let (target, message) = (take("target")?, take("message")?);
    if !["TRACE", "DEBUG", "INFO", "WARN", "ERROR"].contains(&level.as_str()) {
        return Err(format!("a level of {level:?}"));
    }
    let mut text = format!("{time} {level:>5} {target}: {message}");
    for (name, value) in fields {
        match value {
            Value::String(value) => text += &format!(" {name}={value}"),
            value => text += &format!(" {name}={value}"),
        }
    }
    Ok(Line { level, text })
}

/// JSON in which no object has a key twice: `serde_json` takes the last one.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Strict, D::Error> {
        struct Strictly;

        impl<'de> Visitor<'de> for Strictly {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E: Error>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
                let mut values = Vec::new();
                while let Some(Strict(value)) = access.next_element()? {
                    values.push(value);
                }
                Ok(Value::Array(values))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
                let mut object = Map::new();
                while let Some((key, Strict(value))) = access.next_entry::<String, Strict>()? {
                    if object.contains_key(&key) {
                        return Err(A::Error::custom(format!("the key {key:?} stands twice")));
                    }
                    object.insert(key, value);
                }
                Ok(Value::Object(object))
            }
        }

        deserializer.deserialize_any(Strictly).map(Strict)
    }
}
