//! Whether to write where others may write too.

use std::time::Duration;

use crate::cli::ask::confirm;
use crate::cli::text::counted;
use crate::cli::traffic::Traffic;
use crate::error::Fatal;

/// What the cluster ids of `scripts/kafka.sh` begin with.
const OF_MAKE_KAFKA: &str = "DeviceStatus";
/// How long a broker may take to say how many records there are.
const TIMEOUT: Duration = Duration::from_secs(8);

/// Whether `what` may be done to the input topics: they are of `make kafka`,
/// hold nothing, or somebody says so.
///
/// # Errors
/// When Kafka does not answer, or there is nobody to ask.
pub(super) fn given(traffic: &Traffic<'_>, what: &str, yes: bool) -> Result<bool, Fatal> {
    if yes || traffic.cluster_id(TIMEOUT).is_some_and(|id| id.starts_with(OF_MAKE_KAFKA)) {
        return Ok(true);
    }
    let Some((topic, records)) = traffic.first_record_holder(TIMEOUT)? else { return Ok(true) };
    let records = counted(records, "record");
    let brokers = &traffic.config.kafka.brokers;
    let why =
        format!("{topic} on {brokers} holds {records}, perhaps of devices that exist. {what}");
    confirm(&format!("{why}. Go on?"), &format!("{why}: say --yes to do so all the same"))
}
