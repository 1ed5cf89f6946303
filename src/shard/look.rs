//! Reads a shard from outside, without changing it: for tests and `explain`.

use std::sync::Arc;

use super::Shard;
use super::event::{DeviceId, Timestamp};
use super::facts::seen::{Facts, IntervalOf, View};
use super::outbox::DeviceView;
use super::snapshot::{
    DeviceFacts, FleetFacts, HeartbeatInterval, InstanceFacts, OrganizationFacts, Register,
    RowSnapshot, Session,
};
use super::status::Ladder;

/// Why a device has its status: the ladder's questions and answers, and the
/// intermediate results.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The row is judged at this instant.
    pub judged: Timestamp,
    /// The answers to the ladder's questions.
    pub ladder: Ladder,
    /// The last heartbeat or opening of a VPN session.
    pub last_contact: Option<Timestamp>,
    /// The interval by which the last heartbeat is judged, in milliseconds, and
    /// its origin.
    pub interval: (i64, IntervalOf),
    /// When the last heartbeat times out, and when it expires.
    pub deadlines: Option<(Timestamp, Timestamp)>,
    /// Every known session: the open ones, then the remembered closed ones.
    pub sessions: Vec<SessionExplained>,
    /// The last heartbeat: its time and its interval.
    pub heartbeat: Option<Register<HeartbeatInterval>>,
    /// All other facts of the device.
    pub facts: DeviceFacts<Arc<str>>,
}

/// A session, and why it counts or does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionExplained {
    /// Its facts.
    pub session: Session<Arc<str>>,
    /// Why it does not count; `None` if it does.
    pub ruled_out: Option<RuledOut>,
    /// The end of the instance's lease, if it has one.
    pub instance_lease_end: Option<Timestamp>,
    /// When the instance was last declared lost.
    pub instance_lost: Option<Timestamp>,
    /// When the instance was last started.
    pub instance_started: Option<Timestamp>,
}

/// Why a session does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuledOut {
    /// It was closed.
    Closed(Timestamp),
    /// Its instance was declared lost after it was opened.
    Lost(Timestamp),
    /// Its instance was started after it was opened.
    Started(Timestamp),
    /// Its own lease ended.
    LeaseEnded(Timestamp),
    /// The lease of its instance ended.
    InstanceLeaseEnded(Timestamp),
}

impl Shard {
    /// All facts of a device, and its last emitted values.
    #[must_use]
    pub fn snapshot(&self, device: &DeviceId) -> Option<RowSnapshot> {
        let hot = self.table.get(self.table.find(device)?)?;
        Some(self.snapshot_of(hot, &self.table.load_cold(hot), self.progress().clock))
    }

    /// The remembered closed sessions of a device, oldest first.
    #[must_use]
    pub fn closed_sessions(&self, device: &DeviceId) -> Vec<Session<Arc<str>>> {
        let Some(hot) = self.table.find(device).and_then(|row| self.table.get(row)) else {
            return Vec::new();
        };
        let cold = self.table.load_cold(hot);
        cold.closed.iter().map(|closed| self.named(closed)).collect()
    }

    fn named(&self, session: &Session<u32>) -> Session<Arc<str>> {
        session.rename(self.scopes.instances.name(session.instance).clone())
    }

    fn explain_session(&self, session: &Session<u32>, facts: &Facts<'_>) -> SessionExplained {
        let instance = self.scopes.instances.get(session.instance);
        let opened_at = session.opened_at();
        let lost = instance.facts.lost.filter(|lost| opened_at <= Some(*lost));
        let started = instance.facts.started.filter(|started| opened_at < Some(*started));
        let over = session.lease_end().filter(|end| *end <= facts.leases_at);
        let reasons = [
            session.ended_at().map(RuledOut::Closed),
            lost.map(RuledOut::Lost),
            started.map(RuledOut::Started),
            over.map(RuledOut::LeaseEnded),
            instance.lease_end().map(RuledOut::InstanceLeaseEnded),
        ];
        let counts = facts.session_counts(session, View::Now);
        SessionExplained {
            session: self.named(session),
            ruled_out: reasons.into_iter().flatten().next().filter(|_| !counts),
            instance_lease_end: instance.lease_end(),
            instance_lost: instance.facts.lost,
            instance_started: instance.facts.started,
        }
    }

    /// A device as the view should show it; `None` for one that it should not.
    #[must_use]
    pub fn view(&self, device: &DeviceId) -> Option<DeviceView> {
        let index = self.table.find(device)?;
        let hot = self.table.get(index)?;
        self.device_view(index, hot, &self.table.load_cold(hot), None, false)
    }

    /// Why a device has its status, from the same answers that it is judged by.
    #[must_use]
    pub fn explain(&self, device: &DeviceId) -> Option<Explanation> {
        let index = self.table.find(device)?;
        let hot = self.table.get(index)?;
        let cold = self.table.load_cold(hot);
        let judged = Shard::judged_at(self.clock, Timestamp::MIN, hot.floor());
        let facts = self.facts_of(index, hot, &cold);
        let sessions = cold.facts.sessions.iter().chain(&cold.closed);
        let sessions = sessions.map(|session| self.explain_session(session, &facts));
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

    /// The facts of a VPN instance, and whether its lease is over.
    #[must_use]
    pub fn instance(&self, name: &str) -> Option<(InstanceFacts, bool)> {
        let instance = self.scopes.instances.get(self.scopes.instances.find(name)?);
        Some((instance.facts.clone(), instance.facts.lapsed))
    }

    /// The facts of a fleet.
    #[must_use]
    pub fn fleet(&self, name: &str) -> Option<FleetFacts> {
        Some(self.scopes.fleets.get(self.scopes.fleets.find(name)?).facts.clone())
    }

    /// The facts of an organization.
    #[must_use]
    pub fn organization(&self, name: &str) -> Option<OrganizationFacts> {
        let index = self.scopes.organizations.find(name)?;
        Some(self.scopes.organizations.get(index).clone())
    }
}
