//! The table of keys: how each is parsed and shown. Their descriptions are in
//! `keys.toml`.

use std::time::Duration;

use super::read::{self, Choice, Raw, Wrong, duration_text};
use super::{Config, REDACTED, redact_url};

/// One key.
pub struct Key {
    /// Its full name: section, dot, field.
    pub name: &'static str,
    /// Its section in the file.
    pub section: &'static str,
    /// Its name within its section.
    pub field: &'static str,
    pub(super) set: fn(&mut Config, &Raw) -> Result<(), Wrong>,
    get: fn(&Config) -> toml::Value,
}

impl Key {
    /// The value in a configuration, as it is written in the file. Secrets are redacted.
    #[must_use]
    pub fn shown(&self, config: &Config) -> toml::Value {
        let value = (self.get)(config);
        match (self.name, &value) {
            ("redis.url", toml::Value::String(url)) => redact_url(url).into(),
            (name, toml::Value::String(secret)) if SECRET_KEYS.contains(&name) => {
                if secret.is_empty() { "".into() } else { REDACTED.into() }
            }
            _ => value,
        }
    }
}

/// The prefix of the environment variables.
pub const ENVIRONMENT_PREFIX: &str = "DEVICE_STATUS_";

/// The key of librdkafka's own settings.
pub const PROPERTIES: &str = "kafka.properties";

/// Converts a value to its form in the file.
trait Shown {
    fn shown(&self) -> toml::Value;
}

macro_rules! shown_as_it_is {
    ($($kind:ty),*) => {$(
        impl Shown for $kind {
            fn shown(&self) -> toml::Value {
                self.to_owned().into()
            }
        }
    )*};
}

shown_as_it_is!(String, bool, i32, f64, Vec<String>);

impl Shown for usize {
    fn shown(&self) -> toml::Value {
        i64::try_from(*self).unwrap_or(i64::MAX).into()
    }
}

impl Shown for Duration {
    fn shown(&self) -> toml::Value {
        duration_text(*self).into()
    }
}

impl Shown for std::net::SocketAddr {
    fn shown(&self) -> toml::Value {
        self.to_string().into()
    }
}

impl<T: Choice> Shown for T {
    fn shown(&self) -> toml::Value {
        let mut names = T::NAMES.iter().filter(|(value, _)| value == self);
        names.next().map_or("", |(_, name)| name).into()
    }
}

macro_rules! key {
    ($section:ident . $field:ident, $read:expr) => {
        Key {
            name: concat!(stringify!($section), ".", stringify!($field)),
            section: stringify!($section),
            field: stringify!($field),
            set: |config, raw| {
                let read = $read;
                config.$section.$field = read(raw)?;
                Ok(())
            },
            get: |config| config.$section.$field.shown(),
        }
    };
}

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3_600);
/// The longest poll interval (rule J3).
const LEAP_YEAR: Duration = Duration::from_secs(366 * 24 * 3_600);

/// All keys except [`PROPERTIES`], in the order of the file.
pub const KEYS: &[Key] = &[
    key!(kafka.brokers, read::brokers),
    key!(kafka.group, read::text),
    key!(kafka.group_protocol, read::choice),
    key!(kafka.instance_id, read::instance_id),
    key!(kafka.oauth_command, read::command),
    key!(topics.heartbeats, read::topic),
    key!(topics.vpn_sessions, read::topic),
    key!(topics.lifecycle, read::topic),
    key!(topics.status_changes, read::topic),
    key!(topics.dead_letters, read::topic),
    key!(topics.changelog, read::topic),
    key!(topics.partitions, |raw: &Raw| read::integer(raw, 1, 10_000)),
    key!(topics.replication_factor, |raw: &Raw| read::integer(raw, 1, 100)),
    key!(topics.partitioner, read::choice),
    key!(topics.accept_create_time, read::boolean),
    key!(topics.unverified, read::boolean),
    key!(formats.heartbeats, read::choice),
    key!(formats.vpn_sessions, read::choice),
    key!(formats.lifecycle, read::choice),
    key!(formats.status_changes, read::choice),
    key!(formats.cloud_events_source, read::uri_reference),
    key!(processing.guarantee, read::choice),
    key!(processing.threads, |raw: &Raw| read::integer(raw, 1, 1_024)),
    key!(processing.commit_interval, |raw: &Raw| read::duration(raw, MILLISECOND, 5 * SECOND)),
    key!(processing.replay_window, |raw: &Raw| read::duration(raw, MINUTE, WEEK)),
    key!(processing.max_clock_jump, |raw: &Raw| read::duration(raw, SECOND, WEEK)),
    // At most 5 s: a record may be at most 10 s ahead of the clock, which is this much
    // behind the watermarks (rule T5).
    key!(processing.slack, |raw: &Raw| read::duration(raw, Duration::ZERO, 5 * SECOND)),
    key!(processing.tombstone_retention, |raw: &Raw| read::duration(raw, MINUTE, 365 * 24 * HOUR)),
    key!(processing.max_lease_delay, |raw: &Raw| read::duration(raw, Duration::ZERO, 24 * HOUR)),
    key!(processing.max_input_idle, |raw: &Raw| read::duration(raw, SECOND, HOUR)),
    key!(dead_letters.max_share, |raw: &Raw| read::number(raw, 0.0, 1.0)),
    key!(heartbeat.tolerance, |raw: &Raw| read::number(raw, 1.0, 100.0)),
    key!(heartbeat.minimum, |raw: &Raw| read::duration(raw, Duration::ZERO, WEEK)),
    key!(heartbeat.grace, |raw: &Raw| read::duration(raw, Duration::ZERO, 24 * HOUR)),
    key!(heartbeat.default_poll_interval, |raw: &Raw| read::duration(raw, SECOND, LEAP_YEAR)),
    key!(vpn.enabled_by_default, read::boolean),
    key!(redis.url, read::redis_url),
    key!(redis.username, read::optional_text),
    key!(redis.password, read::optional_text),
    key!(redis.sentinel_username, read::optional_text),
    key!(redis.sentinel_password, read::optional_text),
    key!(redis.ca_file, read::optional_text),
    key!(redis.certificate_file, read::optional_text),
    key!(redis.key_file, read::optional_text),
    key!(redis.prefix, read::text),
    key!(redis.fleet_members, read::boolean),
    key!(redis.refresh_interval, |raw: &Raw| read::duration_or_off(raw, 10 * SECOND, WEEK)),
    key!(admin.listen, read::address),
    key!(admin.token, read::token),
    key!(log.format, read::choice),
    key!(log.level, read::log_level),
];

/// The settings that are refused in [`PROPERTIES`]: names, reason, and remedy.
pub const OWNED_PROPERTIES: &[(&[&str], &str, &str)] = &[
    (&["bootstrap.servers", "metadata.broker.list"], "has a key of its own", "use kafka.brokers"),
    (&["group.id"], "has a key of its own", "use kafka.group"),
    (&["group.protocol"], "has a key of its own", "use kafka.group_protocol"),
    (
        &["group.remote.assignor", "partition.assignment.strategy"],
        "would separate the inputs of a shard: only the range assignor keeps them together",
        "leave it out",
    ),
    (
        &["group.instance.id"],
        "would make every stream thread the same member, which fences the others",
        "use kafka.instance_id",
    ),
    (&["transactional.id"], "identifies one thread of one process", "leave it out"),
    (
        &["transaction.timeout.ms"],
        "limits how long a crashed process blocks the readers of its output",
        "leave it out",
    ),
    (
        &["enable.idempotence", "acks", "request.required.acks"],
        "is part of the exactly-once guarantee",
        "use processing.guarantee",
    ),
    (
        &["enable.auto.commit", "enable.auto.offset.store"],
        "would commit offsets without their output",
        "leave it out: offsets are committed with the output",
    ),
    (
        &["auto.commit.interval.ms"],
        "would commit offsets without their output",
        "use processing.commit_interval",
    ),
    (&["isolation.level"], "is chosen for each client", "leave it out"),
    (
        &["auto.offset.reset", "topic.auto.offset.reset"],
        "is decided from the restored state",
        "leave it out",
    ),
    (&["enable.partition.eof"], "is needed to detect the end of a partition", "leave it out"),
    (
        &["partitioner"],
        "must be the partitioner of the inputs' producers",
        "use topics.partitioner",
    ),
    (
        &["allow.auto.create.topics"],
        "would create topics with the wrong settings",
        "use device-status topics create",
    ),
];

/// The keys whose values are secrets. Each can be set from a file, with `<key>_file`.
pub const SECRET_KEYS: &[&str] = &["admin.token", "redis.password", "redis.sentinel_password"];

/// The settings of librdkafka that name a file. The files are checked before a client is
/// created.
pub const FILE_PROPERTIES: &[&str] = &[
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.crl.location",
    "ssl.key.location",
    "ssl.keystore.location",
    "https.ca.location",
    "sasl.kerberos.keytab",
];

/// The settings that the broker decides with `kafka.group_protocol = "consumer"`.
pub const BROKER_OWNED_PROPERTIES: &[&str] =
    &["session.timeout.ms", "heartbeat.interval.ms", "group.protocol.type"];
