package local

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"carrel/internal/engine"
	"carrel/internal/jsonrpc"
	"carrel/internal/workspace"
	"carrel/protocol"
)

const (
	cold = "cold"
	warm = "warm"
)

// room is a bound worker to run scripts in.
type room struct {
	p    engine.Process
	conn *jsonrpc.Conn
	end  func()
}

// enter starts a worker for a user, cold or warm, up to the point of use.
func enter(t *testing.T, e *Engine, how, user string) *room {
	t.Helper()
	var spec engine.Spec
	if how == cold {
		spec.UserID = user
	}
	p, err := e.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	r := &room{p: p, end: sync.OnceFunc(func() {
		p.Kill()
		<-p.Done()
		wg.Wait()
	})}
	t.Cleanup(r.end)
	if err := p.Bind(t.Context(), engine.Binding{UserID: user}); err != nil {
		t.Fatal(err)
	}
	r.conn = jsonrpc.NewConn(p.Stream(), onEvent(func(protocol.EventType) {}), jsonrpc.Options{})
	wg.Go(func() { _ = r.conn.Run(t.Context()) }) // it ends with the worker
	var ready protocol.InitializeResult
	if err := r.conn.Call(t.Context(), protocol.MethodInitialize, protocol.InitializeParams{ProtocolVersion: protocol.Version, UserID: user}, &ready); err != nil {
		t.Fatal(err)
	}
	return r
}

// sh runs a script and gives its standard output. A script that fails fails the test.
func (r *room) sh(t *testing.T, script string) string {
	t.Helper()
	var result protocol.ExecResult
	err := r.conn.Call(t.Context(), protocol.MethodExec, protocol.ExecParams{
		ExecRequest: protocol.ExecRequest{Command: protocol.Command{Shell: "set -e; " + script}},
	}, &result)
	if err != nil {
		t.Fatal(err)
	}
	if result.ExitCode != 0 {
		t.Fatalf("%s\nended with %d: %s%s", script, result.ExitCode, result.Stdout, result.Stderr)
	}
	return strings.TrimSpace(result.Stdout)
}

// onDisk is who owns a file of the user's workspace, and its mode.
func onDisk(t *testing.T, e *Engine, user, name string) string {
	t.Helper()
	st := stat(t, filepath.Join(userDir(e, user), name))
	return fmt.Sprintf("%d:%d %o", st.Uid, st.Gid, st.Mode&0o7777)
}

func userDir(e *Engine, user string) string {
	return filepath.Join(e.o.Dirs.Path(), "users", workspace.DirName(user), "workspace")
}

func stat(t *testing.T, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(path, err)
	}
	return st
}

// hostUIDOf is the real uid of a process as the host sees it.
func hostUIDOf(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "\nUid:\t")
	uid, err := strconv.Atoi(strings.Fields(after)[0])
	if err != nil {
		t.Fatal(err)
	}
	return uid
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root") // the gate's root half runs it, and fails if it does not
	}
}

// TestFilesAreOneUsersHoweverTheWorkerStarted hands files from one worker of a
// user to the next, in every order of cold and warm ones.
func TestFilesAreOneUsersHoweverTheWorkerStarted(t *testing.T) {
	for _, order := range [][]string{{warm, cold}, {cold, warm}, {warm, warm}} {
		t.Run(strings.Join(order, " then "), func(t *testing.T) {
			e := newEngine(t)
			first := enter(t, e, order[0], "ana")
			inside := first.sh(t, `umask 027; echo one >file; mkdir dir; echo deep >dir/deep; ln file hard; ln -s file soft
				chmod 4755 dir/deep; stat -c %u:%g file dir dir/deep soft . | sort -u`)
			if inside != "1000:1000" {
				t.Errorf("inside the owner is %s", inside)
			}
			first.end()

			own := stat(t, userDir(e, "ana"))
			for name, mode := range map[string]string{"file": "640", "dir": "750", "dir/deep": "4755", "hard": "640", "soft": "777"} {
				if got, want := onDisk(t, e, "ana", name), fmt.Sprintf("%d:%d %s", own.Uid, own.Gid, mode); got != want {
					t.Errorf("%s is %s on disk, want %s", name, got, want)
				}
			}

			second := enter(t, e, order[1], "ana")
			if uid := stat(t, userDir(e, "ana")).Uid; order[1] == warm && os.Geteuid() == 0 && hostUIDOf(t, second.p.PID()) == int(uid) {
				t.Errorf("the warm worker has the user's own host uid %d: nothing is shown", uid)
			}
			got := second.sh(t, `cat file dir/deep; echo two >>file; cat hard; mv dir/deep moved; chmod 600 file; rm soft; rmdir dir
				ln file again; setfattr -n user.k -v v file 2>/dev/null || true; touch new; stat -c %u:%g file moved new . | sort -u`)
			if want := "one\ndeep\none\ntwo\n1000:1000"; got != want {
				t.Errorf("the second worker reads %q, want %q", got, want)
			}
			if got, want := onDisk(t, e, "ana", "new"), fmt.Sprintf("%d:%d ", own.Uid, own.Gid); !strings.HasPrefix(got, want) {
				t.Errorf("its file is %s on disk, want %s", got, want)
			}
		})
	}
}

func TestWarmWorkerGivesNothingAwayAndTakesNothing(t *testing.T) {
	needRoot(t)
	e := newEngine(t)
	other := enter(t, e, cold, "bob")
	bob := hostUIDOf(t, other.p.PID())
	r := enter(t, e, warm, "ana")
	r.sh(t, "echo mine >mine; echo theirs >theirs; chmod 666 theirs")
	theirs := filepath.Join(userDir(e, "ana"), "theirs")
	if err := os.Chown(theirs, bob, bob); err != nil {
		t.Fatal(err)
	}
	before := onDisk(t, e, "ana", "mine")
	for _, command := range []string{
		"chown 0 mine", "chgrp 0 mine", "chown 1001 mine", "chown 65534 mine", fmt.Sprintf("chown %d mine", bob),
		fmt.Sprintf("chown %d mine", hostUIDOf(t, r.p.PID())), // even to what it is on the host
		// What another user owns has no owner here that anybody could be, so that
		// its mode does not matter.
		"echo x >>theirs", "chmod 777 theirs", "chown 1000 theirs",
	} {
		r.sh(t, "if "+command+" 2>/dev/null; then exit 1; fi")
	}
	if got := r.sh(t, "stat -c %u:%g theirs"); got != "65534:65534" {
		t.Errorf("another's file shows as %s", got)
	}
	if after := onDisk(t, e, "ana", "mine"); after != before {
		t.Errorf("the file is %s on disk now, and was %s", after, before)
	}
}

// TestSlotUIDOwnsNothingOnDisk is for a worker that has got out of its mounts: as
// the uid it has on the host it can open neither another user's files nor, but for
// the mount, its own user's.
func TestSlotUIDOwnsNothingOnDisk(t *testing.T) {
	needRoot(t)
	e := newEngine(t)
	r := enter(t, e, warm, "ana")
	r.sh(t, "umask 0; echo mine >mine")
	dir, err := os.Open(userDir(e, "ana"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dir.Close() }()
	read := func(uid uint32) error {
		cmd := exec.CommandContext(t.Context(), "/bin/cat", "/proc/self/fd/3/mine")
		cmd.ExtraFiles = []*os.File{dir}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		return cmd.Run()
	}
	if err := read(stat(t, userDir(e, "ana")).Uid); err != nil {
		t.Fatalf("control: the owner cannot read it either: %v", err)
	}
	if read(uint32(hostUIDOf(t, r.p.PID()))) == nil {
		t.Error("the slot's uid reads the file past the mount")
	}
}

func TestLiveWorkersNeverShareAHostUID(t *testing.T) {
	needRoot(t)
	e := newEngine(t)
	seen := make(map[int]string)
	note := func(what string, p engine.Process) {
		uid := hostUIDOf(t, p.PID())
		if before, taken := seen[uid]; taken {
			t.Errorf("%s and %s both have host uid %d", before, what, uid)
		}
		seen[uid] = what
	}
	for _, user := range []string{"ana", "bob"} {
		note("warm of "+user, enter(t, e, warm, user).p)
		note("cold of "+user, enter(t, e, cold, user).p)
	}
	for i := range 3 {
		p, err := e.Start(t.Context(), engine.Spec{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			p.Kill()
			<-p.Done()
		}()
		note("unbound "+strconv.Itoa(i), p)
	}
}

// oneSlot makes an engine with room for one warm worker.
func oneSlot(t *testing.T) *Engine {
	t.Helper()
	from := newEngine(t)
	dirs, err := workspace.Open(t.Context(), workspace.Options{
		BaseDir: filepath.Join(t.TempDir(), "data"), Root: true, UIDFirst: 200000, UIDCount: 10, SlotUIDs: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	o := from.o
	o.Dirs, o.Logger = dirs, slog.New(slog.DiscardHandler)
	e := New(o)
	t.Cleanup(func() {
		e.Close()
		if err := dirs.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func TestSlotIsFreeOnlyOnceItsWorkerIsGone(t *testing.T) {
	needRoot(t)
	e := oneSlot(t)
	for _, ending := range []string{"killed", "killed with the spawner"} {
		p, err := e.Start(t.Context(), engine.Spec{})
		if err != nil {
			t.Fatal(ending, err)
		}
		if _, err := e.Start(t.Context(), engine.Spec{}); err == nil || !strings.Contains(err.Error(), "no slot uid is free") {
			t.Fatalf("a second worker in one slot: %v", err)
		}
		pidfd, err := unix.PidfdOpen(p.PID(), 0)
		if err != nil {
			t.Fatal(err)
		}
		if ending == "killed" {
			p.Kill()
		} else if err := syscall.Kill(parentOf(t, p.PID()), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-p.Done()
		// Readable at once: the process had ended before Done said so.
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 0); n != 1 {
			t.Errorf("%s: the process outlives its slot (%v)", ending, err)
		}
		_ = unix.Close(pidfd)
	}
	enter(t, e, warm, "ana")
}

func TestWarmWorkerThatDiedBeforeItsUserCameHoldsNothing(t *testing.T) {
	needRoot(t)
	e := oneSlot(t)
	p, err := e.Start(t.Context(), engine.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	p.Kill()
	<-p.Done()
	if err := p.Bind(t.Context(), engine.Binding{UserID: "ana"}); !errors.Is(err, errEnded) {
		t.Errorf("binding it: %v", err)
	}
	if err := e.o.Dirs.Remove(t.Context(), "ana"); err != nil {
		t.Errorf("it holds the directory: %v", err)
	}
	enter(t, e, warm, "ana")
}

func parentOf(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "\nPPid:\t")
	line, _, _ := strings.Cut(after, "\n")
	parent, err := strconv.Atoi(line)
	if err != nil {
		t.Fatal(err)
	}
	return parent
}
