#!/usr/bin/env bash
# qemu-quota.sh: the tests of hard disk quotas (internal/workspace, build tag
# quotakernel) on a kernel that has project quota, for a machine whose kernel has
# none. A virtual machine (qemu.sh) with an ext4 and an xfs disk runs them on both.
#
# Prints what the tests print, and exits non-zero unless both passed. Needs mkfs.ext4
# and mkfs.xfs besides.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin # mkfs
source scripts/qemu.sh
qemu_root
qemu_need mkfs.ext4 e2fsprogs mkfs.xfs xfsprogs

GOOS=linux GOARCH=amd64 CGO_ENABLED=0 go test -c -tags quotakernel -o "$root/bin/workspace.test" ./internal/workspace
mkdir "$root/lib" "$root/quota"
for module in fs/quota/quota_tree fs/quota/quota_v2 lib/libcrc32c fs/xfs/xfs; do
  cp "$(unpacked "$image" "lib/modules/*/kernel/$module.ko")" "$root/lib/"
done
truncate -s 64M "$dir/ext4"
mkfs.ext4 -q -O quota,project -E quotatype=prjquota "$dir/ext4"
truncate -s 512M "$dir/xfs"
mkfs.xfs -q "$dir/xfs"

cat >"$root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp REQUIRE_KERNEL=1 CARREL_TEST_QUOTA_DIR=/quota
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs -o mode=1777 tmp /tmp
mkdir /dev/shm && mount -t tmpfs shm /dev/shm
for module in quota_tree quota_v2 libcrc32c xfs; do insmod "/lib/$module.ko"; done
echo "kernel $(uname -r)"
failed=0
on() { # TYPE DISK
  echo "== $1"
  mount -t "$1" -o prjquota "$2" /quota &&
    /bin/workspace.test -test.v -test.timeout 5m -test.run 'Quota|Project|Refuses|Bounded' &&
    echo "ok    $1" || { failed=1; echo "FAIL  $1"; }
  umount /quota
}
on ext4 /dev/nvme0n1
on xfs /dev/nvme1n1
echo "qemu-quota: failed=$failed"
poweroff -f
INIT
qemu_boot 'qemu-quota: failed=0' \
  -drive "if=none,id=a,format=raw,file=$dir/ext4" -device nvme,drive=a,serial=a \
  -drive "if=none,id=b,format=raw,file=$dir/xfs" -device nvme,drive=b,serial=b
