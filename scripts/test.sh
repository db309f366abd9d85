#!/usr/bin/env bash
# Runs all tests, and says at the end which end-to-end tests needed a retry. Arguments go to `cargo test`.
set -uo pipefail
cd "$(dirname "$0")/.."

retries="${CARGO_TARGET_DIR:-target}/e2e/retries.txt"
rm -f "$retries"
cargo test --locked --no-fail-fast "$@"
status=$?
if [ -f "$retries" ]; then cat "$retries"; fi
exit $status
