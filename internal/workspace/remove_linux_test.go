package workspace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"carrel/protocol"
)

func isUnused(t *testing.T, d *Dirs) {
	t.Helper()
	for _, sub := range []string{"users", "tmp"} {
		if got := names(t, filepath.Join(d.Path(), sub)); got != nil {
			t.Errorf("%s/ still holds %q", sub, got)
		}
	}
}

func TestDirectoryInUseIsNotRemoved(t *testing.T) {
	d := newDirs(t)
	first, second := openUser(t, d, "alice"), openUser(t, d, "alice")
	for range 2 {
		if err := d.Remove(t.Context(), "alice"); protocol.CodeOf(err) != protocol.CodeConflict {
			t.Fatalf("Remove gives %v", err)
		}
		must(t, first.Close())
	}
	must(t, second.Close())
	must(t, d.Remove(t.Context(), "alice"))
	isUnused(t, d)
	for id, want := range map[string]protocol.Code{"alice": protocol.CodeNotFound, "": protocol.CodeInvalidRequest} {
		if err := d.Remove(t.Context(), id); protocol.CodeOf(err) != want {
			t.Errorf("Remove(%q) gives %v", id, err)
		}
	}
	makeUser(t, d, "alice")
}

func TestOnlyDirectoriesUnusedForLongerExpire(t *testing.T) {
	c := newClock()
	opts := rootOptions(filepath.Join(t.TempDir(), "base"))
	opts.Now = c.Now
	d := openDirs(t, opts)
	makeUser(t, d, "old")
	inUse := openUser(t, d, "in use")
	left := openUser(t, d, "left")
	c.advance(time.Hour)
	must(t, left.Close()) // the end of a use counts, not its start
	c.advance(time.Hour)

	expire := func(ttl time.Duration, want ...string) {
		t.Helper()
		got, err := d.Expire(t.Context(), ttl, nil)
		must(t, err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("after %s (-want +got):\n%s", ttl, diff)
		}
	}
	expire(0)
	expire(-time.Hour)
	expire(2 * time.Hour) // exactly as long is not longer
	expire(2*time.Hour-time.Second, "old")
	expire(time.Second, "left")
	must(t, inUse.Close())
	c.advance(time.Minute)
	expire(time.Second, "in use")
	isUnused(t, d)
}

func TestExpiryGoesOnPastABadDirectory(t *testing.T) {
	c := newClock()
	opts := rootOptions(filepath.Join(t.TempDir(), "base"))
	opts.Now = c.Now
	d := openDirs(t, opts)
	bad := makeUser(t, d, "bad")
	makeUser(t, d, "good")
	must(t, os.Remove(filepath.Join(bad.Path, "meta.json")))
	c.advance(time.Hour)
	got, err := d.Expire(t.Context(), time.Minute, nil)
	wantError(t, err, DirName("bad"))
	if diff := cmp.Diff([]string{"good"}, got); diff != "" {
		t.Error(diff)
	}
	must(t, d.Remove(t.Context(), "bad")) // an operator's way out
	isUnused(t, d)
}

// fillHostile makes what a sandbox may leave: names that look like options and
// paths, every kind of file, links out of the tree, modes that keep out.
func fillHostile(t *testing.T, dir, outside string) {
	t.Helper()
	for _, name := range []string{"-rf", "--", "...", " ", "\n", "\xff\xfe", "*", "a\\b", "1", "old-1", "meta.json", string(make255())} {
		must(t, os.MkdirAll(filepath.Join(dir, "names", name, name), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, "names", name, name, "f"+name[:min(3, len(name))]), nil, 0o644))
	}
	must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	must(t, os.Symlink(outside, filepath.Join(dir, "link to a directory")))
	must(t, os.Symlink(filepath.Join(outside, "file"), filepath.Join(dir, "link to a file")))
	must(t, os.Symlink("link to nothing", filepath.Join(dir, "link to nothing")))
	must(t, os.Link(filepath.Join(outside, "file"), filepath.Join(dir, "hard link")))
	must(t, unix.Mknod(filepath.Join(dir, "socket"), unix.S_IFSOCK|0o600, 0))
	for i := range 500 {
		must(t, os.MkdirAll(filepath.Join(dir, "wide", fmt.Sprint(i), "x"), 0o755))
	}
	closed := filepath.Join(dir, "closed")
	must(t, os.MkdirAll(filepath.Join(closed, "in", "in"), 0o755))
	must(t, os.WriteFile(filepath.Join(closed, "in", "file"), nil, 0))
	for _, path := range []string{"closed/in/in", "closed/in", "closed", "wide/7", "names"} {
		must(t, os.Chmod(filepath.Join(dir, path), 0))
	}
	must(t, os.Chmod(filepath.Join(dir, "wide"), 0o555))
	if os.Geteuid() == 0 {
		must(t, unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	}
	must(t, os.Chmod(dir, 0o500))
}

// make255 is the longest name there is (NAME_MAX).
func make255() []byte {
	name := make([]byte, 255)
	for i := range name {
		name[i] = 'n'
	}
	return name
}

func TestRemovalTakesEverythingInsideAndNothingOutside(t *testing.T) {
	d := newDirs(t)
	outside := filepath.Join(t.TempDir(), "outside")
	must(t, os.MkdirAll(filepath.Join(outside, "sub"), 0o755))
	must(t, os.WriteFile(filepath.Join(outside, "file"), []byte("kept"), 0o444))
	dir := makeUser(t, d, "alice")
	fillHostile(t, filepath.Join(dir.Path, "workspace"), outside)
	fillHostile(t, filepath.Join(dir.Path, "home"), outside)

	must(t, d.Remove(t.Context(), "alice"))
	isUnused(t, d)
	text, err := os.ReadFile(filepath.Join(outside, "file"))
	must(t, err)
	if st := lstat(t, filepath.Join(outside, "file")); string(text) != "kept" || st.Mode&0o777 != 0o444 || st.Nlink != 1 {
		t.Errorf("the file outside: %q, mode %#o, %d names", text, st.Mode, st.Nlink)
	}
	if st := lstat(t, outside); st.Mode&0o777 != 0o755 || !exists(filepath.Join(outside, "sub")) {
		t.Error("the directory outside was changed")
	}
}

func TestRemovalOfALiveSocketIsNoTrouble(t *testing.T) {
	d := newDirs(t)
	dir := makeUser(t, d, "a")
	t.Chdir(filepath.Join(dir.Path, "workspace"))
	listener, err := new(net.ListenConfig).Listen(t.Context(), "unix", "s")
	must(t, err)
	defer func() { _ = listener.Close() }()
	must(t, d.Remove(t.Context(), "a"))
	isUnused(t, d)
}

// levels of deep trees: past PATH_MAX (4096 bytes), the descriptors of a
// process (1024), and what recursion by path could bear.
const levels = 3000

func TestRemovalOfAVeryDeepTreeNeedsFewDescriptors(t *testing.T) {
	d := newDirs(t)
	dir := makeUser(t, d, "alice")
	makeDeep(t, filepath.Join(dir.Path, "workspace"), levels, "a-name-of-some-length")
	limitDescriptors(t)
	must(t, d.Remove(t.Context(), "alice"))
	isUnused(t, d)
}

// limitDescriptors leaves this process 20 descriptors more than it has.
func limitDescriptors(t *testing.T) {
	t.Helper()
	var old unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: openLevels + 40, Max: old.Max}))
	t.Cleanup(func() { must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &old)) })
}

func setFlags(t *testing.T, path string, flags int) {
	t.Helper()
	file, err := os.Open(path)
	must(t, err)
	defer func() { _ = file.Close() }()
	switch err := unix.IoctlSetPointerInt(int(file.Fd()), unix.FS_IOC_SETFLAGS, flags); {
	case errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EOPNOTSUPP):
		t.Skip("this file system has no flags")
	case errors.Is(err, unix.EPERM):
		missing(t, "needs CAP_LINUX_IMMUTABLE")
	default:
		must(t, err)
	}
}

func TestImmutableFilesAndDirectoriesAreRemoved(t *testing.T) {
	needRoot(t)
	d := newDirs(t)
	dir := makeUser(t, d, "alice")
	workspace := filepath.Join(dir.Path, "workspace")
	must(t, os.MkdirAll(filepath.Join(workspace, "dir", "sub", "sub"), 0o755))
	must(t, os.MkdirAll(filepath.Join(workspace, "log"), 0o755))
	must(t, os.MkdirAll(filepath.Join(workspace, "empty"), 0o755))
	for _, file := range []string{"file", "dir/file", "dir/sub/file", "log/file"} {
		must(t, os.WriteFile(filepath.Join(workspace, file), nil, 0o644))
	}
	flags := []struct {
		path string
		flag int
	}{{"file", flagImmutable}, {"dir/sub/file", flagAppendOnly}, {"log/file", flagAppendOnly}, {"dir/sub/sub", flagImmutable}, {"dir/sub", flagImmutable}, {"dir", flagImmutable}, {"log", flagAppendOnly}, {"empty", flagImmutable}, {".", flagImmutable}}
	t.Cleanup(func() { // so that a failing test leaves nothing behind
		for i := range flags {
			if path := filepath.Join(workspace, flags[len(flags)-1-i].path); exists(path) {
				setFlags(t, path, 0)
			}
		}
	})
	for _, f := range flags {
		setFlags(t, filepath.Join(workspace, f.path), f.flag)
	}
	must(t, d.Remove(t.Context(), "alice"))
	isUnused(t, d)
}

// ownMounts gives the rest of a test, and whatever it calls on this goroutine, a
// mount namespace of its own. The thread ends with the test, and the mounts
// with it.
func ownMounts(t *testing.T) {
	t.Helper()
	needRoot(t)
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		missing(t, "needs a mount namespace: "+err.Error())
	}
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
}

func TestMountInsideIsReportedAndNothingInItIsTouched(t *testing.T) {
	ownMounts(t)
	opts := Options{BaseDir: filepath.Join(t.TempDir(), "base"), Root: true, UIDFirst: 300000, UIDCount: 2}
	d := openDirs(t, opts)
	dir := makeUser(t, d, "alice")
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "file"), make([]byte, 1<<20), 0o644))
	unix.Sync() // blocks are allocated, so that DiskUsage could count them
	for _, mount := range []string{"workspace/a/b/tmpfs", "workspace/a/bind"} {
		must(t, os.MkdirAll(filepath.Join(dir.Path, mount), 0o755))
	}
	must(t, os.Chown(filepath.Join(dir.Path, "workspace/a"), dir.UID, dir.UID))
	must(t, os.Chown(filepath.Join(dir.Path, "workspace/a/b"), dir.UID, dir.UID))
	must(t, os.WriteFile(filepath.Join(dir.Path, "workspace/a/file"), nil, 0o644))
	must(t, unix.Mount("none", filepath.Join(dir.Path, "workspace/a/b/tmpfs"), "tmpfs", 0, ""))
	must(t, os.WriteFile(filepath.Join(dir.Path, "workspace/a/b/tmpfs/file"), make([]byte, 1<<20), 0o644))
	must(t, unix.Mount(outside, filepath.Join(dir.Path, "workspace/a/bind"), "", unix.MS_BIND, ""))

	if usage, err := d.DiskUsage(t.Context(), "alice"); err != nil || usage >= 1<<20 {
		t.Errorf("DiskUsage counts the mount: %d, %v", usage, err)
	}
	err := d.Remove(t.Context(), "alice")
	wantError(t, err, "tmpfs", "bind", "is a mount point")
	if !exists(filepath.Join(outside, "file")) {
		t.Error("a file of the mount was removed")
	}
	if exists(dir.Path) {
		t.Error("the user is still there")
	}
	var left []string
	must(t, filepath.WalkDir(filepath.Join(d.Path(), "tmp"), func(_ string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			left = append(left, e.Name())
		}
		return err
	}))
	if diff := cmp.Diff([]string{"file", "file"}, left); diff != "" { // the mounts' own
		t.Errorf("files left (-want +got):\n%s", diff)
	}

	// Her uid owns what is left, so nobody else gets it, also after a restart.
	if other := makeUser(t, d, "bob"); other.UID == dir.UID {
		t.Error("bob owns what alice left")
	}
	must(t, d.Close())
	d = openDirs(t, opts)
	_, err = d.Open(t.Context(), "carol")
	wantError(t, err, "no uid is free")

	var mounts []string
	must(t, filepath.WalkDir(filepath.Join(d.Path(), "tmp"), func(path string, e fs.DirEntry, err error) error {
		if err == nil && (e.Name() == "tmpfs" || e.Name() == "bind") {
			mounts = append(mounts, path)
		}
		return err
	}))
	for _, mount := range mounts {
		must(t, unix.Unmount(mount, unix.MNT_DETACH))
	}
	_, err = d.Expire(t.Context(), 0, nil)
	must(t, err)
	if got := names(t, filepath.Join(d.Path(), "tmp")); len(mounts) != 2 || got != nil {
		t.Errorf("%d mounts; tmp/ still holds %q", len(mounts), got)
	}
	makeUser(t, d, "carol")
}

func TestRemovalThatIsCutShortIsFinishedLater(t *testing.T) {
	opts := rootOptions(filepath.Join(t.TempDir(), "base"))
	opts.UIDCount = 1
	d := openDirs(t, opts)
	fill := func() {
		dir := makeUser(t, d, "alice")
		must(t, os.MkdirAll(filepath.Join(dir.Path, "workspace", "a", "b"), 0o755))
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	cut := func() {
		fill()
		trash, err := d.moveOut(t.Context(), DirName("alice"), nil)
		must(t, err)
		if err := d.discard(ctx, trash); !errors.Is(err, cause) {
			t.Fatalf("the removal gives %v", err)
		}
		if got := names(t, filepath.Join(d.Path(), "tmp")); len(got) != 1 {
			t.Fatalf("tmp/ holds %q", got)
		}
	}
	cut()
	if opts.Root {
		_, err := d.Open(t.Context(), "bob")
		wantError(t, err, "no uid is free")
	}
	_, err := d.Expire(t.Context(), 0, nil)
	must(t, err)
	isUnused(t, d)

	cut()
	must(t, d.Close())
	d = openDirs(t, opts)
	isUnused(t, d)
	fill()
}

func TestDirectoryOfAUserWhoIsAwaitedDoesNotExpire(t *testing.T) {
	c := newClock()
	opts := rootOptions(filepath.Join(t.TempDir(), "base"))
	opts.Now = c.Now
	d := openDirs(t, opts)
	makeUser(t, d, "alice")
	makeUser(t, d, "bob")
	c.advance(time.Hour)
	got, err := d.Expire(t.Context(), time.Minute, func(userID string) bool { return userID == "alice" })
	must(t, err)
	if diff := cmp.Diff([]string{"bob"}, got); diff != "" {
		t.Error(diff)
	}
}

// TestArrivalDuringExpiryGetsAWholeDirectory: whoever opens while others are
// removed has either the old directory or a new one, and keeps it.
func TestArrivalDuringExpiryGetsAWholeDirectory(t *testing.T) {
	c := newClock()
	opts := rootOptions(filepath.Join(t.TempDir(), "base"))
	opts.Now = c.Now
	d := openDirs(t, opts)
	arrive := func() (isFresh bool) {
		dir, err := d.Open(t.Context(), "alice")
		if err != nil {
			t.Error(err)
			return false
		}
		mark := filepath.Join(dir.Path, "workspace", "mark")
		if isFresh = !exists(mark); isFresh {
			if got := names(t, filepath.Join(dir.Path, "workspace")); got != nil {
				t.Errorf("a half-removed directory: %q", got)
			}
			deep := filepath.Join(dir.Path, "workspace", "a", "b", "c", "d")
			if err := errors.Join(os.MkdirAll(deep, 0o700), os.WriteFile(mark, nil, 0o600)); err != nil {
				t.Error(err)
			}
		}
		if diff := cmp.Diff([]string{"home", "meta.json", "workspace"}, names(t, dir.Path)); diff != "" || !exists(mark) {
			t.Errorf("while it is open it is taken apart: %s", diff)
		}
		if err := dir.Close(); err != nil {
			t.Error(err)
		}
		return isFresh
	}
	expire := func(meanwhile func()) {
		c.advance(time.Hour)
		var group sync.WaitGroup
		_, err := d.Expire(t.Context(), time.Minute, func(string) bool {
			group.Go(meanwhile)
			return false
		})
		must(t, err)
		group.Wait()
	}
	arrive()
	for range 30 { // at the same time: either may be faster
		expire(func() { arrive() })
	}
	isFresh := false
	path := filepath.Join(d.Path(), "users", DirName("alice"))
	expire(func() { // as soon as it has left its place, and is still being removed
		for exists(path) {
			runtime.Gosched()
		}
		isFresh = arrive()
	})
	if !isFresh {
		t.Error("the old directory was there after it had left")
	}
}
