//! Limits of a shard: output for one transaction (rule C10), records read ahead
//! (rule T4), open sessions (rule J4).

use super::*;

/// A turn until `most_bytes` wait, and its output.
fn turn(told: &mut Told, most_bytes: usize) -> (Turn, Outbox) {
    let turn = told.shard.turn_until_full(told.now, 20_000, most_bytes);
    (turn, told.shard.take_outbox(0))
}

#[test]
fn no_transaction_has_more_dead_letters_than_fit_and_no_position_covers_the_others() {
    const LETTERS: i64 = 1_000;
    const BYTES: usize = 10_000;
    const MOST: usize = 100_000;
    let mut told = Told::new();
    for offset in 0..LETTERS {
        told.offer_content(Input::Heartbeats, Content::Bad(Box::new(letter(offset, BYTES))));
    }
    let mut written = 0;
    while written < LETTERS {
        let (done, outbox) = turn(&mut told, MOST);
        assert!(!done.more, "what is left must wait for the commit");
        let letters = &outbox.dead_letters;
        assert!(!letters.is_empty() && letters.len() <= MOST / BYTES, "{}", letters.len());
        assert!(letters.iter().zip(written..).all(|(letter, offset)| letter.offset == offset));
        written += i64::try_from(letters.len()).unwrap();
        assert_eq!(told.shard.position(Input::Heartbeats), written);
    }
    assert_eq!(told.shard.output_bytes(), 0);
}

#[test]
fn many_expiries_at_once_fit_into_transactions_behind_the_committed_clock() {
    const CROWD: usize = 5_000;
    const MOST: usize = 200_000;
    let mut told = crowd(CROWD as u128);
    let deadline = T0 + 1_350_000 + 15_000;
    told.at(T0 + 60 * MINUTE_MS);
    let mut expired = 0;
    while expired < CROWD {
        let (_, outbox) = turn(&mut told, MOST);
        let changes = outbox.changes.len();
        // Timers are handed out a thousand at a time.
        assert!((1..=MOST / 700 + 1_024).contains(&changes), "{changes} after {expired}");
        expired += changes;
        if expired < CROWD {
            assert!(told.shard.progress().clock < Timestamp(deadline));
        }
    }
    assert_eq!(told.shard.status_counts()[Status::Offline.index()], CROWD as u64);
}

#[test]
fn a_scope_event_is_settled_over_several_transactions_and_its_offset_is_in_the_last() {
    const CROWD: usize = 1_000;
    let mut told = crowd(CROWD as u128);
    (0..CROWD as u128).for_each(|number| told.register(&device(number), "f"));
    told.run();
    told.shard.take_outbox(0);
    let frozen = ScopeEvent::FleetFrozen { fleet: "f".into(), reason: FrozenReason::Allowance };
    told.offer(Input::Lifecycle, EventBody::Scope(frozen));
    let before = told.shard.position(Input::Lifecycle);
    let mut settled = 0;
    while settled < CROWD {
        let (done, outbox) = turn(&mut told, 70_000);
        assert!(!done.more && (1..=101).contains(&outbox.changes.len()), "{done:?}");
        settled += outbox.changes.len();
        let position = told.shard.position(Input::Lifecycle);
        assert_eq!(position > before, settled == CROWD, "{settled}");
    }
}

#[test]
fn read_ahead_is_counted_until_it_is_applied_or_dropped() {
    let mut told = Told::new();
    told.run();
    told.offer_content(Input::Heartbeats, Content::Bad(Box::new(letter(0, 10_000))));
    told.heartbeat(&device(1));
    assert!((10_000..11_000).contains(&told.shard.buffered_bytes(Input::Heartbeats)));
    assert_eq!(told.shard.buffered_bytes(Input::Lifecycle), 0);
    told.run();
    assert_eq!(told.shard.buffered_bytes(Input::Heartbeats), 0);
    told.heartbeat(&device(1));
    assert!(told.shard.buffered_bytes(Input::Heartbeats) > 0);
    told.shard.rewind();
    assert_eq!(told.shard.buffered_bytes(Input::Heartbeats), 0);
}

fn opens(told: &mut Told, instance: &str, session: usize) -> Turn {
    let (instance, session) = (instance.into(), format!("session {session}").into());
    let event = DeviceEvent::SessionOpened { instance, session, opened_at: None, lease_ms: None };
    told.offer(Input::VpnSessions, EventBody::Device { device: device(1), event });
    told.shard.turn(told.now, 1_000)
}

fn announces(told: &mut Told, instance: &str, lease_ms: u32) {
    let started_at = Some(Timestamp(T0 - 1));
    let alive = ScopeEvent::InstanceAlive { instance: instance.into(), started_at, lease_ms };
    told.offer(Input::VpnSessions, EventBody::Scope(alive));
    told.run();
}

fn closes(told: &mut Told, instance: &str, session: usize) {
    let (instance, session) = (instance.into(), format!("session {session}").into());
    let event = DeviceEvent::SessionClosed { instance, session, opened_at: None };
    told.offer(Input::VpnSessions, EventBody::Device { device: device(1), event });
    told.run();
}

fn connectivity(told: &Told) -> Option<Connectivity> {
    let row = told.shard.snapshot(&device(1))?;
    row.emitted?.shown.map(|(_, connectivity)| connectivity)
}

#[test]
fn oldest_of_too_many_open_sessions_are_dropped_and_reported() {
    const MOST: usize = facts::sessions::OPEN_SESSIONS_MAX;
    let mut told = Told::new();
    for session in 0..MOST {
        told.at(T0 + session as i64);
        let done = opens(&mut told, "vpn", session);
        assert_eq!((done.open_sessions_fallen_out, done.most_sessions), (0, None));
    }
    told.at(T0 + 1_000);
    let done = opens(&mut told, "vpn", MOST);
    assert_eq!((done.open_sessions_fallen_out, done.most_sessions), (1, Some(device(1))));
    assert_eq!(told.shard.snapshot(&device(1)).unwrap().facts.sessions.len(), MOST);
    // The newest sessions decide: once they are closed, the device counts as
    // disconnected.
    for session in 1..=MOST {
        assert_eq!(connectivity(&told), Some(Connectivity::VpnOnly), "before {session} closes");
        closes(&mut told, "vpn", session);
    }
    assert_eq!(connectivity(&told), Some(Connectivity::None));
}

#[test]
fn sessions_that_do_not_count_fall_out_before_an_older_one_that_does() {
    const MOST: usize = facts::sessions::OPEN_SESSIONS_MAX;
    let mut told = Told::new();
    opens(&mut told, "lasting", 0);
    announces(&mut told, "lapsed", 60_000);
    for session in 1..MOST {
        opens(&mut told, "lapsed", session);
    }
    told.at(T0 + 61_000);
    told.run();
    let mut fallen_out = 0;
    for session in MOST..2 * MOST - 1 {
        fallen_out += opens(&mut told, "lapsed", session).open_sessions_fallen_out;
        assert_eq!(connectivity(&told), Some(Connectivity::VpnOnly), "session {session}");
    }
    assert_eq!(fallen_out as usize, MOST - 1);
    // The instance comes back: the newest of its sessions are still there.
    announces(&mut told, "lapsed", 60_000);
    closes(&mut told, "lasting", 0);
    assert_eq!(connectivity(&told), Some(Connectivity::VpnOnly));
}

#[test]
fn changes_by_new_settings_wait_for_broker_time_and_have_its_date() {
    let mut told = Told::new();
    for number in 0..5 {
        let body = EventBody::Heartbeat {
            device: device(number),
            poll_interval_s: None,
            going_away: false,
        };
        told.offer(Input::Heartbeats, body);
    }
    told.run();
    let entries = told.shard.take_outbox(0).changelog;
    // The heartbeat counted for a quarter of an hour, and now counts for a
    // second.
    let short = Rules { default_poll_interval_ms: 1_000, minimum_ms: 1_000, ..Rules::default() };
    let rules = Rules { slack_ms: 0, ..short };
    let mut shard = Shard::new(3, rules);
    entries.iter().for_each(|entry| shard.restore_entry(entry.clone(), false));
    let clock = Some(Timestamp(T0 + MINUTE_MS));
    shard.start(Start { epoch: 8, clock, rules_changed: true, ..Start::default() });
    let turn = shard.turn(Now { monotonic_ms: 0, broker: None }, 1_000);
    assert_eq!(turn, Turn::default());
    let outbox = shard.take_outbox(0);
    assert!(outbox.changes.is_empty() && shard.is_settling_new_rules());
    // The first commit is for this: its report gives broker time.
    assert_eq!(outbox.changelog, [Entry::Epoch(8)]);
    let broker = Timestamp(T0 + 2 * MINUTE_MS);
    while shard.turn(Now { monotonic_ms: 0, broker: Some(broker) }, 2).more {}
    let changes = shard.take_outbox(0).changes;
    assert_eq!(changes.len(), 5);
    for change in changes {
        assert_eq!((change.since, change.cause), (broker, Cause::RulesChanged));
    }
}
