#!/usr/bin/env bash
# Fuzzes the targets of src/fuzz with libFuzzer, each for some seconds, and prints executions and coverage.
#   scripts/fuzz.sh SECONDS [TARGET]...
# The inputs that are found stay in the target folder, where the next run begins with them. An input that breaks a
# target is written to its folder `findings`; `scripts/fuzz.sh 0 TARGET FILE` runs the target with this input again.
set -uo pipefail
cd "$(dirname "$0")/.."

usage() {
    echo "usage: scripts/fuzz.sh SECONDS [TARGET]..., or scripts/fuzz.sh 0 TARGET FILE" >&2
    exit 2
}
[[ "${1:-}" =~ ^[0-9]+$ ]] || usage
seconds=$1
shift

# Seconds after which a target hangs. One second of CPU time is the limit of tests/fuzz/src/main.rs.
hang=20
# Memory of the process in MB: libFuzzer keeps the corpus in it. A target has the limit of tests/fuzz/src/main.rs.
memory=1024
input_bytes=4096

# Coverage is a pass of LLVM, which the stable compiler has too; only sanitizers need another one.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module \
-Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
# The triple keeps the flags away from build scripts and procedural macros.
triple=$(rustc -vV | sed -n 's/^host: //p')
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
(cd tests/fuzz && cargo build --quiet --target "$triple" --target-dir "$target") || exit 1
binary="$target/$triple/debug/fuzz"

limits=("-timeout=$hang" "-rss_limit_mb=$memory")
if [ "$seconds" -eq 0 ]; then
    [ $# -eq 2 ] || usage
    FUZZ_TARGET=$1 exec "$binary" "${limits[@]}" "$2"
fi

targets=("$@")
[ $# -gt 0 ] || mapfile -t targets < <(ls tests/fuzz/corpus)
findings="$target/fuzz/findings"
mkdir -p "$findings"
found=0
printf '%-18s %12s %8s %10s %10s %8s\n' target executions per_s edges features rss_mb
for name in "${targets[@]}"; do
    corpus="$target/fuzz/corpus/$name"
    log="$target/fuzz/$name.log"
    mkdir -p "$corpus"
    FUZZ_TARGET=$name "$binary" "${limits[@]}" -max_len="$input_bytes" -max_total_time="$seconds" -print_final_stats=1 \
        -artifact_prefix="$findings/$name-" "$corpus" "tests/fuzz/corpus/$name" >"$log" 2>&1
    status=$?
    number() { sed -n "s/^stat::$1: *//p" "$log" | tail -n 1; }
    last=$(grep -o 'cov: [0-9]* ft: [0-9]*' "$log" | tail -n 1)
    read -r _ edges _ features <<<"${last:-cov: 0 ft: 0}"
    printf '%-18s %12s %8s %10s %10s %8s\n' "$name" "$(number number_of_executed_units)" \
        "$(number average_exec_per_sec)" "$edges" "$features" "$(number peak_rss_mb)"
    if [ $status -ne 0 ]; then
        found=$((found + 1))
        grep -E "panicked at|SUMMARY|memory allocation" -A1 "$log" | head -n 6
        echo "$name failed: see $log; the input is $(ls -t "$findings/$name-"* 2>/dev/null | head -n 1)"
    fi
done
echo "of $(sed -n 's/.*(\([0-9]*\) inline 8-bit counters).*/\1/p' "$log" | tail -n 1) edges of the program"
[ $found -eq 0 ] || { echo "$found targets have findings in $findings"; exit 1; }
