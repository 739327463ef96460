package attack

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"carrel/internal/jail"
)

func procRows() []Row {
	var rows []Row
	add := func(id, title string, c Control, attack func(*Target) error, by ...string) { //nolint:unparam // a row is written like those of the other files
		rows = append(rows, Row{ID: id, Group: groupSecrets, Tier: Tool, Title: title, StoppedBy: by, Control: c, Attack: attack})
	}
	hidden := []string{jail.LayerHidepid, "dumpable", jail.LayerLandlock}
	for _, who := range []struct {
		suffix, title string
		pid           func(*Target) int
	}{
		{"worker", "the worker", func(t *Target) int { return t.PID }},
		{"toolhost", "the tool host", func(t *Target) int { return t.HostPID }},
	} {
		proc := func(name string, do func(path string) error) func(*Target) error {
			return func(t *Target) error { return do(fmt.Sprintf("/proc/%d/%s", who.pid(t), name)) }
		}
		add("environ-"+who.suffix, "read the environment of "+who.title, Plain, proc("environ", readAny), hidden...)
		add("cmdline-"+who.suffix, "read the arguments of "+who.title, Plain, proc("cmdline", readAny), hidden...)
		add("maps-"+who.suffix, "read the memory map of "+who.title, Plain, proc("maps", readAny), hidden...)
		add("mem-"+who.suffix, "open the memory of "+who.title, Plain, proc("mem", openAny), hidden...)
		add("fd-"+who.suffix, "list the descriptors of "+who.title, Plain, proc("fd", listAny), hidden...)
		add("open-fd-"+who.suffix, "open a descriptor of "+who.title, Plain, proc("fd/1", openAny), hidden...)
		add("root-"+who.suffix, "enter the root of "+who.title, Plain, proc("root/", listAny), hidden...)
		add("cwd-"+who.suffix, "enter the working directory of "+who.title, Plain, proc("cwd/", listAny), hidden...)
		add("exe-"+who.suffix, "read the link to the program of "+who.title, Plain, proc("exe", linkAny), hidden...)
		add("task-"+who.suffix, "read the environment of a thread of "+who.title, Plain, func(t *Target) error {
			pid := who.pid(t)
			return readAny(fmt.Sprintf("/proc/%d/task/%d/environ", pid, pid))
		}, hidden...)
		add("visible-"+who.suffix, "see that there is "+who.title, Plain, func(t *Target) error {
			_, err := os.Stat("/proc/" + strconv.Itoa(who.pid(t)))
			return err
		}, jail.LayerHidepid)
	}
	return append(rows, procFileRows()...)
}

// procFileRows are about the files of /proc that belong to no process.
func procFileRows() []Row {
	row := func(id, title string, c Control, attack func(*Target) error, by ...string) Row {
		return Row{ID: id, Group: groupFiles, Tier: Tool, Title: title, StoppedBy: by, Control: c, Attack: attack}
	}
	writes := func(path string) func(*Target) error {
		return func(*Target) error { return openFor(path, unix.O_WRONLY) }
	}
	return []Row{
		row("sysctl-net", "write a setting of the sandbox's own network", Fresh, writes("/proc/sys/net/ipv4/ip_forward"), jail.LayerLandlock, jail.LayerUser),
		row("sysctl-core", "write the kernel's core pattern", Root, writes("/proc/sys/kernel/core_pattern"), jail.LayerLandlock, jail.LayerUser),
		row("sysrq", "write to sysrq-trigger", Root, writes("/proc/sysrq-trigger"), jail.LayerLandlock, jail.LayerUser),
		row("kcore", "read the kernel's memory", Root, func(*Target) error { return openAny("/proc/kcore") }, jail.LayerUser),
		row("oom-score", "change one's own place in the out-of-memory order", Plain, func(*Target) error {
			return os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
		}, jail.LayerLandlock),
		row("autogroup", "change one's own scheduling group", Plain, writes("/proc/self/autogroup"), jail.LayerLandlock),
		row("self-mem-write", "write to one's own memory file", Plain, writes("/proc/self/mem"), jail.LayerLandlock),
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
