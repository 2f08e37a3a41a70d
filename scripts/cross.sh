#!/usr/bin/env bash
# Builds tsh and tctl for every platform, and all three programs for Linux, without cgo.
set -eu
cd "$(dirname "$0")/.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
for target in linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64; do
  export CGO_ENABLED=0 GOOS=${target%/*} GOARCH=${target#*/}
  programs="./cmd/tsh ./cmd/tctl"
  [ "$GOOS" = linux ] && programs="$programs ./cmd/sallyport"
  if [ "$GOOS" != darwin ] && go list -deps $programs | grep ebitengine/purego; then
    echo "programs for $GOOS link what is for macOS alone" >&2
    exit 1
  fi
  go build -trimpath -o "$out/" $programs
  echo "built for $target: $programs"
done
