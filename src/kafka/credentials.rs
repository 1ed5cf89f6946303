//! Credentials that change while clients run: the token of `kafka.oauth_command`, and
//! user and password in files.
//!
//! One thread of the process renews them: a token at 80 % of its lifetime, files when a
//! broker refuses the login. So no client waits for a program or a file. Each client
//! takes what is new wherever its owner serves it (`native::Tended`). librdkafka's own
//! event for a due token is not used: it comes only to clients that are polled, and
//! rust-rdkafka passes no SASL extensions on.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, OnceLock};
use std::time::Duration;

use tracing::{debug, info, warn};

use super::oauth::{self, Token};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, secret_in};
use crate::error::{Fatal, FatalKind, lock};

/// How long to wait for the first token: longer than the program may take.
const FIRST_WITHIN: Duration = Duration::from_secs(15);
/// Pause after a failed renewal, and the least time between two.
const AGAIN: Duration = Duration::from_secs(10);
/// The least time between two looks into the files.
const FILES_AGAIN: Duration = Duration::from_secs(1);
/// The longest sleep of the thread, whatever the lifetime of a token.
const SLEEP_MAX: Duration = Duration::from_secs(24 * 3_600);

/// What clients sign in with.
#[derive(Clone)]
pub enum Credential {
    /// For OAUTHBEARER.
    Token(Token),
    /// For PLAIN and SCRAM.
    #[allow(missing_docs, reason = "as the properties")]
    Login { username: String, password: String },
}

/// Where it comes from.
enum Source {
    Program(Vec<String>),
    Files { username: Text, password: Text },
}

/// A text of the configuration, and the file that it was read from.
struct Text {
    value: String,
    file: Option<PathBuf>,
}

impl Text {
    fn new(value: Option<&String>, file: Option<&Path>) -> Text {
        Text { value: value.cloned().unwrap_or_default(), file: file.map(Path::to_owned) }
    }

    fn read(&self) -> Result<String, String> {
        let Some(file) = &self.file else { return Ok(self.value.clone()) };
        secret_in(file).map_err(|what| format!("{} {what}", file.display()))
    }
}

#[derive(Default)]
struct State {
    credential: Option<Credential>,
    /// Why there is none, at first.
    failure: Option<(FatalKind, String)>,
    /// A broker has refused what clients signed in with.
    refused: bool,
}

struct Keeper {
    /// Counts the credentials that came after those of the configuration.
    generation: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

static KEEPER: OnceLock<Option<&'static Keeper>> = OnceLock::new();

/// Starts the thread, if the configuration has credentials that change. The first
/// configuration of the process counts.
pub fn keep(config: &Config) {
    KEEPER.get_or_init(|| {
        let kafka = &config.kafka;
        let property = |name: &str| kafka.properties.get(name);
        let source = if !kafka.oauth_command.is_empty() {
            Source::Program(kafka.oauth_command.clone())
        } else if kafka.username_file.is_some() || kafka.password_file.is_some() {
            Source::Files {
                username: Text::new(property("sasl.username"), kafka.username_file.as_deref()),
                password: Text::new(property("sasl.password"), kafka.password_file.as_deref()),
            }
        } else {
            return None;
        };
        let keeper = Box::leak(Box::new(Keeper {
            generation: AtomicU64::new(0),
            state: Mutex::default(),
            changed: Condvar::new(),
        }));
        let keeper: &'static Keeper = keeper;
        std::thread::Builder::new()
            .name("kafka-sign-in".into())
            .spawn(move || keeper.run(&source))
            .is_ok()
            .then_some(keeper)
    });
}

/// Waits for the first token of `kafka.oauth_command`, if there is one.
///
/// # Errors
/// Why there is none, and what to do.
pub fn wait_for_token(config: &Config) -> Result<(), Fatal> {
    let Some(Some(keeper)) = KEEPER.get() else { return Ok(()) };
    if config.kafka.oauth_command.is_empty() {
        return Ok(());
    }
    let waits = |state: &mut State| state.credential.is_none() && state.failure.is_none();
    let state = keeper.changed.wait_timeout_while(lock(&keeper.state), FIRST_WITHIN, waits);
    let Ok((state, _)) = state else { return Ok(()) };
    match (&state.credential, &state.failure) {
        (None, Some((kind, message))) => Err(Fatal { kind: *kind, message: message.clone() }),
        _ => Ok(()),
    }
}

/// A broker has refused a login: the files are read again.
pub fn refused() {
    if let Some(Some(keeper)) = KEEPER.get() {
        lock(&keeper.state).refused = true;
        keeper.changed.notify_all();
    }
}

/// Whether librdkafka's message says that a broker has refused a login.
#[must_use]
pub fn is_refusal(message: &str) -> bool {
    message.contains("SASL") && message.contains("uthentication")
}

/// Counts the credentials that came after those of the configuration.
#[must_use]
pub fn generation() -> u64 {
    let keeper = KEEPER.get().copied().flatten();
    keeper.map_or(0, |keeper| keeper.generation.load(Ordering::Acquire))
}

/// The credentials that came last, if any came after those of the configuration.
#[must_use]
pub fn current() -> Option<Credential> {
    let keeper = KEEPER.get().copied().flatten()?;
    lock(&keeper.state).credential.clone()
}

impl Keeper {
    fn run(&self, source: &Source) {
        match source {
            Source::Program(command) => self.renew(command),
            Source::Files { username, password } => self.watch(username, password),
        }
    }

    fn put(&self, credential: Credential) {
        lock(&self.state).credential = Some(credential);
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.changed.notify_all();
    }

    fn renew(&self, command: &[String]) -> ! {
        let clock = SystemClock::new();
        loop {
            let pause = match oauth::run(command, &clock) {
                Ok(token) => {
                    let left_ms = token.expires_ms.saturating_sub(clock.wall().0);
                    debug!(valid_s = left_ms / 1_000, "kafka.oauth_command has given a token");
                    self.put(Credential::Token(token));
                    // librdkafka too asks for a new one at this time.
                    let pause_ms = u64::try_from(left_ms / 5 * 4).unwrap_or(0);
                    Duration::from_millis(pause_ms).clamp(Duration::from_secs(1), SLEEP_MAX)
                }
                Err(fatal) => {
                    let had = lock(&self.state).credential.is_some();
                    if had {
                        warn!(
                            error = fatal.message,
                            "no new token for Kafka; retrying every {} s. When the present one has \
                             expired, the brokers end the connections",
                            AGAIN.as_secs()
                        );
                    }
                    lock(&self.state).failure = Some((fatal.kind, fatal.message));
                    self.changed.notify_all();
                    AGAIN
                }
            };
            let least = pause.min(AGAIN);
            SystemClock::pause(least);
            // A refused token may have been revoked before its time.
            let waits = |state: &mut State| !state.refused;
            let state = lock(&self.state);
            if let Ok((mut state, _)) = self.changed.wait_timeout_while(state, pause - least, waits)
            {
                state.refused = false;
            }
        }
    }

    fn watch(&self, username: &Text, password: &Text) -> ! {
        let mut known = (username.value.clone(), password.value.clone());
        let mut complained = false;
        loop {
            let state = self.changed.wait_while(lock(&self.state), |state| !state.refused);
            if let Ok(mut state) = state {
                state.refused = false;
            }
            let read = username.read().and_then(|username| Ok((username, password.read()?)));
            match read {
                Ok(found) if found != known => {
                    info!(
                        "the brokers refuse the login; user and password in files have changed, \
                           and are tried"
                    );
                    known = found;
                    complained = false;
                    let (username, password) = known.clone();
                    self.put(Credential::Login { username, password });
                }
                Ok(_) => {}
                Err(error) if !complained => {
                    complained = true;
                    warn!(error, "the brokers refuse the login, and its file cannot be read again");
                }
                Err(_) => {}
            }
            SystemClock::pause(FILES_AGAIN);
        }
    }
}
