package jail

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"carrel/internal/fdpass"
	"carrel/internal/reap"
)

// ModeNamespace is the argument that makes carrel-worker do nothing: its user
// namespace is all that is wanted of it, and it is killed at once.
const ModeNamespace = "namespace"

// IDMap lets a worker with one host uid have the files of another as its own,
// through mounts that translate owners (mount_setattr(2), MOUNT_ATTR_IDMAP). A
// warm worker needs it: its host uid, a slot's, is chosen at the clone for good,
// and whose files it will have is known only later.
//
//	on disk          in the mount         in the sandbox
//	user's uid  ◀──▶  slot's uid    ◀──▶  1000
//	      the IDMap        the worker's own namespace
//
// The kernel takes the translation from a user namespace, so this is one, empty
// of processes, whose maps are yet to be written. It is made together with the
// warm worker, so that to bind costs two writes and not a process.
type IDMap struct {
	namespace, uids, gids *os.File
}

// NewIDMap makes one; it takes root. Close it when the mounts are made.
func (s *Spawner) NewIDMap(ctx context.Context) (*IDMap, error) {
	a, err := s.ask(ctx, spawnRequest{IDMap: true})
	return a.idMap, err
}

// Set says, once, that what uid onDisk owns is the worker's, whose host uid is
// asWorker, and what the worker makes is onDisk's. The same goes for groups. All
// other owners have no translation: they show as nobody's, cannot be written
// under, and nothing can be given to them.
func (m *IDMap) Set(onDisk, asWorker int) error {
	line := fmt.Sprintf("%d %d 1\n", onDisk, asWorker)
	for _, f := range []*os.File{m.uids, m.gids} {
		if _, err := f.WriteString(line); err != nil {
			return fmt.Errorf("translate owners: %w", err)
		}
	}
	return nil
}

// Close lets go of it; mounts that were made with it keep their translation.
func (m *IDMap) Close() {
	fdpass.CloseAll([]*os.File{m.namespace, m.uids, m.gids})
}

func receiveIDMap(files []*os.File) (*IDMap, error) {
	if len(files) != 3 {
		fdpass.CloseAll(files)
		return nil, errors.New("the spawner sent no namespace")
	}
	return &IDMap{namespace: files[0], uids: files[1], gids: files[2]}, nil
}

// makeIDMap runs in the spawner. Only a process can have a user namespace made,
// and a Go program cannot leave its own (trap 4), so a child is cloned into one;
// as soon as it is there, what it leaves behind is held open and it is killed.
func makeIDMap(r *reap.Reaper, program *os.File) (files []*os.File, err error) {
	fd := -1
	pid, _, err := r.Start(fmt.Sprintf("/proc/self/fd/%d", program.Fd()), []string{"carrel-worker", ModeNamespace}, &syscall.ProcAttr{
		Dir: "/",
		Env: []string{},
		Sys: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, Pdeathsig: syscall.SIGKILL, Setsid: true, PidFD: &fd},
	})
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	defer func() {
		// It succeeds only while the child has its pid, dead or alive: what was
		// opened by that pid was the child's own and no later process's.
		if killErr := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); killErr != nil {
			err = errors.Join(err, fmt.Errorf("end the namespace's process: %w", killErr))
		}
		if err != nil {
			fdpass.CloseAll(files)
		}
	}()
	for _, entry := range []struct {
		name string
		flag int
	}{{"ns/user", os.O_RDONLY}, {"uid_map", os.O_WRONLY}, {"gid_map", os.O_WRONLY}} {
		f, err := os.OpenFile(fmt.Sprintf("/proc/%d/%s", pid, entry.name), entry.flag, 0)
		if err != nil {
			return files, err
		}
		files = append(files, f)
	}
	return files, nil
}

// Hold is what a process of [ModeNamespace] does: nothing, until it is killed.
func Hold() error {
	for {
		if err := unix.Pause(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
