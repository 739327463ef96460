package ordeal

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Children are the processes a process has started or inherited, and not waited
// for. One that is gone has none.
func Children(pid int) []int {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	var pids []int
	for _, task := range tasks {
		b, _ := os.ReadFile(task) // a thread may just have ended
		for field := range strings.FieldsSeq(string(b)) {
			if child, err := strconv.Atoi(field); err == nil {
				pids = append(pids, child)
			}
		}
	}
	return pids
}

// Descendants are the children of a process, and theirs, and so on.
func Descendants(pid int) []int {
	var pids []int
	for next := []int{pid}; len(next) > 0; {
		children := Children(next[0])
		pids = append(pids, children...)
		next = append(next[1:], children...)
	}
	return pids
}

// alive reports whether a process is there and no zombie.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

// commandLine is a process's arguments, with spaces between; empty once it is gone.
func commandLine(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.TrimSpace(strings.ReplaceAll(string(b), "\x00", " "))
}

// descriptors counts what a process has open; -1 if that cannot be told.
func descriptors(pid int) int {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return -1
	}
	return len(entries)
}

// Resident is the memory of a process that is in the machine's own, in bytes; 0 once
// it is gone. Anybody may read it.
func Resident(pid int) int64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	columns := strings.Fields(string(b))
	if len(columns) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(columns[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// PSS is the memory a process has to itself and its share of what it has with
// others, in bytes. It is an error where the process may not be looked into: an
// ordinary user's sandboxes are closed even to that user.
func PSS(pid int) (int64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return field(f, "Pss:")
}

// field finds "NAME  123 kB" and gives it in bytes.
func field(f *os.File, name string) (int64, error) {
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), name); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 64)
			return kib << 10, err
		}
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	return 0, fmt.Errorf("%s: no %s", f.Name(), name)
}
