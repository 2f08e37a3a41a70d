#!/usr/bin/env bash
# Builds what the Kubernetes tests stand on into .cache/kube, once: Kubernetes' own API server and kubectl, of the version in
# test/kube/go.mod, with a small kubelet; helm, of the version in test/helm/go.mod; and Debian's kubectl beside them, as the
# oldest client, which apt could not install beside another.
set -eu
cd "$(dirname "$0")/.."
out=$PWD/.cache/kube
mkdir -p "$out"

# once NAME FILES…: whether NAME is to be built of those files yet.
once() {
  name=$1
  shift
  want=$(cat "$@" | sha256sum | cut -d' ' -f1)
  [ "$(cat "$out/built.$name" 2>/dev/null)" != "$want" ]
}
built() { echo "$want" >"$out/built.$name"; }

if once kube scripts/kube.sh test/kube/go.mod test/kube/go.sum test/kube/*/*.go; then
  echo "building Kubernetes' API server, kubectl and a kubelet (some minutes, once)"
  version=v1.$(cd test/kube && go list -m -f '{{.Version}}' k8s.io/kubernetes | cut -d. -f2-)
  at=k8s.io/component-base/version # charts and clients go by what the programs say of themselves
  flags="-s -w -X $at.gitVersion=$version -X $at.gitMajor=1 -X $at.gitMinor=$(echo "$version" | cut -d. -f2)"
  (cd test/kube && CGO_ENABLED=0 go build -trimpath -ldflags "$flags" -o "$out/" ./apiserver ./kubectl ./kubelet)
  built
fi
if once helm test/helm/go.mod test/helm/go.sum; then
  echo "building helm (some minutes, once)"
  (cd test/helm && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$out/helm" helm.sh/helm/v3/cmd/helm)
  built
fi
if [ ! -x "$out/kubectl-old" ] && command -v apt-get >/dev/null && command -v dpkg >/dev/null; then
  echo "fetching Debian's kubectl"
  dir=$(mktemp -d "$out/deb.XXXXXX")
  trap 'rm -rf "$dir"' EXIT
  if (cd "$dir" && apt-get download -qq kubernetes-client 2>&1 && dpkg -x kubernetes-client_*.deb tree) >"$dir/log"; then
    mv "$dir/tree/usr/bin/kubectl" "$out/kubectl-old"
  else
    cat "$dir/log" >&2
    echo "left out without kubernetes-client: the oldest kubectl against the door" >&2
    [ -z "${REQUIRE_PEERS:-}" ]
  fi
fi
