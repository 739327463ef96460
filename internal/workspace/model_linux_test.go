package workspace

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"carrel/protocol"
)

// TestNoTwoUsersEverHaveOneUIDOrDirectory lets several at once open, close,
// remove and count at random: while a user has a directory open, its uid and
// path are its own, whatever the others do.
func TestNoTwoUsersEverHaveOneUIDOrDirectory(t *testing.T) {
	base := t.TempDir()
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		opts := rootOptions(filepath.Join(base, fmt.Sprint(round)))
		opts.UIDCount = rapid.IntRange(2, 8).Draw(rt, "uids")
		d, err := Open(t.Context(), opts)
		if err != nil {
			rt.Fatal(err)
		}
		plans := make([][]string, 4)
		for i := range plans {
			step := rapid.Custom(func(rt *rapid.T) string {
				return rapid.SampledFrom([]string{"open", "open", "remove", "usage", "list"}).Draw(rt, "what") +
					rapid.SampledFrom([]string{" a", " A", " b", " b/", " c"}).Draw(rt, "who")
			})
			plans[i] = rapid.SliceOfN(step, 1, 8).Draw(rt, fmt.Sprint("plan", i))
		}
		m := model{t: t, dirs: d, unique: opts.Root, users: make(map[string]int), owners: make(map[int]string)}
		var group sync.WaitGroup
		for _, plan := range plans {
			group.Go(func() {
				for _, step := range plan {
					m.do(step)
				}
			})
		}
		group.Wait()
		if err := d.Close(); err != nil {
			rt.Errorf("something is still open: %v", err)
		}
		if left, _ := os.ReadDir(filepath.Join(d.Path(), "tmp")); len(left) > 0 {
			rt.Errorf("tmp/ holds %v", left)
		}
		if t.Failed() {
			rt.Fatal("see above")
		}
	})
}

// model keeps what must be so: who has a directory open, with which uid.
type model struct {
	t      *testing.T
	dirs   *Dirs
	unique bool

	mu     sync.Mutex
	users  map[string]int // user → Dirs open
	owners map[int]string // uid → user, while one is open
}

func (m *model) do(step string) {
	ctx := m.t.Context()
	var what, who string
	_, _ = fmt.Sscanf(step, "%s %s", &what, &who)
	switch what {
	case "open":
		dir, err := m.dirs.Open(ctx, who)
		if err != nil {
			m.allow(step, err, protocol.CodeInternal) // no uid is free
			return
		}
		m.opened(dir)
		if _, err := os.Stat(filepath.Join(dir.Path, "workspace")); err != nil {
			m.t.Errorf("%s: open, but %v", step, err)
		}
		m.closing(dir)
		if err := dir.Close(); err != nil {
			m.t.Errorf("%s: %v", step, err)
		}
	case "remove":
		m.allow(step, m.dirs.Remove(ctx, who), protocol.CodeConflict, protocol.CodeNotFound)
	case "usage":
		_, err := m.dirs.DiskUsage(ctx, who)
		m.allow(step, err, protocol.CodeNotFound)
	case "list":
		_, err := m.dirs.List(ctx)
		m.allow(step, err)
	}
}

func (m *model) allow(step string, err error, codes ...protocol.Code) {
	if coded, ok := errors.AsType[*protocol.Error](err); err != nil && (!ok || !slices.Contains(codes, coded.Code)) {
		m.t.Errorf("%s: %v", step, err)
	}
}

func (m *model) opened(dir *Dir) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.users[dir.UserID]++
	if owner, taken := m.owners[dir.UID]; m.unique && taken && owner != dir.UserID {
		m.t.Errorf("uid %d is that of %q and %q", dir.UID, owner, dir.UserID)
	}
	m.owners[dir.UID] = dir.UserID
}

func (m *model) closing(dir *Dir) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.users[dir.UserID]--
	if m.users[dir.UserID] == 0 {
		delete(m.owners, dir.UID)
	}
}
