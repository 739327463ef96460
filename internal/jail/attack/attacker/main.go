// Command attacker runs attacks on a sandbox, by their ids, and prints a result
// for each. How it is started says where it stands:
//
//	attacker row ID…         in this process: inside the tool tier
//	attacker control ID…     outside, each in a process of its own
//	attacker exhaust WHAT    in this process: all there is of one thing
//	attacker spawner | init  in carrel-worker's place: the worker tier; the ids are
//	                         in the environment that it is bound with
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"carrel/internal/jail"
	"carrel/internal/jail/attack"
)

// As in carrel-worker: the process leader is no other goroutine's thread.
func init() { runtime.LockOSThread() }

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "attacker:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("usage: attacker row|control ID…")
	}
	switch args[0] {
	case "row":
		return rows(os.Stdout, args[1:])
	case "control":
		return controls(args[1:])
	case attack.ModeVictim:
		return attack.BeVictim()
	case attack.ModeWhoAmI:
		_, err := fmt.Fprintln(os.Stdout, os.Geteuid())
		return err
	case attack.ModeExhaust:
		if len(args) != 2 {
			return errors.New("usage: attacker exhaust threads|memory|descriptors")
		}
		return attack.Exhaust(args[1])
	case jail.ModeSpawner:
		return jail.ServeSpawner(os.NewFile(3, "line"))
	case jail.ModeNamespace:
		return jail.Hold()
	case jail.ModeInit:
		return enter()
	}
	return fmt.Errorf("unknown mode %q", args[0])
}

// enter is the worker tier: a process that has gone through the whole jail, as
// the agent loop does, and then turns on it.
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
	// Whoever judges plants what the rows look for first, and then says so.
	if _, err := e.In.Read(make([]byte, 1)); err != nil {
		return err
	}
	return rows(e.Out, strings.Fields(os.Getenv(attack.RowsEnv)))
}

func rows(out io.Writer, ids []string) error {
	t, err := attack.LoadTarget()
	if err != nil {
		return err
	}
	encoder := json.NewEncoder(out)
	for _, id := range ids {
		r, err := attack.Find(id)
		if err != nil {
			return err
		}
		if err := encoder.Encode(attack.Try(r, t)); err != nil {
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
	for _, id := range ids {
		r, err := attack.Find(id)
		if err != nil {
			return err
		}
		cmd := exec.Command(self, "row", id) //nolint:noctx,gosec // ends with its row; the attacker itself
		cmd.SysProcAttr = attributes(r.Control)
		out, err := cmd.Output()
		if err != nil {
			if out, err = json.Marshal(attack.Result{ID: id, Error: "ended by " + err.Error(), Absent: true}); err != nil {
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

func attributes(c attack.Control) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if c != attack.Fresh {
		return a
	}
	a.Cloneflags = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET |
		unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP
	a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
	a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	return a
}
