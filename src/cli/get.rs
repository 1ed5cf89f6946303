//! `device-status get ID…`: what the view in Redis says of devices, or of a
//! fleet.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Map, json};

use crate::config::{Config, Redis};
use crate::error::Fatal;
use crate::shard::{Connectivity, Status};
use crate::view::read::{DeviceStatus, Freshness, OLD_MS, Reader};

/// `device-status get …`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Devices to show
    #[arg(value_name = "ID", required_unless_present = "fleet")]
    pub ids: Vec<String>,
    /// Show how many devices of a fleet have each status instead
    #[arg(long, conflicts_with = "ids")]
    pub fleet: Option<String>,
    /// Exit with 3 if what is shown may be older than this, such as 30s
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub max_age: Option<Duration>,
}

/// Where to read.
#[derive(Clone, Copy, Debug)]
pub struct RedisTarget<'a> {
    /// The keys of `redis`.
    pub redis: &'a Redis,
    /// `topics.partitions`: at least so many are looked at for a fleet.
    pub partitions: i32,
}

impl<'a> RedisTarget<'a> {
    /// As configured.
    #[must_use]
    pub fn of(config: &'a Config) -> RedisTarget<'a> {
        RedisTarget { redis: &config.redis, partitions: config.topics.partitions }
    }
}

/// Does it.
///
/// # Errors
/// When Redis cannot be reached, or does not know what was asked for.
pub fn run(args: &Args, config: &Config, json: bool) -> Result<(), Fatal> {
    let mut out = io::stdout().lock();
    let colour = is_coloured(&out);
    get(args, RedisTarget::of(config), json, colour, &mut out)
}

/// Does it, to any output.
///
/// # Errors
/// As [`run`].
pub fn get(
    args: &Args,
    redis: RedisTarget<'_>,
    json: bool,
    colour: bool,
    out: &mut dyn Write,
) -> Result<(), Fatal> {
    let mut reader = Reader::connect(redis.redis)?;
    let style = Style { colour };
    match &args.fleet {
        Some(fleet) => {
            let oldest = reader.oldest(redis.partitions)?;
            let counts = reader.fleet(fleet, redis.partitions)?;
            let counts = counts.ok_or_else(|| {
                Fatal::not_found(format!("no fleet {fleet:?} is known at {}", reader.shown_url()))
            })?;
            let text = match json {
                true => fleet_json(fleet, counts, oldest),
                false => fleet_text(fleet, counts, oldest),
            };
            written(out.write_all(text.as_bytes()))?;
            not_stale(args, oldest, || format!("fleet {fleet:?}"), &reader)
        }
        None => {
            let seen = reader.devices(&args.ids, redis.partitions)?;
            for (device, freshness) in &seen {
                let Some(device) = device else { continue };
                let text = match json {
                    true => format!("{}\n", device.to_json(*freshness)),
                    false => style.device(device, *freshness),
                };
                written(out.write_all(text.as_bytes()))?;
            }
            // What an old view does not know may be known by now.
            for (id, (_, freshness)) in std::iter::zip(&args.ids, &seen) {
                not_stale(args, *freshness, || format!("device {id:?}"), &reader)?;
            }
            let unknown =
                || std::iter::zip(&args.ids, &seen).filter(|(_, (device, _))| device.is_none());
            let Some((_, (_, freshness))) = unknown().next() else { return Ok(()) };
            let ids: Vec<String> = unknown().map(|(id, _)| format!("{id:?}")).collect();
            let old = match freshness.is_older_than(OLD_MS) {
                true => format!(" The view is old: {}.", as_of(*freshness)),
                false => String::new(),
            };
            Err(Fatal::not_found(format!(
                "not known at {}: {}. A device is known once it was registered, \
                 provisioned or heard of, and until it is deleted.{old}",
                reader.shown_url(),
                ids.join(", ")
            )))
        }
    }
}

fn not_stale(
    args: &Args,
    freshness: Freshness,
    what: impl Fn() -> String,
    reader: &Reader,
) -> Result<(), Fatal> {
    let Some(max_age) = args.max_age else { return Ok(()) };
    let max_ms = i64::try_from(max_age.as_millis()).unwrap_or(i64::MAX);
    if !freshness.is_older_than(max_ms) {
        return Ok(());
    }
    Err(Fatal::stale(format!(
        "{} is older at {} than --max-age {}: {}",
        what(),
        reader.shown_url(),
        humantime::format_duration(max_age),
        as_of(freshness)
    )))
}

/// Up to when something is in the view, for people.
pub(super) fn as_of(freshness: Freshness) -> String {
    match freshness.up_to_ms {
        Some(up_to_ms) if freshness.is_older_than(OLD_MS) => format!(
            "{}, OLD: its partition has no owner, or its owner cannot write; see /ready",
            with_age(up_to_ms, freshness.now_ms)
        ),
        Some(up_to_ms) => with_age(up_to_ms.min(freshness.now_ms), freshness.now_ms),
        None => {
            "not known: its partition is being written anew, or never was; see /ready".to_owned()
        }
    }
}

/// A reader of our output that has gone away is no failure.
fn written(result: io::Result<()>) -> Result<(), Fatal> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Fatal::internal(format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Whether to colour: for a terminal, unless <https://no-color.org> is asked.
pub(super) fn is_coloured(out: &impl IsTerminal) -> bool {
    out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn fleet_json(fleet: &str, counts: [u64; Status::ALL.len()], oldest: Freshness) -> String {
    let total: u64 = counts.iter().sum();
    let mut by_status = Map::new();
    for (status, count) in std::iter::zip(Status::ALL, counts) {
        by_status.insert(status.wire_name().to_owned(), json!(count));
    }
    let mut object = Map::new();
    object.insert("fleet".to_owned(), json!(fleet));
    object.insert("devices".to_owned(), json!(total));
    object.insert("statuses".to_owned(), by_status.into());
    oldest.write_to(&mut object);
    format!("{}\n", serde_json::Value::Object(object))
}

fn fleet_text(fleet: &str, counts: [u64; Status::ALL.len()], oldest: Freshness) -> String {
    let mut text = format!("{}\n", printable(fleet));
    for (status, count) in std::iter::zip(Status::ALL, counts) {
        let _ = writeln!(text, "  {:18}{count:>10}", status.wire_name());
    }
    let _ = writeln!(text, "  {:18}{:>10}", "devices", counts.iter().sum::<u64>());
    let _ = writeln!(text, "  as of       {}", as_of(oldest));
    text
}

/// How things look to people.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// Whether to colour.
    pub colour: bool,
}

impl Style {
    fn device(self, device: &DeviceStatus, freshness: Freshness) -> String {
        let now_ms = freshness.now_ms;
        let mut text = format!("{}  {}\n", printable(&device.device), self.status(device));
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "  {name:14}{}", printable(&value));
        };
        let moment = |field: &str| device.number(field).map(|ms| with_age(ms, now_ms));
        line("since", moment("since_ms").unwrap_or_else(none));
        line(
            "connectivity",
            match moment("connectivity_since_ms") {
                Some(since) => format!("{}, since {since}", word(device, "connectivity")),
                None => word(device, "connectivity"),
            },
        );
        line(
            "heartbeat",
            match moment("heartbeat_ms") {
                Some(last) => format!("{}, last {last}", word(device, "heartbeat")),
                None => word(device, "heartbeat"),
            },
        );
        line("vpn", word(device, "vpn"));
        if let Some(percent) = device.field("progress") {
            line("progress", format!("{percent} %"));
        }
        line("fleet", word(device, "fleet"));
        line("version", word(device, "version"));
        line("as of", as_of(freshness));
        text
    }

    /// The status as people are shown it, in its colour.
    pub(super) fn status(self, device: &DeviceStatus) -> String {
        let shown = printable(&word(device, "display"));
        self.by_name(shown, device.field("status"), device.field("connectivity"))
    }

    /// The same for one that comes from the core.
    pub(super) fn paint(self, status: Status, connectivity: Connectivity) -> String {
        let shown = status.display(connectivity).to_owned();
        self.coloured(shown, Some((status, connectivity)))
    }

    /// A text in the colour of what it says is shown.
    pub(super) fn coloured(self, text: String, shown: Option<(Status, Connectivity)>) -> String {
        let status = shown.map(|(status, _)| status.wire_name());
        let connectivity = shown.map(|(_, connectivity)| connectivity.wire_name());
        self.by_name(text, status, connectivity)
    }

    fn by_name(self, text: String, status: Option<&str>, connectivity: Option<&str>) -> String {
        if !self.colour {
            return text;
        }
        let colour = match status {
            Some("online") if connectivity == Some("full") => "32",
            Some("online") => "33",
            Some("configuring" | "updating") => "36",
            Some("offline") => "31",
            Some("frozen") => "34",
            _ => "90",
        };
        format!("\x1b[1;{colour}m{text}\x1b[0m")
    }

    /// What decides.
    pub(super) fn strong(self, text: &str) -> String {
        if self.colour { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// What need not be read first.
    pub(super) fn faint(self, text: &str) -> String {
        if self.colour { format!("\x1b[2m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn word(device: &DeviceStatus, field: &str) -> String {
    device.field(field).map_or_else(none, str::to_owned)
}

fn none() -> String {
    "-".to_owned()
}

/// Keeps a terminal from obeying what somebody wrote into an id or a fleet.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// A moment as RFC 3339, in UTC.
pub(super) fn moment(ms: i64) -> String {
    let since_epoch = Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    // Beyond the year 9999 there is no such notation.
    match UNIX_EPOCH.checked_add(since_epoch) {
        Some(at) if since_epoch.as_secs() < 253_402_300_800 => {
            humantime::format_rfc3339_millis(at).to_string()
        }
        _ => format!("{ms} ms"),
    }
}

/// The same, and how long ago it was.
pub(super) fn with_age(ms: i64, now_ms: i64) -> String {
    format!("{} ({})", moment(ms), age(now_ms.saturating_sub(ms)))
}

/// An age in its two largest units.
fn age(ms: i64) -> String {
    let Ok(seconds) = u64::try_from(ms / 1000) else { return "ahead of us".to_owned() };
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s ago"),
        (0, 0, _) => format!("{minutes} min {} s ago", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min ago"),
        _ => format!("{days} d {hours} h ago"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_ages_read_well() {
        assert_eq!(moment(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(moment(i64::MAX), format!("{} ms", i64::MAX));
        assert_eq!(age(59_999), "59 s ago");
        assert_eq!(age(61_000), "1 min 1 s ago");
        assert_eq!(age(3_600_000 * 5), "5 h 0 min ago");
        assert_eq!(age(86_400_000 * 2 + 3_600_000), "2 d 1 h ago");
        assert_eq!(age(-5_000), "ahead of us");
    }

    #[test]
    fn a_fleet_is_told_with_its_total() {
        let counts = [5, 0, 0, 2, 0, 0, 1];
        let fresh = Freshness { up_to_ms: Some(1_000), now_ms: 2_500 };
        assert!(fleet_text("blue", counts, fresh).contains("devices                    8\n"));
        let json = fleet_json("blue", counts, fresh);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&json["view_time_ms"], &json["view_age_ms"]), (&json!(1_000), &json!(1_500)));
        assert_eq!(json["devices"], 8);
        assert_eq!(json["statuses"]["offline"], 2);
    }

    #[test]
    fn an_old_view_is_called_old() {
        let at = |up_to_ms| as_of(Freshness { up_to_ms, now_ms: 1_700_000_100_000 });
        assert_eq!(at(Some(1_700_000_099_000)), "2023-11-14T22:14:59.000Z (1 s ago)");
        // The brokers' clock may be ahead of Redis'.
        assert_eq!(at(Some(1_700_000_101_000)), "2023-11-14T22:15:00.000Z (0 s ago)");
        assert!(at(Some(1_700_000_000_000)).contains("(1 min 40 s ago), OLD"));
        assert!(at(None).starts_with("not known"));
    }

    #[test]
    fn nothing_commands_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb"), "a\u{fffd}[2Jb");
    }
}
