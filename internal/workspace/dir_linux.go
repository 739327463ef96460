package workspace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"carrel/internal/beneath"
	"carrel/protocol"
)

// The two directories that a sandbox owns.
const (
	subdirWorkspace = "workspace"
	subdirHome      = "home"
)

// Dir is one user's directory, in use until Close.
type Dir struct {
	UserID string
	Path   string // absolute
	// UID and GID own workspace/ and home/ on the host.
	UID, GID int

	dirs *Dirs
	name string
	slot *slot
	fd   int
	once sync.Once
}

// Open opens the user's directory, and makes it if it is missing. While the
// Dir is open, the directory is not removed. Errors: CodeInvalidRequest for what
// is no user id, CodeConflict where what is on disk is not what was made,
// CodeInternal where no uid is free.
func (d *Dirs) Open(ctx context.Context, userID string) (*Dir, error) {
	if err := protocol.CheckUserID(userID); err != nil {
		return nil, err
	}
	name := DirName(userID)
	s, err := d.take(ctx, name)
	if err != nil {
		return nil, err
	}
	defer d.give(name, s)

	fd, err := beneath.OpenDir(d.users, name)
	if errors.Is(err, unix.ENOENT) {
		if err = d.create(ctx, name, userID); err == nil {
			fd, err = beneath.OpenDir(d.users, name)
		}
	}
	if isReplaced(err) {
		err = protocol.Errorf(protocol.CodeConflict, "is not the directory that was made: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("open directory %s of user: %w", name, err)
	}
	dir := &Dir{UserID: userID, Path: filepath.Join(d.path, "users", name), dirs: d, name: name, slot: s, fd: fd}
	if err := dir.check(ctx); err != nil {
		beneath.Close(fd)
		return nil, fmt.Errorf("open directory %s of user: %w", name, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s.refs++
	s.pins++
	return dir, nil
}

// isReplaced reports whether something else than a directory of ours stands
// where one should: a file, a symbolic link, a mount.
func isReplaced(err error) bool {
	return errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EXDEV)
}

// check makes sure that the directory is what was made for this user, repairs
// modes, fills in whose it is, and notes the use.
func (dir *Dir) check(ctx context.Context) error {
	if _, err := ownDir(dir.fd, os.Geteuid(), -1); err != nil {
		return err
	}
	m, err := readMeta(dir.fd)
	if err != nil {
		return err
	}
	if m.UserID != dir.UserID {
		return protocol.Errorf(protocol.CodeConflict, "%s names another user, %s", metaFile, strconv.Quote(m.UserID))
	}
	if err := dir.dirs.checkUID(m.UID, dir.name); err != nil {
		return err
	}
	dir.UID, dir.GID = m.UID, os.Getegid()
	gid := -1 // without root, a base directory with set-group-id may hand down another group
	if dir.dirs.opts.Root {
		dir.GID, gid = m.UID, m.UID
	}
	for _, sub := range []string{subdirWorkspace, subdirHome} {
		repaired, err := dir.checkSub(sub, gid)
		if err != nil {
			return fmt.Errorf("check %s: %w", sub, err)
		}
		if repaired {
			dir.dirs.opts.Logger.InfoContext(ctx, "mode of a user directory is 0700 again", "path", filepath.Join(dir.Path, sub))
		}
	}
	if dir.dirs.opts.DiskQuota > 0 {
		if err := dir.hold(ctx); err != nil {
			return err
		}
	}
	return touchMeta(dir.fd, dir.dirs.opts.Now())
}

// checkUID makes sure that the uid is one that the directory called name may
// have.
func (d *Dirs) checkUID(uid int, name string) error {
	if d.uids != nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.uids.claim(uid, name)
	}
	if uid != os.Geteuid() {
		return protocol.Errorf(protocol.CodeConflict, "was made for uid %d, and the daemon runs as %d", uid, os.Geteuid())
	}
	return nil
}

// checkSub checks workspace/ or home/. Its sandbox may have changed its mode,
// but can neither replace it nor give it away.
func (dir *Dir) checkSub(sub string, gid int) (repaired bool, err error) {
	fd, err := beneath.OpenPlace(dir.fd, sub)
	if err != nil {
		return false, protocol.Errorf(protocol.CodeConflict, "is not the directory that was made: %w", err)
	}
	defer beneath.Close(fd)
	return ownDir(fd, dir.UID, gid)
}

// OpenWorkspace opens the user's files as a place (O_PATH), to be mounted or to
// be opened below. The caller closes it.
func (dir *Dir) OpenWorkspace() (*os.File, error) { return dir.openSub(subdirWorkspace) }

// OpenHome opens the agent's state as a place (O_PATH). The caller closes it.
func (dir *Dir) OpenHome() (*os.File, error) { return dir.openSub(subdirHome) }

func (dir *Dir) openSub(sub string) (*os.File, error) {
	fd, err := beneath.OpenPlace(dir.fd, sub)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", filepath.Join(dir.Path, sub), err)
	}
	return os.NewFile(uintptr(fd), filepath.Join(dir.Path, sub)), nil
}

// Close ends the use and notes when that was. The first call counts; what
// OpenWorkspace and OpenHome gave stays open.
func (dir *Dir) Close() error {
	var err error
	dir.once.Do(func() {
		err = touchMeta(dir.fd, dir.dirs.opts.Now())
		beneath.Close(dir.fd)
		dir.dirs.mu.Lock()
		dir.slot.refs--
		dir.dirs.mu.Unlock()
		dir.dirs.unpin(dir.name, dir.slot)
	})
	return err
}
