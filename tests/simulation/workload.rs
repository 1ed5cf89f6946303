//! A fleet: devices that poll with jitter, hold VPN sessions, are registered,
//! frozen and deleted; VPN instances; scope events; and bad records. What they
//! say is written to the inputs.

use std::collections::{BTreeMap, BTreeSet};

use device_status::shard::Input;
use device_status::wire::dead_letter::HEADER_REPLAYED;
use device_status::wire::headers::HEADER_SOURCE_TIMESTAMP;
use device_status::wire::murmur2::partition_of;
use device_status::wire::proto::v1::{self, lifecycle_event as lifecycle, vpn_event as vpn};
use prost::Message as _;

use crate::kafka::{Message, Topic};
use crate::sim::{START_MS, Sim};

/// The header of records that the generator meant to be bad.
pub const BAD: &str = "simulation.bad";

/// The header of records whose stamps nobody believes: it is not told exactly
/// what becomes of their device.
pub const ABSURD: &str = "simulation.absurd";

#[derive(Clone, Debug, Default)]
pub struct Shape {
    pub devices: usize,
    pub instances: usize,
    /// Some of what is written is written in transactions.
    pub transactions: bool,
    /// Beside heartbeats there are sessions, lifecycle and scopes.
    pub rich: bool,
    pub bad_records: bool,
    pub long_intervals: bool,
    /// Devices that only poll do so in step, and fall silent together.
    pub herd: bool,
    /// Nearly all others are of one fleet, and much happens to it.
    pub one_fleet: bool,
    /// One more device polls evenly, many times a second: each record by itself.
    pub steady: bool,
    /// The topics keep their producers' stamps.
    pub create_time: bool,
}

struct Device {
    id: String,
    partition: i32,
    /// Nothing but heartbeats, all in time.
    plain: bool,
    interval_ms: i64,
    carries: bool,
    next_poll: i64,
    polls: usize,
    next_event: i64,
    sessions: Vec<Session>,
    session_count: u32,
}

/// A session as its source has it.
#[derive(Clone)]
struct Session {
    instance: String,
    name: String,
    opened_at: i64,
    /// The source says since when it is.
    says_since: bool,
    /// It is told again and again, with a lease.
    lease_ms: Option<i64>,
    next_told: i64,
}

impl Session {
    fn opened(&self) -> vpn::Event {
        vpn::Event::SessionOpened(v1::SessionOpened {
            instance: self.instance.clone(),
            session: self.name.clone(),
            opened_at: self.says_since.then(|| proto(self.opened_at)).flatten(),
            lease: self.lease_ms.and_then(duration),
        })
    }
}

/// A device that polls evenly.
struct Steady {
    id: String,
    partition: i32,
    every_ms: i64,
    next_poll: i64,
    until: i64,
}

struct Instance {
    name: String,
    started_at: i64,
    lease_ms: i64,
    next_alive: i64,
    silent_until: i64,
    slow_ms: i64,
}

struct Pending {
    input: Input,
    partition: i32,
    message: Message,
}

pub struct Workload {
    shape: Shape,
    partitions: i32,
    devices: Vec<Device>,
    instances: Vec<Instance>,
    steady: Option<Steady>,
    /// How long a herd waits, poll by poll.
    herd_waits: Vec<i64>,
    next_scope_event: i64,
    next_bad: i64,
    pending: BTreeMap<(i64, u64), Pending>,
    sequence: u64,
    /// Transactions of other producers, by input and partition: until when, and
    /// whether they end well.
    open: BTreeMap<(Input, i32), (String, u32, i64, bool)>,
    /// The keys of devices with stamps that nobody believes.
    absurd: BTreeSet<String>,
}

/// The interval that the heartbeats of a device carry that polls evenly.
const STEADY_INTERVAL_MS: i64 = 10_000;

const FLEETS: [&str; 3] = ["", "red", "blue"];
const ORGANIZATIONS: [&str; 2] = ["", "acme"];

pub fn proto(ms: i64) -> Option<prost_types::Timestamp> {
    let nanos = (ms.rem_euclid(1_000) * 1_000_000) as i32;
    Some(prost_types::Timestamp { seconds: ms.div_euclid(1_000), nanos })
}

pub fn duration(ms: i64) -> Option<prost_types::Duration> {
    let nanos = (ms % 1_000 * 1_000_000) as i32;
    Some(prost_types::Duration { seconds: ms / 1_000, nanos })
}

impl Steady {
    fn new(sim: &mut Sim, begin: i64) -> Steady {
        let id = "steady".to_owned();
        let partition = partition_of(id.as_bytes(), sim.kafka.partitions);
        let every_ms = sim.random.between(20, 100);
        let next_poll = begin + sim.random.between(0, 60_000);
        // More than a minute, after which an input is given up (rule T1).
        let until = next_poll + sim.random.between(90_000, 150_000);
        Steady { id, partition, every_ms, next_poll, until }
    }
}

impl Workload {
    pub fn new(shape: Shape, sim: &mut Sim) -> Workload {
        let partitions = sim.kafka.partitions;
        let begin = sim.now + 8_000;
        let herd_interval_ms = sim.random.between(8_000, 20_000);
        let mut devices = Vec::new();
        for number in 0..shape.devices {
            let id = if sim.random.chance(0.7) {
                format!("{:032x}", sim.random.number())
            } else {
                format!("device/{number}")
            };
            let plain = !shape.rich || sim.random.chance(if shape.one_fleet { 0.2 } else { 0.5 });
            let in_herd = shape.herd && plain;
            let interval_ms = if in_herd {
                herd_interval_ms
            } else if shape.long_intervals && sim.random.chance(0.3) {
                sim.random.between(100_000, 300_000)
            } else {
                sim.random.between(8_000, 45_000)
            };
            devices.push(Device {
                partition: partition_of(id.as_bytes(), partitions),
                id,
                plain,
                interval_ms,
                carries: sim.random.chance(0.6),
                next_poll: begin + sim.random.between(0, if in_herd { 400 } else { interval_ms }),
                polls: 0,
                next_event: begin + sim.random.between(0, 40_000),
                sessions: Vec::new(),
                session_count: 0,
            });
        }
        for device in &mut devices {
            device.carries |= device.plain;
        }
        let instances = if shape.rich { shape.instances } else { 0 };
        let instances = (0..instances).map(|number| Instance {
            name: format!("vpn-{number}"),
            started_at: START_MS - 1_000,
            lease_ms: 10_000 + 7_000 * number as i64,
            next_alive: begin,
            silent_until: 0,
            slow_ms: if number == 1 { 240_000 } else { 0 },
        });
        let mut workload = Workload {
            instances: instances.collect(),
            partitions,
            devices,
            steady: shape.steady.then(|| Steady::new(sim, begin)),
            herd_waits: Vec::new(),
            next_scope_event: begin + sim.random.between(5_000, 60_000),
            next_bad: begin + sim.random.between(1_000, 20_000),
            pending: BTreeMap::new(),
            sequence: 0,
            open: BTreeMap::new(),
            absurd: BTreeSet::new(),
            shape,
        };
        // Every input has had something to say.
        let settings = lifecycle::Event::FleetSettingsChanged(v1::FleetSettingsChanged {
            fleet: "red".to_owned(),
            poll_interval: duration(20_000),
            vpn_enabled: None,
        });
        workload.broadcast_lifecycle(sim, sim.now + 1_000, settings);
        let alive = vpn::Event::InstanceAlive(v1::InstanceAlive {
            instance: "vpn-x".to_owned(),
            started_at: proto(START_MS - 5_000),
            lease: duration(3_600_000),
        });
        workload.broadcast_vpn(sim, sim.now + 1_000, alive);
        for device in 0..workload.devices.len() {
            if workload.shape.one_fleet && !workload.devices[device].plain {
                workload.found_fleet(sim, device, begin);
            }
        }
        workload
    }

    /// A device of the one fleet, and on the first instance.
    fn found_fleet(&mut self, sim: &mut Sim, device: usize, at: i64) {
        let (fleet, organization) = (FLEETS[1].to_owned(), ORGANIZATIONS[1].to_owned());
        let registered = v1::Registered { fleet, organization, preregistered: false };
        let event = Some(lifecycle::Event::Registered(registered));
        let message = v1::LifecycleEvent { occurred_at: proto(at), event };
        self.say(sim, device, at, Input::Lifecycle, Some(message.encode_to_vec()));
        let instance = self.instances[0].name.clone();
        let opened_at = at + sim.random.between(0, 10_000);
        let session = Session {
            instance,
            name: "s0".to_owned(),
            opened_at,
            says_since: false,
            lease_ms: None,
            next_told: 0,
        };
        self.say_vpn(sim, device, opened_at, session.opened());
        self.devices[device].sessions.push(session);
    }

    /// Something is to be written at a time.
    pub fn push(&mut self, at: i64, input: Input, partition: i32, message: Message) {
        self.sequence += 1;
        self.pending.insert((at, self.sequence), Pending { input, partition, message });
    }

    fn broadcast(&mut self, sim: &mut Sim, at: i64, input: Input, value: Vec<u8>) {
        let stamp = self.shape.create_time.then_some(at);
        let late = input == Input::Lifecycle && sim.random.chance(0.1);
        let late = if late { sim.random.between(1_000, 60_000) } else { 0 };
        for partition in 0..self.partitions {
            let message = Message { value: Some(value.clone()), stamp, ..Message::default() };
            let at = at + late + sim.random.between(0, 900);
            self.push(at, input, partition, message);
        }
    }

    fn broadcast_lifecycle(&mut self, sim: &mut Sim, at: i64, event: lifecycle::Event) {
        let message = v1::LifecycleEvent { occurred_at: proto(at), event: Some(event) };
        self.broadcast(sim, at, Input::Lifecycle, message.encode_to_vec());
    }

    fn broadcast_vpn(&mut self, sim: &mut Sim, at: i64, event: vpn::Event) {
        let message = v1::VpnEvent { occurred_at: proto(at), event: Some(event) };
        self.broadcast(sim, at, Input::VpnSessions, message.encode_to_vec());
    }

    /// When a record of an event is written: mostly soon, and where that is
    /// allowed sometimes late, or twice.
    fn say(&mut self, sim: &mut Sim, device: usize, at: i64, input: Input, value: Option<Vec<u8>>) {
        let Device { id, partition, plain, .. } = &self.devices[device];
        let (id, partition, plain) = (id.clone(), *partition, *plain);
        let key = Some(id.clone().into_bytes());
        let stamp = self.shape.create_time.then_some(at);
        let mut message = Message { key, value, stamp, ..Message::default() };
        if self.shape.create_time && !plain && sim.random.chance(0.01) {
            message.stamp = Some(at + sim.random.between(3_600_000, 1 << 45));
            message.headers.push((ABSURD.to_owned(), None));
            self.absurd.insert(format!("ds:device:{id}"));
        }
        let mut delay = sim.random.between(0, 900);
        if !plain && sim.random.chance(0.05) {
            delay = sim.random.between(1_000, 60_000);
            // A relay that copies late may say so; what was a dead letter does.
            if input == Input::VpnSessions && sim.random.chance(0.5) {
                let source = (at + sim.random.between(0, 2_000)).to_string().into_bytes();
                let relayed = (HEADER_SOURCE_TIMESTAMP.to_owned(), Some(source));
                let again = (HEADER_REPLAYED.to_owned(), Some(b"letters/0/1".to_vec()));
                message.headers.push(if sim.random.chance(0.8) { relayed } else { again });
            }
        }
        if !plain && sim.random.chance(0.05) {
            let again = at + sim.random.between(0, 60_000);
            self.push(again, input, partition, message.clone());
        }
        self.push(at + delay, input, partition, message);
    }

    fn say_vpn(&mut self, sim: &mut Sim, device: usize, at: i64, event: vpn::Event) {
        let message = v1::VpnEvent { occurred_at: proto(at), event: Some(event) };
        self.say(sim, device, at, Input::VpnSessions, Some(message.encode_to_vec()));
    }

    /// Tells again of the sessions of a device that have leases, until nobody does.
    fn tell_again(&mut self, sim: &mut Sim, device: usize) {
        let sessions = &mut self.devices[device].sessions;
        let due = sessions
            .iter()
            .position(|session| session.lease_ms.is_some() && session.next_told <= sim.now);
        let Some(due) = due else { return };
        let session = &mut sessions[due];
        let at = session.next_told;
        session.next_told += session.lease_ms.unwrap_or(0) / 3;
        let told = session.opened();
        // Nobody tells of it any more, and no close comes.
        if sim.random.chance(0.08) {
            sessions.remove(due);
        }
        self.say_vpn(sim, device, at, told);
    }

    /// Everything that happens until now.
    pub fn generate(&mut self, sim: &mut Sim) {
        for device in 0..self.devices.len() {
            while self.devices[device].next_poll <= sim.now {
                self.poll(sim, device);
            }
            while !self.devices[device].plain && self.devices[device].next_event <= sim.now {
                let at = self.devices[device].next_event;
                self.devices[device].next_event += sim.random.between(500, 60_000);
                self.event(sim, device, at);
            }
            self.tell_again(sim, device);
        }
        self.poll_steadily(sim.now);
        for index in 0..self.instances.len() {
            self.instance(sim, index);
        }
        if self.shape.rich && self.next_scope_event <= sim.now {
            let at = self.next_scope_event;
            let longest = if self.shape.one_fleet { 12_000 } else { 90_000 };
            self.next_scope_event += sim.random.between(longest / 18, longest);
            self.scope_event(sim, at);
        }
        if self.shape.bad_records && self.next_bad <= sim.now {
            let at = self.next_bad;
            self.next_bad += sim.random.between(2_000, 40_000);
            self.bad(sim, at);
        }
    }

    fn poll(&mut self, sim: &mut Sim, index: usize) {
        let device = &mut self.devices[index];
        let at = device.next_poll;
        let interval_ms = device.interval_ms;
        let wait = match sim.random.below(20) {
            0 => interval_ms * sim.random.between(2, 6),
            1 => sim.random.between(1, 2_000),
            // Just before or after the deadline.
            2 => interval_ms.max(5_000) * 3 / 2 + sim.random.between(0, 8_000),
            _ => interval_ms * sim.random.between(50, 149) / 100,
        };
        let mut wait = wait.max(1);
        if self.shape.herd && device.plain {
            match self.herd_waits.get(device.polls) {
                Some(same) => wait = *same,
                None => self.herd_waits.push(wait),
            }
        }
        device.polls += 1;
        device.next_poll = at + wait;
        let carried = device.carries.then_some(interval_ms);
        // A device's clock may be wrong, if it is not a plain one.
        let ahead = !device.plain && sim.random.chance(0.02);
        let occurred = if ahead { at + sim.random.between(0, 3_600_000) } else { at };
        let value = v1::Heartbeat {
            occurred_at: proto(occurred),
            poll_interval: carried.and_then(duration),
            going_away: !device.plain && sim.random.chance(0.02),
        };
        self.say(sim, index, at, Input::Heartbeats, Some(value.encode_to_vec()));
    }

    fn poll_steadily(&mut self, now: i64) {
        let Some(Steady { id, partition, every_ms, next_poll, until }) = &mut self.steady else {
            return;
        };
        let mut polls = Vec::new();
        while *next_poll <= now.min(*until) {
            let at = *next_poll;
            let interval = duration(STEADY_INTERVAL_MS);
            let value = v1::Heartbeat {
                occurred_at: proto(at),
                poll_interval: interval,
                ..Default::default()
            };
            let mut message = Message::of(Some(id), value.encode_to_vec());
            message.stamp = self.shape.create_time.then_some(at);
            polls.push((at, *partition, message));
            *next_poll += *every_ms;
        }
        for (at, partition, message) in polls {
            self.push(at, Input::Heartbeats, partition, message);
        }
    }

    fn event(&mut self, sim: &mut Sim, index: usize, at: i64) {
        let instances: Vec<String> = self.instances.iter().map(|i| i.name.clone()).collect();
        let device = &mut self.devices[index];
        let kind = sim.random.below(28);
        let reason = sim.random.between(0, 4) as i32;
        let one_fleet = self.shape.one_fleet;
        let membership = |sim: &mut Sim| {
            let stays = one_fleet && sim.random.chance(0.8);
            let fleet = if stays { FLEETS[1] } else { *sim.random.pick(&FLEETS) }.to_owned();
            let organization = (*sim.random.pick(&ORGANIZATIONS)).to_owned();
            (fleet, organization)
        };
        use lifecycle::Event as E;
        let event = match kind {
            0..=9 => {
                let close = !device.sessions.is_empty() && sim.random.chance(0.6);
                let event = if close {
                    let which = sim.random.below(device.sessions.len());
                    let session = device.sessions.remove(which);
                    let names = session.says_since || sim.random.chance(0.2);
                    vpn::Event::SessionClosed(v1::SessionClosed {
                        instance: session.instance,
                        session: session.name,
                        opened_at: names.then(|| proto(session.opened_at)).flatten(),
                    })
                } else {
                    if instances.is_empty() || device.session_count >= 14 {
                        return;
                    }
                    // Names come again, and some sources have none.
                    let name = match sim.random.below(6) {
                        0 => String::new(),
                        1 | 2 => format!("s{}", sim.random.between(1, 2)),
                        _ => {
                            device.session_count += 1;
                            format!("s{}", device.session_count)
                        }
                    };
                    let lease_ms =
                        sim.random.chance(0.4).then(|| sim.random.between(6_000, 90_000));
                    let session = Session {
                        instance: sim.random.pick(&instances).clone(),
                        name,
                        opened_at: at - sim.random.between(0, 3_000),
                        says_since: sim.random.chance(0.5),
                        lease_ms,
                        next_told: at + lease_ms.unwrap_or(0) / 3,
                    };
                    let opened = session.opened();
                    device.sessions.push(session);
                    opened
                };
                return self.say_vpn(sim, index, at, event);
            }
            10 | 11 => {
                let (fleet, organization) = membership(sim);
                let preregistered = sim.random.chance(0.2);
                E::Registered(v1::Registered { fleet, organization, preregistered })
            }
            12 => E::Provisioned(v1::Provisioned {}),
            13 => E::Activated(v1::Activated {}),
            14 => E::Deactivated(v1::Deactivated {}),
            15 => E::Frozen(v1::Frozen { reason }),
            16 | 17 => E::Unfrozen(v1::Unfrozen { reason }),
            18 | 24 => {
                let (fleet, organization) = membership(sim);
                E::Moved(v1::Moved { fleet, organization })
            }
            19 => match sim.random.below(3) {
                0 => E::ConfigurationStarted(v1::ConfigurationStarted {}),
                1 => E::ConfigurationProgressed(v1::ConfigurationProgressed { percent: 40 }),
                _ => E::ConfigurationFinished(v1::ConfigurationFinished::default()),
            },
            20 => match sim.random.below(3) {
                0 => E::UpdateStarted(v1::UpdateStarted { release: "r".to_owned() }),
                1 => {
                    E::UpdateProgressed(v1::UpdateProgressed { percent: 60, ..Default::default() })
                }
                _ => E::UpdateFinished(v1::UpdateFinished::default()),
            },
            // Intervals change before and after polls, and are told in any order.
            21 | 25..=27 => {
                let poll = sim.random.chance(0.7).then(|| sim.random.between(6_000, 60_000));
                let vpn_enabled = sim.random.chance(0.5).then(|| sim.random.chance(0.5));
                let poll_interval = poll.and_then(duration);
                E::SettingsChanged(v1::SettingsChanged { poll_interval, vpn_enabled })
            }
            22 if sim.random.chance(0.5) => E::Deleted(v1::Deleted {}),
            // A tombstone.
            _ if sim.random.chance(0.3) => {
                return self.say(sim, index, at, Input::Lifecycle, None);
            }
            _ => return,
        };
        let message = v1::LifecycleEvent { occurred_at: proto(at), event: Some(event) };
        self.say(sim, index, at, Input::Lifecycle, Some(message.encode_to_vec()));
    }

    fn instance(&mut self, sim: &mut Sim, index: usize) {
        let instance = &mut self.instances[index];
        if instance.next_alive > sim.now || instance.silent_until > sim.now {
            return;
        }
        let at = instance.next_alive.max(instance.silent_until);
        instance.next_alive = at + instance.lease_ms / 3;
        let name = instance.name.clone();
        let lease = duration(instance.lease_ms);
        if sim.random.chance(0.04) {
            // Silent for a while, and then perhaps another run.
            instance.silent_until = at + sim.random.between(1_000, 3 * instance.lease_ms);
            if sim.random.chance(0.5) {
                instance.started_at = instance.silent_until - sim.random.between(1, 500);
            }
            if sim.random.chance(0.5) {
                let lost = vpn::Event::InstanceLost(v1::InstanceLost { instance: name });
                self.broadcast_vpn(sim, at, lost);
            }
            return;
        }
        let started_at = proto(instance.started_at);
        let alive = v1::InstanceAlive { instance: name, started_at, lease };
        // A server whose clock is slow.
        let occurred_at = proto(at - instance.slow_ms);
        let event = Some(vpn::Event::InstanceAlive(alive));
        let message = v1::VpnEvent { occurred_at, event };
        self.broadcast(sim, at, Input::VpnSessions, message.encode_to_vec());
    }

    fn scope_event(&mut self, sim: &mut Sim, at: i64) {
        use lifecycle::Event as E;
        let known = if self.shape.one_fleet { &FLEETS[1..2] } else { &FLEETS[1..] };
        let fleet = (*sim.random.pick(known)).to_owned();
        let organization = ORGANIZATIONS[1].to_owned();
        let reason = sim.random.between(0, 4) as i32;
        let event = match sim.random.below(9) {
            0 | 1 | 7 | 8 => E::FleetSettingsChanged(v1::FleetSettingsChanged {
                fleet,
                poll_interval: sim
                    .random
                    .chance(0.7)
                    .then(|| sim.random.between(6_000, 60_000))
                    .and_then(duration),
                vpn_enabled: sim.random.chance(0.5).then(|| sim.random.chance(0.5)),
            }),
            2 => E::FleetFrozen(v1::FleetFrozen { fleet, reason }),
            3 | 4 => E::FleetUnfrozen(v1::FleetUnfrozen { fleet, reason }),
            5 => E::OrganizationFrozen(v1::OrganizationFrozen { organization, reason }),
            _ => E::OrganizationUnfrozen(v1::OrganizationUnfrozen { organization, reason: 0 }),
        };
        self.broadcast_lifecycle(sim, at, event);
    }

    fn bad(&mut self, sim: &mut Sim, at: i64) {
        let device = &self.devices[sim.random.below(self.devices.len())];
        let key = Some(device.id.clone().into_bytes());
        let heartbeat = v1::Heartbeat {
            occurred_at: proto(at),
            poll_interval: duration(10_000),
            ..Default::default()
        };
        let good = Some(heartbeat.encode_to_vec());
        let (input, partition, key, value) = match sim.random.below(5) {
            0 => (Input::Heartbeats, device.partition, key, Some(vec![0xff, 0xff])),
            1 => (Input::Heartbeats, device.partition, None, good),
            2 => (Input::VpnSessions, device.partition, key, None),
            3 if self.partitions > 1 => {
                (Input::Heartbeats, (device.partition + 1) % self.partitions, key, good)
            }
            _ => (Input::Lifecycle, device.partition, Some(vec![b'x'; 200]), Some(vec![8, 1])),
        };
        let headers = vec![(BAD.to_owned(), Some(b"1".to_vec()))];
        self.push(at, input, partition, Message { key, value, headers, stamp: None });
    }

    /// Writes what is due; `quiet`: and what is open is closed.
    pub fn write(&mut self, sim: &mut Sim, quiet: bool) {
        while let Some(entry) = self.pending.first_entry() {
            if entry.key().0 > sim.now {
                break;
            }
            let ((at, _), pending) = entry.remove_entry();
            let Pending { input, partition, message } = pending;
            sim.answer_until(at);
            self.close_transactions(sim, at, false);
            let place = (Topic::Input(input), partition);
            if self.shape.transactions
                && !quiet
                && !self.open.contains_key(&(input, partition))
                && sim.random.chance(0.02)
            {
                let id = format!("gateway-{}-{partition}", input.name());
                if let Ok(epoch) = sim.kafka.init_producer(&id, at) {
                    let until = at + sim.random.between(50, 9_000);
                    let commit = sim.random.chance(0.7);
                    self.open.insert((input, partition), (id, epoch, until, commit));
                }
            }
            match self.open.get(&(input, partition)) {
                Some((id, epoch, ..)) if sim.random.chance(0.7) => {
                    let (id, epoch) = (id.clone(), *epoch);
                    if sim.kafka.send(&id, epoch, place, message.clone(), at).is_err() {
                        self.open.remove(&(input, partition));
                        sim.kafka.append(place, message, at);
                    }
                }
                _ => {
                    sim.kafka.append(place, message, at);
                }
            }
        }
        let now = sim.now;
        self.close_transactions(sim, now, quiet);
    }

    fn close_transactions(&mut self, sim: &mut Sim, now: i64, all: bool) {
        self.open.retain(|_, (id, epoch, until, commit)| {
            if now < *until && !all {
                return true;
            }
            let _ = sim.kafka.end_transaction(id, *epoch, *commit, now, 0);
            false
        });
    }

    pub fn absurd(&self) -> BTreeSet<String> {
        self.absurd.clone()
    }

    pub fn is_written(&self) -> bool {
        self.pending.is_empty() && self.open.is_empty()
    }
}
