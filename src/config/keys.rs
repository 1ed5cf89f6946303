//! The table of keys: everything that is known about each, in one place.

use std::time::Duration;

use super::read::{self, Choice, Raw, Wrong, duration_text};
use super::{Config, REDACTED, redact_url};

/// One key.
pub struct Key {
    /// Its name in the file: section, dot, key.
    pub name: &'static str,
    /// What it takes, for people.
    pub takes: &'static str,
    /// What it does, in Markdown.
    pub help: &'static str,
    /// What is said of its default, where that is not a fixed value.
    pub default_note: Option<&'static str>,
    pub(super) set: fn(&mut Config, &Raw) -> Result<(), Wrong>,
    get: fn(&Config) -> toml::Value,
}

impl Key {
    /// The section of the file.
    #[must_use]
    pub fn section(&self) -> &'static str {
        self.name.split_once('.').map_or("", |(section, _)| section)
    }

    /// The key within its section.
    #[must_use]
    pub fn field(&self) -> &'static str {
        self.name.split_once('.').map_or(self.name, |(_, field)| field)
    }

    /// The environment variable that overrides it.
    #[must_use]
    pub fn variable(&self) -> String {
        let (section, field) = (self.section(), self.field());
        format!("{ENVIRONMENT_PREFIX}{section}__{field}").to_ascii_uppercase()
    }

    /// The value in a configuration, as it is written in the file, secrets
    /// left out.
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

/// What the environment variables begin with.
pub const ENVIRONMENT_PREFIX: &str = "DEVICE_STATUS_";

/// The key under which librdkafka's own settings are given.
pub const PROPERTIES: &str = "kafka.properties";

/// What is said of [`PROPERTIES`] in the documentation.
pub const PROPERTIES_HELP: &str = "Any other setting of librdkafka, by its own name, for every \
    client: security, sizes, timeouts. What the loop depends on is refused.";

/// A value as it is written in the file.
trait Shown {
    fn shown(&self) -> toml::Value;
}

impl Shown for String {
    fn shown(&self) -> toml::Value {
        self.clone().into()
    }
}

impl Shown for bool {
    fn shown(&self) -> toml::Value {
        (*self).into()
    }
}

impl Shown for i32 {
    fn shown(&self) -> toml::Value {
        (*self).into()
    }
}

impl Shown for usize {
    fn shown(&self) -> toml::Value {
        i64::try_from(*self).unwrap_or(i64::MAX).into()
    }
}

impl Shown for f64 {
    fn shown(&self) -> toml::Value {
        (*self).into()
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
        self.name().into()
    }
}

macro_rules! key {
    ($section:ident . $field:ident, $read:expr, $takes:expr, $help:expr) => {
        key!($section.$field, $read, $takes, $help, None)
    };
    ($section:ident . $field:ident, $read:expr, $takes:expr, $help:expr, $default_note:expr) => {
        Key {
            name: concat!(stringify!($section), ".", stringify!($field)),
            takes: $takes,
            help: $help,
            default_note: $default_note,
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

const FORMATS: &str = "`protobuf`, `confluent-protobuf` or `json`";

/// Every key but those of [`PROPERTIES`], in the order of the file.
pub const KEYS: &[Key] = &[
    key!(
        kafka.brokers,
        read::brokers,
        "`host:port`, comma-separated",
        "Where to find Kafka; one reachable broker is enough to find the others."
    ),
    key!(
        kafka.group,
        read::text,
        "text",
        "The consumer group. Processes with the same group share the work; another group is \
         another installation, with a state of its own."
    ),
    key!(
        kafka.group_protocol,
        read::choice,
        "`consumer` or `classic`",
        "How the group shares out partitions. `consumer` (KIP-848) needs brokers 4.0 or later \
         and moves only what must move; `classic` works with older ones and stops everybody at \
         each rebalance."
    ),
    key!(
        kafka.instance_id,
        read::instance_id,
        "up to 240 of `a-z A-Z 0-9 . _ -`, or empty",
        "Static membership: a process that comes back under the same id within the session \
         timeout finds the partitions it had, and nobody else's move. Each process needs an id of \
         its own that outlives it, such as the host's or the pod's name; each stream thread \
         becomes the member `<id>-<thread>`. Empty: every start is a new member.",
        Some("empty")
    ),
    key!(topics.heartbeats, read::topic, "topic", "Input: polls of the API."),
    key!(topics.vpn_sessions, read::topic, "topic", "Input: VPN sessions and VPN instances."),
    key!(topics.lifecycle, read::topic, "topic", "Input: lifecycle, settings and billing."),
    key!(topics.status_changes, read::topic, "topic", "Output: one record per status change."),
    key!(
        topics.dead_letters,
        read::topic,
        "topic",
        "Output: records that could not be used, as they were, with the reason in their headers."
    ),
    key!(
        topics.changelog,
        read::topic,
        "topic",
        "Our own state, compacted. Never to be shared by two groups.",
        Some("`<kafka.group>-changelog`")
    ),
    key!(
        topics.partitions,
        |raw: &Raw| read::integer(raw, 1, 10_000),
        "1 to 10000",
        "How many partitions `topics create` gives each topic: the most threads that can ever \
         share the work. They cannot be changed later without losing the state, so be generous."
    ),
    key!(
        topics.replication_factor,
        |raw: &Raw| read::integer(raw, 1, 100),
        "1 to 100",
        "How many replicas `topics create` gives each partition: 3 in production, 1 on a \
         broker that stands alone."
    ),
    key!(
        topics.partitioner,
        read::choice,
        "`murmur2` or `any`",
        "How producers choose the partition of a key. With `murmur2` (the default of Java \
         clients) a record on another partition than its key's becomes a dead letter, since \
         half of a device in each of two partitions is worse than none. `any` switches the \
         check off; all producers must still agree."
    ),
    key!(
        topics.accept_create_time,
        read::boolean,
        "true or false",
        "Put up with inputs whose timestamps are set by their producers (`CreateTime`). With \
         `LogAppendTime` no producer's clock can disturb the expiry of others."
    ),
    key!(formats.heartbeats, read::choice, FORMATS, "How the heartbeats' values are written."),
    key!(formats.vpn_sessions, read::choice, FORMATS, "How the VPN events' values are written."),
    key!(formats.lifecycle, read::choice, FORMATS, "How the lifecycle events' values are written."),
    key!(
        formats.cloud_events_source,
        read::uri_reference,
        "URI, or empty for none",
        "Makes each status change a CloudEvent (binary mode: `ce_` headers) of this source, such \
         as `//fleet.example/device-status`."
    ),
    key!(
        processing.guarantee,
        read::choice,
        "`exactly_once` or `at_least_once`",
        "With `exactly_once` a `read_committed` consumer of the status changes sees each once, \
         whatever fails. With `at_least_once` changes may come twice after a failure."
    ),
    key!(
        processing.threads,
        |raw: &Raw| read::integer(raw, 1, 1_024),
        "1 to 1024",
        "Stream threads of this process. More than there are partitions is of no use.",
        Some("the number of cores")
    ),
    key!(
        processing.commit_interval,
        |raw: &Raw| read::duration(raw, MILLISECOND, 5 * SECOND),
        "1ms to 5s",
        "How long output may wait for its transaction. Longer is less work for the brokers and \
         later changes."
    ),
    key!(
        processing.replay_window,
        |raw: &Raw| read::duration(raw, MINUTE, WEEK),
        "1m to 168h",
        "How far back a restore replays heartbeats. Longer means fewer writes for devices that \
         poll seldom, and longer restores. The heartbeats' topic must retain at least this much."
    ),
    key!(
        processing.max_clock_jump,
        |raw: &Raw| read::duration(raw, SECOND, WEEK),
        "1s to 168h",
        "How far a timestamp set by a producer may jump ahead before it is doubted. Only with \
         `topics.accept_create_time`."
    ),
    key!(
        processing.slack,
        // A record is judged up to 10 s ahead of the clock, which stands this much behind
        // what has been read (rule T5).
        |raw: &Raw| read::duration(raw, Duration::ZERO, 5 * SECOND),
        "0s to 5s",
        "How much later than its event a record may be written and still be in time. Statuses \
         expire this much later."
    ),
    key!(
        processing.tombstone_retention,
        |raw: &Raw| read::duration(raw, MINUTE, 365 * 24 * HOUR),
        "1m to 8760h",
        "How long closed VPN sessions and deleted devices are remembered, so that late events \
         do not bring them back."
    ),
    key!(
        processing.max_input_idle,
        |raw: &Raw| read::duration(raw, SECOND, HOUR),
        "1s to 1h",
        "How long an input that has unread records may deliver nothing before the others go on \
         without it. Until then they wait, since their records would be judged before its own. \
         Shorter than the longest pause of a fetch that can be read after all (a quota, a new \
         leader), changes in between are lost."
    ),
    key!(
        heartbeat.tolerance,
        |raw: &Raw| read::number(raw, 1.0, 100.0),
        "1 to 100",
        "How many poll intervals a heartbeat counts for. Devices jitter their polls by up to \
         half an interval."
    ),
    key!(
        heartbeat.minimum,
        |raw: &Raw| read::duration(raw, Duration::ZERO, WEEK),
        "0s to 168h",
        "The shortest poll interval that is believed; shorter ones count as this."
    ),
    key!(
        heartbeat.grace,
        |raw: &Raw| read::duration(raw, Duration::ZERO, 24 * HOUR),
        "0s to 24h",
        "How long the heartbeat is `timeout` after a missed poll, before it is `offline`."
    ),
    key!(
        heartbeat.default_poll_interval,
        |raw: &Raw| read::duration(raw, SECOND, WEEK),
        "1s to 168h",
        "The poll interval of devices of which none is known."
    ),
    key!(
        redis.url,
        read::redis_url,
        "URL",
        "Where the view is written. One server: `redis://host:port/database`, `rediss://…` with \
         TLS, `unix:///path/to/socket?db=0`. By Sentinels: \
         `redis-sentinel://host:port,host:port/NAME/database`. A cluster: \
         `redis-cluster://host:port,host:port`. With TLS `rediss-sentinel://…` and \
         `rediss-cluster://…`. User and password may stand before the hosts, as in \
         `redis://user:password@host`."
    ),
    key!(
        redis.username,
        read::optional_text,
        "text, or empty",
        "The user of Redis' ACLs; goes before the URL's."
    ),
    key!(
        redis.password,
        read::optional_text,
        "text, or empty for none",
        "The password; goes before the URL's. Better given in a file: `redis.password_file`."
    ),
    key!(
        redis.sentinel_username,
        read::optional_text,
        "text, or empty",
        "The user by whom the Sentinels are asked."
    ),
    key!(
        redis.sentinel_password,
        read::optional_text,
        "text, or empty for none",
        "The password with which the Sentinels are asked; the URL's and `redis.password` are \
         for the servers behind them. Better given in a file: `redis.sentinel_password_file`."
    ),
    key!(
        redis.ca_file,
        read::optional_text,
        "path, or empty for the system's",
        "With TLS: the authorities whose certificates are believed, as PEM. Read at each \
         connection, like the two below."
    ),
    key!(
        redis.certificate_file,
        read::optional_text,
        "path, or empty for none",
        "With TLS: the certificate that we show, with its chain, as PEM."
    ),
    key!(
        redis.key_file,
        read::optional_text,
        "path, or empty for none",
        "With TLS: the key of that certificate, as PEM."
    ),
    key!(
        redis.prefix,
        read::text,
        "text",
        "What all keys and channels begin with. Two installations in one Redis need two."
    ),
    key!(
        redis.fleet_members,
        read::boolean,
        "true or false",
        "Also list the devices of each fleet by status, in sets. Not with a cluster, unless \
         `redis.prefix` holds a hash tag, as `{ds}:` does, which puts all keys on one node."
    ),
    key!(
        redis.refresh_interval,
        |raw: &Raw| read::duration_or_off(raw, 10 * SECOND, WEEK),
        "10s to 168h, or 0s for off",
        "How long one pass of the sweep takes that repairs what differs in Redis and brings \
         `heartbeat_ms` up to date. Switched off, partial loss (an evicted key, a lost cluster \
         node) is no longer repaired."
    ),
    key!(
        admin.listen,
        read::address,
        "IP address and port",
        "Where `/live`, `/ready` and `/metrics` are served. In a container: `[::]:9464`, which is \
         every address of IPv6 and IPv4 (of IPv4 alone where the machine has no IPv6), with a \
         token or behind a network policy."
    ),
    key!(
        admin.token,
        read::token,
        "text without spaces, or empty for none",
        "What `/metrics` asks for, as `Authorization: Bearer <token>`. `/live` and `/ready` are \
         open to all: kubelets have no token. Better given in a file: `admin.token_file`."
    ),
    key!(log.format, read::choice, "`text` or `json`", "For people, or one JSON object a line."),
    key!(
        log.level,
        read::log_level,
        "level or directives",
        "`off`, `error`, `warn`, `info`, `debug`, `trace`, or directives such as \
         `info,device_status=debug`. The environment variable `RUST_LOG` goes before it."
    ),
];

/// What a section is about, for the documentation.
pub const SECTIONS: &[(&str, &str)] = &[
    ("kafka", "How to reach Kafka, and as whom."),
    (
        "topics",
        "The topics. The three inputs and the changelog have the same number of partitions; \
         `device-status topics check` tells.",
    ),
    ("formats", "How values are written."),
    ("processing", "How records are processed and committed."),
    ("heartbeat", "When a device counts as communicating."),
    ("redis", "The materialized view."),
    ("admin", "The HTTP server for probes and metrics."),
    ("log", "Logging, to standard error."),
];

/// What is refused in [`PROPERTIES`], and why.
pub const OWNED_PROPERTIES: &[(&str, &str, &str)] = &[
    ("bootstrap.servers", "has a key of its own", "use kafka.brokers"),
    ("metadata.broker.list", "has a key of its own", "use kafka.brokers"),
    ("group.id", "has a key of its own", "use kafka.group"),
    ("group.protocol", "has a key of its own", "use kafka.group_protocol"),
    (
        "group.remote.assignor",
        "would take the inputs of a shard apart: only the range assignor keeps them together",
        "leave it out",
    ),
    (
        "partition.assignment.strategy",
        "would take the inputs of a shard apart: only the range assignor keeps them together",
        "leave it out",
    ),
    (
        "group.instance.id",
        "would make every stream thread the same member, fencing the others",
        "use kafka.instance_id",
    ),
    ("transactional.id", "identifies one thread of one process", "leave it out"),
    (
        "transaction.timeout.ms",
        "bounds how long a dead process holds up the readers of its output",
        "leave it out",
    ),
    ("enable.idempotence", "is part of exactly once", "use processing.guarantee"),
    ("acks", "is part of exactly once", "use processing.guarantee"),
    ("request.required.acks", "is part of exactly once", "use processing.guarantee"),
    (
        "enable.auto.commit",
        "would commit offsets without their output",
        "leave it out: offsets are committed with the output",
    ),
    (
        "auto.commit.interval.ms",
        "would commit offsets without their output",
        "use processing.commit_interval",
    ),
    (
        "enable.auto.offset.store",
        "would commit offsets without their output",
        "leave it out: offsets are committed with the output",
    ),
    ("isolation.level", "is chosen for each client", "leave it out"),
    ("auto.offset.reset", "is decided with the state in hand", "leave it out"),
    ("topic.auto.offset.reset", "is decided with the state in hand", "leave it out"),
    ("enable.partition.eof", "is how the end of a partition is known", "leave it out"),
    ("partitioner", "must be that of the inputs' producers", "use topics.partitioner"),
    (
        "allow.auto.create.topics",
        "would create topics with the wrong settings",
        "use device-status topics create",
    ),
];

/// The keys whose values are secrets. Each may be given in a file, as
/// `<key>_file`.
pub const SECRET_KEYS: &[&str] = &["admin.token", "redis.password", "redis.sentinel_password"];

/// librdkafka's settings that name a file, and so can be looked at before a
/// client is made.
pub const FILE_PROPERTIES: &[&str] = &[
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.crl.location",
    "ssl.key.location",
    "ssl.keystore.location",
    "https.ca.location",
    "sasl.kerberos.keytab",
];

/// What the broker decides with `kafka.group_protocol = "consumer"`.
pub const BROKER_OWNED_PROPERTIES: &[&str] =
    &["session.timeout.ms", "heartbeat.interval.ms", "group.protocol.type"];
