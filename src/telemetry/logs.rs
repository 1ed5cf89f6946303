//! Where logs go.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::FilterExt as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use super::limit;
use crate::config::{Log, LogFormat, check_log_directives};
use crate::error::Fatal;

/// The binding's own errors where it drops a consumer. A member that the group has
/// refused cannot leave it in order, which is no news: the loop has told why.
const DROPPED_CONSUMERS: &str = "rdkafka::consumer::base_consumer=off";

/// Sends the logs to standard error, as configured; `RUST_LOG` goes before
/// `log.level`. librdkafka's come along. What goes on and on is [`limit`]ed.
///
/// # Errors
/// When logging is set up already, or `RUST_LOG` cannot be read.
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
    .map_err(|error| Fatal::internal(format!("logging: {error}")))
}
