#!/usr/bin/env bash
# Succeeds if this machine is fast enough for the tests that need real time: those with encoders and browsers. Prints
# the measured speed. REAL_TIME=yes or REAL_TIME=no decides without a measurement.
set -euo pipefail

# Seconds of 720p VP8 that a core must encode in a second, in hundredths. At 110 browsers did not send their cameras in
# time, without any fault of the server.
needed=200

attempt() {
    # `time` prints the CPU time of the program in seconds with three decimals.
    local TIMEFORMAT=%U
    time ffmpeg -hide_banner -loglevel error -nostdin -f lavfi -i testsrc2=size=1280x720:rate=30 -t 2 \
        -threads 1 -c:v libvpx -deadline realtime -cpu-used 8 -b:v 1M -f null - 2>/dev/null
}

# The best of four attempts, two at a time, so that another program does not decide.
measure() {
    for _ in 1 2; do
        attempt &
        attempt &
        wait
    done 2>&1 | awk 'NR == 1 || $1 < least { least = $1 } END { printf "%d\n", (least > 0 ? 200 / least : 0) }'
}

case "${REAL_TIME:-}" in
yes) exit 0 ;;
no) exit 1 ;;
esac
speed=$(measure)
printf 'A core of this machine encodes 720p VP8 at %d.%02d times real time; tests in real time need %d.%02d.\n' \
    $((speed / 100)) $((speed % 100)) $((needed / 100)) $((needed % 100))
[ "$speed" -ge "$needed" ]
