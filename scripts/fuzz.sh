#!/usr/bin/env bash
# Fuzzes each target of fuzz/ for so many seconds: fuzz.sh SECONDS [TARGET ...]
# What is found new stays in target/fuzz, and is tried again first the next time.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"

seconds=${1:-60}
shift || true
command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cargo fuzz list)
for target in "${targets[@]}"; do
    echo "== $target"
    found="../target/fuzz/$target"
    mkdir -p "$found"
    # What is tested is safe Rust: without a sanitizer it is several times as quick, and needs
    # no nightly toolchain.
    cargo fuzz run -s none "$target" "$found" "seeds/$target" -- \
        -max_total_time="$seconds" -max_len=4096 -print_final_stats=1 2>&1 |
        grep -vE "^#[0-9]+\s+(NEW|REDUCE|RELOAD)|^\s+(Compiling|Finished|Running)|^INFO:|^\s+NEW_FUNC|^ *Blocking|^WARNING: Failed to find function|^\"|^#####"
done
