# Everything a developer types. `make` alone lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

# go.dev's tarball unpacks here, and a fresh machine's root has no profile that says so.
export PATH := $(PATH):/usr/local/go/bin
# The binary is static; runtime/secret wipes what the keys leave in registers and on stacks.
export CGO_ENABLED := 0
export GOEXPERIMENT := runtimesecret

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
BUILDFLAGS := -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)'

# A test that hangs ends here, with the stacks of its goroutines.
TIMEOUT ?= 25m
# The short round of each fuzz target: a count, so that a slow machine can't time out; `soak` gives hours.
FUZZTIME ?= 2000x
# Where goroutines share memory. With -short: the same cases, fewer random rounds. Of fs/vault only what shares a vault: a crash at
# every operation has one goroutine at a time.
RACE := ./fs ./fs/guarded ./fs/vault/transfer ./keyring ./launcher/...
RACE_VAULT := TestReadersBesideSession|TestCreate|TestUpdate
# Whatever runs differently without the experiment.
PLAIN ?= ./fs/guarded/... ./fs/vault/seal/... ./keyring/...
SOAKTIME ?= 15m
SOAKROUNDS ?= 100
# e.g. make bench BENCH='-rounds 9 -write'
BENCH ?=

.PHONY: help build demo test lint race check fuzz soak bench corpus clean
.PHONY: setup-test setup-demo setup-check setup-bench

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## bin/encfsrun, static
	go build $(BUILDFLAGS) -o bin/encfsrun ./cmd/encfsrun

demo: setup-demo build ## runs sympy and django out of a vault and proves what it promises
	scripts/demo

# The short fuzzing and the build without the experiment come first, so that the last lines are go test's own.
test: setup-test build ## all tests, with their own set-up (under 20 minutes on 2 cores)
	scripts/fuzz $(FUZZTIME)
	GOEXPERIMENT=noruntimesecret go build -o /dev/null ./cmd/encfsrun
	GOEXPERIMENT=noruntimesecret go test -count=1 -timeout $(TIMEOUT) $(PLAIN)
	go test -count=1 -timeout $(TIMEOUT) ./...

lint: setup-check ## format, go vet, staticcheck, shellcheck
	@unformatted=$$(gofmt -l $$(find . -path ./build -prune -o -name '*.go' -print)); \
	if [[ $$unformatted ]]; then printf 'not formatted (gofmt -w mends it):\n%s\n' "$$unformatted" >&2; exit 1; fi
	go vet ./...
	go tool staticcheck ./...
	shellcheck .ci/run $$(grep -ld skip '^#!/bin/bash' scripts/*)

race: setup-check ## the packages that share memory, under the race detector
	CGO_ENABLED=1 go test -race -short -count=1 -timeout $(TIMEOUT) $(RACE)
	CGO_ENABLED=1 go test -race -count=1 -timeout $(TIMEOUT) -run '$(RACE_VAULT)' ./fs/vault

check: lint race test ## what CI runs (under an hour)

fuzz: ## every fuzz target for FUZZTIME (2000x: inputs; 10m: time)
	scripts/fuzz $(FUZZTIME)

soak: setup-check build ## hours: fuzzing for SOAKTIME a target, random tests with SOAKROUNDS times the rounds
	scripts/fuzz $(SOAKTIME)
	ENCFSRUN_ROUNDS=$(SOAKROUNDS) go test -count=1 -timeout 24h ./...
	CGO_ENABLED=1 go test -race -count=1 -timeout 24h $(RACE)

bench: setup-bench build corpus ## ratios against ext4 and gocryptfs (BENCH='-rounds 9 -write')
	go run ./tests/bench $(BENCH)

corpus: setup-demo ## build/corpus: sympy and django as Debian ships them
	scripts/corpus build/corpus

setup-test setup-demo setup-check setup-bench:
	@scripts/setup $(@:setup-%=%)

# A mount that was left behind is not deleted through.
clean: ## removes bin and build
	rm -rf --one-file-system bin build
