#!/usr/bin/env bash
# What the examples in other languages need, into target/examples: a Python environment
# (python/bin/python) with the messages made from proto/ (messages/), a folder for Node (node/)
# with its packages beside copies of the examples, and the examples in Go (go/read_statuses) and
# Java (java/classes, java/lib), built.
set -euo pipefail
trap 'echo "examples.sh: failed; WITHOUT_EXAMPLES=1 make test does without these" >&2' ERR
root=$(cd "$(dirname "$0")/.." && pwd)
home="$root/target/examples"
mkdir -p "$home"
"$root/scripts/need.sh" flock venv node npm go java javac maven

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

java="$root/examples/java"
if ! up_to_date "$home/java.stamp" "$java/pom.xml" "$java"/*.java "$proto"; then
    echo "examples.sh: building the example in Java ..." >&2
    rm -rf "$home/java"
    mkdir -p "$home/java/messages" "$home/java/classes"
    mvn --batch-mode --quiet -Dstyle.color=never -f "$java/pom.xml" dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$home/java/lib" >&2 </dev/null
    # Python's protoc makes no Java.
    mvn --batch-mode --quiet -Dstyle.color=never dependency:copy -Dmdep.stripVersion \
        -Dartifact="com.google.protobuf:protoc:4.29.5:exe:linux-$(uname -m | sed s/aarch64/aarch_64/)" \
        -DoutputDirectory="$home/java" >&2 </dev/null
    chmod +x "$home"/java/protoc-*.exe
    # The well-known messages come with Python's.
    "$home"/java/protoc-*.exe --proto_path="$root/proto" \
        --proto_path="$(echo "$home"/python/lib/python3*/site-packages/grpc_tools/_proto)" \
        --java_out="$home/java/messages" "$proto"
    find "$home/java/messages" "$java" -name '*.java' -print0 |
        xargs -0 javac -Xlint:-options --release 11 -cp "$home/java/lib/*" -d "$home/java/classes"
    sha256sum "$java/pom.xml" "$java"/*.java "$proto" >"$home/java.stamp"
fi

go="$root/examples/go"
if ! up_to_date "$home/go.stamp" "$go"/* "$proto"; then
    echo "examples.sh: building the example in Go ..." >&2
    rm -rf "$home/go"
    mkdir -p "$home/go"
    cp "$go"/* "$home/go"
    (
        cd "$home/go"
        # The generator has the version of the library that go.mod names.
        GOFLAGS=-mod=mod go build -o protoc-gen-go google.golang.org/protobuf/cmd/protoc-gen-go
        "$home/python/bin/python" -m grpc_tools.protoc --proto_path="$root/proto" \
            --plugin=protoc-gen-go=./protoc-gen-go --go_out=. --go_opt=module=devicestatus "$proto"
        go build -o read_statuses .
    )
    sha256sum "$go"/* "$proto" >"$home/go.stamp"
fi
