package attack

import (
	"errors"
	"fmt"
	"syscall"

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

// needsResource is an attack whose control needs CAP_SYS_RESOURCE, which some roots
// lack, as that of a container.
func needsResource(attack func(*Target) error) func(*Target) error {
	return func(t *Target) error {
		if !t.inSandbox() {
			header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var sets [2]unix.CapUserData
			if err := unix.Capget(&header, &sets[0]); err != nil {
				return err
			}
			if sets[0].Effective&(1<<unix.CAP_SYS_RESOURCE) == 0 {
				return fmt.Errorf("root has no CAP_SYS_RESOURCE here: %w", unix.ENODEV)
			}
		}
		return attack(t)
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

// cwd is AT_FDCWD.
const cwd = ^uintptr(99)

// kernelRows go by calls that a sandbox has no use for. Where the kernel looks at the
// arguments first, the attack is that it gets to see them.
func kernelRows() []Row {
	row := func(id, title string, c Control, attack func(*Target) error, by ...string) Row {
		return Row{ID: id, Group: groupKernel, Tier: Tool, Title: title, StoppedBy: by, Control: c, Attack: attack}
	}
	in := func(ids string, more ...string) []string { return append([]string{seccompRule(ids)}, more...) }
	rows := []Row{
		row("keyctl", "look into the kernel's keyrings", Plain, call(unix.SYS_KEYCTL, 99), in("keyctl")...),
		row("add_key", "put a key into a keyring", Plain, call(unix.SYS_ADD_KEY, nowhere, nowhere, 0, 0, 0), in("add_key")...),
		row("request_key", "ask the host for a key", Plain, call(unix.SYS_REQUEST_KEY, nowhere, nowhere, 0, 0), in("request_key")...),
		row("bpf", "load a program into the kernel", Plain, call(unix.SYS_BPF, 0, nowhere, 8), in("bpf")...),
		row("userfaultfd", "handle page faults", Plain, call(unix.SYS_USERFAULTFD, 1 /* UFFD_USER_MODE_ONLY */), in("userfaultfd")...),
		row("userfaultfd-device", "handle page faults, by the device", Root, func(*Target) error {
			return openFor("/dev/userfaultfd", unix.O_RDWR)
		}, jail.LayerMount),
		row("io_uring", "work past every filter", Plain, call(unix.SYS_IO_URING_SETUP, 1, nowhere), in("io_uring_setup")...),
		row("io_uring-enter", "work past every filter, by a ring of somebody's", Plain, call(unix.SYS_IO_URING_ENTER, ^uintptr(0), 0, 0, 0, 0, 0), in("io_uring_enter")...),
		row("io_uring-register", "give files to a ring", Plain, call(unix.SYS_IO_URING_REGISTER, ^uintptr(0), 0, 0, 0), in("io_uring_register")...),
		row("aio", "work in the background", Plain, call(unix.SYS_IO_SETUP, 1, nowhere), in("io_setup")...),
		row("perf", "measure other programs", Plain, call(unix.SYS_PERF_EVENT_OPEN, nowhere, 0, ^uintptr(0), ^uintptr(0), 0), in("perf_event_open")...),
		row("quotactl", "set quotas", Plain, call(unix.SYS_QUOTACTL, 0x800001<<8 /* Q_SYNC, USRQUOTA */, 0, 0, 0), in("quotactl")...),
		row("quotactl-fd", "set quotas by a descriptor", Plain, call(unix.SYS_QUOTACTL_FD, ^uintptr(0), 0, 0, 0), in("quotactl_fd")...),
		row("personality", "switch address randomization off", Plain, call(unix.SYS_PERSONALITY, 0x0040000 /* ADDR_NO_RANDOMIZE */), in("personality")...),
		row("personality-exec", "make everything that is readable executable", Plain, call(unix.SYS_PERSONALITY, 0x0400000 /* READ_IMPLIES_EXEC */), in("personality")...),
		row("personality-layout", "take the old layout of addresses", Plain, call(unix.SYS_PERSONALITY, 0x0200000 /* ADDR_COMPAT_LAYOUT */), in("personality")...),
		row("personality-linux32", "be a 32-bit program", Plain, call(unix.SYS_PERSONALITY, 8 /* PER_LINUX32 */), in("personality")...),
		row("ptrace-me", "ask to be traced", Plain, traceMe, in("ptrace")...),
		row("modify_ldt", "change the descriptor table", Plain, call(unix.SYS_MODIFY_LDT, 0, nowhere, 0), in("modify_ldt")...),
		row("iopl", "ask for the processor's interrupts", Plain, call(unix.SYS_IOPL, 0), in("iopl")...),
		row("ioperm", "ask for the processor's ports", Root, call(unix.SYS_IOPERM, 0x80, 1, 1), in("ioperm", capabilities, jail.LayerUser)...),
		row("syslog", "read the kernel's log", Root, call(unix.SYS_SYSLOG, 10 /* SYSLOG_ACTION_SIZE_BUFFER */), in("syslog", capabilities, jail.LayerUser)...),
		row("kexec", "load another kernel", Root, call(unix.SYS_KEXEC_LOAD, 0, 0, 0, 1<<30), in("kexec_load", capabilities, jail.LayerUser)...),
		row("kexec-file", "load another kernel from a file", Root, call(unix.SYS_KEXEC_FILE_LOAD, ^uintptr(0), ^uintptr(0), 0, 0, 1<<30), in("kexec_file_load", capabilities, jail.LayerUser)...),
		row("init_module", "load a module", Root, call(unix.SYS_INIT_MODULE, nowhere, 0, nowhere), in("init_module", capabilities, jail.LayerUser)...),
		row("finit_module", "load a module from a file", Root, call(unix.SYS_FINIT_MODULE, ^uintptr(0), nowhere, 0), in("finit_module", capabilities, jail.LayerUser)...),
		row("delete_module", "unload a module", Root, call(unix.SYS_DELETE_MODULE, nowhere, 0), in("delete_module", capabilities, jail.LayerUser)...),
		row("acct", "switch accounting", Root, call(unix.SYS_ACCT, nowhere), in("acct", capabilities, jail.LayerUser)...),
		row("swapon", "swap to a file", Root, call(unix.SYS_SWAPON, nowhere, 0), in("swapon", capabilities, jail.LayerUser)...),
		row("swapoff", "stop swapping", Root, call(unix.SYS_SWAPOFF, nowhere), in("swapoff", capabilities, jail.LayerUser)...),
		row("reboot", "restart the machine", Root, call(unix.SYS_REBOOT, 0, 0, 0, 0), in("reboot", capabilities)...),
		row("settimeofday", "set the clock", Plain, call(unix.SYS_SETTIMEOFDAY, nowhere, 0), in("settimeofday")...),
		row("clock_settime", "set a clock", Plain, call(unix.SYS_CLOCK_SETTIME, 0, nowhere), in("clock_settime")...),
		row("adjtimex", "make the clock run faster", Plain, call(unix.SYS_ADJTIMEX, nowhere), in("adjtimex")...),
		row("clock_adjtime", "make a clock run faster", Plain, call(unix.SYS_CLOCK_ADJTIME, 0, nowhere), in("clock_adjtime")...),
		row("vhangup", "hang the terminal up", Root, call(unix.SYS_VHANGUP), in("vhangup", capabilities, jail.LayerUser)...),
		row("sethostname", "rename the host", Fresh, call(unix.SYS_SETHOSTNAME, nowhere, 1), in("sethostname", capabilities)...),
		row("setdomainname", "rename the host's domain", Fresh, call(unix.SYS_SETDOMAINNAME, nowhere, 1), in("setdomainname", capabilities)...),
		row("memfd_secret", "memory that the kernel cannot read", Plain, call(unix.SYS_MEMFD_SECRET, ^uintptr(0)), in("memfd_secret")...),
		row("set_mempolicy", "bind memory to a node", Plain, call(unix.SYS_SET_MEMPOLICY, 0, 0, 0), in("set_mempolicy")...),
		row("mbind", "bind some memory to a node", Plain, call(unix.SYS_MBIND, 0, 0, 0, 0, 0, 0), in("mbind")...),
		row("lsm_attr", "ask the security modules", Plain, call(unix.SYS_LSM_LIST_MODULES, nowhere, nowhere, 0), in("lsm_list_modules")...),
		row("uselib", "load a library as long ago", Plain, call(unix.SYS_USELIB, nowhere), in("uselib")...),
		row("ustat", "ask about a device by its number", Plain, call(unix.SYS_USTAT, 0, nowhere), in("ustat")...),
		row("sysfs", "list the kernel's file systems by the old call", Plain, call(unix.SYS_SYSFS, 3), in("sysfs")...),
		row("remap_file_pages", "map pages out of order by the old call", Plain, call(unix.SYS_REMAP_FILE_PAGES, 0, 0, 0, 0, 0), in("remap_file_pages")...),
		row("fanotify", "watch a whole file system", Plain, func(*Target) error {
			_, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_REPORT_FID|unix.FAN_CLOEXEC, unix.O_RDONLY)
			return err
		}, in("fanotify_init")...),
		row("prctl-mm", "say where one's own memory is (PR_SET_MM)", Root,
			needsResource(call(unix.SYS_PRCTL, unix.PR_SET_MM, unix.PR_SET_MM_START_STACK, nowhere<<20, 0, 0)), capabilities, jail.LayerUser),
		row("securebits", "change what an exec does to capabilities", Fresh, func(*Target) error {
			return unix.Prctl(unix.PR_SET_SECUREBITS, 1<<0 /* SECBIT_NOROOT */, 0, 0, 0)
		}, capabilities),
	}
	return append(rows,
		Row{ID: "abi-x32", Group: groupABI, Tier: Tool, Title: "call by the x32 ABI", StoppedBy: in("arch"), Control: Plain, Attack: x32GetPID},
		Row{ID: "abi-i386", Group: groupABI, Tier: Tool, Title: "call by the 32-bit ABI", StoppedBy: in("arch"), Control: Plain, Attack: i386GetPID})
}
