package workspace

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"carrel/protocol"
)

func TestBaseDirectoryIsMadeForItsOwnerAlone(t *testing.T) {
	base := filepath.Join(t.TempDir(), "a", "b")
	d := openDirs(t, rootOptions(base))
	if diff := cmp.Diff([]string{"lock", "run", "tmp", "users"}, names(t, base)); diff != "" {
		t.Error(diff)
	}
	for _, path := range []string{base, d.RunPath(), filepath.Join(base, "users"), filepath.Join(base, "tmp")} {
		if mode := lstat(t, path).Mode; mode&0o7777&^unix.S_ISGID != 0o700 {
			t.Errorf("%s has mode %#o", path, mode)
		}
	}
	if d.Path() != base {
		t.Errorf("Path() = %s", d.Path())
	}
}

func TestBaseDirectoryThatIsASymbolicLinkIsRefused(t *testing.T) {
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(t.TempDir(), link))
	for _, path := range []string{link, link + "/"} {
		_, err := Open(t.Context(), Options{BaseDir: path})
		wantError(t, err, "symbolic link")
	}
}

func TestBaseDirectoryOpenToOthersIsRepairedOnlyIfItIsOurs(t *testing.T) {
	tests := []struct {
		name   string
		mode   os.FileMode
		inside string
		ok     bool
	}{
		{"empty and readable", 0o755, "", true},
		{"empty and writable", 0o777, "", true},
		{"ours and readable", 0o755, "users", true},
		{"ours and writable", 0o770, "users", false},
		{"somebody's home", 0o755, "Documents", false},
		{"private, with other things", 0o700, "Documents", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			base := t.TempDir()
			if tt.inside != "" {
				must(t, os.Mkdir(filepath.Join(base, tt.inside), 0o700))
			}
			must(t, os.Chmod(base, tt.mode))
			want := uint32(0o700)
			d, err := Open(t.Context(), Options{BaseDir: base})
			if tt.ok {
				must(t, err)
				must(t, d.Close())
			} else {
				wantError(t, err, "mode", "others")
				want = uint32(tt.mode)
			}
			if mode := lstat(t, base).Mode & 0o777; mode != want {
				t.Errorf("the mode is %#o, want %#o", mode, want)
			}
		})
	}
}

func TestBaseDirectoryOfAnotherIsRefused(t *testing.T) {
	needRoot(t)
	base := t.TempDir()
	must(t, os.Chown(base, 12345, 12345))
	_, err := Open(t.Context(), Options{BaseDir: base})
	wantError(t, err, "belongs to uid 12345")
}

func TestUsersThatIsASymbolicLinkOrAnothersIsRefused(t *testing.T) {
	base, elsewhere := t.TempDir(), t.TempDir()
	must(t, os.Chmod(base, 0o700))
	must(t, os.Symlink(elsewhere, filepath.Join(base, "users")))
	_, err := Open(t.Context(), Options{BaseDir: base})
	wantError(t, err, "users")
	if got := names(t, elsewhere); got != nil {
		t.Errorf("%q were made where the link leads", got)
	}
	if os.Geteuid() == 0 {
		must(t, os.Remove(filepath.Join(base, "users")))
		must(t, os.Mkdir(filepath.Join(base, "users"), 0o700))
		must(t, os.Chown(filepath.Join(base, "users"), 12345, 12345))
		_, err := Open(t.Context(), Options{BaseDir: base})
		wantError(t, err, "users", "12345")
	}
}

func TestTwoDaemonsNeverShareABaseDirectory(t *testing.T) {
	base := filepath.Join(t.TempDir(), "base")
	first := openDirs(t, Options{BaseDir: base})
	_, err := Open(t.Context(), Options{BaseDir: base})
	wantError(t, err, "in use by another carrel", fmt.Sprintf("pid %d", os.Getpid()))
	if code := protocol.CodeOf(err); code != protocol.CodeConflict {
		t.Errorf("code %s", code)
	}
	must(t, first.Close())
	must(t, openDirs(t, Options{BaseDir: base}).Close())
}

func TestUIDForEachUserTakesRootAndARange(t *testing.T) {
	_, err := Open(t.Context(), Options{BaseDir: t.TempDir(), Root: true})
	wantError(t, err, "takes root and a range")
}

func TestEverythingIsRefusedAfterClose(t *testing.T) {
	d := newDirs(t)
	makeUser(t, d, "alice")
	dir := openUser(t, d, "bob")
	wantError(t, d.Close(), "1 user directories are still open")
	must(t, d.Close())
	must(t, dir.Close())
	_, err := d.Open(t.Context(), "alice")
	if code := protocol.CodeOf(err); code != protocol.CodeShuttingDown {
		t.Errorf("Open after Close gives %v", err)
	}
}

// TestAsOrdinaryUser runs all the tests again without root, in a process of its
// own: modes stop only those who are not root.
func TestAsOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the others run as an ordinary user already")
	}
	const nobody = 65534
	tmp, err := os.MkdirTemp("", "carrel-ordinary") //nolint:usetesting // t.TempDir lies in a directory that only root enters.
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(tmp) })
	must(t, os.Chown(tmp, nobody, nobody))

	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.timeout=5m", "-rapid.checks=20")
	cmd.Dir = "/"
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "REQUIRE_KERNEL=") && !strings.HasPrefix(entry, "TMPDIR=") {
			cmd.Env = append(cmd.Env, entry)
		}
	}
	cmd.Env = append(cmd.Env, "TMPDIR="+tmp)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("as an ordinary user: %v\n%s", err, out)
	}
}
