//! One simulated device.

use crate::shard::DeviceId;

use super::random::{mix, unmix};

/// What the simulation knows of a device.
#[derive(Clone, Debug, Default)]
pub(super) struct Device {
    /// Counts the devices that had this place: a deleted one is succeeded by
    /// another, with another id.
    pub(super) generation: u32,
    pub(super) fleet: u16,
    /// Registered and not deleted.
    pub(super) exists: bool,
    /// Has power, and is not deactivated.
    pub(super) polls: bool,
    /// Nothing happens to it but what the owner of the simulation does.
    pub(super) held: bool,
    pub(super) vpn_disabled: bool,
    /// The VPN instance that its open session is on.
    pub(super) instance: Option<u8>,
    /// Counts its sessions.
    pub(super) session: u32,
    /// A poll that was planned under another number is void.
    pub(super) polling: u32,
}

/// The id of the `generation`th device at `place`: 32 hex digits from the seed.
pub(super) fn device_id(seed: u64, place: u32, generation: u32) -> DeviceId {
    let number = u64::from(place) << 32 | u64::from(generation);
    let high = mix(seed ^ mix(number));
    let low = mix(high ^ number);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&high.to_be_bytes());
    bytes[8..].copy_from_slice(&low.to_be_bytes());
    DeviceId::Hex(bytes)
}

/// Whether an id is that of a device of the fleets of a seed.
#[must_use]
pub fn is_of_seed(seed: u64, device: &DeviceId) -> bool {
    let DeviceId::Hex(bytes) = device else { return false };
    let bits = u128::from_be_bytes(*bytes);
    let (high, low) = ((bits >> 64) as u64, bits as u64);
    let number = unmix(low) ^ high;
    *device == device_id(seed, (number >> 32) as u32, number as u32)
}
