#!/usr/bin/env bash
# Makes sure that commands from Debian packages are there.
#
#   packages.sh COMMAND[:PACKAGE]...      for example: packages.sh curl ip:iproute2
#
# What is missing is installed when the caller is root and the machine has
# apt-get; otherwise the error names the packages to install.
set -euo pipefail

say() { printf '%s\n' "testbed: $*" >&2; }

missing=()
for want in "$@"; do
  # Debian keeps ip, nft and the like where an ordinary user's PATH may not look.
  PATH=$PATH:/usr/sbin:/sbin command -v "${want%%:*}" >/dev/null || missing+=("${want##*:}")
done
((${#missing[@]})) || exit 0

if ((EUID != 0)); then
  say "error: not installed: ${missing[*]}; install with: sudo apt-get install ${missing[*]}"
  exit 1
fi
if ! command -v apt-get >/dev/null; then
  say "error: not installed: ${missing[*]}; install them with this system's package manager"
  exit 1
fi
say "installing ${missing[*]}"
# A server among the packages is for the tests, which start it themselves: it must
# not start on the machine (Debian's policy-rc.d, see invoke-rc.d(8)).
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null; }
# A fresh machine has no package lists; one with lists need not fetch them again.
if ! install 2>/dev/null; then
  apt-get update -qq >&2
  install || { say "error: apt-get could not install ${missing[*]}; its message is above"; exit 1; }
fi
