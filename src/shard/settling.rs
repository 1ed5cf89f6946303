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
    /// The restore is complete (rule R3). `held`: what held the shard then.
    Restored { rules: RulesBefore, held: Option<ScopeChange> },
    /// A fact of a scope changed (rule J7), or a lease ended: then there is no
    /// record.
    Scope { change: ScopeChange, record: Option<HeldRecord> },
    /// It is time to look whether rows name an instance still (rule J4): `named`, if
    /// one does.
    Look { instance: u32, named: bool },
}

/// What changed of a scope.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScopeChange {
    pub scope: ScopeRef,
    /// Rows are judged at this instant.
    pub judged: Timestamp,
    /// The time of the fact or of the deadline.
    pub at: Timestamp,
    pub cause: Cause,
}

impl ScopeChange {
    /// Whether rows with these cold facts are of the scope.
    pub fn concerns(&self, facts: &ColdFacts, number: u32) -> bool {
        // Of no scope: nothing that has a name.
        number != NO_COLD
            && match self.scope {
                ScopeRef::Instance(index) => facts.has_session_of(number, index),
                // What was set counts for heartbeats of before a move (rule J3).
                ScopeRef::Fleet(index) if self.cause == Cause::SettingsChanged => {
                    facts.was_in(number, index)
                }
                ScopeRef::Fleet(index) => facts.belongs_to(number).fleet == index,
                ScopeRef::Organization(index) => facts.belongs_to(number).organization == index,
            }
    }

    /// The end of a lease has its place among the row's own deadlines, and the
    /// clock stands just before it.
    pub fn is_lease_end(&self) -> bool {
        self.cause == Cause::VpnLeaseExpired
    }
}
