//! Looking at a shard from outside, without changing it: for tests and
//! `explain`.

use super::Shard;
use super::event::{DeviceId, Timestamp};
use super::outbox::DeviceView;
use super::snapshot::{
    FleetFacts, InstanceFacts, OrganizationFacts, RowSnapshot, SessionFingerprint,
};

impl Shard {
    /// All facts of a device, and what was last emitted of it.
    #[must_use]
    pub fn snapshot(&self, device: &DeviceId) -> Option<RowSnapshot> {
        let hot = self.table.get(self.table.find(device)?)?;
        Some(self.snapshot_of(hot, &self.load_cold(hot), self.progress().clock))
    }

    /// The closed sessions that are remembered of a device, oldest first.
    #[must_use]
    pub fn closed_sessions(&self, device: &DeviceId) -> Vec<(SessionFingerprint, Timestamp)> {
        let Some(hot) = self.table.find(device).and_then(|row| self.table.get(row)) else {
            return Vec::new();
        };
        let cold = self.load_cold(hot);
        cold.closed.iter().map(|closed| (closed.fingerprint, closed.closed_at)).collect()
    }

    /// A device as the view should show it; `None` for one that it should not.
    #[must_use]
    pub fn view(&self, device: &DeviceId) -> Option<DeviceView> {
        let hot = self.table.get(self.table.find(device)?)?;
        self.device_view(hot, &self.load_cold(hot), None, false)
    }

    /// A page of devices as the view should show them once all is committed: at
    /// most `count` slots from `from` on, and whence to go on, if there is more.
    #[must_use]
    pub fn view_page(&self, from: u32, count: u32) -> (Vec<DeviceView>, Option<u32>) {
        let end = self.table.end();
        let until = from.saturating_add(count).min(end);
        let views = (from..until).filter_map(|row| {
            let hot = self.table.get(row)?;
            self.device_view(hot, &self.load_cold(hot), None, false)
        });
        (views.collect(), (until < end).then_some(until))
    }

    /// What is known of a VPN instance, and whether its lease is over.
    #[must_use]
    pub fn instance(&self, name: &str) -> Option<(InstanceFacts, bool)> {
        let instance = self.scopes.instances.get(self.scopes.instances.find(name)?);
        Some((instance.facts.clone(), instance.lapsed))
    }

    /// What is known of a fleet.
    #[must_use]
    pub fn fleet(&self, name: &str) -> Option<FleetFacts> {
        Some(self.scopes.fleets.get(self.scopes.fleets.find(name)?).facts.clone())
    }

    /// How many devices of a fleet have each status.
    #[must_use]
    pub fn fleet_counts(&self, name: &str) -> Option<[u64; super::Status::ALL.len()]> {
        Some(self.scopes.fleets.get(self.scopes.fleets.find(name)?).counts)
    }

    /// What is known of an organization.
    #[must_use]
    pub fn organization(&self, name: &str) -> Option<OrganizationFacts> {
        let index = self.scopes.organizations.find(name)?;
        Some(self.scopes.organizations.get(index).clone())
    }
}
