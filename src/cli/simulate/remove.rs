//! `device-status simulate --remove`: deletes the devices that earlier runs have
//! left behind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rdkafka::Message as _;
use serde_json::json;

use super::consent;
use crate::cli::reading::Reader;
use crate::cli::text::{counted, print};
use crate::cli::traffic::Traffic;
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::error::Fatal;
use crate::shard::{DeviceEvent, DeviceId, Entry, EventBody, Input};
use crate::simulate::{Sent, is_of_seed};
use crate::wire::changelog;
use crate::wire::decode::decode;

/// Deletes every device of this seed that is registered still: it is known by its
/// id, whatever the fleet's size was and however often a device was succeeded.
///
/// # Errors
/// When Kafka cannot be reached, or does not take the deletions.
pub(super) fn run(seed: u64, yes: bool, config: &Config, json: bool) -> Result<(), Fatal> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut traffic = Traffic::open(config, "simulate", &[Input::Lifecycle], "20")?;
    let devices = devices(seed, config)?;
    let count = devices.len() as u64;
    let counted = counted(count, "simulated device");
    let what = format!("--remove would delete {counted} of seed {seed} there");
    let go = count > 0 && consent::given(&traffic, &what, yes)?;
    if go {
        crate::cli::signals::set(&stop)?;
        let at = SystemClock::new().wall();
        for device in devices {
            let device = Some(device);
            traffic.send(Sent { at, input: Input::Lifecycle, device, value: None }, &stop)?;
        }
        traffic.finish(&stop)?;
    }
    let deleted = traffic.counts.values().sum::<u64>();
    if json {
        return print(&format!("{}\n", json!({ "seed": seed, "devices_deleted": deleted })));
    }
    print(&match (count, deleted) {
        (0, _) => format!("There is no simulated device of seed {seed}.\n"),
        (_, 0) => "Nothing was deleted.\n".to_owned(),
        _ if deleted < count => format!("Deleted {deleted} of {counted} of seed {seed}.\n"),
        _ => format!("Deleted {counted} of seed {seed}.\n"),
    })
}

/// The devices of this seed that exist, as the changelog tells, and the lifecycle
/// topic of those that it does not tell of yet.
fn devices(seed: u64, config: &Config) -> Result<Vec<DeviceId>, Fatal> {
    let reader = Reader::new(config, "simulate")?;
    let mut exist = BTreeMap::new();
    let ours = |key: Option<&[u8]>| {
        DeviceId::from_key(key?).ok().filter(|device| is_of_seed(seed, device))
    };
    let mut unreadable = None;
    let topic = &config.topics.changelog;
    let partitions = reader.partitions(topic, "topics.changelog")?;
    let ranges = reader.ranges(topic, &partitions, None)?;
    reader.read(topic, ranges, &mut |record| {
        let Some(device) = ours(record.key().and_then(changelog::row_of)) else { return };
        let exists = match changelog::decode(record.key(), record.payload()) {
            // Another run with this seed may have registered it again.
            Ok(Some(Entry::Device(_, Some(row)))) => !row.facts.is_deleted(),
            Ok(_) => false,
            Err(error) => {
                unreadable.get_or_insert(error.to_string());
                return;
            }
        };
        exist.insert(device, exists);
    })?;
    if let Some(error) = unreadable {
        return Err(Fatal::unavailable(error));
    }
    let topic = &config.topics.lifecycle;
    let partitions = reader.partitions(topic, "topics.lifecycle")?;
    let ranges = reader.ranges(topic, &partitions, None)?;
    let format = config.formats.lifecycle;
    reader.read(topic, ranges, &mut |record| {
        let Some(device) = ours(record.key()) else { return };
        let event = decode(Input::Lifecycle, format, record.key(), record.payload());
        if let Ok(EventBody::Device { event, .. }) = event.map(|event| event.body) {
            exist.insert(device, !matches!(event, DeviceEvent::Deleted));
        }
    })?;
    Ok(exist.into_iter().filter_map(|(device, exists)| exists.then_some(device)).collect())
}
