#!/usr/bin/env bash
# What the examples in other languages need, into target/examples: a Python environment
# (python/bin/python) with the messages made from proto/ (messages/), and a folder for Node
# (node/) with its packages beside copies of the examples.
set -euo pipefail
trap 'echo "examples.sh: failed; WITHOUT_EXAMPLES=1 make test does without these" >&2' ERR
root=$(cd "$(dirname "$0")/.." && pwd)
home="$root/target/examples"
mkdir -p "$home"
"$root/scripts/need.sh" flock venv node npm

# Whoever comes second waits, and then finds it done.
exec 9>"$home/lock"
flock 9

up_to_date() { # up_to_date STAMP FILE ...
    local stamp=$1
    shift
    sha256sum "$@" | cmp -s - "$stamp"
}

requirements="$root/examples/python/requirements.txt"
proto="$root/proto/device_status/v1/device_status.proto"
if ! up_to_date "$home/python.stamp" "$requirements" "$proto"; then
    echo "examples.sh: making the Python environment ..." >&2
    rm -rf "$home/python" "$home/messages"
    python3 -m venv "$home/python"
    "$home/python/bin/python" -m pip install --quiet --disable-pip-version-check \
        --only-binary :all: -r "$requirements" >&2
    mkdir -p "$home/messages"
    "$home/python/bin/python" -m grpc_tools.protoc --proto_path="$root/proto" \
        --python_out="$home/messages" "$proto"
    sha256sum "$requirements" "$proto" >"$home/python.stamp"
fi

lock="$root/examples/node/package-lock.json"
if ! up_to_date "$home/node.stamp" "$root/examples/node/package.json" "$lock"; then
    echo "examples.sh: fetching the packages for Node ..." >&2
    rm -rf "$home/node"
    mkdir -p "$home/node"
    cp "$root/examples/node/package.json" "$lock" "$home/node"
    npm ci --prefix "$home/node" --ignore-scripts --no-audit --no-fund --silent >&2
    sha256sum "$root/examples/node/package.json" "$lock" >"$home/node.stamp"
fi
# Node looks for packages from where a script lies.
cp "$root"/examples/node/*.js "$home/node"
