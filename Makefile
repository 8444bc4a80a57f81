# Every target works on a clean clone with Go, bash, git and (for the race
# detector) a C compiler. Tools are pinned in tools/go.mod and tools/lint/go.mod.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.ONESHELL:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules --warn-undefined-variables --no-print-directory

# Results, stamps and small tools: everything here can be deleted at any time.
BUILD := .build
# The modules people work in; e2e/bin holds the pinned servers of the test bed.
MODULES := . e2e tools tools/release
PINS := tools/lint e2e/bin/etcd e2e/bin/kube e2e/bin/coredns e2e/bin/oidc e2e/bin/ocm
LINT_MODULES := . e2e tools tools/release

# How long each fuzz target runs.
FUZZTIME ?= 10s
# Of make bench: a file for the results, QUICK=1 for less than a minute, how many
# rounds, which measures (a regular expression), and further flags such as --kube,
# --netem or --tunnel=FILE.
OUT ?=
QUICK ?=
ROUNDS ?=
ONLY ?=
BENCHFLAGS ?=
# ONCE=1 makes the demo end after its walkthrough.
ONCE ?=
# Flags added to go test, for example TESTFLAGS='-run TestSession'.
TESTFLAGS ?=
E2E_TIMEOUT ?= 30m
# Those of e2e that measure run one by one, after the others.
E2E_ALONE := balance footprint resilience
# Those of e2e with tests that CULVERT_SLOW=1 makes longer.
SLOW_PACKAGES := ./kubectl ./install
# Of make image and make release: some platforms alone, as linux/amd64,linux/arm64.
PLATFORMS ?=
# The commit whose wire contract must stay compatible; default: the main branch.
AGAINST ?=

BUF := go tool -modfile=tools/go.mod buf
ROWS := $(BUILD)/rows

.PHONY: help
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z0-9]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: build
build: ## Build the static binaries into bin/, with the names by which kubectl finds its plugin
	@mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o bin/ ./cmd/...
	ln -sf culvert bin/kubectl-culvert
	ln -sf culvert bin/kubectl_complete-culvert

.PHONY: image
image: ## Build container images as OCI layouts into .build/image, without a container engine (PLATFORMS=list)
	@go build -C tools/release -o $(CURDIR)/$(BUILD)/release-tool .
	$(BUILD)/release-tool images --out $(BUILD)/image $(if $(PLATFORMS),--platform $(PLATFORMS))

.PHONY: release
release: ## Build archives for Linux, macOS and Windows with checksums into .build/release (PLATFORMS=list)
	@go build -C tools/release -o $(CURDIR)/$(BUILD)/release-tool .
	$(BUILD)/release-tool archives --out $(BUILD)/release $(if $(PLATFORMS),--platform $(PLATFORMS))

.PHONY: test
test: cc $(ROWS) ## Run unit tests with the race detector, fuzz seeds and the end-to-end suite
	@rm -f $(BUILD)/test-*.json
	failed=0
	$(MAKE) race || failed=1
	$(MAKE) e2e || failed=1
	exit $$failed

.PHONY: race
race: cc $(ROWS) ## Run the unit tests alone, with the race detector and fuzz seeds, and the benchmark that has a limit
	@CGO_ENABLED=1 go test -json -race -shuffle=on $(TESTFLAGS) ./... | $(ROWS) record $(BUILD)/test-unit.json
	go test -json -count=1 -run '^TestAllocations$$' ./bench/internal/frames | $(ROWS) record $(BUILD)/test-allocations.json
	CGO_ENABLED=1 go test -C tools -json -race -shuffle=on $(TESTFLAGS) ./rows | $(ROWS) record $(BUILD)/test-tools.json
	go test -C tools/release -json -shuffle=on $(TESTFLAGS) ./... | $(ROWS) record $(BUILD)/test-release.json

.PHONY: e2e
e2e: $(ROWS) ## Run the end-to-end suite against real API servers (the first run builds them)
	@e2e/bin/build.sh
	CGO_ENABLED=0 go build -trimpath -o $(BUILD)/e2e/ ./cmd/culvert-hub ./cmd/culvert-agent ./cmd/culvert
	export CULVERT_E2E_BINARIES=$(CURDIR)/$(BUILD)/e2e
	run() { go test -C e2e -json -count=1 -shuffle=on -timeout=$(E2E_TIMEOUT) $(TESTFLAGS) "$$@"; }
	{
	  failed=0
	  run $$(go -C e2e list ./... | grep -v $(E2E_ALONE:%=-e '/e2e/%$$')) || failed=1
	  run -p=1 $(addprefix ./,$(E2E_ALONE)) || failed=1
	  exit $$failed
	} | $(ROWS) record -live $(BUILD)/test-e2e.json

.PHONY: slow
slow: $(ROWS) ## Run the end-to-end tests that are about long times at their full length (some minutes more)
	@e2e/bin/build.sh
	CULVERT_SLOW=1 go test -C e2e -json -count=1 -timeout=$(E2E_TIMEOUT) $(TESTFLAGS) $(SLOW_PACKAGES) | $(ROWS) record -live $(BUILD)/test-slow.json

.PHONY: rows
rows: $(ROWS) ## Print each row of docs/features.md with the result of the tests that prove it
	@$(ROWS) report docs/features.md $(BUILD)

.PHONY: lint
lint: $(BUILD)/buf.built $(BUILD)/golangci-lint.built ## Check contract, formatting, imports between rooms, vet and linters
	@echo "lint: wire contract"
	$(BUF) lint
	base=$(AGAINST)
	if [[ -z $$base ]]; then
	  base=$$(git rev-parse --quiet --verify origin/main || git rev-parse --quiet --verify main || true)
	fi
	if [[ -n $$base ]] && git cat-file -e "$$base:buf.yaml" 2>/dev/null; then
	  echo "lint: wire contract against $$base"
	  rm -rf $(BUILD)/contract
	  mkdir -p $(BUILD)/contract
	  git archive "$$base" buf.yaml proto | tar -x -C $(BUILD)/contract
	  $(BUF) breaking --against $(BUILD)/contract
	fi
	echo "lint: gofmt"
	unformatted=$$(git ls-files --cached --others --exclude-standard '*.go' | while read -r f; do [[ ! -e $$f ]] || gofmt -l "$$f"; done)
	if [[ -n $$unformatted ]]; then
	  printf 'not formatted, run gofmt -w on:\n%s\n' "$$unformatted" >&2
	  exit 1
	fi
	linter=$$(go tool -n -modfile=tools/lint/go.mod golangci-lint)
	for module in $(LINT_MODULES); do
	  echo "lint: module $$module"
	  go -C "$$module" mod tidy -diff || { echo "lint: $$module/go.mod is not tidy, run: make tidy" >&2; exit 1; }
	  go -C "$$module" vet ./...
	  (cd "$$module" && "$$linter" run --config $(CURDIR)/.golangci.yml ./...)
	done

.PHONY: generate
generate: $(BUILD)/buf.built ## Generate gen/ from proto/, docs/cli.md from the commands, and the charts' schemas and READMEs from their values
	@$(BUF) generate
	go test ./docs -run '^TestReference$$' -update >/dev/null
	go generate ./deploy/charts

.PHONY: checkgenerate
checkgenerate: generate ## Fail when gen/, docs/cli.md or a chart is not what make generate makes
	@if [[ -n $$(git status --porcelain -- gen docs/cli.md deploy/charts) ]]; then
	  git status --porcelain -- gen docs/cli.md deploy/charts
	  git --no-pager diff -- gen docs/cli.md deploy/charts
	  echo "checkgenerate: gen/, docs/cli.md or a chart is not what was generated: run make generate and commit the result" >&2
	  exit 1
	fi

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (default 10s) each
	@listed=$$(go test -list '^Fuzz' ./...)
	while read -r package target; do
	  echo "fuzz: $$package $$target for $(FUZZTIME)"
	  go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package"
	done < <(awk '/^Fuzz/ { targets[++n] = $$1 } $$1 == "ok" { for (i = 1; i <= n; i++) print $$2, targets[i]; n = 0 }' <<<"$$listed")

.PHONY: bench
bench: ## Measure the tunnel beside the reference (OUT=results.json QUICK=1 ROUNDS=n ONLY=regexp BENCHFLAGS=--help)
	@mkdir -p $(BUILD)
	CGO_ENABLED=0 go build -trimpath -o $(BUILD)/culvert-bench ./bench/cmd/culvert-bench
	$(BUILD)/culvert-bench $(if $(OUT),--out '$(OUT)') $(if $(QUICK),--quick) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(ONLY),--only '$(ONLY)') $(BENCHFLAGS)

.PHONY: demo
demo: ## Reach a real cluster through the hub, step by step, and leave it running (ONCE=1 ends it)
	@cd e2e
	ONCE=$(ONCE) exec go run ./cmd/demo

.PHONY: tidy
tidy: ## Tidy every module
	@for module in $(MODULES) $(PINS); do
	  echo "tidy: $$module"
	  go -C "$$module" mod tidy
	done

.PHONY: clean
clean: ## Remove what the other targets made in this tree (caches outside of it stay)
	rm -rf bin $(BUILD)

# The race detector is written in C: say so before the linker does.
.PHONY: cc
cc:
	@compiler=$$(go env CC)
	command -v "$${compiler%% *}" >/dev/null || {
	  echo "the race detector needs a C compiler and '$$compiler' is not installed: install gcc (Debian: apt-get install gcc libc6-dev) or set CC" >&2
	  exit 1
	}

$(ROWS): $(wildcard tools/rows/*.go)
	@mkdir -p $(@D)
	go build -C tools -o $(CURDIR)/$@ ./rows

$(BUILD)/buf.built: tools/go.mod tools/go.sum
	@mkdir -p $(@D)
	echo "building buf and the protobuf plugins, first time takes some minutes" >&2
	for tool in buf protoc-gen-go protoc-gen-go-grpc; do
	  go tool -n -modfile=tools/go.mod "$$tool" >/dev/null
	done
	touch $@

$(BUILD)/golangci-lint.built: tools/lint/go.mod tools/lint/go.sum
	@mkdir -p $(@D)
	echo "building the linter, first time takes some minutes" >&2
	go tool -n -modfile=tools/lint/go.mod golangci-lint >/dev/null
	touch $@
