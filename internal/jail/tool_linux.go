package jail

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// EnterTool puts this process, a fresh child of a worker, into the tool tier:
// what it and its children do cannot see, signal, trace or read the worker or a
// sibling tool host, nor /home/agent. missing names layers this sandbox does
// without. Its first step asks the kernel to give it every orphan of its own
// commands, so that none survives its command's run.
func EnterTool(l Limits, missing []string) error {
	has := func(layer string) bool { return !slices.Contains(missing, layer) }
	steps := []struct {
		name string
		do   func() error
	}{
		{"subreaper", func() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }},
		{"limits", func() error {
			if err := setLimit(unix.RLIMIT_NPROC, toolPIDs(l.PIDs)); err != nil {
				return err
			}
			if l.DataBytes == 0 {
				return nil
			}
			return setLimit(unix.RLIMIT_DATA, l.DataBytes)
		}},
		{"hide", hideMemory}, // the exec of this process took the worker's away
		{"landlock", func() error {
			if !has(LayerLandlock) {
				return nil
			}
			return landlock(-1)
		}},
		{"seccomp", func() error {
			if !has(LayerSeccomp) {
				return nil
			}
			return loadFilter(toolFilter[:])
		}},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			return fmt.Errorf("enter tool tier: %w", &SetupError{Step: s.name, Err: err})
		}
	}
	return nil
}

// workerPIDs are the tasks that the tools leave to the worker: its threads and
// the start of another tool host.
const workerPIDs = 32

// toolPIDs is where the tools' forks end. All tasks of the sandbox count against
// one number, but each process meets its own limit of it. Were the two tiers'
// limits equal, a fork bomb would end the worker with the next thread that its
// runtime needs and cannot have ("failed to create new OS thread").
func toolPIDs(all uint64) uint64 {
	if all < 2*workerPIDs {
		return all / 2
	}
	return all - workerPIDs
}

// KillTier kills every process this one may signal but itself: in the tool tier,
// its own commands and all they started. The kernel goes through them under the
// lock that fork takes, so none slips through (kill(2), pid -1).
func KillTier() error {
	if err := unix.Kill(-1, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("kill commands: %w", err)
	}
	return nil
}
