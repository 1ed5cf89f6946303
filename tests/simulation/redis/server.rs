//! A Redis that knows device-status's scripts by twins in Rust, chosen by the
//! scripts' text. `tests/redis/twins.rs` holds them to a real server.

use std::collections::{BTreeMap, BTreeSet};

use device_status::view::scripts::Script;
use redis::{Arg, Cmd, Value};

pub type Hash = BTreeMap<String, String>;

#[derive(Clone, Debug, PartialEq)]
pub enum Held {
    Hash(Hash),
    Set(BTreeSet<String>),
    Text(String),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    pub held: Held,
    pub expires_at: Option<i64>,
}

pub type Keyspace = BTreeMap<String, Key>;

pub const WRONG_TYPE: &str = "WRONGTYPE: another kind of value";

/// Of how many keys a `SCAN` tells that asks for a hundred: fewer than asked
/// for, so that it takes several.
const SCANNED_OF_HUNDRED: usize = 20;

#[derive(Default)]
pub struct Server {
    pub keys: Keyspace,
    pub now: i64,
}

/// The words of a command.
pub fn words(command: &Cmd) -> Vec<String> {
    let word = |argument| match argument {
        Arg::Simple(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        _ => String::new(),
    };
    command.args_iter().map(word).collect()
}

/// Which script a command calls.
pub fn script_of(words: &[String]) -> Option<Script> {
    let called = (words[0] == "EVALSHA").then(|| &words[1])?;
    Script::ALL.into_iter().find(|script| script.hash() == called)
}

fn text(value: &str) -> Value {
    Value::BulkString(value.as_bytes().to_vec())
}

/// A token's epoch and sequence, if it is one.
pub fn order_of(token: &str) -> Option<(f64, f64)> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<&str> = token.split(':').collect();
    let [partition, epoch, sequence] = parts[..] else { return None };
    let partition = partition.strip_prefix('-').unwrap_or(partition);
    let is_token = digits(partition) && digits(epoch) && digits(sequence);
    is_token.then(|| Some((epoch.parse().ok()?, sequence.parse().ok()?))).flatten()
}

fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok()
}

/// The place of a key in the order of a `SCAN`.
fn place(key: &str) -> u64 {
    let mix = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    key.bytes().fold(0xcbf2_9ce4_8422_2325, mix) >> 1
}

const STATUSES: [&str; 7] =
    ["online", "configuring", "updating", "offline", "post-provisioning", "inactive", "frozen"];
const DEVICE: [&str; 16] = [
    "status",
    "connectivity",
    "display",
    "since_ms",
    "connectivity_since_ms",
    "heartbeat",
    "heartbeat_ms",
    "vpn",
    "progress",
    "fleet",
    "version",
    "membership_since_ms",
    "release",
    "update_phase",
    "update_outcome",
    "update_since_ms",
];

impl Server {
    /// Does what a command asks.
    pub fn execute(&mut self, command: &Cmd) -> Result<Value, String> {
        let now = self.now;
        self.keys.retain(|_, key| key.expires_at.is_none_or(|at| at > now));
        let words = words(command);
        match words[0].as_str() {
            "EVALSHA" => {
                let script = script_of(&words).ok_or("NOSCRIPT")?;
                let arguments: Vec<&str> = words[4..].iter().map(String::as_str).collect();
                self.run(script, &words[3], &arguments)
            }
            "HMGET" => {
                let names: Vec<&str> = words[2..].iter().map(String::as_str).collect();
                let values = self.fields(&words[1], &names)?;
                let values = values.into_iter().map(|v| v.map_or(Value::Nil, |v| text(&v)));
                Ok(Value::Array(values.collect()))
            }
            "HGETALL" => {
                let held = self.hash(&words[1])?.cloned().unwrap_or_default();
                Ok(Value::Array(held.iter().flat_map(|(k, v)| [text(k), text(v)]).collect()))
            }
            "PTTL" => Ok(Value::Int(match self.keys.get(&words[1]) {
                None => -2,
                Some(key) => key.expires_at.map_or(-1, |at| at - self.now),
            })),
            "SISMEMBER" => {
                let set = self.set(&words[1])?;
                Ok(Value::Int(set.is_some_and(|set| set.contains(&words[2])).into()))
            }
            "UNLINK" => Ok(Value::Int(self.keys.remove(&words[1]).is_some().into())),
            "DBSIZE" => Ok(Value::Int(self.keys.len() as i64)),
            "SCAN" => {
                let prefix = words[3].trim_end_matches('*').replace('\\', "");
                let count = words[5].parse::<usize>().unwrap_or(10);
                let all = self.keys.keys().cloned().collect();
                Ok(page(all, &words[1], count * SCANNED_OF_HUNDRED / 100, |key| {
                    key.starts_with(&prefix)
                }))
            }
            "SSCAN" => {
                let all = self.set(&words[1])?.cloned().unwrap_or_default();
                let count = words[4].parse::<usize>().unwrap_or(10);
                Ok(page(all, &words[2], count * SCANNED_OF_HUNDRED / 100, |_| true))
            }
            other => panic!("the simulated Redis does not know {other}"),
        }
    }

    pub fn hash(&self, key: &str) -> Result<Option<&Hash>, String> {
        match self.keys.get(key).map(|key| &key.held) {
            None => Ok(None),
            Some(Held::Hash(hash)) => Ok(Some(hash)),
            Some(_) => Err(WRONG_TYPE.to_owned()),
        }
    }

    fn set(&self, key: &str) -> Result<Option<&BTreeSet<String>>, String> {
        match self.keys.get(key).map(|key| &key.held) {
            None => Ok(None),
            Some(Held::Set(set)) => Ok(Some(set)),
            Some(_) => Err(WRONG_TYPE.to_owned()),
        }
    }

    fn fields(&self, key: &str, names: &[&str]) -> Result<Vec<Option<String>>, String> {
        let held = self.hash(key)?;
        Ok(names.iter().map(|name| held?.get(*name).cloned()).collect())
    }

    fn field(&self, key: &str, name: &str) -> Option<String> {
        self.hash(key).ok()??.get(name).cloned()
    }

    /// `HSET`, of a key that is a hash or nothing.
    pub fn set_fields(&mut self, key: &str, fields: impl IntoIterator<Item = (String, String)>) {
        let empty = || Key { held: Held::Hash(Hash::new()), expires_at: None };
        let key = self.keys.entry(key.to_owned()).or_insert_with(empty);
        if let Held::Hash(hash) = &mut key.held {
            hash.extend(fields);
        }
    }

    fn expire(&mut self, key: &str, seconds: Option<&str>) {
        let at = seconds.map(|seconds| self.now + 1_000 * seconds.parse::<i64>().unwrap_or(0));
        if let Some(key) = self.keys.get_mut(key) {
            key.expires_at = at;
        }
    }

    /// `SREM` and `SADD`, of whatever key there is: another type gives way.
    fn leave(&mut self, id: &str, around: [&str; 2], fleet: &str, except: Option<&str>) {
        let [head, tail] = around;
        for status in STATUSES.into_iter().filter(|status| Some(*status) != except) {
            self.remove_member(&format!("{head}{fleet}{tail}{status}"), id);
        }
    }

    fn remove_member(&mut self, key: &str, id: &str) -> bool {
        let Some(Key { held, .. }) = self.keys.get_mut(key) else { return false };
        let removed = match held {
            Held::Set(set) => set.remove(id),
            _ => false,
        };
        if !matches!(held, Held::Set(set) if !set.is_empty()) {
            self.keys.remove(key);
        }
        removed
    }

    pub fn add_member(&mut self, key: &str, id: &str) {
        let empty = || Key { held: Held::Set(BTreeSet::new()), expires_at: None };
        if self.set(key).is_err() {
            self.keys.remove(key);
        }
        if let Held::Set(set) = &mut self.keys.entry(key.to_owned()).or_insert_with(empty).held {
            set.insert(id.to_owned());
        }
    }

    /// The twins.
    fn run(&mut self, script: Script, key: &str, a: &[&str]) -> Result<Value, String> {
        let (refused, done) = (Ok(Value::Int(0)), Ok(Value::Int(1)));
        match script {
            Script::Take => return Ok(self.take(key, a)),
            Script::Advance => return Ok(self.advance(key, a)),
            Script::Cull => return self.cull(key, a),
            Script::Claim => {
                let held = self.field(key, "group");
                if let Some(held) = held.filter(|held| held == a[0] || held != a[1]) {
                    return Ok(text(&held));
                }
                self.drop_unless_hash(key);
                self.set_fields(key, [("group".to_owned(), a[0].to_owned())]);
                self.expire(key, None);
                return Ok(text(a[0]));
            }
            Script::Evict => {
                let held = self.fields(key, &["group"])?.remove(0);
                if held.as_deref() != Some(a[0]) {
                    return refused;
                }
                self.keys.remove(key);
                return done;
            }
            _ => {}
        }
        let exact = matches!(
            script,
            Script::DeviceRepairExact | Script::FleetRepairExact | Script::Removal
        );
        let held = self.field(key, "token");
        if exact {
            if held.as_deref() != Some(a[1]) {
                return refused;
            }
        } else {
            self.drop_unless_hash(key);
            let held = held.as_deref().and_then(order_of);
            let ours = (number(a[1]).unwrap_or(0.0), number(a[2]).unwrap_or(0.0));
            if held.is_some_and(|held| held > ours) {
                return refused;
            }
        }
        let was = self.field(key, "fleet");
        let token = ("token".to_owned(), a[0].to_owned());
        let named = |names: &[&str]| -> Vec<(String, String)> {
            let values = names.iter().zip(&a[3..]);
            values.map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).chain([token.clone()]).collect()
        };
        match script {
            Script::Device | Script::DeviceRepair | Script::DeviceRepairExact => {
                if a.len() > 21 {
                    let (id, around, fleet) = (a[21], [a[22], a[23]], a[12]);
                    self.leave(id, around, fleet, Some(a[3]));
                    let others = was.as_deref().into_iter().chain(a[24..].iter().copied());
                    for other in others.filter(|other| *other != fleet) {
                        self.leave(id, around, other, None);
                    }
                    self.add_member(&format!("{}{fleet}{}{}", a[22], a[23], a[3]), id);
                }
                if script != Script::Device {
                    self.keys.remove(key);
                }
                self.set_fields(key, named(&DEVICE));
                self.expire(key, None);
            }
            Script::Deletion => {
                if a.len() > 6 {
                    for fleet in was.as_deref().into_iter().chain(a[9..].iter().copied()) {
                        self.leave(a[6], [a[7], a[8]], fleet, None);
                    }
                }
                self.keys.remove(key);
                self.set_fields(key, [token]);
                self.expire(key, Some(a[3]));
            }
            Script::Fleet | Script::FleetRepair | Script::FleetRepairExact => {
                if script != Script::Fleet {
                    self.keys.remove(key);
                }
                self.set_fields(key, named(&STATUSES));
                let empty = a[3..10].iter().all(|count| *count == "0");
                self.expire(key, empty.then_some(a[10]));
            }
            _ => {
                if a.len() > 3
                    && let Some(was) = &was
                {
                    self.leave(a[3], [a[4], a[5]], was, None);
                }
                self.keys.remove(key);
            }
        }
        done
    }

    fn drop_unless_hash(&mut self, key: &str) {
        if self.hash(key).is_err() {
            self.keys.remove(key);
        }
    }

    fn take(&mut self, key: &str, a: &[&str]) -> Value {
        self.drop_unless_hash(key);
        let field = |name: &str| self.field(key, name);
        if let Some(group) = field("group").filter(|group| group != a[2]) {
            return Value::Array(vec![Value::Int(2), text(&group)]);
        }
        let held = field("epoch").unwrap_or_default();
        if number(&held) > number(a[0]) {
            return Value::Array(vec![Value::Int(0), text(&held)]);
        }
        let (mut applied, mut time) = (a[1], field("time_ms").unwrap_or_default());
        if field("applied").and_then(|held| number(&held)).unwrap_or(0.0)
            < number(applied).unwrap_or(0.0)
        {
            applied = "0";
        }
        if applied == "0" || time.is_empty() || !time.bytes().all(|b| b.is_ascii_digit()) {
            time = "0".to_owned();
        }
        let fields = [
            ("epoch", a[0]),
            ("applied", applied),
            ("sequence", "0"),
            ("time_ms", &time),
            ("group", a[2]),
        ];
        self.set_fields(key, fields.map(|(k, v)| (k.to_owned(), v.to_owned())));
        self.expire(key, None);
        Value::Array(vec![Value::Int(1), text(applied), text(&time)])
    }

    fn advance(&mut self, key: &str, a: &[&str]) -> Value {
        const NAMES: [&str; 5] = ["epoch", "applied", "sequence", "time_ms", "group"];
        let Ok(held) = self.fields(key, &NAMES) else { return Value::Array(vec![Value::Nil; 5]) };
        let now: Vec<&str> =
            held[..4].iter().map(|value| value.as_deref().unwrap_or_default()).collect();
        let other = held[4].as_ref().is_some_and(|group| group != a[4]);
        if other || !a[5..].contains(&now.join(":").as_str()) {
            let told = held.iter().map(|v| v.as_ref().map_or(Value::Nil, |v| text(v)));
            return Value::Array(told.collect());
        }
        let fields = NAMES.iter().zip(a).map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        self.set_fields(key, fields);
        Value::Int(1)
    }

    fn cull(&mut self, key: &str, a: &[&str]) -> Result<Value, String> {
        let mut removed = 0;
        for id in &a[4..] {
            let of = format!("{}{id}", a[0]);
            let belongs = self.field(&of, "fleet").as_deref() == Some(a[2])
                && self.field(&of, "status").as_deref() == Some(a[3])
                && self.field(&of, "token").is_some_and(|token| token.starts_with(a[1]));
            if !belongs {
                self.set(key)?;
                removed += i64::from(self.remove_member(key, id));
            }
        }
        Ok(Value::Int(removed))
    }
}

/// A page of a `SCAN`: what is there from its beginning to its end is told, what
/// comes and goes may be.
fn page(
    all: BTreeSet<String>,
    cursor: &str,
    count: usize,
    matches: impl Fn(&str) -> bool,
) -> Value {
    let from: u64 = cursor.parse().unwrap_or(0);
    let mut all: Vec<(u64, String)> = all.into_iter().map(|key| (place(&key) + 1, key)).collect();
    all.sort();
    let all: Vec<_> = all.into_iter().filter(|(place, _)| *place > from).collect();
    let count = count.max(1);
    let next = if all.len() > count { all[count - 1].0 } else { 0 };
    let told = all.iter().take(count).filter(|(_, key)| matches(key)).map(|(_, key)| text(key));
    Value::Array(vec![text(&next.to_string()), Value::Array(told.collect())])
}
