//! `device-status send`: one event, by hand, to any Kafka that the configuration
//! reaches.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::{Value, json};

use super::date::{date, protobuf_of};
use super::text::{print, print_json, printable};
use super::traffic::Traffic;
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::error::Fatal;
use crate::shard::{DeviceId, Input};
use crate::simulate::Sent;
use crate::wire::decode::decode;
use crate::wire::{Format, json};

const EXAMPLES: &str = r#"Examples:
  device-status send heartbeat my-device
  device-status send heartbeat my-device '{"pollInterval":"900s"}'
  device-status send lifecycle my-device '{"registered":{"fleet":"berlin","organization":"acme"}}'
  device-status send lifecycle '{"fleetFrozen":{"fleet":"berlin","reason":"FROZEN_REASON_OTHER"}}'"#;

/// Send one event to the input topics, by hand.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// To which input
    #[arg(value_enum)]
    input: To,
    /// Whose event it is; left out of an event of a VPN instance, a fleet or an organization,
    /// which goes to every partition
    #[arg(value_name = "ID", required_unless_present = "event")]
    id: Option<String>,
    /// The event as JSON, as docs/events.md has it; without `occurredAt` it happens now
    #[arg(value_name = "EVENT")]
    event: Option<String>,
}

/// The inputs, as they are named on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum To {
    Heartbeat,
    Vpn,
    Lifecycle,
}

impl To {
    const fn input(self) -> Input {
        match self {
            To::Heartbeat => Input::Heartbeats,
            To::Vpn => Input::VpnSessions,
            To::Lifecycle => Input::Lifecycle,
        }
    }
}

impl Args {
    /// Whose it is, and the event. No id looks like JSON.
    fn words(&self) -> (Option<&str>, &str) {
        match (self.id.as_deref(), self.event.as_deref()) {
            (Some(event), None) if event.starts_with('{') => (None, event),
            (id, event) => (id, event.unwrap_or("{}")),
        }
    }
}

/// Sends it, and waits until the brokers have it.
///
/// # Errors
/// When the service would refuse it, or Kafka does not take it.
pub fn run(args: &Args, config: &Config, json: bool) -> Result<(), Fatal> {
    let input = args.input.input();
    let (id, text) = args.words();
    let at = SystemClock::new().wall();
    let mut value = protobuf_of(input, text.as_bytes())
        .map_err(|error| Fatal::usage(format!("this is no event of {}: {error}", input.name())))?;
    let key = id.map(str::as_bytes);
    let read = |value: &[u8]| {
        decode(input, Format::Protobuf, key, Some(value))
            .map_err(|refusal| Fatal::usage(format!("the service would refuse this: {refusal}")))
    };
    // An empty one is told to be that, where it lacks more than a time.
    if value.is_empty() || read(&value)?.occurred_at.is_none() {
        date(&mut value, at);
    }
    read(&value)?;
    let event = json::write_bytes(json::message_of(input), &value).map_err(Fatal::internal)?;
    let device = key.map(DeviceId::from_key).transpose();
    let device = device.map_err(|why| Fatal::usage(format!("this is no device id: {why:?}")))?;
    let mut traffic = Traffic::open(config, "send", &[input], "0")?;
    let stop = Arc::new(AtomicBool::new(false));
    super::signals::set(&stop)?;
    traffic.send(Sent { at, input, device, value: Some(value) }, &stop)?;
    traffic.finish(&stop)?;
    let topic = config.topics.input(input);
    if json {
        let event: Value = serde_json::from_str(&event).unwrap_or_default();
        let records = traffic.records;
        return print_json(
            &json!({ "topic": topic, "key": id, "records": records, "event": event }),
        );
    }
    let whose = match id {
        Some(id) => format!("key {}", printable(id)),
        None => format!("one copy to each of {} partitions", traffic.records),
    };
    print(&format!("Sent to {topic}, {whose}: {}\n", printable(&event)))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn an_event_alone_is_a_broadcast() {
        let words = |arguments: &[&str]| {
            let arguments = std::iter::once("send").chain(arguments.iter().copied());
            let args = Command::try_parse_from(arguments).ok()?.args;
            let (id, event) = args.words();
            Some((id.map(str::to_owned), event.to_owned()))
        };
        let some = |id: Option<&str>, event: &str| Some((id.map(str::to_owned), event.to_owned()));
        assert_eq!(words(&["heartbeat", "d"]), some(Some("d"), "{}"));
        assert_eq!(words(&["vpn", "d", "{\"a\":1}"]), some(Some("d"), "{\"a\":1}"));
        assert_eq!(words(&["lifecycle", "{\"a\":1}"]), some(None, "{\"a\":1}"));
        assert_eq!(words(&["heartbeat"]), None);
        assert_eq!(words(&["heartbeats", "d"]), None);
    }
}
