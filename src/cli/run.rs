//! `device-status run`: the service.

use std::backtrace::Backtrace;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use metrics::gauge;
use tracing::{error, info};

use super::service_manager::ServiceManager;
use super::signals;
use super::text::moment;
use crate::admin::{self, GroupHealth, Health, RedisHealth, ThreadReport};
use crate::clock::SystemClock;
use crate::config::{Config, GroupProtocol, Partitioner, milliseconds};
use crate::error::Fatal;
use crate::kafka::log::{KafkaLog, Stamps};
use crate::kafka::topics::{Role, check_topics};
use crate::kafka::watch::Watch;
use crate::shard::Input;
use crate::stream_thread::ports::Clock;
use crate::stream_thread::report::{Report, ShardReport, StageName};
use crate::stream_thread::{
    DeadLetterSettings, OUTPUT_MAX_BYTES, OpenTransaction, READ_AHEAD_MAX_BYTES, Settings,
    StreamThread, WORK_PER_TURN,
};
use crate::telemetry::{self, ThreadMetrics};
use crate::view::claim::{Group, claim_at_start};
use crate::view::{RedisView, ViewStats};
use crate::wire::dead_letter;

/// How often a thread publishes its counts.
const REPORT_INTERVAL_MS: i64 = 500;
/// How often the supervisor looks at the view.
const SUPERVISE: Duration = Duration::from_millis(250);
/// How long the view may take to write its backlog at a stop.
const VIEW_DRAIN: Duration = Duration::from_secs(3);
/// How long `/ready` reports a Kafka error after it happened.
const KAFKA_ERROR_MS: i64 = 5_000;
/// A running shard this close to its inputs' ends counts as near the head.
const NEAR_HEAD_RECORDS: i64 = 100_000;

/// Run the service: read events, compute statuses, write Redis and status changes
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Take over the keys under redis.prefix from this group, which must be stopped
    #[arg(long, value_name = "GROUP")]
    pub take_view_from: Option<String>,
}

/// Runs the service until SIGTERM, SIGHUP or Ctrl-C.
///
/// # Errors
/// The error that prevented the start or ended the service.
pub fn run(args: &Args, config: &Config, _json: bool) -> Result<(), Fatal> {
    let shutdown = Arc::new(AtomicBool::new(false));
    let starting = Arc::new(AtomicBool::new(true));
    signals::set_or_end(&shutdown, &starting)?;
    let report = check_topics(config)?;
    let mut config = config.clone();
    if let Some(partitions) = report.topic(Role::Heartbeats).and_then(|topic| topic.partitions) {
        config.topics.partitions = partitions;
    }
    let group = group(&config, args.take_view_from.as_deref());
    claim_at_start(&config.redis, &group)?;
    starting.store(false, Ordering::Relaxed);
    // The producer's own limit is the broker's default, if the user sets none.
    let own = config.kafka.properties.get("message.max.bytes").and_then(|own| own.parse().ok());
    let max_bytes = report
        .max_message_bytes(Role::DeadLetters)
        .min(own.unwrap_or(dead_letter::DEFAULT_MAX_BYTES));
    Service { config, group, max_bytes, stamps: Stamps::Broker, shutdown }.run()
}

fn group(config: &Config, take_view_from: Option<&str>) -> Group {
    Group {
        name: config.kafka.group.clone(),
        partitions: config.topics.partitions,
        take_view_from: take_view_from.map(str::to_owned),
    }
}

/// Runs the service with topics that were checked, until `shutdown` is set.
/// `stamps` is the source of broker time.
///
/// # Errors
/// The error that prevented the start or ended the service.
pub fn run_service(config: Config, stamps: Stamps, shutdown: Arc<AtomicBool>) -> Result<(), Fatal> {
    let group = group(&config, None);
    let max_bytes = dead_letter::DEFAULT_MAX_BYTES;
    Service { config, group, max_bytes, stamps, shutdown }.run()
}

struct Service {
    config: Config,
    /// The group that owns the view.
    group: Group,
    /// The largest dead letter, in bytes.
    max_bytes: usize,
    /// The source of broker time.
    stamps: Stamps,
    shutdown: Arc<AtomicBool>,
}

/// The number and the result of a stream thread that has ended.
type Ended = (usize, Result<(), Fatal>);

impl Service {
    fn run(self) -> Result<(), Fatal> {
        let clock = Arc::new(SystemClock::new());
        let threads = self.config.processing.threads;
        let metrics = telemetry::install()?;
        let health = Arc::new(Health::new(threads, clock.monotonic_ms()));
        let admin = &self.config.admin;
        let server =
            admin::start(admin.listen, &admin.token, health.clone(), metrics, clock.clone())?;
        info!(
            version = env!("CARGO_PKG_VERSION"),
            brokers = %self.config.kafka.brokers,
            group = %self.config.kafka.group,
            guarantee = ?self.config.processing.guarantee,
            partitions = self.config.topics.partitions,
            threads,
            admin = %server.address,
            "starting"
        );
        let panicked = watch_panics();
        let process_id = uuid::Uuid::new_v4().simple().to_string();
        let (ended, endings) = channel();
        let mut views = Vec::new();
        let mut members = Vec::new();
        let (redis, peers) = (&self.config.redis, Arc::default());
        for thread in 0..threads {
            let view = RedisView::start(redis, &self.group, clock.clone(), &peers, thread == 0)?;
            let log =
                KafkaLog::start(&self.config, &process_id, thread, self.stamps, clock.clone())?;
            views.push(view.stats());
            members.push(log.identity());
            let stream_thread = StreamThread::new(self.settings(), log, view, clock.clone());
            let runner = Runner {
                number: thread,
                clock: clock.clone(),
                health: health.clone(),
                shutdown: self.shutdown.clone(),
                metrics: ThreadMetrics::new(thread),
                kafka_error: None,
            };
            start_thread(thread, ended.clone(), move || runner.run(stream_thread))?;
        }
        drop(ended);
        let watch = Watch::new(&self.config, members)?;
        let result = self.supervise(&endings, &health, &views, watch, &panicked, &*clock);
        drop(server);
        info!("stopped");
        result
    }

    fn settings(&self) -> Settings {
        let config = &self.config;
        let formats = &config.formats;
        Settings {
            rules: config.rules(),
            formats: Input::ALL.map(|input| formats.input(input)),
            partitions: config.topics.partitions,
            check_partitioner: config.topics.partitioner == Partitioner::Murmur2,
            commit_interval_ms: milliseconds(config.processing.commit_interval),
            work_per_turn: WORK_PER_TURN,
            output_max_bytes: OUTPUT_MAX_BYTES,
            read_ahead_max_bytes: READ_AHEAD_MAX_BYTES,
            refresh_interval_ms: milliseconds(config.redis.refresh_interval),
            suspend: config.kafka.group_protocol == GroupProtocol::Classic,
            change_format: formats.status_changes,
            cloud_events_source: Some(formats.cloud_events_source.clone())
                .filter(|source| !source.is_empty()),
            dead_letters: DeadLetterSettings {
                topics: Input::ALL.map(|input| config.topics.input(input).to_owned()),
                max_bytes: self.max_bytes,
                max_share: config.dead_letters.max_share,
            },
        }
    }

    /// Waits for the threads to end; one that fails ends the others.
    fn supervise(
        &self,
        endings: &Receiver<Ended>,
        health: &Health,
        views: &[Arc<ViewStats>],
        mut watch: Watch,
        panicked: &AtomicBool,
        clock: &dyn Clock,
    ) -> Result<(), Fatal> {
        let mut result = Ok(());
        let mut fail = |fatal: Fatal| {
            health.set_fatal(fatal.message.clone());
            self.shutdown.store(true, Ordering::Relaxed);
            if result.is_ok() {
                result = Err(fatal);
            }
        };
        let mut manager = ServiceManager::from_environment();
        gauge!(telemetry::LETTER_SHARE_MAX).set(self.config.dead_letters.max_share);
        gauge!(telemetry::PARTITIONS).set(f64::from(self.config.topics.partitions));
        loop {
            match endings.recv_timeout(SUPERVISE) {
                Ok((_, Ok(()))) => {}
                Ok((thread, Err(fatal))) => {
                    error!(thread, error = %fatal, "a stream thread failed; stopping");
                    fail(fatal);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return result,
            }
            if panicked.swap(false, Ordering::Relaxed) {
                fail(Fatal::internal("a thread panicked; the log says where"));
            }
            let stopping = self.shutdown.load(Ordering::Relaxed);
            if stopping {
                health.set_stopping();
            } else {
                match watch.look(clock.monotonic_ms()) {
                    Ok(None) => {}
                    Ok(Some(group)) => {
                        gauge!(telemetry::WITHOUT_OWNER).set(group.without_owner.len() as f64);
                        let trouble = group.trouble();
                        health.set_group(GroupHealth { spare: group.spare, trouble });
                    }
                    Err(fatal) => {
                        error!(error = %fatal, "stopping");
                        fail(fatal);
                    }
                }
            }
            telemetry::publish_views(views);
            health.set_redis(redis_health(views));
            let ready = health.ready(clock.monotonic_ms()).ok;
            gauge!(telemetry::READY).set(if ready { 1 } else { 0 });
            manager.tell(health, stopping, clock.monotonic_ms());
            telemetry::limit::tell_left_out();
        }
    }
}

/// Logs a panic and ends the process, whichever thread it is in, because no other
/// thread does its work.
fn watch_panics() -> Arc<AtomicBool> {
    let panicked = Arc::new(AtomicBool::new(false));
    let told = panicked.clone();
    std::panic::set_hook(Box::new(move |panic| {
        let backtrace = Backtrace::capture();
        error!(error = %panic, %backtrace, "a bug: please report it with the log; stopping");
        told.store(true, Ordering::Relaxed);
    }));
    panicked
}

/// The state of the view, from the views of all threads.
fn redis_health(views: &[Arc<ViewStats>]) -> RedisHealth {
    if let Some(other) = views.iter().find_map(|view| view.advice().other_group.clone()) {
        return RedisHealth::OfAnotherGroup(other);
    }
    let backlog: usize = views.iter().map(|view| view.backlog.load(Ordering::Relaxed)).sum();
    if views.iter().all(|view| view.connected.load(Ordering::Relaxed)) {
        return match views.iter().find_map(|view| view.refusal()) {
            Some(trouble) => RedisHealth::Refusing(format!("{backlog} writes wait; {trouble}")),
            None => RedisHealth::Available,
        };
    }
    let trouble = views.iter().find_map(|view| view.advice().trouble.clone());
    let trouble = trouble.unwrap_or_else(|| "the log says why".to_owned());
    RedisHealth::Unavailable(format!("{backlog} writes wait; {trouble}"))
}

/// Starts a stream thread that reports its result, even after a panic.
fn start_thread(
    number: usize,
    ended: Sender<Ended>,
    run: impl FnOnce() -> Result<(), Fatal> + Send + 'static,
) -> Result<(), Fatal> {
    let run = move || {
        let bug = |_| Err(Fatal::internal("a stream thread panicked; the log says where"));
        let result = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(bug);
        let _ = ended.send((number, result));
    };
    let started = std::thread::Builder::new().name(format!("stream-{number}")).spawn(run);
    let failed = |error| Fatal::internal(format!("cannot start a stream thread: {error}"));
    started.map(drop).map_err(failed)
}

/// Drives one stream thread's loop, and publishes its reports.
struct Runner {
    number: usize,
    clock: Arc<SystemClock>,
    health: Arc<Health>,
    shutdown: Arc<AtomicBool>,
    metrics: ThreadMetrics,
    /// The last Kafka error, and when it happened.
    kafka_error: Option<(String, i64)>,
}

impl Runner {
    fn run(
        mut self,
        mut stream_thread: StreamThread<KafkaLog, RedisView, Arc<SystemClock>>,
    ) -> Result<(), Fatal> {
        let mut reported_ms = 0;
        let mut heard = false;
        while !stream_thread.stopped() {
            if self.shutdown.load(Ordering::Relaxed) {
                stream_thread.stop();
            }
            stream_thread.step()?;
            let now_ms = self.clock.monotonic_ms();
            self.health.turned(self.number, now_ms);
            if now_ms - reported_ms >= REPORT_INTERVAL_MS {
                reported_ms = now_ms;
                let report = stream_thread.report();
                heard |= report.counts.rebalances[0] > 0;
                self.publish(&report, heard);
            }
        }
        self.publish(&stream_thread.report(), heard);
        if !stream_thread.into_view().close(VIEW_DRAIN) {
            info!("Redis did not take all writes before the stop; the next owner writes the rest");
        }
        Ok(())
    }

    fn publish(&mut self, report: &Report, heard: bool) {
        self.metrics.publish(report, || self.clock.wall());
        let count = |stage| report.shards.iter().filter(|s| s.stage == stage).count();
        let now_ms = self.clock.monotonic_ms();
        if let Some(error) = &report.counts.kafka_error {
            self.kafka_error = Some((error.clone(), now_ms));
        }
        self.kafka_error.take_if(|(_, at_ms)| now_ms - *at_ms > KAFKA_ERROR_MS);
        let near = report
            .shards
            .iter()
            .filter(|s| s.stage == StageName::Running)
            .all(|s| s.lag.iter().all(|lag| lag.is_some_and(|lag| lag < NEAR_HEAD_RECORDS)));
        self.health.report(
            self.number,
            ThreadReport {
                heard,
                assigned: report.shards.len() + report.resolving_starts,
                waiting: count(StageName::Created),
                restoring: count(StageName::Restoring) + report.resolving_starts,
                running: count(StageName::Running),
                near_head: near,
                open_transactions: hanging(&report.shards),
                stopped_inputs: stopped(&report.shards),
                kafka_error: self.kafka_error.as_ref().map(|(e, _)| e.clone()).or_else(|| {
                    let pending_ms = report.commit_pending_ms.filter(|ms| *ms > 10_000)?;
                    Some(format!("a commit has been under way for {} s", pending_ms / 1000))
                }),
            },
        );
    }
}

/// The inputs of these shards that the service has stopped reading.
fn stopped(shards: &[ShardReport]) -> Vec<String> {
    let of = |shard: &ShardReport| {
        let (partition, stopped) = (shard.partition, shard.stopped);
        let inputs = Input::ALL.into_iter().zip(stopped);
        inputs.filter_map(move |(input, at)| {
            Some(format!("{}[{partition}] before offset {}", input.name(), at?))
        })
    };
    shards.iter().flat_map(of).collect()
}

/// The transactions that hang on inputs of these shards.
fn hanging(shards: &[ShardReport]) -> Vec<String> {
    let mut told = Vec::new();
    for shard in shards {
        for (input, open) in Input::ALL.iter().zip(shard.open) {
            if let Some(open) = open.filter(OpenTransaction::hangs) {
                told.push(format!(
                    "{}[{}] at least since {}, from offset {}",
                    input.name(),
                    shard.partition,
                    moment(open.since.0),
                    open.offset
                ));
            }
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Supervises two threads: one that runs until the shutdown, and `other`.
    fn supervised(
        other: impl FnOnce() -> Result<(), Fatal> + Send + 'static,
        panicked: &AtomicBool,
    ) -> Result<(), Fatal> {
        let config = Config::default();
        let watch = Watch::new(&config, Vec::new()).unwrap();
        let shutdown = Arc::new(AtomicBool::new(false));
        let group = group(&config, None);
        let stamps = Stamps::Broker;
        let service = Service { config, group, max_bytes: 0, stamps, shutdown: shutdown.clone() };
        let clock = SystemClock::new();
        let (sender, endings) = channel();
        let worker = move || {
            while !shutdown.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            Ok(())
        };
        start_thread(0, sender.clone(), worker).unwrap();
        start_thread(1, sender, other).unwrap();
        let health = Health::new(2, clock.monotonic_ms());
        let result = service.supervise(&endings, &health, &[], watch, panicked, &clock);
        assert!(!health.live(clock.monotonic_ms()).ok);
        result
    }

    #[test]
    fn a_panic_in_one_stream_thread_ends_the_others_and_the_process() {
        let fatal = supervised(|| panic!("on purpose"), &AtomicBool::new(false)).unwrap_err();
        assert!(fatal.message.contains("panicked"), "{fatal}");
        assert_eq!(fatal.kind.exit_code(), 70);
    }

    #[test]
    fn a_panic_in_any_other_thread_ends_the_process_too() {
        let fatal = supervised(|| Ok(()), &AtomicBool::new(true)).unwrap_err();
        assert_eq!(fatal.kind.exit_code(), 70);
    }

    #[test]
    fn kafka_error_is_reported_while_it_lasts_even_before_an_assignment() {
        let health = Arc::new(Health::new(1, 0));
        health.set_redis(RedisHealth::Available);
        let mut runner = Runner {
            number: 0,
            clock: Arc::new(SystemClock::new()),
            health: health.clone(),
            shutdown: Arc::new(AtomicBool::new(false)),
            metrics: ThreadMetrics::new(0),
            kafka_error: None,
        };
        let mut report = Report::default();
        report.counts.kafka_error = Some("all brokers are down".to_owned());
        runner.publish(&report, false);
        let told = ["stream thread 0 cannot reach Kafka: all brokers are down"];
        assert_eq!(health.ready(0).reasons, told);
        runner.kafka_error.as_mut().unwrap().1 -= KAFKA_ERROR_MS + 1;
        runner.publish(&Report::default(), false);
        let told = ["stream thread 0 has no partition assignment from the consumer group yet"];
        assert_eq!(health.ready(0).reasons, told);
    }

    #[test]
    fn first_failure_is_reported() {
        let failed = || Err(Fatal::unavailable("no brokers"));
        let fatal = supervised(failed, &AtomicBool::new(false)).unwrap_err();
        assert_eq!(fatal, Fatal::unavailable("no brokers"));
    }
}
