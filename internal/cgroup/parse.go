package cgroup

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// mount is one mounted hierarchy.
type mount struct {
	version     int    // 1 or 2
	root        string // which group of the hierarchy stands at point
	point       string // host path
	controllers []string
}

// parseMounts reads /proc/<pid>/mountinfo (proc_pid_mountinfo(5)). Lines of other
// file systems and lines it cannot read are passed over.
func parseMounts(text string) []mount {
	var mounts []mount
	for line := range strings.Lines(text) {
		before, after, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		fields, tail := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 6 || len(tail) < 3 {
			continue
		}
		m := mount{root: unescape(fields[3]), point: unescape(fields[4])}
		// What is mounted later at the same place hides what was there.
		mounts = slices.DeleteFunc(mounts, func(other mount) bool { return other.point == m.point })
		switch tail[0] {
		case "cgroup":
			m.version = 1
			m.controllers = strings.Split(tail[2], ",")
		case "cgroup2":
			m.version = 2
		default:
			continue
		}
		if path.IsAbs(m.point) && path.IsAbs(m.root) {
			mounts = append(mounts, m)
		}
	}
	return mounts
}

// unescape takes back what mountinfo writes for space, tab, newline and backslash:
// a backslash and three octal digits.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// parseOwn finds this process's v2 group in /proc/self/cgroup (cgroups(7)): the
// line "0::<path>". A group outside of this cgroup namespace ("/../x") has none.
func parseOwn(text string) (group string, ok bool) {
	for line := range strings.Lines(text) {
		group, ok = strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::")
		if ok {
			return group, path.IsAbs(group) && path.Clean(group) == group && !strings.HasPrefix(group, "/..")
		}
	}
	return "", false
}

// parsePIDs reads cgroup.procs: one pid a line, in no order, perhaps more than
// once. A process of an outer PID namespace shows as 0.
func parsePIDs(text string) ([]int, error) {
	var pids []int
	for word := range strings.FieldsSeq(text) {
		pid, err := strconv.Atoi(word)
		if err != nil || pid < 0 {
			return nil, fmt.Errorf("cgroup.procs holds %q", word)
		}
		pids = append(pids, pid)
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

// parseParent reads the parent's pid in /proc/<pid>/stat (proc_pid_stat(5)): the
// second field after the name, which stands in brackets and may hold any byte.
func parseParent(text string) (int, error) {
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 2 {
		return 0, fmt.Errorf("a process's stat reads %q", text)
	}
	pid, err := strconv.Atoi(fields[1])
	if err != nil || pid < 0 {
		return 0, fmt.Errorf("a process's stat names the parent %q", fields[1])
	}
	return pid, nil
}

// parseKey reads one value of a flat keyed file ("oom_kill 3"): memory.events,
// memory.stat, cpu.stat, v1's memory.oom_control. A key that is not there is 0.
func parseKey(text, key string) (int64, error) {
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if ok && name == key {
			return parseNumber(value)
		}
	}
	return 0, nil
}

// parseNumber reads a file or a value that is one number, at least 0.
func parseNumber(text string) (int64, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 63)
	if err != nil {
		return 0, fmt.Errorf("not a number: %q", text)
	}
	return int64(n), nil
}
