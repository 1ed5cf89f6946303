//! What the service knows of a device, from Kafka: restored as a new owner of
//! its partition would, with the same rules (R1 to R3), but for one device.

use std::ops::Range;
use std::time::Duration;

use rdkafka::message::{BorrowedMessage, Message, Timestamp as RecordTimestamp};

use crate::cli::reading::{Ranges, Reader};
use crate::clock::{Clock as _, SystemClock};
use crate::config::{Config, Partitioner};
use crate::error::{Error, Fatal};
use crate::kafka::positions::Positions;
use crate::shard::{DeviceId, Entry, Header, Input, Now, Shard, Start, Timestamp};
use crate::stream_thread::ports::{CommittedOffset, Headers, OffsetAt, RecordRef};
use crate::stream_thread::replay::Replay;
use crate::wire::changelog;
use crate::wire::metadata::ShardMetadata;
use crate::wire::murmur2::partition_of;

/// How long a transaction that is open may stay so: longer than the service's.
const STABLE_WITHIN_MS: i64 = 20_000;
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A device as the service knows it.
pub(super) struct Restored {
    /// Holds the device and all scopes.
    pub shard: Shard,
    /// Where it is.
    pub partition: i32,
    /// What is written and not yet read.
    pub unread: Unread,
    /// The service runs with other `heartbeat.*` settings than we.
    pub other_rules: bool,
}

/// Records that the service has not read, or not committed yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Unread {
    /// In the device's partition of each input.
    pub records: [u64; Input::ALL.len()],
    /// Those of them with the device's key.
    pub of_device: u64,
}

/// Restores a device.
///
/// # Errors
/// When Kafka cannot be reached or read, or nothing is known of the device.
pub(super) fn restore(config: &Config, device: &DeviceId) -> Result<Restored, Fatal> {
    let reader = Reader::new(config, "explain")?;
    let keys = ["topics.lifecycle", "topics.vpn_sessions", "topics.heartbeats"];
    let mut partitions = Vec::new();
    for (input, key) in std::iter::zip(Input::ALL, keys) {
        partitions = reader.partitions(config.topics.input(input), key)?;
    }
    reader.partitions(&config.topics.changelog, "topics.changelog")?;
    if config.topics.partitioner == Partitioner::Murmur2 {
        let count = i32::try_from(partitions.len()).unwrap_or(i32::MAX);
        partitions = vec![partition_of(device.to_string().as_bytes(), count)];
    }
    let positions = Positions::new(config)?;
    let mut unread_of_device = 0;
    for partition in partitions {
        let subject = Subject { reader: &reader, positions: &positions, device, partition };
        let (shard, committed) = subject.changelog()?;
        let unread = subject.unread(&committed)?;
        unread_of_device += unread.of_device;
        let metadata = latest(&committed);
        // What was written says when, if nothing else does (rule R5).
        let clock = metadata.as_ref().map(|m| m.clock).or(shard.greatest_clock());
        if let (Some(_), Some(clock)) = (shard.snapshot(device), clock) {
            return subject.settled(shard, clock, metadata, &committed, unread);
        }
    }
    let waiting = match unread_of_device {
        0 => String::new(),
        1 => "; one record of it waits to be read by the service".to_owned(),
        count => format!("; {count} records of it wait to be read by the service"),
    };
    Err(Fatal::not_found(format!(
        "the group {} knows nothing of a device {:?}{waiting}. A deleted device is forgotten \
         after processing.tombstone_retention; device-status history tells what it showed",
        config.kafka.group,
        device.to_string()
    )))
}

/// What is committed of each input.
type Committed = [Option<CommittedOffset>; Input::ALL.len()];

/// The metadata that counts (rule C2).
fn latest(committed: &Committed) -> Option<ShardMetadata> {
    committed
        .iter()
        .flatten()
        .filter_map(|committed| ShardMetadata::decode(&committed.metadata))
        .max_by_key(|metadata| (metadata.epoch, metadata.batch))
}

struct Subject<'a> {
    reader: &'a Reader<'a>,
    positions: &'a Positions<'a>,
    device: &'a DeviceId,
    partition: i32,
}

impl Subject<'_> {
    fn ranges(&self, range: Range<i64>) -> Ranges {
        Ranges::from([(self.partition, range)])
    }

    fn is_concerned(&self, entry: &Entry) -> bool {
        match entry {
            Entry::Device(device, _) | Entry::ClosedSession(device, ..) => device == self.device,
            Entry::Instance(..) | Entry::Fleet(..) | Entry::Organization(..) => true,
            Entry::Epoch(_) => false,
        }
    }

    /// The device and all scopes, as the changelog has them, and what is
    /// committed: a row may be younger than that, never older (rule R1).
    fn changelog(&self) -> Result<(Shard, Committed), Fatal> {
        let config = self.reader.config();
        let topic = &config.topics.changelog;
        let mut shard = Shard::new(self.partition, config.rules());
        // What takes long is read first, so that what is committed is of now.
        let bounds = self.reader.bounds(topic, self.partition)?;
        self.read_changelog(&mut shard, bounds.clone())?;
        let inputs = Input::ALL.map(|input| config.topics.input(input));
        let committed = self.positions.committed(inputs, self.partition)?;
        let end = self.positions.high_watermark(topic, self.partition)?;
        self.wait_until_stable(end)?;
        self.read_changelog(&mut shard, bounds.end..end)?;
        Ok((shard, committed))
    }

    /// Waits until no transaction is open before this end of the changelog.
    fn wait_until_stable(&self, end: i64) -> Result<(), Fatal> {
        let topic = &self.reader.config().topics.changelog;
        let clock = SystemClock::new();
        while self.reader.bounds(topic, self.partition)?.end < end {
            if clock.monotonic_ms() > STABLE_WITHIN_MS {
                return Err(Fatal::unavailable(format!(
                    "a transaction on {topic} stays open; try again when it has timed out"
                )));
            }
            SystemClock::pause(LOOK_EVERY);
        }
        Ok(())
    }

    fn read_changelog(&self, shard: &mut Shard, range: Range<i64>) -> Result<(), Fatal> {
        let topic = &self.reader.config().topics.changelog;
        let mut failure = None;
        self.reader.read(topic, self.ranges(range), &mut |message| {
            // The key alone tells whether the value is worth reading.
            let concerns = match changelog::decode(message.key(), None) {
                Ok(Some(entry)) => self.is_concerned(&entry),
                Ok(None) | Err(_) => false,
            };
            if !concerns {
                return;
            }
            match changelog::decode(message.key(), message.payload()) {
                Ok(Some(entry)) => shard.restore_entry(entry, false),
                Ok(None) => {}
                Err(Error::Corrupted(what)) => {
                    failure.get_or_insert(format!("changelog offset {}: {what}", message.offset()));
                }
                Err(error) => drop(failure.get_or_insert(error.to_string())),
            }
        })?;
        failure.map_or(Ok(()), |what| Err(Fatal::internal(what)))
    }

    /// What is written and not yet read by the service.
    fn unread(&self, committed: &Committed) -> Result<Unread, Fatal> {
        let mut unread = Unread::default();
        let key = self.device.to_string();
        for (input, committed) in std::iter::zip(Input::ALL, committed) {
            let topic = self.reader.config().topics.input(input);
            let mut range = self.reader.bounds(topic, self.partition)?;
            if let Some(committed) = committed {
                range.start = range.start.max(committed.offset);
            }
            self.reader.read(topic, self.ranges(range), &mut |message| {
                unread.records[input.index()] += 1;
                unread.of_device += u64::from(message.key() == Some(key.as_bytes()));
            })?;
        }
        Ok(unread)
    }

    /// The heartbeats of the replay window over the row, and the row judged.
    fn settled(
        &self,
        mut shard: Shard,
        clock: Timestamp,
        metadata: Option<ShardMetadata>,
        committed: &Committed,
        unread: Unread,
    ) -> Result<Restored, Fatal> {
        let config = self.reader.config();
        let topic = config.topics.input(Input::Heartbeats);
        let bounds = self.reader.bounds(topic, self.partition)?;
        let committed = committed[Input::Heartbeats.index()].as_ref();
        let committed = committed.filter(|committed| committed.offset >= bounds.start);
        let replay = Replay::new(clock, metadata.as_ref(), committed, config.rules().slack_ms);
        let from = match replay.from {
            OffsetAt::Time(at) => self.reader.offset_at(topic, self.partition, at)?,
            _ => Some(bounds.start),
        };
        let until = replay.until(bounds.end);
        let range = from.unwrap_or(until)..until;
        let key = self.device.to_string();
        let format = config.formats.input(Input::Heartbeats);
        self.reader.read(topic, self.ranges(range), &mut |message| {
            let record = record(message);
            if record.key == Some(key.as_bytes()) {
                replay.replay(&mut shard, &record, format);
            }
        })?;
        let other_rules =
            metadata.as_ref().is_some_and(|m| m.rules_fingerprint != config.rules().fingerprint());
        shard.start(Start {
            epoch: 1,
            clock: Some(clock),
            watermarks: metadata.map_or([None; 3], |metadata| metadata.watermarks),
            ..Start::default()
        });
        while shard.turn(Now { monotonic_ms: 0, broker: None }, 1_000).more {}
        Ok(Restored { shard, partition: self.partition, unread, other_rules })
    }
}

#[derive(Debug)]
struct NoHeaders;

impl Headers for NoHeaders {
    fn to_vec(&self) -> Vec<Header> {
        Vec::new()
    }
}

fn record<'a>(message: &'a BorrowedMessage<'_>) -> RecordRef<'a> {
    let (timestamp, stamped_by_broker) = match message.timestamp() {
        RecordTimestamp::LogAppendTime(ms) => (Timestamp(ms), true),
        RecordTimestamp::CreateTime(ms) => (Timestamp(ms), false),
        RecordTimestamp::NotAvailable => (Timestamp::MIN, false),
    };
    RecordRef {
        partition: message.partition(),
        offset: message.offset(),
        timestamp,
        stamped_by_broker,
        key: message.key(),
        value: message.payload(),
        headers: &NoHeaders,
    }
}
