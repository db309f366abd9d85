#!/usr/bin/env bash
# Checks the JavaScript of the web page and of the tests: types by TypeScript over JSDoc, and lint by ESLint.
# `scripts/setup.sh lint` installs both.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=tests/e2e/node_modules/.bin
if [ ! -x "$tools/tsc" ] || [ ! -x "$tools/eslint" ]; then
    echo "TypeScript and ESLint are missing: run scripts/setup.sh lint" >&2
    exit 1
fi
"$tools/tsc" --project tests/e2e
"$tools/eslint" --config tests/e2e/eslint.config.mjs --max-warnings 0 assets tests/e2e tests/web
"$tools/spectral" lint --fail-severity warn --ruleset tests/e2e/spectral.yaml assets/openapi.json
types=assets/web/commingle-api.d.ts
"$tools/openapi-typescript" assets/openapi.json --output "$types.new" >/dev/null
if ! cmp --silent "$types" "$types.new"; then
    mv "$types.new" "$types"
    echo "$types did not agree with assets/openapi.json; it has been generated again: commit it" >&2
    exit 1
fi
rm "$types.new"
