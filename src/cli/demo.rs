//! `device-status demo`: a simulated fleet, the service and a picture of both, in
//! one process. It leaves nothing behind.
//!
//! Kafka is librdkafka's mock cluster, which has neither transactions nor
//! `LogAppendTime`. So the service runs with `at_least_once`, accepts producers'
//! timestamps, and takes the host's time as broker time. Redis is a real server.

mod picture;
mod redis_server;
mod story;

use std::io::{IsTerminal, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use console::Term;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::mocking::MockCluster;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::run::run_service;
use super::text::print;
use super::traffic::Traffic;
use crate::clock::SystemClock;
use crate::config::{Config, GroupProtocol, Guarantee};
use crate::error::Fatal;
use crate::kafka::log::Stamps;
use crate::kafka::topics::Role;
use crate::shard::{DeviceId, Input, StatusChange};
use crate::simulate::{Fleet, Joining, Plan};
use crate::stream_thread::ports::Clock;
use crate::wire::status_changed;
use picture::Picture;
use redis_server::RedisServer;
use story::{Act, Story};

const PARTITIONS: i32 = 4;
const POLL_INTERVAL_MS: i64 = 6_000;
/// The device that is switched off on purpose.
const WATCHED: u32 = 0;
/// How often the picture is drawn and events are sent.
const ROUND: Duration = Duration::from_millis(50);
const PLAIN_SUMMARY_EVERY_MS: i64 = 5_000;
/// How many changes a second are printed without a terminal.
const PLAIN_LINES_PER_SECOND: usize = 5;

/// Show the service at work on a simulated fleet
#[derive(clap::Args, Debug)]
pub struct Args {
    /// How many devices
    #[arg(long, value_name = "N", default_value_t = 300,
        value_parser = clap::value_parser!(u32).range(1..=5_000))]
    devices: u32,
    /// The same seed gives the same devices and the same events
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print lines instead of a picture; the default where a picture cannot be
    /// drawn
    #[arg(long)]
    plain: bool,
    /// When to stop [default: at Ctrl-C]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
}

impl Args {
    /// Whether the picture will take the whole terminal.
    #[must_use]
    pub fn fills_terminal(&self) -> bool {
        !self.plain && std::io::stdout().is_terminal() && !console::is_dumb()
    }
}

/// Runs until the duration is over or a signal comes.
///
/// # Errors
/// When Redis cannot be started, or the service stops by itself.
pub fn run(args: &Args, config: &Config, _json: bool) -> Result<(), Fatal> {
    let clock = SystemClock::new();
    let stop = Arc::new(AtomicBool::new(false));
    super::signals::set(&stop)?;
    let redis = RedisServer::start(free_port()?, &clock)?;
    let mock = MockCluster::new(1).map_err(|error| {
        Fatal::internal(format!("cannot start the mock Kafka cluster: {error}"))
    })?;
    let config = demo_config(config, &mock.bootstrap_servers(), &redis.url())?;
    for topic in Role::ALL.map(|role| role.topic(&config)) {
        mock.create_topic(topic, PARTITIONS, 1).map_err(|error| {
            Fatal::internal(format!(
                "cannot create topic {topic} in the mock Kafka cluster: {error}"
            ))
        })?;
    }
    // Redis and the mock cluster end with this function; the service ends before.
    let shutdown = Arc::new(AtomicBool::new(false));
    std::thread::scope(|threads| {
        let service = std::thread::Builder::new()
            .name("service".to_owned())
            .spawn_scoped(threads, || run_service(config.clone(), Stamps::Own, shutdown.clone()))
            .map_err(|error| Fatal::internal(format!("cannot start a thread: {error}")))?;
        let shown = show(args, &config, &clock, &stop, &|| service.is_finished());
        shutdown.store(true, Ordering::Relaxed);
        let panicked = |_| Err(Fatal::internal("the service panicked"));
        shown.and(service.join().unwrap_or_else(panicked))
    })
}

/// The default configuration, changed to quick polls and to what the mock cluster
/// supports.
fn demo_config(config: &Config, brokers: &str, redis_url: &str) -> Result<Config, Fatal> {
    let mut demo = Config { log: config.log.clone(), ..Config::default() };
    demo.kafka.brokers = brokers.to_owned();
    demo.kafka.group_protocol = GroupProtocol::Classic;
    demo.topics.partitions = PARTITIONS;
    demo.topics.replication_factor = 1;
    demo.topics.accept_create_time = true;
    demo.processing.guarantee = Guarantee::AtLeastOnce;
    demo.processing.threads = 1;
    demo.processing.slack = Duration::from_millis(500);
    demo.heartbeat.minimum = Duration::from_secs(1);
    demo.heartbeat.grace = Duration::from_secs(2);
    demo.heartbeat.default_poll_interval = Duration::from_millis(POLL_INTERVAL_MS as u64);
    demo.redis.url = redis_url.to_owned();
    demo.admin.token.clear();
    demo.admin.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    Ok(demo)
}

fn free_port() -> Result<u16, Fatal> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| Fatal::unavailable(format!("found no free port: {error}")))
}

/// Simulates the fleet, reads the changes, and draws, until it is over.
fn show(
    args: &Args,
    config: &Config,
    clock: &SystemClock,
    stop: &AtomicBool,
    has_ended: &dyn Fn() -> bool,
) -> Result<(), Fatal> {
    let mut traffic = Traffic::open(config, "demo", &Input::ALL, "0")?;
    let changes = open_changes(config)?;
    let start = clock.wall();
    let started_ms = clock.monotonic_ms();
    let plan = Plan {
        joining: Joining::Within(4_000),
        lease_ms: 30_000,
        ..Plan::of_poll_interval(args.devices, args.seed, start, POLL_INTERVAL_MS)
    };
    let told_ms = i64::from(plan.told_poll_interval_s) * 1_000;
    let mut fleet = Fleet::new(plan);
    fleet.hold(WATCHED);
    let watched = fleet.device_id(WATCHED);
    let mut story = Story::new(watched.clone(), config.rules(), told_ms);

    let mut screen = Screen::open(args, config, &watched);
    let mut picture = Picture::new(screen.term.is_some() && console::colors_enabled());

    let end_ms = args.duration.map(|duration| duration.as_millis() as i64);
    loop {
        let elapsed_ms = clock.monotonic_ms() - started_ms;
        let now = start.plus_ms(elapsed_ms);
        let over = stop.load(Ordering::Relaxed) || end_ms.is_some_and(|end| elapsed_ms >= end);
        if over || has_ended() {
            break;
        }
        for sent in fleet.advance(now) {
            if sent.input == Input::Heartbeats && sent.device.as_ref() == Some(&watched) {
                story.heartbeat(sent.at);
            }
            traffic.send(sent, stop)?;
        }
        traffic.poll()?;
        let act = story.act(now);
        match act {
            Act::Nothing => {}
            Act::SwitchOff => fleet.switch_off(WATCHED),
            Act::SwitchOn => fleet.switch_on(WATCHED),
        }
        if act != Act::Nothing {
            screen.aloud(&story.tell(now));
        }
        for change in read_changes(&changes) {
            let said = story.change(&change, now);
            screen.change(&picture.line(&change), elapsed_ms);
            picture.apply(change);
            if let Some(said) = said {
                screen.aloud(&said);
            }
        }
        let style = story.style().force_styling(screen.term.is_some());
        let told = [story.state(), story.countdown(now)];
        let told = told.map(|line| style.apply_to(line).to_string());
        screen.draw(&picture, &told, elapsed_ms);
    }
    drop(screen);
    print(&format!("{}\n", last_words(picture.changes, &story)))
}

fn last_words(changes: u64, story: &Story) -> String {
    let device = picture::short(&story.device);
    let all = story.misses_ms.len();
    let exact = story.misses_ms.iter().filter(|miss| **miss == 0).count();
    let times =
        |count: usize| if count == 1 { "once".to_owned() } else { format!("{count} times") };
    let of_the_device = match all {
        0 => "It ended before a switched-off device became Offline, which takes half a minute."
            .to_owned(),
        _ if exact == all => format!(
            "Device {device} was switched off {}.\nIt was Offline since exactly its deadline{}.",
            times(all),
            if all == 1 { "" } else { " each time" }
        ),
        _ => format!(
            "Device {device} was switched off {}.\n{exact} of {all}: Offline since its deadline.",
            times(all)
        ),
    };
    format!("The demo has ended, after {changes} changes.\n{of_the_device}")
}

/// A consumer of the status changes, from the start of the topic.
fn open_changes(config: &Config) -> Result<BaseConsumer, Fatal> {
    let wrap = |error| Fatal::internal(format!("reading the status changes: {error}"));
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &config.kafka.brokers)
        .set("group.id", "device-status-demo")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_uncommitted")
        .set("fetch.wait.max.ms", "50")
        .create()
        .map_err(wrap)?;
    let mut partitions = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        partitions
            .add_partition_offset(&config.topics.status_changes, partition, Offset::Beginning)
            .map_err(wrap)?;
    }
    consumer.assign(&partitions).map_err(wrap)?;
    Ok(consumer)
}

/// Reads the changes that are there. Waits for the first one only.
fn read_changes(consumer: &BaseConsumer) -> Vec<StatusChange> {
    let mut changes = Vec::new();
    let mut wait = ROUND;
    while changes.len() < 500
        && let Some(message) = consumer.poll(wait)
    {
        wait = Duration::ZERO;
        // Connection errors are transient.
        let Ok(message) = message else { continue };
        changes.extend(message.payload().and_then(|value| status_changed::decode(value).ok()));
    }
    changes
}

/// The output of the demo: a picture that is redrawn, or lines for a log or a pipe.
struct Screen {
    /// The terminal of the picture; `None`: lines are printed.
    term: Option<Term>,
    /// The title, which is printed once.
    title: String,
    hints: [String; 2],
    told_ms: i64,
    second: i64,
    told_this_second: usize,
}

impl Screen {
    fn open(args: &Args, config: &Config, watched: &DeviceId) -> Screen {
        let interval_s = POLL_INTERVAL_MS / 1000;
        let port = config.redis.url.rsplit(':').next().unwrap_or_default();
        let screen = Screen {
            term: args.fills_terminal().then(Term::stdout),
            title: format!(
                "device-status demo: {} devices that poll every {interval_s} s, seed {}",
                args.devices, args.seed
            ),
            hints: [
                format!("redis-cli -p {port} hgetall {}device:{watched}", config.redis.prefix),
                format!("curl http://{}/metrics", config.admin.listen),
            ],
            told_ms: 0,
            second: 0,
            told_this_second: 0,
        };
        if let Some(term) = &screen.term {
            // The alternate screen: the terminal's former content comes back at the
            // end.
            let _ = term.write_str("\x1b[?1049h");
            let _ = term.hide_cursor();
        }
        screen.line(&screen.title);
        for hint in &screen.hints {
            screen.line(&format!("  {hint}"));
        }
        screen
    }

    /// Prints a line, unless there is a picture.
    fn line(&self, text: &str) {
        if self.term.is_none() {
            // A closed pipe is no failure.
            let _ = writeln!(std::io::stdout(), "{text}");
        }
    }

    /// Prints a change, up to the limit per second.
    fn change(&mut self, line: &str, elapsed_ms: i64) {
        if self.second != elapsed_ms / 1000 {
            (self.second, self.told_this_second) = (elapsed_ms / 1000, 0);
        }
        self.told_this_second += 1;
        if self.told_this_second <= PLAIN_LINES_PER_SECOND {
            self.line(line.trim_end());
        }
    }

    /// Prints a highlighted line.
    fn aloud(&self, line: &str) {
        self.line(&format!(">>> {line}"));
    }

    fn draw(&mut self, picture: &Picture, story: &[String; 2], elapsed_ms: i64) {
        let (seconds, changes) = (elapsed_ms / 1000, picture.changes);
        if let Some(term) = &self.term {
            self.draw_picture(term, picture, story, seconds);
        } else if elapsed_ms - self.told_ms >= PLAIN_SUMMARY_EVERY_MS {
            self.told_ms = elapsed_ms;
            self.line(&format!("--- {seconds} s, {changes} changes: {}", picture.summary()));
            self.line(&format!("    {}. {}", story[0], story[1]));
        }
    }

    fn draw_picture(&self, term: &Term, picture: &Picture, story: &[String; 2], seconds: i64) {
        let (rows, columns) = term.size();
        let (rows, columns) = (usize::from(rows), usize::from(columns));
        let bold = console::Style::new().bold();
        let mut lines = vec![
            bold.apply_to(&self.title).to_string(),
            format!("{seconds} s, {} changes. Ctrl-C ends it.", picture.changes),
            String::new(),
            picture.bar(columns),
        ];
        lines.extend(picture.summary_within(columns));
        lines.push(String::new());
        lines.extend(story.iter().cloned());
        lines.push(String::new());
        let room = rows.saturating_sub(lines.len() + self.hints.len() + 2);
        lines.extend(picture.latest(columns).take(room));
        lines.resize(rows.saturating_sub(self.hints.len() + 1), String::new());
        lines.extend(self.hints.iter().cloned());
        let mut frame = String::from("\x1b[H");
        for (n, line) in lines.iter().enumerate() {
            let line = console::truncate_str(line, columns, "…");
            let end = if n + 1 == lines.len() { "\x1b[K\x1b[J" } else { "\x1b[K\r\n" };
            frame.push_str(&line);
            frame.push_str("\x1b[0m");
            frame.push_str(end);
        }
        let _ = term.write_str(&frame);
        let _ = term.flush();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Some(term) = &self.term {
            let _ = term.show_cursor();
            let _ = term.write_str("\x1b[?1049l");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_say_how_often_the_deadline_was_met() {
        let mut story = Story::new(
            DeviceId::from_key(&[b'd'; 32]).unwrap(),
            crate::shard::Rules::default(),
            6_000,
        );
        assert!(last_words(7, &story).contains("before a switched-off device became Offline"));
        for (misses_ms, told) in [
            (vec![0], "switched off once. It was Offline since exactly its deadline."),
            (vec![0, 0], "off 2 times. It was Offline since exactly its deadline each time."),
            (vec![0, 3], "switched off 2 times. 1 of 2: Offline since its deadline."),
            (vec![3], "switched off once. 0 of 1: Offline since its deadline."),
        ] {
            story.misses_ms = misses_ms;
            let words = last_words(7, &story);
            assert!(words.replace('\n', " ").ends_with(told), "{words}");
            assert!(words.lines().all(|line| line.len() <= 80), "{words}");
        }
    }
}
