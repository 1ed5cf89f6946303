//! The scripts that make each write a compare-and-set (rule V2).
//!
//! Numbers are compared as numbers. Lua's are exact up to 2^53; epochs
//! (milliseconds) and sequences (a count) do not reach that. A key of the wrong type
//! was written by mistake. It is replaced, since a write that fails for ever would
//! block all acknowledgements behind it.

use std::sync::LazyLock;

use redis::Cmd;

/// How long the token of a deleted device stays, to fence late writers (rule V3).
pub const DELETED_TTL_SECONDS: u64 = 3600;

/// Returns 0 if the hash has a later token: the write is fenced.
/// `KEYS[1]` the hash, `ARGV` token, epoch, sequence.
const GUARD: &str = r"
local held = redis.pcall('HGET', KEYS[1], 'token')
if type(held) == 'table' then
  if not string.find(held.err, 'WRONGTYPE', 1, true) then return held end
  redis.call('DEL', KEYS[1])
  held = false
end
if held then
  local e, s = string.match(held, '^%-?%d+:(%d+):(%d+)$')
  if e then
    e, s = tonumber(e), tonumber(s)
    local epoch = tonumber(ARGV[2])
    if e > epoch or (e == epoch and s > tonumber(ARGV[3])) then return 0 end
  end
end
";

/// Returns 0 if the hash does not have exactly the expected token (rule V6).
/// `KEYS[1]` the hash, `ARGV` new token, expected token, empty.
const EXACT: &str = r"
local held = redis.pcall('HGET', KEYS[1], 'token')
if type(held) == 'table' then
  if not string.find(held.err, 'WRONGTYPE', 1, true) then return held end
  held = false
end
if held ~= ARGV[2] then return 0 end
";

/// Updates the member sets in the same script as the hash, so that no crash or late
/// writer can separate the two. It is inserted only in the branch that needs it,
/// since each call creates the closures again.
const MEMBERS: &str = r"
local statuses = {'online', 'configuring', 'updating', 'offline', 'post-provisioning', 'inactive', 'frozen'}
local function set(command, key, id)
  local answer = redis.pcall(command, key, id)
  if type(answer) == 'table' then
    redis.call('DEL', key)
    redis.call(command, key, id)
  end
end
local function leave(id, head, fleet, tail, except)
  for _, status in ipairs(statuses) do
    if status ~= except then set('SREM', head .. fleet .. tail .. status, id) end
  end
end
";

/// `ARGV` 4–19 fields, 20 channel or empty, 21 hint. With member sets also 22 id, 23
/// and 24 the parts of their keys around the fleet, 25… other fleets to leave.
const DEVICE: &str = r"
if #ARGV > 21 then
  --MEMBERS--
  leave(ARGV[22], ARGV[23], ARGV[13], ARGV[24], ARGV[4])
  local was = redis.call('HGET', KEYS[1], 'fleet')
  if was and was ~= ARGV[13] then leave(ARGV[22], ARGV[23], was, ARGV[24]) end
  for i = 25, #ARGV do
    if ARGV[i] ~= ARGV[13] then leave(ARGV[22], ARGV[23], ARGV[i], ARGV[24]) end
  end
  set('SADD', ARGV[23] .. ARGV[13] .. ARGV[24] .. ARGV[4], ARGV[22])
end
--WIPE--
redis.call('HSET', KEYS[1], 'token', ARGV[1],
  'status', ARGV[4], 'connectivity', ARGV[5], 'display', ARGV[6],
  'since_ms', ARGV[7], 'connectivity_since_ms', ARGV[8],
  'heartbeat', ARGV[9], 'heartbeat_ms', ARGV[10], 'vpn', ARGV[11],
  'progress', ARGV[12], 'fleet', ARGV[13], 'version', ARGV[14],
  'membership_since_ms', ARGV[15], 'release', ARGV[16], 'update_phase', ARGV[17],
  'update_outcome', ARGV[18], 'update_since_ms', ARGV[19])
redis.call('PERSIST', KEYS[1])
if ARGV[20] ~= '' then redis.call('PUBLISH', ARGV[20], ARGV[21]) end
return 1
";

/// `ARGV` 4 seconds to keep the token, 5 channel, 6 hint. With member sets also 7 id,
/// 8 and 9 the parts of their keys around the fleet, 10… fleets to leave. The hint is
/// published only if the device existed.
const DELETION: &str = r"
local was = redis.call('HMGET', KEYS[1], 'status', 'fleet')
if #ARGV > 6 then
  --MEMBERS--
  if was[2] then leave(ARGV[7], ARGV[8], was[2], ARGV[9]) end
  for i = 10, #ARGV do
    if ARGV[i] ~= was[2] then leave(ARGV[7], ARGV[8], ARGV[i], ARGV[9]) end
  end
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'token', ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[4])
if was[1] then redis.call('PUBLISH', ARGV[5], ARGV[6]) end
return 1
";

/// `ARGV` 4–10 counts, 11 seconds to keep the hash of a fleet without devices.
const FLEET: &str = r"
--WIPE--
redis.call('HSET', KEYS[1], 'token', ARGV[1],
  'online', ARGV[4], 'configuring', ARGV[5], 'updating', ARGV[6], 'offline', ARGV[7],
  'post-provisioning', ARGV[8], 'inactive', ARGV[9], 'frozen', ARGV[10])
for i = 4, 10 do
  if ARGV[i] ~= '0' then
    redis.call('PERSIST', KEYS[1])
    return 1
  end
end
redis.call('EXPIRE', KEYS[1], ARGV[11])
return 1
";

/// In a repair: removes unknown fields (rule V6).
const WIPE: &str = "redis.call('DEL', KEYS[1])";

/// Removes an orphaned hash. With member sets `ARGV` 4 id, 5 and 6 the parts of their
/// keys around the fleet.
const REMOVAL: &str = r"
if #ARGV > 3 then
  --MEMBERS--
  local was = redis.call('HGET', KEYS[1], 'fleet')
  if was then leave(ARGV[4], ARGV[5], was, ARGV[6]) end
end
return redis.call('DEL', KEYS[1])
";

/// Removes the ids from a member set whose hashes have another fleet or status.
/// `KEYS[1]` the set, `ARGV` 1 prefix of the hashes' keys, 2 required prefix of their
/// tokens, 3 fleet, 4 status, 5… ids. Returns how many.
const CULL: &str = r"
local removed = 0
for i = 5, #ARGV do
  local held = redis.pcall('HMGET', ARGV[1] .. ARGV[i], 'fleet', 'status', 'token')
  if held.err then
    if not string.find(held.err, 'WRONGTYPE', 1, true) then return held end
    held = {}
  end
  if held[1] ~= ARGV[3] or held[2] ~= ARGV[4]
    or string.sub(held[3] or '', 1, #ARGV[2]) ~= ARGV[2] then
    removed = removed + redis.call('SREM', KEYS[1], ARGV[i])
  end
end
return removed
";

/// Takes the partition, unless another group or a larger epoch holds it.
/// `KEYS[1]` the marker, `ARGV` epoch, applied, group. Returns {1, applied, time} if it
/// was taken, {2, group} for another group, {0, epoch} for a larger epoch. A marker
/// without a group counts as ours.
///
/// Taking a marker never increases its promise. If it holds less than `applied`, the
/// view was flushed or set back since the marker was read, and it starts from 0 (rules
/// V4, V5). The script decides this, so that a repeated call gives the same answer.
const TAKE: &str = r"
local m = redis.pcall('HMGET', KEYS[1], 'epoch', 'applied', 'time_ms', 'group')
if m.err then
  if not string.find(m.err, 'WRONGTYPE', 1, true) then return m end
  redis.call('DEL', KEYS[1])
  m = {}
end
if m[4] and m[4] ~= ARGV[3] then return {2, m[4]} end
local epoch = tonumber(m[1] or '')
if epoch and epoch > tonumber(ARGV[1]) then return {0, m[1]} end
local applied, time = ARGV[2], tostring(m[3] or '')
if (tonumber(m[2] or '') or 0) < tonumber(applied) then applied = '0' end
if applied == '0' or not string.match(time, '^%d+$') then time = '0' end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'applied', applied, 'sequence', '0', 'time_ms', time,
  'group', ARGV[3])
redis.call('PERSIST', KEYS[1])
return {1, applied, time}
";

/// Advances a marker. `ARGV` 1–4 the new value, 5 the group, 6… the values that the
/// marker may hold now. Returns 1, or the fields that it holds, with the group last.
const ADVANCE: &str = r"
local m = redis.pcall('HMGET', KEYS[1], 'epoch', 'applied', 'sequence', 'time_ms', 'group')
if m.err then
  if string.find(m.err, 'WRONGTYPE', 1, true) then return {false, false, false, false, false} end
  return m
end
if m[5] and m[5] ~= ARGV[5] then return m end
local held = (m[1] or '') .. ':' .. (m[2] or '') .. ':' .. (m[3] or '') .. ':' .. (m[4] or '')
for i = 6, #ARGV do
  if held == ARGV[i] then
    redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'applied', ARGV[2], 'sequence', ARGV[3], 'time_ms', ARGV[4],
      'group', ARGV[5])
    return 1
  end
end
return m
";

/// Claims the prefix for a group (rule V8). `KEYS[1]` the owner key, `ARGV` group, and
/// the group that it may be taken from or empty. Returns the group that owns the prefix
/// now.
const CLAIM: &str = r"
local held = redis.pcall('HGET', KEYS[1], 'group')
if type(held) == 'table' then
  if not string.find(held.err, 'WRONGTYPE', 1, true) then return held end
  redis.call('DEL', KEYS[1])
  held = false
end
if held == ARGV[1] then return held end
if held and held ~= ARGV[2] then return held end
redis.call('HSET', KEYS[1], 'group', ARGV[1])
redis.call('PERSIST', KEYS[1])
return ARGV[1]
";

/// Removes a marker of the group `ARGV[1]`, whose view was taken over.
const EVICT: &str = r"
if redis.call('HGET', KEYS[1], 'group') ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
";

/// A Redis script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// Writes a device.
    Device,
    /// Deletes a device, except for its token.
    Deletion,
    /// Writes a fleet's counts.
    Fleet,
    /// Takes a marker.
    Take,
    /// Advances a marker.
    Advance,
    /// Repairs a device.
    DeviceRepair,
    /// Repairs a device whose token is larger than ours.
    DeviceRepairExact,
    /// Repairs a fleet's counts.
    FleetRepair,
    /// Repairs a fleet's counts whose token is larger than ours.
    FleetRepairExact,
    /// Removes an orphaned hash.
    Removal,
    /// Removes the ids from a member set that do not belong there.
    Cull,
    /// Claims the prefix for a group.
    Claim,
    /// Removes a marker of the former group.
    Evict,
}

/// The scripts, hashed once, in the order of [`Script::ALL`].
static HASHED: LazyLock<[redis::Script; Script::ALL.len()]> =
    LazyLock::new(|| Script::ALL.map(|script| redis::Script::new(&script.code())));

impl Script {
    /// All of them, in the order of their declaration.
    pub const ALL: [Script; 13] = [
        Script::Device,
        Script::Deletion,
        Script::Fleet,
        Script::Take,
        Script::Advance,
        Script::DeviceRepair,
        Script::DeviceRepairExact,
        Script::FleetRepair,
        Script::FleetRepairExact,
        Script::Removal,
        Script::Cull,
        Script::Claim,
        Script::Evict,
    ];

    /// Its source code.
    #[must_use]
    pub fn code(self) -> String {
        let with = |guard: &str, code: &str, wipe: &str| {
            format!("{guard}{}", code.replace("--MEMBERS--", MEMBERS).replace("--WIPE--", wipe))
        };
        match self {
            Script::Device => with(GUARD, DEVICE, ""),
            Script::Deletion => with(GUARD, DELETION, ""),
            Script::Fleet => with(GUARD, FLEET, ""),
            Script::Take => TAKE.to_owned(),
            Script::Advance => ADVANCE.to_owned(),
            Script::DeviceRepair => with(GUARD, DEVICE, WIPE),
            Script::DeviceRepairExact => with(EXACT, DEVICE, WIPE),
            Script::FleetRepair => with(GUARD, FLEET, WIPE),
            Script::FleetRepairExact => with(EXACT, FLEET, WIPE),
            Script::Removal => with(EXACT, REMOVAL, ""),
            Script::Cull => CULL.to_owned(),
            Script::Claim => CLAIM.to_owned(),
            Script::Evict => EVICT.to_owned(),
        }
    }

    /// Its SHA-1, for `EVALSHA`.
    #[must_use]
    pub fn hash(self) -> &'static str {
        HASHED[self as usize].get_hash()
    }

    /// A call on one key, to which arguments are added.
    #[must_use]
    pub fn call(self, key: &str) -> Cmd {
        let mut command = Cmd::with_capacity(32, 512);
        command.arg("EVALSHA").arg(self.hash()).arg(1).arg(key);
        command
    }
}

/// The commands that load all scripts on a server.
#[must_use]
pub fn load_commands() -> [Cmd; Script::ALL.len()] {
    Script::ALL.map(|script| redis::cmd("SCRIPT").arg("LOAD").arg(script.code()).to_owned())
}
