//! From an assignment to the offsets at which reading starts (rules R1, R5).

use super::ports::{FoundCommit, FoundOffset, Log, OffsetAt, QuestionId, Source};
use super::slot::InputStart;
use crate::shard::Input;

/// How long to wait before a question is put again.
const ASK_AGAIN_MS: i64 = 200;
/// The same where some partitions have been answered, and others have no leader.
const ASK_REST_AGAIN_MS: i64 = 1_000;

/// Assigned partitions whose start is not known yet.
pub(super) struct Adoption {
    pub partitions: Vec<(Input, i32)>,
    committed: Answer<FoundCommit>,
    log_bounds: Answer<FoundOffset>,
}

enum Answer<T> {
    Unasked { at_ms: i64 },
    Asked(QuestionId),
    Known(Vec<T>),
}

impl<T> Answer<T> {
    fn take(&mut self, id: QuestionId, answer: &mut Option<Result<Vec<T>, String>>, now_ms: i64) {
        if !matches!(self, Answer::Asked(question) if *question == id) {
            return;
        }
        match answer.take() {
            Some(Ok(found)) => *self = Answer::Known(found),
            Some(Err(message)) => {
                tracing::warn!(error = %message, "where to start reading is not known yet; asking again");
                *self = Answer::Unasked { at_ms: now_ms + ASK_AGAIN_MS };
            }
            None => {}
        }
    }
}

impl Adoption {
    pub fn new(partitions: Vec<(Input, i32)>, now_ms: i64) -> Adoption {
        Adoption {
            partitions,
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
                .flat_map(|(input, partition)| {
                    let source = Source::Input(*input);
                    [OffsetAt::Start, OffsetAt::HighWatermark].map(|at| (source, *partition, at))
                })
                .collect();
            self.log_bounds = Answer::Asked(log.ask_offsets(&of));
        }
    }

    pub fn committed(
        &mut self,
        id: QuestionId,
        answer: &mut Option<Result<Vec<FoundCommit>, String>>,
        now_ms: i64,
    ) {
        self.committed.take(id, answer, now_ms);
    }

    pub fn log_bounds(
        &mut self,
        id: QuestionId,
        answer: &mut Option<Result<Vec<FoundOffset>, String>>,
        now_ms: i64,
    ) {
        self.log_bounds.take(id, answer, now_ms);
    }

    /// Takes the partitions of which it is known by now where they are read
    /// from. The others stay, and are asked for again (rule R1).
    pub fn take_starts(&mut self, now_ms: i64) -> Vec<(Input, i32, InputStart)> {
        let (Answer::Known(committed), Answer::Known(log_bounds)) =
            (&self.committed, &self.log_bounds)
        else {
            return Vec::new();
        };
        let start_of = |(input, partition): &(Input, i32)| {
            let (.., committed) =
                committed.iter().find(|(i, p, _)| i == input && p == partition)?;
            let bound = |wanted| {
                let is_wanted = |(source, p, at, _): &&FoundOffset| {
                    *source == Source::Input(*input) && p == partition && *at == wanted
                };
                log_bounds.iter().find(is_wanted).map(|(.., offset)| (*offset).max(0))
            };
            // Asked for after the commit was known: no commit is past this end but by
            // hand.
            let log = bound(OffsetAt::Start)?..=bound(OffsetAt::HighWatermark)?;
            // Past the end: the log was cut off, or the offset set.
            let gone = committed.as_ref().is_some_and(|c| !log.contains(&c.offset));
            let offset = match committed {
                Some(committed) if !gone => committed.offset,
                _ => *log.start(),
            };
            let (committed, log_end) = (committed.clone(), *log.end());
            Some((*input, *partition, InputStart { offset, committed, gone, log_end }))
        };
        let starts: Vec<_> = self.partitions.iter().filter_map(start_of).collect();
        let taken = |place: &(Input, i32)| starts.iter().any(|(i, p, _)| (*i, *p) == *place);
        self.partitions.retain(|place| !taken(place));
        let at_ms = now_ms + ASK_REST_AGAIN_MS;
        self.committed = Answer::Unasked { at_ms };
        self.log_bounds = Answer::Unasked { at_ms };
        starts
    }
}
