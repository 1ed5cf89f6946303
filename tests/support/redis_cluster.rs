//! A real Redis Cluster on free ports: masters, and a replica of each if wanted.

use redis::Connection;
use redis::cluster::{ClusterClient, ClusterConnection};

use super::process::free_port;
use super::redis::{RedisServer, wait_for};
use super::redis_tls::Authority;

/// How long a node may be silent before the others vote.
const NODE_TIMEOUT_MS: &str = "1500";

/// As whom replicas follow, so that a test can cut them off.
const FOLLOWER: &[&str] =
    &["ACL", "SETUSER", "follower", "on", ">follow", "+psync", "+replconf", "+ping"];

/// A cluster.
pub struct RedisCluster {
    masters: Vec<Option<RedisServer>>,
    /// The replica of each master, if there are any.
    replicas: Vec<RedisServer>,
}

impl RedisCluster {
    /// So many masters that share the slots out evenly, and a replica for each.
    pub fn start(masters: usize, with_replicas: bool) -> RedisCluster {
        RedisCluster::start_with(masters, with_replicas, None)
    }

    /// The same; with an authority all speak TLS with each other and to clients,
    /// and want certificates.
    pub fn start_with(
        masters: usize,
        with_replicas: bool,
        authority: Option<&Authority>,
    ) -> RedisCluster {
        let followers = if with_replicas { masters } else { 0 };
        let tls = || authority.map_or_else(Vec::new, Authority::server_settings);
        let mut servers: Vec<RedisServer> =
            (0..masters + followers).map(|_| node(&tls())).collect();
        for (n, server) in servers[..masters].iter().enumerate() {
            let slots = slots_of(n, masters);
            let slots = [slots.start().to_string(), slots.end().to_string()];
            let mut command = redis::cmd("CLUSTER");
            let mut connection = server.connection();
            command.arg("ADDSLOTSRANGE").arg(&slots).exec(&mut connection).unwrap();
        }
        for (n, server) in servers.iter().enumerate() {
            let mut connection = server.connection();
            run(&mut connection, FOLLOWER);
            run(&mut connection, &["CLUSTER", "SET-CONFIG-EPOCH", &(n + 1).to_string()]);
            if n > 0 {
                meet(&mut connection, &servers[0]);
            }
        }
        for (n, server) in servers.iter().enumerate() {
            let mut connection = server.connection();
            wait_for("the nodes to know each other", || {
                let nodes = said(&mut connection, &["CLUSTER", "NODES"]);
                let known = nodes.lines().filter(|line| line.contains("connected")).count();
                known == servers.len() && !nodes.contains("handshake")
            });
            if n >= masters {
                let master = said(&mut servers[n - masters].connection(), &["CLUSTER", "MYID"]);
                run(&mut connection, &["CLUSTER", "REPLICATE", &master]);
            }
        }
        for (n, server) in servers.iter().enumerate() {
            let mut connection = server.connection();
            wait_for("the cluster to be whole", || {
                let info = said(&mut connection, &["CLUSTER", "INFO"]);
                let follows = n < masters
                    || said(&mut connection, &["INFO", "replication"])
                        .contains("master_link_status:up");
                info.contains("cluster_state:ok") && follows
            });
        }
        let replicas = servers.split_off(masters);
        let masters = servers.into_iter().map(Some).collect();
        RedisCluster { masters, replicas }
    }

    /// For `redis.url`.
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self
            .masters
            .iter()
            .flatten()
            .chain(&self.replicas)
            .map(|server| format!("127.0.0.1:{}", server.public_port()))
            .collect();
        let tls = self.masters.iter().flatten().any(|server| server.tls_port().is_some());
        let scheme = if tls { "rediss" } else { "redis" };
        format!("{scheme}-cluster://{}", hosts.join(","))
    }

    /// A connection to the whole, by the crate's own client.
    pub fn connection(&self) -> ClusterConnection {
        let servers = self.masters.iter().flatten().chain(&self.replicas);
        let urls = servers.map(RedisServer::url);
        let mut found = None;
        wait_for("the cluster to be reached", || {
            let client = ClusterClient::new(urls.clone().collect::<Vec<_>>()).unwrap();
            found = client.get_connection().ok();
            found.as_mut().is_some_and(|connection| connection.check_connection())
        });
        found.unwrap()
    }

    /// One of the first masters.
    pub fn master(&self, n: usize) -> &RedisServer {
        self.masters[n].as_ref().expect("the master runs")
    }

    /// Cuts a master's replica off: what is written from now on is lost with
    /// the master.
    pub fn cut_off_replica(&self, n: usize) {
        let mut connection = self.master(n).connection();
        run(&mut connection, &["ACL", "SETUSER", "follower", "off"]);
        run(&mut connection, &["CLIENT", "KILL", "TYPE", "replica"]);
    }

    /// SIGKILL to a master, whose replica will take over.
    pub fn kill_master(&mut self, n: usize) {
        self.masters[n] = None;
    }

    /// Waits until the replica of a killed master has taken over.
    #[track_caller]
    pub fn wait_for_failover(&self, n: usize) {
        let mut connection = self.replicas[n].connection();
        wait_for("the replica to take over", || {
            said(&mut connection, &["INFO", "replication"]).contains("role:master")
                && said(&mut connection, &["CLUSTER", "INFO"]).contains("cluster_state:ok")
        });
    }

    /// Adds an empty master and moves slots to it from the first, with their keys.
    pub fn move_slots_to_a_new_master(&mut self, slots: std::ops::Range<u16>) {
        let server = node(&[]);
        let mut new = server.connection();
        run(&mut new, &["CLUSTER", "SET-CONFIG-EPOCH", "99"]);
        meet(&mut new, self.master(0));
        let mut first = self.master(0).connection();
        let (from, to) =
            (said(&mut first, &["CLUSTER", "MYID"]), said(&mut new, &["CLUSTER", "MYID"]));
        wait_for("the new node to be known", || {
            let known = |connection: &mut Connection| {
                let nodes = said(connection, &["CLUSTER", "NODES"]);
                nodes.contains(&from) && nodes.contains(&to) && !nodes.contains("handshake")
            };
            let whole = said(&mut new, &["CLUSTER", "INFO"]).contains("cluster_state:ok");
            known(&mut first) && known(&mut new) && whole
        });
        let port = server.port().to_string();
        for slot in slots {
            let slot = slot.to_string();
            run(&mut new, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from]);
            run(&mut first, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to]);
            loop {
                let mut command = redis::cmd("CLUSTER");
                command.arg("GETKEYSINSLOT").arg(&slot).arg(100);
                let keys: Vec<String> = command.query(&mut first).unwrap();
                if keys.is_empty() {
                    break;
                }
                let mut migrate = redis::cmd("MIGRATE");
                migrate.arg("127.0.0.1").arg(&port).arg("").arg(0).arg(5_000).arg("KEYS").arg(keys);
                migrate.exec(&mut first).unwrap();
            }
            // The other masters hear of it from these.
            for connection in [&mut new, &mut first] {
                run(connection, &["CLUSTER", "SETSLOT", &slot, "NODE", &to]);
            }
        }
        self.masters.push(Some(server));
    }

    /// Empties a master and gives its slots to another: it serves nobody any more.
    pub fn take_slots_away(&self, from: usize, to: usize) {
        let new = said(&mut self.master(to).connection(), &["CLUSTER", "MYID"]);
        let mut all = redis::pipe();
        for slot in slots_of(from, self.masters.len()) {
            all.cmd("CLUSTER").arg("SETSLOT").arg(slot).arg("NODE").arg(&new).ignore();
        }
        let mut old = self.master(from).connection();
        // Together, or a write comes between: who holds keys may not give them away.
        let mut leave = redis::pipe();
        leave.cmd("FLUSHALL").ignore();
        leave.cmd("CLIENT").arg("PAUSE").arg(5_000).arg("WRITE").ignore();
        leave.exec(&mut old).unwrap();
        all.exec(&mut old).unwrap();
        // Without a slot it is a replica from here on, which is not told.
        for other in (0..self.masters.len()).filter(|other| *other != from) {
            all.exec(&mut self.master(other).connection()).unwrap();
        }
        run(&mut old, &["CLIENT", "UNPAUSE"]);
    }

    /// Takes a master without slots out of the cluster, which it goes on beside.
    pub fn forget(&self, gone: usize) {
        let mut node = self.master(gone).connection();
        let id = said(&mut node, &["CLUSTER", "MYID"]);
        for other in (0..self.masters.len()).filter(|other| *other != gone) {
            run(&mut self.master(other).connection(), &["CLUSTER", "FORGET", &id]);
        }
        run(&mut node, &["CLUSTER", "RESET"]);
    }
}

/// The slots that the nth of so many masters begins with.
fn slots_of(n: usize, masters: usize) -> std::ops::RangeInclusive<usize> {
    let share = 16_384 / masters;
    let last = if n + 1 == masters { 16_383 } else { (n + 1) * share - 1 };
    n * share..=last
}

fn node(more: &[String]) -> RedisServer {
    let bus_port = free_port().to_string();
    let settings = [
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        &bus_port,
        "--cluster-node-timeout",
        NODE_TIMEOUT_MS,
        "--cluster-replica-validity-factor",
        "0",
        "--masteruser",
        "follower",
        "--masterauth",
        "follow",
        "--repl-diskless-sync-delay",
        "0",
    ];
    let settings: Vec<&str> = settings.into_iter().chain(more.iter().map(String::as_str)).collect();
    RedisServer::start_with(&settings)
}

fn meet(connection: &mut Connection, other: &RedisServer) {
    let bus_port = said(&mut other.connection(), &["CONFIG", "GET", "cluster-port"]);
    let bus_port = bus_port.lines().last().unwrap().to_owned();
    let port = other.public_port().to_string();
    run(connection, &["CLUSTER", "MEET", "127.0.0.1", &port, &bus_port]);
}

fn run(connection: &mut Connection, words: &[&str]) {
    redis::cmd(words[0]).arg(&words[1..]).exec(connection).unwrap();
}

/// What a command answers, lists as lines.
fn said(connection: &mut Connection, words: &[&str]) -> String {
    let value: redis::Value = redis::cmd(words[0]).arg(&words[1..]).query(connection).unwrap();
    match value {
        redis::Value::Array(items) => {
            let words = items.into_iter().map(|item| redis::from_redis_value(item).unwrap());
            words.collect::<Vec<String>>().join("\n")
        }
        value => redis::from_redis_value(value).unwrap(),
    }
}
