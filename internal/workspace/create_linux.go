package workspace

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"carrel/internal/beneath"
	"carrel/protocol"
)

// create makes the directory called name for a user: whole in tmp/, then one
// rename into users/. The caller has the user's turn.
//
// A run waits for this, so no directory is synced: where the machine loses power, a
// young one may be gone, with everything that has its uid, so that the uid may go to
// another user. It is never there in part, since a file system's journal keeps the
// order, and what meta.json holds is synced before.
func (d *Dirs) create(ctx context.Context, name, userID string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("make: %w", context.Cause(ctx))
	}
	uid := os.Geteuid()
	if d.uids != nil {
		var err error
		if uid, err = d.reserveUID(name); err != nil {
			return err
		}
	}
	if err := d.createAs(ctx, name, userID, uid); err != nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.uids != nil {
			d.uids.release(name)
		}
		return fmt.Errorf("make: %w", err)
	}
	return nil
}

func (d *Dirs) reserveUID(name string) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.uids.reserve(name)
}

// TakeSlotUID gives a host uid that no live process of another slot and no file
// has, to start a worker that belongs to nobody yet (Options.SlotUIDs). Give it
// back by GiveSlotUID when the process and all it started are gone, not before:
// the next to get it could signal and trace what is left. CodeInternal where none
// is free.
func (d *Dirs) TakeSlotUID() (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.uids == nil {
		return 0, protocol.Errorf(protocol.CodeInternal, "slot uids take root")
	}
	return d.uids.takeSlot()
}

// GiveSlotUID gives back a uid of TakeSlotUID.
func (d *Dirs) GiveSlotUID(uid int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.uids != nil {
		d.uids.giveSlot(uid)
	}
}

func (d *Dirs) createAs(ctx context.Context, name, userID string, uid int) (err error) {
	temporary := "new-" + rand.Text()
	if err := unix.Mkdirat(d.tmp, temporary, beneath.OwnerOnly); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			// Nothing of a stranger's is in it yet: a leftover costs an inode
			// until the next start, and no uid.
			_ = d.discard(context.WithoutCancel(ctx), temporary)
		}
	}()
	fd, err := beneath.OpenDir(d.tmp, temporary)
	if err != nil {
		return err
	}
	defer beneath.Close(fd)
	if err := beneath.Chmod(fd, beneath.OwnerOnly); err != nil { // whatever the umask left
		return err
	}
	for _, sub := range []string{subdirWorkspace, subdirHome} {
		if err := d.createSub(fd, sub, uid); err != nil {
			return fmt.Errorf("%s: %w", sub, err)
		}
	}
	if err := writeMeta(fd, meta{UserID: userID, UID: uid, CreatedAt: d.opts.Now().UTC()}); err != nil {
		return err
	}
	if err := unix.Renameat(d.tmp, temporary, d.users, name); err != nil {
		return fmt.Errorf("rename: %w", err)
	}
	return nil
}

func (d *Dirs) createSub(dir int, sub string, uid int) error {
	if err := unix.Mkdirat(dir, sub, beneath.OwnerOnly); err != nil {
		return err
	}
	fd, err := beneath.OpenPlace(dir, sub)
	if err != nil {
		return err
	}
	defer beneath.Close(fd)
	if d.opts.Root {
		if err := unix.Fchownat(fd, "", uid, uid, unix.AT_EMPTY_PATH); err != nil {
			return fmt.Errorf("give to uid %d: %w", uid, err)
		}
	}
	return beneath.Chmod(fd, beneath.OwnerOnly)
}
