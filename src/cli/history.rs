//! `device-status history ID`: the changes of a device, from the topic of
//! changes.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io;

use rdkafka::message::Message as _;
use serde_json::{Value, json};

use super::explain::{change_json, change_line, device_id};
use super::get::{Style, is_coloured, moment, printable};
use super::print;
use super::reading::{Ranges, Reader};
use super::since::{Since, parse_since};
use crate::config::Config;
use crate::error::Fatal;
use crate::shard::{DeviceId, StatusChange};
use crate::wire::murmur2::partition_of;
use crate::wire::status_changed;

/// `device-status history …`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The device
    #[arg(value_name = "ID")]
    pub id: String,
    /// Only changes written since then: `1h`, `2days`, or a moment such as `2026-01-31T12:00:00Z`
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    pub since: Option<Since>,
    /// Only the latest so many
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    pub limit: usize,
}

/// A change, and the record that tells of it.
struct Told {
    change: StatusChange,
    offset: i64,
    written_ms: i64,
}

/// What was found.
struct Found {
    partition: i32,
    /// The latest, oldest first.
    changes: VecDeque<Told>,
    /// How many came before these.
    before: usize,
    /// Records of the device that are no changes, as far as we know.
    unreadable: Vec<String>,
}

/// Does it.
///
/// # Errors
/// When Kafka cannot be read, or has no change of the device.
pub fn run(args: &Args, config: &Config, json: bool) -> Result<(), Fatal> {
    let device = device_id(&args.id)?;
    let found = find(args, config, &device)?;
    for what in &found.unreadable {
        eprintln!("passed over: {what}");
    }
    if found.changes.is_empty() && found.before == 0 {
        let since = if args.since.is_some() { " in that time" } else { "" };
        return Err(Fatal::not_found(format!(
            "{} has no change of a device {:?}{since}. It keeps changes as long as its \
             retention.ms says; device-status explain tells what is known of the device now",
            config.topics.status_changes,
            device.to_string()
        )));
    }
    let text =
        if json { lines(&found) } else { table(&device, &found, is_coloured(&io::stdout())) };
    print(&text)
}

fn find(args: &Args, config: &Config, device: &DeviceId) -> Result<Found, Fatal> {
    let topic = &config.topics.status_changes;
    let reader = Reader::new(config, "history")?;
    let partitions = reader.partitions(topic, "topics.status_changes")?;
    // Changes are partitioned by their key, however the inputs are.
    let key = device.to_string();
    let count = i32::try_from(partitions.len()).unwrap_or(i32::MAX);
    let partition = partition_of(key.as_bytes(), count);
    let since = args.since.map(Since::instant);
    let ranges: Ranges = reader.ranges(topic, &[partition], since)?;
    let mut found =
        Found { partition, changes: VecDeque::new(), before: 0, unreadable: Vec::new() };
    reader.read(topic, ranges, &mut |message| {
        if message.key() != Some(key.as_bytes()) {
            return;
        }
        let offset = message.offset();
        let change = match message.payload().map(status_changed::decode) {
            Some(Ok(change)) => change,
            Some(Err(what)) => return found.unreadable.push(format!("offset {offset}: {what}")),
            None => return found.unreadable.push(format!("offset {offset}: it is empty")),
        };
        // With `at_least_once` a change may be written again.
        if found.changes.back().is_some_and(|last| last.change == change) {
            return;
        }
        let written_ms = message.timestamp().to_millis().unwrap_or_default();
        found.changes.push_back(Told { change, offset, written_ms });
        if found.changes.len() > args.limit {
            found.changes.pop_front();
            found.before += 1;
        }
    })?;
    Ok(found)
}

/// For programs: a change a line.
fn lines(found: &Found) -> String {
    found.changes.iter().map(|told| format!("{}\n", json_of(told, found.partition))).collect()
}

fn json_of(told: &Told, partition: i32) -> Value {
    let change = &told.change;
    let mut value = change_json(change);
    let more = json!({
        "device": change.device.to_string(),
        "fleet": change.fleet.as_deref(),
        "organization": change.organization.as_deref(),
        "heartbeat": change.heartbeat_state.wire_name(),
        "heartbeat_ms": change.last_heartbeat.map(|at| at.0),
        "vpn": if change.vpn_connected { "up" } else { "down" },
        "progress": change.progress,
        "deleted": change.current.is_none(),
        "written_ms": told.written_ms,
        "partition": partition,
        "offset": told.offset,
    });
    if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
        value.extend(more);
    }
    value
}

fn table(device: &DeviceId, found: &Found, colour: bool) -> String {
    let style = Style { colour };
    let mut text = format!("{}\n", style.strong(&printable(&device.to_string())));
    if let Some(earlier) = earlier(found) {
        let _ = writeln!(text, "  {}", style.faint(&earlier));
    }
    let mut fleet = None;
    for told in &found.changes {
        let change = &told.change;
        if fleet != Some(&change.fleet) {
            fleet = Some(&change.fleet);
            let name = change.fleet.as_deref().map_or_else(|| "none".to_owned(), printable);
            let _ = writeln!(text, "  {}", style.faint(&format!("fleet {name}")));
        }
        let line = change_line(change, style);
        let late_ms = told.written_ms - change.since.max(change.connectivity_since).0;
        let late = match late_ms > LATE_MS {
            true => style.faint(&format!("  (known {})", moment(told.written_ms))),
            false => String::new(),
        };
        let _ = writeln!(text, "    {line}{late}");
    }
    text
}

/// A change that became known later than this after it happened is told so.
const LATE_MS: i64 = 60_000;

/// What is not shown of the beginning.
fn earlier(found: &Found) -> Option<String> {
    match (found.before, found.changes.front()?.change.version) {
        (0, 1) => None,
        (0, version) => Some(format!("versions 1 to {} were not found", version - 1)),
        (count, _) => Some(format!("{count} earlier: say --limit {}", count + found.changes.len())),
    }
}
