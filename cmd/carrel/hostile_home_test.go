package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"carrel/internal/ordeal"
	"carrel/internal/workspace"
	"carrel/protocol"
)

// secretLine is a transcript of bob's that ana must never see.
const secretLine = `{"role":"user","content":[{"type":"text","text":"` + canary + `"}]}` + "\n"

const ownLine = `{"role":"user","content":[{"type":"text","text":"hers"}]}` + "\n"

// homes is a daemon with two users, and their sessions from outside: what a worker
// that was taken over would see of its own, and can put there.
type homes struct {
	*daemon

	uid, gid int // ana's on the host
	ana, bob string
}

func openHomes(t *testing.T) *homes {
	t.Helper()
	base := t.TempDir()
	h := &homes{daemon: serve(t, base)}
	for _, user := range []string{"ana", "bob"} {
		h.exec(user, "true")
	}
	h.ana = filepath.Join(base, "users", workspace.DirName("ana"), "home", "sessions")
	h.bob = filepath.Join(base, "users", workspace.DirName("bob"), "home", "sessions")
	var st unix.Stat_t
	h.must(unix.Stat(filepath.Dir(h.ana), &st))
	h.uid, h.gid = int(st.Uid), int(st.Gid)
	for dir, text := range map[string]string{h.ana: ownLine, h.bob: secretLine} {
		h.must(os.Mkdir(dir, 0o700))
		h.must(os.WriteFile(filepath.Join(dir, "s.jsonl"), []byte(text), 0o600))
	}
	return h
}

func (h *homes) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// in is the path of a transcript of ana's.
func (h *homes) in(id string) string { return filepath.Join(h.ana, id+".jsonl") }

// plant makes what lies under the path ana's own.
func (h *homes) plant() {
	h.t.Helper()
	h.must(filepath.Walk(filepath.Dir(h.ana), func(path string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, h.uid, h.gid)
	}))
}

// ask sends one request, which must be answered, with nothing of bob's.
func (h *homes) ask(method, path, body string) int {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), ordeal.Patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, h.url+"/v1/users/ana/sessions"+path, strings.NewReader(body))
	h.must(err)
	if body == "" {
		req.Body, req.ContentLength = http.NoBody, 0
	} else {
		req.Header.Set("Content-Type", "application/json")
	}
	status, answer := h.do(req)
	if strings.Contains(string(answer), canary) || strings.Contains(string(answer), "root:") {
		h.t.Errorf("%s %s tells another's: %.200s", method, path, answer)
	}
	if status >= http.StatusInternalServerError {
		h.t.Errorf("%s %s: %d %s", method, path, status, answer)
	}
	return status
}

// isAlone checks that bob has what he had, and ana nothing of it.
func (h *homes) isAlone() {
	h.t.Helper()
	entries, err := os.ReadDir(h.bob)
	if err != nil || len(entries) != 1 {
		h.t.Errorf("bob's sessions are now %v, %v", entries, err)
	}
	if text, err := os.ReadFile(filepath.Join(h.bob, "s.jsonl")); err != nil || string(text) != secretLine {
		h.t.Errorf("bob's transcript is now %q, %v", text, err)
	}
	h.must(filepath.Walk(h.ana, func(path string, info os.FileInfo, err error) error {
		if err != nil || !info.Mode().IsRegular() || info.Size() > 1<<20 {
			return err
		}
		text, err := os.ReadFile(path)
		if strings.Contains(string(text), canary) {
			h.t.Errorf("%s holds what is bob's", path)
		}
		return err
	}))
}

// trap is something else than a transcript in its place.
type trap struct {
	set    func(path string) error
	status int // of what reads it
}

func TestTrapsInTheSessionsGiveNothingAwayAndHoldNobody(t *testing.T) {
	h := openHomes(t)
	traps := map[string]trap{
		"shadow": {func(p string) error { return os.Symlink("/etc/shadow", p) }, http.StatusConflict},
		"bobs":   {func(p string) error { return os.Symlink(filepath.Join(h.bob, "s.jsonl"), p) }, http.StatusConflict},
		"up": {func(p string) error {
			return os.Symlink("../../../"+workspace.DirName("bob")+"/home/sessions/s.jsonl", p)
		}, http.StatusConflict},
		"itself":    {func(p string) error { return os.Symlink(filepath.Base(p), p) }, http.StatusConflict},
		"magic":     {func(p string) error { return os.Symlink("/proc/self/fd/0", p) }, http.StatusConflict},
		"pipe":      {func(p string) error { return unix.Mkfifo(p, 0o600) }, http.StatusConflict},
		"socket":    {func(p string) error { return unix.Mknod(p, unix.S_IFSOCK|0o600, 0) }, http.StatusConflict},
		"directory": {func(p string) error { return os.MkdirAll(filepath.Join(p, "full"), 0o700) }, http.StatusConflict},
		"closed":    {func(p string) error { return os.WriteFile(p, []byte("{}\n"), 0) }, http.StatusConflict},
		"sparse":    {func(p string) error { return sparseFile(p, 2<<30) }, http.StatusRequestEntityTooLarge},
		"zeros":     {func(p string) error { return sparseFile(p, 60<<20) }, http.StatusOK}, /* a torn line, and no other */
	}
	if os.Geteuid() == 0 {
		traps["device"] = trap{func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) }, http.StatusConflict}
	}
	for id, c := range traps {
		h.must(c.set(h.in(id)))
	}
	for _, name := range []string{"new\nline.jsonl", "\x1b[2J.jsonl", strings.Repeat("x", 255), strings.Repeat("x", 249) + ".jsonl"} {
		h.must(os.WriteFile(filepath.Join(h.ana, name), []byte(ownLine), 0o600))
	}
	h.plant()
	h.hardLinkIsRefused()
	if status := h.ask("GET", "", ""); status != http.StatusOK {
		t.Errorf("the list: %d", status)
	}
	for id, c := range traps {
		if status := h.ask("GET", "/"+id, ""); status != c.status {
			t.Errorf("%s is read: %d", id, status)
		}
		if status := h.ask("POST", "/"+id+"/fork", `{"session_id":"of-`+id+`"}`); status != c.status && status != http.StatusCreated {
			t.Errorf("%s is forked: %d", id, status)
		}
		// A draft of the fork's name, that leads elsewhere or is in the way.
		h.must(os.Symlink(filepath.Join(h.bob, "s.jsonl"), filepath.Join(h.ana, "via-"+id+".fork")))
		if status := h.ask("POST", "/s/fork", `{"session_id":"via-`+id+`"}`); status != http.StatusCreated {
			t.Errorf("a fork past a link in its draft's place: %d", status)
		}
		if status := h.ask("DELETE", "/"+id, ""); status != http.StatusNoContent && id != "directory" {
			t.Errorf("%s is deleted: %d", id, status)
		}
	}
	h.isAlone()
	h.stop()
}

func sparseFile(path string, size int64) error {
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	return os.Truncate(path, size)
}

// hardLinkIsRefused tries to give bob's transcript a name in ana's home, as a process
// with her host uid would.
func (h *homes) hardLinkIsRefused() {
	h.t.Helper()
	if os.Geteuid() != 0 {
		return // all have one uid: that her sandbox cannot name the file is the jail's
	}
	cmd := exec.CommandContext(h.t.Context(), "ln", filepath.Join(h.bob, "s.jsonl"), h.in("hard"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(h.uid), Gid: uint32(h.gid)}}
	if out, err := cmd.CombinedOutput(); err == nil {
		h.t.Errorf("ana has linked bob's transcript: %s", out)
	}
}

// A file, and the folder that it is in, change places with links to bob's while the
// API is asked for them.
func TestSessionsThatAreSwappedForLinksGiveNothingAway(t *testing.T) {
	for _, c := range []struct {
		name          string
		path, instead func(h *homes) string
		target        func(h *homes) string
	}{
		{
			"file", func(h *homes) string { return h.in("s") }, func(h *homes) string { return filepath.Join(h.ana, "instead") },
			func(h *homes) string { return filepath.Join(h.bob, "s.jsonl") },
		},
		{
			"folder", func(h *homes) string { return h.ana }, func(h *homes) string { return filepath.Join(filepath.Dir(h.ana), "instead") },
			func(h *homes) string { return h.bob },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := openHomes(t)
			h.must(os.Symlink(c.target(h), c.instead(h)))
			h.plant()
			stop := make(chan struct{})
			var racer sync.WaitGroup
			racer.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						_ = unix.Renameat2(unix.AT_FDCWD, c.path(h), unix.AT_FDCWD, c.instead(h), unix.RENAME_EXCHANGE)
					}
				}
			})
			answered := map[int]int{}
			for i := range 250 {
				answered[h.ask("GET", "/s", "")]++
				switch i % 3 {
				case 0:
					h.ask("GET", "", "")
				case 1:
					h.ask("POST", "/s/fork", fmt.Sprintf(`{"session_id":"f%d"}`, i))
				case 2:
					h.ask("DELETE", fmt.Sprintf("/f%d", i-1), "")
				}
			}
			close(stop)
			racer.Wait()
			if answered[http.StatusOK] == 0 || answered[http.StatusOK] == 250 {
				t.Errorf("no race: %v", answered)
			}
			t.Log(answered)
			if link, err := os.Readlink(c.path(h)); err == nil && link == c.target(h) {
				h.must(unix.Renameat2(unix.AT_FDCWD, c.path(h), unix.AT_FDCWD, c.instead(h), unix.RENAME_EXCHANGE))
			}
			h.isAlone()
			h.stop()
		})
	}
}

// A hundred thousand were tried by hand.
func TestMoreSessionsThanAreListedTakeLittleMemory(t *testing.T) {
	h := openHomes(t)
	for i := range 15_000 {
		h.must(unix.Mknod(h.in(fmt.Sprintf("n%d", i)), unix.S_IFREG|0o600, 0))
	}
	h.must(os.Lchown(h.ana, h.uid, h.gid))
	before := h.peak()
	for range 3 {
		var list protocol.SessionList
		_, answer := h.get("/v1/users/ana/sessions", nil)
		if err := json.Unmarshal(answer, &list); err != nil || len(list.Sessions) < 9_000 || len(list.Sessions) > 10_000 {
			t.Errorf("%d sessions of %.200s", len(list.Sessions), answer)
		}
	}
	if grown := h.peak() - before; grown > 128<<20 {
		t.Errorf("the daemon has grown by %d MiB", grown>>20)
	}
	if status := h.ask("GET", "/s", ""); status != http.StatusOK {
		t.Errorf("her own session: %d", status)
	}
	h.stop()
}

// peak is the most memory that the daemon has had, in bytes.
func (d *daemon) peak() int64 {
	d.t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		d.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	var kib int64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		d.t.Fatal(err)
	}
	return kib << 10
}
