//! `device-status simulate`: the traffic of a fleet, for trying things out and
//! for load tests.

mod consent;
mod remove;

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget};
use serde_json::json;

use super::text::{bar, counted, print, say};
use super::traffic::Traffic;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::error::Fatal;
use crate::shard::{Input, Timestamp};
use crate::simulate::{Fleet, Plan, kinds};
use crate::stream_thread::ports::Clock;

/// How long to wait for the next event, at most: signals and answers wait too.
const ROUND_MS: i64 = 5;
/// How many ids are told, for trying `get` and the like.
const TO_TRY: u32 = 3;
/// How often to say how it goes, without a terminal.
const REPORT_EVERY_MS: i64 = 10_000;

/// Write the traffic of a fleet that does not exist to the input topics.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// How many devices
    #[arg(long, value_name = "N", default_value_t = 10_000,
        value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    devices: u32,
    /// How many events a second they send, all together; sets how often each polls
    #[arg(long, value_name = "EVENTS_PER_SECOND", value_parser = parse_rate)]
    rate: Option<f64>,
    /// The interval at which devices are told to poll [default: what --rate makes of it, else
    /// heartbeat.default_poll_interval]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    poll_interval: Option<Duration>,
    /// The same seed gives the same devices and the same events
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Send all that has come due at once, every so often [20ms without a value], in large batches,
    /// instead of each event by itself at its instant
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "20ms",
        value_parser = parse_bursts)]
    bursts: Option<Duration>,
    /// When to stop [default: at Ctrl-C]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Do not ask, where the topics hold events already and are not of `make kafka`
    #[arg(long)]
    yes: bool,
    /// Delete the devices that earlier runs with this seed have left behind, instead
    #[arg(long, conflicts_with_all = ["devices", "rate", "poll_interval", "bursts", "duration"])]
    remove: bool,
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.replace('_', "").parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(rate),
        _ => Err("a number above 0 is needed".to_owned()),
    }
}

fn parse_bursts(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(every) if every >= Duration::from_millis(1) => Ok(every),
        Ok(_) => Err("1ms is the least".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Up to when events are sent: until now, or until the last burst began.
fn due_ms(elapsed_ms: i64, bursts: Option<Duration>) -> i64 {
    let every_ms = bursts.map_or(1, |every| every.as_millis() as i64);
    elapsed_ms - elapsed_ms % every_ms
}

impl Args {
    /// The fleet that is asked for.
    ///
    /// # Errors
    /// When the devices would have to poll less often than they are told to.
    fn plan(&self, config: &Config, start: Timestamp) -> Result<Plan, Fatal> {
        let told = self.poll_interval.unwrap_or(config.heartbeat.default_poll_interval);
        let told_ms = told.as_millis().clamp(1, 7 * 86_400_000) as i64;
        let Some(rate) = self.rate else {
            return Ok(Plan::of_poll_interval(self.devices, self.seed, start, told_ms));
        };
        let mut plan = Plan::of_rate(self.devices, self.seed, start, rate);
        if self.poll_interval.is_some() {
            if plan.poll_interval_ms > told_ms {
                let least = Plan::of_poll_interval(self.devices, self.seed, start, told_ms).rate();
                return Err(Fatal::usage(format!(
                    "{} devices that send {rate} events a second poll every {}, later than the \
                     --poll-interval of {}: most would go Offline. Raise --rate to {} or more",
                    self.devices,
                    humantime::format_duration(Duration::from_millis(
                        plan.poll_interval_ms.unsigned_abs()
                    )),
                    humantime::format_duration(told),
                    least.ceil()
                )));
            }
            let whole_seconds = (told_ms / 1000).max(1);
            plan.told_poll_interval_s = u32::try_from(whole_seconds).unwrap_or(u32::MAX);
        }
        Ok(plan)
    }
}

/// Runs until the duration is over or a signal comes.
///
/// # Errors
/// When Kafka cannot be reached, lacks the topics, or stops taking records.
pub fn run(args: &Args, config: &Config, json: bool) -> Result<(), Fatal> {
    if args.remove {
        return remove::run(args.seed, args.yes, config, json);
    }
    let clock = SystemClock::new();
    // Before anything is asked of Kafka or of anybody.
    args.plan(config, clock.wall())?;
    let linger_ms = if args.bursts.is_some() { "20" } else { "0" };
    let mut traffic = Traffic::open(config, "simulate", &Input::ALL, linger_ms)?;
    let devices = counted(args.devices.into(), "device");
    let what = format!(
        "simulate would add events of {devices} that do not exist, in fleets named fleet-1, fleet-2 …"
    );
    if !consent::given(&traffic, &what, args.yes)? {
        return print("Nothing was sent.\n");
    }
    let stop = Arc::new(AtomicBool::new(false));
    super::signals::set(&stop)?;
    let start = clock.wall();
    let plan = args.plan(config, start)?;
    let mut fleet = Fleet::new(plan.clone());
    let to_try: Vec<String> =
        (0..TO_TRY.min(plan.devices)).map(|place| fleet.device_id(place).to_string()).collect();
    if !json {
        say(&format!(
            "Simulating {devices}. Try: device-status get {}\n\
             `simulate --remove --seed {}` deletes them.",
            to_try.join(" "),
            plan.seed
        ));
    }
    let mut report = Report::new(args.duration);
    // The fleet's time is the time of day at the start, and goes on evenly
    // whatever is done to the host's clock.
    let started_ms = clock.monotonic_ms();
    let end_ms = args.duration.map(|duration| duration.as_millis() as i64);
    loop {
        let elapsed_ms = clock.monotonic_ms() - started_ms;
        let over = end_ms.filter(|end_ms| elapsed_ms >= *end_ms);
        let to_ms = over.unwrap_or_else(|| due_ms(elapsed_ms, args.bursts));
        for sent in fleet.advance(start.plus_ms(to_ms)) {
            if !stop.load(Ordering::Relaxed) {
                traffic.send(sent, &stop)?;
            }
        }
        traffic.poll()?;
        report.tell(elapsed_ms, traffic.counts.values().sum(), plan.devices);
        if stop.load(Ordering::Relaxed) || over.is_some() {
            break;
        }
        let next = fleet.next_at().filter(|_| args.bursts.is_none());
        let until_next_ms = next.map_or(ROUND_MS, |next| next.0 - start.0 - elapsed_ms);
        SystemClock::pause(Duration::from_millis(until_next_ms.clamp(1, ROUND_MS) as u64));
    }
    traffic.finish(&stop)?;
    report.bar.finish_and_clear();
    let elapsed_ms = (clock.monotonic_ms() - started_ms).max(1);
    print_summary(&plan, &traffic, &to_try, elapsed_ms, json)
}

fn print_summary(
    plan: &Plan,
    traffic: &Traffic<'_>,
    to_try: &[String],
    elapsed_ms: i64,
    json: bool,
) -> Result<(), Fatal> {
    let events: u64 = traffic.counts.values().sum();
    let rate = events as f64 * 1000.0 / elapsed_ms as f64;
    if json {
        let summary = json!({
            "devices": plan.devices,
            "seed": plan.seed,
            "devices_to_try": to_try,
            "poll_interval_ms": plan.poll_interval_ms,
            "elapsed_ms": elapsed_ms,
            "events": events,
            "records": traffic.records,
            "events_per_second": rate.round(),
            "events_by_kind": traffic.counts,
        });
        return print(&format!("{summary}\n"));
    }
    let mut text = format!(
        "Sent {events} events ({} records) of {} devices in {:.1} s: {rate:.0} a second. Seed {}.\n",
        traffic.records,
        plan.devices,
        elapsed_ms as f64 / 1000.0,
        plan.seed
    );
    let kinds = kinds().map_err(Fatal::internal)?;
    for (kind, count) in kinds.iter().filter_map(|kind| traffic.counts.get_key_value(kind)) {
        let _ = writeln!(text, "{count:>12}  {kind}");
    }
    print(&text)
}

/// Says how it goes: a bar on a terminal, else a log line now and then.
struct Report {
    bar: ProgressBar,
    told_ms: i64,
    told_events: u64,
}

impl Report {
    fn new(duration: Option<Duration>) -> Report {
        let length = duration.map(|duration| duration.as_millis() as u64);
        let template = match length {
            Some(_) => "{elapsed} [{wide_bar}] {msg}, {eta} left",
            None => "{elapsed} {spinner} {msg}",
        };
        let bar = bar(length, template, ProgressDrawTarget::stderr());
        Report { bar, told_ms: 0, told_events: 0 }
    }

    fn tell(&mut self, elapsed_ms: i64, events: u64, devices: u32) {
        let every_ms = if self.bar.is_hidden() { REPORT_EVERY_MS } else { 500 };
        self.bar.set_position(elapsed_ms.unsigned_abs());
        let since_ms = elapsed_ms - self.told_ms;
        if since_ms < every_ms {
            return;
        }
        let rate = (events - self.told_events) as f64 * 1000.0 / since_ms as f64;
        if self.bar.is_hidden() {
            tracing::info!(events, events_per_second = rate.round(), devices, "simulating");
        } else {
            self.bar.set_message(format!("{events} events, {rate:.0} a second"));
        }
        (self.told_ms, self.told_events) = (elapsed_ms, events);
    }
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

    fn plan(arguments: &str) -> Result<Plan, Fatal> {
        let arguments = std::iter::once("simulate").chain(arguments.split_whitespace());
        Command::parse_from(arguments).args.plan(&Config::default(), Timestamp(0))
    }

    #[test]
    fn a_rate_makes_the_poll_interval() {
        let plan = plan("--devices 1000000 --rate 50_000").unwrap();
        assert_eq!(plan.poll_interval_ms, 21_300);
        assert_eq!(plan.told_poll_interval_s, 22);
    }

    #[test]
    fn without_a_rate_devices_poll_as_they_are_told() {
        assert_eq!(plan("").unwrap().poll_interval_ms, 15 * 60_000);
        assert_eq!(plan("--poll-interval 30s").unwrap().poll_interval_ms, 30_000);
    }

    #[test]
    fn events_are_due_at_their_instants_or_at_the_bursts() {
        let bursts = |arguments: &str| {
            let arguments = std::iter::once("simulate").chain(arguments.split_whitespace());
            Command::try_parse_from(arguments).map(|command| command.args.bursts)
        };
        assert_eq!(due_ms(1_234, bursts("").unwrap()), 1_234);
        assert_eq!(due_ms(1_234, bursts("--bursts").unwrap()), 1_220);
        assert_eq!(due_ms(1_234, bursts("--bursts 1s --devices 5").unwrap()), 1_000);
        assert!(bursts("--bursts 0s").is_err());
    }

    #[test]
    fn devices_that_would_poll_too_late_are_refused() {
        let refusal = plan("--devices 1000 --rate 10 --poll-interval 1m").unwrap_err();
        assert!(refusal.message.contains("--rate to 18"), "{refusal}");
        let told = plan("--devices 1000 --rate 20 --poll-interval 1m").unwrap();
        assert_eq!(told.told_poll_interval_s, 60);
        assert!(told.poll_interval_ms < 60_000);
    }
}
