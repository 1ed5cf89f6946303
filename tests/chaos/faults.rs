//! The built binary under real faults, traffic flowing evenly and in bursts: killed,
//! frozen past its session, joined and left by others, restarted one after the
//! other, its broker restarted, killed and frozen, its Redis killed and emptied. One
//! of the two processes is a static member of the group, and both together have more
//! threads than there are partitions. An independent reader of the topics judges. Once
//! with either protocol of the group.
//!
//! `CHAOS_SECONDS` says how long each (default: short, for `make test`; `make chaos`
//! runs five minutes each), `CHAOS_SEED` which faults, `CHAOS_THREADS` how many
//! threads a process has.

use std::collections::HashMap;
use std::time::Duration;

use crate::support::events::{self, device_id};
use crate::support::kafka::{EventProducer, Isolation, KafkaBroker, Record, ServiceTopics};
use crate::support::log::{KAFKA_AWAY, REDIS_ANEW, VIEW_SUPERSEDED};
use crate::support::process::free_port;
use crate::support::redis::{self, RedisServer};
use crate::support::service::{DeviceStatus, ServiceConfig};
use crate::support::wait::{Stopwatch, now_ms, pause, wait_for, wait_until};
use device_status::wire::proto::v1::{Cause, Connectivity, Status, StatusChanged};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Devices whose VPN session opens and closes all the time: each step is a change.
const TOGGLERS: u64 = 60;
/// Devices that poll all the time: never Offline.
const POLLERS: u64 = 60;
/// Devices that poll once, at some time during the chaos: Offline at their deadline.
const QUITTERS: u64 = 30;
/// Longer than any fault, so that only silence makes Offline.
const POLL_INTERVAL: Duration = Duration::from_secs(30);
const GRACE_MS: i64 = 1_000;
/// A poller that was silent for so long polls at the next round, whatever chance
/// says: a fault may hold up the traffic itself for half a minute.
const SILENCE_MS: i64 = 5_000;
const ROUND: Duration = Duration::from_millis(250);
/// Fewer than the threads of two processes, more than those of one.
const PARTITIONS: i32 = 3;
const THREADS: i64 = 2;
/// The session timeout, with either protocol.
const SESSION_MS: &str = "6000";

/// What a process logs that the group, or a successor, did not wait for.
const LEFT_BEHIND: &[&str] = &[
    VIEW_SUPERSEDED,
    "fenced: a later owner writes to the view in Redis",
    "partitions lost: the group gave them to other members",
    "another owner has committed since; the shard is dropped",
    "the next owner redoes it",
    "the restore failed and starts again",
    "giving partitions back to the group failed",
    "another member of the group has the instance id",
    "UnreleasedInstanceId",
];

fn toggler(n: u64) -> String {
    device_id(n)
}

fn poller(n: u64) -> String {
    device_id(1_000 + n)
}

fn quitter(n: u64) -> String {
    device_id(2_000 + n)
}

/// What was sent, to be compared with what came out.
struct Traffic {
    producer: EventProducer,
    topics: ServiceTopics,
    round: u64,
    last_words: HashMap<String, i64>,
    /// When each poller polled last.
    polled_ms: [i64; POLLERS as usize],
    /// Whether the events of a round are spread over it, each sent by itself.
    evenly: bool,
}

impl Traffic {
    /// One round: every toggler takes a step, every poller polls now and then.
    fn flow(&mut self, rng: &mut ChaCha8Rng, quitting: bool) {
        let begin_ms = now_ms();
        let evenly = self.evenly;
        let at_ms = |n: u64, of: u64| {
            let part_ms = if evenly { ROUND.as_millis() as u64 * n / of } else { 0 };
            begin_ms + part_ms as i64
        };
        let mut events: Vec<_> = (0..TOGGLERS)
            .map(|n| {
                let (at_ms, instance) = (at_ms(n, TOGGLERS), format!("vpn-{}", n % 3));
                // Half of them always use the same name.
                let session = match n % 2 {
                    0 => "s".to_owned(),
                    _ => format!("s{}", self.round / 2),
                };
                let device = toggler(n);
                (at_ms, events::toggled_as(&device, at_ms, &instance, &session, self.round))
            })
            .collect();
        for (n, polled_ms) in (0..POLLERS).zip(&mut self.polled_ms) {
            if rng.random_bool(0.1) || begin_ms - *polled_ms > SILENCE_MS {
                *polled_ms = at_ms(n, POLLERS);
                events.push((
                    *polled_ms,
                    events::heartbeat_every(&poller(n), *polled_ms, POLL_INTERVAL),
                ));
            }
        }
        let silent = (0..QUITTERS).map(quitter).find(|q| !self.last_words.contains_key(q));
        if let Some(device) = silent.filter(|_| quitting) {
            let beat = events::heartbeat_every(&device, begin_ms, POLL_INTERVAL);
            events.push((begin_ms, beat));
            self.last_words.insert(device, begin_ms);
        }
        events.sort_by_key(|(at_ms, _)| *at_ms);
        for (at_ms, event) in events {
            pause_until(at_ms);
            self.producer.send(&self.topics, [event]);
            self.producer.producer.poll(Duration::ZERO);
        }
        self.round += 1;
        if evenly {
            pause_until(begin_ms + ROUND.as_millis() as i64);
        } else {
            pause(ROUND);
        }
    }

    /// Some rounds, all of them even or all of them bursts.
    fn flow_for(&mut self, rng: &mut ChaCha8Rng, rounds: u64) {
        self.evenly = rng.random_bool(0.5);
        for _ in 0..rounds {
            self.flow(rng, true);
        }
    }
}

fn pause_until(at_ms: i64) {
    let ms = u64::try_from(at_ms - now_ms()).unwrap_or(0);
    if ms > 0 {
        pause(Duration::from_millis(ms));
    }
}

/// No topic is made anew here, and nobody must be told so.
fn assert_no_false_alarm(service: &DeviceStatus) {
    let output = service.process.output();
    let alarm = output.lines().find(|line| line.contains("the input ends before"));
    assert_eq!(alarm, None);
}

#[test]
fn no_fault_loses_doubles_or_invents_a_change() {
    faults_are_survived("consumer");
}

#[test]
fn no_fault_loses_doubles_or_invents_a_change_with_the_classic_protocol() {
    faults_are_survived("classic");
}

/// A number from the environment.
fn number<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(default)
}

fn faults_are_survived(protocol: &str) {
    let _among_others = crate::among_others();
    let seconds = number("CHAOS_SECONDS", 75);
    let seed = number("CHAOS_SEED", 1);
    let threads = number("CHAOS_THREADS", THREADS);
    eprintln!(
        "{protocol}: CHAOS_SEED={seed} CHAOS_SECONDS={seconds} CHAOS_THREADS={threads}, \
         {PARTITIONS} partitions"
    );
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let broker = KafkaBroker::start_with(&[
        ("group.consumer.session.timeout.ms", SESSION_MS),
        ("group.consumer.max.session.timeout.ms", SESSION_MS),
    ]);
    let mut redis = RedisServer::start();
    let topics = broker.service_topics("chaos", PARTITIONS);
    let config = |port: u16| {
        let config = ServiceConfig::new(&broker, &topics)
            .redis(&redis.url())
            .set("admin.listen", format!("127.0.0.1:{port}"))
            .set("kafka.group_protocol", protocol)
            .set("processing.threads", threads)
            .set("log.level", "info")
            .announce(KAFKA_AWAY)
            .announce(REDIS_ANEW)
            .announce(LEFT_BEHIND);
        match protocol {
            "classic" => config.set("kafka.properties.session.timeout.ms", SESSION_MS),
            _ => config,
        }
    };
    let configs = [config(free_port()).set("kafka.instance_id", "first"), config(free_port())];
    let mut services = [Some(DeviceStatus::start_ready(&configs[0])), None];
    let mut traffic = Traffic {
        producer: broker.producer(),
        topics: topics.clone(),
        round: 0,
        last_words: HashMap::new(),
        polled_ms: [0; POLLERS as usize],
        evenly: true,
    };
    let mut faults: HashMap<&str, u32> = HashMap::new();
    let clock = Stopwatch::start();
    while clock.elapsed() < Duration::from_secs(seconds) {
        traffic.flow_for(&mut rng, 8);
        let first = usize::from(services[0].is_none());
        let fault = match rng.random_range(0..12) {
            0..3 => {
                if let Some(service) = &mut services[first] {
                    service.kill();
                    assert_no_false_alarm(service);
                }
                services[first] = Some(DeviceStatus::start(&configs[first]));
                "killed"
            }
            3 => {
                // Long enough for the group to give its partitions away: a zombie.
                if let Some(service) = &services[first] {
                    service.pause();
                    let rounds = rng.random_range(4..40);
                    traffic.flow_for(&mut rng, rounds);
                    service.resume();
                }
                "frozen"
            }
            4..6 => {
                let second = 1 - first;
                if services[second].is_none() {
                    services[second] = Some(DeviceStatus::start(&configs[second]));
                    "joined"
                } else {
                    let leaver = rng.random_range(0..2);
                    if let Some(mut service) = services[leaver].take() {
                        let ended = service.terminate();
                        assert!(ended.success(), "{ended}: {}", service.process.output());
                        assert_no_false_alarm(&service);
                    }
                    "left"
                }
            }
            6 => {
                broker.stop();
                traffic.flow_for(&mut rng, 4);
                broker.restart();
                "broker restarted"
            }
            7 => {
                broker.kill();
                broker.restart();
                "broker killed"
            }
            8 => {
                // Connections stay open, and nobody answers.
                broker.pause();
                let rounds = rng.random_range(4..60);
                traffic.flow_for(&mut rng, rounds);
                broker.resume();
                "broker frozen"
            }
            9 => {
                for (service, config) in services.iter_mut().zip(&configs) {
                    if let Some(running) = service {
                        let ended = running.terminate();
                        assert!(ended.success(), "{ended}: {}", running.process.output());
                        assert_no_false_alarm(running);
                        *service = Some(DeviceStatus::start(config));
                        traffic.flow_for(&mut rng, 8);
                    }
                }
                "restarted politely"
            }
            10 => {
                redis.stop();
                traffic.flow_for(&mut rng, 4);
                redis.restart();
                "Redis killed"
            }
            _ => {
                redis::flush_all(&mut redis.connection());
                "Redis emptied"
            }
        };
        *faults.entry(fault).or_default() += 1;
        eprintln!("{protocol}: {:?} {fault}", clock.elapsed());
    }

    // The faults stop; the traffic comes to rest with all sessions closed.
    for (service, config) in services.iter_mut().zip(&configs) {
        match service {
            Some(running) => {
                let ended = running.process.ended();
                assert!(ended.is_none(), "ended by itself:\n{}", running.process.output());
            }
            None => *service = Some(DeviceStatus::start(config)),
        }
    }
    while !traffic.round.is_multiple_of(2) {
        traffic.flow(&mut rng, false);
    }
    traffic.producer.flush();
    let mut reader = broker.reader(&topics.status_changes, Isolation::ReadCommitted);
    let quitters = traffic.last_words.len();
    let quiet = Stopwatch::start();
    wait_for(Duration::from_secs(120), "the last change of everybody", || {
        // Pollers go on, or they would be Offline by right.
        for n in 0..POLLERS {
            let beat = events::heartbeat_every(&poller(n), now_ms(), POLL_INTERVAL);
            traffic.producer.send(&topics, [beat]);
        }
        traffic.producer.flush();
        let changes = decode(reader.read_for(Duration::from_secs(1)));
        let offline = changes.iter().filter(|c| c.cause() == Cause::HeartbeatExpired).count();
        let done = (0..TOGGLERS).all(|n| {
            let last = changes.iter().rev().find(|c| c.device_id == toggler(n));
            last.is_some_and(|c| c.version == traffic.round)
        });
        if done && offline >= quitters {
            Ok(())
        } else {
            let behind: Vec<String> = (0..TOGGLERS)
                .filter_map(|n| {
                    let last = changes.iter().rev().find(|c| c.device_id == toggler(n));
                    let version = last.map_or(0, |c| c.version);
                    (version != traffic.round).then(|| format!("{} at {version}", toggler(n)))
                })
                .collect();
            let states: Vec<String> = services.iter().flatten().map(what_holds_it_up).collect();
            Err(format!(
                "{offline} of {quitters} quitters Offline; behind round {}: {behind:?}; {}",
                traffic.round,
                states.join("; ")
            ))
        }
    });
    services.iter().flatten().for_each(assert_no_false_alarm);
    // Also whoever has no partition is well, and says so.
    for service in services.iter_mut().flatten() {
        service.wait_ready(Duration::from_secs(60));
        wait_until(Duration::from_secs(30), "each partition to have an owner", || {
            service.metric("device_status_partitions_without_owner", "") == Some(0.0)
        });
    }
    let changes = decode(reader.read_for(Duration::from_secs(2)));
    judge(&changes, &traffic);
    compare_view(&changes, &mut redis);
    eprintln!(
        "{protocol}: {} changes, {} rounds, quiet {:?}, faults {faults:?}",
        changes.len(),
        traffic.round,
        quiet.elapsed()
    );
}

/// The metrics that are not at rest.
fn what_holds_it_up(service: &DeviceStatus) -> String {
    let told = service.get("/metrics").map(|(_, body)| body).unwrap_or_default();
    let lines = told.lines().filter(|line| {
        let interesting = ["_shards{", "_input_lag_records{", "_clock_lag_seconds{", "_ready"];
        interesting.iter().any(|name| line.starts_with(&format!("device_status{name}")))
            && !line.ends_with(" 0")
    });
    lines.collect::<Vec<_>>().join(", ")
}

fn decode(records: &[Record]) -> Vec<StatusChanged> {
    records.iter().map(Record::decode).collect()
}

fn millis(at: Option<prost_types::Timestamp>) -> i64 {
    at.map_or(0, |t| t.seconds * 1000 + i64::from(t.nanos) / 1_000_000)
}

/// Each change once, in order, none missing, none false.
fn judge(changes: &[StatusChanged], traffic: &Traffic) {
    let mut of: HashMap<&str, Vec<&StatusChanged>> = HashMap::new();
    for change in changes {
        of.entry(&change.device_id).or_default().push(change);
    }
    for (device, changes) in &of {
        for (n, change) in changes.iter().enumerate() {
            assert_eq!(
                change.version,
                n as u64 + 1,
                "{device}: a change lost or doubled: {change:?}"
            );
            let before = n.checked_sub(1).map(|before| changes[before]);
            let previous = before.map_or((0, 0), |b| (b.status, b.connectivity));
            assert_eq!((change.previous_status, change.previous_connectivity), previous);
        }
    }
    for n in 0..TOGGLERS {
        let device = toggler(n);
        let steps = &of[device.as_str()];
        assert_eq!(steps.len() as u64, traffic.round, "{device}");
        for (n, step) in steps.iter().enumerate() {
            let expected = if n.is_multiple_of(2) {
                (Status::Online, Connectivity::VpnOnly)
            } else {
                (Status::Offline, Connectivity::None)
            };
            assert_eq!((step.status(), step.connectivity()), expected, "{step:?}");
        }
    }
    for n in 0..POLLERS {
        let device = poller(n);
        let steps = &of[device.as_str()];
        assert_eq!(steps.len(), 1, "{device} was not left Online: {steps:#?}");
        assert_eq!(steps[0].status(), Status::Online);
    }
    for (device, last_word_ms) in &traffic.last_words {
        let steps = &of[device.as_str()];
        assert_eq!(steps.len(), 2, "{device}: {steps:#?}");
        let deadline_ms = last_word_ms + POLL_INTERVAL.as_millis() as i64 * 3 / 2 + GRACE_MS;
        assert_eq!(steps[1].status(), Status::Offline);
        assert_eq!(millis(steps[1].since), deadline_ms, "{:?}", steps[1]);
    }
}

/// Redis shows the last word of the change topic, for everybody.
fn compare_view(changes: &[StatusChanged], redis: &mut RedisServer) {
    let mut last: HashMap<&str, &StatusChanged> = HashMap::new();
    for change in changes {
        last.insert(&change.device_id, change);
    }
    let mut connection = redis.connection();
    for (device, change) in last {
        wait_for(Duration::from_secs(30), &format!("Redis to show {change:?}"), || {
            let hash = redis::hash(&mut connection, &format!("ds:device:{device}"));
            let shows =
                |field: &str, wanted: &str| hash.get(field).is_some_and(|found| found == wanted);
            let status = if change.status() == Status::Online { "online" } else { "offline" };
            if shows("status", status) && shows("version", &change.version.to_string()) {
                Ok(())
            } else {
                Err(format!("{hash:?}"))
            }
        });
    }
}
