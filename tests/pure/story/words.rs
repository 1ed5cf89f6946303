//! The words of a story: events, times, durations.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use device_status::shard::{
    DeviceEvent, DeviceId, EventBody, FrozenReason, Input, ScopeEvent, Settings, Timestamp,
    UpdateOutcome, UpdatePhase,
};

/// 2026-01-01T00:00:00Z: stories begin on some day.
pub const DAY_ZERO_MS: i64 = 1_767_225_600_000;

/// The names of what is said by name.
const KNOWN: [&str; 21] = [
    "at",
    "stamped",
    "interval",
    "lease",
    "started",
    "vpn",
    "org",
    "grace",
    "default",
    "tolerance",
    "minimum",
    "slack",
    "window",
    "retention",
    "late",
    "outcome",
    "phase",
    "opened",
    "source",
    "replayed",
    "delay",
];

/// What follows the event: names and numbers by their place, and `key=value`.
pub struct Arguments<'a> {
    plain: Vec<&'a str>,
    named: BTreeMap<&'a str, &'a str>,
}

impl<'a> Arguments<'a> {
    pub fn parse(words: &[&'a str]) -> Result<Arguments<'a>, String> {
        let mut arguments = Arguments { plain: Vec::new(), named: BTreeMap::new() };
        for word in words {
            match word.split_once('=') {
                Some((key, value)) => {
                    if !KNOWN.contains(&key) {
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
        let name = self.plain.get(place).copied().ok_or(format!("which {what}?"))?;
        Ok(Arc::from(if name == "\"\"" { "" } else { name }))
    }

    pub fn time(&self, key: &str) -> Result<Option<Timestamp>, String> {
        self.named.get(key).map(|text| parse_time(text).map(Timestamp)).transpose()
    }

    pub fn duration(&self, key: &str) -> Result<Option<i64>, String> {
        self.named.get(key).map(|text| parse_duration(text)).transpose()
    }

    pub fn number(&self, key: &str) -> Result<Option<f64>, String> {
        let wrong = |text: &&str| format!("{text} is no number");
        self.named.get(key).map(|text| text.parse().map_err(|_| wrong(text))).transpose()
    }

    fn short_duration(&self, key: &str) -> Result<Option<u32>, String> {
        let duration = self.duration(key)?;
        duration.map(|ms| u32::try_from(ms).map_err(|_| format!("{key} is too long"))).transpose()
    }

    /// In seconds, rounded up (J3).
    fn interval(&self) -> Result<Option<u32>, String> {
        let Some(ms) = self.duration("interval")? else { return Ok(None) };
        let seconds = u32::try_from((ms + 999) / 1_000);
        seconds.map(Some).map_err(|_| "interval is too long".to_owned())
    }

    pub fn says(&self, key: &str) -> bool {
        self.named.get(key) == Some(&"yes")
    }

    pub fn switch(&self, key: &str) -> Result<Option<bool>, String> {
        match self.named.get(key) {
            None => Ok(None),
            Some(&"on") => Ok(Some(true)),
            Some(&"off") => Ok(Some(false)),
            Some(other) => Err(format!("{key} is on or off, not {other}")),
        }
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

    fn outcome(&self) -> Result<Option<UpdateOutcome>, String> {
        match self.named.get("outcome") {
            None => Ok(None),
            Some(&"succeeded") => Ok(Some(UpdateOutcome::Succeeded)),
            Some(&"failed") => Ok(Some(UpdateOutcome::Failed)),
            Some(&"aborted") => Ok(Some(UpdateOutcome::Aborted)),
            Some(&"rejected") => Ok(Some(UpdateOutcome::Rejected)),
            Some(other) => Err(format!("unknown outcome {other}")),
        }
    }

    fn phase(&self) -> Result<Option<UpdatePhase>, String> {
        match self.named.get("phase") {
            None => Ok(None),
            Some(&"downloading") => Ok(Some(UpdatePhase::Downloading)),
            Some(&"downloaded") => Ok(Some(UpdatePhase::Downloaded)),
            Some(&"applying") => Ok(Some(UpdatePhase::Applying)),
            Some(other) => Err(format!("unknown phase {other}")),
        }
    }

    fn settings(&self) -> Result<Settings, String> {
        let vpn_enabled = self.switch("vpn")?;
        Ok(Settings { poll_interval_s: self.interval()?, vpn_enabled })
    }
}

pub fn parse_event(
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
            let poll_interval_s = arguments.interval()?;
            let going_away = match arguments.plain[..] {
                [] => false,
                ["going-away"] => true,
                _ => return Err("a heartbeat is going-away, or nothing".into()),
            };
            let body = EventBody::Heartbeat { device, poll_interval_s, going_away };
            return Ok((Input::Heartbeats, body));
        }
        "vpn-opened" => DeviceEvent::SessionOpened {
            instance: arguments.name(0, "instance")?,
            session: arguments.name(1, "session")?,
            opened_at: arguments.time("opened")?,
            lease_ms: arguments.short_duration("lease")?,
        },
        "vpn-closed" => DeviceEvent::SessionClosed {
            instance: arguments.name(0, "instance")?,
            session: arguments.name(1, "session")?,
            opened_at: arguments.time("opened")?,
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
        "configuration-finished" => {
            DeviceEvent::ConfigurationFinished { outcome: arguments.outcome()? }
        }
        "update-started" => DeviceEvent::UpdateStarted { release: arguments.name(0, "release")? },
        "update-progressed" => DeviceEvent::UpdateProgressed {
            percent: arguments.percent()?,
            phase: arguments.phase()?,
            release: Arc::from(arguments.plain.get(1).copied().unwrap_or_default()),
        },
        "update-finished" => DeviceEvent::UpdateFinished {
            release: Arc::from(arguments.plain.first().copied().unwrap_or_default()),
            outcome: arguments.outcome()?,
        },
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

pub fn parse_input(arguments: &[&str]) -> Result<Input, String> {
    match arguments {
        ["lifecycle"] => Ok(Input::Lifecycle),
        ["vpn"] => Ok(Input::VpnSessions),
        ["heartbeats"] => Ok(Input::Heartbeats),
        _ => Err("which input: lifecycle, vpn or heartbeats?".into()),
    }
}

pub fn device_id(name: &str) -> Result<DeviceId, String> {
    DeviceId::from_key(name.as_bytes()).map_err(|reason| format!("{name}: {reason:?}"))
}

/// `10:30`, `10:30:05`, `10:30:05.250`, with `2d+` before it two days later.
pub fn parse_time(text: &str) -> Result<i64, String> {
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

pub fn show_time(ms: i64) -> String {
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
