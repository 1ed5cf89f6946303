"""Registers a device and sends one heartbeat of it.

    python -m grpc_tools.protoc --proto_path=proto --python_out=DIR \\
        proto/device_status/v1/device_status.proto
    PYTHONPATH=DIR python produce_events.py DEVICE FLEET

KAFKA_BROKERS is the address of Kafka. HEARTBEATS_TOPIC, VPN_TOPIC and LIFECYCLE_TOPIC
name the topics if they do not have the default names. docs/security.md lists the
variables for TLS and SASL.
"""

import os
import sys

from confluent_kafka import Producer
from device_status.v1 import device_status_pb2 as ds

HEARTBEATS = os.environ.get("HEARTBEATS_TOPIC", "device-heartbeats")
VPN_SESSIONS = os.environ.get("VPN_TOPIC", "device-vpn-sessions")
LIFECYCLE = os.environ.get("LIFECYCLE_TOPIC", "device-lifecycle")

# TLS and SASL, by librdkafka's names.
SECURITY = {
    "security.protocol": os.environ.get("KAFKA_SECURITY_PROTOCOL"),
    "ssl.ca.location": os.environ.get("KAFKA_CA_FILE"),
    "ssl.certificate.location": os.environ.get("KAFKA_CERTIFICATE_FILE"),
    "ssl.key.location": os.environ.get("KAFKA_KEY_FILE"),
    "sasl.mechanism": os.environ.get("KAFKA_SASL_MECHANISM"),
    "sasl.username": os.environ.get("KAFKA_SASL_USERNAME"),
    "sasl.password": os.environ.get("KAFKA_SASL_PASSWORD"),
}

producer = Producer({
    **{name: value for name, value in SECURITY.items() if value},
    "bootstrap.servers": os.environ.get("KAFKA_BROKERS", "localhost:9092"),
    # librdkafka's default is another hash: every record would become a dead letter.
    "partitioner": "murmur2_random",
    "enable.idempotence": True,
})
failures = []


def delivered(error, message):
    if error is not None:
        # Not written: keep the event, and send it again with the same occurred_at.
        failures.append(f"not delivered to {message.topic()}: {error}")


def send(topic, device, event):
    """An event of one device: its id is the key, and the key chooses the partition."""
    producer.produce(topic, key=device.encode(), value=event.SerializeToString(),
                     on_delivery=delivered)
    producer.poll(0)


def broadcast(topic, event):
    """An event of a scope: no key, one copy to every partition."""
    value = event.SerializeToString()
    for partition in producer.list_topics(topic, timeout=30).topics[topic].partitions:
        producer.produce(topic, partition=partition, value=value, on_delivery=delivered)
    producer.poll(0)


def main(device, fleet):
    registered = ds.LifecycleEvent()
    registered.occurred_at.GetCurrentTime()
    registered.registered.fleet = fleet
    registered.registered.organization = "acme"
    send(LIFECYCLE, device, registered)

    # The setting of the fleet: poll every 15 minutes.
    settings = ds.LifecycleEvent()
    settings.occurred_at.GetCurrentTime()
    settings.fleet_settings_changed.fleet = fleet
    settings.fleet_settings_changed.poll_interval.FromSeconds(15 * 60)
    broadcast(LIFECYCLE, settings)

    # A VPN server renews the lease of its sessions, one minute, every 15 s.
    alive = ds.VpnEvent()
    alive.occurred_at.GetCurrentTime()
    alive.instance_alive.instance = "vpn-1"
    alive.instance_alive.lease.FromSeconds(60)
    broadcast(VPN_SESSIONS, alive)

    # The device polled and was told to poll again in 15 minutes.
    heartbeat = ds.Heartbeat()
    heartbeat.occurred_at.GetCurrentTime()
    heartbeat.poll_interval.FromSeconds(15 * 60)
    send(HEARTBEATS, device, heartbeat)

    if producer.flush(60):
        failures.append("not delivered within a minute")
    if failures:
        raise SystemExit("\n".join(failures))
    print(f"told of {device}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
