#!/usr/bin/env bash
# release-again.sh DIR [CACHE]: makes the release once more from a copy of the tree in
# another place, with a build cache of its own (CACHE: with that one), and compares it
# with DIR.
set -euo pipefail
cd "$(dirname "$0")/.."
first=$(realpath "$1")
again=$(mktemp -d)
trap 'rm -rf "$again"' EXIT
git -c safe.directory='*' ls-files -z --cached --others --exclude-standard | tar --create --null --files-from=- | tar --extract --directory="$again"
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -c safe.directory="*" log -1 --format=%ct)}
export SOURCE_DATE_EPOCH GOCACHE=${2:-$again/cache}
"$again/scripts/release.sh" "$again/dist"
diff "$first/SHA256SUMS" "$again/dist/SHA256SUMS"
echo "release-again.sh: $(wc -l <"$first/SHA256SUMS") files are the same to the byte"
