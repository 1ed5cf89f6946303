//! Explains librdkafka's connection errors in terms of the configuration.

use std::sync::Mutex;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::producer::{DeliveryResult, ProducerContext};

use crate::config::Config;
use crate::error::{Fatal, FatalKind, lock};

/// Words in librdkafka's log lines that show a cause, with the kind of failure and
/// the remedy. The first match counts.
const CAUSES: &[(&[&str], FatalKind, &str)] = &[
    (
        &["certificate verify failed", "unknown ca"],
        FatalKind::Configuration,
        "set kafka.properties.ssl.ca.location to the certificate of the CA that signed the \
         broker's certificate; check that the broker's certificate contains the host names in \
         kafka.brokers and has not expired",
    ),
    (
        &["certificate required", "bad certificate"],
        FatalKind::Configuration,
        "the broker requires a client certificate: set kafka.properties.ssl.certificate.location \
         and kafka.properties.ssl.key.location",
    ),
    (
        &["to a PLAINTEXT", "wrong version number", "packet length too long"],
        // A broker that shuts down closes connections, too, so this is no proof.
        FatalKind::Unavailable,
        "this port may not use TLS: use another port in kafka.brokers, or set \
         kafka.properties.security.protocol to plaintext or sasl_plaintext",
    ),
    (
        &["incorrect security.protocol", "in state APIVERSION_QUERY"],
        FatalKind::Unavailable,
        "this port may require TLS or SASL: set kafka.properties.security.protocol to ssl or \
         sasl_ssl, or use another port in kafka.brokers",
    ),
    (
        &["nsupported SASL mechanism", "mechanism handshake failed"],
        FatalKind::Configuration,
        "set kafka.properties.sasl.mechanism to one that the broker has enabled",
    ),
    (
        &["OIDC", "OAUTHBEARER"],
        FatalKind::Configuration,
        "check kafka.oauth_command, or kafka.properties.sasl.oauthbearer.token.endpoint.url, \
         .client.id and .client.secret (or .client.secret_file)",
    ),
    (
        &["uthentication failed", "SASL authentication error", "invalid credentials"],
        FatalKind::Configuration,
        "check kafka.properties.sasl.username, kafka.properties.sasl.password (or \
         sasl.password_file) and kafka.properties.sasl.mechanism",
    ),
    (
        &["Failed to resolve"],
        FatalKind::Unavailable,
        "check the host names in kafka.brokers and DNS",
    ),
];

/// The remedy if no cause is known.
const OTHERWISE: &str = "check that it runs and that kafka.brokers and the security settings in \
    kafka.properties are right";

fn cause(line: &str) -> Option<(FatalKind, &'static str)> {
    CAUSES.iter().find_map(|(words, kind, remedy)| {
        words.iter().any(|word| line.contains(word)).then_some((*kind, *remedy))
    })
}

/// The context of a client used by a command. librdkafka's log lines give the cause
/// of a failure; the error of the call only says that it failed. The first lines
/// are kept, because later ones repeat them.
#[derive(Debug, Default)]
pub struct ListeningContext(Mutex<Vec<String>>);

impl ListeningContext {
    const MAX: usize = 20;

    /// Takes a line of librdkafka's log: `[thrd:…]: localhost:9092/bootstrap: …
    /// refused (after 0ms in …)`.
    pub fn note(&self, level: RDKafkaLogLevel, line: &str) {
        let is_error = matches!(level, RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error);
        let line = line.split_once("]: ").map_or(line, |(_, rest)| rest);
        let tells = is_error || cause(line).is_some();
        let mut lines = lock(&self.0);
        if tells && lines.len() < ListeningContext::MAX && !lines.iter().any(|known| known == line)
        {
            lines.push(line.to_owned());
        }
    }

    /// The error of a failed call, with its cause and remedy.
    #[must_use]
    pub fn explain(&self, config: &Config, doing: &str, error: &str) -> Fatal {
        let lines = lock(&self.0);
        let known = lines.iter().find_map(|line| cause(line).map(|found| (line, found)));
        let (line, (kind, remedy)) = match known {
            Some((line, found)) => (line.as_str(), found),
            None => {
                let first = lines.first().map_or(error, String::as_str);
                (first, (FatalKind::Unavailable, OTHERWISE))
            }
        };
        let why = line.split(" (after ").next().unwrap_or(line).trim();
        let message = format!("cannot {doing} Kafka at {}: {why}; {remedy}", config.kafka.brokers);
        Fatal { kind, message }
    }
}

impl ClientContext for ListeningContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // Logged at debug level: the cause goes into the error.
        tracing::debug!(target: "librdkafka", facility, "{message}");
        self.note(level, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
    }
}

impl ConsumerContext for ListeningContext {}

impl ProducerContext for ListeningContext {
    type DeliveryOpaque = ();
    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_with_a_known_cause_overrides_the_first_line() {
        let complaints = ListeningContext::default();
        complaints.note(
            RDKafkaLogLevel::Error,
            "[thrd:a]: a:1/bootstrap: Connect failed (after 0ms in state CONNECT)",
        );
        complaints.note(
            RDKafkaLogLevel::Error,
            "[thrd:b]: b:1/bootstrap: SASL authentication error: no (after 1ms in X)",
        );
        let fatal = complaints.explain(&Config::default(), "reach", "timed out");
        assert_eq!(fatal.kind, FatalKind::Configuration);
        assert!(fatal.message.contains("b:1/bootstrap: SASL authentication error: no; check"));
        assert!(fatal.message.contains("kafka.properties.sasl.password"));
    }

    #[test]
    fn without_a_known_cause_the_first_line_is_reported() {
        let complaints = ListeningContext::default();
        let fatal = complaints.explain(&Config::default(), "reach", "timed out");
        assert_eq!(fatal.kind, FatalKind::Unavailable);
        assert!(fatal.message.contains("timed out; check that it runs"));
        complaints.note(
            RDKafkaLogLevel::Error,
            "[thrd:a]: a:1/bootstrap: Connect failed (after 0ms in state CONNECT)",
        );
        let fatal = complaints.explain(&Config::default(), "reach", "timed out");
        assert!(fatal.message.contains("localhost:9092: a:1/bootstrap: Connect failed; check"));
    }
}
