#!/usr/bin/env bash
# Every test. With REQUIRE_PEERS=1 a peer that is absent fails instead of being left out.
set -eu
cd "$(dirname "$0")/.."
echo "== vet, format, modules"
make -s lint
echo "== builds for every platform"
scripts/cross.sh
race=""
if command -v gcc >/dev/null 2>&1; then
  race="-race"
  export CGO_ENABLED=1
fi
echo "== tests ${race:+with the race detector}"
go test $race -timeout 30m ./...
