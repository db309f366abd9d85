#!/usr/bin/env bash
# Runs all tests, and says at the end which end-to-end tests needed a retry. Arguments go to `cargo test`; with
# arguments, exactly those tests run.
#
# Tests with encoders and browsers run in real time: on a machine that is too slow for one call they can only show that.
# There they are left out, and the last lines say so. REAL_TIME=yes runs them on any machine, REAL_TIME=no on none.
set -uo pipefail
cd "$(dirname "$0")/.."

real_time_tests=(e2e input mixer recording)
# End-to-end tests of which no encoder or browser is a part.
without_media=(contract:: startup:: web::the_javascript_unit_tests_pass)
# Seconds of 720p VP8 that a core must encode in a second, in hundredths. At 110 browsers did not send their cameras in
# time, without any fault of the server.
needed=200

selection=()
left_out=""
if [ $# -eq 0 ]; then
    speed=$(scripts/encoding-speed.sh)
    echo "A core of this machine encodes 720p VP8 at $((speed / 100)).$(printf %02d $((speed % 100))) times real time."
    case "${REAL_TIME:-}" in
    yes) ;;
    no) left_out="REAL_TIME=no" ;;
    *) [ "$speed" -ge "$needed" ] || left_out="this machine is too slow for a call: $((needed / 100)) times is needed" ;;
    esac
    if [ -n "$left_out" ]; then
        selection=(--lib --bins)
        for folder in tests/*/main.rs; do
            name=$(basename "$(dirname "$folder")")
            # `cargo test` leaves the endurance tests to `make chaos` and `make soak`.
            [[ " ${real_time_tests[*]} endurance " == *" $name "* ]] || selection+=(--test "$name")
        done
    fi
fi

retries="${CARGO_TARGET_DIR:-target}/e2e/retries.txt"
rm -f "$retries"
cargo test --locked --no-fail-fast "${selection[@]}" "$@"
status=$?
if [ -n "$left_out" ]; then
    cargo test --locked --test e2e -- "${without_media[@]}" || status=$?
fi
if [ -f "$retries" ]; then cat "$retries"; fi
if [ -n "$left_out" ]; then
    echo "NOT RUN: ${real_time_tests[*]} (but ${without_media[*]}), because $left_out." >&2
    echo "Run them with: REAL_TIME=yes scripts/test.sh" >&2
fi
exit $status
