#!/usr/bin/env bash
# go-test.sh NAME AS ARG…: `go test ARG…` with the race detector and in shuffled
# order, counted under NAME in the gate's ledger (CARREL_GATE_LEDGER), as run by AS
# (root or user). Without a ledger the sum is printed instead.
set -euo pipefail
cd "$(dirname "$0")/.."
name=$1 as=$2
shift 2

count=(bin/tools/testcount -name "$name" -as "$as")
[ -z "${CARREL_GATE_LEDGER:-}" ] || count+=(-ledger "$CARREL_GATE_LEDGER")

# Vet is a step of its own. The time limit is one package's.
set +e
CGO_ENABLED=1 go test -json -race -shuffle=on -count=1 -vet=off -timeout 15m "$@" | "${count[@]}"
status=("${PIPESTATUS[@]}")
set -e
if [ "${status[0]}" != 0 ] && [ "${status[1]}" = 0 ]; then
  # The go command failed beside the tests (a pattern that names no package).
  echo "FAIL  go test (exit status ${status[0]})"
  [ -z "${CARREL_GATE_LEDGER:-}" ] ||
    printf '{"name":"%s: go test","passed":0,"failed":1}\n' "$name" >>"$CARREL_GATE_LEDGER"
fi
[ "${status[*]}" = "0 0" ]
