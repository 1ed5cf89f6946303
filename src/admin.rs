//! `/live`, `/ready` and `/metrics`, on a thread of its own.
//!
//! The loop of each stream thread, and the view, tell [`Health`] how they are;
//! the server judges when it is asked. Time comes from the caller's clock.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use subtle::ConstantTimeEq as _;
use tokio::sync::{Semaphore, oneshot};

use crate::error::Fatal;
use crate::stream_thread::ports::Clock;
use crate::telemetry;

/// A loop that has not turned for longer than this is stuck.
pub const MAX_TURN_MS: i64 = 30_000;

/// How often histograms are tidied up when nobody scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// How many connections are served at a time.
const CONNECTIONS_MAX: usize = 64;

/// How long a request's head may take, and a connection may wait for the next.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may last, however slowly its client reads.
const CONNECTION_MAX: Duration = Duration::from_secs(300);

/// How long to wait where the system has no room for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// The content type of Prometheus's text format.
const METRICS_CONTENT_TYPE: &str = "text/plain; version=0.0.4";

/// How the process is, as its parts have told.
#[derive(Debug)]
pub struct Health {
    threads: Vec<Thread>,
    redis: Mutex<RedisHealth>,
    group: Mutex<GroupHealth>,
    fatal: Mutex<Option<String>>,
    stopping: AtomicBool,
}

#[derive(Debug)]
struct Thread {
    /// When its loop last came round, on the monotonic clock.
    turned_ms: AtomicI64,
    /// `None` until its loop has told.
    report: Mutex<Option<ThreadReport>>,
}

/// What a stream thread tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ThreadReport {
    /// Whether the group has given the thread its partitions, or told it that
    /// there are none.
    pub heard: bool,
    /// Shards of which at least one input is assigned.
    pub assigned: usize,
    /// Of these, those that lack an input (rule R6).
    pub waiting: usize,
    /// Of these, those that are being restored.
    pub restoring: usize,
    /// Of these, those that run.
    pub running: usize,
    /// Whether every running shard is near the end of its inputs.
    pub near_head: bool,
    /// Why Kafka cannot be reached, if it cannot.
    pub kafka_error: Option<String>,
}

/// How the view is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisHealth {
    /// Nothing was heard of it yet.
    Connecting,
    /// It answers.
    Available,
    /// It does not, for this reason.
    Unavailable(String),
    /// The keys under our prefix are this other group's: nothing is written.
    OfAnotherGroup(String),
}

impl RedisHealth {
    const fn name(&self) -> &'static str {
        match self {
            RedisHealth::Connecting => "connecting",
            RedisHealth::Available => "available",
            RedisHealth::Unavailable(_) => "unavailable",
            RedisHealth::OfAnotherGroup(_) => "of-another-group",
        }
    }
}

/// How the group is, as it says itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupHealth {
    /// The threads that it knows, and has no partition for.
    pub spare: BTreeSet<usize>,
    /// What is wrong with it.
    pub trouble: Option<String>,
}

/// The answer to a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Whether all is well.
    pub ok: bool,
    /// What is not.
    pub reasons: Vec<String>,
    /// What each stream thread told last.
    pub threads: Vec<Option<ThreadReport>>,
    /// How the view is.
    pub redis: &'static str,
}

impl Health {
    /// The health of a process of this many stream threads, all of which are
    /// taken to have turned `now`.
    #[must_use]
    pub fn new(threads: usize, now_ms: i64) -> Health {
        let thread = || Thread { turned_ms: AtomicI64::new(now_ms), report: Mutex::new(None) };
        Health {
            threads: std::iter::repeat_with(thread).take(threads).collect(),
            redis: Mutex::new(RedisHealth::Connecting),
            group: Mutex::default(),
            fatal: Mutex::new(None),
            stopping: AtomicBool::new(false),
        }
    }

    /// A thread's loop came round. Cheap: for every turn.
    pub fn turned(&self, thread: usize, now_ms: i64) {
        if let Some(thread) = self.threads.get(thread) {
            thread.turned_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    /// How a thread is. To be told when it changes.
    pub fn report(&self, thread: usize, report: ThreadReport) {
        if let Some(thread) = self.threads.get(thread) {
            *lock(&thread.report) = Some(report);
        }
    }

    /// How the view is.
    pub fn set_redis(&self, redis: RedisHealth) {
        *lock(&self.redis) = redis;
    }

    /// What the group said last.
    pub fn set_group(&self, group: GroupHealth) {
        *lock(&self.group) = group;
    }

    /// Something that ends the process. The first one stays.
    pub fn set_fatal(&self, message: impl Into<String>) {
        lock(&self.fatal).get_or_insert(message.into());
    }

    /// The process was asked to end: it is well, and wants no more work.
    pub fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether the process works at all: if not, it had better be restarted.
    #[must_use]
    pub fn live(&self, now_ms: i64) -> Verdict {
        let mut reasons: Vec<String> = lock(&self.fatal).iter().cloned().collect();
        for (number, thread) in self.threads.iter().enumerate() {
            let idle_ms = now_ms.saturating_sub(thread.turned_ms.load(Ordering::Relaxed));
            if idle_ms > MAX_TURN_MS {
                reasons.push(format!(
                    "stream thread {number} has not come round its loop for {} s",
                    idle_ms / 1_000
                ));
            }
        }
        self.verdict(reasons)
    }

    /// Whether the process does all its work: its shards are restored, Kafka
    /// and Redis reachable, and no partition of the group is left lying.
    #[must_use]
    pub fn ready(&self, now_ms: i64) -> Verdict {
        let mut reasons = self.live(now_ms).reasons;
        if self.stopping.load(Ordering::Relaxed) {
            reasons.push("the process is stopping".to_owned());
        }
        let group = lock(&self.group).clone();
        for (number, thread) in self.threads.iter().enumerate() {
            let report = lock(&thread.report).clone().unwrap_or_default();
            // With the consumer protocol, a thread that gets nothing is told
            // nothing: the group knows it, and has nothing for it.
            let heard = report.heard || group.spare.contains(&number);
            if !heard && report.kafka_error.is_none() {
                reasons.push(format!("stream thread {number} has not heard from the group yet"));
            }
            reasons.extend(unready(number, &report));
        }
        reasons.extend(group.trouble);
        match &*lock(&self.redis) {
            RedisHealth::Available => {}
            RedisHealth::Connecting => reasons.push("Redis has not answered yet".to_owned()),
            RedisHealth::Unavailable(reason) => {
                reasons.push(format!("Redis is unavailable: {reason}"));
            }
            RedisHealth::OfAnotherGroup(other) => reasons.push(format!(
                "the keys under redis.prefix belong to group {other:?}, so nothing is written to \
                 Redis: set another redis.prefix, or start with --take-view-from {other}"
            )),
        }
        self.verdict(reasons)
    }

    fn verdict(&self, reasons: Vec<String>) -> Verdict {
        Verdict {
            ok: reasons.is_empty(),
            reasons,
            threads: self.threads.iter().map(|thread| lock(&thread.report).clone()).collect(),
            redis: lock(&self.redis).name(),
        }
    }
}

fn unready(number: usize, report: &ThreadReport) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Some(error) = &report.kafka_error {
        reasons.push(format!("stream thread {number} cannot reach Kafka: {error}"));
    }
    if report.waiting > 0 {
        reasons.push(format!(
            "stream thread {number}: {} of {} shards wait for the rest of their inputs",
            report.waiting, report.assigned
        ));
    }
    if report.restoring > 0 {
        reasons.push(format!(
            "stream thread {number}: {} of {} shards are being restored",
            report.restoring, report.assigned
        ));
    }
    if reasons.is_empty() && report.running < report.assigned {
        reasons.push(format!(
            "stream thread {number}: {} of {} shards run",
            report.running, report.assigned
        ));
    }
    reasons
}

/// A panic elsewhere does not make what is known unknown.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The server. Dropped, it stops.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Where it listens: with the port that was given, if 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Starts the server. Unless it is empty, `token` is what `/metrics` asks for.
///
/// # Errors
/// When the address cannot be listened on.
pub fn start(
    listen: SocketAddr,
    token: &str,
    health: Arc<Health>,
    metrics: PrometheusHandle,
    clock: Arc<dyn Clock + Send + Sync>,
) -> Result<Server, Fatal> {
    let unavailable = |error: std::io::Error| {
        Fatal::unavailable(format!(
            "cannot listen on {listen}: {error}; set admin.listen to a free address"
        ))
    };
    let listener = bind(listen, TcpListener::bind).map_err(unavailable)?;
    listener.set_nonblocking(true).map_err(unavailable)?;
    let address = listener.local_addr().map_err(unavailable)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(|error| Fatal::internal(format!("the admin server's runtime: {error}")))?;
    let (stop, stopped) = oneshot::channel::<()>();
    if token.is_empty() && !address.ip().is_loopback() {
        tracing::warn!(
            %address,
            "the admin server listens to other machines, and asks none for a token: set \
             admin.token_file, or see that the network keeps others from it"
        );
    }
    let router = router(token, health, metrics.clone(), clock);
    let serve = move || {
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(UPKEEP_INTERVAL).await;
                metrics.run_upkeep();
            }
        });
        runtime.spawn(async move {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => serve_all(listener, router).await,
                Err(error) => tracing::error!(%error, "the admin server ended"),
            }
        });
        // Dropping the runtime drops its connections, however slow they are.
        let _ = runtime.block_on(stopped);
    };
    let thread = std::thread::Builder::new()
        .name("admin".to_owned())
        .spawn(serve)
        .map_err(|error| Fatal::internal(format!("the admin server's thread: {error}")))?;
    Ok(Server { address, stop: Some(stop), thread: Some(thread) })
}

/// Serves for ever, a bounded number of connections at a time: those beyond wait
/// until others end, which silence and age see to.
async fn serve_all(listener: tokio::net::TcpListener, router: Router) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the admin server could not take a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = server.serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            // How it ends is the client's affair.
            let _ = tokio::time::timeout(CONNECTION_MAX, connection).await;
            drop(permit);
        });
    }
}

/// Listens. Where all addresses are asked for as `[::]`, which takes in those of
/// IPv4, and this machine has no IPv6, listens on those of IPv4 alone.
fn bind(
    listen: SocketAddr,
    listen_on: impl Fn(SocketAddr) -> std::io::Result<TcpListener>,
) -> std::io::Result<TcpListener> {
    let listening = listen_on(listen);
    let lacks_ipv6 = listening.as_ref().is_err_and(|error| {
        error.raw_os_error() == Some(libc::EAFNOSUPPORT)
            || error.kind() == std::io::ErrorKind::AddrNotAvailable
    });
    if lacks_ipv6 && listen.ip() == Ipv6Addr::UNSPECIFIED {
        return listen_on(SocketAddr::from((Ipv4Addr::UNSPECIFIED, listen.port())));
    }
    listening
}

fn router(
    token: &str,
    health: Arc<Health>,
    metrics: PrometheusHandle,
    clock: Arc<dyn Clock + Send + Sync>,
) -> Router {
    let (ready_health, ready_clock) = (Arc::clone(&health), Arc::clone(&clock));
    let live = move || async move { answer(&health.live(clock.monotonic_ms())) };
    let ready = move || async move { answer(&ready_health.ready(ready_clock.monotonic_ms())) };
    let expected = (!token.is_empty()).then(|| format!("Bearer {token}"));
    let metrics = move |headers: HeaderMap| async move {
        let given = headers.get(header::AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
        // In a time that does not tell how much of a guess was right.
        let is_same = |expected: String| bool::from(expected.as_bytes().ct_eq(given));
        if expected.is_some_and(|expected| !is_same(expected)) {
            let told = [(header::WWW_AUTHENTICATE, "Bearer")];
            return (StatusCode::UNAUTHORIZED, told, "admin.token is asked for\n").into_response();
        }
        ([(header::CONTENT_TYPE, METRICS_CONTENT_TYPE)], telemetry::render(&metrics))
            .into_response()
    };
    Router::new()
        .route("/live", get(live))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .fallback(|| async { (StatusCode::NOT_FOUND, "try /live, /ready or /metrics\n") })
}

fn answer(verdict: &Verdict) -> Response {
    let status = match verdict.ok {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    match serde_json::to_string(verdict) {
        Ok(body) => {
            (status, [(header::CONTENT_TYPE, "application/json")], body + "\n").into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::shard::Timestamp;

    struct ManualClock(AtomicI64);

    impl Clock for ManualClock {
        fn monotonic_ms(&self) -> i64 {
            self.0.load(Ordering::Relaxed)
        }
        fn wall(&self) -> Timestamp {
            Timestamp::MIN
        }
    }

    fn all_well() -> Health {
        let health = Health::new(2, 0);
        for thread in 0..2 {
            let report = ThreadReport {
                heard: true,
                assigned: 3,
                running: 3,
                near_head: true,
                ..Default::default()
            };
            health.report(thread, report);
        }
        health.set_redis(RedisHealth::Available);
        health
    }

    #[test]
    fn a_loop_that_does_not_turn_is_not_live() {
        let health = all_well();
        assert!(health.live(MAX_TURN_MS).ok);
        health.turned(0, 10_000);
        let verdict = health.live(MAX_TURN_MS + 1);
        assert!(!verdict.ok);
        assert_eq!(verdict.reasons, ["stream thread 1 has not come round its loop for 30 s"]);
    }

    #[test]
    fn not_ready_until_the_group_has_spoken_and_all_is_restored() {
        let health = Health::new(1, 0);
        assert!(health.live(0).ok);
        let reasons = health.ready(0).reasons;
        assert_eq!(
            reasons,
            ["stream thread 0 has not heard from the group yet", "Redis has not answered yet"]
        );
        health.set_redis(RedisHealth::Available);
        let mut report = ThreadReport {
            heard: true,
            assigned: 4,
            waiting: 1,
            restoring: 2,
            running: 1,
            ..Default::default()
        };
        health.report(0, report.clone());
        assert_eq!(health.ready(0).reasons.len(), 2);
        report.waiting = 0;
        report.restoring = 0;
        health.report(0, report.clone());
        assert_eq!(health.ready(0).reasons, ["stream thread 0: 1 of 4 shards run"]);
        report.running = 4;
        health.report(0, report);
        assert!(health.ready(0).ok);
        // A spare has nothing to do, and is ready to.
        health.report(0, ThreadReport { heard: true, ..Default::default() });
        assert!(health.ready(0).ok);
    }

    #[test]
    fn a_thread_that_the_group_has_nothing_for_is_ready_though_nobody_told_it() {
        let health = all_well();
        health.report(1, ThreadReport::default());
        let unheard = ["stream thread 1 has not heard from the group yet"];
        assert_eq!(health.ready(0).reasons, unheard);
        health.set_group(GroupHealth { spare: [0].into(), trouble: None });
        assert_eq!(health.ready(0).reasons, unheard);
        health.set_group(GroupHealth { spare: [1].into(), trouble: None });
        assert!(health.ready(0).ok);
    }

    #[test]
    fn what_kept_a_thread_from_kafka_is_told_instead_of_the_silence_and_while_it_lasts() {
        let health = all_well();
        let kafka_error = Some("all brokers are down".to_owned());
        health.report(1, ThreadReport { kafka_error, ..Default::default() });
        let reasons = health.ready(0).reasons;
        assert_eq!(reasons, ["stream thread 1 cannot reach Kafka: all brokers are down"]);
        health.report(1, ThreadReport::default());
        let reasons = health.ready(0).reasons;
        assert_eq!(reasons, ["stream thread 1 has not heard from the group yet"]);
    }

    #[test]
    fn a_partition_that_is_left_lying_makes_everybody_unready_and_nobody_dead() {
        let health = all_well();
        let trouble = Some("nobody has partition 2".to_owned());
        health.set_group(GroupHealth { trouble, ..Default::default() });
        assert_eq!(health.ready(0).reasons, ["nobody has partition 2"]);
        assert!(health.live(0).ok);
    }

    #[test]
    fn what_is_unreachable_makes_unready_and_not_dead() {
        let health = all_well();
        assert!(health.ready(0).ok);
        health.set_redis(RedisHealth::Unavailable("connection refused".to_owned()));
        let verdict = health.ready(0);
        assert_eq!(verdict.reasons, ["Redis is unavailable: connection refused"]);
        assert_eq!(verdict.redis, "unavailable");
        assert!(health.live(0).ok);

        let health = all_well();
        let kafka_error = Some("all brokers are down".to_owned());
        health.report(1, ThreadReport { kafka_error, ..Default::default() });
        assert!(!health.ready(0).ok && health.live(0).ok);

        let health = all_well();
        health.set_stopping();
        assert!(!health.ready(0).ok && health.live(0).ok);

        let health = all_well();
        health.set_fatal("first");
        health.set_fatal("second");
        assert_eq!(health.live(0).reasons, ["first"]);
    }

    fn request(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn the_server_answers_and_stops() {
        let health = Arc::new(all_well());
        let clock = Arc::new(ManualClock(AtomicI64::new(0)));
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = start(
            listen,
            "",
            Arc::clone(&health),
            metrics.clone(),
            Arc::<ManualClock>::clone(&clock),
        )
        .unwrap();
        let address = server.address();

        assert!(request(address, "/live").starts_with("HTTP/1.1 200"));
        let answer = request(address, "/ready");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("application/json"));
        assert!(answer.contains(r#""ok":true"#), "{answer}");
        let answer = request(address, "/metrics");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(METRICS_CONTENT_TYPE));
        assert!(request(address, "/").starts_with("HTTP/1.1 404"));

        clock.0.store(MAX_TURN_MS * 2, Ordering::Relaxed);
        let answer = request(address, "/live");
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("stream thread 0 has not come round"), "{answer}");

        let again = start(address, "", health, metrics, clock);
        assert!(again.unwrap_err().message.contains("admin.listen"));
        let open = TcpStream::connect(address).unwrap();
        drop(server);
        drop(open);
        assert!(TcpStream::connect(address).is_err());
    }

    #[test]
    fn all_addresses_are_those_of_ipv6_and_ipv4_or_of_ipv4_alone() {
        let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let reached = |listener: TcpListener, address: &str| {
            let address = format!("{address}:{}", listener.local_addr().unwrap().port());
            TcpStream::connect(address).is_ok()
        };
        // Where the machine that tests has IPv6.
        if TcpListener::bind("[::1]:0").is_ok() {
            for address in ["[::1]", "127.0.0.1"] {
                assert!(reached(bind(all, TcpListener::bind).unwrap(), address), "{address}");
            }
        }
        for code in [libc::EAFNOSUPPORT, libc::EADDRNOTAVAIL] {
            let without_ipv6 = |address: SocketAddr| match address.is_ipv6() {
                true => Err(std::io::Error::from_raw_os_error(code)),
                false => TcpListener::bind(address),
            };
            assert!(reached(bind(all, without_ipv6).unwrap(), "127.0.0.1"));
            let one = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
            assert_eq!(bind(one, without_ipv6).unwrap_err().raw_os_error(), Some(code));
        }
        let taken = |_| Err(std::io::Error::from_raw_os_error(libc::EADDRINUSE));
        assert_eq!(bind(all, taken).unwrap_err().raw_os_error(), Some(libc::EADDRINUSE));
    }

    #[test]
    fn connections_that_say_nothing_are_closed_and_keep_nobody_out() {
        let health = Arc::new(all_well());
        let clock = Arc::new(ManualClock(AtomicI64::new(0)));
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = start(listen, "", health, metrics, clock).unwrap();
        let silent: Vec<TcpStream> = (0..CONNECTIONS_MAX + 10)
            .map(|n| {
                let mut stream = TcpStream::connect(server.address()).unwrap();
                stream.set_read_timeout(Some(HEADER_TIMEOUT * 6)).unwrap();
                if n % 2 == 0 {
                    stream.write_all(b"GET /live HTTP/1.1\r\nHost:").unwrap();
                }
                stream
            })
            .collect();
        assert!(request(server.address(), "/live").starts_with("HTTP/1.1 200"));
        for mut stream in silent {
            let mut answer = Vec::new();
            // Closed, be it with a word or without: not a timeout of ours.
            if let Err(error) = stream.read_to_end(&mut answer) {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            }
        }
    }

    #[test]
    fn metrics_ask_for_the_token_and_probes_do_not() {
        let health = Arc::new(all_well());
        let clock = Arc::new(ManualClock(AtomicI64::new(0)));
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = start(listen, "s3cret", health, metrics, clock).unwrap();
        let with = |token: &str| {
            let line = format!("/metrics HTTP/1.1\r\nAuthorization: {token}\r\nX:");
            request(server.address(), &line)
        };
        assert!(with("Bearer s3cret").starts_with("HTTP/1.1 200"));
        for wrong in ["", "s3cret", "Bearer s3cre", "Bearer s3crets", "Bearer s3creT"] {
            let answer = with(wrong);
            assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
            assert!(answer.to_lowercase().contains("www-authenticate: bearer"), "{answer}");
        }
        assert!(request(server.address(), "/metrics").starts_with("HTTP/1.1 401"));
        assert!(request(server.address(), "/live").starts_with("HTTP/1.1 200"));
        assert!(request(server.address(), "/ready").starts_with("HTTP/1.1 200"));
    }
}
