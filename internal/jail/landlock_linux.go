package jail

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MinLandlockABI is what both tiers need: 6 (Linux 6.12) is the first that keeps
// signals and abstract sockets inside a domain.
const MinLandlockABI = 6

// What versions of Landlock below [MinLandlockABI] lack, as the rows of package
// attack name it. Of file rights they lack nothing that a read-only mount or the want
// of device nodes does not stand for.
const (
	RuleLandlockTCP   = LayerLandlock + ":tcp"   // since ABI 4
	RuleLandlockScope = LayerLandlock + ":scope" // signals and abstract sockets, since ABI 6
)

// LandlockLacks are those of the rules that a version does not know.
func LandlockLacks(abi int) []string {
	var lacks []string
	if abi < 4 {
		lacks = append(lacks, RuleLandlockTCP)
	}
	if abi < 6 {
		lacks = append(lacks, RuleLandlockScope)
	}
	return lacks
}

// The file rights of ABI 1 to 5, by what we grant together
// (linux/landlock.h; kernel documentation, "Landlock: unprivileged access control").
const (
	accessList = unix.LANDLOCK_ACCESS_FS_READ_DIR
	accessRead = unix.LANDLOCK_ACCESS_FS_READ_FILE | accessList
	accessRun  = accessRead | unix.LANDLOCK_ACCESS_FS_EXECUTE
	accessEdit = accessRead | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE |
		unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_SYM |
		unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK |
		unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REFER
	accessDevice = accessRead | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV

	// handled is every right there is up to ABI 5: what no rule grants is denied,
	// device nodes (MAKE_CHAR, MAKE_BLOCK) among it.
	handled = 1<<16 - 1
)

type rule struct {
	path   string
	access uint64
}

// systemRules hold in both tiers. Listing is granted from the root on: names of
// directories are no secret here, and /home has no permission at all.
var systemRules = []rule{
	{"/", accessList},
	{"/usr", accessRun},
	{"/bin", accessRun},
	{"/sbin", accessRun},
	{"/lib", accessRun},
	{"/lib32", accessRun},
	{"/lib64", accessRun},
	{"/libx32", accessRun},
	{"/run/carrel", accessRun},
	{"/etc", accessRead},
	{"/proc", accessRead}, // no writing: neither sysctls nor one's own oom_score_adj
	{"/dev", accessDevice},
	{"/dev/shm", accessEdit},
	{"/tmp", accessEdit | accessRun},
	{WorkspaceDir, accessEdit | accessRun},
}

// LandlockABI is the version of Landlock this kernel has, or 0.
func LandlockABI() int {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(abi)
}

// landlock puts every thread of this process into a domain with systemRules and,
// unless home is negative, the directory open at home. No TCP rule is given, so
// no port can be bound or connected to; signals and abstract sockets stay inside.
func landlock(home int) error {
	ruleset, err := newRuleset(LandlockABI())
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(ruleset) }()
	for _, r := range systemRules {
		// Without O_NOFOLLOW: a merged-/usr link grants what /usr grants already.
		fd, err := unix.Open(r.path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) {
			continue // not every host has all of /lib32 and the like
		}
		if err != nil {
			return fmt.Errorf("open %s: %w", r.path, err)
		}
		err = addRule(ruleset, fd, r.access)
		_ = unix.Close(fd)
		if err != nil {
			return fmt.Errorf("rule for %s: %w", r.path, err)
		}
	}
	if home >= 0 {
		if err := addRule(ruleset, home, accessEdit); err != nil {
			return fmt.Errorf("rule for %s: %w", HomeDir, err)
		}
	}
	// Without cgo this runs on all threads and stops the program if any thread's
	// answer differs. ABI 8 could do it in the kernel; none is required to have it.
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(ruleset), 0, 0); errno != 0 {
		return fmt.Errorf("restrict: %w", errno)
	}
	return nil
}

func newRuleset(abi int) (int, error) {
	attr := unix.LandlockRulesetAttr{Handled_access_fs: handledBy(abi)}
	size := unsafe.Sizeof(attr.Handled_access_fs)
	if abi >= 4 {
		attr.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
		size += unsafe.Sizeof(attr.Handled_access_net)
	}
	if abi >= 6 {
		attr.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
		size += unsafe.Sizeof(attr.Scoped)
	}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if errno != 0 {
		return -1, fmt.Errorf("create ruleset: %w", errno)
	}
	return int(fd), nil
}

// handledBy leaves out the rights an older kernel does not know. It matters only
// where the configuration allows degraded isolation; strict asks for ABI 6.
func handledBy(abi int) uint64 {
	switch {
	case abi >= 5:
		return handled
	case abi >= 3:
		return handled &^ unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	case abi == 2:
		return handled &^ (unix.LANDLOCK_ACCESS_FS_IOCTL_DEV | unix.LANDLOCK_ACCESS_FS_TRUNCATE)
	default:
		return handled &^ (unix.LANDLOCK_ACCESS_FS_IOCTL_DEV | unix.LANDLOCK_ACCESS_FS_TRUNCATE |
			unix.LANDLOCK_ACCESS_FS_REFER)
	}
}

func addRule(ruleset, fd int, access uint64) error {
	attr := unix.LandlockPathBeneathAttr{
		Allowed_access: access & handledBy(LandlockABI()),
		Parent_fd:      int32(fd),
	}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
