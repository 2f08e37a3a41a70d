# Sallyport. `make quickstart` plays the guide, `make test` runs every test.
GO      ?= go
BIN     := bin
LDFLAGS := -s -w
export CGO_ENABLED ?= 0

.PHONY: build quickstart test race bench cross lint generate fuzz clean peers

build: ## the three programs, in bin/
	$(GO) build -trimpath -ldflags "$(LDFLAGS)" -o $(BIN)/ ./cmd/sallyport ./cmd/tctl ./cmd/tsh

peers: ## installs the real parts that the tests talk to, where that is allowed
	@scripts/peers.sh

quickstart: build ## builds everything and plays the guide
	@scripts/peers.sh quickstart
	@$(BIN)/sallyport quickstart

test: peers ## every test, with the race detector where there is a C compiler
	@scripts/test.sh

bench: peers build ## measures beside peers and prints a table
	@$(GO) run ./bench

cross: ## the users' programs for every platform
	@scripts/cross.sh

lint:
	@test -z "$$(gofmt -l cmd internal bench e2e)" || { gofmt -l cmd internal bench e2e; exit 1; }
	$(GO) vet ./...
	$(GO) mod tidy -diff

fuzz: ## each fuzz target for FUZZTIME (1m)
	@scripts/fuzz.sh

generate: ## protobuf code; needs buf, protoc-gen-go and protoc-gen-connect-go
	buf lint && buf generate

clean:
	rm -rf $(BIN)
