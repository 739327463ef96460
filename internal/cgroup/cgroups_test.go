package cgroup

import (
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	testName = "carrel-0123abcd"
	memoryV1 = "/sys/fs/cgroup/memory"
)

func openFake(t *testing.T, k *fakeHost) *Cgroups {
	t.Helper()
	c, err := open(t.Context(), k, testName)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// written is what changed on the host since the last call.
func (k *fakeHost) written() []string {
	defer func() { k.log = nil }()
	return k.log
}

func (k *fakeHost) names() []string {
	var names []string
	for at := range k.groups {
		names = append(names, at)
	}
	slices.Sort(names)
	return names
}

func TestDelegatedGroupIsDividedAndGivenBack(t *testing.T) {
	k := newFake("/svc", wanted(), nil)
	before := k.names()
	c := openFake(t, k)
	const svc, ours = top + "/svc", top + "/svc/" + testName
	want := []string{
		"mkdir " + ours,
		"mkdir " + ours + "/daemon",
		ours + "/daemon/cgroup.procs = 100",
		svc + "/cgroup.subtree_control = +memory +pids +cpu",
		ours + "/cgroup.subtree_control = +memory +pids +cpu",
	}
	if diff := cmp.Diff(want, k.written()); diff != "" {
		t.Errorf("writes of Open (-want +got):\n%s", diff)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	want = []string{
		ours + "/cgroup.subtree_control = -memory -pids -cpu",
		svc + "/cgroup.subtree_control = -memory -pids -cpu",
		svc + "/cgroup.procs = 100",
		"rmdir " + ours + "/daemon",
		"rmdir " + ours,
	}
	if diff := cmp.Diff(want, k.written()); diff != "" {
		t.Errorf("writes of Close (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before, k.names()); diff != "" {
		t.Errorf("groups left (-before +after):\n%s", diff)
	}
	if err := c.Close(t.Context()); err != nil || len(k.written()) > 0 {
		t.Errorf("a second Close did something: %v", err)
	}
}

func TestLeafOfAPredecessorIsTakenOver(t *testing.T) {
	k := newFake("/svc", wanted(), nil)
	before := k.names()
	dead := openFake(t, k)
	if _, err := dead.New("a", Limits{}); err != nil {
		t.Fatal(err)
	}
	dead.hierarchies[0].close()
	// Who starts the daemon again does it where the predecessor was, for the group
	// above is divided and takes no process.
	k.proc["/proc/self/cgroup"] = "0::/svc/" + testName + "/daemon\n"
	c := openFake(t, k)
	if _, err := c.New("a", Limits{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, k.names()); diff != "" {
		t.Errorf("groups left (-before +after):\n%s", diff)
	}
}

func TestLimitsStandBeforeAnyProcessIsIn(t *testing.T) {
	limits := Limits{MemoryBytes: 1 << 30, CPUs: 1.5, PIDs: 256}
	const a2, memory, pids, cpu = top + "/" + testName + "/a", memoryV1 + "/" + testName + "/a", "/sys/fs/cgroup/pids/" + testName + "/a", "/sys/fs/cgroup/cpu/" + testName + "/a"
	for _, c := range []struct {
		name   string
		v2, v1 []string
		limits Limits
		want   []string
	}{
		{
			name: "v2", v2: wanted(), limits: limits,
			want: []string{
				"mkdir " + a2,
				a2 + "/memory.max = 1073741824", a2 + "/memory.swap.max = 0",
				a2 + "/pids.max = 256", a2 + "/cpu.max = 150000 100000",
			},
		}, {
			name: "v1 beside an empty v2", v2: []string{}, v1: []string{CPU, Memory, PIDs}, limits: limits,
			want: []string{
				"mkdir " + a2,
				"mkdir " + memory, memory + "/memory.limit_in_bytes = 1073741824",
				"mkdir " + pids, pids + "/pids.max = 256",
				"mkdir " + cpu, cpu + "/cpu.cfs_period_us = 100000", cpu + "/cpu.cfs_quota_us = 150000",
			},
		}, {
			name: "no limits", v2: wanted(),
			want: []string{"mkdir " + a2},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newFake("/", c.v2, c.v1)
			cg := openFake(t, k)
			k.written()
			g, err := cg.New("a", c.limits)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, k.written()); diff != "" {
				t.Errorf("writes of New (-want +got):\n%s", diff)
			}
			if err := g.Attach(200); err != nil {
				t.Fatal(err)
			}
			attached := k.written()
			if len(attached) != len(c.v1) || slices.ContainsFunc(attached, func(w string) bool { return !strings.HasSuffix(w, "/a/cgroup.procs = 200") }) {
				t.Errorf("writes of Attach: %q, want one for each of v1's %q", attached, c.v1)
			}
		})
	}
}

func TestFilesThatNotEveryKernelHasMayBeMissing(t *testing.T) {
	k := newFake("/", nil, []string{Memory}) // the fake has no memory.memsw.limit_in_bytes
	if _, err := openFake(t, k).New("a", Limits{MemoryBytes: 1}); err != nil {
		t.Error(err)
	}
	delete(k.groups[memoryV1].files, "memory.limit_in_bytes")
	k.groups[memoryV1+"/"+testName].offered = nil
	if _, err := (&Cgroups{host: k, hierarchies: []*hierarchy{{
		place: place{version: 1, controllers: []string{Memory}}, ours: &fakeTree{k: k, at: memoryV1 + "/" + testName},
	}}}).New("b", Limits{MemoryBytes: 1}); err == nil {
		t.Error("a group without its memory limit was made")
	}
}

func TestNewUndoesItselfOnError(t *testing.T) {
	k := newFake("/", []string{}, []string{Memory, PIDs, CPU})
	c := openFake(t, k)
	before := k.names()
	at := "/sys/fs/cgroup/pids/" + testName + "/a/pids.max"
	k.fails[at] = syscall.EINVAL
	if _, err := c.New("a", Limits{PIDs: 5}); !errors.Is(err, syscall.EINVAL) || !strings.Contains(err.Error(), "pids.max = 5") {
		t.Errorf("New = %v, want the file and the kernel's error", err)
	}
	if diff := cmp.Diff(before, k.names()); diff != "" {
		t.Errorf("groups left (-before +after):\n%s", diff)
	}
}

func TestNewLeavesAnotherGroupOfThatIDAlone(t *testing.T) {
	k := newFake("/", wanted(), nil)
	c := openFake(t, k)
	if _, err := c.New("a", Limits{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.New("a", Limits{}); !errors.Is(err, syscall.EEXIST) {
		t.Errorf("New = %v, want EEXIST", err)
	}
	if _, ok := k.groups[top+"/"+testName+"/a"]; !ok {
		t.Error("the first group is gone")
	}
}

func TestNamesThatLeadElsewhereAreRefused(t *testing.T) {
	k := newFake("/", wanted(), nil)
	c := openFake(t, k)
	k.written()
	for _, id := range []string{"", ".", "..", "../x", "a/b", "a.b", "-a", "_a", "a\n", "daemon", "cgroup.procs", strings.Repeat("a", 65)} {
		if _, err := c.New(id, Limits{}); err == nil {
			t.Errorf("a group named %q was made", id)
		}
	}
	for _, name := range []string{"", "system.slice", "carrel-", "carrel-0123abcg", "../carrel-0123abcd", "carrel-0123abcd\n"} {
		if _, err := open(t.Context(), k, name); err == nil {
			t.Errorf("cgroups named %q were opened", name)
		}
	}
	if w := k.written(); len(w) > 0 {
		t.Errorf("writes: %q", w)
	}
	if !validName(Name("/srv/data")) || Name("/srv/data") != Name("/srv/data/") || Name("/srv/data") == Name("/srv/date") {
		t.Errorf("Name(/srv/data) = %q", Name("/srv/data"))
	}
}

func TestLimitsThatMeanNothingAreRefused(t *testing.T) {
	c := openFake(t, newFake("/", wanted(), nil))
	zero := 0.0
	for _, l := range []Limits{
		{MemoryBytes: -1},
		{PIDs: -1},
		{CPUs: -1},
		{CPUs: 0.009},
		{CPUs: 1e30},
		{CPUs: 1 / zero},
		{CPUs: zero / zero},
	} {
		if _, err := c.New("a", l); err == nil {
			t.Errorf("a group with %+v was made", l)
		}
	}
}

func TestOpenSweepsWhatAPredecessorLeft(t *testing.T) {
	for _, c := range []struct {
		name   string
		v2, v1 []string
		kills  string // one of the writes that kill
	}{
		{name: "v2", v2: wanted(), kills: top + "/" + testName + "/b/cgroup.kill = 1"},
		{name: "v1", v1: []string{Memory, PIDs}, kills: "SIGKILL 201"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newFake("/", c.v2, c.v1)
			dead := openFake(t, k)
			for _, id := range []string{"a", "b"} {
				if _, err := dead.New(id, Limits{}); err != nil {
					t.Fatal(err)
				}
			}
			if err := (&fakeTree{k: k, at: dead.hierarchies[0].ours.path()}).mkdir("b/nested"); err != nil {
				t.Fatal(err)
			}
			// The predecessor is gone, two of its processes are not.
			stray := dead.hierarchies[0].ours.path()
			for _, y := range dead.hierarchies {
				y.close()
			}
			k.groups[stray+"/b"].processes = []int{201}
			k.groups[stray+"/b/nested"].processes = []int{202}
			k.lingers[stray+"/b/nested"] = 3
			others := k.groups[path0(k)]
			others.processes = append(others.processes, 300)
			k.written()

			openFake(t, k)
			w := k.written()
			if !slices.Contains(w, c.kills) {
				t.Errorf("no %q in %q", c.kills, w)
			}
			for _, at := range k.names() {
				if strings.Contains(at, testName+"/") {
					t.Errorf("%s is still there", at)
				}
			}
			if !slices.Contains(others.processes, 300) {
				t.Error("a process outside of our group was hit")
			}
		})
	}
}

// path0 is the first group that k has, a top.
func path0(k *fakeHost) string { return k.names()[0] }

func TestOpenSweepsAPlaceItNoLongerUses(t *testing.T) {
	k := newFake("/svc", wanted(), nil)
	left := top + "/" + testName
	t0 := &fakeTree{k: k, at: top}
	for _, name := range []string{testName, testName + "/a"} {
		if err := t0.mkdir(name); err != nil {
			t.Fatal(err)
		}
	}
	k.groups[left+"/a"].processes = []int{201}
	c := openFake(t, k)
	if c.hierarchies[0].dir != top+"/svc" {
		t.Fatalf("opened at %s, want the own group", c.hierarchies[0].dir)
	}
	if _, ok := k.groups[left]; ok {
		t.Errorf("%s is still there", left)
	}
}

func TestOpenSparesALivingDaemonOfTheSameName(t *testing.T) {
	k := newFake("/", wanted(), nil)
	first := openFake(t, k)
	if _, err := first.New("a", Limits{}); err != nil {
		t.Fatal(err)
	}
	k.groups[top+"/"+testName+"/a"].processes = []int{201}
	if _, err := open(t.Context(), k, testName); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Errorf("Open = %v, want that the group is in use", err)
	}
	if got := k.groups[top+"/"+testName+"/a"].processes; len(got) != 1 {
		t.Errorf("the first daemon's sandbox holds %v, want its process", got)
	}
}

func TestOpenUndoesItselfOnError(t *testing.T) {
	k := newFake("/svc", wanted(), nil)
	before := k.names()
	k.fails[top+"/svc/cgroup.subtree_control"] = syscall.EINVAL
	if _, err := open(t.Context(), k, testName); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("Open = %v, want the kernel's error", err)
	}
	if diff := cmp.Diff(before, k.names()); diff != "" {
		t.Errorf("groups left (-before +after):\n%s", diff)
	}
	if !slices.Contains(k.groups[top+"/svc"].processes, k.self) {
		t.Error("this process was not moved back")
	}
}

func TestCloseNamesWhatStays(t *testing.T) {
	k := newFake("/", wanted(), nil)
	g, err := openFake(t, k).New("a", Limits{})
	if err != nil {
		t.Fatal(err)
	}
	at := top + "/" + testName + "/a"
	k.groups[at].processes = []int{201}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.Close(ctx); err == nil || !strings.Contains(err.Error(), at+": it stays, with the processes [201]") {
		t.Errorf("Close = %v, want the group and its process", err)
	}
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	k.lingers[at] = 2
	for range 2 {
		if err := g.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
