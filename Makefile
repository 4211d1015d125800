# DL-SMS. `make` lists what there is.

# Where Go's own installation instructions put it, which is not in every PATH.
export PATH := $(PATH):/usr/local/go/bin

BIN     := .local/bin
LISTEN  ?= 127.0.0.1:9090
TESTS   ?= ./...
TIMEOUT ?= 15m

.DEFAULT_GOAL := help
.PHONY: help run test check build bench bench-quick bench-profiles chaos chaos-quick canaries trials vulncheck generate lint fmt grpcurl ghz install clean
.PHONY: go fresh format breaking vet modules benches bench-test chaoses

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: go ## start everything on this machine with the demo data, on LISTEN=127.0.0.1:9090; Ctrl-C stops it
	@stack/install.sh run
	@CGO_ENABLED=0 stack/build.sh -o $(BIN)/ . ./stack/cmd/dlsms-stack
	@exec $(BIN)/dlsms-stack -dir .local -binary $(BIN)/dlsms -listen $(LISTEN) $(ARGS)

test: go ## run the tests with the race detector, on a real Postgres, Redis and nginx; TESTS=./store for some
	@stack/install.sh test
	@stack/build.sh -race ./...
	go test -race -shuffle=on -p 1 -timeout $(TIMEOUT) $(TESTS)

check: fresh format lint vet modules build test bench-test chaos-quick ## all that a change has to pass

bench: benches ## measure it, beside what can be reached at most, into docs/benchmarks; takes twenty minutes and all of the machine
	@$(BIN)/dlsms-bench -out docs/benchmarks $(ARGS)

bench-quick: benches ## the same in three minutes, with few rounds: to see that it works, not for figures
	@$(BIN)/dlsms-bench -quick -out .local/bench-quick $(ARGS)

bench-profiles: benches ## profile a replica and list the statements of Postgres, by scenario, into docs/benchmarks/profiles
	@$(BIN)/dlsms-bench -quick -profiles docs/benchmarks/profiles $(ARGS)

chaos: chaoses ## break everything while clients go on, and check what they saw; DURATION=30m, SEED= for one that was
	@$(BIN)/dlsms-chaos -duration $(or $(DURATION),30m) -seed $(or $(SEED),0) $(ARGS)

chaos-quick: chaoses ## the same for a minute
	@cd e2e/chaos && go test ./...
	@$(BIN)/dlsms-chaos -duration $(or $(DURATION),1m) -seed $(or $(SEED),0) $(ARGS)

canaries: chaoses ## put known faults into the system, one after the other, and see whether they are found
	@$(BIN)/dlsms-chaos -canaries -seed $(or $(SEED),0) $(ARGS)

trials: chaoses ## break one thing many times, or let too many come, and measure what users see; takes 40 minutes, and an hour more to soak
	@$(BIN)/dlsms-chaos -trials -seed $(or $(SEED),0) $(ARGS)

vulncheck: $(BIN)/govulncheck ## look for known vulnerabilities in what is called; VULNDB=file:///… for a copy of the database, without https://vuln.go.dev
	$(BIN)/govulncheck $(VULNDB:%=-db %) ./...
	cd bench && ../$(BIN)/govulncheck $(VULNDB:%=-db %) ./...
	cd e2e/chaos && ../../$(BIN)/govulncheck $(VULNDB:%=-db %) ./...

chaoses: build
	@stack/install.sh run
	@cd e2e/chaos && CGO_ENABLED=0 ../../stack/build.sh -o ../../$(BIN)/dlsms-chaos .

benches: build
	@stack/install.sh run
	@cd bench && CGO_ENABLED=0 ../stack/build.sh -o ../$(BIN)/dlsms-bench .
	@cd bench && CGO_ENABLED=0 ../stack/build.sh -o ../$(BIN)/dlsms-limit ./limit

build: go ## build dlsms into .local/bin
	@CGO_ENABLED=0 stack/build.sh -o $(BIN)/ .

generate: $(BIN)/buf ## make gen/ and server/protos.binpb from proto/
	$(BIN)/buf generate
	$(BIN)/buf build --as-file-descriptor-set -o server/protos.binpb

lint: breaking $(BIN)/golangci-lint ## look for faults in the protos and the code
	$(BIN)/buf lint
	$(BIN)/golangci-lint run
	cd bench && ../$(BIN)/golangci-lint run
	cd e2e/chaos && ../../$(BIN)/golangci-lint run

fmt: $(BIN)/buf $(BIN)/golangci-lint ## format the protos and the code
	$(BIN)/buf format --write
	$(BIN)/golangci-lint fmt

grpcurl: $(BIN)/grpcurl ## build grpcurl, to call the API by hand, into .local/bin

ghz: $(BIN)/ghz ## build ghz, to put load on the API, into .local/bin

install: ## install PostgreSQL, Redis, nginx and a C compiler where they are missing
	@stack/install.sh test

clean: ## remove .local: the programs built, and the database with all that is in it
	@stack/clean.sh

# The parts of check and lint.

fresh: $(BIN)/buf
	@rm -rf .local/fresh
	$(BIN)/buf generate --output .local/fresh
	$(BIN)/buf build --as-file-descriptor-set -o .local/fresh/protos.binpb
	@diff -r .local/fresh/gen gen && cmp .local/fresh/protos.binpb server/protos.binpb || { \
		echo "gen/ or server/protos.binpb is not what proto/ says: run \`make generate\`" >&2; exit 1; }

format: $(BIN)/buf $(BIN)/golangci-lint
	$(BIN)/buf format --diff --exit-code
	$(BIN)/golangci-lint fmt --diff
	cd bench && ../$(BIN)/golangci-lint fmt --diff
	cd e2e/chaos && ../../$(BIN)/golangci-lint fmt --diff

breaking: $(BIN)/buf
	@tools/breaking.sh

# The benchmark itself, on small rounds: that it runs, that no call of it fails.
bench-test: benches
	cd bench && go test ./...
	@$(BIN)/dlsms-bench -quick -only '^(rest|reads|mix|bookings|stampede)$$'

vet: go
	go vet ./...
	cd bench && go vet ./...
	cd e2e/chaos && go vet ./...

modules: go
	go mod verify
	go mod tidy -diff
	cd bench && go mod verify && go mod tidy -diff
	cd e2e/chaos && go mod verify && go mod tidy -diff

# The tools have modules of their own, so that what they need does not get into the server.
$(BIN)/buf $(BIN)/grpcurl $(BIN)/ghz $(BIN)/golangci-lint $(BIN)/govulncheck: $(BIN)/%: tools/%.mod | go
	@echo "build    | $* (once)"
	@CGO_ENABLED=0 stack/build.sh -modfile=$< -o $@ "$$(go list -modfile=$< tool)"
	@touch $@

go:
	@stack/preflight.sh
