#!/usr/bin/env bash
# The rootless half: the tests of what meets the kernel, run as an ordinary user.
# Called by root, they run as the system user carrel-test (as-user.sh).
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(. ./cmd/carrel ./internal/cgroup ./internal/engine/... ./internal/fdpass ./internal/reap ./internal/jail ./internal/jail/attack ./internal/selftest ./internal/ordeal ./internal/tool/... ./internal/worker/... ./internal/workspace/...)
as=()
[ "$(id -u)" != 0 ] || as=(-exec "$PWD/scripts/as-user.sh")
exec scripts/go-test.sh "tests as an ordinary user" user "${as[@]}" "${packages[@]}"
