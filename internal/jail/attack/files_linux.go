package attack

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"carrel/internal/jail"
)

// ModeWhoAmI makes the attacker print its effective uid: what a set-uid copy of
// it is run for.
const ModeWhoAmI = "attack-whoami"

func fileRows() []Row {
	row := func(id, title string, c Control, attack func(*Target) error, by ...string) Row {
		return Row{ID: id, Group: groupFiles, Tier: Tool, Title: title, StoppedBy: by, Control: c, Attack: attack}
	}
	opens := func(path string, flags int) func(*Target) error {
		return func(*Target) error { return openFor(path, flags) }
	}
	exists := func(path string) func(*Target) error {
		return func(*Target) error {
			_, err := os.Lstat(path)
			return err
		}
	}
	const nameless = unix.O_TMPFILE | unix.O_WRONLY // writes a file that never gets a name
	return []Row{
		row("home-stat", "learn the worker's home by stat", Plain, func(t *Target) error {
			_, err := os.Lstat(filepath.Join(t.Home, "secret"))
			return err
		}, "sealed /home"),
		row("home-read", "read a file of the worker's home", Plain, func(t *Target) error {
			return readsCanary(filepath.Join(t.Home, "secret"))
		}, "sealed /home", jail.LayerLandlock),
		row("home-list", "list the worker's home", Plain, func(t *Target) error { return listAny(t.Home) }, "sealed /home", jail.LayerLandlock),
		row("home-dots", "reach the worker's home by way of one's own root link", Plain, func(t *Target) error {
			return readsCanary("/proc/self/root/" + t.Home + "/secret")
		}, "sealed /home", jail.LayerLandlock),
		row("home-unseal", "give the directory above the worker's home its permissions back", Plain, func(t *Target) error {
			return unix.Chmod(filepath.Dir(t.Home), 0o755)
		}, "read-only root"),
		row("home-create", "write into the worker's home", Plain, func(t *Target) error {
			return os.WriteFile(filepath.Join(t.Home, "planted"), nil, 0o600)
		}, "sealed /home", jail.LayerLandlock),
		row("home-handle", "learn the worker's home by a file handle", Plain, func(t *Target) error {
			_, _, err := unix.NameToHandleAt(unix.AT_FDCWD, filepath.Join(t.Home, "secret"), 0)
			return err
		}, "sealed /home", "seccomp:name_to_handle_at"),
		row("shadow", "read /etc/shadow", Root, opens("/etc/shadow", unix.O_RDONLY), jail.LayerMount),
		row("host-root", "see /root", Plain, exists("/root"), jail.LayerMount),
		row("host-var", "see /var", Plain, exists("/var"), jail.LayerMount),
		row("host-sys", "see /sys", Plain, exists("/sys/kernel"), jail.LayerMount),
		row("host-machine-id", "see the host's own name", Plain, hostName, jail.LayerUTS),
		row("old-root", "climb out of the root", Plain, exists("/../../var"), jail.LayerMount),
		row("device-any", "open a device that no program needs", Plain, openDevice, jail.LayerMount),
		row("device-kmsg", "open the kernel's log", Root, opens("/dev/kmsg", unix.O_RDONLY), jail.LayerMount),
		row("device-planted", "open a device node that lies in the workspace", Root, func(t *Target) error {
			return openFor(filepath.Join(t.Planted, "device"), unix.O_RDONLY)
		}, "nodev", jail.LayerLandlock),
		row("setuid-planted", "run a set-uid program that lies in the workspace", Root, runSetuid, "nosuid", jail.LayerNoNewPrivs, jail.LayerUser),
		row("write-usr", "write into the programs", Root, opens("/usr/bin", nameless), "read-only", jail.LayerLandlock, jail.LayerUser),
		row("write-etc", "write into /etc", Root, opens("/etc", nameless), "read-only", jail.LayerLandlock),
		row("write-root", "make a directory in the root", Root, func(*Target) error {
			const dir = "/carrel-attack"
			return errors.Join(unix.Mkdir(dir, 0o700), unix.Rmdir(dir))
		}, "read-only root", jail.LayerLandlock),
		row("write-dev", "make a file in /dev", Root, opens("/dev", nameless), "read-only root"),
		row("write-program", "overwrite the worker's program", Plain, func(t *Target) error {
			// Busy means that only its running stands in the way.
			if err := openFor(t.Program, unix.O_WRONLY); !errors.Is(err, unix.ETXTBSY) {
				return err
			}
			return nil
		}, "read-only", jail.LayerLandlock, jail.LayerUser),
		row("chmod-program", "change the mode of the worker's program", Plain, func(t *Target) error {
			return unix.Chmod(t.Program, 0o755)
		}, "read-only", jail.LayerUser),
		row("mknod-char", "make a character device", Root, mknod(unix.S_IFCHR, 1, 3), "seccomp:mknod", jail.LayerUser, jail.LayerLandlock),
		row("mknod-block", "make a block device", Root, mknod(unix.S_IFBLK, 254, 0), "seccomp:mknod", jail.LayerUser, jail.LayerLandlock),
		row("mknod-whiteout", "make the one device anybody may make", Plain, mknod(unix.S_IFCHR, 0, 0), "seccomp:mknod", jail.LayerLandlock),
		row("fanotify", "watch a whole file system", Plain, func(*Target) error {
			_, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_REPORT_FID|unix.FAN_CLOEXEC, unix.O_RDONLY)
			return err
		}, "seccomp:fanotify_init"),
	}
}

// openDevice tries every node of /dev but those that each sandbox has.
func openDevice(*Target) error {
	entries, err := os.ReadDir("/dev")
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch e.Name() {
		case "null", "zero", "full", "random", "urandom", "tty", "ptmx":
		case "watchdog", "watchdog0": // to open it in a control would start it
		default:
			if e.Type()&os.ModeDevice != 0 && openFor("/dev/"+e.Name(), unix.O_RDONLY|unix.O_NONBLOCK) == nil {
				return nil
			}
		}
	}
	return errStopped
}

func runSetuid(t *Target) error {
	cmd := exec.Command(filepath.Join(t.Planted, "setuid"), ModeWhoAmI) //nolint:noctx // ends by itself
	own := os.Geteuid()
	if own == 0 { // as root there is nothing to gain: try as nobody
		own = 65534
		cmd.SysProcAttr = credential(own)
	}
	out, err := cmd.Output()
	switch {
	case err != nil:
		return err
	case strings.TrimSpace(string(out)) == strconv.Itoa(own):
		return errStopped
	}
	return nil
}

// hostName compares with the name that the host gives itself. In a control that
// is this machine's own.
func hostName(*Target) error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	if name == "carrel" {
		return errStopped
	}
	return nil
}

func mknod(kind, major, minor uint32) func(*Target) error {
	return func(*Target) error {
		path := filepath.Join("/tmp", "carrel-attack-"+strconv.Itoa(os.Getpid()))
		if err := unix.Mknod(path, kind|0o600, int(unix.Mkdev(major, minor))); err != nil {
			return err
		}
		return unix.Unlink(path)
	}
}
