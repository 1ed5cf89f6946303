//! The service as a black box: the built binary, with a configuration file.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::Duration;

use tempfile::TempDir;
use toml::{Table, Value};

use super::kafka::{KafkaBroker, ServiceTopics};
use super::log::{Log, REDIS_AWAY};
use super::process::{Process, free_port};
use super::wait::wait_for;

/// A configuration, as its file has it, and what is expected in the log of a
/// service that has it.
#[derive(Clone, Debug, Default)]
pub struct ServiceConfig {
    table: Table,
    announced: Vec<String>,
}

impl ServiceConfig {
    /// One that reads `topics` on `broker`, with a free admin port, short
    /// intervals, one thread and, until [`ServiceConfig::redis`] is called, a
    /// Redis that is not there.
    pub fn new(broker: &KafkaBroker, topics: &ServiceTopics) -> ServiceConfig {
        ServiceConfig::default()
            .set("kafka.brokers", broker.address())
            .set("kafka.group", topics.group.as_str())
            .set("topics.heartbeats", topics.heartbeats.as_str())
            .set("topics.vpn_sessions", topics.vpn_sessions.as_str())
            .set("topics.lifecycle", topics.lifecycle.as_str())
            .set("topics.status_changes", topics.status_changes.as_str())
            .set("topics.dead_letters", topics.dead_letters.as_str())
            .set("topics.changelog", topics.changelog.as_str())
            .set("topics.partitions", i64::from(topics.partitions))
            .set("topics.replication_factor", 1)
            .set("processing.threads", 1)
            .set("heartbeat.minimum", "1s")
            .set("heartbeat.grace", "1s")
            .set("redis.url", "redis://127.0.0.1:1")
            .set("admin.listen", format!("127.0.0.1:{}", free_port()))
            .set("log.level", "debug")
            .set("log.format", "json")
            .announce(&[REDIS_AWAY])
    }

    /// Sets a key such as `processing.guarantee`.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> ServiceConfig {
        let mut table = &mut self.table;
        // Only librdkafka's own keys have dots in their names.
        let (path, name) = match key.strip_prefix("kafka.properties.") {
            Some(property) => (vec!["kafka", "properties"], property),
            None => {
                let mut path: Vec<&str> = key.split('.').collect();
                let name = path.pop().unwrap();
                (path, name)
            }
        };
        for part in path {
            let inner = table.entry(part).or_insert_with(|| Value::Table(Table::new()));
            table = inner.as_table_mut().unwrap();
        }
        table.insert(name.to_owned(), value.into());
        self
    }

    /// Sets where Redis is.
    #[must_use]
    pub fn redis(mut self, url: &str) -> ServiceConfig {
        self.announced.retain(|piece| piece != REDIS_AWAY);
        self.set("redis.url", url)
    }

    /// Expects warnings and errors that contain one of these pieces of text. Any
    /// other fails the test.
    #[must_use]
    pub fn announce(mut self, pieces: &[&str]) -> ServiceConfig {
        self.announced.extend(pieces.iter().map(|piece| (*piece).to_owned()));
        self
    }

    /// The value of a text key.
    pub fn text(&self, key: &str) -> &str {
        let found = key.split('.').try_fold(None, |table: Option<&Value>, part| match table {
            None => self.table.get(part).map(Some),
            Some(value) => value.get(part).map(Some),
        });
        found.flatten().and_then(Value::as_str).unwrap_or_else(|| panic!("{key} is not set"))
    }

    /// Writes the file.
    pub fn write_to(&self, directory: &Path) -> PathBuf {
        let path = directory.join("device-status.toml");
        std::fs::write(&path, toml::to_string(&self.table).unwrap()).unwrap();
        path
    }
}

/// A running `device-status run`; killed when dropped, or with the test.
pub struct DeviceStatus {
    /// For signals and output.
    pub process: Process,
    admin: String,
    log: Log,
    /// Holds the configuration file.
    _directory: TempDir,
}

impl DeviceStatus {
    /// Starts the service; does not wait for it.
    pub fn start(config: &ServiceConfig) -> DeviceStatus {
        DeviceStatus::start_with(config, &[])
    }

    /// The same, with arguments of `run`.
    pub fn start_with(config: &ServiceConfig, arguments: &[&str]) -> DeviceStatus {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(binary());
        command.arg("--config").arg(config.write_to(directory.path())).arg("run").args(arguments);
        command.env("RUST_BACKTRACE", "1");
        let log = Log::new(&config.announced);
        let reader = log.clone();
        DeviceStatus {
            process: Process::spawn_read_by("device-status", command, move |line| {
                reader.line(line)
            }),
            admin: config.text("admin.listen").to_owned(),
            log,
            _directory: directory,
        }
    }

    /// Starts the service and waits until it is ready.
    #[track_caller]
    pub fn start_ready(config: &ServiceConfig) -> DeviceStatus {
        let mut service = DeviceStatus::start(config);
        service.wait_ready(Duration::from_secs(60));
        service
    }

    /// Expects warnings and errors that contain one of these pieces of text, as
    /// [`ServiceConfig::announce`] does.
    pub fn announce(&self, pieces: &[&str]) {
        self.log.announce(pieces.iter().copied());
    }

    /// Fails the test if the log has something that was not announced. Its end
    /// does that too.
    #[track_caller]
    pub fn assert_log_as_announced(&self) {
        self.log.assert_as_announced("device-status");
    }

    /// Waits until `/ready` says 200.
    #[track_caller]
    pub fn wait_ready(&mut self, within: Duration) {
        wait_for(within, "device-status to be ready", || {
            if let Some(status) = self.process.ended() {
                panic!("device-status ended ({status}):\n{}", self.process.output());
            }
            match self.get("/ready") {
                Ok((200, _)) => Ok(()),
                Ok((code, body)) => Err(format!("{code} {body}")),
                Err(error) => Err(error.to_string()),
            }
        });
    }

    /// Asks the admin port: (HTTP status, body).
    pub fn get(&self, path: &str) -> std::io::Result<(u16, String)> {
        ask(&self.admin, path)
    }

    /// The sum of a metric's series on `/metrics` whose line contains `labels`;
    /// `None` when there is none.
    pub fn metric(&self, name: &str, labels: &str) -> Option<f64> {
        let values = self.metrics(name, &[labels.to_owned()]);
        values.into_iter().reduce(|sum, value| sum + value)
    }

    /// The values of all series of a metric whose lines contain all of these.
    pub fn metrics(&self, name: &str, labels: &[String]) -> Vec<f64> {
        let Ok((_, body)) = self.get("/metrics") else { return Vec::new() };
        let series = body.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        series.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGTERM, and waits for the end.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        self.process.terminate(Duration::from_secs(30))
    }

    /// SIGSTOP.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.process.resume();
    }
}

impl Drop for DeviceStatus {
    fn drop(&mut self) {
        self.process.kill();
        self.process.read_to_end();
        if !std::thread::panicking() {
            self.assert_log_as_announced();
        }
    }
}

/// Runs another subcommand to its end.
#[track_caller]
pub fn run(config: &ServiceConfig, arguments: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary());
    command.arg("--config").arg(config.write_to(directory.path())).args(arguments);
    let output = command.output().unwrap();
    let log = Log::new(&config.announced);
    // What is said to a person is no log line.
    let said = String::from_utf8_lossy(&output.stderr);
    for line in said.lines().filter(|line| line.starts_with('{')) {
        log.line(line);
    }
    log.assert_as_announced(&format!("device-status {}", arguments.join(" ")));
    output
}

/// Asks an admin port: (HTTP status, body).
pub fn ask(admin: &str, path: &str) -> std::io::Result<(u16, String)> {
    let address = admin.parse().expect("an address");
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response)?;
    let response = String::from_utf8_lossy(&response).into_owned();
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or((&response, ""));
    let code = head.split_whitespace().nth(1).and_then(|code| code.parse().ok());
    let code = code.ok_or_else(|| std::io::Error::other(format!("not HTTP: {head}")))?;
    Ok((code, body.to_owned()))
}

/// The built binary.
pub fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_device-status")
}
