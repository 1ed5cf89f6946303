//! The view on a real Redis Cluster: nodes that die one by one, with and without
//! what was last written to them, slots that move, a node that is emptied.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use crate::support::log::{InProcess, REDIS_LOST, VIEW_FLUSHED};
use crate::support::owner::{Dice, EPOCH, Owner, PARTITION, PASS, filled_with, run};
use crate::support::redis::{PATIENCE, hash, read_by, wait_for, was_scanned};
use crate::support::redis_cluster::RedisCluster;
use device_status::cli::{get, watch};
use device_status::config::Redis;

const DEVICES: usize = 400;

fn config(cluster: &RedisCluster) -> Redis {
    Redis { url: cluster.url(), refresh_interval: PASS, ..Redis::default() }
}

/// Traffic, until a condition holds.
fn flow_until(owner: &mut Owner, what: &str, mut condition: impl FnMut(&mut Owner) -> bool) {
    let mut dice = Dice(17);
    owner.turn_until(what, |owner| {
        owner.change(&mut dice, DEVICES, 5);
        condition(owner)
    });
}

/// The markers of the partition besides its own, which are no device's.
fn witnesses(cluster: &RedisCluster) -> BTreeSet<String> {
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg(format!("ds:partition:{PARTITION}:*"))
        .query(&mut cluster.connection())
        .unwrap();
    keys.into_iter().collect()
}

#[track_caller]
fn assert_equal(owner: &mut Owner, cluster: &RedisCluster) {
    owner.settle();
    owner.assert_equal(&mut cluster.connection(), &witnesses(cluster));
}

#[test]
fn a_cluster_holds_the_view_and_is_read_by_get_and_watch() {
    InProcess::announce(&[VIEW_FLUSHED]);
    let cluster = RedisCluster::start(3, false);
    let documentation = include_str!("../../docs/redis.md");
    let between = |before: &str| {
        let (_, rest) = documentation.split_once(before).expect("docs/redis.md names the rights");
        rest.split_once('`').unwrap().0.to_owned()
    };
    let (more, reading) = (between("On a cluster it needs `"), between("`watch` need `"));
    let users = [
        format!("writer on >secret {} {more}", between("With ACLs, `run` needs `")),
        format!("reader on >secret {reading} +cluster|slots"),
    ];
    for n in 0..3 {
        for user in &users {
            run(&mut cluster.master(n).connection(), &format!("ACL SETUSER {user}"));
        }
    }
    let as_user = |username: &str| Redis {
        username: username.to_owned(),
        password: "secret".to_owned(),
        ..config(&cluster)
    };
    let redis = as_user("reader");
    let mut owner = filled_with(as_user("writer"), DEVICES);
    assert_equal(&mut owner, &cluster);
    assert_eq!(witnesses(&cluster).len(), 2, "each node has a marker");
    let own = hash(&mut cluster.connection(), "ds:partition:3");
    for witness in witnesses(&cluster) {
        let held = hash(&mut cluster.connection(), &witness);
        assert_eq!((&held["epoch"], &held["applied"]), (&own["epoch"], &own["applied"]));
    }

    // What is edited on any node is repaired, what nobody has is removed.
    let mut connection = cluster.connection();
    let mut dice = Dice(3);
    for n in 0..60 {
        let key = format!("ds:device:d{}", dice.roll(DEVICES));
        let extra = format!("ds:device:extra{n}");
        let token = format!("{PARTITION}:{EPOCH}:1");
        match dice.roll(3) {
            0 => run(&mut connection, &format!("HSET {key} status frozen")),
            1 => run(&mut connection, &format!("DEL {key}")),
            _ => run(&mut connection, &format!("HSET {extra} status online token {token}")),
        }
    }
    owner.sweep();
    owner.scan();
    assert_equal(&mut owner, &cluster);
    assert_eq!(owner.view.stats().errors.load(Ordering::Relaxed), 0);

    // One node is emptied under traffic: its marker tells.
    for n in 0..3 {
        let rewrites = owner.rewrites;
        run(&mut cluster.master(n).connection(), "FLUSHALL");
        flow_until(&mut owner, "the loss to be noticed", |owner| owner.rewrites > rewrites);
        assert_equal(&mut owner, &cluster);
    }

    // The readers.
    let config = read_by(redis, 4);
    let mut out = Vec::new();
    let fleet = get::Args { ids: vec![], fleet: Some("blue".to_owned()), max_age: None };
    get::get(&fleet, &config, true, false, &mut out).unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(shown["devices"], owner.counts()["blue"].iter().sum::<u64>());
    let id = owner.devices.keys().next().unwrap().clone();
    let (lines, received) = sync_channel(16);
    let watched = id.clone();
    std::thread::spawn(move || {
        let args = watch::Args { ids: vec![watched] };
        watch::watch(&args, &config, true, false, &mut Lines(lines, Vec::new()))
    });
    let next = || -> serde_json::Value {
        serde_json::from_str(&received.recv_timeout(PATIENCE).unwrap()).unwrap()
    };
    assert_eq!(next()["version"], owner.devices[&id].version);
    let view = owner.devices.get_mut(&id).unwrap();
    view.version += 1_000;
    view.changed = true;
    owner.write(std::slice::from_ref(&id), &BTreeSet::new());
    assert_eq!(next()["version"], owner.devices[&id].version);
}

struct Lines(std::sync::mpsc::SyncSender<String>, Vec<u8>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.1.extend_from_slice(bytes);
        while let Some(end) = self.1.iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8(self.1.drain(..=end).collect()).unwrap();
            self.0.send(line).map_err(|_| std::io::Error::from(std::io::ErrorKind::BrokenPipe))?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn nodes_killed_one_by_one_under_traffic_lose_nothing_for_good() {
    InProcess::announce(&[REDIS_LOST, VIEW_FLUSHED]);
    let mut cluster = RedisCluster::start(3, true);
    let mut owner = filled_with(config(&cluster), DEVICES);
    assert_equal(&mut owner, &cluster);
    for n in 0..3 {
        // The first two lose what was last written to them; that is all noticed
        // by their own markers, wherever the partition's own is.
        if n < 2 {
            cluster.cut_off_replica(n);
        }
        let before = owner.acknowledged;
        flow_until(&mut owner, "writes that only the master has", |owner| {
            owner.acknowledged > before + 200
        });
        let rewrites = owner.rewrites;
        cluster.kill_master(n);
        let stats = owner.view.stats();
        flow_until(&mut owner, "the loss of the node to be noticed", |_| {
            !stats.connected.load(Ordering::Relaxed)
        });
        cluster.wait_for_failover(n);
        flow_until(&mut owner, "writes to be taken again", |owner| {
            stats.connected.load(Ordering::Relaxed) && (n == 2 || owner.rewrites > rewrites)
        });
        assert_equal(&mut owner, &cluster);
    }
}

#[test]
fn slots_that_move_to_a_new_node_are_followed_under_traffic() {
    InProcess::announce(&[VIEW_FLUSHED]);
    let mut cluster = RedisCluster::start(2, false);
    let mut owner = filled_with(config(&cluster), DEVICES);
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mover = {
        let stop = stop.clone();
        std::thread::spawn(move || {
            cluster.move_slots_to_a_new_master(0..150);
            stop.store(true, Ordering::Relaxed);
            cluster
        })
    };
    flow_until(&mut owner, "the slots to move", |_| stop.load(Ordering::Relaxed));
    let cluster = mover.join().unwrap();
    let before = owner.acknowledged;
    flow_until(&mut owner, "writes to be acknowledged", |owner| owner.acknowledged > before + 500);
    assert_equal(&mut owner, &cluster);
    assert_eq!(owner.rewrites, 0, "nothing was lost");
    // The new node has a marker of its own by now.
    let mut new = cluster.master(2).connection();
    wait_for("a marker on the new node", || {
        let keys: Vec<String> = redis::cmd("KEYS").arg("ds:partition:3*").query(&mut new).unwrap();
        !keys.is_empty()
    });
    run(&mut new, "FLUSHALL");
    flow_until(&mut owner, "the loss to be noticed", |owner| owner.rewrites > 0);
    assert_equal(&mut owner, &cluster);
}

#[test]
fn a_node_that_leaves_while_it_is_scanned_stops_nothing() {
    InProcess::announce(&[REDIS_LOST, VIEW_FLUSHED]);
    let cluster = RedisCluster::start(3, false);
    let redis = Redis { refresh_interval: Duration::from_secs(9), ..config(&cluster) };
    let mut owner = filled_with(redis, DEVICES);
    let mut last = cluster.master(2).connection();
    flow_until(&mut owner, "a scan of the last node", |_| was_scanned(&mut last));
    let before = owner.scans();
    cluster.take_slots_away(2, 1);
    flow_until(&mut owner, "the scan to come to its end", |owner| owner.scans() > before);
    assert_equal(&mut owner, &cluster);
    // Nor does it mislead who asks it first.
    cluster.forget(2);
    let port = |n| cluster.master(n).port();
    let url = format!("redis-cluster://127.0.0.1:{},127.0.0.1:{}", port(2), port(0));
    assert!(Owner::asked_marker(&Redis { url, ..Redis::default() }) > 0);
}

#[test]
fn a_new_owner_on_a_cluster_believes_what_every_node_still_has() {
    InProcess::announce(&[VIEW_FLUSHED]);
    let cluster = RedisCluster::start(3, false);
    let redis = config(&cluster);
    let mut old = filled_with(redis.clone(), DEVICES);
    assert_equal(&mut old, &cluster);
    let applied = old.applied;
    let devices = old.devices.clone();
    assert!(old.view.close(Duration::from_secs(5)));
    let mut new = Owner::start_with_applied(redis.clone(), EPOCH + 1, applied);
    new.devices = devices.clone();
    new.applied = applied;
    let mut dice = Dice(5);
    new.change(&mut dice, DEVICES, 10);
    assert_equal(&mut new, &cluster);
    assert_eq!(new.rewrites, 0, "what was right is not written again");
    let (applied, devices) = (new.applied, new.devices.clone());
    drop(new);
    // A node that was emptied while nobody looked.
    run(&mut cluster.master(1).connection(), "FLUSHALL");
    assert_eq!(Owner::asked_marker(&redis), 0);
    let mut third = Owner::start_with_applied(redis, EPOCH + 2, applied);
    third.devices = devices;
    third.turn_until("the loss to be noticed", |owner| owner.rewrites > 0);
    assert_equal(&mut third, &cluster);
}

#[test]
fn with_a_hash_tag_all_keys_are_on_one_node_and_member_sets_are_kept() {
    InProcess::announce(&[VIEW_FLUSHED]);
    let cluster = RedisCluster::start(3, false);
    let prefix = "{ds}:".to_owned();
    let redis = Redis { prefix, fleet_members: true, ..config(&cluster) };
    let owner = filled_with(redis, 50);
    let mut connection = cluster.connection();
    let mut member = redis::cmd("SISMEMBER");
    let view = &owner.devices["d7"];
    let fleet = view.fleet.as_deref().unwrap_or_default();
    member.arg(format!("{{ds}}:fleet:{fleet}:3:members:{}", view.status.wire_name())).arg("d7");
    assert!(member.query::<bool>(&mut connection).unwrap());
    assert!(witnesses(&cluster).is_empty());
}
