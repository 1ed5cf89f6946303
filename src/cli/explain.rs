//! `device-status explain --events FILE`: runs a history through the core that
//! production runs, and says of each device what it showed, since when and why.

mod history;
mod tell;

use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use super::get::{is_coloured, moment};
use crate::clock::SystemClock;
use crate::config::Config;
use crate::error::Fatal;
use crate::shard::{Content, DeviceView, Explanation};
use crate::shard::{DeviceId, Input, Now, Queued, Rules, Shard, Start, StatusChange, Timestamp};
use crate::stream_thread::ports::Clock as _;
use history::Record;

/// `device-status explain …`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The history, as JSON lines (see docs/explain.md); `-` reads standard input
    #[arg(long, value_name = "FILE")]
    pub events: PathBuf,
    /// Explain this device only
    #[arg(long, value_name = "ID")]
    pub device: Option<String>,
    /// Explain how things stood at this instant: RFC 3339, milliseconds or `now`;
    /// otherwise at the last event
    #[arg(long, value_name = "TIME", value_parser = instant)]
    pub at: Option<Instant>,
}

/// An instant on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instant {
    /// That at which the command runs.
    Now,
    /// Milliseconds since the epoch.
    At(i64),
}

fn instant(text: &str) -> Result<Instant, String> {
    if text == "now" { Ok(Instant::Now) } else { history::moment(text).map(Instant::At) }
}

/// Does it.
///
/// # Errors
/// When the history cannot be read, or does not know the device.
pub fn run(args: &Args, config: &Config, json: bool) -> Result<(), Fatal> {
    let mut out = io::stdout().lock();
    let colour = is_coloured(&out);
    let (name, text) = read(&args.events)?;
    let text = explain(args, &name, &text, &config.rules(), json, colour)?;
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // A reader of our output that has gone away is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Fatal::internal(format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
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
    let mut records = history::read(name, text)?;
    let last = records.iter().map(|record| record.at).max();
    let last = last.ok_or_else(|| Fatal::usage(format!("{name}: there are no events in it")))?;
    let at = match args.at {
        None => last,
        Some(Instant::Now) => SystemClock::new().wall(),
        Some(Instant::At(ms)) => Timestamp(ms),
    };
    let devices = match &args.device {
        None => devices_of(&records),
        Some(id) => {
            let known = devices_of(&records).into_iter().find(|device| device.to_string() == *id);
            vec![known.ok_or_else(|| Fatal::not_found(format!("{name}: no event of {id:?}")))?]
        }
    };
    let all = records.len();
    records.retain(|record| record.at <= at);
    let left_out = all - records.len();
    let (shard, changes) = replay(records, rules, at);
    let mut told = String::new();
    for device in &devices {
        let subject = Subject {
            at,
            device,
            view: shard.view(device),
            why: shard.explain(device),
            changes: changes.iter().filter(|change| change.device == *device).collect(),
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
    changes: Vec<&'a StatusChange>,
    shard: &'a Shard,
    rules: &'a Rules,
}

/// In the order in which they are first heard of.
fn devices_of(records: &[Record]) -> Vec<DeviceId> {
    let mut seen = std::collections::BTreeSet::new();
    let devices = records.iter().filter_map(Record::device);
    devices.filter(|device| seen.insert((*device).clone())).cloned().collect()
}

/// Tells it all to a shard, as to a service that reads a log which ends at `at`.
fn replay(mut records: Vec<Record>, rules: &Rules, at: Timestamp) -> (Shard, Vec<StatusChange>) {
    let mut shard = Shard::new(0, rules.clone());
    shard.start(Start { epoch: 1, ..Start::default() });
    // The clock keeps a slack: it is at the instant asked for when all has been
    // read until a little later.
    let read_at = at.plus_ms(rules.slack_ms);
    let now = Now { monotonic_ms: 0, broker: Some(read_at) };
    records.sort_by_key(|record| record.at);
    let mut offsets = [0; 3];
    for record in records {
        let offset = &mut offsets[record.input.index()];
        let queued = Queued {
            offset: *offset,
            timestamp: record.at,
            stamped_by_broker: true,
            content: Content::Event(record.event),
        };
        *offset += 1;
        shard.offer(record.input, queued, now);
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
