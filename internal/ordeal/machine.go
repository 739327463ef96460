package ordeal

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"carrel/internal/cgroup"
)

// Adopt makes this process the parent of every orphan below it, so that nothing a
// killed daemon leaves behind can hide: it is this process's child, or a child of
// one. It holds for the rest of the test binary's life.
func Adopt(t testing.TB) {
	t.Helper()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
}

// Reap waits for the dead among the orphans that came to this process and returns
// those that live. known are children that others wait for.
func Reap(known ...int) (living []int) {
	for _, pid := range Children(os.Getpid()) {
		if slices.Contains(known, pid) {
			continue
		}
		if got, err := unix.Wait4(pid, nil, unix.WNOHANG, nil); err == nil && got == 0 {
			living = append(living, pid)
		}
	}
	return living
}

// Traces lists what daemons of baseDir have in the machine outside their files:
// cgroups, mounts and sockets that bear its name, and the temporary files in tmpDir,
// which must be theirs alone.
func Traces(t testing.TB, baseDir, tmpDir string) []string {
	t.Helper()
	traces := append(groups(t, cgroup.Name(baseDir)), lines(t, "/proc/self/mountinfo", baseDir, tmpDir)...)
	traces = append(traces, lines(t, "/proc/net/unix", baseDir, tmpDir)...)
	entries, err := os.ReadDir(tmpDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		traces = append(traces, filepath.Join(tmpDir, e.Name()))
	}
	return traces
}

// removeGroups removes the cgroups that a killed daemon has left, as its successor
// would. Where one has come, they are that one's.
func removeGroups(t testing.TB, baseDir string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context()) // a cleanup's is done already
	if len(groups(t, cgroup.Name(baseDir))) == 0 {
		return
	}
	left, err := cgroup.Open(ctx, cgroup.Name(baseDir))
	if err == nil {
		err = left.Close(ctx)
	}
	if err != nil {
		t.Logf("cgroups of %s: %v", baseDir, err)
	}
}

// groups finds the directories of the name under the mounts of cgroups.
func groups(t testing.TB, name string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() && e.Name() == name {
			found = append(found, path)
		}
		return nil // a group of somebody else's may have gone meanwhile
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// lines finds those of a file that hold one of the words.
func lines(t testing.TB, path string, words ...string) []string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var found []string
	for scan := bufio.NewScanner(f); scan.Scan(); {
		if slices.ContainsFunc(words, func(w string) bool { return strings.Contains(scan.Text(), w) }) {
			found = append(found, scan.Text())
		}
	}
	return found
}

// Layout is what lies in a base directory, as far as it is the daemon's own: a
// user's directory and everything in it counts as the one kind "users/*".
func Layout(t testing.TB, baseDir string) []string {
	t.Helper()
	var kinds []string
	err := filepath.WalkDir(baseDir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(baseDir, path)
		if err != nil {
			return err
		}
		parts := strings.Split(rel, string(filepath.Separator))
		if parts[0] == "users" && len(parts) > 1 {
			parts[1] = "*"
		}
		kinds = append(kinds, fmt.Sprint(e.Type(), " ", filepath.Join(parts...)))
		if len(parts) == 3 && e.IsDir() { // a user's workspace or home
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(kinds)
	return slices.Compact(kinds)
}
