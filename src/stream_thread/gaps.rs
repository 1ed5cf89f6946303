//! Noticing that records were deleted before they were read (rule R5).
//!
//! A reader whose next record is gone goes on from the log's start, and says
//! nothing: what is read next has a greater offset, as it also has behind a
//! transaction's end. Where the log starts tells the two apart.

use tracing::error;

use super::ports::{Log, View};
use super::slot::Slot;
use super::thread::StreamThread;
use crate::clock::Clock;
use crate::shard::Input;

impl<L: Log, V: View, C: Clock> StreamThread<L, V, C> {
    /// Tells of records that were deleted before they were read. Where the log
    /// starts is as old as the last answer to a fetch: it is not known behind one
    /// that failed, and then looked at later.
    pub(super) fn judge_gaps(&mut self) {
        let Self { log, slots, counts, .. } = self;
        let running = slots.values_mut().filter_map(Slot::running_mut);
        for running in running.filter(|running| !running.gaps.is_empty()) {
            let partition = running.shard.partition();
            let starts = Input::ALL.map(|input| {
                let passed = running.gaps.iter().any(|gap| gap.input == input);
                passed.then(|| log.log_start(input, partition)).flatten()
            });
            running.gaps.retain(|gap| {
                let at = gap.input.index();
                let Some(start) = starts[at] else { return true };
                // What came had not been deleted when it was fetched, so a start
                // that lies behind it is a later one.
                if gap.from < start && start <= gap.to {
                    counts.offsets_gone[at] += 1;
                    error!(
                        input = gap.input.name(),
                        partition,
                        expected = gap.from,
                        start,
                        "records were deleted before they were read; going on from the log's \
                         start. Raise the retention of the input, or find out what holds up the \
                         reading"
                    );
                }
                false
            });
        }
    }
}
