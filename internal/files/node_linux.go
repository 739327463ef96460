package files

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"carrel/internal/beneath"
	"carrel/protocol"
)

// Node is a regular file or a directory that is open. It is used by one goroutine.
type Node struct {
	file *os.File
	name string
	st   unix.Stat_t // when it was opened
	at   int64       // where Read goes on
}

// Open opens the file or directory at a path below the workspace. Errors:
// CodeInvalidRequest for what is no path, CodeNotFound, CodeConflict where the path
// leads through a link or ends at anything else.
func Open(workspace *os.File, path string) (*Node, error) {
	if err := CheckPath(path); err != nil {
		return nil, err
	}
	// First as a place, which opens nothing: even a non-blocking open of a FIFO
	// wakes its writers, and one of a device may do anything.
	place, err := beneath.Open(int(workspace.Fd()), cmp.Or(path, "."), unix.O_PATH, 0)
	if err != nil {
		return nil, explain(path, err)
	}
	_, name := split(path)
	n, err := openPlace(place, name)
	return n, explain(path, err)
}

// openPlace opens the regular file or directory that a place (O_PATH) is, and closes
// the place.
func openPlace(place int, name string) (*Node, error) {
	defer beneath.Close(place)
	n := &Node{name: name}
	if err := unix.Fstat(place, &n.st); err != nil {
		return nil, err
	}
	switch n.st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR:
	case unix.S_IFLNK:
		return nil, unix.ELOOP
	default:
		return nil, protocol.Errorf(protocol.CodeConflict, "%.200q is neither a file nor a directory", name)
	}
	// The link in /proc leads to the inode that was looked at, whatever its name is by
	// now. O_NONBLOCK: a sandbox's lease on its file must not hold us.
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", place), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	n.file = os.NewFile(uintptr(fd), name)
	return n, nil
}

// Info tells what it was when it was opened.
func (n *Node) Info() protocol.FileInfo { return infoOf(n.name, &n.st, "") }

// ETag names the content that it had when it was opened.
func (n *Node) ETag() string { return etagOf(&n.st) }

// Close closes it.
func (n *Node) Close() error { return n.file.Close() }

// Read reads a file of the size that Info tells: not what grew since, and
// io.ErrUnexpectedEOF where less is left.
func (n *Node) Read(b []byte) (int, error) {
	left := n.st.Size - n.at
	if left <= 0 {
		return 0, io.EOF
	}
	count, err := n.file.ReadAt(b[:min(int64(len(b)), left)], n.at)
	n.at += int64(count)
	if errors.Is(err, io.EOF) {
		if err = nil; count == 0 {
			err = io.ErrUnexpectedEOF
		}
	}
	return count, err
}

// Seek implements io.Seeker, within the size that Info tells.
func (n *Node) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += n.at
	case io.SeekEnd:
		offset += n.st.Size
	}
	if offset < 0 {
		return 0, unix.EINVAL
	}
	n.at = offset
	return offset, nil
}

// List lists a directory from a cursor on, or from its start where that is empty; at
// most limit names. It costs memory for one page, however large the directory is,
// since pages are in the file system's order.
func (n *Node) List(ctx context.Context, cursor string, limit int) (protocol.FileList, error) {
	list := protocol.FileList{Files: []protocol.FileInfo{}}
	var from int64
	if cursor != "" {
		var err error
		if from, err = strconv.ParseInt(cursor, 10, 64); err != nil || from < 0 {
			return list, protocol.Errorf(protocol.CodeInvalidRequest, "cursor: is none of this directory")
		}
	}
	fd := int(n.file.Fd())
	if _, err := unix.Seek(fd, from, unix.SEEK_SET); err != nil {
		return list, protocol.Errorf(protocol.CodeInvalidRequest, "cursor: is none of this directory: %w", err)
	}
	err := eachEntry(ctx, fd, func(e beneath.Entry) (bool, error) {
		info, err := look(fd, e.Name)
		if errors.Is(err, unix.ENOENT) {
			return true, nil // gone since
		} else if err != nil {
			return false, explain(e.Name, err)
		}
		list.Files = append(list.Files, info)
		if len(list.Files) == limit {
			list.NextCursor = strconv.FormatInt(e.Next, 10)
		}
		return len(list.Files) < limit, nil
	})
	slices.SortFunc(list.Files, func(a, b protocol.FileInfo) int { return cmp.Compare(a.Name, b.Name) })
	return list, err
}

func look(dir int, name string) (protocol.FileInfo, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return protocol.FileInfo{}, err
	}
	target := ""
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		var err error
		if target, err = readLink(dir, name); err != nil {
			return protocol.FileInfo{}, unix.ENOENT // it was replaced: as if gone
		}
	}
	return infoOf(name, &st, target), nil
}

func readLink(dir int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	count, err := unix.Readlinkat(dir, name, buf)
	return string(buf[:max(count, 0)]), err
}

// eachEntry calls visit for the entries of a directory from where it stands, until
// that is false.
func eachEntry(ctx context.Context, dir int, visit func(beneath.Entry) (goOn bool, err error)) error {
	buf := make([]byte, beneath.BufferBytes)
	for {
		entries, done, err := beneath.ReadEntries(dir, buf)
		if done || err != nil {
			return err
		}
		for _, e := range entries {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if goOn, err := visit(e); !goOn || err != nil {
				return err
			}
		}
	}
}
