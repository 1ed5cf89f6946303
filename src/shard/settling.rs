//! The reason why a shard settles rows, and the progress of that (rules J7, R3).

use super::cold::ColdFacts;
use super::event::{Input, Timestamp};
use super::hot::NO_COLD;
use super::scope::ScopeRef;
use super::status::Cause;

/// A record whose offset must not be committed yet.
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
    /// One past the last slot. Rows that are created meanwhile are judged at
    /// their creation.
    pub end: u32,
}

/// The settings by which the last owner judged (rule J9).
#[derive(Clone, Copy, Debug)]
pub(super) enum RulesBefore {
    /// The same settings as ours.
    Same,
    /// Other settings, until this broker time. While it is unknown no row is
    /// settled: the host's clock may be wrong by hours.
    Others { until: Option<Timestamp> },
}

/// Why rows are settled.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// The restore is complete (rule R3). `held`: the hold of the shard at that
    /// time.
    Restored { rules: RulesBefore, held: Option<ScopeChange> },
    /// A fact of a scope changed (rule J7), or a lease ended. A lease's end has
    /// no record.
    Scope { change: ScopeChange, record: Option<HeldRecord> },
    /// Check whether rows still name an instance (rule J4). `named`: one does.
    Look { instance: u32, named: bool },
}

/// The change of a scope.
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
        // No name means no scope.
        number != NO_COLD
            && match self.scope {
                ScopeRef::Instance(index) => facts.has_session_of(number, index),
                // A setting counts for heartbeats from before a move (rule J3).
                ScopeRef::Fleet(index) if self.cause == Cause::SettingsChanged => {
                    facts.was_in(number, index)
                }
                ScopeRef::Fleet(index) => facts.belongs_to(number).fleet == index,
                ScopeRef::Organization(index) => facts.belongs_to(number).organization == index,
            }
    }

    /// The end of a lease is ordered among the row's own deadlines, and the clock
    /// stands just before it.
    pub fn is_lease_end(&self) -> bool {
        self.cause == Cause::VpnLeaseExpired
    }
}
