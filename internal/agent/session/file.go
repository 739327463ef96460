package session

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"carrel/protocol"
)

const (
	folder = "sessions"
	suffix = ".jsonl"
	// maxListed bounds List: a sandbox can make as many files as its disk holds.
	maxListed = 10_000
)

func path(id string) string { return folder + "/" + id + suffix }

// Info is a session as List shows it.
type Info struct {
	ID       string    `json:"session_id"`
	Bytes    int64     `json:"bytes"`
	Modified time.Time `json:"modified_at"`
}

// List gives the sessions of a home, the last used first; at most 10000 of them.
func List(home *os.Root) ([]Info, error) {
	dir, err := home.OpenFile(folder, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", tampered(err))
	}
	defer dir.Close()
	entries, err := dir.ReadDir(maxListed)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	var infos []Info
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok || protocol.CheckSessionID(id) != nil {
			continue
		}
		info, err := home.Lstat(path(id))
		if err != nil || !info.Mode().IsRegular() {
			continue // gone meanwhile, or none of ours
		}
		infos = append(infos, Info{ID: id, Bytes: info.Size(), Modified: info.ModTime().UTC()})
	}
	slices.SortFunc(infos, func(a, b Info) int { return b.Modified.Compare(a.Modified) })
	return infos, nil
}

// Read gives the whole lines of a transcript, as they stand there. Its errors are
// those of [Store.Open], and CodeNotFound.
func Read(home *os.Root, id string) ([]json.RawMessage, error) {
	file, data, err := readRegular(home, id, os.O_RDONLY)
	if err != nil {
		return nil, notFound(id, err)
	}
	defer file.Close()
	lines, _, err := split(data)
	if err != nil {
		return nil, protocol.Errorf(protocol.CodeConflict, "session %s: its transcript is broken: %w", id, err)
	}
	return lines, nil
}

// Delete removes a session; CodeNotFound if there is none. A run that has it
// open goes on and leaves nothing behind.
func Delete(home *os.Root, id string) error {
	if err := protocol.CheckSessionID(id); err != nil {
		return err
	}
	return notFound(id, tampered(home.Remove(path(id))))
}

// Fork makes a new session that begins with what there is of another. It is
// there whole or not at all; CodeConflict if there is one of that id. own makes the
// new file its user's; nil = it is.
func Fork(home *os.Root, from, to string, own func(*os.File) error) (Info, error) {
	if err := protocol.CheckSessionID(to); err != nil {
		return Info{}, err
	}
	source, data, err := readRegular(home, from, os.O_RDONLY)
	if err != nil {
		return Info{}, notFound(from, err)
	}
	defer source.Close()
	_, whole, err := split(data)
	if err == nil {
		err = fork(home, to, data[:whole], own)
	} else {
		err = protocol.Errorf(protocol.CodeConflict, "its transcript is broken: %w", err)
	}
	if err != nil {
		return Info{}, diskError(fmt.Errorf("fork session %s: %w", from, tampered(err)))
	}
	return Info{ID: to, Bytes: int64(whole), Modified: time.Now().UTC()}, nil
}

func fork(home *os.Root, to string, data []byte, own func(*os.File) error) error {
	// A name that no session has, since it lacks the suffix. What a fork that
	// was killed left of it is written over by the next.
	draft := folder + "/" + to + ".fork"
	if err := home.Remove(draft); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := writeNew(home, draft, data, own); err != nil {
		return err
	}
	defer func() { _ = home.Remove(draft) }()
	if err := home.Link(draft, path(to)); err != nil { // unlike Rename, never over another
		if errors.Is(err, fs.ErrExist) {
			return protocol.Errorf(protocol.CodeConflict, "session %s: there is one already", to)
		}
		return err
	}
	return syncFolder(home)
}

func writeNew(home *os.Root, name string, data []byte, own func(*os.File) error) error {
	f, err := home.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if own != nil {
		err = own(f)
	}
	if err == nil {
		_, err = f.Write(data)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// readRegular opens a transcript and reads all of it. It opens without waiting,
// since what lies there may be a pipe that a sandbox has put there, and refuses
// whatever is no regular file.
func readRegular(home *os.Root, id string, mode int) (*os.File, []byte, error) {
	if err := protocol.CheckSessionID(id); err != nil {
		return nil, nil, err
	}
	file, err := home.OpenFile(path(id), mode|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("session %s: %w", id, tampered(err))
	}
	data, err := readAll(file, id)
	if err != nil {
		_ = file.Close()
		return nil, nil, err
	}
	return file, data, nil
}

func readAll(file *os.File, id string) ([]byte, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("session %s: %w", id, err)
	}
	if !info.Mode().IsRegular() {
		return nil, protocol.Errorf(protocol.CodeConflict, "session %s: its transcript is no regular file", id)
	}
	size := info.Size()
	var data []byte
	if size <= MaxBytes {
		whole := bytes.NewBuffer(make([]byte, 0, size+bytes.MinRead))
		// It may grow while it is read.
		if size, err = whole.ReadFrom(io.LimitReader(file, MaxBytes+1)); err != nil {
			return nil, fmt.Errorf("session %s: %w", id, err)
		}
		data = whole.Bytes()
	}
	if size > MaxBytes {
		return nil, protocol.Errorf(protocol.CodeTooLarge, "session %s: its transcript has more than %d bytes", id, MaxBytes)
	}
	return data, nil
}

func syncFolder(home *os.Root) error {
	// What stands there by now may be a pipe, whose opening would wait for ever.
	dir, err := home.OpenFile(folder, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

func notFound(id string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return protocol.Errorf(protocol.CodeNotFound, "session %s: there is none", id)
	}
	return err
}

// tampered gives an error the code of a conflict that what stands in the home
// accounts for: the home is its sandbox's, which may have put a link, a socket or a
// directory where a file should be, or swapped the one for the other just now.
func tampered(err error) error {
	if err == nil || errors.As(err, new(*protocol.Error)) {
		return err
	}
	var why syscall.Errno
	if !errors.As(err, &why) { // os.Root's refusal of what leads out of it
		return protocol.Errorf(protocol.CodeConflict, "is not as it was made: %w", err)
	}
	switch why {
	case syscall.ENOENT, syscall.EEXIST, syscall.ENOTDIR, syscall.EISDIR, syscall.ENOTEMPTY, syscall.ELOOP,
		syscall.ENXIO, syscall.ENODEV, syscall.EACCES, syscall.EPERM, syscall.EXDEV, syscall.EWOULDBLOCK, syscall.ETXTBSY:
		return protocol.Errorf(protocol.CodeConflict, "is not as it was made: %w", err)
	default:
		return err
	}
}
