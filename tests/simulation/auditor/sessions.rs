//! The auditor's own model of VPN sessions and leases, from the text of rule J4.

use std::collections::BTreeMap;

use device_status::shard::Rules;
use device_status::wire::proto::v1::vpn_event as vpn;

use super::{Said, duration_ms, ms};

/// From when a lease runs that a record tells of: late by the allowance or less, it
/// runs from the record, less the slack.
pub fn counted(rules: &Rules, said: &Said<vpn::Event>) -> i64 {
    let Some(sent_at) = said.sent_at else { return said.at };
    let lived_at = sent_at - rules.slack_ms;
    if lived_at > said.at && lived_at - said.at <= rules.max_lease_delay_ms {
        lived_at
    } else {
        said.at
    }
}

/// Of leases, in the order of the log, the one that counts latest: its own time and
/// its length. One that has those of the one held is a duplicate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lease(Option<(i64, i64, Option<i64>)>);

impl Lease {
    pub fn tell(&mut self, counted: i64, at: i64, lease_ms: Option<i64>) {
        let stays = self.0.is_some_and(|(held, held_at, held_ms)| {
            (held_at, held_ms) == (at, lease_ms) || held > counted
        });
        if !stays {
            self.0 = Some((counted, at, lease_ms));
        }
    }

    pub fn end(&self) -> Option<i64> {
        let (counted, _, lease_ms) = self.0?;
        Some(counted + lease_ms?)
    }
}

/// What was said of a session, each in the order of the log.
#[derive(Debug, Default)]
struct Session {
    /// When it was opened or closed by name alone, which of the two, and whether both
    /// were seen then.
    state: Option<(i64, bool, bool)>,
    /// The latest opening: its own time, and since when the connection is.
    opening: Option<(i64, i64)>,
    /// The greatest opening that a close names.
    ended_until: Option<i64>,
    lease: Lease,
}

impl Session {
    fn see(&mut self, at: i64, open: bool) {
        match &mut self.state {
            Some((held, ..)) if *held > at => {}
            Some((held, value, both)) if *held == at => {
                if *value != open && !*both {
                    (*value, *both) = (open, true);
                }
            }
            state => *state = Some((at, open, false)),
        }
    }
}

/// A session that is open.
#[derive(Debug)]
pub struct Open {
    pub instance: String,
    pub opened_at: i64,
    pub lease_end: Option<i64>,
}

/// What the openings and closes of a device come to.
#[derive(Debug, Default)]
pub struct Sessions {
    pub open: Vec<Open>,
    /// The latest contact by an opening.
    pub contact: Option<i64>,
}

impl Sessions {
    /// Of what was said later than the deletion.
    pub fn of(rules: &Rules, vpn: &[Said<vpn::Event>], deleted: i64) -> Sessions {
        let mut sessions: BTreeMap<(&str, &str), Session> = BTreeMap::new();
        let mut contact = None;
        for said in vpn.iter().filter(|said| said.at > deleted) {
            match &said.event {
                vpn::Event::SessionOpened(event) => {
                    let held = sessions.entry((&event.instance, &event.session)).or_default();
                    let since = ms(event.opened_at.as_ref()).map_or(said.at, |at| at.min(said.at));
                    contact = contact.max(Some(since.max(deleted.saturating_add(1))));
                    held.see(said.at, true);
                    if held.opening.is_none_or(|(at, _)| at <= said.at) {
                        held.opening = Some((said.at, since));
                    }
                    let lease_ms = event.lease.as_ref().map(duration_ms);
                    let from = lease_ms.map_or(said.at, |_| counted(rules, said));
                    held.lease.tell(from, said.at, lease_ms);
                }
                vpn::Event::SessionClosed(event) => {
                    let held = sessions.entry((&event.instance, &event.session)).or_default();
                    match ms(event.opened_at.as_ref()) {
                        None => held.see(said.at, false),
                        Some(at) => {
                            held.ended_until = held.ended_until.max(Some(at.min(said.at)));
                        }
                    }
                }
                _ => {}
            }
        }
        let open = sessions.into_iter().filter_map(|((instance, _), session)| {
            let (opened_at, since) = session.opening?;
            let (_, is_open, _) = session.state?;
            (is_open && session.ended_until < Some(since)).then(|| Open {
                instance: instance.to_owned(),
                opened_at,
                lease_end: session.lease.end(),
            })
        });
        Sessions { open: open.collect(), contact }
    }
}
