package jail

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"carrel/internal/reap"
)

// ModeInit is the argument that makes carrel-worker PID 1 of a sandbox.
const ModeInit = "init"

// cloneFlags by layer. The user namespace comes with every clone: it is what
// gives the others to an ordinary user.
var cloneFlags = []struct {
	layer string
	flag  uintptr
}{
	{LayerUser, unix.CLONE_NEWUSER},
	{LayerMount, unix.CLONE_NEWNS},
	{LayerPID, unix.CLONE_NEWPID},
	{LayerNetwork, unix.CLONE_NEWNET},
	{LayerIPC, unix.CLONE_NEWIPC},
	{LayerUTS, unix.CLONE_NEWUTS},
	{LayerCgroupNS, unix.CLONE_NEWCGROUP},
}

// spawnRequest asks the spawner for one PID 1, or for an [IDMap]. The descriptors
// of the former: stdin, stdout, stderr, control; then the cgroup's directory if
// there is one.
type spawnRequest struct {
	ID      uint64   `json:"id"`
	IDMap   bool     `json:"id_map,omitempty"`
	HostUID int      `json:"host_uid,omitempty"`
	Without []string `json:"without,omitempty"`
}

// spawnReply answers a request, with a pidfd or an IDMap's files, and later tells
// the process's end.
type spawnReply struct {
	ID     uint64 `json:"id"`
	PID    int    `json:"pid,omitempty"`
	IDMap  bool   `json:"id_map,omitempty"`
	Error  string `json:"error,omitempty"`
	Errno  int    `json:"errno,omitempty"` // the kernel's part of the error
	Exited bool   `json:"exited,omitempty"`
	Status uint32 `json:"status,omitempty"` // wait status
}

// failedReply tells of an error.
func failedReply(id uint64, err error) spawnReply {
	errno, _ := errors.AsType[unix.Errno](err)
	return spawnReply{ID: id, Error: err.Error(), Errno: int(errno)}
}

// spawnError is a failedReply's error on the daemon's side.
type spawnError struct {
	text  string
	errno unix.Errno
}

func (e *spawnError) Error() string { return e.text }

func (e *spawnError) Unwrap() error { return e.errno }

// spawn clones PID 1 of a new sandbox. program is the worker's program, open:
// the child executes it by its descriptor, since as a sandbox's uid it may have
// no way to walk to it. It runs in the spawner only, a process so small that a
// fork of it is cheap (trap 1: with NEWUSER, Go forks for real).
func spawn(r *reap.Reaper, program *os.File, req spawnRequest, files []*os.File) (pid int, pidfd *os.File, exit <-chan reap.Exit, err error) {
	fd := -1
	sys := &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL, // the reaper's forking thread lives as long as the spawner
		Setsid:    true,
		// What PID 1 needs to build its world and no more. It is uid 1000 inside,
		// never 0, so an exec would leave it none without the ambient set.
		AmbientCaps: []uintptr{
			unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_SETPCAP, unix.CAP_SYS_CHROOT,
			unix.CAP_SYS_RESOURCE, // for shareInotify
		},
		UidMappings: []syscall.SysProcIDMap{{ContainerID: UID, HostID: req.HostUID, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: UID, HostID: hostGID(req.HostUID), Size: 1}},
		PidFD:       &fd,
	}
	plan := Plan{Without: req.Without}
	for _, c := range cloneFlags {
		if plan.has(c.layer) {
			sys.Cloneflags |= c.flag
		}
	}
	if os.Geteuid() == 0 {
		// Root's supplementary groups must not come along; an ordinary user
		// cannot drop its own (setgroups is denied to it in a user namespace).
		sys.GidMappingsEnableSetgroups = true
		sys.Credential = &syscall.Credential{Uid: UID, Gid: UID, Groups: []uint32{}}
	}
	if len(files) > fdFirstOther {
		sys.UseCgroupFD, sys.CgroupFD = true, int(files[fdFirstOther].Fd())
	}
	attr := &syscall.ProcAttr{Env: initEnv(), Dir: "/", Sys: sys}
	for _, f := range files[:fdFirstOther] {
		attr.Files = append(attr.Files, f.Fd())
	}
	path := fmt.Sprintf("/proc/self/fd/%d", program.Fd())
	pid, exit, err = r.Start(path, []string{"carrel-worker", ModeInit}, attr)
	if err != nil {
		return 0, nil, nil, err
	}
	if fd >= 0 {
		pidfd = os.NewFile(uintptr(fd), "pidfd")
	}
	return pid, pidfd, exit, nil
}

// initEnv is PID 1's own environment, built from nothing. Its runtime gets one
// processor: each has caches of its own that are filled as they are used, which costs
// an idle worker 0.3 MiB of 1.7 with two (and more on a larger machine), and a worker
// that lives on one CPU's time gains nothing by a second one. What the agent's
// commands get is [Binding.Env].
func initEnv() []string { return []string{"GOMAXPROCS=1"} }

// hostGID is the group that goes with a host uid: the same number for root's
// range, the own group for an ordinary user.
func hostGID(uid int) int {
	if os.Geteuid() == 0 {
		return uid
	}
	return os.Getegid()
}
