//! A VPN session (rule J4): opened or closed, as one register by time, and the
//! end of its lease.

use std::sync::Arc;

use super::register::outlives;
use crate::shard::event::Timestamp;
use crate::shard::fnv::fnv1a;

/// A stable 64-bit hash of (instance, session): the same in every version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionFingerprint(pub u64);

/// An opening of a session. It may be repeated while the connection lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Its own time.
    pub at: Timestamp,
    /// When the connection began: no later than its own time.
    pub connected_at: Timestamp,
    /// The time from which its lease runs; its own time without a lease.
    pub counted_at: Timestamp,
    /// The length of the lease, in milliseconds. Absent: until the session is
    /// closed.
    pub lease_ms: Option<u32>,
}

impl Opening {
    /// When its lease ends, if it has one.
    #[must_use]
    pub fn lease_end(&self) -> Option<Timestamp> {
        Some(self.counted_at.plus_ms(i64::from(self.lease_ms?)))
    }

    /// The parts by which a duplicate is recognized.
    fn says(&self) -> (Timestamp, Option<u32>) {
        (self.at, self.lease_ms)
    }
}

/// A close with `opened_at`: later openings continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ended {
    /// Openings of connections that began at or before this time are ended.
    pub until: Timestamp,
    /// The time of the close.
    pub at: Timestamp,
}

/// The facts of a session, open or closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session<Name> {
    /// The VPN instance of the session.
    pub instance: Name,
    /// Its name there, which may be empty.
    pub session: Arc<str>,
    /// The latest opening.
    pub opening: Option<Opening>,
    /// The opening with the latest counted time, if it is not the latest one.
    pub leased: Option<Opening>,
    /// Since when it has been open without a break, if that is not the time of
    /// the latest opening (rule J9).
    pub began_at: Option<Timestamp>,
    /// The latest close without `opened_at`.
    pub closed_at: Option<Timestamp>,
    /// The close has the opening's own time, and came before it.
    pub reopened: bool,
    /// The close with the greatest `opened_at`.
    pub ended: Option<Ended>,
}

/// The fingerprint of a session: FNV-1a over both names, each followed by a byte
/// that does not occur in UTF-8.
#[must_use]
pub fn session_fingerprint(instance: &str, session: &str) -> SessionFingerprint {
    let parts = [instance, session];
    SessionFingerprint(fnv1a(parts.into_iter().flat_map(|part| part.bytes().chain([0xff]))))
}

impl<Name> Session<Name> {
    /// The same with another name of its instance.
    pub(in crate::shard) fn rename<Other>(&self, instance: Other) -> Session<Other> {
        Session {
            instance,
            session: self.session.clone(),
            opening: self.opening,
            leased: self.leased,
            began_at: self.began_at,
            closed_at: self.closed_at,
            reopened: self.reopened,
            ended: self.ended,
        }
    }

    /// No event has named it yet.
    #[must_use]
    pub fn new(instance: Name, session: Arc<str>) -> Session<Name> {
        Session {
            instance,
            session,
            opening: None,
            leased: None,
            began_at: None,
            closed_at: None,
            reopened: false,
            ended: None,
        }
    }

    /// What is left of it where its openings are dropped: a close that names an
    /// opening. `None` where there is none.
    pub(in crate::shard) fn of_closes(&self) -> Option<Session<Name>>
    where
        Name: Clone,
    {
        let ended = Some(self.ended?);
        Some(Session { ended, ..Session::new(self.instance.clone(), self.session.clone()) })
    }

    /// Whether it is open: opened later than it was closed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.opening.is_some() && self.ended_at().is_none()
    }

    /// When it was closed, if it is.
    #[must_use]
    pub fn ended_at(&self) -> Option<Timestamp> {
        let closed_at = self.closed_at.filter(|closed_at| match self.opening {
            Some(opening) if opening.at == *closed_at => !self.reopened,
            Some(opening) => opening.at < *closed_at,
            None => true,
        });
        let ended = self
            .ended
            .filter(|ended| self.opening.is_none_or(|opening| opening.connected_at <= ended.until));
        closed_at.max(ended.map(|ended| ended.at))
    }

    /// The own time of its latest opening. Losses and starts of its instance are
    /// compared with it.
    #[must_use]
    pub fn opened_at(&self) -> Option<Timestamp> {
        self.opening.map(|opening| opening.at)
    }

    /// Since when it was open, when it was open last.
    #[must_use]
    pub fn began_at(&self) -> Option<Timestamp> {
        self.began_at.or(self.opened_at())
    }

    /// The end of its own lease, if it has one.
    #[must_use]
    pub fn lease_end(&self) -> Option<Timestamp> {
        self.leased.or(self.opening)?.lease_end()
    }

    /// The time by which an opening dates a change: the beginning of its
    /// connection if no known fact of the session is later than that, else its
    /// own time (rule J4). `ends` are the loss and the start of its instance, the
    /// end of the instance's lease, and that of the session's own.
    pub(in crate::shard) fn dates(
        &self,
        opening: &Opening,
        ends: [Option<Timestamp>; 4],
    ) -> Timestamp {
        let own = [self.opened_at(), self.closed_at, self.ended.map(|ended| ended.at)];
        let mut known = own.into_iter().chain(ends).flatten();
        let is_later = known.any(|at| opening.connected_at < at && at <= opening.at);
        if is_later { opening.at } else { opening.connected_at }
    }

    /// Whether an opening contains everything that is kept of the latest one:
    /// then its replay alone has the same effect as that of both (rule R2).
    pub(in crate::shard) fn is_renewed_by(&self, opening: &Opening) -> bool {
        let counted_at = self.leased.or(self.opening).map(|leased| leased.counted_at);
        self.opening
            .is_some_and(|held| held.at < opening.at && held.connected_at <= opening.connected_at)
            && counted_at <= Some(opening.counted_at)
    }

    /// Joins an opening. Returns whether anything is new.
    pub(in crate::shard) fn open(&mut self, opening: Opening, began: Began) -> bool
    where
        Name: Clone + PartialEq,
    {
        let before = self.clone();
        let leased = self.leased.or(self.opening);
        match self.opening {
            Some(held) if opening.at < held.at => {}
            Some(held) if opening.at == held.at => {
                // The first record of the two counts. They cannot be told apart.
                let duplicate = opening.says() == held.says();
                let counted_at = if duplicate { held.counted_at } else { opening.counted_at };
                self.opening = Some(Opening { counted_at, ..opening });
            }
            held => {
                let began_at = match began {
                    Began::Before => self.began_at.or(held.map(|held| held.at)),
                    Began::At(at) => Some(at),
                };
                self.began_at = began_at.filter(|at| *at != opening.at);
                self.reopened = self.closed_at == Some(opening.at);
                self.opening = Some(opening);
            }
        }
        let leased = match leased {
            Some(held) if held.says() == opening.says() || held.counted_at > opening.counted_at => {
                held
            }
            _ => opening,
        };
        let is_latest = |latest: Opening| {
            (latest.says(), latest.counted_at) == (leased.says(), leased.counted_at)
        };
        self.leased = Some(leased).filter(|_| !self.opening.is_some_and(is_latest));
        *self != before
    }

    /// Joins a close, which may name the opening that it ends. Returns whether
    /// anything is new.
    pub(in crate::shard) fn close(&mut self, at: Timestamp, opened_at: Option<Timestamp>) -> bool {
        match opened_at {
            Some(opened_at) => {
                let ended = Ended { until: opened_at.min(at), at };
                let later = self.ended < Some(ended);
                if later {
                    self.ended = Some(ended);
                }
                later
            }
            None => {
                let later = self.closed_at < Some(at);
                if later {
                    self.closed_at = Some(at);
                    self.reopened = false;
                }
                later
            }
        }
    }

    /// Forgets the facts that a deletion removes (rule J5). Returns whether any
    /// are left.
    pub(in crate::shard) fn delete(&mut self, deleted: Timestamp) -> bool {
        let stays = |at: Timestamp| outlives(at, deleted);
        self.opening.take_if(|held| !stays(held.at));
        self.leased.take_if(|held| !stays(held.at));
        self.began_at.take_if(|held| !stays(*held));
        self.closed_at.take_if(|held| !stays(*held));
        self.ended.take_if(|held| !stays(held.at));
        if self.opening.is_none() {
            (self.leased, self.began_at) = (None, None);
        }
        self.reopened &= self.closed_at.is_some();
        self.opening.is_some() || self.closed_at.is_some() || self.ended.is_some()
    }
}

/// Since when an open session is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Began {
    /// It was open, and counted since then.
    Before,
    /// Open since this opening.
    At(Timestamp),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session<()> {
        Session::new((), "s".into())
    }

    fn opening(at: i64) -> Opening {
        let at = Timestamp(at);
        Opening { at, connected_at: at, counted_at: at, lease_ms: None }
    }

    /// The events of a session, in short form.
    #[derive(Clone, Copy, Debug)]
    enum Told {
        Opened(i64),
        OpenedSince(i64, i64),
        Leased(i64, u32),
        Closed(i64),
        ClosedWhatOpened(i64, i64),
    }
    use Told::{Closed, ClosedWhatOpened, Leased, Opened, OpenedSince};

    fn tell(session: &mut Session<()>, told: Told) -> bool {
        let open = |session: &mut Session<()>, opening: Opening| {
            session.open(opening, Began::At(opening.at))
        };
        match told {
            Opened(at) => open(session, opening(at)),
            OpenedSince(at, connected) => {
                open(session, Opening { connected_at: Timestamp(connected), ..opening(at) })
            }
            Leased(at, lease_ms) => {
                open(session, Opening { lease_ms: Some(lease_ms), ..opening(at) })
            }
            Closed(at) => session.close(Timestamp(at), None),
            ClosedWhatOpened(at, opened) => session.close(Timestamp(at), Some(Timestamp(opened))),
        }
    }

    /// Events of different times end in the same session in every order.
    fn in_every_order(told: &[Told]) -> Session<()> {
        fn orders(rest: &[Told], told: &mut Vec<Told>, ends: &mut Vec<Session<()>>) {
            if rest.is_empty() {
                let mut session = session();
                for each in told.iter() {
                    tell(&mut session, *each);
                    // Duplicates change nothing.
                    assert!(!tell(&mut session, *each), "{told:?}");
                }
                ends.push(session);
            }
            for place in 0..rest.len() {
                let mut rest = rest.to_vec();
                told.push(rest.remove(place));
                orders(&rest, told, ends);
                told.pop();
            }
        }
        let mut ends = Vec::new();
        orders(told, &mut Vec::new(), &mut ends);
        assert!(ends.iter().all(|end| *end == ends[0]), "{told:?}: {ends:?}");
        ends.swap_remove(0)
    }

    #[test]
    fn later_event_opens_or_closes_in_any_order_of_arrival() {
        assert!(in_every_order(&[Opened(1), Closed(2), Opened(3)]).is_open());
        let closed = in_every_order(&[Opened(1), Closed(2), Opened(3), Closed(4)]);
        assert_eq!(closed.ended_at(), Some(Timestamp(4)));
        assert_eq!(closed.opened_at(), Some(Timestamp(3)));
        assert_eq!(in_every_order(&[Closed(2)]).ended_at(), Some(Timestamp(2)));
    }

    #[test]
    fn close_with_opened_at_ends_no_later_opening() {
        let taken_over = [Opened(1), Opened(5), ClosedWhatOpened(6, 1)];
        assert!(in_every_order(&taken_over).is_open());
        let ended = in_every_order(&[Opened(1), Opened(5), ClosedWhatOpened(9, 5), Opened(4)]);
        assert_eq!(ended.ended_at(), Some(Timestamp(9)));
        // The same connection, opened again, stays closed. Another one is open.
        let again = in_every_order(&[OpenedSince(1, 1), ClosedWhatOpened(3, 1), OpenedSince(4, 1)]);
        assert!(!again.is_open());
        let other = [OpenedSince(1, 1), ClosedWhatOpened(3, 1), OpenedSince(5, 4)];
        assert!(in_every_order(&other).is_open());
    }

    #[test]
    fn open_and_close_in_one_millisecond_the_unseen_one_wins() {
        for (told, open) in [
            (&[Opened(1), Closed(1)][..], false),
            (&[Closed(1), Opened(1)], true),
            (&[Opened(1), Closed(1), Opened(1), Closed(1)], false),
            (&[Closed(1), Opened(1), Closed(1), Opened(1)], true),
        ] {
            let mut session = session();
            for each in told {
                tell(&mut session, *each);
            }
            assert_eq!(session.is_open(), open, "{told:?}");
        }
    }

    #[test]
    fn opening_with_the_latest_counted_time_decides_the_lease() {
        let ended = in_every_order(&[Leased(1, 100), Leased(20, 10), Leased(10, 50)]);
        assert_eq!(ended.lease_end(), Some(Timestamp(30)));
        assert_eq!(in_every_order(&[Leased(1, 100), Opened(20)]).lease_end(), None);
        // Of one time, the later in the log wins.
        let mut session = session();
        for lease_ms in [60, 300, 120] {
            tell(&mut session, Leased(1, lease_ms));
        }
        assert_eq!(session.lease_end(), Some(Timestamp(121)));
        // A late one has a later counted time than its own.
        let late = Opening { counted_at: Timestamp(50), lease_ms: Some(10), ..opening(2) };
        assert!(session.open(late, Began::Before));
        assert!(session.open(Opening { lease_ms: Some(10), ..opening(9) }, Began::Before));
        assert_eq!(
            (session.opened_at(), session.lease_end()),
            (Some(Timestamp(9)), Some(Timestamp(60)))
        );
    }

    #[test]
    fn a_deletion_leaves_what_is_later() {
        let mut session = session();
        for each in [Opened(1), Closed(5), Opened(9)] {
            tell(&mut session, each);
        }
        assert!(session.delete(Timestamp(5)));
        assert_eq!((session.closed_at, session.is_open()), (None, true));
        assert!(!session.delete(Timestamp(9)));
    }
}
