package jail

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func isThere(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestTrialsOfTheDeadAreSweptAndNothingElse(t *testing.T) {
	parent, victim := t.TempDir(), t.TempDir()
	in := func(name string) string { return filepath.Join(parent, name) }
	must(t, os.WriteFile(filepath.Join(victim, "file"), nil, 0o600))

	must(t, os.MkdirAll(in("carrel-trial-dead/workspace/a"), 0o700))
	must(t, os.Symlink(victim, in("carrel-trial-dead/workspace/link")))
	must(t, os.MkdirAll(in("carrel-trial-alive/home"), 0o700))
	alive, err := lockTrialDir(in("carrel-trial-alive"))
	must(t, err)
	must(t, os.WriteFile(in("carrel-trial-file"), nil, 0o600))
	must(t, os.Symlink(victim, in("carrel-trial-link")))
	must(t, os.Mkdir(in("other"), 0o700))
	stays := []string{"carrel-trial-alive/home", "carrel-trial-file", "carrel-trial-link", "other"}
	if os.Geteuid() == 0 {
		must(t, os.Mkdir(in("carrel-trial-foreign"), 0o755))
		must(t, os.Chown(in("carrel-trial-foreign"), 4711, 4711))
		stays = append(stays, "carrel-trial-foreign")
	}

	path, lock, err := ScratchDir(parent)
	must(t, err)
	if isThere(in("carrel-trial-dead")) {
		t.Error("a dead trial's directory is still there")
	}
	for _, name := range append(stays, filepath.Base(path)) {
		if !isThere(in(name)) {
			t.Errorf("%s is gone", name)
		}
	}
	if !isThere(filepath.Join(victim, "file")) {
		t.Error("what a link leads to is gone")
	}
	must(t, alive.Close())
	must(t, lock.Close())
	sweepTrials(parent)
	if isThere(path) || isThere(in("carrel-trial-alive")) {
		t.Error("without a lock they are still there")
	}
}

func TestTrialsThatStartTogetherLeaveEachOtherAlone(t *testing.T) {
	parent := t.TempDir()
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 50 {
				path, lock, err := ScratchDir(parent)
				if err != nil {
					t.Error(err)
					return
				}
				err = os.Mkdir(filepath.Join(path, "workspace"), 0o700)
				if err != nil || !isThere(filepath.Join(path, "workspace")) {
					t.Errorf("it was swept: %v", err)
				}
				if err := os.RemoveAll(path); err != nil {
					t.Error(err)
				}
				if err := lock.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	left, err := os.ReadDir(parent)
	must(t, err)
	if len(left) > 0 {
		t.Errorf("%d are left", len(left))
	}
}
