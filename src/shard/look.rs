//! Looking at a shard from outside, without changing it: for tests and
//! `explain`.

use std::sync::Arc;

use super::Shard;
use super::event::{DeviceId, Timestamp};
use super::facts::seen::{Facts, IntervalOf, View};
use super::outbox::DeviceView;
use super::snapshot::{
    DeviceFacts, FleetFacts, HeartbeatInterval, InstanceFacts, OrganizationFacts, Register,
    RowSnapshot, SessionFingerprint,
};
use super::status::Ladder;

/// Why a device shows what it shows: what the ladder was told, and what was made
/// of the facts on the way there.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The row is judged at this instant.
    pub judged: Timestamp,
    /// What the ladder is asked, answered.
    pub ladder: Ladder,
    /// The last heartbeat or opening of a VPN session.
    pub last_contact: Option<Timestamp>,
    /// The interval by which the last heartbeat is judged, in milliseconds, and
    /// whose it is.
    pub interval: (i64, IntervalOf),
    /// When the last heartbeat times out, and when it expires.
    pub deadlines: Option<(Timestamp, Timestamp)>,
    /// The sessions that were opened and not closed.
    pub sessions: Vec<SessionExplained>,
    /// The last heartbeat: its time and its interval.
    pub heartbeat: Option<Register<HeartbeatInterval>>,
    /// All other facts of the device.
    pub facts: DeviceFacts<Arc<str>>,
}

/// A session that was opened and not closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionExplained {
    /// The VPN instance that holds it.
    pub instance: Arc<str>,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// Whether it counts.
    pub counts: bool,
    /// The end of the instance's lease, if it has one.
    pub lease_end: Option<Timestamp>,
    /// When the instance was last declared lost.
    pub lost: Option<Timestamp>,
    /// When the instance was last started.
    pub started: Option<Timestamp>,
}

impl Shard {
    /// All facts of a device, and what was last emitted of it.
    #[must_use]
    pub fn snapshot(&self, device: &DeviceId) -> Option<RowSnapshot> {
        let hot = self.table.get(self.table.find(device)?)?;
        Some(self.snapshot_of(hot, &self.table.load_cold(hot), self.progress().clock))
    }

    /// The closed sessions that are remembered of a device, oldest first.
    #[must_use]
    pub fn closed_sessions(&self, device: &DeviceId) -> Vec<(SessionFingerprint, Timestamp)> {
        let Some(hot) = self.table.find(device).and_then(|row| self.table.get(row)) else {
            return Vec::new();
        };
        let cold = self.table.load_cold(hot);
        cold.closed.iter().map(|closed| (closed.fingerprint, closed.closed_at)).collect()
    }

    /// A device as the view should show it; `None` for one that it should not.
    #[must_use]
    pub fn view(&self, device: &DeviceId) -> Option<DeviceView> {
        let hot = self.table.get(self.table.find(device)?)?;
        self.device_view(hot, &self.table.load_cold(hot), None, false)
    }

    /// Why a device shows what it shows, by the very answers that it is judged
    /// by.
    #[must_use]
    pub fn explain(&self, device: &DeviceId) -> Option<Explanation> {
        let hot = self.table.get(self.table.find(device)?)?;
        let cold = self.table.load_cold(hot);
        let judged = Shard::judged_at(self.clock, Timestamp::MIN, hot.floor());
        let facts =
            Facts { hot, cold: &cold, scopes: &self.scopes, rules: &self.rules, before: false };
        let sessions = cold.facts.sessions.iter().map(|session| {
            let instance = self.scopes.instances.get(session.instance);
            SessionExplained {
                instance: self.scopes.instances.name(session.instance).clone(),
                opened_at: session.opened_at,
                counts: facts.session_counts(session, View::Now),
                lease_end: instance.lease_end(),
                lost: instance.facts.lost,
                started: instance.facts.started,
            }
        });
        let RowSnapshot { heartbeat, facts: named, .. } =
            self.snapshot_of(hot, &cold, self.progress().clock);
        Some(Explanation {
            judged,
            ladder: facts.ladder(judged, View::Now),
            last_contact: facts.last_contact(View::Now),
            interval: facts.interval_explained(judged),
            deadlines: facts.deadlines(View::Now),
            sessions: sessions.collect(),
            heartbeat,
            facts: named,
        })
    }

    /// What is known of a VPN instance, and whether its lease is over.
    #[must_use]
    pub fn instance(&self, name: &str) -> Option<(InstanceFacts, bool)> {
        let instance = self.scopes.instances.get(self.scopes.instances.find(name)?);
        Some((instance.facts.clone(), instance.facts.lapsed))
    }

    /// What is known of a fleet.
    #[must_use]
    pub fn fleet(&self, name: &str) -> Option<FleetFacts> {
        Some(self.scopes.fleets.get(self.scopes.fleets.find(name)?).facts.clone())
    }

    /// What is known of an organization.
    #[must_use]
    pub fn organization(&self, name: &str) -> Option<OrganizationFacts> {
        let index = self.scopes.organizations.find(name)?;
        Some(self.scopes.organizations.get(index).clone())
    }
}
