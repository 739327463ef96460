package attack

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"carrel/internal/jail"
)

// harmless is a signal that a Go program takes and ignores.
const harmless = unix.SIGWINCH

// lowest is the niceness that everybody may go to.
const lowest = 19

func processRows() []Row {
	var rows []Row
	for _, w := range everybody() {
		add := func(id, title string, attack func(pid int) error, by ...string) {
			rows = append(rows, Row{
				ID: id + "-" + w.suffix, Group: groupProcesses, Tier: Tool, Title: title + " " + w.title, StoppedBy: by, Control: Plain,
				Attack: func(t *Target) error { return attack(w.pid(t)) },
			})
		}
		// Of a command's own tool host no signals are told: it shares its commands'
		// domain and may be killed by them, which costs the run.
		if w.outside {
			add("kill", "signal", func(pid int) error { return unix.Kill(pid, harmless) }, jail.RuleLandlockScope)
			add("kill-group", "signal the group of", killGroup, jail.RuleLandlockScope)
			add("tgkill", "signal by thread any thread of", tgkill, jail.RuleLandlockScope)
			add("tkill", "signal by the old call", tkill, jail.RuleLandlockScope)
			add("pidfd-signal", "signal by pidfd", pidfdSignal(0), jail.RuleLandlockScope)
			add("pidfd-signal-group", "signal by pidfd the group of", pidfdSignal(pidfdSignalGroup), jail.RuleLandlockScope)
			add("sigqueue", "queue a signal for", sigqueue, jail.RuleLandlockScope)
			add("tgsigqueue", "queue a signal for a thread of", tgsigqueue, jail.RuleLandlockScope)
		}
		// Hole 4: these go by uid alone.
		add("prlimit", "change a limit of", prlimit, seccompRule("prlimit64"))
		add("prlimit-read", "read a limit of", prlimitRead, seccompRule("prlimit64"))
		add("setpriority", "change the niceness of", setPriority(unix.PRIO_PROCESS), seccompRule("setpriority"))
		add("setpriority-group", "change the niceness of the group of", setPriority(unix.PRIO_PGRP), seccompRule("setpriority"))
		add("affinity", "change the processors of", affinity, seccompRule("sched_setaffinity"))
		add("scheduler", "change the scheduler of", scheduler, seccompRule("sched_setscheduler"))
		add("schedparam", "change the scheduler's parameters of", schedParam, seccompRule("sched_setparam"))
		add("schedattr", "change the scheduler's attributes of", schedAttr, seccompRule("sched_setattr"))
		add("ioprio", "change the I/O priority of", ioPriority(ioprioProcess), seccompRule("ioprio_set"))
		add("ioprio-group", "change the I/O priority of the group of", ioPriorityGroup, seccompRule("ioprio_set"))
		add("mrelease", "take the memory of, if it is ending,", processMrelease, seccompRule("process_mrelease"))
		// Insides.
		inside := func(call string) []string { return append([]string{seccompRule(call)}, w.insides...) }
		add("ptrace", "trace", ptraceSeize, inside("ptrace")...)
		add("vm-readv", "read the memory of", vmAccess(unix.SYS_PROCESS_VM_READV), inside("process_vm_readv")...)
		add("vm-writev", "write the memory of", vmAccess(unix.SYS_PROCESS_VM_WRITEV), inside("process_vm_writev")...)
		add("pidfd-getfd", "take a descriptor of", pidfdGetFD, inside("pidfd_getfd")...)
		add("kcmp", "compare with", kcmp, inside("kcmp")...)
		add("move-pages", "move the pages of", movePages, inside("move_pages")...)
		add("migrate-pages", "move all pages of", migratePages, inside("migrate_pages")...)
		add("robust-list", "find the futexes of", robustList, w.insides...)
		add("sched-core", "share a core with", schedCore, w.insides...)
	}
	return append(rows, otherProcessRows()...)
}

// otherProcessRows are those that one process stands for, or that look at what
// became of it: the sibling answers, and a worker that ended ends its sandbox.
func otherProcessRows() []Row {
	row := func(id, group, title string, c Control, attack func(*Target) error, by ...string) Row {
		return Row{ID: id, Group: group, Tier: Tool, Title: title, StoppedBy: by, Control: c, Attack: attack}
	}
	// The kernel tells whoever asks for such a signal nothing.
	onSibling := func(own func(pid int) error) func(*Target) error {
		return func(t *Target) error {
			if err := own(t.Sibling); err != nil {
				return err
			}
			if t.alive() {
				return errStopped
			}
			return nil
		}
	}
	return []Row{
		row("sigio-worker", groupProcesses, "have the kernel send a signal of choice (F_SETOWN) to the worker", Plain, func(t *Target) error {
			if err := sigio(setOwn)(t.PID); err != nil {
				return err
			}
			return diesWithin(t.PID, time.Second)
		}, jail.RuleLandlockScope),
		row("sigio-sibling", groupProcesses, "have the kernel send a signal of choice (F_SETOWN) to another run's command", Plain,
			onSibling(sigio(setOwn)), jail.RuleLandlockScope),
		row("sigio-thread-sibling", groupProcesses, "the same by thread (F_SETOWN_EX)", Plain, onSibling(sigio(setOwnThread)), jail.RuleLandlockScope),
		row("sigio-ioctl-sibling", groupProcesses, "the same by ioctl on a socket (FIOSETOWN)", Plain, onSibling(sigio(setOwnIoctl(fioSetOwn))), jail.RuleLandlockScope),
		row("sigio-spgrp-sibling", groupProcesses, "the same by ioctl on a socket (SIOCSPGRP)", Plain, onSibling(sigio(setOwnIoctl(siocSPgrp))), jail.RuleLandlockScope),
		row("abstract-sibling", groupProcesses, "connect to an abstract socket of another run's command", Plain, func(t *Target) error {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			return unix.Connect(fd, victimSocket(t.Sibling, unix.SOCK_STREAM))
		}, jail.RuleLandlockScope),
		row("abstract-datagram-sibling", groupProcesses, "send to an abstract socket of another run's command", Plain, func(t *Target) error {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			return unix.Sendto(fd, []byte("x"), unix.MSG_DONTWAIT, victimSocket(t.Sibling, unix.SOCK_DGRAM))
		}, jail.RuleLandlockScope),
		row("kill-all", groupProcesses, "signal everybody at once", Fresh, killAll, jail.RuleLandlockScope),
		row("setpriority-user", groupProcesses, "change the niceness of every process of this uid", Fresh, func(*Target) error {
			return unix.Setpriority(unix.PRIO_USER, 0, lowest)
		}, seccompRule("setpriority")),
		row("ioprio-user", groupProcesses, "change the I/O priority of every process of this uid", Fresh, func(*Target) error {
			return ioPriority(ioprioUser)(os.Getuid())
		}, seccompRule("ioprio_set")),
		row("process-madvise", groupProcesses, "have the pages of the worker thrown out", Root, func(t *Target) error { return processMadvise(t.PID) },
			seccompRule("process_madvise"), capabilities, dumpable, rulePtrace),
		row("priority-garbage", groupProcesses, "change the niceness of the worker, with garbage above its pid's 32 bits", Plain, func(t *Target) error {
			_, _, errno := unix.Syscall(unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, garbageBits|uintptr(t.PID), lowest)
			return result(errno)
		}, seccompRule("setpriority")),
		row("core-limit", groupSecrets, "allow oneself core files", Plain, raiseCore, rlimits),
		row("core-dump", groupSecrets, "leave a core file", Plain, dumpCore, rlimits),
		row("inherited-descriptors", groupSecrets, "find an inherited descriptor between 3 and 1023", Plain, inherited, closeOnExec),
	}
}
