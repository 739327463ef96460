package cgroup

import (
	"path"
	"slices"
	"strings"
)

// Headroom is how many bytes this process's own groups, up to the top, let it and
// what it starts take besides; ok is false where none of them bounds memory. In a
// container that is what counts, and not what the host has.
func Headroom() (bytes int64, ok bool) { return headroom(machine()) }

func headroom(h host) (least int64, ok bool) {
	text, err := h.read("/proc/self/mountinfo")
	if err != nil {
		return 0, false
	}
	for _, m := range parseMounts(text) {
		files := memoryFiles[m.version]
		dir, found := ownMemoryGroup(h, m)
		for ; found; dir = path.Dir(dir) {
			if left, bounded := files.left(h, dir); bounded && (!ok || left < least) {
				least, ok = left, true
			}
			if dir == m.point || dir == "/" {
				break
			}
		}
	}
	return least, ok
}

// ownMemoryGroup is where this process's group stands beneath m, if m is a
// hierarchy that bounds memory.
func ownMemoryGroup(h host, m mount) (dir string, ok bool) {
	if m.version == 2 {
		return ownGroup(h, m)
	}
	if !slices.Contains(m.controllers, Memory) {
		return "", false
	}
	text, err := h.read("/proc/self/cgroup")
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(text) {
		// "4:memory:/path" (cgroups(7)); controllers mounted together share a line.
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) < 3 || !slices.Contains(strings.Split(parts[1], ","), Memory) {
			continue
		}
		below, found := strings.CutPrefix(parts[2], strings.TrimSuffix(m.root, "/"))
		return path.Join(m.point, below), found && !strings.HasPrefix(parts[2], "/..")
	}
	return "", false
}

// groupFiles names the files that tell a group's memory.
type groupFiles struct{ limit, charged, unused string }

var memoryFiles = map[int]groupFiles{
	1: {"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"},
	2: {"memory.max", "memory.current", "inactive_file"},
}

// left is what a group may still take; bounded is false where it has no limit, or
// its files cannot be read.
func (f groupFiles) left(h host, dir string) (left int64, bounded bool) {
	read := func(name string) (text string) {
		text, err := h.read(path.Join(dir, name))
		bounded = bounded && err == nil
		return text
	}
	bounded = true
	limit, err := parseNumber(read(f.limit)) // "max" is no number
	charged, err2 := parseNumber(read(f.charged))
	unused, err3 := parseKey(read("memory.stat"), f.unused)
	// v1 says "no limit" by a number near the largest there is (PAGE_COUNTER_MAX).
	const none = 1 << 62
	if !bounded || err != nil || err2 != nil || err3 != nil || limit >= none {
		return 0, false
	}
	return max(limit-charged+unused, 0), true
}
