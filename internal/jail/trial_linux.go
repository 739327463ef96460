package jail

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// TrialUID is the host uid of a throw-away sandbox where the caller is root: the
// last one before the default range of users' uids.
const TrialUID = 199999

// trialSlotUID is the host uid of a throw-away warm worker.
const trialSlotUID = TrialUID - 1

// DefaultLimits are a sandbox's limits where nobody says otherwise.
func DefaultLimits() Limits {
	return Limits{PIDs: 256, OpenFiles: 1024, FileBytes: 1 << 30, TmpBytes: 256 << 20}
}

// Trial is a throw-away sandbox with directories of its own: what doctor looks
// at, and what a worker started by hand runs in.
type Trial struct {
	Child *Child
	Steps []StepTime // of the whole start

	dir     string
	lock    *os.File // on dir, while the trial lasts
	spawner *Spawner
	// diskUID owns the directories, hostUID is what the sandbox runs as.
	diskUID, hostUID int
}

// TrialOptions says what a trial is made of.
type TrialOptions struct {
	Worker  string // the worker's program
	UserID  string
	Env     []string
	Without []string // layers to do without
	Limits  Limits   // none set = DefaultLimits
	// Warm starts the sandbox as a warm worker is started and bound: under root
	// with another host uid than its files have. An ordinary user has one uid.
	Warm  bool
	Stdio [3]*os.File
	// Broker is the worker's end of a line to a broker; nil = it gets none.
	Broker *os.File
}

// NewTrial makes a sandbox, all the way. Errors are *[SetupError] where a step
// failed. Close the trial afterwards, also one that failed is cleaned up.
func NewTrial(ctx context.Context, o TrialOptions) (*Trial, error) {
	t := &Trial{}
	if err := t.start(ctx, o); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

func (t *Trial) start(ctx context.Context, o TrialOptions) (err error) {
	t.diskUID = os.Geteuid()
	if t.diskUID == 0 {
		t.diskUID = TrialUID
	}
	t.hostUID = t.diskUID
	if o.Warm && os.Geteuid() == 0 {
		t.hostUID = trialSlotUID
	}
	if t.dir, t.lock, err = ScratchDir(os.TempDir()); err != nil {
		return err
	}
	binding := Binding{UserID: o.UserID, Env: o.Env}
	binding.Workspace, binding.Home = t.Dirs()
	for _, dir := range []string{binding.Workspace, binding.Home} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		if err := os.Chown(dir, t.diskUID, hostGID(t.diskUID)); err != nil {
			return err
		}
	}
	if t.spawner, err = StartSpawner(o.Worker, os.Stderr); err != nil {
		return err
	}
	control, theirs, err := NewControl()
	if err != nil {
		return err
	}
	defer control.Close()
	start := time.Now()
	t.Child, err = t.spawner.Spawn(ctx, t.hostUID, o.Without, [4]*os.File{o.Stdio[0], o.Stdio[1], o.Stdio[2], theirs}, nil)
	_ = theirs.Close()
	if err != nil {
		return &SetupError{Step: StepClone, Err: err}
	}
	t.Steps = append(t.Steps, StepTime{Step: StepClone, Took: time.Since(start)})
	return t.enter(ctx, control, o, binding)
}

func (t *Trial) enter(ctx context.Context, control *Control, o TrialOptions, b Binding) error {
	var owners *IDMap
	if t.hostUID != t.diskUID {
		var err error
		if owners, err = t.spawner.NewIDMap(ctx); err != nil {
			return err
		}
		defer owners.Close()
		if err := owners.Set(t.diskUID, t.hostUID); err != nil {
			return err
		}
	}
	mounts, err := TakeMounts(o.Worker, owners, b.Workspace, b.Home)
	if err != nil {
		return err
	}
	defer mounts.Close()
	limits := o.Limits
	if limits == (Limits{}) {
		limits = DefaultLimits()
	}
	built, err := control.Build(ctx, Plan{Worker: o.Worker, Limits: limits, Without: o.Without}, mounts.Program)
	if err != nil {
		return err
	}
	files := mounts.User
	if b.Broker = o.Broker != nil; b.Broker {
		files = append([]*os.File{o.Broker}, files...)
	}
	bound, err := control.Bind(ctx, b, files...)
	if err != nil {
		return err
	}
	t.Steps = append(append(t.Steps, built...), bound...)
	return nil
}

// Dirs are the host paths of the sandbox's /workspace and /home/agent.
func (t *Trial) Dirs() (workspace, home string) {
	return filepath.Join(t.dir, "workspace"), filepath.Join(t.dir, "home")
}

// Own gives what lies in the directories to the sandbox's user, where the caller is root.
func (t *Trial) Own(path string) error { return os.Lchown(path, t.diskUID, hostGID(t.diskUID)) }

// Close kills what is left of the sandbox and removes its directories.
func (t *Trial) Close() error {
	if t.spawner != nil {
		t.spawner.Close()
	}
	if t.Child != nil {
		_ = t.Child.PidFD.Close()
		t.Child = nil
	}
	if t.dir == "" {
		return nil
	}
	defer func() { _ = t.lock.Close() }()
	// Everything that could put something there is dead: no race is possible,
	// and RemoveAll follows no links.
	if err := os.RemoveAll(t.dir); err != nil {
		return fmt.Errorf("remove throw-away sandbox: %w", err)
	}
	return nil
}
