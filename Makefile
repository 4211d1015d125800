# DL-SMS. `make` lists the targets.

# Go's installation instructions put Go in /usr/local/go, which is not in every PATH.
export PATH := $(PATH):/usr/local/go/bin

BIN     := .local/bin
LISTEN  ?= 127.0.0.1:9090
# The address for HTTP. If it is empty, the port is that of LISTEN minus 1010.
HTTP_LISTEN ?=
TESTS   ?= ./...
TIMEOUT ?= 25m

.DEFAULT_GOAL := help
.PHONY: help run run-microservices tls backup restore test check build bench bench-quick bench-profiles
.PHONY: compare compare-quick chaos chaos-quick canaries trials
.PHONY: vulncheck generate lint prose fmt grpcurl ghz install clean
.PHONY: go fresh format breaking vet modules build-stack build-bench build-compare bench-test build-chaos
.PHONY: web test-web screenshots web-packages web-fresh build-web-test

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build-stack ## start the system with demo data: gRPC on LISTEN=127.0.0.1:9090, HTTP on port 8080; Ctrl-C stops it
	@exec $(RUN) $(ARGS)

run-microservices: build-stack ## the same, with a process for each service, on the ports 8081 to 8084
	@exec $(RUN) -microservices $(ARGS)

tls: go ## make a certificate for clients in deploy/tls, or check yours; NAMES="host address" (default: localhost)
	@CGO_ENABLED=0 stack/build.sh -o $(BIN)/ ./stack/cmd/dlsms-tls
	@$(BIN)/dlsms-tls -dir deploy/tls -names '$(NAMES)'

RUN = $(BIN)/dlsms-stack -dir .local -binary $(BIN)/dlsms -listen $(LISTEN) -http-listen '$(HTTP_LISTEN)'

backup: build-stack ## write the database of `make run` to a new file, while it runs or not; FILE=name chooses the file
	@exec $(BIN)/dlsms-stack backup -dir .local -file "$$FILE"

restore: build-stack ## replace the database of `make run` with FILE=dump from `make backup`; stop `make run` first
	@exec $(BIN)/dlsms-stack restore -dir .local -binary $(BIN)/dlsms -file "$$FILE"

build-stack: go
	@stack/install.sh run
	@CGO_ENABLED=0 stack/build.sh -o $(BIN)/ . ./stack/cmd/dlsms-stack

test: go ## run the tests with the race detector; TESTS=./store runs one package
	@stack/install.sh test
	@stack/build.sh -race ./...
	go test -race -shuffle=on -p 1 -timeout $(TIMEOUT) $(TESTS)
	$(if $(filter ./...,$(TESTS)),cd deploy/compose && go test -race -shuffle=on ./...)
	$(if $(filter ./...,$(TESTS)),cd tools/openapi && go test -race -shuffle=on -count=1 ./...)
	$(if $(filter ./...,$(TESTS)),cd deploy/observability && go test -race -shuffle=on ./...)

web: web-packages ## build the web client into web/dist; needs Node 18.13 or newer
	@cd web && npm run --silent schema && npm run --silent types && node build.mjs

test-web: build-web-test ## test the web client in a browser; TESTS="now me" runs two files
	@TESTS='$(filter-out ./...,$(TESTS))' exec node web/test/run.mjs

screenshots: build-web-test ## write docs/screenshots
	@TESTS=screenshots exec node web/test/run.mjs

build-web-test: build-stack web-packages
	@stack/install.sh browser
	@CGO_ENABLED=0 stack/build.sh -o $(BIN)/ ./stack/cmd/dlsms-tls

# npm writes the file when it has installed the packages of package-lock.json.
web-packages: web/node_modules/.package-lock.json
web/node_modules/.package-lock.json: web/package-lock.json
	@stack/install.sh node
	@cd web && npm ci --no-audit --no-fund
	@touch $@

check: fresh format lint vet modules build web-fresh ## run every check that a change must pass
check: test bench-test chaos-quick test-web


bench: build-bench ## run the benchmarks and write docs/benchmarks; takes 20 minutes on an idle machine
	@$(BIN)/dlsms-bench -out docs/benchmarks $(ARGS)

bench-quick: build-bench ## run short benchmarks in 3 minutes; the figures are not meaningful
	@$(BIN)/dlsms-bench -quick -out .local/bench-quick $(ARGS)

compare: build-compare ## compare gRPC, HTTP, monolith, microservices and the original's cache; takes up to 25 minutes
	@$(BIN)/dlsms-bench -compare -out docs/comparison $(ARGS)

compare-quick: build-compare ## run a short comparison in 3 minutes; the figures are not meaningful
	@$(BIN)/dlsms-bench -compare -quick -out .local/compare-quick $(ARGS)

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
	cd deploy/observability && ../../$(BIN)/govulncheck $(VULNDB:%=-db %) -test ./...

build-chaos: build
	@stack/install.sh run
	@cd e2e/chaos && CGO_ENABLED=0 ../../stack/build.sh -o ../../$(BIN)/dlsms-chaos .

build-bench: build
	@stack/install.sh run
	@cd bench && CGO_ENABLED=0 ../stack/build.sh -o ../$(BIN)/dlsms-bench .
	@cd bench && CGO_ENABLED=0 ../stack/build.sh -o ../$(BIN)/dlsms-limit ./limit

build-compare: build-bench $(BIN)/ghz $(BIN)/hey
	@cd bench && CGO_ENABLED=0 ../stack/build.sh -o ../$(BIN)/dlsms-gateway ./gateway

build: go ## build dlsms into .local/bin
	@CGO_ENABLED=0 stack/build.sh -o $(BIN)/ .

generate: $(BIN)/buf ## generate gen/, server/protos.binpb, rest/openapi.json, docs/reference and the dashboards
	$(BIN)/buf generate
	$(BIN)/buf build --as-file-descriptor-set -o server/protos.binpb
	$(BIN)/buf generate --template tools/openapi/buf.gen.yaml
	cd tools/openapi && go run . ../../.local/openapi/dlsms.swagger.json ../../rest/openapi.json
	@stack/install.sh run
	go test . -run Settings -update
	go test ./telemetry -update
	cd deploy/observability && go run . dashboards

lint: breaking prose $(BIN)/golangci-lint ## lint the protos and the code
	$(BIN)/buf lint
	$(BIN)/golangci-lint run
	cd bench && ../$(BIN)/golangci-lint run
	cd e2e/chaos && ../../$(BIN)/golangci-lint run
	cd deploy/compose && ../../$(BIN)/golangci-lint run
	cd tools/openapi && ../../$(BIN)/golangci-lint run
	cd deploy/observability && ../../$(BIN)/golangci-lint run

prose: ## check line lengths and wording in comments and docs
	@tools/prose.sh

fmt: $(BIN)/buf $(BIN)/golangci-lint web-packages ## format the protos and the code
	$(BIN)/buf format --write
	$(BIN)/golangci-lint fmt
	cd web && npm exec --no -- prettier --write --log-level warn .

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
	$(BIN)/buf generate --template tools/openapi/buf.gen.yaml --output .local/fresh
	cd tools/openapi && go run . ../../.local/fresh/.local/openapi/dlsms.swagger.json ../../.local/fresh/openapi.json
	@diff -r .local/fresh/gen gen && cmp .local/fresh/protos.binpb server/protos.binpb && \
		cmp .local/fresh/openapi.json rest/openapi.json || { \
		echo "gen/, server/protos.binpb or rest/openapi.json is out of date: run \`make generate\`" >&2; exit 1; }

format: $(BIN)/buf $(BIN)/golangci-lint
	$(BIN)/buf format --diff --exit-code
	$(BIN)/golangci-lint fmt --diff
	cd bench && ../$(BIN)/golangci-lint fmt --diff
	cd e2e/chaos && ../../$(BIN)/golangci-lint fmt --diff
	cd deploy/compose && ../../$(BIN)/golangci-lint fmt --diff
	cd tools/openapi && ../../$(BIN)/golangci-lint fmt --diff
	cd deploy/observability && ../../$(BIN)/golangci-lint fmt --diff

breaking: $(BIN)/buf
	@tools/breaking.sh

# Builds the web client again and compares. It also checks the types and the sizes.
web-fresh: web-packages
	@cd web && npm exec --no -- prettier --check --log-level warn . || { \
		echo "the sources of the web client are not formatted: run \`make fmt\`" >&2; exit 1; }
	@cd web && npm run --silent schema && npm run --silent types && node build.mjs --out ../.local/web-dist
	@node web/fresh.mjs .local/web-dist

# Runs short rounds. It checks that the benchmark works, and that none of its calls fails.
bench-test: build-compare
	cd bench && go test ./...
	@$(BIN)/dlsms-bench -quick -only '^(rest|reads|mix|bookings|stampede)$$'
	@$(BIN)/dlsms-bench -compare -quick

vet: go
	go vet ./...
	cd bench && go vet ./...
	cd e2e/chaos && go vet ./...
	cd deploy/compose && go vet ./...
	cd tools/openapi && go vet ./...
	cd deploy/observability && go vet ./...

modules: go
	go mod verify
	go mod tidy -diff
	cd bench && go mod verify && go mod tidy -diff
	cd e2e/chaos && go mod verify && go mod tidy -diff
	cd deploy/compose && go mod verify && go mod tidy -diff
	cd tools/openapi && go mod verify && go mod tidy -diff
	cd deploy/observability && go mod verify && go mod tidy -diff

# Each tool has its own module, so that its dependencies stay out of the server's go.mod.
$(BIN)/buf $(BIN)/grpcurl $(BIN)/ghz $(BIN)/hey $(BIN)/golangci-lint $(BIN)/govulncheck: $(BIN)/%: tools/%.mod | go
	@echo "build    | $* (once)"
	@CGO_ENABLED=0 stack/build.sh -modfile=$< -o $@ "$$(go list -modfile=$< tool)"
	@touch $@

go:
	@stack/preflight.sh
