//! The worker's connections. They are made with a timeout and closed at the first
//! unanswered command. Scripts that a server has forgotten are loaded again.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use redis::{Cmd, ErrorKind, ServerErrorKind};

use super::access::{Access, complaint, said};
use super::nodes::{Nodes, Reply};
use crate::view::core::answer::{Answer, text};
use crate::view::core::layout::Layout;
use crate::view::core::port::Server;
use crate::view::core::scripts;

/// How often the scripts are loaded during one exchange.
const LOADS_MAX: usize = 3;

/// The first and the longest wait between two attempts. The longest is well below the
/// interval between two checks of a marker.
const BACKOFF_MS: std::ops::RangeInclusive<i64> = 50..=2_000;

/// How often the eviction policy of the servers is read.
const POLICY_MS: i64 = 60_000;

/// The worker's connections.
pub struct Link {
    access: Arc<Access>,
    nodes: Option<Nodes>,
    /// When the eviction policy is read next; `None` after it was read.
    policy_due_ms: Option<i64>,
}

impl Link {
    /// A link without a connection.
    #[must_use]
    pub fn new(access: Access) -> Link {
        Link { access: Arc::new(access), nodes: None, policy_due_ms: None }
    }

    /// Whether there is a connection.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.nodes.is_some()
    }

    /// Connects to all servers and loads the scripts. That also tests that they answer,
    /// which a server that still loads its data does not.
    ///
    /// Returns a warning if a server evicts keys when its memory is full.
    ///
    /// # Errors
    /// When that fails, or a server is a read-only replica.
    pub fn connect(&mut self) -> Result<Option<String>, String> {
        self.nodes = None;
        let mut nodes = Nodes::connect(&self.access)?;
        let mut evicting = None;
        for node in 0..nodes.len() {
            let info = info(&mut nodes, node)?;
            if let Some(complaint) = replica(&info) {
                return Err(complaint);
            }
            evicting = evicting.or_else(|| evicts(&info));
        }
        load_scripts(&mut nodes)?;
        nodes.take_changed();
        self.nodes = Some(nodes);
        self.policy_due_ms = None;
        Ok(evicting)
    }

    /// Reads the eviction policy again once a minute, since it may have been changed.
    /// `None`: it was not read now. The connection is closed if that fails.
    pub fn policy_again(&mut self, now_ms: i64) -> Option<Option<String>> {
        if now_ms < *self.policy_due_ms.get_or_insert(now_ms + POLICY_MS) {
            return None;
        }
        let mut nodes = self.nodes.take()?;
        let mut evicting = None;
        for node in 0..nodes.len() {
            evicting = evicting.or(evicts(&info(&mut nodes, node).ok()?));
        }
        self.nodes = Some(nodes);
        self.policy_due_ms = None;
        Some(evicting)
    }

    /// Which node holds which key.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.nodes.as_ref().map(Nodes::layout).unwrap_or_default()
    }

    /// Reads the slots of a cluster again, from time to time. The connection is closed
    /// if that fails, as after any unanswered command.
    pub fn look_again(&mut self, now_ms: i64) {
        if let Some(nodes) = &mut self.nodes
            && nodes.look_again(now_ms).is_err()
        {
            self.nodes = None;
        }
    }

    /// The layout, if it has changed since the last connection or call.
    pub fn new_layout(&mut self) -> Option<Layout> {
        let nodes = self.nodes.as_mut()?;
        nodes.take_changed().then(|| nodes.layout())
    }

    /// Sends commands as one pipeline and collects the answers. A script that a server
    /// has forgotten is loaded and called again.
    ///
    /// # Errors
    /// When an answer did not come, so the commands may or may not have run. The
    /// connections are closed then.
    pub fn exchange(&mut self, commands: &[Cmd]) -> Result<Vec<Answer>, String> {
        let mut nodes = self.nodes.take().ok_or("not connected")?;
        let mut answers = nodes.exchange(commands)?;
        // A second load is needed if a call is redirected to a new node.
        for _ in 0..LOADS_MAX {
            let forgotten: Vec<usize> = (0..answers.len())
                .filter(|&i| is(&answers[i], ServerErrorKind::NoScript))
                .collect();
            if forgotten.is_empty() {
                break;
            }
            load_scripts(&mut nodes)?;
            let again: Vec<Cmd> = forgotten.iter().map(|&i| commands[i].clone()).collect();
            for (i, answer) in forgotten.into_iter().zip(nodes.exchange(&again)?) {
                answers[i] = answer;
            }
        }
        // The server was demoted to a replica: a new connection may lead to the new
        // master.
        let read_only = |answer: &Reply| {
            // Before Redis 7 the error of a script has it only in its text.
            let named = matches!(answer, Err(error) if error.to_string().contains("READONLY"));
            named || is(answer, ServerErrorKind::ReadOnly)
        };
        if answers.iter().any(read_only) {
            return Err("the server is a read-only replica".to_owned());
        }
        self.nodes = Some(nodes);
        Ok(answers.into_iter().map(|answer| answer.map_err(|error| complaint(&error))).collect())
    }
}

/// All answers have come when a call returns.
impl Server for Link {
    async fn round_trip(&mut self, commands: &[Cmd]) -> Result<Vec<Answer>, String> {
        self.exchange(commands)
    }

    async fn ask_server(&mut self, server: usize, command: &Cmd) -> Result<Answer, String> {
        let mut nodes = self.nodes.take().ok_or("not connected")?;
        let answers = nodes.exchange_on(server, std::slice::from_ref(command))?;
        self.nodes = Some(nodes);
        let answer = answers.into_iter().next().ok_or("no answer")?;
        Ok(answer.map_err(|error| complaint(&error)))
    }

    fn servers(&self) -> usize {
        self.nodes.as_ref().map_or(0, Nodes::len)
    }
}

/// Runs a future that uses a [`Link`]. It never has to wait.
pub fn run<T>(asking: impl Future<Output = T>) -> T {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(asking).poll(&mut context) {
        Poll::Ready(done) => done,
        Poll::Pending => unreachable!("a link answers before it returns"),
    }
}

/// The answer to `INFO`; empty if the user may not ask.
fn info(nodes: &mut Nodes, node: usize) -> Result<String, String> {
    let ask = |section: &str| redis::cmd("INFO").arg(section).to_owned();
    let answers = nodes.exchange_on(node, &["replication", "memory"].map(ask))?;
    Ok(answers.into_iter().filter_map(|answer| text(&answer.ok()?)).collect())
}

fn replica(info: &str) -> Option<String> {
    let read_only = said(info, "slave_read_only") != Some("0");
    (said(info, "role") == Some("slave") && read_only).then(|| {
        let master = said(info, "master_host").unwrap_or("?");
        let port = said(info, "master_port").unwrap_or("?");
        format!(
            "the server is a read-only replica of {master}:{port}; \
             redis.url must name the master"
        )
    })
}

fn evicts(info: &str) -> Option<String> {
    let policy = said(info, "maxmemory_policy").filter(|policy| *policy != "noeviction")?;
    let what = if policy.starts_with("volatile-") {
        "the tokens of deleted devices, which fence late writers"
    } else {
        "devices, which are then missing until they change or the sweep repairs them"
    };
    Some(format!(
        "Redis evicts keys when its memory is full: maxmemory-policy is {policy}. It evicts \
         {what}. Set maxmemory-policy to noeviction"
    ))
}

fn is(answer: &Reply, kind: ServerErrorKind) -> bool {
    matches!(answer, Err(error) if error.kind() == ErrorKind::Server(kind))
}

fn load_scripts(nodes: &mut Nodes) -> Result<(), String> {
    let commands = scripts::load_commands();
    for node in 0..nodes.len() {
        for answer in nodes.exchange_on(node, &commands)? {
            answer.map_err(|error| complaint(&error))?;
        }
    }
    Ok(())
}

/// Exponential backoff with jitter: each wait is in the upper half of its interval, so
/// that processes do not reconnect all at once.
#[derive(Debug, Default)]
pub struct Backoff {
    last_ms: i64,
    until_ms: i64,
}

impl Backoff {
    /// An attempt failed.
    pub fn failed(&mut self, monotonic_ms: i64) {
        self.last_ms = (self.last_ms * 2).clamp(*BACKOFF_MS.start(), *BACKOFF_MS.end());
        let jittered = rand::random_range(self.last_ms / 2..=self.last_ms);
        self.until_ms = monotonic_ms + jittered;
    }

    /// An attempt succeeded.
    pub fn succeeded(&mut self) {
        *self = Backoff::default();
    }

    /// The remaining wait.
    #[must_use]
    pub fn remaining_ms(&self, monotonic_ms: i64) -> i64 {
        (self.until_ms - monotonic_ms).max(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsuitable_servers_are_recognized_by_info() {
        let master = "# Replication\r\nrole:master\r\nmaxmemory_policy:noeviction\r\n";
        assert_eq!((replica(master), evicts(master)), (None, None));
        assert_eq!((replica(""), evicts("")), (None, None));
        let slave = "role:slave\r\nmaster_host:m\r\nmaster_port:7\r\nslave_read_only:1\r\n";
        assert!(replica(slave).unwrap().contains("m:7"));
        assert_eq!(replica("role:slave\r\nslave_read_only:0\r\n"), None);
        assert!(evicts("maxmemory_policy:allkeys-lru\r\n").unwrap().contains("allkeys-lru"));
        assert!(evicts("maxmemory_policy:volatile-ttl\r\n").unwrap().contains("tokens"));
    }

    #[test]
    fn backoff_grows_to_a_limit_and_resets() {
        let mut backoff = Backoff::default();
        for _ in 0..20 {
            backoff.failed(0);
            assert!(backoff.remaining_ms(0) >= BACKOFF_MS.start() / 2);
            assert!(backoff.remaining_ms(0) <= *BACKOFF_MS.end());
        }
        assert!(backoff.remaining_ms(0) >= BACKOFF_MS.end() / 2);
        backoff.succeeded();
        assert_eq!(backoff.remaining_ms(0), 0);
    }
}
