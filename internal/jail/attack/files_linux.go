package attack

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

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
	device := []string{capabilities, jail.LayerUser, ruleFiles}
	rows := []Row{
		row("shadow", "read /etc/shadow", Root, opens("/etc/shadow", unix.O_RDONLY), jail.LayerMount, otherUID),
		row("host-root", "see /root", Plain, exists("/root"), jail.LayerMount),
		row("host-var", "see /var", Plain, exists("/var"), jail.LayerMount),
		row("host-sys", "see /sys", Plain, exists("/sys/kernel"), jail.LayerMount),
		row("host-boot", "see another directory of the host's root", Plain, seeRoot, jail.LayerMount),
		row("host-machine-id", "see the host's own name", Plain, hostName, jail.LayerUTS),
		row("old-root", "climb out of the root", Plain, exists("/../../var"), jail.LayerMount),
		row("device-any", "open a device that no program needs", Plain, openDevice, jail.LayerMount),
		row("device-kmsg", "open the kernel's log", Root, opens("/dev/kmsg", unix.O_RDONLY), jail.LayerMount),
		row("device-planted", "open a device node that lies in the workspace", Root, func(t *Target) error {
			return openFor(filepath.Join(t.Planted, "device"), unix.O_RDONLY)
		}, mountNoDev),
		row("device-linked", "open that by a link", Root, func(t *Target) error {
			link := t.unique("link")
			return errors.Join(unix.Symlink(filepath.Join(t.Planted, "device"), link), openFor(link, unix.O_RDONLY), unix.Unlink(link))
		}, mountNoDev),
		row("foreign-file", "read a file of root's that lies in the workspace", Root, func(t *Target) error {
			return t.readsSecret(filepath.Join(t.Planted, "foreign"))
		}, otherUID),
		row("foreign-chmod", "give such a file other permissions", Root, func(t *Target) error {
			return unix.Chmod(filepath.Join(t.Planted, "foreign"), 0o600)
		}, otherUID),
		row("foreign-chown", "make such a file one's own", Root, func(t *Target) error {
			return unix.Lchown(filepath.Join(t.Planted, "foreign"), os.Getuid(), -1)
		}, otherUID),
		row("chown-away", "give a file of one's own to another", Root, func(t *Target) error {
			path := t.unique("own")
			return errors.Join(os.WriteFile(path, nil, 0o600), unix.Chown(path, strangerID, -1), os.Remove(path))
		}, capabilities),
		row("file-capability", "give a program capabilities", Root, func(t *Target) error {
			path := t.unique("program")
			// struct vfs_cap_data, version 2, with CAP_SYS_ADMIN.
			value := []byte{1, 0, 0, 2, 0, 0, 0x20, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0}
			return errors.Join(os.WriteFile(path, nil, 0o700), unix.Setxattr(path, "security.capability", value, 0), os.Remove(path)) //nolint:gosec // a program
		}, capabilities),
		row("setuid-planted", "run a set-uid program that lies in the workspace", Root, runSetuid, mountNoSUID, jail.LayerNoNewPrivs, jail.LayerUser),
		row("write-usr", "write into the programs", Root, opens("/usr/bin", nameless), mountRO, ruleFiles, otherUID),
		row("write-etc", "write into /etc", Root, opens("/etc", nameless), mountRO, ruleFiles),
		row("write-root", "make a directory in the root", Root, func(*Target) error {
			const dir = "/carrel-attack"
			return errors.Join(unix.Mkdir(dir, 0o700), unix.Rmdir(dir))
		}, mountRO, ruleFiles),
		row("write-dev", "make a file in /dev", Root, opens("/dev", nameless), mountRO, ruleFiles),
		row("touch-root", "change the times of the root", Root, func(*Target) error { return unix.Utimes("/", nil) }, mountRO),
		row("write-program", "overwrite the worker's program", Plain, func(t *Target) error {
			return overwrites(t.Program)
		}, mountRO, ruleFiles),
		row("write-program-by-proc", "overwrite the worker's program by /proc", Plain, func(t *Target) error {
			return overwrites(fmt.Sprintf("/proc/%d/exe", t.PID))
		}, mountRO, ruleFiles),
		row("chmod-program", "change the mode of the worker's program", Plain, func(t *Target) error {
			return unix.Chmod(t.Program, 0o755)
		}, mountRO),
		row("touch-program", "change the times of the worker's program", Plain, func(t *Target) error {
			return unix.Utimes(t.Program, nil)
		}, mountRO),
		row("mknod-whiteout", "make the one device anybody may make", Plain, mknod(unix.S_IFCHR, 0, 0), seccompRule("mknodat"), ruleFiles),
	}
	for _, call := range []struct {
		name string
		make func(kind, major, minor uint32) func(*Target) error
	}{{"mknod", mknodOld}, {"mknodat", mknod}} {
		by := append([]string{seccompRule(call.name)}, device...)
		rows = append(rows,
			row(call.name+"-char", call.name+": make a character device", Root, call.make(unix.S_IFCHR, 1, 3), by...),
			row(call.name+"-block", call.name+": make a block device", Root, call.make(unix.S_IFBLK, 254, 0), by...))
	}
	return append(rows, procFileRows()...)
}

// strangerID is a uid that nobody in a sandbox has.
const strangerID = 1

// unique is a path that nothing lies at, in the one directory that sandboxes share
// with controls.
func (t *Target) unique(name string) string {
	return filepath.Join(t.Planted, fmt.Sprintf("%s-%d", name, os.Getpid()))
}

// overwrites reports whether a program may be written. Busy means that only its
// running stands in the way.
func overwrites(path string) error {
	if err := openFor(path, unix.O_WRONLY); !errors.Is(err, unix.ETXTBSY) {
		return err
	}
	return nil
}

// reads reports whether the secret stands in an open file.
func (t *Target) reads(f *os.File) error {
	const enough = 8 << 20
	content, err := io.ReadAll(io.LimitReader(f, enough))
	switch {
	case t.holds(content):
		return nil
	case err != nil:
		return err
	}
	return errStopped
}

// readsSecret does not wait for anything that stands in a file's place.
func (t *Target) readsSecret(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return t.reads(f)
}

// seeRoot looks for a directory that every Linux has and no sandbox does.
func seeRoot(*Target) error {
	for _, name := range []string{"/boot", "/opt", "/srv", "/mnt", "/media"} {
		if _, err := os.Lstat(name); err == nil {
			return nil
		}
	}
	return unix.ENOENT
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
	return func(t *Target) error {
		path := t.unique("node")
		if err := unix.Mknodat(unix.AT_FDCWD, path, kind|0o600, int(unix.Mkdev(major, minor))); err != nil {
			return err
		}
		return unix.Unlink(path)
	}
}

func mknodOld(kind, major, minor uint32) func(*Target) error {
	return func(t *Target) error {
		path := t.unique("node")
		name, err := unix.BytePtrFromString(path)
		if err != nil {
			return err
		}
		_, _, errno := unix.Syscall(unix.SYS_MKNOD, uintptr(unsafe.Pointer(name)), uintptr(kind|0o600), uintptr(unix.Mkdev(major, minor)))
		if errno != 0 {
			return errno
		}
		return unix.Unlink(path)
	}
}
