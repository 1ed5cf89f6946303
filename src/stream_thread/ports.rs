//! The ports of the loop besides the [clock](Clock): [`Log`] (Kafka) and [`View`]
//! (Redis). Production, the tests and the simulator each bring their own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use crate::clock::Clock;
use crate::error::{Error, Fatal};
use crate::shard::{DeviceId, Header, Input, Timestamp, ViewWrite};

/// Where a record is read from: one of the inputs, or the shard's own past.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// One of the three inputs, as the group reads it.
    Input(Input),
    /// The changelog, in a restore.
    Changelog,
}

/// Where a delivered record comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The group's reading of an input.
    Group(Input),
    /// A restore's reading of an input or of the changelog.
    Restore(Source),
}

/// A record as the log lends it: bytes are copied only where they are kept.
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

/// From where on a partition is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetAt {
    /// The log's start.
    Start,
    /// The first record stamped at or after this.
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

/// Of each partition that is answered, where its log begins and ends.
pub type Bounds = BTreeMap<(Source, i32), LogBounds>;

/// Of each input partition that was asked for, what is committed; `None`:
/// nothing.
pub type Commits = BTreeMap<(Input, i32), Option<CommittedOffset>>;

/// A committed position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset to read.
    pub offset: i64,
    /// What the committer wrote beside it (rule C2).
    pub metadata: String,
}

/// Identifies a question put to the log, so that its answer can be told from
/// another's.
pub type QuestionId = u64;

/// What the log has to say.
#[derive(Debug)]
pub enum LogEvent {
    /// The group gave us partitions. Nothing is read from them until
    /// [`Log::assign`].
    Assigned(Vec<(Input, i32)>),
    /// The group wants partitions back: commit, then [`Log::unassign`].
    Revoked(Vec<(Input, i32)>),
    /// The partitions are someone else's already: drop what is not committed,
    /// then [`Log::unassign`].
    Lost(Vec<(Input, i32)>),
    /// Everything before `offset` has been delivered, for now (rule T1).
    EndOfPartition {
        /// Where.
        input: Input,
        /// Which partition.
        partition: i32,
        /// The position reached.
        offset: i64,
    },
    /// The same of a restore: everything that may be read now has been.
    RestoreEnd {
        /// Where.
        source: Source,
        /// Which partition.
        partition: i32,
        /// The position reached.
        offset: i64,
    },
    /// Answer to [`Log::ask_bounds`]. Each partition is answered whole or not at
    /// all: where some are not, a [`LogEvent::NoAnswer`] of each comes first, and
    /// where none is, this is an error.
    Bounds(QuestionId, Result<Bounds, String>),
    /// Others of the same question are answered, this partition is not.
    NoAnswer {
        /// Which partition.
        partition: i32,
        /// Why, with the name of the topic.
        error: String,
    },
    /// Answer to [`Log::ask_committed`].
    Committed(QuestionId, Result<Commits, String>),
    /// What became of the batch handed to [`Log::submit`].
    Submitted(Outcome),
}

/// What became of a batch.
#[derive(Debug)]
pub enum Outcome {
    /// It is committed.
    Committed(Receipt),
    /// It is aborted, or was never begun, and may be sent again as it is.
    Refused {
        /// Whether the group no longer knows us as we were: take the new
        /// metadata first (rule C6).
        stale_member: bool,
        /// For the log line.
        message: String,
    },
    /// Nobody told us. The producer was made anew, which settles the old
    /// transaction; committed (epoch, batch number) tell what happened.
    Unknown {
        /// For the log line.
        message: String,
    },
    /// Nothing more can be committed by this process.
    Fatal(Fatal),
}

/// Proof of a commit.
#[derive(Debug, Default)]
pub struct Receipt {
    /// One past the last changelog record of each partition in the batch.
    pub changelog_end: BTreeMap<i32, i64>,
    /// The latest stamp that the broker put on one of our changelog records,
    /// and when its report reached us, on our monotonic clock (rule T6).
    pub broker_time: Option<(Timestamp, i64)>,
    /// How long it took, where that is known.
    pub duration: Option<Duration>,
}

/// A record to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputRecord {
    /// To which topic.
    pub topic: OutputTopic,
    /// To which partition; absent: by key.
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

/// One transaction (rule C1). Kept by the loop until its fate is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Each shard's part.
    pub shards: Vec<ShardBatch>,
}

/// One shard's part of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardBatch {
    /// Whose.
    pub partition: i32,
    /// In the order in which they are to be sent.
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

    /// Goes on with delivery.
    ///
    /// # Errors
    /// When the client is broken.
    fn resume(&mut self, partitions: &[(Input, i32)]) -> Result<(), Error>;

    /// Where the log of an input partition that is read starts, by what the last
    /// fetch was answered; no question is put. `None`: it did not say.
    fn log_start(&self, input: Input, partition: i32) -> Option<i64>;

    /// Begins to read a partition for a restore, `read_committed`, from an
    /// offset; apart from the group's own reading.
    ///
    /// # Errors
    /// When the client is broken.
    fn start_restore(&mut self, source: Source, partition: i32, offset: i64) -> Result<(), Error>;

    /// Ends what [`Log::start_restore`] began.
    ///
    /// # Errors
    /// When the client is broken.
    fn stop_restore(&mut self, source: Source, partition: i32) -> Result<(), Error>;

    /// Begins to commit a batch; at most one at a time. The fate of it comes as
    /// [`LogEvent::Submitted`].
    fn submit(&mut self, batch: Arc<Batch>);

    /// Leaves the group and lets go of everything.
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

/// A hash that the view holds, and its token as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundKey {
    /// Whose hash.
    pub subject: FoundSubject,
    /// The token.
    pub token: Box<str>,
}

/// Whose hash was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundSubject {
    /// A device's.
    Device(DeviceId),
    /// The counts of a fleet.
    Fleet(Arc<str>),
}

/// What the view has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ViewEvent {
    /// Answer to [`View::ask_marker`]; `None`: there is none.
    Marker(i32, Option<Marker>),
    /// Every write up to this sequence has been made.
    Acknowledged {
        /// Of which partition.
        partition: i32,
        /// Up to which write.
        sequence: u64,
    },
    /// The view was flushed, replaced or set back: write the whole shard again.
    RewriteNeeded(i32),
    /// A later owner has taken the partition: its writes are refused.
    Superseded(i32),
    /// Hashes were found whose tokens name this partition. Those that no row
    /// has are to be given to [`View::remove`] (rule V6).
    Found(i32, Vec<FoundKey>),
}

/// The view, as the loop sees it. No call waits for the server.
pub trait View {
    /// Asks for the marker as the last owner left it (rule V5).
    fn ask_marker(&mut self, partition: i32);

    /// Takes the partition for an epoch. `applied` is what the marker may say
    /// until more is acknowledged: the last owner's, or 0 if all is rewritten.
    fn take(&mut self, partition: i32, epoch: u64, applied: i64);

    /// A commit of these partitions has begun. Until [`View::write`] follows it, the
    /// view promises nothing of what is committed from now on (rule V4).
    fn commit_begun(&mut self, partitions: impl Iterator<Item = i32>);

    /// Writes that follow a commit. Once they and all before them are
    /// acknowledged, the marker may say `applied`, if given.
    fn write(
        &mut self,
        partition: i32,
        writes: Vec<ViewWrite>,
        applied: Option<i64>,
        now: Timestamp,
    );

    /// How many writes wait, of all partitions.
    fn backlog(&self) -> usize;

    /// Committed state, to be written where the view holds something else
    /// (rule V6). It may be dropped: the next pass brings it again.
    fn sweep(&mut self, partition: i32, page: Vec<ViewWrite>);

    /// Whether the view can take another page to sweep.
    fn may_sweep(&self) -> bool;

    /// Removes hashes that no row has, each only if its token is still the one
    /// that was read (rule V6). It may be dropped, like a page.
    fn remove(&mut self, partition: i32, keys: Vec<FoundKey>);

    /// Forgets a partition that is no longer owned, and what waits for it.
    fn release(&mut self, partition: i32);

    /// What happened since the last call.
    fn poll(&mut self, events: &mut Vec<ViewEvent>);
}
