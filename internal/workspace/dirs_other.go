//go:build !linux

package workspace

import (
	"context"
	"errors"
	"os"
	"time"
)

var errNotLinux = errors.New("users' directories need Linux")

// DetectQuota says that there is none.
func DetectQuota(string) Quota { return softQuota("not Linux", "use Linux") }

// Dirs is every user's directory under one base directory.
type Dirs struct{}

// Dir is one user's directory, in use until Close.
type Dir struct {
	UserID, Path string
	UID, GID     int
}

// Open says that this system is not supported.
func Open(context.Context, Options) (*Dirs, error) { return nil, errNotLinux }

// Path returns nothing.
func (*Dirs) Path() string { return "" }

// RunPath returns nothing.
func (*Dirs) RunPath() string { return "" }

// Close does nothing.
func (*Dirs) Close() error { return nil }

// Open says that this system is not supported.
func (*Dirs) Open(context.Context, string) (*Dir, error) { return nil, errNotLinux }

// Remove says that this system is not supported.
func (*Dirs) Remove(context.Context, string) error { return errNotLinux }

// Expire says that this system is not supported.
func (*Dirs) Expire(context.Context, time.Duration, func(string) bool) ([]string, error) {
	return nil, errNotLinux
}

// List says that this system is not supported.
func (*Dirs) List(context.Context) ([]User, error) { return nil, errNotLinux }

// TakeSlotUID says that this system is not supported.
func (*Dirs) TakeSlotUID() (int, error) { return 0, errNotLinux }

// GiveSlotUID does nothing.
func (*Dirs) GiveSlotUID(int) {}

// DiskUsage says that this system is not supported.
func (*Dirs) DiskUsage(context.Context, string) (int64, error) { return 0, errNotLinux }

// OpenWorkspace says that this system is not supported.
func (*Dir) OpenWorkspace() (*os.File, error) { return nil, errNotLinux }

// OpenHome says that this system is not supported.
func (*Dir) OpenHome() (*os.File, error) { return nil, errNotLinux }

// Close does nothing.
func (*Dir) Close() error { return nil }
