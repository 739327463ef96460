package workspace

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"carrel/internal/beneath"
	"carrel/protocol"
)

const (
	metaFile = "meta.json"
	// maxMetaBytes bounds meta.json: a user id of 256 bytes takes six times that
	// in JSON at worst, and the rest about 100.
	maxMetaBytes = 4 << 10
)

// meta is what meta.json holds. Its time of change is that of the last use.
type meta struct {
	UserID    string    `json:"user_id"`
	UID       int       `json:"uid"`
	CreatedAt time.Time `json:"created_at"`
	lastUsed  time.Time
}

// writeMeta writes meta.json into the user's directory dir: a temporary file,
// synced, then renamed.
func writeMeta(dir int, m meta) error {
	text, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode %s: %w", metaFile, err)
	}
	const temporary = metaFile + ".new"
	fd, err := beneath.Open(dir, temporary, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("make %s: %w", metaFile, err)
	}
	file := os.NewFile(uintptr(fd), metaFile)
	_, err = file.Write(append(text, '\n'))
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write %s: %w", metaFile, err)
	}
	if err := unix.Renameat(dir, temporary, dir, metaFile); err != nil {
		return fmt.Errorf("rename %s: %w", metaFile, err)
	}
	return touchMeta(dir, m.CreatedAt)
}

// touchMeta notes that the directory dir was in use at the time at.
func touchMeta(dir int, at time.Time) error {
	stamp, err := unix.TimeToTimespec(at)
	if err != nil {
		return fmt.Errorf("note the use: %w", err)
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, stamp}
	if err := unix.UtimesNanoAt(dir, metaFile, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("note the use in %s: %w", metaFile, err)
	}
	return nil
}

// readMeta reads meta.json of the user's directory dir. What is there and is
// not what the daemon wrote is a conflict.
func readMeta(dir int) (meta, error) {
	fd, err := beneath.Open(dir, metaFile, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return meta{}, protocol.Errorf(protocol.CodeConflict, "open %s: %w", metaFile, err)
	}
	file := os.NewFile(uintptr(fd), metaFile)
	defer func() { _ = file.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return meta{}, fmt.Errorf("check %s: %w", metaFile, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || int(st.Uid) != os.Geteuid() {
		return meta{}, protocol.Errorf(protocol.CodeConflict, "%s is not a file of the daemon's", metaFile)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxMetaBytes))
	if err != nil {
		return meta{}, fmt.Errorf("read %s: %w", metaFile, err)
	}
	var m meta
	if err := json.Unmarshal(text, &m); err != nil {
		return meta{}, protocol.Errorf(protocol.CodeConflict, "decode %s: %w", metaFile, err)
	}
	m.lastUsed = time.Unix(st.Mtim.Unix())
	return m, nil
}
