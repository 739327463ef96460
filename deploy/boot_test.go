package deploy

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"carrel/internal/ordeal"
)

// boot runs a script as a service under this machine's systemd with our units installed
// (scripts/systemd.sh), and gives what it printed.
//
// With a package, that is installed, by dpkg, and its units are the ones.
func boot(t *testing.T, pkg, script string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: to be process 1's parent")
	}
	if _, err := os.Stat("/lib/systemd/systemd"); err != nil {
		t.Fatalf("%v (scripts/needs.sh installs it)", err)
	}
	dir := t.TempDir()
	units, err := filepath.Abs("systemd")
	if err != nil {
		t.Fatal(err)
	}
	prepare := fmt.Sprintf("cp %s \"$dir/carrel.deb\"\nchroot \"$R\" dpkg --install /out/carrel.deb >\"$dir/dpkg.log\" 2>&1\n", pkg)
	if pkg == "" {
		prepare = fmt.Sprintf(`
install -D --target-directory="$R/usr/lib/carrel" %s %s
ln -s ../lib/carrel/carrel "$R/usr/bin/carrel"
id carrel >/dev/null 2>&1 || chroot "$R" useradd --system --home-dir /var/lib/carrel --shell /usr/sbin/nologin carrel
cp %s/carrel.* "$units/"
`, ordeal.Program(t, "carrel"), ordeal.Program(t, "carrel-worker"), units)
	}
	prepare += `
mkdir "$units/carrel.service.d"
# There is no journal. Each start attacks a throw-away sandbox first.
printf '[Service]\nEnvironment=SANDBOX_SELF_TEST=quick\nStandardOutput=append:/out/carrel.log\nStandardError=append:/out/carrel.log\n' >"$units/carrel.service.d/log.conf"
`
	for name, text := range map[string]string{"prepare": prepare, "try": functions + script, "install.md": page(t)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "../scripts/systemd.sh", dir)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	out, err := cmd.CombinedOutput()
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err.Error()
		}
		return string(text)
	}
	log, tried := read("boot.log"), read("try.log")
	for line := range strings.Lines(log) {
		// What systemd finds wrong with a unit it says when it reads it, and goes on.
		if strings.Contains(line, "/carrel.") {
			t.Errorf("systemd says: %s", line)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("it tried:\n%s\nsystemd said:\n%s\ncarrel said:\n%s", tried, log, read("carrel.log"))
		}
	})
	if err != nil || len(out) > 0 {
		t.Fatalf("%v: %s", err, out)
	}
	return tried
}

// functions are for the scripts. Each line that a test looks at begins with a word of
// its own, and ends in what was found.
const functions = `
api() { # METHOD PATH [BODY]
  curl -sS --max-time 60 -X "$1" "http://127.0.0.1:8642$2" -H 'Content-Type: application/json' ${3:+-d "$3"}
}
run() { # USER SCRIPT: what it printed
  api POST /v1/execute "{\"user_id\": \"$1\", \"message\": \"$2\"}" | python3 -c 'import json, sys; print(json.load(sys.stdin)["content"])'
}
show() { systemctl show --value -p "$1" carrel.service; }
until_true() { for _ in $(seq 600); do "$@" && return; sleep 0.1; done; echo "never: $*"; return 1; }
`

func want(t *testing.T, tried string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains("\n"+tried, "\n"+line+"\n") {
			t.Errorf("there is no line %q", line)
		}
	}
}

// TestUnitServesReloadsAndIsReplacedUnderSystemd is a service's life: a strict start, a
// run, a reload, a restart that a run outlasts while a connection waits, a daemon that
// hangs, an end.
func TestUnitServesReloadsAndIsReplacedUnderSystemd(t *testing.T) {
	tried := boot(t, "", `
systemctl start carrel.socket carrel.service
echo "started $(show ActiveState) as $(stat -c %U:%a /var/lib/carrel) $(stat -c %U "/proc/$(show MainPID)")"
echo "isolation $(api GET /v1/system | python3 -c 'import json, sys; print(json.load(sys.stdin)["isolation"]["state"])')"
echo "ran $(run ana 'id -un')"
systemctl reload carrel.service
echo "reloaded $(show ActiveState)"

run ana 'echo begun; until [ -e enough ]; do sleep 0.05; done; echo ended' >/out/long &
going() { api GET /v1/runs?status=running | grep -q run_; }
until_true going
old=$(show MainPID)
systemctl --no-block restart carrel.service
stopping() { [ "$(show ActiveState)" = deactivating ]; }
until_true stopping
run bob 'echo queued' >/out/queued &
# The daemon drains: only its own files let the run end.
find /var/lib/carrel/users -type d -name workspace -exec touch {}/enough \;
wait
replaced() { [ "$(show ActiveState)" = active ] && [ "$(show MainPID)" != "$old" ]; }
until_true replaced
echo "outlasted $(tr '\n' ' ' </out/long)"
echo "waited $(cat /out/queued)"

mkdir -p /run/systemd/system/carrel.service.d
printf '[Service]\nWatchdogSec=5s\nTimeoutAbortSec=1s\nRestartSec=0\n' >/run/systemd/system/carrel.service.d/watchdog.conf
systemctl daemon-reload
systemctl restart carrel.service
old=$(show MainPID)
first=$(show WatchdogTimestampMonotonic)
fed() { [ "$(show WatchdogTimestampMonotonic)" != "$first" ]; }
until_true fed && echo "fed"
kill -STOP "$old"
until_true replaced
[ "$(show NRestarts)" = 0 ] || echo "hung, and replaced"
echo "after $(run ana 'echo well')"
systemctl stop carrel.socket carrel.service
echo "ended $(show Result)"

# As docs/install.md has it for root.
sed -n '/^User=root/,/^ReadWritePaths/p' /out/install.md | sed '1i [Service]' >/run/systemd/system/carrel.service.d/root.conf
install -d -m 0711 /var/lib/carrel-root
systemctl daemon-reload
systemctl start carrel.service
echo "as $(stat -c %U "/proc/$(show MainPID)") $(api GET /v1/system | python3 -c 'import json, sys
r = json.load(sys.stdin)["isolation"]
print(r["state"], r["root"])') $(run ana 'id -un')"
systemctl stop carrel.service
`)
	want(t, tried, "started active as carrel:700 carrel", "isolation strict", "ran agent", "reloaded active",
		"outlasted begun ended  ", "waited queued", "fed", "hung, and replaced", "after well", "ended success", "as root strict True agent")
}

// TestSettingsThatAreSaidToBreakSandboxesDo holds the table, and the comment in the
// unit, against systemd and the kernel.
func TestSettingsThatAreSaidToBreakSandboxesDo(t *testing.T) {
	var script strings.Builder
	script.WriteString(`
more=/run/systemd/system/carrel.service.d/more.conf
mkdir -p "${more%/*}"
with() { # NUMBER SETTING
  printf '[Service]\nRestart=no\nEnvironment=SANDBOX_ISOLATION=degraded SANDBOX_SELF_TEST=off\n%s\n' "$2" >"$more"
  systemctl daemon-reload
  : >/out/carrel.log
  if systemctl start carrel.service 2>/dev/null; then
    api GET /v1/system | python3 -c 'import json, sys
for l in json.load(sys.stdin)["isolation"]["layers"]: print("layer", sys.argv[1], l["name"], l["state"], l.get("detail", ""))' "$1"
    systemctl stop carrel.service
  else
    sed "s/^/refused $1 /" /out/carrel.log
    systemctl reset-failed carrel.service
  fi
}
with control ''
`)
	for i, b := range breaking {
		fmt.Fprintf(&script, "with %d '%s=%s'\n", i, b.key, b.value)
	}
	tried := boot(t, "", script.String())
	for i, b := range breaking {
		begins := fmt.Sprintf("refused %d ", i)
		if b.layer != "" {
			begins = fmt.Sprintf("layer %d %s ", i, b.layer)
		}
		at := strings.Index(tried, begins)
		if at < 0 {
			t.Errorf("%s=%s: there is no %q", b.key, b.value, begins)
			continue
		}
		if line, _, _ := strings.Cut(tried[at:], "\n"); strings.HasPrefix(line, begins+"ok") || !strings.Contains(line, b.says) {
			t.Errorf("%s=%s: %s; it should say %q", b.key, b.value, line, b.says)
		}
	}
	for _, layer := range []string{"uts-namespace", "hidepid", "landlock", "seccomp"} {
		if !strings.Contains(tried, "layer control "+layer+" ok") {
			t.Errorf("without any of them %s does not hold", layer)
		}
	}
	if strings.Contains(tried, "layer control cgroup degraded v2: /") {
		t.Error("without any of them no group can be made")
	}
}
