package workspace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"carrel/internal/beneath"
	"carrel/protocol"
)

// openBase makes the base directory if it is missing, and opens it. It must be
// the daemon's own and nobody else's to write; what others may merely read is
// repaired, but only where the directory is clearly carrel's, so that a slip in
// the configuration closes nobody's home or /tmp.
func openBase(ctx context.Context, path string, logger *slog.Logger) (int, error) {
	if err := os.MkdirAll(path, beneath.OwnerOnly); err != nil {
		return 0, fmt.Errorf("make base directory: %w", err)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		return 0, fmt.Errorf("open base directory: %s is a symbolic link or no directory; name the directory itself", path)
	} else if err != nil {
		return 0, fmt.Errorf("open base directory: %s: %w", path, err)
	}
	if err := checkBase(ctx, fd, path, logger); err != nil {
		beneath.Close(fd)
		return 0, err
	}
	return fd, nil
}

func checkBase(ctx context.Context, fd int, path string, logger *slog.Logger) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("check base directory: %w", err)
	}
	if int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("base directory %s belongs to uid %d, not to the daemon's %d; change its owner or choose another", path, st.Uid, os.Geteuid())
	}
	mode := st.Mode & 0o777
	if mode == beneath.OwnerOnly {
		return nil
	}
	names, err := beneath.ReadNames(fd)
	if err != nil {
		return fmt.Errorf("read base directory: %w", err)
	}
	isOurs := unix.Faccessat(fd, "users", unix.F_OK, unix.AT_SYMLINK_NOFOLLOW) == nil && mode&0o022 == 0
	if len(names) > 0 && !isOurs {
		return fmt.Errorf("base directory %s has mode %#o, others could have put things into it; empty it, or check it and chmod 700 it, or choose another", path, mode)
	}
	logger.WarnContext(ctx, "base directory was open to others; now it is not", "path", path, "mode", fmt.Sprintf("%#o", mode))
	return closeToOthers(fd, path)
}

// closeToOthers sets mode 0700, and looks whether that took: some file systems
// keep no modes.
func closeToOthers(fd int, path string) error {
	if err := beneath.Chmod(fd, beneath.OwnerOnly); err != nil {
		return fmt.Errorf("chmod 700 %s: %w", path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("check %s: %w", path, err)
	}
	if mode := st.Mode & 0o777; mode != beneath.OwnerOnly {
		return fmt.Errorf("%s stays at mode %#o; its file system keeps no modes, choose another", path, mode)
	}
	return nil
}

// openOwn makes the directory name in dir if it is missing, opens it, and makes
// sure that it is the daemon's alone.
func openOwn(dir int, name string) (int, error) {
	if err := unix.Mkdirat(dir, name, beneath.OwnerOnly); err != nil && !errors.Is(err, unix.EEXIST) {
		return 0, fmt.Errorf("make %s: %w", name, err)
	}
	fd, err := beneath.OpenDir(dir, name)
	if errors.Is(err, unix.EXDEV) {
		return 0, fmt.Errorf("open %s: is a mount of its own; directories could not be renamed into it and out of it", name)
	} else if err != nil {
		return 0, fmt.Errorf("open %s: %w", name, err)
	}
	if _, err := ownDir(fd, os.Geteuid(), -1); err != nil {
		beneath.Close(fd)
		return 0, fmt.Errorf("check %s: %w", name, err)
	}
	return fd, nil
}

// ownDir makes sure that the directory fd belongs to uid (and gid, unless that
// is negative) and has mode 0700. A wrong mode is repaired; a wrong owner is a
// conflict, since what lies inside would be as wrong.
func ownDir(fd, uid, gid int) (repaired bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, err
	}
	if int(st.Uid) != uid || (gid >= 0 && int(st.Gid) != gid) {
		return false, protocol.Errorf(protocol.CodeConflict, "belongs to %d:%d, expected %d:%d", st.Uid, st.Gid, uid, max(gid, uid))
	}
	// Set-group-id is left alone: where the base directory has it, the kernel
	// passes it on, and on a directory of one owner it means nothing.
	if st.Mode&(0o7777&^unix.S_ISGID) == beneath.OwnerOnly {
		return false, nil
	}
	return true, beneath.Chmod(fd, beneath.OwnerOnly)
}

// lockFile is the name of the lock in the base directory.
const lockFile = "lock"

// lockBase takes the lock that one daemon holds on its base directory for as
// long as it lives. The kernel lets go of it with the descriptor, so none is
// ever left behind. The file holds the holder's process id, for people.
func lockBase(base int, path string) (int, error) {
	fd, err := beneath.Open(base, lockFile, unix.O_RDWR|unix.O_CREAT, 0o600)
	if err != nil {
		return 0, fmt.Errorf("open %s: %w", filepath.Join(path, lockFile), err)
	}
	err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		holder := lockHolder(fd)
		beneath.Close(fd)
		return 0, protocol.Errorf(protocol.CodeConflict, "base directory %s is in use by another carrel (%s); stop it, or choose another SANDBOX_BASE_DIR", path, holder)
	}
	if err == nil {
		err = unix.Ftruncate(fd, 0)
	}
	if err == nil {
		_, err = unix.Pwrite(fd, []byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		beneath.Close(fd)
		return 0, fmt.Errorf("lock %s: %w", filepath.Join(path, lockFile), err)
	}
	return fd, nil
}

// lockHolder says who holds the lock, as far as the file tells.
func lockHolder(fd int) string {
	buf := make([]byte, 32)
	n, err := unix.Pread(fd, buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "pid unknown"
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(buf[:max(n, 0)])))
	if err != nil {
		return "pid unknown"
	}
	return fmt.Sprintf("pid %d", pid)
}
