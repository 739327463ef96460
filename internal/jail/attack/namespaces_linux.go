package attack

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"carrel/internal/jail"
)

// namespaceRows try every way to a new namespace or mount. A new user namespace would
// give every capability in it, and with that most of the kernel's attackable code.
func namespaceRows() []Row {
	row := func(id, title string, attack func(*Target) error, by ...string) Row {
		return Row{ID: id, Group: groupKernel, Tier: Tool, Title: title, StoppedBy: by, Control: Fresh, Attack: attack}
	}
	var rows []Row
	for _, n := range []struct {
		name string
		flag uintptr
	}{
		{"user", unix.CLONE_NEWUSER},
		{"mount", unix.CLONE_NEWNS},
		{"pid", unix.CLONE_NEWPID},
		{"network", unix.CLONE_NEWNET},
		{"ipc", unix.CLONE_NEWIPC},
		{"uts", unix.CLONE_NEWUTS},
		{"cgroup", unix.CLONE_NEWCGROUP},
		{"time", unix.CLONE_NEWTIME},
	} {
		by := func(call string) []string {
			if n.flag == unix.CLONE_NEWUSER {
				return []string{seccompRule(call)} // the one that everybody may make
			}
			return []string{seccompRule(call), capabilities}
		}
		rows = append(rows,
			row("unshare-"+n.name, "unshare: a new "+n.name+" namespace", call(unix.SYS_UNSHARE, n.flag), by("unshare")...),
			row("clone3-"+n.name, "clone3: a new "+n.name+" namespace", clone3Into(n.flag), by("clone3")...))
		// To clone, the bit of CLONE_NEWTIME is part of a signal's number.
		if n.flag != unix.CLONE_NEWTIME {
			rows = append(rows, row("clone-"+n.name, "clone: a new "+n.name+" namespace", cloneInto(n.flag), by("clone")...))
		}
	}
	return append(rows, mountRows()...)
}

func mountRows() []Row {
	row := func(id, title string, c Control, attack func(*Target) error, by ...string) Row {
		return Row{ID: id, Group: groupKernel, Tier: Tool, Title: title, StoppedBy: by, Control: c, Attack: attack}
	}
	return []Row{
		row("mount", "mount a tmpfs", Fresh, func(*Target) error { return unix.Mount("tmpfs", "/tmp", "tmpfs", 0, "") },
			seccompRule("mount"), capabilities, ruleMounts),
		row("mount-bind", "show a directory at another place", Fresh, func(*Target) error {
			return unix.Mount("/usr", "/tmp", "", unix.MS_BIND|unix.MS_REC, "")
		}, seccompRule("mount"), capabilities, ruleMounts),
		row("mount-proc", "mount another proc, without hidepid", Fresh, func(*Target) error { return unix.Mount("proc", "/tmp", "proc", 0, "") },
			seccompRule("mount"), capabilities, ruleMounts),
		row("mount-shared", "have mounts spread", Fresh, func(*Target) error { return unix.Mount("", "/", "", unix.MS_SHARED, "") },
			seccompRule("mount"), capabilities, ruleMounts),
		row("remount", "make the root writable again", Fresh, func(*Target) error {
			return unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND, "")
		}, seccompRule("mount"), capabilities, ruleMounts),
		row("umount", "unmount", Fresh, call(unix.SYS_UMOUNT2, nowhere, 0), seccompRule("umount2")),
		row("open_tree", "copy a mount", Fresh, func(*Target) error {
			_, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
			return err
		}, seccompRule("open_tree"), capabilities),
		row("open_tree_attr", "copy a mount and change its attributes", Fresh, call(sysOpenTreeAttr, cwd, nowhere, unix.OPEN_TREE_CLONE, 0, 0),
			seccompRule("open_tree_attr"), capabilities),
		row("move_mount", "move a mount", Fresh, call(unix.SYS_MOVE_MOUNT, cwd, nowhere, cwd, nowhere, 0), seccompRule("move_mount"), capabilities),
		row("mount_setattr", "change a mount's attributes", Fresh, call(unix.SYS_MOUNT_SETATTR, cwd, nowhere, 0, nowhere, 32), seccompRule("mount_setattr"), capabilities),
		row("fsopen", "make a file system", Fresh, call(unix.SYS_FSOPEN, nowhere, 0), seccompRule("fsopen"), capabilities),
		row("fsconfig", "set up a file system", Plain, call(unix.SYS_FSCONFIG, ^uintptr(0), 0, 0, 0, 0), seccompRule("fsconfig")),
		row("fsmount", "make a mount of a file system", Fresh, call(unix.SYS_FSMOUNT, ^uintptr(0), 0, 0), seccompRule("fsmount"), capabilities),
		row("fspick", "change a file system", Fresh, call(unix.SYS_FSPICK, cwd, nowhere, 0), seccompRule("fspick"), capabilities),
		row("pivot_root", "change the root mount", Fresh, call(unix.SYS_PIVOT_ROOT, nowhere, nowhere), seccompRule("pivot_root"), capabilities),
		row("chroot", "change the root directory", Fresh, func(*Target) error { return unix.Chroot("/tmp") }, seccompRule("chroot"), capabilities),
		row("setns", "enter a namespace", Fresh, func(*Target) error {
			fd, err := unix.Open("/proc/self/ns/uts", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			return unix.Setns(fd, unix.CLONE_NEWUTS)
		}, seccompRule("setns"), capabilities),
		row("setns-pidfd", "enter a namespace by a process", Fresh, func(*Target) error {
			fd, err := unix.PidfdOpen(os.Getpid(), 0)
			if err != nil {
				return err
			}
			return unix.Setns(fd, unix.CLONE_NEWUTS)
		}, seccompRule("setns"), capabilities),
		row("statmount", "look at a mount", Plain, call(unix.SYS_STATMOUNT, nowhere, nowhere, 0, 0), seccompRule("statmount")),
		row("listmount", "look through the mount tree", Plain, call(unix.SYS_LISTMOUNT, nowhere, nowhere, 0, 0), seccompRule("listmount")),
		row("clone3", "clone with flags that no filter sees", Plain, clone3Into(0), seccompRule("clone3")),
		row("open_by_handle_at", "open another user's file by its handle", Root, openHandle,
			seccompRule("open_by_handle_at"), capabilities, jail.LayerUser),
	}
}

// sysOpenTreeAttr is of Linux 6.15.
const sysOpenTreeAttr = 467

// cloneInto starts this program again in a new namespace.
func cloneInto(flag uintptr) func(*Target) error {
	return func(t *Target) error {
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer func() { _ = null.Close() }()
		fd := null.Fd()
		pid, err := syscall.ForkExec(t.Program, []string{t.Program, ModeWhoAmI}, &syscall.ProcAttr{
			Files: []uintptr{fd, fd, fd},
			Sys:   &syscall.SysProcAttr{Cloneflags: flag},
		})
		if err != nil {
			return err
		}
		_, err = unix.Wait4(pid, nil, 0, nil)
		return err
	}
}

// clone3Into forks by clone3. The child has one thread of a Go program and only ends.
func clone3Into(flag uintptr) func(*Target) error {
	return func(*Target) error {
		args := struct { // struct clone_args, linux/sched.h
			flags, pidFD, childTID, parentTID, exitSignal, stack, stackSize, tls uint64
		}{flags: uint64(flag), exitSignal: uint64(unix.SIGCHLD)}
		pid, errno := fork3(unsafe.Pointer(&args), unsafe.Sizeof(args))
		if errno != 0 {
			return errno
		}
		_, err := unix.Wait4(int(pid), nil, 0, nil)
		return err
	}
}

//go:norace
//go:nosplit
func fork3(args unsafe.Pointer, size uintptr) (uintptr, unix.Errno) {
	pid, _, errno := syscall.RawSyscall(unix.SYS_CLONE3, uintptr(args), size, 0)
	if errno == 0 && pid == 0 {
		for {
			_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	return pid, errno
}

// openHandle opens a file of the same file system by a handle that was made outside,
// through a descriptor of the workspace, as it was once done to leave a container.
func openHandle(t *Target) error {
	if len(t.Handle) == 0 {
		return unix.EOPNOTSUPP // by the file system of the host's temporary files
	}
	mount, err := unix.Open(t.Planted, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	fd, err := unix.OpenByHandleAt(mount, unix.NewFileHandle(t.HandleType, t.Handle), unix.O_RDONLY)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "secret")
	defer func() { _ = f.Close() }()
	return t.reads(f)
}
