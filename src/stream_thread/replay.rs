//! Which heartbeats and openings of VPN sessions a restore replays (rule R2), and as
//! of when they count.

use super::ports::{CommittedOffset, OffsetAt, RecordRef};
use crate::shard::{DeviceEvent, EventBody, Input, Shard, Timestamp};
use crate::wire::decode::{Format, decode};
use crate::wire::headers;
use crate::wire::metadata::ShardMetadata;

/// Which records of an input a restore replays.
#[derive(Clone, Copy, Debug)]
pub struct Replay {
    /// The input: heartbeats, or VPN sessions.
    pub input: Input,
    /// Those from here on. Where not all are replayed that were processed, an
    /// earlier one than those of the window may count again: it was not written
    /// when it left the window, since one followed that was stamped after the
    /// clock and is unseen now. Then all are looked at.
    pub from: OffsetAt,
    /// The clock by which rows will be re-evaluated.
    clock: Timestamp,
    /// The clock may have seen all records stamped before this, which is the clock
    /// plus the allowed lateness (rule T2). Without the lateness, devices whose
    /// last heartbeats came late would be called Offline. A record of exactly this
    /// millisecond may not have had its turn.
    seen_by_clock: Timestamp,
    /// All below this offset were processed.
    processed: i64,
    /// Whether all records that the clock has seen are below `processed`. They are
    /// not if offsets were lost or set back, until the records after them are read
    /// again. Then those are needed, too, before any row is re-evaluated (rule R5).
    /// Each is checked by its timestamp: with producers' timestamps, one wrong
    /// timestamp would mislead a search for the offset of their end.
    all_seen: bool,
    /// No record counts as later than this (rule T3). Without limit where all
    /// that were processed had nothing to be measured by.
    newest: Timestamp,
}

impl Replay {
    /// For a shard whose clock had come to `clock` with what was committed
    /// beside its offsets, and of this input `committed`.
    #[must_use]
    pub fn new(
        input: Input,
        clock: Timestamp,
        metadata: Option<&ShardMetadata>,
        committed: Option<&CommittedOffset>,
        slack_ms: i64,
    ) -> Replay {
        let seen = metadata.and_then(|metadata| metadata.watermarks[input.index()]);
        let seen_by_clock = clock.plus_ms(slack_ms);
        let all_seen = seen >= Some(clock)
            && committed.is_some_and(|at| ShardMetadata::decode(&at.metadata).as_ref() == metadata);
        let from = metadata.filter(|_| all_seen).map(|metadata| metadata.replay_from);
        Replay {
            input,
            from: from.map_or(OffsetAt::Start, OffsetAt::Time),
            clock,
            seen_by_clock,
            newest: match (metadata, seen) {
                (Some(_), None) => Timestamp(i64::MAX),
                _ => seen_by_clock.max(seen.unwrap_or(seen_by_clock)),
            },
            processed: committed.map_or(0, |committed| committed.offset),
            all_seen,
        }
    }

    /// One past the last offset to look at, where the log ends at `end`.
    #[must_use]
    pub fn until(&self, end: i64) -> i64 {
        if self.all_seen { self.processed.min(end) } else { end }
    }

    fn was_processed(&self, record: &RecordRef<'_>) -> bool {
        self.all_seen || record.offset < self.processed
    }

    /// Whether the clock may have seen a record.
    #[must_use]
    pub fn has_seen(&self, record: &RecordRef<'_>) -> bool {
        self.was_processed(record) || record.timestamp < self.seen_by_clock
    }

    /// Lets the shard have the heartbeat or the opening that a record holds, if the
    /// clock had seen it. What cannot be decoded was a dead letter when it was first read.
    pub fn replay(&self, shard: &mut Shard, record: &RecordRef<'_>, format: Format) {
        let Ok(event) = decode(self.input, format, record.key, record.value) else { return };
        if !self.has_seen(record) {
            return;
        }
        let processed = self.was_processed(record);
        let believed = record.timestamp.min(self.newest);
        let at = event.occurred_at.unwrap_or(record.timestamp).min(believed);
        match event.body {
            EventBody::Heartbeat { device, poll_interval_s, going_away } => {
                if processed {
                    shard.replay_heartbeat(&device, at, poll_interval_s, going_away);
                } else {
                    let clock = self.clock;
                    shard.replay_heartbeat_if_seen(&device, at, poll_interval_s, going_away, clock);
                }
            }
            EventBody::Device { device, event: opening @ DeviceEvent::SessionOpened { .. } } => {
                let sent = headers::relay(&record.headers.to_vec()).sent_at(believed);
                if processed {
                    shard.replay_opening(&device, at, sent, &opening);
                } else {
                    shard.replay_opening_if_seen(&device, at, sent, &opening, self.clock);
                }
            }
            EventBody::Device { .. } | EventBody::Scope(_) => {}
        }
    }
}
