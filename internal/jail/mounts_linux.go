package jail

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// newRoot is where the sandbox's root is built before pivot_root. It must be a
// directory that every host has and that nothing is bound from.
const newRoot = "/sys"

const (
	readOnly    = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	ownFiles    = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	deviceNode  = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC
	mountFlags  = unix.MS_NOSUID | unix.MS_NODEV
	shmShare    = 4    // /dev/shm has 1/4 of /tmp's bytes
	inodeBytes  = 4096 // /tmp has an inode for each of these: it costs kernel memory, about 1 KiB
	rootOptions = "size=1m,nr_inodes=256,mode=0755"
	ptsOptions  = "newinstance,ptmxmode=0666,mode=0600,max=64" // all sandboxes share kernel.pty.max
	filePerm    = 0o644
	dirPerm     = 0o755
	stickyPerm  = "1777"
)

// detach copies the mount at path, with all below it, into a mount that hangs
// nowhere yet, and gives it attributes that hold before anyone can see it. It is
// never MS_REMOUNT: flags that the host has locked cannot be cleared by it, and
// a remount is not recursive (trap 7). owners is nil or translates the owners of
// its files.
func detach(path string, attributes uint64, owners *IDMap) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path,
		unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return nil, fmt.Errorf("open tree %s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	attr := unix.MountAttr{Attr_set: attributes, Propagation: unix.MS_PRIVATE}
	if owners != nil {
		attr.Attr_set |= unix.MOUNT_ATTR_IDMAP
		attr.Userns_fd = uint64(owners.namespace.Fd())
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("set attributes of %s: %w", path, err)
	}
	return f, nil
}

func attach(mount *os.File, target string) error {
	if err := unix.MoveMount(int(mount.Fd()), "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount on %s: %w", strings.TrimPrefix(target, newRoot), err)
	}
	return nil
}

func bind(source, target string, attributes uint64) error {
	mount, err := detach(source, attributes, nil)
	if err != nil {
		return err
	}
	defer func() { _ = mount.Close() }()
	return attach(mount, target)
}

func makePrivate() error {
	return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
}

func mountRoot() error {
	if err := unix.Mount("tmpfs", newRoot, "tmpfs", mountFlags, rootOptions); err != nil {
		return err
	}
	return makeDirs("usr", "etc", "dev", "proc", "tmp", "run", "run/carrel", "workspace", "home", "home/agent")
}

func makeDirs(names ...string) error {
	for _, name := range names {
		if err := os.Mkdir(filepath.Join(newRoot, name), dirPerm); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// mountSystem shows the host's programs and libraries, and nothing else of it.
// On a merged-/usr host all but /usr are links.
func mountSystem() error {
	for _, dir := range []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"} {
		info, err := os.Lstat(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return err
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(dir)
			if err == nil {
				err = os.Symlink(to, newRoot+dir)
			}
			if err != nil {
				return err
			}
		default:
			if err := makeDirs(dir); err != nil {
				return err
			}
			if err := bind(dir, newRoot+dir, readOnly); err != nil {
				return err
			}
		}
	}
	return nil
}

// mountProc shows the processes of this PID namespace only, and of those only
// the ones the reader may trace: hidepid=2 keeps even the worker's command line
// from the tools. EPERM means that the host's own /proc is partly masked, as in
// a container (trap 6).
func mountProc() error {
	return unix.Mount("proc", newRoot+"/proc", "proc", mountFlags|unix.MS_NOEXEC, "hidepid=2")
}

func mountTmp(bytes uint64) error {
	return unix.Mount("tmpfs", newRoot+"/tmp", "tmpfs", mountFlags, tmpfsOptions(bytes))
}

func tmpfsOptions(bytes uint64) string {
	return "size=" + strconv.FormatUint(bytes, 10) + ",nr_inodes=" + strconv.FormatUint(max(1, bytes/inodeBytes), 10) + ",mode=" + stickyPerm
}

// mountDev makes the few devices a program expects. The nodes are the host's own
// (mknod needs a privilege nobody here has), bound one by one; everything else
// of the host's /dev stays out.
func mountDev(tmpBytes uint64) error {
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		node := "/dev/" + name
		if err := os.WriteFile(newRoot+node, nil, filePerm); err != nil {
			return err
		}
		if err := bind(node, newRoot+node, deviceNode); err != nil {
			return err
		}
	}
	if err := makeDirs("dev/pts", "dev/shm"); err != nil {
		return err
	}
	if err := unix.Mount("devpts", newRoot+"/dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, ptsOptions); err != nil {
		return fmt.Errorf("devpts: %w", err)
	}
	shm := tmpfsOptions(tmpBytes / shmShare)
	if err := unix.Mount("tmpfs", newRoot+"/dev/shm", "tmpfs", mountFlags|unix.MS_NOEXEC, shm); err != nil {
		return fmt.Errorf("shm: %w", err)
	}
	for name, to := range map[string]string{
		"ptmx": "pts/ptmx", "fd": "/proc/self/fd",
		"stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(to, newRoot+"/dev/"+name); err != nil {
			return err
		}
	}
	return nil
}

// mountWorker puts the worker's own program at [WorkerPath]. The path is read
// from the plan, not from /proc/self/exe, which after clone and exec points into
// the old mount namespace (trap 5).
func mountWorker(path string, mount *os.File) error {
	target := newRoot + WorkerPath
	if err := os.WriteFile(target, nil, filePerm); err != nil {
		return err
	}
	if mount != nil {
		return attach(mount, target)
	}
	return bind(path, target, readOnly)
}

// bindUser shows the user's two directories.
func bindUser(b *Binding, mounts []*os.File) error {
	if len(mounts) == 2 {
		if err := attach(mounts[0], newRoot+WorkspaceDir); err != nil {
			return err
		}
		return attach(mounts[1], newRoot+HomeDir)
	}
	if err := bind(b.Workspace, newRoot+WorkspaceDir, ownFiles); err != nil {
		return err
	}
	return bind(b.Home, newRoot+HomeDir, ownFiles)
}

// pivot makes newRoot the root and lets go of the old one: no path, not even
// "..", leads there afterwards.
func pivot() error {
	if err := unix.Chdir(newRoot); err != nil {
		return err
	}
	// The old root is stacked on the new one's place, and unmounted from there:
	// the form pivot_root(2) gives for needing no directory to put it in.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach old root: %w", err)
	}
	return unix.Chdir("/")
}

// sealRoot takes the door to /home/agent away from paths and makes the root
// read-only, so that nobody can put it back. The tools share the worker's uid;
// with no permission on /home they cannot even learn the names below it, which
// Landlock alone would let them (it does not mediate stat). The worker holds a
// descriptor from before.
func sealRoot() error {
	if err := os.Chmod("/home", 0); err != nil {
		return err
	}
	attr := unix.MountAttr{Attr_set: readOnly}
	return unix.MountSetattr(unix.AT_FDCWD, "/", 0, &attr)
}
