#!/usr/bin/env bash
# as-user.sh BINARY ARG…: for `go test -exec`, called by root: runs a test binary as
# the system user carrel-test, which is made if it is not there.
#
# The tree and Go's build directory may be closed to that user. So the binary, the
# package's testdata and the worker are copied to a directory it can read; the test
# starts there, in a copy of its package directory that holds nothing else. Its
# environment is built from nothing:
#
#   PATH LANG GORACE REQUIRE_KERNEL   as they are
#   HOME TMPDIR                       below that directory, the user's own
#   SANDBOX_WORKER_PATH               the copied worker, if it was set; carrel beside it
set -euo pipefail
user=carrel-test
binary=$1
shift

# Packages are tested side by side: one at a time makes the user.
exec 9<"$0"
flock 9
id -u "$user" >/dev/null 2>&1 ||
  useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$user"
exec 9<&-

# A short path: the name of a Unix socket has room for 107 bytes.
dir=$(mktemp -d /tmp/carrel-XXXXXX)
child=
# What ends this script must not leave the directory or the test behind.
trap 'rm -rf --one-file-system "$dir"' EXIT
for signal in HUP INT QUIT TERM; do
  # shellcheck disable=SC2064 # the signal's name is meant to stand in the trap
  trap "[ -z \"\$child\" ] || kill -$signal \"\$child\" 2>/dev/null || true" "$signal"
done

mkdir "$dir/bin" "$dir/package" "$dir/home" "$dir/tmp"
cp "$binary" "$dir/bin/test"
# Something of its own stands there: a test that lists its directory finds it.
touch "$dir/package/package_directory"
[ ! -d testdata ] || cp -R testdata "$dir/package/"
environment=(PATH="$PATH" HOME="$dir/home" TMPDIR="$dir/tmp")
if [ -n "${SANDBOX_WORKER_PATH:-}" ]; then
  cp "$SANDBOX_WORKER_PATH" "$dir/bin/carrel-worker"
  environment+=(SANDBOX_WORKER_PATH="$dir/bin/carrel-worker")
  # Beside it stand the host half, for the end-to-end tests, and the tests' own.
  for program in carrel carrel-attacker carrel-tooltest carrel-lesshost; do
    [ ! -e "${SANDBOX_WORKER_PATH%/*}/$program" ] || cp "${SANDBOX_WORKER_PATH%/*}/$program" "$dir/bin/"
  done
fi
# The package that drives AG-UI's client finds it beside the programs as well.
if [ -d testdata/httpagent ] && [ -d "${SANDBOX_WORKER_PATH%/*}/httpagent" ]; then
  cp -R "${SANDBOX_WORKER_PATH%/*}/httpagent" "$dir/bin/"
fi
# So does the one that runs the examples, with as much of the tree as they take.
if [ -e examples_test.go ]; then
  mkdir "$dir/bin/tree"
  (cd ../.. && cp -R README.md go.mod go.sum client protocol examples "$dir/bin/tree/")
  [ ! -d "${SANDBOX_WORKER_PATH%/*}/examples" ] || cp -R "${SANDBOX_WORKER_PATH%/*}/examples" "$dir/bin/"
fi
[ ! -e "$dir/bin/carrel-attacker" ] || environment+=(CARREL_TEST_ATTACKER="$dir/bin/carrel-attacker")
for name in LANG GORACE REQUIRE_KERNEL CARREL_TEST_UPLOAD_MIB; do
  [ -z "${!name+set}" ] || environment+=("$name=${!name}")
done
chmod 0755 "$dir" "$dir"/bin "$dir"/bin/*
chown -R "$user:$user" "$dir/package" "$dir/home" "$dir/tmp"

cd "$dir/package"
# A shell starts what it puts in the background with INT and QUIT ignored; the tests
# and what they start would inherit that. setpriv asks for the death signal after it
# has changed the user, which would clear it.
env -i --default-signal=INT,QUIT "${environment[@]}" setpriv --reuid "$user" --regid "$user" --clear-groups --inh-caps=-all \
  --pdeathsig KILL "$dir/bin/test" "$@" <&0 &
child=$!

# wait comes back early when a trap ran; the child's own end is what counts.
status=0
while :; do
  wait "$child" && status=0 || status=$?
  kill -0 "$child" 2>/dev/null || break
done
exit "$status"
