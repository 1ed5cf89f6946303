//! The hold of a shard, over a crash between two chunks (rules J7, R3).

use super::*;

fn entries_of(outbox: Outbox, committed: &mut Vec<Entry>, changes: &mut Vec<StatusChange>) {
    committed.extend(outbox.changelog);
    changes.extend(outbox.changes);
}

/// A successor with the committed state.
fn successor(told: &Told, committed: &[Entry]) -> Told {
    let rules = Rules { slack_ms: 0, ..Rules::default() };
    let mut shard = Shard::new(3, rules);
    for entry in committed {
        shard.restore_entry(entry.clone(), false);
    }
    let progress = told.shard.progress();
    shard.start(Start {
        epoch: 8,
        clock: Some(progress.clock),
        watermarks: progress.watermarks,
        replay_from: Some(progress.replay_from),
        positions: Input::ALL.map(|input| told.shard.position(input)),
        ..Start::default()
    });
    Told { shard, offsets: told.offsets, now: told.now }
}

fn holds(entry: &Entry) -> bool {
    matches!(entry, Entry::Hold(Some(_)))
}

#[test]
fn successor_settles_the_rest_as_its_predecessor_would_have() {
    let mut told = Told::new();
    let (mut committed, mut changes) = (Vec::new(), Vec::new());
    for number in 0..5 {
        told.register(&device(number), "f");
    }
    told.run();
    entries_of(told.shard.take_outbox(0), &mut committed, &mut changes);
    changes.clear();

    // Heartbeats cannot be read: the clock stands where it did.
    let frozen_at = Timestamp(T0 + MINUTE_MS);
    told.now = Now { monotonic_ms: frozen_at.0, broker: Some(frozen_at) };
    let frozen = ScopeEvent::FleetFrozen { fleet: "f".into(), reason: FrozenReason::Allowance };
    let event = Event { occurred_at: None, body: EventBody::Scope(frozen) };
    let record = Queued {
        offset: told.offsets[Input::Lifecycle.index()],
        timestamp: frozen_at,
        stamped_by_broker: true,
        relay: Relay::default(),
        content: Content::Event(event),
    };
    told.shard.offer(Input::Lifecycle, record);
    told.shard.learn_end(Input::Lifecycle, Some(frozen_at), 6, 6);
    told.shard.learn_end(Input::VpnSessions, Some(frozen_at), 0, 0);
    told.shard.learn_end(Input::Heartbeats, Some(frozen_at), 9, 9);
    for _ in 0..100 {
        told.now.monotonic_ms += 1_000;
        told.shard.turn(told.now, 1);
        entries_of(told.shard.take_outbox(0), &mut committed, &mut changes);
        if changes.len() >= 2 {
            break;
        }
    }
    assert_eq!(changes.len(), 2, "it is held between two chunks");
    assert_eq!(committed.iter().filter(|entry| holds(entry)).count(), 1);
    assert!(told.shard.progress().clock < frozen_at.plus_ms(-10_000));

    let mut next = successor(&told, &committed);
    assert!(!next.shard.is_at_rest());
    let mut written = Vec::new();
    for _ in 0..100 {
        next.shard.turn(next.now, 1);
        let before = next.shard.is_at_rest();
        entries_of(next.shard.take_outbox(0), &mut written, &mut changes);
        if before {
            break;
        }
        assert!(!written.contains(&Entry::Hold(None)), "not before the last chunk");
    }
    assert!(written.contains(&Entry::Hold(None)));
    assert_eq!(changes.len(), 5);
    for change in &changes {
        assert_eq!((change.since, change.cause), (frozen_at, Cause::Frozen), "{change:?}");
        assert_eq!(change.version, 2);
    }

    // The record is read again: a duplicate.
    committed.extend(written);
    let last = successor(&next, &committed);
    assert!(last.shard.held.get().is_none());
}

#[test]
fn deadlines_of_settled_rows_do_not_fire_again() {
    let mut told = Told::new();
    let (mut committed, mut changes) = (Vec::new(), Vec::new());
    for number in 0..3 {
        told.register(&device(number), "f");
        told.heartbeat(&device(number));
    }
    told.run();
    // The deadline is five seconds ahead of the clock, and the freeze ten.
    let timeout = T0 + 1_350_000;
    told.at(timeout - 5_000);
    told.run();
    entries_of(told.shard.take_outbox(0), &mut committed, &mut changes);
    changes.clear();
    let frozen_at = Timestamp(timeout + 16_000);
    told.now = Now { monotonic_ms: frozen_at.0, broker: Some(frozen_at) };
    let frozen = ScopeEvent::FleetFrozen { fleet: "f".into(), reason: FrozenReason::Allowance };
    let event =
        Event { occurred_at: Some(Timestamp(timeout + 4_000)), body: EventBody::Scope(frozen) };
    let record = Queued {
        offset: told.offsets[Input::Lifecycle.index()],
        timestamp: Timestamp(timeout + 4_000),
        stamped_by_broker: true,
        relay: Relay::default(),
        content: Content::Event(event),
    };
    told.shard.offer(Input::Lifecycle, record);
    let mut next = None;
    for _ in 0..100 {
        told.now.monotonic_ms += 1_000;
        told.shard.turn(told.now, 1);
        entries_of(told.shard.take_outbox(0), &mut committed, &mut changes);
        if !changes.is_empty() {
            next = Some(successor(&told, &committed));
            break;
        }
    }
    let mut next = next.expect("it is held between two chunks");
    next.run();
    entries_of(next.shard.take_outbox(0), &mut committed, &mut changes);
    assert_eq!(changes.len(), 3, "{changes:?}");
    assert!(changes.iter().all(|change| change.cause == Cause::Frozen));
}

#[test]
fn fired_lease_stays_over_while_another_of_its_millisecond_holds_the_shard() {
    let mut told = Told::new();
    let (mut committed, mut changes) = (Vec::new(), Vec::new());
    for (number, instance) in [(0, "v"), (1, "w")] {
        let instance: std::sync::Arc<str> = instance.into();
        let alive = ScopeEvent::InstanceAlive {
            instance: instance.clone(),
            started_at: None,
            lease_ms: 60_000,
        };
        told.offer(Input::VpnSessions, EventBody::Scope(alive));
        for device_number in [number, number + 2] {
            let event = DeviceEvent::SessionOpened {
                instance: instance.clone(),
                session: "s".into(),
                opened_at: None,
                lease_ms: None,
            };
            let body = EventBody::Device { device: device(device_number), event };
            told.offer(Input::VpnSessions, body);
        }
    }
    told.run();
    entries_of(told.shard.take_outbox(0), &mut committed, &mut changes);
    changes.clear();
    told.at(T0 + 10 * MINUTE_MS);
    while changes.len() < 3 {
        assert!(told.shard.turn(told.now, 1).more);
        entries_of(told.shard.take_outbox(0), &mut committed, &mut changes);
    }
    assert_eq!(told.shard.progress().clock, Timestamp(T0 + MINUTE_MS - 1));
    let mut next = successor(&told, &committed);
    next.at(T0 + 10 * MINUTE_MS);
    next.run();
    entries_of(next.shard.take_outbox(0), &mut committed, &mut changes);
    assert_eq!(changes.len(), 4, "{changes:?}");
    for change in &changes {
        let expected = (Timestamp(T0 + MINUTE_MS), Cause::VpnLeaseExpired);
        assert_eq!((change.since, change.cause), expected, "{change:?}");
    }
}
