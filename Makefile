# Targets for people; `make` lists them. Each installs what it lacks, where it may.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help bench bench-quick chaos check-package clean compat demo deny fuzz kafka kafka-stop lint need-build need-lint package quick run soak test test-all torture

# What cargo builds, wherever it was told to put it.
built := $(or $(CARGO_TARGET_DIR),target)/debug/device-status

# Options of the demo, as in: make demo ARGS="--devices 500 --seed 7"
ARGS ?=

# The brokers of `make compat`; the second is that of all other tests. COMPAT_REDIS names servers
# instead of the system's and what scripts/redis.sh fetches.
COMPAT_KAFKA ?= 3.9.1 4.1.1 4.4.0
COMPAT_REDIS ?=

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: need-build ## A fleet, the service and a live picture of it, all in one process
	@scripts/need.sh redis
	cargo build --quiet
	@$(built) demo $(ARGS)

test: need-build lint ## Everything: format, lints, and all tests against real Kafka and Redis
	scripts/need.sh java maven redis prometheus
	scripts/kafka.sh fetch
	@# A broker from before the group protocol "consumer", for tests/kafka/group_protocol.rs.
	KAFKA_VERSION=3.9.1 scripts/kafka.sh fetch
	scripts/deny.sh
	@# Without a network, WITHOUT_EXAMPLES=1 leaves out the examples in other languages.
	[ -n "$$WITHOUT_EXAMPLES" ] || scripts/examples.sh
	PROPTEST_RNG_SEED=$${PROPTEST_RNG_SEED:-1} cargo test --no-fail-fast

quick: need-build lint ## What needs neither Kafka nor Redis: under two minutes once built
	PROPTEST_RNG_SEED=$${PROPTEST_RNG_SEED:-1} SIM_SEEDS=$${SIM_SEEDS:-100} \
		cargo test --lib --test pure --test simulation

test-all: need-build ## `make test`, and what is too long for it; almost two hours
	@SECONDS=0; set -e; \
	$(MAKE) test; \
	$(MAKE) torture; \
	BACKLOG_STARTS=$${BACKLOG_STARTS:-10} cargo test --test chaos backlog -- --nocapture; \
	$(MAKE) chaos; \
	$(MAKE) soak; \
	$(MAKE) compat; \
	$(MAKE) fuzz; \
	$(MAKE) check-package; \
	echo "make test-all took $$((SECONDS / 60)) minutes"

lint: need-build need-lint ## Format and lints only
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

run: need-build ## The service, against the brokers of device-status.toml or of the environment
	cargo run --release -- $(if $(wildcard device-status.toml),--config device-status.toml) run

kafka: need-build ## A real broker on localhost:9092 with all topics, until Ctrl-C
	cargo build --quiet
	@echo "Data in target/kafka/data. To stop: Ctrl-C here, or make kafka-stop elsewhere."
	@DEVICE_STATUS_TOPICS__REPLICATION_FACTOR=1 scripts/kafka.sh start --port 9092 --data target/kafka/data \
		--then '$(built) topics create'

kafka-stop: ## Stop what `make kafka` runs
	@scripts/kafka.sh stop --data target/kafka/data

bench: need-build ## Benchmarks: the parts, then all of it beside a bare consumer and Kafka Streams
	scripts/need.sh java javac maven redis
	cargo bench --bench shard --bench wire --bench view
	mkdir -p target/bench
	MEMORY_DEVICES=$${MEMORY_DEVICES:-10000000} MEMORY_REPORT=$$PWD/target/bench/memory.json \
		cargo test --release --test pure memory -- --nocapture
	cargo bench --bench end_to_end

bench-quick: need-build ## The end-to-end benchmark with less of everything, in some minutes
	scripts/need.sh java javac maven redis
	cargo bench --bench end_to_end -- --quick

torture: need-build ## Thousands of simulated worlds (SEEDS=n, FIRST=n); make torture SEED=7 replays one
	@$(if $(SEED),SIM_SEED=$(SEED),SIM_SEEDS=$(or $(SEEDS),5000) SIM_FIRST=$(or $(FIRST),0)) \
		cargo test --profile torture --test simulation every_world -- --nocapture

chaos: need-build ## Real faults, 5 minutes with each group protocol (CHAOS_SECONDS=n, CHAOS_SEED=n, CHAOS_THREADS=n)
	@scripts/need.sh java maven redis
	CHAOS_SECONDS=$${CHAOS_SECONDS:-300} CHAOS_SEED=$${CHAOS_SEED:-$$RANDOM} \
		cargo test --test chaos faults -- --nocapture --test-threads=1

soak: need-build ## Twenty ordinary minutes (SOAK_SECONDS=n) against a real broker, which must leave no trace
	@scripts/need.sh java maven redis
	SOAK_SECONDS=$${SOAK_SECONDS:-1200} cargo test --profile torture --test chaos soak -- --nocapture

compat: need-build ## Each pair of Kafka 3.9, 4.1, 4.4 and Redis 7.0, 8.2, Valkey 9.1 (COMPAT_KAFKA, COMPAT_REDIS)
	@scripts/need.sh java maven redis
	@set -e; for version in $(COMPAT_KAFKA); do KAFKA_VERSION=$$version scripts/kafka.sh fetch; done
	@set -e; redis="$(COMPAT_REDIS)"; \
	if [ -z "$$redis" ]; then \
		new=$$(scripts/redis.sh fetch redis-8); valkey=$$(scripts/redis.sh fetch valkey); \
		redis="redis-server $$new $$valkey"; \
	fi; \
	COMPAT_KAFKA="$(COMPAT_KAFKA)" COMPAT_REDIS="$$redis" \
		cargo test --test operations versions -- --nocapture

fuzz: need-build ## Fuzz every decoder, a minute each (FUZZ_SECONDS=n, TARGET=json)
	scripts/fuzz.sh $${FUZZ_SECONDS:-60} $(TARGET)

package: need-build ## What is released, in target/package: a Debian package, a tarball, the symbols
	scripts/package.sh

check-package: package ## Install that package in a clean Debian, run it there and remove it (as root)
	scripts/check-package.sh

deny: ## Licences and advisories of all dependencies, where cargo-deny is installed
	@scripts/deny.sh

clean: ## Remove all that was built, fetched and stored
	cargo clean

need-build:
	@scripts/need.sh cc make pkg-config openssl curl sasl
	@command -v cargo >/dev/null || { echo "Please install Rust (with rustup)" >&2; exit 1; }

need-lint:
	@cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
	@cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
