package deploy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const version = "v1.2.3-rc.1"

// script runs one of scripts/ with a release's variables.
func script(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "../scripts/"+name, args...)
	cmd.Env = append(os.Environ(), "VERSION="+version, "COMMIT=0123456789ab", "SOURCE_DATE_EPOCH=1700000000")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

// command runs a program of Debian's to its end.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func TestRelease(t *testing.T) {
	dist := t.TempDir()
	script(t, "release.sh", dist)
	pkg := filepath.Join(dist, "carrel_1.2.3~rc.1_amd64.deb")
	t.Run("sums are those of the files", func(t *testing.T) { checkSums(t, dist) })
	t.Run("the lists of parts name what is linked", func(t *testing.T) { checkParts(t, dist) })
	t.Run("the package has what belongs where, and whose", func(t *testing.T) { checkPackage(t, pkg) })
	t.Run("the package is installed, upgraded, removed and purged", func(t *testing.T) { live(t, pkg) })
	t.Run("made elsewhere it is the same to the byte", func(t *testing.T) {
		cache := strings.TrimSpace(command(t, "go", "env", "GOCACHE"))
		if out := script(t, "release-again.sh", dist, cache); !strings.Contains(out, "4 files are the same") {
			t.Error(out)
		}
	})
}

func checkSums(t *testing.T, dist string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dist, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	sums := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		sum, name, ok := strings.Cut(strings.TrimSpace(line), "  ")
		if !ok {
			t.Fatalf("%q", line)
		}
		sums[name] = sum
	}
	files, err := os.ReadDir(dist)
	if err != nil || len(files) != 5 {
		t.Errorf("there are %v, %v", files, err)
	}
	for _, f := range files {
		if f.Name() == "SHA256SUMS" {
			continue
		}
		content, err := os.ReadFile(filepath.Join(dist, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(content); sums[f.Name()] != hex.EncodeToString(sum[:]) {
			t.Errorf("%s: the sum is %s", f.Name(), sums[f.Name()])
		}
	}
}

func checkParts(t *testing.T, dist string) {
	t.Helper()
	for program, parts := range map[string]struct{ has, lacks string }{
		"carrel":        {has: "modernc.org/sqlite", lacks: "github.com/anthropics/anthropic-sdk-go"},
		"carrel-worker": {has: "github.com/anthropics/anthropic-sdk-go", lacks: "modernc.org/sqlite"},
	} {
		text, err := os.ReadFile(filepath.Join(dist, program+".cdx.json"))
		if err != nil {
			t.Fatal(err)
		}
		var bom struct {
			BomFormat  string
			Components []struct{ Name, Version string }
		}
		if err := json.Unmarshal(text, &bom); err != nil || bom.BomFormat != "CycloneDX" {
			t.Fatalf("%s: %v, %q", program, err, bom.BomFormat)
		}
		versions := make(map[string]string)
		for _, c := range bom.Components {
			versions[c.Name] = c.Version
		}
		if versions[parts.has] == "" || versions[parts.lacks] != "" {
			t.Errorf("%s: %s is %q, %s is %q", program, parts.has, versions[parts.has], parts.lacks, versions[parts.lacks])
		}
	}
}

func checkPackage(t *testing.T, pkg string) {
	t.Helper()
	held := make(map[string]string)
	for line := range strings.Lines(command(t, "dpkg-deb", "--contents", pkg)) {
		f := strings.Fields(line) // mode, owner, size, date, time, name
		if len(f) < 6 || f[1] != "root/root" || f[3]+" "+f[4] != "2023-11-14 22:13" {
			t.Errorf("not root's, or of another time: %s", line)
			continue
		}
		if strings.HasPrefix(f[0], "d") && f[0] != "drwxr-xr-x" {
			t.Errorf("%s", line)
		}
		held[strings.TrimPrefix(strings.Join(f[5:], " "), ".")] = f[0]
	}
	for name, mode := range map[string]string{
		"/usr/bin/carrel -> ../lib/carrel/carrel":          "l",
		"/usr/lib/carrel/carrel":                           "-rwxr-xr-x",
		"/usr/lib/carrel/carrel-worker":                    "-rwxr-xr-x",
		"/usr/lib/carrel/carrel-attacker":                  "-rwxr-xr-x",
		"/usr/lib/systemd/system/carrel.service":           "-rw-r--r--",
		"/usr/lib/systemd/system/carrel.socket":            "-rw-r--r--",
		"/usr/share/man/man1/carrel.1.gz":                  "-rw-r--r--",
		"/usr/share/bash-completion/completions/carrel":    "-rw-r--r--",
		"/usr/share/zsh/vendor-completions/_carrel":        "-rw-r--r--",
		"/usr/share/fish/vendor_completions.d/carrel.fish": "-rw-r--r--",
		"/usr/share/doc/carrel/copyright":                  "-rw-r--r--",
		"/etc/apparmor.d/carrel":                           "-rw-r--r--",
		"/etc/carrel/carrel.env":                           "-rw-------",
	} {
		if got, ok := held[name]; !ok || !strings.HasPrefix(got, mode) {
			t.Errorf("%s: %q, want %s", name, got, mode)
		}
	}
	control := command(t, "dpkg-deb", "--field", pkg)
	for _, line := range []string{"Package: carrel", "Version: 1.2.3~rc.1", "Architecture: amd64", "Depends: adduser"} {
		if !strings.Contains(control, line+"\n") {
			t.Errorf("no %q in\n%s", line, control)
		}
	}
	conffiles := command(t, "dpkg-deb", "--info", pkg, "conffiles")
	if !strings.Contains(conffiles, "/etc/carrel/carrel.env\n") {
		t.Errorf("an upgrade would overwrite the configuration: %q", conffiles)
	}
}

// live is the package's life on a machine with systemd: what dpkg does to a daemon that
// runs, and what is left of users' files.
func live(t *testing.T, pkg string) {
	t.Helper()
	tried := boot(t, pkg, `
exec 2>&1
echo "installed $(systemctl is-enabled carrel.socket carrel.service | tr '\n' ' ')$(id -un carrel) $(getent passwd carrel | cut -d: -f7)"
echo "version $(carrel version | cut -d' ' -f2)"
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
man -w carrel >/dev/null 2>&1 || [ -e /usr/share/man/man1/carrel.1.gz ] && echo "manual"
echo '# of the operator' >>/etc/carrel/carrel.env
systemctl enable --now carrel.socket carrel.service
carrel doctor --json | python3 -c 'import json, sys
for f in json.load(sys.stdin)["installation"]: print("doctor", f["name"], f["state"])'
echo "ran $(run ana 'echo mine >mine; cat mine')"

old=$(show MainPID)
dpkg --install /out/carrel.deb
replaced() { [ "$(show ActiveState)" = active ] && [ "$(show MainPID)" != "$old" ]; }
until_true replaced && echo "upgraded $(run ana 'cat mine')"
grep -q 'of the operator' /etc/carrel/carrel.env && echo "configuration kept"

dpkg --remove carrel
echo "removed $(show ActiveState) $(ls /usr/lib/carrel /usr/bin/carrel 2>/dev/null | wc -l)"
find /var/lib/carrel -name mine | grep -q . && [ -e /etc/carrel/carrel.env ] && echo "files kept"
dpkg --purge carrel
echo "purged $(ls -d /var/lib/carrel /etc/carrel /etc/apparmor.d/carrel 2>/dev/null | wc -l) $(getent passwd carrel | wc -l)"
`)
	want(t, tried, "installed disabled disabled carrel /usr/sbin/nologin", "version "+version, "manual",
		"ran mine", "upgraded mine", "configuration kept", "removed inactive 0", "files kept", "purged 0 0")
	for _, part := range []string{"unit", "socket", "user", "hardening", "delegation", "watchdog", "stop", "tasks", "open-files", "env-file", "base-dir"} {
		if !strings.Contains(tried, "doctor "+part+" ok\n") {
			t.Errorf("the doctor is not content with %s", part)
		}
	}
}
