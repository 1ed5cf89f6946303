//! Judges what was written by what was read, and by nothing else: its own
//! simple model of a device, from the text of the rules, without any code of
//! the core.

mod model;
mod moments;
mod sessions;

use std::collections::{BTreeMap, BTreeSet};

use device_status::shard::{Input, Rules};
use device_status::wire::dead_letter::HEADER_REPLAYED;
use device_status::wire::headers::HEADER_SOURCE_TIMESTAMP;
use device_status::wire::murmur2::partition_of;
use device_status::wire::proto::changelog;
use device_status::wire::proto::v1::{
    self, Cause, Connectivity, Status, lifecycle_event as lifecycle, vpn_event as vpn,
};
use prost::Message as _;

use self::model::{Model, Shown, span_ms};
use self::moments::Moment;

use crate::kafka::{Kafka, Record, Topic};
use crate::redis::{Hash, Held, Keyspace};
use crate::workload::{ABSURD, BAD};
use crate::world::Plan;

/// A gap in the heartbeats that a clock may overlook when it stands behind:
/// as far as an event may carry the judging of its row, and the slack.
const OVERLOOKED_MS: i64 = 12_500;

pub struct Observed<'a> {
    pub kafka: &'a Kafka,
    /// The hashes that Redis holds, and all keys.
    pub redis: &'a BTreeMap<String, Hash>,
    pub keyspace: &'a Keyspace,
    /// From when until when somebody did not reach the brokers, at most, or heard
    /// nothing of an input for too long.
    pub unreachable: &'a [(i64, i64)],
    pub now: i64,
}

/// A status change as it was written.
struct Change {
    partition_offset: (i32, i64),
    transaction: Option<u64>,
    /// Which commit of the cluster it came with.
    commit: Option<u64>,
    value: v1::StatusChanged,
}

/// What was said, and when it was written.
struct Said<T> {
    offset: i64,
    /// By event time, no later than the record's.
    at: i64,
    /// The record's stamp.
    written_at: i64,
    /// When its sender lived, by the record or by its source's; not of one that was a
    /// dead letter.
    sent_at: Option<i64>,
    appended_at: i64,
    event: T,
}

#[derive(Default)]
struct Device {
    partition: i32,
    heartbeats: Vec<Said<Option<i64>>>,
    /// Offsets of heartbeats by which it said that it goes down.
    going_away: BTreeSet<i64>,
    vpn: Vec<Said<vpn::Event>>,
    lifecycle: Vec<Said<lifecycle::Event>>,
    changes: Vec<Change>,
    /// A record of it had a stamp that nobody believes.
    absurd: bool,
}

#[derive(Default)]
struct Scopes {
    vpn: Vec<Said<vpn::Event>>,
    lifecycle: Vec<Said<lifecycle::Event>>,
}

fn ms(timestamp: Option<&prost_types::Timestamp>) -> Option<i64> {
    timestamp.map(|at| at.seconds * 1_000 + i64::from(at.nanos) / 1_000_000)
}

fn duration_ms(duration: &prost_types::Duration) -> i64 {
    duration.seconds * 1_000 + i64::from(duration.nanos) / 1_000_000
}

/// Poll intervals are in whole seconds.
fn poll_interval_ms(duration: &prost_types::Duration) -> i64 {
    (duration.seconds + i64::from(duration.nanos > 0)) * 1_000
}

fn is_bad(record: &Record) -> bool {
    record.message.headers.iter().any(|(name, _)| name == BAD)
}

/// Everything that can be told from the topics.
pub fn audit(
    observed: &Observed<'_>,
    plan: &Plan,
    counts: &mut BTreeMap<&'static str, u64>,
) -> Result<(), String> {
    let (mut devices, scopes) = read_inputs(observed.kafka);
    read_changes(observed.kafka, &mut devices)?;
    dead_letters(observed.kafka, plan, counts)?;
    let committed = moments::committed(observed.kafka)?;
    if !plan.at_least_once {
        owners(observed.kafka, &devices)?;
        moments::moments(observed.kafka, &committed, &devices, &scopes, plan, counts)?;
    }
    for (id, device) in &devices {
        let moments = committed.get(&device.partition).map_or(&[][..], Vec::as_slice);
        let scopes = &scopes[&device.partition];
        let audit = DeviceAudit { id, device, scopes, moments, plan };
        let clock = committed_clock(observed.kafka, device.partition)?;
        if plan.at_least_once {
            audit.repeated_sequence(counts)?;
        } else {
            audit.sequence()?;
        }
        if !device.absurd {
            audit.expiries(counts)?;
            if !plan.at_least_once {
                audit.plain_sequence(clock, observed, counts)?;
            }
            audit.last(clock, observed.now, counts)?;
        }
        audit.view(observed.redis)?;
        *counts.entry("changes").or_default() += device.changes.len() as u64;
    }
    let swept = plan.view.refresh_interval_ms > 0;
    fleets(&devices, observed.redis, swept)?;
    if swept {
        strays(&devices, observed)?;
        if plan.view.members {
            members(&devices, observed)?;
        }
    }
    Ok(())
}

/// Whether a device's last change is this version, and it was not deleted.
pub fn is_shown(kafka: &Kafka, id: &str, partition: i32, version: u64) -> bool {
    let of = |record: &Record| record.message.key.as_deref() == Some(id.as_bytes());
    let mut last = None;
    for changes in 0..kafka.changes_partitions {
        let decided = kafka.decided((Topic::Changes, changes));
        last = decided.filter(|record| of(record)).last().or(last);
    }
    let value = last.and_then(|record| record.message.value.as_deref());
    partition == partition_of(id.as_bytes(), kafka.partitions)
        && value
            .and_then(|value| v1::StatusChanged::decode(value).ok())
            .is_some_and(|last| !last.deleted && last.version == version)
}

/// Once swept, the view holds nothing of what does not exist, but for tokens of
/// the deleted and what has no token, which is nobody's.
fn strays(devices: &BTreeMap<String, Device>, observed: &Observed<'_>) -> Result<(), String> {
    for (key, held) in observed.redis {
        let Some(token) = held.get("token") else { continue };
        let Some(id) = key.strip_prefix("ds:device:") else { continue };
        let lives = devices.get(id).is_some_and(|device| {
            device.changes.last().is_some_and(|change| !change.value.deleted)
        });
        if !lives && held.contains_key("status") {
            return Err(format!("{key} ({token}) is nobody's, and is still there: {held:?}"));
        }
        if lives && (held.len() != 17 || held.contains_key("extra")) {
            return Err(format!("{key} holds what it should not: {held:?}"));
        }
    }
    Ok(())
}

/// Once swept, the member sets say what the hashes say.
fn members(devices: &BTreeMap<String, Device>, observed: &Observed<'_>) -> Result<(), String> {
    let mut expected: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (id, device) in devices {
        // What has no token is nobody's (rule V6).
        let held = observed.redis.get(&format!("ds:device:{id}"));
        let held = held.filter(|held| held.contains_key("token"));
        let Some((held, status)) = held.and_then(|held| Some((held, held.get("status")?))) else {
            continue;
        };
        let fleet = held.get("fleet").cloned().unwrap_or_default();
        let key = format!("ds:fleet:{fleet}:{}:members:{status}", device.partition);
        expected.entry(key).or_default().insert(id.clone());
    }
    let mut found = BTreeMap::new();
    for (key, held) in observed.keyspace.iter().filter(|(key, _)| key.contains(":members:")) {
        if let Held::Set(set) = &held.held {
            found.insert(key.clone(), set.clone());
        }
    }
    match expected == found {
        true => Ok(()),
        false => Err(format!("the member sets are {found:?}, not {expected:?}")),
    }
}

fn read_inputs(kafka: &Kafka) -> (BTreeMap<String, Device>, BTreeMap<i32, Scopes>) {
    let mut devices: BTreeMap<String, Device> = BTreeMap::new();
    let mut scopes: BTreeMap<i32, Scopes> = BTreeMap::new();
    for partition in 0..kafka.partitions {
        let scope = scopes.entry(partition).or_default();
        for input in Input::ALL {
            for record in kafka.log((Topic::Input(input), partition)).committed() {
                if is_bad(record) {
                    continue;
                }
                let (offset, written_at, appended_at) =
                    (record.offset, record.timestamp, record.appended_at);
                let key = record.message.key.as_deref();
                let id = key.map(|key| String::from_utf8_lossy(key).into_owned());
                let value = record.message.value.as_deref();
                let device = id.map(|id| {
                    let device = devices.entry(id).or_default();
                    device.partition = partition;
                    let mut headers = record.message.headers.iter();
                    device.absurd |= headers.any(|(name, _)| name == ABSURD);
                    device
                });
                let said =
                    |name: &str| record.message.headers.iter().find(|(header, _)| header == name);
                let source = said(HEADER_SOURCE_TIMESTAMP).and_then(|(_, value)| {
                    std::str::from_utf8(value.as_deref()?).ok()?.parse::<i64>().ok()
                });
                let sent_at = source.map_or(written_at, |source| source.min(written_at));
                let sent_at = Some(sent_at).filter(|_| said(HEADER_REPLAYED).is_none());
                let when = |at: Option<i64>| at.unwrap_or(written_at).min(written_at);
                match input {
                    Input::Heartbeats => {
                        let message = v1::Heartbeat::decode(value.unwrap()).unwrap();
                        let event = message.poll_interval.as_ref().map(poll_interval_ms);
                        let at = when(ms(message.occurred_at.as_ref()));
                        let device = device.unwrap();
                        if message.going_away {
                            device.going_away.insert(offset);
                        }
                        device.heartbeats.push(Said {
                            offset,
                            at,
                            written_at,
                            sent_at,
                            appended_at,
                            event,
                        });
                    }
                    Input::VpnSessions => {
                        let message = v1::VpnEvent::decode(value.unwrap()).unwrap();
                        let at = when(ms(message.occurred_at.as_ref()));
                        let said = Said {
                            offset,
                            at,
                            written_at,
                            sent_at,
                            appended_at,
                            event: message.event.unwrap(),
                        };
                        device.map_or(&mut scope.vpn, |device| &mut device.vpn).push(said);
                    }
                    Input::Lifecycle => {
                        let (at, event) = match value {
                            None => (written_at, lifecycle::Event::Deleted(v1::Deleted {})),
                            Some(value) => {
                                let message = v1::LifecycleEvent::decode(value).unwrap();
                                (when(ms(message.occurred_at.as_ref())), message.event.unwrap())
                            }
                        };
                        let said = Said { offset, at, written_at, sent_at, appended_at, event };
                        device
                            .map_or(&mut scope.lifecycle, |device| &mut device.lifecycle)
                            .push(said);
                    }
                }
            }
        }
    }
    (devices, scopes)
}

fn read_changes(kafka: &Kafka, devices: &mut BTreeMap<String, Device>) -> Result<(), String> {
    for partition in 0..kafka.changes_partitions {
        for record in kafka.log((Topic::Changes, partition)).committed() {
            let value = v1::StatusChanged::decode(record.message.value.as_deref().unwrap_or(b""))
                .map_err(|error| format!("a change that cannot be read: {error}"))?;
            let id = value.device_id.clone();
            if record.message.key.as_deref() != Some(id.as_bytes()) {
                return Err(format!("a change of {id} under another key"));
            }
            let Some(device) = devices.get_mut(&id) else {
                return Err(format!("a change of {id}, of whom nothing was said"));
            };
            let partition_offset = (partition, record.offset);
            let transaction = record.transaction;
            let commit = transaction.and_then(|id| kafka.transactions.get(&id)?.committed);
            device.changes.push(Change { partition_offset, transaction, commit, value });
        }
    }
    Ok(())
}

/// Every bad record that was committed became one dead letter, and nothing
/// else did.
fn dead_letters(
    kafka: &Kafka,
    plan: &Plan,
    counts: &mut BTreeMap<&'static str, u64>,
) -> Result<(), String> {
    let mut expected = BTreeSet::new();
    for partition in 0..kafka.partitions {
        for input in Input::ALL {
            let log = kafka.log((Topic::Input(input), partition));
            let bad = log.committed().filter(|record| is_bad(record));
            expected.extend(bad.map(|record| {
                (input.name().to_owned(), partition.to_string(), record.offset.to_string())
            }));
        }
    }
    *counts.entry("dead letters").or_default() += expected.len() as u64;
    // What is read again is refused again.
    let again = plan.at_least_once || plan.faults.offsets_lost_per_s > 0.0;
    let mut seen = BTreeSet::new();
    for record in kafka.log((Topic::DeadLetters, 0)).committed() {
        let header = |name: &str| {
            let name = format!("__streams.errors.{name}");
            let found = record.message.headers.iter().find(|(key, _)| *key == name);
            let value = found.and_then(|(_, value)| value.clone()).unwrap_or_default();
            String::from_utf8_lossy(&value).into_owned()
        };
        let origin = (header("topic"), header("partition"), header("offset"));
        if expected.remove(&origin) {
            seen.insert(origin);
        } else if !again || !seen.contains(&origin) {
            let why = header("message");
            return Err(format!("a dead letter of {origin:?} ({why}): not bad, or the second one"));
        }
    }
    match expected.first() {
        Some(missing) => Err(format!("no dead letter of {missing:?}")),
        None => Ok(()),
    }
}

/// Who owned each shard when: by the epochs in its changelog. Nobody else
/// writes to it, and nobody else writes changes of its devices.
fn owners(kafka: &Kafka, devices: &BTreeMap<String, Device>) -> Result<(), String> {
    let commit_of = |transaction: Option<u64>| {
        let info = transaction.and_then(|id| kafka.transactions.get(&id));
        info.and_then(|info| Some((info.committed?, info.producer.clone())))
            .ok_or("output outside of a committed transaction")
    };
    // By partition: from which commit on, who.
    let mut owners: BTreeMap<i32, Vec<(u64, String)>> = BTreeMap::new();
    for partition in 0..kafka.partitions {
        let mut owner = None;
        let mut epoch = 0;
        for record in kafka.log((Topic::Changelog, partition)).committed() {
            let (commit, producer) = commit_of(record.transaction)?;
            if record.message.key.as_deref() == Some(b"e") {
                let value = record.message.value.as_deref().unwrap_or(b"");
                let next = changelog::Epoch::decode(value).map_err(|e| e.to_string())?.epoch;
                if next < epoch {
                    return Err(format!("changelog {partition}: epoch {next} after {epoch}"));
                }
                if next > epoch {
                    owner = Some(producer.clone());
                    owners.entry(partition).or_default().push((commit, producer.clone()));
                }
                epoch = next;
            }
            if owner.as_ref() != Some(&producer) {
                return Err(format!(
                    "changelog {partition} offset {}: written by {producer}, owned by {owner:?}",
                    record.offset
                ));
            }
        }
    }
    for (id, device) in devices {
        for change in &device.changes {
            let (commit, producer) = commit_of(change.transaction)?;
            let mut held = owners.get(&device.partition).into_iter().flatten();
            let owner = held.rfind(|(from, _)| *from <= commit);
            if owner.is_none_or(|(_, owner)| *owner != producer) {
                return Err(format!(
                    "change {:?} of {id}: written by {producer}, owned by {owner:?}",
                    change.partition_offset
                ));
            }
        }
    }
    Ok(())
}

/// The clock that was committed last.
fn committed_clock(kafka: &Kafka, partition: i32) -> Result<i64, String> {
    let mut latest = None;
    for input in Input::ALL {
        let Some(committed) = kafka.offsets.get(&(input, partition)) else { continue };
        let fields: Vec<&str> = committed.metadata.split(';').collect();
        let number = |index: usize| fields[index].parse::<i64>().unwrap_or(0);
        latest = latest.max(Some((number(3), number(4), number(1))));
    }
    latest.map(|(.., clock)| clock).ok_or_else(|| format!("nothing committed of {partition}"))
}

/// The intervals that a device was ever told to keep.
fn settings_of(device: &Device, scopes: &Scopes, rules: &Rules) -> Vec<i64> {
    let mut all = vec![rules.default_poll_interval_ms];
    for said in device.lifecycle.iter().chain(&scopes.lifecycle) {
        let interval = match &said.event {
            lifecycle::Event::SettingsChanged(settings) => settings.poll_interval.as_ref(),
            lifecycle::Event::FleetSettingsChanged(settings) => settings.poll_interval.as_ref(),
            _ => None,
        };
        all.extend(interval.map(poll_interval_ms));
    }
    all
}

struct DeviceAudit<'a> {
    id: &'a str,
    device: &'a Device,
    scopes: &'a Scopes,
    moments: &'a [Moment],
    plan: &'a Plan,
}

impl DeviceAudit<'_> {
    /// Versions count, each change begins where the one before ended, and
    /// nothing goes back.
    fn sequence(&self) -> Result<(), String> {
        let mut shown: Option<(i32, i32)> = None;
        let mut membership = ("", "");
        let (mut since, mut connectivity_since) = (i64::MIN, i64::MIN);
        let mut membership_since = i64::MIN;
        for (index, change) in self.device.changes.iter().enumerate() {
            let value = &change.value;
            let here = format!("change {} of {} ({value:?})", index + 1, self.id);
            if value.version != index as u64 + 1 {
                return Err(format!("{here}: version {}", value.version));
            }
            let previous = (value.previous_status, value.previous_connectivity);
            if previous != shown.unwrap_or((0, 0)) {
                return Err(format!("{here}: the one before left {shown:?}"));
            }
            let current = (value.status, value.connectivity);
            if value.deleted != (current == (0, 0)) {
                return Err(format!("{here}: deleted, or not"));
            }
            // Where it belongs is part of what is told (rule J8).
            let before = if shown.is_some() { membership } else { ("", "") };
            if (value.previous_fleet.as_str(), value.previous_organization.as_str()) != before {
                return Err(format!("{here}: the one before left it in {before:?}"));
            }
            let belongs = (value.fleet.as_str(), value.organization.as_str());
            let moved_only = Some(current) == shown;
            if moved_only && belongs == before || value.deleted && shown.is_none() {
                return Err(format!("{here}: nothing changed"));
            }
            if value.deleted && belongs != before {
                return Err(format!("{here}: ended elsewhere than in {before:?}"));
            }
            if moved_only && value.cause() != Cause::Moved {
                return Err(format!("{here}: a move, and nothing else"));
            }
            let vpns = value.cause().as_str_name().starts_with("CAUSE_VPN_");
            if vpns == value.vpn_instance.is_empty() && !self.was_let_go_of(value) {
                return Err(format!("{here}: which VPN instance?"));
            }
            let next_membership_since = ms(value.membership_since.as_ref()).unwrap_or(i64::MIN);
            if next_membership_since < membership_since {
                return Err(format!("{here}: belongs there since before {membership_since}"));
            }
            membership_since = next_membership_since;
            membership = belongs;
            shown = (!value.deleted).then_some(current);
            let dates = (ms(value.since.as_ref()), ms(value.connectivity_since.as_ref()));
            let (Some(next_since), Some(next_connectivity_since)) = dates else {
                return Err(format!("{here}: without a date"));
            };
            if next_since < since || next_connectivity_since < connectivity_since {
                return Err(format!("{here}: goes back from {since}, {connectivity_since}"));
            }
            (since, connectivity_since) = (next_since, next_connectivity_since);
        }
        Ok(())
    }

    fn span_ms(&self, interval_ms: i64) -> i64 {
        span_ms(&self.plan.rules, interval_ms)
    }

    fn model(&self, clock: i64) -> Shown {
        Model::whole(&self.plan.rules, self.device, self.scopes).shown(clock, clock)
    }

    /// Whether the session that a change is dated by may be kept no more: a loss or a
    /// start of its instance ruled it out after it was opened (rules J4, J8).
    fn was_let_go_of(&self, change: &v1::StatusChanged) -> bool {
        let dates = [ms(change.since.as_ref()), ms(change.connectivity_since.as_ref())];
        let ends = |instance: &str, opened: i64| {
            self.scopes.vpn.iter().any(|said| match &said.event {
                vpn::Event::InstanceLost(event) => event.instance == instance && said.at >= opened,
                vpn::Event::InstanceAlive(event) => {
                    event.instance == instance && ms(event.started_at.as_ref()) > Some(opened)
                }
                _ => false,
            })
        };
        change.cause() == Cause::VpnOpened
            && self.device.vpn.iter().any(|said| match &said.event {
                vpn::Event::SessionOpened(event) => {
                    let since = ms(event.opened_at.as_ref());
                    (dates.contains(&Some(said.at)) || since.is_some() && dates.contains(&since))
                        && ends(&event.instance, said.at)
                }
                _ => false,
            })
    }

    /// At least once: some changes may come again, and the second time not the
    /// same; but none is left out.
    fn repeated_sequence(&self, counts: &mut BTreeMap<&'static str, u64>) -> Result<(), String> {
        let mut most = 0;
        for change in &self.device.changes {
            let value = &change.value;
            if value.version > most + 1 {
                let id = self.id;
                return Err(format!("version {} of {id} follows {most}: {value:?}", value.version));
            }
            if value.version <= most {
                *counts.entry("repeated changes").or_default() += 1;
            }
            // A batch that is sent again may be cut short by a crash, and what comes
            // next follows on what was sent before.
            most = most.max(value.version);
        }
        Ok(())
    }

    /// The intervals that a heartbeat may have been judged by.
    fn intervals(&self, carried: Option<i64>) -> Vec<i64> {
        match carried {
            Some(carried) => vec![carried],
            None => settings_of(self.device, self.scopes, &self.plan.rules),
        }
    }

    /// An expiry is dated by its heartbeat, and no heartbeat speaks against it.
    fn expiries(&self, counts: &mut BTreeMap<&'static str, u64>) -> Result<(), String> {
        let mut before = BTreeSet::new();
        for change in &self.device.changes {
            let value = &change.value;
            let since = ms(value.since.as_ref()).unwrap_or(0);
            let connectivity_since = ms(value.connectivity_since.as_ref()).unwrap_or(0);
            let same_status = value.previous_status == value.status;
            let date = if same_status { connectivity_since } else { since };
            let first = before.insert(date);
            before.extend([since, connectivity_since]);
            let grace = match value.cause() {
                Cause::HeartbeatExpired => self.plan.rules.grace_ms,
                Cause::HeartbeatTimedOut => 0,
                _ => continue,
            };
            *counts.entry("expiries").or_default() += 1;
            let here = format!("{} of {} ({value:?})", value.cause().as_str_name(), self.id);
            let Some(last) = ms(value.last_heartbeat.as_ref()) else {
                return Err(format!("{here}: no heartbeat"));
            };
            let found: Vec<_> =
                self.device.heartbeats.iter().filter(|said| said.at == last).collect();
            if found.is_empty() {
                let known: Vec<_> = self
                    .device
                    .heartbeats
                    .iter()
                    .map(|said| (said.offset, said.at, said.appended_at))
                    .collect();
                return Err(format!("{here}: there was no heartbeat at {last}, of {known:?}"));
            }
            let deadlines: Vec<i64> = found
                .iter()
                .flat_map(|said| self.intervals(said.event))
                .map(|interval| last + self.span_ms(interval) + grace)
                .collect();
            if !deadlines.contains(&date) && first {
                return Err(format!("{here}: dated {date}, due at one of {deadlines:?}"));
            }
            // Where another input ran ahead, the change before is dated later than
            // this deadline, and this one no earlier than that (rule J9). Then a
            // heartbeat after the deadline says nothing against it; and which of
            // the deadlines it was, by the settings of then, is not to be told.
            let mut dues = vec![date];
            if !deadlines.contains(&date) {
                let expiries = deadlines.iter().map(|due| due - grace + self.plan.rules.grace_ms);
                dues =
                    deadlines.iter().copied().chain(expiries).filter(|due| *due <= date).collect();
                dues.extend(deadlines.iter().all(|due| *due > date).then_some(date));
            }
            let against: Option<Vec<_>> =
                dues.into_iter().map(|due| self.heartbeat_against(last, due)).collect();
            if let Some(said) = against.and_then(|against| against.into_iter().next()) {
                return Err(format!(
                    "{here}: a heartbeat at {} was written at {}",
                    said.at, said.appended_at
                ));
            }
        }
        Ok(())
    }

    /// A heartbeat after `last` that had been written in time for a deadline.
    fn heartbeat_against(&self, last: i64, due: i64) -> Option<&Said<Option<i64>>> {
        let between = |said: &&Said<Option<i64>>| last < said.at && said.at < due;
        self.device.heartbeats.iter().filter(between).find(|said| {
            // Another input's event may carry the judging of its row ahead.
            let others = self.device.vpn.iter().map(|said| (said.at, said.appended_at));
            let others = others.chain(self.device.lifecycle.iter().map(|s| (s.at, s.appended_at)));
            let scopes = self.scopes.vpn.iter().map(|said| (said.at, said.appended_at));
            let scopes = scopes.chain(self.scopes.lifecycle.iter().map(|s| (s.at, s.appended_at)));
            let carried = others.chain(scopes).any(|(at, written_at)| {
                at >= due - 1 && written_at >= said.appended_at && written_at < due + 30_000
            });
            said.appended_at <= if carried { due - OVERLOOKED_MS } else { due }
        })
    }

    /// A device that only polls, in time: every change is known beforehand.
    fn plain_sequence(
        &self,
        clock: i64,
        observed: &Observed<'_>,
        counts: &mut BTreeMap<&'static str, u64>,
    ) -> Result<(), String> {
        let now = observed.now;
        let Device { heartbeats, vpn, lifecycle, changes, .. } = self.device;
        let in_time = |said: &Said<Option<i64>>| {
            said.event.is_some() && said.appended_at - said.at < self.plan.rules.slack_ms
        };
        let rising = heartbeats.windows(2).all(|pair| pair[0].at < pair[1].at);
        if !vpn.is_empty() || !lifecycle.is_empty() || !rising || !heartbeats.iter().all(in_time) {
            return Ok(());
        }
        *counts.entry("plain devices").or_default() += 1;
        let mut changes = changes.iter().map(|change| {
            let value = &change.value;
            (value.status(), value.connectivity(), ms(value.since.as_ref()).unwrap_or(0))
        });
        let mut changes = changes.by_ref().peekable();
        let online = (Status::Online, Connectivity::HeartbeatOnly);
        let offline = (Status::Offline, Connectivity::None);
        let mut shown = None;
        let open = moments::open_transactions(observed.kafka, self.device.partition);
        for (index, said) in heartbeats.iter().enumerate() {
            if shown != Some(online) {
                let expected = (online.0, online.1, said.at);
                let found = changes.next();
                if found != Some(expected) {
                    return Err(format!("{}: expected {expected:?}, found {found:?}", self.id));
                }
                shown = Some(online);
            }
            let carried = said.event.unwrap_or(0);
            let deadline = said.at + self.span_ms(carried) + self.plan.rules.grace_ms;
            let following = heartbeats.get(index + 1);
            let next = following.map(|next| next.at);
            let behind = following
                .is_some_and(|next| moments::was_behind(self.moments, deadline, next.offset));
            let cut_off = following.is_some_and(|next| {
                [observed.unreachable, &open]
                    .into_iter()
                    .any(|spans| moments::was_cut_off(self.moments, next.offset, spans))
            });
            let expected = (offline.0, offline.1, deadline);
            let found = changes.peek() == Some(&expected);
            let may = next.map_or(deadline <= now, |next| deadline <= next);
            let must = next.map_or(deadline <= clock, |next| deadline + OVERLOOKED_MS < next);
            if found && may {
                changes.next();
                shown = Some(offline);
            } else if must && behind && cut_off {
                // An input that could not be read was passed over, or an open
                // transaction held the clock and nobody's records (rule T4).
                *counts.entry("overlooked").or_default() += 1;
            } else if must {
                let found = changes.peek();
                return Err(format!(
                    "{}: expected {expected:?}, found {found:?}; polled at {} and {next:?}",
                    self.id, said.at
                ));
            }
        }
        match changes.next() {
            Some(more) => Err(format!("{}: {more:?} was not to be", self.id)),
            None => Ok(()),
        }
    }

    /// What was said last is what the model says.
    fn last(
        &self,
        clock: i64,
        now: i64,
        counts: &mut BTreeMap<&'static str, u64>,
    ) -> Result<(), String> {
        let expected = self.model(clock);
        if expected != self.model(now) {
            *counts.entry("left open").or_default() += 1;
            return Ok(());
        }
        *counts.entry("judged").or_default() += 1;
        let last = self.device.changes.last().map(|change| &change.value);
        let shown =
            last.filter(|last| !last.deleted).map(|last| (last.status(), last.connectivity()));
        if shown != expected {
            return Err(format!(
                "{} shows {shown:?}, and is {expected:?} at {clock}; last change {last:?}",
                self.id
            ));
        }
        let whole = Model::whole(&self.plan.rules, self.device, self.scopes);
        if let Some(last) = last.filter(|last| !last.deleted)
            && (last.fleet.as_str(), last.organization.as_str()) != whole.belongs_to()
        {
            let belongs_to = whole.belongs_to();
            return Err(format!("{} belongs to {belongs_to:?}; last change {last:?}", self.id));
        }
        Ok(())
    }

    /// At least once: what was processed again after a crash may come to the same
    /// status by fewer changes, or by none. Then the state, and so the view, has the
    /// version and the dates of an earlier change with what was told last.
    fn told_before<'c>(
        &'c self,
        held: Option<&Hash>,
        last: &'c v1::StatusChanged,
    ) -> &'c v1::StatusChanged {
        let version = held.and_then(|held| held.get("version")?.parse::<u64>().ok());
        let same = |value: &&v1::StatusChanged| {
            Some(value.version) == version
                && (value.status, value.connectivity, &value.fleet, &value.organization)
                    == (last.status, last.connectivity, &last.fleet, &last.organization)
        };
        let mut earlier = self.device.changes.iter().rev().map(|change| &change.value);
        earlier.find(same).filter(|_| self.plan.at_least_once).unwrap_or(last)
    }

    /// What the view shows is what was said last.
    fn view(&self, redis: &BTreeMap<String, Hash>) -> Result<(), String> {
        let held = redis.get(&format!("ds:device:{}", self.id));
        let last = self.device.changes.last().map(|change| &change.value);
        let Some(last) = last.filter(|last| !last.deleted) else {
            return match held {
                // What has no token is nobody's (rule V6).
                Some(held) if held.contains_key("status") && held.contains_key("token") => {
                    Err(format!("{}: the view shows {held:?}, and should nothing", self.id))
                }
                _ => Ok(()),
            };
        };
        let last = self.told_before(held, last);
        let name = |name: &str, prefix: &str| {
            name.trim_start_matches(prefix).to_lowercase().replace('_', "-")
        };
        let expected = [
            ("status", name(last.status().as_str_name(), "STATUS_")),
            ("connectivity", name(last.connectivity().as_str_name(), "CONNECTIVITY_")),
            ("since_ms", ms(last.since.as_ref()).unwrap_or(0).to_string()),
            (
                "connectivity_since_ms",
                ms(last.connectivity_since.as_ref()).unwrap_or(0).to_string(),
            ),
            ("version", last.version.to_string()),
            ("fleet", last.fleet.clone()),
            ("membership_since_ms", ms(last.membership_since.as_ref()).unwrap_or(0).to_string()),
        ];
        for (field, value) in expected {
            if held.and_then(|held| held.get(field)) != Some(&value) {
                return Err(format!("{}: the view has {held:?}, not {field} {value}", self.id));
            }
        }
        Ok(())
    }
}

/// Besides the counts: who wrote them, and fields that are none of ours, which
/// stay while the counts move.
const NOT_COUNTS: [&str; 3] = ["token", "extra", "status"];

/// The counts of the fleets are those of the devices' last changes.
fn fleets(
    devices: &BTreeMap<String, Device>,
    redis: &BTreeMap<String, Hash>,
    swept: bool,
) -> Result<(), String> {
    let mut expected: BTreeMap<(String, String), i64> = BTreeMap::new();
    for (id, device) in devices {
        let held = redis.get(&format!("ds:device:{id}"));
        // What has no token is nobody's (rule V6).
        let held = held.filter(|held| held.contains_key("token"));
        let Some(status) = held.and_then(|held| held.get("status")) else { continue };
        let fleet = held.and_then(|held| held.get("fleet")).cloned().unwrap_or_default();
        let key = format!("ds:fleet:{fleet}:{}", device.partition);
        *expected.entry((key, status.clone())).or_default() += 1;
    }
    let in_use: BTreeSet<String> = expected.keys().map(|(key, _)| key.clone()).collect();
    for (key, hash) in redis.iter().filter(|(key, _)| key.starts_with("ds:fleet:")) {
        for (status, count) in
            hash.iter().filter(|(status, _)| !NOT_COUNTS.contains(&status.as_str()))
        {
            let count: i64 = count.parse().map_err(|_| format!("{key} {status}: {count}"))?;
            if !in_use.contains(key) && (!swept || count == 0 || !hash.contains_key("token")) {
                // Its last device moved away while the owner ended, and the next
                // one does not know of the fleet: the sweep finds it (rule V6).
                continue;
            }
            let found = expected.remove(&(key.clone(), status.clone())).unwrap_or(0);
            if count != found {
                return Err(format!("{key} counts {count} {status}, the view has {found}"));
            }
        }
    }
    match expected.first_key_value() {
        Some((missing, _)) => Err(format!("no count of {missing:?}")),
        None => Ok(()),
    }
}
