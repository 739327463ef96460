#!/usr/bin/env bash
# fuzz.sh TIME: runs every fuzz target of the tree for TIME (60s), one by one: the go
# command fuzzes one at a time. A finding is kept in the package's testdata/fuzz, to
# be committed with its mend.
set -euo pipefail
cd "$(dirname "$0")/.."

count=0
while IFS=: read -r file target; do
  echo "== $target ($file)"
  go test -run '^$' -fuzz "^$target\$" -fuzztime "$1" "./$(dirname "$file")"
  count=$((count + 1))
done < <(grep -rHoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sed 's/:func /:/' | sort)
[ "$count" -gt 0 ] || { echo 'fuzz.sh: no fuzz target found' >&2; exit 1; }
echo "$count fuzz targets, nothing found"
