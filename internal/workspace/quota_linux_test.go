package workspace

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What a kernel with project quota does is tested by quota_kernel_test.go, in a
// virtual machine (make test-qemu).

func TestSoftQuotaSaysWhyAndWhatToDo(t *testing.T) {
	tests := map[string]struct{ path, detail string }{
		"without project quota": {"/proc/self", "has no project quota"},
		"not a directory":       {"/dev/null/x", "not a directory"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if os.Geteuid() != 0 {
				tt.detail = "not root"
			}
			q := DetectQuota(tt.path)
			if q.IsHard || !strings.HasPrefix(q.Detail, "soft: ") || !strings.Contains(q.Detail, tt.detail) {
				t.Errorf("%+v", q)
			}
			if q.Meaning == "" || q.Fix == "" {
				t.Errorf("it does not say what that means and what to do: %+v", q)
			}
		})
	}
}

func TestQuotaOfABaseDirectoryThatIsNotMadeYetIsThatOfItsPlace(t *testing.T) {
	dir := t.TempDir()
	if here, below := DetectQuota(dir), DetectQuota(filepath.Join(dir, "a", "b")); here != below {
		t.Errorf("%+v, below %+v", here, below)
	}
	if names(t, dir) != nil {
		t.Error("it made something")
	}
}

func TestHardQuotaThatCannotBeSetIsAnErrorNotNoQuota(t *testing.T) {
	opts := rootOptions(filepath.Join(t.TempDir(), "base"))
	opts.DiskQuota = 1 << 20
	if !opts.Root {
		_, err := Open(t.Context(), opts)
		wantError(t, err, "takes root")
		return
	}
	// /dev/shm is a tmpfs, which has no project quota.
	base, err := os.MkdirTemp("/dev/shm", "carrel-quota-") //nolint:usetesting // t.TempDir may lie on a file system that has one.
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	opts.BaseDir = base
	d := openDirs(t, opts)
	_, err = d.Open(t.Context(), "alice")
	wantError(t, err, "project 200000")
}
