//! Tells each story in `tests/stories/*.story` to a shard, and compares what
//! it says. The format is in `tests/stories/README.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use device_status::shard::{
    Cause, Content, DeviceEvent, DeviceId, Entry, Event, EventBody, FrozenReason, Input, Now,
    Queued, Rules, ScopeEvent, Settings, Shard, Start, StatusChange, Timestamp,
};

/// 2026-01-01T00:00:00Z: stories begin on some day.
const DAY_ZERO_MS: i64 = 1_767_225_600_000;

#[test]
fn every_story_ends_as_told() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stories");
    let mut paths: Vec<_> = std::fs::read_dir(&directory)
        .expect("tests/stories is there")
        .map(|entry| entry.expect("a readable directory").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "story"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no stories in {}", directory.display());
    let mut failures = String::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("a readable story");
        // Twice: what holds for a generous turn must hold for turns of one step.
        for budget in [10_000, 1] {
            if let Err((line, message)) = tell(&text, budget) {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let _ = writeln!(failures, "{name}:{line}: {message} (budget {budget})");
                break;
            }
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}

fn tell(text: &str, budget: usize) -> Result<(), (usize, String)> {
    let mut story = Story::new(budget);
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        story.line(line).map_err(|message| (number + 1, message))?;
    }
    Ok(())
}

struct Story {
    shard: Shard,
    rules: Rules,
    budget: usize,
    now: i64,
    offsets: [i64; 3],
    /// Inputs of which nothing is heard.
    blocked: BTreeSet<Input>,
    last_device: Option<String>,
    /// What the step emitted.
    changes: Vec<StatusChange>,
    /// The changelog, compacted.
    changelog: BTreeMap<String, Entry>,
    /// Heartbeats as they were read: record time, device, event time, interval.
    heartbeats: Vec<(i64, DeviceId, Timestamp, Option<u32>)>,
    epoch: u64,
}

impl Story {
    fn new(budget: usize) -> Story {
        let rules = Rules { slack_ms: 0, ..Rules::default() };
        let mut shard = Shard::new(0, rules.clone());
        shard.start(Start { epoch: 1, ..Start::default() });
        Story {
            shard,
            rules,
            budget,
            now: 0,
            offsets: [0; 3],
            blocked: BTreeSet::new(),
            last_device: None,
            changes: Vec::new(),
            changelog: BTreeMap::new(),
            heartbeats: Vec::new(),
            epoch: 1,
        }
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        let (step, expected) = line.split_once('|').unwrap_or((line, ""));
        let words: Vec<&str> = step.split_whitespace().collect();
        let [time, who, what, arguments @ ..] = &words[..] else {
            return Err("a step is: time, device or *, event".into());
        };
        self.now = parse_time(time)?;
        if *who != "*" {
            self.last_device = Some((*who).to_string());
        }
        self.changes.clear();
        self.step(who, what, arguments)?;
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
            ("*", "blocked") => {
                self.blocked.insert(parse_input(arguments)?);
            }
            ("*", "unblocked") => {
                self.blocked.remove(&parse_input(arguments)?);
            }
            ("*", "restart") => self.restart(arguments)?,
            _ => {
                let arguments = Arguments::parse(arguments)?;
                let (input, body) = parse_event(who, what, &arguments)?;
                let occurred_at = arguments.time("at")?;
                if let EventBody::Heartbeat { device, poll_interval_ms } = &body {
                    let at = occurred_at.unwrap_or(Timestamp(self.now)).min(Timestamp(self.now));
                    self.heartbeats.push((self.now, device.clone(), at, *poll_interval_ms));
                }
                let offset = &mut self.offsets[input.index()];
                let record = Queued {
                    offset: *offset,
                    timestamp: Timestamp(self.now),
                    stamped_by_broker: true,
                    content: Content::Event(Event { occurred_at, body }),
                };
                *offset += 1;
                self.shard.offer(input, record, self.moment());
            }
        }
        self.run();
        Ok(())
    }

    fn moment(&self) -> Now {
        Now { monotonic_ms: self.now, broker: Some(Timestamp(self.now)) }
    }

    fn run(&mut self) {
        for input in Input::ALL {
            if !self.blocked.contains(&input) {
                let end = self.offsets[input.index()];
                self.shard.learn_end(input, Some(Timestamp(self.now)), end, end);
            }
        }
        // An input that is held back for another gives up after half a second.
        for moment in [self.moment(), Now { monotonic_ms: self.now + 600, ..self.moment() }] {
            while self.shard.turn(moment, self.budget).more {}
        }
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
            };
            self.changelog.insert(key, entry);
        }
    }

    /// Everything that was committed, and nothing else, goes to a new shard.
    fn restart(&mut self, arguments: &[&str]) -> Result<(), String> {
        let before = self.rules.fingerprint();
        let arguments = Arguments::parse(arguments)?;
        if let Some(grace_ms) = arguments.duration("grace")? {
            self.rules.grace_ms = grace_ms;
        }
        if let Some(interval_ms) = arguments.duration("default")? {
            self.rules.default_poll_interval_ms = interval_ms;
        }
        let progress = self.shard.progress();
        let mut shard = Shard::new(0, self.rules.clone());
        for entry in self.changelog.values() {
            shard.restore_entry(entry.clone(), false);
        }
        for (record_time, device, at, interval_ms) in &self.heartbeats {
            if *record_time >= progress.replay_from.0 {
                shard.replay_heartbeat(device, *at, *interval_ms);
            }
        }
        self.epoch += 1;
        shard.start(Start {
            epoch: self.epoch,
            clock: Some(progress.clock),
            watermarks: progress.watermarks,
            replay_from: Some(progress.replay_from),
            rules_changed_at: (self.rules.fingerprint() != before).then_some(Timestamp(self.now)),
            rewrite_view: false,
            positions: self.offsets,
        });
        self.shard = shard;
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
        let view = self.shard.view(&device);
        let changes: Vec<&StatusChange> =
            self.changes.iter().filter(|change| change.device == device).collect();
        let mut place = 0;
        for word in words {
            let (key, expected) = match word.split_once('=') {
                Some(pair) => pair,
                None => {
                    place += 1;
                    (if place == 1 { "status" } else { "connectivity" }, word)
                }
            };
            let shown = |text: Option<String>| text.unwrap_or_else(|| "-".to_string());
            let actual = match key {
                "status" => shown(view.as_ref().map(|view| view.status.wire_name().into())),
                "connectivity" => {
                    shown(view.as_ref().map(|view| view.connectivity.wire_name().into()))
                }
                "since" => shown(view.as_ref().map(|view| show_time(view.since.0))),
                "links" => shown(view.as_ref().map(|view| show_time(view.connectivity_since.0))),
                "heartbeat" => shown(view.as_ref().map(|view| view.heartbeat.wire_name().into())),
                "progress" => shown(
                    view.as_ref().and_then(|view| view.progress).map(|percent| percent.to_string()),
                ),
                "version" => shown(view.as_ref().map(|view| view.version.to_string())),
                "changes" => changes.len().to_string(),
                "cause" => shown(changes.last().map(|change| show_cause(change.cause))),
                "emits" => shown((!changes.is_empty()).then(|| {
                    let changes: Vec<String> = changes
                        .iter()
                        .map(|change| match change.current {
                            None => "deleted".to_string(),
                            Some((status, connectivity)) => {
                                format!("{}/{}", status.wire_name(), connectivity.wire_name())
                            }
                        })
                        .collect();
                    changes.join(",")
                })),
                _ => return Err(format!("unknown expectation {key}=")),
            };
            let expected = match key {
                "since" | "links" if expected != "-" => show_time(parse_time(expected)?),
                _ => expected.to_string(),
            };
            if actual != expected {
                return Err(format!("{name}: {key} is {actual}, not {expected}"));
            }
        }
        Ok(())
    }
}

struct Arguments<'a> {
    plain: Vec<&'a str>,
    named: BTreeMap<&'a str, &'a str>,
}

impl<'a> Arguments<'a> {
    fn parse(words: &[&'a str]) -> Result<Arguments<'a>, String> {
        let mut arguments = Arguments { plain: Vec::new(), named: BTreeMap::new() };
        for word in words {
            match word.split_once('=') {
                Some((key, value)) => {
                    let known =
                        ["at", "interval", "lease", "started", "vpn", "grace", "default", "org"];
                    if !known.contains(&key) {
                        return Err(format!("unknown argument {key}="));
                    }
                    arguments.named.insert(key, value);
                }
                None => arguments.plain.push(word),
            }
        }
        Ok(arguments)
    }

    fn name(&self, place: usize, what: &str) -> Result<Arc<str>, String> {
        self.plain.get(place).map(|name| Arc::from(*name)).ok_or(format!("which {what}?"))
    }

    fn time(&self, key: &str) -> Result<Option<Timestamp>, String> {
        self.named.get(key).map(|text| parse_time(text).map(Timestamp)).transpose()
    }

    fn duration(&self, key: &str) -> Result<Option<i64>, String> {
        self.named.get(key).map(|text| parse_duration(text)).transpose()
    }

    fn short_duration(&self, key: &str) -> Result<Option<u32>, String> {
        let duration = self.duration(key)?;
        duration.map(|ms| u32::try_from(ms).map_err(|_| format!("{key} is too long"))).transpose()
    }

    fn percent(&self) -> Result<u8, String> {
        self.plain.first().and_then(|text| text.parse().ok()).ok_or("how many percent?".into())
    }

    fn reason(&self, place: usize) -> Result<Option<FrozenReason>, String> {
        match self.plain.get(place) {
            None => Ok(None),
            Some(&"allowance") => Ok(Some(FrozenReason::Allowance)),
            Some(&"paid-application-type") => Ok(Some(FrozenReason::PaidApplicationType)),
            Some(&"overdue-invoices") => Ok(Some(FrozenReason::OverdueInvoices)),
            Some(&"other") => Ok(Some(FrozenReason::Other)),
            Some(other) => Err(format!("unknown reason {other}")),
        }
    }

    fn settings(&self) -> Result<Settings, String> {
        let vpn_enabled = match self.named.get("vpn") {
            None => None,
            Some(&"on") => Some(true),
            Some(&"off") => Some(false),
            Some(other) => return Err(format!("vpn is on or off, not {other}")),
        };
        Ok(Settings { poll_interval_ms: self.short_duration("interval")?, vpn_enabled })
    }
}

fn parse_event(
    who: &str,
    what: &str,
    arguments: &Arguments<'_>,
) -> Result<(Input, EventBody), String> {
    if who == "*" {
        let (input, event) = parse_scope_event(what, arguments)?;
        return Ok((input, EventBody::Scope(event)));
    }
    let device = device_id(who)?;
    let organization = || Arc::from(arguments.named.get("org").copied().unwrap_or_default());
    let fleet = || Arc::from(arguments.plain.first().copied().unwrap_or_default());
    let event = match what {
        "heartbeat" => {
            let poll_interval_ms = arguments.short_duration("interval")?;
            let body = EventBody::Heartbeat { device, poll_interval_ms };
            return Ok((Input::Heartbeats, body));
        }
        "vpn-opened" => DeviceEvent::SessionOpened {
            instance: arguments.name(0, "instance")?,
            session: arguments.name(1, "session")?,
        },
        "vpn-closed" => DeviceEvent::SessionClosed {
            instance: arguments.name(0, "instance")?,
            session: arguments.name(1, "session")?,
        },
        "registered" | "preregistered" => DeviceEvent::Registered {
            fleet: fleet(),
            organization: organization(),
            preregistered: what == "preregistered",
        },
        "moved" => DeviceEvent::Moved { fleet: fleet(), organization: organization() },
        "provisioned" => DeviceEvent::Provisioned,
        "activated" => DeviceEvent::Activated,
        "deactivated" => DeviceEvent::Deactivated,
        "frozen" => {
            DeviceEvent::Frozen { reason: arguments.reason(0)?.unwrap_or(FrozenReason::Other) }
        }
        "unfrozen" => DeviceEvent::Unfrozen { reason: arguments.reason(0)? },
        "configuration-started" => DeviceEvent::ConfigurationStarted,
        "configuration-progressed" => {
            DeviceEvent::ConfigurationProgressed { percent: arguments.percent()? }
        }
        "configuration-finished" => DeviceEvent::ConfigurationFinished,
        "update-started" => DeviceEvent::UpdateStarted { release: arguments.name(0, "release")? },
        "update-progressed" => DeviceEvent::UpdateProgressed { percent: arguments.percent()? },
        "update-finished" => DeviceEvent::UpdateFinished,
        "settings" => DeviceEvent::SettingsChanged(arguments.settings()?),
        "deleted" => DeviceEvent::Deleted,
        _ => return Err(format!("unknown event {what}")),
    };
    let input = match event {
        DeviceEvent::SessionOpened { .. } | DeviceEvent::SessionClosed { .. } => Input::VpnSessions,
        _ => Input::Lifecycle,
    };
    Ok((input, EventBody::Device { device, event }))
}

fn parse_scope_event(what: &str, arguments: &Arguments<'_>) -> Result<(Input, ScopeEvent), String> {
    let frozen_reason = || Ok::<_, String>(arguments.reason(1)?.unwrap_or(FrozenReason::Other));
    let event = match what {
        "instance-alive" => ScopeEvent::InstanceAlive {
            instance: arguments.name(0, "instance")?,
            started_at: arguments.time("started")?,
            lease_ms: arguments.short_duration("lease")?.ok_or("lease=?")?,
        },
        "instance-lost" => ScopeEvent::InstanceLost { instance: arguments.name(0, "instance")? },
        "fleet-settings" => ScopeEvent::FleetSettingsChanged {
            fleet: arguments.name(0, "fleet")?,
            settings: arguments.settings()?,
        },
        "fleet-frozen" => {
            ScopeEvent::FleetFrozen { fleet: arguments.name(0, "fleet")?, reason: frozen_reason()? }
        }
        "fleet-unfrozen" => ScopeEvent::FleetUnfrozen {
            fleet: arguments.name(0, "fleet")?,
            reason: arguments.reason(1)?,
        },
        "organization-frozen" => ScopeEvent::OrganizationFrozen {
            organization: arguments.name(0, "organization")?,
            reason: frozen_reason()?,
        },
        "organization-unfrozen" => ScopeEvent::OrganizationUnfrozen {
            organization: arguments.name(0, "organization")?,
            reason: arguments.reason(1)?,
        },
        _ => return Err(format!("unknown event {what} of a scope")),
    };
    let input = match event {
        ScopeEvent::InstanceAlive { .. } | ScopeEvent::InstanceLost { .. } => Input::VpnSessions,
        _ => Input::Lifecycle,
    };
    Ok((input, event))
}

fn parse_input(arguments: &[&str]) -> Result<Input, String> {
    match arguments {
        ["lifecycle"] => Ok(Input::Lifecycle),
        ["vpn"] => Ok(Input::VpnSessions),
        ["heartbeats"] => Ok(Input::Heartbeats),
        _ => Err("which input: lifecycle, vpn or heartbeats?".into()),
    }
}

fn device_id(name: &str) -> Result<DeviceId, String> {
    DeviceId::from_key(name.as_bytes()).map_err(|reason| format!("{name}: {reason:?}"))
}

/// `10:30`, `10:30:05`, `10:30:05.250`, with `2d+` before it two days later.
fn parse_time(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text} is no time");
    let (days, clock) = match text.split_once("d+") {
        Some((days, clock)) => (days.parse::<i64>().map_err(|_| wrong())?, clock),
        None => (0, text),
    };
    let mut parts = clock.split(':');
    let mut part = |default: Option<&'static str>| {
        parts.next().or(default).ok_or_else(wrong)?.parse::<f64>().map_err(|_| wrong())
    };
    let (hours, minutes, seconds) = (part(None)?, part(None)?, part(Some("0"))?);
    let ms = ((hours * 60.0 + minutes) * 60_000.0 + seconds * 1_000.0).round();
    Ok(DAY_ZERO_MS + days * 86_400_000 + ms as i64)
}

fn show_time(ms: i64) -> String {
    let ms = ms - DAY_ZERO_MS;
    let (days, ms) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    let (seconds, ms) = (ms / 1_000, ms % 1_000);
    let mut text = String::new();
    if days != 0 {
        let _ = write!(text, "{days}d+");
    }
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let _ = write!(text, "{hours:02}:{minutes:02}:{seconds:02}");
    if ms != 0 {
        let _ = write!(text, ".{ms:03}");
    }
    text
}

/// `15s`, `10m`, `24h`, `2d`.
fn parse_duration(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text} is no duration");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let number = text.trim_end_matches(unit).parse::<i64>().map_err(|_| wrong())?;
    let unit_ms = match unit {
        's' => 1_000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 86_400_000,
        _ => return Err(wrong()),
    };
    Ok(number * unit_ms)
}

/// `HeartbeatExpired` → `heartbeat-expired`.
fn show_cause(cause: Cause) -> String {
    let mut text = String::new();
    for letter in format!("{cause:?}").chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push('-');
        }
        text.extend(letter.to_lowercase());
    }
    text
}
