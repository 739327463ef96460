package keyring

import (
	"fmt"
	"io"
	"os"
	"syscall"
)

// maxFileBytes bounds the file: about a hundred thousand keys.
const maxFileBytes = 16 << 20

// Read reads a file of keys as the daemon does. Who could write the file could let
// anybody in, so that a file of somebody else's is refused, or one that others may
// write. Every fault is in the error, a [*FileError]. A file without keys is none:
// nobody can sign in then.
func Read(path string) ([]Key, error) {
	text, info, err := readFile(path)
	if err == nil {
		err = checkOwner(info)
	}
	return parsed(path, text, err)
}

// List reads a file of keys for somebody who looks after it, root for example,
// where the daemon is another user's.
func List(path string) ([]Key, error) {
	text, _, err := readFile(path)
	return parsed(path, text, err)
}

func parsed(path string, text []byte, err error) ([]Key, error) {
	if err != nil {
		return nil, &FileError{Path: path, Faults: []Fault{{Reason: err.Error()}}}
	}
	keys, faults := parse(text)
	if len(faults) > 0 {
		return nil, &FileError{Path: path, Faults: faults}
	}
	return keys, nil
}

// readFile reads the file and tells what it is. Opened without waiting: a FIFO
// would hold the daemon for as long as nobody writes. A symbolic link is followed,
// for mounted secrets are some; what it leads to is judged.
func readFile(path string) ([]byte, os.FileInfo, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("is no regular file but %s", info.Mode().Type())
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return nil, nil, fmt.Errorf("has mode %#o: others than its owner may write keys into it; chmod 600", mode)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxFileBytes+1))
	if err != nil {
		return nil, nil, err
	}
	if len(text) > maxFileBytes {
		return nil, nil, fmt.Errorf("is longer than %d bytes", maxFileBytes)
	}
	return text, info, nil
}

// checkOwner refuses another user's file: he may give himself the permission, and
// whoever could put another file in this one's place owns that one.
func checkOwner(info os.FileInfo) error {
	self := os.Geteuid()
	if owner := ownerOf(info).Uid; owner != 0 && int(owner) != self {
		return fmt.Errorf("belongs to uid %d, neither root nor the daemon's own %d; chown it", owner, self)
	}
	return nil
}

func ownerOf(info os.FileInfo) *syscall.Stat_t {
	return info.Sys().(*syscall.Stat_t) //nolint:forcetypeassert // what os gives here
}
