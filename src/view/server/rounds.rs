//! The view without a thread and without a server: whoever holds it asks for
//! the commands of a round, has them answered by a server of its own, and says
//! what became of them. So the simulator drives what the worker drives.

use std::sync::Arc;

use redis::{Cmd, Value};

use super::nodes::Layout;
use crate::shard::{Timestamp, ViewWrite};
use crate::stream_thread::ports::{Clock, FoundKey, View, ViewEvent};
use crate::view::core::encode::Encoder;
use crate::view::core::keys::Keys;
use crate::view::core::state::{State, Step, ViewStats};

/// The view, a round at a time.
pub struct Rounds<C> {
    state: State,
    encoder: Encoder,
    stats: Arc<ViewStats>,
    clock: C,
    under_way: Option<Vec<Step>>,
}

impl<C: Clock> Rounds<C> {
    /// Nothing asked, nothing owned.
    pub fn new(prefix: &str, group: &str, clock: C) -> Rounds<C> {
        let stats = Arc::new(ViewStats::default());
        Rounds {
            state: State::new(Keys::new(prefix), group, stats.clone()),
            encoder: Encoder::new(prefix, group, false),
            stats,
            clock,
            under_way: None,
        }
    }

    /// A connection was made anew.
    pub fn connected(&mut self) {
        self.state.connected(Layout::default());
    }

    /// Whether a round is due now.
    pub fn is_due(&self) -> bool {
        self.state.due_in_ms(self.clock.monotonic_ms()) == Some(0)
    }

    /// Whether all that can be written has been, markers included.
    pub fn is_drained(&self) -> bool {
        self.under_way.is_none() && self.state.is_drained()
    }

    /// Begins a round: the commands to send, in order.
    pub fn begin(&mut self) -> Vec<Cmd> {
        let steps = self.state.plan(self.clock.monotonic_ms());
        let commands = steps.iter().map(|step| step.command(&self.encoder)).collect();
        self.under_way = Some(steps);
        commands
    }

    /// Ends the round that is under way; `None`: the connection was lost.
    pub fn end(&mut self, answers: Option<Vec<Result<Value, String>>>) {
        let Some(steps) = self.under_way.take() else { return };
        match answers {
            Some(answers) => {
                self.state.settle(steps, answers, self.clock.monotonic_ms());
            }
            None => self.state.failed(steps),
        }
    }
}

impl<C: Clock> View for Rounds<C> {
    fn ask_marker(&mut self, partition: i32) {
        self.state.ask(partition);
    }

    fn take(&mut self, partition: i32, epoch: u64, applied: i64) {
        self.state.take(partition, epoch, applied);
    }

    fn write(
        &mut self,
        partition: i32,
        writes: Vec<ViewWrite>,
        applied: Option<i64>,
        now: Timestamp,
    ) {
        if writes.is_empty() && applied.is_none() {
            return;
        }
        let monotonic_ms = self.clock.monotonic_ms();
        self.state.partition(partition).write(writes, applied, now, monotonic_ms);
        self.state.count();
    }

    fn backlog(&self) -> usize {
        self.stats.backlog.load(std::sync::atomic::Ordering::Relaxed)
    }

    // The sweep is not simulated: pages may be dropped.
    fn sweep(&mut self, _: i32, _: Vec<ViewWrite>) {}

    fn may_sweep(&self) -> bool {
        false
    }

    fn remove(&mut self, _: i32, _: Vec<FoundKey>) {}

    fn release(&mut self, partition: i32) {
        self.state.release(partition);
    }

    fn poll(&mut self, events: &mut Vec<ViewEvent>) {
        self.state.poll(events);
    }
}
