package cgroup

import (
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// These tests run on every host, against its kernel: each asks Detect and holds the
// kernel to the answer, be it a limit or that there is none.

const (
	roomBytes    = 96 << 20 // the race detector alone takes tens of MiB
	balloonBytes = 192 << 20
)

func TestWhatDetectSaysIsWhatTheFilesHold(t *testing.T) {
	s := Detect()
	t.Logf("%s: %s; %s; %s", s.State, s.Detail, s.Meaning, s.Fix)
	if (s.State == Full) != (len(s.Bounds) == 3) || (s.State == Full) != (s.Meaning == "" && s.Fix == "") || s.Detail == "" {
		t.Errorf("Detect contradicts itself: %+v", s)
	}
	c, ok := here(t)
	if !ok {
		return
	}
	g := group(t, c, Limits{MemoryBytes: 64 << 20, CPUs: 0.5, PIDs: 7})
	for controller, want := range map[string]map[string]string{
		Memory: {"memory.max": "67108864", "memory.limit_in_bytes": "67108864", "memory.swap.max": "0", "memory.memsw.limit_in_bytes": "67108864"},
		PIDs:   {"pids.max": "7"},
		CPU:    {"cpu.max": "50000 100000", "cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000"},
	} {
		holds := 0
		for _, y := range c.hierarchies {
			for file, value := range want {
				text, err := y.ours.read(path.Join(g.id, file))
				if err != nil {
					continue // of the other version, or another hierarchy
				}
				holds++
				if strings.TrimSpace(text) != value {
					t.Errorf("%s is %q, want %q", file, text, value)
				}
			}
		}
		if s.Has(controller) != (holds > 0) {
			t.Errorf("Detect says of %s %v; files that hold it: %d", controller, s.Has(controller), holds)
		}
	}
}

// An ordinary user gets nothing, and is told why, unless a group was delegated.
func TestOrdinaryUserIsToldWhatIsMissing(t *testing.T) {
	s := Detect()
	if os.Geteuid() == 0 || s.State == Full {
		if s.Meaning != "" && s.Fix == "" {
			t.Errorf("%+v: no way out is named", s)
		}
		return
	}
	if s.State == None && !strings.Contains(s.Detail, "not writable for this user") && !strings.Contains(s.Detail, "not carrel's") &&
		!strings.Contains(s.Detail, "mounted") {
		t.Errorf("Detail = %q, which names no reason", s.Detail)
	}
	if s.Meaning == "" || s.Fix == "" {
		t.Errorf("%+v: no meaning or no way out", s)
	}
}

func TestMemoryAboveTheLimitIsKilledAndCounted(t *testing.T) {
	c, ok := here(t)
	if !ok {
		return
	}
	g := group(t, c, Limits{MemoryBytes: roomBytes})
	cmd := begin(t, g, "balloon "+strconv.Itoa(balloonBytes))
	_ = cmd.Wait()
	killed := cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() == unix.SIGKILL
	kills, err := g.OOMKills()
	if err != nil {
		t.Fatal(err)
	}
	if bound := c.Support().Has(Memory); killed != bound || (kills > 0) != bound {
		t.Errorf("the balloon: %v, %d out-of-memory kills; memory is bounded: %v", cmd.ProcessState, kills, bound)
	}
}

// The control of the one above: without a limit the same balloon lives.
func TestMemoryWithoutALimitIsNotKilled(t *testing.T) {
	c, ok := here(t)
	if !ok {
		return
	}
	g := group(t, c, Limits{})
	cmd := begin(t, g, "balloon "+strconv.Itoa(balloonBytes))
	if err := cmd.Wait(); err != nil {
		t.Errorf("the balloon: %v", err)
	}
	if kills, err := g.OOMKills(); err != nil || kills > 0 {
		t.Errorf("%d out-of-memory kills, %v", kills, err)
	}
}

func TestForkBombIsBounded(t *testing.T) {
	c, ok := here(t)
	if !ok {
		return
	}
	const limit, tries = 48, 96
	bomb := "sh i=0; while [ $i -lt " + strconv.Itoa(tries) + " ]; do sleep 300 & i=$((i+1)); done"
	g := group(t, c, Limits{PIDs: limit})
	cmd := begin(t, g, bomb)
	err := cmd.Wait()
	y := g.hierarchies[0]
	if bounding := g.with(PIDs); bounding != nil {
		y = bounding
	}
	in, perr := processes(y.ours, g.id)
	if perr != nil {
		t.Fatal(perr)
	}
	if c.Support().Has(PIDs) {
		if err == nil || len(in) > limit || len(in) == 0 {
			t.Errorf("the bomb: %v, %d processes; the limit is %d", err, len(in), limit)
		}
		if refused, err := y.value(g.id, "pids.events", "max"); err != nil || refused == 0 {
			t.Errorf("forks refused: %d, %v", refused, err)
		}
	} else if err != nil || len(in) != tries {
		t.Errorf("the bomb without a bound: %v, %d processes", err, len(in))
	}
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := g.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !c.Support().Has(PIDs) {
		return
	}
	// The control: without a limit it has what it asks for.
	g = group(t, c, Limits{})
	if err := begin(t, g, bomb).Wait(); err != nil {
		t.Errorf("the bomb without a limit: %v", err)
	}
	if in, err := processes(g.with(PIDs).ours, g.id); err != nil || len(in) != tries {
		t.Errorf("the bomb without a limit: %d processes, %v", len(in), err)
	}
}

func TestCPUAboveTheQuotaIsThrottled(t *testing.T) {
	c, ok := here(t)
	if !ok {
		return
	}
	g := group(t, c, Limits{CPUs: 0.2})
	begin(t, g, "sh while :; do :; done")
	if y := g.with(CPU); y != nil {
		eventually(t, "the kernel throttles a loop at 0.2 CPUs", func() bool {
			n, err := y.value(g.id, "cpu.stat", "nr_throttled")
			return err == nil && n > 0
		})
	} else if c.Support().Has(CPU) {
		t.Error("CPU time is said to be bounded, and no hierarchy does it")
	}
}

func TestUsageIsToldOfARunningGroup(t *testing.T) {
	c, ok := here(t)
	if !ok {
		return
	}
	g := group(t, c, Limits{MemoryBytes: roomBytes})
	if u, err := g.Usage(); err != nil || u.CPU != 0 {
		t.Errorf("an empty group uses %+v, %v", u, err)
	}
	begin(t, g, "sh while :; do :; done")
	eventually(t, "memory and CPU time are told", func() bool {
		u, err := g.Usage()
		if err != nil {
			t.Fatal(err)
		}
		return (u.MemoryBytes > 0 || !c.Support().Has(Memory)) && u.CPU > 0
	})
	if u, err := g.Usage(); err != nil || u.MemoryBytes > roomBytes {
		t.Errorf("the group uses %+v, %v, above its limit", u, err)
	}
}

func TestKillEndsEveryProcess(t *testing.T) {
	c, ok := here(t)
	if !ok {
		return
	}
	g := group(t, c, Limits{PIDs: 256})
	// Double-forked, in sessions of their own, and new ones all the time.
	begin(t, g, "sh trap '' TERM HUP; i=0; while [ $i -lt 8 ]; do (setsid sleep 300 & setsid sleep 300 &) ; i=$((i+1)); done;"+
		" while :; do sleep 0; done & while :; do sleep 0; done")
	y := g.hierarchies[0]
	var in []int
	eventually(t, "sixteen strays are there", func() bool {
		var err error
		if in, err = processes(y.ours, g.id); err != nil {
			t.Fatal(err)
		}
		return len(in) >= 18
	})
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := g.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, pid := range in {
		if alive(t, pid) {
			t.Errorf("pid %d is alive", pid)
		}
	}
	for range 2 {
		if err := g.Kill(); err != nil {
			t.Errorf("a Kill after the end: %v", err)
		}
		if err := g.Close(t.Context()); err != nil {
			t.Errorf("a Close after the end: %v", err)
		}
	}
}

func TestKillByListEndsAForkingGroup(t *testing.T) {
	c, ok := here(t)
	if !ok {
		return
	}
	// What stands in for cgroup.kill where there is none, on v2 too.
	g := group(t, c, Limits{PIDs: 64})
	begin(t, g, "sh while :; do sleep 0 & done")
	y := g.with(PIDs)
	if y == nil {
		return // nothing bounds its forks: Kill of v2 does it, in the test above
	}
	eventually(t, "it forks", func() bool {
		in, err := processes(y.ours, g.id)
		return err == nil && len(in) > 8
	})
	if err := kill(linux{}, noKillFile{y.ours}, g.id); err != nil {
		t.Fatal(err)
	}
	if err := g.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// noKillFile is a hierarchy of a kernel before cgroup.kill.
type noKillFile struct{ tree }

func (t noKillFile) write(name, value string) error {
	if path.Base(name) == "cgroup.kill" {
		return unix.ENOENT
	}
	return t.tree.write(name, value)
}

func TestSecondDaemonOfOneNameIsRefused(t *testing.T) {
	c, ok := here(t)
	if !ok {
		return
	}
	g := group(t, c, Limits{})
	cmd := begin(t, g, "sh exec sleep 300")
	if _, err := Open(t.Context(), c.name); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("Open = %v, want that it is in use", err)
	}
	// While another thread than the first executes a program, the process looks dead.
	eventually(t, "the first one's process is alive", func() bool { return alive(t, cmd.Process.Pid) })
}

func TestOpenEndsWhatAKilledDaemonLeft(t *testing.T) {
	c, ok := here(t)
	if !ok {
		return
	}
	// The daemons run in a group, so that where they divide their own, it is theirs.
	g := group(t, c, Limits{})
	name := Name(t.TempDir())
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	victim, err := start(g, "daemon "+name, w)
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	strays := pids(t, r, 2)
	if err := victim.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = victim.Wait()
	for _, pid := range strays {
		if !alive(t, pid) {
			t.Errorf("pid %d ended with its daemon: the test shows nothing", pid)
		}
	}

	dir, err := g.Dir()
	if err != nil {
		t.Fatal(err)
	}
	// A group that is divided takes no process. Who starts a daemon again in the
	// group of its predecessor does it in the leaf, or empties the group before.
	for _, y := range g.hierarchies {
		if leaf, err := y.ours.dir(path.Join(g.id, name, leafName)); err == nil {
			_ = dir.Close()
			dir = leaf
		}
	}
	if dir != nil {
		defer dir.Close()
	}
	heir, err := startIn(dir, "recover "+name, nil, g.Attach)
	if err != nil {
		t.Fatal(err)
	}
	if err := heir.Wait(); err != nil {
		t.Errorf("the next daemon: %v", err)
	}
	for _, pid := range strays {
		if alive(t, pid) {
			t.Errorf("pid %d is alive", pid)
		}
	}
	if left := find(t, name); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// What a group costs: New with Close, and Attach of a process that is in another.
func BenchmarkGroup(b *testing.B) {
	if Detect().State == None {
		return
	}
	c, err := Open(b.Context(), Name(b.TempDir()))
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := c.Close(b.Context()); err != nil {
			b.Error(err)
		}
	}()
	limits := Limits{MemoryBytes: 1 << 30, CPUs: 1, PIDs: 256}
	b.Run("new and close", func(b *testing.B) {
		for b.Loop() {
			g, err := c.New("g", limits)
			if err != nil {
				b.Fatal(err)
			}
			if err := g.Close(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("attach", func(b *testing.B) {
		var groups [2]*Group
		for i := range groups {
			if groups[i], err = c.New("g"+strconv.Itoa(i), limits); err != nil {
				b.Fatal(err)
			}
		}
		cmd, err := start(groups[0], "sh exec sleep 300", nil)
		if err != nil {
			b.Fatal(err)
		}
		for i := 1; b.Loop(); i++ {
			if err := groups[i%2].Attach(cmd.Process.Pid); err != nil {
				b.Fatal(err)
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}
