//! The demo's own Redis server.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::clock::SystemClock;
use crate::error::Fatal;
use crate::stream_thread::ports::Clock;

/// How long the server may take to answer.
const STARTED_WITHIN_MS: i64 = 5_000;

/// Kills the server and removes its directory when standard input ends, which
/// happens when the demo ends in any way.
const GUARD: &str = r#"
directory=$1; shift
redis-server --dir "$directory" "$@" </dev/null >"$directory/redis.log" 2>&1 &
while read -r _; do :; done
kill -9 $! 2>/dev/null
rm -rf "$directory"
"#;

/// A running `redis-server` on a free port, which leaves nothing behind.
pub(super) struct RedisServer {
    guard: Child,
    port: u16,
}

impl RedisServer {
    pub(super) fn start(port: u16, clock: &SystemClock) -> Result<RedisServer, Fatal> {
        let directory = directory()?;
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "redis-guard"]).arg(&directory);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
        command.args(["--save", "", "--appendonly", "no"]);
        // Not in the terminal's process group: at Ctrl-C the service must finish
        // before Redis ends.
        command.process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let guard = command
            .spawn()
            .map_err(|error| Fatal::unavailable(format!("cannot start sh for Redis: {error}")))?;
        let server = RedisServer { guard, port };
        let started_ms = clock.monotonic_ms();
        while !server.answers() {
            if clock.monotonic_ms() - started_ms > STARTED_WITHIN_MS {
                let log = std::fs::read_to_string(directory.join("redis.log")).unwrap_or_default();
                return Err(Fatal::unavailable(format!(
                    "redis-server does not start: {}. `make demo` installs it; or install \
                     Debian's package redis-server",
                    log.lines().last().unwrap_or("it said nothing")
                )));
            }
            SystemClock::pause(Duration::from_millis(20));
        }
        Ok(server)
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn answers(&self) -> bool {
        let ping = || -> std::io::Result<bool> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_read_timeout(Some(Duration::from_millis(500)))?;
            stream.write_all(b"PING\r\n")?;
            let mut reply = [0; 5];
            stream.read_exact(&mut reply)?;
            Ok(&reply == b"+PONG")
        };
        ping().unwrap_or(false)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // `wait` first closes the guard's standard input.
        let _ = self.guard.wait();
    }
}

fn directory() -> Result<PathBuf, Fatal> {
    let name = format!("device-status-demo-{}", uuid::Uuid::new_v4());
    let directory = std::env::temp_dir().join(name);
    std::fs::create_dir(&directory)
        .map_err(|error| Fatal::unavailable(format!("{}: {error}", directory.display())))?;
    Ok(directory)
}
