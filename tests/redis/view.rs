//! The view against a real Redis (rules V1 to V5; V6 is in sweep.rs).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::support::log::{InProcess, REDIS_AWAY, REDIS_LOST, VIEW_FLUSHED, VIEW_SUPERSEDED};
use crate::support::redis::{
    HostClock, RedisServer, group, hash, members, wait_for, wait_for_some,
};
use device_status::config::Redis;
use device_status::shard::{
    Connectivity, DeviceId, DeviceView, HeartbeatState, Status, Timestamp, UpdateOutcome,
    UpdatePhase, ViewBody, ViewWrite,
};
use device_status::stream_thread::ports::{FoundSubject, Marker, View, ViewEvent};
use device_status::view::RedisView;

const EPOCH: u64 = 1_700_000_000_000;
const NOW: Timestamp = Timestamp(1_700_000_000_500);

/// A view, and all that it has told.
struct Watched {
    view: RedisView,
    seen: Vec<ViewEvent>,
    /// Dropped after the view.
    _log: InProcess,
}

impl std::ops::Deref for Watched {
    type Target = RedisView;
    fn deref(&self) -> &RedisView {
        &self.view
    }
}

impl std::ops::DerefMut for Watched {
    fn deref_mut(&mut self) -> &mut RedisView {
        &mut self.view
    }
}

fn start(server: &RedisServer, fleet_members: bool) -> Watched {
    let config = Redis {
        url: server.url(),
        fleet_members,
        refresh_interval: Duration::ZERO,
        ..Redis::default()
    };
    watched(&config)
}

fn watched(config: &Redis) -> Watched {
    let log = InProcess::watch();
    let view =
        RedisView::start(config, &group(), HostClock::start(), &Arc::default(), true).unwrap();
    Watched { view, seen: Vec::new(), _log: log }
}

/// A view that has taken partition 3 for [`EPOCH`].
fn started(server: &RedisServer) -> Watched {
    let mut view = start(server, false);
    view.take(3, EPOCH, 0);
    view
}

fn id(name: &str) -> DeviceId {
    DeviceId::from_key(name.as_bytes()).unwrap()
}

fn device(name: &str) -> DeviceView {
    DeviceView {
        device: id(name),
        status: Status::Online,
        connectivity: Connectivity::HeartbeatOnly,
        since: Timestamp(1_000),
        connectivity_since: Timestamp(2_000),
        heartbeat: HeartbeatState::Online,
        last_heartbeat: Some(Timestamp(3_000)),
        vpn_connected: false,
        progress: None,
        release: Some("v42".into()),
        update_phase: Some(UpdatePhase::Applying),
        update_outcome: Some(UpdateOutcome::Failed),
        update_since: Some(Timestamp(600)),
        membership_since: Timestamp(500),
        fleet: Some("blue".into()),
        previous_fleet: None,
        version: 7,
        changed: false,
    }
}

fn write(sequence: u64, view: DeviceView) -> ViewWrite {
    ViewWrite { sequence, body: ViewBody::Device(Box::new(view)) }
}

fn deletion(sequence: u64, name: &str) -> ViewWrite {
    let body = ViewBody::DeviceDeleted { device: id(name), fleet: Some("blue".into()) };
    ViewWrite { sequence, body }
}

fn counts(sequence: u64, fleet: &str, counts: [u64; 7]) -> ViewWrite {
    ViewWrite { sequence, body: ViewBody::FleetCounts { fleet: fleet.into(), counts } }
}

#[track_caller]
fn wait_event(watched: &mut Watched, wanted: ViewEvent) {
    wait_for(&format!("{wanted:?}"), || {
        watched.view.poll(&mut watched.seen);
        watched.seen.contains(&wanted)
    });
}

#[track_caller]
fn wait_acknowledged(watched: &mut Watched, sequence: u64) {
    wait_event(watched, ViewEvent::Acknowledged { partition: 3, sequence });
}

#[test]
fn a_device_is_written_with_all_its_fields() {
    let server = RedisServer::start();
    let mut view = started(&server);
    view.write(3, vec![write(1, device("a"))], Some(10), NOW);
    wait_acknowledged(&mut view, 1);
    let held = hash(&mut server.connection(), "ds:device:a");
    let expected = [
        ("connectivity", "heartbeat-only"),
        ("connectivity_since_ms", "2000"),
        ("display", "Online (Heartbeat Only)"),
        ("fleet", "blue"),
        ("heartbeat", "online"),
        ("heartbeat_ms", "3000"),
        ("membership_since_ms", "500"),
        ("progress", ""),
        ("release", "v42"),
        ("since_ms", "1000"),
        ("status", "online"),
        ("token", "3:1700000000000:1"),
        ("update_outcome", "failed"),
        ("update_phase", "applying"),
        ("update_since_ms", "600"),
        ("version", "7"),
        ("vpn", "down"),
    ];
    let held: Vec<_> = held.iter().map(|(field, value)| (field.as_str(), value.as_str())).collect();
    assert_eq!(held, expected);
}

#[test]
fn a_smaller_token_is_refused_and_numbers_are_compared_as_numbers() {
    let server = RedisServer::start();
    let mut redis = server.connection();
    // As strings, 9 is more than 10; 999… is more than 1700….
    for (key, token) in [
        ("ds:device:later-sequence", format!("3:{EPOCH}:10")),
        ("ds:device:later-epoch", format!("3:{}:1", EPOCH + 1)),
        ("ds:device:other-partition", format!("4:{}:1", EPOCH + 1)),
        ("ds:device:earlier-epoch", "3:999:77".to_owned()),
        ("ds:device:garbage", "whatever".to_owned()),
    ] {
        redis::cmd("HSET").arg(key).arg("token").arg(token).exec(&mut redis).unwrap();
    }
    redis::cmd("SET").arg("ds:device:no-hash").arg("text").exec(&mut redis).unwrap();
    let mut view = started(&server);
    let names =
        ["later-sequence", "later-epoch", "other-partition", "earlier-epoch", "garbage", "no-hash"];
    let writes = names.iter().zip(1..).map(|(name, n)| write(n, device(name))).collect();
    view.write(3, writes, None, NOW);
    // A refused write is answered too: nothing waits for it for ever.
    wait_acknowledged(&mut view, 6);
    let mut written =
        |name: &str| hash(&mut redis, &format!("ds:device:{name}")).contains_key("status");
    assert_eq!(names.map(&mut written), [false, false, false, true, true, true]);
    assert_eq!(view.stats().refused.load(Ordering::Relaxed), 3);
}

#[test]
fn a_deletion_leaves_its_token_for_an_hour_and_the_next_write_stays() {
    let server = RedisServer::start();
    let mut redis = server.connection();
    let ttl = |redis: &mut redis::Connection| -> i64 {
        redis::cmd("TTL").arg("ds:device:a").query(redis).unwrap()
    };
    let mut view = started(&server);
    view.write(3, vec![write(1, device("a"))], None, NOW);
    wait_acknowledged(&mut view, 1);
    assert_eq!(ttl(&mut redis), -1);
    view.write(3, vec![deletion(2, "a")], None, NOW);
    wait_acknowledged(&mut view, 2);
    let held = hash(&mut redis, "ds:device:a");
    assert_eq!(held.keys().collect::<Vec<_>>(), ["token"]);
    assert!((3590..=3600).contains(&ttl(&mut redis)));
    view.write(3, vec![write(3, device("a"))], None, NOW);
    wait_acknowledged(&mut view, 3);
    assert_eq!(ttl(&mut redis), -1);
    assert_eq!(hash(&mut redis, "ds:device:a")["status"], "online");
}

#[test]
fn during_an_outage_the_latest_of_each_device_waits_and_is_written_after() {
    InProcess::announce(&[REDIS_LOST, REDIS_AWAY, VIEW_FLUSHED]);
    let mut server = RedisServer::start();
    let mut view = started(&server);
    view.write(3, vec![write(1, device("a"))], Some(10), NOW);
    wait_acknowledged(&mut view, 1);
    server.stop();
    for sequence in 2..=1_001 {
        let mut latest = device(if sequence % 2 == 0 { "a" } else { "b" });
        latest.version = sequence;
        view.write(3, vec![write(sequence, latest)], Some(sequence as i64 * 10), NOW);
    }
    wait_for("the view to notice", || !view.stats().connected.load(Ordering::Relaxed));
    assert_eq!(view.backlog(), 2);
    server.restart();
    // The new server is empty: that is told, and what waited is written.
    wait_event(&mut view, ViewEvent::RewriteNeeded(3));
    wait_acknowledged(&mut view, 1_001);
    assert_eq!(view.backlog(), 0);
    let mut redis = server.connection();
    assert_eq!(hash(&mut redis, "ds:device:a")["version"], "1000");
    assert_eq!(hash(&mut redis, "ds:device:b")["version"], "1001");
    // What was promised to the lost server is not promised of the new one.
    assert_eq!(hash(&mut redis, "ds:partition:3")["applied"], "0");
}

#[test]
fn a_flushed_view_is_noticed_while_idle_and_its_marker_waits_for_the_rewrite() {
    InProcess::announce(&[VIEW_FLUSHED]);
    let server = RedisServer::start();
    let mut redis = server.connection();
    let mut view = started(&server);
    view.write(3, vec![write(1, device("a"))], Some(10), NOW);
    wait_acknowledged(&mut view, 1);
    redis::cmd("FLUSHALL").exec(&mut redis).unwrap();
    // The loop does not know yet: what it says of `applied` does not count.
    wait_for("the marker to be taken again", || {
        hash(&mut redis, "ds:partition:3").get("applied").is_some_and(|applied| applied == "0")
    });
    view.write(3, vec![write(2, device("b"))], Some(20), NOW);
    wait_for("b", || hash(&mut redis, "ds:device:b").contains_key("status"));
    wait_event(&mut view, ViewEvent::RewriteNeeded(3));
    view.write(3, vec![write(3, device("a"))], None, NOW);
    wait_acknowledged(&mut view, 3);
    assert_eq!(hash(&mut redis, "ds:partition:3")["applied"], "0");
    view.write(3, vec![], Some(30), NOW);
    wait_for("the marker", || hash(&mut redis, "ds:partition:3")["applied"] == "30");
    assert_eq!(hash(&mut redis, "ds:device:a")["token"], format!("3:{EPOCH}:3"));
}

#[test]
fn a_view_set_back_to_an_earlier_moment_is_noticed() {
    InProcess::announce(&[VIEW_FLUSHED]);
    let server = RedisServer::start();
    let mut redis = server.connection();
    let mut view = started(&server);
    view.write(3, vec![write(1, device("a"))], None, NOW);
    wait_acknowledged(&mut view, 1);
    let before: Vec<u8> = redis::cmd("DUMP").arg("ds:partition:3").query(&mut redis).unwrap();
    view.write(3, vec![write(2, device("b"))], None, NOW);
    wait_acknowledged(&mut view, 2);
    redis::cmd("RESTORE")
        .arg("ds:partition:3")
        .arg(0)
        .arg(before)
        .arg("REPLACE")
        .exec(&mut redis)
        .unwrap();
    wait_event(&mut view, ViewEvent::RewriteNeeded(3));
}

#[test]
fn a_larger_epoch_supersedes_and_nothing_more_is_written() {
    InProcess::announce(&[VIEW_SUPERSEDED]);
    let server = RedisServer::start();
    let mut redis = server.connection();
    let mut old = started(&server);
    old.write(3, vec![write(1, device("a"))], Some(10), NOW);
    wait_acknowledged(&mut old, 1);

    let mut new = start(&server, false);
    new.ask_marker(3);
    wait_event(&mut new, ViewEvent::Marker(3, Some(Marker { epoch: EPOCH, applied: 10 })));
    new.take(3, EPOCH + 1, 10);
    new.write(3, vec![write(1, device("b"))], Some(20), NOW);
    wait_acknowledged(&mut new, 1);

    old.write(3, vec![write(2, device("b"))], Some(30), NOW);
    wait_event(&mut old, ViewEvent::Superseded(3));
    old.write(3, vec![write(3, device("c"))], Some(40), NOW);
    assert_eq!(old.backlog(), 0);
    assert_eq!(hash(&mut redis, "ds:device:b")["token"], format!("3:{}:1", EPOCH + 1));
    assert_eq!(hash(&mut redis, "ds:partition:3")["applied"], "20");

    // And an owner that comes late to take it finds out at once.
    let mut late = started(&server);
    wait_event(&mut late, ViewEvent::Superseded(3));
}

#[test]
fn the_marker_follows_acknowledgement_and_its_time_stays_fresh() {
    let server = RedisServer::start();
    let mut redis = server.connection();
    let mut view = start(&server, false);
    view.ask_marker(3);
    wait_event(&mut view, ViewEvent::Marker(3, None));
    view.take(3, EPOCH, 0);
    view.write(3, vec![write(1, device("a"))], Some(10), NOW);
    view.write(3, vec![write(2, device("a"))], None, NOW);
    view.write(3, vec![write(3, device("b"))], Some(12), Timestamp(NOW.0 + 1));
    wait_acknowledged(&mut view, 3);
    let marker = hash(&mut redis, "ds:partition:3");
    assert_eq!(marker["epoch"], EPOCH.to_string());
    assert_eq!((&*marker["applied"], &*marker["sequence"]), ("12", "3"));
    // Idle, it is still looked after.
    let time = |redis: &mut redis::Connection| -> i64 {
        hash(redis, "ds:partition:3")["time_ms"].parse().unwrap()
    };
    let first = time(&mut redis);
    assert!(first > NOW.0);
    wait_for("a fresher time", || time(&mut redis) >= first + 4_000);
}

#[test]
fn a_marker_flushed_between_asking_and_taking_is_told() {
    InProcess::announce(&[VIEW_FLUSHED]);
    let server = RedisServer::start();
    let mut view = start(&server, false);
    view.take(3, EPOCH, 10);
    wait_event(&mut view, ViewEvent::RewriteNeeded(3));
    wait_for("the marker", || {
        hash(&mut server.connection(), "ds:partition:3").get("applied").is_some_and(|a| a == "0")
    });
}

#[test]
fn scripts_that_the_server_forgot_are_loaded_again() {
    let server = RedisServer::start();
    let mut redis = server.connection();
    let mut view = started(&server);
    view.write(3, vec![write(1, device("a"))], None, NOW);
    wait_acknowledged(&mut view, 1);
    redis::cmd("SCRIPT").arg("FLUSH").exec(&mut redis).unwrap();
    view.write(3, vec![write(2, device("a")), counts(3, "blue", [1; 7])], None, NOW);
    wait_acknowledged(&mut view, 3);
    assert_eq!(hash(&mut redis, "ds:device:a")["token"], format!("3:{EPOCH}:2"));
    assert_eq!(view.stats().errors.load(Ordering::Relaxed), 0);
}

#[test]
fn counts_of_a_fleet_are_absolute_and_an_empty_fleet_goes_away() {
    let server = RedisServer::start();
    let mut redis = server.connection();
    let mut view = started(&server);
    view.write(
        3,
        vec![counts(1, "blue", [5, 0, 0, 2, 0, 0, 1]), counts(2, "", [1, 0, 0, 0, 0, 0, 0])],
        None,
        NOW,
    );
    wait_acknowledged(&mut view, 2);
    let held = hash(&mut redis, "ds:fleet:blue:3");
    assert_eq!((&*held["online"], &*held["offline"], &*held["frozen"]), ("5", "2", "1"));
    assert_eq!(held.len(), 8);
    assert_eq!(hash(&mut redis, "ds:fleet::3")["online"], "1");
    view.write(3, vec![counts(3, "blue", [0; 7])], None, NOW);
    wait_acknowledged(&mut view, 3);
    let ttl: i64 = redis::cmd("TTL").arg("ds:fleet:blue:3").query(&mut redis).unwrap();
    assert!(ttl > 3_000);
}

#[test]
fn member_sets_follow_their_devices() {
    let server = RedisServer::start();
    let mut redis = server.connection();
    let mut view = start(&server, true);
    view.take(3, EPOCH, 0);
    view.write(3, vec![write(1, device("a")), write(2, device("b"))], None, NOW);
    wait_acknowledged(&mut view, 2);
    assert_eq!(members(&mut redis, "ds:fleet:blue:3:members:online"), ["a", "b"]);

    // Another status; another fleet, told by nothing but the hash.
    let offline = DeviceView { status: Status::Offline, ..device("a") };
    let moved = DeviceView { fleet: Some("red".into()), ..device("b") };
    view.write(3, vec![write(3, offline), write(4, moved)], None, NOW);
    wait_acknowledged(&mut view, 4);
    assert!(members(&mut redis, "ds:fleet:blue:3:members:online").is_empty());
    assert_eq!(members(&mut redis, "ds:fleet:blue:3:members:offline"), ["a"]);
    assert_eq!(members(&mut redis, "ds:fleet:red:3:members:online"), ["b"]);

    // A set of another type is replaced, and holds up nobody.
    redis::cmd("SET").arg("ds:fleet:red:3:members:frozen").arg("x").exec(&mut redis).unwrap();
    view.write(3, vec![deletion(5, "a"), write(6, device("b"))], None, NOW);
    wait_acknowledged(&mut view, 6);
    assert!(members(&mut redis, "ds:fleet:blue:3:members:offline").is_empty());
    assert!(members(&mut redis, "ds:fleet:red:3:members:online").is_empty());
    assert_eq!(members(&mut redis, "ds:fleet:blue:3:members:online"), ["b"]);

    // A refused write changes no set.
    let mut zombie = start(&server, true);
    zombie.take(3, EPOCH, 0);
    let late = DeviceView { status: Status::Frozen, ..device("b") };
    zombie.write(3, vec![write(1, late)], None, NOW);
    wait_acknowledged(&mut zombie, 1);
    assert!(members(&mut redis, "ds:fleet:blue:3:members:frozen").is_empty());
}

#[test]
fn hints_go_out_for_changes_that_were_taken() {
    let server = RedisServer::start();
    let mut redis = server.connection();
    let mut listener = server.connection();
    listener.set_read_timeout(Some(crate::support::redis::PATIENCE)).unwrap();
    let mut hints = listener.as_pubsub();
    hints.subscribe("ds:changes").unwrap();
    redis::cmd("HSET")
        .arg("ds:device:held")
        .arg("token")
        .arg(format!("3:{}:1", EPOCH + 1))
        .exec(&mut redis)
        .unwrap();

    let mut view = started(&server);
    let changed = |name: &str| DeviceView { changed: true, ..device(name) };
    let writes = vec![
        write(1, changed("held")),
        write(2, device("quiet")),
        write(3, changed("loud")),
        deletion(4, "never-seen"),
        deletion(5, "quiet-not"),
    ];
    view.write(3, writes, None, NOW);
    wait_acknowledged(&mut view, 5);
    view.write(3, vec![deletion(6, "loud")], None, NOW);
    let mut next = || -> serde_json::Value {
        serde_json::from_slice(hints.get_message().unwrap().get_payload_bytes()).unwrap()
    };
    assert_eq!(
        next(),
        serde_json::json!({
            "device": "loud", "status": "online", "connectivity": "heartbeat-only",
            "display": "Online (Heartbeat Only)", "since_ms": 1000, "version": 7,
        })
    );
    assert_eq!(next(), serde_json::json!({ "device": "loud", "deleted": true }));
}

#[test]
fn closing_writes_what_waits_but_not_beyond_its_deadline() {
    InProcess::announce(&[REDIS_LOST, REDIS_AWAY]);
    let mut server = RedisServer::start();
    let mut view = started(&server);
    let writes = (1..=5_000).map(|n| write(n, device(&format!("d{n}")))).collect();
    view.write(3, writes, Some(10), NOW);
    assert!(view.view.close(crate::support::redis::PATIENCE));
    let mut redis = server.connection();
    assert!(hash(&mut redis, "ds:device:d5000").contains_key("status"));
    assert_eq!(hash(&mut redis, "ds:partition:3")["applied"], "10");

    let mut view = start(&server, false);
    server.stop();
    view.take(3, EPOCH, 0);
    view.write(3, vec![write(1, device("a"))], None, NOW);
    assert!(!view.view.close(Duration::from_millis(300)));
}

#[test]
fn a_marker_is_asked_for_until_there_is_somebody_to_answer() {
    InProcess::announce(&[REDIS_AWAY]);
    let mut server = RedisServer::start();
    server.stop();
    let mut view = start(&server, false);
    view.ask_marker(5);
    wait_for("the first failure", || view.stats().errors.load(Ordering::Relaxed) > 0);
    server.restart();
    wait_event(&mut view, ViewEvent::Marker(5, None));
    wait_for_some("the connection", || {
        view.stats().connected.load(Ordering::Relaxed).then_some(())
    });
}

#[test]
fn a_marker_of_another_type_is_no_marker() {
    InProcess::announce(&[VIEW_FLUSHED, "Operation against a key holding the wrong kind of value"]);
    let server = RedisServer::start();
    let mut redis = server.connection();
    let mut spoil = || redis::cmd("SET").arg("ds:partition:3").arg("x").exec(&mut redis).unwrap();
    spoil();
    let mut view = start(&server, false);
    view.ask_marker(3);
    wait_event(&mut view, ViewEvent::Marker(3, None));
    view.take(3, EPOCH, 0);
    view.write(3, vec![write(1, device("a"))], None, NOW);
    wait_acknowledged(&mut view, 1);
    spoil();
    wait_event(&mut view, ViewEvent::RewriteNeeded(3));
    view.write(3, vec![write(2, device("a"))], Some(10), NOW);
    wait_acknowledged(&mut view, 2);
    wait_for("the marker", || hash(&mut server.connection(), "ds:partition:3")["applied"] == "10");
}

#[test]
fn answers_that_never_come_lose_nothing_and_rewrite_nothing() {
    InProcess::announce(&[REDIS_LOST, REDIS_AWAY]);
    let server = RedisServer::start();
    let mut redis = server.connection();
    let mut view = started(&server);
    view.write(3, vec![write(1, device("a"))], Some(10), NOW);
    wait_acknowledged(&mut view, 1);
    // Longer than an answer may take: what is sent now is executed late, after
    // the worker gave up on it.
    redis::cmd("CLIENT").arg("PAUSE").arg(7_000).arg("ALL").exec(&mut redis).unwrap();
    for sequence in 2..=600 {
        let writes = vec![write(sequence, device(&format!("d{}", sequence % 450)))];
        view.write(3, writes, Some(sequence as i64 * 10), NOW);
    }
    wait_for("the worker to give up", || view.stats().errors.load(Ordering::Relaxed) > 0);
    wait_acknowledged(&mut view, 600);
    assert_eq!(hash(&mut redis, "ds:partition:3")["applied"], "6000");
    assert_eq!(hash(&mut redis, "ds:device:d150")["version"], "7");
    assert_eq!(view.stats().rewrites.load(Ordering::Relaxed), 0);
}

#[test]
fn what_the_server_will_not_take_waits_until_it_does() {
    InProcess::announce(&["command not allowed when used memory > 'maxmemory'"]);
    let server = RedisServer::start();
    let mut redis = server.connection();
    let mut view = started(&server);
    view.write(3, vec![write(1, device("a"))], Some(10), NOW);
    wait_acknowledged(&mut view, 1);
    let limit = |redis: &mut redis::Connection, bytes: &str| {
        redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(bytes).exec(redis).unwrap();
    };
    limit(&mut redis, "1");
    view.write(3, vec![write(2, device("a")), write(3, device("b"))], Some(20), NOW);
    wait_for("a refusal", || view.stats().errors.load(Ordering::Relaxed) > 0);
    assert_eq!(hash(&mut redis, "ds:partition:3")["applied"], "10");
    limit(&mut redis, "0");
    wait_acknowledged(&mut view, 3);
    wait_for("the marker", || hash(&mut redis, "ds:partition:3")["applied"] == "20");
    assert_eq!(hash(&mut redis, "ds:device:b")["version"], "7");
}

#[test]
fn a_partition_taken_again_or_released_forgets_what_waited() {
    InProcess::announce(&[REDIS_LOST, REDIS_AWAY, VIEW_FLUSHED]);
    let mut server = RedisServer::start();
    let mut view = started(&server);
    wait_for("the connection", || view.stats().connected.load(Ordering::Relaxed));
    server.stop();
    view.write(3, vec![write(1, device("a"))], Some(10), NOW);
    view.write(4, vec![write(1, device("b"))], Some(10), NOW);
    view.release(4);
    view.take(3, EPOCH + 5, 0);
    assert_eq!(view.backlog(), 0);
    view.write(3, vec![write(1, device("c"))], Some(20), NOW);
    server.restart();
    wait_acknowledged(&mut view, 1);
    let mut redis = server.connection();
    let keys: Vec<String> = redis::cmd("KEYS").arg("ds:device:*").query(&mut redis).unwrap();
    assert_eq!(keys, ["ds:device:c"]);
    assert_eq!(hash(&mut redis, "ds:device:c")["token"], format!("3:{}:1", EPOCH + 5));
}

#[test]
fn the_rights_that_the_documentation_names_are_enough() {
    let server = RedisServer::start();
    let rights = include_str!("../../docs/redis.md")
        .lines()
        .find_map(|line| line.strip_prefix("With ACLs, `run` needs `")?.strip_suffix("`."))
        .expect("docs/redis.md names the rights");
    redis::cmd("ACL")
        .arg(&["SETUSER", "writer", "on", ">secret", "resetkeys", "-@all"])
        .arg(rights.split(' ').collect::<Vec<_>>())
        .exec(&mut server.connection())
        .unwrap();
    let url = format!("redis://writer:secret@127.0.0.1:{}", server.port());
    let config = Redis {
        url,
        fleet_members: true,
        refresh_interval: Duration::from_secs(1),
        ..Redis::default()
    };
    let mut view = watched(&config);
    view.ask_marker(3);
    wait_event(&mut view, ViewEvent::Marker(3, None));
    view.take(3, EPOCH, 0);
    let a = DeviceView { changed: true, ..device("a") };
    let writes = vec![write(1, a), counts(2, "blue", [1; 7]), counts(3, "red", [0; 7])];
    view.write(3, writes, Some(10), NOW);
    wait_acknowledged(&mut view, 3);
    view.write(3, vec![deletion(4, "a")], Some(20), NOW);
    wait_acknowledged(&mut view, 4);
    // And for the sweep.
    let mut redis = server.connection();
    for key in ["ds:device:x", "ds:fleet:x:3"] {
        let token = format!("3:{EPOCH}:1");
        redis::cmd("HSET")
            .arg(key)
            .arg(&["token", &token, "status", "online"])
            .exec(&mut redis)
            .unwrap();
    }
    redis::cmd("SADD").arg("ds:fleet:x:3:members:online").arg("x").exec(&mut redis).unwrap();
    view.sweep(3, vec![write(5, device("b"))]);
    wait_for("leftovers to be found and removed", || {
        view.view.poll(&mut view.seen);
        for event in std::mem::take(&mut view.seen) {
            if let ViewEvent::Found(partition, mut keys) = event {
                let x = [FoundSubject::Device(id("x")), FoundSubject::Fleet("x".into())];
                keys.retain(|key| x.contains(&key.subject));
                view.remove(partition, keys);
            }
        }
        let stats = view.stats();
        members(&mut redis, "ds:fleet:x:3:members:online").is_empty()
            && stats.sweep.removed.load(Ordering::Relaxed) >= 3
            && stats.sweep.repaired.load(Ordering::Relaxed) == 1
    });
    assert_eq!(view.stats().sweep.failed.load(Ordering::Relaxed), 0);
    assert_eq!(view.stats().errors.load(Ordering::Relaxed), 0);
}
