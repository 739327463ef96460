// Package beneath opens what lies below a descriptor of a directory, whatever
// somebody else does to the names there meanwhile: never through a symbolic link,
// never out of the directory, never onto another mount.
package beneath

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// within is how everything below a descriptor is opened.
const within = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// Open opens name, which may be a path, below the directory dir.
func Open(dir int, name string, flags int, mode uint32) (int, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC | unix.O_NOFOLLOW),
		Mode:    uint64(mode),
		Resolve: within,
	}
	for {
		fd, err := unix.Openat2(dir, name, &how)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// OpenDir opens the directory name in dir for reading.
func OpenDir(dir int, name string) (int, error) {
	return Open(dir, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
}

// OpenPlace opens the directory name in dir as a place only, which takes no
// permission on it.
func OpenPlace(dir int, name string) (int, error) {
	return Open(dir, name, unix.O_PATH|unix.O_DIRECTORY, 0)
}

// Close closes a descriptor that only ever was read or passed on.
func Close(fd int) { _ = unix.Close(fd) }

// Chmod changes the mode of what fd is open on, also where fd is a place only.
func Chmod(fd int, mode uint32) error {
	err := unix.Fchmodat(fd, "", mode, unix.AT_EMPTY_PATH)
	if errors.Is(err, unix.EOPNOTSUPP) {
		// Before kernel 6.6 there is no fchmodat2. The link in /proc leads to the
		// very file, not to a name of it.
		err = unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), mode)
	}
	return err
}

// OwnerOnly is the mode of every directory of ours.
const OwnerOnly = 0o700

// GrantOwner gives the owner every permission on the directory name in dir, and
// returns the mode it had.
func GrantOwner(dir int, name string) (was uint32, err error) {
	fd, err := OpenPlace(dir, name)
	if err != nil {
		return 0, err
	}
	defer Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, err
	}
	was = st.Mode & 0o7777
	return was, Chmod(fd, was|OwnerOnly)
}

// Entry is one name in a directory.
type Entry struct {
	Name string
	Next int64 // where in the directory the entry after it is (d_off)
}

// BufferBytes is the size of a buffer for entries: about 100 at a time.
const BufferBytes = 4 << 10

// ReadEntries reads the next entries of a directory, without "." and ".."; done
// tells that there are no more.
func ReadEntries(dir int, buf []byte) (entries []Entry, done bool, err error) {
	n, err := unix.Getdents(dir, buf)
	if errors.Is(err, unix.EINTR) {
		n, err = unix.Getdents(dir, buf)
	}
	if err != nil || n <= 0 {
		return nil, true, err
	}
	return parseEntries(buf[:n]), false, nil
}

// parseEntries reads records of the kernel (getdents64(2)):
//
//	ino u64 | next i64 | length of the record u16 | type u8 | name, 0, padding
func parseEntries(buf []byte) []Entry {
	const head = 8 + 8 + 2 + 1
	var entries []Entry
	for len(buf) >= head {
		length := int(binary.NativeEndian.Uint16(buf[16:]))
		if length < head || length > len(buf) {
			return entries
		}
		name, _, _ := bytes.Cut(buf[head:length], []byte{0})
		if s := string(name); s != "." && s != ".." && s != "" {
			entries = append(entries, Entry{s, int64(binary.NativeEndian.Uint64(buf[8:]))})
		}
		buf = buf[length:]
	}
	return entries
}

// ReadNames reads every name in a directory, from its start.
func ReadNames(dir int) ([]string, error) {
	if _, err := unix.Seek(dir, 0, unix.SEEK_SET); err != nil {
		return nil, err
	}
	var names []string
	buf := make([]byte, BufferBytes)
	for {
		entries, done, err := ReadEntries(dir, buf)
		if done || err != nil {
			return names, err
		}
		for _, e := range entries {
			names = append(names, e.Name)
		}
	}
}
