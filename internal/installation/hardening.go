package installation

import (
	"slices"
	"strings"
)

// Breaking is a setting of a unit that a sandbox does not survive.
type Breaking struct {
	Key    string
	Value  string // a value by which it does
	Breaks string // what is lost
}

// BreakingSettings are those of systemd that restrict what a sandbox is made of.
// docs/install.md says how each was measured; the tests of deploy try them.
func BreakingSettings() []Breaking {
	return []Breaking{
		{"RestrictNamespaces", "yes", "no sandbox can be made"},
		{"RestrictSUIDSGID", "yes", "the daemon does not start: openat2 is taken away"},
		{"DynamicUser", "yes", "the daemon does not start, and users' files would change their owner"},
		{"ProtectHostname", "yes", "sandboxes have the host's name"},
		{"ProtectControlGroups", "yes", "nothing bounds a sandbox's memory, tasks and CPU time in sum"},
		{"ProtectKernelTunables", "yes", "sandboxes may have no /proc"},
		{"ProtectKernelLogs", "yes", "sandboxes may have no /proc"},
		{"ProcSubset", "pid", "the daemon does not see the host's memory, by which it admits sandboxes"},
		{"MemoryDenyWriteExecute", "yes", "programs that compile as they run, such as node, end in sandboxes"},
		{"SystemCallArchitectures", "native", "a thread that makes another ABI's system call is killed, and its program hangs"},
		{"SystemCallFilter", "@system-service", "no sandbox can be made: mount, pivot_root and Landlock's calls are taken away"},
	}
}

// broken are the settings of a unit among them, each with what is lost.
func (u *Unit) broken() []string {
	var all []string
	for _, b := range BreakingSettings() {
		set := u.isOn(b.Key)
		if b.Key == "SystemCallFilter" {
			set = u.filtersMounts()
		}
		if set {
			all = append(all, b.Key+"="+u.last(b.Key)+" ("+b.Breaks+")")
		}
	}
	return all
}

// filtersMounts reports whether the unit's filter takes mount(2) away: by a deny-list
// with it, or an allow-list without. The first line says which of the two it is.
func (u *Unit) filtersMounts() bool {
	lines := u.settings["SystemCallFilter"]
	if len(lines) == 0 {
		return false
	}
	denies, named := strings.HasPrefix(lines[0], "~"), false
	for _, line := range lines {
		line, inverted := strings.CutPrefix(line, "~")
		if slices.ContainsFunc(strings.Fields(line), func(w string) bool { return w == "@mount" || w == "mount" }) {
			named = inverted == denies
		}
	}
	return named == denies
}
