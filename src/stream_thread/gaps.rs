//! Detects records that were deleted before they were read (rule R5).
//!
//! A consumer whose next record is gone continues from the log start, without an
//! error. The next record has a greater offset, as it also has after the end of a
//! transaction. The log start tells the two apart.

use tracing::error;

use super::ports::{Log, View};
use super::slot::Slot;
use super::thread::StreamThread;
use crate::clock::Clock;
use crate::shard::Input;

impl<L: Log, V: View, C: Clock> StreamThread<L, V, C> {
    /// Logs and counts records that were deleted before they were read. The log
    /// start is that of the last fetch. After a failed fetch it is unknown, and the
    /// gap is checked later.
    pub(super) fn check_gaps(&mut self) {
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
                // The record that came had not been deleted when it was fetched, so
                // a log start beyond it is from a later deletion.
                if gap.from < start && start <= gap.to {
                    counts.offsets_gone[at] += 1;
                    error!(
                        input = gap.input.name(),
                        partition,
                        expected = gap.from,
                        start,
                        "records were deleted before they were read (offset out of range): \
                         continuing from the log start. Raise the retention of the input, or find \
                         out what delays reading"
                    );
                }
                false
            });
        }
    }
}
