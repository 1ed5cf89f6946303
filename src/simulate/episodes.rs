//! What happens to devices, instances and organizations, and how it goes on.
//! All durations are in polls, so that a fleet that polls every few seconds
//! lives as much as one that polls every hour.

use super::{Fleet, INSTANCES, Lifecycle, Sent, Step, Vpn, duration, timestamp};
use crate::wire::proto::v1::{
    Activated, ConfigurationFinished, ConfigurationProgressed, ConfigurationStarted, Deactivated,
    Deleted, FleetFrozen, FleetUnfrozen, Frozen, FrozenReason, InstanceAlive, InstanceLost, Moved,
    OrganizationFrozen, OrganizationUnfrozen, Provisioned, Registered, SettingsChanged, Unfrozen,
    UpdateFinished, UpdateProgressed, UpdateStarted,
};

/// Why a device may be frozen.
const REASONS: [FrozenReason; 4] = [
    FrozenReason::Allowance,
    FrozenReason::PaidApplicationType,
    FrozenReason::OverdueInvoices,
    FrozenReason::Other,
];

impl Fleet {
    pub(super) fn take(&mut self, step: Step) {
        match step {
            Step::Join(place) => self.join(place),
            Step::Poll { place, polling } => self.poll(place, polling),
            Step::Episode(place) => self.episode(place),
            Step::Connect(place) => self.connect(place),
            Step::Disconnect { place, session } => {
                if self.devices[place as usize].session == session {
                    self.disconnect(place, 0);
                }
            }
            Step::Hear(told) => self.out.push(Sent { at: self.now, ..*told }),
            Step::Configure { place, percent } => self.configure(place, percent),
            Step::Update { place, percent } => self.update(place, percent),
            Step::SwitchOn(place) => {
                self.switch_on(place);
                self.plan_episode(place);
            }
            Step::Unfreeze { place, reason } => {
                self.lifecycle(place, Lifecycle::Unfrozen(Unfrozen { reason }));
                self.plan_episode(place);
            }
            Step::Activate(place) => {
                self.lifecycle(place, Lifecycle::Activated(Activated {}));
                self.switch_on(place);
                self.plan_episode(place);
            }
            Step::Alive { instance, run } => self.alive(instance, run),
            Step::InstanceFails => self.instance_fails(),
            Step::InstanceReturns(instance) => self.instance_returns(instance),
            Step::ScopeFreezes => self.scope_freezes(),
            Step::ScopeThaws(event) => self.lifecycle(None, *event),
        }
    }

    fn join(&mut self, place: u32) {
        self.devices[place as usize].exists = true;
        let (fleet, organization) = self.fleet_of(place);
        let preregistered = self.random.chance(0.1);
        let registered = Registered { fleet, organization, preregistered };
        self.lifecycle(place, Lifecycle::Registered(registered));
        self.lifecycle(place, Lifecycle::Provisioned(Provisioned {}));
        let interval = self.plan.poll_interval_ms;
        // The first contact comes somewhat later, by either link first.
        let contact = self.random.times(interval, 0.05, 0.5);
        self.start_polling(place, contact);
        let connect = self.random.times(interval, 0.05, 0.5);
        self.plan_in(connect, Step::Connect(place));
        self.plan_episode(place);
    }

    /// Something happens to a device that is polling.
    fn episode(&mut self, place: u32) {
        let interval = self.plan.poll_interval_ms;
        if self.devices[place as usize].held {
            return;
        }
        match self.random.below(100) {
            // Comes back on a new session, often before the close of the old
            // one is heard of.
            0..30 => {
                let heard = self.random.times(interval.min(20_000), 0.0, 1.0).max(1);
                self.disconnect(place, heard);
                let back = self.random.times(interval.min(10_000), 0.02, 1.0);
                self.plan_in(back, Step::Connect(place));
                self.plan_episode(place);
            }
            // Has no VPN for a while.
            30..42 => {
                self.disconnect(place, 0);
                let back = self.random.times(interval, 1.0, 4.0);
                self.plan_in(back, Step::Connect(place));
                self.plan_episode(place);
            }
            42..56 => {
                self.releases += 1;
                let release = format!("release-{}", self.releases / 50 + 1);
                self.lifecycle(place, Lifecycle::UpdateStarted(UpdateStarted { release }));
                self.plan_progress(|percent| Step::Update { place, percent }, 25);
            }
            56..64 => {
                self.lifecycle(place, Lifecycle::ConfigurationStarted(ConfigurationStarted {}));
                self.plan_progress(|percent| Step::Configure { place, percent }, 50);
            }
            // Loses its power; the VPN's server notices a little later.
            64..80 => {
                self.stop_polling(place);
                let session = self.devices[place as usize].session;
                let noticed = self.random.times(interval.min(60_000), 0.1, 1.0);
                self.plan_in(noticed, Step::Disconnect { place, session });
                let back = self.random.times(interval, 2.5, 8.0);
                self.plan_in(back, Step::SwitchOn(place));
            }
            80..86 => {
                let reason = REASONS[self.random.below(REASONS.len() as u32) as usize];
                let reason = reason.into();
                self.lifecycle(place, Lifecycle::Frozen(Frozen { reason }));
                let lifted = self.random.times(interval, 2.0, 6.0);
                self.plan_in(lifted, Step::Unfreeze { place, reason });
            }
            86..90 => {
                self.lifecycle(place, Lifecycle::Deactivated(Deactivated {}));
                self.stop_polling(place);
                self.disconnect(place, 0);
                let back = self.random.times(interval, 3.0, 8.0);
                self.plan_in(back, Step::Activate(place));
            }
            90..94 => {
                let fleet = self.random.below(self.fleets.len() as u32) as u16;
                self.devices[place as usize].fleet = fleet;
                let (fleet, organization) = self.fleet_of(place);
                self.lifecycle(place, Lifecycle::Moved(Moved { fleet, organization }));
                self.plan_episode(place);
            }
            94..98 => {
                let enabled = self.devices[place as usize].vpn_disabled;
                self.devices[place as usize].vpn_disabled = !enabled;
                let poll_interval = Some(self.poll_interval());
                let settings = SettingsChanged { poll_interval, vpn_enabled: Some(enabled) };
                self.lifecycle(place, Lifecycle::SettingsChanged(settings));
                if enabled {
                    self.connect(place)
                } else {
                    self.disconnect(place, 0)
                }
                self.plan_episode(place);
            }
            _ => self.delete(place),
        }
    }

    /// Deletes a device; another takes its place a while later.
    fn delete(&mut self, place: u32) {
        self.stop_polling(place);
        self.disconnect(place, 0);
        self.lifecycle(place, Lifecycle::Deleted(Deleted {}));
        // Half of the deletions are told by a key without a value.
        if self.random.chance(0.5)
            && let Some(sent) = self.out.last_mut()
        {
            sent.value = None;
        }
        let device = &mut self.devices[place as usize];
        device.exists = false;
        device.vpn_disabled = false;
        device.generation += 1;
        let after = self.random.times(self.plan.poll_interval_ms, 1.0, 4.0);
        self.plan_in(after, Step::Join(place));
    }

    fn plan_progress(&mut self, step: impl Fn(u32) -> Step, percent: u32) {
        let ms = self.random.times(self.plan.poll_interval_ms, 0.1, 0.6);
        self.plan_in(ms, step(percent));
    }

    fn update(&mut self, place: u32, percent: u32) {
        if percent >= 100 {
            self.lifecycle(place, Lifecycle::UpdateFinished(UpdateFinished::default()));
            self.plan_episode(place);
        } else {
            self.lifecycle(
                place,
                Lifecycle::UpdateProgressed(UpdateProgressed { percent, ..Default::default() }),
            );
            self.plan_progress(|percent| Step::Update { place, percent }, percent + 25);
        }
    }

    fn configure(&mut self, place: u32, percent: u32) {
        if percent >= 100 {
            self.lifecycle(
                place,
                Lifecycle::ConfigurationFinished(ConfigurationFinished::default()),
            );
            self.plan_episode(place);
        } else {
            self.lifecycle(
                place,
                Lifecycle::ConfigurationProgressed(ConfigurationProgressed { percent }),
            );
            self.plan_progress(|percent| Step::Configure { place, percent }, percent + 50);
        }
    }

    // ---- what concerns many

    pub(super) fn alive(&mut self, instance: u8, run: u32) {
        let state = &self.instances[instance as usize];
        if !state.up || state.run != run {
            return;
        }
        let started_at = Some(timestamp(state.started_at));
        let (name, lease_ms) = (state.name.clone(), self.plan.lease_ms);
        let alive = InstanceAlive { instance: name, started_at, lease: Some(duration(lease_ms)) };
        self.vpn(None, Vpn::InstanceAlive(alive));
        self.plan_in(i64::from(lease_ms) / 3, Step::Alive { instance, run });
    }

    /// An instance fails: nobody hears of its sessions' ends, only of its own.
    /// Its devices connect elsewhere as they notice.
    fn instance_fails(&mut self) {
        self.plan_calamity(Step::InstanceFails);
        let failing = self.random.below(u32::from(INSTANCES)) as u8;
        if !self.instances[failing as usize].up {
            return;
        }
        self.instances[failing as usize].up = false;
        let instance = self.instance(failing);
        self.vpn(None, Vpn::InstanceLost(InstanceLost { instance }));
        let interval = self.plan.poll_interval_ms;
        for place in 0..self.plan.devices {
            let device = &mut self.devices[place as usize];
            if device.instance == Some(failing) {
                device.instance = None;
                let back = self.random.times(interval, 0.05, 0.8);
                self.plan_in(back, Step::Connect(place));
            }
        }
        let back = self.random.times(interval, 1.0, 3.0);
        self.plan_in(back, Step::InstanceReturns(failing));
    }

    fn instance_returns(&mut self, instance: u8) {
        let now = self.now;
        let state = &mut self.instances[instance as usize];
        state.up = true;
        state.run += 1;
        state.started_at = now;
        let run = state.run;
        self.alive(instance, run);
    }

    fn scope_freezes(&mut self) {
        self.plan_calamity(Step::ScopeFreezes);
        let (frozen, thawed) = if self.random.chance(0.5) {
            let place = self.random.below(self.fleets.len() as u32) as usize;
            let fleet = self.fleets[place].clone();
            let reason = FrozenReason::Allowance.into();
            let thawed = FleetUnfrozen { fleet: fleet.clone(), reason };
            let frozen = FleetFrozen { fleet, reason };
            (Lifecycle::FleetFrozen(frozen), Lifecycle::FleetUnfrozen(thawed))
        } else {
            let place = self.random.below(self.organizations.len() as u32) as usize;
            let organization = self.organizations[place].clone();
            let reason = FrozenReason::OverdueInvoices.into();
            let thawed = OrganizationUnfrozen { organization: organization.clone(), reason };
            let frozen = OrganizationFrozen { organization, reason };
            (Lifecycle::OrganizationFrozen(frozen), Lifecycle::OrganizationUnfrozen(thawed))
        };
        self.lifecycle(None, frozen);
        let lifted = self.random.times(self.plan.poll_interval_ms, 1.0, 3.0);
        self.plan_in(lifted, Step::ScopeThaws(Box::new(thawed)));
    }
}
