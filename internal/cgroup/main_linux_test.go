package cgroup

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// jobEnv makes the test binary a child of a test: "<job> <argument>".
const jobEnv = "CARREL_CGROUP_TEST_JOB"

func TestMain(m *testing.M) {
	job, arg, _ := strings.Cut(os.Getenv(jobEnv), " ")
	if job == "" {
		os.Exit(m.Run())
	}
	// The gate: closed until this process is in its group.
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := run(job, arg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(job, arg string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	switch job {
	case "sh":
		return syscall.Exec("/bin/sh", []string{"sh", "-c", arg}, []string{"PATH=/bin:/usr/bin"})
	case "balloon": // of arg bytes; outside of Go's heap, so that the race detector shadows none of it
		size, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return err
		}
		for i := 0; i < len(b); i += os.Getpagesize() {
			b[i] = 1
		}
		return nil
	case "daemon": // makes two sandboxes under the name arg and waits to be killed
		return daemon(ctx, arg)
	case "recover": // opens and closes the name arg
		c, err := Open(ctx, arg)
		if err != nil {
			return err
		}
		return c.Close(ctx)
	}
	return fmt.Errorf("no job %q", job)
}

func daemon(ctx context.Context, name string) error {
	c, err := Open(ctx, name)
	if err != nil {
		return err
	}
	for _, id := range []string{"one", "two"} {
		g, err := c.New(id, Limits{PIDs: 64})
		if err != nil {
			return err
		}
		if _, err := start(g, "sh echo $$; exec sleep 300", os.Stdout); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

// start starts this test binary with a job, in g, and opens its gate.
func start(g *Group, job string, stdout io.Writer) (*exec.Cmd, error) {
	dir, err := g.Dir()
	if err != nil {
		return nil, err
	}
	if dir != nil {
		defer dir.Close()
	}
	return startIn(dir, job, stdout, g.Attach)
}

// startIn starts it in the v2 group dir, if there is one, and opens its gate after
// attach was done.
func startIn(dir *os.File, job string, stdout io.Writer, attach func(pid int) error) (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), jobEnv+"="+job)
	cmd.Stdout, cmd.Stderr = stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if dir != nil {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	gate, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if err := attach(cmd.Process.Pid); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, err
	}
	return cmd, gate.Close()
}

// here opens cgroups on this machine for one test and, when it ends, closes them and
// looks for what stayed, anywhere. Where Detect says None it holds Open to that and
// returns false: there is then nothing more to test.
func here(t *testing.T) (*Cgroups, bool) {
	t.Helper()
	s := Detect()
	name := Name(t.TempDir())
	if s.State == None {
		if _, err := Open(t.Context(), name); err == nil || !strings.Contains(err.Error(), s.Detail) {
			t.Errorf("Open = %v, want what Detect says: %s", err, s.Detail)
		}
		return nil, false
	}
	before := ownLine(t)
	c, err := Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		if left := find(t, name); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
		if after := ownLine(t); after != before {
			t.Errorf("this process was in %s and is in %s", before, after)
		}
	})
	return c, true
}

// group makes a group that is killed and closed when the test ends.
func group(t *testing.T, c *Cgroups, l Limits) *Group {
	t.Helper()
	g, err := c.New("g", l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Kill(); err != nil {
			t.Error(err)
		}
		if err := g.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return g
}

// begin starts a job in g. It is waited for when the test ends.
func begin(t *testing.T, g *Group, job string) *exec.Cmd {
	t.Helper()
	cmd, err := start(g, job, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait()
	})
	return cmd
}

// find looks for groups of that name in every mounted hierarchy.
func find(t *testing.T, name string) []string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, m := range parseMounts(string(text)) {
		_ = filepath.WalkDir(m.point, func(at string, _ os.DirEntry, err error) error {
			if err == nil && filepath.Base(at) == name {
				found = append(found, at)
			}
			return nil // a group that has just gone, or is closed to this user
		})
	}
	return found
}

// ownLine is where this process stands in v2.
func ownLine(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	own, _ := parseOwn(string(text))
	return own
}

// eventually waits until holds is true, a minute at most.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(time.Minute)
	for !holds() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// alive reports whether pid runs: a zombie does not.
func alive(t *testing.T, pid int) bool {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	return fields[0] != "Z" && fields[0] != "X"
}

// pids reads n process ids, one a line.
func pids(t *testing.T, r io.Reader, n int) []int {
	t.Helper()
	var all []int
	for lines := bufio.NewScanner(r); len(all) < n && lines.Scan(); {
		pid, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, pid)
	}
	if len(all) < n {
		t.Fatalf("got the pids %v, want %d", all, n)
	}
	return all
}
