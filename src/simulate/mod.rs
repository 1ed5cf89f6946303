//! A fleet of devices that never was, and the events it sends: pure, and the
//! same for the same seed.
//!
//! Devices register, are provisioned, connect to a VPN instance and poll, each
//! poll up to half an interval early or late. Now and then something happens
//! to one of them (`episodes.rs`): it loses its VPN and comes back on another
//! session before the close of the old one is heard of, is updated, switched
//! off, frozen, moved, deleted … VPN instances say that they live, and
//! sometimes one fails and takes its sessions with it.

mod device;
mod episodes;
mod kind;
mod random;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use prost::Message;
use prost_types::Duration;

use crate::shard::{DeviceId, Input, Timestamp};
use crate::wire::proto::v1::{
    FleetSettingsChanged, Heartbeat, LifecycleEvent, SessionClosed, SessionOpened, VpnEvent,
    lifecycle_event::Event as Lifecycle, vpn_event::Event as Vpn,
};
use crate::wire::status_changed::timestamp;
pub use device::is_of_seed;
use device::{Device, device_id};
pub use kind::{kind_of, kinds};
use random::Random;

/// Events of a device other than polls, for every poll, by and large: what
/// `rate` is divided by to get the interval between polls.
const EVENTS_PER_POLL: f64 = 1.065;
/// Events of a device as it joins, besides its polls.
const EVENTS_PER_JOIN: f64 = 3.0;
/// How many VPN instances there are.
const INSTANCES: u8 = 4;
/// How many polls apart something happens to a device, on average.
const POLLS_PER_EPISODE: i64 = 40;
/// How many polls apart a VPN instance fails, or a fleet or organization is frozen.
const POLLS_PER_CALAMITY: i64 = 60;

/// What fleet to simulate.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// How many devices.
    pub devices: u32,
    /// The same seed gives the same events.
    pub seed: u64,
    /// When it begins.
    pub start: Timestamp,
    /// How far apart a device's polls are on average, in milliseconds.
    pub poll_interval_ms: i64,
    /// The interval that devices are told to keep, in milliseconds.
    pub told_poll_interval_s: u32,
    /// How the devices come in at the start.
    pub joining: Joining,
    /// How long an instance answers for its sessions, in milliseconds.
    pub lease_ms: u32,
}

/// How the devices come in at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joining {
    /// So that the rate of events is the same from the start: many at first,
    /// fewer as those who are in poll.
    Steady,
    /// All within so many milliseconds.
    Within(i64),
}

impl Plan {
    /// A fleet that sends about `rate` events a second in all.
    #[must_use]
    pub fn of_rate(devices: u32, seed: u64, start: Timestamp, rate: f64) -> Plan {
        let interval_ms = f64::from(devices) * EVENTS_PER_POLL * 1000.0 / rate;
        Plan::of_poll_interval(devices, seed, start, (interval_ms.round() as i64).max(1))
    }

    /// A fleet whose devices poll every `poll_interval_ms` on average.
    #[must_use]
    pub fn of_poll_interval(
        devices: u32,
        seed: u64,
        start: Timestamp,
        poll_interval_ms: i64,
    ) -> Plan {
        // Told in whole seconds, and never less than the contract's least.
        let told = (poll_interval_ms.saturating_add(999) / 1000).clamp(1, 7 * 86_400);
        Plan {
            devices,
            seed,
            start,
            poll_interval_ms,
            told_poll_interval_s: u32::try_from(told).unwrap_or(u32::MAX),
            joining: Joining::Steady,
            lease_ms: 60_000,
        }
    }

    /// The events a second that the fleet sends, by and large.
    #[must_use]
    pub fn rate(&self) -> f64 {
        f64::from(self.devices) * EVENTS_PER_POLL * 1000.0 / self.poll_interval_ms as f64
    }

    fn fleets(&self) -> u16 {
        (self.devices / 500).clamp(3, 200) as u16
    }
}

/// A record as it is sent: perhaps later than what it tells of happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// When it is sent.
    pub at: Timestamp,
    /// Where to.
    pub input: Input,
    /// Whose it is, as its key says; none: a broadcast.
    pub device: Option<DeviceId>,
    /// The message; none: a deletion that is told by the key alone.
    pub value: Option<Vec<u8>>,
}

/// What happens next, and to whom.
#[derive(Debug)]
enum Step {
    Join(u32),
    Poll {
        place: u32,
        polling: u32,
    },
    Episode(u32),
    /// Opens a session, if it has none and may.
    Connect(u32),
    /// The VPN's server notices that the device is gone.
    Disconnect {
        place: u32,
        session: u32,
    },
    /// What happened earlier is heard of.
    Hear(Box<Sent>),
    Configure {
        place: u32,
        percent: u32,
    },
    Update {
        place: u32,
        percent: u32,
    },
    SwitchOn(u32),
    Unfreeze {
        place: u32,
        reason: i32,
    },
    Activate(u32),
    Alive {
        instance: u8,
        run: u32,
    },
    InstanceFails,
    InstanceReturns(u8),
    ScopeFreezes,
    ScopeThaws(Box<Lifecycle>),
}

struct Instance {
    name: String,
    up: bool,
    /// Counts its starts.
    run: u32,
    started_at: Timestamp,
}

/// The simulated fleet.
pub struct Fleet {
    plan: Plan,
    random: Random,
    devices: Vec<Device>,
    instances: Vec<Instance>,
    fleets: Vec<String>,
    organizations: Vec<String>,
    releases: u32,
    /// What happens next, by when and by the order of planning.
    agenda: BTreeMap<(i64, u64), Step>,
    planned: u64,
    now: Timestamp,
    out: Vec<Sent>,
}

impl Fleet {
    /// A fleet whose first event is at or after the plan's start.
    #[must_use]
    pub fn new(plan: Plan) -> Fleet {
        let fleets = plan.fleets();
        let mut fleet = Fleet {
            random: Random::new(plan.seed),
            devices: Vec::with_capacity(plan.devices as usize),
            instances: (1..=INSTANCES)
                .map(|n| Instance {
                    name: format!("vpn-{n}"),
                    up: true,
                    run: 0,
                    started_at: plan.start,
                })
                .collect(),
            fleets: (1..=fleets).map(|n| format!("fleet-{n}")).collect(),
            organizations: (1..=fleets.div_ceil(2)).map(|n| format!("organization-{n}")).collect(),
            releases: 0,
            agenda: BTreeMap::new(),
            planned: 0,
            now: plan.start,
            out: Vec::new(),
            plan,
        };
        fleet.begin();
        fleet
    }

    /// All that is sent up to and including `to`, in order.
    pub fn advance(&mut self, to: Timestamp) -> Vec<Sent> {
        while let Some(next) = self.agenda.first_entry()
            && next.key().0 <= to.0
        {
            self.now = Timestamp(next.key().0);
            let step = next.remove();
            self.take(step);
        }
        self.now = self.now.max(to);
        std::mem::take(&mut self.out)
    }

    /// When something happens next; it may send nothing.
    #[must_use]
    pub fn next_at(&self) -> Option<Timestamp> {
        self.agenda.keys().next().map(|(at, _)| Timestamp(*at))
    }

    /// The id of the device at `place`, 0 to the number of devices less one.
    #[must_use]
    pub fn device_id(&self, place: u32) -> DeviceId {
        device_id(self.plan.seed, place, self.devices[place as usize].generation)
    }

    /// From now on nothing happens to a device by itself.
    pub fn hold(&mut self, place: u32) {
        self.devices[place as usize].held = true;
    }

    /// Switches a held device off: it stops polling, and its session closes.
    pub fn switch_off(&mut self, place: u32) {
        self.disconnect(place, 0);
        self.stop_polling(place);
    }

    /// Switches it on again: it connects and polls at once.
    pub fn switch_on(&mut self, place: u32) {
        self.start_polling(place, 0);
        self.connect(place);
    }

    fn begin(&mut self) {
        for fleet in self.fleets.clone() {
            let poll_interval = Some(self.poll_interval());
            let settings = FleetSettingsChanged { fleet, poll_interval, vpn_enabled: None };
            self.lifecycle(None, Lifecycle::FleetSettingsChanged(settings));
        }
        for instance in 0..INSTANCES {
            self.alive(instance, 0);
        }
        for place in 0..self.plan.devices {
            let fleet = self.random.below(self.fleets.len() as u32) as u16;
            self.devices.push(Device { fleet, ..Device::default() });
            let part = (f64::from(place) + 0.5) / f64::from(self.plan.devices);
            let after_ms = match self.plan.joining {
                Joining::Within(ms) => part * ms as f64,
                // Devices in × their polls + devices joining × their events is
                // then always the same.
                Joining::Steady => {
                    let pace_ms = EVENTS_PER_JOIN * self.plan.poll_interval_ms as f64;
                    -(1.0 - part).ln() * pace_ms / EVENTS_PER_POLL
                }
            };
            self.plan_in(after_ms.round() as i64, Step::Join(place));
        }
        self.plan_calamity(Step::InstanceFails);
        self.plan_calamity(Step::ScopeFreezes);
    }

    fn plan_in(&mut self, ms: i64, step: Step) {
        self.planned += 1;
        let at = self.now.0.saturating_add(ms.max(0));
        self.agenda.insert((at, self.planned), step);
    }

    fn plan_calamity(&mut self, step: Step) {
        let ms = self.random.wait(self.plan.poll_interval_ms * POLLS_PER_CALAMITY);
        self.plan_in(ms, step);
    }

    fn plan_episode(&mut self, place: u32) {
        let ms = self.random.wait(self.plan.poll_interval_ms * POLLS_PER_EPISODE);
        self.plan_in(ms, Step::Episode(place));
    }

    // ---- sending

    /// Sends a message to a device's partition, or as a broadcast to all.
    fn push(&mut self, input: Input, place: Option<u32>, message: &impl Message) {
        let device = place.map(|place| self.device_id(place));
        let value = Some(message.encode_to_vec());
        self.out.push(Sent { at: self.now, input, device, value });
    }

    fn lifecycle(&mut self, place: impl Into<Option<u32>>, event: Lifecycle) {
        let message = LifecycleEvent { occurred_at: Some(timestamp(self.now)), event: Some(event) };
        self.push(Input::Lifecycle, place.into(), &message);
    }

    fn vpn(&mut self, place: impl Into<Option<u32>>, event: Vpn) {
        let message = VpnEvent { occurred_at: Some(timestamp(self.now)), event: Some(event) };
        self.push(Input::VpnSessions, place.into(), &message);
    }

    /// What devices are told.
    fn poll_interval(&self) -> Duration {
        Duration { seconds: i64::from(self.plan.told_poll_interval_s), nanos: 0 }
    }

    // ---- what devices do by themselves

    fn start_polling(&mut self, place: u32, in_ms: i64) {
        let device = &mut self.devices[place as usize];
        device.polls = true;
        device.polling += 1;
        let polling = device.polling;
        self.plan_in(in_ms, Step::Poll { place, polling });
    }

    fn stop_polling(&mut self, place: u32) {
        let device = &mut self.devices[place as usize];
        device.polls = false;
        device.polling += 1;
    }

    fn poll(&mut self, place: u32, polling: u32) {
        if self.devices[place as usize].polling != polling {
            return;
        }
        let occurred_at = Some(timestamp(self.now));
        let heartbeat = Heartbeat {
            occurred_at,
            poll_interval: Some(self.poll_interval()),
            ..Default::default()
        };
        self.push(Input::Heartbeats, Some(place), &heartbeat);
        // Up to half an interval early or late.
        let ms = self.random.times(self.plan.poll_interval_ms, 0.5, 1.5);
        self.plan_in(ms.max(1), Step::Poll { place, polling });
    }

    /// Opens a session on an instance that is up, if it has none and may.
    fn connect(&mut self, place: u32) {
        let device = &self.devices[place as usize];
        let may = device.exists && device.polls && !device.vpn_disabled;
        if !may || device.instance.is_some() {
            return;
        }
        let first = self.random.below(u32::from(INSTANCES)) as u8;
        let all = INSTANCES;
        let Some(instance) =
            (0..all).map(|n| (first + n) % all).find(|n| self.instances[*n as usize].up)
        else {
            // All are down: it keeps trying.
            self.plan_in(self.plan.poll_interval_ms, Step::Connect(place));
            return;
        };
        let device = &mut self.devices[place as usize];
        device.instance = Some(instance);
        device.session += 1;
        let session = self.session(place);
        let instance = self.instance(instance);
        self.vpn(
            place,
            Vpn::SessionOpened(SessionOpened { instance, session, ..Default::default() }),
        );
    }

    /// Its session ends now, and the close is sent `heard_in_ms` later.
    fn disconnect(&mut self, place: u32, heard_in_ms: i64) {
        let Some(instance) = self.devices[place as usize].instance.take() else { return };
        let (instance, session) = (self.instance(instance), self.session(place));
        self.vpn(
            place,
            Vpn::SessionClosed(SessionClosed { instance, session, ..Default::default() }),
        );
        if heard_in_ms > 0
            && let Some(close) = self.out.pop()
        {
            self.plan_in(heard_in_ms, Step::Hear(Box::new(close)));
        }
    }

    fn session(&self, place: u32) -> String {
        format!("{place:x}-{}", self.devices[place as usize].session)
    }

    fn instance(&self, instance: u8) -> String {
        self.instances[instance as usize].name.clone()
    }

    /// The fleet that a device is in, and whose it is.
    fn fleet_of(&self, place: u32) -> (String, String) {
        let fleet = usize::from(self.devices[place as usize].fleet);
        (self.fleets[fleet].clone(), self.organizations[fleet / 2].clone())
    }
}

fn duration(ms: u32) -> Duration {
    Duration { seconds: i64::from(ms / 1000), nanos: (ms % 1000 * 1_000_000) as i32 }
}
