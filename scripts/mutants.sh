#!/usr/bin/env bash
# Runs cargo-mutants on the pure modules, and lists mutants that no unit test notices in the folder mutants.out of
# Cargo's target folder. Arguments go to cargo-mutants; `--file` replaces the list of modules:
#   scripts/mutants.sh --file 'src/layout/**'
set -euo pipefail
cd "$(dirname "$0")/.."

version=27.1.0
if ! cargo mutants --version >/dev/null 2>&1; then
    echo "Installing cargo-mutants $version (once, some minutes)"
    cargo install cargo-mutants --version "$version" --locked --quiet --debug
fi

modules=(room layout tier jitter audio sdp)
files=()
case " $* " in
*" --file "* | *" -f "*) ;;
*) for module in "${modules[@]}"; do files+=(--file "src/$module.rs" --file "src/$module/**/*.rs"); done ;;
esac

# It works on a copy of the sources. Only unit tests of these modules run: they take seconds. A mutant that hangs is
# ended.
output=${CARGO_TARGET_DIR:-target}
mkdir -p "$output"
filters=()
for module in "${modules[@]}"; do filters+=("$module::"); done
exec cargo mutants --timeout 60 --output "$output" \
    "${files[@]}" "$@" -- --locked --lib -- "${filters[@]}"
