package deploy

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"carrel/internal/installation"
)

// setting is a line of a unit: KEY=VALUE.
type setting struct{ key, value string }

// settings reads a unit, without comments and section headers.
func settings(t *testing.T, path string) []setting {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []setting
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.ContainsAny(line[:1], "#;[") {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			t.Fatalf("%s: %q is no setting", path, line)
		}
		all = append(all, setting{key, value})
	}
	return all
}

func page(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestUnitHasWhatTheDaemonRestsOn(t *testing.T) {
	have := settings(t, "systemd/carrel.service")
	for _, c := range []struct {
		setting

		why string
	}{
		{setting{"Type", "notify"}, "it is ready when it says so"},
		{setting{"NotifyAccess", "main"}, "no sandbox speaks for the daemon"},
		{setting{"WatchdogSec", "60s"}, "a daemon that hangs is replaced"},
		{setting{"Restart", "on-failure"}, "a daemon that hangs is replaced"},
		{setting{"KillMode", "mixed"}, "SIGTERM to sandboxes would end the runs that are to drain"},
		{setting{"User", "carrel"}, "no root, and users' files keep their owner"},
		{setting{"StateDirectory", "carrel"}, "the base directory is made, and its owner's"},
		{setting{"StateDirectoryMode", "0700"}, "users' files are the daemon's business alone"},
		{setting{"Delegate", "cpu memory pids"}, "limits in sum take a group of its own, with the pool's controllers"},
		{setting{"OOMPolicy", "continue"}, "one sandbox without memory does not end all"},
		{setting{"NoNewPrivileges", "yes"}, "hardening"},
		{setting{"CapabilityBoundingSet", ""}, "hardening"},
		{setting{"ProtectSystem", "strict"}, "hardening"},
		{setting{"SystemCallErrorNumber", "EPERM"}, "a program in a sandbox is told no, and not killed"},
	} {
		if !slices.Contains(have, c.setting) {
			t.Errorf("the unit lacks %s=%s: %s", c.key, c.value, c.why)
		}
	}
	sockets := settings(t, "systemd/carrel.socket")
	if !slices.Contains(sockets, setting{"ListenStream", "127.0.0.1:8642"}) {
		t.Errorf("the socket is not where CARREL_LISTEN is by default: %v", sockets)
	}
}

// breaking are settings that a sandbox does not survive, as boot_test.go tries.
var breaking = []struct { //nolint:gochecknoglobals // a table of two tests
	setting

	layer string // not ok with it; "" where the daemon does not start, degraded or not
	says  string // what is then said
}{
	{setting{"RestrictNamespaces", "yes"}, "", "user-namespace: clone: operation not permitted"},
	{setting{"ProtectHostname", "yes"}, "uts-namespace", "missing operation not permitted"},
	{setting{"RestrictSUIDSGID", "yes"}, "", "function not implemented"},
	{setting{"ProtectControlGroups", "yes"}, "cgroup", "is mounted read-only"},
	{setting{"SystemCallFilter", "~@mount"}, "", "mount-namespace"},
	{setting{"DynamicUser", "yes"}, "", "name the directory itself"},
}

func TestUnitHasNoneOfTheSettingsThatBreakSandboxes(t *testing.T) {
	text := page(t)
	var never, tried []string
	for _, b := range installation.BreakingSettings() {
		if b.Key != "SystemCallFilter" { // the unit has one, and the doctor reads it
			never = append(never, b.Key)
		}
	}
	for _, b := range breaking {
		tried = append(tried, b.key)
		if b.key != "SystemCallFilter" && !slices.Contains(never, b.key) {
			t.Errorf("the doctor does not know that %s= breaks sandboxes", b.key)
		}
	}
	if len(tried) < 5 {
		t.Errorf("only %q are tried", tried)
	}
	for _, have := range settings(t, "systemd/carrel.service") {
		if slices.Contains(never, have.key) {
			t.Errorf("the unit has %s=%s", have.key, have.value)
		}
	}
	for _, key := range never {
		if !strings.Contains(text, "`"+key+"=") {
			t.Errorf("docs/install.md does not say what %s= breaks", key)
		}
	}
}

var (
	scorePattern  = regexp.MustCompile(`exposure level for carrel\.service: ([0-9.]+)`)
	toldPattern   = regexp.MustCompile(`systemd ([0-9]+): exposure ([0-9.]+)`)
	systemdNumber = regexp.MustCompile(`^systemd ([0-9]+)`)
)

// TestSecurityScoreIsTheOneThatTheDocsName asks systemd-analyze, which weighs each
// setting: 0 is best, 10 worst. Other versions weigh otherwise.
func TestSecurityScoreIsTheOneThatTheDocsName(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("there is no systemd-analyze (scripts/needs.sh installs it as root)")
	}
	out, err := exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--threshold=40", "--no-pager", "systemd/carrel.service").CombinedOutput()
	if err != nil {
		t.Fatalf("exposure is above 4.0: %v\n%s", err, out)
	}
	score := scorePattern.FindSubmatch(out)
	version, err := exec.CommandContext(t.Context(), analyze, "--version").Output()
	if err != nil || score == nil {
		t.Fatalf("%v: %s", err, out)
	}
	number, told := systemdNumber.FindSubmatch(version), toldPattern.FindStringSubmatch(page(t))
	if number == nil || told == nil {
		t.Fatalf("%s; docs/install.md names %q", version, told)
	}
	if string(number[1]) == told[1] && string(score[1]) != told[2] {
		t.Errorf("systemd %s gives %s, docs/install.md says %s", number[1], score[1], told[2])
	}
}
