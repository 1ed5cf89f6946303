//! The thread that talks to the server, round after round: markers first, then
//! a pipeline of writes.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::claim::{Gate, Passage};
use super::link::{Backoff, Link};
use crate::stream_thread::ports::Clock;
use crate::view::core::encode::Encoder;
use crate::view::core::state::{State, Step, ViewStats};
use crate::view::repair::scan::{Peers, Scan};

/// The longest wait for something to happen; a bound only so that it is one.
const WAIT_MAX_MS: i64 = 60_000;

/// What the loop's side and the worker's side hold together.
pub struct Shared {
    /// Guarded for moments only, never across I/O.
    pub state: Mutex<State>,
    /// Something was put into `state`, or the worker has stopped.
    pub changed: Condvar,
    /// For metrics, readable without the lock.
    pub stats: Arc<ViewStats>,
    /// Time.
    pub clock: Arc<dyn Clock + Send + Sync>,
}

impl Shared {
    /// Locks the state. A panic elsewhere does not make it less true.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something changes, at most so long.
    pub fn wait<'a>(&self, state: MutexGuard<'a, State>, ms: i64) -> MutexGuard<'a, State> {
        let ms = u64::try_from(ms.clamp(1, WAIT_MAX_MS)).unwrap_or(1);
        let waited = self.changed.wait_timeout(state, Duration::from_millis(ms));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// The worker.
pub struct Worker {
    shared: Arc<Shared>,
    encoder: Encoder,
    link: Link,
    gate: Gate,
    backoff: Backoff,
    /// The look for keys without a device, if it is ours to do.
    scan: Option<Scan>,
    peers: Arc<Peers>,
    /// Whether the sweep was refused something, and that was said.
    sweep_complained: bool,
    /// Whether a failure was said aloud since the last success.
    complained: bool,
}

impl Worker {
    /// A worker that is not connected yet.
    #[must_use]
    pub fn new(
        shared: Arc<Shared>,
        encoder: Encoder,
        (link, gate): (Link, Gate),
        scan: Option<Scan>,
        peers: Arc<Peers>,
    ) -> Worker {
        let backoff = Backoff::default();
        let (sweep_complained, complained) = (false, false);
        Worker { shared, encoder, link, gate, backoff, scan, peers, sweep_complained, complained }
    }

    /// Works until told to stop.
    pub fn run(mut self) {
        while self.wait_for_work() {
            if (self.link.is_connected() || self.connect()) && self.is_admitted() {
                self.round();
                self.sweep();
                self.link.look_again(self.shared.clock.monotonic_ms());
                if let Some(layout) = self.link.new_layout() {
                    tracing::info!("the keys of the Redis cluster have moved");
                    self.shared.lock().connected(layout);
                }
            }
        }
        self.shared.stats.connected.store(false, std::sync::atomic::Ordering::Relaxed);
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
    }

    /// Waits until there is something to do and it may be tried. False: stop.
    fn wait_for_work(&self) -> bool {
        let mut state = self.shared.lock();
        loop {
            let now_ms = self.shared.clock.monotonic_ms();
            let mut wait_ms = state.due_in_ms(now_ms).unwrap_or(WAIT_MAX_MS);
            if !self.link.is_connected() {
                // Connect ahead of the first work: readiness looks at it.
                wait_ms = 0;
            }
            if let Some(due_ms) = self.gate.due_in_ms(now_ms) {
                wait_ms = due_ms;
            } else if let Some(scan) = &self.scan {
                wait_ms = wait_ms.min(scan.due_in_ms(now_ms));
            }
            wait_ms = wait_ms.max(self.backoff.remaining_ms(now_ms));
            if let Some(close_at_ms) = state.close_at_ms {
                if now_ms >= close_at_ms || state.is_drained() || self.gate.is_shut() {
                    return false;
                }
                wait_ms = wait_ms.min(close_at_ms - now_ms);
            }
            let gone = state.gone();
            if !gone.is_empty() {
                drop(state);
                drop(gone);
                state = self.shared.lock();
                continue;
            }
            if wait_ms <= 0 {
                return true;
            }
            state = self.shared.wait(state, wait_ms);
        }
    }

    fn connect(&mut self) -> bool {
        match self.link.connect() {
            Ok(warning) => {
                self.gate.connected();
                self.shared.lock().connected(self.link.layout());
                if let Some(warning) = &warning
                    && self.shared.stats.advice().warning.as_ref() != Some(warning)
                {
                    tracing::warn!("{warning}");
                }
                self.shared.stats.advice().warning = warning;
                self.shared.stats.connected.store(true, std::sync::atomic::Ordering::Relaxed);
                true
            }
            Err(message) => {
                self.shared.stats.errors.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                self.trouble("cannot connect to Redis", &message);
                false
            }
        }
    }

    /// Whether the keys are ours to write (rule V4).
    fn is_admitted(&mut self) -> bool {
        let now_ms = self.shared.clock.monotonic_ms();
        let (met, takes_any) = {
            let mut state = self.shared.lock();
            (state.met.take(), state.takes_any())
        };
        if !self.gate.must_ask(met.is_some() || takes_any, now_ms) {
            return !self.gate.is_shut();
        }
        let was_shut = self.gate.is_shut();
        match self.gate.pass(&mut self.link, self.encoder.keys(), met, now_ms) {
            Ok(Passage::Open) => {
                if was_shut {
                    tracing::info!("the keys in Redis are ours again; writing goes on");
                    self.shared.stats.advice().other_group = None;
                    self.shared.lock().connected(self.link.layout());
                }
                true
            }
            Ok(Passage::Shut(other)) => {
                self.shared.lock().disconnected();
                if !was_shut {
                    tracing::error!(
                        group = self.encoder.group(),
                        other_group = other,
                        prefix = self.encoder.keys().prefix(),
                        "the keys in Redis belong to another group; nothing is written there. \
                         Set another redis.prefix, or start with --take-view-from"
                    );
                }
                self.shared.stats.advice().other_group = Some(other);
                false
            }
            Err(message) if self.link.is_connected() => {
                self.trouble("Redis refuses commands", &message);
                false
            }
            Err(message) => {
                self.disconnected(&message);
                false
            }
        }
    }

    fn round(&mut self) {
        let steps = self.shared.lock().plan(self.shared.clock.monotonic_ms());
        if steps.is_empty() {
            return;
        }
        let commands: Vec<_> =
            steps.iter().map(|step: &Step| step.command(&self.encoder)).collect();
        match self.link.round_trip(&commands) {
            Ok(answers) => {
                let now_ms = self.shared.clock.monotonic_ms();
                let complaint = self.shared.lock().settle(steps, answers, now_ms);
                match complaint {
                    Some(message) => self.trouble("Redis refuses commands", &message),
                    None => self.success(),
                }
            }
            Err(message) => {
                self.shared.lock().failed(steps);
                self.shared.stats.connected.store(false, std::sync::atomic::Ordering::Relaxed);
                self.trouble("lost the connection to Redis", &message);
            }
        }
    }

    /// A page of the sweep and a step of the scan, between two rounds.
    fn sweep(&mut self) {
        if self.backoff.remaining_ms(self.shared.clock.monotonic_ms()) > 0 {
            return;
        }
        let (sweep, lost, closing) = {
            let mut state = self.shared.lock();
            let lost = std::mem::take(&mut state.lost);
            (state.next_sweep(), lost, state.close_at_ms.is_some())
        };
        if lost {
            self.peers.scan_again();
        }
        if closing {
            return;
        }
        let stats = self.shared.stats.clone();
        if let Some(sweep) = sweep
            && self.link.is_connected()
        {
            let partition = sweep.partition;
            match sweep.run(&self.encoder, &mut self.link, &stats.sweep) {
                Ok(outcome) => {
                    if outcome.doubt {
                        self.shared.lock().doubt(partition);
                    }
                    if let Some(message) = outcome.complaint
                        && !std::mem::replace(&mut self.sweep_complained, true)
                    {
                        tracing::warn!(error = message, "Redis refuses the sweep");
                    }
                }
                Err(message) => self.disconnected(&message),
            }
        }
        if let Some(scan) = &mut self.scan
            && self.link.is_connected()
        {
            let now_ms = self.shared.clock.monotonic_ms();
            if let Err(message) = scan.step(&self.encoder, &mut self.link, &stats, now_ms) {
                self.disconnected(&message);
            }
        }
    }

    /// The connection was lost between two rounds.
    fn disconnected(&mut self, message: &str) {
        self.shared.lock().failed(Vec::new());
        self.shared.stats.connected.store(false, std::sync::atomic::Ordering::Relaxed);
        self.trouble("lost the connection to Redis", message);
    }

    /// Says it once, and once more when it is over.
    fn trouble(&mut self, what: &str, message: &str) {
        self.shared.stats.advice().trouble = Some(format!("{what}: {message}"));
        self.backoff.failed(self.shared.clock.monotonic_ms());
        if std::mem::replace(&mut self.complained, true) {
            tracing::debug!(error = message, "{what}");
        } else {
            tracing::warn!(error = message, "{what}; processing goes on and the view waits");
        }
    }

    fn success(&mut self) {
        self.backoff.succeeded();
        if std::mem::replace(&mut self.complained, false) {
            self.shared.stats.advice().trouble = None;
            tracing::info!("Redis takes commands again");
        }
    }
}
