// Command carrel-lesshost runs a program on a host that lacks something, as older
// kernels and containers do:
//
//	carrel-lesshost WHAT… -- PROGRAM ARG…
//
// What is taken away is taken from the program and all it starts, for good, in the
// way that the program would meet it: the kernel's own answers, by a seccomp filter,
// and mounts in a mount namespace of its own (for which it takes root). The program
// takes this one's place: it has its process id, its descriptors and its signals.
// Tests run the daemon by it.
package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "carrel-lesshost:", err)
		os.Exit(1)
	}
}

// lack is something that a host has not got. Its parts are carried out in this
// order; most have one.
type lack struct {
	mounts  func() error
	answers []answer
	// abi is the newest Landlock there is; 0 = this kernel's own.
	abi uint64
}

// lacks are what can be taken away.
func lacks() map[string]lack {
	all := map[string]lack{
		"user-namespace":       {answers: withoutNamespace(unix.CLONE_NEWUSER, unix.EPERM)},  // Docker's seccomp profile
		"user-namespace=limit": {answers: withoutNamespace(unix.CLONE_NEWUSER, unix.ENOSPC)}, // user.max_user_namespaces = 0
		"mount-namespace":      {answers: withoutNamespace(unix.CLONE_NEWNS, unix.EPERM)},
		"pid-namespace":        {answers: withoutNamespace(unix.CLONE_NEWPID, unix.EINVAL)}, // a kernel without CONFIG_PID_NS; so below
		"network-namespace":    {answers: withoutNamespace(unix.CLONE_NEWNET, unix.EINVAL)},
		"ipc-namespace":        {answers: withoutNamespace(unix.CLONE_NEWIPC, unix.EINVAL)},
		"uts-namespace":        {answers: withoutNamespace(unix.CLONE_NEWUTS, unix.EINVAL)},
		"cgroup-namespace":     {answers: withoutNamespace(unix.CLONE_NEWCGROUP, unix.EINVAL)},
		"no-new-privs":         {answers: []answer{{call: unix.SYS_PRCTL, is: unix.PR_SET_NO_NEW_PRIVS, errno: unix.EINVAL}}},
		"landlock":             {answers: withoutLandlock(unix.ENOSYS)},     // not built in
		"landlock=off":         {answers: withoutLandlock(unix.EOPNOTSUPP)}, // not in the lsm= list
		"seccomp":              {answers: withoutFilters(unix.EINVAL)},      // without CONFIG_SECCOMP_FILTER
		"seccomp=absent": {answers: append(withoutFilters(unix.ENOSYS), // without CONFIG_SECCOMP
			answer{call: unix.SYS_PRCTL, is: unix.PR_GET_SECCOMP, errno: unix.EINVAL})},
		"proc":             {mounts: maskProc},
		"cgroup":           {mounts: hideCgroups},
		"cgroup=read-only": {mounts: sealCgroups},
	}
	for abi := range landlockABIs {
		all[fmt.Sprintf("landlock-abi=%d", abi)] = lack{
			answers: []answer{{call: unix.SYS_LANDLOCK_CREATE_RULESET, any: true, ask: true}}, abi: abi,
		}
	}
	return all
}

func run(args []string) error {
	all := lacks()
	end := slices.Index(args, "--")
	if end < 1 || end == len(args)-1 {
		names := slices.Sorted(maps.Keys(all))
		return fmt.Errorf("usage: carrel-lesshost WHAT… -- PROGRAM ARG…; WHAT is one of %s", strings.Join(names, ", "))
	}
	if args[0] == modeSupervise {
		return supervise(args[1:end])
	}
	// A filter and a mount namespace are a thread's: this one executes the program.
	runtime.LockOSThread()
	var answers []answer
	var what lack
	for _, name := range args[:end] {
		l, ok := all[name]
		if !ok {
			return fmt.Errorf("there is no %q to take away", name)
		}
		if l.abi != 0 {
			what.abi = l.abi
		}
		if l.mounts != nil {
			if err := ownMounts(); err != nil {
				return fmt.Errorf("%s (this takes root): %w", name, err)
			}
			if err := l.mounts(); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		answers = append(answers, l.answers...)
	}
	program, err := exec.LookPath(args[end+1])
	if err != nil {
		return err
	}
	if len(answers) > 0 {
		if err := restrict(answers, what.abi); err != nil {
			return err
		}
	}
	return fmt.Errorf("execute %s: %w", program, syscall.Exec(program, args[end+1:], os.Environ())) //nolint:gosec // it is what this is for
}

// restrict puts this thread under a filter that gives the answers. Those that need
// to be thought about are given by a supervisor, a child that lives as long as
// anything under the filter does.
func restrict(answers []answer, abi uint64) error {
	if !slices.ContainsFunc(answers, func(a answer) bool { return a.ask }) {
		_, err := load(answers, 0)
		return err
	}
	line, err := startSupervisor(answers, abi)
	if err != nil {
		return fmt.Errorf("start supervisor: %w", err)
	}
	listener, err := load(answers, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)
	if err != nil {
		return err
	}
	if err := unix.Sendmsg(line, []byte{0}, unix.UnixRights(listener), nil, 0); err != nil {
		return fmt.Errorf("give the supervisor its listener: %w", err)
	}
	return errors.Join(unix.Close(listener), unix.Close(line))
}
