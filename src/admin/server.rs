//! The HTTP server of the probes and metrics, on its own thread.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
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
use subtle::ConstantTimeEq as _;
use tokio::sync::{Semaphore, oneshot};

use super::health::{Health, ProbeResult};
use crate::error::Fatal;
use crate::stream_thread::ports::Clock;
use crate::telemetry;

/// How often histograms are compacted, so that they do not grow without scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The maximum number of open connections.
const CONNECTIONS_MAX: usize = 64;

/// The timeout for a request's header, and for an idle connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum lifetime of a connection, for clients that read slowly.
const CONNECTION_MAX: Duration = Duration::from_secs(300);

/// The wait after a failed accept, for example without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// The content type of Prometheus's text format.
const METRICS_CONTENT_TYPE: &str = "text/plain; version=0.0.4";

/// The answer to a scrape without the right token.
const NO_TOKEN: &str = "unauthorized: send the header `Authorization: Bearer <admin.token>`\n";

/// The running server. It stops when dropped.
#[derive(Debug)]
pub struct Server {
    /// The address, with the actual port if port 0 was configured.
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Starts the server. `/metrics` requires `token`, unless it is empty.
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
            .map_err(|error| Fatal::internal(format!("cannot start the admin server: {error}")))?;
    let (stop, stopped) = oneshot::channel::<()>();
    if token.is_empty() && !address.ip().is_loopback() {
        tracing::warn!(
            %address,
            "the admin server accepts connections from other machines, and /metrics requires no \
             token: set admin.token_file, or restrict access in the network"
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
                Err(error) => tracing::error!(
                    %error,
                    "the admin server stopped: /live, /ready and /metrics do not answer; restart \
                     the process"
                ),
            }
        });
        // Dropping the runtime closes all connections.
        let _ = runtime.block_on(stopped);
    };
    let thread =
        std::thread::Builder::new().name("admin".to_owned()).spawn(serve).map_err(|error| {
            Fatal::internal(format!("cannot start the admin server's thread: {error}"))
        })?;
    Ok(Server { address, stop: Some(stop), thread: Some(thread) })
}

/// Accepts connections for ever, up to a limit. Further ones wait until others end,
/// which the timeouts ensure.
async fn serve_all(listener: tokio::net::TcpListener, router: Router) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the admin server cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = server.serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            // An error here is the client's.
            let _ = tokio::time::timeout(CONNECTION_MAX, connection).await;
            drop(permit);
        });
    }
}

/// Binds the address. `[::]` includes IPv4; without IPv6 on this machine it falls back to
/// IPv4 only.
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
        // Constant time, so that the time reveals nothing about the token.
        let is_same = |expected: String| bool::from(expected.as_bytes().ct_eq(given));
        if expected.is_some_and(|expected| !is_same(expected)) {
            let told = [(header::WWW_AUTHENTICATE, "Bearer")];
            return (StatusCode::UNAUTHORIZED, told, NO_TOKEN).into_response();
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

fn answer(probe: &ProbeResult) -> Response {
    let status = match probe.ok {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    match serde_json::to_string(probe) {
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
    use std::sync::atomic::{AtomicI64, Ordering};

    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::admin::health::MAX_TURN_MS;
    use crate::admin::health::tests::all_well;
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
        let address = server.address;

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
        assert!(answer.contains("stream thread 0 is stuck"), "{answer}");

        let again = start(address, "", health, metrics, clock);
        assert!(again.unwrap_err().message.contains("admin.listen"));
        let open = TcpStream::connect(address).unwrap();
        drop(server);
        drop(open);
        assert!(TcpStream::connect(address).is_err());
    }

    #[test]
    fn unspecified_address_is_ipv6_and_ipv4_or_ipv4_only() {
        let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let reached = |listener: TcpListener, address: &str| {
            let address = format!("{address}:{}", listener.local_addr().unwrap().port());
            TcpStream::connect(address).is_ok()
        };
        // Only on a machine with IPv6.
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
    fn silent_connections_are_closed_and_block_no_others() {
        let health = Arc::new(all_well());
        let clock = Arc::new(ManualClock(AtomicI64::new(0)));
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = start(listen, "", health, metrics, clock).unwrap();
        let silent: Vec<TcpStream> = (0..CONNECTIONS_MAX + 10)
            .map(|n| {
                let mut stream = TcpStream::connect(server.address).unwrap();
                stream.set_read_timeout(Some(HEADER_TIMEOUT * 6)).unwrap();
                if n % 2 == 0 {
                    stream.write_all(b"GET /live HTTP/1.1\r\nHost:").unwrap();
                }
                stream
            })
            .collect();
        assert!(request(server.address, "/live").starts_with("HTTP/1.1 200"));
        for mut stream in silent {
            let mut answer = Vec::new();
            // The server closed it, with or without an answer; our read did not time out.
            if let Err(error) = stream.read_to_end(&mut answer) {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            }
        }
    }

    #[test]
    fn metrics_require_the_token_and_probes_do_not() {
        let health = Arc::new(all_well());
        let clock = Arc::new(ManualClock(AtomicI64::new(0)));
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = start(listen, "s3cret", health, metrics, clock).unwrap();
        let with = |token: &str| {
            let line = format!("/metrics HTTP/1.1\r\nAuthorization: {token}\r\nX:");
            request(server.address, &line)
        };
        assert!(with("Bearer s3cret").starts_with("HTTP/1.1 200"));
        for wrong in ["", "s3cret", "Bearer s3cre", "Bearer s3crets", "Bearer s3creT"] {
            let answer = with(wrong);
            assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
            assert!(answer.to_lowercase().contains("www-authenticate: bearer"), "{answer}");
        }
        assert!(request(server.address, "/metrics").starts_with("HTTP/1.1 401"));
        assert!(request(server.address, "/live").starts_with("HTTP/1.1 200"));
        assert!(request(server.address, "/ready").starts_with("HTTP/1.1 200"));
    }
}
