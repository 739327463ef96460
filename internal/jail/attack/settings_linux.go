package attack

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"carrel/internal/jail"
)

// settingRows look for a setting that would give another attack its chance, where
// several layers stand before that attack: each layer has to be there by itself.
func settingRows() []Row {
	row := func(id, title string, c Control, attack func(*Target) error, by ...string) Row {
		return Row{ID: id, Group: groupKernel, Tier: Tool, Title: title, StoppedBy: by, Control: c, Attack: attack}
	}
	lacks := func(flag int64, paths ...string) func(*Target) error {
		return func(*Target) error { return mountLacks(flag, paths) }
	}
	own := []string{jail.WorkspaceDir, "/tmp", "/dev/shm"}
	return []Row{
		row("mount-suid", "find a mount of one's own on which set-uid programs count", Plain, lacks(unix.ST_NOSUID, own...), mountNoSUID),
		row("mount-dev", "find a mount of one's own on which device nodes count", Plain, lacks(unix.ST_NODEV, own...), mountNoDev),
		row("mount-suid-system", "find programs of the host that may be set-uid", Plain, lacks(unix.ST_NOSUID, "/usr", "/"), mountNoSUID),
		row("mount-rw-system", "find programs of the host on a mount that can be written", Plain, lacks(unix.ST_RDONLY, "/usr"), mountRO),
		row("mount-rw-root", "find a root that can be written", Plain, lacks(unix.ST_RDONLY, "/"), mountRO),
		row("capability", "have a capability", Fresh, hasCapability, capabilities),
		row("privileges", "be able to gain privileges by executing", Plain, func(*Target) error {
			return isZero(unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0))
		}, jail.LayerNoNewPrivs),
		row("fastopen-setting", "find TCP Fast Open switched on", Plain, func(*Target) error {
			setting, err := os.ReadFile("/proc/sys/net/ipv4/tcp_fastopen")
			if err == nil && strings.TrimSpace(string(setting)) == "0" {
				return errStopped
			}
			return err
		}, RuleFastOpen),
		row("fastopen-flag", "send with MSG_FASTOPEN, whatever the network says of it", Plain, func(*Target) error {
			_, _, errno := unix.Syscall6(unix.SYS_SENDTO, ^uintptr(0), nowhere, 1, unix.MSG_FASTOPEN, 0, 0)
			return reached(errno)
		}, seccompRule("sendto")),
	}
}

// workerSettingRows are those of the worker's own process.
func workerSettingRows() []Row {
	return []Row{{
		ID: "worker-dumpable", Group: groupSecrets, Tier: Worker, Title: "be a process that others of this uid may look into",
		StoppedBy: []string{dumpable}, Control: Plain,
		Attack: func(*Target) error {
			value, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
			if err == nil && value == 0 {
				return errStopped
			}
			return err
		},
	}}
}

// mountLacks succeeds if a path that is there lies on a mount without this flag.
func mountLacks(flag int64, paths []string) error {
	for _, path := range paths {
		var s unix.Statfs_t
		if unix.Statfs(path, &s) == nil && s.Flags&flag == 0 {
			return nil
		}
	}
	return errStopped
}

func hasCapability(*Target) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return err
	}
	for _, s := range sets {
		if s.Effective|s.Permitted|s.Inheritable != 0 {
			return nil
		}
	}
	return errStopped
}

// isZero succeeds where a value that should be set is not.
func isZero(value int, err error) error {
	if err == nil && value != 0 {
		return errStopped
	}
	return err
}
