package carrel

import (
	"context"
	"slices"
	"sync"
	"syscall"
	"time"
)

// lookInterval is how often files are looked at for changes: a key that was taken
// away signs in for so long at most.
const lookInterval = time.Second

// reloads is what was read from files and is read again when they change, so that
// neither a new key nor a renewed certificate takes a restart.
type reloads struct {
	mu    sync.Mutex // guards all below, and lets one load at a time go on
	files []*reloaded
}

// reloaded is one of them. load puts what it reads in force; with an error all
// stays as it was.
type reloaded struct {
	what  string // for the log
	paths []string
	load  func() error
	seen  []fileState
}

// fileState tells a file from what it is after any change; the zero value is a file
// that is not there. Programs that replace a file by rename change the inode, all
// others the time of change, which nobody can set.
type fileState struct {
	device, inode uint64
	size          int64
	changed       syscall.Timespec
}

// add loads what, and has it loaded again from now on.
func (r *reloads) add(what string, load func() error, paths ...string) error {
	f := &reloaded{what: what, paths: paths, load: load}
	f.seen = f.look() // before it is read: a change in between is seen
	if err := load(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.files = append(r.files, f)
	return nil
}

func (f *reloaded) look() []fileState {
	states := make([]fileState, len(f.paths))
	for i, path := range f.paths {
		var s syscall.Stat_t
		if syscall.Stat(path, &s) == nil {
			states[i] = fileState{s.Dev, s.Ino, s.Size, s.Ctim}
		}
	}
	return states
}

// Reload reads the API keys and the TLS certificate again, whether or not their
// files have changed. What is at fault is told in the log, and what was read before
// stays in force.
func (o *Orchestrator) Reload(ctx context.Context) { o.reload(ctx, true) }

// followFiles reads files again soon after they have changed, until ctx ends.
func (o *Orchestrator) followFiles(ctx context.Context) {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			o.reload(ctx, false)
		case <-ctx.Done():
			return
		}
	}
}

func (o *Orchestrator) reload(ctx context.Context, all bool) {
	o.reloads.mu.Lock()
	defer o.reloads.mu.Unlock()
	for _, f := range o.reloads.files {
		now := f.look()
		if !all && slices.Equal(now, f.seen) {
			continue
		}
		f.seen = now
		if err := f.load(); err != nil {
			o.log.ErrorContext(ctx, "a changed file is at fault: what was read before stays in force", "what", f.what, "error", err)
			continue
		}
		o.log.InfoContext(ctx, "changed files are read again", "what", f.what)
	}
}
