//! The configuration: a TOML file, the environment over it, checked as a whole.
//!
//! [`keys::KEYS`] is the one table that parsing, `config show`, the commented
//! example (`deploy/device-status.example.toml`) and the reference
//! (`docs/configuration.md`) are all made from, with the texts of `keys.toml`. To
//! add a key: a field here, its default here, an entry in both, and `UPDATE=1
//! cargo test --test pure configuration`.

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
pub use crate::wire::Format;
pub use entry::secret_in;
pub use load::{Loaded, load};
pub use properties::known_property_names;
pub use read::check_log_directives;
pub use secrets::{REDACTED, is_secret_property, redact_url, shown_property};

/// All that can be configured.
#[derive(Clone, PartialEq)]
pub struct Config {
    /// How to reach Kafka, and as whom.
    pub kafka: Kafka,
    /// The topics.
    pub topics: Topics,
    /// How values are written.
    pub formats: Formats,
    /// How records are processed and committed.
    pub processing: Processing,
    /// What is done about records that cannot be used.
    pub dead_letters: DeadLetters,
    /// When a device counts as communicating.
    pub heartbeat: Heartbeat,
    /// What counts where no setting says anything of the VPN.
    pub vpn: Vpn,
    /// The materialized view.
    pub redis: Redis,
    /// The HTTP server for probes and metrics.
    pub admin: Admin,
    /// Logging.
    pub log: Log,
}

/// How to reach Kafka, and as whom.
#[derive(Clone, PartialEq, Eq)]
pub struct Kafka {
    /// `host:port`, comma-separated.
    pub brokers: String,
    /// The consumer group.
    pub group: String,
    /// How the group shares out partitions.
    pub group_protocol: GroupProtocol,
    /// What the members of this process are called for static membership; empty:
    /// the group takes them for new ones at each start.
    pub instance_id: String,
    /// Any other setting of librdkafka, by its own name.
    pub properties: BTreeMap<String, String>,
}

/// How the group shares out partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupProtocol {
    /// KIP-848: brokers 4.0 and later; only what must move moves.
    Consumer,
    /// Older brokers; every rebalance stops everybody.
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
    /// Our own state.
    pub changelog: String,
    /// Partitions that `topics create` asks for.
    pub partitions: i32,
    /// Replicas that `topics create` asks for.
    pub replication_factor: i32,
    /// How producers choose the partition of a key (rule R8).
    pub partitioner: Partitioner,
    /// Whether timestamps set by producers are put up with (rule T3).
    pub accept_create_time: bool,
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
    /// Java's default; a record elsewhere becomes a dead letter.
    Murmur2,
    /// Something else, the same for all three inputs: not checked.
    Any,
}

/// How values are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Formats {
    /// Of the heartbeats.
    pub heartbeats: Format,
    /// Of the VPN sessions.
    pub vpn_sessions: Format,
    /// Of the lifecycle events.
    pub lifecycle: Format,
    /// The source of the changes as CloudEvents; empty: they are none.
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
    /// What a failure may do to the output.
    pub guarantee: Guarantee,
    /// Stream threads of this process.
    pub threads: usize,
    /// How long output may wait for its transaction.
    pub commit_interval: Duration,
    /// How far back a restore replays heartbeats (rule R2).
    pub replay_window: Duration,
    /// How far a timestamp set by a producer may jump ahead (rule T3).
    pub max_clock_jump: Duration,
    /// How much later than its event a record may be (rule T2).
    pub slack: Duration,
    /// How long closed sessions and deletions are remembered (rules J4, J5).
    pub tombstone_retention: Duration,
    /// By how much a lease may come late, and run from its record (rule J4).
    pub max_lease_delay: Duration,
    /// How long an input that others wait for may be silent (rule T4).
    pub max_input_idle: Duration,
}

/// What a failure may do to the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarantee {
    /// Nothing.
    ExactlyOnce,
    /// Changes may be written twice.
    AtLeastOnce,
}

/// What is done about records that cannot be used.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetters {
    /// The greatest share of an input's records in a partition that may become dead
    /// letters before it is read no further; 1: any.
    pub max_share: f64,
}

/// When a device counts as communicating.
#[derive(Clone, Debug, PartialEq)]
pub struct Heartbeat {
    /// How many poll intervals a heartbeat counts for.
    pub tolerance: f64,
    /// The shortest poll interval that is believed.
    pub minimum: Duration,
    /// How long after a missed poll the device is Offline.
    pub grace: Duration,
    /// The poll interval of devices of which none is known.
    pub default_poll_interval: Duration,
}

/// What counts where no setting says anything of the VPN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vpn {
    /// Whether devices are meant to be on it (rule J2).
    pub enabled_by_default: bool,
}

/// The materialized view.
#[derive(Clone, PartialEq, Eq)]
pub struct Redis {
    /// Where it is.
    pub url: String,
    /// As whom; empty: as the URL says.
    pub username: String,
    /// With which password; empty: as the URL says.
    pub password: String,
    /// The file that the password was read from, if it was: it is read again
    /// for each connection.
    pub password_file: Option<PathBuf>,
    /// As whom to ask the Sentinels; empty: as nobody.
    pub sentinel_username: String,
    /// With which password to ask the Sentinels; empty: with none.
    pub sentinel_password: String,
    /// As `password_file`.
    pub sentinel_password_file: Option<PathBuf>,
    /// The authorities whose certificates are believed, as PEM; empty: the
    /// system's.
    pub ca_file: String,
    /// Our own certificate, as PEM; empty: none.
    pub certificate_file: String,
    /// Its key, as PEM.
    pub key_file: String,
    /// What all its keys begin with.
    pub prefix: String,
    /// Whether each fleet's devices are listed by status.
    pub fleet_members: bool,
    /// How long one pass of the sweep takes (rule V6); zero: no sweep.
    pub refresh_interval: Duration,
}

/// The HTTP server for probes and metrics.
#[derive(Clone, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What `/metrics` asks for; empty: nothing.
    pub token: String,
}

/// Logging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// For people or for machines.
    pub format: LogFormat,
    /// How much: a level, or `RUST_LOG` directives.
    pub level: String,
}

/// How a log line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
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
            },
            formats: Formats {
                heartbeats: Format::Protobuf,
                vpn_sessions: Format::Protobuf,
                lifecycle: Format::Protobuf,
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

/// The changelog's name unless it is given one.
fn changelog_of(group: &str) -> String {
    format!("{group}-changelog")
}

impl Config {
    /// The numbers that statuses depend on.
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

/// A length of time in milliseconds.
#[must_use]
pub fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
