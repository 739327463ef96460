package attack

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// homeRows are about the worker's home. Landlock does not mediate looking at what is
// there, nor changing its times and modes: the sealed /home does. The worker's own
// domain has its home, so that from there only the seal counts.
func homeRows() []Row {
	var rows []Row
	add := func(id, title string, attack func(home string, t *Target) error, by ...string) {
		rows = append(rows, Row{
			ID: "home-" + id, Group: groupFiles, Tier: Tool, Title: title, StoppedBy: by, Control: Plain,
			Attack:     func(t *Target) error { return attack(t.Home, t) },
			toolsAlone: []string{ruleFiles},
		})
	}
	// Landlock lets nobody do these.
	add("read", "read a file of the worker's home", func(home string, t *Target) error {
		return t.readsSecret(filepath.Join(home, "secret"))
	}, sealedHome, ruleFiles)
	add("list", "list the worker's home", func(home string, _ *Target) error { return listAny(home) }, sealedHome, ruleFiles)
	add("dots", "reach the worker's home by way of one's own root link", func(home string, t *Target) error {
		return t.readsSecret("/proc/self/root/" + home + "/secret")
	}, sealedHome, ruleFiles)
	add("up", "reach the worker's home upward from the workspace", func(home string, t *Target) error {
		return t.readsSecret(t.Planted + "/../../../../../../../.." + home + "/secret")
	}, sealedHome, ruleFiles)
	add("symlink", "read a file of the worker's home by a link", func(home string, t *Target) error {
		link := t.unique("link")
		if err := unix.Symlink(filepath.Join(home, "secret"), link); err != nil {
			return err
		}
		defer func() { _ = unix.Unlink(link) }()
		return t.readsSecret(link)
	}, sealedHome, ruleFiles)
	add("hardlink", "link a file of the worker's home into the workspace", func(home string, t *Target) error {
		return moved(t, func(to string) error { return unix.Link(filepath.Join(home, "secret"), to) })
	}, sealedHome, ruleFiles)
	add("rename", "take a file of the worker's home away", func(home string, t *Target) error {
		from := filepath.Join(home, "secret")
		return moved(t, func(to string) error {
			if err := unix.Rename(from, to); err != nil {
				return err
			}
			return unix.Link(to, from) // where it worked, others want it in its place
		})
	}, sealedHome, ruleFiles)
	add("exchange", "exchange a file of the worker's home with another", func(home string, t *Target) error {
		mine := t.unique("mine")
		if err := os.WriteFile(mine, nil, 0o600); err != nil {
			return err
		}
		defer func() { _ = unix.Unlink(mine) }()
		from := filepath.Join(home, "secret")
		exchange := func() error { return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, mine, unix.RENAME_EXCHANGE) }
		if err := exchange(); err != nil {
			return err
		}
		return exchange()
	}, sealedHome, ruleFiles)
	add("opath", "open a file of the worker's home for its path alone, and that by /proc", func(home string, t *Target) error {
		f, err := os.OpenFile(filepath.Join(home, "secret"), unix.O_PATH, 0)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		return t.readsSecret("/proc/self/fd/" + itoa(f.Fd()))
	}, sealedHome, ruleFiles)
	add("create", "write into the worker's home", func(home string, _ *Target) error {
		return os.WriteFile(filepath.Join(home, "planted"), nil, 0o600)
	}, sealedHome, ruleFiles)
	add("append", "write to a file of the worker's home", func(home string, _ *Target) error {
		return openFor(filepath.Join(home, "secret"), unix.O_WRONLY|unix.O_APPEND)
	}, sealedHome, ruleFiles)
	add("truncate", "make a file of the worker's home as long as it is", func(home string, t *Target) error {
		return unix.Truncate(filepath.Join(home, "secret"), int64(len(t.Sought)))
	}, sealedHome, ruleFiles)
	add("mkdir", "make a directory in the worker's home", func(home string, _ *Target) error {
		return unix.Mkdir(filepath.Join(home, "made-"+itoa(uintptr(os.Getpid()))), 0o700)
	}, sealedHome, ruleFiles)
	add("fifo", "make a FIFO in the worker's home", func(home string, _ *Target) error {
		return unix.Mkfifo(filepath.Join(home, "fifo-"+itoa(uintptr(os.Getpid()))), 0o600)
	}, sealedHome, ruleFiles)
	// These it does not see.
	add("stat", "learn of a file in the worker's home by stat", func(home string, _ *Target) error {
		_, err := os.Lstat(filepath.Join(home, "secret"))
		return err
	}, sealedHome)
	add("access", "learn of it by access", func(home string, _ *Target) error {
		return unix.Access(filepath.Join(home, "secret"), unix.F_OK)
	}, sealedHome)
	add("chdir", "go to the worker's home", func(home string, _ *Target) error {
		back, err := os.Open(".")
		if err != nil {
			return err
		}
		defer func() { _ = back.Close() }()
		if err := unix.Chdir(home); err != nil {
			return err
		}
		return back.Chdir()
	}, sealedHome)
	add("opath-directory", "hold the worker's home for its path alone", func(home string, _ *Target) error {
		return openFor(home, unix.O_PATH|unix.O_DIRECTORY)
	}, sealedHome)
	add("chmod", "change the mode of a file in the worker's home", func(home string, _ *Target) error {
		return unix.Chmod(filepath.Join(home, "secret"), 0o644)
	}, sealedHome)
	add("touch", "change the times of a file in the worker's home", func(home string, _ *Target) error {
		return unix.Utimes(filepath.Join(home, "secret"), nil)
	}, sealedHome)
	add("xattr", "list the attributes of a file in the worker's home", func(home string, _ *Target) error {
		_, err := unix.Listxattr(filepath.Join(home, "secret"), nil)
		return err
	}, sealedHome)
	add("watch", "watch the worker's home", func(home string, _ *Target) error {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		_, err = unix.InotifyAddWatch(fd, home, unix.IN_ALL_EVENTS)
		return err
	}, sealedHome)
	add("statfs", "learn how full the worker's home is", func(home string, _ *Target) error {
		return unix.Statfs(home, &unix.Statfs_t{})
	}, sealedHome)
	add("handle", "learn of a file in the worker's home by a file handle", func(home string, _ *Target) error {
		_, _, err := unix.NameToHandleAt(unix.AT_FDCWD, filepath.Join(home, "secret"), 0)
		return err
	}, sealedHome, seccompRule("name_to_handle_at"))
	add("unseal", "give the directory above the worker's home its permissions back", func(home string, _ *Target) error {
		return unix.Chmod(filepath.Dir(home), 0o755)
	}, mountRO)
	return rows
}

// moved has a file taken to a place in the workspace and reads it there.
func moved(t *Target, take func(to string) error) error {
	to := t.unique("taken")
	if err := take(to); err != nil {
		return err
	}
	defer func() { _ = unix.Unlink(to) }()
	return t.readsSecret(to)
}
