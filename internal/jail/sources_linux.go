package jail

import (
	"os"

	"carrel/internal/fdpass"
)

// StepClone is the step before the first that PID 1 takes itself: a new process
// in new namespaces.
const StepClone = "clone"

// Mounts are detached mounts that go to PID 1 as descriptors. Root needs them,
// for a sandbox's uid cannot walk to the daemon's directories; an ordinary user
// cannot make them and need not, its sandboxes have its own uid: they are empty
// then, and PID 1 goes by the paths.
type Mounts struct {
	Program *os.File
	User    []*os.File // workspace, home
}

// TakeMounts makes them, as far as this process is root. An empty path is left
// out. owners translates those of the user's files; nil leaves them as they are.
func TakeMounts(program string, owners *IDMap, user ...string) (*Mounts, error) {
	m := &Mounts{}
	if os.Geteuid() != 0 {
		return m, nil
	}
	if program != "" {
		f, err := detach(program, readOnly, nil)
		if err != nil {
			return nil, &SetupError{Step: "binary", Err: err}
		}
		m.Program = f
	}
	for _, path := range user {
		f, err := detach(path, ownFiles, owners)
		if err != nil {
			m.Close()
			return nil, &SetupError{Step: "bind", Err: err}
		}
		m.User = append(m.User, f)
	}
	return m, nil
}

// Close lets the mounts go; those that were attached stay where they are.
func (m *Mounts) Close() {
	fdpass.CloseAll(append(m.User, m.Program))
}
