//! Non-blocking queries for offsets (rules T1, R1).

use std::ffi::CString;

use rdkafka::consumer::BaseConsumer;
use rdkafka_sys as sys;

use super::guards::{
    Asker, COORDINATOR_TIMEOUT_MS, Event, List, Options, PartitionOffset, QUESTION_TIMEOUT_MS,
    options,
};
use crate::kafka::client_config::LoggingContext;
use crate::shard::Timestamp;

/// Which offset of a log to look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spec {
    /// The log's start.
    Earliest,
    /// The log's end, as the isolation level sees it.
    Latest,
    /// The first record with a timestamp at or after this.
    Time(Timestamp),
}

/// Sends queries to the brokers; [`Questions::poll`] returns the answers.
pub struct Questions(Asker);

impl Questions {
    /// Sends queries through a client that does nothing else.
    pub fn new(client: BaseConsumer<LoggingContext>) -> Questions {
        Questions(Asker::new(client))
    }

    /// Asks for offsets of partitions; the answer carries `id`.
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
            let rk = self.0.rk();
            sys::rd_kafka_ListOffsets(rk, list.0, options.0, self.0.queue.0);
        }
    }

    /// Asks for a group's committed offsets; the answer carries `id`. With `stable`
    /// the answer is an error while an open transaction may still change them (rule
    /// R1).
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
            let rk = self.0.rk();
            sys::rd_kafka_ListConsumerGroupOffsets(
                rk,
                &raw mut request,
                1,
                options.0,
                self.0.queue.0,
            );
            sys::rd_kafka_ListConsumerGroupOffsets_destroy(request);
        }
    }

    /// The next answer, if one has come.
    pub fn poll(&self) -> Option<(u64, Result<Vec<PartitionOffset>, String>)> {
        self.0.poll(Event::answer)
    }

    fn options(&self, id: u64, operation: sys::rd_kafka_admin_op_t, timeout_ms: i32) -> Options {
        // SAFETY: the client is ours.
        unsafe { options(self.0.rk(), id, operation, timeout_ms) }
    }
}
