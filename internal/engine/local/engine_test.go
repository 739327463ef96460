package local

import (
	"errors"
	"log/slog"
	"os"
	"strconv"
	"syscall"
	"testing"

	"carrel/internal/engine"
	"carrel/internal/jail"
	"carrel/protocol"
)

func start(t *testing.T, e *Engine, user string) engine.Process {
	t.Helper()
	p, err := e.Start(t.Context(), engine.Spec{UserID: user})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		<-p.Done()
	})
	if err := p.Bind(t.Context(), engine.Binding{UserID: user}); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestExitTellsHowAWorkerEnded(t *testing.T) {
	e := newEngine(t)
	killed := start(t, e, "ana")
	if err := syscall.Kill(killed.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-killed.Done()
	if got := killed.Exit().Signal; got != "SIGKILL" {
		t.Errorf("signal %q", got)
	}
	ended := start(t, e, "bob")
	if err := ended.Stream().Close(); err != nil { // the end of its input is its orchestrator's end
		t.Fatal(err)
	}
	<-ended.Done()
	if code := ended.Exit().ExitCode; code == nil || *code != 0 {
		t.Errorf("exit %+v", ended.Exit())
	}
}

func TestDirectoryIsHeldUntilTheWorkerIsGone(t *testing.T) {
	e := newEngine(t)
	p := start(t, e, "ana")
	if err := e.o.Dirs.Remove(t.Context(), "ana"); protocol.CodeOf(err) != protocol.CodeConflict {
		t.Errorf("removing the directory of a living worker: %v", err)
	}
	p.Kill()
	<-p.Done()
	if err := e.o.Dirs.Remove(t.Context(), "ana"); err != nil {
		t.Errorf("removing it afterwards: %v", err)
	}
}

func TestWorkersDieWithTheSpawnerAndTheNextStartWorks(t *testing.T) {
	e := newEngine(t)
	p := start(t, e, "ana")
	if err := syscall.Kill(parentOf(t, p.PID()), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	start(t, e, "ana")
}

func TestFailedStartNamesItsStepAndLeavesNothing(t *testing.T) {
	e := newEngine(t)
	broken := New(Options{
		Worker: "/bin/true", // ends without a word
		Dirs:   e.o.Dirs,
		Limits: jail.DefaultLimits(),
		Env:    e.o.Env,
		Logger: slog.New(slog.DiscardHandler),
	})
	defer broken.Close()
	_, err := broken.Start(t.Context(), engine.Spec{UserID: "ana"})
	if protocol.CodeOf(err) != protocol.CodeWorkerStartFailed {
		t.Errorf("the error is %v", err)
	}
	if setup, ok := errors.AsType[*jail.SetupError](err); !ok || setup.Step != jail.StepClone {
		t.Errorf("the error names no step: %v", err)
	}
	if err := e.o.Dirs.Remove(t.Context(), "ana"); err != nil {
		t.Errorf("the failed start holds the directory: %v", err)
	}
}

func TestCloseKillsEveryWorker(t *testing.T) {
	e := newEngine(t)
	p := start(t, e, "ana")
	e.Close()
	<-p.Done()
	if _, err := e.Start(t.Context(), engine.Spec{UserID: "ana"}); protocol.CodeOf(err) != protocol.CodeShuttingDown {
		t.Errorf("a start after Close: %v", err)
	}
}

func TestSandboxWithItsToolsIsInAGroupOfItsOwn(t *testing.T) {
	e := newEngine(t)
	if e.o.Cgroups == nil {
		t.Log("this host gives this user no groups")
		return
	}
	p, other := start(t, e, "ana"), start(t, e, "bob")
	if groupOf(t, p.PID()) == groupOf(t, other.PID()) || groupOf(t, p.PID()) == groupOf(t, os.Getpid()) {
		t.Errorf("the groups of two workers and of the daemon: %q %q %q", groupOf(t, p.PID()), groupOf(t, other.PID()), groupOf(t, os.Getpid()))
	}
	if u := p.Usage(); u.MemoryBytes == 0 || u.CPU == 0 {
		t.Errorf("usage %+v", u)
	}
	group := p.(*process).group //nolint:forcetypeassert // the engine's own type
	p.Kill()
	<-p.Done()
	if _, err := group.Usage(); err == nil {
		t.Error("the group is still there after its worker's end")
	}
}

// groupOf tells a process's groups, of all hierarchies.
func groupOf(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestExternalKillIsNotTakenForOneForMemory(t *testing.T) {
	e := newEngine(t)
	p := start(t, e, "ana")
	if err := syscall.Kill(p.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	if p.Exit().OOMKill || p.OOMKills() != 0 {
		t.Errorf("exit %+v, %d kills", p.Exit(), p.OOMKills())
	}
}
