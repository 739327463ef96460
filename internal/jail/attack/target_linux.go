package attack

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"carrel/internal/jail"
)

// TargetEnv is the variable the attacker finds its [Target] in, as JSON.
const TargetEnv = "CARREL_ATTACK_TARGET"

// RowsEnv is where the attacker finds the ids of its rows in the worker tier.
const RowsEnv = "CARREL_ATTACK_ROWS"

// Canary is planted where no tool may read: in a victim's environment and
// arguments, and in the file Home/secret.
const Canary = "carrel-canary-7f3a"

// Target is what the rows go for. In a sandbox its paths are the sandbox's, in a
// control they lead to stand-ins.
type Target struct {
	PID     int    `json:"pid,omitempty"`    // the worker; 0: start a victim
	HostPID int    `json:"host,omitempty"`   // the tool host; 0: the same
	Home    string `json:"home"`             // directory that no tool may see, "secret" and "broker.sock" in it
	Planted string `json:"planted"`          // directory in which root planted "setuid" and "device"
	Program string `json:"program"`          // the worker's program
	TCP     int    `json:"tcp,omitempty"`    // port of a listener on the host's loopback
	UDP     int    `json:"udp,omitempty"`    // of an echo service there
	Socket  string `json:"socket,omitempty"` // abstract name of a listener on the host
}

// LoadTarget reads the target of this process. In a sandbox the worker is PID 1
// and the parent of a command its tool host; in a control both are a new victim,
// which ends with this process.
func LoadTarget() (*Target, error) {
	t := &Target{}
	if err := json.Unmarshal([]byte(os.Getenv(TargetEnv)), t); err != nil {
		return nil, fmt.Errorf("target in %s: %w", TargetEnv, err)
	}
	if t.PID != 0 {
		t.HostPID = os.Getppid()
		return t, nil
	}
	pid, err := startVictim()
	if err != nil {
		return nil, fmt.Errorf("start victim: %w", err)
	}
	t.PID, t.HostPID = pid, pid
	return t, nil
}

// InSandbox is the target as a sandbox sees it.
func InSandbox() Target {
	return Target{PID: 1, Home: jail.HomeDir, Planted: jail.WorkspaceDir, Program: jail.WorkerPath}
}

// startVictim starts a stand-in for the worker: it has the canary in arguments
// and environment and lives until its stdin, whose other end only this process
// has, is closed.
func startVictim() (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	ready, readyTheirs, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(self, ModeVictim, Canary) //nolint:noctx // ends with this process
	cmd.Env = []string{"CANARY=" + Canary}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = r, readyTheirs, os.Stderr
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	_, _ = r.Close(), readyTheirs.Close()
	_, err = ready.Read(make([]byte, 1))
	// The write end stays open as long as this process lives.
	if _, dupErr := unix.FcntlInt(w.Fd(), unix.F_DUPFD_CLOEXEC, 0); dupErr != nil {
		return 0, dupErr
	}
	return cmd.Process.Pid, err
}

// ModeVictim is the argument that makes the attacker a victim.
const ModeVictim = "attack-victim"

// beVictim says that it is there and waits for the end of its stdin.
func beVictim() error {
	if _, err := os.Stdout.WriteString("\n"); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// PlantHome fills a stand-in for the worker's home, or the real one from outside.
func PlantHome(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte(Canary), 0o644); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "broker.sock")
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return err
	}
	if err := os.Chmod(path, 0o777); err != nil { //nolint:gosec // as above
		return err
	}
	return unix.Listen(fd, 64) // for as long as this process lives
}

// reached turns the errno of a system call with senseless arguments into an
// answer: whatever the kernel itself said shows that the call got to it.
func reached(errno unix.Errno) error {
	switch errno {
	case unix.EPERM, unix.ENOSYS, unix.EACCES:
		return errno
	default:
		return nil
	}
}

func result(errno unix.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}

// isAbsent reports errors of a control that tell of a machine without the thing:
// not built, not set up, no such file, no network.
func isAbsent(err error) bool {
	for _, e := range []unix.Errno{
		unix.ENOSYS, unix.EPROTONOSUPPORT, unix.ESOCKTNOSUPPORT, unix.EAFNOSUPPORT, unix.ENODEV, unix.EOPNOTSUPP,
		unix.ENETUNREACH, unix.ENOENT,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// diesWithin reports whether a process ends in time.
func diesWithin(pid int, d time.Duration) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(d.Milliseconds()))
	switch {
	case err != nil:
		return err
	case n == 0:
		return errStopped
	}
	return nil
}
