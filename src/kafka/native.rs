//! What librdkafka offers and rust-rdkafka does not: the topic and offset of an
//! end-of-partition event, rebalances that are left to the loop (rule C5), and
//! questions that are answered without blocking (rules T1, R1).
//!
//! One of the few modules where `unsafe` is allowed. Every pointer that comes
//! from librdkafka lives in a guard of this module that destroys it; nothing
//! borrowed from an event outlives the closure it is lent to.

#![allow(unsafe_code, reason = "librdkafka's C interface")]

use std::any::Any;
use std::ffi::{CStr, CString, c_char, c_void};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};
use rdkafka_sys as sys;

use super::client_config::LoggingContext;
use crate::shard::{Header, Timestamp};
use crate::stream_thread::ports::Headers;

/// The queues from which a consumer's records and rebalances are taken, instead
/// of through [`BaseConsumer::poll`].
///
/// Records come through a queue of their own, to which those of the partitions
/// are forwarded ([`ConsumerQueue::forward`]): there they can be taken many at a
/// time. Taken one by one, two looks at the clock and three locks a record cost
/// a quarter of all that is done with it. From the consumer's own queue they
/// cannot be taken so: a rebalance that is met there is answered by librdkafka
/// itself.
pub struct ConsumerQueue<C: ConsumerContext + 'static> {
    queue: Queue,
    records: Queue,
    consumer: Arc<BaseConsumer<C>>,
}

/// What a consumer's queue held.
#[derive(Debug)]
pub enum Polled<'a> {
    /// A record.
    Record(NativeRecord<'a>),
    /// Everything before `offset` has been delivered.
    EndOfPartition {
        /// Of which topic.
        topic: String,
        /// Of which partition.
        partition: i32,
        /// The position reached.
        offset: i64,
    },
    /// The group gives these partitions; librdkafka waits for an assign call.
    Assigned(Vec<(String, i32)>),
    /// The group takes these back; librdkafka waits for an unassign call.
    Revoked(Vec<(String, i32)>),
    /// Something went wrong.
    Failed {
        /// Whether the client is broken for good.
        fatal: bool,
        /// What, in librdkafka's words.
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

/// # Safety
/// `data` is null, or points to `len` bytes that live for `'a`.
unsafe fn bytes<'a>(data: *mut c_void, len: usize) -> Option<&'a [u8]> {
    if data.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    Some(unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) })
}

impl<C: ConsumerContext + 'static> ConsumerQueue<C> {
    /// The queues of a consumer that is polled by nobody else.
    pub fn new(consumer: Arc<BaseConsumer<C>>) -> ConsumerQueue<C> {
        // SAFETY: the client lives as long as `consumer`, which this value keeps.
        let (queue, records) = unsafe {
            let rk = consumer.client().native_ptr();
            (sys::rd_kafka_queue_get_consumer(rk), sys::rd_kafka_queue_new(rk))
        };
        ConsumerQueue { queue: Queue(queue), records: Queue(records), consumer }
    }

    /// The consumer itself.
    pub fn consumer(&self) -> &Arc<BaseConsumer<C>> {
        &self.consumer
    }

    /// Has the records of a partition come through [`ConsumerQueue::take`].
    /// Called before the partition is assigned, or its first ones are lost in
    /// the other queue.
    pub fn forward(&self, topic: &str, partition: i32) {
        let Ok(topic) = CString::new(topic) else { return };
        // SAFETY: client, name and queues are valid; the partition's queue keeps
        // a reference to ours.
        unsafe {
            let rk = self.consumer.client().native_ptr();
            let from = sys::rd_kafka_queue_get_partition(rk, topic.as_ptr(), partition);
            if !from.is_null() {
                sys::rd_kafka_queue_forward(from, self.records.0);
                sys::rd_kafka_queue_destroy(from);
            }
        }
    }

    /// Takes up to `most` records, and the ends of partitions between them;
    /// waits up to `timeout_ms` for the first.
    ///
    /// Not by `rd_kafka_consume_batch_queue`: that takes the end of a partition
    /// for a record, and after the next pause goes on one record too late.
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

    /// Takes one event that is no record. Answers whether there was one.
    pub fn poll(&self, with: impl FnOnce(Polled<'_>)) -> bool {
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
                    sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                        with(Polled::Assigned(partitions));
                    }
                    _ => with(Polled::Revoked(partitions)),
                }
            }
            sys::RD_KAFKA_EVENT_ERROR => with(event.failure()),
            _ => with(Polled::Other),
        }
        true
    }
}

/// What a call of [`ConsumerQueue::take`] lends to librdkafka.
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
    let (message, taking) = unsafe { (&*message, &mut *taking.cast::<Taking<F>>()) };
    let polled = match message.err {
        sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => {
            taking.left = taking.left.saturating_sub(1);
            Polled::Record(NativeRecord { message })
        }
        sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF => Polled::EndOfPartition {
            topic: NativeRecord { message }.topic().to_owned(),
            partition: message.partition,
            offset: message.offset,
        },
        error => {
            // SAFETY: the message is valid, its text null-terminated and copied.
            let text = unsafe { sys::rd_kafka_message_errstr(message).as_ref() }
                .map(|text| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned());
            let fatal = error == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__FATAL;
            Polled::Failed { fatal, message: text.unwrap_or_default() }
        }
    };
    // No panic may pass through librdkafka.
    let told = catch_unwind(AssertUnwindSafe(|| (taking.with)(polled)));
    taking.panic = told.err();
    if taking.left == 0 || taking.panic.is_some() {
        // SAFETY: the client is valid. What was not given yet stays in the queue.
        unsafe { sys::rd_kafka_yield(taking.client) }
    }
}

/// A query's position of one partition.
#[derive(Clone, Debug)]
pub struct Found {
    /// Of which topic.
    pub topic: String,
    /// Of which partition.
    pub partition: i32,
    /// The offset found; negative: none.
    pub offset: i64,
    /// What was committed beside it.
    pub metadata: String,
    /// Why there is no answer for this partition.
    pub error: Option<String>,
}

/// Where to look; librdkafka's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spec {
    /// The log's start.
    Earliest,
    /// The log's end, as the isolation level sees it.
    Latest,
    /// The first record stamped at or after this.
    Time(Timestamp),
}

/// Asks the brokers questions, and is told the answers later.
pub struct Questions {
    queue: Queue,
    client: BaseProducer<LoggingContext>,
}

const QUESTION_TIMEOUT_MS: i32 = 10_000;
/// A question to a coordinator that runs out of time while the coordinator is
/// away makes librdkafka 2.12 abort the process once it is back
/// (confluentinc/librdkafka#4605). So it gets the longest time there is; what
/// was sent and is not answered is given up by [`SOCKET_TIMEOUT_MS`].
const COORDINATOR_TIMEOUT_MS: i32 = 3_600_000;

/// How long a request of the client that puts questions may take, in
/// milliseconds: its `socket.timeout.ms`.
pub const SOCKET_TIMEOUT_MS: i32 = 10_000;
const ANSWER_SLICE_MS: i32 = 100;

impl Questions {
    /// Puts questions through this client, which does nothing else.
    pub fn new(client: BaseProducer<LoggingContext>) -> Questions {
        // SAFETY: the client lives as long as this value, which keeps it.
        let queue = unsafe { sys::rd_kafka_queue_new(client.client().native_ptr()) };
        Questions { queue: Queue(queue), client }
    }

    /// Asks for offsets of partitions; `id` comes back with the answer.
    pub fn list_offsets(&self, id: u64, read_committed: bool, of: &[(&str, i32, Spec)]) {
        let list = List::new(of.len());
        for (topic, partition, spec) in of {
            let offset = match spec {
                Spec::Earliest => sys::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_EARLIEST as i64,
                Spec::Latest => sys::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_LATEST as i64,
                Spec::Time(timestamp) => timestamp.0,
            };
            list.add(topic, *partition, offset);
        }
        let level = if read_committed {
            sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED
        } else {
            sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED
        };
        let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS;
        let options = self.options(id, operation, QUESTION_TIMEOUT_MS);
        // SAFETY: options, list and queue are valid; librdkafka copies what it
        // keeps of the first two. The error of an option that exists is null.
        unsafe {
            sys::rd_kafka_AdminOptions_set_isolation_level(options.0, level);
            let rk = self.client.client().native_ptr();
            sys::rd_kafka_ListOffsets(rk, list.0, options.0, self.queue.0);
        }
    }

    /// Asks for a group's committed offsets; `id` comes back with the answer.
    /// With `stable` the answer is an error while an open transaction may still
    /// move them (rule R1).
    pub fn committed(&self, id: u64, group: &str, stable: bool, of: &[(&str, i32)]) {
        let list = List::new(of.len());
        for (topic, partition) in of {
            list.add(topic, *partition, 0);
        }
        let Ok(group) = CString::new(group) else { return };
        let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS;
        let options = self.options(id, operation, COORDINATOR_TIMEOUT_MS);
        // SAFETY: as in `list_offsets`; the request is destroyed after librdkafka
        // has copied it.
        unsafe {
            sys::rd_kafka_AdminOptions_set_require_stable_offsets(options.0, i32::from(stable));
            let mut request = sys::rd_kafka_ListConsumerGroupOffsets_new(group.as_ptr(), list.0);
            let rk = self.client.client().native_ptr();
            sys::rd_kafka_ListConsumerGroupOffsets(
                rk,
                &raw mut request,
                1,
                options.0,
                self.queue.0,
            );
            sys::rd_kafka_ListConsumerGroupOffsets_destroy(request);
        }
    }

    /// The next answer, if one has come.
    pub fn poll(&self) -> Option<(u64, Result<Vec<Found>, String>)> {
        // The client's log lines and errors are told only to who polls it.
        self.client.poll(Duration::ZERO);
        loop {
            let event = self.queue.poll(0)?;
            if let Some(answer) = event.answer() {
                return Some(answer);
            }
        }
    }

    fn options(&self, id: u64, operation: sys::rd_kafka_admin_op_t, timeout_ms: i32) -> Options {
        options(&self.client, id, operation, timeout_ms)
    }
}

fn options<C: ProducerContext>(
    client: &BaseProducer<C>,
    id: u64,
    operation: sys::rd_kafka_admin_op_t,
    timeout_ms: i32,
) -> Options {
    // SAFETY: the client is valid; the opaque is a number that is only read back.
    unsafe {
        let options = sys::rd_kafka_AdminOptions_new(client.client().native_ptr(), operation);
        let opaque = ptr::without_provenance_mut(usize::try_from(id).unwrap_or_default());
        sys::rd_kafka_AdminOptions_set_opaque(options, opaque);
        sys::rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, ptr::null_mut(), 0);
        Options(options)
    }
}

/// What a client may do with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "Kafka's terms")]
pub enum Operation {
    Describe,
    DescribeConfigs,
    Read,
    Write,
}

/// What the broker says of a topic that was asked for by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicAccess {
    /// There is none of that name.
    Unknown,
    /// Not even whether it exists is told.
    Hidden,
    /// What this client may do with it; `None` from a broker that does not say.
    Known(Option<Vec<Operation>>),
}

/// Asks what this client may do with these topics, and waits for the answer.
///
/// # Errors
/// What the brokers or librdkafka say.
pub fn topic_access<C: ProducerContext>(
    client: &BaseProducer<C>,
    topics: &[&str],
) -> Result<Vec<(String, TopicAccess)>, String> {
    let names: Vec<CString> = topics.iter().filter_map(|name| CString::new(*name).ok()).collect();
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    let (options, rk) =
        (options(client, 0, operation, QUESTION_TIMEOUT_MS), client.client().native_ptr());
    // SAFETY: the client outlives the queue; the names outlive the collection,
    // which copies them, and which is destroyed once librdkafka has copied it.
    let event = unsafe {
        let queue = Queue(sys::rd_kafka_queue_new(rk));
        sys::rd_kafka_AdminOptions_set_include_authorized_operations(options.0, 1);
        let asked =
            sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        sys::rd_kafka_DescribeTopics(rk, asked, options.0, queue.0);
        sys::rd_kafka_TopicCollection_destroy(asked);
        let answer = queue.answer(client, sys::RD_KAFKA_EVENT_DESCRIBETOPICS_RESULT);
        answer.map_err(|(_, message)| message)?
    };
    let mut found = Vec::new();
    // SAFETY: what is found lives as long as the event, and is copied.
    unsafe {
        let result = sys::rd_kafka_event_DescribeTopics_result(event.0);
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        for place in 0..count {
            let topic = *topics.add(place);
            let name = CStr::from_ptr(sys::rd_kafka_TopicDescription_name(topic));
            let error = sys::rd_kafka_TopicDescription_error(topic);
            let access = match sys::rd_kafka_error_code(error) {
                sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED => {
                    TopicAccess::Hidden
                }
                sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => {
                    TopicAccess::Known(operations(topic))
                }
                _ => TopicAccess::Unknown,
            };
            found.push((name.to_string_lossy().into_owned(), access));
        }
    }
    Ok(found)
}

/// # Safety
/// The topic is valid.
unsafe fn operations(topic: *const sys::rd_kafka_TopicDescription_t) -> Option<Vec<Operation>> {
    use sys::rd_kafka_AclOperation_t as Native;
    let mut count = 0;
    // SAFETY: the caller's promise; `count` operations stand in a row.
    let native = unsafe {
        let first = sys::rd_kafka_TopicDescription_authorized_operations(topic, &raw mut count);
        if first.is_null() {
            return None;
        }
        std::slice::from_raw_parts(first, count)
    };
    let known = native.iter().filter_map(|operation| match operation {
        Native::RD_KAFKA_ACL_OPERATION_DESCRIBE => Some(Operation::Describe),
        Native::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS => Some(Operation::DescribeConfigs),
        Native::RD_KAFKA_ACL_OPERATION_READ => Some(Operation::Read),
        Native::RD_KAFKA_ACL_OPERATION_WRITE => Some(Operation::Write),
        _ => None,
    });
    Some(known.collect())
}

/// Tries to commit an offset of `group` for a topic that does not exist: the
/// group's ACL is looked at first, and nothing can come of it. Answers whether
/// the group may be used.
///
/// # Errors
/// What the brokers or librdkafka say.
pub fn may_commit<C: ProducerContext>(
    client: &BaseProducer<C>,
    group: &str,
    no_topic: &str,
) -> Result<bool, String> {
    let list = List::new(1);
    list.add(no_topic, 0, 0);
    let group = CString::new(group).map_err(|error| error.to_string())?;
    let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_ALTERCONSUMERGROUPOFFSETS;
    let (options, rk) =
        (options(client, 0, operation, COORDINATOR_TIMEOUT_MS), client.client().native_ptr());
    let denied = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED;
    // SAFETY: as in `Questions::committed`; what is found lives as long as the
    // event, and is copied.
    unsafe {
        let queue = Queue(sys::rd_kafka_queue_new(rk));
        let mut request = sys::rd_kafka_AlterConsumerGroupOffsets_new(group.as_ptr(), list.0);
        sys::rd_kafka_AlterConsumerGroupOffsets(rk, &raw mut request, 1, options.0, queue.0);
        sys::rd_kafka_AlterConsumerGroupOffsets_destroy(request);
        let kind = sys::RD_KAFKA_EVENT_ALTERCONSUMERGROUPOFFSETS_RESULT;
        let event = match queue.answer(client, kind) {
            // Not even the group's coordinator is told.
            Err((error, _)) if error == denied => return Ok(false),
            Err((_, message)) => return Err(message),
            Ok(event) => event,
        };
        let result = sys::rd_kafka_event_AlterConsumerGroupOffsets_result(event.0);
        let mut count = 0;
        let groups = sys::rd_kafka_AlterConsumerGroupOffsets_result_groups(result, &raw mut count);
        if count == 0 {
            return Err("no group in the answer".into());
        }
        let error = sys::rd_kafka_group_result_error(*groups);
        if sys::rd_kafka_error_code(error) == denied {
            return Ok(false);
        }
        let Some(list) = sys::rd_kafka_group_result_partitions(*groups).as_ref() else {
            return Ok(true);
        };
        let count = usize::try_from(list.cnt).unwrap_or_default();
        Ok((0..count).all(|place| (*list.elems.add(place)).err != denied))
    }
}

struct Queue(*mut sys::rd_kafka_queue_t);

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for Queue {}

impl Queue {
    fn poll(&self, timeout_ms: i32) -> Option<Event> {
        // SAFETY: the queue is valid until dropped.
        let event = unsafe { sys::rd_kafka_queue_poll(self.0, timeout_ms) };
        (!event.is_null()).then_some(Event(event))
    }
}

impl Queue {
    /// Waits for the answer of this kind, which librdkafka gives in time, be it
    /// that there was none.
    fn answer<C: ProducerContext>(
        &self,
        client: &BaseProducer<C>,
        kind: i32,
    ) -> Result<Event, (sys::rd_kafka_resp_err_t, String)> {
        for _ in 0..2 * QUESTION_TIMEOUT_MS / ANSWER_SLICE_MS {
            // The client's log lines and errors are told only to who polls it.
            client.poll(Duration::ZERO);
            match self.poll(ANSWER_SLICE_MS) {
                Some(event) if event.kind() != kind => {}
                Some(event) => {
                    return match event.error() {
                        sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(event),
                        error => Err((error, event.message())),
                    };
                }
                None => {}
            }
        }
        let timed_out = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__TIMED_OUT;
        Err((timed_out, "no answer".into()))
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: created by this module and destroyed once.
        unsafe { sys::rd_kafka_queue_destroy(self.0) }
    }
}

struct Event(*mut sys::rd_kafka_event_t);

impl Event {
    fn kind(&self) -> i32 {
        // SAFETY: the event is valid until dropped.
        unsafe { sys::rd_kafka_event_type(self.0) }
    }

    fn error(&self) -> sys::rd_kafka_resp_err_t {
        // SAFETY: the event is valid until dropped.
        unsafe { sys::rd_kafka_event_error(self.0) }
    }

    fn message(&self) -> String {
        // SAFETY: the text lives as long as the event, and is copied.
        let text = unsafe { CStr::from_ptr(sys::rd_kafka_event_error_string(self.0)) };
        text.to_string_lossy().into_owned()
    }

    fn failure(&self) -> Polled<'static> {
        if self.error() == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF {
            // SAFETY: the result is ours to destroy, after its fields are copied.
            unsafe {
                let found = sys::rd_kafka_event_topic_partition(self.0);
                if let Some(at) = found.as_ref() {
                    let topic = CStr::from_ptr(at.topic).to_string_lossy().into_owned();
                    let (partition, offset) = (at.partition, at.offset);
                    sys::rd_kafka_topic_partition_destroy(found);
                    return Polled::EndOfPartition { topic, partition, offset };
                }
            }
        }
        // SAFETY: the event is valid until dropped.
        let fatal = unsafe { sys::rd_kafka_event_error_is_fatal(self.0) } != 0;
        Polled::Failed { fatal, message: self.message() }
    }

    fn answer(&self) -> Option<(u64, Result<Vec<Found>, String>)> {
        // SAFETY: the event is valid; its opaque is the number given with the question.
        let id = unsafe { sys::rd_kafka_event_opaque(self.0) } as u64;
        let kind = self.kind();
        let is_answer = kind == sys::RD_KAFKA_EVENT_LISTOFFSETS_RESULT
            || kind == sys::RD_KAFKA_EVENT_LISTCONSUMERGROUPOFFSETS_RESULT;
        if !is_answer {
            return None;
        }
        if self.error() != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Some((id, Err(self.message())));
        }
        // SAFETY: results and what they hold live as long as the event; all that
        // is kept is copied.
        let found = unsafe {
            if kind == sys::RD_KAFKA_EVENT_LISTOFFSETS_RESULT {
                let result = sys::rd_kafka_event_ListOffsets_result(self.0);
                let mut count = 0;
                let infos = sys::rd_kafka_ListOffsets_result_infos(result, &raw mut count);
                (0..count)
                    .map(|i| {
                        copy(&*sys::rd_kafka_ListOffsetsResultInfo_topic_partition(*infos.add(i)))
                    })
                    .collect()
            } else {
                let result = sys::rd_kafka_event_ListConsumerGroupOffsets_result(self.0);
                let mut count = 0;
                let groups =
                    sys::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &raw mut count);
                if count == 0 {
                    return Some((id, Err("no group in the answer".into())));
                }
                let error = sys::rd_kafka_group_result_error(*groups);
                if !error.is_null() {
                    let text = CStr::from_ptr(sys::rd_kafka_error_string(error));
                    return Some((id, Err(text.to_string_lossy().into_owned())));
                }
                partitions(sys::rd_kafka_group_result_partitions(*groups))
            }
        };
        Some((id, Ok(found)))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: returned by a queue, and destroyed once.
        unsafe { sys::rd_kafka_event_destroy(self.0) }
    }
}

struct Options(*mut sys::rd_kafka_AdminOptions_t);

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: created by this module and destroyed once.
        unsafe { sys::rd_kafka_AdminOptions_destroy(self.0) }
    }
}

struct List(*mut sys::rd_kafka_topic_partition_list_t);

impl List {
    fn new(capacity: usize) -> List {
        let capacity = i32::try_from(capacity).unwrap_or(i32::MAX);
        // SAFETY: a plain constructor.
        List(unsafe { sys::rd_kafka_topic_partition_list_new(capacity) })
    }

    fn add(&self, topic: &str, partition: i32, offset: i64) {
        let Ok(topic) = CString::new(topic) else { return };
        // SAFETY: the list is valid, and copies the name.
        unsafe {
            let added = sys::rd_kafka_topic_partition_list_add(self.0, topic.as_ptr(), partition);
            (*added).offset = offset;
        }
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: created by this module and destroyed once.
        unsafe { sys::rd_kafka_topic_partition_list_destroy(self.0) }
    }
}

/// # Safety
/// `list` is null or a valid list.
unsafe fn partitions(list: *const sys::rd_kafka_topic_partition_list_t) -> Vec<Found> {
    // SAFETY: the caller's promise; `cnt` elements stand in a row.
    unsafe {
        let Some(list) = list.as_ref() else { return Vec::new() };
        let count = usize::try_from(list.cnt).unwrap_or_default();
        (0..count).map(|i| copy(&*list.elems.add(i))).collect()
    }
}

/// # Safety
/// The element's pointers are valid.
unsafe fn copy(found: &sys::rd_kafka_topic_partition_t) -> Found {
    // SAFETY: the caller's promise.
    let (topic, metadata) =
        unsafe { (CStr::from_ptr(found.topic), bytes(found.metadata, found.metadata_size)) };
    let error = (found.err != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR)
        .then(|| rdkafka::types::RDKafkaErrorCode::from(found.err).to_string());
    Found {
        topic: topic.to_string_lossy().into_owned(),
        partition: found.partition,
        offset: found.offset,
        // An operator's tool may have written anything.
        metadata: metadata.map(|m| String::from_utf8_lossy(m).into_owned()).unwrap_or_default(),
        error,
    }
}
