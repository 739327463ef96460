package workspace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"carrel/protocol"
)

func diskUsage(t *testing.T, d *Dirs, userID string) int64 {
	t.Helper()
	bytes, err := d.DiskUsage(t.Context(), userID)
	must(t, err)
	return bytes
}

func TestDiskUsageCountsBlocksAndEachFileOnce(t *testing.T) {
	d := newDirs(t)
	dir := makeUser(t, d, "alice")
	workspace := filepath.Join(dir.Path, "workspace")
	file := filepath.Join(workspace, "file")
	empty := diskUsage(t, d, "alice")

	must(t, os.WriteFile(file, make([]byte, 1<<20), 0o644))
	sync, err := os.OpenFile(file, os.O_WRONLY, 0)
	must(t, err)
	must(t, sync.Sync()) // else blocks may not be allocated yet
	must(t, sync.Close())
	blocks := lstat(t, file).Blocks * 512
	if blocks < 1<<20 {
		t.Fatalf("1 MiB takes %d bytes", blocks)
	}
	if got := diskUsage(t, d, "alice"); got != empty+blocks {
		t.Errorf("with a file of %d bytes: %d, without: %d", blocks, got, empty)
	}
	must(t, os.Link(file, filepath.Join(workspace, "again")))
	must(t, os.Link(file, filepath.Join(dir.Path, "home", "again")))
	sparse, err := os.Create(filepath.Join(dir.Path, "home", "sparse"))
	must(t, err)
	must(t, sparse.Truncate(1<<40))
	must(t, sparse.Close())
	must(t, os.Symlink("/", filepath.Join(workspace, "link")))
	if got := diskUsage(t, d, "alice"); got > empty+blocks+1<<16 {
		t.Errorf("other names and a hole add %d bytes", got-empty-blocks)
	}
}

func TestDiskUsageOfManyDirectoriesMatchesAPlainWalk(t *testing.T) {
	d := newDirs(t)
	dir := makeUser(t, d, "alice")
	for i := range 300 { // more than fit into one buffer of entries
		path := filepath.Join(dir.Path, "workspace", fmt.Sprint("a-longer-name-", i))
		must(t, os.MkdirAll(filepath.Join(path, "x", "y"), 0o755))
		must(t, os.WriteFile(filepath.Join(path, "x", "file"), []byte("text"), 0o644))
	}
	fd, err := unix.Open(dir.Path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	must(t, unix.Fsync(fd))
	unix.Sync()
	must(t, unix.Close(fd))
	var want int64
	for _, sub := range []string{"workspace", "home"} {
		must(t, filepath.Walk(filepath.Join(dir.Path, sub), func(path string, _ os.FileInfo, err error) error {
			want += lstat(t, path).Blocks * 512
			return err
		}))
	}
	if got := diskUsage(t, d, "alice"); got != want {
		t.Errorf("%d, a plain walk gives %d", got, want)
	}
}

func TestDiskUsageOfAVeryDeepTreeNeedsFewDescriptors(t *testing.T) {
	d := newDirs(t)
	dir := makeUser(t, d, "alice")
	makeDeep(t, filepath.Join(dir.Path, "workspace"), levels, "d")
	block := lstat(t, filepath.Join(dir.Path, "workspace", "d")).Blocks * 512
	limitDescriptors(t)
	if got := diskUsage(t, d, "alice"); got < levels*block {
		t.Errorf("%d bytes for %d directories of %d", got, levels, block)
	}
}

func TestNoModeHidesDiskUsage(t *testing.T) {
	d := newDirs(t)
	dir := makeUser(t, d, "alice")
	modes := map[string]uint32{"a": 0o100, "a/b": 0, "a/b/c": 0o400, "d": 0o755}
	must(t, os.MkdirAll(filepath.Join(dir.Path, "workspace/a/b/c"), 0o755))
	must(t, os.Mkdir(filepath.Join(dir.Path, "workspace/d"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir.Path, "workspace/a/b/c/file"), make([]byte, 1<<20), 0))
	unix.Sync()
	want := diskUsage(t, d, "alice")
	for _, path := range []string{"d", "a/b/c", "a/b", "a"} {
		must(t, unix.Chmod(filepath.Join(dir.Path, "workspace", path), modes[path]))
	}
	if got := diskUsage(t, d, "alice"); got != want {
		t.Errorf("%d, with open modes %d", got, want)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	if _, err := d.DiskUsage(ctx, "alice"); !errors.Is(err, cause) {
		t.Errorf("a canceled walk gives %v", err)
	}
	for _, path := range []string{"a", "a/b", "a/b/c", "d"} { // as they were
		full := filepath.Join(dir.Path, "workspace", path)
		if got := lstat(t, full).Mode & 0o7777; got != modes[path] {
			t.Errorf("%s has mode %#o, had %#o", path, got, modes[path])
		}
		must(t, unix.Chmod(full, 0o700))
	}
}

func TestDiskUsageOfNobodyIsNotFound(t *testing.T) {
	d := newDirs(t)
	if _, err := d.DiskUsage(t.Context(), "alice"); protocol.CodeOf(err) != protocol.CodeNotFound {
		t.Errorf("DiskUsage gives %v", err)
	}
}

// TestDiskUsageOfATreeInMotionEnds: whatever a sandbox does meanwhile, the walk
// ends, with a sum or an error, and never leaves the tree.
func TestDiskUsageOfATreeInMotionEnds(t *testing.T) {
	d := newDirs(t)
	dir := makeUser(t, d, "alice")
	workspace := filepath.Join(dir.Path, "workspace")
	for _, path := range []string{"a", "b"} {
		must(t, os.Mkdir(filepath.Join(workspace, path), 0o755))
		makeDeep(t, filepath.Join(workspace, path), 3*openLevels, path)
	}
	deepest := workspace
	for range openLevels + 5 {
		deepest = filepath.Join(deepest, "a")
	}
	stop := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				away := filepath.Join(workspace, "b", "away")
				_ = os.Rename(deepest, away)
				_ = os.Symlink("/", deepest)
				_ = os.Remove(deepest)
				_ = os.Rename(away, deepest)
			}
		}
	})
	for range 50 {
		bytes, err := d.DiskUsage(t.Context(), "alice")
		if err != nil && !errors.Is(err, errMoved) {
			t.Errorf("the walk gives %v", err)
		}
		if bytes > 64<<20 {
			t.Errorf("the walk counts %d bytes", bytes)
		}
	}
	close(stop)
	group.Wait()
}
