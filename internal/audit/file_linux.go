package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxLineBytes is more than any line has: JSON makes six bytes of one at most.
const maxLineBytes = 256 << 10

// open opens the file to add to, and locks it. torn tells that its end is half a line,
// which could not be removed.
//
// It follows no link in the last place, waits for no pipe's reader, and takes no file
// that anybody else could have put there. The directories above are the operator's.
func open(path string) (f *os.File, torn bool, err error) {
	if err := checkDir(filepath.Dir(path)); err != nil {
		return nil, false, err
	}
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{
		// Reading, to see how it ends.
		Flags:   unix.O_RDWR | unix.O_APPEND | unix.O_CREAT | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC,
		Mode:    0o600,
		Resolve: unix.RESOLVE_NO_MAGICLINKS,
	})
	if errors.Is(err, unix.ELOOP) {
		return nil, false, fmt.Errorf("open %s: it is a link; name the file itself", path)
	}
	if err != nil {
		return nil, false, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f = os.NewFile(uintptr(fd), path)
	if err := check(f); err != nil {
		return nil, false, errors.Join(err, f.Close())
	}
	return f, isTorn(f), nil
}

// checkDir refuses a directory in which others could put another file in the log's
// place.
func checkDir(dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: dir, Err: err}
	}
	switch {
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to uid %d, not to the daemon: choose another directory", dir, st.Uid)
	case st.Mode&0o022 != 0 && st.Mode&unix.S_ISVTX == 0:
		return fmt.Errorf("%s can be written by others: chmod go-w, or choose another directory", dir)
	}
	return nil
}

// check refuses what is no file of this user's own, and takes the lock.
func check(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("stat %s: %w", f.Name(), err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return fmt.Errorf("%s is no plain file", f.Name())
	case int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to uid %d, not to the daemon", f.Name(), st.Uid)
	case st.Nlink > 1:
		return fmt.Errorf("%s has %d names; a log has one", f.Name(), st.Nlink)
	case st.Mode&0o022 != 0: // who may read it is the operator's to say
		return fmt.Errorf("%s can be written by others: chmod go-w", f.Name())
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%s is another daemon's (CARREL_AUDIT_FILE): %w", f.Name(), err)
	}
	return nil
}

// isTorn removes half a line at the end of the file, which a host that lost its power
// may have left. It reports whether it is there still: the file may be one that can
// only be added to (chattr +a), or not be ours to cut.
func isTorn(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return false
	}
	tail := make([]byte, min(info.Size(), maxLineBytes))
	start := info.Size() - int64(len(tail))
	if _, err := f.ReadAt(tail, start); err != nil || tail[len(tail)-1] == '\n' {
		return false
	}
	last := bytes.LastIndexByte(tail, '\n') + 1
	if !bytes.HasPrefix(tail[last:], []byte(`{"time":"`)) {
		return true
	}
	return f.Truncate(start+int64(last)) != nil
}

// append adds a line, whole or not at all.
func (l *Log) append(text []byte) error {
	n, err := unix.Write(int(l.file.Fd()), text)
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Write(int(l.file.Fd()), text)
	}
	if err == nil && n < len(text) {
		err = unix.ENOSPC // what else leaves half of a line
	}
	if n > 0 && err != nil {
		info, statErr := l.file.Stat()
		if statErr != nil || l.file.Truncate(info.Size()-int64(n)) != nil {
			l.torn = true
		}
	}
	if err != nil {
		return &fs.PathError{Op: "write", Path: l.o.File, Err: err}
	}
	return nil
}

// makeRoom has the file with that name open, and room in it.
func (l *Log) makeRoom(ctx context.Context, length int64) error {
	info, err := os.Lstat(l.o.File)
	if err == nil {
		var mine os.FileInfo
		if mine, err = l.file.Stat(); err == nil && os.SameFile(info, mine) {
			if info.Size() == 0 || info.Size()+length <= l.o.MaxBytes {
				return nil
			}
			return l.rotate(ctx)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("audit log: %w", err)
	}
	return l.follow() // somebody has put it aside
}

// follow opens the file that has the name now, and lets the old one go.
func (l *Log) follow() error {
	if l.file == nil {
		return nil
	}
	info, err := os.Lstat(l.o.File)
	if err == nil {
		if mine, err := l.file.Stat(); err == nil && os.SameFile(info, mine) {
			return nil
		}
	}
	file, torn, err := open(l.o.File)
	if err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	_ = l.file.Close() // every line of it was written
	l.file, l.torn = file, torn
	return nil
}

// rotate puts the file aside. If that cannot be done, the file grows past its bound: a
// line that is written is worth more.
func (l *Log) rotate(ctx context.Context) error {
	for n := l.o.Keep; n > 0; n-- {
		err := os.Rename(l.aside(n-1), l.aside(n))
		if err != nil && (n == 1 || !errors.Is(err, fs.ErrNotExist)) {
			l.complain(ctx, "it is past CARREL_AUDIT_MAX_BYTES and cannot be put aside", err)
			return nil
		}
	}
	return l.follow()
}

// aside is the name of the n-th file that was put aside; of the 0-th, the log's own.
func (l *Log) aside(n int) string {
	if n == 0 {
		return l.o.File
	}
	return l.o.File + "." + strconv.Itoa(n)
}
