#!/usr/bin/env bash
# The gate, the same for a developer and for CI. Every step runs, whatever the ones
# before it gave, but nothing can be tested that was not built. Each step that is no
# test run counts as one check in the ledger (tools/testcount); the last line is the
# sum, and the exit status says whether all is well.
#
#   CARREL_GATE_LEDGER   where to keep the counts; else in a temporary file
#   REQUIRE_KERNEL       1 unless set otherwise: a kernel test that is skipped fails
set -euo pipefail
cd "$(dirname "$0")/.."

export REQUIRE_KERNEL=${REQUIRE_KERNEL:-1}
if [ -z "${CARREL_GATE_LEDGER:-}" ]; then
  CARREL_GATE_LEDGER=$(mktemp)
  trap 'rm -f "$CARREL_GATE_LEDGER"' EXIT
fi
export CARREL_GATE_LEDGER

step() { # NAME COMMAND…: run it, note how it went, answer with its status
  local name=$1 status=0 passed=1
  shift
  printf '\n== %s\n' "$name"
  "$@" || status=$?
  if [ "$status" != 0 ]; then
    passed=0
    printf 'FAIL  %s (exit status %d)\n' "$name" "$status"
  fi
  printf '{"name":"%s","passed":%d,"failed":%d}\n' "$name" "$passed" $((1 - passed)) >>"$CARREL_GATE_LEDGER"
  return "$status"
}

failed=0
step needs scripts/needs.sh || exit 1
step tools make tools || exit 1
step format make fmt-check || failed=1
step vet make vet || failed=1
step lint make lint || failed=1
step architecture make architecture || failed=1
step httpagent make httpagent || failed=1
step examples make examples || failed=1

# The tests of the kernel packages start the worker that was built here.
if step build make test-programs; then
  me=user
  [ "$(id -u)" != 0 ] || me=root
  printf '\n== tests, as %s\n' "$me"
  scripts/go-test.sh "tests as $me" "$me" ./... || failed=1
  if [ "$me" = root ]; then
    printf '\n== tests of the kernel packages, as an ordinary user\n'
    scripts/rootless.sh || failed=1
  else
    echo 'The tests ran as an ordinary user. What needs root did not run: that half is for root, and for CI.'
  fi
else
  failed=1
fi

printf '\n'
bin/tools/testcount -total "$CARREL_GATE_LEDGER" || failed=1
exit "$failed"
