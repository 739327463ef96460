# qemu.sh: what the scripts that test on another kernel share; sourced, not run. A
# virtual machine boots Debian's cloud kernel (emulated: no KVM is needed) with
# nothing but busybox, what the script puts into $root, and its $root/init.
#
#   qemu_need COMMAND PACKAGE…   installs what is missing (as root, with apt-get)
#   unpacked PACKAGE FILE        where FILE, a pattern, of that Debian package is
#   qemu_root                    makes $root, with busybox; sets $image, $kernel
#   qemu_boot DONE ARG…          boots it with ARG… for qemu; prints what it prints;
#                                fails unless one line of that is DONE
#
# Packages are downloaded once, to bin/qemu.
# shellcheck shell=bash
cache=$PWD/bin/qemu
mkdir -p "$cache"

qemu_need() {
  local missing=()
  while [ $# -gt 0 ]; do
    command -v "$1" >/dev/null || missing+=("$2")
    shift 2
  done
  [ "${#missing[@]}" -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "$0: install: ${missing[*]} (Debian's names)" >&2
    exit 1
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
}

unpacked() {
  local found
  found=$(compgen -G "$cache/$2" || true)
  if [ -z "$found" ]; then
    (
      cd "$cache"
      # As root apt fetches as a user of its own, which need not reach this tree.
      compgen -G "${1}_*.deb" >/dev/null || apt-get -q -o APT::Sandbox::User=root download "$1" >&2
      for deb in "${1}"_*.deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar -x --wildcards "./$2"
      done
    )
    found=$(compgen -G "$cache/$2")
  fi
  head -n 1 <<<"$found"
}

qemu_root() {
  qemu_need qemu-system-x86_64 qemu-system-x86 cpio cpio
  # The package without a version names the one of today.
  image=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
  [ -n "$image" ] || { echo "$0: apt knows no linux-image-cloud-amd64" >&2; exit 1; }
  kernel=$(unpacked "$image" 'boot/vmlinuz-*')
  dir=$(mktemp -d)
  trap 'rm -rf "$dir"' EXIT
  root=$dir/root
  mkdir -p "$root"/{bin,dev,etc,proc,sys,tmp}
  cp "$(unpacked busybox-static 'bin/busybox')" "$root/bin/busybox"
}

qemu_boot() {
  local done=$1
  shift
  chmod 0755 "$root/init" "$root/bin"/*
  (cd "$root" && find . | cpio --quiet -o -H newc | gzip -1) >"$dir/initramfs"
  # The time limit is for a machine that hangs; a kernel that panics ends at once.
  timeout --foreground 540 qemu-system-x86_64 -accel tcg -smp 2 -m 2048 -nodefaults -no-reboot -display none \
    -serial stdio -monitor none -kernel "$kernel" -initrd "$dir/initramfs" "$@" \
    -append 'console=ttyS0 quiet panic=-1' </dev/null | tr -d '\r' | tee "$dir/output"
  grep -qx "$done" "$dir/output"
}
