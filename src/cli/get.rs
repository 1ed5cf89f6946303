//! `device-status get ID…`: shows devices, or the counts of a fleet, from the view
//! in Redis.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

use serde_json::json;

use super::text::{Style, as_of, is_coloured, none, printable, with_age, word, written};
use crate::config::{Config, milliseconds};
use crate::error::Fatal;
use crate::shard::Status;
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
    /// Exit with code 3 if the data may be older than this, such as 30s
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub max_age: Option<Duration>,
}

/// Runs the command.
///
/// # Errors
/// When Redis cannot be reached, or has no such device or fleet.
pub fn run(args: &Args, config: &Config, json: bool) -> Result<(), Fatal> {
    let mut out = io::stdout().lock();
    let colour = is_coloured(&out);
    get(args, config, json, colour, &mut out)
}

/// Runs the command, with any output.
///
/// # Errors
/// As [`run`].
pub fn get(
    args: &Args,
    config: &Config,
    json: bool,
    colour: bool,
    out: &mut dyn Write,
) -> Result<(), Fatal> {
    let mut reader = Reader::connect(&config.redis)?;
    let style = Style { colour };
    match &args.fleet {
        Some(fleet) => {
            let oldest = reader.oldest(config.topics.partitions)?;
            let counts = reader.fleet(fleet, config.topics.partitions)?;
            let counts = counts.ok_or_else(|| {
                Fatal::not_found(format!("fleet {fleet:?} not found at {}", reader.shown_url))
            })?;
            let text = match json {
                true => fleet_json(fleet, counts, oldest),
                false => fleet_text(fleet, counts, oldest),
            };
            written(out.write_all(text.as_bytes()))?;
            not_stale(args, oldest, || format!("fleet {fleet:?}"), &reader)
        }
        None => {
            let seen = reader.devices(&args.ids, config.topics.partitions)?;
            for (device, freshness) in &seen {
                let Some(device) = device else { continue };
                let text = match json {
                    true => format!("{}\n", device.to_json(*freshness)),
                    false => device_text(device, *freshness, style),
                };
                written(out.write_all(text.as_bytes()))?;
            }
            // An old view may lack a device that is known by now.
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
                "not found at {}: {}. A device is known once it was registered, provisioned or \
                 heard of, and until it is deleted.{old}",
                reader.shown_url,
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
    if !freshness.is_older_than(milliseconds(max_age)) {
        return Ok(());
    }
    Err(Fatal::stale(format!(
        "{} at {} is older than --max-age {}: {}",
        what(),
        reader.shown_url,
        humantime::format_duration(max_age),
        as_of(freshness)
    )))
}

fn fleet_json(fleet: &str, counts: [u64; Status::ALL.len()], oldest: Freshness) -> String {
    let statuses = std::iter::zip(Status::ALL.map(Status::wire_name), counts);
    let told = oldest.beside(json!({
        "fleet": fleet,
        "devices": counts.iter().sum::<u64>(),
        "statuses": statuses.collect::<BTreeMap<_, _>>(),
    }));
    format!("{told}\n")
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

fn device_text(device: &DeviceStatus, freshness: Freshness, style: Style) -> String {
    let now_ms = freshness.now_ms;
    let mut text = format!("{}  {}\n", printable(&device.device), style.status(device));
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:14}{}", printable(&value));
    };
    let moment = |field: &str| device.number(field).map(|ms| with_age(ms, now_ms));
    let told = |name: &str, what: &str, at: &str| {
        let at = moment(at).map_or_else(String::new, |at| format!(", {what} {at}"));
        word(device, name) + &at
    };
    line("since", moment("since_ms").unwrap_or_else(none));
    line("connectivity", told("connectivity", "since", "connectivity_since_ms"));
    line("heartbeat", told("heartbeat", "last", "heartbeat_ms"));
    line("vpn", word(device, "vpn"));
    if let Some(percent) = device.field("progress") {
        line("progress", format!("{percent} %"));
    }
    line(
        "fleet",
        match device.field("fleet") {
            Some(_) => told("fleet", "since", "membership_since_ms"),
            None => none(),
        },
    );
    if let Some(since) = moment("update_since_ms") {
        let told = ["release", "update_phase", "update_outcome"].map(|name| device.field(name));
        let told: Vec<&str> = told.into_iter().flatten().collect();
        line("update", [told.join(", "), format!("since {since}")].join(" ").trim().to_owned());
    }
    line("version", word(device, "version"));
    line("as of", as_of(freshness));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fleet_counts_come_with_their_total() {
        let counts = [5, 0, 0, 2, 0, 0, 1];
        let fresh = Freshness { up_to_ms: Some(1_000), now_ms: 2_500 };
        assert!(fleet_text("blue", counts, fresh).contains("devices                    8\n"));
        let json = fleet_json("blue", counts, fresh);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&json["view_time_ms"], &json["view_age_ms"]), (&json!(1_000), &json!(1_500)));
        assert_eq!(json["devices"], 8);
        assert_eq!(json["statuses"]["offline"], 2);
    }
}
