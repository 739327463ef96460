package attack

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"carrel/internal/jail"
)

func itoa(n uintptr) string { return strconv.FormatUint(uint64(n), 10) }

// hostRows are about what is another user's or the daemon's, on the host.
func hostRows() []Row {
	row := func(id, title string, attack func(*Target) error, by ...string) Row {
		return Row{ID: id, Group: groupHost, Tier: Tool, Title: title, StoppedBy: by, Control: Plain, Attack: attack}
	}
	neighbour := func(prefix string) func(*Target) error {
		return func(t *Target) error { return t.readsSecret(prefix + t.Neighbour + "/secret") }
	}
	rows := []Row{
		row("neighbour", "read another user's file by its path", neighbour(""), jail.LayerMount),
		row("neighbour-dots", "read it upward from the workspace", func(t *Target) error {
			return neighbour(t.Planted + "/../../../../../../../..")(t)
		}, jail.LayerMount),
		row("neighbour-root", "read it by way of one's own root link", neighbour("/proc/self/root"), jail.LayerMount),
		row("neighbour-cwd", "read it upward from one's own directory link", neighbour("/proc/self/cwd/../../../../../../../.."), jail.LayerMount),
		row("neighbour-worker-root", "read it by way of the worker's root link", func(t *Target) error {
			return neighbour(fmt.Sprintf("/proc/%d/root", t.PID))(t)
		}, jail.LayerMount),
		row("neighbour-link", "read it by a link that was planted in the workspace", func(t *Target) error {
			return t.readsSecret(filepath.Join(t.Planted, "neighbour", "secret"))
		}, jail.LayerMount),
		row("neighbour-write", "write into another user's directory", func(t *Target) error {
			return openFor(t.Neighbour, unix.O_TMPFILE|unix.O_WRONLY)
		}, jail.LayerMount),
		row("climb", "climb from every open directory to a root that has it", climb, jail.LayerMount),
		row("daemon-signal", "signal the daemon", onDaemon(func(pid int) error { return unix.Kill(pid, 0) }), jail.LayerPID),
		row("daemon-limits", "read a limit of the daemon", onDaemon(prlimitRead), jail.LayerPID),
		row("daemon-memory", "read the memory of the daemon", onDaemon(vmAccess(unix.SYS_PROCESS_VM_READV)), jail.LayerPID),
		row("daemon-futexes", "find the futexes of the daemon", onDaemon(robustList), jail.LayerPID),
	}
	for _, name := range []string{"environ", "cmdline", "maps", "status"} {
		rows = append(rows, row("daemon-"+name, "read "+name+" of the daemon", onDaemon(func(pid int) error {
			return readAny(fmt.Sprintf("/proc/%d/%s", pid, name))
		}), jail.LayerPID))
	}
	return append(rows, searchRows()...)
}

// onDaemon goes by a number of the host's, which a process or a thread of the sandbox
// may have as well: that one is in another session.
func onDaemon(attack func(pid int) error) func(*Target) error {
	return func(t *Target) error {
		sid, err := unix.Getsid(t.Daemon)
		isOurs := err == nil && sid != t.DaemonSID || slices.Contains([]int{t.PID, t.HostPID, t.Sibling, t.SiblingHost, os.Getpid()}, t.Daemon)
		if t.inSandbox() && isOurs {
			return fmt.Errorf("a process of the sandbox has this number: %w", errStopped)
		}
		return attack(t.Daemon)
	}
}

// climb goes upward from every descriptor of this process that is a directory, as the
// worker's own handle of its home is, and from the working directory.
func climb(t *Target) error {
	const descriptors, deep = 1024, 64
	result := error(errStopped)
	for fd := -1; fd < descriptors; fd++ {
		at := fd
		if fd < 0 {
			at = unix.AT_FDCWD
		}
		up := strings.Repeat("../", deep)
		top, err := unix.Openat(at, up, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue // not a directory, or not open
		}
		found, err := unix.Openat(top, strings.TrimPrefix(t.Neighbour, "/")+"/secret", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		_ = unix.Close(top)
		if err == nil {
			_ = unix.Close(found)
			return nil
		}
		result = err
	}
	return result
}

// searchRows look for the secret everywhere. It stands in the worker's home and in
// another run's command, on the host in files, shared memory, a queue and the daemon.
func searchRows() []Row {
	row := func(id, title string, attack func(*Target) error, by ...string) Row {
		return Row{ID: id, Group: groupHost, Tier: Tool, Title: title, StoppedBy: by, Control: Plain, Attack: attack}
	}
	search := row("search-processes", "search all processes for the secret", searchProcesses, jail.LayerHidepid+"+"+rulePtrace)
	search.toolOnly = true // PID 1 sees all that there is
	return []Row{
		row("search-files", "search all files for the secret", searchFiles, jail.LayerMount),
		row("search-self", "search one's own memory for the secret", func(t *Target) error { return searchProcess(t, "self") }, cleanEnv),
		row("shm-file", "read the host's shared memory", func(t *Target) error {
			return t.readsSecret(filepath.Join("/dev/shm", t.Shared))
		}, jail.LayerMount),
		row("sysv-memory", "search all System V shared memory for the secret", searchSharedMemory, jail.LayerIPC),
		row("mq-host", "open a message queue of the host's", openQueue, jail.LayerIPC, ruleFiles),
		search,
	}
}

// searchFiles goes through all of a sandbox but the host's programs, and in a control
// through the stand-in's home. What is planted as unreadable does not count.
func searchFiles(t *Target) error {
	root := "/"
	if !t.inSandbox() {
		root = t.Home
	}
	found := error(errStopped)
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil //nolint:nilerr // what cannot be read is not reachable
		case d.IsDir() && root == "/" && (path == "/usr" || path == "/proc" || path == "/etc/ssl"):
			return filepath.SkipDir
		case d.Type().IsRegular() && t.readsSecret(path) == nil:
			found = nil
			return filepath.SkipAll
		}
		return nil
	})
	return found
}

// searchProcesses goes through all that can be seen; in a control through the victim.
func searchProcesses(t *Target) error {
	if !t.inSandbox() {
		return searchProcess(t, strconv.Itoa(t.PID))
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err == nil && searchProcess(t, e.Name()) == nil {
			return nil
		}
	}
	return errStopped
}

// searchProcess looks into the environment, the arguments and the memory of one.
func searchProcess(t *Target, pid string) error {
	dir := filepath.Join("/proc", pid)
	for _, name := range []string{"environ", "cmdline"} {
		if t.readsSecret(filepath.Join(dir, name)) == nil {
			return nil
		}
	}
	maps, err := os.ReadFile(filepath.Join(dir, "maps"))
	if err != nil {
		return err
	}
	memory, err := os.Open(filepath.Join(dir, "mem"))
	if err != nil {
		return err
	}
	defer func() { _ = memory.Close() }()
	const most = 8 << 20 // of one mapping
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil || !strings.HasPrefix(mode, "rw") {
			continue
		}
		piece := make([]byte, min(to-from, most))
		n, _ := memory.ReadAt(piece, from)
		if t.holds(piece[:n]) {
			return nil
		}
	}
	return errStopped
}

// searchSharedMemory asks for every segment by its place in the kernel's table.
func searchSharedMemory(t *Target) error {
	const statAny, places = 15, 4096 // SHM_STAT_ANY; SHMMNI
	result := error(errStopped)
	for i := range places {
		var about unix.SysvShmDesc
		id, _, errno := unix.Syscall(unix.SYS_SHMCTL, uintptr(i), statAny, uintptr(unsafe.Pointer(&about)))
		if errno != 0 {
			continue
		}
		memory, err := unix.SysvShmAttach(int(id), 0, unix.SHM_RDONLY)
		if err != nil {
			result = err
			continue
		}
		found := t.holds(memory)
		_ = unix.SysvShmDetach(memory)
		if found {
			return nil
		}
	}
	return result
}

func openQueue(t *Target) error {
	name, err := unix.BytePtrFromString(t.Shared)
	if err != nil {
		return err
	}
	fd, _, errno := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(name)), unix.O_RDONLY|unix.O_CLOEXEC, 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return unix.Close(int(fd))
}
