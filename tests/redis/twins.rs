//! The twins of the scripts, which the simulation runs, do what the scripts do
//! on a real Redis: the same random calls, answer by answer and key by key.

#[path = "../simulation/redis/server.rs"]
#[allow(dead_code, reason = "the simulation uses the rest")]
mod server;

use std::collections::{BTreeMap, BTreeSet};

use crate::support::owner::Dice;
use crate::support::redis::RedisServer;
use device_status::view::scripts::{Script, load_commands};
use redis::{Cmd, Connection, Value};
use server::{Held, Key, Keyspace, Server, words};

const STATUSES: [&str; 3] = ["online", "offline", "post-provisioning"];
const FLEETS: [&str; 3] = ["", "red", "a:b"];

struct Calls {
    dice: Dice,
}

impl Calls {
    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.dice.roll(from.len())]
    }

    fn number(&mut self, end: usize) -> String {
        self.dice.roll(end).to_string()
    }

    fn device(&mut self) -> String {
        format!("ds:device:d{}", self.dice.roll(3))
    }

    fn fleet(&mut self) -> String {
        format!("ds:fleet:{}:3", self.pick(&FLEETS))
    }

    fn set(&mut self) -> String {
        format!("{}:members:{}", self.fleet(), self.pick(&STATUSES))
    }

    fn marker(&mut self) -> String {
        format!("ds:partition:{}", self.dice.roll(2))
    }

    fn any(&mut self) -> String {
        match self.dice.roll(5) {
            0 => self.device(),
            1 => self.fleet(),
            2 => self.set(),
            3 => self.marker(),
            _ => "ds:owner".to_owned(),
        }
    }

    /// One that is read as such, mostly.
    fn token(&mut self) -> String {
        match self.dice.roll(12) {
            0 => self.pick(&["", "3:1", "x:1:2", "3:1:", "3:1:2:4", "-3:1:2"]).to_owned(),
            _ => format!("3:{}:{}", self.dice.roll(3) + 1, self.dice.roll(12)),
        }
    }

    /// What the marker holds, half of the time.
    fn marker_values(&mut self, held: &Server, key: &str) -> String {
        let held = held.hash(key).ok().flatten();
        let field = |name: &str| held.and_then(|held| held.get(name).cloned()).unwrap_or_default();
        let now = ["epoch", "applied", "sequence", "time_ms"].map(field).join(":");
        if self.dice.roll(2) == 0 { now } else { "1:2:3:4".to_owned() }
    }

    /// The next call, of a script or of what an operator does.
    fn next(&mut self, held: &Server) -> Cmd {
        let all = Script::ALL.len();
        let script = match self.dice.roll(all + 6) {
            n if n < all => Script::ALL[n],
            _ => return self.accident(),
        };
        let (key, arguments) = self.arguments(script, held);
        let mut command = script.call(&key);
        command.arg(arguments);
        command
    }

    fn arguments(&mut self, script: Script, held: &Server) -> (String, Vec<String>) {
        let members = self.dice.roll(2) == 0;
        let key = match script {
            Script::Take | Script::Advance | Script::Evict => self.marker(),
            Script::Claim => "ds:owner".to_owned(),
            Script::Cull => self.set(),
            Script::Fleet | Script::FleetRepair | Script::FleetRepairExact => self.fleet(),
            _ => self.device(),
        };
        let id = key.rsplit(':').next().unwrap_or_default().to_owned();
        let (epoch, sequence) = (self.number(3), self.number(12));
        let token = format!("3:{epoch}:{sequence}");
        let expected = held.hash(&key).ok().flatten().and_then(|held| held.get("token").cloned());
        let expected = match self.dice.roll(4) {
            0 => self.token(),
            _ => expected.unwrap_or_default(),
        };
        let guarded = vec![token.clone(), epoch, sequence];
        let exact = vec![token, expected, String::new()];
        let around = ["ds:fleet:".to_owned(), ":3:members:".to_owned()];
        let device = |calls: &mut Calls, mut arguments: Vec<String>| {
            arguments.push(calls.pick(&STATUSES).to_owned());
            arguments.extend((0..8).map(|_| calls.number(9)));
            arguments.push(calls.pick(&FLEETS).to_owned());
            arguments.extend((0..6).map(|_| calls.number(9)));
            let hint = calls.dice.roll(2) == 0;
            arguments.extend([if hint { "ds:changes" } else { "" }, "hint"].map(str::to_owned));
            if members {
                arguments.push(id.clone());
                arguments.extend(around.clone());
                let others = calls.dice.roll(3);
                arguments.extend((0..others).map(|_| calls.pick(&FLEETS).to_owned()));
            }
            arguments
        };
        let counts = |calls: &mut Calls, mut arguments: Vec<String>| {
            let most = calls.dice.roll(2) + 1;
            arguments.extend((0..7).map(|_| calls.number(most)));
            arguments.push("3600".to_owned());
            arguments
        };
        let group = self.pick(&["ours", "ours", "theirs"]).to_owned();
        let arguments = match script {
            Script::Device | Script::DeviceRepair => device(self, guarded),
            Script::DeviceRepairExact => device(self, exact),
            Script::Fleet | Script::FleetRepair => counts(self, guarded),
            Script::FleetRepairExact => counts(self, exact),
            Script::Deletion => {
                let mut arguments = guarded;
                arguments.extend(["3600", "ds:changes", "hint"].map(str::to_owned));
                if members {
                    arguments.push(id);
                    arguments.extend(around);
                    let others = self.dice.roll(3);
                    arguments.extend((0..others).map(|_| self.pick(&FLEETS).to_owned()));
                }
                arguments
            }
            Script::Removal => {
                let mut arguments = exact;
                if members {
                    arguments.push(id);
                    arguments.extend(around);
                }
                arguments
            }
            Script::Cull => {
                let of = key.strip_prefix("ds:fleet:").unwrap_or_default();
                let (fleet, status) = of.split_once(":3:members:").unwrap_or_default();
                let mut arguments = vec!["ds:device:".to_owned(), "3:".to_owned()];
                arguments.extend([fleet.to_owned(), status.to_owned()]);
                arguments.extend((0..3).map(|n| format!("d{n}")));
                arguments
            }
            Script::Take => vec![self.number(4), self.number(9), group],
            Script::Advance => {
                let mut arguments: Vec<String> = (0..4).map(|_| self.number(9)).collect();
                arguments.extend([group, self.marker_values(held, &key)]);
                arguments.push(self.marker_values(held, &key));
                arguments
            }
            Script::Claim => vec![group, self.pick(&["", "ours", "theirs"]).to_owned()],
            Script::Evict => vec![group],
        };
        (key, arguments)
    }

    /// What an operator does, or an expiry: also what the simulation meddles with.
    fn accident(&mut self) -> Cmd {
        let key = self.any();
        let words = match self.dice.roll(7) {
            0 => vec!["UNLINK".to_owned(), key],
            1 => vec!["SET".to_owned(), key, "text".to_owned()],
            2 => vec!["HSET".to_owned(), key, "token".to_owned(), self.token()],
            3 => vec!["HSET".to_owned(), key, "extra".to_owned(), self.number(9)],
            4 => vec!["SADD".to_owned(), self.set(), format!("d{}", self.dice.roll(5))],
            5 => vec!["HSET".to_owned(), self.marker(), "time_ms".to_owned(), "soon".to_owned()],
            _ => vec!["HSET".to_owned(), self.marker(), "applied".to_owned(), self.number(9)],
        };
        let mut command = redis::cmd(&words[0]);
        command.arg(&words[1..]);
        command
    }
}

/// What the simulation does by hand rather than by a command.
fn execute(twin: &mut Server, command: &Cmd) -> Result<Value, String> {
    let words = words(command);
    let key = words[1].as_str();
    match words[0].as_str() {
        "SET" => {
            let held = Held::Text(words[2].clone());
            twin.keys.insert(key.to_owned(), Key { held, expires_at: None });
            Ok(Value::Okay)
        }
        "HSET" => {
            let is_new = twin.hash(key)?.is_none_or(|held| !held.contains_key(&words[2]));
            twin.set_fields(key, [(words[2].clone(), words[3].clone())]);
            Ok(Value::Int(is_new.into()))
        }
        "SADD" => match twin.keys.get(key).map(|key| &key.held) {
            Some(Held::Hash(_) | Held::Text(_)) => Err(server::WRONG_TYPE.to_owned()),
            held => {
                let known = matches!(held, Some(Held::Set(set)) if set.contains(&words[2]));
                twin.add_member(key, &words[2]);
                Ok(Value::Int((!known).into()))
            }
        },
        _ => twin.execute(command),
    }
}

/// All that a server holds; of an expiry, only whether there is one.
fn contents(redis: &mut Connection) -> Keyspace {
    let mut contents = Keyspace::new();
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(redis).unwrap();
    for key in keys {
        let kind: String = redis::cmd("TYPE").arg(&key).query(redis).unwrap();
        let read = |name: &str| redis::cmd(name).arg(&key).to_owned();
        let held = match kind.as_str() {
            "hash" => Held::Hash(read("HGETALL").query(redis).unwrap()),
            "set" => Held::Set(read("SMEMBERS").query(redis).unwrap()),
            _ => Held::Text(read("GET").query(redis).unwrap()),
        };
        let expires: i64 = read("PTTL").query(redis).unwrap();
        contents.insert(key, Key { held, expires_at: (expires > 0).then_some(1) });
    }
    contents
}

fn of_twin(twin: &Server) -> Keyspace {
    let seen = |key: &Key| Key { held: key.held.clone(), expires_at: key.expires_at.map(|_| 1) };
    twin.keys.iter().map(|(name, key)| (name.clone(), seen(key))).collect()
}

/// An answer without what a server adds in its own words.
fn plain(answer: Result<Value, String>) -> Result<Value, String> {
    answer.map_err(|error| match error.contains("WRONGTYPE") {
        true => "WRONGTYPE".to_owned(),
        false => error,
    })
}

/// All that a scan finds, of keys or of a set.
fn scanned(mut ask: impl FnMut(&Cmd) -> Value, begin: &[&str], end: &[&str]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut cursor = "0".to_owned();
    loop {
        let mut command = redis::cmd(begin[0]);
        command.arg(&begin[1..]).arg(&cursor).arg(end);
        let (next, items): (String, Vec<String>) = redis::from_redis_value(ask(&command)).unwrap();
        found.extend(items);
        if next == "0" {
            return found;
        }
        cursor = next;
    }
}

#[test]
fn every_twin_does_what_its_script_does() {
    let server = RedisServer::start();
    let mut redis = server.connection();
    for command in load_commands() {
        command.exec(&mut redis).unwrap();
    }
    let mut done: BTreeMap<String, [u64; 3]> = BTreeMap::new();
    for seed in 0..12 {
        redis::cmd("FLUSHALL").exec(&mut redis).unwrap();
        let mut twin = Server { now: 1, ..Server::default() };
        let mut calls = Calls { dice: Dice(seed * 7_919 + 1) };
        for call in 0..400 {
            let command = calls.next(&twin);
            let said = words(&command);
            let real = command.query::<Value>(&mut redis).map_err(|error| error.to_string());
            let simulated = execute(&mut twin, &command);
            let here = format!("seed {seed}, call {call}: {:?} {said:?}", server::script_of(&said));
            assert_eq!(plain(simulated), plain(real.clone()), "{here}");
            assert_eq!(of_twin(&twin), contents(&mut redis), "{here}");
            if let Some(script) = server::script_of(&said) {
                let counts = done.entry(format!("{script:?}")).or_default();
                let kind = match real {
                    Ok(Value::Int(0)) => 0,
                    Ok(_) => 1,
                    Err(_) => 2,
                };
                counts[kind] += 1;
            }
        }
        let scan = ["MATCH", "ds:*", "COUNT", "5"];
        let real = scanned(|command| command.query(&mut redis).unwrap(), &["SCAN"], &scan);
        let simulated = scanned(|command| twin.execute(command).unwrap(), &["SCAN"], &scan);
        assert_eq!(simulated, real, "seed {seed}");
        for (key, held) in of_twin(&twin) {
            let reads = [
                redis::cmd("HGETALL").arg(&key).to_owned(),
                redis::cmd("HMGET").arg(&key).arg(&["epoch", "group"]).to_owned(),
                redis::cmd("SISMEMBER").arg(&key).arg("d1").to_owned(),
            ];
            for read in reads {
                let real = read.query::<Value>(&mut redis).map_err(|error| error.to_string());
                assert_eq!(
                    plain(twin.execute(&read)).map(sorted),
                    plain(real).map(sorted),
                    "seed {seed}, {key}"
                );
            }
            if matches!(held.held, Held::Set(_)) {
                let (begin, end) = (["SSCAN", &key], ["COUNT", "1"]);
                let real = scanned(|command| command.query(&mut redis).unwrap(), &begin, &end);
                let simulated = scanned(|command| twin.execute(command).unwrap(), &begin, &end);
                assert_eq!(simulated, real, "seed {seed}, {key}");
            }
        }
    }
    println!("refused or nothing, done, errors: {done:?}");
    assert_eq!(done.len(), Script::ALL.len(), "{done:?}");
    for (script, [_, made, _]) in &done {
        assert!(*made > 20, "{script} was hardly ever done: {done:?}");
    }
}

/// The fields of a hash come in any order.
fn sorted(answer: Value) -> Vec<String> {
    match answer {
        Value::Array(items) if items.len() > 2 => {
            let mut items: Vec<String> = items.chunks(2).map(|pair| format!("{pair:?}")).collect();
            items.sort();
            items
        }
        other => vec![format!("{other:?}")],
    }
}
