#!/usr/bin/env bash
# release.sh DIR: what is released, for linux/amd64, into DIR: the programs with units,
# man page and completion as .tar.gz and as .deb, a list of what each program is made of
# (CycloneDX), and SHA256SUMS. From the same commit and Go version it is the same to the
# byte, wherever it is made; VERSION and COMMIT come from make.
#
# There is no arm64: the seccomp filters are assembled for amd64's system calls.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p "$1"
out=$(realpath "$1")
: "${VERSION:?}" "${COMMIT:?}"
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -c safe.directory="*" log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH GOOS=linux GOARCH=amd64 CGO_ENABLED=0 GOFLAGS=-buildvcs=false
export TZ=UTC LC_ALL=C
umask 022

tools=$PWD/bin/tools
(cd tools/release && go build -o "$tools/" ./deb github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
go build -trimpath -ldflags "-s -w -buildid= -X main.version=$VERSION -X main.commit=$COMMIT" -o "$work/bin/" \
  ./cmd/carrel ./cmd/carrel-worker
go build -trimpath -ldflags '-s -w -buildid=' -o "$work/bin/carrel-attacker" ./internal/jail/attack/attacker
scripts/install.sh "$work/bin" "$work/root" /usr
find "$work/root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

# Debian's order of versions: ~ before everything, no - in it, a digit first.
number=${VERSION#v}
case $number in [0-9]*) ;; *) number=0~$number.$COMMIT ;; esac
DEB_VERSION=$(tr -c 'A-Za-z0-9.+~\n' '~' <<<"$number")
export DEB_VERSION DEB_ROOT=$work/root
"$tools/deb" deploy/deb/nfpm.yaml "$out/carrel_${DEB_VERSION}_amd64.deb"

name=carrel-$DEB_VERSION-linux-amd64
tar --create --directory="$work/root" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner \
  --transform="s,^\.,$name," . | gzip --no-name --best >"$out/$name.tar.gz"
for program in carrel carrel-worker; do
  "$tools/cyclonedx-gomod" bin -json -noserial -notimestamp -version "$VERSION" -output "$out/$program.cdx.json" "$work/bin/$program" 2>"$work/sbom.log" ||
    { cat "$work/sbom.log" >&2; exit 1; }
done
cd "$out"
sha256sum -- *.deb *.tar.gz *.cdx.json >SHA256SUMS
