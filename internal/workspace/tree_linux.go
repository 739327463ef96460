package workspace

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"carrel/internal/beneath"
)

// maxErrors bounds how many of a tree's errors are told.
const maxErrors = 8

// removeTree removes name from dir with everything in it, and nothing outside of
// it. A mount inside is left alone and reported, with the directories above it;
// the rest goes. An absent name is no error. Nothing may be using the tree.
//
// Depth costs nothing: a directory that is not empty is moved up to the top of
// the tree, by one rename, and emptied there, so that at most three descriptors
// are open and no path is longer than one name. Killed anywhere, it can be
// started anew.
//
//	top/a/b/c    →    top/a  top/1 (was b)    →    top/2 (was c)    →    top
func removeTree(ctx context.Context, dir int, name string) error {
	r := &remover{prefix: rand.Text() + "-", buf: make([]byte, beneath.BufferBytes), inner: make([]byte, beneath.BufferBytes)}
	err := r.drop(dir, name)
	if !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
		return describe(name, err)
	}
	if r.top, err = r.open(dir, name); err != nil {
		return describe(name, err)
	}
	defer beneath.Close(r.top)
	for {
		before := r.progress
		isEmpty, err := r.pass(ctx)
		if err != nil {
			return err
		}
		if isEmpty {
			return describe(name, r.drop(dir, name))
		}
		if r.progress == before {
			return errors.Join(append([]error{fmt.Errorf("remove %q: some of it stays", name)}, r.errs...)...)
		}
	}
}

// remover removes one tree.
type remover struct {
	top        int    // the tree's root, to which directories are moved up
	prefix     string // of the names they get there; unlike any name there is
	moved      int
	progress   int     // entries removed or moved; while it grows, another pass helps
	errs       []error // of the last pass, at most maxErrors
	buf, inner []byte
}

// pass goes once over the entries at the top.
func (r *remover) pass(ctx context.Context) (isEmpty bool, err error) {
	r.errs = r.errs[:0]
	if _, err := unix.Seek(r.top, 0, unix.SEEK_SET); err != nil {
		return false, fmt.Errorf("read directory: %w", err)
	}
	isEmpty = true
	for {
		entries, done, err := beneath.ReadEntries(r.top, r.buf)
		if err != nil {
			return false, fmt.Errorf("read directory: %w", err)
		}
		if done {
			return isEmpty, nil
		}
		for _, e := range entries {
			isEmpty = false
			if err := r.remove(ctx, e.Name); err != nil {
				return false, err
			}
		}
	}
}

// remove removes one entry at the top, as far as it can be. The error ends the
// whole removal; the others go to note.
func (r *remover) remove(ctx context.Context, name string) error {
	if ctx.Err() != nil {
		return fmt.Errorf("remove: %w", context.Cause(ctx))
	}
	err := r.drop(r.top, name)
	if !isNotEmpty(err) {
		r.note(name, err)
		return nil
	}
	fd, err := r.open(r.top, name)
	if err != nil {
		r.note(name, err)
		return nil
	}
	defer beneath.Close(fd)
	for {
		entries, done, err := beneath.ReadEntries(fd, r.inner)
		if err != nil {
			r.note(name, err)
			return nil
		}
		if done {
			break
		}
		for _, e := range entries {
			if ctx.Err() != nil {
				return fmt.Errorf("remove: %w", context.Cause(ctx))
			}
			err := r.drop(fd, e.Name)
			if isNotEmpty(err) {
				err = r.moveUp(fd, e.Name)
			}
			r.note(e.Name, err)
		}
	}
	if err := r.drop(r.top, name); !isNotEmpty(err) { // else what is in it was noted, or the next pass sees it
		r.note(name, err)
	}
	return nil
}

func isNotEmpty(err error) bool {
	return errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST)
}

// note keeps what went wrong with an entry.
func (r *remover) note(name string, err error) {
	if err != nil && len(r.errs) < maxErrors {
		r.errs = append(r.errs, describe(name, err))
	}
}

// describe says what could not be removed, and names the two causes that an
// operator has to clear away. nil stays nil.
func describe(name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EXDEV):
		return fmt.Errorf("remove %q: is a mount point; unmount it: %w", name, err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("remove %q: not permitted (immutable?): %w", name, err)
	default:
		return fmt.Errorf("remove %q: %w", name, err)
	}
}

// drop removes a name that is a file of any kind or an empty directory. No file
// is opened for that: not a pipe, which would block, nor a device, nor what a
// symbolic link leads to.
func (r *remover) drop(dir int, name string) error {
	err := unlink(dir, name)
	if errors.Is(err, unix.EPERM) && clearFlagsAt(dir, name) {
		err = unlink(dir, name)
	}
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err == nil {
		r.progress++
	}
	return err
}

func unlink(dir int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	// EISDIR is Linux's answer to a directory, EPERM that of POSIX.
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) {
		if errDir := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR); !errors.Is(errDir, unix.ENOTDIR) {
			return errDir
		}
	}
	return err
}

// moveUp moves the directory name in dir to the top.
func (r *remover) moveUp(dir int, name string) error {
	r.moved++
	to := r.prefix + strconv.Itoa(r.moved)
	err := unix.Renameat(dir, name, r.top, to)
	if errors.Is(err, unix.EACCES) {
		// A directory that moves has its ".." rewritten, which takes write
		// permission on it from anybody but root.
		if _, errGrant := beneath.GrantOwner(dir, name); errGrant == nil {
			err = unix.Renameat(dir, name, r.top, to)
		}
	}
	if err == nil {
		r.progress++
	}
	return err
}

// open opens a directory to be emptied, whatever mode its owner gave it. That
// nothing forbids it to all (see clearFlags), the drop before it has seen to.
func (r *remover) open(dir int, name string) (int, error) {
	fd, err := beneath.OpenDir(dir, name)
	if errors.Is(err, unix.EACCES) {
		if _, errGrant := beneath.GrantOwner(dir, name); errGrant == nil {
			fd, err = beneath.OpenDir(dir, name)
		}
	}
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err == nil && st.Mode&beneath.OwnerOnly != beneath.OwnerOnly && int(st.Uid) == os.Geteuid() {
		_ = unix.Fchmod(fd, st.Mode&0o7777|beneath.OwnerOnly) // where it did not help, unlink says so
	}
	return fd, nil
}

// clearFlagsAt clears the flags of the file or directory name in dir, and
// reports whether there were any. Only those two kinds have flags, and only they
// are opened.
func clearFlagsAt(dir int, name string) bool {
	var st unix.Stat_t
	if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return false
	}
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFDIR {
		return false
	}
	fd, err := beneath.Open(dir, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer beneath.Close(fd)
	return clearFlags(fd)
}

// Flags of an inode that forbid to change or remove it (linux/fs.h).
const (
	flagImmutable  = 0x10
	flagAppendOnly = 0x20
)

// clearFlags takes the flags off, which needs CAP_LINUX_IMMUTABLE where one is
// set, and reports whether one was. Many file systems have none.
func clearFlags(fd int) bool {
	flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil || flags&(flagImmutable|flagAppendOnly) == 0 {
		return false
	}
	return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags&^(flagImmutable|flagAppendOnly))) == nil
}
