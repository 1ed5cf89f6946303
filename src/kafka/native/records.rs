//! Takes records and rebalances from a consumer's queues.

use std::any::Any;
use std::ffi::{CStr, CString, c_void};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::Arc;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka_sys as sys;

use super::guards::{Code, Event, PartitionOffset, Queue, bytes, copy, partitions, text};
use super::sign_in::Tended;
use crate::kafka::client_config::LoggingContext;
use crate::kafka::reaper::Reaped;
use crate::shard::{Header, Timestamp};
use crate::stream_thread::ports::Headers;

/// Takes a consumer's records and rebalances from its queues, instead of through
/// [`BaseConsumer::poll`].
///
/// The records of all partitions are forwarded to a separate queue
/// ([`ConsumerQueue::forward`]), from which many can be taken at a time. Taking
/// them one by one costs two clock reads and three locks per record, a quarter of
/// the whole processing time. They cannot be taken in bulk from the consumer's own
/// queue: librdkafka itself would answer a rebalance found there.
pub struct ConsumerQueue {
    queue: Queue,
    records: Queue,
    forwarded: Vec<(CString, i32)>,
    consumer: Arc<Reaped<BaseConsumer<LoggingContext>>>,
    tended: Tended,
}

/// An item of a consumer's queue.
#[derive(Debug)]
pub enum Polled<'a> {
    /// A record.
    Record(NativeRecord<'a>),
    /// Everything before `offset` has been delivered.
    EndOfPartition {
        /// The topic.
        topic: String,
        /// The partition number.
        partition: i32,
        /// The position reached.
        offset: i64,
    },
    /// The group assigns these partitions; librdkafka waits for an assign call.
    Assigned(Vec<(String, i32)>),
    /// The group revokes these partitions; librdkafka waits for an unassign call.
    Revoked(Vec<(String, i32)>),
    /// The client reported an error.
    Failed {
        /// Whether the client is unusable from now on.
        fatal: bool,
        /// librdkafka's message.
        message: String,
    },
    /// Nothing that concerns the loop.
    Other,
}

/// A record, borrowed from librdkafka for as long as its event lives.
#[derive(Clone, Copy)]
pub struct NativeRecord<'a> {
    message: &'a sys::rd_kafka_message_t,
}

impl fmt::Debug for NativeRecord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record at {}/{}", self.message.partition, self.message.offset)
    }
}

impl<'a> NativeRecord<'a> {
    /// Identifies the topic while its partitions stay assigned; cheaper to
    /// compare than a name.
    pub fn topic_handle(&self) -> usize {
        self.message.rkt as usize
    }

    /// The topic's name.
    pub fn topic(&self) -> &'a str {
        // SAFETY: a delivered message holds a reference to its topic, whose name
        // lives as long as it does.
        let name = unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(self.message.rkt)) };
        name.to_str().unwrap_or_default()
    }

    /// The record's partition.
    pub fn partition(&self) -> i32 {
        self.message.partition
    }

    /// The record's offset.
    pub fn offset(&self) -> i64 {
        self.message.offset
    }

    /// The record's key.
    pub fn key(&self) -> Option<&'a [u8]> {
        // SAFETY: key and length describe one buffer that lives as long as the message.
        unsafe { bytes(self.message.key, self.message.key_len) }
    }

    /// The record's value.
    pub fn value(&self) -> Option<&'a [u8]> {
        // SAFETY: as for the key.
        unsafe { bytes(self.message.payload, self.message.len) }
    }

    /// The record's timestamp, and whether the broker stamped it.
    pub fn timestamp(&self) -> (Timestamp, bool) {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is valid, and `kind` is written before the call returns.
        let ms = unsafe { sys::rd_kafka_message_timestamp(self.message, &raw mut kind) };
        let stamped_by_broker =
            kind == sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME;
        (Timestamp(ms.max(0)), stamped_by_broker)
    }
}

impl Headers for NativeRecord<'_> {
    fn to_vec(&self) -> Vec<Header> {
        let mut headers = ptr::null_mut();
        // SAFETY: the message is valid; the headers, if any, stay owned by it.
        let found = unsafe { sys::rd_kafka_message_headers(self.message, &raw mut headers) };
        let mut all = Vec::new();
        if found != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return all;
        }
        loop {
            let (mut name, mut value, mut len) = (ptr::null(), ptr::null(), 0);
            // SAFETY: the headers are valid, and the three results are written
            // whenever the call succeeds.
            let next = unsafe {
                sys::rd_kafka_header_get_all(
                    headers,
                    all.len(),
                    &raw mut name,
                    &raw mut value,
                    &raw mut len,
                )
            };
            if next != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return all;
            }
            // SAFETY: names are null-terminated, values as long as said, and both
            // live as long as the message.
            let (name, value) = unsafe { (CStr::from_ptr(name), bytes(value.cast_mut(), len)) };
            all.push((name.to_string_lossy().into(), value.map(Into::into)));
        }
    }
}

impl ConsumerQueue {
    /// Wraps a consumer that is not polled elsewhere.
    pub fn new(consumer: Reaped<BaseConsumer<LoggingContext>>) -> ConsumerQueue {
        // SAFETY: the client lives as long as `consumer`, which this value keeps.
        let (queue, records) = unsafe {
            let rk = consumer.client().native_ptr();
            (sys::rd_kafka_queue_get_consumer(rk), sys::rd_kafka_queue_new(rk))
        };
        let tended = Tended::new(consumer.client());
        let (forwarded, consumer) = (Vec::new(), Arc::new(consumer));
        ConsumerQueue { queue: Queue(queue), records: Queue(records), forwarded, consumer, tended }
    }

    /// The consumer itself.
    pub fn consumer(&self) -> &Arc<Reaped<BaseConsumer<LoggingContext>>> {
        &self.consumer
    }

    /// Forwards the records of a partition to [`ConsumerQueue::take`]. Call it
    /// before the partition is assigned, or its first records go to the other
    /// queue.
    pub fn forward(&mut self, topic: &str, partition: i32) {
        self.stop_forwarding(topic, partition);
        let Ok(topic) = CString::new(topic) else { return };
        self.forwarded.push((topic, partition));
        self.forward_one(self.forwarded.len() - 1);
    }

    /// The partition is no longer assigned.
    pub fn stop_forwarding(&mut self, topic: &str, partition: i32) {
        self.forwarded
            .retain(|(known, number)| known.as_bytes() != topic.as_bytes() || *number != partition);
    }

    /// Whether no partition is assigned any more.
    pub fn is_idle(&self) -> bool {
        self.forwarded.is_empty()
    }

    /// Forwards all partitions again. If a partition is revoked and assigned again
    /// at once, librdkafka may end the first assignment after the second was
    /// prepared, and that ends the forwarding. Records that have gathered in the
    /// partition's own queue are forwarded too, in order.
    pub fn forward_again(&self) {
        (0..self.forwarded.len()).for_each(|place| self.forward_one(place));
    }

    fn forward_one(&self, place: usize) {
        let (topic, partition) = &self.forwarded[place];
        // SAFETY: client, name and queues are valid; the partition's queue keeps
        // a reference to ours.
        unsafe {
            let rk = self.consumer.client().native_ptr();
            let from = sys::rd_kafka_queue_get_partition(rk, topic.as_ptr(), *partition);
            if !from.is_null() {
                sys::rd_kafka_queue_forward(from, self.records.0);
                sys::rd_kafka_queue_destroy(from);
            }
        }
    }

    /// The log start offset of a partition by the last fetch; `None` before the
    /// first fetch and after a failed one.
    pub fn log_start(&self, topic: &str, partition: i32) -> Option<i64> {
        let topic = CString::new(topic).ok()?;
        let (mut low, mut high) = (-1, -1);
        // SAFETY: client and name are valid; both results outlive the call. The
        // error is of librdkafka's own, and leaves them as they are.
        unsafe {
            let rk = self.consumer.client().native_ptr();
            let (low, high) = (&raw mut low, &raw mut high);
            let _ = sys::rd_kafka_get_watermark_offsets(rk, topic.as_ptr(), partition, low, high);
        }
        (low >= 0).then_some(low)
    }

    /// Takes up to `most` records, and the ends of partitions between them;
    /// waits up to `timeout_ms` for the first.
    ///
    /// Does not use `rd_kafka_consume_batch_queue`, which counts the end of a
    /// partition as a record and skips one record after the next pause.
    pub fn take<F: FnMut(Polled<'_>)>(&self, timeout_ms: i32, most: usize, with: F) {
        let client = self.consumer.client().native_ptr();
        let mut taking = Taking { with, left: most, client, panic: None };
        // SAFETY: the queue is valid; `taking` outlives the call, which calls
        // back on this thread and keeps nothing.
        unsafe {
            sys::rd_kafka_consume_callback_queue(
                self.records.0,
                timeout_ms,
                Some(on_message::<F>),
                (&raw mut taking).cast(),
            );
        }
        if let Some(panic) = taking.panic {
            resume_unwind(panic);
        }
    }

    /// Takes one event of the consumer's own queue. Returns whether there was one.
    pub fn poll(&self, mut with: impl FnMut(Polled<'_>)) -> bool {
        self.tended.tend(self.consumer.client());
        let Some(event) = self.queue.poll(0) else { return false };
        match event.kind() {
            sys::RD_KAFKA_EVENT_REBALANCE => {
                // SAFETY: a rebalance event owns its list.
                let list = unsafe { sys::rd_kafka_event_topic_partition_list(event.0) };
                // SAFETY: the list lives as long as the event.
                let partitions = unsafe { partitions(list) }
                    .into_iter()
                    .map(|found| (found.topic, found.partition))
                    .collect();
                match event.error() {
                    Code::ASSIGN => with(Polled::Assigned(partitions)),
                    _ => with(Polled::Revoked(partitions)),
                }
            }
            // A record that came before its partition was forwarded.
            sys::RD_KAFKA_EVENT_FETCH => {
                loop {
                    // SAFETY: a fetch event owns its messages; null is the end of
                    // them. Each lives as long as the event.
                    let message = unsafe { sys::rd_kafka_event_message_next(event.0) };
                    if message.is_null() {
                        break;
                    }
                    // SAFETY: as above.
                    with(unsafe { polled(message) });
                }
            }
            sys::RD_KAFKA_EVENT_ERROR => with(failure(&event)),
            _ => with(Polled::Other),
        }
        true
    }
}

/// The end of a partition, or an error.
fn failure(event: &Event) -> Polled<'static> {
    if event.error() == Code::END_OF_PARTITION {
        // SAFETY: the result is ours to destroy, after its fields are copied.
        unsafe {
            let found = sys::rd_kafka_event_topic_partition(event.0);
            if !found.is_null() {
                let PartitionOffset { topic, partition, offset, .. } = copy(found);
                sys::rd_kafka_topic_partition_destroy(found);
                return Polled::EndOfPartition { topic, partition, offset };
            }
        }
    }
    // SAFETY: the event is valid until dropped.
    let fatal = unsafe { sys::rd_kafka_event_error_is_fatal(event.0) } != 0;
    Polled::Failed { fatal, message: event.message() }
}

/// Takes a pointer, not a reference: behind a reference the whole struct must be
/// valid, and the error code is only known to be valid if it is no error.
///
/// # Safety
/// The message is valid for `'a`.
unsafe fn polled<'a>(message: *const sys::rd_kafka_message_t) -> Polled<'a> {
    // SAFETY: the caller's promise; names and texts are null-terminated and copied.
    unsafe {
        match Code::read(&raw const (*message).err) {
            Code::NONE => Polled::Record(NativeRecord { message: &*message }),
            Code::END_OF_PARTITION => Polled::EndOfPartition {
                topic: text(sys::rd_kafka_topic_name((*message).rkt)).unwrap_or_default(),
                partition: (*message).partition,
                offset: (*message).offset,
            },
            code => {
                let text = text(sys::rd_kafka_message_errstr(message));
                let message = text.unwrap_or_else(|| code.to_string());
                Polled::Failed { fatal: code == Code::FATAL, message }
            }
        }
    }
}

/// The state of one call of [`ConsumerQueue::take`], which librdkafka passes to the
/// callback.
struct Taking<F> {
    with: F,
    left: usize,
    client: *mut sys::rd_kafka_t,
    panic: Option<Box<dyn Any + Send>>,
}

/// # Safety
/// The message is valid during the call, and `taking` is a [`Taking`] of `F`
/// that nobody else looks at meanwhile.
unsafe extern "C" fn on_message<F: FnMut(Polled<'_>)>(
    message: *mut sys::rd_kafka_message_t,
    taking: *mut c_void,
) {
    // SAFETY: the caller's promise.
    let (polled, taking) = unsafe { (polled(message), &mut *taking.cast::<Taking<F>>()) };
    if matches!(polled, Polled::Record(_)) {
        taking.left = taking.left.saturating_sub(1);
    }
    // No panic may pass through librdkafka.
    let told = catch_unwind(AssertUnwindSafe(|| (taking.with)(polled)));
    taking.panic = told.err();
    if taking.left == 0 || taking.panic.is_some() {
        // SAFETY: the client is valid. What was not given yet stays in the queue.
        unsafe { sys::rd_kafka_yield(taking.client) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_with_unknown_error_code_is_a_failure() {
        // SAFETY: all zeros is a message: no error, null pointers, numbers.
        let mut message: sys::rd_kafka_message_t = unsafe { std::mem::zeroed() };
        let said = c"of a newer broker";
        message.payload = said.as_ptr().cast_mut().cast();
        message.len = said.count_bytes();
        let at = &raw mut message;
        // SAFETY: a code is as long as an integer. Without a topic, the text of an
        // error is its payload.
        let polled = unsafe {
            (&raw mut (*at).err).cast::<i32>().write(12_345);
            polled(at)
        };
        match polled {
            Polled::Failed { fatal: false, message } => assert_eq!(message, "of a newer broker"),
            other => panic!("{other:?}"),
        }
    }
}
