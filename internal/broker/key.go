package broker

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"
)

// lookAgain is how long a key's file is not looked at again.
const lookAgain = time.Second

// Key is where the broker has its key from. It is safe for concurrent use.
type Key struct {
	path string // "" = the key never changes
	now  func() time.Time

	mu     sync.Mutex
	secret Secret
	looked time.Time
	seen   fileState
	broken bool // said so already
}

// fileState changes when a file's content does, however it is written: in place,
// or by a rename, which brings another inode.
type fileState struct {
	modified time.Time
	size     int64
	inode    uint64
}

// FixedKey is a key that is given once.
func FixedKey(s Secret) *Key { return &Key{secret: s} }

// FileKey is a key that is read again whenever its file has changed, which is
// looked at each second at most. current is what was read at first. While the file
// is missing or holds no key, the last good one is used.
func FileKey(path string, current Secret) *Key {
	return &Key{path: path, now: time.Now, secret: current}
}

// current returns the key of this moment.
func (k *Key) current(ctx context.Context, log *slog.Logger) Secret {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.path == "" || k.now().Sub(k.looked) < lookAgain {
		return k.secret
	}
	k.looked = k.now()
	state, err := stateOf(k.path)
	if err == nil && state == k.seen {
		return k.secret
	}
	var secret Secret
	if err == nil {
		// A file that is written between the two looks other at the next request.
		secret, err = ReadSecretFile(k.path)
	}
	if err != nil {
		if !k.broken {
			log.ErrorContext(ctx, "the key's file cannot be used; the last good key is", slog.Any("error", err))
		}
		k.broken = true
		return k.secret
	}
	if k.broken || k.seen != (fileState{}) {
		log.InfoContext(ctx, "the key was read again from its file")
	}
	k.secret, k.seen, k.broken = secret, state, false
	return k.secret
}

func stateOf(path string) (fileState, error) {
	info, err := os.Stat(path)
	if err != nil {
		return fileState{}, err
	}
	state := fileState{modified: info.ModTime(), size: info.Size()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		state.inode = sys.Ino
	}
	return state, nil
}
