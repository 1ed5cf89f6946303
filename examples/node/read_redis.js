// Reads statuses from Redis.
//
//     node read_redis.js device ID            one device
//     node read_redis.js fleet FLEET          how many devices have each status
//     node read_redis.js follow [COUNT]       changes as they happen
//
// REDIS_URL says where Redis is, PREFIX what the keys begin with. A URL that begins with
// rediss:// means TLS; REDIS_CA_FILE names the authority, if it is not one of the system's.

import { readFileSync } from 'node:fs';
import { createClient } from 'redis';

const PREFIX = process.env.PREFIX ?? 'ds:';
const STATUSES = ['online', 'configuring', 'updating', 'offline',
  'post-provisioning', 'inactive', 'frozen'];
// A marker moves on at least every 5 s while its partition's view is complete.
const FRESH_MS = 15_000;

// The server's own time: ages told by it do not depend on our clock.
function serverMs([seconds, micros]) {
  return Number(seconds) * 1000 + Math.floor(Number(micros) / 1000);
}

// How far a partition's view can be trusted, from its marker's `time_ms`.
function freshness(appliedMs, nowMs) {
  // No marker, or nothing is promised: it is being written again.
  if (!appliedMs) return 'incomplete';
  const ageMs = Math.max(0, nowMs - appliedMs);
  return ageMs < FRESH_MS ? 'fresh' : `${Math.floor(ageMs / 1000)} s old`;
}

// A device's fields and the freshness of its partition; null if it is not known.
async function readDevice(server, device) {
  const fields = await server.hGetAll(`${PREFIX}device:${device}`);
  // A deleted device keeps its token for a while.
  if (!('status' in fields)) return null;
  // The token names the partition: <partition>:<epoch>:<sequence>.
  const partition = fields.token.split(':')[0];
  const [appliedMs, time] = await Promise.all([
    server.hGet(`${PREFIX}partition:${partition}`, 'time_ms'),
    server.sendCommand(['TIME']),
  ]);
  return { fields, fresh: freshness(Number(appliedMs ?? 0), serverMs(time)) };
}

// A fleet's devices by status, and the freshness of the stalest partition.
async function readFleet(server, fleet) {
  const counts = Object.fromEntries(STATUSES.map((status) => [status, 0]));
  const timesMs = [];
  for (let first = 0; ; first += 128) {
    const block = Array.from({ length: 128 }, (_, index) => first + index);
    // Commands that are sent in the same tick share a pipeline.
    const [markers, hashes] = await Promise.all([
      Promise.all(block.map((p) => server.hGet(`${PREFIX}partition:${p}`, 'time_ms'))),
      Promise.all(block.map((p) => server.hmGet(`${PREFIX}fleet:${fleet}:${p}`, STATUSES))),
    ]);
    for (const numbers of hashes) {
      STATUSES.forEach((status, index) => { counts[status] += Number(numbers[index] ?? 0); });
    }
    timesMs.push(...markers.map((appliedMs) => Number(appliedMs ?? 0)));
    // Partitions are numbered from 0. The last marker says how many there are; one that is
    // missing before it promises nothing.
    if (!markers.some(Boolean)) {
      while (timesMs.at(-1) === 0) timesMs.pop();
      const nowMs = serverMs(await server.sendCommand(['TIME']));
      return { counts, fresh: freshness(timesMs.length ? Math.min(...timesMs) : 0, nowMs) };
    }
  }
}

// Calls `changed(device, fields)` for each device that changes; fields are null for a
// deleted one. A hint says which device to look at, and may be lost or come twice: what is
// shown is always what the key holds. Consume the topic of changes if each one counts.
async function follow(server, changed) {
  const subscriber = server.duplicate();
  subscriber.on('error', (error) => console.error(`Redis: ${error.message}`));
  await subscriber.connect();
  await subscriber.subscribe(`${PREFIX}changes`, async (hint) => {
    const { device } = JSON.parse(hint);
    const known = await readDevice(server, device);
    changed(device, known && known.fields);
  });
}

const [command, argument] = process.argv.slice(2);
const server = createClient({
  url: process.env.REDIS_URL ?? 'redis://localhost:6379',
  socket: process.env.REDIS_CA_FILE && { ca: readFileSync(process.env.REDIS_CA_FILE) },
});
server.on('error', (error) => console.error(`Redis: ${error.message}`));
await server.connect();

if (command === 'device') {
  const known = await readDevice(server, argument);
  if (known) {
    const { fields, fresh } = known;
    console.log(`${argument}: ${fields.display} since ${fields.since_ms} (${fresh})`);
  } else {
    console.error(`${argument} is not known`);
    process.exitCode = 1;
  }
  await server.close();
} else if (command === 'fleet') {
  const { counts, fresh } = await readFleet(server, argument);
  const shown = STATUSES.filter((status) => counts[status])
    .map((status) => `${status} ${counts[status]}`).join(', ');
  console.log(`${argument}: ${shown || 'no devices'} (${fresh})`);
  await server.close();
} else if (command === 'follow') {
  let left = Number(argument ?? Infinity);
  await follow(server, (device, fields) => {
    console.log(`${device}: ${fields ? fields.display : 'deleted'}`);
    left -= 1;
    if (left === 0) process.exit();
  });
} else {
  console.error('usage: node read_redis.js device ID | fleet FLEET | follow [COUNT]');
  process.exitCode = 2;
  await server.close();
}
