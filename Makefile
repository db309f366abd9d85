# `make` lists the targets. Flags for `commingle serve` go into ARGS: make run ARGS="--http 127.0.0.1:9000"
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run test lint bench fmt ci

ARGS ?=

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## install what is missing, build, and serve on http://127.0.0.1:8080
	@scripts/setup.sh run
	cargo build --release --bin commingle
	@echo "Open the address after \"http=\" below in two browser windows and join the same room. Ctrl-C stops."
	@cargo run --quiet --release --bin commingle -- serve $(ARGS)

test: ## install what the tests need, and run all of them, browsers included
	@scripts/setup.sh test
	cargo test

lint: ## format, clippy, dependency rules, layers, the web page's syntax
	@scripts/setup.sh run
	cargo fmt --check
	cargo fmt --check --manifest-path tests/webrtchttp/Cargo.toml
	cargo clippy --all-targets -- -D warnings
	cd tests/webrtchttp && cargo clippy --locked --target-dir ../../target -- -D warnings
	scripts/deny.sh
	cargo test --quiet --test layering
	scripts/check-js.sh

bench: ## measure; each benchmark prints its figures as ratios of one run
	@scripts/setup.sh test
	@set -e; for bench in benches/*.rs; do cargo bench --bench "$$(basename "$$bench" .rs)"; done

fmt: ## format all Rust sources
	cargo fmt
	cargo fmt --manifest-path tests/webrtchttp/Cargo.toml

ci: ## exactly what CI runs
	.ci/run
