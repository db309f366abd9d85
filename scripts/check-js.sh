#!/usr/bin/env bash
# Checks the syntax of every JavaScript file of the repository as an ES module.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v node >/dev/null; then
    echo "Node.js is missing: run scripts/setup.sh test" >&2
    exit 1
fi
while IFS= read -r file; do
    node --check --input-type=module - <"$file" || { echo "syntax error in $file" >&2; exit 1; }
done < <(git ls-files '*.js' '*.mjs')
