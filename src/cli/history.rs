//! `device-status history ID`: shows the status changes of a device, from their
//! topic.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io;

use rdkafka::message::Message as _;
use serde_json::{Value, json};

use super::explain::{change_json, change_line, device_id};
use super::reading::{Ranges, Reader};
use super::since::{Since, parse_since};
use super::text::{Style, is_coloured, moment, print, printable, say};
use crate::config::Config;
use crate::error::Fatal;
use crate::shard::{DeviceId, StatusChange, UpdateOutcome, UpdatePhase};
use crate::wire::murmur2::partition_of;
use crate::wire::status_changed;

/// `device-status history …`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The device
    #[arg(value_name = "ID")]
    pub id: String,
    /// Only changes written since then: `1h`, `2days`, or a time such as
    /// `2026-01-31T12:00:00Z`
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    pub since: Option<Since>,
    /// At most this many of the latest changes
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    pub limit: usize,
}

/// A change, and where its record is.
struct Told {
    change: StatusChange,
    offset: i64,
    written_ms: i64,
}

/// The changes that were found.
struct History {
    partition: i32,
    /// The latest, oldest first.
    changes: VecDeque<Told>,
    /// How many earlier ones were left out.
    before: usize,
    /// Records of the device that cannot be decoded.
    unreadable: Vec<String>,
}

impl History {
    /// Takes the next change. With `at_least_once` some may be written again, in
    /// the same order: these are skipped.
    fn take(&mut self, told: Told, limit: usize) {
        let version = told.change.version;
        let mut not_before =
            self.changes.iter().rev().take_while(|earlier| earlier.change.version >= version);
        if not_before.any(|earlier| earlier.change == told.change) {
            return;
        }
        self.changes.push_back(told);
        if self.changes.len() > limit {
            self.changes.pop_front();
            self.before += 1;
        }
    }
}

/// Runs the command.
///
/// # Errors
/// When Kafka cannot be read, or has no change of the device.
pub fn run(args: &Args, config: &Config, json: bool) -> Result<(), Fatal> {
    let device = device_id(&args.id)?;
    let found = find(args, config, &device)?;
    for what in &found.unreadable {
        say(&format!("skipped: {what}"));
    }
    if found.changes.is_empty() && found.before == 0 {
        let since = if args.since.is_some() { " in that time" } else { "" };
        return Err(Fatal::not_found(format!(
            "{} has no change of a device {:?}{since}. Changes are kept for the retention.ms of \
             the topic; device-status explain shows what is known of the device now",
            config.topics.status_changes,
            device.to_string()
        )));
    }
    let text =
        if json { lines(&found) } else { table(&device, &found, is_coloured(&io::stdout())) };
    print(&text)
}

fn find(args: &Args, config: &Config, device: &DeviceId) -> Result<History, Fatal> {
    let topic = &config.topics.status_changes;
    let reader = Reader::new(config, "history")?;
    let partitions = reader.partitions(topic, "topics.status_changes")?;
    // Changes are always partitioned by their key, whatever the inputs are
    // partitioned by.
    let key = device.to_string();
    let count = i32::try_from(partitions.len()).unwrap_or(i32::MAX);
    let partition = partition_of(key.as_bytes(), count);
    let since = args.since.map(Since::instant);
    let ranges: Ranges = reader.ranges(topic, &[partition], since)?;
    let mut found =
        History { partition, changes: VecDeque::new(), before: 0, unreadable: Vec::new() };
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
        let written_ms = message.timestamp().to_millis().unwrap_or_default();
        found.take(Told { change, offset, written_ms }, args.limit);
    })?;
    Ok(found)
}

/// One JSON object for each change.
fn lines(found: &History) -> String {
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
        "release": change.release.as_deref(),
        "update_phase": change.update_phase.map(UpdatePhase::wire_name),
        "update_outcome": change.update_outcome.map(UpdateOutcome::wire_name),
        "update_since_ms": change.update_since.map(|at| at.0),
        "membership_since_ms": change.membership_since.0,
        "previous_fleet": change.previous_fleet.as_deref(),
        "previous_organization": change.previous_organization.as_deref(),
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

fn table(device: &DeviceId, found: &History, colour: bool) -> String {
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

/// A change that became known later than this after it happened is marked as late.
const LATE_MS: i64 = 60_000;

/// A note about earlier changes that are not shown.
fn earlier(found: &History) -> Option<String> {
    match (found.before, found.changes.front()?.change.version) {
        (0, 1) => None,
        (0, version) => Some(format!("versions 1 to {} were not found", version - 1)),
        (count, _) => Some(format!("{count} earlier: say --limit {}", count + found.changes.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::{Cause, Connectivity, Status, Timestamp};

    fn told(version: u64, cause: Cause, offset: i64) -> Told {
        let change = StatusChange {
            version,
            cause,
            ..StatusChange::first(
                DeviceId::from_key(b"oven").unwrap(),
                Timestamp(1_000),
                (Status::Online, Connectivity::Full),
            )
        };
        Told { change, offset, written_ms: 2_000 }
    }

    fn found(all: &[(u64, Cause)], limit: usize) -> History {
        let mut found =
            History { partition: 0, changes: VecDeque::new(), before: 0, unreadable: Vec::new() };
        for (offset, (version, cause)) in (0..).zip(all) {
            found.take(told(*version, *cause, offset), limit);
        }
        found
    }

    fn offsets(found: &History) -> Vec<i64> {
        found.changes.iter().map(|told| told.offset).collect()
    }

    #[test]
    fn repeated_changes_are_shown_once_and_a_new_life_is_shown() {
        use Cause::{Deleted, Heartbeat, VpnOpened};
        let all = [(1, Heartbeat), (2, VpnOpened), (1, Heartbeat), (2, VpnOpened), (3, Deleted)];
        assert_eq!(offsets(&found(&all, 9)), [0, 1, 4]);
        // A device that was forgotten counts from 1 again.
        let all = [(1, Heartbeat), (2, Deleted), (1, VpnOpened), (2, Heartbeat)];
        assert_eq!(offsets(&found(&all, 9)), [0, 1, 2, 3]);
    }

    #[test]
    fn omitted_earlier_changes_are_noted() {
        let four: Vec<_> = (1..5).map(|version| (version, Cause::Heartbeat)).collect();
        assert_eq!(earlier(&found(&four, 9)), None);
        let latest = found(&four, 2);
        assert_eq!(offsets(&latest), [2, 3]);
        assert_eq!(earlier(&latest).unwrap(), "2 earlier: say --limit 4");
        assert_eq!(earlier(&found(&four[2..], 9)).unwrap(), "versions 1 to 2 were not found");
    }

    #[test]
    fn a_change_that_became_known_late_says_when() {
        let device = DeviceId::from_key(b"oven").unwrap();
        let mut late = found(&[(1, Cause::Heartbeat)], 9);
        assert!(!table(&device, &late, false).contains("known"));
        late.changes[0].written_ms = 1_000 + LATE_MS + 1;
        let text = table(&device, &late, false);
        assert!(text.contains("heartbeat  (known 1970-01-01T00:01:01.001Z)\n"), "{text}");
        assert!(!text.contains('\x1b'));
        assert!(table(&device, &late, true).contains("\x1b[1;32monline full"));
    }
}
