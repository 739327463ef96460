package workspace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"carrel/internal/beneath"
	"carrel/protocol"
)

// partTTL is how long an unfinished upload may lie there: longer than one may take.
const partTTL = time.Hour

// ExpireAttachments removes the attachments that are older than ttl (0 = none are)
// and that needed does not name, and what broken-off uploads have left. needed is
// asked, once a user, only where there is something to remove; if it fails, that
// user's stay. Users whose directory is in use are left for another time. It counts
// as no use itself.
func (d *Dirs) ExpireAttachments(ctx context.Context, ttl time.Duration, needed func(home *os.Root) (map[string]bool, error)) (removed int, err error) {
	users, err := d.List(ctx)
	errs := []error{err}
	for _, u := range users {
		if u.InUse {
			continue
		}
		n, err := d.expireAttachments(ctx, u.UserID, ttl, needed)
		removed += n
		if err != nil {
			errs = append(errs, fmt.Errorf("attachments of %s: %w", DirName(u.UserID), err))
		}
	}
	return removed, errors.Join(errs...)
}

func (d *Dirs) expireAttachments(ctx context.Context, userID string, ttl time.Duration, needed func(home *os.Root) (map[string]bool, error)) (removed int, err error) {
	name := DirName(userID)
	s, err := d.take(ctx, name) // whoever comes waits
	if err != nil {
		return 0, err
	}
	defer d.give(name, s)
	fd, err := beneath.OpenDir(d.users, name)
	if err != nil {
		return 0, ignoreMissing(err)
	}
	dir := &Dir{UserID: userID, Path: filepath.Join(d.path, "users", name), dirs: d, name: name, fd: fd}
	defer beneath.Close(fd)
	place, err := dir.attachments(false)
	if err != nil {
		return 0, ignoreMissing(err)
	}
	defer beneath.Close(place)
	old, err := d.oldAttachments(place, ttl)
	if err != nil || len(old) == 0 {
		return 0, err
	}
	home, err := os.OpenRoot(filepath.Join(dir.Path, subdirHome))
	if err != nil {
		return 0, err
	}
	defer func() { _ = home.Close() }()
	keep, err := needed(home)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, name := range old {
		if keep[strings.TrimSuffix(name, metaSuffix)] {
			continue
		}
		if err := unix.Unlinkat(place, name, 0); err != nil {
			errs = append(errs, ignoreMissing(err))
			continue
		}
		if !strings.HasSuffix(name, metaSuffix) {
			removed++
		}
	}
	return removed, errors.Join(errs...)
}

// oldAttachments names what has lain there for too long. What a sandbox has put
// there goes by the same times; a directory stays, for it is none of ours.
func (d *Dirs) oldAttachments(place int, ttl time.Duration) (old []string, err error) {
	names, err := beneath.ReadNames(place)
	if err != nil {
		return nil, err
	}
	now := d.opts.Now()
	for _, name := range names {
		var st unix.Stat_t
		if unix.Fstatat(place, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Mode&unix.S_IFMT == unix.S_IFDIR {
			continue
		}
		age := now.Sub(time.Unix(st.Mtim.Unix()))
		if ttl > 0 && age > ttl || strings.HasSuffix(name, partSuffix) && age > partTTL {
			old = append(old, name)
		}
	}
	return old, nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, unix.ENOENT) || protocol.CodeOf(err) == protocol.CodeConflict {
		return nil // nothing of ours is there
	}
	return err
}
