//! Reading: queues records as events, and learns the ends of the partitions (rules
//! T1, T4, R8).

use tracing::{error, info, warn};

use super::open_transaction::OpenTransaction;
use super::ports::{Bounds, Log, OffsetAt, RecordRef, Source, View};
use super::running::Running;
use super::settings::Settings;
use super::slot::Slot;
use super::thread::StreamThread;
use crate::clock::Clock;
use crate::error::{Error, Fatal};
use crate::shard::{
    Content, DeadLetter, DeadLetterReason, Event, EventBody, Input, Queued, Timestamp,
};
use crate::wire::decode::{Refusal, decode};
use crate::wire::headers;

/// How often the ends of the partitions are asked for (rule T1).
const ENDS_INTERVAL_MS: i64 = 1_000;
/// How many answers in a row, one a second, may report an end before the offset
/// already read. A leader that was replaced may answer so for a while.
const ENDED_BEFORE_MAX: u32 = 60;

impl<L: Log, V: View, C: Clock> StreamThread<L, V, C> {
    /// Starts to read the inputs of running shards, once broker time is known:
    /// timestamps are clamped by it (rules T3, T6).
    pub(super) fn begin_reading(&mut self) {
        if self.now().broker.is_none() {
            return;
        }
        let running = self.slots.values_mut().filter_map(Slot::running_mut);
        for running in running.filter(|running| !running.reads) {
            let partition = running.shard.partition();
            match self.log.resume(&running.read_inputs()) {
                Ok(()) => running.reads = true,
                Err(error) => {
                    warn!(
                        partition,
                        %error,
                        "cannot start to read the inputs of the shard yet; retrying"
                    );
                }
            }
        }
    }

    /// Logs the inputs that the others no longer wait for (rule T4).
    pub(super) fn tell_silence(&mut self) {
        let idle_ms = self.settings.rules.max_input_idle_ms;
        for running in self.slots.values_mut().filter_map(Slot::running_mut) {
            for input in Input::ALL {
                let passed_over = running.shard.is_passed_over(input);
                let reading = &mut running.inputs[input.index()];
                let told = std::mem::replace(&mut reading.passed_over, passed_over);
                // That was said when it stopped, and why.
                if reading.letters.has_stopped() {
                    continue;
                }
                let (partition, input) = (running.shard.partition(), input.name());
                match (told, passed_over) {
                    (false, true) => warn!(
                        partition,
                        input,
                        silent_ms = idle_ms,
                        "the input does not answer, though it may have unread records: the other \
                         inputs continue without it, and changes in between may be lost. No \
                         device expires meanwhile. Check the broker that leads it, its ACLs and \
                         its quotas; processing.max_input_idle sets how long the others wait"
                    ),
                    (true, false) => info!(partition, input, "the input answers again"),
                    _ => {}
                }
            }
        }
    }

    /// Asks for the ends of all partitions, once a second (rule T1).
    pub(super) fn ask_ends(&mut self) {
        let now = self.now();
        if self.ends.is_some() || now.monotonic_ms - self.ends_asked_ms < ENDS_INTERVAL_MS {
            return;
        }
        let mut of = Vec::new();
        for running in self.slots.values_mut().filter_map(Slot::running_mut) {
            for (input, reading) in Input::ALL.into_iter().zip(&mut running.inputs) {
                reading.expected_when_asked = Some(reading.expected);
                of.push((Source::Input(input), running.shard.partition()));
            }
        }
        if of.is_empty() {
            return;
        }
        self.ends_asked_ms = now.monotonic_ms;
        self.ends = Some((self.log.ask_bounds(&of, OffsetAt::Start), now.broker));
    }

    /// Asks for the ends without waiting for the interval: a shard has begun to
    /// run, or broker time has just become known. An open query covers neither, and
    /// may take long, so it is dropped.
    pub(super) fn ask_ends_at_once(&mut self) {
        self.ends_asked_ms = i64::MIN / 2;
        self.ends = None;
    }

    pub(super) fn learn_ends(
        &mut self,
        asked_at: Option<Timestamp>,
        answer: Result<Bounds, String>,
    ) -> Result<(), Fatal> {
        let found = match answer {
            Ok(found) => found,
            Err(message) => {
                // No evidence: the clocks stand still until there is some.
                warn!(
                    error = %message,
                    "the ends of the inputs are not known: no device expires meanwhile. Check the \
                     brokers that lead them"
                );
                self.counts.kafka_error = Some(message);
                return Ok(());
            }
        };
        for running in self.slots.values_mut().filter_map(Slot::running_mut) {
            for input in Input::ALL {
                let place = (Source::Input(input), running.shard.partition());
                let reading = &mut running.inputs[input.index()];
                // Records that the broker appended after its answer may have been
                // read already, so the answer is compared with `expected` at the
                // time of the query.
                let (Some(read), Some(log)) = (reading.expected_when_asked, found.get(&place))
                else {
                    continue;
                };
                reading.end = Some(log.end);
                if let Some(asked_at) = asked_at {
                    let place = (input, place.1);
                    reading.open = OpenTransaction::look(reading.open, *log, asked_at, place);
                }
                if log.end < read {
                    ended_before(running, input, read, log.end)?;
                } else {
                    reading.ended_before = 0;
                    running.shard.learn_end(input, asked_at, log.end, log.stable);
                }
            }
        }
        Ok(())
    }

    /// Pauses inputs that run too far ahead of the others (rule T4). An input
    /// without queued records, or with too few to clamp their timestamps (rule T3),
    /// is never paused: the others may wait for it.
    pub(super) fn balance_read_ahead(&mut self) {
        let (mut pause, mut resume) = (Vec::new(), Vec::new());
        let read_ahead = self.read_ahead();
        for running in self.slots.values_mut().filter_map(Slot::running_mut) {
            for input in Input::ALL {
                let shard = &mut running.shard;
                let buffered = shard.buffered_bytes(input);
                let reading = &mut running.inputs[input.index()];
                let stopped = reading.letters.has_stopped();
                let paused = &mut reading.paused;
                let waits_for_more = shard.waits_for_more(input) && !stopped;
                if !*paused && (stopped || buffered > read_ahead.high_bytes && !waits_for_more) {
                    *paused = true;
                    pause.push((input, shard.partition()));
                    shard.forget_evidence(input);
                } else if *paused && !stopped && (buffered < read_ahead.low_bytes || waits_for_more)
                {
                    *paused = false;
                    resume.push((input, shard.partition()));
                }
            }
        }
        for (partitions, result) in
            [(&pause, self.log_pause(&pause)), (&resume, self.log_resume(&resume))]
        {
            if let Err(error) = result {
                warn!(?partitions, %error, "pausing or resuming inputs failed; retrying");
            }
        }
    }

    /// How far an input may be read ahead, given the queued bytes of all inputs.
    fn read_ahead(&self) -> ReadAhead {
        let running = self.slots.values().filter_map(Slot::running);
        let (mut inputs, mut bytes) = (0, 0);
        for running in running {
            inputs += Input::ALL.len();
            bytes +=
                Input::ALL.map(|input| running.shard.buffered_bytes(input)).iter().sum::<usize>();
        }
        ReadAhead::of(self.settings.read_ahead_max_bytes, inputs, bytes)
    }

    fn log_pause(&mut self, partitions: &[(Input, i32)]) -> Result<(), Error> {
        if partitions.is_empty() { Ok(()) } else { self.log.pause(partitions) }
    }

    fn log_resume(&mut self, partitions: &[(Input, i32)]) -> Result<(), Error> {
        if partitions.is_empty() { Ok(()) } else { self.log.resume(partitions) }
    }
}

/// How many bytes of an input may be queued before it is paused, and before it is
/// resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ReadAhead {
    high_bytes: usize,
    low_bytes: usize,
}

impl ReadAhead {
    /// The limits for a thread with this many `inputs` and queued `bytes`. One
    /// input alone may queue a fifth of `max_bytes`. Once `bytes` exceeds
    /// `max_bytes`, each input gets only its share: at most half of `max_bytes`
    /// more comes in, or the least share of each input. An input resumes far below
    /// its limit, because a pause discards what was prefetched, but before its
    /// queue is empty.
    fn of(max_bytes: usize, inputs: usize, bytes: usize) -> ReadAhead {
        let alone = max_bytes / 5;
        let share = (max_bytes / 2 / inputs.max(1)).clamp(max_bytes / 512, alone);
        ReadAhead {
            high_bytes: if bytes > max_bytes { share } else { alone },
            low_bytes: (max_bytes / 128).min(share / 2),
        }
    }
}

/// Handles an input that ends before the offset already read: it is another log,
/// and all its records are unread, whatever our offset is (rule T1).
fn ended_before(running: &mut Running, input: Input, read: i64, end: i64) -> Result<(), Fatal> {
    running.shard.forget_evidence(input);
    let partition = running.shard.partition();
    let times = &mut running.inputs[input.index()].ended_before;
    *times += 1;
    if *times == 1 {
        error!(
            input = input.name(),
            partition,
            read,
            end,
            "the input ends before the offset already read: its topic was recreated or has lost \
             records (offset out of range). No device expires meanwhile"
        );
    }
    if *times > ENDED_BEFORE_MAX {
        return Err(Fatal::unavailable(format!(
            "partition {partition} of {} ends at {end}, but was read up to {read}: its topic was \
             recreated or has lost records. The next start reads it from its beginning",
            input.name()
        )));
    }
    Ok(())
}

fn tell_stop(input: Input, record: &RecordRef<'_>, share: f64, max_share: f64) {
    error!(
        input = input.name(),
        partition = record.partition,
        offset = record.offset,
        share,
        max_share,
        "too many records of this input become dead letters: reading of this partition of the \
         input has stopped. No device of the partition goes Offline meanwhile, and the other \
         inputs continue. Nothing is lost: a restart begins at this offset. Find the errors with \
         `device-status dead-letters list` and fix the producer. Then restart with a larger \
         dead_letters.max_share, or with 1, so that the bad records become dead letters"
    );
}

/// Decodes a record and queues it, unless too many become dead letters.
pub(super) fn offer(
    running: &mut Running,
    input: Input,
    record: &RecordRef<'_>,
    settings: &Settings,
    now_ms: i64,
) {
    let reading = &mut running.inputs[input.index()];
    if record.offset < reading.expected || reading.letters.has_stopped() {
        return;
    }
    let checked = check(input, record, settings);
    let max_share = settings.dead_letters.max_share;
    if let Some(share) = reading.letters.count(checked.is_err(), max_share, now_ms) {
        tell_stop(input, record, share, max_share);
        return;
    }
    running.passed_to(input, record.offset);
    running.inputs[input.index()].expected = record.offset + 1;
    let content = match checked {
        Ok(event) => Content::Event(event),
        Err(refusal) => Content::Bad(Box::new(DeadLetter {
            input,
            partition: record.partition,
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key.map(Into::into),
            value: record.value.map(Into::into),
            headers: record.headers.to_vec(),
            reason: refusal.reason,
            detail: refusal.detail.into(),
        })),
    };
    // Only the VPN's events have leases, and nearly all records are heartbeats.
    let headers = match input {
        Input::VpnSessions => record.headers.to_vec(),
        Input::Lifecycle | Input::Heartbeats => Vec::new(),
    };
    let queued = Queued {
        offset: record.offset,
        timestamp: record.timestamp,
        stamped_by_broker: record.stamped_by_broker,
        relay: headers::relay(&headers),
        content,
    };
    running.shard.offer(input, queued);
}

fn check(input: Input, record: &RecordRef<'_>, settings: &Settings) -> Result<Event, Refusal> {
    let format = settings.formats[input.index()];
    let event = decode(input, format, record.key, record.value)?;
    if !matches!(event.body, EventBody::Scope(_))
        && let Some(key) = record.key
        && let Some(belongs) = settings.belongs_elsewhere(key, record.partition)
    {
        return Err(Refusal {
            reason: DeadLetterReason::WrongPartition,
            detail: format!(
                "the key belongs on partition {belongs} (murmur2 of {} partitions)",
                settings.partitions
            ),
        });
    }
    Ok(event)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream_thread::settings::READ_AHEAD_MAX_BYTES;

    #[test]
    fn read_ahead_is_bounded_for_any_number_of_inputs() {
        for inputs in [1, 3, 30, 300, 1_500] {
            let calm = ReadAhead::of(READ_AHEAD_MAX_BYTES, inputs, READ_AHEAD_MAX_BYTES);
            assert_eq!(calm.high_bytes, READ_AHEAD_MAX_BYTES / 5, "{inputs}");
            let full = ReadAhead::of(READ_AHEAD_MAX_BYTES, inputs, READ_AHEAD_MAX_BYTES + 1);
            let least_share_bytes = READ_AHEAD_MAX_BYTES / 512;
            let most = READ_AHEAD_MAX_BYTES / 2 + inputs * least_share_bytes;
            assert!(inputs * full.high_bytes <= most, "{inputs}");
            // A paused input still has records when it is resumed.
            assert!(full.low_bytes >= least_share_bytes / 2, "{inputs}");
            assert!(full.low_bytes * 2 <= full.high_bytes, "{inputs}");
            assert_eq!(full.low_bytes, calm.low_bytes);
        }
    }
}
