package workspace

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"carrel/internal/beneath"
	"carrel/protocol"
)

// Remove removes the user's directory and everything in it. Errors: CodeNotFound
// where there is none, CodeConflict while it is in use. Once the directory has
// left users/ the user is gone, even if an error tells that files are left: they
// are tried again by Expire and at the next start.
func (d *Dirs) Remove(ctx context.Context, userID string) error {
	if err := protocol.CheckUserID(userID); err != nil {
		return err
	}
	name := DirName(userID)
	trash, err := d.moveOut(ctx, name, nil)
	if err != nil {
		return fmt.Errorf("remove directory %s of user: %w", name, err)
	}
	if err := d.discard(ctx, trash); err != nil {
		return fmt.Errorf("remove directory %s of user: %w", name, err)
	}
	return nil
}

// Expire removes the directories that nobody has used for longer than
// olderThan, and what earlier removals left; it returns the ids of the users
// whose directories went. Nothing expires if olderThan is zero or less, nor what
// is in use, nor the directory of a user of whom isAwaited tells that he is about
// to use it; nil = nobody is. One directory's error does not keep the others.
func (d *Dirs) Expire(ctx context.Context, olderThan time.Duration, isAwaited func(userID string) bool) ([]string, error) {
	errs := d.retryLeftovers(ctx)
	if olderThan <= 0 {
		return nil, errors.Join(errs...)
	}
	users, err := d.List(ctx)
	if err != nil {
		errs = append(errs, err)
	}
	var removed []string
	before := d.opts.Now().Add(-olderThan)
	for _, user := range users {
		if err := ctx.Err(); err != nil {
			errs = append(errs, context.Cause(ctx))
			break
		}
		if user.InUse || !user.LastUsed.Before(before) || (isAwaited != nil && isAwaited(user.UserID)) {
			continue
		}
		trash, err := d.moveOut(ctx, DirName(user.UserID), &before)
		if errors.Is(err, errInUse) || protocol.CodeOf(err) == protocol.CodeNotFound {
			continue // somebody came, or was faster
		}
		if err == nil {
			removed = append(removed, user.UserID)
			err = d.discard(ctx, trash)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("expire directory %s: %w", DirName(user.UserID), err))
		}
	}
	return removed, errors.Join(errs...)
}

// errInUse refuses to remove a directory that is in use, or was so lately.
var errInUse = &protocol.Error{Code: protocol.CodeConflict, Message: "the user's directory is in use"}

// moveOut takes the directory called name out of users/ into a new directory
// under tmp/, whose name it returns. With before, it refuses if the directory
// was used then or later.
func (d *Dirs) moveOut(ctx context.Context, name string, before *time.Time) (string, error) {
	s, err := d.take(ctx, name)
	if err != nil {
		return "", err
	}
	defer d.give(name, s)
	d.mu.Lock()
	inUse := s.refs > 0 // nobody adds one while we have the turn
	d.mu.Unlock()
	if inUse {
		return "", errInUse
	}
	if before != nil {
		m, err := d.readUser(name)
		if err != nil {
			return "", err
		}
		if !m.lastUsed.Before(*before) {
			return "", errInUse
		}
	}

	trash := "old-" + rand.Text()
	if err := unix.Mkdirat(d.tmp, trash, beneath.OwnerOnly); err != nil {
		return "", fmt.Errorf("make %s: %w", trash, err)
	}
	fd, err := beneath.OpenDir(d.tmp, trash)
	if err != nil {
		return "", fmt.Errorf("open %s: %w", trash, err)
	}
	defer beneath.Close(fd)
	if err := unix.Renameat(d.users, name, fd, "user"); err != nil {
		_ = unix.Unlinkat(d.tmp, trash, unix.AT_REMOVEDIR)
		if errors.Is(err, unix.ENOENT) {
			return "", protocol.Errorf(protocol.CodeNotFound, "the user has no directory")
		}
		return "", fmt.Errorf("move out: %w", err)
	}
	// On disk before anything inside goes: after a power cut the directory is
	// either whole in users/ or out of it.
	err = unix.Fsync(d.users)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.uids != nil {
		d.uids.rename(name, trash)
	}
	if err != nil {
		d.leftovers[trash] = true
		return "", fmt.Errorf("sync users: %w", err)
	}
	return trash, nil
}

// discard removes name and everything in it from tmp/, and gives its uid back.
// What cannot be removed becomes a leftover and keeps the uid.
func (d *Dirs) discard(ctx context.Context, name string) error {
	err := removeTree(ctx, d.tmp, name)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.leftovers[name] = true
		return err
	}
	delete(d.leftovers, name)
	if d.uids != nil {
		d.uids.release(name)
	}
	return nil
}

func (d *Dirs) retryLeftovers(ctx context.Context) []error {
	d.mu.Lock()
	var names []string
	for name := range d.leftovers {
		names = append(names, name)
	}
	clear(d.leftovers) // so that two calls do not both work on one
	d.mu.Unlock()
	slices.Sort(names)

	var errs []error
	for _, name := range names {
		if err := d.discard(ctx, name); err != nil {
			errs = append(errs, fmt.Errorf("remove leftover %s: %w", name, err))
		}
	}
	return errs
}

// List returns the users that have a directory, by id. An error tells of
// directories that cannot be read; the others are returned all the same.
func (d *Dirs) List(ctx context.Context) ([]User, error) {
	// A descriptor of its own: the place in a directory belongs to the open one.
	fd, err := beneath.OpenDir(d.base, "users")
	if err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}
	defer beneath.Close(fd)
	names, err := beneath.ReadNames(fd)
	if err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}
	var users []User
	var errs []error
	for _, name := range names {
		if ctx.Err() != nil {
			errs = append(errs, context.Cause(ctx))
			break
		}
		m, err := d.readUser(name)
		if protocol.CodeOf(err) == protocol.CodeNotFound {
			continue // removed meanwhile
		} else if err != nil {
			errs = append(errs, fmt.Errorf("list users: %s: %w", name, err))
			continue
		}
		users = append(users, User{UserID: m.UserID, UID: m.UID, CreatedAt: m.CreatedAt, LastUsed: m.lastUsed, InUse: d.inUse(name)})
	}
	slices.SortFunc(users, func(a, b User) int { return cmp.Compare(a.UserID, b.UserID) })
	return users, errors.Join(errs...)
}

func (d *Dirs) inUse(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, ok := d.slots[name]
	return ok && s.refs > 0
}

// readUser reads meta.json of the directory called name, which must be that of
// the user it names.
func (d *Dirs) readUser(name string) (meta, error) {
	fd, err := beneath.OpenDir(d.users, name)
	if errors.Is(err, unix.ENOENT) {
		return meta{}, protocol.Errorf(protocol.CodeNotFound, "the user has no directory")
	} else if err != nil {
		return meta{}, err
	}
	defer beneath.Close(fd)
	m, err := readMeta(fd)
	if err != nil {
		// It may have been moved out and emptied since it was opened.
		if unix.Faccessat(d.users, name, unix.F_OK, unix.AT_SYMLINK_NOFOLLOW) != nil {
			return meta{}, protocol.Errorf(protocol.CodeNotFound, "the user has no directory")
		}
		return meta{}, err
	}
	if DirName(m.UserID) != name {
		return meta{}, protocol.Errorf(protocol.CodeConflict, "%s names another user", metaFile)
	}
	return m, nil
}
