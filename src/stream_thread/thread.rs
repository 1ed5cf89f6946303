//! The state of a stream thread. Its behaviour is in the files beside, by subject.

use std::collections::BTreeMap;

use super::broker_time::BrokerTime;
use super::clocks::Clocks;
use super::in_flight::InFlight;
use super::pass::Sweep;
use super::ports::{Log, LogEvent, QuestionId, View, ViewEvent};
use super::report::{Counts, Span};
use super::running::Running;
use super::settings::Settings;
use super::slot::Slot;
use super::start_offsets::ResolvingStarts;
use crate::clock::Clock;
use crate::shard::{Input, Now, Timestamp};

/// Revoked partitions, until their output is committed.
pub(super) struct Release {
    pub(super) partitions: Vec<(Input, i32)>,
    pub(super) since_ms: i64,
}

impl Release {
    pub fn holds(&self, partition: i32) -> bool {
        self.partitions.iter().any(|(_, p)| *p == partition)
    }
}

/// One stream thread: its shards and the loop that drives them.
pub struct StreamThread<L, V, C> {
    pub(super) settings: Settings,
    pub(super) rules_fingerprint: u64,
    pub(super) log: L,
    pub(super) view: V,
    pub(super) clock: C,
    pub(super) slots: BTreeMap<i32, Slot>,
    /// Revoked shards that may come back (rule R7).
    pub(super) suspended: BTreeMap<i32, Box<Running>>,
    pub(super) resolving_starts: Vec<ResolvingStarts>,
    pub(super) release: Option<Release>,
    pub(super) in_flight: Option<InFlight>,
    /// The greatest epoch given to a shard here. A shard that was lost before its
    /// epoch was committed gets a new one when it is back (rule C7), so that its
    /// batches differ from its earlier ones.
    pub(super) last_epoch: Option<u64>,
    pub(super) applied: Span,
    pub(super) restored: Span,
    pub(super) sweep: Sweep,
    pub(super) broker_time: BrokerTime,
    pub(super) last_commit_ms: i64,
    /// The open query for the ends of the partitions, and broker time when it was
    /// sent.
    pub(super) ends: Option<(QuestionId, Option<Timestamp>)>,
    pub(super) ends_asked_ms: i64,
    pub(super) counts: Counts,
    pub(super) clocks: Clocks,
    pub(super) events: Vec<LogEvent>,
    pub(super) view_events: Vec<ViewEvent>,
    /// There was work left at the end of the last turn.
    pub(super) busy: bool,
    /// The partition at which the output limit was reached: it is the first of the
    /// next turn.
    pub(super) turn_from: i32,
    pub(super) stopping_since_ms: Option<i64>,
    pub(super) stopped: bool,
}

impl<L: Log, V: View, C: Clock> StreamThread<L, V, C> {
    /// A thread without shards.
    pub fn new(settings: Settings, log: L, view: V, clock: C) -> StreamThread<L, V, C> {
        let now_ms = clock.monotonic_ms();
        StreamThread {
            rules_fingerprint: settings.rules.fingerprint(),
            settings,
            log,
            view,
            clock,
            slots: BTreeMap::new(),
            suspended: BTreeMap::new(),
            resolving_starts: Vec::new(),
            release: None,
            in_flight: None,
            last_epoch: None,
            applied: Span::default(),
            restored: Span::default(),
            sweep: Sweep::default(),
            broker_time: BrokerTime::default(),
            last_commit_ms: now_ms,
            ends: None,
            ends_asked_ms: i64::MIN / 2,
            counts: Counts::default(),
            clocks: Clocks::new(now_ms),
            events: Vec::new(),
            view_events: Vec::new(),
            busy: false,
            turn_from: 0,
            stopping_since_ms: None,
            stopped: false,
        }
    }

    pub(super) fn now(&self) -> Now {
        let monotonic_ms = self.clock.monotonic_ms();
        Now { monotonic_ms, broker: self.broker_time.now(monotonic_ms) }
    }

    /// Broker time if it is known, else the host's time.
    pub(super) fn wall(&self) -> Timestamp {
        self.now().broker.unwrap_or_else(|| self.clock.wall())
    }

    pub(super) fn stopping(&self) -> bool {
        self.stopping_since_ms.is_some()
    }

    /// Approximately how much output waits for the next transaction, in bytes.
    pub(super) fn output_bytes(&self) -> usize {
        self.slots.values().filter_map(Slot::running).map(|at| at.shard.output_bytes()).sum()
    }
}
