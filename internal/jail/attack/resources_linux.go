package attack

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"carrel/internal/jail"
)

// Limits are those of a sandbox that these rows are about. They are low, so that a
// control that goes past them takes little of its machine.
func Limits() jail.Limits {
	return jail.Limits{PIDs: 256, OpenFiles: 1024, FileBytes: 1 << 30, TmpBytes: 16 << 20, DataBytes: 1 << 30}
}

// What goes past them.
const (
	manyTasks       = 300
	manyDescriptors = 1100
	manyTmpBytes    = 17 << 20
	manyTmpFiles    = 4200 // an inode a page
	manyShmBytes    = 5 << 20
	manyShmFiles    = 1100
	manyTimers      = 1100
	manyLocked      = 9 << 20
	manyData        = 5 << 28
)

func resourceRows() []Row {
	row := func(id, title string, c Control, attack func(*Target) error, by ...string) Row {
		return Row{ID: id, Group: groupResources, Tier: Tool, Title: title, StoppedBy: by, Control: c, Attack: attack}
	}
	ofTools := func(r Row) Row {
		r.toolOnly = true
		return r
	}
	return []Row{
		// The worker needs tasks of its own to judge by: see jail's toolPIDs.
		ofTools(row("forks", "more processes than a sandbox may have", Plain, takeForks, rlimits)),
		ofTools(row("data", "more memory than a tool may have", Plain, takes("data"), rlimits)),
		row("descriptors", "more open files than a process may have", Plain, takes(Descriptors), rlimits),
		row("tmp-bytes", "more in /tmp than it may hold", Plain, takes("tmp-bytes"), tmpfsSize),
		row("tmp-files", "more files in /tmp than it may hold", Plain, takes("tmp-files"), tmpfsInodes),
		row("shm-bytes", "more in /dev/shm than it may hold", Plain, takes("shm-bytes"), tmpfsSize),
		row("shm-files", "more files in /dev/shm than it may hold", Plain, takes("shm-files"), tmpfsInodes),
		row("timers", "the kernel's queued signals, by timers", Plain, takes("timers"), rlimits),
		row("locked", "more locked memory than a process may have", Root, takes("locked"), rlimits),
		row("pipe-size", "a pipe beyond what anybody may have", Root, needsResource(bigPipe), capabilities, jail.LayerUser),
		row("file-size", "make a file of 1 TiB", Plain, hugeFile, rlimits),
		row("inotify", "take the inotify instances of the whole host", Plain, takeInotify, RuleInotify),
		row("mq_open", "make a message queue", Plain, messageQueue, rlimits),
		row("ptys", "take the host's pseudo-terminals", Plain, takePTYs, ptsMax),
		row("raise-limit", "raise a limit of one's own", Root, needsResource(raiseLimit), capabilities, jail.LayerUser),
		row("real-time", "run before everybody else", Root, realTime, capabilities+"+"+rlimits),
		row("nice", "take more of the processors", Root, func(*Target) error { return unix.Setpriority(unix.PRIO_PROCESS, 0, -5) }, capabilities+"+"+rlimits),
		row("io-real-time", "use the disk before everybody else", Root, func(*Target) error {
			const realTimeClass = 1 << 13
			_, _, errno := unix.Syscall(unix.SYS_IOPRIO_SET, ioprioProcess, 0, realTimeClass)
			return result(errno)
		}, capabilities, jail.LayerUser),
	}
}

// ModeTake makes the attacker take a number of one thing, all or with an error.
const ModeTake = "attack-take"

// takes has another process do it, whose end gives all back.
func takes(what string) func(*Target) error {
	return func(t *Target) error {
		program := t.Program // the attacker itself in the worker's place, and in a control
		if t.PID != os.Getpid() {
			var err error
			if program, err = os.Executable(); err != nil {
				return err
			}
		}
		out, err := exec.Command(program, ModeTake, what).CombinedOutput() //nolint:noctx // ends by itself
		if err != nil {
			first, _, _ := strings.Cut(string(out), "\n")
			return fmt.Errorf("%s (%w)", first, err)
		}
		return nil
	}
}

func take(args []string) error {
	switch strings.Join(args, " ") {
	case Descriptors:
		return takeDescriptors(manyDescriptors)
	case "tmp-bytes":
		return takeBytes("/tmp", manyTmpBytes)
	case "tmp-files":
		return takeFiles("/tmp", manyTmpFiles)
	case "shm-bytes":
		return takeBytes("/dev/shm", manyShmBytes)
	case "shm-files":
		return takeFiles("/dev/shm", manyShmFiles)
	case "timers":
		return takeTimers()
	case "locked":
		_, err := takeMemory(manyLocked, unix.MAP_LOCKED)
		return err
	case "data":
		_, err := takeMemory(manyData, unix.MAP_NORESERVE)
		return err
	}
	return fmt.Errorf("there is no %q to take", args)
}

// takeForks does it here, in one thread that does not wait: a process that did would
// need another thread and, where there can be none, end.
func takeForks(*Target) error {
	var pids []int
	var result error
	for range manyTasks {
		pid, errno := forkSleeper()
		if errno != 0 {
			result = fmt.Errorf("after %d: %w", len(pids), errno)
			break
		}
		pids = append(pids, int(pid))
	}
	for _, pid := range pids {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	for _, pid := range pids {
		_, _ = unix.Wait4(pid, nil, 0, nil)
	}
	return result
}

// forkSleeper makes a copy of this process that asks to be killed with its parent and
// sleeps. A copy of one thread of a Go program can make system calls and nothing else.
//
//go:norace
//go:nosplit
func forkSleeper() (uintptr, unix.Errno) {
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno == 0 && pid == 0 {
		_, _, _ = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0, 0)
		for {
			_, _, _ = syscall.RawSyscall(unix.SYS_PAUSE, 0, 0, 0)
		}
	}
	return pid, errno
}

func takeDescriptors(n int) error {
	for i := range n {
		if _, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return fmt.Errorf("after %d: %w", i, err)
		}
	}
	return nil
}

func takeBytes(dir string, n int64) error {
	f, err := os.CreateTemp(dir, "carrel-attack-")
	if err != nil {
		return err
	}
	return errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, n), f.Close(), os.Remove(f.Name()))
}

func takeFiles(in string, n int) (err error) {
	dir, err := os.MkdirTemp(in, "carrel-attack-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for i := range n {
		fd, err := unix.Open(filepath.Join(dir, strconv.Itoa(i)), unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return fmt.Errorf("after %d: %w", i, err)
		}
		_ = unix.Close(fd)
	}
	return nil
}

// takeTimers: each holds a signal that is not queued yet, of which all processes of a
// uid have one number (RLIMIT_SIGPENDING).
func takeTimers() error {
	for i := range manyTimers {
		var id int32
		_, _, errno := unix.Syscall(unix.SYS_TIMER_CREATE, unix.CLOCK_MONOTONIC, 0, uintptr(unsafe.Pointer(&id)))
		if errno != 0 {
			return fmt.Errorf("after %d: %w", i, errno)
		}
	}
	return nil
}

func takeMemory(n, flags int) ([]byte, error) {
	return unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|flags)
}

func bigPipe(*Target) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _, _ = r.Close(), w.Close() }()
	content, err := os.ReadFile("/proc/sys/fs/pipe-max-size")
	if err != nil {
		return err
	}
	most, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil {
		return err
	}
	_, err = unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 2*most)
	return err
}

// raiseLimit tries all that are not boundless.
func raiseLimit(*Target) error {
	result := error(errStopped)
	for resource := range 16 { // RLIM_NLIMITS
		var l unix.Rlimit
		if err := unix.Getrlimit(resource, &l); err != nil || l.Max == unix.RLIM_INFINITY {
			continue
		}
		l.Max++
		if result = unix.Setrlimit(resource, &l); result == nil {
			return nil
		}
	}
	return result
}

func realTime(*Target) error {
	const fifo = 1 // SCHED_FIFO
	lowestPriority := int32(1)
	_, _, errno := unix.Syscall(unix.SYS_SCHED_SETSCHEDULER, 0, fifo, uintptr(unsafe.Pointer(&lowestPriority)))
	return result(errno)
}

// hugeFile makes a sparse one.
func hugeFile(*Target) error {
	fd, err := unix.MemfdCreate("carrel-attack", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	signal.Ignore(unix.SIGXFSZ)
	return unix.Ftruncate(fd, 1<<40)
}

// takeInotify takes a quarter of the kernel's default number of instances, which is
// one for all sandboxes and, as root, the host's services: four such would have all.
func takeInotify(*Target) error {
	return takeAll(32, func() (int, error) { return unix.InotifyInit1(unix.IN_CLOEXEC) })
}

// takePTYs takes more than one sandbox should have: their number is one for the
// whole machine (kernel.pty.max).
func takePTYs(*Target) error {
	return takeAll(100, func() (int, error) {
		return unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	})
}

// takeAll gives back what it took.
func takeAll(n int, one func() (int, error)) error {
	for range n {
		fd, err := one()
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
	}
	return nil
}

func messageQueue(*Target) error {
	name, err := unix.BytePtrFromString("carrel-attack-" + strconv.Itoa(os.Getpid()))
	if err != nil {
		return err
	}
	fd, _, errno := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(name)), unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	_, _, errno = unix.Syscall(unix.SYS_MQ_UNLINK, uintptr(unsafe.Pointer(name)), 0, 0)
	_ = unix.Close(int(fd))
	return result(errno)
}
