//! The demo's picture: turns status changes into lines of text, without I/O.

use std::collections::{HashMap, VecDeque};

use console::Style;

use crate::cli::text::moment;
use crate::shard::{Connectivity, DeviceId, Status, StatusChange, Timestamp};

/// How many of the latest changes are kept.
const KEPT: usize = 200;

/// The greatest length of a full line.
const FULL_WIDTH: usize = 100;

/// The width of the time and the device in a line.
const SHORT_HEAD: usize = 24;

/// The fleet, as its changes show it.
pub(super) struct Picture {
    devices: HashMap<DeviceId, Status>,
    counts: [usize; Status::ALL.len()],
    latest: VecDeque<StatusChange>,
    /// How many changes there were.
    pub(super) changes: u64,
    colours: bool,
}

impl Picture {
    pub(super) fn new(colours: bool) -> Picture {
        Picture {
            devices: HashMap::new(),
            counts: [0; Status::ALL.len()],
            latest: VecDeque::new(),
            changes: 0,
            colours,
        }
    }

    pub(super) fn apply(&mut self, change: StatusChange) {
        self.changes += 1;
        let before = match change.current {
            Some((status, _)) => {
                self.counts[status.index()] += 1;
                self.devices.insert(change.device.clone(), status)
            }
            None => self.devices.remove(&change.device),
        };
        if let Some(before) = before {
            self.counts[before.index()] -= 1;
        }
        self.latest.push_front(change);
        self.latest.truncate(KEPT);
    }

    /// The statuses and how many devices have each.
    pub(super) fn summary(&self) -> String {
        self.summary_within(usize::MAX).concat()
    }

    /// The same in lines of at most `width` characters.
    pub(super) fn summary_within(&self, width: usize) -> Vec<String> {
        let mut lines = vec![String::new()];
        let mut used = 0;
        for status in Status::ALL {
            let name = status.display(Connectivity::Full);
            let text = format!("{name} {}", self.counts[status.index()]);
            if used > 0 && used + 2 + text.len() > width {
                lines.push(String::new());
                used = 0;
            }
            if let Some(line) = lines.last_mut() {
                let gap = if used > 0 { "  " } else { "" };
                line.push_str(gap);
                line.push_str(&self.style(status).apply_to(&text).to_string());
                used += gap.len() + text.len();
            }
        }
        lines
    }

    /// A bar of `width` characters, in which each status has its share.
    pub(super) fn bar(&self, width: usize) -> String {
        let total = self.devices.len();
        if total == 0 {
            return "·".repeat(width);
        }
        let mut bar = String::new();
        let (mut seen, mut drawn) = (0, 0);
        for status in Status::ALL {
            seen += self.counts[status.index()];
            // The ends are rounded, not the lengths, so that the bar is `width`
            // long.
            let end = (seen * width + total / 2) / total;
            let part = self.style(status).apply_to("█".repeat(end - drawn));
            bar.push_str(&part.to_string());
            drawn = end;
        }
        bar
    }

    /// The latest changes, the newest first, in lines of `width` characters.
    pub(super) fn latest(&self, width: usize) -> impl Iterator<Item = String> {
        self.latest.iter().map(move |change| match width < FULL_WIDTH {
            true => self.short_line(change),
            false => self.line(change),
        })
    }

    /// One change as a shorter line than [`Picture::line`], without the previous
    /// status.
    fn short_line(&self, change: &StatusChange) -> String {
        let line = self.line(change);
        let (head, tail) = line.split_once(" → ").unwrap_or((&line, ""));
        // Time and device come first, and have no style.
        let head: String = head.chars().take(SHORT_HEAD).collect();
        format!("{head}→ {tail}")
    }

    /// One change as a line.
    pub(super) fn line(&self, change: &StatusChange) -> String {
        let name = |state: Option<(Status, Connectivity)>, absent: &str, width: usize| {
            let (style, text) = match state {
                None => (Style::new().dim(), absent),
                Some((status, connectivity)) => (self.style(status), status.display(connectivity)),
            };
            style.force_styling(self.colours).apply_to(format!("{text:width$}")).to_string()
        };
        format!(
            "{}  {}  {} → {}  {}",
            time_of_day(change.since.max(change.connectivity_since)),
            short(&change.device),
            name(change.previous, "(new)", 23),
            name(change.current, "(deleted)", 23),
            change.cause.name().replace('-', " ")
        )
    }

    fn style(&self, status: Status) -> Style {
        let style = match status {
            Status::Online => Style::new().green(),
            Status::Configuring => Style::new().cyan(),
            Status::Updating => Style::new().blue(),
            Status::Offline => Style::new().red(),
            Status::PostProvisioning => Style::new().magenta(),
            Status::Inactive => Style::new().white().dim(),
            Status::Frozen => Style::new().yellow(),
        };
        style.force_styling(self.colours)
    }
}

/// The first eight characters of a device's id.
pub(super) fn short(device: &DeviceId) -> String {
    format!("{:.8}", device.to_string())
}

/// The time of day in UTC, to the millisecond.
pub(super) fn time_of_day(at: Timestamp) -> String {
    moment(at.0).get(11..23).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use Status::{Frozen, Offline, Online};

    use super::*;

    fn change(device: &str, previous: Option<Status>, current: Option<Status>) -> StatusChange {
        StatusChange {
            previous: previous.map(|status| (status, Connectivity::HeartbeatOnly)),
            current: current.map(|status| (status, Connectivity::None)),
            ..StatusChange::first(
                DeviceId::from_key(device.as_bytes()).unwrap(),
                Timestamp(3_661_005),
                (Offline, Connectivity::None),
            )
        }
    }

    #[test]
    fn a_change_reads_as_a_line() {
        let picture = Picture::new(false);
        let line = picture.line(&change("0123456789abcdef", Some(Online), Some(Offline)));
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(
            words.join(" "),
            "01:01:01.005 01234567 Online (Heartbeat Only) → Offline heartbeat expired"
        );
    }

    #[test]
    fn everything_fits_a_small_terminal() {
        let mut picture = Picture::new(false);
        for n in 0..5_000 {
            let status = Status::ALL[n % 7];
            picture.apply(change(&format!("{n:032}"), Some(Online), Some(status)));
        }
        let lines = picture.summary_within(80);
        assert!(lines.iter().all(|line| line.len() <= 80), "{lines:?}");
        assert_eq!(lines.len(), 2);
        assert_eq!(lines.join("  "), picture.summary());
        for line in picture.latest(80) {
            assert!(line.chars().count() <= 80 && line.ends_with("heartbeat expired"), "{line}");
        }
        assert!(picture.latest(FULL_WIDTH).all(|line| line.chars().count() <= FULL_WIDTH));
    }

    #[test]
    fn devices_are_counted_where_they_are_now() {
        let mut picture = Picture::new(false);
        for (device, previous, status) in [
            ("a", None, Some(Online)),
            ("b", None, Some(Online)),
            ("a", Some(Online), Some(Offline)),
            ("c", None, Some(Frozen)),
            ("c", Some(Frozen), None),
        ] {
            picture.apply(change(device, previous, status));
        }
        assert!(picture.summary().starts_with("Online 1  Configuring 0  Updating 0  Offline 1"));
        assert!(picture.summary().ends_with("Frozen 0"));
        assert_eq!(picture.bar(10).chars().count(), 10);
        let shown = |device: &[u8]| picture.devices.get(&DeviceId::from_key(device).unwrap());
        assert_eq!((shown(b"a"), shown(b"c")), (Some(&Offline), None));
        assert_eq!(picture.latest(80).count(), 5);
    }
}
