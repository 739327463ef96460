#!/usr/bin/env bash
# What the tests need besides Go: git, a C compiler (the race detector links C), Node
# and npm, Python, curl and jq, the shells that are completed in and what reads a man
# page, systemd and Debian's own tools for packages, and as root crun, and setpriv and
# useradd for the rootless half. As root, where apt is there, what is missing is
# installed; else this says what to install, and fails.
set -euo pipefail

missing=()
need() { # COMMAND PACKAGE…
  command -v "$1" >/dev/null || missing+=("${@:2}")
}
need go golang
need git git
# AG-UI's own client is tested against (make httpagent).
need node nodejs
need npm npm
need python3 python3
# The examples in other languages are run.
need curl curl
need jq jq
# Completion is tried in each shell, the man page by both of its readers.
need zsh zsh
need fish fish
need groff groff
need mandoc mandoc
# The units are weighed by systemd-analyze and started under systemd.
need systemd-analyze systemd
# The package is built by Go alone; it is read and installed by Debian's own.
need dpkg-deb dpkg
need adduser adduser
# A compiler without the C library's headers is none.
printf '#include <stdlib.h>\n' | "${CC:-gcc}" -E - >/dev/null 2>&1 || missing+=(gcc libc6-dev)
if [ "$(id -u)" = 0 ]; then
  need crun crun # what is below container engines
  need setpriv util-linux
  need flock util-linux
  need useradd passwd
fi
[ "${#missing[@]}" -gt 0 ] || exit 0

if [[ " ${missing[*]} " == *" golang "* ]]; then
  # A distribution's Go is too old; go.mod names the version.
  echo "needs.sh: install Go $(sed -n 's/^go //p' go.mod) or newer: https://go.dev/dl" >&2
  exit 1
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "needs.sh: the tests need packages that are missing here; install: ${missing[*]} (Debian's names)" >&2
  exit 1
fi
echo "needs.sh: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
