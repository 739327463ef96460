package attack

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"carrel/internal/jail"
)

// who are the processes in a sandbox that a command may go for.
type who struct {
	suffix, title string
	pid           func(*Target) int
	// insides is what keeps a command from all that asks for the right to trace.
	insides []string
	// outside: its Landlock domain is not the command's own, so that signals are
	// kept from it as well.
	outside bool
}

// everybody are all of them. A process that executed a program is dumpable again, so
// that only its domain protects another run's command; and a command's own host is in
// its domain, so that only its not being dumpable protects it.
func everybody() []who {
	return []who{
		{"worker", "the worker", func(t *Target) int { return t.PID }, []string{dumpable, rulePtrace}, true},
		{"toolhost", "the tool host", func(t *Target) int { return t.HostPID }, []string{dumpable}, false},
		{"sibling", "another run's command", func(t *Target) int { return t.Sibling }, []string{rulePtrace}, true},
		{"siblinghost", "another run's tool host", func(t *Target) int { return t.SiblingHost }, []string{dumpable, rulePtrace}, true},
	}
}

// procRows are about the directories of processes in /proc.
func procRows() []Row {
	var rows []Row
	for _, w := range everybody() {
		add := func(id, title string, attack func(dir string) error, by []string) {
			rows = append(rows, Row{
				ID: id + "-" + w.suffix, Group: groupSecrets, Tier: Tool, Title: title + " " + w.title, StoppedBy: by, Control: Plain,
				Attack: func(t *Target) error { return attack(fmt.Sprintf("/proc/%d", w.pid(t))) },
			})
		}
		in := func(name string, do func(path string) error) func(string) error {
			return func(dir string) error { return do(dir + "/" + name) }
		}
		thread := func(dir string) error { return readAny(dir + "/task/" + filepath.Base(dir) + "/environ") }
		// These the kernel shows to those alone who may trace it.
		add("environ", "read the environment of", in("environ", readAny), w.insides)
		add("environ-dots", "read by way of one's own threads the environment of", func(dir string) error {
			return readAny("/proc/self/task/../../" + filepath.Base(dir) + "/environ")
		}, w.insides)
		add("task", "read the environment of a thread of", thread, w.insides)
		add("auxv", "read the addresses of", in("auxv", readAny), w.insides)
		add("maps", "read the memory map of", in("maps", readAny), w.insides)
		add("smaps", "read how much is mapped in", in("smaps_rollup", readAny), w.insides)
		add("pagemap", "open the page map of", in("pagemap", openAny), w.insides)
		add("map-files", "list the mapped files of", in("map_files", listAny), w.insides)
		add("mem", "open the memory of", in("mem", openAny), w.insides)
		add("syscall", "read what system call runs in", in("syscall", readAny), w.insides)
		add("io", "read what was read and written by", in("io", readAny), w.insides)
		add("fd", "list the descriptors of", in("fd", listAny), w.insides)
		add("open-fd", "open a descriptor of", in("fd/1", openAny), w.insides)
		add("fdinfo", "read about a descriptor of", in("fdinfo/1", readAny), w.insides)
		add("root", "enter the root of", in("root/", listAny), w.insides)
		add("cwd", "enter the working directory of", in("cwd/", listAny), w.insides)
		add("exe", "read the link to the program of", in("exe", linkAny), w.insides)
		add("ns", "open a namespace of", in("ns/net", openAny), w.insides)
		// These it shows to everybody, but where hidepid hides the directory, and
		// that it does from those who may not trace it.
		var hidden []string
		for _, by := range w.insides {
			hidden = append(hidden, jail.LayerHidepid+"+"+by)
		}
		add("cmdline", "read the arguments of", in("cmdline", readAny), hidden)
		add("status", "read the state of", in("status", readAny), hidden)
		add("comm", "read the name of", in("comm", readAny), hidden)
		add("cgroup", "read the cgroup of", in("cgroup", readAny), hidden)
		add("visible", "see that there is", statAny, hidden)
	}
	return rows
}

// procFileRows are about the files of /proc that belong to no process, or to
// whoever opens them.
func procFileRows() []Row {
	row := func(id, title string, c Control, attack func(*Target) error, by ...string) Row {
		return Row{ID: id, Group: groupFiles, Tier: Tool, Title: title, StoppedBy: by, Control: c, Attack: attack}
	}
	writes := func(path string) func(*Target) error {
		return func(*Target) error { return openFor(path, unix.O_WRONLY) }
	}
	// The worker's own are root's: it is not dumpable.
	own := func(r Row) Row {
		if r.toolOnly = true; len(r.StoppedBy) == 0 {
			r.StoppedBy = []string{ruleFiles}
		}
		return r
	}
	return []Row{
		row("sysctl-net", "write a setting of the sandbox's own network", Fresh, writes("/proc/sys/net/ipv4/ip_forward"), ruleFiles, capabilities),
		row("sysctl-user", "raise the sandbox's own share of the kernel's objects", Fresh, writes("/proc/sys/user/max_inotify_instances"), ruleFiles, capabilities),
		row("sysctl-core", "write the kernel's core pattern", Root, writes("/proc/sys/kernel/core_pattern"), ruleFiles, otherUID),
		row("sysctl-modprobe", "write the path of the kernel's own helper", Root, writes("/proc/sys/kernel/modprobe"), ruleFiles, otherUID),
		row("sysctl-hotplug", "write a setting of the host's memory", Root, writes("/proc/sys/vm/overcommit_memory"), ruleFiles, otherUID),
		row("sysrq", "write to sysrq-trigger", Root, writes("/proc/sysrq-trigger"), ruleFiles, otherUID),
		row("kcore", "read the kernel's memory", Root, func(*Target) error { return openAny("/proc/kcore") }, otherUID),
		row("kpage", "read what each page of memory is for", Root, func(*Target) error { return openAny("/proc/kpageflags") }, otherUID),
		row("slab", "read the kernel's own allocations", Root, func(*Target) error { return openAny("/proc/slabinfo") }, otherUID),
		own(row("oom-score", "change one's own place in the out-of-memory order", Plain, func(*Target) error {
			return os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
		})),
		row("oom-never", "take oneself out of the out-of-memory order", Root, needsResource(func(*Target) error {
			return os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0)
		}), ruleFiles, capabilities),
		own(row("autogroup", "change one's own scheduling group", Plain, writes("/proc/self/autogroup"))),
		own(row("self-mem-write", "write to one's own memory file", Plain, writes("/proc/self/mem"))),
		own(row("coredump-filter", "say what one's own core files hold", Plain, writes("/proc/self/coredump_filter"))),
		own(row("clear-refs", "reset what one's own pages were used for", Plain, writes("/proc/self/clear_refs"))),
		own(row("timerslack", "change one's own timers by /proc", Plain, writes("/proc/self/timerslack_ns"))),
	}
}

func openFor(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func openAny(path string) error { return openFor(path, unix.O_RDONLY) }

func statAny(path string) error {
	_, err := os.Stat(path)
	return err
}

func linkAny(path string) error {
	_, err := os.Readlink(path)
	return err
}

// readAny succeeds if there is something to read: the kernel gives an empty
// environment for a process it does not want to tell of.
func readAny(path string) error {
	content, err := os.ReadFile(path)
	if err == nil && len(content) == 0 {
		return errStopped
	}
	return err
}

func listAny(path string) error {
	entries, err := os.ReadDir(filepath.Clean(path) + "/")
	if err == nil && len(entries) == 0 {
		return errStopped
	}
	return err
}
