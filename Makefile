# Recipes for people and for CI. One profile (release) and one target directory: dependencies are compiled once.
CARGO ?= cargo

.PHONY: demo test build lint bench chaos sim

## the demo job: simulated pumps, windows, a model, alerts
demo: build
	"$${CARGO_TARGET_DIR:-target}/release/efctl" demo

build:
	$(CARGO) build --release --workspace --bins

## all tests
test: build
	$(CARGO) test --release --workspace

## format and lints; says so where a tool is not installed
lint:
	@if $(CARGO) fmt --version >/dev/null 2>&1; then $(CARGO) fmt --all --check; else echo "rustfmt is not installed: format not checked"; fi
	@if $(CARGO) clippy --version >/dev/null 2>&1; then $(CARGO) clippy --release --workspace --all-targets -- -D warnings; else echo "clippy is not installed: lints not checked"; fi

## criterion benches
bench:
	$(CARGO) bench --workspace --bench '*'

## two hundred faults by a seed (EDGEFLOW_SEED) against a cluster of real processes
chaos: build
	EDGEFLOW_CHAOS_FAULTS=200 $(CARGO) test --release --workspace --test promises -- whatever_fails_every_row_counts_once --nocapture

## a hundred thousand simulated clusters, other ones every time; EDGEFLOW_SEED runs one of them again
SEEDS ?= 100000
sim:
	EDGEFLOW_SIM_SEEDS=$(SEEDS) EDGEFLOW_SIM_FROM=$$(date +%s)000 $(CARGO) test --release --workspace --test sim -- --nocapture every_seed
