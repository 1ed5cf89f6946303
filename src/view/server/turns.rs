//! What a worker does on a connection, without a thread and without a server: a
//! round of markers and writes, then a page of the sweep and a step of the scan.
//! The worker drives it against its link, the simulator against its own server.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use redis::Cmd;

use crate::view::core::encode::Encoder;
use crate::view::core::layout::Layout;
use crate::view::core::port::Server;
use crate::view::core::shared::Shared;
use crate::view::core::state::Step;
use crate::view::repair::scan::{Peers, Scan};

/// What became of a round that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Round {
    /// No write was sent, though perhaps markers were looked at: it is not
    /// known whether the server takes writes.
    Idle,
    /// The server took the writes, or none wait.
    Done,
    /// The server refused some of it, and why.
    Refused(String),
}

/// What a worker does on a connection.
pub struct Turns {
    /// What it shares with the loop's side.
    pub shared: Arc<Shared>,
    /// Turns writes into commands.
    pub encoder: Encoder,
    /// The look for keys without a device, if it is ours to do.
    scan: Option<Scan>,
    peers: Arc<Peers>,
    /// Whether the sweep was refused something, and that was said.
    sweep_complained: bool,
}

impl Turns {
    /// Turns that nobody has taken yet.
    #[must_use]
    pub fn new(
        shared: Arc<Shared>,
        encoder: Encoder,
        scan: Option<Scan>,
        peers: Arc<Peers>,
    ) -> Turns {
        Turns { shared, encoder, scan, peers, sweep_complained: false }
    }

    /// A connection was made anew, to one server.
    pub fn connected(&self) {
        self.shared.lock().connected(Layout::default());
    }

    /// How long until there is something to do; 0 if there is now.
    #[must_use]
    pub fn due_in_ms(&self) -> Option<i64> {
        let now_ms = self.shared.clock.monotonic_ms();
        let round = self.shared.lock().due_in_ms(now_ms);
        round.into_iter().chain(self.scan_due_in_ms(now_ms)).min()
    }

    /// How long until the next step of the scan, if it is ours to do.
    #[must_use]
    pub fn scan_due_in_ms(&self, now_ms: i64) -> Option<i64> {
        self.scan.as_ref().map(|scan| scan.due_in_ms(now_ms))
    }

    /// Whether all that can be written has been, markers included, and all that
    /// is to be told has been.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        let state = self.shared.lock();
        state.is_drained() && !state.has_to_tell()
    }

    /// Markers first, then a pipeline of writes.
    ///
    /// # Errors
    /// When the connection was lost.
    pub async fn round(&mut self, server: &mut impl Server) -> Result<Round, String> {
        let steps = self.shared.lock().plan(self.shared.clock.monotonic_ms());
        if steps.is_empty() {
            return Ok(Round::Idle);
        }
        let wrote = steps.iter().any(|step| matches!(step, Step::Write(_)));
        let commands: Vec<Cmd> =
            steps.iter().map(|step: &Step| step.command(&self.encoder)).collect();
        match server.round_trip(&commands).await {
            Ok(answers) => {
                let now_ms = self.shared.clock.monotonic_ms();
                let complaint = self.shared.lock().settle(steps, answers, now_ms);
                let waits = self.shared.stats.backlog.load(Ordering::Relaxed) > 0;
                let well = if waits && !wrote { Round::Idle } else { Round::Done };
                Ok(complaint.map_or(well, Round::Refused))
            }
            Err(message) => {
                self.lost(steps);
                Err(message)
            }
        }
    }

    /// A page of the sweep and a step of the scan, between two rounds.
    ///
    /// # Errors
    /// When the connection was lost.
    pub async fn repair(&mut self, server: &mut impl Server) -> Result<(), String> {
        let (sweep, lost, closing) = {
            let mut state = self.shared.lock();
            let lost = std::mem::take(&mut state.lost);
            (state.next_sweep(), lost, state.close_at_ms.is_some())
        };
        if lost {
            self.peers.scan_again();
        }
        if closing {
            return Ok(());
        }
        let repaired = async {
            let stats = &self.shared.stats;
            if let Some(sweep) = sweep {
                let partition = sweep.partition;
                let outcome = sweep.run(&self.encoder, server, &stats.sweep).await?;
                if outcome.doubt {
                    self.shared.lock().doubt(partition);
                }
                if let Some(message) = outcome.complaint
                    && !std::mem::replace(&mut self.sweep_complained, true)
                {
                    tracing::warn!(error = message, "Redis refuses the sweep");
                }
            }
            match &mut self.scan {
                Some(scan) => {
                    let now_ms = self.shared.clock.monotonic_ms();
                    scan.step(&self.encoder, server, stats, now_ms).await
                }
                None => Ok(()),
            }
        };
        let repaired = repaired.await;
        if repaired.is_err() {
            self.lost(Vec::new());
        }
        repaired
    }

    /// The connection was lost, and with it the answers to these.
    pub fn lost(&self, steps: Vec<Step>) {
        self.shared.lock().failed(steps);
        self.shared.stats.connected.store(false, Ordering::Relaxed);
    }
}
