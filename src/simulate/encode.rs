//! Simulated events as records.

use prost::Message;
use prost_types::{Duration, Timestamp as ProtoTimestamp};

use crate::shard::{
    DeviceEvent, EventBody, FrozenReason, ScopeEvent, Settings as ShardSettings, Timestamp,
    UpdateOutcome,
};
use crate::wire::proto::v1::{
    self, Heartbeat, LifecycleEvent, VpnEvent, lifecycle_event::Event as Lifecycle,
    vpn_event::Event as Vpn,
};

use super::Sent;

/// Writes an event's key and value into buffers, which it empties first, and
/// tells which of the two the record has.
pub fn encode(sent: &Sent, key: &mut Vec<u8>, value: &mut Vec<u8>) -> (bool, bool) {
    key.clear();
    value.clear();
    let occurred_at = sent.event.occurred_at.map(timestamp);
    let (device, event) = match &sent.event.body {
        EventBody::Heartbeat { device, poll_interval_s, going_away } => {
            let poll_interval = poll_interval_s.map(seconds);
            append(&Heartbeat { occurred_at, poll_interval, going_away: *going_away }, value);
            device.write_to(key);
            return (true, true);
        }
        EventBody::Device { device, event } => (Some(device), of_device(event)),
        EventBody::Scope(event) => (None, of_scope(event)),
    };
    if let Some(device) = device {
        device.write_to(key);
    }
    if !sent.tombstone {
        match event {
            Either::Vpn(event) => append(&VpnEvent { occurred_at, event: Some(event) }, value),
            Either::Lifecycle(event) => {
                append(&LifecycleEvent { occurred_at, event: Some(event) }, value);
            }
        }
    }
    (device.is_some(), !sent.tombstone)
}

enum Either {
    Vpn(Vpn),
    Lifecycle(Lifecycle),
}

fn append(message: &impl Message, out: &mut Vec<u8>) {
    // A vector grows as needed, so that this cannot fail.
    let _ = message.encode(out);
}

fn of_device(event: &DeviceEvent) -> Either {
    let text = str::to_owned;
    Either::Lifecycle(match event {
        DeviceEvent::SessionOpened { instance, session, opened_at, lease_ms } => {
            return Either::Vpn(Vpn::SessionOpened(v1::SessionOpened {
                instance: text(instance),
                session: text(session),
                opened_at: opened_at.map(timestamp),
                lease: lease_ms.map(duration),
            }));
        }
        DeviceEvent::SessionClosed { instance, session, opened_at } => {
            return Either::Vpn(Vpn::SessionClosed(v1::SessionClosed {
                instance: text(instance),
                session: text(session),
                opened_at: opened_at.map(timestamp),
            }));
        }
        DeviceEvent::Registered { fleet, organization, preregistered } => {
            Lifecycle::Registered(v1::Registered {
                fleet: text(fleet),
                organization: text(organization),
                preregistered: *preregistered,
            })
        }
        DeviceEvent::Provisioned => Lifecycle::Provisioned(v1::Provisioned {}),
        DeviceEvent::Activated => Lifecycle::Activated(v1::Activated {}),
        DeviceEvent::Deactivated => Lifecycle::Deactivated(v1::Deactivated {}),
        DeviceEvent::Frozen { reason } => {
            Lifecycle::Frozen(v1::Frozen { reason: number(Some(*reason)) })
        }
        DeviceEvent::Unfrozen { reason } => {
            Lifecycle::Unfrozen(v1::Unfrozen { reason: number(*reason) })
        }
        DeviceEvent::ConfigurationStarted => {
            Lifecycle::ConfigurationStarted(v1::ConfigurationStarted {})
        }
        DeviceEvent::ConfigurationProgressed { percent } => {
            let percent = u32::from(*percent);
            Lifecycle::ConfigurationProgressed(v1::ConfigurationProgressed { percent })
        }
        DeviceEvent::ConfigurationFinished { outcome } => {
            let outcome = outcome_number(*outcome);
            Lifecycle::ConfigurationFinished(v1::ConfigurationFinished { outcome })
        }
        DeviceEvent::UpdateStarted { release } => {
            Lifecycle::UpdateStarted(v1::UpdateStarted { release: text(release) })
        }
        DeviceEvent::UpdateProgressed { percent, phase, release } => {
            Lifecycle::UpdateProgressed(v1::UpdateProgressed {
                percent: u32::from(*percent),
                phase: phase.map_or(0, |phase| phase as i32 + 1),
                release: (!release.is_empty()).then(|| text(release)),
            })
        }
        DeviceEvent::UpdateFinished { release, outcome } => {
            Lifecycle::UpdateFinished(v1::UpdateFinished {
                release: (!release.is_empty()).then(|| text(release)),
                outcome: outcome_number(*outcome),
            })
        }
        DeviceEvent::SettingsChanged(ShardSettings { poll_interval_s, vpn_enabled }) => {
            Lifecycle::SettingsChanged(v1::SettingsChanged {
                poll_interval: poll_interval_s.map(seconds),
                vpn_enabled: *vpn_enabled,
            })
        }
        DeviceEvent::Moved { fleet, organization } => {
            Lifecycle::Moved(v1::Moved { fleet: text(fleet), organization: text(organization) })
        }
        DeviceEvent::Deleted => Lifecycle::Deleted(v1::Deleted {}),
    })
}

fn of_scope(event: &ScopeEvent) -> Either {
    let text = str::to_owned;
    Either::Lifecycle(match event {
        ScopeEvent::InstanceAlive { instance, started_at, lease_ms } => {
            return Either::Vpn(Vpn::InstanceAlive(v1::InstanceAlive {
                instance: text(instance),
                started_at: started_at.map(timestamp),
                lease: Some(duration(*lease_ms)),
            }));
        }
        ScopeEvent::InstanceLost { instance } => {
            let instance = text(instance);
            return Either::Vpn(Vpn::InstanceLost(v1::InstanceLost { instance }));
        }
        ScopeEvent::FleetSettingsChanged { fleet, settings } => {
            Lifecycle::FleetSettingsChanged(v1::FleetSettingsChanged {
                fleet: text(fleet),
                poll_interval: settings.poll_interval_s.map(seconds),
                vpn_enabled: settings.vpn_enabled,
            })
        }
        ScopeEvent::FleetFrozen { fleet, reason } => Lifecycle::FleetFrozen(v1::FleetFrozen {
            fleet: text(fleet),
            reason: number(Some(*reason)),
        }),
        ScopeEvent::FleetUnfrozen { fleet, reason } => {
            let (fleet, reason) = (text(fleet), number(*reason));
            Lifecycle::FleetUnfrozen(v1::FleetUnfrozen { fleet, reason })
        }
        ScopeEvent::OrganizationFrozen { organization, reason } => {
            let (organization, reason) = (text(organization), number(Some(*reason)));
            Lifecycle::OrganizationFrozen(v1::OrganizationFrozen { organization, reason })
        }
        ScopeEvent::OrganizationUnfrozen { organization, reason } => {
            let (organization, reason) = (text(organization), number(*reason));
            Lifecycle::OrganizationUnfrozen(v1::OrganizationUnfrozen { organization, reason })
        }
    })
}

/// The outcome as the message has it.
fn outcome_number(outcome: Option<UpdateOutcome>) -> i32 {
    outcome.map_or(0, |outcome| outcome as i32 + 1)
}

/// The reason as the message has it; absent stands for every reason.
fn number(reason: Option<FrozenReason>) -> i32 {
    match reason {
        None => v1::FrozenReason::Unspecified,
        Some(FrozenReason::Allowance) => v1::FrozenReason::Allowance,
        Some(FrozenReason::PaidApplicationType) => v1::FrozenReason::PaidApplicationType,
        Some(FrozenReason::OverdueInvoices) => v1::FrozenReason::OverdueInvoices,
        Some(FrozenReason::Other) => v1::FrozenReason::Other,
    }
    .into()
}

fn timestamp(at: Timestamp) -> ProtoTimestamp {
    let nanos = (at.0.rem_euclid(1000) * 1_000_000) as i32;
    ProtoTimestamp { seconds: at.0.div_euclid(1000), nanos }
}

fn seconds(seconds: u32) -> Duration {
    Duration { seconds: i64::from(seconds), nanos: 0 }
}

fn duration(ms: u32) -> Duration {
    Duration { seconds: i64::from(ms / 1000), nanos: (ms % 1000 * 1_000_000) as i32 }
}
