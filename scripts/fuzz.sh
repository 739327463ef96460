#!/usr/bin/env bash
# fuzz.sh TIME: runs every fuzz target of the tree for TIME (60s), one by one: the go
# command fuzzes one at a time. A finding is kept in the package's testdata/fuzz, to
# be committed with its mend; it does not keep the targets after it from running. What is
# new only is made small for a moment, else that takes the whole time.
set -euo pipefail
cd "$(dirname "$0")/.."

output=$(mktemp)
trap 'rm -f "$output"' EXIT
mapfile -t targets < <(grep -rHoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sed 's/:func /:/' | sort)
[ "${#targets[@]}" -gt 0 ] || { echo 'fuzz.sh: no fuzz target found' >&2; exit 1; }

executions=0 failed=()
for i in "${!targets[@]}"; do
  IFS=: read -r file target <<<"${targets[i]}"
  echo "== $((i + 1)) of ${#targets[@]}: $target ($file)"
  go test -run '^$' -fuzz "^$target\$" -fuzztime "$1" -fuzzminimizetime 2s "./$(dirname "$file")" 2>&1 | tee "$output" || failed+=("$target ($file)")
  # The last progress line of the engine counts them: "fuzz: elapsed: 3s, execs: 812 (…".
  last=$(grep -oE 'execs: [0-9]+' "$output" | tail -n 1 | grep -oE '[0-9]+') || last=0
  executions=$((executions + last))
done
echo "${#targets[@]} fuzz targets, $executions executions, ${#failed[@]} with a finding"
[ "${#failed[@]}" -eq 0 ] || { printf 'fuzz.sh: %s\n' "${failed[@]}" >&2; exit 1; }
