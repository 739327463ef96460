#!/usr/bin/env bash
# oci.sh DIR BIN: runs crun, the runtime below container engines, once for each
# DIR/NAME.json (an OCI config.json), over a throw-away view of this machine's files
# with the programs of BIN in it and a user 990; what each prints is then in DIR/NAME.out.
# Needs root, and a cgroup v2 hierarchy to see.
set -euo pipefail

if [ "${3:-}" != inside ]; then
  exec timeout --kill-after=5s 120s unshare --mount --propagation private "$0" "$(realpath "$1")" "$(realpath "$2")" inside
fi
dir=$1 bin=$2

# crun knows no machine with v1 beside v2; it is to see v2 alone, and to change nothing there.
umount --recursive /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
space=$(mktemp -d)
trap 'umount --recursive --lazy "$space"; rmdir "$space"' EXIT
mount -t tmpfs -o mode=0755 tmpfs "$space"
mkdir -p "$space"/{upper,work,state,bundle/rootfs}
root=$space/bundle/rootfs
mount -t overlay -o "lowerdir=/,upperdir=$space/upper,workdir=$space/work" overlay "$root"
install -D --target-directory="$root/usr/lib/carrel" "$bin"/carrel "$bin"/carrel-worker
ln -sfn ../lib/carrel/carrel "$root/usr/bin/carrel"
install -d -o 990 -g 990 -m 0700 "$root/var/lib/carrel"

for config in "$dir"/*.json; do
  cp "$config" "$space/bundle/config.json"
  name=$(basename "$config" .json)
  crun --root "$space/state" --cgroup-manager=disabled run --bundle "$space/bundle" "carrel-$$-$name" \
    </dev/null >"$dir/$name.out" 2>&1 || echo "status $?" >>"$dir/$name.out"
done
