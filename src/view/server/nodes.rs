//! Connections to all servers of the view: to one server, or to each master of a
//! cluster, with the map of its slots.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use redis::cluster_routing::Slot;
use redis::{
    Cmd, Connection, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError, ServerErrorKind, Value,
};

use super::access::{Access, complaint, first_of, moved_to, said};
use crate::config::redis_url::RedisServers;
use crate::view::core::answer::text;
use crate::view::core::layout::{Layout, SLOTS, Slots};

/// The maximum number of redirections of a command. One is usual while slots move.
const REDIRECTIONS_MAX: usize = 5;

/// The answer to a command.
pub type Reply = Result<Value, RedisError>;

struct Node {
    server: ConnectionInfo,
    connection: Connection,
}

/// Connections to all servers.
pub struct Nodes {
    access: Arc<Access>,
    nodes: Vec<Node>,
    slots: Option<Slots>,
    /// The slots have changed since `take_changed` was called.
    changed: bool,
    /// When the slots were last read without a redirection.
    looked_ms: Option<i64>,
}

/// How often the slots of a cluster are read without a redirection.
const LOOK_INTERVAL_MS: i64 = 10_000;

impl Nodes {
    /// Connects to all.
    ///
    /// # Errors
    /// When one of them does not answer. A part of the view is useless, since the state
    /// of the rest is unknown.
    pub fn connect(access: &Arc<Access>) -> Result<Nodes, String> {
        let mut nodes = Nodes {
            access: access.clone(),
            nodes: Vec::new(),
            slots: None,
            changed: false,
            looked_ms: None,
        };
        match &access.servers {
            RedisServers::One(server) => {
                nodes.node(server)?;
                nodes.check_kind()?;
            }
            RedisServers::Sentinel { sentinels, master, server } => {
                let server = access.master_of(sentinels, master, server)?;
                nodes.node(&server)?;
                nodes.check_kind()?;
            }
            RedisServers::Cluster(seeds) => nodes.learn_from(seeds)?,
        }
        Ok(nodes)
    }

    /// Refuses a server of another kind than `redis.url` says, if `INFO` is allowed.
    fn check_kind(&mut self) -> Result<(), String> {
        let answer = self.exchange_on(0, &[redis::cmd("INFO").arg("server").clone()])?.pop();
        let info = answer.and_then(|answer| text(&answer.ok()?)).unwrap_or_default();
        // Valkey has another name for it.
        let mode = said(&info, "redis_mode").or_else(|| said(&info, "server_mode"));
        let (what, form) = match mode {
            Some("sentinel") => {
                ("is a Sentinel, which holds no data", "redis-sentinel://host:port/NAME")
            }
            Some("cluster") => ("belongs to a cluster", "redis-cluster://host:port"),
            _ => return Ok(()),
        };
        Err(format!("the server {what}: write redis.url as {form}"))
    }

    /// A new connection for subscriptions, to any server: the nodes of a cluster forward
    /// messages to each other.
    ///
    /// # Errors
    /// When no server answers.
    pub fn listener(&self) -> Result<Connection, String> {
        first_of(&self.nodes, |node| self.access.connect(&node.server))
    }

    /// The number of servers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Which node holds which key.
    #[must_use]
    pub fn layout(&self) -> Layout {
        Layout::new(self.slots.clone())
    }

    /// Whether the layout has changed since the last call.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The index of the node with an address; connects if it is new.
    fn node(&mut self, server: &ConnectionInfo) -> Result<usize, String> {
        if let Some(known) = self.nodes.iter().position(|node| node.server.addr() == server.addr())
        {
            return Ok(known);
        }
        let connection = self.access.connect(server)?;
        self.nodes.push(Node { server: server.clone(), connection });
        Ok(self.nodes.len() - 1)
    }

    /// Reads the slots of the cluster from the first node that answers, and connects to
    /// all masters.
    fn learn_from(&mut self, seeds: &[ConnectionInfo]) -> Result<(), String> {
        first_of(seeds, |seed| {
            let mut connection = self.access.connect(seed)?;
            let asked = redis::cmd("CLUSTER").arg("SLOTS").clone();
            let answer = exchange(&mut connection, &[asked])?.pop().ok_or("no answer")?;
            let value = answer.map_err(|error| match error.to_string() {
                text if text.contains("cluster support disabled") => {
                    let server = seed.addr();
                    format!("{server} is not a cluster: begin redis.url with redis://")
                }
                _ => complaint(&error),
            })?;
            // A node that was removed from its cluster returns none.
            let ranges = parse_slots(&value, seed)?;
            self.adopt(&ranges).map_err(|error| format!("{}: {error}", seed.addr()))
        })
    }

    fn adopt(&mut self, ranges: &[(u16, u16, ConnectionInfo)]) -> Result<(), String> {
        let mut slots: HashMap<Slot, u16, _> = HashMap::default();
        // In the order of their slots, so that a scan can continue.
        let mut masters: Vec<&ConnectionInfo> = Vec::new();
        for (first, last, server) in ranges {
            let known = masters.iter().position(|master| master.addr() == server.addr());
            let number = known.unwrap_or_else(|| {
                masters.push(server);
                masters.len() - 1
            });
            let number = u16::try_from(number).map_err(|_| "the cluster is too large")?;
            slots.extend((*first..=*last).filter_map(Slot::new).map(|slot| (slot, number)));
        }
        let missing = usize::from(SLOTS) - slots.len();
        if missing > 0 {
            return Err(format!(
                "{missing} of the cluster's {SLOTS} slots have no master; \
                 see CLUSTER NODES and CLUSTER SLOTS"
            ));
        }
        let mut before = std::mem::take(&mut self.nodes);
        let servers_before: Vec<ConnectionAddr> =
            before.iter().map(|node| node.server.addr().clone()).collect();
        for server in masters {
            let known = before.iter().position(|node| node.server.addr() == server.addr());
            match known {
                Some(known) => self.nodes.push(before.swap_remove(known)),
                None => drop(self.node(server)?),
            }
        }
        let servers = self.nodes.iter().map(|node| node.server.addr());
        self.changed |= self.slots.as_deref() != Some(&slots) || !servers.eq(servers_before.iter());
        self.slots = Some(Arc::new(slots));
        Ok(())
    }

    /// Sends commands, as one pipeline per server, and collects the answers. Redirections
    /// are followed.
    ///
    /// # Errors
    /// When an answer did not come, so the commands may or may not have run.
    pub fn exchange(&mut self, commands: &[Cmd]) -> Result<Vec<Reply>, String> {
        if self.slots.is_none() {
            return match self.nodes.first_mut() {
                Some(node) => exchange(&mut node.connection, commands),
                None => Err("not connected".to_owned()),
            };
        }
        let mut answers: Vec<Option<Reply>> = Vec::new();
        answers.resize_with(commands.len(), || None);
        let everything: Vec<usize> = (0..commands.len()).collect();
        self.send_to_owners(commands, &everything, &mut answers)?;
        for _ in 0..REDIRECTIONS_MAX {
            let of = |kind| {
                let redirected = |i: &usize| matches!(&answers[*i], Some(Err(error)) if error.kind() == ErrorKind::Server(kind));
                everything.iter().copied().filter(redirected).collect::<Vec<usize>>()
            };
            let (moved, asked) = (of(ServerErrorKind::Moved), of(ServerErrorKind::Ask));
            if moved.is_empty() && asked.is_empty() {
                break;
            }
            for i in asked {
                let target = answers[i].as_ref().and_then(|answer| target(answer.as_ref().err()?));
                if let Some((host, port)) = target {
                    answers[i] = Some(self.ask(&host, port, &commands[i])?);
                }
            }
            if !moved.is_empty() {
                self.relearn()?;
                self.send_to_owners(commands, &moved, &mut answers)?;
            }
        }
        answers.into_iter().map(|answer| answer.ok_or_else(|| "no answer".to_owned())).collect()
    }

    /// Sends commands to one server, regardless of their keys.
    ///
    /// # Errors
    /// As [`Nodes::exchange`].
    pub fn exchange_on(&mut self, node: usize, commands: &[Cmd]) -> Result<Vec<Reply>, String> {
        let node = self.nodes.get_mut(node).ok_or("there is no such server")?;
        exchange(&mut node.connection, commands)
    }

    /// Reads the slots of a cluster again, from time to time. No redirection tells of
    /// moved slots without keys of ours, and a redirection may have led to a node that
    /// did not know all moves yet.
    ///
    /// # Errors
    /// When no node answers, or a master cannot be reached.
    pub fn look_again(&mut self, now_ms: i64) -> Result<(), String> {
        let looked_ms = *self.looked_ms.get_or_insert(now_ms);
        if self.slots.is_none() || now_ms - looked_ms < LOOK_INTERVAL_MS {
            return Ok(());
        }
        self.looked_ms = Some(now_ms);
        self.relearn()
    }

    fn relearn(&mut self) -> Result<(), String> {
        let known: Vec<ConnectionInfo> =
            self.nodes.iter().map(|node| node.server.clone()).collect();
        self.learn_from(&known)
    }

    fn ask(&mut self, host: &str, port: u16, command: &Cmd) -> Result<Reply, String> {
        let template = self.nodes.first().map(|node| node.server.clone());
        let server = moved_to(&template.ok_or("not connected")?, host, port);
        let mut other;
        let connection =
            match self.nodes.iter_mut().find(|node| node.server.addr() == server.addr()) {
                Some(node) => &mut node.connection,
                None => {
                    other = self.access.connect(&server)?;
                    &mut other
                }
            };
        let answers = exchange(connection, &[redis::cmd("ASKING"), command.clone()])?;
        answers.into_iter().next_back().ok_or_else(|| "no answer".to_owned())
    }

    fn send_to_owners(
        &mut self,
        commands: &[Cmd],
        which: &[usize],
        answers: &mut [Option<Reply>],
    ) -> Result<(), String> {
        let mut of_node: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for &i in which {
            let slot = key_of(&commands[i]).map(Slot::for_key);
            let owner = slot.zip(self.slots.as_ref()).and_then(|(slot, slots)| slots.get(&slot));
            of_node.entry(owner.map_or(0, |owner| usize::from(*owner))).or_default().push(i);
        }
        // Send to all nodes before waiting for answers, so that they work in parallel.
        for (node, commands_of) in &of_node {
            let node = self.nodes.get_mut(*node).ok_or("not connected")?;
            send(&mut node.connection, commands_of.iter().map(|&i| &commands[i]))?;
        }
        for (node, commands_of) in of_node {
            let node = self.nodes.get_mut(node).ok_or("not connected")?;
            for i in commands_of {
                answers[i] = Some(receive(&mut node.connection)?);
            }
        }
        Ok(())
    }
}

/// The key that determines the node of a command.
fn key_of(command: &Cmd) -> Option<&[u8]> {
    let argument = |n| match command.args_iter().nth(n) {
        Some(redis::Arg::Simple(bytes)) => Some(bytes),
        _ => None,
    };
    if argument(0)? == b"EVALSHA" { argument(3) } else { argument(1) }
}

/// The host and port of a redirection.
fn target(error: &RedisError) -> Option<(String, u16)> {
    let (address, _) = error.redirect_node()?;
    let (host, port) = address.rsplit_once(':')?;
    Some((host.to_owned(), port.parse().ok()?))
}

/// Parses the answer to `CLUSTER SLOTS`: first and last slot, and their master.
fn parse_slots(
    value: &Value,
    asked: &ConnectionInfo,
) -> Result<Vec<(u16, u16, ConnectionInfo)>, String> {
    let own_host = match asked.addr() {
        redis::ConnectionAddr::Tcp(host, _) | redis::ConnectionAddr::TcpTls { host, .. } => host,
        _ => "",
    };
    let range = |value: &Value| {
        let Value::Array(parts) = value else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = &parts[..] else {
            return None;
        };
        let [host, Value::Int(port), ..] = &master[..] else { return None };
        // A node that does not know its own address has the one that we used.
        let host = text(host).filter(|host| !host.is_empty() && host != "?");
        let host = host.unwrap_or_else(|| own_host.to_owned());
        let server = moved_to(asked, &host, u16::try_from(*port).ok()?);
        Some((u16::try_from(*first).ok()?, u16::try_from(*last).ok()?, server))
    };
    let Value::Array(items) = value else {
        return Err("the answer to CLUSTER SLOTS is malformed".to_owned());
    };
    let mut ranges: Vec<_> = items.iter().filter_map(range).collect();
    ranges.sort_by_key(|(first, ..)| *first);
    Ok(ranges)
}

/// Sends commands as one pipeline and collects the answers.
///
/// The crate's own pipelines wait for each answer even after one has timed out. For
/// hundreds of commands that is half an hour. This function stops at once.
fn exchange(connection: &mut Connection, commands: &[Cmd]) -> Result<Vec<Reply>, String> {
    send(connection, commands.iter())?;
    commands.iter().map(|_| receive(connection)).collect()
}

fn send<'a>(
    connection: &mut Connection,
    commands: impl ExactSizeIterator<Item = &'a Cmd>,
) -> Result<(), String> {
    if commands.len() == 0 {
        return Ok(());
    }
    let mut bytes = Vec::with_capacity(commands.len() * 384);
    for command in commands {
        command.write_packed_command(&mut bytes);
    }
    connection.send_packed_command(&bytes).map_err(|error| error.to_string())
}

fn receive(connection: &mut Connection) -> Result<Reply, String> {
    loop {
        match connection.recv_response() {
            Ok(Value::Push { .. }) => {}
            Ok(value) => return Ok(value.extract_error()),
            Err(error) => return Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_command_is_found() {
        let mut script = redis::cmd("EVALSHA");
        script.arg("sha").arg(1).arg("key").arg("other");
        assert_eq!(key_of(&script), Some(&b"key"[..]));
        assert_eq!(key_of(redis::cmd("HGETALL").arg("key")), Some(&b"key"[..]));
        assert_eq!(key_of(&redis::cmd("TIME")), None);
    }
}
