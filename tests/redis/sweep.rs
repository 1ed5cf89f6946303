//! The sweep of the view against a real Redis (rule V6): whatever was done to
//! the keys behind its back, the view is equal to memory again after one pass,
//! and what is not ours is not touched.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::log::{InProcess, REDIS_AWAY, REDIS_LOST, VIEW_FLUSHED, VIEW_SUPERSEDED};
use crate::support::owner::{Dice, EPOCH, NOW, Owner, PAGE, PARTITION, PASS, device, filled, run};
use crate::support::redis::{HostClock, RedisServer, flush_all, hash, was_scanned};
use device_status::shard::{Timestamp, ViewBody};
use device_status::stream_thread::ports::View;
use redis::Connection;

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
    InProcess::announce(&[VIEW_FLUSHED]);
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
    InProcess::announce(&[VIEW_FLUSHED]);
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
fn a_pass_during_which_many_keys_come_in_is_not_drawn_out() {
    let server = RedisServer::start();
    let mut redis = server.connection();
    let mut owner = filled(&server, 300, false, Duration::from_secs(3));
    owner.turn_until("a pass over nothing", |owner| owner.scans() > 0);
    run(&mut redis, "CONFIG RESETSTAT");
    owner.turn_until("a pass over few keys to be under way", |_| was_scanned(&mut redis));
    let mut more = redis::pipe();
    for n in 0..100_000 {
        more.set(format!("other:{n}"), "").ignore();
    }
    more.exec(&mut redis).unwrap();
    let extra = "ds:device:extra";
    run(&mut redis, &format!("HSET {extra} status online token 3:{EPOCH}:1"));
    owner.turn_until("the device that nobody has to go", |_| hash(&mut redis, extra).is_empty());
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
    InProcess::announce(&[REDIS_LOST, REDIS_AWAY, VIEW_FLUSHED]);
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
    InProcess::announce(&[VIEW_SUPERSEDED, REDIS_LOST]);
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
    InProcess::announce(&[VIEW_SUPERSEDED]);
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
    assert!(!was_scanned(&mut redis));
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
    InProcess::announce(&["maxmemory-policy is allkeys-lru", "the server is a read-only replica"]);
    let master = RedisServer::start();
    let mut redis = master.connection();
    run(&mut redis, "CONFIG SET maxmemory-policy allkeys-lru");
    let owner = filled(&master, 1, false, PASS);
    let warning = owner.view.stats().advice().evicts.clone().unwrap();
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
/// backlog. `cargo test --release --test redis sweep -- --ignored --nocapture`
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
