//! `device-status watch [ID…]`: shows devices as they change. It listens to the
//! hints on the view's channel and reads the device again, because a hint only
//! names it. The reliable feed of changes is Kafka, not this.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use serde_json::json;

use super::text::{Style, as_of, is_coloured, moment, printable, say};
use crate::clock::SystemClock;
use crate::config::Config;
use crate::error::Fatal;
use crate::stream_thread::ports::Clock as _;
use crate::view::Backoff;
use crate::view::read::{DeviceStatus, Freshness, Hint, Listener, OLD_MS, Reader, Seen};

/// How often the age of the view is checked.
const LOOK_INTERVAL_MS: i64 = 10_000;

/// `device-status watch …`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Devices to watch [default: all]
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
}

/// Why watching stopped: an error, or `None` if the output was closed.
type Stop = Option<Fatal>;

/// Watches until it is interrupted, or its output is closed.
///
/// # Errors
/// When Redis cannot be reached at the start. Later it is retried forever.
pub fn run(args: &Args, config: &Config, json: bool) -> Result<(), Fatal> {
    let mut out = io::stdout().lock();
    let colour = is_coloured(&out);
    watch(args, config, json, colour, &mut out)
}

/// Watches, with any output.
///
/// # Errors
/// As [`run`].
pub fn watch(
    args: &Args,
    config: &Config,
    json: bool,
    colour: bool,
    out: &mut dyn Write,
) -> Result<(), Fatal> {
    let mut watch = Watch {
        ids: &args.ids,
        partitions: config.topics.partitions,
        shown: BTreeMap::new(),
        clock: SystemClock::new(),
        is_old: false,
        style: Style { colour },
        json,
        out,
    };
    let mut reader = Reader::connect(&config.redis)?;
    let mut listener = reader.listener()?;
    let mut backoff = Backoff::default();
    loop {
        let stop = watch.follow(&mut reader, &mut listener).err();
        let Some(failure) = stop.flatten() else { return Ok(()) };
        say(&format!("{failure}; retrying, changes in between may not be shown"));
        (reader, listener) = loop {
            backoff.failed(0);
            // Only the end of the process interrupts this pause.
            let pause_ms = u64::try_from(backoff.remaining_ms(0)).unwrap_or(0);
            std::thread::park_timeout(Duration::from_millis(pause_ms));
            let connected = Reader::connect(&config.redis)
                .and_then(|reader| reader.listener().map(|listener| (reader, listener)));
            if let Ok(connected) = connected {
                backoff.succeeded();
                break connected;
            }
        };
    }
}

struct Watch<'a> {
    ids: &'a [String],
    /// The last shown state of each device that was asked for by id.
    shown: BTreeMap<String, Option<DeviceStatus>>,
    partitions: i32,
    clock: SystemClock,
    /// Whether it was reported that the view is old.
    is_old: bool,
    style: Style,
    json: bool,
    out: &'a mut dyn Write,
}

impl Watch<'_> {
    /// Shows the current state, then each change, until an error. It subscribes
    /// before it reads, so no change in between is missed.
    fn follow(&mut self, reader: &mut Reader, listener: &mut Listener) -> Result<(), Stop> {
        let mut hints = listener.hints()?;
        if !self.ids.is_empty() {
            let seen = reader.devices(self.ids, self.partitions)?;
            for (id, seen) in self.ids.iter().zip(seen) {
                self.show(id, seen)?;
            }
        }
        let mut looked_ms = None;
        loop {
            let now_ms = self.clock.monotonic_ms();
            if looked_ms.is_none_or(|looked_ms| now_ms - looked_ms >= LOOK_INTERVAL_MS) {
                looked_ms = Some(now_ms);
                self.look_at_age(reader)?;
            }
            let Some(Hint { device: id }) = hints.next_hint()? else { continue };
            if self.ids.is_empty() || self.ids.contains(&id) {
                let seen = reader.devices(std::slice::from_ref(&id), self.partitions)?;
                for seen in seen {
                    self.show(&id, seen)?;
                }
            }
        }
    }

    /// Reports when the view stops being updated, because no change would be shown
    /// then, and when it is current again.
    fn look_at_age(&mut self, reader: &mut Reader) -> Result<(), Fatal> {
        let oldest = match self.ids {
            [] => reader.oldest(self.partitions)?,
            ids => {
                let seen = reader.devices(ids, self.partitions)?;
                let oldest = seen.into_iter().map(|(_, freshness)| freshness);
                match oldest.min_by_key(|freshness| freshness.up_to_ms) {
                    Some(oldest) => oldest,
                    None => return Ok(()),
                }
            }
        };
        let is_old = oldest.is_older_than(OLD_MS);
        if is_old != self.is_old {
            match is_old {
                true => say(&format!("the view is not being updated: as of {}", as_of(oldest))),
                false => say("the view is up to date again"),
            }
            self.is_old = is_old;
        }
        Ok(())
    }

    fn show(&mut self, id: &str, (device, freshness): Seen) -> Result<(), Stop> {
        if !self.ids.is_empty() {
            // Hints may come twice, and after a lost connection all is read again.
            if self.shown.get(id) == Some(&device) {
                return Ok(());
            }
            self.shown.insert(id.to_owned(), device.clone());
        }
        let line = match &device {
            Some(device) if self.json => device.to_json(freshness).to_string(),
            None if self.json => {
                freshness.beside(json!({ "device": id, "status": null })).to_string()
            }
            Some(device) => {
                // What changed last: the status, or the connectivity alone.
                let since = device.number("since_ms").max(device.number("connectivity_since_ms"));
                let since = since.map_or_else(String::new, moment);
                let status = self.style.status(device);
                let progress = device
                    .field("progress")
                    .map_or_else(String::new, |percent| format!(" {} %", printable(percent)));
                format!("{since}  {}  {status}{progress}{}", printable(id), self.old(freshness))
            }
            None => format!("{:24}  {}  not known{}", "", printable(id), self.old(freshness)),
        };
        let written = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => None,
            _ => Some(Fatal::internal(format!("standard output: {error}"))),
        })
    }

    /// The age of an old view; nothing if it is current.
    fn old(&self, freshness: Freshness) -> String {
        match freshness.is_older_than(OLD_MS) {
            true => self.style.strong(&format!("  as of {}", as_of(freshness))),
            false => String::new(),
        }
    }
}
