package files

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"carrel/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a workspace with a secret beside it, which no path may reach.
type rig struct {
	Place

	t         *testing.T
	workspace string
	stages    string
	commit    sync.Mutex
}

const secret = "a secret of the host's"

func newRig(t *testing.T) *rig {
	t.Helper()
	base := t.TempDir()
	r := &rig{t: t, workspace: filepath.Join(base, "workspace"), stages: filepath.Join(base, "stages")}
	for _, dir := range []string{r.workspace, r.stages, filepath.Join(base, "outside")} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(base, "outside", "file"), []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	workspace, err := os.Open(r.workspace)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = workspace.Close() })
	r.Place = Place{Workspace: workspace, Join: func(context.Context) error { return nil }, UID: -1, GID: -1, Commit: &r.commit}
	return r
}

// staged is the place with a new stage, which is removed when the test ends.
func (r *rig) staged() Place {
	r.t.Helper()
	name, err := os.MkdirTemp(r.stages, "")
	if err != nil {
		r.t.Fatal(err)
	}
	stage, err := os.Open(name)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = stage.Close() })
	p := r.Place
	p.Stage = stage
	return p
}

func (r *rig) path(name string) string { return filepath.Join(r.workspace, name) }

// make writes a file as a sandbox would.
func (r *rig) make(name, text string) {
	r.t.Helper()
	if err := os.MkdirAll(filepath.Dir(r.path(name)), 0o700); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(r.path(name), []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) link(target, name string) {
	r.t.Helper()
	if err := os.Symlink(target, r.path(name)); err != nil {
		r.t.Fatal(err)
	}
}

// free lets everything be written.
func free(context.Context, int64) error { return nil }

func upload(path, text string) Upload {
	return Upload{Path: path, Body: strings.NewReader(text), Spend: free}
}

func wantCode(t *testing.T, err error, code protocol.Code) {
	t.Helper()
	if e, ok := errors.AsType[*protocol.Error](err); !ok || e.Code != code {
		t.Errorf("got %v, want %s", err, code)
	}
}
