//! A shard from outside: positions, outboxes, chunks, the view.

mod bounds;
mod holds;
mod skew;
pub(crate) mod strategies;

use super::*;

const MINUTE_MS: i64 = 60_000;
const T0: i64 = 1_700_000_000_000;

/// A shard, and its inputs about time.
struct Told {
    shard: Shard,
    offsets: [i64; 3],
    now: Now,
}

impl Told {
    fn new() -> Told {
        let rules = Rules { slack_ms: 0, ..Rules::default() };
        let mut shard = Shard::new(3, rules);
        shard.start(Start { epoch: 7, ..Start::default() });
        let now = Now { monotonic_ms: T0, broker: Some(Timestamp(T0)) };
        let mut told = Told { shard, offsets: [0; 3], now };
        told.at(T0);
        told
    }

    /// No more records were written up to this time.
    fn at(&mut self, ms: i64) {
        self.now = Now { monotonic_ms: ms, broker: Some(Timestamp(ms)) };
        for input in Input::ALL {
            let end = self.offsets[input.index()];
            self.shard.learn_end(input, Some(Timestamp(ms)), end, end);
        }
    }

    fn offer_content(&mut self, input: Input, content: Content) {
        self.offer_at(input, self.now.broker.unwrap_or_default(), content);
    }

    /// Offers a record that the broker stamped then.
    fn offer_at(&mut self, input: Input, timestamp: Timestamp, content: Content) {
        let offset = self.offsets[input.index()];
        self.offsets[input.index()] += 1;
        let relay = Relay::default();
        let record = Queued { offset, timestamp, stamped_by_broker: true, relay, content };
        self.shard.offer(input, record);
    }

    fn offer(&mut self, input: Input, body: EventBody) {
        self.offer_content(input, Content::Event(Event { occurred_at: None, body }));
    }

    fn heartbeat(&mut self, device: &DeviceId) {
        let poll_interval_s = Some(900);
        let body =
            EventBody::Heartbeat { device: device.clone(), poll_interval_s, going_away: false };
        self.offer(Input::Heartbeats, body);
    }

    fn lifecycle(&mut self, device: &DeviceId, event: DeviceEvent) {
        self.offer(Input::Lifecycle, EventBody::Device { device: device.clone(), event });
    }

    fn register(&mut self, device: &DeviceId, fleet: &str) {
        let event = DeviceEvent::Registered {
            fleet: fleet.into(),
            organization: "o".into(),
            preregistered: false,
        };
        self.lifecycle(device, event);
    }

    fn run(&mut self) {
        for _ in 0..10_000 {
            if !self.shard.turn(self.now, 1_000).more {
                return;
            }
        }
        panic!("the shard never comes to rest");
    }
}

fn device(number: u128) -> DeviceId {
    DeviceId::Hex(number.to_le_bytes())
}

fn devices_of(outbox: &Outbox) -> Vec<String> {
    let names = outbox.changelog.iter().filter_map(|entry| match entry {
        Entry::Device(device, _) => Some(device.to_string()),
        _ => None,
    });
    names.collect()
}

#[test]
fn a_heartbeat_that_changes_nothing_writes_nothing_and_touches_no_wheel() {
    let mut told = Told::new();
    told.heartbeat(&device(1));
    told.run();
    told.shard.take_outbox(0);
    let entries = told.shard.wheel.len();
    for minute in 1..20 {
        told.at(T0 + minute * MINUTE_MS);
        told.heartbeat(&device(1));
        told.run();
    }
    assert!(!told.shard.has_output());
    assert_eq!(told.shard.wheel.len(), entries);
    assert_eq!(told.shard.position(Input::Heartbeats), 20);
}

#[test]
fn late_heartbeat_counts_after_a_timeout_ahead_of_the_clock() {
    let mut told = Told::new();
    let seconds = |s: i64| T0 + s * 1_000;
    told.register(&device(1), "red");
    let (instance, session) = ("vpn".into(), "s".into());
    let opened = DeviceEvent::SessionOpened { instance, session, opened_at: None, lease_ms: None };
    told.offer(Input::VpnSessions, EventBody::Device { device: device(1), event: opened });
    let heartbeat =
        EventBody::Heartbeat { device: device(1), poll_interval_s: None, going_away: false };
    told.offer(Input::Heartbeats, heartbeat.clone());
    // It counts for 1350 s, and the clock stands just before that end.
    told.at(seconds(1_345));
    told.run();
    let written = |told: &mut Told, input: Input, occurred_s, written_s, body| {
        let event = Event { occurred_at: Some(Timestamp(seconds(occurred_s))), body };
        told.offer_at(input, Timestamp(seconds(written_s)), Content::Event(event));
        told.run();
        told.shard.snapshot(&device(1)).and_then(|row| row.emitted?.shown)
    };
    let missing = Some((Status::Online, Connectivity::VpnOnly));
    let activated = EventBody::Device { device: device(1), event: DeviceEvent::Activated };
    assert_eq!(written(&mut told, Input::Lifecycle, 1_352, 1_352, activated), missing);
    let there = Some((Status::Online, Connectivity::Full));
    assert_eq!(written(&mut told, Input::Heartbeats, 1_345, 1_353, heartbeat), there);
}

#[test]
fn a_heartbeat_that_leaves_the_window_unwritten_is_written_then() {
    let mut told = Told::new();
    let body = |device| EventBody::Heartbeat {
        device,
        poll_interval_s: Some(24 * 3_600),
        going_away: false,
    };
    told.offer(Input::Heartbeats, body(device(1)));
    told.run();
    told.shard.take_outbox(0);
    told.at(T0 + MINUTE_MS);
    told.offer(Input::Heartbeats, body(device(1)));
    told.run();
    told.at(T0 + 31 * MINUTE_MS - 1);
    told.run();
    assert!(!told.shard.has_output());
    told.at(T0 + 31 * MINUTE_MS);
    told.run();
    let outbox = told.shard.take_outbox(0);
    assert_eq!(devices_of(&outbox).len(), 1);
    assert!(outbox.changes.is_empty());
    // The window begins where the heartbeat was, no later.
    assert_eq!(told.shard.progress().replay_from, Timestamp(T0 + MINUTE_MS));
}

#[test]
fn a_scope_event_holds_its_shard_until_the_last_chunk() {
    let mut told = Told::new();
    for number in 0..100 {
        told.register(&device(number), "f");
    }
    told.run();
    told.shard.take_outbox(0);
    let frozen = ScopeEvent::FleetFrozen { fleet: "f".into(), reason: FrozenReason::Allowance };
    told.offer(Input::Lifecycle, EventBody::Scope(frozen));
    told.register(&device(200), "f");
    told.heartbeat(&device(201));
    let mut chunks = 0;
    let mut changed = 0;
    loop {
        let turn = told.shard.turn(told.now, 10);
        let held = told.shard.position(Input::Lifecycle) == 100;
        let outbox = told.shard.take_outbox(0);
        if chunks == 0 {
            assert!(outbox.changelog.iter().any(|entry| matches!(entry, Entry::Fleet(..))));
        }
        assert!(outbox.changes.len() <= 20, "a chunk is bounded");
        changed += outbox.changes.iter().filter(|change| change.cause == Cause::Frozen).count();
        if held {
            assert_eq!(told.shard.position(Input::Heartbeats), 0, "nothing else is applied");
        }
        chunks += 1;
        if !turn.more {
            break;
        }
    }
    assert!(chunks > 5);
    assert_eq!(changed, 100);
    assert_eq!(told.shard.position(Input::Lifecycle), 102);
    assert_eq!(told.shard.position(Input::Heartbeats), 1);
    assert_eq!(told.shard.status_counts()[Status::Frozen.index()], 101);
}

#[test]
fn the_clock_stays_before_the_end_of_a_lease_until_all_rows_are_settled() {
    let mut told = Told::new();
    let alive =
        ScopeEvent::InstanceAlive { instance: "v".into(), started_at: None, lease_ms: 60_000 };
    told.offer(Input::VpnSessions, EventBody::Scope(alive));
    for number in 0..50 {
        let event = DeviceEvent::SessionOpened {
            instance: "v".into(),
            session: "s".into(),
            opened_at: None,
            lease_ms: None,
        };
        let body = EventBody::Device { device: device(number), event };
        told.offer(Input::VpnSessions, body);
    }
    told.run();
    told.shard.take_outbox(0);
    told.at(T0 + 10 * MINUTE_MS);
    let mut changes = Vec::new();
    loop {
        let more = told.shard.turn(told.now, 5).more;
        changes.extend(told.shard.take_outbox(0).changes);
        if changes.len() < 50 {
            assert_eq!(told.shard.progress().clock, Timestamp(T0 + MINUTE_MS - 1));
        }
        if !more {
            break;
        }
    }
    assert_eq!(changes.len(), 50);
    assert!(changes.iter().all(|change| change.since == Timestamp(T0 + MINUTE_MS)));
    assert_eq!(told.shard.progress().clock, Timestamp(T0 + 10 * MINUTE_MS));
}

#[test]
fn many_expiries_at_once_are_bounded_work_a_turn() {
    let mut told = Told::new();
    for number in 0..5_000 {
        told.heartbeat(&device(number));
    }
    told.run();
    told.shard.take_outbox(0);
    told.at(T0 + 60 * MINUTE_MS);
    let mut expired = 0;
    loop {
        let turn = told.shard.turn(told.now, 100);
        let outbox = told.shard.take_outbox(0);
        assert!(outbox.changes.len() <= 100);
        expired += outbox.changes.len();
        if !turn.more {
            break;
        }
    }
    assert_eq!(expired, 5_000);
    assert_eq!(told.shard.status_counts()[Status::Offline.index()], 5_000);
}

#[test]
fn the_view_is_told_of_every_row_written_and_of_the_counts_that_changed() {
    let mut told = Told::new();
    told.register(&device(1), "f");
    told.register(&device(2), "f");
    told.run();
    let outbox = told.shard.take_outbox(0);
    assert_eq!(outbox.changelog.first(), Some(&Entry::Epoch(7)));
    let sequences: Vec<u64> = outbox.view.iter().map(|write| write.sequence).collect();
    assert_eq!(sequences, vec![1, 2, 3]);
    let ViewBody::FleetCounts { fleet, counts } = &outbox.view[2].body else {
        panic!("the counts come last: {:?}", outbox.view[2]);
    };
    assert_eq!((&**fleet, counts[Status::Configuring.index()]), ("f", 2));

    // A move without a change of status leaves the old fleet's sets.
    let moved = DeviceEvent::Moved { fleet: "g".into(), organization: "o".into() };
    told.lifecycle(&device(1), moved);
    told.run();
    let outbox = told.shard.take_outbox(0);
    assert_eq!(outbox.changes.len(), 1, "where it belongs is told");
    let ViewBody::Device(view) = &outbox.view[0].body else { panic!("a device comes first") };
    assert_eq!(view.fleet.as_deref(), Some("g"));
    assert_eq!(view.previous_fleet.as_deref(), Some("f"));
    assert!(view.changed);
    assert_eq!(outbox.view.len(), 3);
}

#[test]
fn a_deletion_is_not_forgotten_before_the_view_has_acknowledged_it() {
    let mut told = Told::new();
    told.register(&device(1), "f");
    told.lifecycle(&device(1), DeviceEvent::Deleted);
    told.at(T0 + 1);
    told.lifecycle(&device(1), DeviceEvent::Deleted);
    told.run();
    let outbox = told.shard.take_outbox(0);
    let deleted = outbox
        .view
        .iter()
        .find(|write| matches!(write.body, ViewBody::DeviceDeleted { .. }))
        .expect("the view is told");
    told.at(T0 + 3 * 24 * 60 * MINUTE_MS);
    told.run();
    assert_eq!(told.shard.rows(), 1);
    told.shard.view_acknowledged(deleted.sequence);
    told.run();
    assert_eq!(told.shard.rows(), 0);
    let outbox = told.shard.take_outbox(0);
    assert_eq!(outbox.changelog, vec![Entry::Device(device(1), None)]);
    assert!(outbox.changes.is_empty());
}

#[test]
fn a_lost_view_is_written_again_in_pages() {
    let mut told = Told::new();
    for number in 0..25 {
        told.heartbeat(&device(number));
    }
    told.run();
    told.shard.take_outbox(0);
    told.shard.rewrite_view();
    let mut rows = 0;
    while told.shard.rewriting_view() {
        let outbox = told.shard.take_outbox(10);
        let devices =
            outbox.view.iter().filter(|write| matches!(write.body, ViewBody::Device(_))).count();
        assert!(devices <= 10);
        assert!(outbox.changelog.is_empty());
        rows += devices;
    }
    assert_eq!(rows, 25);
}

#[test]
fn rows_that_the_view_may_not_have_seen_are_written_first() {
    let mut told = Told::new();
    for number in 0..5 {
        told.heartbeat(&device(number));
    }
    told.run();
    let outbox = told.shard.take_outbox(0);
    let mut shard = Shard::new(3, Rules { slack_ms: 0, ..Rules::default() });
    for entry in outbox.changelog {
        let dirty = matches!(&entry, Entry::Device(id, _) if *id == device(3));
        shard.restore_entry(entry, dirty);
    }
    assert_eq!(shard.last_epoch(), Some(7));
    assert_eq!(shard.rows(), 5);
    shard.start(Start { epoch: 8, clock: Some(Timestamp(T0)), ..Start::default() });
    while shard.turn(told.now, 100).more {}
    let outbox = shard.take_outbox(1);
    let ViewBody::Device(view) = &outbox.view[0].body else { panic!("a device comes first") };
    assert_eq!(view.device, device(3));
    assert!(!shard.rewriting_view());
    assert_eq!(shard.status_counts()[Status::Online.index()], 5);
}

#[test]
fn settings_count_as_new_until_every_row_is_settled() {
    let mut told = Told::new();
    (0..5).for_each(|number| told.heartbeat(&device(number)));
    told.run();
    let entries = told.shard.take_outbox(0).changelog;
    for rules_changed in [false, true] {
        let mut shard = Shard::new(3, Rules { slack_ms: 0, ..Rules::default() });
        entries.iter().for_each(|entry| shard.restore_entry(entry.clone(), false));
        let clock = Some(Timestamp(T0));
        shard.start(Start { epoch: 8, clock, rules_changed, ..Start::default() });
        assert!(shard.turn(told.now, 2).more);
        assert_eq!(shard.is_settling_new_rules(), rules_changed);
        while shard.turn(told.now, 2).more {}
        assert!(!shard.is_settling_new_rules());
    }
}

#[test]
fn replayed_heartbeat_keeps_online_but_never_revives() {
    let (quiet, busy) = (device(1), device(2));
    let mut told = Told::new();
    told.heartbeat(&quiet);
    let mut entries = Vec::new();
    let clock = T0 + 40 * MINUTE_MS;
    for at in (T0..=clock).step_by(10 * usize::try_from(MINUTE_MS).unwrap()) {
        told.at(at);
        told.heartbeat(&busy);
        told.run();
        entries.extend(told.shard.take_outbox(0).changelog);
    }
    let [online, offline] = [Status::Online, Status::Offline].map(Status::index);
    let counts = told.shard.status_counts();
    assert_eq!((counts[online], counts[offline]), (1, 1));

    let mut shard = Shard::new(3, Rules { slack_ms: 0, ..Rules::default() });
    for entry in entries {
        shard.restore_entry(entry, false);
    }
    let (clock, back_at) = (Timestamp(clock), Timestamp(clock + 500));
    for (device, at) in [(&busy, clock), (&quiet, back_at)] {
        shard.replay_heartbeat_if_seen(device, at, Some(900), false, clock);
    }
    shard.start(Start { epoch: 8, clock: Some(clock), ..Start::default() });
    let mut told = Told { shard, offsets: [0; 3], now: told.now };
    told.run();
    assert!(told.shard.take_outbox(0).changes.is_empty());
    // It is read, and its change has the right date.
    told.at(back_at.0);
    told.heartbeat(&quiet);
    told.run();
    let changes = told.shard.take_outbox(0).changes;
    let told: Vec<_> = changes.iter().map(|c| (c.device.clone(), c.since, c.cause)).collect();
    assert_eq!(told, [(quiet, back_at, Cause::Heartbeat)]);
}

/// Turns once a second for a minute. Returns after how many turns the shard has
/// applied the offered records.
fn applied_after(told: &mut Told, input: Input) -> Option<i64> {
    let from_ms = told.now.monotonic_ms;
    (0..60).find(|second| {
        let now = Now { monotonic_ms: from_ms + second * 1_000, ..told.now };
        told.shard.turn(now, 1_000);
        told.shard.position(input) == told.offsets[input.index()]
    })
}

#[test]
fn an_open_transaction_of_an_idle_input_holds_nobody() {
    let mut told = Told::new();
    told.heartbeat(&device(1));
    told.run();
    // Since then a transaction has been open, and its records cannot be read.
    let later = Timestamp(T0 + MINUTE_MS);
    told.now = Now { monotonic_ms: later.0, broker: Some(later) };
    let body = EventBody::Heartbeat { device: device(1), poll_interval_s: None, going_away: false };
    let content = Content::Event(Event { occurred_at: None, body });
    let record = |offset| Queued {
        offset,
        timestamp: later,
        stamped_by_broker: true,
        relay: Relay::default(),
        content: content.clone(),
    };
    told.offsets[Input::Heartbeats.index()] += 1;
    told.shard.offer(Input::Heartbeats, record(1));
    told.shard.learn_end(Input::Lifecycle, Some(later), 0, 0);
    // The last answer about the input is a minute old.
    told.shard.learn_end(Input::VpnSessions, Some(Timestamp(T0)), 1, 0);
    told.shard.turn(told.now, 1_000);
    assert_eq!(told.shard.position(Input::Heartbeats), 1, "it may have more");
    told.shard.learn_end(Input::VpnSessions, Some(later), 1, 0);
    assert_eq!(applied_after(&mut told, Input::Heartbeats), Some(0));
    assert_eq!(told.shard.clock(), Timestamp(T0), "the clock stands all the same");
}

#[test]
fn a_pause_or_a_rewind_gives_an_input_its_time_again() {
    let mut told = Told::new();
    told.heartbeat(&device(1));
    told.shard.learn_end(Input::VpnSessions, told.now.broker, 5, 5);
    assert_eq!(applied_after(&mut told, Input::Heartbeats), Some(10));
    assert!(told.shard.is_passed_over(Input::VpnSessions));
    told.shard.rewind();
    assert!(!told.shard.is_passed_over(Input::VpnSessions));
    told.heartbeat(&device(1));
    told.shard.learn_end(Input::VpnSessions, told.now.broker, 5, 5);
    assert_eq!(applied_after(&mut told, Input::Heartbeats), Some(10));
    // An end of partition shows that it is read.
    told.shard.end_of_partition(Input::VpnSessions, 3);
    told.heartbeat(&device(1));
    told.shard.learn_end(Input::VpnSessions, told.now.broker, 5, 5);
    assert_eq!(applied_after(&mut told, Input::Heartbeats), Some(10));
}

#[test]
fn an_input_that_was_passed_over_holds_again_once_it_is_known_to_be_idle() {
    let mut told = Told::new();
    told.heartbeat(&device(1));
    told.shard.learn_end(Input::VpnSessions, told.now.broker, 5, 5);
    assert_eq!(applied_after(&mut told, Input::Heartbeats), Some(10));
    assert!(told.shard.is_passed_over(Input::VpnSessions));
    // The leader's word that there are records is no answer. Its word that there
    // are none is one, even if no record waits.
    told.shard.learn_end(Input::VpnSessions, told.now.broker, 6, 6);
    assert!(told.shard.is_passed_over(Input::VpnSessions));
    told.shard.learn_end(Input::VpnSessions, told.now.broker, 0, 0);
    assert!(!told.shard.is_passed_over(Input::VpnSessions));
    told.heartbeat(&device(1));
    told.shard.learn_end(Input::VpnSessions, told.now.broker, 5, 5);
    assert_eq!(applied_after(&mut told, Input::Heartbeats), Some(10));
}

fn letter(offset: i64, bytes: usize) -> DeadLetter {
    DeadLetter {
        input: Input::Heartbeats,
        partition: 3,
        offset,
        timestamp: Timestamp(T0),
        key: None,
        value: Some(vec![0; bytes].into()),
        headers: Vec::new(),
        reason: DeadLetterReason::MissingKey,
        detail: "no key".into(),
    }
}

#[test]
fn a_bad_record_becomes_a_dead_letter_and_its_offset_moves_on() {
    let mut told = Told::new();
    let letter = letter(0, 10);
    told.offer_content(Input::Heartbeats, Content::Bad(Box::new(letter.clone())));
    let turn = told.shard.turn(told.now, 10);
    assert_eq!((turn.applied[Input::Heartbeats.index()], turn.bad), (0, 1));
    assert_eq!(told.shard.take_outbox(0).dead_letters, vec![letter]);
    assert_eq!(told.shard.position(Input::Heartbeats), 1);
}

#[test]
fn nothing_is_done_before_the_start() {
    let mut shard = Shard::new(0, Rules::default());
    let turn = shard.turn(Now::default(), 100);
    assert_eq!(turn, Turn::default());
    assert!(!shard.has_output());
}

#[test]
fn absurd_times_panic_nowhere() {
    let mut told = Told::new();
    let times = [i64::MIN, -1, 0, i64::MAX].into_iter();
    for (at, stamped_by_broker) in times.flat_map(|at| [(at, false), (at, true)]) {
        for body in [
            EventBody::Heartbeat {
                device: device(1),
                poll_interval_s: Some(u32::MAX),
                going_away: false,
            },
            EventBody::Device { device: device(1), event: DeviceEvent::Provisioned },
            EventBody::Scope(ScopeEvent::InstanceAlive {
                instance: "v".into(),
                started_at: Some(Timestamp(at)),
                lease_ms: u32::MAX,
            }),
        ] {
            let event = Event { occurred_at: Some(Timestamp(at)), body };
            let record = Queued {
                offset: i64::MAX,
                timestamp: Timestamp(at),
                stamped_by_broker,
                relay: Relay::default(),
                content: Content::Event(event),
            };
            told.shard.offer(Input::Lifecycle, record);
            told.run();
        }
    }
    told.at(i64::MAX);
    told.run();
    told.shard.take_outbox(10);
}

#[test]
fn a_page_of_the_sweep_holds_what_is_committed_and_nothing_else() {
    let mut told = Told::new();
    told.register(&device(1), "f");
    told.register(&device(2), "g");
    told.run();
    let page = |told: &mut Told| {
        let mut cursor = SweepCursor::default();
        let mut found = Vec::new();
        let (mut done, mut total) = (0, 1);
        while done < total {
            found.extend(told.shard.sweep_page(&mut cursor, 2));
            (done, total) = told.shard.sweep_progress(cursor);
        }
        found
    };
    // Nothing is written yet: neither rows nor counts.
    assert!(told.shard.may_sweep());
    assert!(page(&mut told).is_empty());
    assert!(!told.shard.counts_no_device("f"));
    let written = told.shard.take_outbox(0).view;
    let swept = page(&mut told);
    let bodies = |writes: &[ViewWrite]| -> Vec<String> {
        let mut bodies: Vec<String> = writes.iter().map(|w| format!("{:?}", w.body)).collect();
        bodies.sort();
        bodies
    };
    let quiet =
        bodies(&written).into_iter().map(|body| body.replace("changed: true", "changed: false"));
    assert_eq!(bodies(&swept), quiet.collect::<Vec<_>>());
    // Later than all earlier writes, earlier than all later ones.
    let last = written.iter().map(|write| write.sequence).max().unwrap();
    assert!(swept.iter().all(|write| write.sequence > last));

    // A device that changes or is deleted is left to its commit.
    told.lifecycle(&device(1), DeviceEvent::Deleted);
    told.run();
    assert_eq!(page(&mut told).len(), 2);
    assert!(!told.shard.shows_no_device(&device(1)));
    told.shard.take_outbox(0);
    assert!(!told.shard.shows_no_device(&device(1)), "the view has not acknowledged");
    told.shard.view_acknowledged(u64::MAX);
    assert!(told.shard.shows_no_device(&device(1)) && told.shard.shows_no_device(&device(9)));
    assert!(!told.shard.shows_no_device(&device(2)));
    assert!(told.shard.counts_no_device("f") && !told.shard.counts_no_device("g"));
    assert_eq!(page(&mut told).len(), 2);

    told.shard.rewrite_view();
    assert!(!told.shard.may_sweep());
}

/// Many devices that polled in the same second.
fn crowd(count: u128) -> Told {
    let mut told = Told::new();
    for number in 0..count {
        told.heartbeat(&device(number));
    }
    told.run();
    told.shard.take_outbox(0);
    told
}

#[test]
fn many_expiries_at_once_are_spread_over_turns_behind_the_committed_clock() {
    const CROWD: usize = 20_000;
    const BUDGET: usize = 500;
    let mut told = crowd(CROWD as u128);
    let deadline = T0 + 1_350_000 + 15_000;
    told.at(T0 + 60 * MINUTE_MS);
    // Records that arrive while they expire are read, and wait for their turn.
    told.heartbeat(&device(0));
    let (mut turns, mut expired, mut fired_before) = (0, 0, 0);
    loop {
        let turn = told.shard.turn(told.now, BUDGET);
        turns += 1;
        expired += turn.expired as usize;
        let changes = told.shard.take_outbox(0).changes.len();
        assert!(turn.expired as usize <= BUDGET && changes <= BUDGET + 1);
        if expired < CROWD {
            assert!(turn.more);
            assert_eq!(turn.applied, [0; 3]);
            assert!(told.shard.progress().clock < Timestamp(deadline));
            fired_before += 1;
        }
        if !turn.more {
            break;
        }
    }
    assert!(fired_before >= CROWD / BUDGET - 1);
    assert!(turns <= 5 * CROWD / BUDGET, "{turns} turns");
    assert_eq!(told.shard.status_counts()[Status::Offline.index()], CROWD as u64 - 1);
}

#[test]
fn scan_for_a_scopes_rows_is_spread_over_turns_even_without_a_match() {
    const CROWD: u64 = 20_000;
    let mut told = crowd(u128::from(CROWD));
    let frozen = ScopeEvent::FleetFrozen { fleet: "f".into(), reason: FrozenReason::Allowance };
    told.offer(Input::Lifecycle, EventBody::Scope(frozen));
    let mut turns = 0;
    while told.shard.turn(told.now, 100).more {
        turns += 1;
    }
    // Checking eight rows is a unit of work.
    assert!((CROWD / 8 / 100..CROWD / 8 / 100 + 5).contains(&turns), "{turns} turns");
    assert_eq!(told.shard.position(Input::Lifecycle), 1);
}
