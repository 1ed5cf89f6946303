//! Reading: records become events in line, and the loop learns how far the
//! partitions go (rules T1, T4, R8).

use tracing::{error, warn};

use super::ports::{Clock, FoundOffset, Log, OffsetAt, RecordRef, Source, View};
use super::slot::{Slot, Stage};
use super::{Settings, StreamThread};
use crate::error::{Error, Fatal};
use crate::shard::{
    Content, DeadLetter, DeadLetterReason, Event, EventBody, Input, Now, Queued, Timestamp,
};
use crate::wire::decode::{Refusal, decode};

/// Records of one input that wait in a shard before its partition is paused,
/// and until it goes on: far apart, since a pause throws away what was
/// prefetched (rule T4).
const READ_AHEAD_HIGH: usize = 50_000;
const READ_AHEAD_LOW: usize = 2_000;
/// How often the ends of the partitions are asked for (rule T1).
const ENDS_INTERVAL_MS: i64 = 1_000;
/// How many answers in a row may say that an input ends before what was read of
/// it, a second each: a leader that was replaced may answer so for a while.
const ENDED_BEFORE_MAX: u32 = 60;

impl<L: Log, V: View, C: Clock> StreamThread<L, V, C> {
    /// Asks how far the partitions go, once a second for all of them (rule T1).
    pub(super) fn ask_ends(&mut self) {
        let now = self.now();
        if self.ends.is_some() || now.monotonic_ms - self.ends_asked_ms < ENDS_INTERVAL_MS {
            return;
        }
        let mut of = Vec::new();
        for slot in self.slots.values().filter(|slot| slot.is_running()) {
            for input in Input::ALL {
                let source = Source::Input(input);
                of.push((source, slot.partition, OffsetAt::HighWatermark));
                of.push((source, slot.partition, OffsetAt::LastStable));
            }
        }
        if of.is_empty() {
            return;
        }
        self.ends_asked_ms = now.monotonic_ms;
        self.ends = Some((self.log.ask_offsets(&of), now.broker));
    }

    /// Something waits for the ends: a shard that begins to run, or all of them
    /// for the first answer that the broker's time is known for. A question that
    /// is under way says nothing of either, and may take long: it is forgotten.
    pub(super) fn ask_ends_at_once(&mut self) {
        self.ends_asked_ms = i64::MIN / 2;
        self.ends = None;
    }

    pub(super) fn learn_ends(
        &mut self,
        asked_at: Option<Timestamp>,
        answer: Result<Vec<FoundOffset>, String>,
    ) -> Result<(), Fatal> {
        let found = match answer {
            Ok(found) => found,
            Err(message) => {
                // No evidence: the clocks stand still until there is some.
                warn!(
                    error = %message,
                    "the ends of the inputs are not known; nobody is expired meanwhile. Look at \
                     the brokers that lead them"
                );
                self.counts.kafka_error = Some(message);
                return Ok(());
            }
        };
        for slot in self.slots.values_mut().filter(|slot| slot.is_running()) {
            for input in Input::ALL {
                let find = |wanted| {
                    found
                        .iter()
                        .find(|(source, partition, at, _)| {
                            *source == Source::Input(input)
                                && *partition == slot.partition
                                && *at == wanted
                        })
                        .map(|(.., offset)| *offset)
                };
                let (Some(high), Some(stable)) =
                    (find(OffsetAt::HighWatermark), find(OffsetAt::LastStable))
                else {
                    continue;
                };
                slot.high_watermarks[input.index()] = Some(high);
                if high < slot.expected[input.index()] {
                    ended_before(slot, input, high)?;
                } else {
                    slot.ended_before[input.index()] = 0;
                    slot.shard.learn_end(input, asked_at, high, stable);
                }
            }
        }
        Ok(())
    }

    /// Pauses inputs that run too far ahead of the others (rule T4).
    pub(super) fn balance_read_ahead(&mut self) {
        let (mut pause, mut resume) = (Vec::new(), Vec::new());
        for slot in self.slots.values_mut().filter(|slot| slot.is_running()) {
            for input in Input::ALL {
                let buffered = slot.shard.buffered(input);
                let paused = &mut slot.paused[input.index()];
                if !*paused && buffered > READ_AHEAD_HIGH {
                    *paused = true;
                    pause.push((input, slot.partition));
                    slot.shard.forget_evidence(input);
                } else if *paused && buffered < READ_AHEAD_LOW {
                    *paused = false;
                    resume.push((input, slot.partition));
                }
            }
        }
        for (partitions, result) in
            [(&pause, self.log_pause(&pause)), (&resume, self.log_resume(&resume))]
        {
            if let Err(error) = result {
                warn!(?partitions, %error, "pausing or resuming; it is tried again");
            }
        }
    }

    fn log_pause(&mut self, partitions: &[(Input, i32)]) -> Result<(), Error> {
        if partitions.is_empty() { Ok(()) } else { self.log.pause(partitions) }
    }

    fn log_resume(&mut self, partitions: &[(Input, i32)]) -> Result<(), Error> {
        if partitions.is_empty() { Ok(()) } else { self.log.resume(partitions) }
    }
}

/// An input ends before what was read of it: this is another log, and what is in
/// it is unread, wherever we stand (rule T1).
fn ended_before(slot: &mut Slot, input: Input, end: i64) -> Result<(), Fatal> {
    slot.shard.forget_evidence(input);
    let (partition, read) = (slot.partition, slot.expected[input.index()]);
    let times = &mut slot.ended_before[input.index()];
    *times += 1;
    if *times == 1 {
        error!(
            input = input.name(),
            partition,
            read,
            end,
            "the input ends before what was read of it: its topic was made anew or has lost \
             records. Nobody is expired meanwhile"
        );
    }
    if *times > ENDED_BEFORE_MAX {
        return Err(Fatal::unavailable(format!(
            "partition {partition} of {} ends at {end}, and was read up to {read}: its topic was \
             made anew or has lost records. The next start reads it from its beginning",
            input.name()
        )));
    }
    Ok(())
}

/// Decodes a record and puts it in line.
pub(super) fn offer(
    slot: &mut Slot,
    input: Input,
    record: &RecordRef<'_>,
    settings: &Settings,
    now: Now,
) {
    let expected = &mut slot.expected[input.index()];
    if !matches!(slot.stage, Stage::Running) || record.offset < *expected {
        return;
    }
    *expected = record.offset + 1;
    let content = match check(input, record, settings) {
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
    let queued = Queued {
        offset: record.offset,
        timestamp: record.timestamp,
        stamped_by_broker: record.stamped_by_broker,
        content,
    };
    slot.shard.offer(input, queued, now);
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
