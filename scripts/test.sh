#!/usr/bin/env bash
# Runs all tests, and says at the end which end-to-end tests needed a retry. Arguments go to `cargo test`; with
# arguments, exactly those tests run.
#
# Tests with encoders and browsers run in real time: on a machine that is too slow for one call they can only show that.
# There they are left out, and the last lines say so. REAL_TIME=yes runs them on any machine, REAL_TIME=no on none.
set -uo pipefail
cd "$(dirname "$0")/.."

real_time_tests=(e2e input mixer recording)
# End-to-end tests of which no encoder and no browser is a part.
without_media=(contract:: startup:: web::the_javascript_unit_tests_pass)

selection=()
leaves_out=""
if [ $# -eq 0 ] && ! scripts/real-time.sh; then
    leaves_out=yes
    selection=(--lib --bins)
    for main in tests/*/main.rs; do
        name=$(basename "$(dirname "$main")")
        # `cargo test` leaves the endurance tests to `make chaos` and `make soak`.
        [[ " ${real_time_tests[*]} endurance " == *" $name "* ]] || selection+=(--test "$name")
    done
fi

retries="${CARGO_TARGET_DIR:-target}/e2e/retries.txt"
rm -f "$retries"
output=$(mktemp)
trap 'rm -f "$output"' EXIT
cargo test --locked --no-fail-fast "${selection[@]}" "$@" 2>&1 | tee "$output"
status=${PIPESTATUS[0]}
retried=()
if [ "$status" -ne 0 ] && [ -n "$leaves_out" ]; then
    # Limits of seconds, for threads and processes that answer within milliseconds, are sometimes too short here. Each
    # test gets a second try, without others beside it.
    mapfile -t retried < <(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$output")
    if [ ${#retried[@]} -gt 0 ] && [ ${#retried[@]} -le 3 ]; then
        cargo test --locked --no-fail-fast "${selection[@]}" -- --exact --test-threads 1 "${retried[@]}"
        status=$?
    fi
fi
if [ -n "$leaves_out" ]; then
    cargo test --locked --test e2e -- "${without_media[@]}" || status=$?
fi
if [ -f "$retries" ]; then cat "$retries"; fi
if [ ${#retried[@]} -gt 0 ]; then echo "FAILED AT FIRST, on this slow machine: ${retried[*]}" >&2; fi
if [ -n "$leaves_out" ]; then
    echo "NOT RUN, because this machine is too slow for a call: ${real_time_tests[*]}; of e2e only" \
        "${without_media[*]} ran." >&2
    echo "Run them with: REAL_TIME=yes make test" >&2
fi
exit $status
