#!/usr/bin/env bash
# install.sh BIN ROOT PREFIX: puts the programs of BIN, units, man page, completion and
# an AppArmor profile below ROOT, where a system has them; PREFIX is /usr or /usr/local.
# The programs lie together in PREFIX/lib/carrel, so that carrel finds carrel-worker.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$1 root=$2 prefix=$3

put() { # MODE FILE PATH
  install -D --mode="$1" "$2" "$root$3"
}
for program in carrel carrel-worker carrel-attacker; do
  put 0755 "$bin/$program" "$prefix/lib/carrel/$program"
done
install -d "$root$prefix/bin"
ln -sfn ../lib/carrel/carrel "$root$prefix/bin/carrel"

text=$(mktemp)
trap 'rm -f "$text"' EXIT
"$bin/carrel" man | gzip --no-name --best >"$text"
put 0644 "$text" "$prefix/share/man/man1/carrel.1.gz"
for target in bash:bash-completion/completions/carrel zsh:zsh/vendor-completions/_carrel fish:fish/vendor_completions.d/carrel.fish; do
  "$bin/carrel" completion "${target%%:*}" >"$text"
  put 0644 "$text" "$prefix/share/${target#*:}"
done
for page in README.md CHANGELOG.md docs/install.md docs/security.md docs/permissions.md; do
  put 0644 "$page" "$prefix/share/doc/carrel/${page##*/}"
done
put 0644 LICENSE "$prefix/share/doc/carrel/copyright"

sed "s,/usr/bin/carrel,$prefix/bin/carrel," deploy/systemd/carrel.service >"$text"
put 0644 "$text" "$prefix/lib/systemd/system/carrel.service"
put 0644 deploy/systemd/carrel.socket "$prefix/lib/systemd/system/carrel.socket"
put 0644 deploy/apparmor/carrel /etc/apparmor.d/carrel
# What an operator has written stays.
[ -e "$root/etc/carrel/carrel.env" ] || put 0600 deploy/carrel.env /etc/carrel/carrel.env
