//! Events that contradict each other in one batch, without a time of their own: the
//! broker stamps all of the batch alike, and the order of the log decides (rule J2).

mod cases;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::support::events::{self, Outgoing, device_id};
use crate::support::kafka::{EventProducer, KafkaBroker, ServiceTopics};
use crate::support::redis::{self, RedisServer};
use crate::support::service::{DeviceStatus, ServiceConfig};
use crate::support::wait::{now_ms, pause, wait_for};
use cases::{Before, Case, Told, When, cases};
use device_status::shard::Input;
use device_status::wire::proto::v1::{Connectivity, Status, StatusChanged};

/// On a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(60);
/// `processing.slack`, and a little.
const SLACK: Duration = Duration::from_millis(2_500);
/// Longer than the test, so that nobody expires by it.
const LONG: Duration = Duration::from_secs(3_600);

/// The moments at which all is compared.
const FIRST: &str = "at first";
const AGAIN: &str = "sent again";
const RESTARTED: &str = "after a restart";
const AGAIN_AFTER_RESTART: &str = "sent again after a restart";

/// What a device shows by what was told of it.
#[derive(Clone, Debug, PartialEq)]
struct Shown {
    status: Status,
    connectivity: Connectivity,
    since_ms: i64,
    connectivity_since_ms: i64,
    version: u64,
    exists: bool,
}

/// The instants that dates are measured from.
struct Instants {
    /// The stamp of the batch, by input.
    batch: HashMap<Input, i64>,
    /// The poll after the settings.
    poll: i64,
}

impl Instants {
    fn of(&self, input: Input, when: When) -> i64 {
        match when {
            When::Batch => self.batch[&input],
            // An interval of 2 s: tolerance 1.5, and a grace of 1 s.
            When::BeatOver => self.batch[&input] + 4_000,
            When::PollOver => self.poll + 4_000,
        }
    }
}

/// A broker, a service and a Redis, and what was read of the changes.
struct World<'a> {
    broker: &'a KafkaBroker,
    topics: &'a ServiceTopics,
    redis: &'a RedisServer,
    producer: EventProducer,
    /// Waits a while before it sends, so that what is sent together is one batch.
    batches: EventProducer,
    sentinels: u64,
}

impl World<'_> {
    /// Sends all of it in one batch for each input, and answers the stamp of each.
    ///
    /// Each record has a time of its sender's, another for each: the broker is to
    /// put its own in their place.
    fn send_batch(&self, records: Vec<Outgoing>) -> HashMap<Input, i64> {
        let before = Input::ALL.map(|input| self.read(input).len());
        let early_ms = now_ms() - 60_000;
        let stamped = (early_ms..).zip(records).map(|(at, record)| record.stamped(at));
        self.batches.send(self.topics, stamped);
        self.batches.flush();
        let mut stamps = HashMap::new();
        for (input, before) in Input::ALL.into_iter().zip(before) {
            let read = self.read(input).split_off(before);
            assert!(read.len() > 1, "{input:?}: nothing was sent together");
            let first = read[0].timestamp_ms.unwrap();
            assert!(first > early_ms + 30_000, "{input:?}: the sender's stamp was kept");
            for record in &read {
                assert_eq!(record.timestamp_ms, Some(first), "{input:?}: more than one batch");
            }
            stamps.insert(input, first);
        }
        stamps
    }

    fn read(&self, input: Input) -> Vec<crate::support::kafka::Record> {
        self.broker.read_committed(self.topics.input(input), SOON)
    }

    /// Waits until all that was sent before is shown: what comes after it is.
    fn catch_up(&mut self) {
        let device = |n: u64| device_id(1_000_000 + n);
        let [life, vpn, beat] = [0, 1, 2].map(|n| device(self.sentinels + n));
        self.sentinels += 3;
        let at = now_ms();
        self.producer.send(
            self.topics,
            [
                events::registered(&life, at, "", ""),
                events::session_opened(&vpn, at, "sentinel", "s"),
                events::heartbeat_every(&beat, at, LONG),
            ],
        );
        self.producer.flush();
        let mut connection = self.redis.connection();
        for device in [life, vpn, beat] {
            wait_for(SOON, "what was sent to be shown", || {
                let found = redis::hash(&mut connection, &format!("ds:device:{device}"));
                if found.contains_key("status") { Ok(()) } else { Err("not yet") }
            });
        }
    }

    /// Waits until all are shown Offline that expire: then the clock has passed
    /// everybody's deadlines.
    fn wait_for_deadlines(&self, cases: &[Case]) {
        for case in cases {
            if let Some(Told::Shows(_, _, When::BeatOver | When::PollOver)) = case.told.last() {
                wait_for(SOON, &format!("{case} to expire"), || {
                    let hash = self.hash(case);
                    let offline = hash.get("status").is_some_and(|status| status == "offline");
                    if offline { Ok(()) } else { Err(format!("{hash:?}")) }
                });
            }
        }
    }

    fn hash(&self, case: &Case) -> BTreeMap<String, String> {
        redis::hash(&mut self.redis.connection(), &format!("ds:device:{}", case.device))
    }

    /// Compares what Redis shows of a device with what it is to show.
    #[track_caller]
    fn assert_shows(&self, case: &Case, shown: &Shown, moment: &str) {
        let hash = self.hash(case);
        let name = format!("{case}, {moment}: {hash:?}");
        if !shown.exists {
            assert!(!hash.contains_key("status"), "{name}, and is to be gone");
            return;
        }
        let mut wanted = vec![
            ("status", shown.status.name().to_owned()),
            ("connectivity", shown.connectivity.name().to_owned()),
            ("since_ms", shown.since_ms.to_string()),
            ("connectivity_since_ms", shown.connectivity_since_ms.to_string()),
            ("version", shown.version.to_string()),
        ];
        wanted.extend(case.fields.iter().map(|(field, value)| (*field, value.clone())));
        for (field, value) in wanted {
            assert_eq!(hash.get(field), Some(&value), "{field} of {name}");
        }
    }

    /// The changes of each device, in order.
    fn changes(&self) -> HashMap<String, Vec<StatusChanged>> {
        let mut changes: HashMap<String, Vec<StatusChanged>> = HashMap::new();
        for record in self.broker.read_committed(&self.topics.status_changes, SOON) {
            let change: StatusChanged = record.decode();
            changes.entry(change.device_id.clone()).or_default().push(change);
        }
        changes
    }
}

/// The names that Redis has.
trait Name {
    fn name(self) -> &'static str;
}

impl Name for Status {
    fn name(self) -> &'static str {
        match self {
            Status::Unspecified => "",
            Status::Online => "online",
            Status::Configuring => "configuring",
            Status::Updating => "updating",
            Status::Offline => "offline",
            Status::PostProvisioning => "post-provisioning",
            Status::Inactive => "inactive",
            Status::Frozen => "frozen",
        }
    }
}

impl Name for Connectivity {
    fn name(self) -> &'static str {
        match self {
            Connectivity::Unspecified => "",
            Connectivity::Full => "full",
            Connectivity::VpnOnly => "vpn-only",
            Connectivity::HeartbeatOnly => "heartbeat-only",
            Connectivity::None => "none",
        }
    }
}

fn millis(at: Option<prost_types::Timestamp>) -> i64 {
    at.map_or(0, |t| t.seconds * 1000 + i64::from(t.nanos) / 1_000_000)
}

impl Shown {
    /// What a device shows that was not heard of.
    fn nothing() -> Shown {
        Shown {
            status: Status::Unspecified,
            connectivity: Connectivity::Unspecified,
            since_ms: 0,
            connectivity_since_ms: 0,
            version: 0,
            exists: false,
        }
    }

    /// What it shows after this change; fails where it is none that goes on from here.
    #[track_caller]
    fn after(&self, change: &StatusChanged, what: &str) -> Shown {
        assert_eq!(change.version, self.version + 1, "{what}: {change:?}");
        let previous = (change.previous_status(), change.previous_connectivity());
        assert_eq!(previous, (self.status, self.connectivity), "{what}: {change:?}");
        let version = change.version;
        if change.deleted {
            return Shown { version, ..Shown::nothing() };
        }
        Shown {
            status: change.status(),
            connectivity: change.connectivity(),
            since_ms: millis(change.since),
            connectivity_since_ms: millis(change.connectivity_since),
            version,
            exists: true,
        }
    }
}

/// Compares the changes of a device, from the `from`th on, with what is to be told,
/// and answers what it shows then.
#[track_caller]
fn follow(
    case: &Case,
    moment: &str,
    mut shown: Shown,
    changes: &[StatusChanged],
    told: &[Told],
    instants: &Instants,
) -> Shown {
    let what = format!("{case}, {moment}");
    let short = |c: &StatusChanged| (c.status(), c.connectivity(), c.fleet.clone(), c.cause());
    let list: Vec<_> = changes.iter().map(short).collect();
    assert_eq!(list.len(), told.len(), "{what}: {list:?}, and not {told:?}");
    for (change, told) in changes.iter().zip(told) {
        let next = shown.after(change, &what);
        let mut wanted = Shown { version: shown.version + 1, ..shown.clone() };
        match told {
            Told::Deleted => wanted = Shown { version: shown.version + 1, ..Shown::nothing() },
            Told::Moved(fleet) => assert_eq!(change.fleet, case.name(fleet), "{what}: {list:?}"),
            Told::Shows(status, connectivity, when) => {
                let at = instants.of(case.input, *when);
                if *status != shown.status {
                    (wanted.status, wanted.since_ms) = (*status, at);
                }
                if *connectivity != shown.connectivity {
                    (wanted.connectivity, wanted.connectivity_since_ms) = (*connectivity, at);
                }
                wanted.exists = true;
            }
        }
        assert_eq!(next, wanted, "{what}: {list:?} at {at:?}", at = instants.batch[&case.input]);
        shown = next;
    }
    shown
}

/// A device for each case, as it is before the batch.
fn prepare(cases: &[Case], at_ms: i64) -> Vec<Outgoing> {
    let mut all = Vec::new();
    for case in cases {
        if let Before::Known(more) = &case.before {
            let name = case.name("");
            all.push(events::registered(&case.device, at_ms, &name, &name));
            all.push(events::heartbeat_every(&case.device, at_ms, LONG));
            all.extend(more.iter().map(|said| said.of(&case.device, Some(at_ms + 1))));
        }
    }
    all
}

#[test]
fn what_contradicts_itself_in_one_batch_ends_as_the_log_has_it() {
    let broker = KafkaBroker::shared();
    let redis = RedisServer::start();
    let topics = broker.service_topics("ties", 1);
    // A machine that is slow: some of the events that are sent again are old by then.
    let config = ServiceConfig::new(broker, &topics)
        .redis(&redis.url())
        .announce(&["a heartbeat had expired when it came", "cannot resolve the start offsets"]);
    let mut service = DeviceStatus::start_ready(&config);
    let producer = broker.producer();
    // Longer than this machine may pause between the first and the last.
    let batches = broker.producer_with(&[("linger.ms", "3000")]);
    let mut world =
        World { broker, topics: &topics, redis: &redis, producer, batches, sentinels: 0 };

    let before_ms = now_ms();
    let cases = cases(before_ms + 1);
    world.producer.send(&topics, prepare(&cases, before_ms));
    world.producer.flush();
    world.catch_up();
    let told = world.changes();
    let mut read: HashMap<&str, usize> = HashMap::new();
    let mut shown: Vec<Shown> = Vec::new();
    for case in &cases {
        let changes = told.get(&case.device).map_or(&[][..], Vec::as_slice);
        read.insert(&case.device, changes.len());
        let last = changes.iter().fold(Shown::nothing(), |s, c| s.after(c, &case.to_string()));
        assert_eq!((last.status, last.connectivity), case.base, "{case}, before: {changes:?}");
        shown.push(last);
    }

    // The batch, without times.
    let all = |at: Option<&HashMap<Input, i64>>| -> Vec<Outgoing> {
        let repeated = cases.iter().filter(|case| at.is_none() || !case.is_timeless());
        let of = |case: &Case| -> Vec<Outgoing> {
            let at = at.map(|stamps| stamps[&case.input]);
            case.batch.iter().map(|said| said.of(&case.device, at)).collect()
        };
        repeated.flat_map(of).collect()
    };
    let batch = world.send_batch(all(None));
    pause(SLACK);
    let poll = now_ms();
    let polls = cases.iter().filter(|case| case.polls);
    world.producer.send(&topics, polls.map(|case| events::heartbeat(&case.device, poll)));
    world.producer.flush();
    let instants = Instants { batch, poll };
    world.catch_up();
    world.wait_for_deadlines(&cases);

    let mut check = |world: &World<'_>, shown: &mut Vec<Shown>, moment: &str| {
        let changes = world.changes();
        for (case, shown) in cases.iter().zip(shown) {
            let told: &[Told] = match moment {
                FIRST => &case.told,
                AGAIN | AGAIN_AFTER_RESTART => &case.again,
                _ => &[],
            };
            let from = read.get_mut(case.device.as_str()).unwrap();
            let changes = changes.get(&case.device).map_or(&[][..], |all| &all[*from..]);
            *from += changes.len();
            *shown = follow(case, moment, shown.clone(), changes, told, &instants);
            world.assert_shows(case, shown, moment);
        }
    };
    check(&world, &mut shown, FIRST);

    // All of it once more, in order, with the times that it had.
    world.producer.send(&topics, all(Some(&instants.batch)));
    world.producer.flush();
    world.catch_up();
    check(&world, &mut shown, AGAIN);

    service.kill();
    let mut service = DeviceStatus::start_ready(&config);
    world.catch_up();
    check(&world, &mut shown, RESTARTED);
    world.producer.send(&topics, all(Some(&instants.batch)));
    world.producer.flush();
    world.catch_up();
    check(&world, &mut shown, AGAIN_AFTER_RESTART);

    // And without times: then it happened once more, and ends the same.
    world.send_batch(all(None));
    world.catch_up();
    world.wait_for_deadlines(&cases);
    let ends = |world: &World<'_>, moment: &str| {
        for (case, shown) in cases.iter().zip(&shown) {
            let hash = world.hash(case);
            let found = |field: &str| hash.get(field).map_or("", String::as_str);
            let end = (found("status"), found("connectivity"));
            let wanted = (shown.status.name(), shown.connectivity.name());
            assert_eq!(end, wanted, "{case}, {moment}: {hash:?}");
            if shown.exists {
                for (field, value) in &case.fields {
                    assert_eq!(found(field), value, "{field} of {case}, {moment}: {hash:?}");
                }
            }
        }
    };
    ends(&world, "happened once more");
    assert!(service.terminate().success());
    let _service = DeviceStatus::start_ready(&config);
    world.catch_up();
    ends(&world, "happened once more, after a restart");
}
