# `make help` lists the targets. `make test` is what CI runs.

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

# One way to compile for all but the race detector: what one target built, the
# next one finds in Go's cache.
export CGO_ENABLED := 0
export GOFLAGS     := -trimpath -buildvcs=false
RACE                = CGO_ENABLED=1 GOFLAGS=-buildvcs=false

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo v0.0.0-dev)
TOOL       = go tool -modfile=testdata/tools/go.mod
GORELEASER = go tool -modfile=testdata/tools/goreleaser.mod goreleaser
# A test that fails is run once more, by itself: a real cluster on two cores can
# be late. What fails twice is red, and so is a data race; what failed once is
# shown.
RETRY    = $(TOOL) gotestsum --format pkgname --hide-summary skipped --rerun-fails=1 --rerun-fails-max-failures=10 --rerun-fails-abort-on-data-race
# ./... skips testdata, so its packages are named.
PACKAGES = ./... ./testdata/cluster/... ./testdata/e2e/...
# Each kind of use has a cluster of its own.
DEMO_STATE = .cluster
TEST_STATE = .cluster-test
CLUSTER    = go run ./testdata/cluster
ENTER      = env=$$($(CLUSTER) env --state $(1)) && eval "$$env" && export PATH="$(CURDIR)/bin:$$PATH"

.DEFAULT_GOAL := build
.PHONY: help build check test e2e faults cluster cluster-down demo bench golden dist clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build bin/kubectl-backsnap
	go build -ldflags "-s -w -X main.version=$(VERSION)" -o bin/kubectl-backsnap ./cmd/kubectl-backsnap

check: build ## Format, vet, staticcheck, unit tests with -race, tidy, generated files: a minute or two
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$unformatted" || { echo "not gofmt-ed: $$unformatted"; exit 1; }
	go vet $(PACKAGES)
	$(TOOL) staticcheck $(PACKAGES)
	cd testdata/cluster/csi && go vet ./...
	shellcheck -s sh $$(git ls-files 'internal/**.sh') # those of plugins: their tests
	shellcheck .ci/run $$(git ls-files 'testdata/**.sh')
	$(TOOL) validate-krew-manifest -skip-install -manifest krew/backsnap.yaml
	$(RACE) $(RETRY) --packages='./... ./testdata/cluster/...' -- -race -short
	go mod tidy -diff

test: check ## check, then each behaviour once on the real cluster: 45 minutes at most
	$(MAKE) e2e

e2e: build ## The tests that need the real cluster
	cd testdata/cluster/csi && go test -count=1 ./...
	BACKSNAP_IMAGE_TESTS=1 go test -count=1 ./testdata/cluster/images
	go test -count=1 ./plugins
	$(CLUSTER) up --state $(TEST_STATE)
	$(call ENTER,$(TEST_STATE)) && $(RETRY) --packages=./testdata/e2e/... -- -count=1 -p 1 -parallel 4 -timeout 40m
	$(CLUSTER) down --state $(TEST_STATE)

faults: build ## The enumerations: kill tables, seeds and histories, as long as they take; they write docs/faults
	BACKSNAP_FAULTS=all go test -count=1 -timeout 2h ./internal/retention
	$(CLUSTER) up --state $(TEST_STATE)
	$(call ENTER,$(TEST_STATE)) && BACKSNAP_FAULTS=all BACKSNAP_FAULTS_TABLE=$(CURDIR)/docs/faults/bad-days.md \
		go test -count=1 -p 1 -parallel 4 -timeout 12h -v ./testdata/e2e ./testdata/e2e/faults
	$(CLUSTER) down --state $(TEST_STATE)

cluster: ## Build and start a real Kubernetes on this machine; `go run ./testdata/cluster env` tells how to use it
	$(CLUSTER) up --state $(DEMO_STATE)

cluster-down: ## Stop what `make cluster` started
	$(CLUSTER) down --state $(DEMO_STATE)

demo: build cluster ## Snapshot a PostgreSQL and a MariaDB on that cluster, copy them to S3, list them
	$(call ENTER,$(DEMO_STATE)) && testdata/demo/demo.sh

bench: build ## Measure us against the same work by hand
	$(CLUSTER) up --state $(TEST_STATE)
	$(call ENTER,$(TEST_STATE)) && go test -count=1 -timeout 1h -v -run '^$$' -bench . -benchtime 1x ./testdata/e2e/bench/...

golden: ## Rewrite goldens and scripts; read the diff before you commit
	UPDATE=1 go test ./...

dist: ## Release archives, as goreleaser makes them; the first run compiles it, which takes minutes
	$(GORELEASER) check
	$(GORELEASER) release --snapshot --clean

clean: ## Remove what was built; clusters stay
	rm -rf bin dist
