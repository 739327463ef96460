package workspace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"carrel/internal/beneath"
	"carrel/protocol"
)

// Dirs is every user's directory under one base directory. It is safe for
// concurrent use and starts no goroutines. At most one process has a base
// directory open.
type Dirs struct {
	opts Options
	path string // of the base directory, absolute

	// Descriptors, open until Close.
	base, lock, users, tmp int

	mu     sync.Mutex
	closed bool
	slots  map[string]*slot // by DirName; only users that somebody asks about
	uids   *uidRange        // nil unless opts.Root
	// leftovers are names in tmp/ that could not be removed yet.
	leftovers map[string]bool
}

// slot is what happens to one user's directory now.
type slot struct {
	turn chan struct{} // holds a token while somebody opens or removes it
	pins int           // who waits for the turn, has it, or has a Dir open; guarded by Dirs.mu
	refs int           // Dirs open; guarded by Dirs.mu
}

// Open opens the base directory, makes what is missing in it, and removes what
// a killed predecessor left half done. A base directory that another process
// has open gives CodeConflict. Close the result after every Dir.
func Open(ctx context.Context, opts Options) (*Dirs, error) {
	opts = opts.withDefaults()
	if opts.BaseDir == "" {
		return nil, errors.New("open base directory: no path given")
	}
	if opts.Root && (os.Geteuid() != 0 || opts.UIDFirst < 1 || opts.SlotUIDs < 0 || opts.UIDCount <= opts.SlotUIDs) {
		return nil, errors.New("open base directory: a uid for each user takes root and a range of uids above 0 that leaves some beside the slots")
	}
	if opts.DiskQuota > 0 && !opts.Root {
		return nil, errors.New("open base directory: a hard quota takes root and a uid for each user")
	}
	path, err := filepath.Abs(opts.BaseDir)
	if err != nil {
		return nil, fmt.Errorf("open base directory: %w", err)
	}
	d := &Dirs{
		opts: opts, path: path, base: -1, lock: -1, users: -1, tmp: -1,
		slots: make(map[string]*slot), leftovers: make(map[string]bool),
	}
	if opts.Root {
		d.uids = newUIDRange(opts.UIDFirst, opts.UIDCount, opts.SlotUIDs)
	}
	if err := d.open(ctx); err != nil {
		d.closeAll()
		return nil, err
	}
	return d, nil
}

func (d *Dirs) open(ctx context.Context) (err error) {
	if d.base, err = openBase(ctx, d.path, d.opts.Logger); err != nil {
		return err
	}
	if d.lock, err = lockBase(d.base, d.path); err != nil {
		return err
	}
	if d.users, err = openOwn(d.base, "users"); err != nil {
		return fmt.Errorf("open base directory %s: %w", d.path, err)
	}
	if d.tmp, err = openOwn(d.base, "tmp"); err != nil {
		return fmt.Errorf("open base directory %s: %w", d.path, err)
	}
	run, err := openOwn(d.base, "run")
	if err != nil {
		return fmt.Errorf("open base directory %s: %w", d.path, err)
	}
	beneath.Close(run)
	if err := d.sweep(ctx); err != nil {
		return err
	}
	return d.claimUIDs(ctx)
}

// sweep empties tmp/. What cannot be removed (a mount inside) is left, and its
// uid stays taken.
func (d *Dirs) sweep(ctx context.Context) error {
	names, err := beneath.ReadNames(d.tmp)
	if err != nil {
		return fmt.Errorf("read tmp: %w", err)
	}
	for _, name := range names {
		err := d.discard(ctx, name)
		if ctx.Err() != nil {
			return fmt.Errorf("empty tmp: %w", context.Cause(ctx))
		}
		if err != nil {
			d.opts.Logger.WarnContext(ctx, "leftover stays on disk", "path", filepath.Join(d.path, "tmp", name), "error", err)
			d.claimLeftover(name)
		}
	}
	return nil
}

// claimUIDs notes which uids have directories. A directory that cannot say so
// keeps the uid that owns its workspace, and cannot be opened.
func (d *Dirs) claimUIDs(ctx context.Context) error {
	if d.uids == nil {
		return nil
	}
	names, err := beneath.ReadNames(d.users)
	if err != nil {
		return fmt.Errorf("read users: %w", err)
	}
	for _, name := range names {
		if err := d.claimUID(name); err != nil {
			d.opts.Logger.ErrorContext(ctx, "user directory is unusable", "path", filepath.Join(d.path, "users", name), "error", err)
		}
	}
	return ctx.Err()
}

func (d *Dirs) claimUID(name string) error {
	fd, err := beneath.OpenDir(d.users, name)
	if err != nil {
		return err
	}
	defer beneath.Close(fd)
	m, err := readMeta(fd)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		err = d.uids.claim(m.UID, name)
	}
	// Where what is written and who owns the files differ, neither may be given
	// to another user.
	var st unix.Stat_t
	if unix.Fstatat(fd, subdirWorkspace, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && (err != nil || int(st.Uid) != m.UID) {
		err = errors.Join(err, d.uids.claim(int(st.Uid), name))
	}
	return err
}

// claimLeftover keeps the owner of a leftover in tmp/ from being given to
// another user, who would then own its files.
func (d *Dirs) claimLeftover(name string) {
	if d.uids == nil {
		return
	}
	fd, err := beneath.OpenDir(d.tmp, name)
	if err != nil {
		return
	}
	defer beneath.Close(fd)
	parts, err := beneath.ReadNames(fd)
	if err != nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, part := range parts {
		var st unix.Stat_t
		if unix.Fstatat(fd, part, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && d.uids.contains(int(st.Uid)) {
			_ = d.uids.claim(int(st.Uid), name) // a conflict means that it is taken, which is all we want
		}
	}
}

// Path returns the base directory, absolute.
func (d *Dirs) Path() string { return d.path }

// RunPath returns the directory for sockets, absolute.
func (d *Dirs) RunPath() string { return filepath.Join(d.path, "run") }

// Close gives up the base directory; no other call may be under way. It returns an error if a Dir is still
// open; that Dir can be closed afterwards.
func (d *Dirs) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	d.closeAll()
	if n := len(d.slots); n > 0 {
		return fmt.Errorf("close base directory: %d user directories are still open", n)
	}
	return nil
}

func (d *Dirs) closeAll() {
	for _, fd := range []int{d.tmp, d.users, d.lock, d.base} {
		if fd >= 0 {
			beneath.Close(fd)
		}
	}
}

// take waits for the user's turn: while it is held, nobody else opens, makes or
// removes the directory called name. Give it back with give.
func (d *Dirs) take(ctx context.Context, name string) (*slot, error) {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil, protocol.Errorf(protocol.CodeShuttingDown, "the base directory is closed")
	}
	s, ok := d.slots[name]
	if !ok {
		s = &slot{turn: make(chan struct{}, 1)}
		d.slots[name] = s
	}
	s.pins++
	d.mu.Unlock()

	select {
	case s.turn <- struct{}{}:
		return s, nil
	case <-ctx.Done():
		d.unpin(name, s)
		return nil, fmt.Errorf("wait for the user's directory: %w", context.Cause(ctx))
	}
}

func (d *Dirs) give(name string, s *slot) {
	<-s.turn
	d.unpin(name, s)
}

func (d *Dirs) unpin(name string, s *slot) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s.pins--
	if s.pins == 0 {
		delete(d.slots, name)
	}
}
