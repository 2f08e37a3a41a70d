#!/usr/bin/env bash
# Builds Kubernetes' own API server and kubectl, of the version in test/kube/go.mod, into .cache/kube, once.
set -eu
cd "$(dirname "$0")/.."
out=$PWD/.cache/kube
want=$(cat test/kube/go.mod test/kube/go.sum test/kube/*/main.go | sha256sum | cut -d' ' -f1)
[ "$(cat "$out/built" 2>/dev/null)" = "$want" ] && exit 0
echo "building Kubernetes' API server and kubectl (some minutes, once)"
mkdir -p "$out"
cd test/kube
CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$out/" ./apiserver ./kubectl
echo "$want" >"$out/built"
