//! Asks a group's coordinator for the members and their partitions.

use std::ffi::{CString, c_char};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka_sys as sys;

use super::guards::{
    Asker, COORDINATOR_TIMEOUT_MS, Code, Event, NoAnswer, code_of, options, partitions, text,
};
use crate::kafka::client_config::LoggingContext;

/// A group, as its coordinator describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// The last rebalance is complete: every member knows its partitions.
    pub stable: bool,
    /// Whether the group uses the classic protocol. During a rebalance of such a
    /// group, the listed assignments are the old ones and no longer hold.
    pub classic: bool,
    /// Its members; empty if the group does not exist.
    pub members: Vec<Member>,
}

/// A member of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// The member id.
    pub id: String,
    /// The instance id of a static member.
    pub instance_id: Option<String>,
    /// Its assigned partitions, as topic and number.
    pub assigned: Vec<(String, i32)>,
    /// The partitions that it is to have after the rebalance. `None` with the
    /// classic protocol, which does not say.
    pub target: Option<Vec<(String, i32)>>,
}

/// Describes a group, one request at a time.
pub struct GroupQuestion {
    asker: Asker,
    /// Whether an answer is awaited.
    pub asked: bool,
}

impl GroupQuestion {
    /// Sends requests through a client that does nothing else, as
    /// [`super::Questions`] does.
    pub fn new(client: BaseConsumer<LoggingContext>) -> GroupQuestion {
        GroupQuestion { asker: Asker::new(client), asked: false }
    }

    /// Asks for the group.
    pub fn ask(&mut self, group: &str) {
        let Ok(group) = CString::new(group) else { return };
        let mut groups: [*const c_char; 1] = [group.as_ptr()];
        let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
        let rk = self.asker.rk();
        // SAFETY: the client is ours; librdkafka copies the name and the options.
        unsafe {
            let options = options(rk, 0, operation, COORDINATOR_TIMEOUT_MS);
            sys::rd_kafka_DescribeConsumerGroups(
                rk,
                groups.as_mut_ptr(),
                groups.len(),
                options.0,
                self.asker.queue.0,
            );
        }
        self.asked = true;
    }

    /// The answer, if it has come.
    pub fn poll(&mut self) -> Option<Result<Group, NoAnswer>> {
        let answer = self.asker.poll(|event| {
            let is_answer = event.kind() == sys::RD_KAFKA_EVENT_DESCRIBECONSUMERGROUPS_RESULT;
            is_answer.then(|| described(event))
        });
        self.asked &= answer.is_none();
        answer
    }
}

fn described(event: &Event) -> Result<Group, NoAnswer> {
    match event.error() {
        Code::NONE => {}
        error => return Err(NoAnswer { code: error.known(), message: event.message() }),
    }
    // SAFETY: the event is of this kind, and what it holds lives as long as it
    // does; all that is kept is copied.
    unsafe {
        let result = sys::rd_kafka_event_DescribeConsumerGroups_result(event.0);
        let mut count = 0;
        let groups = sys::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut count);
        if count == 0 {
            let code = RDKafkaErrorCode::Unknown;
            return Err(NoAnswer { code, message: "no group in the answer".into() });
        }
        let group = *groups;
        let error = sys::rd_kafka_ConsumerGroupDescription_error(group);
        if !error.is_null() {
            let code = code_of(error).known();
            // No member has joined yet.
            if code == RDKafkaErrorCode::GroupIdNotFound {
                return Ok(Group::default());
            }
            let message = text(sys::rd_kafka_error_string(error)).unwrap_or_default();
            return Err(NoAnswer { code, message });
        }
        let state = sys::rd_kafka_ConsumerGroupDescription_state(group);
        let stable =
            state == sys::rd_kafka_consumer_group_state_t::RD_KAFKA_CONSUMER_GROUP_STATE_STABLE;
        let count = sys::rd_kafka_ConsumerGroupDescription_member_count(group);
        let members = (0..count)
            .map(|place| member(sys::rd_kafka_ConsumerGroupDescription_member(group, place)))
            .collect();
        let kind = sys::rd_kafka_ConsumerGroupDescription_type(group);
        let classic =
            kind != sys::rd_kafka_consumer_group_type_t::RD_KAFKA_CONSUMER_GROUP_TYPE_CONSUMER;
        Ok(Group { stable, classic, members })
    }
}

/// # Safety
/// The member is valid.
unsafe fn member(member: *const sys::rd_kafka_MemberDescription_t) -> Member {
    // SAFETY: the caller's promise; all that is kept is copied.
    unsafe {
        Member {
            id: text(sys::rd_kafka_MemberDescription_consumer_id(member)).unwrap_or_default(),
            instance_id: text(sys::rd_kafka_MemberDescription_group_instance_id(member)),
            assigned: assignment(sys::rd_kafka_MemberDescription_assignment(member))
                .unwrap_or_default(),
            target: assignment(sys::rd_kafka_MemberDescription_target_assignment(member)),
        }
    }
}

/// # Safety
/// The assignment is null or valid.
unsafe fn assignment(
    assignment: *const sys::rd_kafka_MemberAssignment_t,
) -> Option<Vec<(String, i32)>> {
    if assignment.is_null() {
        return None;
    }
    // SAFETY: the caller's promise; the list, if any, lives as long as it does.
    let found = unsafe { partitions(sys::rd_kafka_MemberAssignment_partitions(assignment)) };
    Some(found.into_iter().map(|found| (found.topic, found.partition)).collect())
}

/// The member id of this consumer, once it has one. With the consumer protocol, the
/// client chooses the id when it is created, and keeps it.
pub fn member_id(consumer: &BaseConsumer<LoggingContext>) -> Option<String> {
    let rk = consumer.client().native_ptr();
    // SAFETY: the client is borrowed; the text is ours to free, after it is copied.
    let id = unsafe {
        let native = sys::rd_kafka_memberid(rk);
        let id = text(native);
        if !native.is_null() {
            sys::rd_kafka_mem_free(rk, native.cast());
        }
        id
    };
    id.filter(|id| !id.is_empty())
}
