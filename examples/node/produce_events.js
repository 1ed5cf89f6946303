// Registers a device and sends one heartbeat of it.
//
//     node produce_events.js DEVICE FLEET
//
// KAFKA_BROKERS is the address of Kafka. HEARTBEATS_TOPIC, VPN_TOPIC and LIFECYCLE_TOPIC
// name the topics if they do not have the default names. PROTO is the folder `proto` of
// this repository. docs/security.md lists the variables for TLS and SASL.

import { Kafka, Partitioners } from 'kafkajs';
import protobuf from 'protobufjs';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const HEARTBEATS = process.env.HEARTBEATS_TOPIC ?? 'device-heartbeats';
const VPN_SESSIONS = process.env.VPN_TOPIC ?? 'device-vpn-sessions';
const LIFECYCLE = process.env.LIFECYCLE_TOPIC ?? 'device-lifecycle';

const folder = process.env.PROTO ?? fileURLToPath(new URL('../../proto', import.meta.url));
const messages = protobuf.loadSync(`${folder}/device_status/v1/device_status.proto`);

// TLS and SASL.
function security() {
  const { env } = process;
  const protocol = (env.KAFKA_SECURITY_PROTOCOL ?? 'PLAINTEXT').toUpperCase();
  const file = (path) => path && readFileSync(path);
  return {
    ssl: protocol.endsWith('SSL') && {
      ca: file(env.KAFKA_CA_FILE),
      cert: file(env.KAFKA_CERTIFICATE_FILE),
      key: file(env.KAFKA_KEY_FILE),
    },
    sasl: protocol.startsWith('SASL_') ? {
      mechanism: (env.KAFKA_SASL_MECHANISM ?? 'PLAIN').toLowerCase(),
      username: env.KAFKA_SASL_USERNAME,
      password: env.KAFKA_SASL_PASSWORD,
    } : undefined,
  };
}

const kafka = new Kafka({
  ...security(),
  clientId: 'produce-events',
  brokers: (process.env.KAFKA_BROKERS ?? 'localhost:9092').split(','),
});
const producer = kafka.producer({
  // murmur2, as in Java. With LegacyPartitioner every record would become a dead letter.
  createPartitioner: Partitioners.DefaultPartitioner,
  idempotent: true,
});

// The bytes of a message. Field names are in camel case here.
function encode(name, fields) {
  const type = messages.lookupType(`device_status.v1.${name}`);
  const error = type.verify(fields);
  if (error) throw new Error(`${name}: ${error}`);
  return type.encode(type.create(fields)).finish();
}

function now() {
  const ms = Date.now();
  return { seconds: Math.floor(ms / 1000), nanos: (ms % 1000) * 1_000_000 };
}

// An event of one device: its id is the key, and the key chooses the partition. Rejects if
// the write failed: keep the event, and send it again with the same occurredAt.
async function send(topic, device, value) {
  await producer.send({ topic, acks: -1, messages: [{ key: device, value }] });
}

// An event of a scope: no key, one copy to every partition.
async function broadcast(admin, topic, value) {
  const { topics } = await admin.fetchTopicMetadata({ topics: [topic] });
  const copies = topics[0].partitions.map(({ partitionId }) => (
    { key: null, partition: partitionId, value }
  ));
  await producer.send({ topic, acks: -1, messages: copies });
}

const [device, fleet] = process.argv.slice(2);
const admin = kafka.admin();
await Promise.all([producer.connect(), admin.connect()]);

await send(LIFECYCLE, device, encode('LifecycleEvent', {
  occurredAt: now(),
  registered: { fleet, organization: 'acme' },
}));

// The setting of the fleet: poll every 15 minutes.
await broadcast(admin, LIFECYCLE, encode('LifecycleEvent', {
  occurredAt: now(),
  fleetSettingsChanged: { fleet, pollInterval: { seconds: 15 * 60 } },
}));

// A VPN server renews the lease of its sessions, one minute, every 15 s.
await broadcast(admin, VPN_SESSIONS, encode('VpnEvent', {
  occurredAt: now(),
  instanceAlive: { instance: 'vpn-1', lease: { seconds: 60 } },
}));

// The device polled and was told to poll again in 15 minutes.
await send(HEARTBEATS, device, encode('Heartbeat', {
  occurredAt: now(),
  pollInterval: { seconds: 15 * 60 },
}));

await Promise.all([producer.disconnect(), admin.disconnect()]);
console.log(`told of ${device}`);
