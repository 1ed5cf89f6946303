//! Tells a story to a shard, a line a step, and compares what it says. The
//! language is described in `tests/stories/README.md`.

mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use device_status::shard::{
    Cause, Content, DeviceEvent, DeviceId, Entry, Event, EventBody, Input, Now, Queued, Relay,
    Rules, Shard, Start, StatusChange, Timestamp,
};

use words::{Arguments, DAY_ZERO_MS, device_id, parse_event, parse_input, parse_time, show_time};

/// How a story is told: what holds for one way must hold for the other.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// All that is in the log is read before the core takes one generous turn.
    Broad,
    /// A record at a time is read, and a turn does one thing.
    Small,
    /// As [`Pace::Broad`], and the process is started anew before each step.
    Restarted,
}

/// One story of a file.
pub struct Text<'a> {
    /// What it is about.
    pub title: &'a str,
    /// Its lines, with their numbers in the file.
    lines: Vec<(usize, &'a str)>,
}

/// The stories of a file: each begins with a line `== title`.
pub fn split(text: &str) -> Result<Vec<Text<'_>>, (usize, String)> {
    let mut stories: Vec<Text<'_>> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(title) = line.strip_prefix("==") {
            let title = title.trim();
            if title.is_empty() || stories.iter().any(|story| story.title == title) {
                return Err((number, "a story has a title of its own".into()));
            }
            stories.push(Text { title, lines: Vec::new() });
            continue;
        }
        let line = line.split('#').next().unwrap_or_default().trim();
        match stories.last_mut() {
            _ if line.is_empty() => {}
            Some(story) => story.lines.push((number, line)),
            None => return Err((number, "a story begins with a line == title".into())),
        }
    }
    Ok(stories)
}

/// Tells a story. Where it goes otherwise, says at which line.
pub fn tell(text: &Text<'_>, pace: Pace) -> Result<BTreeSet<Cause>, (usize, String)> {
    let mut story = Story::new(pace);
    for (number, line) in &text.lines {
        story.line(line).map_err(|message| (*number, message))?;
    }
    Ok(story.causes)
}

/// What was written to an input, and how much of it was read.
#[derive(Default)]
struct Topic {
    records: Vec<Queued>,
    read: usize,
    /// Where a transaction is open: its first record.
    open_from: Option<usize>,
    /// Nothing can be heard of it.
    blocked: bool,
    /// Its producers stamp the records, not the broker.
    stamped_by_sender: bool,
}

impl Topic {
    /// Up to here the records can be read.
    fn stable(&self) -> usize {
        self.open_from.unwrap_or(self.records.len())
    }
}

struct Story {
    shard: Shard,
    rules: Rules,
    pace: Pace,
    now: i64,
    topics: [Topic; 3],
    /// Since when the process is stopped, and how long each input was then.
    stopped: Option<(i64, [usize; 3])>,
    /// How late the process takes the broker's clock to be; `None`: it does not
    /// know.
    broker_late_ms: Option<i64>,
    last_device: Option<String>,
    /// What the step emitted.
    changes: Vec<StatusChange>,
    /// All causes that were ever emitted.
    causes: BTreeSet<Cause>,
    /// The changelog, compacted.
    changelog: BTreeMap<String, Entry>,
    epoch: u64,
}

impl Story {
    fn new(pace: Pace) -> Story {
        let rules = Rules { slack_ms: 0, ..Rules::default() };
        let mut shard = Shard::new(0, rules.clone());
        shard.start(Start { epoch: 1, ..Start::default() });
        Story {
            shard,
            rules,
            pace,
            now: DAY_ZERO_MS,
            topics: Default::default(),
            stopped: None,
            broker_late_ms: Some(0),
            last_device: None,
            changes: Vec::new(),
            causes: BTreeSet::new(),
            changelog: BTreeMap::new(),
            epoch: 1,
        }
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        let (step, expected) = line.split_once('|').unwrap_or((line, ""));
        let words: Vec<&str> = step.split_whitespace().collect();
        let [time, who, what, arguments @ ..] = &words[..] else {
            return Err("a step is: time, device or *, event".into());
        };
        let time = parse_time(time)?;
        if time < self.now {
            return Err("steps are in order of time".into());
        }
        if matches!(self.pace, Pace::Restarted) && self.stopped.is_none() {
            self.changes.clear();
            self.restart(&[])?;
            self.run();
            if let Some(change) = self.changes.first() {
                return Err(format!("a restart before this step makes a change: {change:?}"));
            }
        }
        self.now = time;
        if *who != "*" {
            self.last_device = Some((*who).to_string());
        }
        self.changes.clear();
        self.step(who, what, arguments)?;
        self.causes.extend(self.changes.iter().map(|change| change.cause));
        for expectation in expected.split(';') {
            let expectation = expectation.trim();
            if !expectation.is_empty() {
                self.expect(expectation)?;
            }
        }
        Ok(())
    }

    fn step(&mut self, who: &str, what: &str, arguments: &[&str]) -> Result<(), String> {
        match (who, what) {
            ("*", "wait") => {}
            ("*", "blocked") => self.topic(arguments)?.blocked = true,
            ("*", "unblocked") => self.topic(arguments)?.blocked = false,
            ("*", "stamped-by-sender") => self.topic(arguments)?.stamped_by_sender = true,
            ("*", "transaction-opened") => {
                let topic = self.topic(arguments)?;
                topic.open_from = Some(topic.records.len());
            }
            ("*", "transaction-ended") => self.topic(arguments)?.open_from = None,
            ("*", "stopped") => {
                let ends = self.topics.each_ref().map(|topic| topic.records.len());
                self.stopped = Some((self.now, ends));
            }
            ("*", "resumed") => self.resume()?,
            ("*", "broker-time") => {
                self.broker_late_ms = match arguments {
                    ["unknown"] => None,
                    ["known"] => Some(0),
                    _ => Arguments::parse(arguments)?.duration("late")?,
                }
            }
            ("*", "restart") => self.restart(arguments)?,
            _ => self.write(who, what, arguments)?,
        }
        if self.stopped.is_none() {
            self.run();
        }
        Ok(())
    }

    fn topic(&mut self, arguments: &[&str]) -> Result<&mut Topic, String> {
        Ok(&mut self.topics[parse_input(arguments)?.index()])
    }

    /// A producer writes an event.
    fn write(&mut self, who: &str, what: &str, arguments: &[&str]) -> Result<(), String> {
        let arguments = Arguments::parse(arguments)?;
        let (input, body) = parse_event(who, what, &arguments)?;
        let topic = &mut self.topics[input.index()];
        let stamped = arguments.time("stamped")?;
        if stamped.is_some() && !topic.stamped_by_sender {
            return Err("stamped= is for an input that is stamped-by-sender".into());
        }
        topic.records.push(Queued {
            offset: topic.records.len() as i64,
            timestamp: stamped.unwrap_or(Timestamp(self.now)),
            stamped_by_broker: !topic.stamped_by_sender,
            relay: Relay {
                source_timestamp: arguments.time("source")?,
                is_replayed: arguments.says("replayed"),
            },
            content: Content::Event(Event { occurred_at: arguments.time("at")?, body }),
        });
        Ok(())
    }

    /// What the process takes the broker's clock to show.
    fn broker(&self) -> Option<Timestamp> {
        self.broker_late_ms.map(|late_ms| Timestamp(self.now - late_ms))
    }

    fn moment(&self) -> Now {
        Now { monotonic_ms: self.now, broker: self.broker() }
    }

    /// The process goes on. The answers to what it asked before come first: they
    /// tell of the inputs as they were then.
    fn resume(&mut self) -> Result<(), String> {
        let (stopped_at, ends) = self.stopped.take().ok_or("it was not stopped")?;
        for input in Input::ALL {
            let end = ends[input.index()] as i64;
            let asked_at = self.broker_late_ms.map(|late_ms| Timestamp(stopped_at - late_ms));
            self.shard.learn_end(input, asked_at, end, end);
        }
        self.turns(self.moment());
        Ok(())
    }

    /// The process asks for the ends of its inputs, reads what there is, and
    /// works it off.
    fn run(&mut self) {
        for input in Input::ALL {
            let topic = &self.topics[input.index()];
            if !topic.blocked {
                let (end, stable) = (topic.records.len() as i64, topic.stable() as i64);
                self.shard.learn_end(input, self.broker(), end, stable);
            }
        }
        let moment = self.moment();
        let most = match self.pace {
            Pace::Broad | Pace::Restarted => usize::MAX,
            Pace::Small => 1,
        };
        // The worst order: what the merge puts first is read last.
        while Input::ALL.into_iter().rev().fold(false, |any, input| self.read(input, most) | any) {
            self.turns(moment);
        }
        self.turns(moment);
        // An input that others wait for is passed over once it has been silent for
        // long, of which each look counts for a second at most.
        for second in 1..=self.rules.max_input_idle_ms / 1_000 {
            self.turns(Now { monotonic_ms: moment.monotonic_ms + second * 1_000, ..moment });
        }
    }

    fn read(&mut self, input: Input, most: usize) -> bool {
        let topic = &mut self.topics[input.index()];
        let end = if topic.blocked { topic.read } else { topic.stable() };
        let until = topic.read.saturating_add(most).min(end);
        for record in &topic.records[topic.read..until] {
            self.shard.offer(input, record.clone());
        }
        let read_any = until > topic.read;
        topic.read = until;
        read_any
    }

    fn turns(&mut self, moment: Now) {
        let budget = match self.pace {
            Pace::Broad | Pace::Restarted => 10_000,
            Pace::Small => 1,
        };
        loop {
            let more = self.shard.turn(moment, budget).more;
            self.commit();
            if !more {
                return;
            }
        }
    }

    fn commit(&mut self) {
        let outbox = self.shard.take_outbox(usize::MAX);
        if let Some(last) = outbox.view.last() {
            self.shard.view_acknowledged(last.sequence);
        }
        self.changes.extend(outbox.changes);
        for entry in outbox.changelog {
            let key = match &entry {
                Entry::Device(device, _) => format!("device {device}"),
                Entry::ClosedSession(device, session, _) => format!("closed {device} {session:?}"),
                Entry::Instance(name, _) => format!("instance {name}"),
                Entry::Fleet(name, _) => format!("fleet {name}"),
                Entry::Organization(name, _) => format!("organization {name}"),
                Entry::Epoch(_) => "epoch".to_string(),
                Entry::Hold(_) => "hold".to_string(),
            };
            self.changelog.insert(key, entry);
        }
    }

    /// Everything that was committed, and nothing else, goes to a new shard.
    fn restart(&mut self, arguments: &[&str]) -> Result<(), String> {
        let before = self.rules.fingerprint();
        self.change_rules(&Arguments::parse(arguments)?)?;
        self.stopped = None;
        let progress = self.shard.progress();
        let positions = Input::ALL.map(|input| self.shard.position(input));
        let mut shard = Shard::new(0, self.rules.clone());
        for entry in self.changelog.values() {
            shard.restore_entry(entry.clone(), false);
        }
        let watermark = progress.watermarks[Input::Heartbeats.index()];
        let heartbeats = &self.topics[Input::Heartbeats.index()].records;
        for record in heartbeats {
            let Content::Event(event) = &record.content else { continue };
            let EventBody::Heartbeat { device, poll_interval_s, going_away } = &event.body else {
                continue;
            };
            if record.offset < positions[Input::Heartbeats.index()]
                && record.timestamp >= progress.replay_from
            {
                let at = event.occurred_at.unwrap_or(record.timestamp).min(record.timestamp);
                let at = watermark.map_or(at, |watermark| at.min(watermark));
                shard.replay_heartbeat(device, at, *poll_interval_s, *going_away);
            }
        }
        let watermark = progress.watermarks[Input::VpnSessions.index()];
        for record in &self.topics[Input::VpnSessions.index()].records {
            let Content::Event(event) = &record.content else { continue };
            let EventBody::Device { device, event: opening @ DeviceEvent::SessionOpened { .. } } =
                &event.body
            else {
                continue;
            };
            if record.offset < positions[Input::VpnSessions.index()]
                && record.timestamp >= progress.replay_from
            {
                let believed =
                    watermark.map_or(record.timestamp, |mark| record.timestamp.min(mark));
                let at = event.occurred_at.unwrap_or(record.timestamp).min(believed);
                shard.replay_opening(device, at, record.relay.sent_at(believed), opening);
            }
        }
        self.epoch += 1;
        shard.start(Start {
            epoch: self.epoch,
            clock: Some(progress.clock),
            watermarks: progress.watermarks,
            replay_from: Some(progress.replay_from),
            rules_changed: self.rules.fingerprint() != before,
            rewrite_view: false,
            positions,
        });
        self.shard = shard;
        for (topic, position) in self.topics.iter_mut().zip(positions) {
            topic.read = usize::try_from(position).unwrap_or(0);
        }
        Ok(())
    }

    fn change_rules(&mut self, arguments: &Arguments<'_>) -> Result<(), String> {
        let rules = &mut self.rules;
        if let Some(enabled) = arguments.switch("vpn")? {
            rules.vpn_enabled_by_default = enabled;
        }
        if let Some(tolerance) = arguments.number("tolerance")? {
            rules.tolerance = tolerance;
        }
        for (key, rule) in [
            ("grace", &mut rules.grace_ms),
            ("default", &mut rules.default_poll_interval_ms),
            ("minimum", &mut rules.minimum_ms),
            ("window", &mut rules.replay_window_ms),
            ("retention", &mut rules.tombstone_retention_ms),
            ("slack", &mut rules.slack_ms),
            ("delay", &mut rules.max_lease_delay_ms),
        ] {
            if let Some(ms) = arguments.duration(key)? {
                *rule = ms;
            }
        }
        Ok(())
    }

    fn expect(&mut self, expectation: &str) -> Result<(), String> {
        let mut words: Vec<&str> = expectation.split_whitespace().collect();
        let mut name = self.last_device.clone();
        if let Some(device) = words.first().and_then(|word| word.strip_suffix(':')) {
            name = Some(device.to_string());
            words.remove(0);
        }
        let name = name.ok_or("no device was named so far")?;
        let device = device_id(&name)?;
        self.agrees_with_its_explanation(&device)?;
        let mut place = 0;
        for word in words {
            let (key, expected) = match word.split_once('=') {
                Some(pair) => pair,
                None => {
                    place += 1;
                    (if place == 1 { "status" } else { "connectivity" }, word)
                }
            };
            let actual = self.actual(&device, key)?.unwrap_or_else(|| "-".to_string());
            let expected = match key {
                "since" | "links" | "last" | "clock" | "member" | "update" if expected != "-" => {
                    show_time(parse_time(expected)?)
                }
                _ => expected.to_string(),
            };
            if actual != expected {
                return Err(format!("{name}: {key} is {actual}, not {expected}"));
            }
        }
        Ok(())
    }

    /// What is shown must be what the ladder says when it is asked why.
    fn agrees_with_its_explanation(&self, device: &DeviceId) -> Result<(), String> {
        let Some(why) = self.shard.explain(device) else { return Ok(()) };
        let shown = self.shard.view(device).map(|view| (view.status, view.connectivity));
        if self.stopped.is_none() && why.ladder.shown() != shown {
            return Err(format!("{device}: {shown:?} is shown, and not {:?}", why.ladder.shown()));
        }
        Ok(())
    }

    fn actual(&self, device: &DeviceId, key: &str) -> Result<Option<String>, String> {
        let view = self.shard.view(device);
        let mut changes = self.changes.iter().filter(|change| change.device == *device);
        Ok(match key {
            "clock" => Some(show_time(self.shard.clock().0)),
            "changes" => Some(changes.count().to_string()),
            "cause" => changes.next_back().map(|change| change.cause.name().to_string()),
            "instance" => changes
                .next_back()
                .and_then(|change| change.vpn_instance.as_ref())
                .map(|instance| instance.to_string()),
            // From where to where, by the last change of the step.
            "moved" => changes.next_back().map(|change| {
                let name = |name: &Option<Arc<str>>| name.as_deref().unwrap_or("-").to_string();
                format!(
                    "{}/{},{}/{}",
                    name(&change.previous_fleet),
                    name(&change.previous_organization),
                    name(&change.fleet),
                    name(&change.organization)
                )
            }),
            "emits" => {
                let changes: Vec<String> = changes
                    .map(|change| match change.current {
                        None => "deleted".to_string(),
                        Some((status, connectivity)) => {
                            format!("{}/{}", status.wire_name(), connectivity.wire_name())
                        }
                    })
                    .collect();
                (!changes.is_empty()).then(|| changes.join(","))
            }
            _ => {
                let Some(view) = view else {
                    return if VIEWED.contains(&key) { Ok(None) } else { Err(unknown(key)) };
                };
                match key {
                    "status" => Some(view.status.wire_name().to_string()),
                    "connectivity" => Some(view.connectivity.wire_name().to_string()),
                    "since" => Some(show_time(view.since.0)),
                    "links" => Some(show_time(view.connectivity_since.0)),
                    "heartbeat" => Some(view.heartbeat.wire_name().to_string()),
                    "last" => view.last_heartbeat.map(|at| show_time(at.0)),
                    "vpn" => Some(if view.vpn_connected { "up" } else { "down" }.to_string()),
                    "progress" => view.progress.map(|percent| percent.to_string()),
                    "release" => view.release.map(|release| release.to_string()),
                    "phase" => view.update_phase.map(|phase| phase.wire_name().to_string()),
                    "outcome" => view.update_outcome.map(|out| out.wire_name().to_string()),
                    "update" => view.update_since.map(|at| show_time(at.0)),
                    "fleet" => view.fleet.map(|fleet| fleet.to_string()),
                    "member" => Some(show_time(view.membership_since.0)),
                    "version" => Some(view.version.to_string()),
                    _ => return Err(unknown(key)),
                }
            }
        })
    }
}

/// What is shown of a device that exists.
const VIEWED: [&str; 15] = [
    "status",
    "connectivity",
    "since",
    "links",
    "heartbeat",
    "last",
    "vpn",
    "progress",
    "release",
    "phase",
    "outcome",
    "update",
    "fleet",
    "member",
    "version",
];

fn unknown(key: &str) -> String {
    format!("unknown expectation {key}=")
}
