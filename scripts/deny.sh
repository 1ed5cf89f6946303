#!/usr/bin/env bash
# Licences, advisories, bans and sources of all dependencies, where cargo-deny
# is installed and the database of advisories can be reached or is at hand.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v cargo-deny >/dev/null; then
    echo "skipped: cargo-deny is not installed (cargo install --locked cargo-deny)" >&2
    exit 0
fi
cargo deny --log-level error check --hide-inclusion-graph licenses bans sources
if timeout 60 cargo deny --log-level error fetch db >/dev/null 2>&1; then
    cargo deny --log-level error check --hide-inclusion-graph advisories
else
    echo "skipped: the database of advisories cannot be reached" >&2
fi
