# Mooring: `make` lists the targets.
CLANG   ?= clang
KERNEL  ?= 6.1
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

export CGO_ENABLED = 0
LDFLAGS  = -s -w -X main.version=$(VERSION)
SETUP    = cmd/vmtest/setup.sh
CONTROL  = $(or $(MOORING_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/mooring)/control/usr/bin
# Packages with tests that need a kernel of their own, found by their build tag.
KERNEL_PACKAGES = $(shell grep -rl '^//go:build kernel$$' --include='*_test.go' . | xargs -rn1 dirname | sort -u)

.DEFAULT_GOAL := help
.PHONY: help build generate fmt lint verify unit test test-vm monitoring monitoring-test matrix demo e2e bench run fuzz tools clean

##@ Everyday

help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build all binaries into bin/
	@mkdir -p bin
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/mooring-agent ./cmd/mooring-controller ./cmd/mooringctl \
	  ./cmd/vmtest ./cmd/demo ./cmd/bench ./cmd/e2e ./cmd/e2e/pause ./cmd/monitorcheck
	@ln -sfn mooringctl bin/kubectl-mooring

run: build ## run the agent on this machine: statement latencies of the databases here, until Ctrl-C
	@cmd/run.sh

demo: tools build ## show the agent at work on PostgreSQL and MariaDB in a virtual machine
	bin/vmtest -memory 4G -disk 4G -timeout 15m -kernel $(KERNEL) -- bin/demo

e2e: tools build ## the whole of Mooring on a real Kubernetes with one node in a virtual machine
	@$(SETUP) kube
	bin/e2e $(E2EFLAGS)

bench: tools build ## price of the statement probe: pgbench with it on and off, on this machine
	bin/bench

monitoring: tools build ## every panel of every dashboard against a real Prometheus and a real agent under load
	@$(SETUP) control
	bin/monitorcheck

##@ Tests

test: tools unit monitoring-test test-vm ## everything: unit tests, alerts, then kernel tests in the virtual machine

unit: ## tests that need nothing but Go
	go vet ./...
	go test ./...

test-vm: tools build ## kernel tests in the virtual machine (KERNEL=5.10, 6.1 or 6.12)
	@$(SETUP) kernel $(KERNEL)
	go vet -tags kernel $(KERNEL_PACKAGES)
	VMTEST_KERNEL=$(KERNEL) go test -tags kernel -p 1 -count 1 -timeout 20m -exec $(CURDIR)/bin/vmtest $(KERNEL_PACKAGES)
	@echo "a node without the LSM of BPF:"
	VMTEST_KERNEL=$(KERNEL) VMTEST_CMDLINE=lsm=lockdown,landlock,yama,apparmor \
	  go test -tags kernel -count 1 -timeout 20m -exec $(CURDIR)/bin/vmtest -run '^TestIOFaults$$' ./bpf

monitoring-test: ## every recording rule and alert against its cases, by promtool
	@$(SETUP) control
	$(CONTROL)/promtool check rules deploy/monitoring/rules/*.yaml
	$(CONTROL)/promtool test rules deploy/monitoring/testdata/cases.yaml

matrix: ## kernel tests on every kernel of the matrix
	@for k in 5.10 6.1 6.12; do $(MAKE) test-vm KERNEL=$$k || exit 1; done

fuzz: ## fuzz every parser for a minute each
	@for p in $$(grep -rl '^func Fuzz' --include='*_test.go' . | xargs -rn1 dirname | sort -u); do \
	  for f in $$(grep -rhoE '^func Fuzz[A-Za-z]+' $$p/*_test.go | cut -c6-); do \
	    go test -run '^$$' -fuzz "^$$f$$" -fuzztime 1m $$p || exit 1; done; done

##@ Sources

generate: ## regenerate BPF objects, gRPC code and metric tables
	@$(SETUP) build
	@mkdir -p bin
	go build -o bin/ google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
	BPF_CLANG=$(CLANG) go generate -tags kernel ./bpf ./agent/agentpb
	go tool controller-gen object paths=./controller/v1alpha1
	go tool controller-gen crd:maxDescLen=400 paths=./controller/v1alpha1 output:crd:dir=deploy/crds
	cp deploy/crds/mooring.dev_*.yaml deploy/helm/mooring/crds/
	go test ./exporter -run 'TestGolden|TestReadme' -update
	go test ./deploy/monitoring -run 'TestGenerated|TestReadme' -update

fmt: ## format Go and BPF C
	gofmt -w $$(git ls-files '*.go')

lint: ## gofmt, go vet, staticcheck
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo "run make fmt"; exit 1; }
	go vet ./...
	go tool staticcheck ./...

verify: generate lint ## regenerate and check that nothing differs from what is committed
	@go mod tidy -diff
	@git diff --exit-code -- . || { echo "generated files are stale: run make generate and commit"; exit 1; }

tools: ## fetch what tests and demo need (Debian packages; only build tools are installed here)
	@$(SETUP) all

clean: ## remove what was built; the cache folder stays
	rm -rf bin
