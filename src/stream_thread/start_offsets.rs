//! Resolves start offsets: the step from an assignment to the offsets at which
//! reading starts (rules R1, R5).

use super::past::InputStart;
use super::ports::{Bounds, Commits, Log, OffsetAt, QuestionId, Source};
use crate::shard::Input;

/// Pause before a query is repeated.
const ASK_AGAIN_MS: i64 = 200;
/// The same pause if only some partitions have an answer, because others have no
/// leader.
const ASK_REST_AGAIN_MS: i64 = 1_000;

/// How long queries may fail before a warning, and the pause between two warnings.
const WARN_EVERY_MS: i64 = 10_000;

/// Assigned partitions whose start offsets are not known yet.
pub(super) struct ResolvingStarts {
    pub partitions: Vec<(Input, i32)>,
    /// When a failure is logged as a warning. After a crash of the last owner, its
    /// transaction stays open for a while, which is normal.
    pub warn_ms: i64,
    pub committed: Answer<Commits>,
    pub log_bounds: Answer<Bounds>,
}

/// A query for all of them.
pub(super) enum Answer<T> {
    Unasked { at_ms: i64 },
    Asked(QuestionId),
    Known(T),
}

impl<T> Answer<T> {
    /// Takes the answer, if it belongs to this query. From `warn_ms` on, a failure
    /// is logged as a warning.
    pub fn take(
        &mut self,
        id: QuestionId,
        answer: &mut Option<Result<T, String>>,
        now_ms: i64,
        warn_ms: &mut i64,
    ) {
        if !matches!(self, Answer::Asked(question) if *question == id) {
            return;
        }
        match answer.take() {
            Some(Ok(found)) => *self = Answer::Known(found),
            Some(Err(error)) => {
                *self = Answer::Unasked { at_ms: now_ms + ASK_AGAIN_MS };
                if now_ms < *warn_ms {
                    tracing::debug!(error, "committed offsets or log bounds are not known yet");
                    return;
                }
                *warn_ms = now_ms + WARN_EVERY_MS;
                tracing::warn!(
                    error,
                    "cannot resolve the start offsets of assigned partitions \
                                       yet; retrying"
                );
            }
            None => {}
        }
    }
}

impl ResolvingStarts {
    pub fn new(partitions: Vec<(Input, i32)>, now_ms: i64) -> ResolvingStarts {
        ResolvingStarts {
            partitions,
            warn_ms: now_ms + WARN_EVERY_MS,
            committed: Answer::Unasked { at_ms: now_ms },
            log_bounds: Answer::Unasked { at_ms: now_ms },
        }
    }

    /// Sends the queries that are due. Log ends are asked for after the committed
    /// offsets are known: meanwhile another owner may have committed past an
    /// earlier end.
    pub fn ask(&mut self, log: &mut dyn Log, now_ms: i64) {
        if matches!(self.committed, Answer::Unasked { at_ms } if at_ms <= now_ms) {
            self.committed = Answer::Asked(log.ask_committed(&self.partitions));
        }
        if matches!(self.committed, Answer::Known(_))
            && matches!(self.log_bounds, Answer::Unasked { at_ms } if at_ms <= now_ms)
        {
            let of: Vec<_> = self
                .partitions
                .iter()
                .map(|(input, partition)| (Source::Input(*input), *partition))
                .collect();
            self.log_bounds = Answer::Asked(log.ask_bounds(&of, OffsetAt::Start));
        }
    }

    /// Takes the partitions whose start offsets are known. The others stay, and are
    /// asked for again (rule R1).
    pub fn take_starts(&mut self, now_ms: i64) -> Vec<(Input, i32, InputStart)> {
        let (Answer::Known(committed), Answer::Known(log_bounds)) =
            (&self.committed, &self.log_bounds)
        else {
            return Vec::new();
        };
        let mut starts = Vec::new();
        self.partitions.retain(|&(input, partition)| {
            let committed = committed.get(&(input, partition));
            // The end was asked for after the commit, so only an offset that was
            // set by hand is past it.
            let bounds = log_bounds.get(&(Source::Input(input), partition));
            let (Some(committed), Some(bounds)) = (committed, bounds) else { return true };
            starts.push((input, partition, InputStart::new(committed.clone(), *bounds)));
            false
        });
        let at_ms = now_ms + ASK_REST_AGAIN_MS;
        self.committed = Answer::Unasked { at_ms };
        self.log_bounds = Answer::Unasked { at_ms };
        starts
    }
}
