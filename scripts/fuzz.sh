#!/usr/bin/env bash
# Fuzzes each target of fuzz/ for so many seconds: fuzz.sh SECONDS [TARGET ...]
# What is found new stays in target/fuzz, and is tried again first the next time.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"

seconds=${1:-60}
shift || true
command -v cargo-fuzz >/dev/null || cargo +nightly install --locked cargo-fuzz
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cargo +nightly fuzz list)
for target in "${targets[@]}"; do
    echo "== $target"
    mkdir -p "../target/fuzz/$target"
    # What is tested is safe Rust: without a sanitizer it is several times as quick.
    cargo +nightly fuzz run -s none "$target" "../target/fuzz/$target" "seeds/$target" -- \
        -max_total_time="$seconds" -max_len=4096 -print_final_stats=1 2>&1 |
        grep -E "^(#|stat::(number|average)|==|thread|panic|.*assertion|Test unit|artifact|SUMMARY)|left:|right:" |
        tail -n 20
done
