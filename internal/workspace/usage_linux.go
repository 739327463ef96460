package workspace

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"carrel/internal/beneath"
	"carrel/protocol"
)

const (
	// openLevels is how many levels of a tree keep their descriptor open while
	// it is walked. Deeper ones are found again through "..".
	openLevels = 64
	// maxHardLinks bounds the memory of files with several names, about 50 bytes
	// each. Whoever has more is charged for the rest once a name.
	maxHardLinks = 1 << 20
	// walkAttempts is how often a walk starts anew when the tree was moved about
	// below openLevels.
	walkAttempts = 3
)

// errMoved tells that a directory is no longer where the walk found it.
var errMoved = errors.New("directories were moved while they were counted")

// DiskUsage returns the bytes on disk of the user's workspace and home: blocks
// as they are allocated, a file with several names once, nothing of other mounts
// inside. The tree may be in use meanwhile; what changes under the walk counts or
// does not. Where a hard quota is set, it is what the kernel counts, and costs no
// walk. Errors: CodeNotFound where the user has no directory.
//
// As long as it walks through a directory that its owner has forbidden itself to
// enter, that is allowed, so that no mode hides what is there.
func (d *Dirs) DiskUsage(ctx context.Context, userID string) (int64, error) {
	if err := protocol.CheckUserID(userID); err != nil {
		return 0, err
	}
	name := DirName(userID)
	if d.opts.DiskQuota > 0 {
		if bytes, ok, err := d.projectUsage(name); ok || err != nil {
			return bytes, err
		}
	}
	fd, err := beneath.OpenDir(d.users, name)
	if errors.Is(err, unix.ENOENT) {
		return 0, protocol.Errorf(protocol.CodeNotFound, "the user has no directory")
	} else if err != nil {
		return 0, fmt.Errorf("count %s: %w", name, err)
	}
	defer beneath.Close(fd)
	for range walkAttempts {
		w := walk{buf: make([]byte, beneath.BufferBytes), links: make(map[uint64]bool)}
		err = errors.Join(w.root(ctx, fd, subdirWorkspace), w.root(ctx, fd, subdirHome))
		if err == nil {
			return w.bytes, nil
		}
		if !errors.Is(err, errMoved) {
			break
		}
	}
	if errors.Is(err, unix.ENOENT) && unix.Faccessat(d.users, name, unix.F_OK, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return 0, protocol.Errorf(protocol.CodeNotFound, "the user's directory was removed")
	}
	return 0, fmt.Errorf("count %s: %w", name, err)
}

// walk counts a tree. It goes down one directory at a time; what it has to know
// to go on where it left off is in a frame for each level.
type walk struct {
	dev   uint64 // the tree's file system
	bytes int64
	links map[uint64]bool // inodes with several names that are counted
	stack []frame
	stop  error // why the walk only goes back up
	buf   []byte
	// visit is called for each entry with its mode, before it is entered; nil = nothing.
	visit func(dir int, name string, mode uint32) error
}

// frame is a directory that the walk is in or under.
type frame struct {
	fd   int    // -1 = closed for now
	ino  uint64 // to know it again
	next int64  // where reading goes on
	// was is the mode to give back on leaving; valid if wasClosed.
	was       uint32
	wasClosed bool
}

// root walks the tree called name in dir.
func (w *walk) root(ctx context.Context, dir int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	w.dev = st.Dev
	w.count(&st)
	if err := w.enter(dir, name); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for len(w.stack) > 0 {
		isDeeper := false
		if w.stop == nil {
			isDeeper, w.stop = w.read(ctx)
		}
		if isDeeper {
			continue
		}
		if err := w.leave(); err != nil {
			for _, f := range w.stack {
				if f.fd >= 0 {
					beneath.Close(f.fd)
				}
			}
			w.stack = nil
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if w.stop != nil {
		return fmt.Errorf("%s: %w", name, w.stop)
	}
	return nil
}

// read counts the entries of the current directory up to the next directory
// among them, and enters that; isDeeper tells that there was one.
func (w *walk) read(ctx context.Context) (isDeeper bool, err error) {
	f := &w.stack[len(w.stack)-1]
	if _, err := unix.Seek(f.fd, f.next, unix.SEEK_SET); err != nil {
		return false, err
	}
	for {
		entries, done, err := beneath.ReadEntries(f.fd, w.buf)
		if done || err != nil {
			return false, err
		}
		for _, e := range entries {
			if ctx.Err() != nil {
				return false, context.Cause(ctx)
			}
			f.next = e.Next
			var st unix.Stat_t
			if err := unix.Fstatat(f.fd, e.Name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				if errors.Is(err, unix.ENOENT) {
					continue
				}
				return false, err
			}
			if st.Dev != w.dev {
				continue // a mount inside
			}
			w.count(&st)
			if w.visit != nil {
				if err := w.visit(f.fd, e.Name, st.Mode); err != nil {
					return false, fmt.Errorf("%q: %w", e.Name, err)
				}
			}
			if st.Mode&unix.S_IFMT != unix.S_IFDIR {
				continue
			}
			switch err := w.enter(f.fd, e.Name); {
			case err == nil:
				return true, nil
			case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.EXDEV):
				// Gone, replaced, or a mount of the same file system.
			default:
				return false, err
			}
		}
	}
}

// blockBytes is the unit of st_blocks, whatever the file system's (stat(2)).
const blockBytes = 512

func (w *walk) count(st *unix.Stat_t) {
	if st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Nlink > 1 {
		if w.links[st.Ino] {
			return
		}
		if len(w.links) < maxHardLinks {
			w.links[st.Ino] = true
		}
	}
	w.bytes += st.Blocks * blockBytes
}

// enter goes down into the directory name in dir.
func (w *walk) enter(dir int, name string) error {
	var f frame
	fd, err := beneath.OpenDir(dir, name)
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstat(fd, &st)
		// Reading takes r, looking at what was read x. Root needs neither, and
		// then nothing of a mode is touched.
		if err == nil && st.Mode&0o100 == 0 && unix.Faccessat(fd, ".", unix.X_OK, unix.AT_EACCESS) != nil {
			beneath.Close(fd)
			err = unix.EACCES
		}
	}
	if errors.Is(err, unix.EACCES) {
		if f.was, err = beneath.GrantOwner(dir, name); err != nil {
			return err
		}
		f.wasClosed = true
		if fd, err = beneath.OpenDir(dir, name); err == nil {
			err = unix.Fstat(fd, &st)
		}
	}
	if err != nil {
		return err
	}
	f.fd, f.ino = fd, st.Ino
	if len(w.stack) > openLevels {
		above := &w.stack[len(w.stack)-1]
		beneath.Close(above.fd)
		above.fd = -1
	}
	w.stack = append(w.stack, f)
	return nil
}

// leave goes back up. ".." of a directory is never a symbolic link, but it leads
// elsewhere once the directory was moved; then the walk is lost.
func (w *walk) leave() error {
	f := w.stack[len(w.stack)-1]
	w.stack = w.stack[:len(w.stack)-1]
	defer beneath.Close(f.fd)
	if f.wasClosed {
		_ = unix.Fchmod(f.fd, f.was) // its owner may have been faster, or removed it
	}
	if len(w.stack) == 0 {
		return nil
	}
	above := &w.stack[len(w.stack)-1]
	if above.fd >= 0 {
		return nil
	}
	fd, err := unix.Openat(f.fd, "..", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return errors.Join(errMoved, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Ino != above.ino || st.Dev != w.dev {
		beneath.Close(fd)
		return errMoved
	}
	above.fd = fd
	return nil
}
