// Package local starts workers as processes of this machine, each in a jail of
// its own (package jail), with its user's directory (package workspace).
package local

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"carrel/internal/cgroup"
	"carrel/internal/engine"
	"carrel/internal/fdpass"
	"carrel/internal/jail"
	"carrel/internal/workspace"
	"carrel/protocol"
)

// Options says what an Engine starts and where.
type Options struct {
	Worker string // path of carrel-worker
	Dirs   *workspace.Dirs
	Limits jail.Limits
	// Cgroups is where each sandbox gets a group with the limits of Sum; nil where
	// the host gives none.
	Cgroups *cgroup.Cgroups
	Sum     cgroup.Limits
	// Without names the layers that a configuration of degraded isolation lets
	// sandboxes do without on this host.
	Without []string
	// Env makes the whole environment of a user's worker.
	Env    func(userID string) []string
	Logger *slog.Logger
}

// Engine starts workers through one spawner process, which it replaces when it
// has died. It starts no goroutines of its own; each process has two.
type Engine struct {
	o Options

	mu      sync.Mutex
	spawner *jail.Spawner
	closed  bool
}

var _ engine.Engine = (*Engine)(nil)

// New makes an engine; the spawner is started with the first worker.
func New(o Options) *Engine { return &Engine{o: o} }

// Close kills every worker that is left, with all they started, and waits for
// the spawner's end.
func (e *Engine) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	if e.spawner != nil {
		e.spawner.Close()
	}
}

// Start implements [engine.Engine]. Where the daemon is root, a worker for a known
// user has that user's own host uid. A warm one has a slot's, and Bind has the
// owners of its user's files translated ([jail.IDMap]).
func (e *Engine) Start(ctx context.Context, spec engine.Spec) (engine.Process, error) {
	p := &process{engine: e, done: make(chan struct{})}
	if err := p.start(ctx, spec); err != nil {
		p.abandon(context.WithoutCancel(ctx))
		return nil, startError(err)
	}
	return p, nil
}

// startError gives an error its code, unless it has one.
func startError(err error) error {
	if _, ok := errors.AsType[*protocol.Error](err); ok {
		return err
	}
	return protocol.Errorf(protocol.CodeWorkerStartFailed, "start worker: %w", err)
}

// living returns the spawner, a new one if the last has died.
func (e *Engine) living() (*jail.Spawner, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, protocol.Errorf(protocol.CodeShuttingDown, "the engine is closed")
	}
	if e.spawner != nil {
		select {
		case <-e.spawner.Done():
			e.spawner.Close()
			e.spawner = nil
		default:
			return e.spawner, nil
		}
	}
	log := &logWriter{logger: e.o.Logger, attrs: []any{"process", "spawner"}}
	s, err := jail.StartSpawner(e.o.Worker, log)
	if err != nil {
		return nil, err
	}
	e.spawner = s
	return s, nil
}

// hostUID chooses the uid the worker has on the host, for good: the daemon's own
// where that is not root, else its user's, else, for a warm worker, a slot's.
func (p *process) hostUID() (uid int, err error) {
	switch {
	case os.Geteuid() != 0:
		return os.Geteuid(), nil
	case p.dir != nil:
		return p.dir.UID, nil
	}
	p.slot, err = p.engine.o.Dirs.TakeSlotUID()
	return p.slot, err
}

func (p *process) start(ctx context.Context, spec engine.Spec) (err error) {
	begin := time.Now()
	if spec.UserID != "" {
		if err := p.openDir(ctx, spec.UserID); err != nil {
			return err
		}
	}
	uid, err := p.hostUID()
	if err != nil {
		return err
	}
	spawner, err := p.engine.living()
	if err != nil {
		return err
	}
	if err := p.spawn(ctx, spawner, uid); err != nil {
		return err
	}
	p.steps = append(p.steps, jail.StepTime{Step: jail.StepClone, Took: time.Since(begin)})
	p.watch(context.WithoutCancel(ctx))
	attached := p.attach()
	defer func() { err = errors.Join(err, <-attached) }()

	mounts, err := jail.TakeMounts(p.engine.o.Worker, nil)
	if err != nil {
		return err
	}
	defer mounts.Close()
	plan := jail.Plan{Worker: p.engine.o.Worker, Limits: p.engine.o.Limits, Without: p.engine.o.Without}
	steps, err := p.control.Build(ctx, plan, mounts.Program)
	if err != nil {
		return err
	}
	p.steps = append(p.steps, steps...)
	if p.slot != 0 {
		return p.takeOwners(spawner.NewIDMap(ctx))
	}
	return nil
}

// spawn clones the process, on v2 right into its group.
func (p *process) spawn(ctx context.Context, spawner *jail.Spawner, uid int) (err error) {
	var dir *os.File
	if cgroups := p.engine.o.Cgroups; cgroups != nil {
		if p.group, err = cgroups.New(rand.Text(), p.engine.o.Sum); err != nil {
			return err
		}
		if dir, err = p.group.Dir(); err != nil {
			return err
		}
		defer fdpass.CloseAll([]*os.File{dir})
	}
	stdio, err := p.openLines()
	if err != nil {
		return err
	}
	defer fdpass.CloseAll(stdio[:])
	if p.child, err = spawner.Spawn(ctx, uid, p.engine.o.Without, stdio, dir); err != nil {
		return &jail.SetupError{Step: jail.StepClone, Err: err}
	}
	return nil
}

// attach puts the process into its v1 groups. The kernel may take its time for it
// (it waits for every processor once), so PID 1 builds its world meanwhile: until
// it is bound it forks nothing and runs nothing of anybody's.
func (p *process) attach() <-chan error {
	done := make(chan error, 1)
	if p.group == nil {
		done <- nil
		return done
	}
	go func() {
		if err := p.group.Attach(p.child.PID); err != nil {
			done <- &jail.SetupError{Step: jail.LayerCgroup, Err: err}
			return
		}
		done <- nil
	}()
	return done
}

// openLines makes the worker's stdio and control line and returns its ends.
func (p *process) openLines() (theirs [4]*os.File, err error) {
	defer func() {
		if err != nil {
			fdpass.CloseAll(theirs[:])
		}
	}()
	if theirs[0], p.stream.stdin, err = os.Pipe(); err != nil {
		return theirs, fmt.Errorf("pipe: %w", err)
	}
	if p.stream.stdout, theirs[1], err = os.Pipe(); err != nil {
		return theirs, fmt.Errorf("pipe: %w", err)
	}
	if p.stderr, theirs[2], err = os.Pipe(); err != nil {
		return theirs, fmt.Errorf("pipe: %w", err)
	}
	p.control, theirs[3], err = jail.NewControl()
	return theirs, err
}

// Bind implements [engine.Process].
func (p *process) Bind(ctx context.Context, b engine.Binding) error {
	if err := p.bind(ctx, b); err != nil {
		return startError(err)
	}
	return nil
}

func (p *process) bind(ctx context.Context, b engine.Binding) (err error) {
	if p.dir == nil {
		if err := p.openDir(ctx, b.UserID); err != nil {
			return err
		}
	}
	if p.dir.UserID != b.UserID {
		return errors.New("this worker was started for another user")
	}
	binding := jail.Binding{
		UserID:    b.UserID,
		Workspace: filepath.Join(p.dir.Path, "workspace"),
		Home:      filepath.Join(p.dir.Path, "home"),
		Env:       p.engine.o.Env(b.UserID),
	}
	mounts, err := p.userMounts(binding.Workspace, binding.Home)
	if err != nil {
		return err
	}
	defer mounts.Close()
	var files []*os.File
	if b.Broker != nil {
		binding.Broker = true
		files = append(files, b.Broker)
	}
	steps, err := p.control.Bind(ctx, binding, append(files, mounts.User...)...)
	if err != nil {
		return err
	}
	p.steps = append(p.steps, steps...)
	p.control.Close()
	return nil
}

// userMounts takes the mounts of the user's two directories, which show a worker
// with a slot's uid their owner as itself.
func (p *process) userMounts(workspace, home string) (*jail.Mounts, error) {
	if p.slot == 0 {
		return jail.TakeMounts("", nil, workspace, home)
	}
	owners := p.giveOwners()
	if owners == nil {
		return nil, errEnded
	}
	defer owners.Close()
	if err := owners.Set(p.dir.UID, p.slot); err != nil {
		return nil, &jail.SetupError{Step: "bind", Err: err}
	}
	return jail.TakeMounts("", owners, workspace, home)
}
