//! What of a device came with a wrong clock: a verdict of the core on the records that
//! brought what is known, as far as they are at hand.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::cli::text::{length, moment};
use crate::shard::{
    DeviceEvent, DeviceId, Doubt, Event, EventBody, Explanation, ScopeEvent, Shard, Subject,
    Timestamp,
};

/// An event, the time of its record, and when its sender lived (rule J4).
#[derive(Debug)]
struct Arrival {
    event: Event,
    stamp: Timestamp,
    sent: Option<Timestamp>,
}

/// The last event of each kind, by whom it is about.
#[derive(Debug, Default)]
pub(super) struct Arrivals(BTreeMap<Subject, BTreeMap<&'static str, Arrival>>);

/// An event whose time is doubted.
#[derive(Debug)]
pub(super) struct Doubted {
    name: &'static str,
    subject: Subject,
    doubt: Doubt,
    occurred_at: Timestamp,
    stamp: Timestamp,
}

impl Arrivals {
    /// Takes an event. Those of an input come in their order.
    pub fn add(&mut self, event: Event, stamp: Timestamp, sent: Option<Timestamp>) {
        let of = self.0.entry(Subject::of(&event.body)).or_default();
        of.insert(name(&event.body), Arrival { event, stamp, sent });
    }

    /// What is doubted of a device, and of the scopes that it rests on.
    pub fn doubts(&self, shard: &Shard, device: &DeviceId, why: &Explanation) -> Vec<Doubted> {
        let mut subjects = vec![Subject::Device(device.clone())];
        for session in &why.sessions {
            let instance = Subject::Instance(session.session.instance.clone());
            if !subjects.contains(&instance) {
                subjects.push(instance);
            }
        }
        if let Some(belongs) = &why.facts.membership {
            subjects.push(Subject::Fleet(belongs.value.fleet.clone()));
            subjects.push(Subject::Organization(belongs.value.organization.clone()));
        }
        let mut doubts = Vec::new();
        for subject in subjects {
            for (name, Arrival { event, stamp, sent }) in self.0.get(&subject).into_iter().flatten()
            {
                if let (Some(doubt), Some(occurred_at)) =
                    (shard.doubt(event, *stamp, *stamp, *sent), event.occurred_at)
                {
                    let subject = subject.clone();
                    doubts.push(Doubted { name, subject, doubt, occurred_at, stamp: *stamp });
                }
            }
        }
        doubts
    }
}

impl Doubted {
    /// In a line.
    pub fn text(&self) -> String {
        let of = match &self.subject {
            Subject::Device(_) => String::new(),
            other => format!(" of {other}"),
        };
        let (early, late) = (self.occurred_at.min(self.stamp), self.occurred_at.max(self.stamp));
        let apart_ms = late.0.saturating_sub(early.0);
        let apart = length(apart_ms / 1_000 * 1_000);
        let head = format!("{}{of}, of {}", self.name, moment(self.occurred_at.0));
        let slow = "its sender's clock is slow, or kept it back";
        match self.doubt {
            Doubt::LeaseOver => {
                format!("{head}, came {apart} later, when its lease was over: {slow}")
            }
            Doubt::HeartbeatOver => {
                format!("{head}, came {apart} later, when it had expired: {slow}")
            }
            Doubt::Behind => format!("{head}, came {apart} later: {slow}"),
            Doubt::Ahead => {
                format!("{head}, came {apart} before that: its sender's clock is fast")
            }
        }
    }

    pub fn json(&self) -> Value {
        let doubt = match self.doubt {
            Doubt::LeaseOver | Doubt::HeartbeatOver => "over",
            Doubt::Ahead => "ahead",
            Doubt::Behind => "behind",
        };
        json!({
            "event": self.name,
            "of": self.subject.to_string(),
            "doubt": doubt,
            "occurred_ms": self.occurred_at.0,
            "record_ms": self.stamp.0,
            "text": self.text(),
        })
    }
}

/// An event's name in `proto/`.
fn name(body: &EventBody) -> &'static str {
    match body {
        EventBody::Heartbeat { .. } => "heartbeat",
        EventBody::Device { event, .. } => match event {
            DeviceEvent::SessionOpened { .. } => "session_opened",
            DeviceEvent::SessionClosed { .. } => "session_closed",
            DeviceEvent::Registered { .. } => "registered",
            DeviceEvent::Provisioned => "provisioned",
            DeviceEvent::Activated => "activated",
            DeviceEvent::Deactivated => "deactivated",
            DeviceEvent::Frozen { .. } => "frozen",
            DeviceEvent::Unfrozen { .. } => "unfrozen",
            DeviceEvent::ConfigurationStarted => "configuration_started",
            DeviceEvent::ConfigurationProgressed { .. } => "configuration_progressed",
            DeviceEvent::ConfigurationFinished { .. } => "configuration_finished",
            DeviceEvent::UpdateStarted { .. } => "update_started",
            DeviceEvent::UpdateProgressed { .. } => "update_progressed",
            DeviceEvent::UpdateFinished { .. } => "update_finished",
            DeviceEvent::SettingsChanged { .. } => "settings_changed",
            DeviceEvent::Moved { .. } => "moved",
            DeviceEvent::Deleted => "deleted",
        },
        EventBody::Scope(event) => match event {
            ScopeEvent::InstanceAlive { .. } => "instance_alive",
            ScopeEvent::InstanceLost { .. } => "instance_lost",
            ScopeEvent::FleetSettingsChanged { .. } => "fleet_settings_changed",
            ScopeEvent::FleetFrozen { .. } => "fleet_frozen",
            ScopeEvent::FleetUnfrozen { .. } => "fleet_unfrozen",
            ScopeEvent::OrganizationFrozen { .. } => "organization_frozen",
            ScopeEvent::OrganizationUnfrozen { .. } => "organization_unfrozen",
        },
    }
}
