//! The part of the configuration that the loop uses.

use crate::shard::Rules;
use crate::wire::ChangeFormat;
use crate::wire::decode::Format;
use crate::wire::murmur2::partition_of;

/// Units of work of one shard in one turn of the loop.
pub const WORK_PER_TURN: usize = 20_000;
/// How many bytes of output of all shards may wait for a commit, approximately,
/// before nothing more is applied (rule C10). A broker that takes 0.5 MB a second
/// finishes a transaction of this size within its ten seconds (rule C4), and five
/// thousand new devices fit in one.
pub const OUTPUT_MAX_BYTES: usize = 4 << 20;
/// How many bytes of memory the queued records of all shards may take,
/// approximately, before less is read ahead (rule T4).
pub const READ_AHEAD_MAX_BYTES: usize = 32 << 20;

/// The part of the configuration that the loop uses.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The parameters of the rules for statuses.
    pub rules: Rules,
    /// The formats of the inputs, in the order of [`Input::ALL`].
    pub formats: [Format; 3],
    /// How many partitions each input has.
    pub partitions: i32,
    /// Whether a record on another partition than its key's is refused (rule R8).
    pub check_partitioner: bool,
    /// The least time between two commits, in milliseconds.
    pub commit_interval_ms: i64,
    /// Units of work of one shard in one turn of the loop: [`WORK_PER_TURN`], or
    /// less in a simulation.
    pub work_per_turn: usize,
    /// The approximate size limit of a transaction, in bytes (rule C10):
    /// [`OUTPUT_MAX_BYTES`], or less in a simulation.
    pub output_max_bytes: usize,
    /// The approximate memory limit of queued records, in bytes (rule T4):
    /// [`READ_AHEAD_MAX_BYTES`], or less in a simulation.
    pub read_ahead_max_bytes: usize,
    /// How long a pass of the sweep takes (rule V6), in milliseconds; 0: none.
    pub refresh_interval_ms: i64,
    /// Whether revoked shards are kept in case they come back (rule R7).
    pub suspend: bool,
    /// What dead letters are made of.
    pub dead_letters: DeadLetterSettings,
    /// The format of the changes.
    pub change_format: ChangeFormat,
    /// The CloudEvents source of the changes; `None`: they are no CloudEvents.
    pub cloud_events_source: Option<String>,
}

impl Settings {
    /// The partition of a key, if that is checked and is not `partition` (rules R6,
    /// R8).
    pub(super) fn belongs_elsewhere(&self, key: &[u8], partition: i32) -> Option<i32> {
        let elsewhere = |belongs: &i32| *belongs != partition;
        self.check_partitioner.then(|| partition_of(key, self.partitions)).filter(elsewhere)
    }
}

/// What dead letters are made of, besides the record.
#[derive(Clone, Debug)]
pub struct DeadLetterSettings {
    /// The names of the inputs, in the order of [`Input::ALL`].
    pub topics: [String; 3],
    /// The largest record that the broker takes, in bytes (rule C8).
    pub max_bytes: usize,
    /// The largest share of an input's records in a partition that may become dead
    /// letters in a minute before reading of it stops; 1: any.
    pub max_share: f64,
}
