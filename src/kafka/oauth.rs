//! `kafka.oauth_command`: a program that prints a token for OAUTHBEARER and its expiry,
//! as the exec credentials of kubectl.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde::Deserialize;

use crate::clock::{Clock, SystemClock};
use crate::error::Fatal;
use crate::wire::status_changed::instant;

/// How long the program may take.
const TIMEOUT_MS: i64 = 10_000;
/// Pause between two looks whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long its output may take to arrive after its end. A child of its own may keep the
/// pipe open.
const OUTPUT_WITHIN: Duration = Duration::from_secs(1);
/// How much of its output is kept, in bytes.
const OUTPUT_MAX: u64 = 64 << 10;
/// How much of its standard error is shown, in characters.
const SHOWN_MAX: usize = 500;

/// The form of the output, for messages.
const FORM: &str = "one JSON object {\"token\": \"…\", \"expires_at\": \"2026-01-31T12:00:00Z\"}";

/// A token. Its value is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// What the client sends.
    pub value: String,
    /// When it expires, in milliseconds since 1970.
    pub expires_ms: i64,
    /// Whose it is. Only librdkafka's own log shows it.
    pub principal: String,
    /// SASL extensions, such as `logicalCluster`.
    pub extensions: BTreeMap<String, String>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token {{ expires_ms: {} }}", self.expires_ms)
    }
}

/// The output of the program. More fields are allowed.
#[derive(Deserialize)]
struct Printed {
    token: String,
    expires_at: Expiry,
    #[serde(default)]
    principal: String,
    #[serde(default)]
    extensions: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Expiry {
    Milliseconds(i64),
    Text(String),
}

/// Runs the program, and reads the token that it prints.
///
/// # Errors
/// What went wrong, with the program's standard error, and what to do. Of kind
/// configuration if it cannot be run or prints something else, and unavailable if it
/// fails or takes too long.
pub fn run(command: &[String], clock: &dyn Clock) -> Result<Token, Fatal> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(Fatal::configuration("kafka.oauth_command is empty; name a program"));
    };
    let started_ms = clock.monotonic_ms();
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| {
            Fatal::configuration(format!(
                "kafka.oauth_command: {program:?} cannot be run: {error}; give the path of a \
                 program that this process may run"
            ))
        })?;
    let output = child.stdout.take().map(collect);
    let errors = child.stderr.take().map(collect);
    let told = |errors: Option<Receiver<Vec<u8>>>| shown(&received(errors));
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => break,
            Ok(Some(status)) => {
                return Err(Fatal::unavailable(format!(
                    "kafka.oauth_command: {program:?} ended with {}: {}; {BY_HAND}",
                    ending(status),
                    told(errors)
                )));
            }
            Ok(None) if clock.monotonic_ms() - started_ms < TIMEOUT_MS => {
                SystemClock::pause(LOOK_EVERY);
            }
            still => {
                let _ = child.kill();
                let _ = child.wait();
                let why = match still {
                    Err(error) => error.to_string(),
                    _ => format!("no end within {} s", TIMEOUT_MS / 1_000),
                };
                return Err(Fatal::unavailable(format!(
                    "kafka.oauth_command: {program:?} was killed, {why}: {}; {BY_HAND}",
                    told(errors)
                )));
            }
        }
    }
    read(&received(output), clock.wall().0)
        .map_err(|what| Fatal::configuration(format!("kafka.oauth_command: {program:?} {what}")))
}

const BY_HAND: &str = "run it by hand, as the user and with the environment of this process";

/// Reads a pipe on a thread of its own, to its end, and keeps the beginning.
fn collect(mut pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    // If the thread cannot start, there is no output.
    let _ = std::thread::Builder::new().name("oauth-output".into()).spawn(move || {
        let mut kept = Vec::new();
        let _ = pipe.by_ref().take(OUTPUT_MAX).read_to_end(&mut kept);
        let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        let _ = sender.send(kept);
    });
    receiver
}

fn received(pipe: Option<Receiver<Vec<u8>>>) -> Vec<u8> {
    pipe.and_then(|pipe| pipe.recv_timeout(OUTPUT_WITHIN).ok()).unwrap_or_default()
}

fn ending(status: ExitStatus) -> String {
    // Without a code it was ended by a signal, which the status names.
    status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"))
}

/// Standard error on one line, its end if it is long.
fn shown(errors: &[u8]) -> String {
    let text = String::from_utf8_lossy(errors);
    let text: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match text.chars().count() {
        0 => "it says nothing on standard error".to_owned(),
        long if long > SHOWN_MAX => {
            format!("… {}", text.chars().skip(long - SHOWN_MAX).collect::<String>())
        }
        _ => text,
    }
}

/// Reads the output. No error shows any of it: it may be a secret.
fn read(output: &[u8], now_ms: i64) -> Result<Token, String> {
    let printed: Printed = serde_json::from_slice(output).map_err(|error| {
        format!(
            "printed something else than {FORM} (line {}, column {})",
            error.line(),
            error.column()
        )
    })?;
    let expires_ms = match printed.expires_at {
        Expiry::Milliseconds(ms) => ms,
        Expiry::Text(text) => {
            let time: prost_types::Timestamp = text.parse().map_err(|_| {
                "printed an expires_at that is neither RFC 3339 nor milliseconds since 1970"
                    .to_owned()
            })?;
            instant(time).0
        }
    };
    if printed.token.is_empty() {
        return Err("printed an empty token".to_owned());
    }
    if expires_ms <= now_ms {
        return Err(format!(
            "printed a token that expired {} s ago; check the clocks of this host and of the \
             issuer, and that expires_at is in milliseconds if it is a number",
            (now_ms - expires_ms) / 1_000
        ));
    }
    let Printed { token: value, principal, extensions, .. } = printed;
    Ok(Token { value, expires_ms, principal, extensions })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_760_000_000_000;

    #[test]
    fn output_is_read_with_all_that_it_may_have() {
        let token = read(br#"{"token":"t","expires_at":"2025-10-09T11:00:00+02:00"}"#, NOW_MS);
        assert_eq!(token.unwrap().expires_ms, 1_760_000_400_000);
        let all = br#"{"apiVersion":"v1","token":"t","expires_at":1760000000001,"principal":"p",
            "extensions":{"logicalCluster":"lkc-1"}}"#;
        let token = read(all, NOW_MS).unwrap();
        assert_eq!((token.value.as_str(), token.principal.as_str()), ("t", "p"));
        assert_eq!(token.expires_ms, NOW_MS + 1);
        assert_eq!(token.extensions["logicalCluster"], "lkc-1");
        assert!(!format!("{token:?}").contains("\"t\""));
    }

    #[test]
    fn other_output_is_reported_without_showing_it() {
        for (output, words) in [
            ("hunter2", "line 1, column"),
            ("", "one JSON object"),
            (r#"{"token":["hunter2"],"expires_at":1}"#, "one JSON object"),
            (r#"{"token":"hunter2"}"#, "expires_at"),
            (r#"{"token":"hunter2","expires_at":"hunter2"}"#, "neither RFC 3339"),
            (r#"{"token":"hunter2","expires_at":1760000000}"#, "in milliseconds"),
            (r#"{"token":"","expires_at":1860000000000}"#, "empty token"),
        ] {
            let what = read(output.as_bytes(), NOW_MS).unwrap_err();
            assert!(what.contains(words), "{what}");
            assert!(!what.contains("hunter2"), "{what}");
        }
    }

    #[test]
    fn a_failing_program_is_reported_with_its_words() {
        let clock = SystemClock::new();
        let run = |script: &str| {
            let command = ["/bin/sh", "-c", script].map(str::to_owned);
            run(&command, &clock).map_err(|fatal| fatal.message)
        };
        let said = run("echo 'no role' >&2; exit 3").unwrap_err();
        assert!(said.contains("ended with exit code 3: no role; run it by hand"), "{said}");
        let said = run("kill -9 $$").unwrap_err();
        assert!(said.contains("signal: 9") && said.contains("says nothing"), "{said}");
        // What it prints beyond the limit does not block it.
        let said = run("head -c 1000000 /dev/zero; exit 4").unwrap_err();
        assert!(said.contains("exit code 4"), "{said}");
        let said = super::run(&["/no/such/program".to_owned()], &clock).unwrap_err().message;
        assert!(said.contains("\"/no/such/program\" cannot be run"), "{said}");
    }
}
