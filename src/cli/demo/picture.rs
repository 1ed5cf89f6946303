//! What the demo shows: pure, from the changes to lines of text.

use std::collections::{HashMap, VecDeque};

use console::Style;

use crate::shard::{Connectivity, Status, Timestamp};
use crate::wire::proto::v1::{Cause, StatusChanged};

/// How many of the latest changes are kept.
const KEPT: usize = 200;

/// The longest that a whole line of a change can be.
const FULL_WIDTH: usize = 100;

/// How much of a line the time and the device take.
const SHORT_HEAD: usize = 24;

/// What has been seen of the fleet.
pub(super) struct Picture {
    devices: HashMap<String, Status>,
    counts: [usize; Status::ALL.len()],
    latest: VecDeque<Change>,
    /// How many changes there were.
    pub(super) changes: u64,
    colours: bool,
}

/// One change, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) device: String,
    pub(super) since: Timestamp,
    /// Either the status's or the connectivity's, whichever moved last.
    pub(super) at: Timestamp,
    pub(super) from: Option<(Status, Connectivity)>,
    /// Absent when the device was deleted.
    pub(super) to: Option<(Status, Connectivity)>,
    pub(super) cause: String,
}

impl Change {
    pub(super) fn of(message: StatusChanged) -> Change {
        let at = |time: Option<prost_types::Timestamp>| {
            let time = time.unwrap_or_default();
            Timestamp(time.seconds * 1000 + i64::from(time.nanos) / 1_000_000)
        };
        let since = at(message.since);
        let cause = message.cause().as_str_name();
        let cause = cause.strip_prefix("CAUSE_").unwrap_or(cause).to_lowercase().replace('_', " ");
        Change {
            since,
            at: since.max(at(message.connectivity_since)),
            from: pair(message.previous_status, message.previous_connectivity),
            to: pair(message.status, message.connectivity),
            cause: if message.cause() == Cause::Unspecified { String::new() } else { cause },
            device: message.device_id,
        }
    }
}

fn pair(status: i32, connectivity: i32) -> Option<(Status, Connectivity)> {
    // Unset is 0 in the message; the rest are in the same order.
    let status = usize::try_from(status).ok()?.checked_sub(1)?;
    let connectivity = usize::try_from(connectivity).ok()?.saturating_sub(1);
    Some((*Status::ALL.get(status)?, *Connectivity::ALL.get(connectivity)?))
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

    pub(super) fn apply(&mut self, change: Change) {
        self.changes += 1;
        let before = match change.to {
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
            // Rounded by where each ends, so that all together are `width`.
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

    /// One change as a line that fits where [`Picture::line`] does not: without
    /// what the device was before.
    fn short_line(&self, change: &Change) -> String {
        let line = self.line(change);
        let (head, tail) = line.split_once(" → ").unwrap_or((&line, ""));
        // Time and device come first, in neither of which there is any style.
        let head: String = head.chars().take(SHORT_HEAD).collect();
        format!("{head}→ {tail}")
    }

    /// One change as a line.
    pub(super) fn line(&self, change: &Change) -> String {
        let name = |state: Option<(Status, Connectivity)>, absent: &str, width: usize| {
            let (style, text) = match state {
                None => (Style::new().dim(), absent),
                Some((status, connectivity)) => (self.style(status), status.display(connectivity)),
            };
            style.force_styling(self.colours).apply_to(format!("{text:width$}")).to_string()
        };
        format!(
            "{}  {}  {} → {}  {}",
            time_of_day(change.at),
            short(&change.device),
            name(change.from, "(new)", 23),
            name(change.to, "(deleted)", 23),
            change.cause
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
pub(super) fn short(device: &str) -> &str {
    device.get(..8).unwrap_or(device)
}

/// The time of day in UTC, to the millisecond.
pub(super) fn time_of_day(at: Timestamp) -> String {
    let ms = at.0.rem_euclid(86_400_000);
    let (seconds, ms) = (ms / 1000, ms % 1000);
    format!("{:02}:{:02}:{:02}.{ms:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(device: &str, previous: i32, status: i32) -> StatusChanged {
        let at = Some(prost_types::Timestamp { seconds: 3_661, nanos: 5_000_000 });
        StatusChanged {
            device_id: device.to_owned(),
            previous_status: previous,
            previous_connectivity: i32::from(previous != 0) * 3,
            status,
            connectivity: i32::from(status != 0) * 4,
            since: at,
            connectivity_since: at,
            cause: Cause::HeartbeatExpired.into(),
            ..StatusChanged::default()
        }
    }

    #[test]
    fn a_change_reads_as_a_line() {
        let picture = Picture::new(false);
        let line = picture.line(&Change::of(message("0123456789abcdef", 1, 4)));
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
            picture.apply(Change::of(message(&format!("{n:032}"), 1, 1 + n % 7)));
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
        for (device, previous, status) in
            [("a", 0, 1), ("b", 0, 1), ("a", 1, 4), ("c", 0, 7), ("c", 7, 0)]
        {
            picture.apply(Change::of(message(device, previous, status)));
        }
        assert!(picture.summary().starts_with("Online 1  Configuring 0  Updating 0  Offline 1"));
        assert!(picture.summary().ends_with("Frozen 0"));
        assert_eq!(picture.bar(10).chars().count(), 10);
        assert_eq!(picture.devices.get("a"), Some(&Status::Offline));
        assert_eq!(picture.devices.get("c"), None);
        assert_eq!(picture.latest(80).count(), 5);
    }
}
