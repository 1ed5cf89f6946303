//! The owner of a partition, played by hand: what it holds in memory, its view,
//! and how a Redis differs from it. It knows nothing of how the view is written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use device_status::config::Redis;
use device_status::shard::{
    Connectivity, DeviceId, DeviceView, HeartbeatState, Status, Timestamp, UpdateOutcome,
    UpdatePhase, ViewBody, ViewWrite,
};
use device_status::stream_thread::ports::{FoundSubject, View, ViewEvent};
use device_status::view::RedisView;
use device_status::view::claim::Group;
use redis::{Connection, ConnectionLike};

use super::log::InProcess;
use super::redis::{HostClock, RedisServer, group, hash, members, wait_for, wait_for_some};

pub const EPOCH: u64 = 1_700_000_000_000;
pub const NOW: Timestamp = Timestamp(1_700_000_000_500);
pub const PARTITION: i32 = 3;
pub const PASS: Duration = Duration::from_secs(1);
pub const PAGE: usize = 100;

/// Numbers that look random and are the same in each run.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

/// What the owner of a partition holds in memory, and its view: the loop's part,
/// played by hand.
pub struct Owner {
    pub view: RedisView,
    pub fleet_members: bool,
    pub devices: BTreeMap<String, DeviceView>,
    pub sequence: u64,
    /// The last of the writes, pages left out.
    pub written: u64,
    pub acknowledged: u64,
    pub applied: i64,
    pub rewrites: usize,
    pub superseded: bool,
    /// Dropped after the view.
    _log: InProcess,
}

impl Owner {
    /// An owner that has taken its partition.
    pub fn start(url: String, epoch: u64, fleet_members: bool, pass: Duration) -> Owner {
        let config = Redis { url, fleet_members, refresh_interval: pass, ..Redis::default() };
        Owner::start_with(config, epoch)
    }

    /// The same, with any configuration.
    pub fn start_with(config: Redis, epoch: u64) -> Owner {
        Owner::start_with_applied(config, epoch, 0)
    }

    /// One that trusts what the last owner's marker said.
    pub fn start_with_applied(config: Redis, epoch: u64, applied: i64) -> Owner {
        Owner::start_as(&group(), &config, epoch, applied)
    }

    /// The same, of any group.
    pub fn start_as(group: &Group, config: &Redis, epoch: u64, applied: i64) -> Owner {
        let fleet_members = config.fleet_members;
        let log = InProcess::watch();
        let mut view =
            RedisView::start(config, group, HostClock::start(), &Arc::default(), true).unwrap();
        view.take(PARTITION, epoch, applied);
        Owner {
            view,
            fleet_members,
            devices: BTreeMap::new(),
            sequence: 0,
            written: 0,
            acknowledged: 0,
            applied: 0,
            rewrites: 0,
            superseded: false,
            _log: log,
        }
    }

    /// What the markers that a new owner asks for say that is applied.
    pub fn asked_marker(config: &Redis) -> i64 {
        let mut view =
            RedisView::start(config, &group(), HostClock::start(), &Arc::default(), true).unwrap();
        view.ask_marker(PARTITION);
        let mut events = Vec::new();
        wait_for_some("the marker", || {
            view.poll(&mut events);
            events.iter().find_map(|event| match event {
                ViewEvent::Marker(_, marker) => Some(marker.map_or(0, |marker| marker.applied)),
                _ => None,
            })
        })
    }

    /// Gives it so many devices, and waits until all are written.
    pub fn fill(&mut self, devices: usize) {
        let mut dice = Dice(7);
        for number in 0..devices {
            let name = format!("d{number}");
            self.devices.insert(name.clone(), device(&name, &mut dice, 1));
        }
        let names: Vec<String> = self.devices.keys().cloned().collect();
        self.write(&names, &BTreeSet::new());
        self.settle();
    }

    /// The other group that it says the keys belong to.
    pub fn other_group(&self) -> Option<String> {
        self.view.stats().advice().other_group.clone()
    }

    pub fn number(&mut self, bodies: Vec<ViewBody>) -> Vec<ViewWrite> {
        let numbered = bodies.into_iter().map(|body| {
            self.sequence += 1;
            ViewWrite { sequence: self.sequence, body }
        });
        numbered.collect()
    }

    pub fn counts(&self) -> BTreeMap<String, [u64; 7]> {
        let mut counts: BTreeMap<String, [u64; 7]> = BTreeMap::new();
        for view in self.devices.values() {
            let fleet = view.fleet.as_deref().unwrap_or_default().to_owned();
            counts.entry(fleet).or_default()[view.status.index()] += 1;
        }
        counts
    }

    /// Writes devices as they are, or their deletion, and all counts.
    pub fn write(&mut self, names: &[String], before: &BTreeSet<String>) {
        let mut bodies: Vec<ViewBody> = names
            .iter()
            .map(|name| match self.devices.get(name) {
                Some(view) => ViewBody::Device(Box::new(view.clone())),
                None => ViewBody::DeviceDeleted { device: id(name), fleet: None },
            })
            .collect();
        let counts = self.counts();
        for fleet in before.iter().filter(|fleet| !counts.contains_key(*fleet)) {
            bodies.push(ViewBody::FleetCounts { fleet: fleet.as_str().into(), counts: [0; 7] });
        }
        for (fleet, counts) in counts {
            bodies.push(ViewBody::FleetCounts { fleet: fleet.as_str().into(), counts });
        }
        let writes = self.number(bodies);
        self.written = self.sequence;
        self.applied += 10;
        self.view.write(PARTITION, writes, Some(self.applied), NOW);
    }

    /// Some devices change, come or go.
    pub fn change(&mut self, dice: &mut Dice, devices: usize, changes: usize) {
        let fleets: BTreeSet<String> = self.counts().into_keys().collect();
        let mut names = Vec::new();
        for _ in 0..changes {
            let name = format!("d{}", dice.roll(devices));
            if dice.roll(10) == 0 {
                self.devices.remove(&name);
            } else {
                let version = self.devices.get(&name).map_or(1, |view| view.version + 1);
                self.devices.insert(name.clone(), device(&name, dice, version));
            }
            names.push(name);
        }
        self.write(&names, &fleets);
    }

    /// What the loop does at each turn.
    pub fn turn(&mut self) {
        let mut events = Vec::new();
        self.view.poll(&mut events);
        for event in events {
            match event {
                ViewEvent::Acknowledged { sequence, .. } => self.acknowledged = sequence,
                ViewEvent::RewriteNeeded(_) => {
                    self.rewrites += 1;
                    let names: Vec<String> = self.devices.keys().cloned().collect();
                    self.write(&names, &BTreeSet::new());
                }
                ViewEvent::Superseded(_) => self.superseded = true,
                ViewEvent::Found(partition, mut keys) => {
                    assert_eq!(partition, PARTITION);
                    let counts = self.counts();
                    keys.retain(|key| match &key.subject {
                        FoundSubject::Device(device) => {
                            !self.devices.contains_key(&device.to_string())
                        }
                        FoundSubject::Fleet(fleet) => !counts.contains_key(&**fleet),
                    });
                    self.view.remove(PARTITION, keys);
                }
                ViewEvent::Marker(..) => {}
            }
        }
    }

    pub fn turn_until(&mut self, what: &str, mut condition: impl FnMut(&mut Owner) -> bool) {
        wait_for(what, || {
            self.turn();
            condition(self)
        });
    }

    pub fn settle(&mut self) {
        let last = self.written;
        self.turn_until("everything to be acknowledged", |owner| owner.acknowledged >= last);
    }

    /// One pass over all rows and counts.
    pub fn sweep(&mut self) {
        let mut bodies: Vec<ViewBody> =
            self.devices.values().map(|view| ViewBody::Device(Box::new(view.clone()))).collect();
        let counts = self.counts().into_iter();
        bodies.extend(
            counts.map(|(fleet, counts)| ViewBody::FleetCounts {
                fleet: fleet.as_str().into(),
                counts,
            }),
        );
        let rows = u64::try_from(bodies.len()).unwrap();
        let before = self.compared();
        for page in bodies.chunks(PAGE) {
            let page = self.number(page.to_vec());
            self.turn_until("room for a page", |owner| owner.view.may_sweep());
            self.view.sweep(PARTITION, page);
        }
        self.turn_until("the pass to end", |owner| owner.compared() >= before + rows);
    }

    pub fn compared(&self) -> u64 {
        let stats = self.view.stats();
        let sweep = &stats.sweep;
        [&sweep.same, &sweep.refreshed, &sweep.repaired, &sweep.skipped, &sweep.failed]
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }

    /// How many scans have come to their end.
    pub fn scans(&self) -> u64 {
        self.view.stats().sweep.scans.load(Ordering::Relaxed)
    }

    /// Waits for a scan that began after now to come to its end.
    pub fn scan(&mut self) {
        let wanted = self.scans() + 2;
        self.turn_until("a whole scan", |owner| owner.scans() >= wanted);
        // What it found last is removed in the turns that follow.
        let removed = |owner: &Owner| owner.view.stats().sweep.removed.load(Ordering::Relaxed);
        let mut before = u64::MAX;
        while before != removed(self) {
            before = removed(self);
            let wanted = self.scans() + 1;
            self.turn_until("another scan", |owner| owner.scans() >= wanted);
        }
    }

    /// How the keyspace differs from memory; the keys in `others` are not ours.
    pub fn difference(
        &self,
        redis: &mut dyn ConnectionLike,
        others: &BTreeSet<String>,
    ) -> Vec<String> {
        let mut expected: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
        let mut sets: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, view) in &self.devices {
            let fleet = view.fleet.as_deref().unwrap_or_default();
            let status = view.status.wire_name();
            expected.insert(format!("ds:device:{name}"), fields_of(view));
            if self.fleet_members {
                let key = format!("ds:fleet:{fleet}:{PARTITION}:members:{status}");
                sets.entry(key).or_default().push(name.clone());
            }
        }
        for (fleet, counts) in self.counts() {
            let names = Status::ALL.map(|status| status.wire_name().to_owned());
            let mut fields: Vec<_> =
                names.into_iter().zip(counts.map(|count| count.to_string())).collect();
            fields.sort();
            expected.insert(format!("ds:fleet:{fleet}:{PARTITION}"), fields);
        }
        let mut found: BTreeSet<String> = redis::cmd("KEYS").arg("*").query(redis).unwrap();
        found.retain(|key| !others.contains(key) && key != "ds:partition:3" && key != "ds:owner");
        let mut differences = Vec::new();
        for (key, fields) in expected {
            if !found.remove(&key) {
                differences.push(format!("{key} is missing"));
                continue;
            }
            if kind(redis, &key) != "hash" {
                differences.push(format!("{key} is no hash"));
                continue;
            }
            let mut held = hash(redis, &key);
            let token = held.remove("token").unwrap_or_default();
            let held: Vec<(String, String)> = held.into_iter().collect();
            if held != fields || !token.starts_with("3:") {
                differences.push(format!("{key} is {held:?} {token:?}, not {fields:?}"));
            }
        }
        for (key, mut ids) in sets {
            ids.sort();
            if !found.remove(&key) || kind(redis, &key) != "set" || members(redis, &key) != ids {
                differences.push(format!("{key} has not the members {ids:?}"));
            }
        }
        for key in found {
            let ttl: i64 = redis::cmd("TTL").arg(&key).query(redis).unwrap();
            let zero = |(name, value): (&String, &String)| name == "token" || value == "0";
            let empty = kind(redis, &key) == "hash" && hash(redis, &key).iter().all(zero);
            if ttl < 0 || !empty {
                differences.push(format!("{key} is there, and should not be"));
            }
        }
        differences
    }

    /// The same for very many devices, in pipelines; of everything else only how
    /// many keys there are.
    #[track_caller]
    pub fn assert_devices_equal(&self, redis: &mut Connection) {
        let names: Vec<&String> = self.devices.keys().collect();
        for names in names.chunks(2_000) {
            let mut pipe = redis::pipe();
            for name in names {
                pipe.hgetall(format!("ds:device:{name}"));
            }
            let held: Vec<BTreeMap<String, String>> = pipe.query(redis).unwrap();
            for (name, mut held) in names.iter().zip(held) {
                held.remove("token");
                let held: Vec<(String, String)> = held.into_iter().collect();
                assert_eq!(held, fields_of(&self.devices[*name]), "{name}");
            }
        }
    }

    #[track_caller]
    pub fn assert_equal(&self, redis: &mut dyn ConnectionLike, others: &BTreeSet<String>) {
        let differences = self.difference(redis, others);
        assert!(differences.is_empty(), "{} differences: {differences:#?}", differences.len());
    }
}

/// What the hash of a device holds, besides its token, by name.
fn fields_of(view: &DeviceView) -> Vec<(String, String)> {
    let fields = [
        ("connectivity", view.connectivity.wire_name().to_owned()),
        ("connectivity_since_ms", view.connectivity_since.0.to_string()),
        ("display", view.status.display(view.connectivity).to_owned()),
        ("fleet", view.fleet.as_deref().unwrap_or_default().to_owned()),
        ("heartbeat", view.heartbeat.wire_name().to_owned()),
        ("heartbeat_ms", view.last_heartbeat.map_or(String::new(), |at| at.0.to_string())),
        ("membership_since_ms", view.membership_since.0.to_string()),
        ("progress", view.progress.map_or(String::new(), |percent| percent.to_string())),
        ("release", view.release.as_deref().unwrap_or_default().to_owned()),
        ("since_ms", view.since.0.to_string()),
        ("status", view.status.wire_name().to_owned()),
        ("update_outcome", view.update_outcome.map_or("", |it| it.wire_name()).to_owned()),
        ("update_phase", view.update_phase.map_or("", |it| it.wire_name()).to_owned()),
        ("update_since_ms", view.update_since.map_or(String::new(), |at| at.0.to_string())),
        ("version", view.version.to_string()),
        ("vpn", if view.vpn_connected { "up" } else { "down" }.to_owned()),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

pub fn kind(redis: &mut dyn ConnectionLike, key: &str) -> String {
    redis::cmd("TYPE").arg(key).query(redis).unwrap()
}

pub fn id(name: &str) -> DeviceId {
    DeviceId::from_key(name.as_bytes()).unwrap()
}

pub fn device(name: &str, dice: &mut Dice, version: u64) -> DeviceView {
    let at = |dice: &mut Dice| Timestamp(1_000 + i64::try_from(dice.roll(100_000)).unwrap());
    DeviceView {
        device: id(name),
        status: Status::ALL[dice.roll(7)],
        connectivity: Connectivity::ALL[dice.roll(4)],
        since: at(dice),
        connectivity_since: at(dice),
        heartbeat: HeartbeatState::Online,
        last_heartbeat: (dice.roll(3) > 0).then(|| at(dice)),
        vpn_connected: dice.roll(2) == 0,
        progress: (dice.roll(2) == 0).then_some(40),
        release: (dice.roll(2) == 0).then(|| "v1".into()),
        update_phase: UpdatePhase::ALL.get(dice.roll(4)).copied(),
        update_outcome: UpdateOutcome::ALL.get(dice.roll(5)).copied(),
        update_since: (dice.roll(2) == 0).then(|| at(dice)),
        membership_since: at(dice),
        fleet: [None, Some("blue".into()), Some("a:b".into())][dice.roll(3)].clone(),
        previous_fleet: None,
        version,
        changed: false,
    }
}

/// An owner whose partition has devices, all of them written.
pub fn filled(server: &RedisServer, devices: usize, fleet_members: bool, pass: Duration) -> Owner {
    let refresh_interval = pass;
    filled_with(
        Redis { url: server.url(), fleet_members, refresh_interval, ..Redis::default() },
        devices,
    )
}

/// The same, with any configuration.
pub fn filled_with(config: Redis, devices: usize) -> Owner {
    let mut owner = Owner::start_with(config, EPOCH);
    owner.fill(devices);
    owner
}

pub fn run(redis: &mut dyn ConnectionLike, words: &str) {
    let mut words = words.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    for word in words {
        command.arg(word);
    }
    command.exec(redis).unwrap();
}
