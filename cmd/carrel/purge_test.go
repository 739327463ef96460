package main

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"carrel/internal/ordeal"
	"carrel/internal/workspace"
	"carrel/protocol"
)

// hostileTree is what a script leaves behind: a tree deeper than any path is long,
// many empty files, what nobody may read, sockets and pipes, and links out.
const hostileTree = `
	set -e
	ln -s / root; ln -s /workspace/../../bob bob; ln -s self self
	mkfifo pipe; mkdir closed; mkdir closed/in; : > closed/in/f; chmod 0 closed/in/f closed/in closed
	mkdir sticky; : > sticky/f; chmod 1555 sticky; : > file; chmod 7444 file
	head -c 1048576 /dev/zero > once; ln once twice; ln once thrice
	: > sparse; dd if=/dev/zero of=sparse bs=1 count=1 seek=1073741823 2>/dev/null
	mkdir many; (cd many; seq -f f%g 4000 | xargs touch)
	i=0; while [ $i -lt 50 ]; do mkdir d; cd d; i=$((i+1)); done`

func (d *daemon) retire(user, query string) (int, []byte) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 4*ordeal.Patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, d.url+"/v1/users/"+user+"/sandbox"+query, http.NoBody)
	if err != nil {
		d.t.Fatal(err)
	}
	return d.do(req)
}

// A tree that a sandbox made is counted and removed whole, with a run that still
// fills it, and others are answered meanwhile.
func TestHostileTreeIsCountedAndPurgedAndNothingElse(t *testing.T) {
	base := t.TempDir()
	d := serve(t, base)
	d.exec("bob", "echo his > file")
	if r := d.exec("ana", hostileTree); r.ExitCode != 0 {
		t.Fatalf("%+v", r)
	}
	users := filepath.Join(base, "users")
	work := filepath.Join(users, workspace.DirName("ana"), "workspace")
	if err := unix.Mknod(filepath.Join(work, "socket"), unix.S_IFSOCK|0o600, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(users, workspace.DirName("bob"), "workspace"), filepath.Join(work, "outside")); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := unix.Mknod(filepath.Join(work, "device"), unix.S_IFBLK|0o666, int(unix.Mkdev(7, 250))); err != nil {
			t.Fatal(err)
		}
	}
	deepen(t, work)
	if used := sandboxOf(d, "ana").DiskBytes; used < levelsDeep*4096 || used > levelsDeep*4096*2+64<<20 {
		t.Errorf("%d bytes are counted: one file of 1 MiB, a hole of 1 GiB, and directories", used)
	}
	run := d.start("ana", "echo going; mkdir -p fill; i=0; while :; do mkdir fill/d$i; echo x > fill/d$i/f; i=$((i+1)); done", "going")

	purged := make(chan struct{})
	var others sync.WaitGroup
	others.Go(func() {
		for {
			if r := d.exec("bob", "cat file"); r.Stdout != "his\n" {
				t.Errorf("bob finds %+v", r)
			}
			select {
			case <-purged:
				return
			default:
			}
		}
	})
	status, body := d.retire("ana", "?purge=true")
	close(purged)
	others.Wait()
	if status != http.StatusNoContent {
		t.Errorf("the purge: %d %s", status, body)
	}
	if e := d.ending(run.RunID); e.Code == "" {
		t.Errorf("the run ended with %+v", e)
	}
	for dir, want := range map[string]int{users: 1, filepath.Join(base, "tmp"): 0} {
		if left, err := os.ReadDir(dir); err != nil || len(left) != want {
			t.Errorf("%s holds %v, %v", dir, left, err)
		}
	}
	if r := d.exec("ana", "ls -A"); r.Stdout != "" {
		t.Errorf("when she comes back there is %q", r.Stdout)
	}
	d.stop()
}

// levelsDeep is past what a path may have and a process may open; 20,000 were tried
// by hand.
const levelsDeep = 3000

// deepen makes a chain of directories, deeper than any path is long, in its owner's
// stead: a shell takes ten milliseconds a level.
func deepen(t *testing.T, work string) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(work, &st); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Open(work, unix.O_PATH|unix.O_CLOEXEC, 0)
	for range levelsDeep {
		if err == nil {
			err = unix.Mkdirat(at, "deep", 0o700)
		}
		if err == nil {
			err = unix.Fchownat(at, "deep", int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
		}
		below := -1
		if err == nil {
			below, err = unix.Openat(at, "deep", unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(at)
		at = below
	}
	_ = unix.Close(at)
}

func sandboxOf(d *daemon, user string) protocol.SandboxInfo {
	d.t.Helper()
	status, body := d.get("/v1/users/"+user+"/sandbox", nil)
	var info protocol.SandboxInfo
	if err := json.Unmarshal(body, &info); err != nil || status != http.StatusOK {
		d.t.Fatalf("sandbox of %s: %d %s", user, status, body)
	}
	return info
}
