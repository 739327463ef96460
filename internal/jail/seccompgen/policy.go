package main

import (
	seccomp "github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"
)

// The base filter is an allow-list, put on the worker and inherited by every
// tool. It began as moby's default profile; what that one allows and this one
// does not is in denied and unknown, with the reason.
//
// Three groups, in order: what is allowed without a look at its arguments, what
// is answered with ENOSYS so that callers fall back, what is allowed with some
// arguments only. Everything else gets EPERM.

// allowed needs no look at its arguments.
var allowed = []string{
	"accept", "accept4", "access", "alarm", "arch_prctl", "bind", "brk", "cachestat", "capget", "capset", "chdir",
	"chmod", "chown", "clock_getres", "clock_gettime", "clock_nanosleep", "close", "close_range", "connect",
	"copy_file_range", "creat", "dup", "dup2", "dup3", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_pwait",
	"epoll_pwait2", "epoll_wait", "eventfd", "eventfd2", "execve", "execveat", "exit", "exit_group", "faccessat",
	"faccessat2", "fadvise64", "fallocate", "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown", "fchownat", "fcntl",
	"fdatasync", "fgetxattr", "flistxattr", "flock", "fork", "fremovexattr", "fsetxattr", "fstat", "fstatfs", "fsync",
	"ftruncate", "futex", "futex_requeue", "futex_wait", "futex_waitv", "futex_wake", "futimesat", "get_robust_list",
	"getcpu", "getcwd", "getdents", "getdents64", "getegid", "geteuid", "getgid", "getgroups", "getitimer",
	"get_mempolicy", "getpeername", "getpgid", "getpgrp", "getpid", "getppid", "getpriority", "getrandom", "getresgid",
	"getresuid", "getrlimit", "getrusage", "getsid", "getsockname", "getsockopt", "gettid", "gettimeofday", "getuid",
	"getxattr", "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch", "ioprio_get", "kill",
	"landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "lchown", "lgetxattr", "link", "linkat",
	"listen", "listxattr", "llistxattr", "lremovexattr", "lseek", "lsetxattr", "lstat", "madvise", "map_shadow_stack",
	"membarrier", "memfd_create", "mincore", "mkdir", "mkdirat", "mlock", "mlock2", "mlockall", "mmap", "mprotect",
	"mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedsend", "mq_unlink", "mremap", "mseal", "msgctl",
	"msgget", "msgrcv", "msgsnd", "msync", "munlock", "munlockall", "munmap", "nanosleep", "newfstatat", "open", "openat",
	"openat2", "pause", "pidfd_open", "pidfd_send_signal", "pipe", "pipe2", "pkey_alloc", "pkey_free", "pkey_mprotect",
	"poll", "ppoll", "prctl", "pread64", "preadv", "preadv2", "pselect6", "pwrite64", "pwritev", "pwritev2", "read",
	"readahead", "readlink", "readlinkat", "readv", "recvfrom", "recvmmsg", "recvmsg", "removexattr", "rename",
	"renameat", "renameat2", "restart_syscall", "rmdir", "rseq", "rt_sigaction", "rt_sigpending", "rt_sigprocmask",
	"rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "rt_tgsigqueueinfo", "sched_getaffinity",
	"sched_getattr", "sched_getparam", "sched_get_priority_max", "sched_get_priority_min", "sched_getscheduler",
	"sched_rr_get_interval", "sched_yield", "seccomp", "select", "semctl", "semget", "semop", "semtimedop", "sendfile",
	"set_robust_list", "set_tid_address", "setfsgid", "setfsuid", "setgid", "setgroups", "setitimer", "setpgid",
	"setregid", "setresgid", "setresuid", "setreuid", "setrlimit", "setsid", "setsockopt", "setuid", "setxattr", "shmat",
	"shmctl", "shmdt", "shmget", "shutdown", "sigaltstack", "signalfd", "signalfd4", "splice", "stat", "statfs", "statx",
	"symlink", "symlinkat", "sync", "sync_file_range", "syncfs", "sysinfo", "tee", "tgkill", "time", "timer_create",
	"timer_delete", "timer_getoverrun", "timer_gettime", "timer_settime", "timerfd_create", "timerfd_gettime",
	"timerfd_settime", "times", "tkill", "truncate", "umask", "uname", "unlink", "unlinkat", "utime", "utimensat",
	"utimes", "vfork", "vmsplice", "wait4", "waitid", "write", "writev",
}

// unknown is answered with ENOSYS, as by a kernel that lacks it: their callers
// know another way, and glibc takes it on ENOSYS only (trap 13: clone3, whose
// flags a filter cannot see behind a pointer). io_uring does its work past
// every filter; the others tell of mounts and modules.
var unknown = []string{
	"clone3", "io_uring_setup", "io_uring_enter", "io_uring_register", "statmount", "listmount", "lsm_get_self_attr",
	"lsm_set_self_attr", "lsm_list_modules", "memfd_secret", "io_setup", "io_submit", "io_destroy", "io_getevents",
	"io_cancel", "io_pgetevents", "uretprobe", "name_to_handle_at",
}

// Denied by being in neither list, among others: mount umount2 pivot_root chroot
// open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr (the mount
// tree is built once), unshare setns (new namespaces reach new kernel code with
// full capabilities), ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp
// process_madvise process_mrelease (other processes' insides), bpf perf_event_open
// userfaultfd kexec_load init_module keyctl add_key request_key (kernel surface;
// keyrings are not namespaced), quotactl open_by_handle_at (past the mount tree),
// syslog acct swapon reboot settimeofday clock_settime adjtimex (the host's own).

func arg(n uint32, op seccomp.Operation, value uint64) seccomp.Condition {
	return seccomp.Condition{Argument: n, Operation: op, Value: value}
}

func when(name string, conditions ...seccomp.Condition) seccomp.NameWithConditions {
	return seccomp.NameWithConditions{Name: name, Conditions: conditions}
}

// newNamespaces is every clone flag that makes a namespace. CLONE_NEWTIME is not
// among them: in clone's flags its bit is part of the exit signal (clone(2)).
const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// restricted is allowed with these arguments only; rows of one call are
// alternatives. Comparisons are of 64 bits, so that garbage above an int's 32
// bits never turns a refused value into an allowed one.
var restricted = []seccomp.NameWithConditions{
	// New namespaces are the doorway to most kernel privilege escalations.
	when("clone", arg(0, seccomp.BitsNotSet, newNamespaces)),

	// Sockets by family and protocol, not type (trap 14). MPTCP (262) would pass
	// by Landlock's TCP rules (hole 1), and so would SCTP and DCCP, which protocol 0
	// means for their types; vsock is not namespaced; packet, raw and
	// the rest are surface nobody asked for.
	when("socket", arg(0, seccomp.Equal, unix.AF_UNIX), arg(2, seccomp.Equal, 0)),
	when("socket", arg(0, seccomp.Equal, unix.AF_INET), arg(1, seccomp.BitsNotSet, otherTypes), arg(2, seccomp.Equal, 0)),
	when("socket", arg(0, seccomp.Equal, unix.AF_INET), arg(1, seccomp.BitsNotSet, otherTypes), arg(2, seccomp.Equal, unix.IPPROTO_TCP)),
	when("socket", arg(0, seccomp.Equal, unix.AF_INET), arg(1, seccomp.BitsNotSet, otherTypes), arg(2, seccomp.Equal, unix.IPPROTO_UDP)),
	when("socket", arg(0, seccomp.Equal, unix.AF_INET6), arg(1, seccomp.BitsNotSet, otherTypes), arg(2, seccomp.Equal, 0)),
	when("socket", arg(0, seccomp.Equal, unix.AF_INET6), arg(1, seccomp.BitsNotSet, otherTypes), arg(2, seccomp.Equal, unix.IPPROTO_TCP)),
	when("socket", arg(0, seccomp.Equal, unix.AF_INET6), arg(1, seccomp.BitsNotSet, otherTypes), arg(2, seccomp.Equal, unix.IPPROTO_UDP)),
	when("socket", arg(0, seccomp.Equal, unix.AF_NETLINK), arg(2, seccomp.Equal, unix.NETLINK_ROUTE)),
	when("socketpair", arg(0, seccomp.Equal, unix.AF_UNIX)),

	// MSG_FASTOPEN connects while sending, past Landlock's connect (hole 2).
	when("sendto", arg(3, seccomp.BitsNotSet, unix.MSG_FASTOPEN)),
	when("sendmsg", arg(2, seccomp.BitsNotSet, unix.MSG_FASTOPEN)),
	when("sendmmsg", arg(3, seccomp.BitsNotSet, unix.MSG_FASTOPEN)),

	// Device nodes only: S_IFCHR and S_IFBLK have this bit, FIFOs, sockets and
	// plain files have not.
	when("mknod", arg(1, seccomp.BitsNotSet, unix.S_IFCHR)),
	when("mknodat", arg(2, seccomp.BitsNotSet, unix.S_IFCHR)),

	// Typing into a terminal that somebody else reads (TIOCSTI), and pasting
	// (TIOCLINUX); loading a line discipline (TIOCSETD), of which old ones have
	// been a way into the kernel. The kernel looks at 32 bits: either they stand alone, or they
	// are a sign-extended request (bit 31 set, as musl passes _IOR values),
	// which none of them can be.
	when("ioctl", arg(1, seccomp.LessOrEqual, 0xffffffff), arg(1, seccomp.NotEqual, unix.TIOCSTI),
		arg(1, seccomp.NotEqual, unix.TIOCLINUX), arg(1, seccomp.NotEqual, unix.TIOCSETD)),
	when("ioctl", arg(1, seccomp.GreaterOrEqual, 0xffffffff80000000)),

	// Ask for the personality, or keep the normal one: no disabling of ASLR.
	when("personality", arg(0, seccomp.Equal, 0)),
	when("personality", arg(0, seccomp.Equal, 0xffffffff)),

	// Narrowed further for tools, see toolDenied.
	when("prlimit64", arg(0, seccomp.LessOrEqual, 0xffffffff)),
	when("setpriority", arg(0, seccomp.Equal, unix.PRIO_PROCESS)),
	when("ioprio_set", arg(0, seccomp.Equal, ioprioWhoProcess)),
	when("sched_setaffinity", arg(0, seccomp.LessOrEqual, 0xffffffff)),
	when("sched_setattr", arg(0, seccomp.LessOrEqual, 0xffffffff)),
	when("sched_setparam", arg(0, seccomp.LessOrEqual, 0xffffffff)),
	when("sched_setscheduler", arg(0, seccomp.LessOrEqual, 0xffffffff)),
}

// otherTypes has a bit of every socket type from 4 on: RDM, SEQPACKET (SCTP),
// DCCP, PACKET. STREAM and DGRAM have none; RAW is left to the kernel, which asks
// for a capability. SOCK_NONBLOCK and SOCK_CLOEXEC stand above.
const otherTypes = 0xc

const ioprioWhoProcess = 1 // IOPRIO_WHO_PROCESS, linux/ioprio.h

// toolDenied is the tool tier's second filter: hole 4. These calls reach any
// process of the same uid, the worker too, and Landlock does not mediate them;
// so a tool may name only itself (0).
var toolDenied = []seccomp.NameWithConditions{
	when("prlimit64", arg(0, seccomp.NotEqual, 0)),
	when("setpriority", arg(1, seccomp.NotEqual, 0)),
	when("ioprio_set", arg(1, seccomp.NotEqual, 0)),
	when("sched_setaffinity", arg(0, seccomp.NotEqual, 0)),
	when("sched_setattr", arg(0, seccomp.NotEqual, 0)),
	when("sched_setparam", arg(0, seccomp.NotEqual, 0)),
	when("sched_setscheduler", arg(0, seccomp.NotEqual, 0)),
}

func basePolicy() policy {
	return policy{
		allowed:    allowed,
		unknown:    unknown,
		restricted: restricted,
		matched:    seccomp.ActionAllow,
		fallback:   seccomp.ActionErrno, // EPERM
	}
}

func toolPolicy() policy {
	return policy{
		restricted: toolDenied,
		matched:    seccomp.ActionErrno,
		fallback:   seccomp.ActionAllow, // the base filter has decided already
	}
}
