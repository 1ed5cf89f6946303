//! What a service manager hears from the built binary, on a socket of its own.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::kafka::{KafkaBroker, RawRecord, ServiceTopics};
use crate::support::process::{Process, Signal};
use crate::support::redis::RedisServer;
use crate::support::service::{ServiceConfig, ask, binary};
use crate::support::wait::{Deadline, wait_for};

const SOON: Duration = Duration::from_secs(60);
const WATCHDOG: Duration = Duration::from_secs(1);
/// Several intervals of the watchdog.
const SILENCE: Duration = Duration::from_secs(3);

/// `run` with a socket of ours in place of systemd's, and its log in a named pipe.
struct Managed {
    socket: UnixDatagram,
    process: Process,
    admin: String,
    log: File,
    directory: tempfile::TempDir,
}

impl Managed {
    fn start(config: &ServiceConfig) -> Managed {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let socket = UnixDatagram::bind(path("notify")).unwrap();
        let made = Command::new("mkfifo").arg(path("log")).status().unwrap();
        assert!(made.success());
        let log = unblocked(&path("log"), OpenOptions::new().read(true));
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" --config \"$1\" run 2>\"$2\""]).arg(binary());
        command.arg(config.write_to(directory.path())).arg(path("log"));
        command.env("NOTIFY_SOCKET", path("notify"));
        command.env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
        // Only what the stream threads say, so that only they wait for a full log.
        command.env("RUST_LOG", "device_status::stream_thread=warn");
        let process = Process::spawn("device-status", command);
        let admin = config.text("admin.listen").to_owned();
        Managed { socket, process, admin, log, directory }
    }

    /// What it says within this time, without the status.
    fn hears(&self, within: Duration) -> Option<String> {
        let deadline = Deadline::after(within);
        while !deadline.passed() {
            self.socket.set_read_timeout(Some(deadline.left().max(WATCHDOG / 100))).unwrap();
            let mut message = [0; 4096];
            let Ok(length) = self.socket.recv(&mut message) else { continue };
            let message = String::from_utf8(message[..length].to_vec()).unwrap();
            let lines = message.lines().filter(|line| !line.starts_with("STATUS="));
            let news = lines.collect::<Vec<_>>().join(" ");
            if !news.is_empty() {
                return Some(news);
            }
        }
        None
    }

    #[track_caller]
    fn wait_to_hear(&self, expected: &str) {
        wait_for(SOON, &format!("the service to say {expected}"), || match self.hears(SILENCE) {
            Some(news) if news.contains(expected) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }

    #[track_caller]
    fn wait_until_live_is(&self, expected: u16) {
        wait_for(SOON, &format!("/live to be {expected}"), || {
            // Whoever sends to a full socket waits.
            self.hears(WATCHDOG / 10);
            match ask(&self.admin, "/live") {
                Ok((code, _)) if code == expected => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }

    /// Nobody reads the log, and its pipe is full.
    fn fill_log(&self) {
        let mut log = unblocked(&self.directory.path().join("log"), OpenOptions::new().write(true));
        let full = loop {
            if let Err(error) = log.write(b"\n") {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
    }

    fn read_log(&mut self) -> String {
        let mut log = Vec::new();
        let _ = self.log.read_to_end(&mut log);
        String::from_utf8(log).unwrap()
    }
}

fn unblocked(path: &Path, options: &mut OpenOptions) -> File {
    options.custom_flags(libc::O_NONBLOCK).open(path).unwrap()
}

fn send_what_nobody_can_read(broker: &KafkaBroker, topics: &ServiceTopics) {
    let producer = broker.producer();
    producer.send_raw(&RawRecord {
        topic: &topics.heartbeats,
        key: Some(b"device"),
        value: Some(b"\xffno message"),
        ..RawRecord::default()
    });
    producer.flush();
}

#[test]
fn ready_is_said_once_ready_and_the_watchdog_is_fed_while_live_and_stopping_at_the_end() {
    let broker = KafkaBroker::shared();
    let topics = broker.service_topics("managed", 1);
    let mut redis = RedisServer::start();
    let config = ServiceConfig::new(broker, &topics).redis(&redis.url());
    redis.stop();
    let mut managed = Managed::start(&config);

    // Everything is there but Redis.
    wait_for(SOON, "only Redis to be missing", || match ask(&managed.admin, "/ready") {
        Ok((503, body)) if body.contains("\"running\":1") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let deadline = Deadline::after(SILENCE);
    let mut fed = 0;
    while !deadline.passed() {
        if let Some(news) = managed.hears(deadline.left()) {
            assert_eq!(news, "WATCHDOG=1");
            fed += 1;
        }
    }
    assert!(fed >= 3, "the watchdog was fed {fed} times in {SILENCE:?}");
    redis.restart();
    managed.wait_to_hear("READY=1");
    assert_eq!(ask(&managed.admin, "/ready").unwrap().0, 200);

    // A stream thread is stuck in its log, whose reader hangs.
    managed.fill_log();
    send_what_nobody_can_read(broker, &topics);
    managed.wait_to_hear("WATCHDOG=1");
    managed.wait_until_live_is(503);
    while managed.hears(WATCHDOG / 10).is_some() {}
    assert_eq!(managed.hears(SILENCE), None);
    let mut log = managed.read_log();
    managed.wait_until_live_is(200);
    managed.wait_to_hear("WATCHDOG=1");
    log += &managed.read_log();
    assert!(log.contains("becomes a dead letter"), "{log}");

    managed.process.signal(Signal::TERM);
    managed.wait_to_hear("STOPPING=1");
    assert_eq!(managed.process.wait(SOON).code(), Some(0));
}
