# carrel. `make help` lists what there is; longer logic is in scripts/.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VERSION ?= $(shell git describe --tags --match 'v*' --dirty 2>/dev/null || echo dev)
COMMIT ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
# The commit comes in by -ldflags: git refuses to be asked by the go command where
# a clone belongs to another user, and then nothing would build.
export GOFLAGS := $(strip $(GOFLAGS) -buildvcs=false)

LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)
GOLANGCI := bin/tools/golangci-lint
export SANDBOX_WORKER_PATH ?= $(CURDIR)/bin/carrel-worker

.PHONY: help
help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

.PHONY: build
build: ## build carrel and carrel-worker into bin/
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/carrel ./cmd/carrel-worker
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o bin/carrel-attacker ./internal/jail/attack/attacker

.PHONY: test-programs
test-programs: build # what tests put in the worker's place, and beside it
	CGO_ENABLED=0 go build -trimpath -o bin/carrel-tooltest ./internal/tool/tooltest
	CGO_ENABLED=0 go build -trimpath -o bin/carrel-lesshost ./internal/lesshost
	CGO_ENABLED=0 go -C tools/promql build -trimpath -ldflags '-s -w' -o ../../bin/carrel-promql .

# AG-UI's own client, for TestHttpAgent. npm checks what it loads against the lock file.
agui_client = cmd/carrel/testdata/httpagent
.PHONY: httpagent
httpagent: bin/httpagent/node_modules/.package-lock.json ## install AG-UI's client into bin/httpagent, for its test
bin/httpagent/node_modules/.package-lock.json: $(agui_client)/package.json $(agui_client)/package-lock.json
	mkdir -p bin/httpagent
	cp $^ bin/httpagent/
	npm ci --prefix bin/httpagent --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

# What the TypeScript example is built with, in a cache of npm's: its test then runs
# `npm ci` as the page has it, without a network.
npm_cache = bin/examples/npm
.PHONY: examples
examples: $(npm_cache)/registry ## load what the examples are built with into bin/examples, for their test
$(npm_cache)/registry: examples/typescript/package.json examples/typescript/package-lock.json
	rm -rf bin/examples
	mkdir -p bin/examples/typescript
	cp $^ bin/examples/typescript/
	npm ci --prefix bin/examples/typescript --cache '$(CURDIR)/$(npm_cache)' --ignore-scripts --no-audit --no-fund --loglevel=error
	rm -rf bin/examples/typescript
	npm config get registry >$@
.PHONY: install
install: ## install what was built below DESTDIR, with PREFIX (/usr/local): programs, units, man page, completion
	scripts/install.sh bin '$(DESTDIR)' '$(or $(PREFIX),/usr/local)'

.PHONY: release
release: ## what is released, into dist/: .deb, .tar.gz, SBOMs, SHA256SUMS
	rm -rf dist
	VERSION='$(VERSION)' COMMIT='$(COMMIT)' scripts/release.sh dist

.PHONY: release-check
release-check: release ## make it again elsewhere, without the build cache (minutes): each byte is the same
	VERSION='$(VERSION)' COMMIT='$(COMMIT)' scripts/release-again.sh dist

.PHONY: run
run: build ## build, then serve on loopback
	exec bin/carrel serve

.PHONY: man
man: build ## the man page, into bin/carrel.1
	bin/carrel man >bin/carrel.1

.PHONY: demo
demo: build ## a run with a model that follows a script: no account is needed
	exec go run ./tools/demo

# Not for every target: carrel refuses a CARREL_ key that it does not know.
test test-rootless: export CARREL_TEST_ATTACKER ?= $(CURDIR)/bin/carrel-attacker

.PHONY: test
test: ## the gate: install what is missing, format, vet, lint, architecture, every test, the rootless half
	scripts/gate.sh

.PHONY: test-rootless
test-rootless: test-programs httpagent examples tools ## the kernel tests as an ordinary user
	scripts/rootless.sh

# The long forms of internal/ordeal's tests; the gate has the short ones.
ordeal = go test -count=1 -v -timeout 3h ./internal/ordeal -run

.PHONY: test-crash
test-crash: test-programs ## RUNS (1000) runs while everything is killed at random; SEED repeats one
	CARREL_TEST_RUNS='$(or $(RUNS),1000)' CARREL_TEST_SEED='$(SEED)' $(ordeal) TestKills

.PHONY: test-load
test-load: test-programs ## 200 users through 10 workers for SECONDS (300): no error, nothing grows
	CARREL_TEST_LOAD='$(or $(SECONDS),300)' $(ordeal) TestManyUsers

.PHONY: test-idle
test-idle: test-programs ## SANDBOXES (1000) idle at once: what each costs, and one more
	CARREL_TEST_SANDBOXES='$(or $(SANDBOXES),1000)' $(ordeal) TestIdle

.PHONY: test-bombs
test-bombs: test-programs ## bombs, with 1 GB in a line; the neighbour at most twice as slow (on a machine that does nothing else)
	CARREL_TEST_LINE=1073741824 CARREL_TEST_NEIGHBOUR=2 $(ordeal) TestBombs

.PHONY: test-mutants
test-mutants: test-programs ## the jail without each of some fifty single rules: a row must miss it (minutes)
	CARREL_TEST_MUTANTS=all CARREL_TEST_ATTACKER='$(CURDIR)/bin/carrel-attacker' go test -count=1 -v -timeout 1h ./internal/selftest -run TestEachRuleOfTheJail

.PHONY: test-qemu
test-qemu: ## cgroups and disk quotas on a kernel that has them whole, emulated: minutes and a download
	scripts/qemu-cgroup2.sh
	scripts/qemu-quota.sh

.PHONY: fmt
fmt: lint-tool ## format the tree
	$(GOLANGCI) fmt ./...

.PHONY: fmt-check
fmt-check: lint-tool ## say what is not formatted
	$(GOLANGCI) fmt --diff ./...

.PHONY: vet
vet: ## go vet
	go vet ./...
	CGO_ENABLED=0 go -C tools/promql vet ./...

.PHONY: lint
lint: lint-tool ## golangci-lint with the reasons in .golangci.yml
	$(GOLANGCI) run --allow-parallel-runners ./...

.PHONY: architecture
architecture: ## hold the import table
	go test -count=1 ./internal/architecture

.PHONY: bench
bench: test-programs ## carrel beside what people use today: one table, kept in bench/results (ten minutes)
	scripts/bench-peers.sh
	CARREL_BENCH_RESULTS='$(CURDIR)/bench/results' go test -count=1 -timeout 1h ./bench -run TestBeside -v

.PHONY: bench-go
bench-go: build ## every Go benchmark, BENCHTIME (100ms) each; the cold start beside bubblewrap
	@command -v bwrap >/dev/null || [ "$$(id -u)" != 0 ] || { apt-get update -qq && apt-get install -y -qq bubblewrap; }
	go test -run '^$$' -bench . -benchmem -benchtime '$(or $(BENCHTIME),100ms)' ./...

.PHONY: benchstat
benchstat: ## the micro-benchmarks of BASE (HEAD) beside this tree's, in turns: COUNT (8) rounds
	scripts/benchstat.sh '$(or $(BASE),HEAD)' '$(or $(COUNT),8)' '$(or $(BENCHTIME),200ms)'

.PHONY: fuzz
fuzz: build ## every fuzz target, FUZZTIME (60s) each
	scripts/fuzz.sh '$(or $(FUZZTIME),60s)'

.PHONY: cover
cover: build ## test coverage into coverage.out
	go test -coverpkg=./... -coverprofile=coverage.out ./...
	go tool cover -func=coverage.out | tail -n 1

.PHONY: clean
clean: ## remove what was built
	rm -rf bin dist coverage.out

# The gate's own tools. The go command caches both builds.
.PHONY: tools lint-tool
tools:
	CGO_ENABLED=0 go build -o bin/tools/testcount ./tools/testcount
lint-tool:
	CGO_ENABLED=0 go build -modfile=tools/lint/go.mod -o $(GOLANGCI) github.com/golangci/golangci-lint/v2/cmd/golangci-lint
