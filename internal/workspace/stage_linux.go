package workspace

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"carrel/internal/beneath"
)

// Stage is a directory under tmp/, the daemon's alone, in which something for a
// user's workspace is made out of the sandbox's reach until one rename puts it
// there, and into which one rename takes what is to be removed. It is on the
// workspace's file system. A killed daemon's is emptied at the next start.
type Stage struct {
	File *os.File // the directory

	dir  *Dir
	name string
}

// Stage makes a new one. Close it before the Dir.
func (dir *Dir) Stage() (*Stage, error) {
	s := &Stage{dir: dir, name: "stage-" + rand.Text()}
	if err := unix.Mkdirat(dir.dirs.tmp, s.name, beneath.OwnerOnly); err != nil {
		return nil, fmt.Errorf("make %s: %w", s.name, err)
	}
	fd, err := beneath.OpenDir(dir.dirs.tmp, s.name)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", s.name, err)
	}
	s.File = os.NewFile(uintptr(fd), s.name)
	return s, nil
}

// Join puts what is in the stage, and what will be made in it, under the user's
// hard quota, where there is one: else the kernel refuses the rename into the
// workspace. What the stage holds counts for the user from then on.
func (s *Stage) Join(ctx context.Context) error {
	if s.dir.dirs.opts.DiskQuota == 0 {
		return nil
	}
	return joinProject(ctx, s.dir.dirs.tmp, s.name, uint32(s.dir.UID))
}

// Close removes the stage with all that is left in it. What cannot be removed now
// is tried again by Expire and at the next start.
func (s *Stage) Close(ctx context.Context) error {
	_ = s.File.Close()
	return s.dir.dirs.discard(ctx, s.name)
}
