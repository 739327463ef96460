package workspace

import (
	"log/slog"
	"time"
)

// Options says where the directories are and who owns them.
type Options struct {
	// BaseDir is the root of what carrel keeps on disk. It is made if it is
	// missing; its last element must not be a symbolic link.
	BaseDir string
	// Root gives each user a host uid of its own, which takes root. Without it
	// the daemon's own uid owns everything.
	Root bool
	// UIDFirst and UIDCount are the range of those uids; read if Root is set.
	UIDFirst, UIDCount int
	// SlotUIDs is how many of them, the last ones, are kept for [Dirs.TakeSlotUID].
	SlotUIDs int
	// DiskQuota is the hard limit of each user's directory in bytes; 0 = none. It
	// takes Root, and a file system of which [DetectQuota] says that it is hard.
	DiskQuota int64
	// Now is the clock; nil = time.Now.
	Now func() time.Time
	// Logger is told of repairs and of what could not be removed; nil = nobody.
	Logger *slog.Logger
}

// withDefaults fills in what was left out.
func (o Options) withDefaults() Options {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// User is a user that has a directory.
type User struct {
	UserID    string
	UID       int // host uid that owns workspace/ and home/
	CreatedAt time.Time
	LastUsed  time.Time // the last Open or Close
	InUse     bool      // some Dir is open now
}
