#!/usr/bin/env bash
# Unpacks Debian packages into the cache, for servers that a test starts itself: nothing
# is installed, no maintainer script runs, and root is not needed.
#
#   unpack.sh PACKAGE...        for example: unpack.sh openssh-server
#
# stdout carries the folder with their files. With them come those packages that they
# depend on and that the machine has not installed, so a library may be in the folder or
# on the machine. A PACKAGE like postgresql/postgresql-[0-9]* is the one of that pattern
# on which postgresql depends.
#
# The cache is ${CULVERT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/culvert}/debian. What is
# there stays; to have newer versions, delete it.
set -euo pipefail

cache=${CULVERT_CACHE:-${XDG_CACHE_HOME:-${HOME:?set HOME or CULVERT_CACHE}/.cache}/culvert}/debian

say() { printf '%s\n' "testbed: $*" >&2; }
die() { say "error: $*"; exit 1; }

(($#)) || die "unpack.sh: give the packages to unpack"
release=$(. /etc/os-release 2>/dev/null && printf '%s' "${ID:-linux}${VERSION_ID:-}") || release=linux
key=$(printf '%s\n' "$@" | sha256sum | cut -c1-12)
dir=$cache/$release-$(uname -m)-$key
if [[ -e $dir ]]; then
  printf '%s\n' "$dir"
  exit 0
fi
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
  die "this machine has no apt-get and dpkg-deb: run these tests on Debian or Ubuntu"
mkdir -p "$cache"
# Test packages run side by side.
exec 9>"$cache/lock"
flock 9
if [[ -e $dir ]]; then
  printf '%s\n' "$dir"
  exit 0
fi

options=()
# own_lists makes apt use package lists of the cache: a fresh machine has none, and only
# root may get it some.
own_lists() {
  mkdir -p "$cache/apt/lists/partial" "$cache/apt/archives/partial"
  options=(-o "Dir::State::Lists=$cache/apt/lists" -o "Dir::Cache=$cache/apt" -o APT::Sandbox::User=)
  apt-get -qq "${options[@]}" update >&2 || die "apt-get update failed; its message is above"
}

# resolve prints the packages of the arguments.
resolve() {
  local want name
  for want in "$@"; do
    name=$want
    if [[ $want == */* ]]; then
      name=$(apt-cache "${options[@]}" depends "${want%%/*}" 2>/dev/null | awk '$1 == "Depends:" { print $2 }' | while read -r name; do
        # shellcheck disable=SC2053 # the right side is a pattern
        [[ $name != ${want#*/} ]] || printf '%s\n' "$name"
      done | head -n 1)
    fi
    [[ -n $name ]] || return 1
    printf '%s\n' "$name"
  done
}

# closure prints NAME=VERSION of the packages and what they need besides.
closure() {
  apt-get -s -qq "${options[@]}" --no-install-recommends --reinstall install "$@" |
    sed -n 's/^Inst \([^ ]*\) \(\[[^]]*\] \)\{0,1\}(\([^ ]*\) .*/\1=\3/p'
}

partial=$dir.partial.$$
trap 'rm -rf "$partial"' EXIT
mkdir -p "$partial/archives" "$partial/root"

fetch() {
  local names all
  names=$(resolve "$@") && all=$(closure $names) && [[ -n $all ]] || return 1
  say "unpacking ${all//$'\n'/ }"
  (cd "$partial/archives" && apt-get -qq "${options[@]}" -o APT::Sandbox::User= download $all >/dev/null)
}
if ! fetch "$@" 2>/dev/null; then
  own_lists
  fetch "$@" || die "apt-get could not get $*; its message is above"
fi
for archive in "$partial"/archives/*.deb; do
  dpkg-deb -x "$archive" "$partial/root"
done
mv "$partial/root" "$dir"
say "unpacked $* into $dir"
printf '%s\n' "$dir"
