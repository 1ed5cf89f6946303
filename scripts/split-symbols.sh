#!/bin/sh
# Writes a stripped copy of a binary, and its symbols beside it:
#   scripts/split-symbols.sh target/release/device-status DIRECTORY
# gdb, perf and addr2line find NAME.debug next to the binary by itself.
set -eu
binary=$1
directory=$2
name=$(basename "$binary")
objcopy --only-keep-debug --compress-debug-sections "$binary" "$directory/$name.debug"
objcopy --strip-all "$binary" "$directory/$name"
cd "$directory"
objcopy --add-gnu-debuglink="$name.debug" "$name"
