//! Ordinary days: the built binary against a real broker and a real Redis, while
//! nothing goes wrong. Even and bursty senders at 5, 50, 500 and 5,000 records a
//! second, each record sent by itself; 1 and 12 partitions, 1 and 2 threads, both
//! group protocols. Nothing is to be seen of it: no warning, no error, no end, no
//! clock that lags, no shard that restarts, no memory that grows.
//!
//! `SOAK_SECONDS` says how long all of that takes (`make soak`: 20 minutes).
//! Without it, `make test` has 90 s of the one that once went wrong: 500 a second,
//! evenly, one partition and one thread.

use std::time::Duration;

use crate::support::kafka::{KafkaBroker, ServiceTopics};
use crate::support::redis::RedisServer;
use crate::support::sender::{Pace, Sender, Shape};
use crate::support::service::{DeviceStatus, ServiceConfig};
use crate::support::wait::{Stopwatch, pause, wait_for};

const RATES: [u32; 4] = [5, 50, 500, 5_000];
const PARTITIONS: [i32; 2] = [1, 12];
const THREADS: [i64; 2] = [1, 2];
const PROTOCOLS: [&str; 2] = ["classic", "consumer"];
/// Until the group has shared out the partitions and is quiet.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);
const QUIET: Duration = Duration::from_secs(10);
const WARM_UP: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_secs(1);
/// Of what the paces ask for, how much must have been sent. A broker that does
/// not keep up with the senders holds them up.
const SENT_MIN_SHARE: f64 = 0.5;
const CLOCK_LAG_MAX_S: f64 = 5.0;
/// Memory that is taken back and given out again moves by less.
const GROWTH_MAX_BYTES: f64 = 6e6;
const GROWTH_MAX_SHARE: f64 = 0.1;

/// One service and what it is sent.
struct Life {
    name: String,
    topics: ServiceTopics,
    service: DeviceStatus,
    sender: Sender,
    pace: Pace,
    settled: Settled,
    /// What its paces have asked for since it was warm, and what had been sent then.
    due: f64,
    sent_before: u64,
    /// While what was sent, and the resident memory in bytes.
    memory: Vec<(Pace, f64)>,
    /// Ends after the service.
    _redis: RedisServer,
}

/// What does not change any more once the group is quiet.
#[derive(Clone, Debug, PartialEq)]
struct Settled {
    shards_running: f64,
    rebalances: f64,
    restores: usize,
}

#[derive(Clone, Copy, Debug)]
struct Setup {
    partitions: i32,
    threads: i64,
    protocol: &'static str,
}

#[test]
fn an_ordinary_day_leaves_no_trace() {
    let _alone = crate::alone();
    match std::env::var("SOAK_SECONDS").map(|seconds| seconds.parse().expect("SOAK_SECONDS")) {
        Ok(seconds) => soak_everything(Duration::from_secs(seconds)),
        Err(_) => soak_what_once_went_wrong(),
    }
}

fn soak_what_once_went_wrong() {
    let setups = PROTOCOLS.map(|protocol| Setup { partitions: 1, threads: 1, protocol });
    let pace = Pace { per_second: 500, shape: Shape::Even };
    let mut lives = start(&setups, pace);
    let phases = [vec![pace; 2], vec![pace; 2]];
    live(&mut lives, &phases[..1], WARM_UP);
    lives.iter_mut().for_each(Life::warmed_up);
    live(&mut lives, &phases[1..], Duration::from_secs(30));
    end(lives);
}

/// Half of the time for four services side by side, whose protocols then change
/// places for the other half. In the first minute each has its turn of the most
/// traffic, so that what it holds for that is held; then all get all paces, each
/// another at a time, and once more.
fn soak_everything(time: Duration) {
    for round in 0..PROTOCOLS.len() {
        let setups: Vec<Setup> = (0..4)
            .map(|n| Setup {
                partitions: PARTITIONS[n / 2],
                threads: THREADS[n % 2],
                protocol: PROTOCOLS[(n + n / 2 + round) % 2],
            })
            .collect();
        let usual = Pace { per_second: 500, shape: Shape::Even };
        let mut lives = start(&setups, usual);
        let life = time / 2;
        let warm_up = WARM_UP.min(life / 4);
        let turns: Vec<Vec<Pace>> = (0..8)
            .map(|turn| {
                let shape = [Shape::Even, Shape::Bursty][turn % 2];
                let most = Pace { per_second: 5_000, shape };
                (0..4).map(|n| if n == turn / 2 { most } else { usual }).collect()
            })
            .collect();
        live(&mut lives, &turns, warm_up);
        lives.iter_mut().for_each(Life::warmed_up);
        let phases: Vec<Vec<Pace>> = (0..16)
            .map(|phase| {
                let shape = [Shape::Even, Shape::Bursty][phase / 4 % 2];
                (0..4).map(|n| Pace { per_second: RATES[(n + phase) % 4], shape }).collect()
            })
            .collect();
        live(&mut lives, &phases, life - warm_up);
        end(lives);
    }
}

fn start(setups: &[Setup], pace: Pace) -> Vec<Life> {
    let broker = KafkaBroker::shared();
    let begun: Vec<_> = setups
        .iter()
        .map(|setup| {
            let redis = RedisServer::start();
            let topics = broker.service_topics("soak", setup.partitions);
            let config = ServiceConfig::new(broker, &topics)
                .redis(&redis.url())
                .set("processing.threads", setup.threads)
                .set("kafka.group_protocol", setup.protocol)
                .set("log.level", "info");
            let service = DeviceStatus::start(&config);
            let sender = Sender::start(broker, &topics, pace);
            (setup, topics, service, sender, redis)
        })
        .collect();
    let settle = |(setup, topics, mut service, sender, redis): (&Setup, _, DeviceStatus, _, _)| {
        let Setup { partitions, threads, protocol } = *setup;
        let name = format!("{protocol}, {partitions} partitions, {threads} threads");
        eprintln!("{name}: starts");
        service.wait_ready(SETTLED_WITHIN);
        let settled = wait_until_quiet(&service, &name, f64::from(partitions));
        Life {
            name,
            topics,
            service,
            sender,
            pace,
            settled,
            due: 0.0,
            sent_before: 0,
            memory: Vec::new(),
            _redis: redis,
        }
    };
    begun.into_iter().map(settle).collect()
}

#[track_caller]
fn wait_until_quiet(service: &DeviceStatus, name: &str, partitions: f64) -> Settled {
    let mut before = None;
    let mut since = Stopwatch::start();
    wait_for(SETTLED_WITHIN, &format!("{name}: a quiet group"), || {
        let now = settled(service);
        if now != before {
            (before, since) = (now.clone(), Stopwatch::start());
        }
        match now {
            Some(now) if now.shards_running == partitions && since.elapsed() > QUIET => Ok(now),
            other => Err(format!("{other:?}")),
        }
    })
}

fn settled(service: &DeviceStatus) -> Option<Settled> {
    let output = service.process.output();
    let restores = ["shard running", "shard resumed"].map(|told| output.matches(told).count());
    Some(Settled {
        shards_running: service.metric("device_status_shards", "state=\"running\"")?,
        rebalances: service.metric("device_status_rebalances_total", "")?,
        restores: restores.iter().sum(),
    })
}

/// Goes through the phases, which share the time evenly, and looks.
fn live(lives: &mut [Life], phases: &[Vec<Pace>], time: Duration) {
    let length = time / u32::try_from(phases.len()).unwrap();
    for paces in phases {
        for (life, pace) in lives.iter_mut().zip(paces) {
            life.pace = *pace;
            life.sender.set_pace(*pace);
        }
        let clock = Stopwatch::start();
        let mut told = Vec::new();
        while clock.elapsed() < length {
            told = lives.iter_mut().map(Life::look).collect();
            pause(LOOK.min(length.saturating_sub(clock.elapsed())));
        }
        eprintln!("{}", told.join("\n"));
        for life in &mut *lives {
            life.due += f64::from(life.pace.per_second) * clock.elapsed().as_secs_f64();
        }
    }
}

/// The services end as they are told to, with all applied that they were sent.
fn end(lives: Vec<Life>) {
    for life in lives {
        life.assert_memory_stays();
        let sent = (life.sender.sent() - life.sent_before) as f64;
        let (name, due) = (&life.name, life.due);
        eprintln!("{name}: {sent} of {due:.0} records sent");
        assert!(sent >= due * SENT_MIN_SHARE, "{name}: this machine is too slow for the soak");
        let Life { name, mut service, sender, .. } = life;
        let sent = sender.finish() as f64;
        wait_for(Duration::from_secs(30), &format!("{name}: all {sent} to be read"), || {
            match service.metric("device_status_records_total", "") {
                Some(read) if read == sent => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        let status = service.terminate();
        assert!(status.success(), "{name}: {status}");
    }
}

impl Life {
    fn warmed_up(&mut self) {
        self.due = 0.0;
        self.sent_before = self.sender.sent();
        self.memory.clear();
    }

    /// Fails at the first sign of trouble; else answers how it is.
    fn look(&mut self) -> String {
        let who =
            format!("{}, {} a second, {:?}", self.name, self.pace.per_second, self.pace.shape);
        if let Some(status) = self.service.process.ended() {
            panic!("{who}: ended ({status}):\n{}", self.service.process.output());
        }
        self.service.assert_log_as_announced();
        let (code, body) = self.service.get("/ready").unwrap_or_else(|e| panic!("{who}: {e}"));
        assert_eq!(code, 200, "{who}: {body}");
        let (_, metrics) = self.service.get("/metrics").unwrap_or_else(|e| panic!("{who}: {e}"));
        let lags = values(&metrics, "device_status_clock_lag_seconds");
        assert_eq!(lags.len() as i32, self.topics.partitions, "{who}: clocks\n{metrics}");
        let lag = lags.into_iter().fold(0.0, f64::max);
        assert!(lag <= CLOCK_LAG_MAX_S, "{who}: a clock is {lag} s behind");
        let now = settled(&self.service);
        assert_eq!(now.as_ref(), Some(&self.settled), "{who}: a shard restarted");
        let memory = values(&metrics, "process_resident_memory_bytes")[0];
        self.memory.push((self.pace, memory));
        let sent = self.sender.sent();
        format!("{who}: {sent} sent, {:.1} MB, clock {lag:.1} s behind", memory / 1e6)
    }

    /// Compares, for each pace, the first third of the time with the last one.
    fn assert_memory_stays(&self) {
        let mut paces: Vec<Pace> = self.memory.iter().map(|(pace, _)| *pace).collect();
        paces.dedup();
        for pace in paces {
            let of = self.memory.iter().filter(|(when, _)| *when == pace);
            let of: Vec<f64> = of.map(|(_, memory)| *memory).collect();
            if let Some((first, last)) = growth(&of) {
                panic!("{}, {pace:?}: memory grew from {first} to {last} bytes: {of:?}", self.name);
            }
        }
    }
}

/// The medians of the first third and of the last one, if memory rose between.
fn growth(bytes: &[f64]) -> Option<(f64, f64)> {
    let third = (bytes.len() / 3).max(1);
    let (first, last) = (median(&bytes[..third]), median(&bytes[bytes.len() - third..]));
    let limit = first + GROWTH_MAX_BYTES.max(first * GROWTH_MAX_SHARE);
    (last > limit).then_some((first, last))
}

#[test]
fn memory_that_rises_is_told_from_memory_that_moves() {
    let moves: Vec<f64> = (0..30).map(|n| 30e6 + f64::from(n % 3) * 4e6).collect();
    assert_eq!(growth(&moves), None);
    let rises: Vec<f64> = (0..30).map(|n| 30e6 + f64::from(n) * 4e5).collect();
    assert_eq!(growth(&rises), Some((32e6, 40e6)));
    assert_eq!(growth(&[30e6]), None);
}

/// The values of a metric's series.
fn values(metrics: &str, name: &str) -> Vec<f64> {
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(name));
    let series = lines.filter(|rest| rest.starts_with(['{', ' ']));
    series.filter_map(|rest| rest.rsplit(' ').next()?.parse().ok()).collect()
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
