//! The operations that a client is allowed on topics and groups.

use std::ffi::{CString, c_char};

use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};
use rdkafka_sys as sys;
use serde::Serialize;

use super::guards::{
    COORDINATOR_TIMEOUT_MS, Code, List, NoAnswer, QUESTION_TIMEOUT_MS, Queue, code_of, options,
    text,
};

/// An operation on a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "Kafka's terms")]
pub enum Operation {
    DescribeConfigs,
    Read,
    Write,
}

/// The broker's answer about a topic that was asked for by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicAccess {
    /// The topic does not exist.
    Unknown,
    /// The broker does not say whether it exists.
    Hidden,
    /// The operations that this client is allowed; `None` if the broker does not
    /// say.
    Known(Option<Vec<Operation>>),
}

/// Asks which operations this client is allowed on these topics. Blocks until the
/// answer.
///
/// # Errors
/// The error of the brokers or of librdkafka.
pub fn topic_access<C: ProducerContext>(
    client: &BaseProducer<C>,
    topics: &[&str],
) -> Result<Vec<(String, TopicAccess)>, NoAnswer> {
    let names: Vec<CString> = topics.iter().filter_map(|name| CString::new(*name).ok()).collect();
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    let rk = client.client().native_ptr();
    // SAFETY: the client is borrowed.
    let options = unsafe { options(rk, 0, operation, QUESTION_TIMEOUT_MS) };
    // SAFETY: the client outlives the queue; the names outlive the collection,
    // which copies them, and which is destroyed once librdkafka has copied it.
    let event = unsafe {
        let queue = Queue(sys::rd_kafka_queue_new(rk));
        sys::rd_kafka_AdminOptions_set_include_authorized_operations(options.0, 1);
        let asked =
            sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        sys::rd_kafka_DescribeTopics(rk, asked, options.0, queue.0);
        sys::rd_kafka_TopicCollection_destroy(asked);
        queue.answer(client, sys::RD_KAFKA_EVENT_DESCRIBETOPICS_RESULT)?
    };
    let mut found = Vec::new();
    // SAFETY: what is found lives as long as the event, and is copied.
    unsafe {
        let result = sys::rd_kafka_event_DescribeTopics_result(event.0);
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        for place in 0..count {
            let topic = *topics.add(place);
            let name = text(sys::rd_kafka_TopicDescription_name(topic)).unwrap_or_default();
            let error = sys::rd_kafka_TopicDescription_error(topic);
            let access = match code_of(error).known() {
                RDKafkaErrorCode::TopicAuthorizationFailed => TopicAccess::Hidden,
                RDKafkaErrorCode::NoError => TopicAccess::Known(operations(topic)),
                _ => TopicAccess::Unknown,
            };
            found.push((name, access));
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
        Native::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS => Some(Operation::DescribeConfigs),
        Native::RD_KAFKA_ACL_OPERATION_READ => Some(Operation::Read),
        Native::RD_KAFKA_ACL_OPERATION_WRITE => Some(Operation::Write),
        _ => None,
    });
    Some(known.collect())
}

/// Whether this client is allowed to commit offsets of `group`. It commits an
/// offset for a topic that does not exist: the broker checks the group's ACL first,
/// and stores nothing.
///
/// # Errors
/// The error of the brokers or of librdkafka.
pub fn may_commit<C: ProducerContext>(
    client: &BaseProducer<C>,
    group: &str,
    no_topic: &str,
) -> Result<bool, NoAnswer> {
    let list = List::new(1);
    list.add(no_topic, 0, 0);
    let unusable = |message: String| NoAnswer { code: RDKafkaErrorCode::InvalidGroupId, message };
    let group = CString::new(group).map_err(|error| unusable(error.to_string()))?;
    let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_ALTERCONSUMERGROUPOFFSETS;
    let rk = client.client().native_ptr();
    // SAFETY: the client is borrowed.
    let options = unsafe { options(rk, 0, operation, COORDINATOR_TIMEOUT_MS) };
    let denied = RDKafkaErrorCode::GroupAuthorizationFailed;
    // SAFETY: as in `Questions::committed`; what is found lives as long as the
    // event, and is copied.
    unsafe {
        let queue = Queue(sys::rd_kafka_queue_new(rk));
        let mut request = sys::rd_kafka_AlterConsumerGroupOffsets_new(group.as_ptr(), list.0);
        sys::rd_kafka_AlterConsumerGroupOffsets(rk, &raw mut request, 1, options.0, queue.0);
        sys::rd_kafka_AlterConsumerGroupOffsets_destroy(request);
        let kind = sys::RD_KAFKA_EVENT_ALTERCONSUMERGROUPOFFSETS_RESULT;
        let event = match queue.answer(client, kind) {
            // The broker does not even return the group's coordinator.
            Err(error) if error.code == denied => return Ok(false),
            answer => answer?,
        };
        let result = sys::rd_kafka_event_AlterConsumerGroupOffsets_result(event.0);
        let mut count = 0;
        let groups = sys::rd_kafka_AlterConsumerGroupOffsets_result_groups(result, &raw mut count);
        if count == 0 {
            return Err(unusable("no group in the answer".into()));
        }
        let error = sys::rd_kafka_group_result_error(*groups);
        if code_of(error).known() == denied {
            return Ok(false);
        }
        let Some(list) = sys::rd_kafka_group_result_partitions(*groups).as_ref() else {
            return Ok(true);
        };
        let count = usize::try_from(list.cnt).unwrap_or_default();
        let code = |place: usize| Code::read(&raw const (*list.elems.add(place)).err);
        Ok((0..count).all(|place| code(place).known() != denied))
    }
}
