package files

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"carrel/protocol"
)

func TestPathsAreNamesAlone(t *testing.T) {
	r := newRig(t)
	for _, path := range []string{
		"..", "../outside/file", "a/../..", ".", "a/./b", "/etc/passwd", "a//b", "a/", "a\x00b",
		strings.Repeat("n", 256), strings.Repeat("a/", 2000) + "b",
	} {
		t.Run(fmt.Sprintf("%.20q", path), func(t *testing.T) {
			_, err := Open(r.Workspace, path)
			wantCode(t, err, protocol.CodeInvalidRequest)
			_, err = r.staged().Put(t.Context(), upload(path, "x"))
			wantCode(t, err, protocol.CodeInvalidRequest)
			wantCode(t, r.staged().Delete(path, nil), protocol.CodeInvalidRequest)
		})
	}
	wantCode(t, r.staged().Delete("", nil), protocol.CodeInvalidRequest)
	for _, path := range []string{"\xff", " ", "%2e%2e", "-", "..."} {
		if _, err := r.staged().Put(t.Context(), upload(path, "x")); err != nil {
			t.Errorf("%q: %v", path, err)
		}
	}
}

func TestLinksAndPipesAreNotFollowedNorOpened(t *testing.T) {
	r := newRig(t)
	outside := filepath.Join(filepath.Dir(r.workspace), "outside")
	r.link(outside, "dir")
	r.link(filepath.Join(outside, "file"), "file")
	r.link("/proc/self/root", "magic")
	if err := unix.Mkfifo(r.path("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"dir", "dir/file", "file", "magic/etc/passwd", "pipe"} {
		_, err := Open(r.Workspace, path)
		wantCode(t, err, protocol.CodeConflict)
	}
	_, err := r.staged().Put(t.Context(), upload("dir/new", "x"))
	wantCode(t, err, protocol.CodeConflict)
	wantCode(t, r.staged().Delete("dir/file", nil), protocol.CodeConflict)
	// At the last name, they are replaced and removed themselves.
	for _, path := range []string{"file", "pipe"} {
		if _, err := r.staged().Put(t.Context(), upload(path, "x")); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := r.staged().Delete("dir", nil); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(filepath.Join(outside, "file")); err != nil || string(text) != secret {
		t.Errorf("outside is %q, %v", text, err)
	}
}

// The sandbox swaps a directory for a link, a pipe and back as fast as it can.
func TestRacerReachesNothingOutside(t *testing.T) {
	r := newRig(t)
	r.make("a/file", "inside")
	r.make("b/file", "inside")
	outside := filepath.Join(filepath.Dir(r.workspace), "outside")
	r.link(outside, "link")
	if err := unix.Mkfifo(r.path("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	raced := make(chan struct{})
	root, a := int(r.Workspace.Fd()), openDir(t, r.path("a"))
	go func() {
		defer close(raced)
		for ctx.Err() == nil {
			// By descriptors, as in a sandbox, where the link leads nowhere: else it
			// would be the racer that goes outside.
			for _, other := range []string{"link", "b", "pipe"} {
				_ = unix.Renameat2(root, "a", root, other, unix.RENAME_EXCHANGE)
				_ = unix.Renameat2(a, "file", root, other, unix.RENAME_EXCHANGE)
			}
		}
	}()
	refused := 0
	for i := range 2000 {
		text := ""
		node, err := Open(r.Workspace, "a/file")
		if err == nil {
			b, _ := io.ReadAll(node)
			_ = node.Close()
			text = string(b)
		} else {
			refused++
		}
		if strings.Contains(text, secret) {
			t.Fatal("the reader was led outside")
		}
		_, _ = r.staged().Put(t.Context(), upload("a/file", "inside"))
		if i%50 == 0 {
			root, err := Open(r.Workspace, "")
			if err != nil {
				t.Fatal(err)
			}
			var archive bytes.Buffer
			_, _ = root.Archive(t.Context(), &archive) // it may be cut short
			_ = root.Close()
			if bytes.Contains(archive.Bytes(), []byte(secret)) {
				t.Fatal("the archive was led outside")
			}
			_ = r.staged().Delete("a/file", nil)
		}
	}
	cancel()
	<-raced
	if refused == 0 {
		t.Error("the racer never won: this proves nothing")
	}
	names, err := os.ReadDir(outside)
	if err != nil || len(names) != 1 {
		t.Errorf("outside there are %v, %v", names, err)
	}
	if text, err := os.ReadFile(filepath.Join(outside, "file")); err != nil || string(text) != secret {
		t.Errorf("outside is %q, %v", text, err)
	}
}

func openDir(t *testing.T, path string) int {
	t.Helper()
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })
	return int(dir.Fd())
}

func openNode(t *testing.T, r *rig, path string) *Node {
	t.Helper()
	node, err := Open(r.Workspace, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = node.Close() })
	return node
}

func TestFileIsReadAtTheSizeThatWasTold(t *testing.T) {
	r := newRig(t)
	r.make("f", "0123456789")
	grown, shrunk := openNode(t, r, "f"), openNode(t, r, "f")
	r.make("f", "0123456789 and more")
	if b, err := io.ReadAll(grown); err != nil || string(b) != "0123456789" {
		t.Errorf("%q %v", b, err)
	}
	if err := os.Truncate(r.path("f"), 4); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(shrunk); !errors.Is(err, io.ErrUnexpectedEOF) || string(b) != "0123" {
		t.Errorf("%q %v", b, err)
	}
}

func TestPutIsWholeOrNotAtAll(t *testing.T) {
	r := newRig(t)
	r.make("f", "old")
	r.make("d/x", "")
	tooMuch := protocol.Errorf(protocol.CodeDiskQuotaExceeded, "no")
	u := upload("n/f", "new")
	u.Spend = func(context.Context, int64) error { return tooMuch }
	_, err := r.staged().Put(t.Context(), u)
	wantCode(t, err, protocol.CodeDiskQuotaExceeded)
	u = upload("f", "new")
	u.Body = io.MultiReader(strings.NewReader("new"), errReader{})
	if _, err := r.staged().Put(t.Context(), u); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
	_, err = r.staged().Put(t.Context(), upload("d", "x"))
	wantCode(t, err, protocol.CodeConflict)
	_, err = r.staged().Put(t.Context(), upload("f/below", "x"))
	wantCode(t, err, protocol.CodeConflict)
	if text, _ := os.ReadFile(r.path("f")); string(text) != "old" {
		t.Errorf("f is %q", text)
	}
	if _, err := os.Stat(r.path("n")); !os.IsNotExist(err) {
		t.Error("the directory of a file that did not come is there")
	}
	if err := os.Chmod(r.path("f"), 0o4750|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	s, err := r.staged().Put(t.Context(), upload("f", "new"))
	if err != nil || s.Created || s.Info.Mode != "0750" {
		t.Errorf("%+v %v", s, err)
	}
	node := openNode(t, r, "f")
	if node.ETag() != s.ETag || s.ETag == "" {
		t.Errorf("the ETag was %s, and is %s", s.ETag, node.ETag())
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestConditionIsAskedAtTheEndToo(t *testing.T) {
	r := newRig(t)
	u := upload("f", "")
	u.Body = io.MultiReader(strings.NewReader("late"), doReader(func() { r.make("f", "first") }))
	exists := errors.New("it is there")
	u.When = func(etag string) error {
		if etag != "" {
			return exists
		}
		return nil
	}
	if _, err := r.staged().Put(t.Context(), u); !errors.Is(err, exists) {
		t.Error(err)
	}
	if text, _ := os.ReadFile(r.path("f")); string(text) != "first" {
		t.Errorf("f is %q", text)
	}
}

type doReader func()

func (d doReader) Read([]byte) (int, error) { d(); return 0, io.EOF }

func TestPagesHaveEveryNameOnce(t *testing.T) {
	r := newRig(t)
	var want []string
	for i := range 2500 {
		want = append(want, fmt.Sprintf("f%04d", i))
		r.make(want[i], "")
	}
	var got []string
	for cursor, pages := "", 0; ; pages++ {
		node, err := Open(r.Workspace, "") // each page is a request of its own
		if err != nil {
			t.Fatal(err)
		}
		list, err := node.List(t.Context(), cursor, 100)
		_ = node.Close()
		if err != nil || len(list.Files) > 100 || pages > 26 {
			t.Fatal(err, len(list.Files), pages)
		}
		for _, f := range list.Files {
			got = append(got, f.Name)
		}
		if cursor = list.NextCursor; cursor == "" {
			break
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%d names in all pages", len(got))
	}
	node := openNode(t, r, "")
	for _, cursor := range []string{"x", "-1", "99999999999999999999"} {
		_, err := node.List(t.Context(), cursor, 1)
		wantCode(t, err, protocol.CodeInvalidRequest)
	}
}

// entry makes a header; a file has as many bytes as it says.
func entry(kind byte, name, target string, mode, size int64) tar.Header {
	return tar.Header{Typeflag: kind, Name: name, Linkname: target, Mode: mode, Size: size}
}

func archiveOf(t *testing.T, entries ...tar.Header) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, h.Size)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func TestArchiveThatIsRefusedChangesNothing(t *testing.T) {
	file := entry(tar.TypeReg, "first", "", 0o644, 3)
	tests := []struct {
		name string
		last tar.Header
	}{
		{"absolute", entry(tar.TypeReg, "/etc/x", "", 0o644, 0)},
		{"upwards", entry(tar.TypeReg, "a/../../x", "", 0o644, 0)},
		{"up and back", entry(tar.TypeReg, "a/../x", "", 0o644, 0)},
		{"link to a place of the host", entry(tar.TypeSymlink, "l", "/etc", 0o777, 0)},
		{"link upwards", entry(tar.TypeSymlink, "a/l", "../../x", 0o777, 0)},
		{"hard link", entry(tar.TypeLink, "l", "first", 0o644, 0)},
		{"device", entry(tar.TypeChar, "d", "", 0o644, 0)},
		{"pipe", entry(tar.TypeFifo, "p", "", 0o644, 0)},
		{"set-uid", entry(tar.TypeReg, "s", "", 0o4755, 0)},
		{"set-gid", entry(tar.TypeDir, "s/", "", 0o2755, 0)},
		{"twice", entry(tar.TypeReg, "first", "", 0o644, 0)},
		{"below a file", entry(tar.TypeReg, "first/x", "", 0o644, 0)},
		{"too deep", entry(tar.TypeReg, strings.Repeat("a/", maxArchiveDepth)+"x", "", 0o644, 0)},
		{"directory where there is a file", entry(tar.TypeReg, "taken/x", "", 0o644, 0)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			r.make("taken", "")
			u := upload("", "")
			u.Body = archiveOf(t, file, tt.last)
			_, err := r.staged().Unpack(t.Context(), u)
			if tt.name == "directory where there is a file" {
				wantCode(t, err, protocol.CodeConflict)
				return // this one shows when it is put in place
			}
			wantCode(t, err, protocol.CodeInvalidRequest)
			if left, err := os.ReadDir(r.workspace); err != nil || len(left) != 1 {
				t.Errorf("there are %v, %v", left, err)
			}
		})
	}
	t.Run("a file below a link of its own", func(t *testing.T) {
		r := newRig(t)
		r.make("d/x", "")
		u := upload("", "")
		u.Body = archiveOf(t, entry(tar.TypeSymlink, "l", "d", 0o777, 0), entry(tar.TypeReg, "l/y", "", 0o644, 0))
		_, err := r.staged().Unpack(t.Context(), u)
		wantCode(t, err, protocol.CodeInvalidRequest)
	})
	t.Run("no archive", func(t *testing.T) {
		_, err := newRig(t).staged().Unpack(t.Context(), upload("", strings.Repeat("no", 512)))
		wantCode(t, err, protocol.CodeInvalidRequest)
	})
	t.Run("cut short", func(t *testing.T) {
		r := newRig(t)
		u := upload("", "")
		u.Body = io.LimitReader(archiveOf(t, file, entry(tar.TypeReg, "b", "", 0o644, 4096)), 2048)
		if _, err := r.staged().Unpack(t.Context(), u); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(err)
		}
	})
}

// A sparse file of a terabyte is a few bytes of archive.
func TestArchiveCostsWhatItUnpacksTo(t *testing.T) {
	var spent int64
	u := upload("d", "")
	u.Body = archiveOf(t, entry(tar.TypeReg, "a/f", "", 0o644, 10_000))
	u.Spend = func(_ context.Context, bytes int64) error { spent += bytes; return nil }
	if _, err := newRig(t).staged().Unpack(t.Context(), u); err != nil || spent != 10_000+2*entryBytes {
		t.Errorf("%d, %v", spent, err)
	}
	sparse := sparseArchive(t)
	u = upload("d", "")
	u.Body = sparse
	const quota = 1 << 20
	u.Spend = func(_ context.Context, bytes int64) error {
		if spent += bytes; spent > quota {
			return protocol.Errorf(protocol.CodeDiskQuotaExceeded, "no")
		}
		return nil
	}
	_, err := newRig(t).staged().Unpack(t.Context(), u)
	wantCode(t, err, protocol.CodeDiskQuotaExceeded)
}

// sparseArchive is one file of the PAX 1.0 sparse form, a terabyte of hole.
func sparseArchive(t *testing.T) *bytes.Buffer {
	t.Helper()
	data := make([]byte, 512)
	copy(data, "1\n1099511627776\n0\n")
	records := ""
	for _, record := range []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=f", "GNU.sparse.realsize=1099511627776"} {
		length := len(record) + 3
		if length+1 >= 100 || length >= 10 {
			length = len(record) + 4
		}
		records += fmt.Sprintf("%d %s\n", length, record)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "f", Mode: 0o644, Size: int64(len(records))}); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(w, records)
	_ = w.Flush()
	head := b.Bytes()[:512]
	head[156] = tar.TypeXHeader
	setChecksum(head)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "f", Mode: 0o644, Size: 512}); err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write(data)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func setChecksum(head []byte) {
	copy(head[148:156], "        ")
	sum := 0
	for _, c := range head {
		sum += int(c)
	}
	copy(head[148:156], fmt.Sprintf("%06o\x00 ", sum))
}

func FuzzUnpackStaysInside(f *testing.F) {
	f.Add([]byte("a/b"), "c", byte(tar.TypeReg), int64(0o644))
	f.Add([]byte("../x"), "/etc", byte(tar.TypeSymlink), int64(0o777))
	f.Fuzz(func(t *testing.T, name []byte, target string, kind byte, mode int64) {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for range 2 {
			if w.WriteHeader(&tar.Header{Typeflag: kind, Name: string(name), Linkname: target, Mode: mode}) != nil {
				return
			}
		}
		r := newRig(t)
		u := upload("in", "")
		u.Body = &b
		_, _ = r.staged().Unpack(t.Context(), u)
		names, err := os.ReadDir(filepath.Dir(r.workspace))
		if err != nil || len(names) != 3 {
			t.Errorf("beside the workspace are %v, %v", names, err)
		}
	})
}
