package selftest_test

// mutant is the jail without one of its rules.
type mutant struct {
	name, file string
	// rule stands once in the file, and is replaced by without.
	rule, without string
	rows          []string // what must break, each of them
	// host: the rule is kept by the half of the jail that is in the daemon.
	host bool
}

const (
	policyFile   = "internal/jail/seccompgen/policy.go"
	mountsFile   = "internal/jail/mounts_linux.go"
	restrictFile = "internal/jail/restrict_linux.go"
	landlockFile = "internal/jail/landlock_linux.go"
	childFile    = "internal/jail/child_linux.go"
)

// allowing puts a call onto the allow-list.
func allowing(call, row string) mutant {
	return mutant{"the filter allows " + call, policyFile, `	"accept", "accept4",`, `	"` + call + `", "accept", "accept4",`, []string{row}, false}
}

// withoutToolRule lets tools name other processes than themselves in a call.
func withoutToolRule(call, argument, row string) mutant {
	return mutant{
		"tools may name others in " + call, policyFile,
		`	when("` + call + `", arg(` + argument + `, seccomp.NotEqual, 0)),` + "\n", "",
		[]string{row},
		false,
	}
}

var mutants = []mutant{
	// seccomp, by call.
	allowing("keyctl", "keyctl"),
	allowing("add_key", "add_key"),
	allowing("userfaultfd", "userfaultfd"),
	allowing("perf_event_open", "perf"),
	allowing("unshare", "unshare-user"),
	allowing("ptrace", "ptrace-me"),
	allowing("set_mempolicy", "set_mempolicy"),
	allowing("quotactl", "quotactl"),
	allowing("fanotify_init", "fanotify"),

	// seccomp, by argument.
	{
		"clone may make namespaces", policyFile,
		`when("clone", arg(0, seccomp.BitsNotSet, newNamespaces))`, `when("clone", arg(0, seccomp.BitsNotSet, newNamespaces&^unix.CLONE_NEWUSER))`,
		[]string{"clone-user"},
		false,
	},
	{
		"sockets may be MPTCP", policyFile,
		`arg(0, seccomp.Equal, unix.AF_INET), arg(1, seccomp.BitsNotSet, otherTypes), arg(2, seccomp.Equal, unix.IPPROTO_UDP)`,
		`arg(0, seccomp.Equal, unix.AF_INET), arg(1, seccomp.BitsNotSet, otherTypes), arg(2, seccomp.Equal, unix.IPPROTO_MPTCP)`,
		[]string{"mptcp-bind"},
		false,
	},
	{"netlink is any", policyFile, `, arg(2, seccomp.Equal, unix.NETLINK_ROUTE)`, ``, []string{"netlink-generic", "netlink-uevent"}, false},
	{
		"sending may connect", policyFile, `when("sendto", arg(3, seccomp.BitsNotSet, unix.MSG_FASTOPEN))`,
		`when("sendto", arg(3, seccomp.BitsNotSet, 1<<31))`,
		[]string{"fastopen-flag"},
		false,
	},
	{"terminals may be typed into", policyFile, ` arg(1, seccomp.NotEqual, unix.TIOCSTI),`, ``, []string{"tiocsti"}, false},
	{"terminals may be pasted into", policyFile, `arg(1, seccomp.NotEqual, unix.TIOCLINUX), `, ``, []string{"tioclinux"}, false},
	{"line disciplines may be loaded", policyFile, `, arg(1, seccomp.NotEqual, unix.TIOCSETD)`, ``, []string{"line-discipline"}, false},
	{"an ioctl's upper bits do not matter", policyFile, `arg(1, seccomp.LessOrEqual, 0xffffffff), arg(1`, `arg(1`, []string{"tiocsti-garbage"}, false},
	{
		"any personality", policyFile, `when("personality", arg(0, seccomp.Equal, 0))`,
		`when("personality", arg(0, seccomp.LessOrEqual, 0xfffffff))`,
		[]string{"personality"},
		false,
	},
	{
		"priorities of groups and users", policyFile, `when("setpriority", arg(0, seccomp.Equal, unix.PRIO_PROCESS))`,
		`when("setpriority", arg(0, seccomp.LessOrEqual, unix.PRIO_USER))`,
		[]string{"setpriority-user"},
		false,
	},
	withoutToolRule("prlimit64", "0", "prlimit-worker"),
	withoutToolRule("setpriority", "1", "setpriority-worker"),
	withoutToolRule("ioprio_set", "1", "ioprio-worker"),
	withoutToolRule("sched_setaffinity", "0", "affinity-worker"),
	withoutToolRule("sched_setattr", "0", "schedattr-worker"),
	withoutToolRule("sched_setparam", "0", "schedparam-worker"),
	withoutToolRule("sched_setscheduler", "0", "scheduler-worker"),

	// Landlock.
	{"signals leave the domain", landlockFile, ` | unix.LANDLOCK_SCOPE_SIGNAL`, ``, []string{"kill-worker", "tgkill-worker", "pidfd-signal-worker", "sigqueue-worker"}, false},
	{"TCP may be bound", landlockFile, `unix.LANDLOCK_ACCESS_NET_BIND_TCP | `, ``, []string{"tcp-bind"}, false},
	{"TCP may connect", landlockFile, ` | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP`, ``, []string{"tcp-connect"}, false},
	{"/proc may be written", landlockFile, `{"/proc", accessRead}`, `{"/proc", accessEdit}`, []string{"autogroup", "self-mem-write", "oom-score"}, false},

	// Mounts.
	{"no hidepid", mountsFile, `, "hidepid=2")`, `, "")`, []string{"visible-worker"}, false},
	{"the way to /home is open", mountsFile, `os.Chmod("/home", 0)`, `os.Chmod("/home", dirPerm)`, []string{"home-stat"}, false},
	{"the root is writable", mountsFile, `attr := unix.MountAttr{Attr_set: readOnly}`, `attr := unix.MountAttr{Attr_set: ownFiles}`, []string{"mount-rw-root", "home-unseal"}, false},
	{"the user's files: no nosuid", mountsFile, `ownFiles    = unix.MOUNT_ATTR_NOSUID | `, `ownFiles    = `, []string{"mount-suid"}, true},
	{"the user's files: no nodev", mountsFile, `ownFiles    = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV`, `ownFiles    = unix.MOUNT_ATTR_NOSUID`, []string{"mount-dev"}, true},
	{"the programs: writable", mountsFile, `readOnly    = unix.MOUNT_ATTR_RDONLY | `, `readOnly    = `, []string{"mount-rw-system"}, false},
	{"the programs: no nosuid", mountsFile, `unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID`, `unix.MOUNT_ATTR_RDONLY`, []string{"mount-suid-system"}, false},
	{"/tmp: no nosuid", mountsFile, `mountFlags  = unix.MS_NOSUID | `, `mountFlags  = `, []string{"mount-suid"}, false},
	{"any number of terminals", mountsFile, `,max=64`, ``, []string{"ptys"}, false},

	// The rest.
	{"core files", restrictFile, `{"core", unix.RLIMIT_CORE, 0}`, `{"core", unix.RLIMIT_CORE, 1 << 20}`, []string{"core-limit"}, false},
	{"a file of any size", restrictFile, `{"fsize", unix.RLIMIT_FSIZE, l.FileBytes}`, `{"fsize", unix.RLIMIT_FSIZE, 1 << 50}`, []string{"file-size"}, false},
	{"memory in sight", restrictFile, `unix.PR_SET_DUMPABLE, 0,`, `unix.PR_SET_DUMPABLE, 1,`, []string{"worker-dumpable"}, false},
	{"capabilities are kept", childFile, `s.step("capabilities", dropCapabilities)`, ``, []string{"worker-capability"}, false},
	{"all inotify instances", childFile, `return shareInotify()`, `return nil`, []string{"inotify"}, false},
	{"the host's name", childFile, `unix.Sethostname([]byte(hostName))`, `nil`, []string{"host-machine-id"}, false},
	{"Fast Open is on", "internal/jail/network_linux.go", `[]byte("0")`, `[]byte("3")`, []string{"fastopen-setting"}, false},
}
