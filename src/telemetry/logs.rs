//! Logging to standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::FilterExt as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use super::limit;
use crate::config::{Log, LogFormat, check_log_directives};
use crate::error::Fatal;

/// Silences errors of the Kafka binding when it drops a consumer. A member that the group
/// has refused cannot leave it cleanly; the loop has already logged the reason.
const DROPPED_CONSUMERS: &str = "rdkafka::consumer::base_consumer=off";

/// Sets up logging, with librdkafka's lines and the rate [`limit`]. `RUST_LOG` overrides
/// `log.level`.
///
/// # Errors
/// When logging is already set up, or `RUST_LOG` is malformed.
pub fn init_logging(log: &Log, clock: limit::MonotonicMs) -> Result<(), Fatal> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) if !directives.is_empty() => {
            let refused = |wrong: &str| {
                Fatal::configuration(format!(
                    "environment variable RUST_LOG = {directives:?}: {wrong}, or unset it"
                ))
            };
            check_log_directives(&directives).map_err(|wrong| refused(&wrong))?;
            EnvFilter::try_new(&directives).map_err(|error| refused(&error.to_string()))?
        }
        _ => EnvFilter::try_new(format!("{DROPPED_CONSUMERS},{}", log.level))
            .map_err(|error| Fatal::configuration(format!("log.level: {error}")))?,
    };
    let filter = filter.and(limit::install(clock));
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry();
    match log.format {
        LogFormat::Text => registry.with(layer.with_filter(filter)).try_init(),
        LogFormat::Json => {
            registry.with(layer.json().flatten_event(true).with_filter(filter)).try_init()
        }
    }
    .map_err(|error| Fatal::internal(format!("cannot set up logging: {error}")))
}
