package workspace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"carrel/internal/beneath"
)

// A hard quota is a project quota of ext4 or xfs: files carry a project's number,
// and the kernel holds the sum of a project's files to a limit. A user's project
// is the user's host uid, which no other user has. It is not the owner that
// counts: what the daemon itself writes for a user counts too.
//
// workspace/ and home/ carry the number and hand it down to all that is made in
// them. A sandbox cannot leave its project: out of the first user namespace the
// kernel changes neither the number nor the flag that hands it down
// (fileattr_set_prepare in fs/file_attr.c, Linux), a link into another project is
// refused, and a rename too.
//
// The limit of a removed user's project stays until the uid is given again; no
// file is in that project.

const softFix = "run carrel as root, with SANDBOX_BASE_DIR on xfs, or on ext4 made with -O quota,project, " +
	"mounted with the option prjquota (the kernel needs CONFIG_XFS_QUOTA, or CONFIG_QFMT_V2 for ext4)"

// DetectQuota finds out which quota the file system of the base directory gives;
// where that is not made yet, of the directory that it will be made in. Nothing
// is changed.
//
// A btrfs qgroup is not used: a sandbox may make subvolumes in its workspace, and
// those are not in the group.
func DetectQuota(baseDir string) Quota {
	if os.Geteuid() != 0 {
		return softQuota("the daemon is not root", softFix)
	}
	fd, err := openNearest(baseDir)
	if err != nil {
		return softQuota(err.Error(), softFix)
	}
	defer beneath.Close(fd)
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return softQuota(err.Error(), softFix)
	}
	var name string
	switch st.Type {
	case unix.EXT4_SUPER_MAGIC:
		name = "ext4"
	case unix.XFS_SUPER_MAGIC:
		name = "xfs"
	default:
		return softQuota(fmt.Sprintf("the file system (type %#x) has no project quota", st.Type), softFix)
	}
	// ENOSYS is the answer both of a kernel without quotas and of a mount without.
	if isEnforced, err := projectQuotaState(fd); errors.Is(err, unix.ENOSYS) {
		return softQuota("no project quota is in force on this "+name, softFix)
	} else if err != nil {
		return softQuota(fmt.Sprintf("this %s does not tell of its quota: %v", name, err), softFix)
	} else if !isEnforced {
		return softQuota("project quota is counted but not enforced on this "+name, softFix)
	}
	if attr, err := getAttr(fd); err != nil {
		return softQuota("this "+name+" tells no project: "+err.Error(), softFix)
	} else if attr.project != 0 {
		// What is made here is in that project, which could then not be left.
		return softQuota(fmt.Sprintf("the base directory lies in a project of its own, %d", attr.project),
			"put SANDBOX_BASE_DIR where no project is set (lsattr -p), or take it away with chattr -R -p 0 -P")
	}
	return Quota{IsHard: true, Detail: "hard: project quota of " + name}
}

// openNearest opens path, or the nearest directory above it that there is.
func openNearest(path string) (int, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return -1, err
	}
	for {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == nil {
			return fd, nil
		}
		if !errors.Is(err, unix.ENOENT) || path == "/" {
			return -1, fmt.Errorf("open %s: %w", path, err)
		}
		path = filepath.Dir(path)
	}
}

// inodeBytes is the size of a file by which a limit of bytes becomes one of
// files: without it, empty files would use up the file system's inodes.
const inodeBytes = 4 << 10

// hold sets the user's limit and makes sure that workspace/ and home/ are in the
// user's project. The caller has the user's turn.
func (dir *Dir) hold(ctx context.Context) error {
	id := uint32(dir.UID)
	have, err := getLimit(dir.fd, id)
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESRCH) { // xfs: nothing was set yet
		return fmt.Errorf("read limit of project %d: %w", id, err)
	}
	want := limit(dir.dirs.opts.DiskQuota)
	if have.bytesHard != want.bytesHard || have.filesHard != want.filesHard {
		if err := setLimit(dir.fd, id, want); err != nil {
			return fmt.Errorf("set limit of project %d: %w", id, err)
		}
	}
	for _, sub := range []string{subdirWorkspace, subdirHome} {
		if err := joinProject(ctx, dir.fd, sub, id); err != nil {
			return fmt.Errorf("put %s into project %d: %w", sub, id, err)
		}
	}
	return nil
}

// joinProject puts the directory name in dir and all in it into the project. A
// new directory is empty; one from before there was a quota is gone through once,
// itself last, so that it is not taken for done when it is not.
func joinProject(ctx context.Context, dir int, name string, id uint32) error {
	if isIn, err := isInProject(dir, name, id); isIn || err != nil {
		return err
	}
	w := walk{
		buf: make([]byte, beneath.BufferBytes), links: make(map[uint64]bool),
		visit: func(dir int, name string, mode uint32) error { return setProject(dir, name, mode, id) },
	}
	if err := w.root(ctx, dir, name); err != nil {
		return err
	}
	return setProject(dir, name, unix.S_IFDIR, id)
}

func isInProject(dir int, name string, id uint32) (bool, error) {
	fd, err := beneath.OpenDir(dir, name)
	if err != nil {
		return false, err
	}
	defer beneath.Close(fd)
	attr, err := getAttr(fd)
	return attr.project == id && attr.flags&flagProjInherit != 0, err
}

// setProject puts one file or directory into a project. The other kinds take no
// space; they cannot be opened without a side effect, and stay as they are.
func setProject(dir int, name string, mode, id uint32) error {
	kind := mode & unix.S_IFMT
	if kind != unix.S_IFREG && kind != unix.S_IFDIR {
		return nil
	}
	fd, err := beneath.Open(dir, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer beneath.Close(fd)
	attr, err := getAttr(fd)
	if err != nil {
		return err
	}
	attr.project = id
	if kind == unix.S_IFDIR {
		attr.flags |= flagProjInherit
	}
	return ioctl(fd, ioctlSetAttr, &attr)
}

// projectUsage returns the bytes in the project of the user's directory called
// name; ok is false where they are not in the project yet.
func (d *Dirs) projectUsage(name string) (bytes int64, ok bool, err error) {
	m, err := d.readUser(name)
	if err != nil {
		return 0, false, err
	}
	fd, err := beneath.OpenDir(d.users, name)
	if err != nil {
		return 0, false, err
	}
	defer beneath.Close(fd)
	id := uint32(m.UID)
	for _, sub := range []string{subdirWorkspace, subdirHome} {
		if isIn, err := isInProject(fd, sub, id); !isIn || err != nil {
			return 0, false, err
		}
	}
	have, err := getLimit(fd, id)
	return int64(have.bytes), true, err
}

// fsxattr is struct fsxattr of linux/fs.h.
type fsxattr struct {
	flags, extentSize, extents, project, cowExtentSize uint32

	_ [8]byte
}

const (
	ioctlGetAttr    = 0x801c581f // FS_IOC_FSGETXATTR, _IOR('X', 31, struct fsxattr)
	ioctlSetAttr    = 0x401c5820 // FS_IOC_FSSETXATTR, _IOW('X', 32, struct fsxattr)
	flagProjInherit = 0x200      // FS_XFLAG_PROJINHERIT
)

func getAttr(fd int) (fsxattr, error) {
	var attr fsxattr
	err := ioctl(fd, ioctlGetAttr, &attr)
	return attr, err
}

func ioctl(fd int, request uintptr, attr *fsxattr) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(attr)))
	if errno != 0 {
		return errno
	}
	return nil
}

// dqblk is struct if_dqblk of linux/quota.h. Limits are in KiB, zero is none.
type dqblk struct {
	bytesHard, bytesSoft, bytes uint64
	filesHard, filesSoft, files uint64
	bytesGrace, filesGrace      uint64
	valid                       uint32
}

func limit(bytes int64) dqblk {
	return dqblk{
		bytesHard: uint64(bytes) >> 10,
		filesHard: uint64(max(bytes/inodeBytes, 16)),
		valid:     1 | 4, // QIF_BLIMITS, QIF_ILIMITS
	}
}

// Commands of quotactl(2), for the quota of projects (2).
const (
	quotaGet   = 0x800007<<8 | 2 // Q_GETQUOTA
	quotaSet   = 0x800008<<8 | 2 // Q_SETQUOTA
	quotaState = 0x5808<<8 | 2   // Q_XGETQSTATV
)

func getLimit(fd int, id uint32) (dqblk, error) {
	var q dqblk
	err := quotactl(fd, quotaGet, id, unsafe.Pointer(&q))
	return q, err
}

func setLimit(fd int, id uint32, q dqblk) error {
	return quotactl(fd, quotaSet, id, unsafe.Pointer(&q))
}

// projectQuotaState reports whether the limits of projects are enforced on the
// file system of fd.
func projectQuotaState(fd int) (isEnforced bool, err error) {
	var state struct { // struct fs_quota_statv of linux/dqblk_xfs.h
		version int8
		_       uint8
		flags   uint16
		_       [156]byte
	}
	state.version = 1
	if err := quotactl(fd, quotaState, 0, unsafe.Pointer(&state)); err != nil {
		return false, err
	}
	const accounted, enforced = 1 << 4, 1 << 5 // FS_QUOTA_PDQ_ACCT, FS_QUOTA_PDQ_ENFD
	return state.flags&accounted != 0 && state.flags&enforced != 0, nil
}

// quotactl is quotactl_fd(2), Linux 5.14: it takes no path of a device.
func quotactl(fd int, command, id uint32, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, uintptr(fd), uintptr(command), uintptr(id), uintptr(arg), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
