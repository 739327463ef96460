package jail

import (
	"fmt"
	"slices"
	"time"
)

// UID is the user and group id inside every sandbox. It is never 0: nothing in
// there may even look like root.
const UID = 1000

// The paths a sandbox knows (CONTRACT, section 6).
const (
	WorkspaceDir = "/workspace"
	HomeDir      = "/home/agent"
	// WorkerPath is where the jailed half's own program stands, for the tool host.
	WorkerPath = "/run/carrel/carrel-worker"
)

// Plan is what PID 1 builds before it knows whose it will be.
type Plan struct {
	// Worker is the host path of the worker's program, if its mount does not
	// come as a descriptor: [Plan.Files] then holds it.
	Worker string `json:"worker,omitempty"`
	Limits Limits `json:"limits"`
	// Without names layers that this host cannot give and that the operator's
	// configuration allows to be missing.
	Without []string `json:"without,omitempty"`
}

func (p *Plan) has(layer string) bool { return !slices.Contains(p.Without, layer) }

// Limits bounds one sandbox from inside. What a cgroup bounds is set outside.
type Limits struct {
	PIDs      uint64 `json:"pids"`       // RLIMIT_NPROC: tasks of this user namespace
	OpenFiles uint64 `json:"open_files"` // RLIMIT_NOFILE, per process
	FileBytes uint64 `json:"file_bytes"` // RLIMIT_FSIZE, one file
	TmpBytes  uint64 `json:"tmp_bytes"`  // size of /tmp; /dev/shm has a quarter
	// DataBytes is RLIMIT_DATA of one tool process, set where no cgroup bounds
	// the sandbox's memory; 0 = no limit. It is no RLIMIT_AS: language runtimes
	// reserve address space by the gigabyte without using it.
	DataBytes uint64 `json:"data_bytes,omitempty"`
}

// Binding ties a waiting PID 1 to its user, once.
type Binding struct {
	UserID string `json:"user_id"`
	// Workspace and Home are host paths, if their mounts do not come as
	// descriptors, in this order.
	Workspace string `json:"workspace,omitempty"`
	Home      string `json:"home,omitempty"`
	// Env is the worker's whole environment, KEY=value.
	Env []string `json:"env"`
	// Broker tells that the first descriptor is the worker's end of a line to the
	// broker; those of mounts follow.
	Broker bool `json:"broker,omitempty"`
}

// SetupError names the step of the jail that failed.
type SetupError struct {
	Step string
	Err  error
}

func (e *SetupError) Error() string { return fmt.Sprintf("enter jail: %s: %v", e.Step, e.Err) }

func (e *SetupError) Unwrap() error { return e.Err }

// StepTime is how long one step took.
type StepTime struct {
	Step string        `json:"step"`
	Took time.Duration `json:"took_ns"`
}

// Steps names the steps that a start may have, in order.
func Steps() []string {
	return []string{
		"clone",
		"private", "root", "system", "etc", "dev", "proc", "tmp", "binary", "network", "hostname",
		"broker", "bind", "pivot",
		"limits", "hide", "capabilities", "no_new_privs", "landlock", "seccomp",
	}
}

// report is what PID 1 answers to a Plan and to a Binding.
type report struct {
	Failed string     `json:"failed,omitempty"` // the step
	Error  string     `json:"error,omitempty"`
	Steps  []StepTime `json:"steps,omitempty"`
}
