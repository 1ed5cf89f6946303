//! Logs senders with wrong clocks, at most once an hour.

use tracing::warn;

use crate::shard::skew::{Example, SLOW_MS};
use crate::shard::{Doubt, Input, Skew};

/// The least time between two warnings of one kind, in milliseconds.
const TOLD_EVERY_MS: i64 = 3_600_000;
/// Events are counted over windows of this length, in milliseconds.
const WINDOW_MS: i64 = 600_000;
/// Fewer events than this in a window say nothing about their senders.
const EVENTS_MIN: u64 = 20;
/// If one event in this many is late, or more, the clock of a sender is slow.
/// Senders with right clocks sometimes delay fewer than that.
const ONE_IN: u64 = 5;

/// Counts of late events, and the times of the last warnings.
#[derive(Debug)]
pub(super) struct Clocks {
    told_ms: [Option<i64>; Doubt::ALL.len()],
    since_ms: i64,
    events: u64,
    slow: u64,
}

impl Clocks {
    /// Starts without counts.
    pub fn new(now_ms: i64) -> Clocks {
        Clocks { told_ms: [None; _], since_ms: now_ms, events: 0, slow: 0 }
    }

    /// Counts the skew of one turn of a shard, and logs the warnings that are due.
    pub fn tell(&mut self, partition: i32, skew: &Skew, now_ms: i64) {
        for doubt in self.due(skew, now_ms) {
            let Some(Example { subject: of, age_ms }) = &skew.examples[doubt.index()] else {
                continue;
            };
            match doubt {
                Doubt::LeaseOver => warn!(
                    partition,
                    %of,
                    age_ms,
                    "a lease was over when it came, so it keeps no session. The sender's clock \
                     (occurred_at) is slow, or its announcements are delayed. Synchronize the \
                     clock (NTP), or find what delays them"
                ),
                Doubt::HeartbeatOver => warn!(
                    partition,
                    %of,
                    age_ms,
                    "a heartbeat had expired when it came, so it does not count. The sender's \
                     clock (occurred_at) is slow, or heartbeats are delayed. Synchronize the \
                     clock (NTP), or find what delays them"
                ),
                Doubt::Ahead => warn!(
                    partition,
                    %of,
                    ahead_ms = age_ms.saturating_neg(),
                    "the occurred_at of an event is later than the timestamp of its record, so \
                     the record's timestamp counts. The sender's clock is fast: synchronize it \
                     (NTP)"
                ),
                Doubt::Behind => warn!(
                    partition,
                    %of,
                    age_ms,
                    events = self.events,
                    slow = self.slow,
                    "many events come minutes after they happened, and devices may be called \
                     Offline in between. The sender's clock (occurred_at) is slow, or events are \
                     delayed. Synchronize the clock (NTP), or find what delays them"
                ),
            }
        }
    }

    /// The warnings that are due.
    fn due(&mut self, skew: &Skew, now_ms: i64) -> impl Iterator<Item = Doubt> + use<> {
        if now_ms - self.since_ms >= WINDOW_MS {
            (self.since_ms, self.events, self.slow) = (now_ms, 0, 0);
        }
        for input in [Input::VpnSessions, Input::Heartbeats] {
            let ages = &skew.ages[input.index()];
            self.events += ages.total();
            self.slow += ages.above(SLOW_MS);
        }
        let many_are_slow = self.events >= EVENTS_MIN && self.slow * ONE_IN >= self.events;
        let is_due = Doubt::ALL.map(|doubt| {
            let told_ms = &mut self.told_ms[doubt.index()];
            let due = skew.examples[doubt.index()].is_some()
                && (doubt != Doubt::Behind || many_are_slow)
                && told_ms.is_none_or(|told_ms| now_ms - told_ms >= TOLD_EVERY_MS);
            if due {
                *told_ms = Some(now_ms);
            }
            due
        });
        Doubt::ALL.into_iter().zip(is_due).filter_map(|(doubt, is_due)| is_due.then_some(doubt))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::{DeviceId, Subject};

    const MINUTE_MS: i64 = 60_000;

    /// The skew of `count` heartbeats of each age, and of these doubts.
    fn seen(ages: &[(u64, i64)], doubts: &[Doubt]) -> Skew {
        let mut skew = Skew::default();
        for (count, age_ms) in ages {
            for _ in 0..*count {
                skew.ages[Input::Heartbeats.index()].count(*age_ms);
            }
        }
        for doubt in doubts {
            let subject = Subject::Device(DeviceId::Hex([1; 16]));
            skew.examples[doubt.index()] = Some(Example { subject, age_ms: 11 * MINUTE_MS });
        }
        skew
    }

    #[test]
    fn each_doubt_is_logged_at_once_and_then_hourly() {
        let mut clocks = Clocks::new(0);
        let mut told = |doubts: &[Doubt], minute| {
            clocks.due(&seen(&[(1, 11 * MINUTE_MS)], doubts), minute * MINUTE_MS).collect()
        };
        let told: [Vec<Doubt>; 5] = [
            told(&[], 0),
            told(&[Doubt::HeartbeatOver], 1),
            told(&[Doubt::LeaseOver, Doubt::HeartbeatOver, Doubt::Ahead], 2),
            told(&[Doubt::HeartbeatOver], 60),
            told(&[Doubt::HeartbeatOver], 61),
        ];
        let expected = [
            vec![],
            vec![Doubt::HeartbeatOver],
            vec![Doubt::LeaseOver, Doubt::Ahead],
            vec![],
            vec![Doubt::HeartbeatOver],
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn late_events_are_logged_only_if_they_are_many() {
        let (late, behind) = (11 * MINUTE_MS, [Doubt::Behind]);
        let told = |rounds: &[(&[(u64, i64)], i64)]| {
            let mut clocks = Clocks::new(0);
            let mut told = rounds
                .iter()
                .map(|(ages, minute)| clocks.due(&seen(ages, &behind), minute * MINUTE_MS).count());
            told.any(|count| count > 0)
        };
        // One sender of five.
        assert!(told(&[(&[(80, 20), (20, late)], 0)]));
        assert!(!told(&[(&[(81, 20), (19, late)], 0)]));
        // Too few to tell.
        assert!(!told(&[(&[(19, late)], 0)]));
        assert!(told(&[(&[(19, late)], 0), (&[(1, late)], 9)]));
        assert!(!told(&[(&[(19, late)], 0), (&[(1, late)], 10)]));
    }
}
