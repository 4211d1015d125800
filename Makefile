# DL-SMS. `make` lists the targets.

# Go's installation instructions put Go in /usr/local/go, which is not in every PATH.
export PATH := $(PATH):/usr/local/go/bin

BIN     := .local/bin
LISTEN  ?= 127.0.0.1:9090
TESTS   ?= ./...
TIMEOUT ?= 15m

.DEFAULT_GOAL := help
.PHONY: help run test check build bench bench-quick bench-profiles chaos chaos-quick canaries trials
.PHONY: vulncheck generate lint prose fmt grpcurl ghz install clean
.PHONY: go fresh format breaking vet modules build-bench bench-test build-chaos

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: go ## start the system with demo data on LISTEN=127.0.0.1:9090; Ctrl-C stops it
	@stack/install.sh run
	@CGO_ENABLED=0 stack/build.sh -o $(BIN)/ . ./stack/cmd/dlsms-stack
	@exec $(BIN)/dlsms-stack -dir .local -binary $(BIN)/dlsms -listen $(LISTEN) $(ARGS)

test: go ## run the tests with the race detector; TESTS=./store runs one package
	@stack/install.sh test
	@stack/build.sh -race ./...
	go test -race -shuffle=on -p 1 -timeout $(TIMEOUT) $(TESTS)
	$(if $(filter ./...,$(TESTS)),cd deploy/compose && go test -race -shuffle=on ./...)

check: fresh format lint vet modules build test bench-test chaos-quick ## run every check that a change must pass

bench: build-bench ## run the benchmarks and write docs/benchmarks; takes 20 minutes on an idle machine
	@$(BIN)/dlsms-bench -out docs/benchmarks $(ARGS)

bench-quick: build-bench ## run short benchmarks in 3 minutes; the figures are not meaningful
	@$(BIN)/dlsms-bench -quick -out .local/bench-quick $(ARGS)

bench-profiles: build-bench ## write CPU profiles and SQL statistics to docs/benchmarks/profiles
	@$(BIN)/dlsms-bench -quick -profiles docs/benchmarks/profiles $(ARGS)

chaos: build-chaos ## run clients under random faults and verify the results; DURATION=30m SEED=n
	@$(BIN)/dlsms-chaos -duration $(or $(DURATION),30m) -seed $(or $(SEED),0) $(ARGS)

chaos-quick: build-chaos ## run the chaos tests for one minute
	@cd e2e/chaos && go test ./...
	@$(BIN)/dlsms-chaos -duration $(or $(DURATION),1m) -seed $(or $(SEED),0) $(ARGS)

canaries: build-chaos ## insert known bugs one at a time and verify that the chaos checks find them
	@$(BIN)/dlsms-chaos -canaries -seed $(or $(SEED),0) $(ARGS)

trials: build-chaos ## measure the effect of single faults and overload on users; takes 100 minutes with the soak test
	@$(BIN)/dlsms-chaos -trials -seed $(or $(SEED),0) $(ARGS)

vulncheck: $(BIN)/govulncheck ## find known vulnerabilities; VULNDB=file:///… uses a local database
	$(BIN)/govulncheck $(VULNDB:%=-db %) ./...
	cd bench && ../$(BIN)/govulncheck $(VULNDB:%=-db %) ./...
	cd e2e/chaos && ../../$(BIN)/govulncheck $(VULNDB:%=-db %) ./...
	cd deploy/compose && ../../$(BIN)/govulncheck $(VULNDB:%=-db %) -test ./...

build-chaos: build
	@stack/install.sh run
	@cd e2e/chaos && CGO_ENABLED=0 ../../stack/build.sh -o ../../$(BIN)/dlsms-chaos .

build-bench: build
	@stack/install.sh run
	@cd bench && CGO_ENABLED=0 ../stack/build.sh -o ../$(BIN)/dlsms-bench .
	@cd bench && CGO_ENABLED=0 ../stack/build.sh -o ../$(BIN)/dlsms-limit ./limit

build: go ## build dlsms into .local/bin
	@CGO_ENABLED=0 stack/build.sh -o $(BIN)/ .

generate: $(BIN)/buf ## generate gen/, server/protos.binpb, docs/reference/settings.md and docs/reference/metrics.md
	$(BIN)/buf generate
	$(BIN)/buf build --as-file-descriptor-set -o server/protos.binpb
	@stack/install.sh run
	go test . -run Settings -update
	go test ./telemetry -update

lint: breaking prose $(BIN)/golangci-lint ## lint the protos and the code
	$(BIN)/buf lint
	$(BIN)/golangci-lint run
	cd bench && ../$(BIN)/golangci-lint run
	cd e2e/chaos && ../../$(BIN)/golangci-lint run
	cd deploy/compose && ../../$(BIN)/golangci-lint run

prose: ## check line lengths and wording in comments and docs
	@tools/prose.sh

fmt: $(BIN)/buf $(BIN)/golangci-lint ## format the protos and the code
	$(BIN)/buf format --write
	$(BIN)/golangci-lint fmt

grpcurl: $(BIN)/grpcurl ## build grpcurl, a command-line client, into .local/bin

ghz: $(BIN)/ghz ## build ghz, a load generator, into .local/bin

install: ## install missing programs: PostgreSQL, Redis, nginx, a C compiler and the client tools
	@stack/install.sh test

clean: ## remove .local: the built programs and the database
	@stack/clean.sh

# The steps of check and lint.

fresh: $(BIN)/buf
	@rm -rf .local/fresh
	$(BIN)/buf generate --output .local/fresh
	$(BIN)/buf build --as-file-descriptor-set -o .local/fresh/protos.binpb
	@diff -r .local/fresh/gen gen && cmp .local/fresh/protos.binpb server/protos.binpb || { \
		echo "gen/ or server/protos.binpb is out of date: run \`make generate\`" >&2; exit 1; }

format: $(BIN)/buf $(BIN)/golangci-lint
	$(BIN)/buf format --diff --exit-code
	$(BIN)/golangci-lint fmt --diff
	cd bench && ../$(BIN)/golangci-lint fmt --diff
	cd e2e/chaos && ../../$(BIN)/golangci-lint fmt --diff
	cd deploy/compose && ../../$(BIN)/golangci-lint fmt --diff

breaking: $(BIN)/buf
	@tools/breaking.sh

# Runs short rounds. It checks that the benchmark works, and that none of its calls fails.
bench-test: build-bench
	cd bench && go test ./...
	@$(BIN)/dlsms-bench -quick -only '^(rest|reads|mix|bookings|stampede)$$'

vet: go
	go vet ./...
	cd bench && go vet ./...
	cd e2e/chaos && go vet ./...
	cd deploy/compose && go vet ./...

modules: go
	go mod verify
	go mod tidy -diff
	cd bench && go mod verify && go mod tidy -diff
	cd e2e/chaos && go mod verify && go mod tidy -diff
	cd deploy/compose && go mod verify && go mod tidy -diff

# Each tool has its own module, so that its dependencies stay out of the server's go.mod.
$(BIN)/buf $(BIN)/grpcurl $(BIN)/ghz $(BIN)/golangci-lint $(BIN)/govulncheck: $(BIN)/%: tools/%.mod | go
	@echo "build    | $* (once)"
	@CGO_ENABLED=0 stack/build.sh -modfile=$< -o $@ "$$(go list -modfile=$< tool)"
	@touch $@

go:
	@stack/preflight.sh
