//! What every Kafka client of the process has in common.

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::KafkaError;

use crate::config::Config;
use crate::error::Fatal;

/// How long a request of the client that puts questions may take, in
/// milliseconds: its `socket.timeout.ms`.
pub const SOCKET_TIMEOUT_MS: i32 = 10_000;

/// The settings of any client: brokers, identity, and what the user gave in
/// `kafka.properties`. Set what the client needs on top of them: the
/// configuration has refused the properties that must not be the user's.
#[must_use]
pub fn base(config: &Config) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &config.kafka.brokers);
    client.set("client.id", &config.kafka.group);
    for (name, value) in &config.kafka.properties {
        client.set(name, value);
    }
    client
}

/// The settings of any consumer: what is committed alone is read, the end of a
/// partition is told, and offsets are nobody's but the caller's.
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
        // The default of a second makes a consumer that catches up sleep.
        ("fetch.queue.backoff.ms", "10"),
        ("queued.min.messages", "200000"),
        ("queued.max.messages.kbytes", "65536"),
        // One fetch is under way with each broker, and a partition that joins waits
        // until it returns. The default of half a second is for idle partitions.
        ("fetch.wait.max.ms", "50"),
    ];
    set_defaults(&mut consumer, config, &defaults);
    consumer
}

/// A client that puts questions, and does not join the group whose id it has.
///
/// # Errors
/// When librdkafka refuses the configuration.
pub fn asking(config: &Config) -> Result<BaseConsumer<LoggingContext>, Fatal> {
    consumer(config)
        .set("socket.timeout.ms", SOCKET_TIMEOUT_MS.to_string())
        .create_with_context(LoggingContext)
        .map_err(refused)
}

/// Sets what the user has not.
pub fn set_defaults(client: &mut ClientConfig, config: &Config, defaults: &[(&str, &str)]) {
    for (key, value) in defaults {
        if !config.kafka.properties.contains_key(*key) {
            client.set(*key, *value);
        }
    }
}

/// What librdkafka says when it makes no client of its settings, with what to
/// do. Most is found before, by [`crate::config`]: what is left needs the files
/// that are named.
#[must_use]
pub fn refused(error: KafkaError) -> Fatal {
    let said = error.to_string();
    let said = said.strip_prefix("Client creation error: ").unwrap_or(&said);
    Fatal::configuration(format!("a Kafka client cannot be made: {said}; check [kafka.properties]"))
}

/// Sends librdkafka's log lines and errors to `tracing`, target `librdkafka`. Leaves
/// rebalances to the loop: nothing happens inside a callback (rule C5).
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

/// Whether librdkafka tells, as a failed authentication, of a connection that ended
/// before the broker had answered: nobody was refused.
fn is_lost_in_handshake(message: &str) -> bool {
    message.contains("SASL") && message.contains("failed: Local: Broker transport failure")
}

/// An error event of librdkafka's, for contexts that do more than log.
///
/// Events wait until their client is polled, which may be long after. That a
/// connection failed is told by a log line at once, and so is no news here, nor if
/// it was lost while it was made.
pub fn tell_error(error: &KafkaError, reason: &str) {
    use rdkafka::error::RDKafkaErrorCode::{
        AllBrokersDown, BrokerTransportFailure, OperationTimedOut, Resolve,
    };
    let is_lost = matches!(
        error.rdkafka_error_code(),
        Some(AllBrokersDown | BrokerTransportFailure | OperationTimedOut | Resolve)
    );
    if is_lost || is_lost_in_handshake(reason) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
    } else {
        tracing::error!(target: "librdkafka", %error, "{reason}");
    }
}

/// One log line of librdkafka's, for contexts that do more than log.
///
/// That a property is for another kind of client is no news: all get all. Nor is
/// it that a producer asks again for its id, as it does where a coordinator has
/// just come up; whoever waits for it in vain says so. A transaction that fails
/// is told of by the committer, which knows what became of it; one that ends the
/// producer is an alert.
pub fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
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
        RDKafkaLogLevel::Error if facility == "TXNERR" => {
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
    fn what_librdkafka_does_by_itself_is_no_warning() {
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
        let expected = [Level::INFO, Level::WARN, Level::INFO, Level::ERROR, Level::ERROR];
        assert_eq!(told, [&expected[..], &[Level::INFO, Level::INFO, Level::ERROR]].concat());
    }

    #[test]
    fn settings_that_make_no_client_are_told() {
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
        assert!(message.starts_with("a Kafka client cannot be made: ssl.ca.location"), "{message}");
        assert!(message.ends_with("; check [kafka.properties]"), "{message}");
    }

    #[test]
    fn the_users_properties_come_along() {
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
