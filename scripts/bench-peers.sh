#!/usr/bin/env bash
# Installs what `make bench` measures carrel beside: Debian's bubblewrap, crun, runc and
# FastAPI (as root, where apt is there), and npm's pinned packages into bin/peers. What
# cannot be had is said here and again in the results; the others are measured all the
# same.
set -uo pipefail
cd "$(dirname "$0")/.."

missing=()
for program in bwrap:bubblewrap crun:crun runc:runc socat:socat rg:ripgrep gcc:gcc python3:python3 node:nodejs; do
  command -v "${program%%:*}" >/dev/null || missing+=("${program##*:}")
done
# uvicorn is at its fastest with the last two.
/usr/bin/python3 -c 'import fastapi, uvicorn, uvloop, httptools' 2>/dev/null ||
  missing+=(python3-fastapi python3-uvicorn python3-uvloop python3-httptools)
if [ "${#missing[@]}" -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "bench-peers.sh: installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -qq -y --no-install-recommends "${missing[@]}"; } >/dev/null ||
      echo "bench-peers.sh: apt could not install ${missing[*]}" >&2
  else
    echo "bench-peers.sh: not here, and not measured: ${missing[*]}" >&2
  fi
fi
if command -v npm >/dev/null; then
  mkdir -p bin/peers
  cp bench/testdata/peers/package.json bench/testdata/peers/package-lock.json bin/peers/
  npm ci --prefix bin/peers --no-audit --no-fund --loglevel=error ||
    echo "bench-peers.sh: npm could not install the peers" >&2
else
  echo "bench-peers.sh: npm is not here; its packages are not measured" >&2
fi
