//! A Kafka cluster as far as device-status can tell: logs with control
//! records, transactions, a group coordinator. Everything happens when told to,
//! at the simulated time.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use device_status::shard::Input;
use device_status::stream_thread::ports::{Commits, CommittedOffset};
use device_status::wire::murmur2::partition_of;

use crate::group::Group;

/// A transaction that is not through by then is aborted.
const TRANSACTION_TIMEOUT_MS: i64 = 10_000;
/// How long tombstones outlive compaction.
const TOMBSTONES_KEPT_MS: i64 = 10 * 60_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    Input(Input),
    Changelog,
    Changes,
    DeadLetters,
}

pub type TopicPartition = (Topic, i32);
pub type Headers = Vec<(String, Option<Vec<u8>>)>;

/// What a producer writes.
#[derive(Clone, Debug, Default)]
pub struct Message {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Headers,
    /// The producer's stamp; counts only where topics keep it.
    pub stamp: Option<i64>,
}

impl Message {
    pub fn of(key: Option<&str>, value: Vec<u8>) -> Message {
        let key = key.map(|key| key.as_bytes().to_vec());
        Message { key, value: Some(value), ..Message::default() }
    }
}

#[derive(Debug)]
pub struct Record {
    pub offset: i64,
    /// The broker's, or the producer's where the topic keeps it.
    pub timestamp: i64,
    /// When it really was.
    pub appended_at: i64,
    pub message: Message,
    /// The transaction it belongs to, if any.
    pub transaction: Option<u64>,
    /// A commit or abort marker.
    pub control: bool,
    pub stamped_by_broker: bool,
}

#[derive(Default)]
pub struct PartitionLog {
    /// What is still there.
    pub records: Vec<Rc<Record>>,
    /// What ever was there: for the auditor.
    pub archive: Vec<Rc<Record>>,
    pub start: i64,
    pub end: i64,
    /// Transactions whose marker has not come, and their first offset.
    open: BTreeMap<u64, i64>,
    aborted: BTreeSet<u64>,
    /// `message.timestamp.type` is `CreateTime`.
    keeps_stamps: bool,
}

impl PartitionLog {
    pub fn last_stable(&self) -> i64 {
        self.open.values().copied().min().unwrap_or(self.end)
    }

    fn append(
        &mut self,
        now: i64,
        message: Message,
        transaction: Option<u64>,
        control: bool,
    ) -> i64 {
        let offset = self.end;
        self.end += 1;
        // A leader never stamps earlier than before.
        let last = self.archive.last().map_or(i64::MIN, |record| record.appended_at);
        let appended_at = now.max(last);
        let timestamp = message.stamp.filter(|_| self.keeps_stamps).unwrap_or(appended_at);
        let stamped_by_broker = !self.keeps_stamps;
        let record = Rc::new(Record {
            offset,
            timestamp,
            appended_at,
            message,
            transaction,
            control,
            stamped_by_broker,
        });
        self.records.push(record.clone());
        self.archive.push(record);
        offset
    }

    fn is_visible(&self, record: &Record) -> bool {
        !record.control && record.transaction.is_none_or(|id| !self.aborted.contains(&id))
    }

    /// What a `read_committed` reader gets from `position` on, and where that
    /// leaves it.
    pub fn read(&self, position: i64, max: usize) -> (Vec<Rc<Record>>, i64) {
        let stable = self.last_stable();
        let mut found = Vec::new();
        let mut position = position;
        let from = self.records.partition_point(|record| record.offset < position);
        for record in &self.records[from..] {
            if record.offset >= stable {
                return (found, position);
            }
            if self.is_visible(record) {
                if found.len() >= max {
                    return (found, position);
                }
                found.push(record.clone());
            }
            position = record.offset + 1;
        }
        (found, position.max(stable))
    }

    /// Everything that was ever committed.
    pub fn committed(&self) -> impl Iterator<Item = &Rc<Record>> {
        let stable = self.last_stable();
        self.archive.iter().filter(move |record| record.offset < stable && self.is_visible(record))
    }

    /// Keeps the last record of each key, up to a point somewhere before the
    /// last stable offset.
    pub fn compact(&mut self, share: f64, now: i64) {
        let dirty = self.last_stable().max(self.start) - self.start;
        let point = self.start + (dirty as f64 * share) as i64;
        let mut last: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
        for record in &self.records {
            if record.offset < point
                && self.is_visible(record)
                && let Some(key) = &record.message.key
            {
                last.insert(key.clone(), record.offset);
            }
        }
        let aborted = &self.aborted;
        self.records.retain(|record| {
            if record.offset >= point {
                return true;
            }
            let visible =
                !record.control && record.transaction.is_none_or(|id| !aborted.contains(&id));
            visible
                && record.message.key.as_ref().is_some_and(|key| last[key] == record.offset)
                && (record.message.value.is_some() || record.timestamp > now - TOMBSTONES_KEPT_MS)
        });
    }

    /// Deletes everything below an offset.
    pub fn delete_before(&mut self, offset: i64) {
        self.start = self.start.max(offset.min(self.end));
        let start = self.start;
        self.records.retain(|record| record.offset >= start);
    }

    /// The first offset stamped at or after a time; -1 if there is none.
    pub fn offset_at(&self, timestamp: i64) -> i64 {
        let found = self.records.iter().find(|record| record.timestamp >= timestamp);
        found.map_or(-1, |record| record.offset)
    }
}

/// What a producer is refused for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A later producer has this id, or the coordinator aborted for us.
    Fenced,
    /// The markers of the last transaction are still on their way.
    Concurrent,
    /// The group knows another member, or another epoch of it.
    StaleMember,
}

#[derive(Default)]
struct Producer {
    epoch: u32,
    ongoing: Option<Ongoing>,
    /// Decided, but not all markers are written.
    completing: Option<u64>,
}

struct Ongoing {
    id: u64,
    since: i64,
    touched: BTreeSet<TopicPartition>,
    offsets: bool,
}

struct MarkerDue {
    at: i64,
    transaction: u64,
    place: MarkerPlace,
    commit: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum MarkerPlace {
    Log(TopicPartition),
    Offsets,
}

/// Who wrote a transaction, and whether and when it was committed.
#[derive(Clone, Debug)]
pub struct TransactionInfo {
    pub producer: String,
    /// Counts the commits of the cluster.
    pub committed: Option<u64>,
    /// When that was decided, or aborting it.
    pub ended_at: i64,
}

pub type OffsetsOf = Vec<((Input, i32), CommittedOffset)>;

/// Offsets as they were committed: for the auditor.
pub struct OffsetCommit {
    /// `None`: outside of a transaction.
    pub transaction: Option<u64>,
    pub offsets: OffsetsOf,
}

pub struct Kafka {
    pub partitions: i32,
    /// `device-status-changes` has its own number.
    pub changes_partitions: i32,
    pub logs: BTreeMap<TopicPartition, PartitionLog>,
    producers: BTreeMap<String, Producer>,
    pub transactions: BTreeMap<u64, TransactionInfo>,
    next_transaction: u64,
    commits: u64,
    markers: Vec<MarkerDue>,
    pending_offsets: BTreeMap<u64, OffsetsOf>,
    pub offsets: BTreeMap<(Input, i32), CommittedOffset>,
    pub offset_commits: Vec<OffsetCommit>,
    /// When a process first submitted what it committed with this metadata, by
    /// partition: for the auditor.
    pub submitted: BTreeMap<(i32, String), i64>,
    pub group: Group,
    /// Up to how long a marker takes, by how much luck is given, and up to how
    /// long a few do.
    pub marker_delay_ms: i64,
    pub marker_late_ms: i64,
    pub marker_late_one_in: u64,
}

impl Kafka {
    pub fn new(partitions: i32, changes_partitions: i32, group: Group) -> Kafka {
        let mut logs = BTreeMap::new();
        for partition in 0..partitions {
            for input in Input::ALL {
                logs.insert((Topic::Input(input), partition), PartitionLog::default());
            }
            logs.insert((Topic::Changelog, partition), PartitionLog::default());
        }
        for partition in 0..changes_partitions {
            logs.insert((Topic::Changes, partition), PartitionLog::default());
        }
        logs.insert((Topic::DeadLetters, 0), PartitionLog::default());
        Kafka {
            partitions,
            changes_partitions,
            logs,
            producers: BTreeMap::new(),
            transactions: BTreeMap::new(),
            next_transaction: 0,
            commits: 0,
            markers: Vec::new(),
            pending_offsets: BTreeMap::new(),
            offsets: BTreeMap::new(),
            offset_commits: Vec::new(),
            submitted: BTreeMap::new(),
            group,
            marker_delay_ms: 5,
            marker_late_ms: 5,
            marker_late_one_in: 12,
        }
    }

    pub fn log(&self, place: TopicPartition) -> &PartitionLog {
        &self.logs[&place]
    }

    fn log_mut(&mut self, place: TopicPartition) -> &mut PartitionLog {
        self.logs.get_mut(&place).expect("a known partition")
    }

    /// Where a record goes that names no partition.
    pub fn place(&self, topic: Topic, partition: Option<i32>, key: Option<&[u8]>) -> (Topic, i32) {
        let count = match topic {
            Topic::Changes => self.changes_partitions,
            Topic::DeadLetters => 1,
            _ => self.partitions,
        };
        (topic, partition.unwrap_or_else(|| key.map_or(0, |key| partition_of(key, count))))
    }

    /// An ordinary producer's record.
    pub fn append(&mut self, place: TopicPartition, message: Message, now: i64) -> i64 {
        self.log_mut(place).append(now, message, None, false)
    }

    /// Commits offsets outside of a transaction.
    pub fn commit_offsets(
        &mut self,
        member: (u64, u32),
        offsets: OffsetsOf,
    ) -> Result<(), Refused> {
        if !self.group.knows(member) {
            return Err(Refused::StaleMember);
        }
        self.offsets.extend(offsets.iter().cloned());
        self.offset_commits.push(OffsetCommit { transaction: None, offsets });
        Ok(())
    }

    /// From now on the inputs keep their producers' stamps.
    pub fn keep_stamps(&mut self) {
        for ((topic, _), log) in &mut self.logs {
            log.keeps_stamps = matches!(topic, Topic::Input(_));
        }
    }

    // ---- transactions

    /// A producer begins, or begins anew: what was open under its id is
    /// aborted. Answers its epoch.
    pub fn init_producer(&mut self, id: &str, now: i64) -> Result<u32, Refused> {
        let producer = self.producers.entry(id.to_owned()).or_default();
        if producer.completing.is_some() {
            return Err(Refused::Concurrent);
        }
        producer.epoch += 1;
        let epoch = producer.epoch;
        if producer.ongoing.is_some() {
            self.decide(id, false, now, 0);
            return Err(Refused::Concurrent);
        }
        Ok(epoch)
    }

    fn producer(&mut self, id: &str, epoch: u32) -> Result<&mut Producer, Refused> {
        let producer = self.producers.get_mut(id).ok_or(Refused::Fenced)?;
        if producer.epoch != epoch {
            return Err(Refused::Fenced);
        }
        Ok(producer)
    }

    fn ongoing(&mut self, id: &str, epoch: u32, now: i64) -> Result<u64, Refused> {
        let next = self.next_transaction + 1;
        let producer = self.producer(id, epoch)?;
        if producer.completing.is_some() {
            return Err(Refused::Concurrent);
        }
        if let Some(ongoing) = &producer.ongoing {
            return Ok(ongoing.id);
        }
        let touched = BTreeSet::new();
        producer.ongoing = Some(Ongoing { id: next, since: now, touched, offsets: false });
        self.next_transaction = next;
        let info = TransactionInfo { producer: id.to_owned(), committed: None, ended_at: 0 };
        self.transactions.insert(next, info);
        Ok(next)
    }

    /// Writes a record in the transaction of a producer, which begins with it.
    pub fn send(
        &mut self,
        id: &str,
        epoch: u32,
        place: TopicPartition,
        message: Message,
        now: i64,
    ) -> Result<i64, Refused> {
        let transaction = self.ongoing(id, epoch, now)?;
        let producer = self.producer(id, epoch)?;
        if let Some(ongoing) = &mut producer.ongoing {
            ongoing.touched.insert(place);
        }
        let log = self.log_mut(place);
        let offset = log.append(now, message, Some(transaction), false);
        log.open.entry(transaction).or_insert(offset);
        Ok(offset)
    }

    /// Adds offsets to the transaction of a producer.
    pub fn send_offsets(
        &mut self,
        id: &str,
        epoch: u32,
        member: (u64, u32),
        offsets: OffsetsOf,
        now: i64,
    ) -> Result<(), Refused> {
        let transaction = self.ongoing(id, epoch, now)?;
        if let Some(ongoing) = &mut self.producer(id, epoch)?.ongoing {
            ongoing.offsets = true;
        }
        if !self.group.knows(member) {
            return Err(Refused::StaleMember);
        }
        self.pending_offsets.insert(transaction, offsets);
        Ok(())
    }

    /// Everything whose transaction is decided to be committed: its marker may still
    /// be on its way.
    pub fn decided(&self, place: TopicPartition) -> impl Iterator<Item = &Rc<Record>> {
        let is_decided = |id: u64| self.transactions[&id].committed.is_some();
        let records = self.log(place).archive.iter();
        records.filter(move |record| !record.control && record.transaction.is_none_or(is_decided))
    }

    /// Commits or aborts the transaction of a producer. The markers follow.
    pub fn end_transaction(
        &mut self,
        id: &str,
        epoch: u32,
        commit: bool,
        now: i64,
        luck: u64,
    ) -> Result<(), Refused> {
        let producer = self.producer(id, epoch)?;
        if producer.completing.is_some() {
            return Err(Refused::Concurrent);
        }
        self.decide(id, commit, now, luck);
        Ok(())
    }

    fn decide(&mut self, id: &str, commit: bool, now: i64, luck: u64) {
        let Some(producer) = self.producers.get_mut(id) else { return };
        let Some(ongoing) = producer.ongoing.take() else { return };
        producer.completing = Some(ongoing.id);
        let info = self.transactions.get_mut(&ongoing.id).expect("a known transaction");
        info.ended_at = now;
        if commit {
            self.commits += 1;
            info.committed = Some(self.commits);
        }
        let mut places: Vec<_> = ongoing.touched.into_iter().map(MarkerPlace::Log).collect();
        if ongoing.offsets {
            places.push(MarkerPlace::Offsets);
        }
        let mut luck = luck;
        for place in places {
            // Each coordinator's broker writes its own, in any order.
            luck = luck.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888);
            // Late are those of the logs: whoever takes over knows the offsets
            // before it may read the rows.
            let late = place != MarkerPlace::Offsets
                && (luck >> 20).is_multiple_of(self.marker_late_one_in);
            let longest = if late { self.marker_late_ms } else { self.marker_delay_ms };
            let delay = (luck >> 33) as i64 % longest.max(1);
            self.markers.push(MarkerDue {
                at: now + delay,
                transaction: ongoing.id,
                place,
                commit,
            });
        }
        self.write_markers(now);
    }

    fn write_markers(&mut self, now: i64) {
        let mut due: Vec<MarkerDue> = Vec::new();
        let mut index = 0;
        while index < self.markers.len() {
            if self.markers[index].at <= now {
                due.push(self.markers.remove(index));
            } else {
                index += 1;
            }
        }
        for marker in due {
            let MarkerDue { transaction, place, commit, .. } = marker;
            match place {
                MarkerPlace::Log(place) => {
                    let log = self.log_mut(place);
                    log.append(now, Message::default(), Some(transaction), true);
                    log.open.remove(&transaction);
                    if !commit {
                        log.aborted.insert(transaction);
                    }
                }
                MarkerPlace::Offsets => {
                    let offsets = self.pending_offsets.remove(&transaction).unwrap_or_default();
                    if commit {
                        self.offsets.extend(offsets.iter().cloned());
                        let transaction = Some(transaction);
                        self.offset_commits.push(OffsetCommit { transaction, offsets });
                    }
                }
            }
        }
        let markers = &self.markers;
        for producer in self.producers.values_mut() {
            let done = |id| !markers.iter().any(|marker| marker.transaction == id);
            if producer.completing.is_some_and(done) {
                producer.completing = None;
            }
        }
    }

    /// Time has passed: markers are written, transactions time out, members
    /// that were not heard of are evicted.
    pub fn tick(&mut self, now: i64) -> Vec<String> {
        let mut notes = Vec::new();
        self.write_markers(now);
        let late: Vec<String> = self
            .producers
            .iter()
            .filter(|(_, producer)| {
                let open = producer.ongoing.as_ref();
                open.is_some_and(|ongoing| now - ongoing.since > TRANSACTION_TIMEOUT_MS)
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in late {
            notes.push(format!("the transaction of {id} timed out"));
            if let Some(producer) = self.producers.get_mut(&id) {
                producer.epoch += 1;
            }
            self.decide(&id, false, now, 0);
        }
        for member in self.group.evict(now) {
            notes.push(format!("member {member} is evicted"));
        }
        notes
    }

    /// The offsets of a group without members expire.
    pub fn lose_offsets(&mut self) -> bool {
        let may = self.group.members.is_empty()
            && self.pending_offsets.is_empty()
            && !self.offsets.is_empty();
        if may {
            self.offsets.clear();
        }
        may
    }

    /// Whether no transaction is open or being ended.
    pub fn is_quiet(&self) -> bool {
        self.markers.is_empty() && self.producers.values().all(|p| p.ongoing.is_none())
    }

    /// Committed offsets, unless a transaction may still move them.
    pub fn stable_offsets(&self, of: &[(Input, i32)]) -> Result<Commits, String> {
        let pending = self.pending_offsets.values().flatten();
        if pending.into_iter().any(|(place, _)| of.contains(place)) {
            return Err("unstable offset commit".to_owned());
        }
        Ok(of.iter().map(|place| (*place, self.offsets.get(place).cloned())).collect())
    }
}
