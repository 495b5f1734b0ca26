# Every command of the README and of CI. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

WASM := wasm32-wasip2
HELLO := target/$(WASM)/release/hello.wasm
HOST := target/release/taffrail
# Always all three: another set of packages has other features, for which everything down to wasmtime is built once more.
TESTED := --package hello --package taffrail --package bench
LISTEN ?= 127.0.0.1:8080
ADMIN ?= 127.0.0.1:9090

.PHONY: help setup build component host host-precompiled host-pgo run test arrows foreign chart-test canary-table soak fuzz slow-clients proxies bench \
	bench-components bench-inner bench-guard image image-test push lint lint-commits lint-workflows security coverage \
	release-dry-run fmt clean cluster drill drill-component

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what is missing of the toolchain (instant when nothing is)
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust 1.95 through https://rustup.rs" >&2; exit 1; }
	@if ! test -d "$$(rustc --print sysroot)/lib/rustlib/$(WASM)/lib"; then \
		command -v rustup >/dev/null || { echo "the target $(WASM) is missing and rustup is not here to add it" >&2; exit 1; }; \
		echo "adding the target $(WASM)"; rustup target add $(WASM); fi
	@for tool in cargo-clippy rustfmt; do command -v $$tool >/dev/null && $$tool --version >/dev/null 2>&1 || \
		{ echo "adding $${tool#cargo-}"; rustup component add $${tool#cargo-}; }; done

build: host component ## Build the host and the hello component, optimised

component: setup ## Build the hello component alone
	cargo build --locked --release --package hello --target $(WASM)

host: setup ## Build the host alone
	cargo build --locked --release --package taffrail

host-precompiled: setup ## Build the host without the compiler, for precompiled components alone, as target/precompiled/release/taffrail
	cargo build --locked --release --package taffrail --no-default-features --target-dir target/precompiled

host-pgo: bench-components ## Build the host for the workloads of the benchmark (profile-guided: two whole builds), as target/pgo/taffrail
	host/benches/pgo

run: build ## Build both and serve the hello component with the demo token
	@echo
	@echo "Serving with the token of component/demo-config/auth-tokens, which is for demonstration only. Try:"
	@echo
	@echo "  curl --url http://$(LISTEN)/app --header 'X-Auth-Token: $$(cat component/demo-config/auth-tokens)'"
	@echo
	@exec $(HOST) serve $(HELLO) --config-dir component/demo-config --listen $(LISTEN) --admin-listen $(ADMIN)

# Unit tests take seconds. The suite bounds each of its tests by itself; here the run has a bound, and a test that has run for a
# minute is named by then.
unit = cargo test --locked $(TESTED) $(1) --no-run && timeout --verbose --kill-after 5 110 cargo test --locked $(TESTED) $(1)

test: setup foreign ## Run every test, the suite over components of WASI 0.2 and of 0.3
	$(call unit,--lib --bins)
	cargo test --locked $(TESTED) --doc
	cargo test --locked $(TESTED) --test suite
	TAFFRAIL_TEST_WASI=0.3 cargo test --locked $(TESTED) --test suite
	$(MAKE) --no-print-directory chart-test
	.ci/release-test

arrows: setup ## Print the folders of the host with the arrows between them; a wrong one fails
	cargo test --locked $(TESTED) --test suite -- --exact --nocapture \
		rules::the_folders_have_the_arrows_that_are_drawn_and_no_others

foreign: setup ## Build the tests' components of C, JavaScript, Python and older Rust; installs what that takes
	.ci/packages clang wasi-libc npm python3
	host/tests/foreign/build

MENACE := target/$(WASM)/release/examples/menace.wasm
chart-test: component ## Test the chart: schemas, policies, refusals, renders, its queries against a real Prometheus
	cargo test --locked $(TESTED) --no-run # the tests' own binary: nothing is built twice
	cargo build --locked --release --package guests --example menace --target $(WASM)
	TAFFRAIL_BINARY=$(CURDIR)/target/debug/taffrail TAFFRAIL_COMPONENT=$(CURDIR)/$(HELLO) \
	TAFFRAIL_BAD_COMPONENT=$(CURDIR)/$(MENACE) helm/tests/run

cluster: ## A whole Kubernetes of two nodes on this machine, without Docker (Linux, root; the first time a quarter of an hour)
	.ci/cluster up

drill-component: component
	cargo build --locked --release --package guests --example version --target $(WASM)

DRILLS ?=
drill: $(if $(TAFFRAIL),,host) drill-component ## Versions rolled out and taken back on the cluster, under load (DRILLS=--short, or names; TAFFRAIL=another binary)
	$(if $(TAFFRAIL),TAFFRAIL_BINARY=$(abspath $(TAFFRAIL))) python3 helm/drills/drill.py $(DRILLS)

canary-table: ## Simulate 300 canaries of each kind and print how the chart's gate judges them (20 minutes; needs prometheus)
	helm/tests/run --canary-table

SOAK_SECONDS ?= 300
soak: host component ## At length, optimised: a soak, 20 drains under load, a pod of 128 MiB (SOAK_SECONDS=300)
	TAFFRAIL_BINARY=$(CURDIR)/$(HOST) TAFFRAIL_SOAK_SECONDS=$(SOAK_SECONDS) TAFFRAIL_DRAIN_ROUNDS=20 \
	TAFFRAIL_DRAIN_RATE=6000 TAFFRAIL_MEMORY_SECONDS=20 \
	cargo test --locked $(TESTED) --test suite -- --nocapture --test-threads 1 soak::

FUZZ_SECONDS ?= 20
fuzz: setup ## Fuzz what parses, each target for FUZZ_SECONDS=20
	@cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --version 0.13.1 --locked
	@mkdir -p target && cd host && for target in forwarded flags config_dir traceparent message_framing; do echo "fuzzing $$target for $(FUZZ_SECONDS) s"; \
		cargo fuzz run --sanitizer none $$target -- -max_total_time=$(FUZZ_SECONDS) -print_final_stats=0 >$(CURDIR)/target/fuzz.log 2>&1 \
			|| { grep -vE '^ +([0-9]+:|at )' $(CURDIR)/target/fuzz.log | tail -60; exit 1; }; tail -1 $(CURDIR)/target/fuzz.log; done

slow-clients: setup component ## slowhttptest's three modes against the real binary (needs slowhttptest)
	cargo test --locked $(TESTED) --no-run # the tests' own binary: nothing is built twice
	host/tests/slow-clients

ROUNDS ?= 1
proxies: setup component ## Uploads through real nginx, HAProxy and Caddy, with answers before the body too (ROUNDS=1; needs the three)
	cargo test --locked $(TESTED) --no-run # the tests' own binary: nothing is built twice
	cargo build --locked --release --package guests --example gather --target $(WASM)
	TAFFRAIL_BINARY=target/debug/taffrail GUESTS=target/$(WASM)/release/examples HELLO=$(HELLO) host/tests/proxies $(ROUNDS)

# What the benchmarks serve.
bench-components: component
	cargo build --locked --release --package guests --example echo --target $(WASM)
	cargo build --locked --release --package guests03 --example hello03 --example echo03 --target $(WASM)

bench: host $(if $(QUICK),,host-precompiled) bench-components ## Everything side by side, in half an hour; QUICK=1: three minutes (BENCH_ARGS=--help)
	host/benches/install target/bench
	cargo run --locked --release --package bench -- $(if $(QUICK),--quick) $(BENCH_ARGS)

bench-inner: bench-components ## An instantiation, a call and a body by themselves, in a minute (criterion; compares with its last run)
	cargo bench --locked --package taffrail --bench inner

FLOOR ?= 0.6
bench-guard: $(if $(TAFFRAIL),,host) component ## Fail when a fresh instance costs too much: taffrail ÷ bare wasmtime below FLOOR (TAFFRAIL=another binary)
	cargo run --locked --release --package bench -- --guard --floor $(FLOOR) $(if $(TAFFRAIL),--taffrail $(TAFFRAIL))

.PHONY: docs docs-check
docs: setup ## Write what the documents have from the code anew: flags, metrics, code, pictures (two minutes of traffic for one)
	docs/pictures/draw
	TAFFRAIL_UPDATE_DOCS=1 cargo test --locked $(TESTED) --test suite -- docs::

docs-check: ## Check the links of all documents, the length of the README, and its pictures
	.ci/docs

IMAGE ?= localhost/taffrail
TAG ?= dev
export IMAGE TAG
image: ## Build the image IMAGE:TAG with docker, podman or buildah (TARGET=component: the component alone)
	.ci/image

push: ## Build the image and push it to its registry
	.ci/image push

image-test: ## Build the image twice with local stand-ins for its bases, compare, run it, read its SBOM (needs buildah)
	.ci/image-test

lint: setup ## Check format, lints and documentation of the code; a warning is an error
	cargo fmt --all --check
	cargo clippy --locked --package taffrail --package hello --package bench --all-targets -- --deny warnings
	cargo clippy --locked --package hello --package guests --package guests03 --lib --examples --target $(WASM) -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" cargo doc --locked --no-deps --package taffrail --package hello --package bench

lint-commits: ## Check the subjects of commits: at most 72 characters
	.ci/lint-commits

lint-workflows: ## Check workflows, scripts and Dockerfile, without GitHub
	.ci/lint-workflows

security: ## Check licences and sources of the crates, search for secrets
	.ci/security

coverage: setup foreign ## Count the lines that the tests reach; below the floor it fails
	.ci/coverage

release-dry-run: ## Show the next version, its notes and what it changes in production; changes nothing
	.ci/release dry-run

fmt: setup ## Format the sources
	cargo fmt --all

clean: ## Remove everything that was built
	cargo clean
	rm -rf wit/deps wit/wasi03
