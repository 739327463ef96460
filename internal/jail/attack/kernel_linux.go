package attack

import (
	"errors"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"carrel/internal/jail"
)

func credential(id int) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(id), Gid: uint32(id)}}
}

// call makes a system call and asks only whether the kernel itself answered.
func call(number uintptr, a ...uintptr) func(*Target) error {
	return func(*Target) error {
		var args [6]uintptr
		copy(args[:], a)
		_, _, errno := unix.Syscall6(number, args[0], args[1], args[2], args[3], args[4], args[5])
		return reached(errno)
	}
}

// traceMe asks to be traced by whoever started this process, who will never let it go
// on after a stop. A traced thread stops at each signal, and Go's runtime sends SIGURG
// to one that has run for long, as under load: so that none comes, all are blocked.
// The attacker's main goroutine keeps its thread.
func traceMe(t *Target) error {
	var all, before unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &before); err != nil {
		return err
	}
	err := call(unix.SYS_PTRACE, unix.PTRACE_TRACEME)(t)
	if err != nil {
		err = errors.Join(err, unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil))
	}
	return err
}

// nowhere is an address that holds nothing.
const nowhere = 8

func kernelRows() []Row {
	row := func(id, title string, c Control, attack func(*Target) error, by ...string) Row {
		if len(by) == 0 {
			by = []string{"seccomp:" + id}
		}
		return Row{ID: id, Group: groupKernel, Tier: Tool, Title: title, StoppedBy: by, Control: c, Attack: attack}
	}
	cwd := ^uintptr(99) // AT_FDCWD, -100
	rows := []Row{
		row("mount", "mount a tmpfs", Fresh, func(*Target) error { return unix.Mount("tmpfs", "/tmp", "tmpfs", 0, "") },
			"seccomp:mount", jail.LayerUser, jail.LayerLandlock),
		row("remount", "make the root writable again", Fresh, func(*Target) error {
			return unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND, "")
		}, "seccomp:mount", jail.LayerUser, jail.LayerLandlock),
		row("umount", "unmount", Fresh, call(unix.SYS_UMOUNT2, nowhere, 0)),
		row("open_tree", "copy a mount", Fresh, func(*Target) error {
			_, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
			return err
		}),
		row("move_mount", "move a mount", Fresh, call(unix.SYS_MOVE_MOUNT, cwd, nowhere, cwd, nowhere, 0)),
		row("mount_setattr", "change a mount's attributes", Fresh, call(unix.SYS_MOUNT_SETATTR, cwd, nowhere, 0, nowhere, 32)),
		row("fsopen", "make a file system", Fresh, call(unix.SYS_FSOPEN, nowhere, 0)),
		row("fspick", "change a file system", Fresh, call(unix.SYS_FSPICK, cwd, nowhere, 0)),
		row("pivot_root", "change the root mount", Fresh, call(unix.SYS_PIVOT_ROOT, nowhere, nowhere)),
		row("chroot", "change the root directory", Fresh, func(*Target) error { return unix.Chroot("/tmp") }),
		row("setns", "enter a namespace", Fresh, func(*Target) error {
			fd, err := unix.Open("/proc/self/ns/uts", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			return unix.Setns(fd, unix.CLONE_NEWUTS)
		}),
		row("statmount", "look through the mount tree", Plain, call(unix.SYS_STATMOUNT, nowhere, nowhere, 0, 0)),
		row("clone3", "clone with flags that no filter sees", Plain, call(unix.SYS_CLONE3, nowhere, 0)),
		row("keyctl", "look into the kernel's keyrings", Plain, call(unix.SYS_KEYCTL, 99)),
		row("add_key", "put a key into a keyring", Plain, call(unix.SYS_ADD_KEY, nowhere, nowhere, 0, 0, 0)),
		row("request_key", "ask the host for a key", Plain, call(unix.SYS_REQUEST_KEY, nowhere, nowhere, 0, 0)),
		row("bpf", "load a program into the kernel", Root, call(unix.SYS_BPF, 0, nowhere, 8)),
		row("userfaultfd", "handle page faults", Plain, call(unix.SYS_USERFAULTFD, 1 /* UFFD_USER_MODE_ONLY */)),
		row("io_uring", "work past every filter", Plain, call(unix.SYS_IO_URING_SETUP, 1, nowhere)),
		row("perf", "measure other programs", Plain, call(unix.SYS_PERF_EVENT_OPEN, nowhere, 0, ^uintptr(0), ^uintptr(0), 0)),
		row("quotactl", "set quotas", Plain, call(unix.SYS_QUOTACTL, 0x800001<<8 /* Q_SYNC, USRQUOTA */, 0, 0, 0)),
		row("open_by_handle_at", "open a file past the mount tree", Fresh, call(unix.SYS_OPEN_BY_HANDLE_AT, cwd, nowhere, 0), "seccomp:open_by_handle_at", jail.LayerUser),
		row("personality", "switch address randomization off", Plain, call(unix.SYS_PERSONALITY, 0x0040000 /* ADDR_NO_RANDOMIZE */)),
		row("ptrace-me", "ask to be traced", Plain, traceMe, "seccomp:ptrace"),
		row("modify_ldt", "change the descriptor table", Plain, call(unix.SYS_MODIFY_LDT, 0, nowhere, 0)),
		row("iopl", "ask for the processor's ports", Plain, call(unix.SYS_IOPL, 0)),
		row("syslog", "read the kernel's log", Root, call(unix.SYS_SYSLOG, 10 /* SYSLOG_ACTION_SIZE_BUFFER */)),
		row("kexec", "load another kernel", Root, call(unix.SYS_KEXEC_LOAD, 0, 0, 0, 1<<30), "seccomp:kexec_load", jail.LayerUser),
		row("init_module", "load a module", Root, call(unix.SYS_INIT_MODULE, nowhere, 0, nowhere), "seccomp:init_module", jail.LayerUser),
		row("acct", "switch accounting", Root, call(unix.SYS_ACCT, nowhere), "seccomp:acct", jail.LayerUser),
		row("process_madvise", "advise on another's memory", Plain, call(unix.SYS_PROCESS_MADVISE, ^uintptr(0), nowhere, 0, 0, 0)),
		row("memfd_secret", "memory that the kernel cannot read", Plain, call(unix.SYS_MEMFD_SECRET, ^uintptr(0))),
		row("set_mempolicy", "bind memory to a node", Plain, call(unix.SYS_SET_MEMPOLICY, 0, 0, 0)),
		row("lsm_attr", "ask the security modules", Plain, call(unix.SYS_LSM_LIST_MODULES, nowhere, nowhere, 0), "seccomp:lsm_list_modules"),
		row("mq_open", "make a message queue", Plain, messageQueue, "rlimits"),
	}
	rows = append(rows,
		Row{ID: "abi-x32", Group: groupABI, Tier: Tool, Title: "call by the x32 ABI", StoppedBy: []string{"seccomp:arch"}, Control: Plain, Attack: x32GetPID},
		Row{ID: "abi-i386", Group: groupABI, Tier: Tool, Title: "call by the 32-bit ABI", StoppedBy: []string{"seccomp:arch"}, Control: Plain, Attack: i386GetPID})
	return append(rows, namespaceRows()...)
}

// namespaceRows try every way to a new namespace. A new user namespace would give
// every capability in it, and with that most of the kernel's attackable code.
func namespaceRows() []Row {
	var rows []Row
	for _, n := range []struct {
		name string
		flag uintptr
	}{
		{"user", unix.CLONE_NEWUSER},
		{"mount", unix.CLONE_NEWNS},
		{"pid", unix.CLONE_NEWPID},
		{"network", unix.CLONE_NEWNET},
		{"ipc", unix.CLONE_NEWIPC},
		{"uts", unix.CLONE_NEWUTS},
		{"cgroup", unix.CLONE_NEWCGROUP},
	} {
		rows = append(rows, Row{
			ID: "unshare-" + n.name, Group: groupKernel, Tier: Tool, Control: Fresh, StoppedBy: []string{"seccomp:unshare"},
			Title: "unshare: a new " + n.name + " namespace", Attack: call(unix.SYS_UNSHARE, n.flag),
		}, Row{
			ID: "clone-" + n.name, Group: groupKernel, Tier: Tool, Control: Fresh, StoppedBy: []string{"seccomp:clone"},
			Title: "clone: a new " + n.name + " namespace", Attack: cloneInto(n.flag),
		})
	}
	return append(rows, Row{
		ID: "unshare-time", Group: groupKernel, Tier: Tool, Control: Fresh, StoppedBy: []string{"seccomp:unshare"},
		Title: "unshare: a new time namespace", Attack: call(unix.SYS_UNSHARE, unix.CLONE_NEWTIME),
	})
}

// cloneInto starts this program again in a new namespace.
func cloneInto(flag uintptr) func(*Target) error {
	return func(*Target) error {
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer func() { _ = null.Close() }()
		self, err := os.Executable()
		if err != nil {
			return err
		}
		fd := null.Fd()
		pid, err := syscall.ForkExec(self, []string{self, ModeWhoAmI}, &syscall.ProcAttr{
			Files: []uintptr{fd, fd, fd},
			Sys:   &syscall.SysProcAttr{Cloneflags: flag},
		})
		if err != nil {
			return err
		}
		_, err = unix.Wait4(pid, nil, 0, nil)
		return err
	}
}

func messageQueue(*Target) error {
	name := []byte("carrel-attack\x00")
	fd, _, errno := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(&name[0])), unix.O_CREAT|unix.O_RDWR, 0o600, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	_, _, errno = unix.Syscall(unix.SYS_MQ_UNLINK, uintptr(unsafe.Pointer(&name[0])), 0, 0)
	_ = unix.Close(int(fd))
	return result(errno)
}
