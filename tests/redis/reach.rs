//! The view by all the ways that lead to a Redis, each to real servers: TLS,
//! users and passwords, sockets, databases, Sentinels, a cluster with TLS; and what
//! is said where the way is barred. More of clusters is in cluster.rs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::support::log::{InProcess, REDIS_AWAY, REDIS_LOST, VIEW_FLUSHED};
use crate::support::owner::{Dice, EPOCH, Owner, PASS, device, filled_with, run};
use crate::support::redis::{HostClock, RedisServer, group, read_by, wait_for};
use crate::support::redis_cluster::RedisCluster;
use crate::support::redis_sentinel::RedisSentinel;
use crate::support::redis_tls::{Authority, TlsServer};
use device_status::cli::get;
use device_status::config::Redis;
use device_status::error::FatalKind;
use device_status::view::RedisView;

/// What `get --json` prints of a device.
fn got(redis: &Redis, id: &str) -> serde_json::Value {
    let args = get::Args { ids: vec![id.to_owned()], fleet: None, max_age: None };
    let config = read_by(redis.clone(), 4);
    let mut out = Vec::new();
    get::get(&args, &config, true, false, &mut out).unwrap();
    serde_json::from_slice(&out).unwrap()
}

/// `get` shows a device that is there: traffic deletes some.
#[track_caller]
fn assert_got(redis: &Redis, owner: &Owner) {
    let (id, held) = owner.devices.first_key_value().unwrap();
    assert_eq!(got(redis, id)["version"], held.version);
}

/// That the view writes by this way, and `get` reads by it, the scan included.
#[track_caller]
fn assert_reaches(redis: Redis, connection: &mut dyn redis::ConnectionLike) {
    let mut owner = filled_with(Redis { refresh_interval: PASS, ..redis.clone() }, 50);
    owner.assert_equal(connection, &BTreeSet::new());
    owner.sweep();
    owner.scan();
    let shown = got(&redis, "d7");
    assert_eq!(shown["status"], owner.devices["d7"].status.wire_name());
}

/// What the view complains of, which is what `get` says too.
#[track_caller]
fn complaint(redis: &Redis) -> String {
    let view =
        RedisView::start(redis, &group(), HostClock::start(), &Arc::default(), true).unwrap();
    let stats = view.stats();
    wait_for("a complaint", || stats.advice().trouble.is_some());
    assert!(!stats.connected.load(Ordering::Relaxed));
    let trouble = stats.advice().trouble.clone().unwrap();
    let args = get::Args { ids: vec!["a".to_owned()], fleet: None, max_age: None };
    let config = read_by(redis.clone(), 4);
    if let Err(fatal) = get::get(&args, &config, true, false, &mut Vec::new())
        && fatal.kind != FatalKind::NotFound
    {
        assert_eq!(fatal.kind, FatalKind::Unavailable);
        let said = trouble.split_once(": ").unwrap().1;
        let (said, _) = said.split_once(" (").unwrap_or((said, ""));
        assert!(fatal.message.contains(said), "{fatal}\n{trouble}");
        assert!(!fatal.message.contains("s3cret"), "{fatal}");
    }
    assert!(!trouble.contains("s3cret"), "{trouble}");
    assert!(!trouble.contains('\n'), "{trouble}");
    trouble
}

#[test]
fn tls_with_certificates_on_both_sides() {
    let tls = TlsServer::start(true, "127.0.0.1");
    let (certificate_file, key_file) = tls.authority.sign("client", &[]);
    let redis =
        Redis { ca_file: tls.authority.ca_file(), certificate_file, key_file, ..tls.config() };
    assert_reaches(redis, &mut tls.server.connection());
}

#[test]
fn a_renewed_certificate_is_read_at_the_next_connection() {
    InProcess::announce(&[REDIS_LOST, REDIS_AWAY, VIEW_FLUSHED]);
    let tls = TlsServer::start(true, "127.0.0.1");
    let stranger = Authority::new();
    let (certificate_file, key_file) = stranger.sign("client", &[]);
    let redis = Redis {
        ca_file: tls.authority.ca_file(),
        certificate_file: certificate_file.clone(),
        key_file: key_file.clone(),
        ..tls.config()
    };
    let view =
        RedisView::start(&redis, &group(), HostClock::start(), &Arc::default(), true).unwrap();
    let stats = view.stats();
    wait_for("a complaint", || stats.advice().trouble.is_some());
    let (good_certificate, good_key) = tls.authority.sign("client", &[]);
    std::fs::copy(good_key, key_file).unwrap();
    std::fs::copy(good_certificate, certificate_file).unwrap();
    wait_for("the connection", || stats.connected.load(Ordering::Relaxed));
}

#[test]
fn what_bars_the_way_of_tls_is_told_with_its_remedy() {
    InProcess::announce(&[REDIS_AWAY]);
    let tls = TlsServer::start(true, "127.0.0.1");
    let ca_file = tls.authority.ca_file();
    let (certificate_file, key_file) = tls.authority.sign("client", &[]);
    let whole = Redis { ca_file, certificate_file, key_file, ..tls.config() };

    let wrong_authority = Redis { ca_file: Authority::new().ca_file(), ..whole.clone() };
    // The directory is gone with its authority: so is the file.
    let Err(fatal) =
        RedisView::start(&wrong_authority, &group(), HostClock::start(), &Arc::default(), true)
    else {
        panic!("a file that is not there was read")
    };
    assert!(fatal.message.contains("redis.ca_file"), "{fatal}");

    let stranger = Authority::new();
    let told = complaint(&Redis { ca_file: stranger.ca_file(), ..whole.clone() });
    assert!(told.contains("signed by an unknown authority: set redis.ca_file"), "{told}");

    let told = complaint(&Redis {
        certificate_file: String::new(),
        key_file: String::new(),
        ..whole.clone()
    });
    assert!(told.contains("set redis.certificate_file and redis.key_file"), "{told}");

    let (certificate_file, key_file) = stranger.sign("client", &[]);
    let told = complaint(&Redis { certificate_file, key_file, ..whole.clone() });
    assert!(told.contains("rejects our client certificate"), "{told}");

    let plain = format!("rediss://127.0.0.1:{}", tls.server.port());
    let told = complaint(&Redis { url: plain, ..whole.clone() });
    assert!(told.contains("if it does not speak TLS on this port"), "{told}");

    let url = whole.url.replace("rediss:", "redis:");
    let told = complaint(&Redis { url, ..Redis::default() });
    assert!(told.contains("begin redis.url with rediss"), "{told}");

    let other = TlsServer::start(false, "redis.example");
    let told = complaint(&Redis { ca_file: other.authority.ca_file(), ..other.config() });
    assert!(told.contains("is for another host name"), "{told}");
}

#[test]
fn a_user_with_a_password_and_a_database() {
    let server = RedisServer::start();
    let mut admin = server.connection();
    run(&mut admin, "ACL SETUSER writer on >s3cret ~ds:* resetchannels &ds:* +@all");
    let url = format!("redis://127.0.0.1:{}/5", server.port());
    let (username, password) = ("writer".to_owned(), "s3cret".to_owned());
    let redis = Redis { url: url.clone(), username, password, ..Redis::default() };
    run(&mut admin, "SELECT 5");
    assert_reaches(redis.clone(), &mut admin);

    let told = complaint(&Redis { password: "s3cret-no".to_owned(), ..redis.clone() });
    assert!(told.contains("wrong user or password: check redis.username"), "{told}");
    run(&mut admin, "ACL SETUSER default off");
    let told = complaint(&Redis { url, ..Redis::default() });
    assert!(told.contains("the password is missing"), "{told}");

    let mut admin =
        redis::Client::open(format!("redis://writer:s3cret@127.0.0.1:{}", server.port()))
            .unwrap()
            .get_connection()
            .unwrap();
    run(
        &mut admin,
        "ACL SETUSER reader on >s3cret ~ds:* resetchannels &ds:* +@read +@connection +time",
    );
    let told = complaint(&Redis { username: "reader".to_owned(), ..redis.clone() });
    assert!(told.contains("docs/redis.md lists all"), "{told}");
    // Not allowed to write what the scripts write, though to run them.
    InProcess::announce(&["The user executing the script can't run this command"]);
    run(&mut admin, "ACL SETUSER half on >s3cret ~ds:* resetchannels &ds:* +@all -hset");
    let mut owner = Owner::start_with(Redis { username: "half".to_owned(), ..redis }, EPOCH);
    owner.turn_until("the complaint", |owner| owner.view.stats().advice().trouble.is_some());
    let told = owner.view.stats().advice().trouble.clone().unwrap();
    assert!(told.contains("docs/redis.md lists all"), "{told}");
}

#[test]
fn a_socket_and_a_database() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("redis.sock");
    let server = RedisServer::start_with(&["--unixsocket", path.to_str().unwrap()]);
    let redis = Redis { url: format!("unix://{}?db=2", path.display()), ..Redis::default() };
    let mut admin = server.connection();
    run(&mut admin, "SELECT 2");
    assert_reaches(redis, &mut admin);
}

#[test]
fn a_server_of_another_kind_is_told_by_the_form_that_its_url_needs() {
    InProcess::announce(&[REDIS_AWAY]);
    let alone = RedisServer::start();
    let url = format!("redis-cluster://127.0.0.1:{}", alone.port());
    let told = complaint(&Redis { url, ..Redis::default() });
    assert!(told.contains("is not a cluster"), "{told}");

    let bus_port = crate::support::process::free_port().to_string();
    let node = RedisServer::start_with(&["--cluster-enabled", "yes", "--cluster-port", &bus_port]);
    let told = complaint(&Redis { url: node.url(), ..Redis::default() });
    assert!(told.contains("write redis.url as redis-cluster://"), "{told}");
    let url = format!("redis-cluster://127.0.0.1:{}", node.port());
    let told = complaint(&Redis { url, ..Redis::default() });
    assert!(told.contains("16384 of the cluster's 16384 slots have no master"), "{told}");

    let sentinel = RedisServer::start_sentinel(alone.port(), "s3cret");
    let told = complaint(&Redis { url: sentinel.url(), ..Redis::default() });
    assert!(told.contains("is a Sentinel"), "{told}");
    let url = format!("redis-sentinel://127.0.0.1:{}/other", sentinel.port());
    let told = complaint(&Redis {
        url: url.clone(),
        sentinel_password: "s3cret".to_owned(),
        ..Redis::default()
    });
    assert!(told.contains("knows no master \"other\""), "{told}");
    let told = complaint(&Redis { url, ..Redis::default() });
    assert!(told.contains("check redis.sentinel_username and redis.sentinel_password"), "{told}");
}

/// Traffic, until a condition holds.
fn flow_until(owner: &mut Owner, what: &str, mut condition: impl FnMut(&mut Owner) -> bool) {
    let mut dice = Dice(17);
    owner.turn_until(what, |owner| {
        owner.change(&mut dice, 400, 5);
        condition(owner)
    });
}

#[test]
fn a_master_killed_under_traffic_is_followed_by_its_replica_and_nothing_is_missing() {
    InProcess::announce(&[REDIS_LOST, REDIS_AWAY, VIEW_FLUSHED]);
    let servers = RedisSentinel::start("s3cret");
    let redis = Redis { url: servers.url(), ..Redis::default() };
    assert_follows_the_replica(servers, redis);
}

#[test]
fn sentinels_and_servers_that_all_speak_tls_alone_are_followed_likewise() {
    InProcess::announce(&[REDIS_LOST, REDIS_AWAY, VIEW_FLUSHED]);
    let authority = Authority::new();
    let servers = RedisSentinel::start_with("s3cret", Some(&authority));
    assert!(servers.url().starts_with("rediss-sentinel://"));
    let redis = authority.client(servers.url());
    let nobody =
        Redis { certificate_file: String::new(), key_file: String::new(), ..redis.clone() };
    let told = complaint(&nobody);
    assert!(told.contains("set redis.certificate_file and redis.key_file"), "{told}");
    assert_follows_the_replica(servers, redis);
}

#[track_caller]
fn assert_follows_the_replica(mut servers: RedisSentinel, redis: Redis) {
    let redis = Redis {
        password: "s3cret".to_owned(),
        sentinel_password: "s3cret".to_owned(),
        refresh_interval: PASS,
        ..redis
    };
    let mut owner = filled_with(redis.clone(), 400);
    owner.assert_equal(&mut servers.master.connection(), &BTreeSet::new());
    // What the replica has not heard of is lost with the master.
    servers.cut_off_replica();
    let before = owner.acknowledged;
    flow_until(&mut owner, "writes that only the master has", |o| o.acknowledged > before + 200);
    servers.master.kill();
    let mut lost_at = None;
    flow_until(&mut owner, "the replica to be written to", |owner| {
        if lost_at.is_none() && owner.rewrites > 0 {
            lost_at = Some(owner.written);
        }
        lost_at.is_some_and(|lost_at| owner.acknowledged > lost_at)
    });
    owner.settle();
    owner.assert_equal(&mut servers.replica.connection(), &BTreeSet::new());
    assert_got(&redis, &owner);
    assert!(!owner.superseded);
}

#[test]
fn a_cluster_that_speaks_tls_is_followed_through_the_loss_of_a_master() {
    InProcess::announce(&[REDIS_LOST, REDIS_AWAY, VIEW_FLUSHED]);
    let authority = Authority::new();
    let mut cluster = RedisCluster::start_with(3, true, Some(&authority));
    assert!(cluster.url().starts_with("rediss-cluster://"));
    let redis = Redis { refresh_interval: PASS, ..authority.client(cluster.url()) };
    let mut owner = filled_with(redis.clone(), 400);
    assert_got(&redis, &owner);
    cluster.cut_off_replica(1);
    let before = owner.acknowledged;
    flow_until(&mut owner, "writes that only the master has", |o| o.acknowledged > before + 200);
    cluster.kill_master(1);
    flow_until(&mut owner, "the loss to be noticed", |owner| owner.rewrites > 0);
    cluster.wait_for_failover(1);
    owner.settle();
    let mut connection = cluster.connection();
    // Each master has a marker of its own.
    let markers: BTreeSet<String> = redis::cmd("KEYS")
        .arg("ds:partition:3:*")
        .query::<Vec<String>>(&mut connection)
        .unwrap()
        .into_iter()
        .collect();
    owner.assert_equal(&mut connection, &markers);
    assert_got(&redis, &owner);
}

/// 100,000 devices, through the view alone: the loop's part is played by hand.
#[test]
fn a_hundred_thousand_devices_flushed_under_traffic_are_equal_within_seconds() {
    InProcess::announce(&[VIEW_FLUSHED]);
    let server = RedisServer::start();
    let mut redis = server.connection();
    let config = Redis { url: server.url(), ..Redis::default() };
    let mut owner = Owner::start_with(config, EPOCH);
    let mut dice = Dice(7);
    for number in 0..100_000 {
        let name = format!("{number:032x}");
        owner.devices.insert(name.clone(), device(&name, &mut dice, 1));
    }
    let names: Vec<String> = owner.devices.keys().cloned().collect();
    owner.write(&names, &BTreeSet::new());
    owner.settle();
    crate::support::redis::flush_all(&mut redis);
    let watch = crate::support::wait::Stopwatch::start();
    let mut changed = 0;
    owner.turn_until("the loss to be noticed", |owner| {
        owner.change(&mut dice, 1_000, 20);
        owner.rewrites > 0
    });
    let noticed = watch.elapsed();
    for _ in 0..20 {
        owner.change(&mut dice, 1_000, 20);
        changed += 20;
        owner.turn();
    }
    owner.settle();
    let equal = watch.elapsed();
    owner.assert_devices_equal(&mut redis);
    eprintln!("noticed after {noticed:?}, equal after {equal:?}, {changed} changes meanwhile");
    assert!(equal < Duration::from_secs(45), "equal only after {equal:?}");
}

/// The largest that the fields of a hash are within reason: every number of
/// its largest, an identifier of a fleet, a token far into an owner's life.
#[test]
fn a_full_hash_stays_in_the_compact_encoding() {
    use device_status::shard::{Connectivity, HeartbeatState, Status, Timestamp};
    let server = RedisServer::start();
    let mut redis = server.connection();
    let mut owner = Owner::start_with(Redis { url: server.url(), ..Redis::default() }, EPOCH);
    let at = Timestamp(9_999_999_999_999);
    let mut view = device("full", &mut Dice(1), u64::MAX);
    view.status = Status::PostProvisioning;
    view.connectivity = Connectivity::HeartbeatOnly;
    view.heartbeat = HeartbeatState::Timeout;
    (view.since, view.connectivity_since, view.last_heartbeat) = (at, at, Some(at));
    view.progress = Some(100);
    view.fleet = Some("f".repeat(64).into());
    owner.devices.insert("full".to_owned(), view.clone());
    // A fleet whose name is longer than a compact field costs more, no less right.
    let mut view = device("longer", &mut Dice(2), 1);
    view.fleet = Some("f".repeat(65).into());
    owner.devices.insert("longer".to_owned(), view);
    owner.write(&["full".to_owned(), "longer".to_owned()], &BTreeSet::new());
    owner.settle();
    owner.assert_equal(&mut redis, &BTreeSet::new());
    let mut encoding = |key: &str| -> String {
        redis::cmd("OBJECT").arg("ENCODING").arg(key).query(&mut redis).unwrap()
    };
    let fleet = format!("ds:fleet:{}:3", "f".repeat(64));
    let keys = ["ds:device:full", &fleet, "ds:partition:3", "ds:device:longer"];
    assert_eq!(keys.map(&mut encoding), ["listpack", "listpack", "listpack", "hashtable"]);
}

/// `DEVICES=1000000 cargo test --release --test redis measure -- --ignored --nocapture`
#[test]
#[ignore = "measures"]
fn measure_what_a_device_takes_in_redis() {
    use device_status::shard::{Connectivity, Status, Timestamp};
    let devices = std::env::var("DEVICES").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let server = RedisServer::start();
    let mut redis = server.connection();
    let used = |redis: &mut redis::Connection| -> u64 {
        let info: String = redis::cmd("INFO").arg("memory").query(redis).unwrap();
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
        line.trim().parse().unwrap()
    };
    let before = used(&mut redis);
    let mut owner = Owner::start_with(Redis { url: server.url(), ..Redis::default() }, EPOCH);
    let mut dice = Dice(7);
    let watch = crate::support::wait::Stopwatch::start();
    for part in 0..devices / 50_000 {
        let bodies = (0..50_000)
            .map(|n| {
                let name = format!("{:032x}", part * 50_000 + n);
                let mut view = device(&name, &mut dice, 1 + n as u64 % 40);
                // As a fleet is: online, seen by both, in a fleet with a UUID.
                view.status = Status::Online;
                view.connectivity = Connectivity::Full;
                let at = |dice: &mut Dice| {
                    Timestamp(1_700_000_000_000 + i64::try_from(dice.roll(100_000_000)).unwrap())
                };
                (view.since, view.connectivity_since) = (at(&mut dice), at(&mut dice));
                view.last_heartbeat = Some(at(&mut dice));
                view.progress = None;
                view.fleet = Some(format!("{:032x}", n % 100).as_str().into());
                device_status::shard::ViewBody::Device(Box::new(view))
            })
            .collect();
        let writes = owner.number(bodies);
        owner.written = owner.sequence;
        use device_status::stream_thread::ports::View as _;
        owner.view.write(
            crate::support::owner::PARTITION,
            writes,
            Some(part as i64),
            crate::support::owner::NOW,
        );
        owner.settle();
    }
    let took = watch.elapsed();
    let grown = used(&mut redis) - before;
    let keys: u64 = redis::cmd("DBSIZE").query(&mut redis).unwrap();
    let mut usage = 0;
    for n in 0..1_000 {
        let key = format!("ds:device:{:032x}", n * (devices / 1_000));
        let of: u64 = redis::cmd("MEMORY").arg("USAGE").arg(key).query(&mut redis).unwrap();
        usage += of;
    }
    let usage = usage / 1_000;
    println!(
        "{keys} keys in {took:?}: {} bytes a device by used_memory, {usage} by MEMORY USAGE",
        grown / devices as u64
    );
}
