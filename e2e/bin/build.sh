#!/usr/bin/env bash
# Builds the real servers of the test bed from their Go modules and caches them.
#
#   build.sh [--paths] [NAME...]
#
# NAME is etcd, kube-apiserver, kubectl, coredns, oidc or ocm-addon-manager; none means
# all of them.
# Progress goes to stderr. With --paths, stdout carries one "NAME PATH" line for
# each binary, for programs to read.
#
# The cache is ${CULVERT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/culvert}/bin. A
# file name carries a hash of everything that decides its content, so two
# checkouts at different versions share one cache without disturbing each other.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${CULVERT_CACHE:-${XDG_CACHE_HOME:-${HOME:?set HOME or CULVERT_CACHE}/.cache}/culvert}/bin
progress_every=15

say() { printf '%s\n' "testbed: $*" >&2; }
die() { say "error: $*"; exit 1; }

# describe NAME sets module (folder), package (in it), pinned (the module whose
# version the binary carries) and ldflags.
describe() {
  ldflags="-s -w"
  case $1 in
    etcd) module=etcd package=. pinned=go.etcd.io/etcd/server/v3 ;;
    coredns) module=coredns package=. pinned=github.com/coredns/coredns ;;
    oidc) module=oidc package=. pinned=github.com/zitadel/oidc/v3 ;;
    kube-apiserver | kubectl) module=kube package=./cmd/$1 pinned=k8s.io/kubernetes ;;
    ocm-addon-manager) module=ocm package=. pinned=open-cluster-management.io/ocm ;;
    *) die "unknown binary '$1': give etcd, kube-apiserver, kubectl, coredns, oidc or ocm-addon-manager" ;;
  esac
  version=$(awk -v m="$pinned" '$1 == m { print $2; exit } $1 == "require" && $2 == m { print $3; exit }' "$here/$module/go.mod")
  [[ $version == v* ]] || die "$module/go.mod requires no version of $pinned"
  if [[ $module == kube ]]; then
    # Without these the API server reports v0.0.0-master, which kubectl and
    # clients that look at the version do not understand.
    local minor=${version#v*.} pkg
    for pkg in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
      ldflags+=" -X $pkg.gitVersion=$version -X $pkg.gitMajor=${version:1:1} -X $pkg.gitMinor=${minor%%.*}"
    done
  fi
}

# target prints the cache path of what describe described.
target() {
  local hash
  hash=$({
    cat "$here/$module/go.mod" "$here/$module/go.sum" "$here/$module/$package/main.go"
    printf '%s %s %s' "$ldflags" "$(go env GOOS)" "$(go env GOARCH)"
  } | sha256sum | cut -c1-12)
  printf '%s/%s-%s-%s' "$cache" "$1" "$version" "$hash"
}

# build NAME PATH builds it, reporting every progress_every seconds.
build() {
  local name=$1 path=$2 partial=$2.partial.$$ started=$SECONDS next=$progress_every job
  say "building $name $version (the first build of all binaries takes about 10 minutes, then it is cached)"
  (cd "$here/$module" && CGO_ENABLED=0 GOWORK=off exec go build -mod=readonly -buildvcs=false -trimpath \
    -ldflags "$ldflags" -o "$partial" "$package") >&2 &
  job=$!
  # The compiler must not outlive an interrupted script.
  trap 'kill "$job" 2>/dev/null || true; rm -f "$partial"' EXIT
  while kill -0 "$job" 2>/dev/null; do
    if ((SECONDS - started >= next)); then
      say "building $name $version: $((SECONDS - started)) s"
      next=$((next + progress_every))
    fi
    sleep 0.2
  done
  wait "$job" || die "building $name $version failed; the compiler's message is above"
  mv "$partial" "$path"
  trap - EXIT
  say "built $name $version in $((SECONDS - started)) s"
}

# provide NAME makes sure that the binary is there, whoever builds it.
provide() {
  local name=$1 path
  describe "$name"
  path=$(target "$name")
  paths+=("$name $path")
  [[ -x $path ]] && return
  exec {lock}>"$cache/.$name.lock"
  if ! flock --nonblock "$lock"; then
    say "another process is building $name: waiting for it"
    flock "$lock"
  fi
  if [[ ! -x $path ]]; then
    build "$name" "$path"
    built=$((built + 1))
  fi
  exec {lock}>&-
}

print_paths=
names=()
for arg in "$@"; do
  case $arg in
    --paths) print_paths=1 ;;
    -*) die "unknown flag '$arg': the only flag is --paths" ;;
    *) names+=("$arg") ;;
  esac
done
((${#names[@]})) || names=(etcd kube-apiserver kubectl coredns oidc ocm-addon-manager)
command -v go >/dev/null || die "go is not installed: the test bed builds its servers from Go modules"

mkdir -p "$cache"
paths=()
built=0
for name in "${names[@]}"; do provide "$name"; done
((built)) || say "${names[*]}: cached in $cache"
if [[ $print_paths ]]; then printf '%s\n' "${paths[@]}"; fi
