# The commands to remember; `make` alone lists them. Rust is all that `run` and `test` need.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run demo verify bench test check tools

# Options for the command that is run: make run ARGS='--addr 127.0.0.1:9000'
ARGS ?=
CARGO ?= cargo
BUF_VERSION := 1.75.0
TARGET := $(or $(CARGO_TARGET_DIR),target)

help: ## lists these
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## starts all five services on 127.0.0.1:8080, data in ./data (the first build takes minutes)
	$(CARGO) run --release -p checkup -- up $(ARGS)

demo: ## plays the scenario against what `make run` started
	$(CARGO) run --release -p checkup -- demo $(ARGS)

verify: ## checks that the services of what `make run` started agree
	$(CARGO) run --release -p checkup -- verify $(ARGS)

bench: ## measures bookings a second, with the baseline beside them
	$(CARGO) run --release -p checkup -- bench $(ARGS)

# cargo's own output stays visible; the last line counts what it said. A test binary that does not compile or dies leaves no
# result line behind, so cargo's status counts too.
test: ## runs every test and counts them
	@mkdir -p $(TARGET)
	@status=0; $(CARGO) test --workspace --no-fail-fast 2>&1 | tee $(TARGET)/test.log || status=$$?; \
	awk -v status=$$status ' \
		/^test result: / { passed += $$4; failed += $$6 } \
		END { \
			if (status != 0 && failed == 0) { print "cargo failed, or a test did not end: see above"; failed = 1 } \
			printf "%d passed, %d failed\n", passed, failed; \
			exit (status != 0 || failed > 0) \
		}' $(TARGET)/test.log

check: tools ## holds the code to its rules: format, lints, documentation, contract, architecture
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps
	.ci/proto
	$(CARGO) test -p checkup --test cli architecture

tools: .tools/venv/bin/buf ## installs buf, which `check` needs, under .tools

.tools/venv/bin/buf:
	python3 -m venv .tools/venv
	.tools/venv/bin/pip install --quiet buf-bin==$(BUF_VERSION)
