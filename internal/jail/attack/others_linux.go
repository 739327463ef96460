package attack

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func prlimit(pid int) error {
	var old unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &old); err != nil {
		return err
	}
	return unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: old.Cur - 1, Max: old.Max}, nil)
}

func prlimitRead(pid int) error {
	var old unix.Rlimit
	return unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &old)
}

func setPriority(which int) func(int) error {
	return func(pid int) error {
		if which == unix.PRIO_PGRP {
			group, err := unix.Getpgid(pid)
			if err != nil {
				return err
			}
			pid = group
		}
		return unix.Setpriority(which, pid, lowest)
	}
}

func affinity(pid int) error {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(pid, &set); err != nil {
		return err
	}
	return unix.SchedSetaffinity(pid, &set)
}

func scheduler(pid int) error {
	var parameters int32 // sched_priority, 0 for SCHED_BATCH
	_, _, errno := unix.Syscall(unix.SYS_SCHED_SETSCHEDULER, uintptr(pid), unix.SCHED_BATCH, uintptr(unsafe.Pointer(&parameters)))
	return result(errno)
}

func schedParam(pid int) error {
	var parameters int32
	_, _, errno := unix.Syscall(unix.SYS_SCHED_SETPARAM, uintptr(pid), uintptr(unsafe.Pointer(&parameters)), 0)
	return result(errno)
}

func schedAttr(pid int) error {
	return unix.SchedSetAttr(pid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_BATCH, Nice: lowest}, 0)
}

// linux/ioprio.h
const (
	ioprioProcess = 1
	ioprioGroup   = 2
	ioprioUser    = 3
)

func ioPriority(who int) func(id int) error {
	return func(id int) error {
		const idleClass = 3 << 13
		_, _, errno := unix.Syscall(unix.SYS_IOPRIO_SET, uintptr(who), uintptr(id), idleClass)
		return result(errno)
	}
}

func ioPriorityGroup(pid int) error {
	group, err := unix.Getpgid(pid)
	if err != nil {
		return err
	}
	return ioPriority(ioprioGroup)(group)
}

func ptraceSeize(pid int) error {
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, 0, 0, 0)
	return result(errno)
}

// vmAccess goes for an address that holds nothing: EFAULT comes only after the
// kernel has agreed to the access at all.
func vmAccess(number uintptr) func(pid int) error {
	return func(pid int) error {
		var b [1]byte
		local := unix.Iovec{Base: &b[0], Len: 1}
		remote := unix.RemoteIovec{Base: 4096, Len: 1}
		_, _, errno := unix.Syscall6(number, uintptr(pid), uintptr(unsafe.Pointer(&local)), 1, uintptr(unsafe.Pointer(&remote)), 1, 0)
		if errno == unix.EFAULT {
			return nil
		}
		return result(errno)
	}
}

// movePages asks where pages are, none of them.
func movePages(pid int) error {
	_, _, errno := unix.Syscall6(unix.SYS_MOVE_PAGES, uintptr(pid), 0, 0, 0, 0, 0)
	return result(errno)
}

func migratePages(pid int) error {
	var nodes uint64 = 1
	_, _, errno := unix.Syscall6(unix.SYS_MIGRATE_PAGES, uintptr(pid), 64, uintptr(unsafe.Pointer(&nodes)), uintptr(unsafe.Pointer(&nodes)), 0, 0)
	return result(errno)
}

func processMadvise(pid int) error {
	const madvCold = 20
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	var nothing unix.Iovec
	_, _, errno := unix.Syscall6(unix.SYS_PROCESS_MADVISE, uintptr(fd), uintptr(unsafe.Pointer(&nothing)), 1, madvCold, 0, 0)
	return result(errno)
}

func processMrelease(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	_, _, errno := unix.Syscall(unix.SYS_PROCESS_MRELEASE, uintptr(fd), 0, 0)
	return reached(errno) // EINVAL: it lives
}

func schedCore(pid int) error {
	const (
		prSchedCore = 62
		shareTo     = 2 // PR_SCHED_CORE_SHARE_TO
	)
	err := unix.Prctl(prSchedCore, shareTo, uintptr(pid), 0, 0)
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("a kernel without it: %w", unix.ENODEV)
	}
	return err
}

func pidfdGetFD(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	_, err = unix.PidfdGetfd(fd, 0, 0)
	return err
}

func kcmp(pid int) error {
	_, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(os.Getpid()), uintptr(pid), 1 /* KCMP_VM */, 0, 0, 0)
	return result(errno)
}

func robustList(pid int) error {
	var head, length uintptr
	_, _, errno := unix.Syscall(unix.SYS_GET_ROBUST_LIST, uintptr(pid), uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&length)))
	return result(errno)
}

func raiseCore(*Target) error {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &l); err != nil {
		return err
	}
	if l.Max == 0 {
		return errStopped
	}
	return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: l.Max, Max: l.Max})
}

// dumpCore has a child that may do so end by a signal that leaves one. Where the host
// gives it to a program, no limit of a file's size is asked (core(5)).
func dumpCore(*Target) error {
	const enough = 1 << 20
	pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil {
		return err
	}
	if strings.ContainsAny(string(pattern[:min(1, len(pattern))]), "|@") {
		return fmt.Errorf("this host leaves no core files: %w", unix.ENODEV)
	}
	dir, err := os.MkdirTemp("", "carrel-attack-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &l); err != nil {
		return err
	}
	l.Cur = min(l.Max, enough)
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &l); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, ModeAbort) //nolint:noctx // ends by itself
	cmd.Dir = dir
	status, ok := errors.AsType[*exec.ExitError](cmd.Run())
	if !ok || !status.Sys().(syscall.WaitStatus).CoreDump() {
		return errStopped
	}
	return nil
}

// inherited looks for descriptors that would pass an exec: this process's own
// are all close-on-exec, so such a one was given to it.
func inherited(*Target) error {
	for fd := uintptr(3); fd < 1024; fd++ {
		if flags, err := unix.FcntlInt(fd, unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			return nil
		}
	}
	return errStopped
}
