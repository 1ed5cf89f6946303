//! A real `redis-server` (`REDIS_SERVER=path` for another) on a free port, without
//! persistence, gone with its directory when dropped; and the means to wait for
//! what it will hold.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use device_status::config::Config;
use device_status::shard::Timestamp;
use device_status::stream_thread::ports::Clock;
use device_status::view::claim::Group;
use redis::{Client, Connection, ConnectionLike};
use tempfile::TempDir;

use super::process::{Process, free_port};

/// How long a condition may take to come true, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A configuration to read this Redis by.
pub fn read_by(redis: device_status::config::Redis, partitions: i32) -> Config {
    let mut config = Config { redis, ..Config::default() };
    config.topics.partitions = partitions;
    config
}

/// A server that can be stopped and started again on its port.
pub struct RedisServer {
    port: u16,
    directory: TempDir,
    process: Option<Process>,
    program: OsString,
    /// Settings besides the usual ones, as on the command line.
    settings: Vec<String>,
    /// Empty: none.
    password: String,
}

impl RedisServer {
    /// Starts a server and waits until it answers.
    pub fn start() -> RedisServer {
        RedisServer::start_with(&[])
    }

    /// The same with more settings, as on the command line: `--name`, values.
    pub fn start_with(settings: &[&str]) -> RedisServer {
        RedisServer::start_with_password(settings, "")
    }

    /// The same where `settings` ask for a password.
    pub fn start_with_password(settings: &[&str], password: &str) -> RedisServer {
        let settings = [USUAL, settings].concat();
        RedisServer::start_program(&program(), &settings, password)
    }

    /// Starts this `redis-server` or `valkey-server`.
    pub fn start_other(program: &OsStr) -> RedisServer {
        RedisServer::start_program(program, USUAL, "")
    }

    fn start_program(program: &OsStr, settings: &[&str], password: &str) -> RedisServer {
        // The port may be lost between the two binds: then try another.
        for _ in 0..10 {
            let server = RedisServer::try_start(program, settings, password, None);
            if let Some(server) = server {
                return server;
            }
        }
        panic!("{} does not start; is it installed?", program.display());
    }

    /// A Sentinel that watches the master `main`, with the same password as it.
    pub fn start_sentinel(master_port: u16, password: &str) -> RedisServer {
        RedisServer::start_sentinel_with(master_port, password, &[])
    }

    /// The same with more settings, as on the command line.
    pub fn start_sentinel_with(
        master_port: u16,
        password: &str,
        settings: &[String],
    ) -> RedisServer {
        let more: String = settings
            .chunks(2)
            .map(|pair| format!("{} {}\n", pair[0].trim_start_matches("--"), pair[1]))
            .collect();
        let configuration = format!(
            "requirepass {password}\n\
             sentinel sentinel-pass {password}\n\
             sentinel monitor main 127.0.0.1 {master_port} 2\n\
             sentinel auth-pass main {password}\n\
             sentinel down-after-milliseconds main 1500\n\
             sentinel failover-timeout main 5000\n"
        ) + &more;
        for _ in 0..10 {
            let settings = ["--sentinel"];
            let configuration = Some(configuration.as_str());
            let server = RedisServer::try_start(&program(), &settings, password, configuration);
            if let Some(server) = server {
                return server;
            }
        }
        panic!("redis-server does not start as a Sentinel");
    }

    fn try_start(
        program: &OsStr,
        settings: &[&str],
        password: &str,
        configuration: Option<&str>,
    ) -> Option<RedisServer> {
        let port = free_port();
        let directory = TempDir::new().unwrap();
        let mut settings: Vec<String> = settings.iter().map(|word| (*word).to_owned()).collect();
        if let Some(configuration) = configuration {
            let path = directory.path().join("redis.conf");
            std::fs::write(&path, configuration).unwrap();
            settings.insert(0, path.to_str().unwrap().to_owned());
        }
        let password = password.to_owned();
        let program = program.to_owned();
        let mut server =
            RedisServer { port, directory, process: None, program, settings, password };
        server.try_restart().then_some(server)
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        match self.password.as_str() {
            "" => format!("redis://127.0.0.1:{}", self.port),
            password => format!("redis://:{password}@127.0.0.1:{}", self.port),
        }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port where it speaks TLS, if it does.
    pub fn tls_port(&self) -> Option<u16> {
        let answer: Vec<String> = redis::cmd("CONFIG")
            .arg(&["GET", "tls-port"])
            .query(&mut self.connection())
            .unwrap_or_default();
        answer.get(1)?.parse().ok().filter(|port| *port > 0)
    }

    /// The port for clients and for other servers: where it speaks TLS, or else
    /// the only one.
    pub fn public_port(&self) -> u16 {
        self.tls_port().unwrap_or(self.port)
    }

    /// A new connection.
    pub fn connection(&self) -> Connection {
        Client::open(self.url()).unwrap().get_connection().unwrap()
    }

    /// Kills it; what it held is gone.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Starts it again, empty, on the same port.
    pub fn restart(&mut self) {
        self.stop();
        assert!(self.try_restart(), "redis-server does not start again on port {}", self.port);
    }

    /// The same as [`RedisServer::stop`]: SIGKILL.
    pub fn kill(&mut self) {
        self.stop();
    }

    /// The process, to be stopped for a while.
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("the server runs")
    }

    /// Where it keeps its files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What the view holds of a device; empty when it holds nothing.
    pub fn fields(&self, device: &str) -> BTreeMap<String, String> {
        hash(&mut self.connection(), &format!("ds:device:{device}"))
    }

    /// Waits until the view holds these fields of a device.
    #[track_caller]
    pub fn wait_for_fields(&self, device: &str, within: Duration, expected: &[(&str, &str)]) {
        let mut connection = self.connection();
        let what = format!("the view of {device} to have {expected:?}");
        super::wait::wait_for(within, &what, || {
            let fields = hash(&mut connection, &format!("ds:device:{device}"));
            let holds =
                |(name, value): &(&str, &str)| fields.get(*name).is_some_and(|held| held == value);
            if expected.iter().all(holds) { Ok(()) } else { Err(format!("it has {fields:?}")) }
        });
    }

    /// How many devices of a fleet have each status, over all partitions.
    pub fn fleet_counts(&self, fleet: &str) -> BTreeMap<String, i64> {
        let mut connection = self.connection();
        let pattern = format!("ds:fleet:{fleet}:*");
        let keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query(&mut connection).unwrap();
        let mut counts = BTreeMap::new();
        for key in keys.iter().filter(|key| !key.contains(":members:")) {
            for (status, count) in hash(&mut connection, key) {
                if status != "token" {
                    *counts.entry(status).or_default() += count.parse::<i64>().unwrap();
                }
            }
        }
        counts
    }

    fn try_restart(&mut self) -> bool {
        let mut command = Command::new(&self.program);
        command
            .args(&self.settings)
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .current_dir(self.directory.path());
        self.process = Some(Process::spawn("redis-server", command));
        let client = Client::open(self.url()).unwrap();
        let deadline = Deadline::after(PATIENCE);
        while !deadline.passed() {
            if self.process.as_mut().unwrap().ended().is_some() {
                return false;
            }
            if let Ok(mut connection) = client.get_connection()
                && redis::cmd("PING").exec(&mut connection).is_ok()
            {
                return true;
            }
            pause();
        }
        false
    }
}

/// Without persistence, in the foreground.
const USUAL: &[&str] = &["--save", "", "--appendonly", "no", "--daemonize", "no"];

/// The server that the tests use.
pub fn program() -> OsString {
    std::env::var_os("REDIS_SERVER").unwrap_or("redis-server".into())
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// All fields of a hash.
pub fn hash(connection: &mut dyn ConnectionLike, key: &str) -> BTreeMap<String, String> {
    redis::cmd("HGETALL").arg(key).query(connection).unwrap()
}

/// Whether anybody has walked over the keys, since the server's statistics begin.
pub fn was_scanned(connection: &mut dyn ConnectionLike) -> bool {
    let calls: String = redis::cmd("INFO").arg("commandstats").query(connection).unwrap();
    calls.contains("cmdstat_scan:")
}

/// Removes everything.
pub fn flush_all(connection: &mut dyn ConnectionLike) {
    redis::cmd("FLUSHALL").exec(connection).unwrap();
}

/// The members of a set, sorted.
pub fn members(connection: &mut dyn ConnectionLike, key: &str) -> Vec<String> {
    let mut members: Vec<String> = redis::cmd("SMEMBERS").arg(key).query(connection).unwrap();
    members.sort();
    members
}

/// Waits until a condition holds, and fails if it does not in time.
#[track_caller]
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for_some(what, || condition().then_some(()));
}

/// Waits until there is a value.
#[track_caller]
pub fn wait_for_some<T>(what: &str, mut value: impl FnMut() -> Option<T>) -> T {
    let deadline = Deadline::after(PATIENCE);
    loop {
        if let Some(value) = value() {
            return value;
        }
        assert!(!deadline.passed(), "waited {PATIENCE:?} in vain for: {what}");
        pause();
    }
}

/// A moment between two looks at a condition.
fn pause() {
    std::thread::park_timeout(Duration::from_millis(2));
}

/// A moment in the future.
pub struct Deadline(Instant);

impl Deadline {
    /// So far from now.
    #[allow(clippy::disallowed_methods, reason = "a test's patience is real time")]
    pub fn after(patience: Duration) -> Deadline {
        Deadline(Instant::now() + patience)
    }

    /// Whether it is over.
    #[allow(clippy::disallowed_methods, reason = "a test's patience is real time")]
    pub fn passed(&self) -> bool {
        Instant::now() >= self.0
    }
}

/// The group whose view the tests write.
pub fn group() -> Group {
    Group::named("the-group")
}

/// The host's clock.
pub struct HostClock(Instant);

impl HostClock {
    /// A clock that starts now.
    #[allow(clippy::disallowed_methods, reason = "this is the clock of these tests")]
    pub fn start() -> Arc<HostClock> {
        Arc::new(HostClock(Instant::now()))
    }

    /// How long something takes.
    #[allow(clippy::disallowed_methods, reason = "this is the clock of these tests")]
    pub fn micros(&self, work: impl FnOnce()) -> u128 {
        let before = self.0.elapsed();
        work();
        (self.0.elapsed() - before).as_micros()
    }
}

impl Clock for HostClock {
    #[allow(clippy::disallowed_methods, reason = "this is the clock of these tests")]
    fn monotonic_ms(&self) -> i64 {
        i64::try_from(self.0.elapsed().as_millis()).unwrap()
    }

    #[allow(clippy::disallowed_methods, reason = "this is the clock of these tests")]
    fn wall(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Timestamp(i64::try_from(since_epoch.as_millis()).unwrap())
    }
}
