package jail

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// trialPrefix starts the name of every trial's directory.
const trialPrefix = "carrel-trial-"

// ScratchDir makes a throw-away directory in parent, for a trial or what goes with one,
// and removes those whose makers were killed. Whoever makes one holds a lock on it until
// it is removed; the kernel lets go of the lock when its holder is dead, and only then.
func ScratchDir(parent string) (path string, lock *os.File, err error) {
	sweepTrials(parent)
	for {
		if path, err = os.MkdirTemp(parent, trialPrefix); err != nil {
			return "", nil, err
		}
		lock, err = lockTrialDir(path)
		if !errors.Is(err, errNotOurs) {
			return path, lock, err
		}
		// Between the making and the lock somebody else swept: he has it now.
	}
}

// errNotOurs tells that a directory is another's, or that another holds it.
var errNotOurs = errors.New("not ours")

// lockTrialDir takes the lock on a directory that is the caller's own and still
// there. In a place where everybody may write, the name says nothing: what belongs
// to another user, or is no directory, is left alone.
func lockTrialDir(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EACCES) {
		return nil, errNotOurs
	} else if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	lock := os.NewFile(uintptr(fd), path)
	err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		err = checkTrialDir(fd, path)
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = errNotOurs
	}
	if err != nil {
		_ = lock.Close()
		return nil, err
	}
	return lock, nil
}

func checkTrialDir(fd int, path string) error {
	var held, there unix.Stat_t
	if err := unix.Fstat(fd, &held); err != nil {
		return fmt.Errorf("check %s: %w", path, err)
	}
	if int(held.Uid) != os.Geteuid() || unix.Lstat(path, &there) != nil || held.Ino != there.Ino || held.Dev != there.Dev {
		return errNotOurs
	}
	return nil
}

// sweepTrials removes the directories of dead trials. What cannot be removed is
// tried again by the next trial: it costs space, and no trial needs its name.
func sweepTrials(parent string) {
	entries, _ := os.ReadDir(parent) // what is not listed is not swept
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), trialPrefix) {
			continue
		}
		path := filepath.Join(parent, e.Name())
		if lock, err := lockTrialDir(path); err == nil {
			_ = os.RemoveAll(path)
			_ = lock.Close()
		}
	}
}
