# Every target installs what it needs (Debian packages) before it starts.
GO ?= go
export CGO_ENABLED = 1

BIN := bin
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -X chaperone.dev/chaperone/internal/version.Version=$(VERSION)

.PHONY: all build demo test test-bypass test-kill test-masking test-compat test-kernels lint generate generate-check bench bench-intercept bench-people measure-detectors clean help

all: build

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

build: ## bin/chaperone, bin/chaperoned, bin/chaperone-sink
	@tools/setup.sh build
	$(GO) build -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/...

demo: build ## run the main job on this machine, show each step (ARGS=--stay leaves it up)
	@tools/setup.sh test
	$(BIN)/chaperone demo $(ARGS)

# Never from the cache: what the tests run, the binaries, servers and kernel, is not what it looks at.
test: build ## every test, with the race detector, on the real kernel and real servers
	@tools/setup.sh test clients
	@tools/kube.sh
	$(GO) test -race -count=1 -timeout 20m ./...

test-bypass: build ## every known way around, tried; prints the matrix
	$(GO) test -count=1 -v -run 'Bypass|Rows|Document' ./test/bypass

test-kill: build ## kill -9 of the daemon in a loop, under load, for two minutes
	$(GO) test -count=1 -v -run 'Bypass/daemon_killed_and_started' ./test/bypass -kill-for 2m

test-masking: build ## every attempt to read masked columns, and ordinary statements beside a direct connection
	@tools/setup.sh test
	$(GO) test -race -count=1 ./test/masking

test-compat: build ## pgx's own test suite, direct and through Chaperone; prints both counts and what differs
	@tools/setup.sh test
	$(GO) run ./test/compat -chaperone $(BIN)/chaperone $(ARGS)

test-kernels: ## interception, ways around, and setting the clock on older kernels, in virtual machines without KVM
	@tools/setup.sh build kernels
	test/kernels/run.sh

lint: ## gofmt, go vet, staticcheck, govulncheck, shellcheck, clang-format
	@tools/setup.sh build lint
	tools/lint.sh

generate: ## rebuild what is generated and committed (the kernel programs, the documents' schema)
	@tools/setup.sh build generate
	$(GO) generate ./bpf/... ./docs/...

generate-check: generate ## fail when a committed generated file is not what its source makes
	tools/generate-check.sh

bench: build ## side by side with a direct connection, pgbouncer and HAProxy; writes docs/benchmarks.md
	@tools/setup.sh test bench
	$(GO) run ./test/bench $(ARGS)

bench-intercept: build ## what the kernel programs cost: connect(2), datagrams, DNS, start; writes docs/benchmarks-intercept.md
	@tools/setup.sh build test
	$(GO) run ./test/benchintercept -o docs/benchmarks-intercept.md $(ARGS)

bench-people: build ## from an approval to the query's answer, from a lock to the last session's end; writes docs/benchmarks-people.md
	@tools/setup.sh build test
	$(GO) run ./test/benchpeople -o docs/benchmarks-people.md $(ARGS)

measure-detectors: ## precision and recall of the content detectors on a labelled corpus; writes docs/detectors.md
	$(GO) run ./test/detectors -o docs/detectors.md $(ARGS)

clean:
	rm -rf $(BIN)
