#!/usr/bin/env bash
# Every check that needs no test: format, clippy, dependency rules, JavaScript.
# `scripts/setup.sh lint` installs the tools. With `--without-clippy`, clippy is left out.
set -euo pipefail
cd "$(dirname "$0")/.."

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
cargo fmt --check
cargo fmt --check --manifest-path tests/webrtchttp/Cargo.toml
cargo fmt --check --manifest-path tests/fuzz/Cargo.toml
scripts/check-js.sh
scripts/deny.sh
[ "${1:-}" != --without-clippy ] || exit 0
cargo clippy --locked --all-targets -- -D warnings
(cd tests/webrtchttp && cargo clippy --locked --target-dir "$target" -- -D warnings)
