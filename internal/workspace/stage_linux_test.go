package workspace

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"carrel/protocol"
)

func TestStageTakesADeepTreeOutAndRemovesIt(t *testing.T) {
	base := t.TempDir()
	dirs := openDirs(t, Options{BaseDir: base})
	dir, err := dirs.Open(t.Context(), "ana")
	if err != nil {
		t.Fatal(err)
	}
	stage, err := dir.Stage()
	if err != nil {
		t.Fatal(err)
	}
	makeDeep(t, filepath.Join(dir.Path, "workspace"), levels, "a-name-of-some-length")
	place, err := dir.OpenWorkspace()
	if err != nil {
		t.Fatal(err)
	}
	defer place.Close()
	err = unix.Renameat(int(place.Fd()), "a-name-of-some-length", int(stage.File.Fd()), "gone")
	if err = errors.Join(err, stage.Join(t.Context())); err != nil {
		t.Fatal(err)
	}
	// While it is open, nobody removes the user's directory.
	if err := dirs.Remove(t.Context(), "ana"); protocol.CodeOf(err) != protocol.CodeConflict {
		t.Errorf("removed meanwhile: %v", err)
	}
	if err := errors.Join(stage.Close(t.Context()), dir.Close()); err != nil {
		t.Error(err)
	}
	for _, path := range []string{filepath.Join(base, "tmp"), filepath.Join(dir.Path, "workspace")} {
		if left, err := os.ReadDir(path); err != nil || len(left) > 0 {
			t.Errorf("in %s are %v, %v", path, left, err)
		}
	}
}
