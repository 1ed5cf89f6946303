//! Compares event times with record times, and finds the doubtful ones.

use super::Shard;
use super::event::{DeviceEvent, DeviceId, Event, EventBody, Input, ScopeEvent, Timestamp};
use super::facts::interval::HeartbeatInterval;
use super::facts::seen::View;
use super::skew::{Doubt, FAR_MS, Skew};

impl Shard {
    /// Counts the distance of an event from its record. `sent`: a time at which
    /// its sender was alive (rule J4).
    pub(super) fn compare(
        &self,
        input: Input,
        event: &Event,
        stamp: Timestamp,
        believed: Timestamp,
        sent: Option<Timestamp>,
        skew: &mut Skew,
    ) {
        /// No lease and no heartbeat ends sooner.
        const OVER_MIN_MS: i64 = 1_000;
        let Some(age_ms) = event.age_ms(stamp) else { return };
        skew.ages[input.index()].count(age_ms);
        if (-FAR_MS..OVER_MIN_MS).contains(&age_ms) {
            return;
        }
        if let Some(doubt) = self.doubt(event, stamp, believed, sent) {
            skew.note(doubt, input, age_ms, &event.body);
        }
    }

    /// Whether an event's own time is doubtful, given its record's timestamp, the
    /// clamped timestamp (rule T3), and a time at which its sender was alive
    /// (rule J4).
    #[must_use]
    pub fn doubt(
        &self,
        event: &Event,
        stamp: Timestamp,
        believed: Timestamp,
        sent: Option<Timestamp>,
    ) -> Option<Doubt> {
        let age_ms = event.age_ms(stamp)?;
        let at = event.occurred_at?.min(believed);
        let ahead = (age_ms < -FAR_MS).then_some(Doubt::Ahead);
        let behind = (age_ms > FAR_MS).then_some(Doubt::Behind);
        self.was_over(&event.body, at, believed, sent).or(ahead).or(behind)
    }

    /// Whether an event of this time was already over at its record's time: a
    /// heartbeat had expired (rule J3), or a lease had ended (rule J4).
    fn was_over(
        &self,
        body: &EventBody,
        at: Timestamp,
        came: Timestamp,
        sent: Option<Timestamp>,
    ) -> Option<Doubt> {
        let lease_end = |lease_ms: &u32| {
            let counted_at = self.rules.counted_at(at, sent);
            (Doubt::LeaseOver, counted_at.plus_ms(i64::from(*lease_ms)))
        };
        let (over, until) = match body {
            // It has no deadline (rule J11).
            EventBody::Heartbeat { going_away: true, .. } => return None,
            // Most events need no look at the row.
            EventBody::Heartbeat { .. } if came.plus_ms(-self.rules.minimum_ms) < at => {
                return None;
            }
            EventBody::Heartbeat { device, poll_interval_s, .. } => {
                let interval = match poll_interval_s {
                    Some(carried_s) => HeartbeatInterval::Carried(*carried_s),
                    None => self.interval_told(device, at),
                };
                (Doubt::HeartbeatOver, self.rules.deadlines(at, interval).1)
            }
            EventBody::Scope(ScopeEvent::InstanceAlive { lease_ms, .. })
            | EventBody::Device {
                event: DeviceEvent::SessionOpened { lease_ms: Some(lease_ms), .. },
                ..
            } => lease_end(lease_ms),
            EventBody::Device { .. } | EventBody::Scope(_) => return None,
        };
        (until <= came).then_some(over)
    }

    /// The interval of a heartbeat that carries none.
    fn interval_told(&self, device: &DeviceId, at: Timestamp) -> HeartbeatInterval {
        let Some(index) = self.table.find(device) else { return HeartbeatInterval::Default };
        let Some(hot) = self.table.get(index) else { return HeartbeatInterval::Default };
        let cold = self.table.load_cold(hot);
        self.facts_of(index, hot, &cold).told(at, View::Now).interval
    }
}
