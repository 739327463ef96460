package installation

import (
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// installed is a machine on which all is well: our units, as the package installs them.
func installed(t *testing.T) fstest.MapFS {
	t.Helper()
	m := fstest.MapFS{}
	put := func(name, text string, mode fs.FileMode) { m[name] = &fstest.MapFile{Data: []byte(text), Mode: mode} }
	for _, unit := range []string{service, socket} {
		text, err := os.ReadFile("../../deploy/systemd/" + unit)
		if err != nil {
			t.Fatal(err)
		}
		put("usr/lib/systemd/system/"+unit, string(text), 0o644)
	}
	put("etc/systemd/system/sockets.target.wants/carrel.socket", "", 0o644)
	m["run/systemd/system"] = &fstest.MapFile{Mode: fs.ModeDir | 0o755}
	put("etc/passwd", "root:x:0:0::/root:/bin/bash\ncarrel:x:990:990::/var/lib/carrel:/usr/sbin/nologin\n", 0o644)
	put(envFile, "", 0o600)
	m["var/lib/carrel"] = &fstest.MapFile{Mode: fs.ModeDir | 0o700}
	put("proc/sys/user/max_user_namespaces", "95000\n", 0o644)
	return m
}

func check(m fs.FS) map[string]Finding {
	found := make(map[string]Finding)
	for _, f := range Check(Options{Root: m, BaseDir: "./data", MaxWorkers: 10, PIDsLimit: 256}) {
		found[f.Name] = f
	}
	return found
}

func TestOurOwnUnitsLeaveNothingToSay(t *testing.T) {
	states := make(map[string]State)
	for name, f := range check(installed(t)) {
		states[name] = f.State
		if f.State != OK && f.State != NotApplicable {
			t.Errorf("%+v", f)
		}
	}
	want := map[string]State{
		"unit": OK, "socket": OK, "user": OK, "hardening": OK, "delegation": OK, "watchdog": OK, "stop": OK, "tasks": OK,
		"open-files": OK, "env-file": OK, "base-dir": OK, "user-namespaces": OK, "apparmor": NotApplicable,
	}
	if diff := cmp.Diff(want, states); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestMachineWithoutAnInstallationIsAskedAboutTheKernelAlone(t *testing.T) {
	m := fstest.MapFS{"proc/sys/user/max_user_namespaces": {Data: []byte("95000\n")}}
	for name, f := range check(m) {
		want := NotApplicable
		if name == "user-namespaces" {
			want = OK
		}
		if f.State != want || f.Detail == "" {
			t.Errorf("%+v", f)
		}
	}
}

// dropIn is a change by an operator.
func dropIn(lines ...string) func(fstest.MapFS) {
	return func(m fstest.MapFS) {
		m["etc/systemd/system/carrel.service.d/override.conf"] = &fstest.MapFile{Data: []byte("[Service]\n" + strings.Join(lines, "\n") + "\n")}
	}
}

func file(name, text string, mode fs.FileMode) func(fstest.MapFS) {
	return func(m fstest.MapFS) { m[name] = &fstest.MapFile{Data: []byte(text), Mode: mode} }
}

func without(name string) func(fstest.MapFS) { return func(m fstest.MapFS) { delete(m, name) } }

func TestEachFaultIsNamedWithWhatToDo(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(fstest.MapFS)
		part   string
		says   string
	}{
		{"another type", dropIn("Type=simple"), "unit", "Type=simple"},
		{"no systemd", without("run/systemd/system"), "unit", "systemd does not run here"},
		{"no socket", without("usr/lib/systemd/system/carrel.socket"), "socket", "refuses connections"},
		{"socket off", without("etc/systemd/system/sockets.target.wants/carrel.socket"), "socket", "not enabled"},
		{"two addresses", file("etc/systemd/system/carrel.socket.d/a.conf", "[Socket]\nListenStream=0.0.0.0:80\n", 0o644), "socket", "2 addresses"},
		{"root", dropIn("User=root", "CapabilityBoundingSet=~"), "user", "runs as root"},
		{"root by another name", file("etc/passwd", "carrel:x:0:0::/:/usr/sbin/nologin\n", 0o644), "user", "root by another name"},
		{"no user", file("etc/passwd", "", 0o644), "user", "there is no user carrel"},
		{"a shell", file("etc/passwd", "carrel:x:990:990::/:/bin/bash\n", 0o644), "user", "can log in"},
		{"namespaces", dropIn("RestrictNamespaces=yes"), "hardening", "RestrictNamespaces=yes (no sandbox can be made)"},
		{"some namespaces", dropIn("RestrictNamespaces=net"), "hardening", "RestrictNamespaces=net"},
		{"host name", dropIn("ProtectHostname=true"), "hardening", "ProtectHostname"},
		{"sxid", dropIn("RestrictSUIDSGID=1"), "hardening", "openat2"},
		{"proc", dropIn("ProcSubset=pid", "ProtectKernelTunables=on"), "hardening", "ProcSubset=pid"},
		{"an allow-list", dropIn("SystemCallFilter=", "SystemCallFilter=@system-service"), "hardening", "SystemCallFilter"},
		{"a deny-list", dropIn("SystemCallFilter=~@debug @mount"), "hardening", "SystemCallFilter"},
		{"new privileges", dropIn("NoNewPrivileges=no"), "hardening", "NoNewPrivileges"},
		{"no delegation", dropIn("Delegate="), "delegation", "no control group"},
		{"delegation off", dropIn("Delegate=no"), "delegation", "Delegate=no"},
		{"a part of it", dropIn("Delegate=", "Delegate=cpu pids"), "delegation", "lacks memory"},
		{"no watchdog", dropIn("WatchdogSec=0"), "watchdog", "no watchdog"},
		{"no restart", dropIn("Restart=no"), "watchdog", "nothing starts another"},
		{"kills all", dropIn("KillMode=control-group"), "stop", "kills the sandboxes"},
		{"stops for one", dropIn("OOMPolicy=stop"), "stop", "ends the daemon"},
		{"few tasks", dropIn("TasksMax=100"), "tasks", "may take 2560"},
		{"systemd's tasks", dropIn("TasksMax="), "tasks", "default"},
		{"few files", dropIn("LimitNOFILE=256:512"), "open-files", "want 1104"},
		{"open env file", file(envFile, "", 0o640), "env-file", "mode 0640"},
		{"open base dir", file("var/lib/carrel", "", fs.ModeDir|0o755), "base-dir", "mode 0755"},
		{"another base dir", func(m fstest.MapFS) {
			dropIn("Environment=A=b SANDBOX_BASE_DIR=/srv/carrel")(m)
			file("srv/carrel", "", fs.ModeDir|0o750)(m)
		}, "base-dir", "/srv/carrel has mode 0750"},
		{"few namespaces", file("proc/sys/user/max_user_namespaces", "15\n", 0o644), "user-namespaces", "max_user_namespaces=15"},
		{"none for users", file("proc/sys/kernel/unprivileged_userns_clone", "0\n", 0o644), "user-namespaces", "unprivileged_userns_clone=0"},
		{"AppArmor", file("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n", 0o644), "apparmor", "no profile"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := installed(t)
			c.change(m)
			for name, f := range check(m) {
				if name == c.part && (f.State != Warn || !strings.Contains(f.Detail, c.says) || f.Fix == "") {
					t.Errorf("%+v, want a warning that says %q", f, c.says)
				}
				if name != c.part && f.State == Warn {
					t.Errorf("besides: %+v", f)
				}
			}
		})
	}
}

func TestRootWithoutCapabilitiesIsTwoFaults(t *testing.T) {
	m := installed(t)
	dropIn("User=root")(m)
	if found := check(m); found["user"].State != Warn || found["hardening"].State != Warn || !strings.Contains(found["hardening"].Detail, "without root's capabilities") {
		t.Errorf("%+v, %+v", found["user"], found["hardening"])
	}
}

func TestWhatIsNoFaultIsNone(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(fstest.MapFS)
		part   string
		want   State
	}{
		{"our AppArmor profile", func(m fstest.MapFS) {
			file("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n", 0o644)(m)
			text, err := os.ReadFile("../../deploy/apparmor/carrel")
			if err != nil {
				t.Fatal(err)
			}
			file("etc/apparmor.d/carrel", string(text), 0o644)(m)
		}, "apparmor", OK},
		{"a setting taken back", dropIn("ProtectHostname=yes", "ProtectHostname="), "hardening", OK},
		{"an allow-list with mounts", dropIn("SystemCallFilter=", "SystemCallFilter=@system-service @mount @sandbox"), "hardening", OK},
		{"Delegate=yes", dropIn("Delegate=yes"), "delegation", OK},
		{"no bound of tasks", dropIn("TasksMax=infinity"), "tasks", OK},
		{"no env file", without(envFile), "env-file", NotApplicable},
		{"a base dir to come", without("var/lib/carrel"), "base-dir", NotApplicable},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := installed(t)
			c.change(m)
			if f := check(m)[c.part]; f.State != c.want {
				t.Errorf("%+v", f)
			}
		})
	}
}

func TestDropInsAreReadInTheOrderOfTheirNames(t *testing.T) {
	m := installed(t)
	file("etc/systemd/system/carrel.service.d/20-b.conf", "[Service]\nTasksMax=7\n", 0o644)(m)
	file("usr/lib/systemd/system/carrel.service.d/30-c.conf", "[Service]\nTasksMax=8\n", 0o644)(m)
	file("usr/lib/systemd/system/carrel.service.d/20-b.conf", "[Service]\nLimitNOFILE=9\n", 0o644)(m) // hidden by the first
	u, err := readUnit(m, service)
	if err != nil {
		t.Fatal(err)
	}
	if u.last("TasksMax") != "8" || u.last("LimitNOFILE") != "524288" {
		t.Errorf("TasksMax=%s LimitNOFILE=%s", u.last("TasksMax"), u.last("LimitNOFILE"))
	}
}
