#!/usr/bin/env bash
# Checks licences, bans and sources of all dependencies by deny.toml. Advisories need a database from the network: run
# `cargo deny check advisories` where there is one. `scripts/setup.sh lint` installs cargo-deny.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo deny --version >/dev/null 2>&1; then
    echo "cargo-deny is missing: run scripts/setup.sh lint" >&2
    exit 1
fi
cargo deny --locked --log-level error check licenses bans sources
