//! A real master and replica under a real Sentinel, on free ports.

use redis::Connection;

use super::redis::{RedisServer, wait_for};
use super::redis_tls::Authority;

/// A master and its replica, and three Sentinels of which two must agree.
pub struct RedisSentinel {
    /// The first master, until it is killed.
    pub master: RedisServer,
    /// Its replica.
    pub replica: RedisServer,
    sentinels: Vec<RedisServer>,
    /// Where clients reach the Sentinels.
    ports: Vec<u16>,
}

impl RedisSentinel {
    /// All of them, knowing each other. `password` is that of the servers, and
    /// of the Sentinels.
    pub fn start(password: &str) -> RedisSentinel {
        RedisSentinel::start_with(password, None)
    }

    /// The same; with an authority all speak TLS with each other and to clients,
    /// and want certificates.
    pub fn start_with(password: &str, authority: Option<&Authority>) -> RedisSentinel {
        let tls = || authority.map_or_else(Vec::new, Authority::server_settings);
        let credentials = ["--requirepass", password];
        let master = with_password(&credentials, &tls(), password);
        // As whom the replica follows, so that a test can cut it off.
        redis::cmd("ACL")
            .arg(&["SETUSER", "follower", "on", ">follow", "+psync", "+replconf", "+ping"])
            .exec(&mut master.connection())
            .unwrap();
        let replica = with_password(
            &[
                &credentials[..],
                &["--replicaof", "127.0.0.1", &master.public_port().to_string()],
                &["--masteruser", "follower", "--masterauth", "follow"],
                &["--repl-diskless-sync-delay", "0"],
            ]
            .concat(),
            &tls(),
            password,
        );
        let mut ports = Vec::new();
        let mut sentinel = || {
            // A Sentinel does not tell its settings.
            let tls = tls();
            let started = RedisServer::start_sentinel_with(master.public_port(), password, &tls);
            ports.push(tls.get(1).map_or(started.port(), |port| port.parse().unwrap()));
            started
        };
        let sentinels = vec![sentinel(), sentinel(), sentinel()];
        let cluster = RedisSentinel { master, replica, sentinels, ports };
        for sentinel in &cluster.sentinels {
            let mut connection = sentinel.connection();
            wait_for("the Sentinel to know them all", || {
                let known = known(&mut connection);
                known("num-slaves") == Some("1".to_owned())
                    && known("num-other-sentinels") == Some("2".to_owned())
            });
        }
        cluster
    }

    /// Cuts the replica off: what is written from now on is lost with the master.
    pub fn cut_off_replica(&self) {
        let mut connection = self.master.connection();
        let mut run = |words: &[&str]| {
            redis::cmd(words[0]).arg(&words[1..]).exec(&mut connection).unwrap();
        };
        run(&["ACL", "SETUSER", "follower", "off"]);
        run(&["CLIENT", "KILL", "TYPE", "replica"]);
    }

    /// For `redis.url`, without passwords.
    pub fn url(&self) -> String {
        let hosts: Vec<String> =
            self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let scheme = if self.master.tls_port().is_some() { "rediss" } else { "redis" };
        format!("{scheme}-sentinel://{}/main/0", hosts.join(","))
    }
}

fn with_password(settings: &[&str], more: &[String], password: &str) -> RedisServer {
    let settings: Vec<&str> =
        settings.iter().copied().chain(more.iter().map(String::as_str)).collect();
    RedisServer::start_with_password(&settings, password)
}

/// What the Sentinel knows of the master, by name.
fn known(connection: &mut Connection) -> impl Fn(&str) -> Option<String> + use<> {
    let answer = redis::cmd("SENTINEL").arg("MASTER").arg("main").query::<Vec<String>>(connection);
    let words = answer.unwrap_or_default();
    move |name| {
        let at = words.iter().position(|word| word == name)?;
        words.get(at + 1).cloned()
    }
}
