//! What the loop is told of the configuration.

use crate::shard::Rules;
use crate::wire::decode::Format;
use crate::wire::murmur2::partition_of;

/// Units of work of one shard in one turn of the loop.
pub const WORK_PER_TURN: usize = 20_000;
/// About how much output of all shards may wait for a commit, in bytes, before
/// nothing more is applied (rule C10). Of a broker that takes 0.5 MB a second a
/// transaction of this size is through before its ten seconds are over (rule
/// C4); and five thousand new devices fit in one.
pub const OUTPUT_MAX_BYTES: usize = 4 << 20;
/// About how much memory the records take that wait in all shards, in bytes,
/// before less is read ahead (rule T4).
pub const READ_AHEAD_MAX_BYTES: usize = 32 << 20;

/// What the loop is told of the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The numbers that statuses depend on.
    pub rules: Rules,
    /// The formats of the inputs, in the order of [`Input::ALL`].
    pub formats: [Format; 3],
    /// How many partitions each input has.
    pub partitions: i32,
    /// Whether a record on another partition than its key's is refused (rule R8).
    pub check_partitioner: bool,
    /// The least time between two commits, in milliseconds.
    pub commit_interval_ms: i64,
    /// Units of work of one shard in one turn of the loop, [`WORK_PER_TURN`] but
    /// where a simulation wants it small.
    pub work_per_turn: usize,
    /// About how much a transaction holds at most, in bytes (rule C10),
    /// [`OUTPUT_MAX_BYTES`] but where a simulation wants it small.
    pub output_max_bytes: usize,
    /// About how much memory the records take that wait in all shards, in bytes,
    /// before less is read ahead (rule T4), [`READ_AHEAD_MAX_BYTES`] but where a
    /// simulation wants it small.
    pub read_ahead_max_bytes: usize,
    /// How long a pass of the sweep takes (rule V6), in milliseconds; 0: none.
    pub refresh_interval_ms: i64,
    /// Whether revoked shards are kept in case they come back (rule R7).
    pub suspend: bool,
    /// What dead letters are made of.
    pub dead_letters: DeadLetterSettings,
    /// The source of the changes as CloudEvents; absent: they are none.
    pub cloud_events_source: Option<String>,
}

impl Settings {
    /// The partition on which a key belongs, where that is checked and is not
    /// this one (rules R6, R8).
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
    /// The greatest share of an input's records in a partition that may become dead
    /// letters in a minute before it is read no further; 1: any.
    pub max_share: f64,
}
