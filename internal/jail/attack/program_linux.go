package attack

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"carrel/internal/jail"
)

// The first argument of an attacker says where it stands. The other modes are what it
// starts itself as.
const (
	ModeRow     = "attack-row"     // ID…: in this process; inside the tool tier
	ModeControl = "attack-control" // ID…: outside, each in a process of its own
)

// IsMode reports whether a program's arguments make it an attacker: one of the modes
// above, or carrel-worker's own, for a program that stands in its place.
func IsMode(args []string) bool {
	modes := []string{ModeRow, ModeControl, ModeVictim, ModeWhoAmI, ModeAbort, ModeTake, ModeExhaust, jail.ModeSpawner, jail.ModeNamespace, jail.ModeInit}
	return len(args) > 0 && slices.Contains(modes, args[0])
}

// Main is the attacker as a program. Its caller has locked the main goroutine to the
// main thread in an init, as carrel-worker does.
func Main(args []string) error {
	if !IsMode(args) {
		return fmt.Errorf("usage: attacker %s|%s ID… | %s threads|memory|descriptors", ModeRow, ModeControl, ModeExhaust)
	}
	switch args[0] {
	case ModeControl:
		return controls(args[1:])
	case ModeVictim:
		return beVictim()
	case ModeWhoAmI:
		_, err := fmt.Fprintln(os.Stdout, os.Geteuid())
		return err
	case ModeAbort:
		return abort()
	case ModeTake:
		return take(args[1:])
	case ModeExhaust:
		return Exhaust(strings.Join(args[1:], " "))
	case jail.ModeSpawner:
		return jail.ServeSpawner(os.NewFile(3, "line"))
	case jail.ModeNamespace:
		return jail.Hold()
	case jail.ModeInit:
		return enter()
	}
	return try(os.Stdout, args[1:])
}

// enter is the worker tier: a process that has gone through the whole jail, as
// the agent loop does, and then turns on it; or, where no rows are asked for, on the
// daemon at the other end of its stream.
func enter() error {
	e, err := jail.Enter()
	if err != nil {
		return err
	}
	for _, entry := range e.Env {
		name, value, _ := strings.Cut(entry, "=")
		if err := os.Setenv(name, value); err != nil { //nolint:forbidigo // this process's own environment, before anything reads it
			return err
		}
	}
	ids := strings.Fields(os.Getenv(RowsEnv))
	if len(ids) == 0 {
		return beHostile(e.In, e.Out)
	}
	// Whoever judges plants what the rows look for first, and then says so.
	if _, err := e.In.Read(make([]byte, 1)); err != nil {
		return err
	}
	return try(e.Out, ids)
}

// try runs rows in this process and prints their results.
func try(out io.Writer, ids []string) error {
	t, err := LoadTarget()
	if err != nil {
		return err
	}
	rows, err := Find(ids)
	if err != nil {
		return err
	}
	encoder := json.NewEncoder(out)
	for _, r := range rows {
		if err := encoder.Encode(Try(r, t)); err != nil {
			return err
		}
	}
	return nil
}

// controls runs each row in a process of its own, with what its control needs.
// A row that ended its process gets a result that says so.
func controls(ids []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	rows, err := Find(ids)
	if err != nil {
		return err
	}
	for _, r := range rows {
		cmd := exec.Command(self, ModeRow, r.ID) //nolint:noctx // ends with its row; the attacker itself
		cmd.SysProcAttr = attributes(r.Control)
		out, err := cmd.Output()
		if err != nil {
			if out, err = json.Marshal(Result{ID: r.ID, Error: "ended by " + err.Error(), Absent: true}); err != nil {
				return err
			}
			out = append(out, '\n')
		}
		if _, err := os.Stdout.Write(out); err != nil {
			return err
		}
	}
	return nil
}

func attributes(c Control) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if c != Fresh {
		return a
	}
	a.Cloneflags = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET |
		unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP
	a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
	a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	return a
}

// ModeAbort makes the attacker end by a signal that leaves a core file.
const ModeAbort = "attack-abort"

func abort() error {
	signal.Reset(unix.SIGABRT)
	// Go's runtime takes this signal, says so at length and ends otherwise; the
	// kernel's own way is one that no handler can be in.
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGABRT), uintptr(unsafe.Pointer(new([4]uintptr))), 0, 8, 0, 0)
	if errno != 0 {
		return errno
	}
	return unix.Kill(os.Getpid(), unix.SIGABRT)
}
