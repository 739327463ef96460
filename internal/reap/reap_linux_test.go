package reap

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A Reaper waits for every child of its process and lives as long as that does,
// so all tests share one. Nothing here may use os/exec.
var reaper *Reaper //nolint:gochecknoglobals // see above

func TestMain(m *testing.M) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	reaper = New()
	os.Exit(m.Run())
}

func start(t *testing.T, script string) (int, <-chan Exit) {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	pid, exit, err := reaper.Start("/bin/sh", []string{"sh", "-c", script}, &syscall.ProcAttr{
		Env: []string{"PATH=" + os.Getenv("PATH")}, Files: []uintptr{null.Fd(), null.Fd(), null.Fd()},
		Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	return pid, exit
}

func TestExitIsToldAsTheShellTellsIt(t *testing.T) {
	for _, tt := range []struct {
		script string
		code   int
		signal string
	}{
		{"exit 0", 0, ""},
		{"exit 7", 7, ""},
		{"exit 255", 255, ""},
		{"exit 256", 0, ""},
		{"kill -TERM $$", 143, "SIGTERM"},
		{"kill -KILL $$", 137, "SIGKILL"},
		{"kill -SEGV $$", 139, "SIGSEGV"},
	} {
		t.Run(tt.script, func(t *testing.T) {
			_, exit := start(t, tt.script)
			if e := <-exit; e.Code() != tt.code || e.Signal() != tt.signal {
				t.Errorf("%d %q, want %d %q", e.Code(), e.Signal(), tt.code, tt.signal)
			}
		})
	}
}

func TestManyChildrenEachGetTheirOwnExit(t *testing.T) {
	var waiting sync.WaitGroup
	for i := range 60 {
		waiting.Go(func() {
			_, exit := start(t, "exit "+strconv.Itoa(i))
			if e := <-exit; e.Code() != i {
				t.Errorf("child %d: status %d", i, e.Code())
			}
		})
	}
	waiting.Wait()
}

func TestStartOfWhatIsNoProgramIsAnError(t *testing.T) {
	if _, _, err := reaper.Start("/nowhere/x", []string{"x"}, &syscall.ProcAttr{}); err == nil {
		t.Error("no error")
	}
	<-reaper.Empty() // the failed child is not waited for by anyone else
}

func TestEmptyWaitsForOrphansToo(t *testing.T) {
	// The child is gone long before its grandchild, which leads its own session.
	_, exit := start(t, "(setsid sleep 0.2 &) ; exit 3")
	if e := <-exit; e.Code() != 3 {
		t.Errorf("status %d", e.Code())
	}
	<-reaper.Empty()
	if left := children(t); left != "" {
		t.Errorf("children are left: %s", left)
	}
}

func TestEmptyIsClosedAtOnceWithoutChildren(t *testing.T) {
	for range 100 {
		<-reaper.Empty()
	}
}

func TestEmptyIsNotClosedWhileAChildLives(t *testing.T) {
	pid, exit := start(t, "exec sleep 100")
	empty := reaper.Empty()
	select {
	case <-empty:
		t.Error("closed")
	case <-time.After(50 * time.Millisecond): // a negative can only be waited for
	}
	reaper.Kill(pid, unix.SIGKILL)
	if e := <-exit; e.Signal() != "SIGKILL" {
		t.Errorf("ended by %q", e.Signal())
	}
	<-empty
}

func TestKillOfAChildThatIsGoneHitsNobody(t *testing.T) {
	pid, exit := start(t, "exit 0")
	<-exit
	_, other := start(t, "exec sleep 0.1")
	reaper.Kill(pid, unix.SIGKILL)
	if e := <-other; e.Code() != 0 {
		t.Errorf("another child ended by %q", e.Signal())
	}
}

func TestOrphanWithoutAnExitSignalIsReaped(t *testing.T) {
	// A clone whose end nobody is told of (exit signal 0) would be missed by a
	// plain wait, were it not given SIGCHLD with its new parent.
	_, exit := start(t, "perl -e 'syscall(56, 0, 0, 0, 0, 0) or exec \"sleep\", \"0.1\"; exit 0' || exit 0")
	<-exit
	<-reaper.Empty()
}

func children(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(content))
}
