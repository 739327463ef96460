package workspace

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"carrel/protocol"
)

const png = "\x89PNG\r\n\x1a\n0000"

func TestAttachmentIsStoredWholeWithTheTypeOfItsContent(t *testing.T) {
	tests := []struct {
		name     string
		upload   Upload
		wantName string
		wantType string
		code     protocol.Code
	}{
		{name: "image", upload: Upload{Name: "a.png", Type: "image/png", Body: strings.NewReader(png)}, wantName: "a.png", wantType: "image/png"},
		{name: "undeclared", upload: Upload{Body: strings.NewReader(png)}, wantName: "file", wantType: "image/png"},
		{name: "declared vaguely", upload: Upload{Type: "application/octet-stream", Body: strings.NewReader(png)}, wantName: "file", wantType: "image/png"},
		{name: "text of a kind", upload: Upload{Name: "t.csv", Type: "text/csv; charset=utf-8", Body: strings.NewReader("a,b\n")}, wantName: "t.csv", wantType: "text/csv"},
		{name: "empty", upload: Upload{Body: strings.NewReader("")}, wantName: "file", wantType: "text/plain"},
		{name: "a path for a name", upload: Upload{Name: `C:\x\..\b.txt`, Body: strings.NewReader("b")}, wantName: "b.txt", wantType: "text/plain"},
		{name: "exactly as long as allowed", upload: Upload{Body: strings.NewReader("12345678"), MaxBytes: 8}, wantName: "file", wantType: "text/plain"},
		{name: "too long", upload: Upload{Body: strings.NewReader("123456789"), MaxBytes: 8}, code: protocol.CodeTooLarge},
		{name: "no image", upload: Upload{Type: "image/png", Body: strings.NewReader("hello")}, code: protocol.CodeInvalidRequest},
		{name: "another image", upload: Upload{Type: "image/jpeg", Body: strings.NewReader(png)}, code: protocol.CodeInvalidRequest},
		{name: "no type", upload: Upload{Type: "png", Body: strings.NewReader(png)}, code: protocol.CodeInvalidRequest},
		{name: "control characters", upload: Upload{Name: "a\nb", Body: strings.NewReader("b")}, code: protocol.CodeInvalidRequest},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := newDirs(t)
			if test.upload.MaxBytes == 0 {
				test.upload.MaxBytes = 1 << 20
			}
			info, err := d.AddAttachment(t.Context(), "ana", test.upload)
			if test.code != "" {
				if err == nil || protocol.CodeOf(err) != test.code {
					t.Fatalf("error %v, want %s", err, test.code)
				}
				if left, _ := filepath.Glob(filepath.Join(attachmentsOf(d, "ana"), "*")); len(left) > 0 {
					t.Errorf("%q is left", left)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			content, err := os.ReadFile(filepath.Join(attachmentsOf(d, "ana"), info.ID))
			if err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(content)
			if info.Name != test.wantName || info.Type != test.wantType || info.Size != int64(len(content)) || info.SHA256 != hex.EncodeToString(sum[:]) {
				t.Errorf("%+v of %q", info, content)
			}
			again, err := d.Attachment(t.Context(), "ana", info.ID)
			if err != nil || again != info {
				t.Errorf("read back: %+v, %v", again, err)
			}
			if _, err := d.Attachment(t.Context(), "bob", info.ID); protocol.CodeOf(err) != protocol.CodeNotFound {
				t.Errorf("another user's: %v", err)
			}
			if d.Exists("bob") {
				t.Error("looking has made a directory")
			}
		})
	}
}

func attachmentsOf(d *Dirs, userID string) string {
	return filepath.Join(d.Path(), "users", DirName(userID), subdirHome, subdirAttachments)
}

type brokenBody struct{ sent bool }

func (b *brokenBody) Read(p []byte) (int, error) {
	if b.sent {
		return 0, errors.New("the client has gone")
	}
	b.sent = true
	return copy(p, strings.Repeat("x", 2*sniffBytes)), nil
}

func TestUploadThatBreaksOffLeavesNothing(t *testing.T) {
	d := newDirs(t)
	if _, err := d.AddAttachment(t.Context(), "ana", Upload{Body: &brokenBody{}, MaxBytes: 1 << 20}); err == nil || !strings.Contains(err.Error(), "has gone") {
		t.Fatalf("error %v", err)
	}
	if left, err := os.ReadDir(attachmentsOf(d, "ana")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// What a sandbox puts into its own attachments leads the daemon nowhere.
func TestSandboxCannotLeadTheDaemonOutOfTheAttachments(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.Mkdir(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(outside, "secret.json")
	if err := os.WriteFile(secret, []byte(`{"id":"file_01ARZ3NDEKTSV4RRFFQ69G5FAV","name":"n","type":"text/plain"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	const id = "file_01ARZ3NDEKTSV4RRFFQ69G5FAV"
	plant := func(t *testing.T, d *Dirs, do func(dir string) error) {
		t.Helper()
		if _, err := d.AddAttachment(t.Context(), "ana", Upload{Body: strings.NewReader("x"), MaxBytes: 9}); err != nil {
			t.Fatal(err)
		}
		if err := do(attachmentsOf(d, "ana")); err != nil {
			t.Fatal(err)
		}
	}
	for name, do := range map[string]func(dir string) error{
		"a link to another file": func(dir string) error { return os.Symlink(secret, filepath.Join(dir, id+metaSuffix)) },
		"a FIFO":                 func(dir string) error { return syscall.Mkfifo(filepath.Join(dir, id+metaSuffix), 0o600) },
		"a directory":            func(dir string) error { return os.Mkdir(filepath.Join(dir, id+metaSuffix), 0o700) },
		"too much of it": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, id+metaSuffix), make([]byte, maxInfoBytes+1), 0o600)
		},
		"a name that would break a line": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, id+metaSuffix), []byte(`{"id":"`+id+`","name":"a\nb","type":"text/plain"}`), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDirs(t)
			plant(t, d, do)
			if _, err := d.Attachment(t.Context(), "ana", id); protocol.CodeOf(err) != protocol.CodeNotFound {
				t.Errorf("error %v", err)
			}
		})
	}
	t.Run("a link in place of the directory", func(t *testing.T) {
		d := newDirs(t)
		plant(t, d, func(dir string) error { return errors.Join(os.RemoveAll(dir), os.Symlink(outside, dir)) })
		if _, err := d.AddAttachment(t.Context(), "ana", Upload{Body: strings.NewReader("x"), MaxBytes: 9}); protocol.CodeOf(err) != protocol.CodeConflict {
			t.Errorf("error %v", err)
		}
		if got, err := os.ReadDir(outside); err != nil || len(got) != 1 {
			t.Errorf("outside there is %v, %v", got, err)
		}
	})
}
