//! Asking, once and from outside of the group, what a group has committed.

use std::time::Duration;

use super::client_config::{self, LoggingContext};
use super::native::{Questions, SOCKET_TIMEOUT_MS};
use crate::clock::SystemClock;
use crate::config::Config;
use crate::error::Fatal;
use crate::stream_thread::ports::{Clock as _, CommittedOffset};

/// How long the answer may take: an open transaction of the service holds it up.
const PATIENCE_MS: i64 = 20_000;
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What the configured group has committed of these partitions, in their order,
/// once no open transaction can move it. `None`: nothing.
///
/// # Errors
/// When Kafka does not answer, or does not let us know.
pub fn committed(
    config: &Config,
    of: &[(&str, i32)],
) -> Result<Vec<Option<CommittedOffset>>, Fatal> {
    let group = &config.kafka.group;
    let refused = |why: &str| {
        Fatal::unavailable(format!(
            "Kafka does not say what the group {group} has committed: {why}; check kafka.group, \
             and that Describe or Read on the group is allowed"
        ))
    };
    let client = client_config::base(config)
        .set("socket.timeout.ms", SOCKET_TIMEOUT_MS.to_string())
        .create_with_context(LoggingContext)
        .map_err(|error| client_config::refused(&error))?;
    let questions = Questions::new(client);
    questions.committed(0, group, of);
    let clock = SystemClock::new();
    let answer = loop {
        if let Some((_, answer)) = questions.poll() {
            break answer;
        }
        if clock.monotonic_ms() > PATIENCE_MS {
            return Err(refused("no answer"));
        }
        SystemClock::pause(LOOK_EVERY);
    };
    let found = answer.map_err(|error| refused(&error))?;
    of.iter()
        .map(|(topic, partition)| {
            let found = found.iter().find(|f| f.topic == *topic && f.partition == *partition);
            match found {
                Some(found) => match &found.error {
                    Some(error) => Err(refused(error)),
                    None => Ok((found.offset >= 0).then(|| CommittedOffset {
                        offset: found.offset,
                        metadata: found.metadata.clone(),
                    })),
                },
                None => Ok(None),
            }
        })
        .collect()
}
