//! The ports of the loop besides the [clock](Clock): [`Log`] (Kafka) and [`View`]
//! (Redis). Production, the tests and the simulator each bring their own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use crate::clock::Clock;
use crate::error::{Error, Fatal};
use crate::shard::{DeviceId, Header, Input, Timestamp, ViewWrite};

/// The topic that a record is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// One of the three inputs.
    Input(Input),
    /// The changelog, in a restore.
    Changelog,
}

/// Which consumer delivered a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The group consumer, from an input.
    Group(Input),
    /// The restore consumer, from an input or the changelog.
    Restore(Source),
}

/// A record borrowed from the log. Its bytes are copied only where they are kept.
#[derive(Clone, Copy, Debug)]
pub struct RecordRef<'a> {
    /// Its partition.
    pub partition: i32,
    /// Its position.
    pub offset: i64,
    /// Its timestamp.
    pub timestamp: Timestamp,
    /// Whether the broker stamped it (`LogAppendTime`).
    pub stamped_by_broker: bool,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Its headers; only read where the record is kept whole.
    pub headers: &'a dyn Headers,
}

/// A record's headers, read on demand.
pub trait Headers: std::fmt::Debug {
    /// All headers, in order, copied.
    fn to_vec(&self) -> Vec<Header>;
}

/// Which offset of a partition to look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetAt {
    /// The log's start.
    Start,
    /// The first record with a timestamp at or after this.
    Time(Timestamp),
}

/// Where the log of a partition begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBounds {
    /// The offset of [`OffsetAt`]; `end` where no record is stamped that late.
    pub start: i64,
    /// One past the last record that a `read_committed` reader may see now.
    pub stable: i64,
    /// One past the last record, transactions open or not.
    pub end: i64,
}

/// The log bounds of each partition that has an answer.
pub type Bounds = BTreeMap<(Source, i32), LogBounds>;

/// The committed offset of each input partition that was asked for; `None` if there
/// is none.
pub type Commits = BTreeMap<(Input, i32), Option<CommittedOffset>>;

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset to read.
    pub offset: i64,
    /// The metadata committed with it (rule C2).
    pub metadata: String,
}

/// Identifies a query to the log, to match its answer.
pub type QuestionId = u64;

/// An event of the log.
#[derive(Debug)]
pub enum LogEvent {
    /// The group gave us partitions. Nothing is read from them until
    /// [`Log::assign`].
    Assigned(Vec<(Input, i32)>),
    /// The group wants partitions back: commit, then [`Log::unassign`].
    Revoked(Vec<(Input, i32)>),
    /// Other members already have the partitions: drop what is not committed, then
    /// [`Log::unassign`].
    Lost(Vec<(Input, i32)>),
    /// Everything before `offset` has been delivered, for now (rule T1).
    EndOfPartition {
        /// The topic.
        input: Input,
        /// Which partition.
        partition: i32,
        /// The position reached.
        offset: i64,
    },
    /// The same for a restore: all records that are readable now have been
    /// delivered.
    RestoreEnd {
        /// The topic.
        source: Source,
        /// Which partition.
        partition: i32,
        /// The position reached.
        offset: i64,
    },
    /// The answer to [`Log::ask_bounds`]: an error if no partition has an answer.
    /// If only some have one, a [`LogEvent::NoAnswer`] for each of the others comes
    /// first.
    Bounds(QuestionId, Result<Bounds, String>),
    /// This partition of a query has no answer, but others have.
    NoAnswer {
        /// Which partition.
        partition: i32,
        /// The error, with the name of the topic.
        error: String,
    },
    /// Answer to [`Log::ask_committed`].
    Committed(QuestionId, Result<Commits, String>),
    /// The outcome of the batch that was passed to [`Log::submit`].
    Submitted(Outcome),
}

/// The outcome of a batch.
#[derive(Debug)]
pub enum Outcome {
    /// It is committed.
    Committed(Receipt),
    /// It is aborted, or was never begun, and may be sent again unchanged.
    Refused {
        /// Whether the group's generation has changed: use the new group metadata
        /// first (rule C6).
        stale_member: bool,
        /// For the log line.
        message: String,
    },
    /// Unknown. The new producer has completed or aborted the old transaction; the
    /// committed (epoch, batch number) shows which.
    Unknown {
        /// For the log line.
        message: String,
    },
    /// Nothing more can be committed by this process.
    Fatal(Fatal),
}

/// The details of a commit.
#[derive(Debug, Default)]
pub struct Receipt {
    /// One past the last changelog record of each partition in the batch.
    pub changelog_end: BTreeMap<i32, i64>,
    /// The broker's latest timestamp on our changelog records, and when its
    /// delivery report came, on the monotonic clock (rule T6).
    pub broker_time: Option<(Timestamp, i64)>,
    /// How long it took, if known.
    pub duration: Option<Duration>,
}

/// A record to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputRecord {
    /// Its topic.
    pub topic: OutputTopic,
    /// Its partition; `None`: by its key.
    pub partition: Option<i32>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; absent: a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// The topics that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutputTopic {
    /// `<group>-changelog`.
    Changelog,
    /// `device-status-changes`.
    StatusChanges,
    /// `device-status-dead-letters`.
    DeadLetters,
}

/// One transaction (rule C1). The loop keeps it until its outcome is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Each shard's part.
    pub shards: Vec<ShardBatch>,
}

/// One shard's part of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardBatch {
    /// The shard's partition.
    pub partition: i32,
    /// The records, in the order in which they are sent.
    pub records: Vec<OutputRecord>,
    /// The next offset to read of each input, in the order of [`Input::ALL`],
    /// with the same metadata on all three (rule C2).
    pub offsets: [i64; 3],
    /// The metadata.
    pub metadata: String,
}

/// Kafka, as the loop sees it. No call blocks for longer than `poll`'s timeout.
pub trait Log {
    /// Delivers what has arrived: records to `on_record`, everything else to
    /// `events`. Waits up to `timeout` for the first of either.
    ///
    /// # Errors
    /// [`Error::Fatal`] to stop; [`Error::Retriable`] to log and go on.
    fn poll(
        &mut self,
        timeout: Duration,
        max_records: usize,
        on_record: &mut dyn FnMut(Delivery, RecordRef<'_>),
        events: &mut Vec<LogEvent>,
    ) -> Result<(), Error>;

    /// Asks where logs begin and end; the answer comes as [`LogEvent::Bounds`].
    fn ask_bounds(&mut self, of: &[(Source, i32)], from: OffsetAt) -> QuestionId;

    /// Asks for committed positions, once no transaction can still move them
    /// (require-stable, rule R1); the answer comes as [`LogEvent::Committed`].
    fn ask_committed(&mut self, of: &[(Input, i32)]) -> QuestionId;

    /// Begins to read assigned input partitions at these offsets, paused until
    /// [`Log::resume`].
    ///
    /// # Errors
    /// When the assignment is no longer ours, or the client is broken.
    fn assign(&mut self, starts: &[(Input, i32, i64)]) -> Result<(), Error>;

    /// Gives partitions back to the group.
    ///
    /// # Errors
    /// When the client is broken.
    fn unassign(&mut self, partitions: &[(Input, i32)]) -> Result<(), Error>;

    /// Stops delivery from input partitions.
    ///
    /// # Errors
    /// When the client is broken.
    fn pause(&mut self, partitions: &[(Input, i32)]) -> Result<(), Error>;

    /// Resumes delivery from input partitions.
    ///
    /// # Errors
    /// When the client is broken.
    fn resume(&mut self, partitions: &[(Input, i32)]) -> Result<(), Error>;

    /// The log start offset of an assigned input partition, by the last fetch.
    /// Sends no query. `None` if unknown.
    fn log_start(&self, input: Input, partition: i32) -> Option<i64>;

    /// Begins to read a partition for a restore, `read_committed`, from an offset.
    /// This does not affect the group consumer.
    ///
    /// # Errors
    /// When the client is broken.
    fn start_restore(&mut self, source: Source, partition: i32, offset: i64) -> Result<(), Error>;

    /// Ends what [`Log::start_restore`] began.
    ///
    /// # Errors
    /// When the client is broken.
    fn stop_restore(&mut self, source: Source, partition: i32) -> Result<(), Error>;

    /// Begins to commit a batch; at most one at a time. The outcome comes as
    /// [`LogEvent::Submitted`].
    fn submit(&mut self, batch: Arc<Batch>);

    /// Leaves the group and closes all clients.
    fn close(&mut self);
}

/// The marker of a partition in the view (rule V4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// The epoch of the owner that wrote it.
    pub epoch: u64,
    /// The changelog offset up to which every write is acknowledged.
    pub applied: i64,
}

/// A key that the keyspace scan has found, with its fencing token as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundKey {
    /// Whose key it is.
    pub subject: FoundSubject,
    /// The fencing token.
    pub token: Box<str>,
}

/// Whose key was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundSubject {
    /// A device's.
    Device(DeviceId),
    /// The counts of a fleet.
    Fleet(Arc<str>),
}

/// An event of the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ViewEvent {
    /// Answer to [`View::ask_marker`]; `None`: there is none.
    Marker(i32, Option<Marker>),
    /// Redis has acknowledged every write up to this sequence.
    Acknowledged {
        /// The partition.
        partition: i32,
        /// The sequence of the last write.
        sequence: u64,
    },
    /// The view was flushed, replaced or set back: write the whole shard again.
    RewriteNeeded(i32),
    /// A later owner has taken the partition: our writes are refused.
    Superseded(i32),
    /// The keyspace scan has found keys whose tokens name this partition. Orphaned
    /// keys are to be given to [`View::remove`] (rule V6).
    Found(i32, Vec<FoundKey>),
}

/// The view, as the loop sees it. No call waits for the server.
pub trait View {
    /// Asks for the marker as the last owner left it (rule V5).
    fn ask_marker(&mut self, partition: i32);

    /// Takes the partition over with an epoch. `applied` is the marker's offset
    /// until more is acknowledged: that of the last owner, or 0 if everything is
    /// rewritten.
    fn take(&mut self, partition: i32, epoch: u64, applied: i64);

    /// A commit of these partitions has begun. Until [`View::write`] follows, the
    /// marker does not advance past it (rule V4).
    fn commit_begun(&mut self, partitions: impl Iterator<Item = i32>);

    /// Writes what a commit has changed. Once this and all earlier writes are
    /// acknowledged, the marker may advance to `applied`, if given.
    fn write(
        &mut self,
        partition: i32,
        writes: Vec<ViewWrite>,
        applied: Option<i64>,
        now: Timestamp,
    );

    /// How many writes wait, of all partitions.
    fn backlog(&self) -> usize;

    /// Compares a page of committed rows with the view, and repairs what differs
    /// (rule V6). A page may be dropped: the next pass brings it again.
    fn sweep(&mut self, partition: i32, page: Vec<ViewWrite>);

    /// Whether the view can take another page to sweep.
    fn may_sweep(&self) -> bool;

    /// Removes orphaned keys, each only if its token is still the one that was read
    /// (rule V6). They may be dropped, like a page.
    fn remove(&mut self, partition: i32, keys: Vec<FoundKey>);

    /// Forgets a partition that is no longer owned, and its backlog.
    fn release(&mut self, partition: i32);

    /// What happened since the last call.
    fn poll(&mut self, events: &mut Vec<ViewEvent>);
}
