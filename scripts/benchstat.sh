#!/usr/bin/env bash
# benchstat.sh BASE [COUNT [BENCHTIME]]: the micro-benchmarks of BASE, a commit, beside
# those of this tree: COUNT (8) rounds of BENCHTIME (200ms) each, the two in turns, so
# that what else the machine does meets both; then what differs, as benchstat sees it.
#
#   PACKAGES   which, else jsonrpc, store, httpapi (SSE) and broker
set -euo pipefail
cd "$(dirname "$0")/.."
base=$(git rev-parse --verify --quiet "${1:-HEAD}^{commit}") || {
  echo "benchstat.sh: $1 is no commit" >&2
  exit 1
}
count=${2:-8} time=${3:-200ms}
read -ra packages <<<"${PACKAGES:-internal/jsonrpc internal/store internal/httpapi internal/broker}"

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/base" "$dir/old" "$dir/new"
git archive "$base" | tar -x -C "$dir/base"
CGO_ENABLED=0 go build -modfile=tools/benchstat/go.mod -o "$dir/benchstat" golang.org/x/perf/cmd/benchstat

for package in "${packages[@]}"; do
  name=${package//\//-}
  (cd "$dir/base" && go test -c -o "$dir/old/$name" "./$package")
  go test -c -o "$dir/new/$name" "./$package"
done
# A test finds its files from its package's directory.
for round in $(seq "$count"); do
  echo "round $round of $count" >&2
  for package in "${packages[@]}"; do
    name=${package//\//-}
    for side in old new; do
      at=$package
      [ "$side" = new ] || at=$dir/base/$package
      [ -x "$dir/$side/$name" ] || continue # it has no tests
      (cd "$at" && "$dir/$side/$name" -test.run '^$' -test.bench . -test.benchmem -test.benchtime "$time") >>"$dir/$side.txt"
    done
  done
done
cd "$dir"
./benchstat old.txt new.txt
