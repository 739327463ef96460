#!/usr/bin/env bash
# qemu-cgroup2.sh: what meets cgroup v2, on a kernel that has it whole, for a machine
# that has none. A virtual machine without a disk boots Debian's cloud kernel (emulated:
# no KVM is needed, and a run takes some minutes) with nothing but busybox, the test
# binaries and our two programs, and runs the tests of internal/cgroup four times:
#
#   root at the top of the hierarchy · root in a group of its own, as a service has it
#   an ordinary user with a delegated group · an ordinary user with none
#
# and then the daemon's tests of its limits as root, and a run that meets its limit as
# that user with a delegated group. (That kernel's Landlock is too old for strict; the daemon runs degraded.)
# Prints what the tests print, and exits non-zero unless all passed.
# Needs Debian's apt-get, dpkg-deb and cpio, and qemu-system-x86_64; as root what is
# missing is installed. Kernel and busybox are downloaded once, to bin/qemu.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
command -v qemu-system-x86_64 >/dev/null || missing+=(qemu-system-x86)
command -v cpio >/dev/null || missing+=(cpio)
if [ "${#missing[@]}" -gt 0 ]; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "qemu-cgroup2.sh: install: ${missing[*]} (Debian's names)" >&2
    exit 1
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
fi

cache=$PWD/bin/qemu
mkdir -p "$cache"
unpacked() { # PACKAGE FILE: where FILE, a pattern, of that Debian package is; fetched if it is not there
  local found
  found=$(compgen -G "$cache/$2" || true)
  if [ -z "$found" ]; then
    (
      cd "$cache"
      # As root apt fetches as a user of its own, which need not reach this tree.
      apt-get -q -o APT::Sandbox::User=root download "$1" >&2
      for deb in "${1}"_*.deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar -x --wildcards "./$2"
      done
      rm -f "${1}"_*.deb
    )
    found=$(compgen -G "$cache/$2")
  fi
  head -n 1 <<<"$found"
}
# The package without a version names the one of today.
image=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
[ -n "$image" ] || { echo 'qemu-cgroup2.sh: apt knows no linux-image-cloud-amd64' >&2; exit 1; }
kernel=$(unpacked "$image" 'boot/vmlinuz-*')
busybox=$(unpacked busybox-static 'bin/busybox')

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir/root"/{bin,dev,etc,lib,opt,proc,sys,tmp,usr/bin}
cp "$busybox" "$dir/root/bin/busybox"
export GOOS=linux GOARCH=amd64 CGO_ENABLED=0
go test -c -o "$dir/root/bin/cgroup.test" ./internal/cgroup
go test -c -o "$dir/root/bin/carrel.test" ./cmd/carrel
go build -trimpath -ldflags '-s -w' -o "$dir/root/opt/" ./cmd/carrel ./cmd/carrel-worker
echo 'root:x:0:0::/:/bin/sh
user:x:1000:1000::/tmp:/bin/sh' >"$dir/root/etc/passwd"
echo 'root:x:0:
user:x:1000:' >"$dir/root/etc/group"
cat >"$dir/root/init" <<'INIT'
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
chmod 0755 "$dir/root/init" "$dir/root/bin"/*
(cd "$dir/root" && find . | cpio --quiet -o -H newc | gzip -1) >"$dir/initramfs"

# The time limit is for a machine that hangs; a kernel that panics ends at once.
timeout --foreground 540 qemu-system-x86_64 -accel tcg -smp 2 -m 2048 -nodefaults -no-reboot -display none \
  -serial stdio -monitor none -kernel "$kernel" -initrd "$dir/initramfs" \
  -append 'console=ttyS0 quiet panic=-1' </dev/null | tr -d '\r' | tee "$dir/output"
grep -qx 'qemu-cgroup2: failed=0' "$dir/output"
