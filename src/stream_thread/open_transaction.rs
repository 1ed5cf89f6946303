//! Transactions of other producers that stay open on the inputs. Records behind one
//! cannot be read, so the shard's clock stands still and no device expires (rule
//! T1).

use tracing::{info, warn};

use super::ports::LogBounds;
use crate::shard::{Input, Timestamp};

/// How long a transaction may be open before it is logged. Most end within a
/// second.
const TOLD_AFTER_MS: i64 = 10_000;

/// A transaction that is open on a partition of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenTransaction {
    /// Its first record.
    pub offset: i64,
    /// Since when it is known to be open, by broker time: it may be older.
    pub since: Timestamp,
    /// For how long it has been open at least, in milliseconds.
    pub age_ms: i64,
}

impl OpenTransaction {
    /// Whether it is open for longer than transactions usually are.
    #[must_use]
    pub fn hangs(&self) -> bool {
        self.age_ms >= TOLD_AFTER_MS
    }

    /// The open transaction by the log bounds that were asked for at `asked_at`,
    /// given the one seen before. Logs once when it hangs, and once when it has
    /// ended.
    pub(super) fn look(
        before: Option<OpenTransaction>,
        log: LogBounds,
        asked_at: Timestamp,
        (input, partition): (Input, i32),
    ) -> Option<OpenTransaction> {
        let offset = log.stable;
        let open = (offset < log.end).then(|| {
            let same = before.filter(|before| before.offset == offset);
            let since = same.map_or(asked_at, |before| before.since);
            OpenTransaction { offset, since, age_ms: (asked_at.0 - since.0).max(0) }
        });
        let hung = before.is_some_and(|before| before.hangs());
        let input = input.name();
        match open.filter(OpenTransaction::hangs) {
            Some(open) if !hung => warn!(
                input,
                partition,
                offset,
                since_ms = open.since.0,
                "a producer's transaction is open on this input: records behind it cannot be \
                 read, and no device expires meanwhile. Find it with kafka-transactions.sh \
                 find-hanging and abort it; otherwise its producer's transaction.timeout.ms ends \
                 it"
            ),
            None if hung => info!(input, partition, "the open transaction has ended"),
            _ => {}
        }
        open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transaction_hangs_once_it_is_open_for_ten_seconds() {
        let look = |before, stable, at_ms| {
            let log = LogBounds { start: 0, stable, end: 10 };
            OpenTransaction::look(before, log, Timestamp(at_ms), (Input::Lifecycle, 3))
        };
        let first = look(None, 5, 1_000);
        assert!(!first.unwrap().hangs());
        let later = look(first, 5, 11_000).unwrap();
        assert!(later.hangs());
        assert_eq!((later.offset, later.since, later.age_ms), (5, Timestamp(1_000), 10_000));
        // Another one, behind it.
        assert!(!look(Some(later), 7, 12_000).unwrap().hangs());
        assert_eq!(look(Some(later), 10, 12_000), None);
    }
}
