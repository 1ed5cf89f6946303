//! Two groups and one prefix, on real servers (rule V8): the second leaves the
//! keys of the first as they are and says so, and takes them only on purpose.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::support::log::{InProcess, OTHER_GROUP, VIEW_FLUSHED};
use crate::support::owner::{Dice, EPOCH, NOW, Owner, PARTITION, PASS, filled, id, run};
use crate::support::redis::{HostClock, RedisServer, flush_all, group, hash, wait_for};
use crate::support::redis_cluster::RedisCluster;
use crate::support::wait::pause;
use device_status::config::Redis;
use device_status::error::FatalKind;
use device_status::shard::{DeviceView, ViewBody, ViewWrite};
use device_status::stream_thread::ports::{FoundKey, FoundSubject, View, ViewEvent};
use device_status::view::RedisView;
use device_status::view::claim::{Group, claim_at_start};
use device_status::view::read::Reader;
use redis::{Connection, ConnectionLike};

/// Longer than the view waits until it looks again.
const SEVERAL_LOOKS: Duration = Duration::from_secs(12);

/// What is told here, and of what happens to the keys.
const TOLD: &[&str] = &[OTHER_GROUP, VIEW_FLUSHED];

fn others() -> Group {
    Group { partitions: 4, ..Group::named("the-others") }
}

fn config(url: String) -> Redis {
    Redis { url, fleet_members: true, refresh_interval: PASS, ..Redis::default() }
}

/// Every key with what it holds and when it expires.
fn all(redis: &mut Connection) -> BTreeMap<String, (Vec<u8>, bool)> {
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(redis).unwrap();
    let dump = |key: String| {
        let value: Vec<u8> = redis::cmd("DUMP").arg(&key).query(redis).unwrap();
        let ttl: i64 = redis::cmd("PTTL").arg(&key).query(redis).unwrap();
        (key, (value, ttl > 0))
    };
    keys.into_iter().map(dump).collect()
}

fn keys(redis: &mut dyn ConnectionLike, pattern: &str) -> Vec<String> {
    let mut keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query(redis).unwrap();
    keys.sort();
    keys
}

#[test]
fn another_group_changes_no_key_and_says_so() {
    InProcess::announce(TOLD);
    let server = RedisServer::start();
    let mut redis = server.connection();
    let mut first = filled(&server, 60, true, PASS);
    // Something of each kind, a deletion too; then it stands still.
    first.devices.remove("d7");
    first.write(&["d7".to_owned()], &BTreeSet::new());
    first.settle();
    assert!(first.view.close(Duration::from_secs(5)));
    assert_eq!(hash(&mut redis, "ds:owner")["group"], "the-group");
    assert_eq!(hash(&mut redis, "ds:partition:3")["group"], "the-group");
    let before = all(&mut redis);

    // As one that could not ask at its start: everything an owner can do, for a
    // partition that the first has a marker of, with a larger epoch.
    let redis_config = config(server.url());
    let mut second = Owner::start_as(&others(), &redis_config, EPOCH + 1_000, 0);
    second.view.ask_marker(PARTITION);
    // And for one that it has none of.
    second.view.take(1, EPOCH + 1_000, 0);
    let mut dice = Dice(3);
    second.change(&mut dice, 90, 80);
    let page = second.number(vec![]);
    second.view.sweep(PARTITION, page);
    let token = hash(&mut redis, "ds:device:d9")["token"].clone();
    let found = FoundKey { subject: FoundSubject::Device(id("d9")), token: token.into() };
    second.view.remove(PARTITION, vec![found]);
    second.turn_until("it to be told", |owner| owner.other_group().is_some());
    assert_eq!(second.other_group().as_deref(), Some("the-group"));
    let ticks = SEVERAL_LOOKS.as_millis() / 100;
    for _ in 0..ticks {
        second.change(&mut dice, 90, 5);
        second.turn();
        pause(Duration::from_millis(100));
    }
    second.view.release(1);
    assert!(all(&mut redis) == before, "keys of the first have changed");
    assert_eq!((second.acknowledged, second.rewrites), (0, 0));
    let waiting = second.view.backlog();
    assert!(waiting <= 90 + 3, "{waiting} writes wait");

    // A start that can ask is refused; so is the check.
    let fatal = claim_at_start(&redis_config, &others()).unwrap_err();
    assert_eq!(fatal.kind, FatalKind::Unavailable);
    for word in ["the-group", "the-others", "\"ds:\"", "redis.prefix", "--take-view-from"] {
        assert!(fatal.message.contains(word), "{word}: {fatal}");
    }
    let mut reader = Reader::connect(&redis_config).unwrap();
    let checked = reader.check_owner("the-others").unwrap_err();
    assert_eq!(checked.message, fatal.message);
    reader.check_owner("the-group").unwrap();
    assert!(all(&mut redis) == before, "asking changes nothing");
    // Readers are not concerned.
    let read = reader.devices(&["d9".to_owned()], 1).unwrap();
    assert!(read[0].0.is_some());
    // Its own goes on where it was.
    claim_at_start(&redis_config, &group()).unwrap();

    // Once the keys are nobody's, what waited is written.
    flush_all(&mut redis);
    second.turn_until("writing to go on", |owner| owner.other_group().is_none());
    second.settle();
    second.sweep();
    second.assert_equal(&mut redis, &BTreeSet::new());
    assert_eq!(hash(&mut redis, "ds:owner")["group"], "the-others");
}

#[test]
fn after_a_flush_who_had_the_prefix_has_it_again() {
    InProcess::announce(TOLD);
    let server = RedisServer::start();
    let mut redis = server.connection();
    let mut first = filled(&server, 60, true, PASS);
    let mut second = Owner::start_as(&others(), &config(server.url()), EPOCH + 1_000, 0);
    second.change(&mut Dice(3), 90, 80);
    second.turn_until("it to be told", |owner| owner.other_group().is_some());
    // Idle, so that the loss is noticed only when the marker is looked at.
    flush_all(&mut redis);
    first.turn_until("the loss to be noticed", |owner| {
        second.turn();
        assert_eq!(owner.other_group(), None);
        owner.rewrites == 1
    });
    first.settle();
    first.assert_equal(&mut redis, &BTreeSet::new());
    // The second has looked since, and again after it was flushed once more
    // while the first restarts.
    pause(SEVERAL_LOOKS);
    assert_eq!(second.other_group().as_deref(), Some("the-group"));
    assert!(first.view.close(Duration::from_secs(5)));
    flush_all(&mut redis);
    pause(Duration::from_secs(6));
    let mut first = Owner::start_as(&group(), &config(server.url()), EPOCH + 1, 0);
    first.fill(20);
    pause(SEVERAL_LOOKS);
    assert_eq!(first.other_group(), None);
    assert_eq!(second.other_group().as_deref(), Some("the-group"));
    first.assert_equal(&mut redis, &BTreeSet::new());
}

#[test]
fn a_marker_that_names_another_group_ends_writing_until_it_is_gone() {
    InProcess::announce(TOLD);
    let server = RedisServer::start();
    let mut redis = server.connection();
    let mut owner = filled(&server, 30, true, PASS);
    run(&mut redis, "HSET ds:partition:3 group somebody");
    let mut dice = Dice(9);
    owner.turn_until("it to be told", |owner| {
        owner.change(&mut dice, 30, 2);
        owner.other_group().is_some()
    });
    let before = all(&mut redis);
    let ticks = SEVERAL_LOOKS.as_millis() / 100;
    for _ in 0..ticks {
        owner.change(&mut dice, 30, 2);
        owner.turn();
        pause(Duration::from_millis(100));
    }
    assert!(all(&mut redis) == before, "something was written");
    run(&mut redis, "HDEL ds:partition:3 group");
    owner.turn_until("writing to go on", |owner| owner.other_group().is_none());
    owner.settle();
    owner.sweep();
    owner.assert_equal(&mut redis, &BTreeSet::new());
    assert_eq!(owner.rewrites, 0, "nothing was lost");
}

/// The markers alone tell it, wherever they are, and so does the owner alone.
#[test]
fn one_key_that_names_another_group_is_enough() {
    InProcess::announce(TOLD);
    let server = RedisServer::start();
    let mut redis = server.connection();
    for (key, other) in [
        ("ds:owner", "a"),
        ("ds:partition:0", "b"),
        ("ds:partition:100", "c"),
        ("ds:partition:130", "d"),
    ] {
        flush_all(&mut redis);
        // Markers of a group that has no name yet, so that blocks are not empty.
        run(&mut redis, "HSET ds:partition:5 epoch 1 applied 0 sequence 0 time_ms 0");
        run(&mut redis, &format!("HSET {key} group {other} epoch 1"));
        let before = all(&mut redis);
        let fatal = claim_at_start(&config(server.url()), &group()).unwrap_err();
        assert!(fatal.message.contains(&format!("group {other:?}")), "{key}: {fatal}");
        assert!(all(&mut redis) == before, "{key}");
    }
}

#[test]
fn markers_without_a_group_are_ours_and_get_its_name() {
    InProcess::announce(TOLD);
    let server = RedisServer::start();
    let mut redis = server.connection();
    let mut owner = filled(&server, 20, false, PASS);
    run(&mut redis, "HDEL ds:partition:3 group");
    run(&mut redis, "DEL ds:owner");
    owner.write(&["d3".to_owned()], &BTreeSet::new());
    owner.settle();
    assert_eq!(owner.rewrites, 0, "the marker is what was written");
    assert_eq!(hash(&mut redis, "ds:partition:3")["group"], "the-group");
    // What is no hash is nobody's.
    run(&mut redis, "SET ds:owner text");
    claim_at_start(&config(server.url()), &group()).unwrap();
    assert_eq!(hash(&mut redis, "ds:owner")["group"], "the-group");
}

#[test]
fn a_view_is_taken_from_another_group_on_purpose() {
    InProcess::announce(TOLD);
    let server = RedisServer::start();
    let mut redis = server.connection();
    let mut first = filled(&server, 200, true, PASS);
    // More partitions than the second has: their counts must not stay.
    let redis_config = config(server.url());
    let device = DeviceView { device: id("x"), ..first.devices["d3"].clone() };
    let mut more =
        RedisView::start(&redis_config, &group(), HostClock::start(), &Arc::default(), true)
            .unwrap();
    more.take(7, EPOCH, 0);
    let counts = ViewBody::FleetCounts { fleet: "blue".into(), counts: [1; 7] };
    let bodies = [ViewBody::Device(Box::new(device)), counts];
    let writes = bodies.into_iter().zip(1..).map(|(body, sequence)| ViewWrite { sequence, body });
    more.write(7, writes.collect(), Some(5), NOW);
    wait_for("the marker", || {
        hash(&mut redis, "ds:partition:7").get("sequence").is_some_and(|s| s == "2")
    });
    assert!(more.close(Duration::from_secs(5)));

    // From one that is not there, or is another, nothing is taken.
    let from = |name: &str| Group { take_view_from: Some(name.to_owned()), ..others() };
    let fatal = claim_at_start(&redis_config, &from("somebody")).unwrap_err();
    assert!(fatal.message.contains("the-group"), "{fatal}");

    // Its owner has a smaller epoch, as one of another cluster may.
    claim_at_start(&redis_config, &from("the-group")).unwrap();
    let mut second = Owner::start_as(&from("the-group"), &redis_config, EPOCH - 1_000, 0);
    second.fill(50);
    // The first is still there. It notices, and ends.
    let mut dice = Dice(5);
    first.turn_until("the first to notice", |owner| {
        owner.change(&mut dice, 300, 3);
        owner.other_group().is_some()
    });
    assert_eq!(first.other_group().as_deref(), Some("the-others"));
    second.scan();
    second.sweep();
    second.scan();
    second.assert_equal(&mut redis, &BTreeSet::new());
    assert_eq!(keys(&mut redis, "ds:partition:*"), ["ds:partition:3"]);
    assert!(keys(&mut redis, "ds:*:7*").is_empty());
    let before = all(&mut redis);
    for _ in 0..30 {
        first.change(&mut dice, 300, 3);
        first.turn();
        pause(Duration::from_millis(20));
    }
    let mut after = all(&mut redis);
    // Its time moves on.
    after.insert("ds:partition:3".to_owned(), before["ds:partition:3"].clone());
    assert!(after == before, "the first goes on writing");

    // Left on it does nothing, and the first has no way back by itself.
    claim_at_start(&redis_config, &from("the-group")).unwrap();
    claim_at_start(&redis_config, &group()).unwrap_err();
    // While it runs, the second takes nothing back either.
    let back = Group { take_view_from: Some("the-others".to_owned()), ..group() };
    claim_at_start(&redis_config, &back).unwrap();
    second.turn_until("the second to notice", |owner| {
        owner.change(&mut dice, 50, 3);
        owner.other_group().as_deref() == Some("the-group")
    });
    first.turn_until("the first to go on", |owner| owner.other_group().is_none());
    first.settle();
}

#[test]
fn of_two_groups_that_start_at_once_one_has_the_prefix() {
    InProcess::announce(TOLD);
    let server = RedisServer::start();
    let mut redis = server.connection();
    let redis_config = config(server.url());
    let mut won = [0, 0];
    for round in 0..10 {
        flush_all(&mut redis);
        let groups = [group(), others()];
        let mut owners: Vec<Owner> =
            groups.iter().map(|g| Owner::start_as(g, &redis_config, EPOCH + round, 0)).collect();
        let mut dice = Dice(round);
        for owner in &mut owners {
            owner.change(&mut dice, 40, 30);
        }
        wait_for("one to have it and the other to know", || {
            owners.iter_mut().for_each(Owner::turn);
            let told = owners.iter().filter(|owner| owner.other_group().is_some()).count();
            assert!(told < 2, "nobody has it");
            told == 1 && owners.iter().any(|owner| owner.acknowledged >= owner.written)
        });
        let winner = usize::from(owners[0].other_group().is_some());
        won[winner] += 1;
        owners[winner].settle();
        owners[winner].assert_equal(&mut redis, &BTreeSet::new());
        assert_eq!(hash(&mut redis, "ds:owner")["group"], groups[winner].name);
        // None of them may claim the prefix of the next round.
        for owner in owners {
            owner.view.close(Duration::from_secs(5));
        }
    }
    println!("won by the one and by the other: {won:?}");
}

#[test]
fn on_a_cluster_every_node_by_itself_tells_of_the_group() {
    InProcess::announce(TOLD);
    let cluster = RedisCluster::start(3, false);
    let redis_config = Redis { url: cluster.url(), refresh_interval: PASS, ..Redis::default() };
    // A group of one partition.
    let fill = || {
        let mut view =
            RedisView::start(&redis_config, &group(), HostClock::start(), &Arc::default(), true)
                .unwrap();
        view.take(0, EPOCH, 0);
        view.write(0, vec![], Some(10), NOW);
        let mut events: Vec<ViewEvent> = Vec::new();
        wait_for("the markers", || {
            view.poll(&mut events);
            let markers = keys_of_cluster(&cluster, "ds:partition:0*");
            markers.len() == 3
                && markers.iter().all(|key| {
                    hash(&mut cluster.connection(), key).get("applied").is_some_and(|a| a == "10")
                })
        });
        assert!(view.close(Duration::from_secs(5)));
    };
    for spared in 0..3 {
        fill();
        for n in (0..3).filter(|n| *n != spared) {
            run(&mut cluster.master(n).connection(), "FLUSHALL");
        }
        let before = keys_of_cluster(&cluster, "*");
        assert!(!before.is_empty());
        let fatal = claim_at_start(&redis_config, &others()).unwrap_err();
        assert!(fatal.message.contains("the-group"), "{fatal}");
        Reader::connect(&redis_config).unwrap().check_owner("the-others").unwrap_err();
        let mut second = Owner::start_as(&others(), &redis_config, EPOCH + 1_000, 0);
        second.change(&mut Dice(3), 20, 20);
        second.turn_until("it to be told", |owner| owner.other_group().is_some());
        assert_eq!(keys_of_cluster(&cluster, "*"), before);
    }
    // On purpose, whatever node has a marker.
    fill();
    let from = Group { take_view_from: Some("the-group".to_owned()), ..others() };
    claim_at_start(&redis_config, &from).unwrap();
    let left = keys_of_cluster(&cluster, "ds:partition:*");
    assert!(left.is_empty(), "{left:?}");
    let mut second = Owner::start_as(&others(), &redis_config, EPOCH + 1_000, 0);
    second.fill(30);
    assert_eq!(second.other_group(), None);
    // A witness of any partition, on any node.
    let witness = keys_of_cluster(&cluster, &format!("ds:partition:{PARTITION}:*")).pop().unwrap();
    run(&mut cluster.connection(), &format!("HSET {witness} group somebody"));
    second.turn_until("it to be told", |owner| owner.other_group().is_some());
    pause(SEVERAL_LOOKS);
    assert_eq!(second.other_group().as_deref(), Some("somebody"));
    run(&mut cluster.connection(), &format!("HDEL {witness} group"));
    second.turn_until("writing to go on", |owner| owner.other_group().is_none());
    second.fill(30);
    assert_eq!(second.rewrites, 0, "nothing was lost");
}

fn keys_of_cluster(cluster: &RedisCluster, pattern: &str) -> Vec<String> {
    let of = |n| keys(&mut cluster.master(n).connection(), pattern);
    let mut all: Vec<String> = (0..3).flat_map(of).collect();
    all.sort();
    all
}
