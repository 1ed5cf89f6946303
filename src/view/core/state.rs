//! The state behind the lock of a view: the partitions, the requests of the loop, and
//! the events for it. Everything here is fast and does no I/O.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use redis::{Cmd, Value};

use super::answer::{Answer, MarkerContent, integer, is_wrong_type, other_group};
use super::backlog::Waiting;
use super::encode::Encoder;
use super::keys::{Keys, MarkerValue};
use super::layout::Layout;
use super::owner::ForeignMarker;
use super::partition::{Finding, MarkerStep, Partition, Place};
use super::stats::ViewStats;
use super::task::{Sweep, Task};
use crate::stream_thread::ports::{FoundKey, Marker, ViewEvent};

/// The maximum number of writes in one pipeline.
const ROUND_WRITES: usize = 400;

/// The maximum number of waiting pages of the sweep.
const SWEEPS_MAX: usize = 4;

/// The maximum number of waiting lists of orphaned keys. A step of the scan finds up
/// to one list per partition. A list that is dropped is found again by the next pass.
const REMOVALS_MAX: usize = 4_096;

/// The backlog above which the sweep pauses.
const SWEEP_BACKLOG_MAX: usize = 10 * ROUND_WRITES;

/// An action that needs one command.
#[derive(Debug)]
pub enum Step {
    /// Read a marker for the loop.
    Ask(i32, Place),
    /// Act on a marker of a partition, by its number and generation.
    Marker(i32, u64, Place, MarkerStep),
    /// Write.
    Write(Sent),
}

/// A write in the current round.
#[derive(Debug)]
pub struct Sent {
    partition: i32,
    generation: u64,
    epoch: u64,
    place: u64,
    waiting: Waiting,
}

impl Step {
    /// Its command.
    #[must_use]
    pub fn command(&self, encoder: &Encoder) -> Cmd {
        match self {
            Step::Ask(partition, place) | Step::Marker(partition, _, place, MarkerStep::Check) => {
                encoder.read_marker(*partition, *place)
            }
            Step::Marker(partition, _, place, MarkerStep::Take { epoch, applied }) => {
                encoder.take_marker(*partition, *place, *epoch, *applied)
            }
            Step::Marker(partition, _, place, MarkerStep::Advance { from, to }) => {
                encoder.advance_marker(*partition, *place, from, *to)
            }
            Step::Write(sent) => encoder.write(sent.partition, sent.epoch, &sent.waiting),
        }
    }
}

/// The state behind the lock of a view.
#[derive(Debug)]
pub struct State {
    keys: Keys,
    group: Box<str>,
    /// The cluster's slots, as of the last connection.
    layout: Layout,
    partitions: BTreeMap<i32, Partition>,
    generations: u64,
    asked: BTreeSet<i32>,
    events: VecDeque<ViewEvent>,
    /// The partition that was served last, for a round robin.
    served: i32,
    under_way: usize,
    sweeps: VecDeque<Sweep>,
    /// Released partitions. The worker frees them, since that may take long and the
    /// loop must not wait.
    dropped: Vec<Partition>,
    stats: Arc<ViewStats>,
    /// The time to stop; set by `close`.
    pub close_at_ms: Option<i64>,
    /// The worker has stopped.
    pub stopped: bool,
    /// A loss of data was found. Old keys may have come back, so the scan must run.
    pub lost: bool,
    /// A marker of another group was found: nothing more may be written.
    pub foreign: Option<ForeignMarker>,
}

impl State {
    /// An empty state.
    #[must_use]
    pub fn new(keys: Keys, group: &str, stats: Arc<ViewStats>) -> State {
        State {
            keys,
            group: group.into(),
            layout: Layout::default(),
            partitions: BTreeMap::new(),
            generations: 0,
            asked: BTreeSet::new(),
            events: VecDeque::new(),
            served: i32::MIN,
            under_way: 0,
            sweeps: VecDeque::new(),
            dropped: Vec::new(),
            stats,
            close_at_ms: None,
            stopped: false,
            lost: false,
            foreign: None,
        }
    }

    /// [`View::ask_marker`](crate::stream_thread::ports::View::ask_marker).
    pub fn ask(&mut self, partition: i32) {
        self.asked.insert(partition);
    }

    /// The partition; created if needed.
    pub fn partition(&mut self, partition: i32) -> &mut Partition {
        self.partitions.entry(partition).or_insert_with(|| {
            self.generations += 1;
            Partition::new(self.generations, &self.layout.replica_markers(&self.keys, partition))
        })
    }

    /// [`View::commit_begun`](crate::stream_thread::ports::View::commit_begun).
    pub fn commit_begun(&mut self, partition: i32, monotonic_ms: i64) {
        if let Some(partition) = self.partitions.get_mut(&partition) {
            partition.commit_begun(monotonic_ms);
        }
    }

    /// [`View::take`](crate::stream_thread::ports::View::take).
    pub fn take(&mut self, partition: i32, epoch: u64, applied: i64) {
        if !self.partition(partition).continues_as(epoch) {
            self.release(partition);
        }
        self.partition(partition).take(epoch, applied);
        self.count();
    }

    /// [`View::release`](crate::stream_thread::ports::View::release).
    pub fn release(&mut self, partition: i32) {
        self.dropped.extend(self.partitions.remove(&partition));
        self.asked.remove(&partition);
        self.sweeps.retain(|sweep| sweep.partition != partition);
        self.events.retain(|event| partition_of(event) != partition);
        self.count();
    }

    /// [`View::poll`](crate::stream_thread::ports::View::poll).
    pub fn poll(&mut self, events: &mut Vec<ViewEvent>) {
        for event in self.events.drain(..) {
            if let ViewEvent::RewriteNeeded(partition) = event
                && let Some(partition) = self.partitions.get_mut(&partition)
            {
                partition.rewrite_reported();
            }
            events.push(event);
        }
        for (&number, partition) in &mut self.partitions {
            if let Some(sequence) = partition.take_acknowledged() {
                events.push(ViewEvent::Acknowledged { partition: number, sequence });
            }
        }
    }

    /// Whether [`State::poll`] has events other than acknowledgements.
    #[must_use]
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Updates the metric of the backlog.
    pub fn count(&mut self) {
        let waiting: usize = self.partitions.values().map(Partition::waiting).sum();
        self.stats.backlog.store(waiting + self.under_way, Ordering::Relaxed);
    }

    /// [`View::may_sweep`](crate::stream_thread::ports::View::may_sweep).
    #[must_use]
    pub fn may_sweep(&self) -> bool {
        self.sweeps.len() < SWEEPS_MAX
    }

    /// Queues a task of the sweep, or drops it if the queue is full.
    pub fn sweep(&mut self, partition: i32, task: Task) {
        let sweep = Sweep { partition, epoch: 0, latest: 0, task };
        let most = match sweep.task {
            Task::Compare(_) => SWEEPS_MAX,
            Task::Remove(_) => REMOVALS_MAX,
        };
        if self.sweeps.len() < most {
            self.sweeps.push_back(sweep);
        } else {
            self.skipped(sweep.rows());
        }
    }

    /// Whether the partition's markers were checked to be ours.
    #[must_use]
    pub fn holds(&self, partition: i32) -> bool {
        self.partitions.get(&partition).is_some_and(Partition::may_write)
    }

    /// Whether the markers of any partition were checked to be ours.
    #[must_use]
    pub fn holds_any(&self) -> bool {
        self.partitions.values().any(Partition::may_write)
    }

    /// Whether a marker is about to be taken.
    #[must_use]
    pub fn takes_any(&self) -> bool {
        self.partitions.values().any(Partition::takes_any)
    }

    fn has_time_to_sweep(&self) -> bool {
        self.stats.backlog.load(Ordering::Relaxed) <= SWEEP_BACKLOG_MAX
    }

    /// The next task of the sweep. Rows with waiting writes are skipped, and so are
    /// tasks of partitions that are being rewritten or were lost to a later owner.
    pub fn next_sweep(&mut self) -> Option<Sweep> {
        if !self.has_time_to_sweep() {
            return None;
        }
        while let Some(mut sweep) = self.sweeps.pop_front() {
            let partition = self.partitions.get(&sweep.partition);
            let Some(partition) = partition.filter(|partition| partition.may_write()) else {
                self.skipped(sweep.rows());
                continue;
            };
            sweep.epoch = partition.epoch();
            sweep.latest = partition.received();
            let rows = sweep.rows();
            if let Task::Compare(page) = &mut sweep.task {
                page.retain(|write| !partition.awaits(&write.body));
                sweep.latest = page.iter().map(|write| write.sequence).fold(sweep.latest, u64::max);
            }
            self.skipped(rows - sweep.rows());
            return Some(sweep);
        }
        None
    }

    fn skipped(&self, rows: usize) {
        self.stats.sweep.skipped.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// The sweep found that the marker may not be ours: check it soon.
    pub fn doubt(&mut self, partition: i32) {
        if let Some(partition) = self.partitions.get_mut(&partition) {
            partition.write_refused();
        }
    }

    /// Reports hashes that the scan found for a partition of ours.
    pub fn found(&mut self, partition: i32, keys: Vec<FoundKey>) {
        self.events.push_back(ViewEvent::Found(partition, keys));
    }

    /// Dropped partitions, freed on the worker's thread.
    pub fn take_dropped(&mut self) -> Vec<Partition> {
        std::mem::take(&mut self.dropped)
    }

    /// The time until something is due; 0: now.
    #[must_use]
    pub fn due_in_ms(&self, monotonic_ms: i64) -> Option<i64> {
        if !self.asked.is_empty() || !self.sweeps.is_empty() && self.has_time_to_sweep() {
            return Some(0);
        }
        self.partitions.values().filter_map(|partition| partition.due_in_ms(monotonic_ms)).min()
    }

    /// Whether all writes and markers are written.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        !self.partitions.values().any(Partition::has_unwritten)
    }

    /// The actions of the next round, in the order of sending.
    pub fn plan(&mut self, monotonic_ms: i64) -> Vec<Step> {
        let mut steps = Vec::new();
        for asked in std::mem::take(&mut self.asked) {
            steps.push(Step::Ask(asked, None));
            let replica_markers = self.layout.replica_markers(&self.keys, asked);
            steps.extend(replica_markers.into_iter().map(|number| Step::Ask(asked, Some(number))));
        }
        for (&number, partition) in &self.partitions {
            for (place, step) in partition.marker_steps(monotonic_ms) {
                steps.push(Step::Marker(number, partition.generation, place, step));
            }
        }
        let after = (Bound::Excluded(self.served), Bound::Unbounded);
        let turns: Vec<i32> = self
            .partitions
            .range(after)
            .chain(self.partitions.range(..=self.served))
            .map(|(&number, _)| number)
            .collect();
        let mut room = ROUND_WRITES;
        for number in turns {
            let Some(partition) = self.partitions.get_mut(&number) else { continue };
            let limit = room.min(partition.send_limit());
            let (generation, epoch) = (partition.generation, partition.epoch());
            for (place, waiting) in std::iter::from_fn(|| partition.next_write()).take(limit) {
                room -= 1;
                self.served = number;
                let sent = Sent { partition: number, generation, epoch, place, waiting };
                steps.push(Step::Write(sent));
            }
        }
        self.under_way = ROUND_WRITES - room;
        self.count();
        steps
    }

    /// A connection was made, or the slots of the cluster have moved.
    pub fn connected(&mut self, layout: Layout) {
        self.layout = layout;
        for (&number, partition) in &mut self.partitions {
            partition.set_replica_markers(&self.layout.replica_markers(&self.keys, number));
        }
        self.disconnected();
    }

    /// The markers must be checked again before anything is written.
    pub fn disconnected(&mut self) {
        self.partitions.values_mut().for_each(Partition::disconnected);
    }

    /// Handles the answers of a round. Returns the first error, if any.
    pub fn handle_answers(
        &mut self,
        steps: Vec<Step>,
        answers: Vec<Answer>,
        monotonic_ms: i64,
    ) -> Option<String> {
        let mut complaint = None;
        let mut asked: BTreeMap<i32, Vec<Answer>> = BTreeMap::new();
        for (step, answer) in steps.into_iter().zip(answers) {
            if let Err(message) = &answer {
                self.stats.errors.fetch_add(1, Ordering::Relaxed);
                complaint.get_or_insert_with(|| message.clone());
            }
            match step {
                Step::Ask(partition, _) => asked.entry(partition).or_default().push(answer),
                Step::Marker(number, generation, place, step) => {
                    let place = (number, generation, place);
                    self.marker_answered(place, step, answer, monotonic_ms);
                }
                Step::Write(sent) => self.write_answered(sent, answer),
            }
        }
        for (partition, answers) in asked {
            self.asked_answered(partition, answers);
        }
        self.round_ended();
        complaint
    }

    /// The connection was lost during a round.
    pub fn failed(&mut self, steps: Vec<Step>) {
        self.stats.errors.fetch_add(1, Ordering::Relaxed);
        for step in steps {
            match step {
                Step::Ask(partition, _) => self.ask(partition),
                Step::Marker(number, generation, place, MarkerStep::Advance { to, .. }) => {
                    if let Some(partition) = self.alive(number, generation) {
                        partition.advance_unanswered(place, to);
                    }
                }
                Step::Marker(..) => {}
                Step::Write(Sent { partition, generation, place, waiting, .. }) => {
                    if let Some(partition) = self.alive(partition, generation) {
                        partition.write_failed(place, waiting);
                    }
                }
            }
        }
        self.disconnected();
        self.round_ended();
    }

    fn round_ended(&mut self) {
        self.under_way = 0;
        self.partitions.values_mut().for_each(Partition::round_ended);
        self.count();
    }

    fn alive(&mut self, number: i32, generation: u64) -> Option<&mut Partition> {
        self.partitions.get_mut(&number).filter(|partition| partition.generation == generation)
    }

    /// Reports the marker as the last owner left it: the least promise of the own
    /// marker and the replica markers.
    fn asked_answered(&mut self, partition: i32, answers: Vec<Answer>) {
        let mut markers = Vec::new();
        for answer in answers {
            if let Ok(value) = &answer
                && let Some(group) = other_group(value, &self.group)
            {
                self.foreign = Some(ForeignMarker { group, marker: (partition, None) });
                self.ask(partition);
                return;
            }
            markers.push(match answer.map(|value| MarkerContent::read(&value)) {
                Ok(MarkerContent::Value(MarkerValue { epoch, applied, .. })) => {
                    Some(Marker { epoch, applied })
                }
                // An incomplete marker: only its epoch is known.
                Ok(MarkerContent::Epoch(epoch)) => Some(Marker { epoch, applied: 0 }),
                Ok(MarkerContent::Nothing) => None,
                Err(message) if is_wrong_type(&message) => None,
                Err(_) => {
                    self.ask(partition);
                    return;
                }
            });
        }
        let applied = markers.iter().map(|marker| marker.map_or(0, |marker| marker.applied)).min();
        let own = markers.first().copied().flatten();
        let marker = own.map(|own| Marker { applied: applied.unwrap_or(0), ..own });
        self.events.push_back(ViewEvent::Marker(partition, marker));
    }

    fn marker_answered(
        &mut self,
        (number, generation, place): (i32, u64, Place),
        step: MarkerStep,
        answer: Answer,
        monotonic_ms: i64,
    ) {
        if let Ok(value) = &answer
            && let Some(group) = other_group(value, &self.group)
        {
            self.foreign = Some(ForeignMarker { group, marker: (number, place) });
            return;
        }
        let Some(partition) = self.alive(number, generation) else { return };
        let finding = match (step, answer) {
            (MarkerStep::Take { applied: wanted, .. }, Ok(Value::Array(items))) => match &items[..]
            {
                [Value::Int(1), applied, time] => {
                    let says = (integer(applied).unwrap_or(0), integer(time).unwrap_or(0));
                    partition.taken(place, wanted, says, monotonic_ms)
                }
                _ => Some(partition.superseded()),
            },
            (MarkerStep::Check, Ok(value)) => partition.checked(place, MarkerContent::read(&value)),
            (MarkerStep::Check, Err(message)) if is_wrong_type(&message) => {
                partition.checked(place, MarkerContent::Nothing)
            }
            (MarkerStep::Advance { to, .. }, Ok(Value::Int(1))) => {
                partition.advanced(place, to, monotonic_ms);
                None
            }
            (MarkerStep::Advance { .. }, Ok(value)) => {
                partition.mismatch(place, MarkerContent::read(&value))
            }
            (MarkerStep::Advance { to, .. }, Err(_)) => {
                partition.advance_unanswered(place, to);
                partition.disconnected();
                None
            }
            (MarkerStep::Take { .. } | MarkerStep::Check, _) => None,
        };
        match finding {
            None => {}
            Some(Finding::RewriteNeeded) => {
                tracing::warn!(
                    partition = number,
                    "Redis lost data of this partition (flushed, replaced or set back to an older \
                     state); the whole partition is written again"
                );
                self.lost = true;
                self.stats.rewrites.fetch_add(1, Ordering::Relaxed);
                let event = ViewEvent::RewriteNeeded(number);
                if !self.events.contains(&event) {
                    self.events.push_back(event);
                }
            }
            Some(Finding::Superseded) => {
                tracing::warn!(
                    partition = number,
                    "fenced: a later owner of this partition writes to Redis; this process stops \
                     writing it"
                );
                self.events.push_back(ViewEvent::Superseded(number));
            }
        }
    }

    fn write_answered(&mut self, sent: Sent, answer: Answer) {
        let Sent { partition, generation, place, waiting, .. } = sent;
        let accepted = match answer {
            Ok(Value::Int(accepted)) => Some(accepted != 0),
            _ => None,
        };
        match accepted {
            Some(true) => self.stats.written.fetch_add(1, Ordering::Relaxed),
            Some(false) => self.stats.refused.fetch_add(1, Ordering::Relaxed),
            None => 0,
        };
        let Some(partition) = self.alive(partition, generation) else { return };
        match accepted {
            Some(true) => partition.write_done(place, waiting),
            Some(false) => {
                partition.write_done(place, waiting);
                partition.write_refused();
            }
            None => partition.write_failed(place, waiting),
        }
    }
}

fn partition_of(event: &ViewEvent) -> i32 {
    match *event {
        ViewEvent::Found(partition, _) => partition,
        ViewEvent::Marker(partition, _)
        | ViewEvent::Acknowledged { partition, .. }
        | ViewEvent::RewriteNeeded(partition)
        | ViewEvent::Superseded(partition) => partition,
    }
}
