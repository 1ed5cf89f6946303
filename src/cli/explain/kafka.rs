//! What the service knows of a device, from Kafka: restored as a new owner of
//! its partition would, with the same rules (R1 to R3), but for one device.

use std::ops::Range;
use std::time::Duration;

use rdkafka::message::{BorrowedMessage, Headers as _, Message, Timestamp as RecordTimestamp};

use super::doubts::Arrivals;
use crate::cli::reading::{Ranges, Reader};
use crate::clock::{Clock as _, SystemClock};
use crate::config::{Config, Partitioner};
use crate::error::{Error, Fatal};
use crate::kafka::positions::Positions;
use crate::shard::{DeviceId, Entry, EventBody, Header, Input, Now, Shard, Timestamp};
use crate::stream_thread::OpenTransaction;
use crate::stream_thread::past::{InputStart, Past};
use crate::stream_thread::ports::{Headers, LogBounds, OffsetAt, RecordRef};
use crate::stream_thread::replay::Replay;
use crate::wire::changelog;
use crate::wire::decode::decode;
use crate::wire::headers;
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
    /// The last of what it has read in the replay window, of the device and of all
    /// scopes.
    pub arrivals: Arrivals,
    /// The service runs with other `heartbeat.*` settings than we.
    pub other_rules: bool,
    /// The other partitions that have a row of the device.
    pub other_partitions: Vec<i32>,
    /// The transactions that hang on inputs of its partition.
    pub open: Vec<(Input, OpenTransaction)>,
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
    let mut found: Option<Restored> = None;
    for partition in partitions {
        let subject = Subject { reader: &reader, positions: &positions, device, partition };
        let past = subject.past()?;
        let unread = subject.unread(&past)?;
        unread_of_device += unread.of_device;
        if past.shard.snapshot(device).is_some() && past.clock().is_some() {
            match &mut found {
                Some(found) => found.other_partitions.push(partition),
                None => found = Some(subject.settled(past, unread)?),
            }
        }
    }
    if let Some(found) = found {
        return Ok(found);
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
            Entry::Instance(..) | Entry::Fleet(..) | Entry::Organization(..) | Entry::Hold(_) => {
                true
            }
            Entry::Epoch(_) => false,
        }
    }

    /// The device and all scopes, as the changelog has them, and what is
    /// committed: a row may be younger than that, never older (rule R1).
    fn past(&self) -> Result<Past, Fatal> {
        let config = self.reader.config;
        let topic = &config.topics.changelog;
        let mut past = Past::new(self.partition, &config.rules(), Default::default());
        // What takes long is read first, so that what is committed is of now.
        let bounds = self.reader.bounds(topic, self.partition)?;
        self.read_changelog(&mut past, bounds.clone())?;
        let inputs = Input::ALL.map(|input| config.topics.input(input));
        let committed = self.positions.committed(inputs, self.partition)?;
        for (at, (input, committed)) in std::iter::zip(inputs, committed).enumerate() {
            let log = self.reader.bounds(input, self.partition)?;
            let log = LogBounds { start: log.start, stable: log.end, end: log.end };
            past.starts[at] = InputStart::new(committed, log);
        }
        let end = self.positions.high_watermark(topic, self.partition)?;
        self.wait_until_stable(end)?;
        self.read_changelog(&mut past, bounds.end..end)?;
        Ok(past)
    }

    /// Waits until no transaction is open before this end of the changelog.
    fn wait_until_stable(&self, end: i64) -> Result<(), Fatal> {
        let topic = &self.reader.config.topics.changelog;
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

    fn read_changelog(&self, past: &mut Past, range: Range<i64>) -> Result<(), Fatal> {
        let topic = &self.reader.config.topics.changelog;
        let mut failure = None;
        self.reader.read(topic, self.ranges(range), &mut |message| {
            // The key alone tells whether the value is worth reading.
            let concerns = match changelog::decode(message.key(), None) {
                Ok(Some(entry)) => self.is_concerned(&entry),
                Ok(None) | Err(_) => false,
            };
            let (key, value, offset) = (message.key(), message.payload(), message.offset());
            if concerns && let Err(error) = past.take_changelog(key, value, offset, false) {
                failure.get_or_insert(match error {
                    Error::Corrupted(what) => what,
                    other => other.to_string(),
                });
            }
        })?;
        failure.map_or(Ok(()), |what| Err(Fatal::internal(what)))
    }

    /// What is written and not yet read by the service.
    fn unread(&self, past: &Past) -> Result<Unread, Fatal> {
        let mut unread = Unread::default();
        let key = self.device.to_string();
        for (input, start) in std::iter::zip(Input::ALL, &past.starts) {
            let topic = self.reader.config.topics.input(input);
            self.reader.read(topic, self.ranges(start.offset..start.log_end), &mut |message| {
                unread.records[input.index()] += 1;
                unread.of_device += u64::from(message.key() == Some(key.as_bytes()));
            })?;
        }
        Ok(unread)
    }

    /// What is replayed over the row, and the row judged.
    fn settled(&self, mut past: Past, unread: Unread) -> Result<Restored, Fatal> {
        let config = self.reader.config;
        let key = self.device.to_string();
        let mut arrivals = Arrivals::default();
        let mut add = |input, record: &RecordRef<'_>| {
            let format = config.formats.input(input);
            let Ok(event) = decode(input, format, record.key, record.value) else { return };
            let is_scope = matches!(event.body, EventBody::Scope(_));
            if is_scope || record.key == Some(key.as_bytes()) {
                let sent = headers::relay(&record.headers.to_vec()).sent_at(record.timestamp);
                arrivals.add(event, record.timestamp, sent);
            }
        };
        for input in [Input::VpnSessions, Input::Heartbeats] {
            if let Some(replay) = past.replay(input, &config.rules()) {
                self.replay(&mut past, replay, &mut |record| {
                    if input == Input::Heartbeats {
                        add(input, record);
                    }
                })?;
            }
        }
        let rules = config.rules();
        let window = past.clock().map(|clock| clock.plus_ms(-rules.replay_window_ms));
        for input in [Input::Lifecycle, Input::VpnSessions] {
            let topic = config.topics.input(input);
            let from = self.reader.offset_at(topic, self.partition, window.unwrap_or_default())?;
            let until = past.starts[input.index()].offset;
            let range = from.unwrap_or(until)..until;
            self.reader.read(topic, self.ranges(range), &mut |message| {
                let record = record(message);
                if record.key.is_none_or(|its| its == key.as_bytes()) {
                    add(input, &record);
                }
            })?;
        }
        let start = past.start(1, &rules);
        let other_rules = past.has_other_rules(rules.fingerprint());
        let mut shard = past.shard;
        shard.start(start);
        while shard.turn(Now { monotonic_ms: 0, broker: None }, 1_000).more {}
        let open = self.open_transactions()?;
        let (partition, other_partitions) = (self.partition, Vec::new());
        Ok(Restored { shard, partition, unread, arrivals, other_rules, other_partitions, open })
    }

    /// The transactions that hang, since the time of their first records.
    fn open_transactions(&self) -> Result<Vec<(Input, OpenTransaction)>, Fatal> {
        let now = SystemClock::new().wall();
        let mut open = Vec::new();
        for input in Input::ALL {
            let topic = self.reader.config.topics.input(input);
            // The log's end is asked for first: what is not stable before it is open.
            let end = self.positions.high_watermark(topic, self.partition)?;
            let offset = self.reader.bounds(topic, self.partition)?.end;
            if end <= offset {
                continue;
            }
            let since = self.reader.uncommitted_timestamp(topic, self.partition, offset)?;
            let found =
                since.map(|since| OpenTransaction { offset, since, age_ms: now.0 - since.0 });
            open.extend(found.filter(OpenTransaction::hangs).map(|found| (input, found)));
        }
        Ok(open)
    }

    /// Replays what an input has of the device, and lets `look` see it.
    fn replay(
        &self,
        past: &mut Past,
        replay: Replay,
        look: &mut dyn FnMut(&RecordRef<'_>),
    ) -> Result<(), Fatal> {
        let config = self.reader.config;
        let topic = config.topics.input(replay.input);
        let bounds = self.reader.bounds(topic, self.partition)?;
        let from = match replay.from {
            OffsetAt::Time(at) => self.reader.offset_at(topic, self.partition, at)?,
            OffsetAt::Start => Some(bounds.start),
        };
        let until = replay.until(bounds.end);
        let range = from.unwrap_or(until)..until;
        let key = self.device.to_string();
        let format = config.formats.input(replay.input);
        self.reader.read(topic, self.ranges(range), &mut |message| {
            let record = record(message);
            if record.key == Some(key.as_bytes()) {
                replay.replay(&mut past.shard, &record, format);
                look(&record);
            }
        })
    }
}

impl Headers for BorrowedMessage<'_> {
    fn to_vec(&self) -> Vec<Header> {
        let headers = self.headers().into_iter().flat_map(|headers| headers.iter());
        headers.map(|header| (header.key.into(), header.value.map(Into::into))).collect()
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
        headers: message,
    }
}
