//! The configuration: defaults, a TOML file, the environment and the command line.
//!
//! [`keys::KEYS`] is the single table of keys. Parsing, `config show`, the commented
//! example (`deploy/device-status.example.toml`) and the reference
//! (`docs/configuration.md`) use it, with the texts of `keys.toml`.
//!
//! To add a key: add a field and its default here, an entry in `keys.rs` and in
//! `keys.toml`, and run `UPDATE=1 cargo test --test pure configuration`.

pub mod document;
mod entry;
pub mod errors;
pub mod keys;
pub mod load;
mod properties;
mod read;
pub mod redis_url;
mod secrets;
pub mod variables;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::shard::{Input, Rules};
pub use crate::wire::{ChangeFormat, Format};
pub use entry::secret_in;
pub use load::{Loaded, load};
pub use properties::known_property_names;
pub use read::check_log_directives;
pub use secrets::{REDACTED, is_secret_property, redact_url, shown_property};

/// The whole configuration.
#[derive(Clone, PartialEq)]
pub struct Config {
    /// The connection to Kafka, and the consumer group.
    pub kafka: Kafka,
    /// The topics.
    pub topics: Topics,
    /// The formats of the records' values.
    pub formats: Formats,
    /// How records are processed and committed.
    pub processing: Processing,
    /// The limit of dead letters.
    pub dead_letters: DeadLetters,
    /// When a device counts as communicating.
    pub heartbeat: Heartbeat,
    /// The defaults of the VPN settings.
    pub vpn: Vpn,
    /// The view in Redis.
    pub redis: Redis,
    /// The HTTP server for probes and metrics.
    pub admin: Admin,
    /// Logging.
    pub log: Log,
}

/// The connection to Kafka, and the consumer group.
#[derive(Clone, PartialEq, Eq)]
pub struct Kafka {
    /// `host:port`, comma-separated.
    pub brokers: String,
    /// The consumer group.
    pub group: String,
    /// The protocol by which the group assigns partitions.
    pub group_protocol: GroupProtocol,
    /// The id of this process for static membership. Empty: each start is a new member.
    pub instance_id: String,
    /// A program that prints a token for OAUTHBEARER, and its arguments. Empty: none.
    pub oauth_command: Vec<String>,
    /// The file of `sasl.username`, if it has one. It is read again after a refused login.
    pub username_file: Option<PathBuf>,
    /// As `username_file`, of `sasl.password`.
    pub password_file: Option<PathBuf>,
    /// Any other setting of librdkafka, by its own name.
    pub properties: BTreeMap<String, String>,
}

/// The protocol by which the group assigns partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupProtocol {
    /// KIP-848: brokers 4.0 or later; a rebalance stops only the partitions that move.
    Consumer,
    /// Older brokers; a rebalance stops all members.
    Classic,
}

/// The topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    /// Input: polls of the API.
    pub heartbeats: String,
    /// Input: VPN sessions and instances.
    pub vpn_sessions: String,
    /// Input: lifecycle and billing.
    pub lifecycle: String,
    /// Output: status changes.
    pub status_changes: String,
    /// Output: records that could not be used.
    pub dead_letters: String,
    /// The state of the service.
    pub changelog: String,
    /// The number of partitions for `topics create`.
    pub partitions: i32,
    /// The number of replicas for `topics create`.
    pub replication_factor: i32,
    /// How producers choose the partition of a key (rule R8).
    pub partitioner: Partitioner,
    /// Whether inputs with timestamps set by producers are accepted (rule T3).
    pub accept_create_time: bool,
    /// Whether a start goes on if the brokers do not show the settings of the topics.
    pub unverified: bool,
}

impl Topics {
    /// The name of an input's topic.
    #[must_use]
    pub fn input(&self, input: Input) -> &str {
        match input {
            Input::Lifecycle => &self.lifecycle,
            Input::VpnSessions => &self.vpn_sessions,
            Input::Heartbeats => &self.heartbeats,
        }
    }
}

/// How producers choose the partition of a key (rule R8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partitioner {
    /// Java's default. A record in the wrong partition becomes a dead letter.
    Murmur2,
    /// Another one, the same for all three inputs. Not checked.
    Any,
}

/// The formats of the records' values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Formats {
    /// Of the heartbeats.
    pub heartbeats: Format,
    /// Of the VPN sessions.
    pub vpn_sessions: Format,
    /// Of the lifecycle events.
    pub lifecycle: Format,
    /// Of the status changes.
    pub status_changes: ChangeFormat,
    /// The source of the changes as CloudEvents. Empty: no CloudEvents.
    pub cloud_events_source: String,
}

impl Formats {
    /// The format of an input.
    #[must_use]
    pub fn input(&self, input: Input) -> Format {
        match input {
            Input::Lifecycle => self.lifecycle,
            Input::VpnSessions => self.vpn_sessions,
            Input::Heartbeats => self.heartbeats,
        }
    }
}

/// How records are processed and committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processing {
    /// The delivery guarantee of the output.
    pub guarantee: Guarantee,
    /// The number of stream threads.
    pub threads: usize,
    /// How long output may wait before its transaction is committed.
    pub commit_interval: Duration,
    /// How far back a restore replays heartbeats (rule R2).
    pub replay_window: Duration,
    /// How far a producer's timestamp may jump ahead before it is clamped (rule T3).
    pub max_clock_jump: Duration,
    /// The allowed lateness: how much later than its event a record may be (rule T2).
    pub slack: Duration,
    /// How long closed sessions and deletions are remembered (rules J4, J5).
    pub tombstone_retention: Duration,
    /// How late a lease may arrive and still run from its record (rule J4).
    pub max_lease_delay: Duration,
    /// How long the other inputs wait for a silent input (rule T4).
    pub max_input_idle: Duration,
}

/// The delivery guarantee of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarantee {
    /// Each change is written once.
    ExactlyOnce,
    /// Changes may be written twice after a failure.
    AtLeastOnce,
}

/// The limit of dead letters.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetters {
    /// The largest share of an input's records in a partition that may become dead
    /// letters before reading of it stops; 1: any.
    pub max_share: f64,
}

/// When a device counts as communicating.
#[derive(Clone, Debug, PartialEq)]
pub struct Heartbeat {
    /// For how many poll intervals a heartbeat counts.
    pub tolerance: f64,
    /// The minimum poll interval; shorter ones count as this one.
    pub minimum: Duration,
    /// How long after a missed poll a device becomes Offline.
    pub grace: Duration,
    /// The poll interval of devices whose own is not known.
    pub default_poll_interval: Duration,
}

/// The defaults of the VPN settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vpn {
    /// Whether devices are expected to be on the VPN (rule J2).
    pub enabled_by_default: bool,
}

/// The view in Redis.
#[derive(Clone, PartialEq, Eq)]
pub struct Redis {
    /// The URL of the servers.
    pub url: String,
    /// The user. Empty: the user in the URL.
    pub username: String,
    /// The password. Empty: the password in the URL.
    pub password: String,
    /// The file of the password, if it has one. It is read again for each connection.
    pub password_file: Option<PathBuf>,
    /// The user for the Sentinels. Empty: none.
    pub sentinel_username: String,
    /// The password for the Sentinels. Empty: none.
    pub sentinel_password: String,
    /// As `password_file`.
    pub sentinel_password_file: Option<PathBuf>,
    /// The trusted certificate authorities, as PEM. Empty: the system's.
    pub ca_file: String,
    /// The client certificate, as PEM. Empty: none.
    pub certificate_file: String,
    /// The private key of the client certificate, as PEM.
    pub key_file: String,
    /// The prefix of all keys.
    pub prefix: String,
    /// Whether the devices of each fleet are also listed by status.
    pub fleet_members: bool,
    /// How long one pass of the sweep takes (rule V6). Zero: no sweep.
    pub refresh_interval: Duration,
}

/// The HTTP server for probes and metrics.
#[derive(Clone, PartialEq, Eq)]
pub struct Admin {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// The token that `/metrics` requires. Empty: none.
    pub token: String,
}

/// Logging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Text or JSON.
    pub format: LogFormat,
    /// A level, or directives as in `RUST_LOG`.
    pub level: String,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text, for people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Default for Config {
    fn default() -> Config {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Config {
            kafka: Kafka {
                brokers: "localhost:9092".to_owned(),
                group: "device-status".to_owned(),
                group_protocol: GroupProtocol::Consumer,
                instance_id: String::new(),
                oauth_command: Vec::new(),
                username_file: None,
                password_file: None,
                properties: BTreeMap::new(),
            },
            topics: Topics {
                heartbeats: "device-heartbeats".to_owned(),
                vpn_sessions: "device-vpn-sessions".to_owned(),
                lifecycle: "device-lifecycle".to_owned(),
                status_changes: "device-status-changes".to_owned(),
                dead_letters: "device-status-dead-letters".to_owned(),
                changelog: changelog_of("device-status"),
                partitions: 12,
                replication_factor: 3,
                partitioner: Partitioner::Murmur2,
                accept_create_time: false,
                unverified: false,
            },
            formats: Formats {
                heartbeats: Format::Protobuf,
                vpn_sessions: Format::Protobuf,
                lifecycle: Format::Protobuf,
                status_changes: ChangeFormat::Protobuf,
                cloud_events_source: String::new(),
            },
            processing: Processing {
                guarantee: Guarantee::ExactlyOnce,
                threads: cores,
                commit_interval: Duration::from_millis(20),
                replay_window: Duration::from_secs(30 * 60),
                max_clock_jump: Duration::from_secs(5 * 60),
                slack: Duration::from_secs(2),
                tombstone_retention: Duration::from_secs(24 * 3_600),
                max_lease_delay: Duration::from_secs(15 * 60),
                max_input_idle: Duration::from_secs(10),
            },
            dead_letters: DeadLetters { max_share: 1.0 },
            heartbeat: Heartbeat {
                tolerance: 1.5,
                minimum: Duration::from_secs(10 * 60),
                grace: Duration::from_secs(15),
                default_poll_interval: Duration::from_secs(15 * 60),
            },
            vpn: Vpn { enabled_by_default: true },
            redis: Redis::default(),
            admin: Admin {
                listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9464)),
                token: String::new(),
            },
            log: Log { format: LogFormat::Text, level: "info".to_owned() },
        }
    }
}

impl Default for Redis {
    fn default() -> Redis {
        Redis {
            url: "redis://localhost:6379".to_owned(),
            username: String::new(),
            password: String::new(),
            password_file: None,
            sentinel_username: String::new(),
            sentinel_password: String::new(),
            sentinel_password_file: None,
            ca_file: String::new(),
            certificate_file: String::new(),
            key_file: String::new(),
            prefix: "ds:".to_owned(),
            fleet_members: false,
            refresh_interval: Duration::from_secs(15 * 60),
        }
    }
}

/// The default name of the changelog.
fn changelog_of(group: &str) -> String {
    format!("{group}-changelog")
}

impl Config {
    /// The settings that statuses depend on.
    #[must_use]
    pub fn rules(&self) -> Rules {
        Rules {
            tolerance: self.heartbeat.tolerance,
            minimum_ms: milliseconds(self.heartbeat.minimum),
            grace_ms: milliseconds(self.heartbeat.grace),
            default_poll_interval_ms: milliseconds(self.heartbeat.default_poll_interval),
            vpn_enabled_by_default: self.vpn.enabled_by_default,
            max_lease_delay_ms: milliseconds(self.processing.max_lease_delay),
            slack_ms: milliseconds(self.processing.slack),
            replay_window_ms: milliseconds(self.processing.replay_window),
            max_clock_jump_ms: milliseconds(self.processing.max_clock_jump),
            tombstone_retention_ms: milliseconds(self.processing.tombstone_retention),
            max_input_idle_ms: milliseconds(self.processing.max_input_idle),
        }
    }
}

/// A duration in milliseconds.
#[must_use]
pub fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
