package workspace

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"carrel/protocol"
)

func TestUserDirectoryIsMadeWholeWithItsOwner(t *testing.T) {
	c := newClock()
	opts := rootOptions(filepath.Join(t.TempDir(), "base"))
	opts.Now = c.Now
	d := openDirs(t, opts)
	dir := openUser(t, d, "Alice/1")

	if want := filepath.Join(d.Path(), "users", DirName("Alice/1")); dir.Path != want {
		t.Errorf("Path = %s, want %s", dir.Path, want)
	}
	wantUID, wantGID := os.Geteuid(), os.Getegid()
	if opts.Root {
		wantUID, wantGID = 200000, 200000
	}
	if dir.UID != wantUID || dir.GID != wantGID {
		t.Errorf("owner %d:%d, want %d:%d", dir.UID, dir.GID, wantUID, wantGID)
	}
	if diff := cmp.Diff([]string{"home", "meta.json", "workspace"}, names(t, dir.Path)); diff != "" {
		t.Error(diff)
	}
	if st := lstat(t, dir.Path); int(st.Uid) != os.Geteuid() || st.Mode&0o777 != 0o700 {
		t.Errorf("the user's directory: uid %d, mode %#o", st.Uid, st.Mode)
	}
	for _, sub := range []string{"workspace", "home"} {
		st := lstat(t, filepath.Join(dir.Path, sub))
		if int(st.Uid) != wantUID || int(st.Gid) != wantGID || st.Mode&0o777 != 0o700 {
			t.Errorf("%s: owner %d:%d, mode %#o", sub, st.Uid, st.Gid, st.Mode)
		}
	}
	if st := lstat(t, filepath.Join(dir.Path, "meta.json")); int(st.Uid) != os.Geteuid() || st.Mode&0o777 != 0o600 {
		t.Errorf("meta.json: uid %d, mode %#o", st.Uid, st.Mode)
	}
	text, err := os.ReadFile(filepath.Join(dir.Path, "meta.json"))
	must(t, err)
	var got map[string]any
	must(t, json.Unmarshal(text, &got))
	want := map[string]any{"user_id": "Alice/1", "uid": float64(wantUID), "created_at": "2026-01-02T03:04:05Z"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := names(t, filepath.Join(d.Path(), "tmp")); got != nil {
		t.Errorf("tmp/ holds %q", got)
	}
}

func TestDescriptorsLeadToTheUsersDirectories(t *testing.T) {
	d := newDirs(t)
	dir := openUser(t, d, "alice")
	for sub, open := range map[string]func() (*os.File, error){"workspace": dir.OpenWorkspace, "home": dir.OpenHome} {
		file, err := open()
		must(t, err)
		var st unix.Stat_t
		must(t, unix.Fstat(int(file.Fd()), &st))
		if want := lstat(t, filepath.Join(dir.Path, sub)); st.Ino != want.Ino {
			t.Errorf("%s leads elsewhere", sub)
		}
		flags, err := unix.FcntlInt(file.Fd(), unix.F_GETFL, 0)
		must(t, err)
		if flags&unix.O_PATH == 0 {
			t.Errorf("%s is open for more than a place: %#x", sub, flags)
		}
		must(t, file.Close())
	}
}

func TestOddUserIDsAreRefusedOrHaveADirectoryOfTheirOwn(t *testing.T) {
	d := newDirs(t)
	for _, id := range []string{"", "a\x00b", "a\nb", "\xff", strings.Repeat("x", 257)} {
		if _, err := d.Open(t.Context(), id); protocol.CodeOf(err) != protocol.CodeInvalidRequest {
			t.Errorf("%q gives %v", id, err)
		}
	}
	paths := make(map[string]string)
	for _, id := range []string{"a/b", "a_b", "A", "a", "..", ".", "/", "../../etc", "用戶", strings.Repeat("x", 256)} {
		dir := openUser(t, d, id)
		if other, ok := paths[dir.Path]; ok {
			t.Errorf("%q and %q share %s", id, other, dir.Path)
		}
		paths[dir.Path] = id
		if filepath.Dir(dir.Path) != filepath.Join(d.Path(), "users") {
			t.Errorf("%q is at %s", id, dir.Path)
		}
	}
}

func TestDirectoryAndUIDStayWithTheirUser(t *testing.T) {
	opts := rootOptions(filepath.Join(t.TempDir(), "base"))
	uids := make(map[string]int)
	for round := range 3 {
		d := openDirs(t, opts)
		for _, id := range []string{"alice", "bob", fmt.Sprint("new", round)} {
			dir := openUser(t, d, id)
			file := filepath.Join(dir.Path, "workspace", "file")
			if uid, ok := uids[id]; !ok {
				uids[id] = dir.UID
				must(t, os.WriteFile(file, []byte(id), 0o600))
			} else if text, err := os.ReadFile(file); uid != dir.UID || err != nil || string(text) != id {
				t.Errorf("%s: uid %d was %d, file %q, %v", id, dir.UID, uid, text, err)
			}
			must(t, dir.Close())
		}
		must(t, d.Close())
	}
}

// TestTamperedDirectoryIsAConflict: what is not what was made is refused, and
// nothing is followed, made or changed where it leads.
func TestTamperedDirectoryIsAConflict(t *testing.T) {
	victim := filepath.Join(t.TempDir(), "victim")
	must(t, os.Mkdir(victim, 0o755))
	rewrite := func(path, text string) error {
		return os.WriteFile(filepath.Join(path, "meta.json"), []byte(text), 0o600)
	}
	replace := func(path, name string, with func(string) error) error {
		full := filepath.Join(path, name)
		if err := os.RemoveAll(full); err != nil {
			return err
		}
		return with(full)
	}
	link := func(full string) error { return os.Symlink(victim, full) }
	tests := map[string]func(path string) error{
		"other user":       func(p string) error { return rewrite(p, `{"user_id":"bob","uid":200000}`) },
		"uid out of range": func(p string) error { return rewrite(p, `{"user_id":"alice","uid":7}`) },
		"no JSON":          func(p string) error { return rewrite(p, "") },
		"meta is missing":  func(p string) error { return os.Remove(filepath.Join(p, "meta.json")) },
		"meta is a pipe": func(p string) error {
			return replace(p, "meta.json", func(f string) error { return unix.Mkfifo(f, 0o600) })
		},
		"meta is a link":      func(p string) error { return replace(p, "meta.json", link) },
		"workspace is a link": func(p string) error { return replace(p, "workspace", link) },
		"home is a link":      func(p string) error { return replace(p, "home", link) },
		"home is a file": func(p string) error {
			return replace(p, "home", func(f string) error { return os.WriteFile(f, nil, 0o600) })
		},
		"home is missing": func(p string) error { return os.Remove(filepath.Join(p, "home")) },
		"all is a link": func(p string) error {
			if err := os.Rename(p, p+"-away"); err != nil {
				return err
			}
			return os.Symlink(p+"-away", p)
		},
		"all is a link beside it": func(p string) error {
			if err := os.Rename(p, p+"-away"); err != nil {
				return err
			}
			return os.Symlink(filepath.Base(p)+"-away", p)
		},
		"home is a link beside it": func(p string) error {
			return replace(p, "home", func(f string) error { return os.Symlink("workspace", f) })
		},
		"meta is a link beside it": func(p string) error {
			if err := os.Rename(filepath.Join(p, "meta.json"), filepath.Join(p, "other")); err != nil {
				return err
			}
			return os.Symlink("other", filepath.Join(p, "meta.json"))
		},
	}
	for name, tamper := range tests {
		t.Run(name, func(t *testing.T) {
			d := newDirs(t)
			dir := makeUser(t, d, "alice")
			must(t, tamper(dir.Path))
			_, err := d.Open(t.Context(), "alice")
			if protocol.CodeOf(err) != protocol.CodeConflict {
				t.Errorf("Open gives %v", err)
			}
			if st := lstat(t, victim); st.Mode&0o777 != 0o755 || names(t, victim) != nil {
				t.Error("what a link leads to was changed")
			}
			// A start finds it too, and lives with it.
			must(t, d.Close())
			again := openDirs(t, d.opts)
			if _, err := again.Open(t.Context(), "alice"); err == nil {
				t.Error("after a restart it opens")
			}
		})
	}
}

func TestForeignOwnerIsAConflict(t *testing.T) {
	needRoot(t)
	for _, sub := range []string{"", "workspace", "home"} {
		d := newDirs(t)
		dir := makeUser(t, d, "alice")
		must(t, os.Chown(filepath.Join(dir.Path, sub), 4711, 4711))
		_, err := d.Open(t.Context(), "alice")
		wantError(t, err, "4711:4711")
		if protocol.CodeOf(err) != protocol.CodeConflict {
			t.Errorf("%q gives %v", sub, err)
		}
	}
}

func TestModesAreRepaired(t *testing.T) {
	d := newDirs(t)
	dir := makeUser(t, d, "alice")
	for _, mode := range []uint32{0, 0o777, 0o1777, 0o4711} {
		for _, sub := range []string{"workspace", "home"} {
			must(t, unix.Chmod(filepath.Join(dir.Path, sub), mode))
		}
		must(t, unix.Chmod(dir.Path, 0o755))
		makeUser(t, d, "alice")
		for _, sub := range []string{"", "workspace", "home"} {
			if got := lstat(t, filepath.Join(dir.Path, sub)).Mode & 0o7777 &^ unix.S_ISGID; got != 0o700 {
				t.Errorf("%q stays at %#o", sub, got)
			}
		}
	}
}

func TestUIDRangeThatIsUsedUpIsAClearError(t *testing.T) {
	needRoot(t)
	d := openDirs(t, Options{BaseDir: t.TempDir(), Root: true, UIDFirst: 300000, UIDCount: 2})
	makeUser(t, d, "a")
	makeUser(t, d, "b")
	_, err := d.Open(t.Context(), "c")
	wantError(t, err, "all 2 of the range 300000:2", "SANDBOX_UID_RANGE")
	must(t, d.Remove(t.Context(), "a"))
	if dir := makeUser(t, d, "c"); dir.UID != 300000 {
		t.Errorf("the freed uid is not given again, but %d", dir.UID)
	}
}

func TestTwoDirectoriesWithOneUIDNeverBothOpen(t *testing.T) {
	needRoot(t)
	d := newDirs(t)
	a, b := makeUser(t, d, "a"), makeUser(t, d, "b")
	text := fmt.Sprintf(`{"user_id":"b","uid":%d}`, a.UID)
	must(t, os.WriteFile(filepath.Join(b.Path, "meta.json"), []byte(text), 0o600))
	for _, sub := range []string{"workspace", "home"} {
		must(t, os.Chown(filepath.Join(b.Path, sub), a.UID, a.UID))
	}
	must(t, d.Close())
	d = openDirs(t, d.opts)
	_, errA := d.Open(t.Context(), "a")
	_, errB := d.Open(t.Context(), "b")
	if (errA == nil) == (errB == nil) {
		t.Fatalf("a gives %v, b gives %v", errA, errB)
	}
	wantError(t, errors.Join(errA, errB), "belongs to", "too")
}

func TestUIDOfFilesThatNobodyCanTellIsNotGivenAgain(t *testing.T) {
	needRoot(t)
	opts := Options{BaseDir: t.TempDir(), Root: true, UIDFirst: 300000, UIDCount: 3}
	d := openDirs(t, opts)
	a := makeUser(t, d, "a")
	must(t, os.Remove(filepath.Join(a.Path, "meta.json")))
	must(t, d.Close())
	d = openDirs(t, opts)
	for _, id := range []string{"b", "c"} {
		if dir := makeUser(t, d, id); dir.UID == a.UID {
			t.Errorf("%s owns the files of a", id)
		}
	}
	_, err := d.Open(t.Context(), "d")
	wantError(t, err, "no uid is free")
}

func TestWhatAKilledDaemonLeftIsSweptAtStart(t *testing.T) {
	d := newDirs(t)
	kept := makeUser(t, d, "kept")
	must(t, d.Close())
	tmp := filepath.Join(d.Path(), "tmp")
	for _, path := range []string{"new-1/workspace", "new-2", "old-1/user/workspace/a/b", "old-1/x-7/c", "old-2"} {
		must(t, os.MkdirAll(filepath.Join(tmp, path), 0o700))
	}
	must(t, os.WriteFile(filepath.Join(tmp, "old-1/user/workspace/a/file"), nil, 0o400))
	must(t, os.WriteFile(filepath.Join(tmp, "stray"), nil, 0o400))
	opts := d.opts
	opts.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	d = openDirs(t, opts)
	if got := names(t, tmp); got != nil {
		t.Errorf("tmp/ still holds %q", got)
	}
	if dir := makeUser(t, d, "kept"); dir.UID != kept.UID {
		t.Error("another directory was touched")
	}
}

func TestOpenGivesUpWhenItsCallerDoes(t *testing.T) {
	d := newDirs(t)
	s, err := d.take(t.Context(), DirName("alice")) // somebody else's turn
	must(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	if _, err := d.Open(ctx, "alice"); !errors.Is(err, cause) {
		t.Errorf("Open gives %v", err)
	}
	d.give(DirName("alice"), s)
	makeUser(t, d, "alice")
	if len(d.slots) != 0 {
		t.Errorf("%d slots are left", len(d.slots))
	}
}

func TestFirstOpenOfManyAtOnceMakesOneDirectory(t *testing.T) {
	d := newDirs(t)
	var group sync.WaitGroup
	uids := make([]int, 16)
	for i := range uids {
		group.Go(func() {
			dir, err := d.Open(t.Context(), "alice")
			if err != nil {
				t.Error(err)
				return
			}
			uids[i] = dir.UID
			if err := dir.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	for _, uid := range uids {
		if uid != uids[0] {
			t.Errorf("uids %v", uids)
		}
	}
	if got := names(t, filepath.Join(d.Path(), "users")); len(got) != 1 {
		t.Errorf("users/ holds %q", got)
	}
}

func TestListTellsWhoHasADirectory(t *testing.T) {
	c := newClock()
	opts := rootOptions(filepath.Join(t.TempDir(), "base"))
	opts.Now = c.Now
	d := openDirs(t, opts)
	made := c.Now()
	bob := makeUser(t, d, "bob")
	c.advance(time.Hour)
	alice := openUser(t, d, "alice")
	must(t, bob.Close()) // a second Close changes nothing
	users, err := d.List(t.Context())
	must(t, err)
	want := []User{
		{UserID: "alice", UID: alice.UID, CreatedAt: c.Now(), LastUsed: c.Now(), InUse: true},
		{UserID: "bob", UID: bob.UID, CreatedAt: made, LastUsed: made},
	}
	if diff := cmp.Diff(want, users); diff != "" {
		t.Error(diff)
	}
	must(t, os.Remove(filepath.Join(bob.Path, "meta.json")))
	users, err = d.List(t.Context())
	wantError(t, err, DirName("bob"))
	if len(users) != 1 {
		t.Errorf("one bad directory leaves %d of the others", len(users))
	}
}
