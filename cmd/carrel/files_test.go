package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"carrel/protocol"
)

// patterned is bytes of a length that are not all the same, made as they are read.
func patterned(length int64) io.Reader {
	return io.LimitReader(&pattern{}, length)
}

type pattern struct{ at int64 }

func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte((p.at + int64(i)) * 2654435761 >> 13)
	}
	p.at += int64(len(b))
	return len(b), nil
}

// peakOf is the most memory that a process has had so far, in bytes.
func peakOf(t *testing.T, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	var kib int64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// The length is 64 MiB in the gate; CARREL_TEST_UPLOAD_MIB=1024 for the long form.
func TestLargeFileGoesInAndOutWithFlatMemory(t *testing.T) {
	mib := int64(64)
	if given := os.Getenv("CARREL_TEST_UPLOAD_MIB"); given != "" {
		var err error
		if mib, err = strconv.ParseInt(given, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	size := mib << 20
	d := serve(t, t.TempDir(), "SANDBOX_DISK_QUOTA="+strconv.FormatInt(2*mib+8, 10)+"MiB", "SANDBOX_WARM_WORKERS=0")
	if _, err := d.client.PutFile(t.Context(), "ana", "small", strings.NewReader("x"), 1); err != nil {
		t.Fatal(err)
	}
	before := peakOf(t, d.cmd.Process.Pid)
	sum := sha256.New()
	if _, err := d.client.PutFile(t.Context(), "ana", "large", io.TeeReader(patterned(size), sum), size); err != nil {
		t.Fatal(err)
	}
	in := peakOf(t, d.cmd.Process.Pid)
	want := hex.EncodeToString(sum.Sum(nil))
	sum.Reset()
	content, length, err := d.client.GetFile(t.Context(), "ana", "large")
	if err != nil || length != size {
		t.Fatal(length, err)
	}
	defer content.Close()
	if _, err := io.Copy(sum, content); err != nil {
		t.Fatal(err)
	}
	out := peakOf(t, d.cmd.Process.Pid)
	if got := hex.EncodeToString(sum.Sum(nil)); got != want {
		t.Errorf("what came back is %s, and %s went in", got, want)
	}
	if r := d.exec("ana", "sha256sum large"); !strings.HasPrefix(r.Stdout, want) {
		t.Errorf("the sandbox sees %s", r.Stdout)
	}
	t.Logf("%d MiB: the daemon's peak was %d KiB before, %d when it was in, %d when it was out", mib, before>>10, in>>10, out>>10)
	const growth = 24 << 20 // the Go heap between two collections
	if out > before+growth {
		t.Errorf("the daemon grew from %d KiB to %d and %d", before>>10, in>>10, out>>10)
	}
	d.stop()
}

func TestSandboxAndCallerShareFiles(t *testing.T) {
	d := serve(t, t.TempDir())
	if status, body := d.get("/v1/users/ana/files", nil); status != http.StatusNotFound {
		t.Errorf("of a user without a directory: %d %s", status, body)
	}
	info, err := d.client.PutFile(t.Context(), "ana", "a/b/hello.sh", strings.NewReader("echo hello\n"), -1)
	if err != nil || info.Size != 11 || info.Mode != "0644" {
		t.Fatal(info, err)
	}
	r := d.exec("ana", "id -un; stat -c '%U %a' a a/b a/b/hello.sh; chmod 4755 a/b/hello.sh; a/b/hello.sh; mkfifo pipe; ln -s /etc/passwd out; printf x > \"$(printf 'n\\377')\"")
	if r.Stdout != "agent\nagent 755\nagent 755\nagent 644\nhello\n" {
		t.Errorf("the sandbox sees %+v", r)
	}
	// A file that is replaced keeps its mode, and never a set-id bit.
	if info, err := d.client.PutFile(t.Context(), "ana", "a/b/hello.sh", strings.NewReader("echo again\n"), 11); err != nil || info.Mode != "0755" {
		t.Error(info, err)
	}
	if r := d.exec("ana", "a/b/hello.sh; echo more >> a/b/hello.sh"); r.Stdout != "again\n" || r.ExitCode != 0 {
		t.Errorf("the sandbox runs %+v", r)
	}
	list, err := d.client.ListFiles(t.Context(), "ana", "", "")
	if err != nil {
		t.Fatal(err)
	}
	seen := ""
	for _, f := range list.Files {
		seen += fmt.Sprintf("%s %s %s;", f.Type, f.Name+f.NameEscaped, f.Target)
	}
	if seen != "directory a ;file n\ufffdn%FF ;link out /etc/passwd;other pipe ;" {
		t.Errorf("the list is %s", seen)
	}
	if status, body := d.get("/v1/users/ana/files/n%FF", nil); status != http.StatusOK || string(body) != "x" {
		t.Errorf("%d %s", status, body)
	}
	for _, path := range []string{"out", "pipe", "out/x", "a/b/hello.sh/x"} {
		if status, body := d.get("/v1/users/ana/files/"+path, nil); status != http.StatusConflict {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if err := d.client.DeleteFile(t.Context(), "ana", "a"); err != nil {
		t.Error(err)
	}
	if err := d.client.DeleteFile(t.Context(), "ana", "out"); err != nil {
		t.Error(err)
	}
	if r := d.exec("ana", "ls -d a out"); r.Stdout != "" {
		t.Errorf("left are %s", r.Stdout)
	}
	d.stop()
}

func TestUploadPastTheQuotaIsRefusedBeforeItIsRead(t *testing.T) {
	d := serve(t, t.TempDir(), "SANDBOX_DISK_QUOTA=8MiB")
	var read counter
	_, err := d.client.PutFile(t.Context(), "ana", "large", io.TeeReader(patterned(9<<20), &read), 9<<20)
	if protocol.CodeOf(err) != protocol.CodeDiskQuotaExceeded || read > 0 {
		t.Errorf("%v, and %d bytes were read", err, read)
	}
	if _, err := d.client.PutFile(t.Context(), "ana", "large", patterned(9<<20), -1); err == nil {
		t.Error("9 MiB of unknown length went in")
	}
	// Eight at once, of 3 MiB each: two fit.
	var wg sync.WaitGroup
	stored := make(chan error, 8)
	for i := range 8 {
		wg.Go(func() {
			_, err := d.client.PutFile(t.Context(), "ana", "f"+strconv.Itoa(i), patterned(3<<20), 3<<20)
			stored <- err
		})
	}
	wg.Wait()
	close(stored)
	fit := 0
	for err := range stored {
		if err == nil {
			fit++
		}
	}
	if r := d.exec("ana", "du -sm . | cut -f1"); fit < 1 || fit > 2 || r.Stdout > "7\n" {
		t.Errorf("%d went in, and there are %s MiB", fit, r.Stdout)
	}
	d.stop()
}

type counter int64

func (c *counter) Write(b []byte) (int, error) { *c += counter(len(b)); return len(b), nil }

func TestUploadThatBreaksOffLeavesNothing(t *testing.T) {
	base := t.TempDir()
	d := serve(t, base)
	broken := io.MultiReader(patterned(1<<20), failing{})
	if _, err := d.client.PutFile(t.Context(), "ana", "a/b", broken, 2<<20); err == nil {
		t.Fatal("half a file went in")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reader, writer := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = d.client.PutFile(ctx, "bob", "c", reader, -1)
	}()
	if _, err := io.CopyN(writer, patterned(1<<20), 1<<20); err != nil { // the daemon reads
		t.Fatal(err)
	}
	if err := d.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = d.cmd.Wait()
	cancel()
	_ = writer.Close()
	<-done
	d = serve(t, base)
	if left, err := os.ReadDir(filepath.Join(base, "tmp")); err != nil || len(left) > 0 {
		t.Errorf("in tmp are %v, %v", left, err)
	}
	for _, user := range []string{"ana", "bob"} {
		if list, err := d.client.ListFiles(t.Context(), user, "", ""); err != nil || len(list.Files) > 0 {
			t.Errorf("%s has %v, %v", user, list.Files, err)
		}
	}
	d.stop()
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("the sender is gone") }

func TestCommandLineMovesFiles(t *testing.T) {
	for _, tt := range []struct{ name string }{{"by a daemon"}, {"in this process"}} {
		t.Run(tt.name, func(t *testing.T) {
			base, here := t.TempDir(), t.TempDir()
			env := environment(base)
			if tt.name == "by a daemon" {
				d := serve(t, base)
				env = append(env, "CARREL_URL="+d.url)
			}
			local := filepath.Join(here, "local")
			if err := os.WriteFile(local, []byte("text\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			archive := filepath.Join(here, "a.tar")
			for _, args := range [][]string{
				{"put", local, "/workspace/d/one"},
				{"get", "d/one", filepath.Join(here, "back")},
				{"get", "--tar", "d", archive},
				{"put", "--tar", archive, "e/f"},
				{"rm", "d"},
			} {
				if _, stderr, status := command(t, env, append(append([]string{"files"}, args[0], "--user=ana"), args[1:]...)...); status != 0 {
					t.Fatalf("%v: status %d, %s", args, status, stderr)
				}
			}
			if text, err := os.ReadFile(filepath.Join(here, "back")); err != nil || string(text) != "text\n" {
				t.Errorf("%q %v", text, err)
			}
			if stdout, stderr, _ := command(t, env, "files", "ls", "--user=ana", "e/f"); !strings.Contains(stdout, " one\n") || strings.Count(stdout, "\n") != 1 {
				t.Errorf("ls prints %q %s", stdout, stderr)
			}
			for _, args := range [][]string{{"ls", "--user=ana", "d"}, {"get", "--user=ana", "e"}, {"rm", "--user=ana", "/"}, {"get", "--user=bob", "x"}, {"ls", "--user=ana", "e/f/one"}} {
				if _, stderr, status := command(t, env, append([]string{"files"}, args...)...); status != 1 || stderr == "" {
					t.Errorf("%v: status %d, %q", args, status, stderr)
				}
			}
		})
	}
}

func TestArchiveGoesRound(t *testing.T) {
	d := serve(t, t.TempDir())
	d.exec("ana", "mkdir -p p/q; echo 1 > p/q/one; chmod 600 p/q/one; ln -s q/one p/link; ln -s /etc p/out; mkfifo p/pipe; ln p/q/one p/hard")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, d.url+"/v1/users/ana/files/p?archive=tar", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req) //nolint:forbidigo // a test's own request
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.Trailer.Get("Carrel-Omitted") != "1" {
		t.Errorf("omitted %q, %v", resp.Trailer.Get("Carrel-Omitted"), err)
	}
	if _, err := d.client.PutArchive(t.Context(), "bob", "new", bytes.NewReader(body)); protocol.CodeOf(err) != protocol.CodeInvalidRequest {
		t.Errorf("an archive with a link to /etc: %v", err)
	}
	if err := d.client.DeleteFile(t.Context(), "ana", "p/out"); err != nil {
		t.Fatal(err)
	}
	content, err := d.client.GetArchive(t.Context(), "ana", "p")
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	result, err := d.client.PutArchive(t.Context(), "bob", "new/p", content)
	if err != nil || result.Entries != 4 {
		t.Fatal(result, err)
	}
	if r := d.exec("bob", "stat -c '%U %a %n' new new/p new/p/q new/p/q/one; cat new/p/link new/p/hard; ls new"); r.Stdout != "agent 755 new\nagent 755 new/p\nagent 755 new/p/q\nagent 600 new/p/q/one\n1\n1\np\n" {
		t.Errorf("bob sees %+v", r)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range []string{"p/q/two", "three"} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: 1}); err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write([]byte("2"))
	}
	_ = w.Close()
	if _, err := d.client.PutArchive(t.Context(), "bob", "new", &b); err != nil {
		t.Fatal(err)
	}
	if r := d.exec("bob", "cd new; find . -type f | sort | xargs"); r.Stdout != "./p/hard ./p/q/one ./p/q/two ./three\n" {
		t.Errorf("merged: %+v", r)
	}
	d.stop()
}
