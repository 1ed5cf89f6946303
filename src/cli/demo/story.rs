//! The device that the demo switches off, to show when it becomes Offline.

use console::Style;

use super::picture::{short, time_of_day};
use crate::shard::{DeviceId, Rules, Status, StatusChange, Timestamp};

/// How long the device is left Online before it is switched off.
const LEAD_MS: i64 = 5_000;
/// It is switched off at most this long after a poll, so that a countdown remains.
const AFTER_POLL_MS: i64 = 1_000;
/// How long it stays off after it became Offline.
const OFF_MS: i64 = 12_000;

/// The next action on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Nothing,
    SwitchOff,
    SwitchOn,
}

/// The stage of the story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chapter {
    /// Not Online yet.
    Opening,
    Online {
        from: Timestamp,
    },
    Off,
    Offline {
        from: Timestamp,
        since: Timestamp,
    },
}

/// The story of one device.
pub(super) struct Story {
    pub(super) device: DeviceId,
    rules: Rules,
    poll_interval_ms: i64,
    chapter: Chapter,
    last_heartbeat: Timestamp,
    /// By how many milliseconds `since` missed the deadline, each time.
    pub(super) misses_ms: Vec<i64>,
}

impl Story {
    pub(super) fn new(device: DeviceId, rules: Rules, poll_interval_ms: i64) -> Story {
        let last_heartbeat = Timestamp::MIN;
        let misses_ms = Vec::new();
        let chapter = Chapter::Opening;
        Story { device, rules, poll_interval_ms, chapter, last_heartbeat, misses_ms }
    }

    /// The device polled.
    pub(super) fn heartbeat(&mut self, at: Timestamp) {
        self.last_heartbeat = self.last_heartbeat.max(at);
    }

    /// When it becomes Offline if it does not poll again: after the poll interval ×
    /// tolerance, plus the grace.
    pub(super) fn deadline(&self) -> Timestamp {
        let interval_ms = self.poll_interval_ms.max(self.rules.minimum_ms);
        let counts_ms = (interval_ms as f64 * self.rules.tolerance).round() as i64;
        self.last_heartbeat.plus_ms(counts_ms + self.rules.grace_ms)
    }

    /// Takes a change. Returns a line about it, if it matters.
    pub(super) fn change(&mut self, change: &StatusChange, now: Timestamp) -> Option<String> {
        if change.device != self.device {
            return None;
        }
        let (status, _) = change.current?;
        match (self.chapter, status) {
            (Chapter::Off, Status::Offline) => {
                self.chapter = Chapter::Offline { from: now, since: change.since };
                self.misses_ms.push(change.since.0 - self.deadline().0);
                Some(self.tell(now))
            }
            (Chapter::Opening, Status::Online) => {
                self.chapter = Chapter::Online { from: now };
                None
            }
            _ => None,
        }
    }

    /// The action that is due now.
    pub(super) fn act(&mut self, now: Timestamp) -> Act {
        match self.chapter {
            Chapter::Online { from }
                if now.0 - from.0 >= LEAD_MS && now.0 - self.last_heartbeat.0 <= AFTER_POLL_MS =>
            {
                self.chapter = Chapter::Off;
                Act::SwitchOff
            }
            Chapter::Offline { from, .. } if now.0 - from.0 >= OFF_MS => {
                self.chapter = Chapter::Opening;
                Act::SwitchOn
            }
            _ => Act::Nothing,
        }
    }

    /// The story so far, in a line.
    pub(super) fn tell(&self, now: Timestamp) -> String {
        match self.chapter {
            Chapter::Off => format!("{}. {}", self.state(), self.countdown(now)),
            _ => self.state(),
        }
    }

    /// When the device last polled, and how long it is to its deadline.
    pub(super) fn countdown(&self, now: Timestamp) -> String {
        if self.last_heartbeat == Timestamp::MIN {
            return "It has not polled yet".to_owned();
        }
        let last = time_of_day(self.last_heartbeat);
        let deadline = time_of_day(self.deadline());
        let left_s = (self.deadline().0 - now.0) as f64 / 1000.0;
        match self.chapter {
            Chapter::Offline { .. } => format!(
                "Last poll {last}; Offline was due at {deadline}, {:.1} s ago",
                (-left_s).max(0.0)
            ),
            _ if left_s <= 0.0 => {
                format!("Offline was due at {deadline}, {:.1} s ago; on its way", -left_s)
            }
            Chapter::Off => {
                format!("Last poll {last}; Offline is due at {deadline}, in {left_s:.1} s")
            }
            _ => {
                format!(
                    "Last poll {last}; Offline at {deadline}, in {left_s:.1} s, unless it polls"
                )
            }
        }
    }

    /// What the device does.
    pub(super) fn state(&self) -> String {
        let device = short(&self.device);
        let deadline = time_of_day(self.deadline());
        match self.chapter {
            Chapter::Opening => format!("{device} is coming online"),
            Chapter::Online { .. } => {
                format!("{device} is Online; it is switched off after one of its next polls")
            }
            Chapter::Off => format!("{device} is switched off"),
            Chapter::Offline { since, .. } => {
                let miss_ms = since.0 - self.deadline().0;
                let verdict = if miss_ms == 0 {
                    "exactly the deadline".to_owned()
                } else {
                    format!("{miss_ms:+} ms off the deadline {deadline}")
                };
                format!("{device} is Offline since {}: {verdict}", time_of_day(since))
            }
        }
    }

    /// The style of the line.
    pub(super) fn style(&self) -> Style {
        match self.chapter {
            Chapter::Offline { .. } => Style::new().red().bold(),
            Chapter::Off => Style::new().yellow().bold(),
            _ => Style::new().bold(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::Connectivity;

    fn device() -> DeviceId {
        DeviceId::from_key(&[b'd'; 32]).unwrap()
    }

    fn change(to: Status, since: i64) -> StatusChange {
        StatusChange::first(device(), Timestamp(since), (to, Connectivity::None))
    }

    #[test]
    fn every_line_fits_a_terminal_and_the_countdown_is_always_there() {
        let rules = Rules { minimum_ms: 1_000, grace_ms: 2_000, ..Rules::default() };
        let mut story = Story::new(device(), rules, 6_000);
        let fits = |story: &Story, now: i64, told: &str| {
            let (state, countdown) = (story.state(), story.countdown(Timestamp(now)));
            assert!(state.len() <= 80 && countdown.len() <= 80, "{state}\n{countdown}");
            assert!(countdown.contains(told), "{countdown}");
        };
        fits(&story, 0, "not polled yet");
        story.heartbeat(Timestamp(57_000));
        fits(&story, 58_000, "Offline at 00:01:08.000, in 10.0 s");
        story.change(&change(Status::Online, 50_000), Timestamp(58_000));
        fits(&story, 58_000, "Offline at 00:01:08.000, in 10.0 s");
        story.chapter = Chapter::Off;
        fits(&story, 58_000, "due at 00:01:08.000, in 10.0 s");
        fits(&story, 68_300, "due at 00:01:08.000, 0.3 s ago; on its way");
        story.change(&change(Status::Offline, 68_003), Timestamp(68_600));
        fits(&story, 69_000, "due at 00:01:08.000, 1.0 s ago");
    }

    #[test]
    fn deadline_is_last_poll_plus_interval_and_grace() {
        let rules = Rules { minimum_ms: 1_000, grace_ms: 2_000, ..Rules::default() };
        let mut story = Story::new(device(), rules, 6_000);
        assert_eq!(story.act(Timestamp(50_000)), Act::Nothing);
        story.change(&change(Status::Online, 50_000), Timestamp(50_000));
        story.heartbeat(Timestamp(57_000));
        assert_eq!(story.act(Timestamp(58_000)), Act::SwitchOff);
        assert_eq!(story.deadline(), Timestamp(68_000));
        let told = story.tell(Timestamp(60_000));
        assert!(told.ends_with("Offline is due at 00:01:08.000, in 8.0 s"), "{told}");
        assert_eq!(told, format!("{}. {}", story.state(), story.countdown(Timestamp(60_000))));
        let told = story.change(&change(Status::Offline, 68_000), Timestamp(68_600)).unwrap();
        assert!(told.ends_with("Offline since 00:01:08.000: exactly the deadline"), "{told}");
        assert_eq!(story.misses_ms, [0]);
        assert_eq!(story.act(Timestamp(81_000)), Act::SwitchOn);
    }
}
