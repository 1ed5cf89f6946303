//! The worker: the thread that sends rounds of markers and writes to Redis.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::claim::{Gate, Passage};
use super::link::{self, Backoff, Link};
use super::turns::{Round, Turns};
use crate::view::core::shared::{Shared, WAIT_MAX_MS};

/// The worker thread.
pub struct Worker {
    shared: Arc<Shared>,
    turns: Turns,
    link: Link,
    gate: Gate,
    backoff: Backoff,
    /// Whether a failure was logged as a warning since the last success.
    complained: bool,
}

impl Worker {
    /// A worker without a connection.
    #[must_use]
    pub fn new(turns: Turns, link: Link, gate: Gate) -> Worker {
        let (shared, backoff) = (turns.shared.clone(), Backoff::default());
        Worker { shared, turns, link, gate, backoff, complained: false }
    }

    /// Runs until it is told to stop.
    pub fn run(mut self) {
        while self.wait_for_work() {
            if (self.link.is_connected() || self.connect()) && self.is_admitted() {
                self.round();
                self.repair();
                let now_ms = self.shared.clock.monotonic_ms();
                self.link.look_again(now_ms);
                if let Some(evicting) = self.link.policy_again(now_ms) {
                    self.tell_policy(evicting);
                }
                if let Some(layout) = self.link.new_layout() {
                    tracing::info!(
                        "slots of the Redis cluster have moved: all markers are checked"
                    );
                    self.shared.lock().connected(layout);
                }
            }
        }
        self.shared.stats.connected.store(false, Ordering::Relaxed);
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
    }

    /// Waits until something is due and the backoff is over. False: stop.
    fn wait_for_work(&self) -> bool {
        let mut state = self.shared.lock();
        loop {
            let now_ms = self.shared.clock.monotonic_ms();
            let mut wait_ms = state.due_in_ms(now_ms).unwrap_or(WAIT_MAX_MS);
            if !self.link.is_connected() {
                // Connect before the first work, since readiness depends on it.
                wait_ms = 0;
            }
            if let Some(due_ms) = self.gate.due_in_ms(now_ms) {
                wait_ms = due_ms;
            } else if let Some(scan_ms) = self.turns.scan_due_in_ms(now_ms) {
                wait_ms = wait_ms.min(scan_ms);
            }
            wait_ms = wait_ms.max(self.backoff.remaining_ms(now_ms));
            if let Some(close_at_ms) = state.close_at_ms {
                if now_ms >= close_at_ms || state.is_drained() || self.gate.is_shut() {
                    return false;
                }
                wait_ms = wait_ms.min(close_at_ms - now_ms);
            }
            let dropped = state.take_dropped();
            if !dropped.is_empty() {
                drop(state);
                drop(dropped);
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
            Ok(evicting) => {
                self.gate.connected();
                self.shared.lock().connected(self.link.layout());
                self.tell_policy(evicting);
                self.shared.stats.connected.store(true, Ordering::Relaxed);
                true
            }
            Err(message) => {
                self.shared.stats.errors.fetch_add(1, Ordering::Relaxed);
                self.trouble("cannot connect to Redis", &message);
                false
            }
        }
    }

    /// Logs an evicting policy once, and stores it for the metric.
    fn tell_policy(&self, evicting: Option<String>) {
        let mut advice = self.shared.stats.advice();
        match &evicting {
            Some(warning) if advice.evicts != evicting => tracing::warn!("{warning}"),
            None if advice.evicts.is_some() => {
                tracing::info!("Redis no longer evicts keys: maxmemory-policy is noeviction")
            }
            _ => {}
        }
        advice.evicts = evicting;
    }

    /// Whether the prefix belongs to our group (rule V8).
    fn is_admitted(&mut self) -> bool {
        let now_ms = self.shared.clock.monotonic_ms();
        let (foreign, takes_any) = {
            let mut state = self.shared.lock();
            (state.foreign.take(), state.takes_any())
        };
        if !self.gate.must_ask(foreign.is_some() || takes_any, now_ms) {
            return !self.gate.is_shut();
        }
        let was_shut = self.gate.is_shut();
        match self.gate.pass(&mut self.link, self.turns.encoder.keys(), foreign, now_ms) {
            Ok(Passage::Open) => {
                if was_shut {
                    tracing::info!("the keys in Redis belong to this group again: writing resumes");
                    self.shared.stats.advice().other_group = None;
                    self.shared.lock().connected(self.link.layout());
                }
                true
            }
            Ok(Passage::Shut(other)) => {
                self.shared.lock().disconnected();
                if !was_shut {
                    tracing::error!(
                        group = self.turns.encoder.group(),
                        other_group = other,
                        prefix = self.turns.encoder.keys().prefix(),
                        "the keys in Redis belong to another group: this process writes nothing \
                         to Redis. Set another redis.prefix, or start with --take-view-from"
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
                self.turns.lost(Vec::new());
                self.trouble("lost the connection to Redis", &message);
                false
            }
        }
    }

    fn round(&mut self) {
        match link::run(self.turns.round(&mut self.link)) {
            Ok(Round::Idle) => {}
            Ok(Round::Done) => self.success(),
            Ok(Round::Refused(message)) => self.trouble("Redis refuses commands", &message),
            Err(message) => self.trouble("lost the connection to Redis", &message),
        }
    }

    fn repair(&mut self) {
        if self.backoff.remaining_ms(self.shared.clock.monotonic_ms()) == 0
            && let Err(message) = link::run(self.turns.repair(&mut self.link))
        {
            self.trouble("lost the connection to Redis", &message);
        }
    }

    /// Logs a warning once; `success` logs the end.
    fn trouble(&mut self, what: &str, message: &str) {
        self.shared.stats.advice().trouble = Some(format!("{what}: {message}"));
        self.backoff.failed(self.shared.clock.monotonic_ms());
        if std::mem::replace(&mut self.complained, true) {
            tracing::debug!(error = message, "{what}");
        } else {
            tracing::warn!(error = message, "{what}; processing continues, writes to Redis wait");
        }
    }

    fn success(&mut self) {
        self.backoff.succeeded();
        if std::mem::replace(&mut self.complained, false) {
            self.shared.stats.advice().trouble = None;
            tracing::info!("Redis accepts commands again");
        }
    }
}
