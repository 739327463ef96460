package keyring

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestOnlyAFileThatNobodyElseCouldHaveWrittenIsRead(t *testing.T) {
	line := "a:admin:" + hashOf("a") + "\n"
	for _, tt := range []struct {
		name, reason string
		spoil        func(t *testing.T, path string) string
	}{
		{"the owner's", "", func(_ *testing.T, path string) string { return path }},
		{"readable by all", "", chmod(0o644)},
		{"writable by the group", "has mode 0620", chmod(0o620)},
		{"writable by all", "has mode 0602", chmod(0o602)},
		{"not there", "no such file", func(_ *testing.T, path string) string { return path + "x" }},
		{"a directory", "no regular file", func(_ *testing.T, path string) string { return filepath.Dir(path) }},
		{"a FIFO", "no regular file", func(t *testing.T, path string) string {
			if err := syscall.Mkfifo(path+".fifo", 0o600); err != nil {
				t.Fatal(err)
			}
			return path + ".fifo"
		}},
		{"a device", "no regular file", func(*testing.T, string) string { return "/dev/zero" }},
		{"behind a link", "", func(t *testing.T, path string) string {
			if err := os.Symlink(path, path+".link"); err != nil {
				t.Fatal(err)
			}
			return path + ".link"
		}},
		{"endless", "is longer than", func(t *testing.T, path string) string {
			if err := os.Truncate(path, maxFileBytes+1); err != nil {
				t.Fatal(err)
			}
			return path
		}},
		{"another user's", "belongs to uid 12345", func(t *testing.T, path string) string {
			if err := os.Chown(path, 12345, -1); err != nil {
				t.Skip("needs root: to give a file away")
			}
			return path
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := tt.spoil(t, writeFile(t, line))
			keys, err := Read(path)
			if tt.reason == "" {
				if err != nil || len(keys) != 1 {
					t.Errorf("%v, %v", keys, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.reason) || !strings.Contains(err.Error(), path) {
				t.Errorf("%v, want %q", err, tt.reason)
			}
		})
	}
}

func chmod(mode os.FileMode) func(*testing.T, string) string {
	return func(t *testing.T, path string) string {
		t.Helper()
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
}
