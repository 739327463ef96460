package cgroup

import (
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const top = "/sys/fs/cgroup/unified"

func TestDetect(t *testing.T) {
	all := []string{"cpuset", "cpu", "io", "memory", "pids"}
	legacy := []string{"cpu,cpuacct", "memory", "pids"}
	for _, c := range []struct {
		name  string
		own   string
		v2    []string
		v1    []string
		setup func(*fakeHost)
		want  Support
		leaf  bool
		dirs  []string
	}{
		{
			name: "v2 as root at the top",
			own:  "/", v2: all,
			want: Support{State: Full, Bounds: wanted(), Detail: "v2: memory, pids, cpu, kill"},
			dirs: []string{top},
		}, {
			name: "v2 in a group of its own",
			own:  "/system.slice/carrel.service", v2: all,
			want: Support{State: Full, Bounds: wanted(), Detail: "v2: memory, pids, cpu, kill (delegated)"},
			leaf: true,
			dirs: []string{top + "/system.slice/carrel.service"},
		}, {
			name: "the own group is found from the leaf",
			own:  "/a/carrel-0123abcd/daemon", v2: all,
			want: Support{State: Full, Bounds: wanted(), Detail: "v2: memory, pids, cpu, kill (delegated)"},
			leaf: true,
			dirs: []string{top + "/a"},
		}, {
			name: "root whose own group holds others divides the top",
			own:  "/user.slice/session", v2: all,
			setup: func(k *fakeHost) {
				k.groups[top+"/user.slice/session"].processes = []int{7, 100}
				k.proc["/proc/7/stat"] = "7 (sh) S 1 7"
			},
			want: Support{State: Full, Bounds: wanted(), Detail: "v2: memory, pids, cpu, kill"},
			dirs: []string{top},
		}, {
			name: "children of this process are no others",
			own:  "/svc", v2: all,
			setup: func(k *fakeHost) {
				k.groups[top+"/svc"].processes = []int{100, 102, 103}
				k.proc["/proc/102/stat"] = "102 (x) S 101 1"
				k.proc["/proc/101/stat"] = "101 (x) S 100 1" // 103 has just ended
			},
			want: Support{State: Full, Bounds: wanted(), Detail: "v2: memory, pids, cpu, kill (delegated)"},
			leaf: true,
			dirs: []string{top + "/svc"},
		}, {
			name: "an ordinary user whose shell shares the group",
			own:  "/session", v2: all,
			setup: func(k *fakeHost) {
				k.denied[top] = syscall.EACCES
				k.groups[top+"/session"].processes = []int{7, 100}
				k.proc["/proc/7/stat"] = "7 (sh) S 1 7"
			},
			want: Support{
				State: None, Detail: "v2: " + top + "/session also holds processes that are not carrel's (pid 7)",
				Meaning: meaningNone, Fix: fixDelegate,
			},
		}, {
			name: "an ordinary user without delegation",
			own:  "/session", v2: all,
			setup: func(k *fakeHost) { k.denied[top], k.denied[top+"/session"] = syscall.EACCES, syscall.EACCES },
			want: Support{
				State: None, Detail: "v2: " + top + "/session is not writable for this user",
				Meaning: meaningNone, Fix: fixDelegate,
			},
		}, {
			name: "an ordinary user to whom cpu was not delegated",
			own:  "/user", v2: all,
			setup: func(k *fakeHost) {
				k.denied[top] = syscall.EACCES
				k.groups[top+"/user"].files["cgroup.controllers"] = "memory pids\n"
			},
			want: Support{
				State: Partial, Bounds: []string{Memory, PIDs}, Detail: "v2: memory, pids, kill (delegated)",
				Meaning: "nothing bounds these of a sandbox in sum: cpu",
				Fix: "the controllers cpu are not offered to this process: enable them in the groups above it " +
					"(for systemd's user services Delegate=cpu memory pids in a drop-in of user@.service)",
			},
			leaf: true,
			dirs: []string{top + "/user"},
		}, {
			name: "v1 as root, beside an empty v2",
			own:  "/x", v2: []string{}, v1: legacy,
			want: Support{State: Full, Bounds: wanted(), Detail: "v1: memory, pids, cpu; v2: kill"},
			dirs: []string{top, "/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/cpu,cpuacct"},
		}, {
			name: "v1 as an ordinary user, beside an empty v2",
			own:  "/x", v2: []string{}, v1: legacy,
			setup: func(k *fakeHost) {
				for at := range k.groups {
					k.denied[at] = syscall.EACCES
				}
			},
			want: Support{
				State:   None,
				Detail:  "v2: " + top + "/x is not writable for this user; v1: /sys/fs/cgroup is not writable for this user",
				Meaning: meaningNone,
				Fix:     "run carrel as root (v1 cannot be delegated), or boot with systemd.unified_cgroup_hierarchy=1 and delegate a group",
			},
		}, {
			name: "v1 alone tells the CPU time itself",
			own:  "/", v1: legacy,
			want: Support{State: Full, Bounds: wanted(), Detail: "v1: memory, pids, cpu"},
			dirs: []string{"/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/cpu,cpuacct"},
		}, {
			name: "an empty v2 alone kills and bounds nothing",
			own:  "/", v2: []string{},
			want: Support{
				State: Partial, Detail: "v2: kill", Meaning: "nothing bounds these of a sandbox in sum: memory, pids, cpu",
				Fix: "the controllers memory, pids, cpu are not offered to this process: enable them in the groups above it " +
					"(for systemd's user services Delegate=cpu memory pids in a drop-in of user@.service)",
			},
			dirs: []string{top},
		}, {
			name: "a container with a read-only mount",
			own:  "/", v2: all,
			setup: func(k *fakeHost) {
				k.denied[top] = syscall.EROFS
			},
			want: Support{
				State: None, Detail: "v2: " + top + " is mounted read-only", Meaning: meaningNone,
				Fix: "mount the cgroup file system read-write here (in a container: a cgroup namespace of its own, mounted rw)",
			},
		}, {
			name:  "nothing mounted",
			own:   "/",
			want:  Support{State: None, Detail: "no cgroup file system is mounted", Meaning: meaningNone, Fix: "mount cgroup2 at /sys/fs/cgroup"},
			setup: func(*fakeHost) {},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newFake(c.own, c.v2, c.v1)
			if c.setup != nil {
				c.setup(k)
			}
			p := survey(k)
			if diff := cmp.Diff(c.want, p.support); diff != "" {
				t.Errorf("support (-want +got):\n%s", diff)
			}
			var dirs []string
			for _, at := range p.places {
				dirs = append(dirs, at.dir)
			}
			if diff := cmp.Diff(c.dirs, dirs); diff != "" {
				t.Errorf("places (-want +got):\n%s", diff)
			}
			if len(p.places) > 0 && p.places[0].leaf != c.leaf {
				t.Errorf("moves to a leaf: %v, want %v", p.places[0].leaf, c.leaf)
			}
			if len(k.log) > 0 {
				t.Errorf("detecting changed the host:\n%s", strings.Join(k.log, "\n"))
			}
		})
	}
}
