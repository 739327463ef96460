package main

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// ownMounts gives this thread a mount namespace from which nothing gets out.
func ownMounts() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
}

// maskProc covers parts of /proc, and makes others read-only, as container runtimes
// do. Nobody in a user namespace can mount a proc of his own then: it would show
// what is covered here.
func maskProc() error {
	masked := 0
	for _, path := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list"} {
		err := unix.Mount(os.DevNull, path, "", unix.MS_BIND, "")
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		masked++
	}
	if masked == 0 {
		return errors.New("there is nothing in /proc to cover")
	}
	if err := unix.Mount("/proc/sys", "/proc/sys", "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return unix.MountSetattr(unix.AT_FDCWD, "/proc/sys", 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
}

const cgroups = "/sys/fs/cgroup"

// hideCgroups leaves an empty directory where the hierarchies are.
func hideCgroups() error {
	if err := unix.Unmount(cgroups, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
		return err // EINVAL: nothing is mounted
	}
	return unix.Mount("tmpfs", cgroups, "tmpfs", unix.MS_RDONLY, "")
}

// sealCgroups shows them and lets nobody write, as a container's runtime does.
func sealCgroups() error {
	return unix.MountSetattr(unix.AT_FDCWD, cgroups, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
}
