//! `get` and `watch` against what the view wrote to a real Redis.

use std::io::{self, Write};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::support::process::Process;
use crate::support::redis::{HostClock, PATIENCE, RedisServer, group, read_by, wait_for};
use crate::support::service::binary;
use device_status::cli::{get, watch};
use device_status::config::Redis;
use device_status::error::{Fatal, FatalKind};
use device_status::shard::{
    Connectivity, DeviceId, DeviceView, HeartbeatState, Status, Timestamp, ViewBody, ViewWrite,
};
use device_status::stream_thread::ports::{View, ViewEvent};
use device_status::view::RedisView;
use serde_json::{Value, json};

fn write(sequence: u64, name: &str, status: Status, changed: bool) -> ViewWrite {
    let view = DeviceView {
        device: DeviceId::from_key(name.as_bytes()).unwrap(),
        status,
        connectivity: Connectivity::VpnOnly,
        since: Timestamp(1_700_000_000_123),
        connectivity_since: Timestamp(1_700_000_000_123),
        heartbeat: HeartbeatState::Unknown,
        last_heartbeat: None,
        vpn_connected: true,
        progress: Some(40),
        release: None,
        update_phase: None,
        update_outcome: None,
        update_since: None,
        membership_since: Timestamp(0),
        fleet: Some("blue".into()),
        previous_fleet: None,
        version: sequence,
        changed,
    };
    ViewWrite { sequence, body: ViewBody::Device(Box::new(view)) }
}

fn config(server: &RedisServer) -> Redis {
    let refresh_interval = std::time::Duration::ZERO;
    Redis { url: server.url(), prefix: "t:".to_owned(), refresh_interval, ..Redis::default() }
}

/// A server, and a view that owns partition 0 and partition 200.
fn view(server: &RedisServer) -> RedisView {
    let mut view =
        RedisView::start(&config(server), &group(), HostClock::start(), &Arc::default(), true)
            .unwrap();
    for partition in [0, 100, 200] {
        view.take(partition, 1, 0);
    }
    view
}

fn put(view: &mut RedisView, partition: i32, write: ViewWrite) {
    let sequence = write.sequence;
    view.write(partition, vec![write], None, Timestamp(0));
    let mut seen = Vec::new();
    wait_for("the write", || {
        view.poll(&mut seen);
        seen.contains(&ViewEvent::Acknowledged { partition, sequence })
    });
}

fn got(server: &RedisServer, args: &get::Args, json: bool) -> (String, Result<(), Fatal>) {
    let config = read_by(config(server), 12);
    let mut out = Vec::new();
    let result = get::get(args, &config, json, false, &mut out);
    (String::from_utf8(out).unwrap(), result)
}

fn ids(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

#[test]
fn get_shows_a_device_to_people_and_to_programs() {
    let server = RedisServer::start();
    let mut view = view(&server);
    put(&mut view, 0, write(1, "a", Status::Online, true));
    let args = get::Args { ids: ids(&["a"]), fleet: None, max_age: None };
    let (text, result) = got(&server, &args, false);
    result.unwrap();
    assert!(text.starts_with("a  Online (VPN Only)\n"), "{text}");
    assert!(text.contains("since         2023-11-14T22:13:20.123Z ("), "{text}");
    assert!(text.contains("heartbeat     unknown\n"), "{text}");
    assert!(text.contains("progress      40 %\n"), "{text}");
    let (text, _) = got(&server, &args, true);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["status"], "online");
    assert_eq!(json["since_ms"], 1_700_000_000_123_i64);
    assert_eq!((&json["heartbeat_ms"], &json["version"]), (&Value::Null, &json!(1)));
}

#[test]
fn get_says_which_devices_it_does_not_know_and_shows_the_others() {
    let server = RedisServer::start();
    let mut view = view(&server);
    put(&mut view, 0, write(1, "a", Status::Online, true));
    put(&mut view, 0, write(2, "gone", Status::Online, true));
    let device = DeviceId::from_key(b"gone").unwrap();
    let body = ViewBody::DeviceDeleted { device, fleet: None };
    put(&mut view, 0, ViewWrite { sequence: 3, body });
    let args = get::Args { ids: ids(&["nobody", "a", "gone"]), fleet: None, max_age: None };
    let (text, result) = got(&server, &args, true);
    assert_eq!(text.lines().count(), 1);
    let fatal = result.unwrap_err();
    assert_eq!((fatal.kind, fatal.kind.exit_code()), (FatalKind::NotFound, 1));
    assert!(fatal.message.contains(r#""nobody", "gone""#), "{fatal}");
}

#[test]
fn get_adds_up_a_fleet_over_more_partitions_than_it_was_told_of() {
    let server = RedisServer::start();
    let mut view = view(&server);
    for partition in [0, 200] {
        let counts = [2, 0, 0, 1, 0, 0, 0];
        let body = ViewBody::FleetCounts { fleet: "a:b".into(), counts };
        put(&mut view, partition, ViewWrite { sequence: 1, body });
    }
    let args = get::Args { ids: vec![], fleet: Some("a:b".to_owned()), max_age: None };
    let (text, result) = got(&server, &args, true);
    result.unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&json["devices"], &json["statuses"]["online"]), (&json!(6), &json!(4)));
    let args = get::Args { ids: vec![], fleet: Some("a".to_owned()), max_age: None };
    assert_eq!(got(&server, &args, true).1.unwrap_err().kind, FatalKind::NotFound);
}

#[test]
fn get_says_how_to_reach_redis_when_it_cannot() {
    let mut server = RedisServer::start();
    server.stop();
    let args = get::Args { ids: ids(&["a"]), fleet: None, max_age: None };
    let fatal = got(&server, &args, false).1.unwrap_err();
    assert_eq!(fatal.kind, FatalKind::Unavailable);
    assert!(fatal.message.contains("redis.url"), "{fatal}");
}

/// Hands over lines, and tells the writer when nobody takes them any more.
struct Lines(SyncSender<String>, Vec<u8>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.extend_from_slice(bytes);
        while let Some(end) = self.1.iter().position(|byte| *byte == b'\n') {
            let line = self.1.drain(..=end).collect();
            let line = String::from_utf8(line).unwrap();
            self.0.send(line).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn watching(
    server: &RedisServer,
    ids: Vec<String>,
) -> (std::thread::JoinHandle<Result<(), Fatal>>, Receiver<String>) {
    let (lines, received) = sync_channel(16);
    let config = read_by(config(server), 12);
    let watcher = std::thread::spawn(move || {
        watch::watch(&watch::Args { ids }, &config, true, false, &mut Lines(lines, Vec::new()))
    });
    (watcher, received)
}

#[test]
fn watch_shows_what_is_then_what_changes_over_a_lost_connection_too() {
    let mut server = RedisServer::start();
    let mut view = view(&server);
    put(&mut view, 0, write(1, "a", Status::Online, true));
    let (watcher, received) = watching(&server, ids(&["a"]));
    let next =
        || -> Value { serde_json::from_str(&received.recv_timeout(PATIENCE).unwrap()).unwrap() };
    assert_eq!(next()["status"], "online");
    put(&mut view, 0, write(2, "b", Status::Online, true));
    put(&mut view, 0, write(3, "a", Status::Frozen, true));
    assert_eq!(next()["status"], "frozen");
    server.restart();
    // The server is empty, then the view writes to it again.
    let mut events = Vec::new();
    wait_for("the loss to be noticed", || {
        view.poll(&mut events);
        events.contains(&ViewEvent::RewriteNeeded(0))
    });
    put(&mut view, 0, write(4, "a", Status::Offline, true));
    while next()["status"] != "offline" {}
    drop(received);
    put(&mut view, 0, write(5, "a", Status::Online, true));
    watcher.join().unwrap().unwrap();
}

/// Leaves a device whose partition was last written `age_ms` ago, as after the
/// death of its only writer.
fn abandon(server: &RedisServer, device: &str, partition: i32, age_ms: i64) {
    let mut connection = server.connection();
    let (seconds, _): (i64, i64) = redis::cmd("TIME").query(&mut connection).unwrap();
    let mut pipeline = redis::pipe();
    let token = format!("{partition}:7:1");
    let fields = [("status", "online"), ("display", "Online"), ("version", "1"), ("token", &token)];
    pipeline.hset_multiple(format!("t:device:{device}"), &fields);
    let counts = [("online", "1"), ("token", &token)];
    pipeline.hset_multiple(format!("t:fleet:blue:{partition}"), &counts);
    let time_ms = if age_ms < 0 { 0 } else { seconds * 1000 - age_ms };
    let marker = [("epoch", "7".to_owned()), ("time_ms", time_ms.to_string())];
    pipeline.hset_multiple(format!("t:partition:{partition}"), &marker);
    pipeline.exec(&mut connection).unwrap();
}

fn command(server: &RedisServer, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.env_clear().args(arguments);
    command.env("DEVICE_STATUS_REDIS__URL", server.url()).env("DEVICE_STATUS_REDIS__PREFIX", "t:");
    command
}

#[test]
fn get_says_how_old_the_view_is_and_refuses_what_is_older_than_asked_for() {
    let server = RedisServer::start();
    abandon(&server, "old", 1, 600_000);
    abandon(&server, "lost", 200, -1);
    abandon(&server, "new", 0, 0);
    let run = |arguments: &[&str]| {
        let output = command(&server, arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, text, _) = run(&["get", "old"]);
    assert_eq!(code, Some(0));
    assert!(text.contains("as of") && text.contains("(10 min ") && text.contains("OLD"), "{text}");
    let (_, text, _) = run(&["get", "new"]);
    assert!(text.contains("as of") && !text.contains("OLD"), "{text}");
    let (_, text, _) = run(&["get", "lost"]);
    assert!(text.contains("as of         not known"), "{text}");

    let (_, text, _) = run(&["get", "--json", "old"]);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert!((600_000..900_000).contains(&json["view_age_ms"].as_i64().unwrap()), "{text}");
    assert!(json["view_time_ms"].as_i64().unwrap() > 1_700_000_000_000, "{text}");
    let (_, text, _) = run(&["get", "--json", "lost"]);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&json["view_age_ms"], &json["view_time_ms"]), (&Value::Null, &Value::Null));

    // What is old is shown all the same.
    for id in ["old", "lost", "nobody"] {
        let (code, text, error) = run(&["get", "--max-age", "5m", id]);
        assert_eq!(code, Some(3), "{id}: {error}");
        assert_eq!(text.contains("Online"), id != "nobody");
        assert!(error.contains(id) && error.contains("--max-age 5m"), "{error}");
    }
    assert_eq!(run(&["get", "--max-age", "5m", "new"]).0, Some(0));
    assert_eq!(run(&["get", "--max-age", "1h", "new", "old"]).0, Some(0));
    let (code, _, error) = run(&["get", "nobody"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("The view is old"), "{error}");

    let (code, text, _) = run(&["get", "--fleet", "blue", "--max-age", "1h"]);
    assert_eq!(code, Some(3));
    assert!(text.contains("as of       not known"), "{text}");
    let (_, text, _) = run(&["get", "--fleet", "blue", "--json"]);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&json["devices"], &json["view_age_ms"]), (&json!(3), &Value::Null));
}

#[test]
fn watch_says_that_the_view_stands_still_and_that_it_goes_on() {
    let server = RedisServer::start();
    abandon(&server, "a", 0, 600_000);
    let mut watch = Process::spawn("watch", command(&server, &["watch", "a"]));
    watch.wait_for_output(PATIENCE, "as of");
    watch.wait_for_output(PATIENCE, "the view is not being updated");
    abandon(&server, "a", 0, 0);
    watch.wait_for_output(PATIENCE, "up to date again");
    watch.kill();
    let mut watch = Process::spawn("watch", command(&server, &["watch", "--json", "a"]));
    let line = watch.wait_for_output(PATIENCE, "\"device\"");
    let json: Value = serde_json::from_str(&line).unwrap();
    assert!(json["view_time_ms"].is_i64() && json["view_age_ms"].is_i64(), "{line}");
    watch.kill();
}
