package attack

import (
	"os"
	"os/signal"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"carrel/internal/jail"
)

// harmless is a signal that a Go program takes and ignores.
const harmless = unix.SIGWINCH

// lowest is the niceness that everybody may go to.
const lowest = 19

// toolRule names an argument check of the tool tier's filter.
func toolRule(call string) string { return "seccomp:" + call }

func processRows() []Row {
	row := func(id, title string, attack func(pid int) error, by ...string) []Row {
		r := Row{Group: groupProcesses, Tier: Tool, StoppedBy: by, Control: Plain}
		w, h := r, r
		w.ID, w.Title = id+"-worker", title+" the worker"
		w.Attack = func(t *Target) error { return attack(t.PID) }
		h.ID, h.Title = id+"-toolhost", title+" the tool host"
		h.Attack = func(t *Target) error { return attack(t.HostPID) }
		return []Row{w, h}
	}
	var rows []Row
	for _, pair := range [][]Row{
		// Signals. Of the tool host only the worker's own are told: a host shares
		// its commands' domain and may be killed by them, which costs the run.
		row("kill", "signal", func(pid int) error { return unix.Kill(pid, harmless) }, jail.RuleLandlockScope)[:1],
		row("tgkill", "signal by thread any thread of", tgkill, jail.RuleLandlockScope)[:1],
		row("pidfd-signal", "signal by pidfd", pidfdSignal, jail.RuleLandlockScope)[:1],
		row("sigqueue", "queue a signal for", sigqueue, jail.RuleLandlockScope)[:1],
		row("sigio", "have the kernel send a signal of choice (F_SETOWN) to", sigio, jail.RuleLandlockScope)[:1],
		// Hole 4: these go by uid alone.
		row("prlimit", "change a limit of", prlimit, toolRule("prlimit")),
		row("setpriority", "change the niceness of", setPriority(unix.PRIO_PROCESS), toolRule("setpriority")),
		row("setpriority-group", "change the niceness of the group of", setPriority(unix.PRIO_PGRP), toolRule("setpriority")),
		row("affinity", "change the processors of", affinity, toolRule("sched_setaffinity")),
		row("scheduler", "change the scheduler of", scheduler, toolRule("sched_setscheduler")),
		row("schedparam", "change the scheduler's parameters of", schedParam, toolRule("sched_setparam")),
		row("schedattr", "change the scheduler's attributes of", schedAttr, toolRule("sched_setattr")),
		row("ioprio", "change the I/O priority of", ioPriority, toolRule("ioprio_set")),
		// Insides.
		row("ptrace", "trace", ptraceSeize, "seccomp:ptrace", jail.LayerLandlock, "dumpable"),
		row("vm-readv", "read the memory of", vmRead, "seccomp:process_vm_readv", jail.LayerLandlock, "dumpable"),
		row("pidfd-getfd", "take a descriptor of", pidfdGetFD, "seccomp:pidfd_getfd", jail.LayerLandlock, "dumpable"),
		row("kcmp", "compare with", kcmp, "seccomp:kcmp", jail.LayerLandlock, "dumpable"),
		row("robust-list", "find the futexes of", robustList, jail.LayerLandlock, "dumpable"),
	} {
		rows = append(rows, pair...)
	}
	return append(rows, Row{
		ID: "setpriority-user", Group: groupProcesses, Tier: Tool, Control: Fresh, StoppedBy: []string{toolRule("setpriority")},
		Title:  "change the niceness of every process of this uid",
		Attack: func(*Target) error { return unix.Setpriority(unix.PRIO_USER, 0, lowest) },
	}, Row{
		ID: "core-limit", Group: groupProcesses, Tier: Tool, Control: Plain, StoppedBy: []string{"rlimits"},
		Title: "allow oneself core files", Attack: raiseCore,
	}, Row{
		ID: "file-size", Group: groupProcesses, Tier: Tool, Control: Plain, StoppedBy: []string{"rlimits"},
		Title: "make a file of 1 TiB", Attack: hugeFile,
	}, Row{
		ID: "inotify", Group: groupProcesses, Tier: Tool, Control: Plain, StoppedBy: []string{RuleInotify},
		Title: "take the inotify instances of the whole host", Attack: takeInotify,
	}, Row{
		ID: "inherited-descriptors", Group: groupSecrets, Tier: Tool, Control: Plain, StoppedBy: []string{"close-on-exec"},
		Title: "find an inherited descriptor between 3 and 1023", Attack: inherited,
	})
}

// tgkill tries every thread that the process may have: Landlock judges each by
// its own domain (trap 3).
func tgkill(pid int) error {
	err := error(errStopped)
	for tid := pid; tid < pid+64; tid++ {
		if e := unix.Tgkill(pid, tid, harmless); e == nil {
			return nil
		} else if tid == pid {
			err = e
		}
	}
	return err
}

func pidfdSignal(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	return unix.PidfdSendSignal(fd, harmless, nil, 0)
}

func sigqueue(pid int) error {
	var info unix.Siginfo
	info.Signo, info.Code = int32(harmless), -1 // SI_QUEUE
	_, _, errno := unix.Syscall(unix.SYS_RT_SIGQUEUEINFO, uintptr(pid), uintptr(harmless), uintptr(unsafe.Pointer(&info)))
	return result(errno)
}

// sigio makes the process the owner of a pipe that becomes readable, with SIGTERM
// for a signal. The kernel tells the one who asks for it nothing, so the proof is
// the process's death.
func sigio(pid int) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	fd := r.Fd()
	if _, err := unix.FcntlInt(fd, unix.F_SETSIG, int(unix.SIGTERM)); err != nil {
		return err
	}
	if _, err := unix.FcntlInt(fd, unix.F_SETOWN, pid); err != nil {
		return err
	}
	if _, err := unix.FcntlInt(fd, unix.F_SETFL, unix.O_ASYNC|unix.O_NONBLOCK); err != nil {
		return err
	}
	if _, err := w.WriteString("x"); err != nil {
		return err
	}
	return diesWithin(pid, 500*time.Millisecond)
}

func prlimit(pid int) error {
	var old unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &old); err != nil {
		return err
	}
	return unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: old.Cur - 1, Max: old.Max}, nil)
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

func ioPriority(pid int) error {
	const whoProcess, idleClass = 1, 3 << 13 // linux/ioprio.h
	_, _, errno := unix.Syscall(unix.SYS_IOPRIO_SET, whoProcess, uintptr(pid), idleClass)
	return result(errno)
}

func ptraceSeize(pid int) error {
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, 0, 0, 0)
	return result(errno)
}

// vmRead reads from an address that holds nothing: EFAULT comes only after the
// kernel has agreed to read at all.
func vmRead(pid int) error {
	var b [1]byte
	local := []unix.Iovec{{Base: &b[0], Len: 1}}
	_, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: 4096, Len: 1}}, 0)
	if err == unix.EFAULT {
		return nil
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

// hugeFile makes a sparse one.
func hugeFile(*Target) error {
	fd, err := unix.MemfdCreate("carrel-attack", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	signal.Ignore(unix.SIGXFSZ)
	return unix.Ftruncate(fd, 1<<40)
}

// takeInotify takes a quarter of the kernel's default number of instances, which is
// one for all sandboxes and, as root, the host's services: four such would have all.
func takeInotify(*Target) error {
	for range 32 {
		if _, err := unix.InotifyInit1(unix.IN_CLOEXEC); err != nil {
			return err
		}
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
