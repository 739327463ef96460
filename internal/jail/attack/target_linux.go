package attack

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"carrel/internal/jail"
)

// TargetEnv is the variable the attacker finds its [Target] in, as JSON.
const TargetEnv = "CARREL_ATTACK_TARGET"

// RowsEnv is where the attacker finds the ids of its rows in the worker tier.
const RowsEnv = "CARREL_ATTACK_ROWS"

// Target is what the rows go for. In a sandbox its paths are the sandbox's, in a
// control they lead to stand-ins.
type Target struct {
	PID         int    `json:"pid,omitempty"`          // the worker; 0: start a victim
	HostPID     int    `json:"host,omitempty"`         // the tool host; 0: the same
	Sibling     int    `json:"sibling,omitempty"`      // a command of another run
	SiblingHost int    `json:"sibling_host,omitempty"` // its tool host
	Daemon      int    `json:"daemon,omitempty"`       // whoever judges, by the host's number
	DaemonSID   int    `json:"daemon_sid,omitempty"`   // its session, by which a process of the sandbox with its number is told
	Home        string `json:"home"`                   // directory that no tool may see, "secret" and "broker.sock" in it
	Planted     string `json:"planted"`                // the workspace, with what is planted there from outside
	Program     string `json:"program"`                // the worker's program
	Neighbour   string `json:"neighbour,omitempty"`    // host path of another user's directory, "secret" in it
	Handle      []byte `json:"handle,omitempty"`       // file handle of that secret
	HandleType  int32  `json:"handle_type,omitempty"`  // of the same
	TCP         int    `json:"tcp,omitempty"`          // port of a listener on the host's loopback
	TCP6        int    `json:"tcp6,omitempty"`         // the same on ::1; 0: there is none
	UDP         int    `json:"udp,omitempty"`          // of an echo service there
	Socket      string `json:"socket,omitempty"`       // abstract name of a listener on the host
	Shared      string `json:"shared,omitempty"`       // name of a file in the host's /dev/shm and of a message queue of it
	// Sought is the secret that is looked for everywhere, backwards: a process that
	// knows only this does not find it in its own memory.
	Sought string `json:"sought,omitempty"`

	alive func() bool // asks the sibling
}

// LoadTarget reads the target of this process. In a sandbox the worker is PID 1
// and the parent of a command its tool host; in a control all are one victim, which
// the first row that needs one starts and which ends with this process.
func LoadTarget() (*Target, error) {
	t := &Target{}
	if err := json.Unmarshal([]byte(os.Getenv(TargetEnv)), t); err != nil {
		return nil, fmt.Errorf("target in %s: %w", TargetEnv, err)
	}
	if t.PID != 0 {
		t.HostPID = os.Getppid()
		t.alive = func() bool { return Answers(t.Planted) }
		return t, nil
	}
	return t, nil
}

// InSandbox is the target as a sandbox sees it.
func InSandbox() Target {
	return Target{PID: 1, Home: jail.HomeDir, Planted: jail.WorkspaceDir, Program: jail.WorkerPath}
}

// inSandbox reports whether this is no control.
func (t *Target) inSandbox() bool { return t.Home == jail.HomeDir }

// holds reports whether the secret is in content. It never stands in memory itself.
func (t *Target) holds(content []byte) bool {
	n := len(t.Sought)
	for i := 0; n > 0 && i+n <= len(content); i++ {
		j := 0
		for j < n && content[i+j] == t.Sought[n-1-j] {
			j++
		}
		if j == n {
			return true
		}
	}
	return false
}

// Backwards is a secret as [Target] has it, or the other way round.
func Backwards(secret string) string {
	b := []byte(secret)
	slices.Reverse(b)
	return string(b)
}

// startVictim starts a stand-in for the worker: it has the secret in arguments
// and environment and lives until its stdin, whose other end only this process
// has, is closed.
func (t *Target) startVictim() error {
	r, ping, err := os.Pipe()
	if err != nil {
		return err
	}
	pong, w, err := os.Pipe()
	if err != nil {
		return err
	}
	secret := Backwards(t.Sought)
	cmd := exec.Command(t.Program, ModeVictim, secret) //nolint:noctx // ends with this process
	cmd.Env = []string{"CANARY=" + secret}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = r, w, os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	_, _ = r.Close(), w.Close()
	ready := bufio.NewReader(pong)
	if _, err := ready.ReadString('\n'); err != nil {
		return err
	}
	pid := cmd.Process.Pid
	t.PID, t.HostPID, t.Sibling, t.SiblingHost = pid, pid, pid, pid
	// What it says of itself is over: from here on it is one byte for another.
	t.alive = func() bool { return answers(ping, pong) } // keeps both open as well
	return nil
}

// ModeVictim is the argument that makes the attacker a victim: in a control for
// everything that is attacked, in a sandbox for the command of another run.
const ModeVictim = "attack-victim"

// Ping and Pong are FIFOs in the workspace: stdin and stdout of that command.
const (
	Ping = "ping"
	Pong = "pong"
)

// beVictim opens abstract sockets, says that it is there and which pids it and its
// parent have, and answers each byte of its stdin with one until the end.
func beVictim() error {
	for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM} {
		fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Bind(fd, victimSocket(os.Getpid(), kind))
		}
		if err == nil && kind == unix.SOCK_STREAM {
			err = unix.Listen(fd, 64)
		}
		if err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintf(os.Stdout, "%d %d\n", os.Getpid(), os.Getppid()); err != nil {
		return err
	}
	_, err := io.Copy(os.Stdout, os.Stdin)
	return err
}

// victimSocket is an abstract socket of a victim's, by the pid that it has itself.
func victimSocket(pid, kind int) *unix.SockaddrUnix {
	return &unix.SockaddrUnix{Name: fmt.Sprintf("@carrel-victim-%d-%d", pid, kind)}
}

// Answers reports whether the command of another run is alive whose FIFOs lie in a
// directory. It opens none that nobody holds the other end of.
func Answers(dir string) bool {
	w, err := os.OpenFile(filepath.Join(dir, Ping), os.O_WRONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false
	}
	defer func() { _ = w.Close() }()
	r, err := os.OpenFile(filepath.Join(dir, Pong), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false
	}
	defer func() { _ = r.Close() }()
	return answers(w, r)
}

// answers reports whether the process at the other end of both is alive. A signal
// that ends it came before the byte, so it ends before it can answer. The time is for
// one that ended in between.
func answers(ping, pong *os.File) bool {
	const enough = 10 * time.Second
	if _, err := ping.WriteString("x"); err != nil {
		return false
	}
	_ = pong.SetReadDeadline(time.Now().Add(enough))
	n, err := pong.Read(make([]byte, 1))
	return n == 1 && err == nil
}

// PlantHome fills a stand-in for the worker's home, or the real one from outside. On
// broker.sock in it is listened until the caller closes what it gets.
func PlantHome(dir, secret string) (*os.File, error) {
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte(secret), 0o644); err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "broker.sock")
	if most := len(unix.RawSockaddrUnix{}.Path) - 1; len(path) > most {
		return nil, errors.Join(unix.Close(fd), fmt.Errorf("%s is longer than a socket's path may be, %d bytes: choose a shorter TMPDIR", path, most))
	}
	listener := os.NewFile(uintptr(fd), path)
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	if err == nil {
		err = errors.Join(os.Chmod(path, 0o777), unix.Listen(fd, 64)) //nolint:gosec // as above
	}
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
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
