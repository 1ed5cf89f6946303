//! The work on a connection, independent of thread and server: a round of markers and
//! writes, then a page of the sweep and a step of the scan. The worker runs it on its
//! link, the simulation on its own server.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use redis::Cmd;

use crate::view::core::encode::Encoder;
use crate::view::core::layout::Layout;
use crate::view::core::port::Server;
use crate::view::core::shared::Shared;
use crate::view::core::state::Step;
use crate::view::repair::scan::{Peers, Scan};
use crate::view::repair::sweep::Twofold;

/// The least time between two warnings about devices on two partitions, in milliseconds.
const TOLD_EVERY_MS: i64 = 3_600_000;

/// The result of a round that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Round {
    /// No write was sent, so it is unknown whether the server accepts writes.
    Idle,
    /// The server accepted the writes, or none wait.
    Done,
    /// The server refused a command, with this error.
    Refused(String),
}

/// The work on a connection.
pub struct Turns {
    /// The state shared with the loop.
    pub shared: Arc<Shared>,
    /// Encodes the commands.
    pub encoder: Encoder,
    /// The keyspace scan, if this view runs it.
    scan: Option<Scan>,
    peers: Arc<Peers>,
    /// Whether a refusal of the sweep was logged.
    sweep_complained: bool,
    /// When a device on two partitions was logged last.
    twofold_told_ms: Option<i64>,
}

impl Turns {
    /// Turns before the first round.
    #[must_use]
    pub fn new(
        shared: Arc<Shared>,
        encoder: Encoder,
        scan: Option<Scan>,
        peers: Arc<Peers>,
    ) -> Turns {
        let (sweep_complained, twofold_told_ms) = (false, None);
        Turns { shared, encoder, scan, peers, sweep_complained, twofold_told_ms }
    }

    /// A connection to a single server was made.
    pub fn connected(&self) {
        self.shared.lock().connected(Layout::default());
    }

    /// The time until something is due; 0: now.
    #[must_use]
    pub fn due_in_ms(&self) -> Option<i64> {
        let now_ms = self.shared.clock.monotonic_ms();
        let round = self.shared.lock().due_in_ms(now_ms);
        round.into_iter().chain(self.scan_due_in_ms(now_ms)).min()
    }

    /// The time until the next step of the scan, if this view runs it.
    #[must_use]
    pub fn scan_due_in_ms(&self, now_ms: i64) -> Option<i64> {
        self.scan.as_ref().map(|scan| scan.due_in_ms(now_ms))
    }

    /// Whether all writes and markers are written, and all events are delivered.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        let state = self.shared.lock();
        state.is_drained() && !state.has_events()
    }

    /// Runs a round: markers first, then a pipeline of writes.
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
                let complaint = self.shared.lock().handle_answers(steps, answers, now_ms);
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

    /// Runs a page of the sweep and a step of the scan, between two rounds.
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
                if let Some(Twofold { device, other }) = outcome.twofold {
                    let now_ms = self.shared.clock.monotonic_ms();
                    if self.twofold_told_ms.is_none_or(|told| now_ms - told >= TOLD_EVERY_MS) {
                        self.twofold_told_ms = Some(now_ms);
                        tracing::warn!(
                            %device,
                            partition,
                            other_partition = other,
                            "a device is on two partitions: the owner of each writes its status to \
                             Redis. Its producers choose the partition in different ways. Give \
                             all producers the same partitioner, then delete and register the \
                             device again"
                        );
                    }
                }
                if let Some(message) = outcome.complaint
                    && !std::mem::replace(&mut self.sweep_complained, true)
                {
                    tracing::warn!(
                        error = message,
                        "Redis refuses commands of the sweep: what is missing or wrong there is \
                         not repaired"
                    );
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

    /// The connection was lost, with the answers to these steps.
    pub fn lost(&self, steps: Vec<Step>) {
        self.shared.lock().failed(steps);
        self.shared.stats.connected.store(false, Ordering::Relaxed);
    }
}
