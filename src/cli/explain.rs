//! `device-status explain ID`: why a device has its status. The device is
//! restored from Kafka as the service would restore it, or a history of events
//! in a file is run through the core that production runs.

mod doubts;
mod file;
mod kafka;
mod tell;

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::since::Since;
use super::text::{is_coloured, moment, print};
use crate::clock::SystemClock;
use crate::config::Config;
use crate::error::Fatal;
use crate::shard::event::DEVICE_ID_MAX_BYTES;
use crate::shard::{Content, DeviceView, Explanation};
use crate::shard::{
    DeviceId, Input, Now, Queued, Relay, Rules, Shard, Start, StatusChange, Timestamp,
};
use crate::stream_thread::ports::Clock as _;
use doubts::Arrivals;
use file::Record;
pub(super) use tell::{change_json, change_line};

/// `device-status explain …`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The device
    #[arg(value_name = "ID", required_unless_present = "events")]
    pub id: Option<String>,
    /// Explain from a history in a file instead of from Kafka: JSON lines (see
    /// docs/explain.md); `-` reads standard input. Without ID, all its devices
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// With --events: how things stood at this instant (RFC 3339, milliseconds or
    /// `now`); otherwise at the last event
    #[arg(long, value_name = "TIME", requires = "events", value_parser = instant)]
    pub at: Option<Since>,
}

fn instant(text: &str) -> Result<Since, String> {
    if text == "now" { Ok(Since::Ago(0)) } else { file::moment(text).map(Since::At) }
}

/// Does it.
///
/// # Errors
/// When Kafka or the history cannot be read, or does not know the device.
pub fn run(args: &Args, config: &Config, json: bool) -> Result<(), Fatal> {
    let colour = is_coloured(&io::stdout());
    let text = match (&args.events, &args.id) {
        (Some(events), _) => {
            let (name, text) = read(events)?;
            explain(args, &name, &text, &config.rules(), json, colour)?
        }
        (None, Some(id)) => explain_live(id, config, json, colour)?,
        // The command line is not taken so.
        (None, None) => return Err(Fatal::usage("name a device, or --events FILE")),
    };
    print(&text)
}

/// A device's id as it is written.
pub(super) fn device_id(text: &str) -> Result<DeviceId, Fatal> {
    DeviceId::from_key(text.as_bytes()).map_err(|_| {
        Fatal::usage(format!("{text:?} is no device id: one has 1 to {DEVICE_ID_MAX_BYTES} bytes"))
    })
}

fn explain_live(id: &str, config: &Config, json: bool, colour: bool) -> Result<String, Fatal> {
    let device = device_id(id)?;
    let restored = kafka::restore(config, &device)?;
    let shard = &restored.shard;
    let now = SystemClock::new().wall();
    let subject = Subject {
        at: shard.explain(&device).map_or(shard.clock(), |why| why.judged),
        device: &device,
        view: shard.view(&device),
        why: shard.explain(&device),
        origin: Origin::Kafka { restored: &restored, now },
        arrivals: &restored.arrivals,
        shard,
        rules: &config.rules(),
    };
    Ok(if json { format!("{}\n", subject.json()) } else { subject.text(colour) })
}

fn read(path: &Path) -> Result<(String, String), Fatal> {
    let mut text = String::new();
    let (name, read) = if path == Path::new("-") {
        ("standard input".to_owned(), io::stdin().read_to_string(&mut text).map(|_| ()))
    } else {
        let read = std::fs::read_to_string(path).map(|read| text = read);
        (path.display().to_string(), read)
    };
    read.map_err(|error| Fatal::usage(format!("{name}: {error}")))?;
    Ok((name, text))
}

fn explain(
    args: &Args,
    name: &str,
    text: &str,
    rules: &Rules,
    json: bool,
    colour: bool,
) -> Result<String, Fatal> {
    let mut records = file::read(name, text)?;
    let last = records.iter().map(|record| record.at).max();
    let last = last.ok_or_else(|| Fatal::usage(format!("{name}: there are no events in it")))?;
    let at = args.at.map_or(last, Since::instant);
    let devices = match &args.id {
        None => devices_of(&records),
        Some(id) => {
            let known = devices_of(&records).into_iter().find(|device| device.to_string() == *id);
            vec![known.ok_or_else(|| Fatal::not_found(format!("{name}: no event of {id:?}")))?]
        }
    };
    let all = records.len();
    records.retain(|record| record.at <= at);
    let left_out = all - records.len();
    records.sort_by_key(|record| record.at);
    let mut arrivals = Arrivals::default();
    for Record { event, at, .. } in &records {
        arrivals.add(event.clone(), *at, Some(*at));
    }
    let (shard, changes) = replay(records, rules, at);
    let mut told = String::new();
    for device in &devices {
        let subject = Subject {
            at,
            device,
            view: shard.view(device),
            why: shard.explain(device),
            origin: Origin::History {
                changes: changes.iter().filter(|change| change.device == *device).collect(),
            },
            arrivals: &arrivals,
            shard: &shard,
            rules,
        };
        if json {
            told.push_str(&format!("{}\n", subject.json()));
        } else {
            if !told.is_empty() {
                told.push('\n');
            }
            told.push_str(&subject.text(colour));
        }
    }
    if left_out > 0 && !json {
        told.push_str(&format!("\nEvents after {}, left out: {left_out}\n", moment(at.0)));
    }
    Ok(told)
}

/// A device, and all that is to be told of it.
struct Subject<'a> {
    /// The instant that was asked for.
    at: Timestamp,
    device: &'a DeviceId,
    /// As Redis would have it; none: it is not shown.
    view: Option<DeviceView>,
    why: Option<Explanation>,
    origin: Origin<'a>,
    arrivals: &'a Arrivals,
    shard: &'a Shard,
    rules: &'a Rules,
}

/// Whence it is known.
enum Origin<'a> {
    /// From a history, with all that it showed.
    History { changes: Vec<&'a StatusChange> },
    /// From Kafka, as the service knows it at this time of day.
    Kafka { restored: &'a kafka::Restored, now: Timestamp },
}

/// In the order in which they are first heard of.
fn devices_of(records: &[Record]) -> Vec<DeviceId> {
    let mut seen = std::collections::BTreeSet::new();
    let devices = records.iter().filter_map(Record::device);
    devices.filter(|device| seen.insert((*device).clone())).cloned().collect()
}

/// Tells it all, in the order of its times, to a shard, as to a service that reads a log which ends at `at`.
fn replay(records: Vec<Record>, rules: &Rules, at: Timestamp) -> (Shard, Vec<StatusChange>) {
    let mut shard = Shard::new(0, rules.clone());
    shard.start(Start { epoch: 1, ..Start::default() });
    // The clock keeps a slack: it is at the instant asked for when all has been
    // read until a little later.
    let read_at = at.plus_ms(rules.slack_ms);
    let now = Now { monotonic_ms: 0, broker: Some(read_at) };
    let mut offsets = [0; 3];
    for record in records {
        let offset = &mut offsets[record.input.index()];
        let queued = Queued {
            offset: *offset,
            timestamp: record.at,
            stamped_by_broker: true,
            relay: Relay::default(),
            content: Content::Event(record.event),
        };
        *offset += 1;
        shard.offer(record.input, queued);
    }
    for input in Input::ALL {
        let end = offsets[input.index()];
        shard.learn_end(input, Some(read_at), end, end);
    }
    let mut changes = Vec::new();
    // A record a turn, and a commit after each, so that what is long over is
    // forgotten when it would be; then all that is due by the end.
    for budget in [1, 1_000] {
        loop {
            let turn = shard.turn(now, budget);
            let outbox = shard.take_outbox(0);
            if let Some(write) = outbox.view.last() {
                shard.view_acknowledged(write.sequence);
            }
            changes.extend(outbox.changes);
            if !turn.more {
                break;
            }
        }
    }
    (shard, changes)
}
