package workspace

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// clock is a clock that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// needRoot skips a test that only root can do. REQUIRE_KERNEL=1 says that it
// must be possible.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	t.Skip("needs root") // the gate's root half runs it, and fails if it does not
}

// missing skips, or fails where nothing may be missing.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("REQUIRE_KERNEL") == "1" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// rootOptions gives each user a uid of its own where tests run as root.
func rootOptions(base string) Options {
	return Options{BaseDir: base, Root: os.Geteuid() == 0, UIDFirst: 200000, UIDCount: 1000}
}

func openDirs(t *testing.T, opts Options) *Dirs {
	t.Helper()
	d, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// newDirs opens a new base directory.
func newDirs(t *testing.T) *Dirs {
	t.Helper()
	return openDirs(t, rootOptions(filepath.Join(t.TempDir(), "base")))
}

func openUser(t *testing.T, d *Dirs, userID string) *Dir {
	t.Helper()
	dir, err := d.Open(t.Context(), userID)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })
	return dir
}

// makeUser makes a user's directory and ends its use.
func makeUser(t *testing.T, d *Dirs, userID string) *Dir {
	t.Helper()
	dir := openUser(t, d, userID)
	must(t, dir.Close())
	return dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func lstat(t *testing.T, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("lstat %s: %v", path, err)
	}
	return st
}

func exists(path string) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil
}

// names lists a directory; nil if it is empty.
func names(t *testing.T, path string) []string {
	t.Helper()
	entries, err := os.ReadDir(path)
	must(t, err)
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func wantError(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", words)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error %q lacks %q", err, word)
		}
	}
}

// makeDeep makes levels directories in one another below path, each with a file.
func makeDeep(t *testing.T, path string, levels int, name string) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	for range levels {
		must(t, unix.Mkdirat(fd, name, 0o755))
		next, err := unix.Openat(fd, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(t, err)
		must(t, unix.Close(fd))
		fd = next
	}
	must(t, unix.Mknodat(fd, "file", unix.S_IFREG|0o644, 0))
	must(t, unix.Close(fd))
}
