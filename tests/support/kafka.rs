//! A real Kafka broker: how it starts and how it ends.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rustix::process::{Pid, Signal, kill_process};

use super::process::free_port;
#[allow(unused_imports, reason = "each test binary uses a part of it")]
pub use super::topics::{EventProducer, Isolation, RawRecord, Record, ServiceTopics, TopicReader};
use super::wait::{wait_for, wait_until};

/// How long a broker may take to start, its download not counted.
const START_WITHIN: Duration = Duration::from_secs(60);

/// A broker of its own, on a free port, with its data in a temporary
/// directory. It ends with the test process, however that ends.
pub struct KafkaBroker {
    port: u16,
    controller_port: u16,
    /// Of Apache Kafka, if not that of `scripts/kafka/pom.xml`.
    version: Option<&'static str>,
    properties: Vec<(String, String)>,
    /// Other options of `scripts/kafka.sh start`.
    options: Vec<String>,
    running: Mutex<Option<Running>>,
    /// `None` for the shared one, whose wrapper deletes its data.
    directory: Option<tempfile::TempDir>,
    data: PathBuf,
}

struct Running {
    /// `scripts/kafka.sh start --bound`; the broker ends when its stdin closes.
    wrapper: Child,
    broker: Pid,
}

impl KafkaBroker {
    /// Starts a broker that belongs to one test.
    pub fn start() -> KafkaBroker {
        KafkaBroker::start_with(&[])
    }

    /// Starts one with other settings than those of `scripts/kafka.sh`.
    pub fn start_with(properties: &[(&str, &str)]) -> KafkaBroker {
        let directory = own_directory();
        let data = directory.path().join("data");
        KafkaBroker::launch(free_port(), data, Some(directory), properties, &[])
    }

    /// Starts one whose data is in a given place, such as a disk that can fill up.
    pub fn start_on(data: &Path) -> KafkaBroker {
        KafkaBroker::launch(free_port(), data.to_owned(), Some(own_directory()), &[], &[])
    }

    /// A second node of the cluster that this broker is the only controller of.
    pub fn second_node(&self) -> KafkaBroker {
        let meta = std::fs::read_to_string(self.data.join("logs/meta.properties")).unwrap();
        let cluster = meta.lines().find(|line| line.starts_with("cluster.id=")).unwrap();
        let directory = own_directory();
        let data = directory.path().join("data");
        std::fs::create_dir_all(data.join("logs")).unwrap();
        // The tool that formats would give it another cluster.
        let own = format!("version=1\n{cluster}\nnode.id=2\ndirectory.id=c29tZS1kaXJlY3RvcnkhIQ\n");
        std::fs::write(data.join("logs/meta.properties"), own).unwrap();
        let port = free_port();
        let properties = [
            ("process.roles", "broker"),
            ("node.id", "2"),
            ("controller.quorum.voters", &format!("1@127.0.0.1:{}", self.controller_port)),
            ("listeners", &format!("PLAINTEXT://127.0.0.1:{port}")),
        ];
        KafkaBroker::launch(port, data, Some(directory), &properties, &[])
    }

    /// Starts one with these options of `scripts/kafka.sh start`.
    pub fn start_with_options(options: &[String]) -> KafkaBroker {
        let directory = own_directory();
        let data = directory.path().join("data");
        KafkaBroker::launch(free_port(), data, Some(directory), &[], options)
    }

    /// The same of another version.
    pub fn start_version(
        version: &'static str,
        properties: &[(&str, &str)],
        options: &[String],
    ) -> KafkaBroker {
        let directory = own_directory();
        let data = directory.path().join("data");
        let (port, directory) = (free_port(), Some(directory));
        KafkaBroker::launch_version(Some(version), port, data, directory, properties, options)
    }

    /// The broker that the tests of one test binary share: it starts at the
    /// first call. Use names of your own on it ([`KafkaBroker::unique`]).
    pub fn shared() -> &'static KafkaBroker {
        static SHARED: OnceLock<KafkaBroker> = OnceLock::new();
        SHARED.get_or_init(|| {
            let name = format!("device-status-kafka-shared-{}", std::process::id());
            // On a machine that is busy with many tests it is slow to say that it
            // lives; to be taken out of service for that is no part of any of them.
            let patient = [("broker.session.timeout.ms", "60000")];
            KafkaBroker::launch(free_port(), std::env::temp_dir().join(name), None, &patient, &[])
        })
    }

    fn launch(
        port: u16,
        data: PathBuf,
        directory: Option<tempfile::TempDir>,
        properties: &[(&str, &str)],
        options: &[String],
    ) -> KafkaBroker {
        KafkaBroker::launch_version(None, port, data, directory, properties, options)
    }

    fn launch_version(
        version: Option<&'static str>,
        port: u16,
        data: PathBuf,
        directory: Option<tempfile::TempDir>,
        properties: &[(&str, &str)],
        options: &[String],
    ) -> KafkaBroker {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let broker = KafkaBroker {
            port,
            controller_port: free_port(),
            version,
            properties: properties.iter().map(own).collect(),
            options: options.to_vec(),
            running: Mutex::new(None),
            directory,
            data,
        };
        broker.restart();
        broker
    }

    /// What goes into `bootstrap.servers`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where its log files are.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Starts it again, on the same port and data; it must not be running.
    pub fn restart(&self) {
        let mut running = self.running.lock().unwrap();
        assert!(running.is_none(), "the broker is running already");
        fetch_once(self.version);
        let mut command = kafka_sh(self.version);
        command
            .args(["start", "--bound", "--port", &self.port.to_string()])
            .args(["--controller-port", &self.controller_port.to_string()])
            .arg("--data")
            .arg(&self.data);
        if self.directory.is_none() {
            command.arg("--ephemeral");
        }
        // A killed member is missed sooner than after the usual 45 s.
        command.args(["--property", "group.consumer.session.timeout.ms=10000"]);
        for (key, value) in &self.properties {
            command.arg("--property").arg(format!("{key}={value}"));
        }
        command.args(&self.options);
        // A process group of its own: Ctrl-C is for the test, whose end the
        // wrapper notices.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut wrapper = command.spawn().expect("scripts/kafka.sh");
        let mut line = String::new();
        let mut output = BufReader::new(wrapper.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        // listening ADDRESS process PID
        let Some(broker) = line.split_whitespace().nth(3).and_then(|pid| pid.parse().ok()) else {
            let status = wrapper.wait();
            panic!("the broker does not start ({status:?}); its own words are above");
        };
        *running = Some(Running { wrapper, broker: Pid::from_raw(broker).unwrap() });
        drop(running);
        let consumer = self.consumer_config().create::<BaseConsumer>().unwrap();
        wait_for(START_WITHIN, "the broker to answer", || {
            consumer.fetch_metadata(None, Duration::from_secs(1)).map(|_| ())
        });
    }

    /// Shuts it down as an operator would, and waits for its end.
    pub fn stop(&self) {
        self.end(Signal::TERM);
    }

    /// SIGKILL.
    pub fn kill(&self) {
        self.end(Signal::KILL);
    }

    /// SIGSTOP: connections stay open, nobody answers. Returns once all its threads
    /// have stopped: until then one may answer still.
    #[track_caller]
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        let broker = self.running.lock().unwrap().as_ref().expect("it runs").broker;
        let tasks = format!("/proc/{}/task", broker.as_raw_nonzero());
        wait_until(START_WITHIN, "the broker to have stopped", || {
            std::fs::read_dir(&tasks).unwrap().flatten().all(|task| {
                let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                // The state follows the name, which may hold anything.
                stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('T'))
            })
        });
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let running = self.running.lock().unwrap();
        let running = running.as_ref().expect("the broker is not running");
        kill_process(running.broker, signal).unwrap();
    }

    /// Waits until it has ended by itself.
    #[track_caller]
    pub fn wait_for_its_end(&self, within: Duration) {
        let mut running = self.running.lock().unwrap();
        let Running { mut wrapper, .. } = running.take().expect("the broker is not running");
        wait_for(within, "the broker to give up", || {
            wrapper.try_wait().unwrap().ok_or("it still runs")
        });
    }

    fn end(&self, signal: Signal) {
        let mut running = self.running.lock().unwrap();
        let Running { mut wrapper, broker } = running.take().expect("the broker is not running");
        kill_process(broker, signal).unwrap();
        // Not `Child::wait`, which closes stdin, and so would kill it at once.
        wait_for(Duration::from_secs(60), "the broker to end", || {
            wrapper.try_wait().unwrap().ok_or("it still runs")
        });
    }

    /// A name that no other test uses: `label` and a number.
    pub fn unique(&self, label: &str) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        format!("{label}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Its id in its cluster.
    pub(super) fn node(&self) -> i32 {
        let id = self.properties.iter().find(|(key, _)| key == "node.id");
        id.map_or(1, |(_, id)| id.parse().unwrap())
    }
}

impl Drop for KafkaBroker {
    fn drop(&mut self) {
        let running = self.running.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(Running { mut wrapper, .. }) = running.take() {
            // Closes its stdin, and so ends the broker.
            let _ = wrapper.wait();
        }
    }
}

fn own_directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("device-status-kafka-").tempdir().unwrap()
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/kafka.sh")
}

/// `scripts/kafka.sh` for a version.
fn kafka_sh(version: Option<&str>) -> Command {
    let mut command = Command::new(script());
    match version {
        Some(version) => command.env("KAFKA_VERSION", version),
        None => command.env_remove("KAFKA_VERSION"),
    };
    command
}

/// Gets the broker's files, which takes a while the first time.
fn fetch_once(version: Option<&'static str>) {
    static FETCHED: Mutex<Vec<Option<&str>>> = Mutex::new(Vec::new());
    let mut fetched = FETCHED.lock().unwrap();
    if !fetched.contains(&version) {
        let status = kafka_sh(version).arg("fetch").stdin(Stdio::null()).status().unwrap();
        assert!(status.success(), "scripts/kafka.sh fetch failed; its own words are above");
        fetched.push(version);
    }
}
