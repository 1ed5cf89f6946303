//! Guards that own librdkafka's values and destroy them.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::time::Duration;
use std::{fmt, ptr};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, ProducerContext};
use rdkafka_sys as sys;

use super::sign_in::Tended;
use crate::kafka::client_config::LoggingContext;

pub(super) const QUESTION_TIMEOUT_MS: i32 = 10_000;
/// Timeout of requests to a coordinator. If such a request times out while the
/// coordinator is away, librdkafka 2.12 aborts the process once the coordinator is
/// back (confluentinc/librdkafka#4605). So this is the maximum;
/// `client_config::SOCKET_TIMEOUT_MS` ends requests that were sent and not
/// answered.
pub(super) const COORDINATOR_TIMEOUT_MS: i32 = 3_600_000;

const ANSWER_SLICE_MS: i32 = 100;

/// An `rd_kafka_resp_err_t`, read as an integer. A broker newer than librdkafka may
/// return a code that the enum does not have, and such an enum value is undefined
/// behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Code(c_int);

/// The integer and the enum have the same layout.
const _: () = assert!(
    size_of::<sys::rd_kafka_resp_err_t>() == size_of::<c_int>()
        && align_of::<sys::rd_kafka_resp_err_t>() == align_of::<c_int>()
);

impl Code {
    pub(super) const NONE: Code = Code::of(sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
    pub(super) const END_OF_PARTITION: Code =
        Code::of(sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF);
    pub(super) const FATAL: Code = Code::of(sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__FATAL);
    pub(super) const ASSIGN: Code =
        Code::of(sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS);

    const fn of(known: sys::rd_kafka_resp_err_t) -> Code {
        Code(known as c_int)
    }

    /// # Safety
    /// `at` points to a code that librdkafka has written.
    pub(super) unsafe fn read(at: *const sys::rd_kafka_resp_err_t) -> Code {
        // SAFETY: the caller's promise; nothing is read as the enum.
        Code(unsafe { at.cast::<c_int>().read() })
    }

    /// The named code; [`RDKafkaErrorCode::Unknown`] if librdkafka does not know
    /// it.
    pub(super) fn known(self) -> RDKafkaErrorCode {
        let known = sys::rd_kafka_resp_err_t::try_from(self.0);
        known.map_or(RDKafkaErrorCode::Unknown, RDKafkaErrorCode::from)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match sys::rd_kafka_resp_err_t::try_from(self.0) {
            Ok(known) => RDKafkaErrorCode::from(known).fmt(f),
            Err(_) => write!(f, "broker error {}, unknown to librdkafka", self.0),
        }
    }
}

/// librdkafka's functions that return an error code, declared with the integer type
/// that they have in C.
mod integers {
    use std::ffi::c_int;

    use rdkafka_sys as sys;

    unsafe extern "C" {
        pub fn rd_kafka_event_error(event: *mut sys::rd_kafka_event_t) -> c_int;
        pub fn rd_kafka_error_code(error: *const sys::rd_kafka_error_t) -> c_int;
    }
}

/// The code of an error.
///
/// # Safety
/// `error` is null, which is no error, or valid.
pub(super) unsafe fn code_of(error: *const sys::rd_kafka_error_t) -> Code {
    // SAFETY: the caller's promise.
    Code(unsafe { integers::rd_kafka_error_code(error) })
}

/// A query's answer for one partition.
#[derive(Clone, Debug)]
pub struct PartitionOffset {
    /// The topic.
    pub topic: String,
    /// The partition number.
    pub partition: i32,
    /// The offset found; negative: none.
    pub offset: i64,
    /// The metadata that was committed with the offset.
    pub metadata: String,
    /// Why there is no answer for this partition.
    pub error: Option<String>,
}

/// Why a query has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NoAnswer {
    /// The error code.
    pub code: RDKafkaErrorCode,
    /// librdkafka's message.
    pub message: String,
}

impl NoAnswer {
    /// Whether the request timed out.
    #[must_use]
    pub fn timed_out(&self) -> bool {
        let late = [RDKafkaErrorCode::OperationTimedOut, RDKafkaErrorCode::RequestTimedOut];
        late.contains(&self.code)
    }
}

impl From<KafkaError> for NoAnswer {
    fn from(error: KafkaError) -> NoAnswer {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        NoAnswer { code, message: error.to_string() }
    }
}

/// # Safety
/// `data` is null, or points to `len` bytes that live for `'a`.
pub(super) unsafe fn bytes<'a>(data: *mut c_void, len: usize) -> Option<&'a [u8]> {
    if data.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    Some(unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) })
}

/// # Safety
/// The text is null, or null-terminated.
pub(super) unsafe fn text(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    Some(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// # Safety
/// `rk` is a valid client.
pub(super) unsafe fn options(
    rk: *mut sys::rd_kafka_t,
    id: u64,
    operation: sys::rd_kafka_admin_op_t,
    timeout_ms: i32,
) -> Options {
    // SAFETY: the caller's promise; the opaque is a number that is only read back.
    unsafe {
        let options = sys::rd_kafka_AdminOptions_new(rk, operation);
        let opaque = ptr::without_provenance_mut(usize::try_from(id).unwrap_or_default());
        sys::rd_kafka_AdminOptions_set_opaque(options, opaque);
        sys::rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, ptr::null_mut(), 0);
        Options(options)
    }
}

/// Defines a guard type for each of librdkafka's types, with its destructor.
macro_rules! guards {
    ($($name:ident($native:ident) $destroy:ident;)*) => {
        $(
            pub(super) struct $name(pub(super) *mut sys::$native);

            impl Drop for $name {
                fn drop(&mut self) {
                    // SAFETY: made by librdkafka for this module alone, and destroyed once.
                    unsafe { sys::$destroy(self.0) }
                }
            }
        )*
    };
}

guards! {
    Queue(rd_kafka_queue_t) rd_kafka_queue_destroy;
    Event(rd_kafka_event_t) rd_kafka_event_destroy;
    Options(rd_kafka_AdminOptions_t) rd_kafka_AdminOptions_destroy;
    List(rd_kafka_topic_partition_list_t) rd_kafka_topic_partition_list_destroy;
}

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for Queue {}

impl Queue {
    pub(super) fn poll(&self, timeout_ms: i32) -> Option<Event> {
        // SAFETY: the queue is valid until dropped.
        let event = unsafe { sys::rd_kafka_queue_poll(self.0, timeout_ms) };
        (!event.is_null()).then_some(Event(event))
    }

    /// Waits for an answer of this kind. librdkafka always answers within the
    /// timeout, at least with an error.
    pub(super) fn answer<C: ProducerContext>(
        &self,
        client: &BaseProducer<C>,
        kind: i32,
    ) -> Result<Event, NoAnswer> {
        for _ in 0..2 * QUESTION_TIMEOUT_MS / ANSWER_SLICE_MS {
            // Polling delivers the client's log lines and errors.
            client.poll(Duration::ZERO);
            match self.poll(ANSWER_SLICE_MS) {
                Some(event) if event.kind() != kind => {}
                Some(event) => {
                    return match event.error() {
                        Code::NONE => Ok(event),
                        code => Err(NoAnswer { code: code.known(), message: event.message() }),
                    };
                }
                None => {}
            }
        }
        let code = RDKafkaErrorCode::OperationTimedOut;
        Err(NoAnswer { code, message: "no answer".into() })
    }
}

/// A client used only for queries, and the queue of its answers. It has the group's
/// id but does not join: without a group id, librdkafka 2.12 follows a null pointer
/// when a group's coordinator has moved.
pub(super) struct Asker {
    pub(super) queue: Queue,
    client: BaseConsumer<LoggingContext>,
    tended: Tended,
}

impl Asker {
    pub(super) fn new(client: BaseConsumer<LoggingContext>) -> Asker {
        // SAFETY: the client lives as long as this value, which keeps it.
        let queue = unsafe { sys::rd_kafka_queue_new(client.client().native_ptr()) };
        let tended = Tended::new(client.client());
        Asker { queue: Queue(queue), client, tended }
    }

    pub(super) fn rk(&self) -> *mut sys::rd_kafka_t {
        self.client.client().native_ptr()
    }

    /// The next answer that `read` accepts, if there is one.
    pub(super) fn poll<T>(&self, read: impl Fn(&Event) -> Option<T>) -> Option<T> {
        self.tended.tend(self.client.client());
        // Polling delivers the client's log lines. Connection errors come with the
        // answers.
        drop(self.client.poll(Duration::ZERO));
        loop {
            let answer = read(&self.queue.poll(0)?);
            if answer.is_some() {
                return answer;
            }
        }
    }
}

impl Event {
    pub(super) fn kind(&self) -> i32 {
        // SAFETY: the event is valid until dropped.
        unsafe { sys::rd_kafka_event_type(self.0) }
    }

    pub(super) fn error(&self) -> Code {
        // SAFETY: the event is valid until dropped.
        Code(unsafe { integers::rd_kafka_event_error(self.0) })
    }

    pub(super) fn message(&self) -> String {
        // SAFETY: the text lives as long as the event, and is copied.
        unsafe { text(sys::rd_kafka_event_error_string(self.0)) }.unwrap_or_default()
    }

    pub(super) fn answer(&self) -> Option<(u64, Result<Vec<PartitionOffset>, String>)> {
        // SAFETY: the event is valid; its opaque is the number given with the question.
        let id = unsafe { sys::rd_kafka_event_opaque(self.0) } as u64;
        let kind = self.kind();
        let is_answer = kind == sys::RD_KAFKA_EVENT_LISTOFFSETS_RESULT
            || kind == sys::RD_KAFKA_EVENT_LISTCONSUMERGROUPOFFSETS_RESULT;
        if !is_answer {
            return None;
        }
        if self.error() != Code::NONE {
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
                        copy(sys::rd_kafka_ListOffsetsResultInfo_topic_partition(*infos.add(i)))
                    })
                    .map(answered)
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
                    let text = text(sys::rd_kafka_error_string(error));
                    return Some((id, Err(text.unwrap_or_default())));
                }
                partitions(sys::rd_kafka_group_result_partitions(*groups))
            }
        };
        Some((id, Ok(found)))
    }
}

/// The offset that librdkafka 2.12 returns, without an error, if the request to the
/// partition's leader failed, for example because the broker went away. Kafka's
/// value for "no offset" is -1.
const NOT_ANSWERED: i64 = sys::RD_KAFKA_OFFSET_INVALID as i64;

fn answered(mut found: PartitionOffset) -> PartitionOffset {
    if found.offset == NOT_ANSWERED && found.error.is_none() {
        found.error = Some("the partition's leader did not answer".into());
    }
    found
}

impl List {
    pub(super) fn new(capacity: usize) -> List {
        let capacity = i32::try_from(capacity).unwrap_or(i32::MAX);
        // SAFETY: a plain constructor.
        List(unsafe { sys::rd_kafka_topic_partition_list_new(capacity) })
    }

    pub(super) fn add(&self, topic: &str, partition: i32, offset: i64) {
        let Ok(topic) = CString::new(topic) else { return };
        // SAFETY: the list is valid, and copies the name.
        unsafe {
            let added = sys::rd_kafka_topic_partition_list_add(self.0, topic.as_ptr(), partition);
            (*added).offset = offset;
        }
    }
}

/// # Safety
/// `list` is null or a valid list.
pub(super) unsafe fn partitions(
    list: *const sys::rd_kafka_topic_partition_list_t,
) -> Vec<PartitionOffset> {
    // SAFETY: the caller's promise; `cnt` elements stand in a row.
    unsafe {
        let Some(list) = list.as_ref() else { return Vec::new() };
        let count = usize::try_from(list.cnt).unwrap_or_default();
        (0..count).map(|i| copy(list.elems.add(i))).collect()
    }
}

/// Takes a pointer, not a reference: behind a reference the whole struct must be
/// valid, and the error code may not be.
///
/// # Safety
/// The element and its pointers are valid.
pub(super) unsafe fn copy(found: *const sys::rd_kafka_topic_partition_t) -> PartitionOffset {
    // SAFETY: the caller's promise.
    let (topic, metadata, partition, offset, code) = unsafe {
        (
            CStr::from_ptr((*found).topic),
            bytes((*found).metadata, (*found).metadata_size),
            (*found).partition,
            (*found).offset,
            Code::read(&raw const (*found).err),
        )
    };
    let error = (code != Code::NONE).then(|| code.to_string());
    PartitionOffset {
        topic: topic.to_string_lossy().into_owned(),
        partition,
        offset,
        // Another tool may have committed any bytes.
        metadata: metadata.map(|m| String::from_utf8_lossy(m).into_owned()).unwrap_or_default(),
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A code that only a newer broker has.
    const NEWER: c_int = 12_345;

    #[test]
    fn unknown_error_code_is_an_ordinary_error() {
        let code = Code(NEWER);
        assert_ne!(code, Code::NONE);
        assert_eq!(code.known(), RDKafkaErrorCode::Unknown);
        assert!(code.to_string().contains("12345"), "{code}");
        let known = Code::of(sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION);
        assert_eq!(known.known(), RDKafkaErrorCode::NotLeaderForPartition);
        assert!(known.to_string().contains("NotLeaderForPartition"), "{known}");
    }

    #[test]
    fn partition_with_unknown_error_code_reports_it() {
        let list = List::new(1);
        list.add("topic", 3, 7);
        // SAFETY: the list has one element; a code is as long as an integer.
        let found = unsafe {
            (&raw mut (*(*list.0).elems).err).cast::<c_int>().write(NEWER);
            partitions(list.0)
        };
        assert_eq!((found[0].topic.as_str(), found[0].partition, found[0].offset), ("topic", 3, 7));
        let error = found[0].error.as_deref().unwrap();
        assert!(error.contains("12345"), "{error}");
    }
}
