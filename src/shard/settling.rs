//! What holds a shard while its rows are settled, and how far that has come
//! (rules J7, R3).

use super::cold::ColdFacts;
use super::event::{Input, Timestamp};
use super::hot::NO_COLD;
use super::scope::ScopeRef;
use super::status::Cause;

/// A record whose offset is not to be committed yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeldRecord {
    pub input: Input,
    pub believed: Timestamp,
    pub next_offset: i64,
}

/// Rows being settled.
#[derive(Debug)]
pub(super) struct Settling {
    pub what: What,
    /// The next slot of the table to look at.
    pub next: u32,
    /// One past the last: rows made meanwhile are judged as they are made.
    pub end: u32,
}

/// The rules by which the last owner judged (rule J9).
#[derive(Clone, Copy, Debug)]
pub(super) enum RulesBefore {
    /// Ours.
    Same,
    /// Others, until now by the broker's time. While that is not known nothing
    /// is settled: the host's clock may be wrong by hours.
    Others { until: Option<Timestamp> },
}

/// Why rows are settled.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// The restore is complete (rule R3).
    Restored { rules: RulesBefore },
    /// A fact of a scope changed (rule J7), or a lease ended: then there is no
    /// record. Rows are judged at `judged`; `at` is what `since` may be.
    Scope {
        scope: ScopeRef,
        judged: Timestamp,
        at: Timestamp,
        cause: Cause,
        record: Option<HeldRecord>,
    },
    /// It is time to look whether rows name an instance still (rule J4): `named`, if
    /// one does.
    Look { instance: u32, named: bool },
}

impl What {
    /// Whether rows with these cold facts are to be looked at.
    pub fn concerns(&self, facts: &ColdFacts, number: u32) -> bool {
        match self {
            What::Restored { .. } => true,
            // Of no scope: nothing that has a name.
            What::Scope { .. } | What::Look { .. } if number == NO_COLD => false,
            What::Look { instance, .. } => facts.names_instance(number, *instance),
            What::Scope { scope, .. } => match *scope {
                ScopeRef::Instance(index) => facts.has_session_of(number, index),
                ScopeRef::Fleet(index) => facts.belongs_to(number).fleet == index,
                ScopeRef::Organization(index) => facts.belongs_to(number).organization == index,
            },
        }
    }
}
