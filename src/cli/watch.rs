//! `device-status watch [ID…]`: shows devices as they change, by the hints on
//! the view's channel. A hint only says where to look: what is shown is read
//! again. Kafka, not this, is the reliable feed of changes.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use serde_json::json;

use super::get::{RedisTarget, Style, is_coloured, moment, printable};
use crate::config::Config;
use crate::error::Fatal;
use crate::view::Backoff;
use crate::view::read::{DeviceStatus, Hint, Listener, Reader};

/// `device-status watch …`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Devices to watch; none: all of them
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
}

/// Why watching stopped.
enum Stop {
    /// Nobody reads what we print.
    Unread,
    /// The connection is gone, or something else went wrong.
    Failed(Fatal),
}

impl From<Fatal> for Stop {
    fn from(fatal: Fatal) -> Stop {
        Stop::Failed(fatal)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Stop::Unread,
            _ => Stop::Failed(Fatal::internal(format!("standard output: {error}"))),
        }
    }
}

/// Watches until it is interrupted, or nobody reads any more.
///
/// # Errors
/// When Redis cannot be reached at first; later it is tried again for ever.
pub fn run(args: &Args, config: &Config, json: bool) -> Result<(), Fatal> {
    let mut out = io::stdout().lock();
    let colour = is_coloured(&out);
    watch(args, RedisTarget::of(config), json, colour, &mut out)
}

/// Watches, to any output.
///
/// # Errors
/// As [`run`].
pub fn watch(
    args: &Args,
    redis: RedisTarget<'_>,
    json: bool,
    colour: bool,
    out: &mut dyn Write,
) -> Result<(), Fatal> {
    let style = Style { colour };
    let mut watch = Watch { ids: &args.ids, shown: BTreeMap::new(), style, json, out };
    let mut reader = Reader::connect(redis.redis)?;
    let mut listener = reader.listener()?;
    let mut backoff = Backoff::default();
    loop {
        let failure = match watch.follow(&mut reader, &mut listener) {
            Stop::Unread => return Ok(()),
            Stop::Failed(failure) => failure,
        };
        super::say(&format!("{failure}; trying again, changes in between may not be shown"));
        (reader, listener) = loop {
            backoff.failed(0);
            // Nothing can cut this short but the end of the process.
            let pause_ms = u64::try_from(backoff.remaining_ms(0)).unwrap_or(0);
            std::thread::park_timeout(Duration::from_millis(pause_ms));
            let connected = Reader::connect(redis.redis)
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
    /// What was shown last, of the devices asked for by name.
    shown: BTreeMap<String, Option<DeviceStatus>>,
    style: Style,
    json: bool,
    out: &'a mut dyn Write,
}

impl Watch<'_> {
    /// Shows what is, then what changes, until something goes wrong. It listens
    /// before it looks, so nothing is missed between the two.
    fn follow(&mut self, reader: &mut Reader, listener: &mut Listener) -> Stop {
        let mut run = || -> Result<(), Stop> {
            let mut hints = listener.hints()?;
            if !self.ids.is_empty() {
                let (devices, _) = reader.devices(self.ids)?;
                for (id, device) in self.ids.iter().zip(devices) {
                    self.show(id, device)?;
                }
            }
            loop {
                let Hint { device: id } = hints.next_hint()?;
                if self.ids.is_empty() || self.ids.contains(&id) {
                    let (devices, _) = reader.devices(std::slice::from_ref(&id))?;
                    self.show(&id, devices.into_iter().next().flatten())?;
                }
            }
        };
        match run() {
            Err(stop) => stop,
            Ok(()) => Stop::Unread,
        }
    }

    fn show(&mut self, id: &str, device: Option<DeviceStatus>) -> io::Result<()> {
        if !self.ids.is_empty() {
            // Hints may come twice, and after a lost connection all is read again.
            if self.shown.get(id) == Some(&device) {
                return Ok(());
            }
            self.shown.insert(id.to_owned(), device.clone());
        }
        match (&device, self.json) {
            (Some(device), true) => writeln!(self.out, "{}", device.to_json())?,
            (None, true) => writeln!(self.out, "{}", json!({ "device": id, "status": null }))?,
            (Some(device), false) => {
                // What changed last: the status, or the connectivity alone.
                let since = device.number("since_ms").max(device.number("connectivity_since_ms"));
                let since = since.map_or_else(String::new, moment);
                let status = self.style.status(device);
                let progress = device
                    .field("progress")
                    .map_or_else(String::new, |percent| format!(" {} %", printable(percent)));
                writeln!(self.out, "{since}  {}  {status}{progress}", printable(id))?;
            }
            (None, false) => {
                let blank = " ".repeat(24);
                writeln!(self.out, "{blank}  {}  not known", printable(id))?;
            }
        }
        self.out.flush()
    }
}
