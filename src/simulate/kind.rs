//! The kinds of events, for counting.

use crate::shard::{DeviceEvent, EventBody, ScopeEvent};

/// The names of all kinds of events, as in `proto/`.
pub const KINDS: [&str; 25] = [
    "heartbeat",
    "session_opened",
    "session_closed",
    "instance_alive",
    "instance_lost",
    "registered",
    "provisioned",
    "activated",
    "deactivated",
    "frozen",
    "unfrozen",
    "configuration_started",
    "configuration_progressed",
    "configuration_finished",
    "update_started",
    "update_progressed",
    "update_finished",
    "settings_changed",
    "moved",
    "deleted",
    "fleet_settings_changed",
    "fleet_frozen",
    "fleet_unfrozen",
    "organization_frozen",
    "organization_unfrozen",
];

/// The place of an event's kind in [`KINDS`].
#[must_use]
pub fn kind_of(body: &EventBody) -> usize {
    match body {
        EventBody::Heartbeat { .. } => 0,
        EventBody::Device { event, .. } => match event {
            DeviceEvent::SessionOpened { .. } => 1,
            DeviceEvent::SessionClosed { .. } => 2,
            DeviceEvent::Registered { .. } => 5,
            DeviceEvent::Provisioned => 6,
            DeviceEvent::Activated => 7,
            DeviceEvent::Deactivated => 8,
            DeviceEvent::Frozen { .. } => 9,
            DeviceEvent::Unfrozen { .. } => 10,
            DeviceEvent::ConfigurationStarted => 11,
            DeviceEvent::ConfigurationProgressed { .. } => 12,
            DeviceEvent::ConfigurationFinished { .. } => 13,
            DeviceEvent::UpdateStarted { .. } => 14,
            DeviceEvent::UpdateProgressed { .. } => 15,
            DeviceEvent::UpdateFinished { .. } => 16,
            DeviceEvent::SettingsChanged(_) => 17,
            DeviceEvent::Moved { .. } => 18,
            DeviceEvent::Deleted => 19,
        },
        EventBody::Scope(event) => match event {
            ScopeEvent::InstanceAlive { .. } => 3,
            ScopeEvent::InstanceLost { .. } => 4,
            ScopeEvent::FleetSettingsChanged { .. } => 20,
            ScopeEvent::FleetFrozen { .. } => 21,
            ScopeEvent::FleetUnfrozen { .. } => 22,
            ScopeEvent::OrganizationFrozen { .. } => 23,
            ScopeEvent::OrganizationUnfrozen { .. } => 24,
        },
    }
}
