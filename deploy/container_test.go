package deploy

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"carrel/internal/ordeal"
)

// container is what an engine asks its runtime for, as far as it matters to carrel.
type container struct {
	name    string
	masks   bool            // parts of /proc are covered, as by default
	seccomp json.RawMessage // nil = no profile
	want    []string        // in what it prints
}

// spec is an OCI config.json: the user 990 without any capability.
func (c container) spec() map[string]any {
	mount := func(at, kind string, options ...string) map[string]any {
		return map[string]any{"destination": at, "type": kind, "source": kind, "options": options}
	}
	var namespaces []map[string]string
	for _, kind := range []string{"pid", "network", "ipc", "uts", "mount", "cgroup"} {
		namespaces = append(namespaces, map[string]string{"type": kind})
	}
	linux := map[string]any{"namespaces": namespaces}
	if c.masks { // those of moby and of containers/common
		linux["maskedPaths"] = []string{
			"/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
			"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
		}
		linux["readonlyPaths"] = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
	}
	if c.seccomp != nil {
		linux["seccomp"] = c.seccomp
	}
	none := []string{}
	return map[string]any{
		"ociVersion": "1.0.2",
		"root":       map[string]any{"path": "rootfs"},
		"process": map[string]any{
			"user": map[string]int{"uid": 990, "gid": 990}, "cwd": "/", "noNewPrivileges": true,
			"args":         []string{"/bin/sh", "-c", "carrel doctor; carrel run --user ana 'echo \"ran as $(id -un)\"'"},
			"env":          []string{"PATH=/usr/bin:/bin", "SANDBOX_BASE_DIR=/var/lib/carrel"},
			"capabilities": map[string][]string{"bounding": none, "effective": none, "permitted": none, "ambient": none},
		},
		"mounts": []map[string]any{
			mount("/proc", "proc"),
			mount("/dev", "tmpfs", "nosuid", "mode=755", "size=65536k"),
			mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"),
			mount("/dev/shm", "tmpfs", "nosuid", "noexec", "nodev", "mode=1777"),
			mount("/tmp", "tmpfs", "nosuid", "nodev", "mode=1777"),
			mount("/sys", "sysfs", "nosuid", "noexec", "nodev", "ro"),
		},
		"linux": linux,
	}
}

// profile is our seccomp profile, and what it denies.
func profile(t *testing.T) (text json.RawMessage, denied []string) {
	t.Helper()
	text, err := os.ReadFile("container/seccomp.json")
	if err != nil {
		t.Fatal(err)
	}
	var p struct {
		Syscalls []struct {
			Names  []string
			Action string
		}
	}
	if err := json.Unmarshal(text, &p); err != nil {
		t.Fatal(err)
	}
	for _, s := range p.Syscalls {
		if s.Action == "SCMP_ACT_ERRNO" {
			denied = append(denied, s.Names...)
		}
	}
	return text, denied
}

func TestProfileDeniesWhatNoSandboxNeeds(t *testing.T) {
	_, denied := profile(t)
	for _, name := range []string{"init_module", "kexec_load", "reboot", "swapon", "clock_settime", "iopl", "open_by_handle_at"} {
		if !slices.Contains(denied, name) {
			t.Errorf("%s is allowed", name)
		}
	}
}

// TestContainerFlagsGiveAStrictSandbox holds the table of docs/install.md: which of an
// engine's settings stand in the way, and that ours do not.
func TestContainerFlagsGiveAStrictSandbox(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: to be a container's runtime")
	}
	ours, _ := profile(t)
	noMounts := json.RawMessage(`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "SCMP_ACT_ERRNO", "errnoRet": 1,
		"names": ["mount", "umount2", "pivot_root", "open_tree", "move_mount", "mount_setattr", "unshare", "setns"]}]}`)
	containers := []container{
		{name: "by-default", masks: true, want: []string{"carrel does not start here", "hidepid: operation not permitted"}},
		{name: "unmasked", want: []string{"carrel starts here: strict\n", "\nran as agent\n"}},
		{name: "our-profile", seccomp: ours, want: []string{"carrel starts here: strict\n", "\nran as agent\n"}},
		{name: "no-mounts", seccomp: noMounts, want: []string{"carrel does not start here", "no sandbox can be made"}},
	}
	dir := t.TempDir()
	for _, c := range containers {
		text, err := json.Marshal(c.spec())
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, c.name+".json"), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	command(t, "../scripts/oci.sh", dir, filepath.Dir(ordeal.Program(t, "carrel")))
	for _, c := range containers {
		out, err := os.ReadFile(filepath.Join(dir, c.name+".out"))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range c.want {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s does not say %q:\n%s", c.name, want, out)
			}
		}
	}
}
