#!/usr/bin/env bash
# qemu-cgroup2.sh: what meets cgroup v2, on a kernel that has it whole, for a machine
# that has none. A virtual machine (qemu.sh) with the test binaries and our two programs
# runs, in some minutes, the tests of internal/cgroup four times:
#
#   root at the top of the hierarchy · root in a group of its own, as a service has it
#   an ordinary user with a delegated group · an ordinary user with none
#
# and then the daemon's tests of its limits as root, and a run that meets its limit as
# that user with a delegated group. (That kernel's Landlock is too old for strict; the daemon runs degraded.)
# Prints what the tests print, and exits non-zero unless all passed.
set -euo pipefail
cd "$(dirname "$0")/.."

source scripts/qemu.sh
qemu_root

mkdir -p "$root"/{lib,opt,usr/bin}
export GOOS=linux GOARCH=amd64 CGO_ENABLED=0
go test -c -o "$root/bin/cgroup.test" ./internal/cgroup
go test -c -o "$root/bin/carrel.test" ./cmd/carrel
go build -trimpath -ldflags '-s -w' -o "$root/opt/" ./cmd/carrel ./cmd/carrel-worker
echo 'root:x:0:0::/:/bin/sh
user:x:1000:1000::/tmp:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:
user:x:1000:' >"$root/etc/group"
cat >"$root/init" <<'INIT'
#!/bin/busybox sh
# The first root is one that nothing can pivot away from, and a jail has to.
if [ ! -e /moved ]; then
  /bin/busybox mkdir /new
  /bin/busybox mount -t tmpfs -o size=80% new /new
  /bin/busybox cp -a /bin /dev /etc /init /lib /opt /proc /sys /tmp /usr /new/
  : >/new/moved
  exec /bin/busybox switch_root /new /init
fi
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp REQUIRE_KERNEL=1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs -o mode=1777 tmp /tmp
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
echo "kernel $(uname -r); controllers: $(cat /sys/fs/cgroup/cgroup.controllers)"
failed=0
try() { # NAME COMMAND…
  name=$1
  shift
  echo "== $name"
  "$@" && echo "ok    $name" || { failed=1; echo "FAIL  $name"; }
}
in_group() { # GROUP COMMAND…: as the only process of that group
  sh -c 'echo $$ >"/sys/fs/cgroup/$0/cgroup.procs" && exec "$@"' "$@"
}
test="/bin/cgroup.test -test.v -test.timeout 5m"

try 'root at the top' $test

echo '+memory +pids +cpu' >/sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/service /sys/fs/cgroup/delegated /sys/fs/cgroup/closed
try 'root in a group of its own' in_group service $test

cd /sys/fs/cgroup/delegated
chown user:user . cgroup.procs cgroup.threads cgroup.subtree_control
cd /tmp
try 'an ordinary user with a delegated group' in_group delegated su user -c "exec $test"
try 'an ordinary user with none' in_group closed su user -c "exec $test"

ip link set lo up
export SANDBOX_WORKER_PATH=/opt/carrel-worker SANDBOX_ISOLATION=degraded
try 'the limits of a daemon of root' in_group service /bin/carrel.test -test.v -test.timeout 5m -test.run 'Memory|Groups'
# Here the daemon has to be alone in its group, as a service is.
meets_its_limit() {
  sh -c '
    echo $$ >/sys/fs/cgroup/delegated/cgroup.procs
    exec su user -c "exec env SANDBOX_MEMORY_LIMIT=64MiB SANDBOX_BASE_DIR=/tmp/data /opt/carrel run \"tail /dev/zero\"" 2>/tmp/told
  '
  cat /tmp/told
  grep -q '^carrel: out_of_memory: ' /tmp/told
}
try 'the limits of an ordinary user with a delegated group' meets_its_limit

left=$(find /sys/fs/cgroup -name 'carrel-*')
[ -z "$left" ] || { failed=1; echo "FAIL  left behind: $left"; }
echo "qemu-cgroup2: failed=$failed"
poweroff -f
INIT
qemu_boot 'qemu-cgroup2: failed=0'
