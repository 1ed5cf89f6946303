//! The connection to the server: made with a deadline, given up at the first
//! doubt, and able to run the scripts whatever the server has forgotten.

use std::time::Duration;

use redis::{Client, Cmd, Connection, ErrorKind, ServerErrorKind, Value};

use super::scripts;
use crate::error::Fatal;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an answer may take. The crate's 500 ms is less than a server needs
/// that forks, loads or is failing over.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The first and the longest wait between two attempts. The longest is well
/// within the interval in which a marker is checked.
const BACKOFF_MS: std::ops::RangeInclusive<i64> = 50..=2_000;

/// Reads `redis.url`.
///
/// # Errors
/// When it is no address of a server, in words for the person who wrote it.
pub fn open(url: &str) -> Result<Client, Fatal> {
    Client::open(url).map_err(|error| {
        let mut reason = error.to_string();
        if url.starts_with("rediss:") || url.starts_with("valkeys:") {
            reason = "this build has no TLS".to_owned();
        }
        Fatal::configuration(format!(
            "redis.url: {:?} is not an address of a Redis server ({reason}). \
             Write it as redis://[user:password@]host[:port][/database] \
             or unix:///path/to/socket.",
            redacted(url)
        ))
    })
}

/// The URL as it may be shown: without its password.
#[must_use]
pub fn redacted(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let Some((credentials, host)) = rest.rsplit_once('@') else { return url.to_owned() };
    let user = credentials.split_once(':').map_or("", |(user, _)| user);
    let separator = if scheme.is_empty() { "" } else { "://" };
    format!("{scheme}{separator}{user}:***@{host}")
}

/// Makes a connection with the deadlines above.
///
/// # Errors
/// When there is no server that answers.
pub fn connect(client: &Client) -> Result<Connection, String> {
    let attempt = || {
        let connection = client.get_connection_with_timeout(CONNECT_TIMEOUT)?;
        connection.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
        connection.set_write_timeout(Some(RESPONSE_TIMEOUT))?;
        Ok(connection)
    };
    attempt().map_err(|error: redis::RedisError| error.to_string())
}

/// What a command was answered with: a value, or the server's complaint.
pub type Answer = Result<Value, String>;

/// The worker's connection.
pub struct Link {
    client: Client,
    connection: Option<Connection>,
}

impl Link {
    /// A link that is not connected yet.
    #[must_use]
    pub fn new(client: Client) -> Link {
        Link { client, connection: None }
    }

    /// Whether there is a connection, as far as we know.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Connects and makes the server know the scripts, which also shows that it
    /// answers: a server that is still loading does not.
    ///
    /// Returns what people should know of the server although it takes writes.
    ///
    /// # Errors
    /// When that fails, or the server is one that takes no writes.
    pub fn connect(&mut self) -> Result<Option<String>, String> {
        self.connection = None;
        let mut connection = connect(&self.client)?;
        let info = info(&mut connection)?;
        if let Some(complaint) = replica(&info) {
            return Err(complaint);
        }
        load_scripts(&mut connection)?;
        self.connection = Some(connection);
        Ok(evicts(&info))
    }

    /// Sends commands in one go and collects the answers. A script that the
    /// server has forgotten is loaded and called again.
    ///
    /// # Errors
    /// When an answer did not come, so that nobody knows what was done. The
    /// connection is given up then.
    pub fn round_trip(&mut self, commands: &[Cmd]) -> Result<Vec<Answer>, String> {
        let mut connection = self.connection.take().ok_or("not connected")?;
        let mut answers = exchange(&mut connection, commands)?;
        let forgotten: Vec<usize> =
            (0..answers.len()).filter(|&i| is(&answers[i], ServerErrorKind::NoScript)).collect();
        if !forgotten.is_empty() {
            load_scripts(&mut connection)?;
            let again: Vec<Cmd> = forgotten.iter().map(|&i| commands[i].clone()).collect();
            for (i, answer) in forgotten.into_iter().zip(exchange(&mut connection, &again)?) {
                answers[i] = answer;
            }
        }
        // A replica that was the master a moment ago: the next connection may
        // lead to the new one.
        if answers.iter().any(|answer| is(answer, ServerErrorKind::ReadOnly)) {
            return Err("the server is a read-only replica".to_owned());
        }
        self.connection = Some(connection);
        Ok(answers.into_iter().map(|answer| answer.map_err(|error| error.to_string())).collect())
    }
}

/// What the server says of itself; nothing where it may not be asked.
fn info(connection: &mut Connection) -> Result<String, String> {
    let ask = |section: &str| redis::cmd("INFO").arg(section).to_owned();
    let answers = exchange(connection, &[ask("replication"), ask("memory")])?;
    let texts = answers.into_iter().filter_map(|answer| match answer.ok()? {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Value::VerbatimString { text, .. } => Some(text),
        _ => None,
    });
    Ok(texts.collect())
}

fn said<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn replica(info: &str) -> Option<String> {
    let read_only = said(info, "slave_read_only") != Some("0");
    (said(info, "role") == Some("slave") && read_only).then(|| {
        let master = said(info, "master_host").unwrap_or("?");
        let port = said(info, "master_port").unwrap_or("?");
        format!(
            "the server is a read-only replica of {master}:{port}; \
             redis.url must lead to the master"
        )
    })
}

fn evicts(info: &str) -> Option<String> {
    let policy = said(info, "maxmemory_policy").filter(|policy| *policy != "noeviction")?;
    let what = if policy.starts_with("volatile-") {
        "the tokens of deleted devices, which keep late writers out"
    } else {
        "devices, which then are missing until the sweep has come by or they change"
    };
    Some(format!(
        "Redis evicts when it is full: maxmemory-policy is {policy}. It will throw away {what}. \
         Set maxmemory-policy noeviction"
    ))
}

fn is(answer: &Result<Value, redis::RedisError>, kind: ServerErrorKind) -> bool {
    matches!(answer, Err(error) if error.kind() == ErrorKind::Server(kind))
}

fn load_scripts(connection: &mut Connection) -> Result<(), String> {
    for answer in exchange(connection, &scripts::load_commands())? {
        answer.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Sends commands in one go and collects the answers.
///
/// The crate's own pipelines go on waiting for each answer after one has timed
/// out, which for hundreds of commands is half an hour; this stops at once.
pub(super) fn exchange(
    connection: &mut Connection,
    commands: &[Cmd],
) -> Result<Vec<Result<Value, redis::RedisError>>, String> {
    if commands.is_empty() {
        return Ok(Vec::new());
    }
    let mut bytes = Vec::with_capacity(commands.len() * 384);
    for command in commands {
        command.write_packed_command(&mut bytes);
    }
    connection.send_packed_command(&bytes).map_err(|error| error.to_string())?;
    let mut answers = Vec::with_capacity(commands.len());
    while answers.len() < commands.len() {
        match connection.recv_response() {
            Ok(Value::Push { .. }) => {}
            Ok(value) => answers.push(value.extract_error()),
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(answers)
}

/// Waits between attempts: doubling, each somewhere in its upper half, so that
/// many processes do not come back in step.
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

    /// How long to wait still.
    #[must_use]
    pub fn remaining_ms(&self, monotonic_ms: i64) -> i64 {
        (self.until_ms - monotonic_ms).max(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_url_is_told_by_key_without_its_password() {
        let fatal = open("redis//me:secret@host").unwrap_err();
        assert!(fatal.message.contains("redis.url"), "{fatal}");
        assert!(!fatal.message.contains("secret"), "{fatal}");
        assert!(open("http://:secret@host").is_err_and(|fatal| !fatal.message.contains("secret")));
        assert_eq!(redacted("redis://me:s@cret@host/1"), "redis://me:***@host/1");
        assert_eq!(redacted("redis://host/1"), "redis://host/1");
    }

    #[test]
    fn a_server_that_is_not_fit_is_told_by_what_it_says() {
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
    fn waits_grow_to_a_limit_and_begin_anew() {
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
