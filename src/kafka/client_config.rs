//! Settings and logging that all Kafka clients of the process share.

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::KafkaError;

use super::credentials;
use crate::config::Config;
use crate::error::Fatal;

/// `socket.timeout.ms` of the client for queries.
pub const SOCKET_TIMEOUT_MS: i32 = 10_000;

/// The settings of every client: brokers, client id and the user's
/// `kafka.properties`. Callers add their own settings on top. The configuration
/// check has already refused properties that the user must not set.
#[must_use]
pub fn base(config: &Config) -> ClientConfig {
    credentials::keep(config);
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &config.kafka.brokers);
    client.set("client.id", &config.kafka.group);
    for (name, value) in &config.kafka.properties {
        client.set(name, value);
    }
    client
}

/// The settings of every consumer: it reads committed records only, reports the end
/// of a partition, and never commits or stores offsets by itself.
#[must_use]
pub fn consumer(config: &Config) -> ClientConfig {
    let mut consumer = base(config);
    consumer
        .set("group.id", &config.kafka.group)
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest");
    let defaults = [
        // With the default of one second, a consumer that catches up sleeps.
        ("fetch.queue.backoff.ms", "10"),
        ("queued.min.messages", "200000"),
        ("queued.max.messages.kbytes", "65536"),
        // Each broker has one fetch in flight, and a newly assigned partition waits
        // for it to return. The default of half a second is meant for idle
        // partitions.
        ("fetch.wait.max.ms", "50"),
    ];
    set_defaults(&mut consumer, config, &defaults);
    consumer
}

/// A client for queries. It has the group's id but does not join the group.
///
/// # Errors
/// When librdkafka refuses the configuration.
pub fn asking(config: &Config) -> Result<BaseConsumer<LoggingContext>, Fatal> {
    consumer(config)
        .set("socket.timeout.ms", SOCKET_TIMEOUT_MS.to_string())
        .create_with_context(LoggingContext)
        .map_err(refused)
}

/// Sets each default that the user's `kafka.properties` do not set.
pub fn set_defaults(client: &mut ClientConfig, config: &Config, defaults: &[(&str, &str)]) {
    for (key, value) in defaults {
        if !config.kafka.properties.contains_key(*key) {
            client.set(*key, *value);
        }
    }
}

/// The error when librdkafka cannot create a client. [`crate::config`] finds most
/// mistakes earlier; the rest are mostly files that are missing or wrong.
#[must_use]
pub fn refused(error: KafkaError) -> Fatal {
    let said = error.to_string();
    let said = said.strip_prefix("Client creation error: ").unwrap_or(&said);
    Fatal::configuration(format!("cannot create a Kafka client: {said}; check [kafka.properties]"))
}

/// Sends librdkafka's log lines and errors to `tracing`, target `librdkafka`. The
/// loop handles rebalances, not a callback (rule C5).
#[derive(Clone, Copy, Debug, Default)]
pub struct LoggingContext;

impl ClientContext for LoggingContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tell_error(&error, reason);
    }
}

impl ConsumerContext for LoggingContext {}

/// Whether librdkafka reports a lost connection as a failed authentication: the
/// connection ended during the SASL handshake, and the broker did not refuse
/// anything.
fn is_lost_in_handshake(message: &str) -> bool {
    message.contains("SASL") && message.contains("failed: Local: Broker transport failure")
}

/// Logs an error event of librdkafka; for contexts that do more than log.
///
/// librdkafka delivers error events when the client is polled, which may be much
/// later. It has already logged a lost connection at the time, so the event is
/// logged at debug level only; so is a connection lost in the SASL handshake.
pub fn tell_error(error: &KafkaError, reason: &str) {
    use rdkafka::error::RDKafkaErrorCode::{
        AllBrokersDown, Authentication, BrokerTransportFailure, OperationTimedOut, Resolve,
    };
    let is_lost = matches!(
        error.rdkafka_error_code(),
        Some(AllBrokersDown | BrokerTransportFailure | OperationTimedOut | Resolve)
    );
    if error.rdkafka_error_code() == Some(Authentication) && !is_lost_in_handshake(reason) {
        credentials::refused();
    }
    if is_lost || is_lost_in_handshake(reason) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
    } else {
        tracing::error!(target: "librdkafka", %error, "{reason}");
    }
}

/// Logs a line of librdkafka; for contexts that do more than log.
///
/// Some lines get a lower level. `CONFWARN`: every client gets all properties, also
/// those for another kind of client. `GETPID … retrying`: a producer retries while
/// a transaction coordinator comes up, and the caller reports a timeout. A
/// connection lost in the SASL handshake is no failed authentication. `TXNERR`,
/// `ADDPARTS`, `ADDOFFSETS`: the committer reports a failed transaction with its
/// cause and outcome; one that ends the producer is an alert.
pub fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    let is_error = matches!(level, RDKafkaLogLevel::Error);
    if is_error && credentials::is_refusal(message) && !is_lost_in_handshake(message) {
        credentials::refused();
    }
    match level {
        _ if facility == "CONFWARN" => {
            tracing::debug!(target: "librdkafka", facility, "{message}");
        }
        _ if facility == "GETPID" && message.ends_with(": retrying") => {
            tracing::info!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Error if is_lost_in_handshake(message) => {
            tracing::info!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Error if matches!(facility, "TXNERR" | "ADDPARTS" | "ADDOFFSETS") => {
            tracing::info!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => tracing::error!(target: "librdkafka", facility, "{message}"),
        RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, "{message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn librdkafka_retries_and_lost_connections_log_below_warning() {
        use tracing::Level;

        struct Levels(std::sync::mpsc::Sender<Level>);

        impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Levels {
            fn on_event(
                &self,
                event: &tracing::Event<'_>,
                _: tracing_subscriber::layer::Context<'_, S>,
            ) {
                self.0.send(*event.metadata().level()).unwrap();
            }
        }

        use tracing_subscriber::layer::SubscriberExt as _;
        let (levels, told) = std::sync::mpsc::channel();
        let subscriber = tracing_subscriber::registry().with(Levels(levels));
        tracing::subscriber::with_default(subscriber, || {
            let asks = "Failed to acquire transactional PID: Not coordinator: retrying";
            log(RDKafkaLogLevel::Warning, "GETPID", asks);
            log(RDKafkaLogLevel::Warning, "GETPID", "Failed to acquire transactional PID");
            log(RDKafkaLogLevel::Error, "TXNERR", "Current transaction failed in state Begin");
            log(RDKafkaLogLevel::Error, "ADDPARTS", "Failed to add partition \"t\" [0]: gone");
            log(RDKafkaLogLevel::Error, "ADDOFFSETS", "Failed to add offsets: Timed out");
            log(RDKafkaLogLevel::Alert, "TXNERR", "Fatal transaction error");
            log(RDKafkaLogLevel::Error, "FAIL", "Disconnected");
            for lost in [
                "SASL SCRAM-SHA-512 mechanism handshake failed: Local: Broker transport failure: \
                 broker's supported mechanisms: (n/a) (after 0ms in state DOWN)",
                "SASL authentication error: SaslAuthenticateRequest failed: Local: Broker \
                 transport failure (after 0ms in state DOWN)",
            ] {
                log(RDKafkaLogLevel::Error, "FAIL", lost);
            }
            log(RDKafkaLogLevel::Error, "FAIL", "SASL authentication error: Invalid credentials");
        });
        let told: Vec<Level> = told.try_iter().collect();
        let expected = [
            [Level::INFO, Level::WARN, Level::INFO, Level::INFO, Level::INFO],
            [Level::ERROR, Level::ERROR, Level::INFO, Level::INFO, Level::ERROR],
        ];
        assert_eq!(told, expected.concat());
    }

    #[test]
    fn unusable_client_settings_are_reported() {
        let files = tempfile::tempdir().unwrap();
        let path = files.path().join("ca.pem");
        std::fs::write(&path, "no certificate").unwrap();
        let mut config = Config::default();
        let mut set = |name: &str, value: String| {
            config.kafka.properties.insert(name.to_owned(), value);
        };
        set("security.protocol", "ssl".to_owned());
        set("ssl.ca.location", path.display().to_string());
        let made: Result<rdkafka::producer::BaseProducer, _> = base(&config).create();
        let message = refused(made.err().unwrap()).message;
        assert!(message.starts_with("cannot create a Kafka client: ssl.ca.location"), "{message}");
        assert!(message.ends_with("; check [kafka.properties]"), "{message}");
    }

    #[test]
    fn user_properties_reach_the_client() {
        let mut config = Config::default();
        config.kafka.brokers = "a:1,b:2".to_owned();
        config.kafka.properties.insert("client.rack".to_owned(), "r1".to_owned());
        let client = base(&config);
        assert_eq!(client.get("bootstrap.servers"), Some("a:1,b:2"));
        assert_eq!(client.get("client.id"), Some("device-status"));
        assert_eq!(client.get("client.rack"), Some("r1"));
        config.kafka.properties.insert("client.id".to_owned(), "mine".to_owned());
        assert_eq!(base(&config).get("client.id"), Some("mine"));
    }
}
