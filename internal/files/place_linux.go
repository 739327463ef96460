package files

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"carrel/internal/beneath"
	"carrel/protocol"
)

// Place is one user's workspace, to be written to.
type Place struct {
	Workspace *os.File // as a place (O_PATH) or open
	// Stage is an empty directory on the same file system that no sandbox can reach.
	// Whoever gave it removes it afterwards, with what is left in it.
	Stage *os.File
	// Join puts all that is in the stage under the user's hard quota.
	Join func(context.Context) error
	// UID and GID are to own what is made; negative: whoever makes it does.
	UID, GID int
	// Commit keeps apart those of this process that look at a name and then change it.
	Commit *sync.Mutex
}

// Condition decides by the ETag of what stands at a name, "" for nothing, whether that
// may be replaced; nil = it may.
type Condition func(etag string) error

func (c Condition) check(etag string) error {
	if c == nil {
		return nil
	}
	return c(etag)
}

// fileMode and dirMode are those of what is new. The workspace itself is closed to
// all others.
const (
	fileMode = 0o644
	dirMode  = 0o755
)

// own gives what is open to the user, with a mode.
func (p Place) own(fd int, mode uint32) error {
	if p.UID >= 0 {
		if err := unix.Fchownat(fd, "", p.UID, p.GID, unix.AT_EMPTY_PATH); err != nil {
			return err
		}
	}
	return beneath.Chmod(fd, mode)
}

// makeDir makes a directory of the user's in the stage and returns its name there.
func (p Place) makeDir() (string, error) {
	name, stage := rand.Text(), int(p.Stage.Fd())
	if err := unix.Mkdirat(stage, name, beneath.OwnerOnly); err != nil {
		return "", err
	}
	fd, err := beneath.OpenPlace(stage, name)
	if err != nil {
		return "", err
	}
	defer beneath.Close(fd)
	return name, p.own(fd, dirMode)
}

// parent opens the directory at a path as a place, and makes what is missing of it,
// if it is to. The caller closes it.
func (p Place) parent(path string, create bool) (int, error) {
	fd, err := beneath.OpenPlace(int(p.Workspace.Fd()), ".")
	if err != nil || path == "" {
		return fd, err
	}
	for name := range strings.SplitSeq(path, "/") {
		next, err := beneath.OpenPlace(fd, name)
		if create && errors.Is(err, unix.ENOENT) {
			next, err = p.makeAt(fd, name)
		}
		beneath.Close(fd)
		if err != nil {
			return -1, err
		}
		fd = next
	}
	return fd, nil
}

// makeAt makes the directory name in dir, unless somebody was faster, and opens it. It
// appears with its owner and mode.
func (p Place) makeAt(dir int, name string) (int, error) {
	made, err := p.makeDir()
	if err != nil {
		return -1, err
	}
	err = unix.Renameat2(int(p.Stage.Fd()), made, dir, name, unix.RENAME_NOREPLACE)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	return beneath.OpenPlace(dir, name)
}

// current tells what stands at a name, and whether the condition lets it be replaced.
func current(dir int, name string, when Condition) (st unix.Stat_t, exists bool, err error) {
	err = unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return st, false, when.check("")
	}
	if err != nil {
		return st, false, err
	}
	return st, true, when.check(etagOf(&st))
}

// Delete removes what stands at a path, a directory with all that is in it: it moves it
// into the stage. Nothing of it is opened, and no link followed. The workspace itself
// is not removed.
func (p Place) Delete(path string, when Condition) error {
	if err := CheckPath(path); err != nil {
		return err
	}
	if path == "" {
		return protocol.Errorf(protocol.CodeInvalidRequest, "path: the workspace itself cannot be deleted")
	}
	above, name := split(path)
	dir, err := p.parent(above, false)
	if err != nil {
		return explain(path, err)
	}
	defer beneath.Close(dir)
	p.Commit.Lock()
	defer p.Commit.Unlock()
	if _, exists, err := current(dir, name, when); err != nil {
		return explain(path, err)
	} else if !exists {
		return explain(path, unix.ENOENT)
	}
	err = unix.Renameat(dir, name, int(p.Stage.Fd()), "gone")
	if errors.Is(err, unix.EACCES) {
		// A directory that moves has its ".." rewritten, which takes write permission
		// on it from anybody but root.
		if _, errGrant := beneath.GrantOwner(dir, name); errGrant == nil {
			err = unix.Renameat(dir, name, int(p.Stage.Fd()), "gone")
		}
	}
	return explain(path, err)
}
