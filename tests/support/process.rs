//! A child process that cannot outlive the test.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, kill_process};

pub use rustix::process::Signal;

use super::wait::wait_for;

/// A running program: its output is kept, and it is killed when this is
/// dropped or when the test process dies, however it dies.
pub struct Process {
    name: String,
    child: Child,
    /// Kills the child when this process's end of its pipe closes.
    watchdog: Child,
    lines: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts `command`. `name` is for messages.
    pub fn spawn(name: &str, command: Command) -> Process {
        Process::spawn_read_by(name, command, |line| line.to_owned())
    }

    /// The same; what is kept is what `read` makes of each line.
    pub fn spawn_read_by(
        name: &str,
        mut command: Command,
        read: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Process {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let watchdog = Command::new("sh")
            .args(["-c", "while read -r _; do :; done; kill -9 \"$1\" 2>/dev/null", "sh"])
            .arg(child.id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let read = Arc::new(read);
        let readers = vec![
            keep_lines(child.stdout.take().unwrap(), Arc::clone(&lines), Arc::clone(&read)),
            keep_lines(child.stderr.take().unwrap(), Arc::clone(&lines), read),
        ];
        Process { name: name.to_owned(), child, watchdog, lines, readers }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap_or_else(|error| panic!("{signal:?}: {error}"));
    }

    /// SIGSTOP: it stands still, its connections open.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGKILL, and waits for its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.dismiss_watchdog();
    }

    /// SIGTERM, and waits for its end.
    #[track_caller]
    pub fn terminate(&mut self, within: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait(within)
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let name = self.name.clone();
        let status = wait_for(within, &format!("{name} to end"), || {
            self.child.try_wait().unwrap().ok_or("it still runs")
        });
        self.dismiss_watchdog();
        status
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// All that it has printed so far, both streams.
    pub fn output(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// Waits until all that it printed is read; it must have ended.
    pub fn read_to_end(&mut self) {
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }

    /// Waits for a line of output that contains `text`, and returns it.
    #[track_caller]
    pub fn wait_for_output(&self, within: Duration, text: &str) -> String {
        let what = format!("{} to print {text:?}", self.name);
        wait_for(within, &what, || {
            let lines = self.lines.lock().unwrap();
            let found = lines.iter().find(|line| line.contains(text)).cloned();
            found.ok_or_else(|| format!("it printed:\n{}", lines.join("\n")))
        })
    }

    fn dismiss_watchdog(&mut self) {
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let lines = self.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let last = &lines[lines.len().saturating_sub(100)..];
            eprintln!("---- the last that {} printed:\n{}\n----", self.name, last.join("\n"));
        }
    }
}

fn keep_lines(
    stream: impl Read + Send + 'static,
    lines: Arc<Mutex<Vec<String>>>,
    read: Arc<impl Fn(&str) -> String + Send + Sync + 'static>,
) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut bytes = Vec::new();
        while stream.read_until(b'\n', &mut bytes).is_ok_and(|length| length > 0) {
            let line = String::from_utf8_lossy(&bytes);
            // Without its end it was cut off by a kill.
            let kept = line.strip_suffix('\n').map_or_else(|| line.to_string(), |line| read(line));
            lines.lock().unwrap().push(kept);
            bytes.clear();
        }
    })
}

/// A port that nobody listens on, below those that the system gives to
/// outgoing connections, so that it stays free while its owner restarts.
pub fn free_port() -> u16 {
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicU16, Ordering};

    static NEXT: AtomicU16 = AtomicU16::new(0);
    let seed = u16::try_from(std::process::id() % 12_000).unwrap();
    for _ in 0..1000 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + (seed.wrapping_mul(61).wrapping_add(step)) % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("found no free port")
}
