package jail

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxSignals bounds the queued signals and the timers of a sandbox. The kernel counts
// them for whoever started it as well, whose own number (some 4,000 a GiB of memory)
// is one for the host's services and all sandboxes together.
const maxSignals = 1024

// setLimits sets what counts per process or per user namespace. Hard limits
// equal soft ones: without a capability nobody can raise them again.
func setLimits(l Limits) error {
	var had unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_SIGPENDING, &had); err != nil {
		return fmt.Errorf("sigpending: %w", err)
	}
	limits := []struct {
		name     string
		resource int
		value    uint64
	}{
		{"core", unix.RLIMIT_CORE, 0}, // a core file would hold the memory of a process
		{"nproc", unix.RLIMIT_NPROC, l.PIDs},
		{"nofile", unix.RLIMIT_NOFILE, l.OpenFiles},
		{"fsize", unix.RLIMIT_FSIZE, l.FileBytes},
		{"memlock", unix.RLIMIT_MEMLOCK, 8 << 20}, // Linux's own default since 5.16
		{"msgqueue", unix.RLIMIT_MSGQUEUE, 0},     // kernel memory that no other limit counts
		{"sigpending", unix.RLIMIT_SIGPENDING, min(maxSignals, had.Max)},
		{"nice", unix.RLIMIT_NICE, 0}, // as everybody has it, unless the daemon was given more
		{"rtprio", unix.RLIMIT_RTPRIO, 0},
	}
	for _, r := range limits {
		if err := setLimit(r.resource, r.value); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	return nil
}

func setLimit(resource int, value uint64) error {
	// syscall's, not unix's: it tells the runtime not to put back the number of
	// open files that it found at its start when it executes a child.
	return syscall.Setrlimit(resource, &syscall.Rlimit{Cur: value, Max: value})
}

// hideMemory makes /proc/self/{mem,maps,environ,fd…} of this process root's and
// forbids tracing it and dumping its core. It holds until the next exec.
func hideMemory() error {
	return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}

// dropCapabilities empties every set of every thread. The bounding set may stay
// as it is: with no_new_privs nothing can be gained from it.
func dropCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET,
		uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none[0])), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func noNewPrivs() error {
	_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
