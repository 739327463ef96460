#!/usr/bin/env bash
# systemd.sh DIR: this machine's systemd, started as process 1 of namespaces of its own
# over a throw-away view of this machine's files, for tests of the units. Needs root, and
# a cgroup v2 hierarchy to make a group in.
#
#   DIR/prepare   bash, sourced before the start; $R is the root that systemd will have
#   DIR/try       bash, run by a service of that systemd; its end is the end of all of it
#   DIR           is /out in there
#
# Leaves DIR/boot.log (systemd's own words) and DIR/try.log. The machine is not touched:
# nothing but process 1, the script and what it starts runs, no unit of the
# distribution is pulled in, and what is written goes with it; the one setting of the
# kernel that systemd raises at its start, fs.file-max, is put back.
set -euo pipefail

if [ "${3:-}" != inside ]; then
  dir=$(realpath "$1")
  space=$(mktemp -d)
  above=$(findmnt --noheadings --first-only --types cgroup2 --output TARGET)
  group=$above/carrel-systemd.$$
  mkdir "$group"
  read -r file_max </proc/sys/fs/file-max
  remove() { # the groups that systemd made, deepest first; dying processes need a moment
    echo "$file_max" >/proc/sys/fs/file-max
    rmdir "$space"
    for _ in $(seq 50); do
      find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
      [ -d "$group" ] || return 0
      sleep 0.1
    done
    echo "systemd.sh: $group stays" >&2
  }
  trap remove EXIT
  (
    echo "$BASHPID" >"$group/cgroup.procs"
    exec timeout --kill-after=5s "${SYSTEMD_TIME:-180s}" unshare --mount --pid --fork --kill-child --cgroup \
      --ipc --uts --net --propagation private "$0" "$dir" "$space" inside >"$dir/boot.log" 2>&1
  )
  exit 0
fi

dir=$1 space=$2
mount -t tmpfs -o mode=0755 tmpfs "$space"
mkdir "$space"/{upper,work,root}
mount -t overlay -o "lowerdir=/,upperdir=$space/upper,workdir=$space/work" overlay "$space/root"
R=$space/root
mount -t proc proc "$R/proc"
mount -t sysfs -o ro sysfs "$R/sys"
mount -t cgroup2 -o nsdelegate cgroup2 "$R/sys/fs/cgroup"
for at in run dev; do mount -t tmpfs -o mode=0755 tmpfs "$R/$at"; done
mount -t tmpfs -o mode=1777 tmpfs "$R/tmp"
for device in null zero full random urandom tty; do
  : >"$R/dev/$device"
  mount --bind "/dev/$device" "$R/dev/$device"
done
mkdir "$R"/dev/{pts,shm}
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$R/dev/pts"
ln -s pts/ptmx "$R/dev/ptmx"
: >"$R/dev/console"
mkdir -p "$R/out"
mount --bind "$dir" "$R/out"

# Nothing of the distribution's is started: it would be at home on this machine.
units=$R/etc/systemd/system
rm -rf "$R"/{usr/,}lib/systemd/system/*.wants "$units"/*.wants
for unit in systemd-journald.service systemd-journald.socket systemd-udevd.service tmp.mount; do
  ln -sf /dev/null "$units/$unit"
done
cat >"$units/try.target" <<'UNIT'
[Unit]
DefaultDependencies=no
Wants=try.service
UNIT
cat >"$units/try.service" <<'UNIT'
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
TimeoutStartSec=infinity
ExecStart=/bin/bash /out/try
ExecStopPost=/bin/systemctl exit
StandardOutput=append:/out/try.log
StandardError=append:/out/try.log
UNIT
source "$dir/prepare"

cd "$R"
mkdir -p mnt/old
pivot_root . mnt/old
umount -l /mnt/old
exec env -i container=carrel PATH=/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --system --unit=try.target --log-target=console --log-level=info --show-status=no
