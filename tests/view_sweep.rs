//! The sweep of the view against a real Redis (rule V6): whatever was done to
//! the keys behind its back, the view is equal to memory again after one pass,
//! and what is not ours is not touched.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use device_status::shard::{
    Connectivity, DeviceId, DeviceView, HeartbeatState, Status, Timestamp, ViewBody, ViewWrite,
};
use device_status::stream_thread::ports::{FoundSubject, View, ViewEvent};
use device_status::view::{RedisView, RedisViewConfig};
use redis::Connection;
use support::redis::{HostClock, RedisServer, flush_all, hash, members, wait_for};

const EPOCH: u64 = 1_700_000_000_000;
const NOW: Timestamp = Timestamp(1_700_000_000_500);
const PARTITION: i32 = 3;
const PASS: Duration = Duration::from_secs(1);
const PAGE: usize = 100;

/// Numbers that look random and are the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

/// What the owner of a partition holds in memory, and its view: the loop's part,
/// played by hand.
struct Owner {
    view: RedisView,
    fleet_members: bool,
    devices: BTreeMap<String, DeviceView>,
    sequence: u64,
    /// The last of the writes, pages left out.
    written: u64,
    acknowledged: u64,
    applied: i64,
    rewrites: usize,
    superseded: bool,
}

impl Owner {
    fn start(url: String, epoch: u64, fleet_members: bool, pass: Duration) -> Owner {
        let prefix = "ds:".to_owned();
        let config = RedisViewConfig { url, prefix, fleet_members, refresh_interval: pass };
        let mut view = RedisView::start(&config, HostClock::start()).unwrap();
        view.take(PARTITION, epoch, 0);
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
        }
    }

    fn number(&mut self, bodies: Vec<ViewBody>) -> Vec<ViewWrite> {
        let numbered = bodies.into_iter().map(|body| {
            self.sequence += 1;
            ViewWrite { sequence: self.sequence, body }
        });
        numbered.collect()
    }

    fn counts(&self) -> BTreeMap<String, [u64; 7]> {
        let mut counts: BTreeMap<String, [u64; 7]> = BTreeMap::new();
        for view in self.devices.values() {
            let fleet = view.fleet.as_deref().unwrap_or_default().to_owned();
            counts.entry(fleet).or_default()[view.status.index()] += 1;
        }
        counts
    }

    /// Writes devices as they are, or their deletion, and all counts.
    fn write(&mut self, names: &[String], before: &BTreeSet<String>) {
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
    fn change(&mut self, dice: &mut Dice, devices: usize, changes: usize) {
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
    fn turn(&mut self) {
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

    fn turn_until(&mut self, what: &str, mut condition: impl FnMut(&mut Owner) -> bool) {
        wait_for(what, || {
            self.turn();
            condition(self)
        });
    }

    fn settle(&mut self) {
        let last = self.written;
        self.turn_until("everything to be acknowledged", |owner| owner.acknowledged >= last);
    }

    /// One pass over all rows and counts.
    fn sweep(&mut self) {
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

    fn compared(&self) -> u64 {
        let stats = self.view.stats();
        let sweep = &stats.sweep;
        [&sweep.same, &sweep.refreshed, &sweep.repaired, &sweep.skipped, &sweep.failed]
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }

    /// Waits for a scan that began after now to come to its end.
    fn scan(&mut self) {
        let scans = |owner: &Owner| owner.view.stats().sweep.scans.load(Ordering::Relaxed);
        let wanted = scans(self) + 2;
        self.turn_until("a whole scan", |owner| scans(owner) >= wanted);
        // What it found last is removed in the turns that follow.
        let removed = |owner: &Owner| owner.view.stats().sweep.removed.load(Ordering::Relaxed);
        let mut before = u64::MAX;
        while before != removed(self) {
            before = removed(self);
            let wanted = scans(self) + 1;
            self.turn_until("another scan", |owner| scans(owner) >= wanted);
        }
    }

    /// How the keyspace differs from memory; the keys in `others` are not ours.
    fn difference(&self, redis: &mut Connection, others: &BTreeSet<String>) -> Vec<String> {
        let mut expected: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
        let mut sets: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, view) in &self.devices {
            let fleet = view.fleet.as_deref().unwrap_or_default();
            let status = view.status.wire_name();
            let fields = [
                ("connectivity", view.connectivity.wire_name().to_owned()),
                ("connectivity_since_ms", view.connectivity_since.0.to_string()),
                ("display", view.status.display(view.connectivity).to_owned()),
                ("fleet", fleet.to_owned()),
                ("heartbeat", view.heartbeat.wire_name().to_owned()),
                ("heartbeat_ms", view.last_heartbeat.map_or(String::new(), |at| at.0.to_string())),
                ("progress", view.progress.map_or(String::new(), |percent| percent.to_string())),
                ("since_ms", view.since.0.to_string()),
                ("status", status.to_owned()),
                ("version", view.version.to_string()),
                ("vpn", if view.vpn_connected { "up" } else { "down" }.to_owned()),
            ];
            let fields = fields.map(|(name, value)| (name.to_owned(), value));
            expected.insert(format!("ds:device:{name}"), fields.to_vec());
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
        found.retain(|key| !others.contains(key) && key != "ds:partition:3");
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

    #[track_caller]
    fn assert_equal(&self, redis: &mut Connection, others: &BTreeSet<String>) {
        let differences = self.difference(redis, others);
        assert!(differences.is_empty(), "{} differences: {differences:#?}", differences.len());
    }
}

fn kind(redis: &mut Connection, key: &str) -> String {
    redis::cmd("TYPE").arg(key).query(redis).unwrap()
}

fn id(name: &str) -> DeviceId {
    DeviceId::from_key(name.as_bytes()).unwrap()
}

fn device(name: &str, dice: &mut Dice, version: u64) -> DeviceView {
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
        fleet: [None, Some("blue".into()), Some("a:b".into())][dice.roll(3)].clone(),
        previous_fleet: None,
        version,
        changed: false,
    }
}

/// An owner whose partition has devices, all of them written.
fn filled(server: &RedisServer, devices: usize, fleet_members: bool, pass: Duration) -> Owner {
    let mut owner = Owner::start(server.url(), EPOCH, fleet_members, pass);
    let mut dice = Dice(7);
    for number in 0..devices {
        let name = format!("d{number}");
        owner.devices.insert(name.clone(), device(&name, &mut dice, 1));
    }
    let names: Vec<String> = owner.devices.keys().cloned().collect();
    owner.write(&names, &BTreeSet::new());
    owner.settle();
    owner
}

fn run(redis: &mut Connection, words: &str) {
    let mut words = words.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    for word in words {
        command.arg(word);
    }
    command.exec(redis).unwrap();
}

#[test]
fn whatever_was_done_to_keys_is_undone_within_a_pass() {
    let server = RedisServer::start();
    let mut redis = server.connection();
    let mut owner = filled(&server, 500, true, PASS);
    owner.assert_equal(&mut redis, &BTreeSet::new());
    owner.sweep();
    let stats = owner.view.stats();
    assert_eq!(stats.sweep.same.load(Ordering::Relaxed), 503, "nothing differs at first");

    // Not ours: other partitions, other prefixes, keys without a token.
    let others = [
        format!("HSET ds:device:theirs status online token 4:{EPOCH}:1"),
        format!("HSET other:device:x status online token 3:{EPOCH}:1"),
        "HSET ds:device:nobodys status online".to_owned(),
        "SET ds:device:text hello".to_owned(),
        format!("HSET ds:fleet:blue:4 online 1 token 4:{EPOCH}:1"),
        "SADD ds:fleet:blue:4:members:online theirs".to_owned(),
        "SET ds:something else".to_owned(),
        format!("HSET ds:partition:4 epoch {EPOCH} applied 0 sequence 0 time_ms 0"),
    ];
    others.iter().for_each(|command| run(&mut redis, command));
    let others: BTreeSet<String> =
        others.iter().map(|command| command.split(' ').nth(1).unwrap().to_owned()).collect();
    let dump = |redis: &mut Connection| -> Vec<Vec<u8>> {
        others.iter().map(|key| redis::cmd("DUMP").arg(key).query(redis).unwrap()).collect()
    };
    let untouched = dump(&mut redis);

    let mut dice = Dice(11);
    for round in 0..3_u64 {
        for n in 0..120 {
            let key = format!("ds:device:d{}", dice.roll(500));
            let command = match dice.roll(9) {
                0 => format!("HSET {key} status frozen"),
                1 => format!("DEL {key}"),
                2 => format!("SET {key} text"),
                3 => format!("HSET {key} extra x"),
                4 => format!("HDEL {key} token"),
                5 => format!("HSET {key} token 3:{}:{n} version 0", EPOCH + 1_000),
                6 => format!("HSET {key} token 3:{EPOCH}:999999999 version 0"),
                7 => format!("HSET {key} token 9:{}:1 fleet elsewhere", EPOCH * 2),
                _ => format!("HSET ds:device:extra{n} status online token 3:{EPOCH}:{n}"),
            };
            // A key that is a text by now takes no fields.
            let mut words = command.split(' ');
            let mut command = redis::cmd(words.next().unwrap());
            words.for_each(|word| {
                command.arg(word);
            });
            let _: Result<(), _> = command.exec(&mut redis);
        }
        run(&mut redis, "HSET ds:fleet:blue:3 online 77");
        run(&mut redis, "DEL ds:fleet::3");
        run(&mut redis, &format!("HSET ds:fleet:gone:3 online 7 token 3:{EPOCH}:7"));
        run(&mut redis, "SADD ds:fleet:blue:3:members:online never-heard-of d1 d2 d3");
        run(&mut redis, "SADD ds:fleet:gone:3:members:online d5 d6");
        run(&mut redis, "DEL ds:fleet:a:b:3:members:offline");
        run(&mut redis, "SET ds:fleet:blue:3:members:frozen text");
        assert!(owner.difference(&mut redis, &others).len() > 50);
        owner.sweep();
        owner.scan();
        owner.assert_equal(&mut redis, &others);
        assert_eq!(dump(&mut redis), untouched, "round {round}");
    }
    let count = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    assert!(count(&stats.sweep.repaired) > 200 && count(&stats.sweep.removed) > 30);
    assert_eq!((count(&stats.rewrites), count(&stats.errors)), (0, 0));
    assert_eq!(count(&stats.sweep.failed), 0);
}

#[test]
fn a_view_flushed_under_writes_is_equal_again() {
    let server = RedisServer::start();
    let mut redis = server.connection();
    let mut owner = filled(&server, 3_000, true, PASS);
    let mut dice = Dice(3);
    for round in 0..60 {
        owner.change(&mut dice, 3_000, 200);
        owner.turn();
        if round % 20 == 10 {
            flush_all(&mut redis);
        }
        if round % 10 == 5 {
            owner.sweep();
        }
    }
    owner.turn_until("the loss to be noticed", |owner| owner.rewrites > 0);
    owner.settle();
    let mut last = Vec::new();
    for _ in 0..5 {
        owner.sweep();
        owner.settle();
        last = owner.difference(&mut redis, &BTreeSet::new());
    }
    assert!(last.is_empty(), "{last:#?}");
}

#[test]
fn devices_that_come_back_with_an_old_backup_go_again() {
    let server = RedisServer::start();
    let mut redis = server.connection();
    // A scan only once an hour: it is the loss that starts one.
    let mut owner = filled(&server, 400, true, Duration::from_secs(3_600));
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut redis).unwrap();
    let backup: Vec<(String, Vec<u8>)> = keys
        .into_iter()
        .map(|key| {
            let dump = redis::cmd("DUMP").arg(&key).query(&mut redis).unwrap();
            (key, dump)
        })
        .collect();
    let fleets: BTreeSet<String> = owner.counts().into_keys().collect();
    let gone: Vec<String> = (0..150).map(|n| format!("d{n}")).collect();
    for name in &gone {
        owner.devices.remove(name);
    }
    owner.devices.retain(|_, view| view.fleet.as_deref() != Some("a:b"));
    owner.write(&gone, &fleets);
    owner.settle();
    flush_all(&mut redis);
    for (key, dump) in backup {
        redis::cmd("RESTORE").arg(key).arg(0).arg(dump).exec(&mut redis).unwrap();
    }
    owner.turn_until("the loss to be noticed", |owner| owner.rewrites > 0);
    owner.settle();
    owner.turn_until("the view to be equal to memory", |owner| {
        owner.difference(&mut redis, &BTreeSet::new()).is_empty()
    });
}

#[test]
fn the_heartbeat_is_brought_up_to_date_and_no_hint_goes_out() {
    let server = RedisServer::start();
    let mut redis = server.connection();
    let mut listener = server.connection();
    listener.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut hints = listener.as_pubsub();
    hints.subscribe("ds:changes").unwrap();
    let mut owner = filled(&server, 10, false, PASS);
    owner.devices.get_mut("d1").unwrap().last_heartbeat = Some(Timestamp(123_456));
    owner.sweep();
    owner.assert_equal(&mut redis, &BTreeSet::new());
    let stats = owner.view.stats();
    assert_eq!(stats.sweep.refreshed.load(Ordering::Relaxed), 1);
    assert_eq!(stats.sweep.repaired.load(Ordering::Relaxed), 0);
    assert!(hints.get_message().is_err());
}

#[test]
fn a_page_gives_way_to_writes_made_after_it() {
    let mut server = RedisServer::start();
    let mut owner = filled(&server, 10, false, PASS);
    let fleets = BTreeSet::new();
    // Taken before the write, compared after it.
    let old = ViewBody::Device(Box::new(owner.devices["d1"].clone()));
    let gone = ViewBody::Device(Box::new(owner.devices["d2"].clone()));
    let page = owner.number(vec![old, gone]);
    owner.devices.insert("d1".to_owned(), device("d1", &mut Dice(99), 2));
    owner.devices.remove("d2");
    owner.write(&["d1".to_owned(), "d2".to_owned()], &fleets);
    owner.settle();
    let before = owner.compared();
    owner.view.sweep(PARTITION, page.clone());
    owner.turn_until("the page", |owner| owner.compared() == before + 2);
    owner.assert_equal(&mut server.connection(), &BTreeSet::new());
    assert_eq!(owner.view.stats().sweep.skipped.load(Ordering::Relaxed), 2);
    // And what waits to be written is not compared at all: nor is anything
    // while the marker is not seen to be ours.
    server.stop();
    owner.view.sweep(PARTITION, page);
    owner.write(&["d1".to_owned()], &fleets);
    server.restart();
    owner.turn_until("the loss to be noticed", |owner| owner.rewrites > 0);
    owner.settle();
    owner.assert_equal(&mut server.connection(), &BTreeSet::new());
}

/// Passes bytes on to a server, unless it is told to hold them back.
struct Sluice {
    port: u16,
    shut: Arc<AtomicBool>,
}

impl Sluice {
    fn before(server: &RedisServer) -> Sluice {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shut = Arc::new(AtomicBool::new(false));
        let (target, gate) = (server.port(), shut.clone());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(("127.0.0.1", target)))
                else {
                    return;
                };
                let (from_client, to_server) = (client.try_clone().unwrap(), server.try_clone());
                let gate = gate.clone();
                std::thread::spawn(move || pass(from_client, to_server.unwrap(), &gate));
                let open = AtomicBool::new(false);
                std::thread::spawn(move || pass(server, client, &open));
            }
        });
        Sluice { port, shut }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, shut: &AtomicBool) {
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        while shut.load(Ordering::Relaxed) {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        if to.write_all(&bytes[..read]).is_err() {
            return;
        }
    }
}

#[test]
fn what_a_paused_owner_still_had_to_say_is_refused() {
    let server = RedisServer::start();
    let mut redis = server.connection();
    let sluice = Sluice::before(&server);
    let url = format!("redis://127.0.0.1:{}", sluice.port);
    let mut old = Owner::start(url, EPOCH, true, PASS);
    let mut dice = Dice(5);
    for number in 0..300 {
        let name = format!("d{number}");
        old.devices.insert(name.clone(), device(&name, &mut dice, 1));
    }
    let names: Vec<String> = old.devices.keys().cloned().collect();
    old.write(&names, &BTreeSet::new());
    old.settle();

    // It falls asleep with writes, pages and removals on their way.
    sluice.shut.store(true, Ordering::Relaxed);
    let asleep = old.devices.clone();
    old.change(&mut dice, 300, 100);
    let bodies = asleep.values().map(|view| ViewBody::Device(Box::new(view.clone()))).collect();
    let page = old.number(bodies);
    old.view.sweep(PARTITION, page);

    let mut new = Owner::start(server.url(), EPOCH + 1, true, PASS);
    new.devices = asleep;
    for _ in 0..10 {
        new.change(&mut dice, 300, 100);
    }
    let names: Vec<String> = (0..300).map(|n| format!("d{n}")).collect();
    new.write(&names, &BTreeSet::new());
    new.settle();
    new.scan();
    new.assert_equal(&mut redis, &BTreeSet::new());

    sluice.shut.store(false, Ordering::Relaxed);
    old.turn_until("the old owner to find out", |old| old.superseded);
    new.assert_equal(&mut redis, &BTreeSet::new());
    new.sweep();
    assert_eq!(new.view.stats().sweep.repaired.load(Ordering::Relaxed), 0);
}

#[test]
fn a_page_of_an_owner_that_does_not_know_of_its_successor_changes_nothing() {
    let server = RedisServer::start();
    let mut redis = server.connection();
    let mut old = filled(&server, 200, true, PASS);
    let mut new = Owner::start(server.url(), EPOCH + 1, true, PASS);
    new.devices = old.devices.clone();
    let names: Vec<String> = new.devices.keys().cloned().collect();
    for (name, view) in &mut new.devices {
        *view = device(name, &mut Dice(view.version + name.len() as u64), 2);
    }
    new.write(&names, &BTreeSet::from(["".into(), "blue".into(), "a:b".into()]));
    new.settle();
    let devices = old.devices.values().take(PAGE);
    let page = devices.map(|view| ViewBody::Device(Box::new(view.clone()))).collect();
    let page = old.number(page);
    old.view.sweep(PARTITION, page);
    old.turn_until("the page", |old| old.compared() == PAGE as u64);
    new.assert_equal(&mut redis, &BTreeSet::new());
    assert_eq!(old.view.stats().sweep.repaired.load(Ordering::Relaxed), 0);
    old.turn_until("the old owner to find out", |old| old.superseded);
}

#[test]
fn switched_off_nothing_is_scanned_and_leftovers_stay() {
    let server = RedisServer::start();
    let mut redis = server.connection();
    let mut owner = filled(&server, 20, false, Duration::ZERO);
    run(&mut redis, &format!("HSET ds:device:extra status online token 3:{EPOCH}:1"));
    run(&mut redis, "CONFIG RESETSTAT");
    let started = hash(&mut redis, "ds:partition:3")["time_ms"].clone();
    owner.turn_until("the marker to be looked after", |_| {
        hash(&mut redis, "ds:partition:3")["time_ms"] != started
    });
    assert_eq!(hash(&mut redis, "ds:device:extra").len(), 2);
    let calls: String = redis::cmd("INFO").arg("commandstats").query(&mut redis).unwrap();
    assert!(!calls.contains("cmdstat_scan:"), "{calls}");
}

#[test]
fn sets_left_over_from_when_members_were_kept_go() {
    let server = RedisServer::start();
    let mut redis = server.connection();
    drop(filled(&server, 100, true, PASS));
    let mut owner = Owner::start(server.url(), EPOCH + 1, false, PASS);
    let mut dice = Dice(7);
    for number in 0..100 {
        let name = format!("d{number}");
        owner.devices.insert(name.clone(), device(&name, &mut dice, 1));
    }
    let names: Vec<String> = owner.devices.keys().cloned().collect();
    owner.write(&names, &BTreeSet::new());
    owner.settle();
    owner.scan();
    owner.assert_equal(&mut redis, &BTreeSet::new());
}

#[test]
fn a_server_that_evicts_is_warned_of_and_a_replica_is_no_server_to_write_to() {
    let master = RedisServer::start();
    let mut redis = master.connection();
    run(&mut redis, "CONFIG SET maxmemory-policy allkeys-lru");
    let owner = filled(&master, 1, false, PASS);
    let warning = owner.view.stats().advice().warning.clone().unwrap();
    assert!(warning.contains("allkeys-lru") && warning.contains("noeviction"), "{warning}");

    let replica = RedisServer::start();
    run(&mut replica.connection(), &format!("REPLICAOF 127.0.0.1 {}", master.port()));
    let mut owner = Owner::start(replica.url(), EPOCH + 1, false, PASS);
    owner.turn_until("the complaint", |owner| owner.view.stats().advice().trouble.is_some());
    let trouble = owner.view.stats().advice().trouble.clone().unwrap();
    assert!(trouble.contains(&format!("read-only replica of 127.0.0.1:{}", master.port())));
    // Promoted, it is taken.
    run(&mut replica.connection(), "REPLICAOF NO ONE");
    owner.turn_until("the connection", |owner| owner.view.stats().advice().trouble.is_none());
}

/// How long the loop's calls take at worst while a long outage fills the
/// backlog. `cargo test --release --test view_sweep -- --ignored --nocapture`
#[test]
#[ignore = "measures"]
fn measure_what_a_write_costs_the_loop() {
    let server = RedisServer::start();
    let mut owner = Owner::start(server.url(), EPOCH, false, Duration::ZERO);
    drop(server);
    let clock = HostClock::start();
    let mut dice = Dice(1);
    let (mut worst, mut sum) = ([0_u128; 8], 0);
    let batches = 1_000;
    for batch in 0..batches {
        let bodies = (0..1_000)
            .map(|n| {
                let name = format!("{:032x}", batch * 1_000 + n);
                ViewBody::Device(Box::new(device(&name, &mut dice, 1)))
            })
            .collect();
        let writes = owner.number(bodies);
        let took = clock.micros(|| owner.view.write(PARTITION, writes, Some(batch), NOW));
        sum += took;
        if took > worst[0] {
            worst[0] = took;
            worst.sort_unstable();
        }
    }
    let released = clock.micros(|| owner.view.release(PARTITION));
    println!("1,000 rows: {} us on average, {worst:?} us at worst", sum / batches as u128);
    println!("releasing a million rows: {released} us");
}
