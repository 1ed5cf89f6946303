"""Reads statuses from Redis.

    python read_redis.py device ID              one device
    python read_redis.py fleet FLEET            how many devices have each status
    python read_redis.py follow [--count N]     changes as they happen

REDIS_URL says where Redis is, PREFIX what the keys begin with. A URL that begins with
rediss:// means TLS; REDIS_CA_FILE names the authority, if it is not one of the system's.
"""

import argparse
import json
import os

import redis

PREFIX = os.environ.get("PREFIX", "ds:")
STATUSES = ["online", "configuring", "updating", "offline",
            "post-provisioning", "inactive", "frozen"]
# A marker moves on at least every 5 s while its partition's view is complete.
FRESH_MS = 15_000


def server_ms(time):
    """The server's own time: ages told by it do not depend on our clock."""
    seconds, micros = time
    return seconds * 1000 + micros // 1000


def freshness(applied_ms, now_ms):
    """How far a partition's view can be trusted, from its marker's `time_ms`."""
    if not applied_ms:  # no marker, or nothing is promised: it is being written again
        return "incomplete"
    age_ms = max(0, now_ms - int(applied_ms))
    return "fresh" if age_ms < FRESH_MS else f"{age_ms // 1000} s old"


def read_device(server, device):
    """A device's fields and the freshness of its partition; `None` if it is not known."""
    fields = server.hgetall(f"{PREFIX}device:{device}")
    if "status" not in fields:  # a deleted device keeps its token for a while
        return None
    # The token names the partition: <partition>:<epoch>:<sequence>.
    partition = fields["token"].split(":")[0]
    pipeline = server.pipeline(transaction=False)
    pipeline.hget(f"{PREFIX}partition:{partition}", "time_ms")
    pipeline.time()
    applied_ms, time = pipeline.execute()
    return fields, freshness(int(applied_ms or 0), server_ms(time))


def read_fleet(server, fleet):
    """A fleet's devices by status, and the freshness of the stalest partition."""
    counts = dict.fromkeys(STATUSES, 0)
    times_ms = []
    first = 0
    while True:
        block = range(first, first + 128)
        pipeline = server.pipeline(transaction=False)
        for partition in block:
            pipeline.hget(f"{PREFIX}partition:{partition}", "time_ms")
            pipeline.hmget(f"{PREFIX}fleet:{fleet}:{partition}", STATUSES)
        pipeline.time()
        *answers, time = pipeline.execute()
        markers, hashes = answers[0::2], answers[1::2]
        for numbers in hashes:
            for status, number in zip(STATUSES, numbers):
                counts[status] += int(number or 0)
        times_ms += [int(applied_ms or 0) for applied_ms in markers]
        # Partitions are numbered from 0. The last marker says how many there are; one that
        # is missing before it promises nothing.
        if not any(markers):
            while times_ms and not times_ms[-1]:
                times_ms.pop()
            return counts, freshness(min(times_ms, default=0), server_ms(time))
        first += 128


def follow(server):
    """Yields (device, fields) of each device that changes; fields are `None` for a deleted one.

    A hint says which device to look at, and may be lost or come twice: what is shown is
    always what the key holds. Consume the topic of changes if each one counts.
    """
    subscription = server.pubsub(ignore_subscribe_messages=True)
    subscription.subscribe(f"{PREFIX}changes")
    while True:
        message = subscription.get_message(timeout=10)
        if message is None:
            continue
        device = json.loads(message["data"])["device"]
        known = read_device(server, device)
        yield device, known and known[0]


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("device").add_argument("id")
    commands.add_parser("fleet").add_argument("fleet")
    commands.add_parser("follow").add_argument("--count", type=int)
    arguments = parser.parse_args()

    url = os.environ.get("REDIS_URL", "redis://localhost:6379")
    authority = os.environ.get("REDIS_CA_FILE")
    tls = {"ssl_ca_certs": authority} if authority else {}
    server = redis.Redis.from_url(url, decode_responses=True, **tls)
    if arguments.command == "device":
        known = read_device(server, arguments.id)
        if known is None:
            raise SystemExit(f"{arguments.id} is not known")
        fields, fresh = known
        print(f"{arguments.id}: {fields['display']} since {fields['since_ms']} ({fresh})")
    elif arguments.command == "fleet":
        counts, fresh = read_fleet(server, arguments.fleet)
        shown = ", ".join(f"{status} {number}" for status, number in counts.items() if number)
        print(f"{arguments.fleet}: {shown or 'no devices'} ({fresh})")
    else:
        for number, (device, fields) in enumerate(follow(server), 1):
            print(f"{device}: {fields['display'] if fields else 'deleted'}", flush=True)
            if number == arguments.count:
                break


if __name__ == "__main__":
    main()
