#!/usr/bin/env bash
# Checks licences, bans and sources of all dependencies by deny.toml. Advisories need a fetched database: run
# `cargo deny check advisories` where there is a network.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo deny --version >/dev/null 2>&1; then
    echo "Installing cargo-deny (once, some minutes)"
    cargo install cargo-deny --locked --quiet
fi
cargo deny --log-level error check licenses bans sources
