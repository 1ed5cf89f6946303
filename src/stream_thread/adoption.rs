//! From an assignment to the offsets at which reading starts (rules R1, R5).

use super::past::InputStart;
use super::ports::{Bounds, Commits, Log, OffsetAt, QuestionId, Source};
use crate::shard::Input;

/// How long to wait before a question is put again.
const ASK_AGAIN_MS: i64 = 200;
/// The same where some partitions have been answered, and others have no leader.
const ASK_REST_AGAIN_MS: i64 = 1_000;

/// After how long it is warned that nobody answers, and how often again.
const WARN_EVERY_MS: i64 = 10_000;

/// Assigned partitions whose start is not known yet.
pub(super) struct Adoption {
    pub partitions: Vec<(Input, i32)>,
    /// When a failure is warned of. After a crash of the last owner its
    /// transaction stays open for a while, and nothing is wrong.
    pub warn_ms: i64,
    pub committed: Answer<Commits>,
    pub log_bounds: Answer<Bounds>,
}

/// What is asked of all of them.
pub(super) enum Answer<T> {
    Unasked { at_ms: i64 },
    Asked(QuestionId),
    Known(T),
}

impl<T> Answer<T> {
    /// Takes the answer, if it is one to this. From `warn_ms` on a failure is
    /// warned of.
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
                tracing::warn!(error, "where to start reading is not known yet; asking again");
            }
            None => {}
        }
    }
}

impl Adoption {
    pub fn new(partitions: Vec<(Input, i32)>, now_ms: i64) -> Adoption {
        Adoption {
            partitions,
            warn_ms: now_ms + WARN_EVERY_MS,
            committed: Answer::Unasked { at_ms: now_ms },
            log_bounds: Answer::Unasked { at_ms: now_ms },
        }
    }

    /// Puts what questions are due. Where the logs end is asked for once the
    /// commits are known: while a commit was waited for, another owner may have
    /// committed past an end that was told before.
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

    /// Takes the partitions of which it is known by now where they are read
    /// from. The others stay, and are asked for again (rule R1).
    pub fn take_starts(&mut self, now_ms: i64) -> Vec<(Input, i32, InputStart)> {
        let (Answer::Known(committed), Answer::Known(log_bounds)) =
            (&self.committed, &self.log_bounds)
        else {
            return Vec::new();
        };
        let mut starts = Vec::new();
        self.partitions.retain(|&(input, partition)| {
            let committed = committed.get(&(input, partition));
            // Asked for after the commit was known: no commit is past this end but by
            // hand.
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
