package cgroup

import (
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMountsAreReadWithTheirControllers(t *testing.T) {
	const text = `30 22 0:27 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 master:1 - cgroup cgroup rw,cpu,cpuacct
32 30 0:31 /docker/ab /mnt/a\040b ro - cgroup cgroup rw,memory
33 30 0:37 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
34 30 0:38 / /hidden rw - cgroup cgroup rw,pids
35 30 0:39 / /hidden rw - tmpfs tmpfs rw
no line of this file
`
	want := []mount{
		{version: 1, root: "/", point: "/sys/fs/cgroup/cpu,cpuacct", controllers: []string{"rw", "cpu", "cpuacct"}},
		{version: 1, root: "/docker/ab", point: "/mnt/a b", controllers: []string{"rw", "memory"}},
		{version: 2, root: "/", point: "/sys/fs/cgroup/unified"},
	}
	if diff := cmp.Diff(want, parseMounts(text), cmp.AllowUnexported(mount{})); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
}

func TestOwnGroupOutsideTheNamespaceIsNone(t *testing.T) {
	for text, want := range map[string]string{
		"12:pids:/a\n0::/user.slice/x\n": "/user.slice/x",
		"0::/\n":                         "/",
		"0::/../outside\n":               "",
		"0::/a/../b\n":                   "",
		"0::relative\n":                  "",
		"12:pids:/a\n":                   "",
		"":                               "",
	} {
		got, ok := parseOwn(text)
		if ok != (want != "") || (ok && got != want) {
			t.Errorf("parseOwn(%q) = %q, %v; want %q", text, got, ok, want)
		}
	}
}

func TestParentIsReadBehindAnyProcessName(t *testing.T) {
	got, err := parseParent("12 (a) R 7 (b) S 34 12 12 0 -1")
	if err != nil || got != 34 {
		t.Errorf("parseParent = %d, %v; want 34", got, err)
	}
	for _, text := range []string{"", "12", "12 (x)", "12 (x) S", "12 (x) S -1", "12 (x) S y"} {
		if got, err := parseParent(text); err == nil {
			t.Errorf("parseParent(%q) = %d, want an error", text, got)
		}
	}
}

func FuzzKernelFiles(f *testing.F) {
	for _, seed := range []string{
		"30 22 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "31 30 0:28 /\\040 /a\\134b rw a:1 - cgroup c rw,cpu,cpuacct\n",
		"0::/a/b\n", "0::/../b", "1\n2\n0\n", "12 (a b) S 34 5", "low 0\noom_kill 3\n", "usage_usec 9223372036854775808\n", "max\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, m := range parseMounts(text) {
			if !path.IsAbs(m.point) || !path.IsAbs(m.root) || (m.version != 1 && m.version != 2) {
				t.Errorf("mount %+v", m)
			}
		}
		if own, ok := parseOwn(text); ok && (!path.IsAbs(own) || strings.Contains(own+"/", "/../")) {
			t.Errorf("own group %q leads outside", own)
		}
		if pids, err := parsePIDs(text); err == nil && (!slices.IsSorted(pids) || (len(pids) > 0 && pids[0] < 0)) {
			t.Errorf("pids %v", pids)
		}
		if pid, err := parseParent(text); err == nil && pid < 0 {
			t.Errorf("parent %d", pid)
		}
		if n, err := parseKey(text, "oom_kill"); err == nil && n < 0 {
			t.Errorf("value %d", n)
		}
		if n, err := parseNumber(text); err == nil && n < 0 {
			t.Errorf("number %d", n)
		}
	})
}
