# `make` lists the targets. Flags for `commingle serve` go into ARGS: make run ARGS="--http 127.0.0.1:9000"
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run dist test lint bench mutants fuzz chaos soak fmt ci

ARGS ?=

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## install what is missing, build, and serve on http://127.0.0.1:8080
	@scripts/setup.sh run
	cargo build --locked --release --bin commingle
	@echo "Open the address after \"http=\" below in two browser windows and join the same room. Ctrl-C stops."
	@cargo run --quiet --locked --release --bin commingle -- serve $(ARGS)

dist: ## build the small, stripped binary dist/commingle
	@scripts/setup.sh run
	cargo build --locked --profile dist --bin commingle
	@# rust-lld leaves a symbol table of 4 MB, also with `strip = true`.
	@install -s -D "$${CARGO_TARGET_DIR:-target}/dist/commingle" dist/commingle
	@echo "dist/commingle: $$(stat --format %s dist/commingle) bytes"

test: ## install what the tests need, and run all of them, browsers included
	@scripts/setup.sh test
	@scripts/test.sh

lint: ## format, clippy, dependency rules, layers, types and lint of the JavaScript
	@scripts/setup.sh lint
	@scripts/lint.sh
	cargo test --quiet --locked --test layering

bench: ## measure; each benchmark prints its figures as ratios of one run
	@scripts/setup.sh bench
	@set -e; for bench in benches/*.rs; do cargo bench --locked --bench "$$(basename "$$bench" .rs)"; done

mutants: ## mutate room, layout, tier, jitter, audio and sdp; lists mutants that no unit test notices
	@scripts/setup.sh run
	@scripts/mutants.sh $(ARGS)

fuzz: SECONDS ?= 60
fuzz: ## fuzz each target for SECONDS (60), or only those in ARGS; prints executions and coverage
	@scripts/setup.sh run
	@scripts/fuzz.sh $(SECONDS) $(ARGS)

chaos: SECONDS ?= 120
chaos: ## faults and floods for SECONDS (120) beside a call that must go on; SEED repeats a run
	@scripts/setup.sh test
	ENDURANCE_SECONDS=$(SECONDS) ENDURANCE_SEED=$(SEED) cargo test --locked --test endurance -- chaos:: --nocapture

soak: SECONDS ?= 3600
soak: ## mixed load for SECONDS (3600); memory, descriptors, threads and processes must stay flat
	@scripts/setup.sh test
	ENDURANCE_SECONDS=$(SECONDS) cargo test --locked --test endurance -- soak:: --nocapture

fmt: ## format all Rust sources
	cargo fmt
	cargo fmt --manifest-path tests/webrtchttp/Cargo.toml
	cargo fmt --manifest-path tests/fuzz/Cargo.toml

ci: ## exactly what CI runs
	.ci/run
